//! `nmap -f`: a TCP (or SCTP) header torn after its first 8 bytes is put together again, or told of as it is.
//!
//! Runs in each ring thread, which owns one table. Of fixed size: a flood of fragments overwrites the oldest halves
//! and never makes it grow. It keeps no payload and no fragment but the one at offset 8, and loses no first half
//! without a word: its host may still have the other one.
#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::net::IpAddr;

use super::transport::{SCTP, TCP};
use super::{Packet, TcpFlags, Transport};

/// Halves that can wait at a time. A scanner sends both within a millisecond.
pub const REASSEMBLY_ENTRIES: usize = 64;

/// Whole seconds that a half waits for the other. Hosts wait for 30 (IPv4) or 60 (IPv6); here no more than the kind of
/// the scan depends on the other half.
pub const REASSEMBLY_SECONDS: u32 = 1;

/// Where the second half of a header begins, bytes: the least a fragment can hold.
const TEAR: u16 = 8;

/// The table of waiting halves: a ring of slots in order of arrival. What its owner knows of a packet besides (`Origin`)
/// comes and goes with it.
#[derive(Debug)]
pub struct Reassembly<Origin> {
    slots: [Option<Waiting<Origin>>; REASSEMBLY_ENTRIES],
    next: usize,
    /// How many of them are first halves.
    firsts: usize,
}

/// A half that waits.
#[derive(Clone, Copy, Debug)]
struct Waiting<Origin> {
    packet: Packet,
    key: Key,
    half: Half,
    since: u32,
    origin: Origin,
}

/// RFC 791 §3.2: source, destination, protocol and identification tell which fragments belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key {
    identification: u32,
    protocol: u8,
    source: IpAddr,
    destination: IpAddr,
}

#[derive(Clone, Copy, Debug)]
enum Half {
    /// Bytes 0 to 7 of the header.
    First { source_port: u16, port: u16, sequence: u32 },
    /// Bytes 8 to 13 of the header: all that is needed of it.
    Second([u8; 6]),
}

impl<Origin: Copy> Default for Reassembly<Origin> {
    fn default() -> Self {
        Self::new()
    }
}

impl<Origin: Copy> Reassembly<Origin> {
    /// An empty table.
    pub const fn new() -> Self {
        Self { slots: [const { None }; REASSEMBLY_ENTRIES], next: 0, firsts: 0 }
    }

    /// Gives back a packet that is no torn header as it is, a torn one whole with its second half to come (either
    /// may come first), and `None` while it waits, or if the halves make no header. Where an older first half has to
    /// make room, it is what comes back: as [`Transport::TinyFragment`].
    ///
    /// `now` is in seconds, of any clock. The `payload` of a packet put together is 0: it was not counted.
    #[inline(always)]
    pub fn offer(&mut self, packet: Packet, origin: Origin, now: u32) -> Option<(Packet, Origin)> {
        match half(&packet) {
            None => Some((packet, origin)),
            Some((key, half)) => self.meet(Waiting { packet, key, half, since: now, origin }),
        }
    }

    /// A first half whose other one did not come in time; ask until there is none.
    pub fn overdue(&mut self, now: u32) -> Option<(Packet, Origin)> {
        if !self.is_waiting() {
            return None;
        }
        let is_overdue = |old: &Waiting<Origin>| old.half.is_first() && !old.is_in_time(now);
        let slot = self.slots.iter_mut().find(|slot| slot.as_ref().is_some_and(is_overdue))?;
        let late = slot.take();
        self.given_up(late)
    }

    /// Whether there may be one, sooner or later.
    #[inline]
    pub const fn is_waiting(&self) -> bool {
        self.firsts > 0
    }

    fn meet(&mut self, new: Waiting<Origin>) -> Option<(Packet, Origin)> {
        for slot in &mut self.slots {
            if let Some(header) = slot.as_ref().and_then(|old| old.join(&new)) {
                // One of the two is a first half: if it is not the new one, it waits no longer.
                self.firsts = self.firsts.saturating_sub(usize::from(!new.half.is_first()));
                *slot = None;
                return header.into_packet().map(|packet| (packet, new.origin));
            }
        }
        self.firsts = self.firsts.saturating_add(usize::from(new.half.is_first()));
        let slot = self.slots.get_mut(self.next)?;
        // The ring is in order of arrival, so that the slot to overwrite is always the oldest.
        self.next = self.next.wrapping_add(1) % REASSEMBLY_ENTRIES;
        let oldest = slot.replace(new);
        self.given_up(oldest)
    }

