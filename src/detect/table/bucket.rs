//! Seven accounts that share a place, and the rules of getting in, staying in and being put out.
//!
//! Run by the ring threads, all at once, without a lock. A head word is the only truth about who holds a way; see
//! [`super`] for what a race may lose.
#![forbid(unsafe_code)]

use super::atomic::{AtomicU64, Ordering::Relaxed, Ordering::SeqCst, fence};
use super::details::Details;
use super::head::{Decay, Gain, Head, age};
use super::source::Place;

/// Accounts in a bucket. With the ledger word their heads fill one cache line. Loom explores two.
pub(super) const WAYS: usize = if cfg!(loom) { 2 } else { 7 };

/// Ticks of silence after which an account counts half in the contest for a place: about nine minutes of a half-life of
/// six hours, nearly twice the gap between probes of nmap's slowest scan.
const SILENCE: u16 = 8;

/// One line of heads, one line of details for each.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct Bucket {
    /// The way that was claimed last 8 bits, newcomers refused 28, accounts evicted 28 (both wrap).
    ledger: AtomicU64,
    heads: [AtomicU64; WAYS],
    details: [Details; WAYS],
}

/// What became of a gain.
#[derive(Clone, Copy, Debug)]
pub(super) struct Credited {
    pub way: usize,
    pub head: Head,
    /// This very gain set the triggered bit.
    pub crossed: bool,
}

/// The time and the decay that a whole operation goes by.
#[derive(Clone, Copy)]
pub(super) struct Moment<'a> {
    pub decay: &'a Decay,
    /// Microseconds.
    pub now: u64,
    pub tick: u16,
}

type Heads = [Head; WAYS];

impl Bucket {
    pub fn new() -> Bucket {
        Bucket {
            ledger: AtomicU64::new(0),
            heads: std::array::from_fn(|_| AtomicU64::new(0)),
            details: std::array::from_fn(|_| Details::new()),
        }
    }

    pub fn details(&self, way: usize) -> Option<&Details> {
        self.details.get(way)
    }

    /// Where `place` has its account, if it has one that has not faded to nothing.
    pub fn find(&self, place: Place, moment: Moment) -> Option<(usize, Head)> {
        let (way, head) = holder(&self.load(), place)?;
        (moment.worth(head) > 0).then_some((way, head))
    }

    /// The way that holds the account of `place`, faded or not.
    pub fn holding(&self, place: Place) -> Option<usize> {
        holder(&self.load(), place).map(|(way, _)| way)
    }

    /// Adds `gain` to the account that [`Bucket::find`] has just found; `None` if it changed since.
    #[inline]
    pub fn add(&self, (way, before): (usize, Head), gain: Gain, moment: Moment) -> Option<Credited> {
        let head = before.with(gain, moment.decay, moment.tick);
        let crossed = head.triggered() && !before.triggered() && !gain.triggered;
        self.swap(way, before, head).then_some(Credited { way, head, crossed })
    }

    /// Adds `gain` to the account of `place`, which is opened if need be; `None` where nobody worth less could go.
    #[inline(never)]
    pub fn credit(&self, place: Place, gain: Gain, moment: Moment) -> Option<Credited> {
        loop {
            let heads = self.load();
            let credited = match holder(&heads, place) {
                Some(found) if moment.worth(found.1) > 0 => self.add(found, gain, moment),
                Some(faded) => self.renew(place, faded, gain, moment),
                None => {
                    let Some(victim) = self.victim(&heads, gain, moment) else {
                        self.note_refusal();
                        return None;
                    };
                    self.claim(place, victim, gain, moment)
                }
            };
            if credited.is_some() {
                return credited;
            }
        }
    }

    /// Closes the account of `place`: the next probe is its first. Gives whether there was one.
    pub fn close(&self, place: Place) -> bool {
        let mut closed = false;
        while let Some((way, head)) = holder(&self.load(), place) {
            if let Some(details) = self.details.get(way) {
                details.quiet(place, 0);
            }
            closed |= self.swap(way, head, Head::EMPTY);
        }
        closed
    }

    /// Empties the ways whose score has faded to nothing, before their ticks can wrap. Gives how many hold an account.
    pub fn sweep(&self, moment: Moment) -> usize {
        let heads = self.load();
        let tenants = heads.into_iter().enumerate().filter(|(_, head)| *head != Head::EMPTY);
        tenants.filter(|&(way, head)| moment.worth(head) > 0 || !self.swap(way, head, Head::EMPTY)).count()
    }

