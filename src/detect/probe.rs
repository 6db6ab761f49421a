//! What one packet (or one visit to a decoy) is as a probe.
//!
//! Pure; run by the ring threads for every packet. Never decides whether a probe matters, only what it is.
#![forbid(unsafe_code)]

mod kinds;

use std::net::IpAddr;

pub use self::kinds::{Protocol, ScanType};
use super::peers::Course;
use crate::packet::{Packet, TcpFlags, Transport};

/// One contact with a port by a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Who asked.
    pub source: IpAddr,
    /// Which of our addresses was asked.
    pub destination: IpAddr,
    /// Source port, 0 where there is none.
    pub source_port: u16,
    /// Destination port, 0 where there is none; for [`Protocol::Ip`] the IANA protocol number.
    pub port: u16,
    /// Transport.
    pub protocol: Protocol,
    /// What kind of scan sends such a packet.
    pub scan_type: ScanType,
    /// TCP flags as seen, 0 where there are none.
    pub flags: TcpFlags,
    /// TCP sequence number, for ICMP the message's type, 0 elsewhere: with the ports it tells a retransmission from a
    /// new probe.
    pub sequence: u32,
    /// IPv4 options present; `None` where that cannot be known.
    pub ip_options: Option<bool>,
    /// The source proved that it receives at its address (it completed a handshake): not spoofable.
    pub verified: bool,
}

impl Probe {
    /// What `packet` is as a probe, or `None` where it is an answer, an error report or a piece of a datagram.
    ///
    /// Whether it was *asked for* is not decided here: a UDP answer and a UDP probe look the same. Later fragments are
    /// `None`: a header torn in two is classified once it is whole, or as what no honest stack sends. Never verified: one
    /// packet proves no address.
    pub fn from_packet(packet: &Packet) -> Option<Probe> {
        let told = match packet.transport {
            Transport::Tcp { source_port, port, flags, sequence, payload: _ } => {
                Told { source_port, port, flags, sequence, ..Told::new(Protocol::Tcp, tcp_scan(flags)?) }
            }
            Transport::Udp { source_port, port, payload: _ } => {
                Told { source_port, port, ..Told::new(Protocol::Udp, ScanType::Udp) }
            }
            Transport::Sctp { source_port, port, chunk } => {
                Told { source_port, port, ..Told::new(Protocol::Sctp, sctp_scan(chunk)?) }
            }
            Transport::Icmp { kind, code: _ } => {
                let sequence = kind.into();
                let told = || Told { sequence, ..Told::new(Protocol::Icmp, ScanType::Icmp) };
                is_query(packet.source, kind).then(told)?
            }
            Transport::TinyFragment { protocol, source_port, port, identification: _, sequence } => {
                let torn = Told::new(torn_protocol(protocol)?, ScanType::OtherFlags);
                Told { source_port, port, sequence, ..torn }
            }
            Transport::LaterFragment { .. } => return None,
            Transport::Buried => Told::new(Protocol::Ip, ScanType::OtherFlags),
            Transport::Other { protocol } => {
                Told { port: u16::from(protocol), ..Told::new(Protocol::Ip, ScanType::IpProtocol) }
            }
        };
        Some(told.by(packet))
    }

    /// The probe that ended with `packet`, a RST: a visit to a service from which nothing was wanted.
    pub fn of_farewell(packet: &Packet, course: Course) -> Option<Probe> {
        let Transport::Tcp { source_port, port, flags, sequence, payload: _ } = packet.transport else {
            return None;
        };
        let scan_type = match course {
            Course::HalfOpen => ScanType::Syn,
            Course::Abandoned => ScanType::Connect,
            Course::Exchanged => return None,
        };
        Some(Told { source_port, port, flags, sequence, ..Told::new(Protocol::Tcp, scan_type) }.by(packet))
    }

    /// What became of the visit to a service that ended with this probe; `None` for every other probe. A RST is none but then.
    pub fn farewell(&self) -> Option<Course> {
        match self.scan_type {
            ScanType::Syn if self.flags.has(TcpFlags::RST) => Some(Course::HalfOpen),
            ScanType::Connect if self.flags.has(TcpFlags::RST) => Some(Course::Abandoned),
            ScanType::Syn
            | ScanType::Connect
            | ScanType::Null
            | ScanType::Fin
            | ScanType::Xmas
            | ScanType::Maimon
            | ScanType::Ack
            | ScanType::OtherFlags
            | ScanType::Udp
            | ScanType::SctpInit
            | ScanType::SctpCookieEcho
            | ScanType::IpProtocol
            | ScanType::Icmp => None,
        }
    }

