#![forbid(unsafe_code)]

use super::*;
use crate::detect::ScanType;

const SECOND: u64 = 1_000_000;
const NOW: u64 = 1_000 * SECOND;

fn peers() -> Peers {
    Peers::new(&[2; 16], Hearing::of_this_host(false, 0))
}

fn sent(transport: Transport) -> Packet {
    let address = |text: &str| text.parse().unwrap();
    let (source, destination) = (address("192.0.2.1"), address("198.51.100.53"));
    Packet { source, destination, ip_options: Some(false), transport }
}

fn udp(source_port: u16, port: u16) -> Packet {
    sent(Transport::Udp { source_port, port, payload: 9 })
}

fn tcp(source_port: u16, port: u16, flags: u8) -> Packet {
    let flags = TcpFlags(flags);
    sent(Transport::Tcp { source_port, port, flags, sequence: 1, payload: 0 })
}

fn back(protocol: Protocol, source_port: u16, port: u16) -> Probe {
    Probe {
        source: "198.51.100.53".parse().unwrap(),
        destination: "192.0.2.1".parse().unwrap(),
        source_port,
        port,
        protocol,
        scan_type: ScanType::Udp,
        flags: TcpFlags(0),
        sequence: 0,
        ip_options: None,
        verified: false,
    }
}

#[test]
fn an_answer_is_expected_from_whom_we_asked_and_to_the_port_we_asked_from_alone() {
    let peers = peers();
    peers.note_sent(&udp(40_000, 53), NOW);
    assert!(peers.expect(&back(Protocol::Udp, 53, 40_000), NOW + SECOND));
    for (protocol, source_port, port) in
        [(Protocol::Udp, 53, 40_001), (Protocol::Udp, 54, 40_000), (Protocol::Tcp, 53, 40_000)]
    {
        assert!(!peers.expect(&back(protocol, source_port, port), NOW), "{protocol:?} {source_port} {port}");
    }
    let stranger = Probe { source: "198.51.100.54".parse().unwrap(), ..back(Protocol::Udp, 53, 40_000) };
    assert!(!peers.expect(&stranger, NOW));
}

#[test]
fn a_late_answer_is_one_and_that_of_yesterday_is_not() {
    let peers = peers();
    peers.note_sent(&udp(40_000, 53), NOW);
    assert!(peers.expect(&back(Protocol::Udp, 53, 40_000), NOW + DATAGRAM_SECONDS * SECOND));
    assert!(!peers.expect(&back(Protocol::Udp, 53, 40_000), NOW + (DATAGRAM_SECONDS + 2) * SECOND));
    assert!(peers.expect(&back(Protocol::Udp, 53, 40_000), NOW - SECOND));
}

#[test]
fn what_closes_or_refuses_makes_no_flow() {
    let peers = peers();
    for flags in [0x04, 0x14] {
        assert_eq!(peers.note_sent(&tcp(80, 5_000, flags), NOW), None);
        assert!(!peers.expect(&back(Protocol::Tcp, 5_000, 80), NOW));
    }
    let served = peers.note_sent(&tcp(80, 5_000, 0x12), NOW).unwrap();
    assert_eq!((served.protocol, served.port), (Protocol::Tcp, 80));
    let ack = back(Protocol::Tcp, 5_000, 80);
    assert!(!peers.expect(&ack, NOW) && peers.serves(&ack, NOW));
    peers.note_sent(&tcp(40_000, 443, 0x02), NOW);
    assert!(peers.expect(&back(Protocol::Tcp, 443, 40_000), NOW));
}

/// What becomes of a connection to port 80 that was accepted, and whose client then sends these (flags, payload).
fn courses(client: &[(u8, u16)]) -> Vec<Option<Course>> {
    let peers = peers();
    peers.note_sent(&tcp(80, 5_000, 0x12), NOW);
    let came = |&(flags, payload): &(u8, u16)| {
        let flags = TcpFlags(flags);
        let transport = Transport::Tcp { source_port: 5_000, port: 80, flags, sequence: 2, payload };
        let Packet { source: destination, destination: source, .. } = sent(transport);
        peers.note_received(&Packet { source, destination, ip_options: None, transport }, NOW)
    };
    client.iter().map(came).collect()
}

