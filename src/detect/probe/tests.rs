//! Packets, and what each is as a probe.
#![forbid(unsafe_code)]

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
        let tiny = Transport::TinyFragment { protocol: number, source_port, port, identification, sequence };
        let probe = Probe::from_packet(&packet(tiny)).unwrap();
        assert_eq!((probe.protocol, probe.scan_type), (protocol, ScanType::OtherFlags));
        assert_eq!((probe.source_port, probe.port, probe.sequence, probe.flags), (1, 2, 3, TcpFlags(0)));
    }
}

#[test]
fn a_torn_header_is_a_probe_whatever_its_other_half_says() {
    let mut table = crate::packet::Reassembly::new();
    for protocol in [6, 132] {
        for (byte_12, byte_13) in (0..=u8::MAX).flat_map(|high| (0..=u8::MAX).map(move |low| (high, low))) {
            let (source_port, port, identification, sequence) = (1, 2, 4, 3);
            let first = Transport::TinyFragment { protocol, source_port, port, identification, sequence };
            let (mut head, head_length, offset) = ([0; 16], 16, 8);
            head[4..6].copy_from_slice(&[byte_12, byte_13]);
            let rest = Transport::LaterFragment { protocol, identification, offset, head, head_length };
            assert_eq!(table.offer(packet(first), (), 0), None);
            let (whole, ()) = table.offer(packet(rest), (), 0).unwrap();
            assert_eq!(Probe::from_packet(&whole).map(|probe| probe.port), Some(2), "{byte_12} {byte_13}");
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
