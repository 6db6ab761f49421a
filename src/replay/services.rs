//! Which ports of which hosts have a socket, learnt from what these hosts sent: in place of the kernel's socket tables.
//!
//! Pure. Bounded: beyond the bound nothing more is learnt.
#![forbid(unsafe_code)]

use std::collections::HashSet;
use std::net::IpAddr;

use crate::config::BothPorts;
use crate::detect::probe::{Probe, Protocol};
use crate::packet::{Packet, TcpFlags, Transport};

/// Sockets that are remembered: about 30 MB at most.
const MOST: usize = 1 << 19;

/// SCTP's ABORT chunk (RFC 9260 §3.3.7): what a port without a socket answers.
const ABORT: u8 = 6;

/// Echo requests and their answers: of ICMP (RFC 792), of ICMPv6 (RFC 4443).
const ECHOES: [(u8, u8); 2] = [(8, 0), (128, 129)];

/// The sockets seen.
#[derive(Debug)]
pub(super) struct Services {
    sockets: HashSet<(IpAddr, Protocol, u16)>,
    decoys: BothPorts,
}

impl Services {
    /// None yet. A decoy's answers make it no service.
    pub(super) fn new(decoys: BothPorts) -> Services {
        Services { sockets: HashSet::new(), decoys }
    }

    /// Whoever sends anything but a refusal from a port has a socket there.
    pub(super) fn learn(&mut self, packet: &Packet) {
        let Some((protocol, port)) = sender(packet.transport) else { return };
        if self.sockets.len() < MOST && !self.is_decoy(protocol, port) {
            self.sockets.insert((packet.source, protocol, port));
        }
    }

    /// Whether its destination has a socket for `probe`.
    pub(super) fn take_in(&self, probe: &Probe) -> bool {
        let Probe { destination, protocol, port, sequence, .. } = *probe;
        // An ICMP query has no port, but a type.
        let port = if protocol == Protocol::Icmp { sequence as u16 } else { port };
        self.sockets.contains(&(destination, protocol, port))
    }

    /// What a decoy says.
    pub(super) fn is_of_a_decoy(&self, packet: &Packet) -> bool {
        sender(packet.transport).is_some_and(|(protocol, port)| self.is_decoy(protocol, port))
    }

    /// Whether a decoy listens there.
    pub(super) fn is_decoy(&self, protocol: Protocol, port: u16) -> bool {
        self.decoys.contains(protocol, port)
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
        // Answers to pings, as if what answers had a socket by the name of the question.
        Transport::Icmp { kind, .. } => {
            let question = ECHOES.iter().find(|(_, answer)| *answer == kind)?.0;
            Some((Protocol::Icmp, question.into()))
        }
        // Whoever sends an IP protocol speaks it.
        Transport::Other { protocol } => Some((Protocol::Ip, protocol.into())),
        Transport::TinyFragment { .. } | Transport::LaterFragment { .. } | Transport::Buried => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn services() -> Services {
        Services::new([(Protocol::Tcp, 23)].into_iter().collect())
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
            packet(Transport::Icmp { kind: 3, code: 3 }),
            packet(Transport::Icmp { kind: 8, code: 0 }),
            packet(Transport::Icmp { kind: 14, code: 0 }),
        ] {
            services.learn(&known);
        }
        let mut learnt: Vec<_> =
            services.sockets.iter().map(|&(_, protocol, port)| (protocol as u8, port)).collect();
        learnt.sort_unstable();
        assert_eq!(learnt, [(0, 47), (1, 8), (6, 80), (17, 53), (132, 36)]);
        let knock = |destination: [u8; 4], transport| {
            let question = Packet { destination: destination.into(), ..packet(transport) };
            services.take_in(&Probe::from_packet(&question).unwrap())
        };
        let [syn, ping, timestamp] = [
            segment(9, TcpFlags::SYN).transport,
            Transport::Icmp { kind: 8, code: 0 },
            Transport::Icmp { kind: 13, code: 0 },
        ];
        assert_eq!(
            [syn, ping, timestamp].map(|transport| knock([192, 0, 2, 1], transport)),
            [false, true, false]
        );
        let web = Transport::Tcp { source_port: 9, port: 80, flags: TcpFlags(2), sequence: 0, payload: 0 };
        assert_eq!([1, 2].map(|host| knock([192, 0, 2, host], web)), [true, false]);
        assert!(!knock([192, 0, 2, 2], ping));
    }
}
