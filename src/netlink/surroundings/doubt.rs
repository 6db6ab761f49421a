//! What becomes of what is known of a list with each reading of it, whole or not.
//!
//! Pure, time is an argument; both roles. Of a list that changed while it was read something may be missing: what was known
//! stays known, so that nobody's protection is lost for the kernel's haste. Must keep nothing for good that is gone.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// What is known of a list is twice as long at most as what was read of it last, and so many more.
const ASIDE: usize = 1024;
/// What stands in none of the readings of so long is gone. One that misses what is there hits another place of the list next
/// time.
const LONG: Duration = Duration::from_secs(600);
/// And in none of so many.
const MANY: u32 = 100;

/// Part of what is known.
pub(super) trait Part: Clone + PartialEq + Default {
    /// How much it is.
    fn count(&self) -> usize;
    /// Adds what `other` has: of what stands in both, that is true.
    fn add(&mut self, other: Self);
    /// Lets go of all that `other` has too.
    fn leave_out(&mut self, other: &Self);
}

impl<T: Ord + Clone> Part for BTreeSet<T> {
    fn count(&self) -> usize {
        self.len()
    }

    fn add(&mut self, other: Self) {
        self.extend(other);
    }

    fn leave_out(&mut self, other: &Self) {
        // Taking out one by one, or sorting anew, is 20 KB of code in each program; this is there for `add`.
        let known = std::mem::take(self);
        self.extend(known.into_iter().filter(|one| !other.contains(one)));
    }
}

impl<K: Ord + Clone, V: Clone + PartialEq> Part for BTreeMap<K, V> {
    fn count(&self) -> usize {
        self.len()
    }

    fn add(&mut self, other: Self) {
        self.extend(other);
    }

    fn leave_out(&mut self, other: &Self) {
        let known = std::mem::take(self);
        self.extend(known.into_iter().filter(|(key, _)| !other.contains_key(key)));
    }
}

/// What a reading says of what it lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lacking {
    /// It was whole: that is gone.
    IsGone,
    /// It changed meanwhile: that may be there.
    MayBeThere,
    /// Likewise, and so did a great many before it: what none of them has is gone.
    HasLongBeen,
}

/// Readings in a row of one list that was never had whole.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Spell(Option<(Instant, u32)>);

impl Spell {
    /// Takes note of a reading.
    pub(super) fn note(&mut self, is_whole: bool, now: Instant) -> Lacking {
        let Some((begun, readings)) = self.0.filter(|_| !is_whole) else {
            self.0 = (!is_whole).then_some((now, 0));
            // At the beginning nothing is doubted yet, and nothing goes.
            return if is_whole { Lacking::IsGone } else { Lacking::HasLongBeen };
        };
        let is_over = readings + 1 >= MANY && now.saturating_duration_since(begun) >= LONG;
        self.0 = Some(if is_over { (now, 0) } else { (begun, readings.saturating_add(1)) });
        if is_over { Lacking::HasLongBeen } else { Lacking::MayBeThere }
    }
}

/// Takes in what was `read` of a list. `doubted` is what was known when a spell of readings began and stood in none since.
/// What was known stays so, unless it is by far more than was read. Gives whether anything is different.
pub(super) fn take_in<C: Part>(known: &mut C, doubted: &mut C, mut read: C, lacking: Lacking) -> bool {
    let before = known.clone();
    doubted.leave_out(&read);
    match lacking {
        Lacking::IsGone => *doubted = C::default(),
        Lacking::MayBeThere => {}
        Lacking::HasLongBeen => {
            known.leave_out(doubted);
            *doubted = known.clone();
            doubted.leave_out(&read);
        }
    }
    let is_far_more = known.count() > read.count().saturating_mul(2).saturating_add(ASIDE);
    if lacking != Lacking::IsGone && !is_far_more {
        let now = std::mem::replace(&mut read, known.clone());
        read.add(now);
    }
    *known = read;
    *known != before
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(range: std::ops::Range<usize>) -> BTreeSet<usize> {
        range.collect()
    }

    #[test]
    fn what_changed_while_it_was_read_adds_to_what_is_known_and_does_not_pile_up() {
        let (mut known, mut doubted) = (numbers(0..10), BTreeSet::new());
        let mut take = |known: &mut _, read, lacking| take_in(known, &mut doubted, read, lacking);
        assert!(take(&mut known, numbers(5..15), Lacking::MayBeThere));
        assert_eq!(known, numbers(0..15));
        assert!(!take(&mut known, numbers(3..9), Lacking::MayBeThere));
        assert!(take(&mut known, numbers(5..15), Lacking::IsGone));
        assert_eq!(known, numbers(5..15));
        for first in (0..100_000).step_by(100) {
            take(&mut known, numbers(first..first + 100), Lacking::MayBeThere);
            assert!(known.len() <= 3 * 100 + ASIDE && known.contains(&first), "{}", known.len());
        }
        let (mut named, mut doubted) = (BTreeMap::from([(1, "old")]), BTreeMap::new());
        assert!(take_in(&mut named, &mut doubted, BTreeMap::from([(1, "new")]), Lacking::MayBeThere));
        assert_eq!(named, BTreeMap::from([(1, "new")]));
    }

    /// 0..10 stands, of which each reading misses one; 10..20 goes when the spell begins, 20 comes in the midst of it.
    #[test]
    fn what_no_reading_of_a_long_spell_has_is_let_go_of_and_what_one_of_them_has_is_not() {
        let (begun, mut spell) = (Instant::now(), Spell::default());
        let (mut known, mut doubted) = (numbers(0..20), BTreeSet::new());
        let pace = LONG / 1000;
        let mut gone_at = None;
        for at in 0..1_500_u32 {
            let mut read = numbers(0..10);
            read.remove(&(at as usize % 10));
            let lacking = spell.note(false, begun + pace * at);
            take_in(&mut known, &mut doubted, read, lacking);
            if at == 500 {
                known.insert(20);
            }
            assert!(known.is_superset(&numbers(0..10)), "{at}");
            assert!(at < 500 || known.contains(&20), "it came since the spell began");
            if gone_at.is_none() && !known.contains(&10) {
                gone_at = Some(at);
            }
        }
        assert_eq!((gone_at, known), (Some(1_000), numbers(0..10).into_iter().chain([20]).collect()));
    }

    #[test]
    fn a_few_readings_let_go_of_nothing_however_long_they_took_and_a_whole_one_ends_the_spell() {
        let (now, mut spell) = (Instant::now(), Spell::default());
        assert_eq!(spell.note(true, now), Lacking::IsGone);
        assert_eq!(spell.note(false, now), Lacking::HasLongBeen);
        for reading in 1..MANY {
            assert_eq!(spell.note(false, now + LONG * reading), Lacking::MayBeThere);
        }
        assert_eq!(spell.note(true, now + LONG * MANY), Lacking::IsGone);
        assert_eq!(spell.note(false, now + LONG * MANY), Lacking::HasLongBeen, "a spell begins");
        assert_eq!(spell.note(false, now + LONG * (MANY + 1)), Lacking::MayBeThere);
    }
}
