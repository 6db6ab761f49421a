//! Which ports of which hosts have a socket, learnt from what these hosts sent: in place of the kernel's socket tables.
//!
//! Pure. Bounded: beyond the bound nothing more is learnt.
#![forbid(unsafe_code)]

use std::collections::HashSet;
use std::net::IpAddr;

use crate::config::PortSet;
use crate::detect::probe::Protocol;
use crate::packet::{Packet, TcpFlags, Transport};

/// Sockets that are remembered: about 30 MB at most.
const MOST: usize = 1 << 19;

/// SCTP's ABORT chunk (RFC 9260 §3.3.7): what a port without a socket answers.
const ABORT: u8 = 6;

/// The sockets seen.
#[derive(Debug)]
pub(super) struct Services {
    sockets: HashSet<(IpAddr, Protocol, u16)>,
    tcp_decoys: PortSet,
    udp_decoys: PortSet,
}

impl Services {
    /// None yet. A decoy's answers make it no service.
    pub(super) fn new(tcp_decoys: PortSet, udp_decoys: PortSet) -> Services {
        Services { sockets: HashSet::new(), tcp_decoys, udp_decoys }
    }

    /// Whoever sends anything but a refusal from a port has a socket there.
    pub(super) fn learn(&mut self, packet: &Packet) {
        let Some((protocol, port)) = sender(packet.transport) else { return };
        if self.sockets.len() < MOST && !self.is_decoy(protocol, port) {
            self.sockets.insert((packet.source, protocol, port));
        }
    }

    /// Whether `host` has a socket there.
    pub(super) fn holds(&self, host: IpAddr, protocol: Protocol, port: u16) -> bool {
        self.sockets.contains(&(host, protocol, port))
    }

    /// What a decoy says.
    pub(super) fn is_of_a_decoy(&self, packet: &Packet) -> bool {
        sender(packet.transport).is_some_and(|(protocol, port)| self.is_decoy(protocol, port))
    }

    /// Whether a decoy listens there.
    pub(super) fn is_decoy(&self, protocol: Protocol, port: u16) -> bool {
        match protocol {
            Protocol::Tcp => self.tcp_decoys.contains(port),
            Protocol::Udp => self.udp_decoys.contains(port),
            Protocol::Sctp | Protocol::Icmp | Protocol::Ip => false,
        }
    }
}

/// The socket that sends such a packet, if one is needed to.
fn sender(transport: Transport) -> Option<(Protocol, u16)> {
    match transport {
        Transport::Tcp { flags, source_port, .. } => {
            (!flags.has(TcpFlags::RST)).then_some((Protocol::Tcp, source_port))
        }
        Transport::Udp { source_port, .. } => Some((Protocol::Udp, source_port)),
        Transport::Sctp { source_port, chunk, .. } => {
            (chunk != ABORT).then_some((Protocol::Sctp, source_port))
        }
        // Whoever sends an IP protocol speaks it.
        Transport::Other { protocol } => Some((Protocol::Ip, protocol.into())),
        Transport::Icmp { .. }
        | Transport::TinyFragment { .. }
        | Transport::LaterFragment { .. }
        | Transport::Buried => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn services() -> Services {
        Services::new([23].into_iter().collect(), PortSet::new())
    }

    fn packet(transport: Transport) -> Packet {
        let (source, destination) = ([192, 0, 2, 1].into(), [192, 0, 2, 2].into());
        Packet { source, destination, ip_options: None, transport }
    }

    fn segment(source_port: u16, flags: u8) -> Packet {
        let flags = TcpFlags(flags);
        packet(Transport::Tcp { source_port, port: 9, flags, sequence: 0, payload: 0 })
    }

    #[test]
    fn what_a_host_sends_shows_its_sockets_but_a_refusal_or_a_decoy_shows_none() {
        let mut services = services();
        for known in [
            segment(80, TcpFlags::SYN | TcpFlags::ACK),
            segment(81, TcpFlags::RST | TcpFlags::ACK),
            segment(23, TcpFlags::SYN | TcpFlags::ACK),
            packet(Transport::Udp { source_port: 53, port: 9, payload: 0 }),
            packet(Transport::Sctp { source_port: 36, port: 9, chunk: 2 }),
            packet(Transport::Sctp { source_port: 37, port: 9, chunk: ABORT }),
            packet(Transport::Other { protocol: 47 }),
            packet(Transport::Icmp { kind: 0, code: 0 }),
        ] {
            services.learn(&known);
        }
        let mut learnt: Vec<_> =
            services.sockets.iter().map(|&(_, protocol, port)| (protocol as u8, port)).collect();
        learnt.sort_unstable();
        assert_eq!(learnt, [(0, 47), (6, 80), (17, 53), (132, 36)]);
        let (host, other) = ([192, 0, 2, 1].into(), [192, 0, 2, 2].into());
        assert!(services.holds(host, Protocol::Tcp, 80) && !services.holds(other, Protocol::Tcp, 80));
    }
}