#[test]
fn what_a_client_makes_of_its_connection_is_told_once() {
    let (ack, push, fin, reset, reset_ack) = ((0x10, 0), (0x18, 9), (0x11, 0), (0x04, 0), (0x14, 0));
    assert_eq!(courses(&[reset, reset]), [Some(Course::HalfOpen), None]);
    assert_eq!(courses(&[reset_ack, reset]), [Some(Course::Abandoned), None]);
    assert_eq!(courses(&[ack, reset_ack, reset]), [None, Some(Course::Abandoned), None]);
    assert_eq!(courses(&[ack, ack, push, push, reset]), [None, None, Some(Course::Exchanged), None, None]);
    assert_eq!(courses(&[push, reset]), [Some(Course::Exchanged), None]);
    assert_eq!(courses(&[ack, fin, reset]), [None; 3]);
    assert_eq!(courses(&[(0x02, 0), (0x12, 0), (0x00, 0)]), [None; 3]);
}

#[test]
fn ten_thousand_open_questions_are_remembered_in_memory_that_never_grows() {
    let peers = peers();
    let memory = peers.memory_bytes();
    (0..10_000).for_each(|at| _ = peers.note_sent(&udp(20_000 + at, 53), NOW));
    let known = (0..10_000).filter(|at| peers.expect(&back(Protocol::Udp, 53, 20_000 + at), NOW)).count();
    assert_eq!(known, 10_000);
    (0..60_000).for_each(|at| _ = peers.note_sent(&udp(at, 123), NOW));
    assert_eq!(peers.memory_bytes(), memory);
}

#[test]
fn a_thread_whose_clock_runs_behind_throws_out_what_is_old_and_not_what_is_newest() {
    let peers = peers();
    let ask = |peer_port, now| (20_000..21_000).for_each(|at| _ = peers.note_sent(&udp(at, peer_port), now));
    // Enough to take every place.
    (200..400).for_each(|peer_port| ask(peer_port, NOW - 100 * SECOND));
    ask(53, NOW + SECOND);
    (500..510).for_each(|peer_port| ask(peer_port, NOW));
    let known = (20_000..21_000).filter(|&at| peers.expect(&back(Protocol::Udp, 53, at), NOW)).count();
    assert_eq!(known, 1_000);
}

#[test]
fn a_host_of_a_capture_is_heard_once_it_sent_something() {
    let peers = Peers::new(&[3; 16], Hearing::of_senders());
    let heard = |host: &str| peers.heard(host.parse().unwrap(), Protocol::Udp, NOW);
    assert_eq!(heard("192.0.2.1"), Heard::Nothing);
    peers.note_sent(&tcp(80, 5_000, 0x14), NOW);
    assert_eq!(["192.0.2.1", "192.0.2.2"].map(heard), [Heard::All, Heard::Nothing]);
}

#[test]
fn after_packets_were_lost_answers_may_come_to_questions_that_nobody_saw() {
    let heard = |peers: &Peers, protocol, seconds| {
        peers.heard("192.0.2.1".parse().unwrap(), protocol, NOW + seconds * SECOND)
    };
    let host = peers();
    assert_eq!(heard(&host, Protocol::Udp, 0), Heard::All);
    host.lost(NOW);
    for protocol in [Protocol::Udp, Protocol::Tcp] {
        assert_eq!([29, 31].map(|at| heard(&host, protocol, at)), [Heard::NotAllOfLate, Heard::All]);
    }
    let router = Peers::new(&[2; 16], Hearing::of_this_host(true, NOW));
    for (protocol, lasts) in [(Protocol::Tcp, CONNECTION_SECONDS), (Protocol::Udp, 180)] {
        let before = [0, lasts - 1, lasts].map(|at| heard(&router, protocol, at));
        assert_eq!(before, [Heard::NotAllOfLate, Heard::NotAllOfLate, Heard::All], "{protocol:?}");
    }
    router.lost(NOW + CONNECTION_SECONDS * SECOND);
    assert_eq!(heard(&router, Protocol::Udp, CONNECTION_SECONDS + 179), Heard::NotAllOfLate);
}

