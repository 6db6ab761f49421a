//! Seven accounts that share a place, and the rules of getting in, staying in and being put out.
//!
//! Run by the ring threads, all at once, without a lock. A head word is the only truth about who holds a way; see
//! [`super`] for what a race may lose.
#![forbid(unsafe_code)]

use super::atomic::{AtomicU64, Ordering, Ordering::Relaxed, Ordering::SeqCst, fence_for_loom};
use super::contest::victim;
use super::details::Details;
use super::head::{Decay, Gain, Head};
use super::source::Place;

/// Accounts in a bucket. With the ledger word their heads fill one cache line. Loom explores two.
pub(super) const WAYS: usize = if cfg!(loom) { 2 } else { 7 };

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

/// What is to be entered, for whom, and when.
#[derive(Clone, Copy)]
pub(super) struct Entry<'a> {
    pub place: Place,
    pub gain: Gain,
    pub moment: Moment<'a>,
}

#[derive(Clone, Copy)]
enum Attempt {
    Done(Credited),
    /// Nobody here is worth less.
    NoRoom,
    /// Another thread was faster.
    Lost,
}

pub(super) type Heads = [Head; WAYS];

/// The heads of a bucket at one moment, and which of them is the account of whom it was asked for, faded or not.
#[derive(Clone, Copy)]
pub(super) struct Seen {
    heads: Heads,
    mine: Option<(usize, Head)>,
}

impl Seen {
    fn new(heads: Heads, place: Place) -> Seen {
        let way = heads.iter().position(|head| head.fingerprint() == place.fingerprint);
        Seen { heads, mine: way.and_then(|way| Some((way, *heads.get(way)?))) }
    }

    /// The account, if it has not faded to nothing.
    #[inline]
    pub fn account(&self, moment: Moment) -> Option<(usize, Head)> {
        self.mine.filter(|&(_, head)| moment.worth(head) > 0)
    }

