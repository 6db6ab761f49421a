//! What one packet (or one visit to a decoy) is as a probe.
//!
//! Pure; run by the ring threads for every packet. Never decides whether a probe matters, only what it is.
#![forbid(unsafe_code)]

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::peers::Course;
use crate::packet::{Packet, TcpFlags, Transport};

/// The kinds of scan that are told apart; the names are those of the `scan.type` field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum ScanType {
    /// SYN alone (ECE and CWR ignored).
    Syn,
    /// A TCP handshake completed with a decoy.
    Connect,
    /// No flag at all.
    Null,
    /// FIN alone.
    Fin,
    /// FIN, PSH and URG.
    Xmas,
    /// FIN and ACK.
    Maimon,
    /// ACK alone (also nmap's window scan).
    Ack,
    /// Any other impossible combination; also a transport header torn into fragments that did not meet or read like an
    /// answer, or buried under more IPv6 extension headers than packets commonly have (RFC 9098 §4: to evade whoever looks).
    OtherFlags,
    /// A UDP datagram.
    Udp,
    /// An SCTP INIT chunk.
    SctpInit,
    /// An SCTP COOKIE ECHO chunk out of the blue.
    SctpCookieEcho,
    /// An IP protocol this host does not speak.
    IpProtocol,
    /// An ICMP query used for probing.
    Icmp,
}

/// The transport of a probe, under the names of the `proto` field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[repr(u8)]
pub enum Protocol {
    /// IANA 6.
    Tcp = 6,
    /// IANA 17.
    Udp = 17,
    /// IANA 132.
    Sctp = 132,
    /// IANA 1 or 58.
    Icmp = 1,
    /// Anything else; the IANA number is in [`Probe::port`].
    Ip = 0,
}

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

impl ScanType {
    /// Whether no honest stack sends such a segment, so that one is proof enough of a crafted packet.
    ///
    /// RFC 9293 §3.10.7.4: once a connection exists every segment but a RST carries ACK, and one without it is dropped;
    /// so NULL, FIN, XMAS and their kin belong to no connection in any state, and SYN excludes FIN and RST (§3.5).
    /// [`ScanType::Maimon`] and [`ScanType::Ack`] are not among them: see [`ScanType::may_be_stray`].
    pub const fn is_impossible(self) -> bool {
        match self {
            ScanType::Null | ScanType::Fin | ScanType::Xmas | ScanType::OtherFlags => true,
            ScanType::Syn
            | ScanType::Connect
            | ScanType::Maimon
            | ScanType::Ack
            | ScanType::Udp
            | ScanType::SctpInit
            | ScanType::SctpCookieEcho
            | ScanType::IpProtocol
            | ScanType::Icmp => false,
        }
    }

    /// Whether a connection that this host has forgotten (a restart, a closed socket) would send the same.
    pub const fn may_be_stray(self) -> bool {
        matches!(self, ScanType::Maimon | ScanType::Ack)
    }
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
mod tests {
    use super::*;

    fn packet(transport: Transport) -> Packet {
        let address = |text: &str| text.parse().unwrap();
        Packet {
            source: address("192.0.2.9"),
            destination: address("192.0.2.1"),
            ip_options: Some(true),
            transport,
        }
    }

    fn tcp(flags: u8) -> Option<ScanType> {
        let tcp = Transport::Tcp { source_port: 5, port: 7, flags: TcpFlags(flags), sequence: 9, payload: 0 };
        Probe::from_packet(&packet(tcp)).map(|probe| probe.scan_type)
    }

    #[test]
    fn each_kind_of_nmap_segment_is_told_by_its_flags() {
        assert_eq!(tcp(0x02), Some(ScanType::Syn));
        assert_eq!(tcp(0x00), Some(ScanType::Null));
        assert_eq!(tcp(0x01), Some(ScanType::Fin));
        assert_eq!(tcp(0x29), Some(ScanType::Xmas));
        assert_eq!(tcp(0x11), Some(ScanType::Maimon));
        assert_eq!(tcp(0x10), Some(ScanType::Ack));
        for odd in [0x03, 0x06, 0x07, 0x08, 0x09, 0x20, 0x21, 0x28, 0x13, 0x16, 0x22, 0x2b, 0x3f] {
            assert_eq!(tcp(odd), Some(ScanType::OtherFlags), "{odd:#04x}");
        }
    }

    #[test]
    fn answers_are_no_probes() {
        for answer in [0x12, 0x1a, 0x04, 0x14, 0x1c, 0x15] {
            assert_eq!(tcp(answer), None, "{answer:#04x}");
        }
    }

    #[test]
    fn congestion_bits_never_change_the_kind_and_every_value_has_one_answer() {
        for flags in 0..0x40 {
            for congestion in [0x40, 0x80, 0xc0] {
                assert_eq!(tcp(flags | congestion), tcp(flags), "{flags:#04x}");
            }
        }
    }

