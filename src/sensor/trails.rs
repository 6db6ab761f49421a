//! What scanners go on to do after their alarm: counts and ports, for one summary when they fall quiet.
//!
//! Ring threads open and note, the main thread closes; atomics only. Two alarms at the very same time may share a trail.
//! Bounded: so many sources, 8 KiB each, and who finds no room gets no summary. Never decides anything.
#![forbid(unsafe_code)]

use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use siphasher::sip::SipHasher13;

use crate::config::PortSet;
use crate::detect::{Probe, SharedPorts, SourceKey};

/// Sources that are followed at a time.
const TRAILS: usize = 32;
/// A source is quiet when it has sent nothing for so long, microseconds: four of the gaps of nmap's -T1.
pub const QUIET: u64 = 60_000_000;

/// The trails.
pub struct Trails {
    slots: Box<[Slot]>,
    hasher: SipHasher13,
}

/// What one source did.
struct Slot {
    /// A mark of the source; 0: free.
    mark: AtomicU64,
    /// Microseconds of uptime.
    latest: AtomicU64,
    probes: AtomicU64,
    /// TCP, UDP and SCTP alike.
    ports: SharedPorts,
}

/// What a source did from its alarm on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trail {
    /// Packets that counted, the one that raised the alarm among them.
    pub probes: u64,
    /// Their ports.
    pub ports: PortSet,
    /// The last one, microseconds of uptime.
    pub latest: u64,
}

impl Trails {
    /// No trail; `key` is random.
    pub fn new(key: &[u8; 16]) -> Trails {
        Trails { slots: (0..TRAILS).map(|_| Slot::new()).collect(), hasher: SipHasher13::new_with_key(key) }
    }

    /// Follows whoever has `account`, in either ledger, from `probe` on; `None` if there is no room. Gives the number of
    /// its trail. Once opened, it is the same trail for whoever opens it again.
    pub fn open(&self, account: SourceKey, probe: &Probe, now: u64) -> Option<usize> {
        let mark = self.mark(account);
        let mine = self.slots.iter().position(|slot| slot.mark.load(Relaxed) == mark);
        let at = mine.or_else(|| self.slots.iter().position(|slot| slot.is_free(now)))?;
        let slot = self.slots.get(at)?;
        if mine.is_none() {
            slot.clear();
            slot.mark.store(mark, Relaxed);
            slot.note(probe, now);
        }
        Some(at)
    }

    /// A probe of a source over the trigger.
    pub fn note(&self, account: SourceKey, probe: &Probe, now: u64) {
        let mark = self.mark(account);
        if let Some(slot) = self.slots.iter().find(|slot| slot.mark.load(Relaxed) == mark) {
            slot.note(probe, now);
        }
    }

    /// When a trail went on last, microseconds of uptime.
    pub fn latest(&self, at: usize) -> Option<u64> {
        self.slots.get(at).map(|slot| slot.latest.load(Relaxed))
    }

    /// Ends a trail.
    pub fn close(&self, at: usize) -> Option<Trail> {
        self.slots.get(at).map(Slot::take)
    }

    fn mark(&self, account: SourceKey) -> u64 {
        let mut hasher = self.hasher;
        account.hash(&mut hasher);
        hasher.finish().max(1)
    }
}

impl Slot {
    fn new() -> Slot {
        let number = || AtomicU64::new(0);
        Slot { mark: number(), latest: number(), probes: number(), ports: SharedPorts::new() }
    }

    /// Nobody's, or of a source that nobody closed in all this time: its alarm found no way to the main thread.
    fn is_free(&self, now: u64) -> bool {
        let abandoned = self.latest.load(Relaxed).saturating_add(10 * QUIET) < now;
        self.mark.load(Relaxed) == 0 || abandoned
    }

    fn note(&self, probe: &Probe, now: u64) {
        self.latest.fetch_max(now, Relaxed);
        self.probes.fetch_add(1, Relaxed);
        self.ports.insert(probe.port);
    }

    /// For a ring's thread, which makes nothing anew: what was in it goes untold.
    fn clear(&self) {
        self.ports.clear();
        [&self.probes, &self.latest, &self.mark].iter().for_each(|number| number.store(0, Relaxed));
    }

    fn take(&self) -> Trail {
        let trail = Trail {
            ports: self.ports.take(),
            probes: self.probes.swap(0, Relaxed),
            latest: self.latest.swap(0, Relaxed),
        };
        self.mark.store(0, Relaxed);
        trail
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::probe::samples::syn;

    fn probe(port: u16) -> Probe {
        syn("192.0.2.1", port)
    }

    fn account(number: u8) -> SourceKey {
        SourceKey::of(&[192, 0, 2, number].into(), 64)
    }

    #[test]
    fn a_full_scan_leaves_one_trail_with_its_counts_and_ranges() {
        let trails = Trails::new(&[1; 16]);
        let at = trails.open(account(1), &probe(1), 10).unwrap();
        (2..=65_535)
            .filter(|port| port % 1000 != 0)
            .for_each(|port| trails.note(account(1), &probe(port), 20));
        trails.note(account(2), &probe(7), 90);
        assert_eq!((trails.open(account(1), &probe(1), 30), trails.latest(at)), (Some(at), Some(20)));
        let trail = trails.close(at).unwrap();
        assert_eq!((trail.probes, trail.latest), (65_535 - 65, 20));
        assert!(trail.ports.to_string().starts_with("1-999,1001-1999,"), "{}", trail.ports);
        assert_eq!(trails.close(at).unwrap().probes, 0);
    }

    #[test]
    fn there_is_room_for_so_many_and_for_the_next_when_one_ends() {
        let trails = Trails::new(&[1; 16]);
        let opened = (0..=255).filter(|&number| trails.open(account(number), &probe(1), 1).is_some());
        assert_eq!(opened.count(), TRAILS);
        trails.close(5);
        assert_eq!(trails.open(account(200), &probe(1), 1), Some(5));
    }
}