    /// What is to be said of a half that waits no longer: a second one alone means nothing.
    fn given_up(&mut self, half: Option<Waiting<Origin>>) -> Option<(Packet, Origin)> {
        let first = half.filter(|half| half.half.is_first())?;
        self.firsts = self.firsts.saturating_sub(1);
        Some((first.packet, first.origin))
    }
}

/// The half of a torn header that `packet` is, if it is one.
#[inline(always)]
fn half(packet: &Packet) -> Option<(Key, Half)> {
    let (identification, protocol, half) = match packet.transport {
        Transport::TinyFragment { protocol, source_port, port, identification, sequence } => {
            (identification, protocol, Half::First { source_port, port, sequence })
        }
        Transport::LaterFragment { protocol, identification, offset: TEAR, head, head_length: 6.. } => {
            (identification, protocol, Half::Second(*head.first_chunk()?))
        }
        Transport::LaterFragment { .. }
        | Transport::Tcp { .. }
        | Transport::Udp { .. }
        | Transport::Sctp { .. }
        | Transport::Icmp { .. }
        | Transport::Buried
        | Transport::Other { .. } => return None,
    };
    let Packet { source, destination, .. } = *packet;
    matches!(protocol, TCP | SCTP).then_some((Key { identification, protocol, source, destination }, half))
}

impl Half {
    const fn is_first(&self) -> bool {
        matches!(self, Self::First { .. })
    }
}

/// Both halves of a header.
struct Header {
    key: Key,
    ip_options: Option<bool>,
    source_port: u16,
    port: u16,
    sequence: u32,
    rest: [u8; 6],
}

impl<Origin> Waiting<Origin> {
    const fn is_in_time(&self, now: u32) -> bool {
        self.since.abs_diff(now) <= REASSEMBLY_SECONDS
    }

    /// The header, if the halves are of one packet, are different ones, and arrived close enough together.
    fn join(&self, other: &Self) -> Option<Header> {
        if self.key != other.key || !self.is_in_time(other.since) {
            return None;
        }
        match (self.half, other.half) {
            (Half::First { source_port, port, sequence }, Half::Second(rest)) => {
                let Self { key, packet: Packet { ip_options, .. }, .. } = *self;
                Some(Header { key, ip_options, source_port, port, sequence, rest })
            }
            (Half::Second(_), Half::First { .. }) => other.join(self),
            (Half::First { .. }, Half::First { .. }) | (Half::Second(_), Half::Second(_)) => None,
        }
    }
}

impl Header {
    /// The packet as its host will see it; `None` where the data offset is one that the host refuses.
    fn into_packet(self) -> Option<Packet> {
        let Self { key: Key { source, destination, protocol, .. }, ip_options, source_port, port, .. } = self;
        let [_, _, _, _, byte_12, byte_13] = self.rest;
        let transport = match protocol {
            SCTP => Transport::Sctp { source_port, port, chunk: byte_12 },
            _ if byte_12 >> 4 < 5 => return None,
            _ => {
                let (flags, sequence) = (TcpFlags(byte_13), self.sequence);
                Transport::Tcp { source_port, port, flags, sequence, payload: 0 }
            }
        };
        Some(Packet { source, destination, ip_options, transport })
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
mod tests {
    use super::*;

    /// A table whose packets come with nothing.
    struct Table(Reassembly<()>);

    impl Table {
        fn new() -> Self {
            Self(Reassembly::new())
        }

        fn offer(&mut self, packet: Packet, now: u32) -> Option<Packet> {
            self.0.offer(packet, (), now).map(|(packet, ())| packet)
        }

        fn overdue(&mut self, now: u32) -> Option<Packet> {
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
        // Acknowledgement number, data offset 6, SYN, window.
        let head = [0, 0, 0, 0, 0x60, 0x02, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0];
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
        let mut table = Table::new();
        assert_eq!(table.offer(first(SCTP, 1), 10), None);
        let joined = table.offer(second(SCTP, 1, 8), 10).map(|packet| packet.transport);
        assert_eq!(joined, Some(Transport::Sctp { source_port: 40_000, port: 22, chunk: 0x60 }));
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

    #[test]
    fn an_impossible_data_offset_yields_nothing() {
        let mut table = Table::new();
        let head = [0; 16];
        let null =
            Transport::LaterFragment { protocol: TCP, identification: 1, offset: 8, head, head_length: 8 };
        assert_eq!(table.offer(first(TCP, 1), 10), None);
        assert_eq!(table.offer(packet(null), 10), None);
    }
}