    /// Accounts held, whatever they are worth.
    pub fn occupied(&self) -> usize {
        self.load().into_iter().filter(|head| *head != Head::EMPTY).count()
    }

    /// (accounts put out for a newcomer, newcomers that found no room).
    pub fn turned_out(&self) -> (u64, u64) {
        let ledger = self.ledger.load(Relaxed);
        (ledger >> 36, ledger >> 8 & 0xfff_ffff)
    }

    fn load(&self) -> Heads {
        std::array::from_fn(|way| self.heads.get(way).map_or(Head::EMPTY, |head| Head(head.load(Relaxed))))
    }

    fn swap(&self, way: usize, before: Head, after: Head) -> bool {
        let swap = |head: &AtomicU64| head.compare_exchange(before.0, after.0, Relaxed, Relaxed).is_ok();
        self.heads.get(way).is_some_and(swap)
    }

    /// Begins an account anew that faded to nothing, its trigger forgotten.
    fn renew(&self, place: Place, faded: (usize, Head), gain: Gain, moment: Moment) -> Option<Credited> {
        let credited = self.take(place, faded, gain, moment)?;
        self.details.get(credited.way)?.begin(place, moment.now);
        Some(credited)
    }

    /// Opens an account in the place of `victim`.
    fn claim(&self, place: Place, victim: (usize, Head), gain: Gain, moment: Moment) -> Option<Credited> {
        let credited = self.take(place, victim, gain, moment)?;
        self.note_claim(credited.way, moment.worth(victim.1) > 0);
        let settled = self.settle(place, credited, gain, moment);
        // Last, since these stores may miss the cache, and a locked instruction after them would have to wait.
        if settled.way == credited.way {
            self.details.get(credited.way)?.begin(place, moment.now);
        }
        Some(settled)
    }

    fn take(
        &self,
        place: Place,
        (way, before): (usize, Head),
        gain: Gain,
        moment: Moment,
    ) -> Option<Credited> {
        let head = Head::new(place.fingerprint, moment.tick).with(gain, moment.decay, moment.tick);
        let crossed = head.triggered() && !gain.triggered;
        self.swap(way, before, head).then_some(Credited { way, head, crossed })
    }

    /// The way for a newcomer that brings `gain`: the one worth least, spoofable before verified, and of equals the one
    /// claimed longest ago. Nobody who is worth more than the newcomer goes, but for sources long silent: in this contest
    /// what they are worth halves with every [`SILENCE`], or a flood of two packets a source would keep all others out for
    /// hours. The highest score of the bucket stays whatever comes.
    fn victim(&self, heads: &Heads, gain: Gain, moment: Moment) -> Option<(usize, Head)> {
        let turns = TURNS.get((self.ledger.load(Relaxed) & 0xff) as usize)?;
        let mine = u64::try_from(gain.points.0).ok().filter(|&points| points > 0)?;
        // In one word that orders like all of it: comparing word by word took a third of a newcomer's time.
        let rank = |(head, &turn): (&Head, &u8)| {
            (moment.in_contest(*head) << 1 | u64::from(head.verified())) << 8 | u64::from(turn)
        };
        let ranks = || heads.iter().zip(turns).map(rank);
        let way = |rank: u64| (rank & 0xf) as usize;
        let least = ranks().min()?;
        let stays = moment.worth(*heads.get(way(least))?) > mine && is_highest(heads, way(least), moment);
        let least = if stays { ranks().filter(|&rank| rank != least).min()? } else { least };
        let goes = least >> 8 <= (mine << 1 | u64::from(gain.verified));
        goes.then_some((way(least), *heads.get(way(least))?))
    }

    /// Stored without a lock, as below: two at once may count as one.
    fn note_refusal(&self) {
        self.ledger.store(self.ledger.load(Relaxed).wrapping_add(1 << 8), Relaxed);
    }

    fn note_claim(&self, way: usize, evicted: bool) {
        let before = self.ledger.load(Relaxed);
        let after = (before & !0xff | way as u64).wrapping_add(u64::from(evicted) << 36);
        self.ledger.store(after, Relaxed);
    }

