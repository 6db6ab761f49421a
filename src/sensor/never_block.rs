//! Who is never blocked, as the sensor sees it: what was configured, the resolvers, and the host's surroundings.
//!
//! The helper is told the configured part and adds the surroundings itself; it decides again.
#![forbid(unsafe_code)]

use std::io::ErrorKind;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::config::{Config, Loaded};
use crate::netlink::surroundings::Surroundings;
use crate::networks::Networks;

/// Where resolvers are listed: resolv.conf(5), and the true ones behind a stub of systemd-resolved and of NetworkManager's.
const RESOLVER_FILES: [&str; 3] =
    ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf", "/run/NetworkManager/no-stub-resolv.conf"];

/// NEVER_BLOCK, the ignore file and the resolvers: what does not change by itself.
pub fn configured(loaded: &Loaded, resolvers: &[IpAddr]) -> Vec<IpNet> {
    loaded.never_block().chain(resolvers.iter().copied().map(IpNet::from)).collect()
}

/// The host's resolvers, and of each file that is there but cannot be read what that means.
pub fn resolvers() -> (Vec<IpAddr>, Vec<String>) {
    listed_in(&RESOLVER_FILES)
}

/// What is said where all resolvers that are known are this host itself and somebody may be blocked: whom it asks then,
/// nobody tells.
pub fn only_a_stub(config: &Config, resolvers: &[IpAddr]) -> Option<&'static str> {
    let is_stub = !resolvers.is_empty() && resolvers.iter().all(IpAddr::is_loopback);
    (is_stub && config.blocks()).then_some(
        "the resolver that this host asks is one of its own, and whom that asks is not known here: a forged packet may have those servers blocked, unless they stand in NEVER_BLOCK; in a container, mount the host's /run/systemd/resolve/resolv.conf where it has one",
    )
}

/// Whether somebody is listed who may be the servers behind a stub: a list does not say what it lists. What every list of
/// PortSentry's begins with, loopback and 0.0.0.0, is none of them.
pub fn lists_others(loaded: &Loaded) -> bool {
    let is_nobody = |net: &IpNet| net.prefix_len() == net.max_prefix_len() && net.addr().is_unspecified();
    loaded.never_block().any(|net| !net.addr().is_loopback() && !is_nobody(&net))
}

fn listed_in(files: &[&str]) -> (Vec<IpAddr>, Vec<String>) {
    let (mut addresses, mut unreadable) = (Vec::new(), Vec::new());
    for path in files {
        match std::fs::read(path) {
            // A comment may be in any encoding.
            Ok(bytes) => addresses.extend(nameservers(&String::from_utf8_lossy(&bytes))),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {}
            Err(error) => unreadable.push(format!(
                "the resolvers that {path} names are not protected, for it cannot be read: {error}; make it readable and restart, or list them in NEVER_BLOCK"
            )),
        }
    }
    (addresses, unreadable)
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
    use crate::config::BlockMode;

    #[test]
    fn nameserver_lines_are_read_and_all_else_is_not() {
        let text = "# nameserver 192.0.2.9\n  nameserver\t192.0.2.1 # home\nnameserver fe80::1%eth0\nsearch nameserver\nnameserver ::ffff:192.0.2.3\nnameserver x\nnameserver";
        let addresses: Vec<String> = nameservers(text).iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["192.0.2.1", "fe80::1", "192.0.2.3"]);
    }

    #[test]
    fn a_stub_alone_is_told_of_where_somebody_may_be_blocked() {
        let told = |block_udp: BlockMode, texts: &[&str]| {
            let config = Config { block_udp, ..Config::default() };
            let resolvers: Vec<IpAddr> = texts.iter().map(|text| text.parse().unwrap()).collect();
            only_a_stub(&config, &resolvers).is_some()
        };
        let block = BlockMode::Block;
        assert!(told(block, &["127.0.0.53"]) && told(block, &["127.0.0.1", "::1"]));
        assert!(!told(block, &[]) && !told(block, &["127.0.0.53", "192.0.2.1"]));
        assert!(!told(BlockMode::Log, &["127.0.0.53"]));
    }

    #[test]
    fn a_file_in_another_encoding_is_read_and_one_that_cannot_be_read_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("resolv.conf");
        std::fs::write(&path, b"# B\xfcro\nnameserver 192.0.2.1\nsearch caf\xe9\nnameserver 192.0.2.2\n")
            .unwrap();
        let (path, none) = (path.to_str().unwrap(), format!("{}/none", folder.path().display()));
        let (addresses, unreadable) = listed_in(&[path, &none, &format!("{path}/x")]);
        assert_eq!((addresses.len(), unreadable), (2, Vec::new()));
        let (addresses, unreadable) = listed_in(&[folder.path().to_str().unwrap(), path]);
        assert_eq!((addresses.len(), unreadable.len()), (2, 1));
        assert!(
            unreadable[0].contains("not protected") && unreadable[0].contains("NEVER_BLOCK"),
            "{unreadable:?}"
        );
    }
}