    /// Whether whoever is called `fingerprint` here is over the threshold.
    pub fn is_triggered(&self, fingerprint: u64, moment: Moment) -> bool {
        let mut heads = self.heads.iter();
        let head = heads.find(|head| head.fingerprint() == fingerprint);
        head.is_some_and(|&head| head.triggered() && moment.worth(head) > 0)
    }
}

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

    /// The heads as they stand, and the account of `place` among them.
    #[inline]
    pub fn see(&self, place: Place) -> Seen {
        Seen::new(self.load(Relaxed), place)
    }

    /// Where `place` has its account, if it has one that has not faded to nothing.
    pub fn find(&self, place: Place, moment: Moment) -> Option<(usize, Head)> {
        self.see(place).account(moment)
    }

    /// The way that holds the account of `place`, faded or not.
    pub fn holding(&self, place: Place) -> Option<usize> {
        self.see(place).mine.map(|(way, _)| way)
    }

    /// Makes `entry` in its account, which was `seen` just now, or opens one; `None` where nobody worth less could go.
    #[inline]
    pub fn credit(&self, seen: &Seen, entry: &Entry) -> Option<Credited> {
        match self.attempt(seen, entry) {
            Attempt::Done(credited) => Some(credited),
            Attempt::NoRoom => None,
            Attempt::Lost => self.credit_again(entry),
        }
    }

    #[cold]
    fn credit_again(&self, entry: &Entry) -> Option<Credited> {
        loop {
            match self.attempt(&self.see(entry.place), entry) {
                Attempt::Done(credited) => return Some(credited),
                Attempt::NoRoom => return None,
                Attempt::Lost => {}
            }
        }
    }

    /// Always in line, as what it adds is: the second caller is the cold one, and for its sake none should pay for a call.
    #[inline(always)]
    fn attempt(&self, seen: &Seen, entry: &Entry) -> Attempt {
        match seen.account(entry.moment) {
            Some(found) => self.add(found, entry),
            None => self.open(seen, entry),
        }
    }

    /// Adds to an account as it was seen.
    #[inline(always)]
    fn add(&self, (way, before): (usize, Head), entry: &Entry) -> Attempt {
        let Entry { gain, moment, .. } = *entry;
        let head = before.with(gain, moment.decay, moment.tick);
        let crossed = head.triggered() && !before.triggered() && !gain.triggered;
        self.swap((way, before), head, crossed)
    }

    /// Opens an account where one has faded to nothing or in the place of somebody worth less.
    #[inline(never)]
    fn open(&self, seen: &Seen, entry: &Entry) -> Attempt {
        if let Some(faded) = seen.mine {
            return self.renew(faded, entry);
        }
        match victim(&seen.heads, self.ledger.load(Relaxed), entry) {
            Some(victim) => self.claim(victim, entry),
            None => {
                self.note_refusal();
                Attempt::NoRoom
            }
        }
    }

    /// Closes the account of `place`: the next probe is its first. Gives whether there was one.
    pub fn close(&self, place: Place) -> bool {
        let mut closed = false;
        while let Some((way, head)) = self.see(place).mine {
            if let Some(details) = self.details.get(way) {
                details.quiet(place, 0);
            }
            closed |= self.replace(way, head, Head::EMPTY);
        }
        closed
    }

    /// Nobody here is quiet any longer.
    pub fn end_silences(&self) {
        self.details.iter().for_each(Details::end_silence);
    }

    /// Empties the ways whose score has faded to nothing, before their ticks can wrap. Gives how many hold an account.
    pub fn sweep(&self, moment: Moment) -> usize {
        let heads = self.load(Relaxed);
        let tenants = heads.into_iter().enumerate().filter(|(_, head)| *head != Head::EMPTY);
        tenants.filter(|&(way, head)| moment.worth(head) > 0 || !self.replace(way, head, Head::EMPTY)).count()
    }

    /// Accounts held, whatever they are worth.
    pub fn occupied(&self) -> usize {
        self.load(Relaxed).into_iter().filter(|head| *head != Head::EMPTY).count()
    }

    /// (accounts put out for a newcomer, newcomers that found no room).
    pub fn turned_out(&self) -> (u64, u64) {
        let ledger = self.ledger.load(Relaxed);
        (ledger >> 36, ledger >> 8 & 0xfff_ffff)
    }

    #[inline]
    fn load(&self, ordering: Ordering) -> Heads {
        std::array::from_fn(|way| self.heads.get(way).map_or(Head::EMPTY, |head| Head(head.load(ordering))))
    }

    /// SeqCst for [`settle`](Self::settle), which looks back in the one order of all claims.
    fn replace(&self, way: usize, before: Head, after: Head) -> bool {
        let swap = |head: &AtomicU64| head.compare_exchange(before.0, after.0, SeqCst, Relaxed).is_ok();
        self.heads.get(way).is_some_and(swap)
    }

    #[inline]
    fn swap(&self, (way, before): (usize, Head), head: Head, crossed: bool) -> Attempt {
        match self.replace(way, before, head) {
            true => Attempt::Done(Credited { way, head, crossed }),
            false => Attempt::Lost,
        }
    }

    /// Begins an account anew that faded to nothing, its trigger forgotten.
    fn renew(&self, faded: (usize, Head), entry: &Entry) -> Attempt {
        let attempt = self.take(faded, entry);
        if let (Attempt::Done(_), Some(details)) = (attempt, self.details.get(faded.0)) {
            details.begin(entry.place, entry.moment.now);
        }
        attempt
    }

    /// Opens an account in the place of `victim`.
    fn claim(&self, victim: (usize, Head), entry: &Entry) -> Attempt {
        let Attempt::Done(credited) = self.take(victim, entry) else { return Attempt::Lost };
        self.note_claim(credited.way, entry.moment.worth(victim.1) > 0);
        let settled = self.settle(credited, entry);
        // Last, since these stores may miss the cache, and a locked instruction after them would have to wait.
        if let (true, Some(details)) = (settled.way == credited.way, self.details.get(credited.way)) {
            details.begin(entry.place, entry.moment.now);
        }
        Attempt::Done(settled)
    }

    fn take(&self, victim: (usize, Head), entry: &Entry) -> Attempt {
        let Entry { place, gain, moment } = *entry;
        let head = Head::new(place.fingerprint, moment.tick).with(gain, moment.decay, moment.tick);
        let crossed = head.triggered() && !gain.triggered;
        self.swap(victim, head, crossed)
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

    /// Two threads that meet a new source at once may each open an account for it. Each looks again after its claim (in
    /// the one order of all that is SeqCst, one of the two claims comes first, and the other's thread sees it).
    #[inline]
    fn settle(&self, mine: Credited, entry: &Entry) -> Credited {
        fence_for_loom();
        match is_doubled(&self.load(SeqCst), entry.place) {
            false => mine,
            true => self.merge(mine, entry),
        }
    }

    /// Moves the upper account's points into the lower one.
    #[cold]
    fn merge(&self, mut mine: Credited, entry: &Entry) -> Credited {
        while let Some((upper, spare)) = duplicate(&self.load(SeqCst), entry.place) {
            if !self.replace(upper, spare, Head::EMPTY) {
                continue;
            }
            let is_mine = upper == mine.way;
            let points = crate::detect::weights::Points(spare.score() as i32);
            // Whose account was taken over by another thread has told its crossing; who gives its own up tells it here.
            let triggered = !is_mine && spare.triggered();
            let gain = Gain { points, verified: spare.verified(), triggered, ..entry.gain };
            let Some(merged) = self.credit_again(&Entry { gain, ..*entry }) else { continue };
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
}

fn is_doubled(heads: &Heads, place: Place) -> bool {
    heads.iter().map(|head| u64::from(head.fingerprint() == place.fingerprint)).sum::<u64>() > 1
}

/// The upper of two accounts of one source.
fn duplicate(heads: &Heads, place: Place) -> Option<(usize, Head)> {
    let mine = |(_, head): &(usize, &Head)| head.fingerprint() == place.fingerprint;
    heads.iter().enumerate().filter(mine).nth(1).map(|(way, &head)| (way, head))
}
