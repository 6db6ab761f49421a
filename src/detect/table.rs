//! The score table: who has earned what. Shared by all ring threads and the main thread; atomics only, no lock.
//!
//! Memory is given once and touched at once. It is told what a probe is worth; it never decides what to do about one.
//!
//! **What it holds.** `SipHash-1-3(key, source)` chooses a bucket of seven ways. A way is one *head* word (fingerprint,
//! verified, triggered, score, tick) and one line of *details* (counts, times, recent ports and contacts).
//!
//! **What a race cannot do.** A score changes by one compare-and-swap of a word that names its owner: no point is lost
//! between threads, none lands on another source, and one probe alone is told that it crossed the threshold. Two accounts
//! opened at once for one source are merged. (`races` proves these under loom, which knows SeqCst of fences alone and is
//! given one where SeqCst swaps and loads do the same by their single order.)
//!
//! **What a race can lose.** Details are words of their own, each marked with its owner. When threads meet on one
//! source within nanoseconds, or a source is evicted while it is being counted, `probes` and `distinct_ports`
//! may miss one or begin again, `first_seen` may be later, a retransmission may count as a probe, or a quiet source may be
//! heard once more. A crossing may be told twice when three threads open one account at once, or two cross in both of a
//! source's ledgers; never is none told. Never is one source's told of another's.
//!
//! **Collisions.** Fingerprints have 28 bits: a newcomer meets an account not its own with a chance of 7 in 268 million
//! and then shares it. A port is taken for a known one with 12 in 65,536, a probe for a retransmission with 4 in 16 million.
//!
//! **Time** is in microseconds of any clock that the caller keeps to (the packets' own). A tick is a 256th to a 512th of
//! the half-life and has 16 bits; it wraps after 128 half-lives (32 days for 6 hours). [`ScoreTable::sweep`] must come by
//! at least every 64, so that no old account passes for a new one. Where nothing fades nothing is swept: it wraps after 200
//! days, and an account that has been silent for more than half of them passes for a new one in the contest for a place.
#![forbid(unsafe_code)]

mod bucket;
mod contest;
mod details;
mod head;
mod source;

#[cfg(test)]
#[cfg(not(loom))]
mod laws;
#[cfg(test)]
#[cfg(loom)]
mod races;

/// Loom's atomics where loom checks this room, the machine's everywhere else.
mod atomic {
    #[cfg(loom)]
    pub(super) use loom::sync::atomic::{AtomicU64, Ordering};
    #[cfg(not(loom))]
    pub(super) use std::sync::atomic::{AtomicU64, Ordering};

    /// Loom knows SeqCst of fences alone: that of a load or a swap it takes for AcqRel.
    #[cfg(loom)]
    pub(super) fn fence_for_loom() {
        loom::sync::atomic::fence(Ordering::SeqCst);
    }
    #[cfg(not(loom))]
    #[inline]
    pub(super) fn fence_for_loom() {}
}

use std::time::Duration;

use siphasher::sip::SipHasher13;

pub use source::{Ledger, Seat, SourceKey, Vantage};

use self::bucket::{Bucket, Entry, Moment, WAYS};
use self::details::Details;
use self::head::{Decay, Gain, Head};
use self::source::Place;
use super::peers::Served;
use super::probe::Probe;
use super::weights::Points;

/// What a probe is worth, and at which score its source has crossed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// For a port that this source has not probed lately.
    pub new_port: Points,
    /// For one of the last twelve ports it probed. Negative points forgive, never below zero.
    pub known_port: Points,
    /// The score at which the source counts as a scanner.
    pub threshold: Points,
}

/// How a source stands after a probe.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Standing {
    /// Points, as they are worth now.
    pub score: f32,
    /// Different ports probed, saturating at 65,535; a port is forgotten after twelve others.
    pub distinct_ports: u32,
    /// Probes, retransmissions not among them.
    pub probes: u32,
    /// Its first probe, microseconds, to 16 µs.
    pub first_seen: u64,
    /// It proved that it receives at its address: once, which says nothing of its other probes.
    pub verified: bool,
    /// This probe is its own, and what it proved to be its own takes it over the threshold without all others.
    pub proven: bool,
    /// This probe took it over the threshold, where its other account was not yet: a source is a scanner once.
    pub crossed: bool,
    /// It is over the threshold, by this probe or an earlier one, and stays so until its score has faded to nothing, or
    /// until a probe that it needs for that is taken back.
    pub triggered: bool,
    /// This was no new probe: nothing was counted.
    pub retransmission: bool,
    /// This probe's port was none of the last that the source probed: what it is worth was counted with it.
    pub new_port: bool,
    /// [`ScoreTable::quiet`] asked to say nothing more of it for now.
    pub quiet: bool,
    /// Which of its accounts this is.
    pub ledger: Ledger,
}