#[test]
fn after_the_start_datagrams_may_come_that_answer_what_was_asked_before() {
    let host = Peers::new(&[2; 16], Hearing::of_this_host(false, NOW));
    let heard =
        |protocol, seconds| host.heard("192.0.2.1".parse().unwrap(), protocol, NOW + seconds * SECOND);
    assert_eq!(
        [0, 29, 30].map(|at| heard(Protocol::Udp, at)),
        [Heard::SinceTheStart, Heard::SinceTheStart, Heard::All]
    );
    assert_eq!(heard(Protocol::Tcp, 0), Heard::All, "connections are the kernel's to tell");
}

#[test]
fn a_connection_lasts_as_long_as_its_peer_speaks_and_a_question_is_no_longer_open_for_its_answers() {
    let hours = |hours: u64| NOW + hours * 3600 * SECOND;
    let peers = peers();
    peers.note_sent(&tcp(40_000, 443, 0x02), NOW);
    for hour in [2, 4, 6] {
        assert!(peers.expect(&back(Protocol::Tcp, 443, 40_000), hours(hour)), "{hour}");
    }
    assert!(!peers.expect(&back(Protocol::Tcp, 443, 40_000), hours(10)));
    peers.note_sent(&udp(40_000, 53), NOW);
    let answer = back(Protocol::Udp, 53, 40_000);
    assert!(peers.expect(&answer, NOW + 1_000 * SECOND) && !peers.expect(&answer, NOW + 2_000 * SECOND));
}

#[test]
fn whoever_hears_a_question_to_everybody_may_answer_it_from_any_port() {
    for (host, everybody, neighbour) in [
        ("192.0.2.1", "239.255.255.250", "192.0.2.9"),
        ("192.0.2.1", "192.0.2.255", "192.0.2.9"),
        ("2001:db8::1", "ff02::c", "2001:db8::9"),
    ] {
        let [source, destination, neighbour] = [host, everybody, neighbour].map(|text| text.parse().unwrap());
        let peers = peers();
        let call = Packet { source, destination, ..udp(40_000, 1_900) };
        peers.note_sent(&call, NOW);
        peers.note_call(&call, NOW);
        let answer =
            |protocol, port| Probe { source: neighbour, destination: source, ..back(protocol, 50_000, port) };
        assert!(peers.expect(&answer(Protocol::Udp, 40_000), NOW + SECOND), "{everybody}");
        assert!(!peers.expect(&answer(Protocol::Udp, 40_001), NOW), "{everybody}");
        assert!(!peers.expect(&answer(Protocol::Tcp, 40_000), NOW), "{everybody}");
    }
    let peers = peers();
    let question = udp(40_000, 53);
    peers.note_sent(&question, NOW);
    peers.note_call(&question, NOW);
    let stranger = Probe { source: "198.51.100.54".parse().unwrap(), ..back(Protocol::Udp, 53, 40_000) };
    assert!(!peers.expect(&stranger, NOW));
}

#[test]
fn a_connection_that_the_kernel_has_is_expected_by_both_its_ends_alone() {
    let peers = peers();
    let ends = |text: &str| text.parse().unwrap();
    peers.note_connection(ends("192.0.2.1:700"), ends("198.51.100.53:2049"), NOW);
    assert!(peers.expect(&back(Protocol::Tcp, 2049, 700), NOW + SECOND));
    for (protocol, source_port, port) in
        [(Protocol::Tcp, 2049, 701), (Protocol::Tcp, 2050, 700), (Protocol::Udp, 2049, 700)]
    {
        assert!(!peers.expect(&back(protocol, source_port, port), NOW), "{protocol:?} {source_port} {port}");
    }
}
