//! INTERFACES that names the port of a bridge: what comes to the bridge's own hardware address the port takes for another's.
//!
//! Told at the start and by `check`. Must not judge what the kernel does with it: only names what else to write.
#![forbid(unsafe_code)]

use crate::config::Interfaces;
use crate::netlink::surroundings::Surroundings;

/// A sentence for each port that is named without its bridge.
pub fn told(interfaces: &Interfaces, surroundings: &Surroundings) -> Vec<String> {
    let Interfaces::Named(names) = interfaces else { return Vec::new() };
    let is_named = |index: u32| names.iter().any(|name| surroundings.is_called(index, name));
    let ports = surroundings.links().filter(|link| is_named(link.index));
    let alone = ports.filter_map(|link| Some((link, link.bridge.filter(|&bridge| !is_named(bridge))?)));
    alone
        .filter_map(|(link, bridge)| {
            let (port, bridge) = (&link.name, surroundings.interface_name(bridge)?);
            Some(format!(
                "INTERFACES names {port}, a port of {bridge}: what comes to this host by a bridge is seen at its ports only where their hardware address is the bridge's own; name {bridge}"
            ))
        })
        .collect()
}