/// How full the table is and whom it turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Occupancy {
    /// Ways that hold an account.
    pub occupied: usize,
    /// Ways in all.
    pub capacity: usize,
    /// Accounts put out for a newcomer since start.
    pub evicted: u64,
    /// Probes judged alone, since every account in their place was worth more.
    pub refused: u64,
}

/// Scores of sources, in fixed memory.
#[derive(Debug)]
pub struct ScoreTable {
    buckets: Box<[Bucket]>,
    hasher: SipHasher13,
    lane_key: u64,
    decay: Decay,
}

impl ScoreTable {
    /// Room for at least `capacity` sources (at most 7 × 2^20), keyed with random
    /// bytes. Points are worth half after each `half_life`; `None` keeps them whole.
    pub fn new(capacity: usize, key: &[u8; 16], half_life: Option<Duration>) -> ScoreTable {
        let buckets = capacity.div_ceil(WAYS).clamp(1, 1 << 20);
        let hasher = SipHasher13::new_with_key(key);
        ScoreTable {
            buckets: (0..buckets).map(|_| Bucket::new()).collect(),
            lane_key: hasher.hash(b"lanes"),
            hasher,
            decay: Decay::new(half_life),
        }
    }

    /// Where the accounts of `key` stand.
    #[inline]
    pub fn seat(&self, key: SourceKey) -> Seat {
        Seat::of(&self.hasher, self.lane_key, key)
    }

    /// All memory that a record of `seat` touches, for whoever would have it at hand before.
    #[inline]
    pub fn home(&self, seat: Seat) -> Option<&impl Sized> {
        self.bucket(seat)
    }

    /// Takes note of `probe` by the source of `seat` at `now` microseconds, and tells how it stands with it.
    ///
    /// A source that finds no room is judged on this one probe.
    #[inline]
    pub fn record(&self, seat: Seat, probe: &Probe, evidence: Evidence, now: u64) -> Standing {
        let (ledger, place, moment) = (seat.ledger, Place::of(seat, self.lane_key), self.moment(now));
        let Some(bucket) = self.bucket(seat) else { return alone(ledger, probe, evidence, now) };
        let seen = bucket.see(place);
        let known = seen.account(moment).and_then(|(way, head)| Some((bucket.details(way)?, head)));
        let contact = place.contact_mark(probe);
        let port = place.port_mark(&probe.destination, probe.protocol, probe.port);
        if let Some((details, head)) = known
            && details.knows_contact(contact, now)
        {
            let counts = details.counts(place);
            return Standing {
                retransmission: true,
                ..standing(ledger, details, place, counts, head, moment)
            };
        }
        let is_new = !known.is_some_and(|(details, _)| details.knows_port(port));
        let gain = Gain {
            points: if is_new { evidence.new_port } else { evidence.known_port },
            threshold: evidence.threshold,
            verified: probe.verified,
            triggered: false,
            takes_back: false,
        };
        let other = || Place::of(seat.in_ledger(ledger.other()), self.lane_key).fingerprint;
        let is_first = |crossed: bool| crossed && !seen.is_triggered(other(), moment);
        let Some(credited) = bucket.credit(&seen, &Entry { place, gain, moment }) else {
            let alone = alone(ledger, probe, evidence, now);
            return Standing { crossed: is_first(alone.crossed), ..alone };
        };
        let crossed = is_first(credited.crossed);
        let Some(details) = bucket.details(credited.way) else { return alone(ledger, probe, evidence, now) };
        let counts = details.count(place, is_new);
        details.note_contact(contact, now, counts.probes);
        if is_new {
            details.note_port(port, counts.distinct_ports);
        }
        let standing = standing(ledger, details, place, counts, credited.head, moment);
        Standing { crossed, new_port: is_new, ..standing }
    }

    /// The port that `served` names was answered by a service after all: what `evidence` made of it and counted against
    /// `key`, if it is among the last ports, is taken back, and the trigger with it where the rest does not reach it.
    ///
    /// Repeats are not counted by port: they were all this one's only where it is the only port, and no other's repeat
    /// may be undone by it.
    pub fn retract(&self, key: SourceKey, served: &Served, evidence: Evidence, now: u64) {
        let ((place, Some(bucket)), moment) = (self.look_up(key), self.moment(now)) else { return };
        let Some(details) = bucket.find(place, moment).and_then(|(way, _)| bucket.details(way)) else {
            return;
        };
        let counts = details.counts(place);
        if details.forget_port(place.port_mark(&served.host, served.protocol, served.port)) {
            let repeats = if counts.distinct_ports == 1 { counts.probes.saturating_sub(1) } else { 0 };
            let Evidence { new_port, known_port, threshold } = evidence;
            let repeated = known_port.0.saturating_mul(i32::try_from(repeats).unwrap_or(i32::MAX));
            let points = Points(new_port.0.saturating_add(repeated).saturating_neg());
            let gain = Gain { points, threshold, verified: false, triggered: false, takes_back: true };
            bucket.credit(&bucket.see(place), &Entry { place, gain, moment });
        }
    }

