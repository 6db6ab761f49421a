//! Which ports the rings are to see: the watched ones always, of all others those that nobody uses.
//!
//! Pure, main thread. What it leaves out costs nothing at all: the kernel's filter keeps it from waking us.
#![forbid(unsafe_code)]

use super::filter::{Interest, Watched};
use super::ports_in_use::PortsInUse;
use crate::config::PortSet;
use crate::detect::policy::Watch;
use crate::detect::probe::Protocol;
use crate::detect::weights::FIRST_EPHEMERAL_PORT;

/// What `watch` asks for of what comes in by `interfaces`, while the ports of `in_use` are in use.
pub fn wanted(interfaces: Watched, watch: &Watch, in_use: &PortsInUse) -> Interest {
    let below = |ports: &PortSet| ports.iter().filter(|&port| port < FIRST_EPHEMERAL_PORT).collect();
    if !watch.walk.is_on() {
        return Interest {
            tcp: watch.tcp_ports.clone(),
            // Above are the ports that this host connects from: their peers' ACKs are no probes.
            tcp_acks: below(&watch.tcp_ports),
            udp: watch.udp_ports.clone(),
            interfaces,
            ..Interest::default()
        };
    }
    let free = |protocol| (0..=u16::MAX).filter(move |&port| !in_use.holds(protocol, port));
    let tcp = watch.tcp_ports.union(&free(Protocol::Tcp).collect());
    let udp: PortSet = free(Protocol::Udp).collect();
    let servers = below(&udp);
    Interest {
        tcp_acks: below(&tcp),
        tcp,
        udp: watch.udp_ports.union(&servers),
        udp_clients: udp.without(&servers),
        icmp: true,
        other_protocols: true,
        interfaces,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::policy::samples;
    use crate::detect::weights::Sensitivity;
    use crate::netlink::sock_diag::{LocalSocket, Transport};

    fn watch(sensitivity: Sensitivity) -> Watch {
        Watch {
            tcp_ports: [80, 111, 40_000].into_iter().collect(),
            udp_ports: [69, 50_000].into_iter().collect(),
            ..samples::watch(sensitivity)
        }
    }

    fn in_use() -> PortsInUse {
        let socket = |transport, local: &str| {
            let local = local.parse().unwrap();
            LocalSocket { transport, local, remote: None, only_v6: false, interface: 0, inode: 0, uid: 0 }
        };
        let ports = PortsInUse::new(false);
        let sockets = ["0.0.0.0:80", "[::]:443"].map(|local| socket(Transport::Tcp, local));
        let datagrams = ["0.0.0.0:53", "0.0.0.0:45000"].map(|local| socket(Transport::Udp, local));
        ports.replace(&[sockets, datagrams].concat(), |_, _| false, |_, _| false, 1);
        ports
    }

    #[test]
    fn ports_in_use_are_left_out_unless_they_are_watched() {
        let interest = wanted(Watched::default(), &watch(Sensitivity::Medium), &in_use());
        let goes_up = |port| (interest.tcp.contains(port), interest.tcp_acks.contains(port));
        assert_eq!([80, 443, 8080].map(goes_up), [(true, true), (false, false), (true, true)]);
        assert_eq!([40_000, 40_001].map(goes_up), [(true, false), (true, false)]);
        let datagrams = |port| (interest.udp.contains(port), interest.udp_clients.contains(port));
        assert_eq!(
            [53, 54, 45_000, 45_001, 50_000].map(datagrams),
            [(false, false), (true, false), (false, false), (false, true), (true, true)]
        );
    }

    #[test]
    fn without_a_walk_nothing_but_watched_ports_goes_up() {
        let interest = wanted(Watched::default(), &watch(Sensitivity::Off), &in_use());
        assert_eq!((interest.tcp.len(), interest.tcp_acks.len(), interest.udp.len()), (3, 2, 2));
        assert!(interest.udp_clients.is_empty() && !interest.icmp && !interest.other_protocols);
    }

    #[test]
    fn the_interfaces_are_those_that_are_watched_and_port_0_is_as_free_as_any() {
        let interfaces = Watched::Indexes(vec![7]);
        let interests = [Sensitivity::Off, Sensitivity::Medium]
            .map(|sensitivity| wanted(interfaces.clone(), &watch(sensitivity), &in_use()));
        assert!(interests.iter().all(|interest| interest.interfaces == interfaces));
        let [_, interest] = interests;
        assert!([&interest.tcp, &interest.tcp_acks, &interest.udp].iter().all(|ports| ports.contains(0)));
    }
}
