//! Halves of headers, in every order and number.
#![forbid(unsafe_code)]

use super::*;

/// A table whose packets come with nothing.
struct Table(Reassembly<()>);

impl Table {
    fn new() -> Self {
        Self(Reassembly::new())
    }

    fn offer(&mut self, packet: Packet, now: u64) -> Option<Packet> {
        self.0.offer(packet, (), now).map(|(packet, ())| packet)
    }

    fn overdue(&mut self, now: u64) -> Option<Packet> {
        self.0.overdue(now).map(|(packet, ())| packet)
    }
}

fn packet(transport: Transport) -> Packet {
    let (source, destination) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
    Packet { source, destination, ip_options: Some(false), transport }
}

fn first(protocol: u8, identification: u32) -> Packet {
    let (source_port, port, sequence) = (40_000, 22, 7);
    packet(Transport::TinyFragment { protocol, source_port, port, identification, sequence })
}

fn second(protocol: u8, identification: u32, offset: u16) -> Packet {
    saying(protocol, identification, offset, [0x60, 0x02])
}

/// With these in the header's bytes 12 and 13, after an acknowledgement number: data offset and flags, or a chunk's type.
fn saying(protocol: u8, identification: u32, offset: u16, [byte_12, byte_13]: [u8; 2]) -> Packet {
    let head = [0, 0, 0, 0, byte_12, byte_13, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    packet(Transport::LaterFragment { protocol, identification, offset, head, head_length: 8 })
}

fn syn() -> Packet {
    let flags = TcpFlags(TcpFlags::SYN);
    packet(Transport::Tcp { source_port: 40_000, port: 22, flags, sequence: 7, payload: 0 })
}

#[test]
fn a_torn_tcp_header_is_joined_in_either_order() {
    let mut table = Table::new();
    assert_eq!(table.offer(first(TCP, 1), 10), None);
    assert_eq!(table.offer(second(TCP, 1, 8), 10), Some(syn()));
    assert_eq!(table.offer(second(TCP, 2, 8), 10), None);
    assert_eq!(table.offer(first(TCP, 2), 10), Some(syn()));
}

#[test]
fn a_torn_sctp_header_yields_its_first_chunk() {
    for chunk in OPENING_CHUNKS {
        let mut table = Table::new();
        assert_eq!(table.offer(first(SCTP, 1), 10), None);
        let joined = table.offer(saying(SCTP, 1, 8, [chunk, 0]), 10).map(|packet| packet.transport);
        assert_eq!(joined, Some(Transport::Sctp { source_port: 40_000, port: 22, chunk }));
    }
}

#[test]
fn a_torn_header_that_asks_nothing_is_told_of_as_what_it_is() {
    // RST, SYN+ACK, ACK, FIN+ACK, a data offset below 5; DATA, ABORT, no chunk.
    let answers = [0x5004, 0x5012, 0x6010, 0x5011, 0x5014, 0x4002, 0x0000].map(|bytes| (TCP, bytes));
    let answers = answers.into_iter().chain([0x0003, 0x0600, 0xff00].map(|bytes| (SCTP, bytes)));
    for (protocol, bytes) in answers {
        let answer = saying(protocol, 1, 8, u16::to_be_bytes(bytes));
        for halves in [[first(protocol, 1), answer], [answer, first(protocol, 1)]] {
            let mut table = Table::new();
            assert_eq!(table.offer(halves[0], 10), None);
            assert_eq!(table.offer(halves[1], 10), Some(first(protocol, 1)), "{bytes:#x}");
            assert_eq!((table.0.is_waiting(), table.overdue(1_000)), (false, None));
        }
    }
}

#[test]
fn of_second_halves_the_first_is_kept_however_many_follow() {
    let reset = |identification| saying(TCP, identification, 8, [0x50, 0x04]);
    for others in [1, REASSEMBLY_ENTRIES, 1_000] {
        // Wherever in the ring it stands.
        for before in 0..2 * REASSEMBLY_ENTRIES as u32 {
            let mut table = Table::new();
            for identification in 0..before {
                assert_eq!(table.offer(second(TCP, 1_000 + identification, 8), 10), None);
            }
            assert_eq!(table.offer(second(TCP, 1, 8), 10), None);
            (0..others).for_each(|_| assert_eq!(table.offer(reset(1), 10), None));
            assert_eq!(table.offer(first(TCP, 1), 10), Some(syn()));
        }
    }
}

#[test]
fn each_first_half_is_told_of_though_its_other_one_had_to_make_room() {
    let mut table = Table::new();
    assert_eq!(table.offer(second(TCP, 1, 8), 10), None);
    for identification in 2..2 + REASSEMBLY_ENTRIES as u32 {
        assert_eq!(table.offer(second(TCP, identification, 8), 10), None);
    }
    assert_eq!(table.offer(first(TCP, 1), 10), None);
    assert_eq!(table.overdue(11 + REASSEMBLY_SECONDS), Some(first(TCP, 1)));
}

#[test]
fn of_first_halves_with_the_same_other_one_each_is_told_of() {
    let mut table = Table::new();
    assert_eq!([table.offer(first(TCP, 1), 10), table.offer(first(TCP, 1), 10)], [None; 2]);
    assert_eq!(table.offer(second(TCP, 1, 8), 10), Some(syn()));
    assert_eq!(table.overdue(11 + REASSEMBLY_SECONDS), Some(first(TCP, 1)));
    assert!(!table.0.is_waiting());
}

#[test]
fn a_joined_header_is_forgotten() {
    let mut table = Table::new();
    assert_eq!(table.offer(first(TCP, 1), 10), None);
    assert!(table.offer(second(TCP, 1, 8), 10).is_some());
    assert_eq!(table.offer(second(TCP, 1, 8), 10), None);
}

#[test]
fn halves_of_different_packets_do_not_meet() {
    let mut table = Table::new();
    assert_eq!(table.offer(first(TCP, 1), 10), None);
    assert_eq!(table.offer(second(TCP, 2, 8), 10), None);
    assert_eq!(table.offer(second(SCTP, 1, 8), 10), None);
    let stranger = Packet { source: IpAddr::from([192, 0, 2, 9]), ..second(TCP, 1, 8) };
    assert_eq!(table.offer(stranger, 10), None);
}

#[test]
fn halves_that_are_far_apart_do_not_meet_whichever_way_the_clock_steps() {
    for (since, now) in [(10, 11 + REASSEMBLY_SECONDS), (100, 1)] {
        let mut table = Table::new();
        assert_eq!(table.offer(second(TCP, 1, 8), since), None);
        assert_eq!(table.offer(first(TCP, 1), now), None);
    }
}

#[test]
fn a_first_half_is_told_of_once_when_its_time_is_over_and_a_second_half_never() {
    for protocol in [TCP, SCTP] {
        let mut table = Table::new();
        assert_eq!(table.offer(first(protocol, 1), 10), None);
        assert_eq!(table.offer(second(protocol, 2, 8), 10), None);
        assert_eq!((table.0.is_waiting(), table.overdue(10 + REASSEMBLY_SECONDS)), (true, None));
        assert_eq!(table.overdue(11 + REASSEMBLY_SECONDS), Some(first(protocol, 1)));
        assert_eq!((table.0.is_waiting(), table.overdue(1_000)), (false, None));
        // What comes after all is half of nothing.
        assert_eq!(table.offer(second(protocol, 1, 8), 12), None);
    }
}

#[test]
fn the_oldest_half_makes_room_and_is_told_of_if_it_is_a_first_one() {
    let entries = u32::try_from(REASSEMBLY_ENTRIES).unwrap();
    let kinds: [fn(u8, u32) -> Packet; 2] =
        [first, |protocol, identification| second(protocol, identification, 8)];
    for pieces in kinds {
        let mut table = Table::new();
        assert_eq!(table.offer(first(TCP, 0), 10), None);
        assert_eq!(table.offer(second(TCP, 1, 8), 10), None);
        for identification in 2..entries {
            assert_eq!(table.offer(pieces(TCP, identification), 10), None);
        }
        assert_eq!(table.offer(pieces(TCP, entries), 10), Some(first(TCP, 0)));
        assert_eq!(table.offer(pieces(TCP, entries + 1), 10), None);
        let is_first = |piece: &Packet| matches!(piece.transport, Transport::TinyFragment { .. });
        assert_eq!(table.offer(first(TCP, 1), 10), Some(pieces(TCP, 2)).filter(is_first));
    }
}

#[test]
fn nothing_waits_once_every_half_has_met_its_other() {
    let mut table = Table::new();
    for identification in 0..1_000 {
        let halves = [first(TCP, identification), second(TCP, identification, 8)];
        let [one, other] = if identification % 2 == 0 { halves } else { [halves[1], halves[0]] };
        assert_eq!(table.offer(one, 10), None);
        assert_eq!(table.offer(other, 10), Some(syn()));
    }
    assert_eq!((table.0.is_waiting(), table.overdue(1_000)), (false, None));
}

#[test]
fn what_is_no_torn_header_passes_as_it_is() {
    let mut table = Table::new();
    assert!(first(TCP, 1).transport.is_fragment() && second(TCP, 1, 8).transport.is_fragment());
    assert!(!syn().transport.is_fragment());
    for passing in [
        syn(),
        second(TCP, 1, 16),
        second(TCP, 1, 1480),
        second(17, 1, 8),
        packet(Transport::Other { protocol: 47 }),
    ] {
        assert_eq!(table.offer(passing, 10), Some(passing));
    }
}
