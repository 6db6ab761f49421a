//! A flow: two ends and a protocol, as the protected host sees it, and what a packet of it says about it.
//!
//! Pure, for the ring threads. Never remembers anything.
#![forbid(unsafe_code)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use siphasher::sip::SipHasher13;

use super::Part;
use crate::detect::probe::{Probe, Protocol};
use crate::packet::{Packet, TcpFlags, Transport};

/// A flow as the protected host sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flow {
    pub protocol: Protocol,
    pub host: IpAddr,
    pub peer: IpAddr,
    pub port: u16,
    pub peer_port: u16,
}

impl Flow {
    /// The flow that `packet` of ours opens or goes on with; `None` where it refuses or closes one.
    pub fn sent(packet: &Packet) -> Option<(Flow, Part)> {
        let (protocol, port, peer_port, part) = match packet.transport {
            Transport::Tcp { source_port, port, flags, .. } => {
                (Protocol::Tcp, source_port, port, tcp_part(flags)?)
            }
            Transport::Udp { source_port, port, .. } => (Protocol::Udp, source_port, port, Part::Asked),
            Transport::Sctp { source_port, port, chunk } => {
                (Protocol::Sctp, source_port, port, sctp_part(chunk)?)
            }
            Transport::Icmp { .. }
            | Transport::TinyFragment { .. }
            | Transport::LaterFragment { .. }
            | Transport::Buried
            | Transport::Other { .. } => return None,
        };
        Some((Flow { protocol, host: packet.source, peer: packet.destination, port, peer_port }, part))
    }

    /// The flow of TCP that `packet`, which came in, belongs to.
    pub fn received(packet: &Packet) -> Option<Flow> {
        let Transport::Tcp { source_port: peer_port, port, .. } = packet.transport else { return None };
        let (host, peer) = (packet.destination, packet.source);
        Some(Flow { protocol: Protocol::Tcp, host, peer, port, peer_port })
    }

    pub fn between(protocol: Protocol, local: SocketAddr, remote: SocketAddr) -> Flow {
        let [(host, port), (peer, peer_port)] = [local, remote].map(|end| (end.ip(), end.port()));
        Flow { protocol, host, peer, port, peer_port }
    }

    pub fn of(probe: &Probe) -> Flow {
        Flow {
            protocol: probe.protocol,
            host: probe.destination,
            peer: probe.source,
            port: probe.port,
            peer_port: probe.source_port,
        }
    }

    /// The same with anybody: whom a question to all addresses it is answered by, and from which port.
    pub fn with_anybody(self) -> Flow {
        let peer = match self.host {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        Flow { peer, peer_port: 0, ..self }
    }

    /// Whether all who hear it are asked: multicast (SSDP, mDNS, WS-Discovery) or broadcast. How long a network's prefix is
    /// nobody knows here; nearly all broadcast addresses end in 255.
    pub fn asks_everybody(&self) -> bool {
        match self.peer {
            IpAddr::V4(peer) => peer.is_multicast() || peer.octets().last() == Some(&255),
            IpAddr::V6(peer) => peer.is_multicast(),
        }
    }

    pub fn hash(self, hasher: &SipHasher13, part: Part) -> u64 {
        let mut bytes = [0_u8; 38];
        let (ends, rest) = bytes.split_at_mut(32);
        for (slot, address) in ends.chunks_exact_mut(16).zip([self.host, self.peer]) {
            slot.copy_from_slice(&match address {
                IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
                IpAddr::V6(address) => address.octets(),
            });
        }
        let [a, b] = self.port.to_be_bytes();
        let [c, d] = self.peer_port.to_be_bytes();
        rest.copy_from_slice(&[a, b, c, d, self.protocol as u8, part as u8]);
        hasher.hash(&bytes)
    }
}

/// A RST answers what belongs to no connection, so it makes none.
fn tcp_part(flags: TcpFlags) -> Option<Part> {
    match (flags.has(TcpFlags::RST), flags.has(TcpFlags::SYN | TcpFlags::ACK)) {
        (true, _) => None,
        (false, true) => Some(Part::Accepted),
        (false, false) => Some(Part::Asked),
    }
}

/// INIT ACK (2) is a service's, ABORT (6) refuses (RFC 9260 §3.2, §8.4); all others belong to an association of ours.
fn sctp_part(chunk: u8) -> Option<Part> {
    match chunk {
        6 => None,
        2 => Some(Part::Accepted),
        _ => Some(Part::Asked),
    }
}
