//! `nmap -f`: a TCP (or SCTP) header torn after its first 8 bytes is put together again, or told of as it is.
//!
//! Runs in each ring thread, which owns one table. Of fixed size: a flood of fragments overwrites the oldest halves
//! and never makes it grow. It keeps no payload and no fragment but the one at offset 8. For each first half it gives
//! back one packet, and never one that seems to ask nothing: which second half its host has, nobody else can know.
#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::net::IpAddr;

use super::transport::{SCTP, TCP};
use super::{Packet, TcpFlags, Transport};

/// Halves that can wait at a time. A scanner sends both within a millisecond.
pub const REASSEMBLY_ENTRIES: usize = 64;

/// Whole seconds that a half waits for the other. Hosts wait for 30 (IPv4) or 60 (IPv6); here no more than the kind of
/// the scan depends on the other half.
pub const REASSEMBLY_SECONDS: u64 = 1;

/// SCTP's INIT and COOKIE ECHO (RFC 9260 §3.2): what asks for an association.
const OPENING_CHUNKS: [u8; 2] = [1, 10];

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
    since: u64,
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
    /// Bytes 0 to 7 of the header: the packet has them.
    First,
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

    /// Gives back a packet that is no torn header as it is, a torn one with its second half to come (either may come
    /// first), and `None` while it waits: whole if it asks something, else as the [`Transport::TinyFragment`] that its
    /// first half is. Where an older first half has to make room, it is what comes back, likewise.
    ///
    /// `now` is in seconds, of any clock. The `payload` of a packet put together is 0: it was not counted.
    #[inline(always)]
    pub fn offer(&mut self, packet: Packet, origin: Origin, now: u64) -> Option<(Packet, Origin)> {
        match half(&packet) {
            None => Some((packet, origin)),
            Some((key, half)) => self.meet(Waiting { packet, key, half, since: now, origin }),
        }
    }

    /// A first half whose other one did not come in time; ask until there is none.
    pub fn overdue(&mut self, now: u64) -> Option<(Packet, Origin)> {
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
        // In order of arrival: of second halves a host keeps the first (inet_frag_queue_insert).
        let (newer, older) = self.slots.split_at_mut_checked(self.next)?;
        for slot in older.iter_mut().chain(newer) {
            let Some(old) = slot.as_ref().filter(|old| old.belongs_to(&new)) else { continue };
            let packet = match (old.half, new.half) {
                (Half::First, Half::Second(rest)) => completed(&old.packet, rest),
                (Half::Second(rest), Half::First) => completed(&new.packet, rest),
                (Half::Second(_), Half::Second(_)) => return None,
                (Half::First, Half::First) => continue,
            };
            // One of the two is a first half: if it is not the new one, it waits no longer.
            self.firsts = self.firsts.saturating_sub(usize::from(!new.half.is_first()));
            *slot = None;
            return Some((packet, new.origin));
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
        Transport::TinyFragment { protocol, identification, .. } => (identification, protocol, Half::First),
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
        matches!(self, Self::First)
    }
}

impl<Origin> Waiting<Origin> {
    const fn is_in_time(&self, now: u64) -> bool {
        self.since.abs_diff(now) <= REASSEMBLY_SECONDS
    }

    /// Whether both are of one packet, and arrived close enough together.
    fn belongs_to(&self, other: &Self) -> bool {
        self.key == other.key && self.is_in_time(other.since)
    }
}

/// The packet that begins with `first`, if it asks something. Else its second half may be a decoy, of which its host
/// knows better: a second one to come, or one before it that had to make room here. That it is torn is proof enough.
fn completed(first: &Packet, rest: [u8; 6]) -> Packet {
    let Transport::TinyFragment { protocol, source_port, port, sequence, identification: _ } =
        first.transport
    else {
        return *first;
    };
    let [_, _, _, _, byte_12, byte_13] = rest;
    let (flags, is_answer) = (TcpFlags(byte_13), byte_13 & (TcpFlags::ACK | TcpFlags::RST) != 0);
    let transport = match protocol {
        TCP if byte_12 >> 4 >= 5 && !is_answer => {
            Transport::Tcp { source_port, port, flags, sequence, payload: 0 }
        }
        SCTP if OPENING_CHUNKS.contains(&byte_12) => Transport::Sctp { source_port, port, chunk: byte_12 },
        _ => first.transport,
    };
    Packet { transport, ..*first }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
mod tests;
