//! Who is never blocked, as the sensor sees it: what was configured, the resolvers, and the host's surroundings.
//!
//! The helper is told the configured part and adds the surroundings itself; it decides again.
#![forbid(unsafe_code)]

use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;

use crate::config::Loaded;
use crate::netlink::surroundings::Surroundings;
use crate::networks::Networks;

/// Where resolvers are listed: resolv.conf(5), and the true ones behind systemd-resolved's stub.
const RESOLVER_FILES: [&str; 2] = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];

/// NEVER_BLOCK, the ignore file and the resolvers: what does not change by itself.
pub fn configured(loaded: &Loaded) -> Vec<IpNet> {
    let resolvers = resolvers().into_iter().map(IpNet::from);
    loaded.config.never_block.iter().chain(&loaded.ignored).copied().chain(resolvers).collect()
}

/// The host's resolvers.
pub fn resolvers() -> Vec<IpAddr> {
    let files = RESOLVER_FILES.iter().filter_map(|path| std::fs::read_to_string(Path::new(path)).ok());
    files.flat_map(|text| nameservers(&text)).collect()
}

/// The whole set as of now.
pub fn in_force(configured: &[IpNet], surroundings: &Surroundings) -> Networks {
    configured.iter().copied().chain(surroundings.never_block()).collect()
}

/// The addresses of `nameserver` lines; a zone (`fe80::1%eth0`) is not part of the address.
fn nameservers(text: &str) -> Vec<IpAddr> {
    let address = |line: &str| {
        let mut words = line.split_whitespace();
        (words.next()? == "nameserver").then_some(())?;
        words.next()?.split('%').next()?.parse::<IpAddr>().ok()
    };
    text.lines().filter_map(address).map(|address| address.to_canonical()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nameserver_lines_are_read_and_all_else_is_not() {
        let text = "# nameserver 192.0.2.9\n  nameserver\t192.0.2.1 # home\nnameserver fe80::1%eth0\nsearch nameserver\nnameserver x\nnameserver";
        let addresses: Vec<String> = nameservers(text).iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["192.0.2.1", "fe80::1"]);
    }
}