    #[test]
    fn only_segments_without_a_legal_sender_are_impossible() {
        let impossible = (0..0x40).filter(|&flags| tcp(flags).is_some_and(ScanType::is_impossible)).count();
        // Without ACK, SYN and RST: all 8. With SYN: all 32 but SYN, SYN+PSH and the four forms of SYN+ACK.
        assert_eq!(impossible, 8 + 32 - 6);
        assert!(!ScanType::Maimon.is_impossible() && ScanType::Maimon.may_be_stray());
        assert!(!ScanType::Ack.is_impossible() && ScanType::Ack.may_be_stray());
    }

    #[test]
    fn a_probe_keeps_what_the_packet_said() {
        let tcp = Transport::Tcp { source_port: 53, port: 7, flags: TcpFlags(0x42), sequence: 9, payload: 3 };
        let probe = Probe::from_packet(&packet(tcp)).unwrap();
        assert_eq!((probe.source_port, probe.port, probe.sequence), (53, 7, 9));
        assert_eq!((probe.flags, probe.ip_options, probe.verified), (TcpFlags(0x42), Some(true), false));
        let other = Probe::from_packet(&packet(Transport::Other { protocol: 47 })).unwrap();
        assert_eq!((other.protocol, other.port, other.scan_type), (Protocol::Ip, 47, ScanType::IpProtocol));
    }

    #[test]
    fn udp_and_requests_are_probes_while_replies_errors_and_later_fragments_are_not() {
        let kind = |transport| Probe::from_packet(&packet(transport)).map(|probe| probe.scan_type);
        assert_eq!(kind(Transport::Udp { source_port: 1, port: 2, payload: 0 }), Some(ScanType::Udp));
        let sctp = |chunk| kind(Transport::Sctp { source_port: 1, port: 2, chunk });
        assert_eq!(
            [sctp(1), sctp(10), sctp(2), sctp(6), sctp(255)],
            [Some(ScanType::SctpInit), Some(ScanType::SctpCookieEcho), None, None, None]
        );
        let icmp = |kind_| kind(Transport::Icmp { kind: kind_, code: 0 });
        assert!([8, 13, 17].into_iter().all(|query| icmp(query) == Some(ScanType::Icmp)));
        assert!([0, 3, 11, 14, 128, 135].into_iter().all(|other| icmp(other).is_none()));
        let (protocol, identification, head, head_length) = (6, 1, [0; 16], 16);
        let later = Transport::LaterFragment { protocol, identification, offset: 8, head, head_length };
        assert_eq!(kind(later), None);
    }

    #[test]
    fn a_header_that_was_torn_and_never_completed_is_an_impossible_probe_of_its_port() {
        for (number, protocol) in [(6, Protocol::Tcp), (132, Protocol::Sctp)] {
            let (source_port, port, identification, sequence) = (1, 2, 4, 3);
            let tiny =
                Transport::TinyFragment { protocol: number, source_port, port, identification, sequence };
            let probe = Probe::from_packet(&packet(tiny)).unwrap();
            assert_eq!((probe.protocol, probe.scan_type), (protocol, ScanType::OtherFlags));
            assert_eq!((probe.source_port, probe.port, probe.sequence, probe.flags), (1, 2, 3, TcpFlags(0)));
        }
    }

    #[test]
    fn a_torn_header_is_a_probe_whatever_its_other_half_says() {
        let mut table = crate::packet::Reassembly::new();
        for protocol in [6, 132] {
            for (byte_12, byte_13) in (0..=u8::MAX).flat_map(|high| (0..=u8::MAX).map(move |low| (high, low)))
            {
                let (source_port, port, identification, sequence) = (1, 2, 4, 3);
                let first = Transport::TinyFragment { protocol, source_port, port, identification, sequence };
                let (mut head, head_length, offset) = ([0; 16], 16, 8);
                head[4..6].copy_from_slice(&[byte_12, byte_13]);
                let rest = Transport::LaterFragment { protocol, identification, offset, head, head_length };
                assert_eq!(table.offer(packet(first), (), 0), None);
                let (whole, ()) = table.offer(packet(rest), (), 0).unwrap();
                assert_eq!(
                    Probe::from_packet(&whole).map(|probe| probe.port),
                    Some(2),
                    "{byte_12} {byte_13}"
                );
            }
        }
    }

    #[test]
    fn of_icmpv6_only_the_echo_request_is_a_probe() {
        let mut icmp = packet(Transport::Icmp { kind: 128, code: 0 });
        icmp.source = "2001:db8::9".parse().unwrap();
        assert!(Probe::from_packet(&icmp).is_some());
        for kind in [1, 3, 8, 129, 130, 133, 134, 135, 136, 143] {
            icmp.transport = Transport::Icmp { kind, code: 0 };
            assert_eq!(Probe::from_packet(&icmp), None, "{kind}");
        }
    }
}
