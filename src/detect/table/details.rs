//! What is known of a source besides its score: counts, times, the ports and contacts it showed lately. One cache line.
//!
//! Run by the ring threads. Nothing here decides whose a point is: each word is changed by itself and carries a mark of
//! its source, so that a race can lose what is told of a source but never tell it of another one. Hence plain stores: a
//! locked instruction for each word would cost more than all the rest of a record.
#![forbid(unsafe_code)]

// Lanes are hints: they decide no account's owner, so loom need not try every order of their eight words.
use std::sync::atomic::AtomicU64 as Lanes;

use super::atomic::{AtomicU64, Ordering::Relaxed};
use super::source::Place;

/// Ports remembered as probed.
pub(super) const PORT_LANES: u64 = 12;
/// Contacts remembered, to know a retransmission by.
const CONTACT_LANES: u64 = 4;
/// A repetition counts as a retransmission for one to two of these, 2^28 µs = 268 s: Linux sends a SYN again for 127 s.
const EPOCH_SHIFT: u32 = 28;

/// Eight words.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct Details {
    /// Tag 16 bits, distinct ports 16, probes 32; the two saturate.
    counts: AtomicU64,
    /// Tag 16 bits, time 48 (16 µs, until the year 2112).
    first_seen: AtomicU64,
    /// The same form: nothing more is to be said of this source until then.
    quiet_until: AtomicU64,
    /// 2 lanes of 32 bits a word: contact mark 24, epoch 8.
    contacts: [Lanes; 2],
    /// 4 lanes of 16 bits a word: port marks.
    ports: [Lanes; 3],
}

/// Counts of one source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub distinct_ports: u16,
    pub probes: u32,
}

impl Details {
    /// Filled with ones, not zeros: the allocator then cannot put off giving the memory until a flood comes.
    pub fn new() -> Details {
        let word = || AtomicU64::new(u64::MAX);
        Details {
            counts: word(),
            first_seen: word(),
            quiet_until: word(),
            contacts: std::array::from_fn(|_| Lanes::new(u64::MAX)),
            ports: std::array::from_fn(|_| Lanes::new(u64::MAX)),
        }
    }

    /// Begins the account of `place`, whose first probe came at `now` microseconds.
    pub fn begin(&self, place: Place, now: u64) {
        self.counts.store(place.tag() << 48, Relaxed);
        self.first_seen.store(timed(place, now), Relaxed);
        self.quiet_until.store(0, Relaxed);
        self.contacts.iter().chain(&self.ports).for_each(|lanes| lanes.store(0, Relaxed));
    }

    /// The counts as they stand; zero if the words are another source's.
    pub fn counts(&self, place: Place) -> Counts {
        let word = self.counts.load(Relaxed);
        match word >> 48 == place.tag() {
            true => Counts { distinct_ports: (word >> 32) as u16, probes: word as u32 },
            false => Counts::default(),
        }
    }

    /// Counts a probe, of a port not seen before if `new_port`; gives the counts with it.
    pub fn count(&self, place: Place, new_port: bool) -> Counts {
        let before = self.counts(place);
        let probes = before.probes.saturating_add(1);
        let distinct_ports = before.distinct_ports.saturating_add(u16::from(new_port));
        let word = place.tag() << 48 | u64::from(distinct_ports) << 32 | u64::from(probes);
        self.counts.store(word, Relaxed);
        Counts { distinct_ports, probes }
    }

    /// When this source was first seen, microseconds (to 16 µs).
    pub fn first_seen(&self, place: Place) -> Option<u64> {
        time(place, self.first_seen.load(Relaxed))
    }

    /// Whether nothing is to be said of this source at `now`.
    pub fn is_quiet(&self, place: Place, now: u64) -> bool {
        time(place, self.quiet_until.load(Relaxed)).is_some_and(|until| now < until)
    }

    /// Says nothing of this source until `until` microseconds.
    pub fn quiet(&self, place: Place, until: u64) {
        self.quiet_until.store(timed(place, until), Relaxed);
    }

    /// Whoever's account it is: nobody is quiet at time 0.
    pub fn end_silence(&self) {
        self.quiet_until.store(0, Relaxed);
    }

    /// Whether this port was seen lately.
    pub fn knows_port(&self, mark: u64) -> bool {
        // All four lanes at once: one that equals the mark becomes zero, and only a zero borrows into its top bit.
        const ONES: u64 = 0x0001_0001_0001_0001;
        let sought = mark.wrapping_mul(ONES);
        let holds = |lanes: &Lanes| {
            let differences = lanes.load(Relaxed) ^ sought;
            differences.wrapping_sub(ONES) & !differences & ONES << 15 != 0
        };
        self.ports.iter().any(holds)
    }

    /// Remembers a port in place of the one remembered longest; it is this source's `ordinal`-th.
    pub fn note_port(&self, mark: u64, ordinal: u16) {
        let lane = u64::from(ordinal) % PORT_LANES;
        if let Some(lanes) = self.ports.get((lane / 4) as usize) {
            set_lane(lanes, 16 * (lane % 4) as u32, 0xffff, mark);
        }
    }

    /// Forgets a port, if it is among those remembered: gives whether it was.
    pub fn forget_port(&self, mark: u64) -> bool {
        let lanes = self.ports.iter().flat_map(|lanes| (0..4).map(move |lane| (lanes, 16 * lane)));
        let mut known = lanes.filter(|(lanes, shift)| lanes.load(Relaxed) >> shift & 0xffff == mark);
        known.next().inspect(|&(lanes, shift)| set_lane(lanes, shift, 0xffff, 0)).is_some()
    }

    /// Whether this contact was made less than about five minutes before `now`.
    pub fn knows_contact(&self, mark: u64, now: u64) -> bool {
        let epoch = (now >> EPOCH_SHIFT) as u8;
        self.contacts.iter().any(|lanes| {
            let word = lanes.load(Relaxed);
            [word as u32, (word >> 32) as u32]
                .into_iter()
                .any(|lane| u64::from(lane >> 8) == mark && epoch.wrapping_sub(lane as u8) <= 1)
        })
    }

    /// Remembers a contact in place of the one remembered longest; it is this source's `ordinal`-th.
    pub fn note_contact(&self, mark: u64, now: u64, ordinal: u32) {
        let lane = u64::from(ordinal) % CONTACT_LANES;
        let value = mark << 8 | u64::from((now >> EPOCH_SHIFT) as u8);
        if let Some(lanes) = self.contacts.get((lane / 2) as usize) {
            set_lane(lanes, 32 * (lane % 2) as u32, 0xffff_ffff, value);
        }
    }
}

/// Changes one lane of four or two.
fn set_lane(lanes: &Lanes, shift: u32, mask: u64, value: u64) {
    lanes.store(lanes.load(Relaxed) & !(mask << shift) | value << shift, Relaxed);
}

fn timed(place: Place, micros: u64) -> u64 {
    place.tag() << 48 | (micros >> 4).min((1 << 48) - 1)
}

fn time(place: Place, word: u64) -> Option<u64> {
    (word >> 48 == place.tag()).then_some((word & ((1 << 48) - 1)) << 4)
}