    /// Says nothing more of `key` until `until` microseconds: [`Standing::quiet`], in all ledgers. Gives whether it has
    /// an account.
    pub fn quiet(&self, key: SourceKey, until: u64) -> bool {
        let quiet = |key| {
            let (place, bucket) = self.look_up(key);
            let details = bucket.and_then(|bucket| bucket.details(bucket.holding(place)?));
            details.inspect(|details| details.quiet(place, until)).is_some()
        };
        key.in_all().map(quiet).contains(&true)
    }

    /// Ends every silence that [`quiet`](Self::quiet) has set: what it was kept for is judged otherwise now.
    pub fn end_silences(&self) {
        self.buckets.iter().for_each(Bucket::end_silences);
    }

    /// Forgets `key` in all ledgers: its next probe is its first, and it can cross again. Gives whether it had an account.
    pub fn forgive(&self, key: SourceKey) -> bool {
        let forgive = |key| {
            let (place, bucket) = self.look_up(key);
            bucket.is_some_and(|bucket| bucket.close(place))
        };
        key.in_all().map(forgive).contains(&true)
    }

    /// How `key` stands at `now`, if it has an account; changes nothing.
    pub fn standing(&self, key: SourceKey, now: u64) -> Option<Standing> {
        self.standing_at(self.seat(key), now)
    }

    /// The same where the seat is known.
    pub fn standing_at(&self, seat: Seat, now: u64) -> Option<Standing> {
        let (place, moment) = (Place::of(seat, self.lane_key), self.moment(now));
        let bucket = self.bucket(seat)?;
        let (way, head) = bucket.find(place, moment)?;
        let details = bucket.details(way)?;
        Some(standing(seat.ledger, details, place, details.counts(place), head, moment))
    }

    /// Empties accounts that have faded to nothing; gives how many are left. Call it about every half-life.
    pub fn sweep(&self, now: u64) -> usize {
        let moment = self.moment(now);
        self.buckets.iter().map(|bucket| bucket.sweep(moment)).sum()
    }

    /// Counts the accounts: reads one line a bucket, so for statistics, not for the packet path.
    pub fn occupancy(&self) -> Occupancy {
        let none = Occupancy { occupied: 0, capacity: self.buckets.len() * WAYS, evicted: 0, refused: 0 };
        self.buckets.iter().fold(none, |sum, bucket| {
            let (evicted, refused) = bucket.turned_out();
            Occupancy {
                occupied: sum.occupied + bucket.occupied(),
                evicted: sum.evicted + evicted,
                refused: sum.refused + refused,
                ..sum
            }
        })
    }

    /// Bytes held, from the start to the end: the table never grows.
    pub fn memory_bytes(&self) -> usize {
        size_of::<ScoreTable>() + size_of_val::<[Bucket]>(&self.buckets)
    }

    fn look_up(&self, key: SourceKey) -> (Place, Option<&Bucket>) {
        let seat = self.seat(key);
        (Place::of(seat, self.lane_key), self.bucket(seat))
    }

    fn moment(&self, now: u64) -> Moment<'_> {
        Moment { decay: &self.decay, now, tick: self.decay.tick(now) }
    }

    #[inline]
    fn bucket(&self, seat: Seat) -> Option<&Bucket> {
        // Spread evenly over any number of buckets (Lemire 2019, "A fast alternative to the modulo reduction"); by the
        // lower half of the hash, for the fingerprint is of the upper one and must tell tenants apart.
        let spread = ((seat.hash & 0xffff_ffff) * self.buckets.len() as u64) >> 32;
        self.buckets.get(spread as usize)
    }
}

fn standing(
    ledger: Ledger,
    details: &Details,
    place: Place,
    counts: details::Counts,
    head: Head,
    moment: Moment,
) -> Standing {
    Standing {
        score: Points(moment.worth(head) as i32).as_f32(),
        distinct_ports: u32::from(counts.distinct_ports),
        probes: counts.probes,
        first_seen: details.first_seen(place).unwrap_or(moment.now),
        verified: head.verified(),
        proven: false,
        crossed: false,
        triggered: head.triggered(),
        retransmission: false,
        new_port: false,
        quiet: details.is_quiet(place, moment.now),
        ledger,
    }
}

/// The standing of a source of which nothing else is or can be known.
fn alone(ledger: Ledger, probe: &Probe, evidence: Evidence, now: u64) -> Standing {
    let crossed = evidence.new_port > Points::NONE && evidence.new_port >= evidence.threshold;
    Standing {
        score: evidence.new_port.max(Points::NONE).as_f32(),
        distinct_ports: 1,
        probes: 1,
        first_seen: now,
        verified: probe.verified,
        proven: false,
        crossed,
        triggered: crossed,
        retransmission: false,
        new_port: true,
        quiet: false,
        ledger,
    }
}
