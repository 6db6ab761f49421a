//! `nmap -f`: a TCP (or SCTP) header torn after its first 8 bytes is put together again.
//!
//! Runs in each ring thread, which owns one table. Of fixed size: a flood of fragments overwrites the oldest halves
//! and never makes it grow. It keeps no payload and no fragment but the one at offset 8.
#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::net::IpAddr;

use super::transport::{SCTP, TCP};
use super::{Packet, TcpFlags, Transport};

/// Halves that can wait at a time. A scanner sends both within a millisecond.
pub const REASSEMBLY_ENTRIES: usize = 64;

/// Seconds a half waits for the other: hosts wait 30 to 60, scanners not one.
pub const REASSEMBLY_SECONDS: u32 = 5;

/// Where the second half of a header begins, bytes: the least a fragment can hold.
const TEAR: u16 = 8;

/// The table of waiting halves: a ring of slots in order of arrival.
#[derive(Debug)]
pub struct Reassembly {
    slots: [Option<Waiting>; REASSEMBLY_ENTRIES],
    next: usize,
}

/// A half that waits, with what both halves have alike.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    key: Key,
    half: Half,
    ip_options: Option<bool>,
    since: u32,
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

impl Default for Reassembly {
    fn default() -> Self {
        Self::new()
    }
}

impl Reassembly {
    /// An empty table.
    pub const fn new() -> Self {
        Self { slots: [None; REASSEMBLY_ENTRIES], next: 0 }
    }

    /// Gives back a packet that is no torn header as it is, a torn one whole with its second half to come (either
    /// may come first), and `None` while it waits, or if the halves make no header.
    ///
    /// `now` is in seconds, of any clock. The `payload` of a packet put together is 0: it was not counted.
    #[inline(always)]
    pub fn offer(&mut self, packet: Packet, now: u32) -> Option<Packet> {
        match half(&packet) {
            None => Some(packet),
            Some((key, half)) => self.meet(Waiting { key, half, ip_options: packet.ip_options, since: now }),
        }
    }

    fn meet(&mut self, new: Waiting) -> Option<Packet> {
        for slot in &mut self.slots {
            if let Some(header) = slot.and_then(|old| old.join(&new)) {
                *slot = None;
                return header.into_packet();
            }
        }
        if let Some(slot) = self.slots.get_mut(self.next) {
            *slot = Some(new);
        }
        // The ring is in order of arrival, so that the slot to overwrite is always the oldest.
        self.next = self.next.wrapping_add(1) % REASSEMBLY_ENTRIES;
        None
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

/// Both halves of a header.
struct Header {
    key: Key,
    ip_options: Option<bool>,
    source_port: u16,
    port: u16,
    sequence: u32,
    rest: [u8; 6],
}

impl Waiting {
    /// The header, if the halves are of one packet, are different ones, and arrived close enough together.
    fn join(&self, other: &Self) -> Option<Header> {
        if self.key != other.key || self.since.abs_diff(other.since) > REASSEMBLY_SECONDS {
            return None;
        }
        match (self.half, other.half) {
            (Half::First { source_port, port, sequence }, Half::Second(rest)) => {
                let Self { key, ip_options, .. } = *self;
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
        let mut table = Reassembly::new();
        assert_eq!(table.offer(first(TCP, 1), 10), None);
        assert_eq!(table.offer(second(TCP, 1, 8), 10), Some(syn()));
        assert_eq!(table.offer(second(TCP, 2, 8), 10), None);
        assert_eq!(table.offer(first(TCP, 2), 10), Some(syn()));
    }

    #[test]
    fn a_torn_sctp_header_yields_its_first_chunk() {
        let mut table = Reassembly::new();
        assert_eq!(table.offer(first(SCTP, 1), 10), None);
        let joined = table.offer(second(SCTP, 1, 8), 10).map(|packet| packet.transport);
        assert_eq!(joined, Some(Transport::Sctp { source_port: 40_000, port: 22, chunk: 0x60 }));
    }

    #[test]
    fn a_joined_header_is_forgotten() {
        let mut table = Reassembly::new();
        assert_eq!(table.offer(first(TCP, 1), 10), None);
        assert!(table.offer(second(TCP, 1, 8), 10).is_some());
        assert_eq!(table.offer(second(TCP, 1, 8), 10), None);
    }

    #[test]
    fn halves_of_different_packets_do_not_meet() {
        let mut table = Reassembly::new();
        assert_eq!(table.offer(first(TCP, 1), 10), None);
        assert_eq!(table.offer(second(TCP, 2, 8), 10), None);
        assert_eq!(table.offer(second(SCTP, 1, 8), 10), None);
        let stranger = Packet { source: IpAddr::from([192, 0, 2, 9]), ..second(TCP, 1, 8) };
        assert_eq!(table.offer(stranger, 10), None);
    }

    #[test]
    fn a_half_expires_and_a_clock_that_steps_back_does_not_revive_it() {
        let mut table = Reassembly::new();
        assert_eq!(table.offer(first(TCP, 1), 10), None);
        assert_eq!(table.offer(second(TCP, 1, 8), 11 + REASSEMBLY_SECONDS), None);
        assert_eq!(table.offer(first(TCP, 2), 100), None);
        assert_eq!(table.offer(second(TCP, 2, 8), 1), None);
    }

    #[test]
    fn the_oldest_half_makes_room_and_the_youngest_stay() {
        let mut table = Reassembly::new();
        let entries = u32::try_from(REASSEMBLY_ENTRIES).unwrap();
        for identification in 0..=entries {
            assert_eq!(table.offer(first(TCP, identification), 10), None);
        }
        for identification in 1..=entries {
            assert_eq!(table.offer(second(TCP, identification, 8), 10), Some(syn()));
        }
        assert_eq!(table.offer(second(TCP, 0, 8), 10), None);
    }

    #[test]
    fn what_is_no_torn_header_passes_as_it_is() {
        let mut table = Reassembly::new();
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
        let mut table = Reassembly::new();
        let head = [0; 16];
        let null =
            Transport::LaterFragment { protocol: TCP, identification: 1, offset: 8, head, head_length: 8 };
        assert_eq!(table.offer(first(TCP, 1), 10), None);
        assert_eq!(table.offer(packet(null), 10), None);
    }
}