    /// Two threads that meet a new source at once may each open an account for it. Each looks again after its claim (the
    /// fences make sure that at least one sees both) and moves the upper account's points into the lower one.
    fn settle(&self, place: Place, mut mine: Credited, gain: Gain, moment: Moment) -> Credited {
        fence(SeqCst);
        while let Some((upper, spare)) = duplicate(&self.load(), place) {
            if !self.swap(upper, spare, Head::EMPTY) {
                continue;
            }
            let is_mine = upper == mine.way;
            let points = crate::detect::weights::Points(spare.score() as i32);
            // Whose account was taken over by another thread has told its crossing; who gives its own up tells it here.
            let triggered = !is_mine && spare.triggered();
            let moved = Gain { points, verified: spare.verified(), triggered, ..gain };
            let Some(merged) = self.credit(place, moved, moment) else { continue };
            let crossed = merged.crossed || !is_mine && !triggered && mine.crossed;
            mine = Credited { crossed, ..merged };
        }
        mine
    }
}

impl Moment<'_> {
    /// What an account is worth now, in 256ths of a point.
    pub fn worth(&self, head: Head) -> u64 {
        self.decay.faded(head.score(), head.tick(), self.tick)
    }

    /// What that is in the contest for a place, where silence counts against it.
    fn in_contest(&self, head: Head) -> u64 {
        match age(head.tick(), self.tick) {
            0 => head.score(),
            age => self.worth(head) >> (age / SILENCE).min(20),
        }
    }
}

/// For each way that was claimed last, the others' and its own turn to go, and in the lowest four bits their way.
const TURNS: [[u8; WAYS]; WAYS] = {
    let mut turns = [[0; WAYS]; WAYS];
    let mut at = 0;
    while at < WAYS * WAYS {
        let (last, way) = (at / WAYS, at % WAYS);
        turns[last][way] = (((way + WAYS - 1 - last) % WAYS) << 4 | way) as u8;
        at += 1;
    }
    turns
};

/// Whether nobody in the bucket is worth more than `way`: of equals the one heard of last, and the upper.
#[cold]
fn is_highest(heads: &Heads, way: usize, moment: Moment) -> bool {
    let height = |(way, head): (usize, &Head)| (moment.worth(*head), head.tick(), way);
    heads.iter().enumerate().map(height).max().is_some_and(|highest| highest.2 == way)
}

fn holder(heads: &Heads, place: Place) -> Option<(usize, Head)> {
    let is_mine = |head: &Head| head.fingerprint() == place.fingerprint;
    heads.iter().position(is_mine).and_then(|way| heads.get(way).map(|&head| (way, head)))
}

/// The upper of two accounts of one source.
fn duplicate(heads: &Heads, place: Place) -> Option<(usize, Head)> {
    let (first, _) = holder(heads, place)?;
    let mut others = heads.iter().enumerate().skip(first + 1);
    others.find(|(_, head)| head.fingerprint() == place.fingerprint).map(|(way, &head)| (way, head))
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::detect::weights::Points;

    fn head() -> impl Strategy<Value = Head> {
        let account = (1_u64..1 << 28, any::<bool>(), 0_u64..1_000, 0_u16..100).prop_map(
            |(fingerprint, verified, score, tick)| {
                Head(fingerprint << 36 | u64::from(verified) << 35 | score << 16 | u64::from(tick))
            },
        );
        prop_oneof![1 => Just(Head::EMPTY), 6 => account]
    }

    /// The rules, one after another.
    fn goes(heads: &Heads, last: usize, gain: Gain, moment: Moment) -> Option<usize> {
        let worth = |way: usize| moment.worth(heads[way]);
        let highest = (0..WAYS).max_by_key(|&way| (worth(way), heads[way].tick())).unwrap();
        let mine = u64::try_from(gain.points.0).unwrap_or(0);
        let rank = |way: usize| (moment.in_contest(heads[way]), heads[way].verified());
        let in_turn = (1..=WAYS).map(|step| (last + step) % WAYS);
        let others = in_turn.filter(|&way| way != highest || worth(way) <= mine);
        others.min_by_key(|&way| rank(way)).filter(|&way| rank(way) <= (mine, gain.verified) && mine > 0)
    }

    proptest! {
        #[test]
        fn who_goes_is_found_in_one_comparison_as_by_the_rules(
            heads in prop::array::uniform7(head()), last in 0..WAYS, points in -300_i32..1_200, verified in any::<bool>(),
        ) {
            let (bucket, decay) = (Bucket::new(), Decay::new(Some(std::time::Duration::from_secs(60))));
            bucket.ledger.store(last as u64, Relaxed);
            let gain = Gain { points: Points(points), threshold: Points(999), verified, triggered: false };
            let moment = Moment { decay: &decay, now: 0, tick: 100 };
            let expected = goes(&heads, last, gain, moment);
            prop_assert_eq!(bucket.victim(&heads, gain, moment), expected.map(|way| (way, heads[way])));
        }
    }
}
