//! Whether the network that is watched is the host's: in a container it usually is not. Sensor, at the start.
//!
//! Reads names below /proc/sys, which show the reader's own network namespace, and nothing else.
#![forbid(unsafe_code)]

use std::path::Path;

use crate::event::Network;

/// What is told beside the `start` event where the network is not the host's.
pub const OWN: &str = "this network namespace is not the host's: only what reaches it is seen, and only here is anybody blocked; to watch the host run the container with --network=host";

/// Whose network this is. Limits of all network devices together, as `netdev_budget`, are the business of the namespace
/// that the machine booted with, and the kernel shows them nowhere else (net/core/sysctl_net_core.c).
pub fn whose() -> Network {
    told_by(Path::new("/proc/sys/net/core"))
}

fn told_by(sysctls: &Path) -> Network {
    let is_there = |name: &str| sysctls.join(name).exists();
    match (is_there("netdev_budget"), is_there("somaxconn")) {
        (true, _) => Network::Host,
        (false, true) => Network::Own,
        // A /proc of processes alone, as under ProcSubset=pid.
        (false, false) => Network::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_claimed_where_proc_does_not_tell() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(told_by(folder.path()), Network::Unknown);
        std::fs::write(folder.path().join("somaxconn"), "").unwrap();
        assert_eq!(told_by(folder.path()), Network::Own);
        std::fs::write(folder.path().join("netdev_budget"), "").unwrap();
        assert_eq!(told_by(folder.path()), Network::Host);
    }
}