    /// Whether its port is out of sight, under headers that are there for that: only a packet so buried has flags without
    /// a transport.
    pub fn hides_its_port(&self) -> bool {
        self.protocol == Protocol::Ip && self.scan_type == ScanType::OtherFlags
    }

    /// Whether it counts also where a service runs.
    pub fn counts_at_a_service(&self) -> bool {
        self.scan_type.is_impossible() || self.farewell().is_some()
    }
}

/// What the transport header alone says of a probe.
struct Told {
    protocol: Protocol,
    scan_type: ScanType,
    source_port: u16,
    port: u16,
    flags: TcpFlags,
    sequence: u32,
}

impl Told {
    fn new(protocol: Protocol, scan_type: ScanType) -> Told {
        Told { protocol, scan_type, source_port: 0, port: 0, flags: TcpFlags(0), sequence: 0 }
    }

    fn by(self, packet: &Packet) -> Probe {
        Probe {
            source: packet.source,
            destination: packet.destination,
            source_port: self.source_port,
            port: self.port,
            protocol: self.protocol,
            scan_type: self.scan_type,
            flags: self.flags,
            sequence: self.sequence,
            ip_options: packet.ip_options,
            verified: false,
        }
    }
}

/// RFC 9293 §3.1. PSH and URG only mark data, so they may ride on any segment that may carry data: on a SYN (PSH: TCP
/// Fast Open, RFC 7413), on whatever has ACK, on a RST. ECE and CWR never tell (RFC 3168).
fn tcp_scan(flags: TcpFlags) -> Option<ScanType> {
    const SYN: u8 = TcpFlags::SYN;
    const FIN: u8 = TcpFlags::FIN;
    const RST: u8 = TcpFlags::RST;
    const ACK: u8 = TcpFlags::ACK;
    let control = flags.classic() & (SYN | FIN | RST | ACK);
    let (push, urgent) = (flags.has(TcpFlags::PSH), flags.has(TcpFlags::URG));
    // Exactly as PortSentry prints them: SYN alone, FIN alone, nothing at all, FIN with both marks.
    if control & SYN != 0 {
        return match control {
            SYN if !urgent => Some(ScanType::Syn),
            // The answer to a SYN: ours, or one that somebody sent in our name.
            _ if control == SYN | ACK => None,
            _ => Some(ScanType::OtherFlags),
        };
    }
    if control & RST != 0 {
        // An answer or backscatter; some stacks add FIN to it when they tear down.
        return None;
    }
    Some(match (control & ACK != 0, control & FIN != 0, push, urgent) {
        (true, true, _, _) => ScanType::Maimon,
        (true, false, _, _) => ScanType::Ack,
        (false, false, false, false) => ScanType::Null,
        (false, true, false, false) => ScanType::Fin,
        (false, true, true, true) => ScanType::Xmas,
        (false, _, _, _) => ScanType::OtherFlags,
    })
}

/// Of those whose header can be torn before what tells the kind: UDP's first 8 bytes are all of it.
fn torn_protocol(number: u8) -> Option<Protocol> {
    [Protocol::Tcp, Protocol::Sctp].into_iter().find(|&protocol| protocol as u8 == number)
}

/// RFC 9260 §3.2: only INIT and COOKIE ECHO ask for an association; every other chunk belongs to one or answers.
fn sctp_scan(chunk: u8) -> Option<ScanType> {
    match chunk {
        1 => Some(ScanType::SctpInit),
        10 => Some(ScanType::SctpCookieEcho),
        _ => None,
    }
}

/// ICMP queries: echo (8) and timestamp (13) of RFC 792, address mask (17) of RFC 950, ICMPv6 echo (128) of RFC 4443.
fn is_query(source: IpAddr, kind: u8) -> bool {
    match source {
        IpAddr::V4(_) => matches!(kind, 8 | 13 | 17),
        IpAddr::V6(_) => kind == 128,
    }
}

/// Probes for the tests of all rooms.
#[cfg(test)]
pub(crate) mod samples {
    use super::*;

    /// A SYN of 192.0.2.1's visitor; its sequence number is its port's, so that each port is a contact of its own.
    pub(crate) fn syn(source: &str, port: u16) -> Probe {
        Probe {
            source: source.parse().unwrap(),
            destination: IpAddr::from([192, 0, 2, 1]),
            source_port: 40_000,
            port,
            protocol: Protocol::Tcp,
            scan_type: ScanType::Syn,
            flags: TcpFlags(TcpFlags::SYN),
            sequence: u32::from(port),
            ip_options: Some(false),
            verified: false,
        }
    }
}

#[cfg(test)]
mod tests;
