//! The contest for a place in a full bucket: who makes room for a newcomer, if anybody does.
//!
//! Pure, for the ring threads. Whether the place is then really taken is one compare-and-swap of the bucket's.
#![forbid(unsafe_code)]

use super::bucket::{Entry, Heads, Moment, WAYS};
use super::head::Head;

/// For each way that was claimed last, the others' and its own turn to go, and in the lowest four bits their way.
const TURNS: [[u8; WAYS]; 8] = {
    let mut turns = [[0; WAYS]; 8];
    let mut at = 0;
    while at < WAYS * WAYS {
        let (last, way) = (at / WAYS, at % WAYS);
        turns[last][way] = (((way + WAYS - 1 - last) % WAYS) << 4 | way) as u8;
        at += 1;
    }
    turns
};

/// The way for a newcomer with `entry`, where the way `last` was claimed last: the one worth least, spoofable before
/// verified, and of equals the one claimed longest ago. Nobody who is worth more than the newcomer goes, but for sources
/// long silent: in this contest what they are worth halves with every [silence](super::head::Decay::silences), or a
/// flood of two packets a source would keep all others out for hours. The highest score of the bucket stays whatever comes.
#[inline]
pub(super) fn victim(heads: &Heads, last: u64, entry: &Entry) -> Option<(usize, Head)> {
    let Entry { gain, moment, .. } = *entry;
    let turns = TURNS.get((last & 7) as usize)?;
    let mine = u64::try_from(gain.points.0).ok().filter(|&points| points > 0)?;
    // In one word that orders like all of it: comparing word by word took a third of a newcomer's time.
    let bid = |(head, &turn): (&Head, &u8)| rank(*head, moment) << 8 | u64::from(turn);
    let bids = || heads.iter().zip(turns).map(bid);
    let way = |bid: u64| (bid & 0xf) as usize;
    let least = bids().min()?;
    let stays = moment.worth(*heads.get(way(least))?) > mine && is_highest(heads, way(least), moment);
    let least = if stays { bids().filter(|&bid| bid != least).min()? } else { least };
    let goes = least >> 8 <= (mine << 1 | u64::from(gain.verified));
    goes.then_some((way(least), *heads.get(way(least))?))
}

/// What an account is worth here and, of equals, whether it is verified: [`Head::rank`], where silence counts against it.
#[inline]
fn rank(head: Head, moment: Moment) -> u64 {
    if head.tick() == moment.tick {
        return head.rank();
    }
    let silences = moment.decay.silences(head.tick(), moment.tick);
    (moment.worth(head) >> silences.min(20)) << 1 | u64::from(head.verified())
}

/// Whether nobody in the bucket is worth more than `way`: of equals the one heard of last, and the upper.
#[cold]
fn is_highest(heads: &Heads, way: usize, moment: Moment) -> bool {
    let height = |(way, head): (usize, &Head)| (moment.worth(*head), head.tick(), way);
    heads.iter().enumerate().map(height).max().is_some_and(|highest| highest.2 == way)
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::super::head::{Decay, Gain};
    use super::super::source::Place;
    use super::*;
    use crate::detect::weights::Points;

    const NOW: u16 = 100;

    /// Accounts heard of in one of two ticks, worth but few different numbers, so that many are equal; seldom an empty way,
    /// which ends the contest.
    fn head(silent: u16) -> impl Strategy<Value = Head> {
        let account = (1_u64..1 << 28, any::<bool>(), 1_i32..=3, prop_oneof![Just(NOW), Just(NOW - silent)]);
        let account = account.prop_map(|(fingerprint, verified, points, tick)| {
            let points = Points(points * 100);
            let gain = Gain { points, threshold: Points(999), verified, triggered: false, takes_back: false };
            Head::new(fingerprint, tick).with(gain, &Decay::new(None), tick)
        });
        prop_oneof![1 => Just(Head::EMPTY), 99 => account]
    }

    /// The rules, one after another.
    fn goes(heads: &Heads, last: usize, gain: Gain, moment: Moment) -> Option<usize> {
        let worth = |way: usize| moment.worth(heads[way]);
        let highest = (0..WAYS).max_by_key(|&way| (worth(way), heads[way].tick())).unwrap();
        let mine = u64::try_from(gain.points.0).unwrap_or(0);
        let silences = |way: usize| moment.decay.silences(heads[way].tick(), NOW);
        let rank = |way: usize| (worth(way) >> silences(way), heads[way].verified());
        let in_turn = (1..=WAYS).map(|step| (last + step) % WAYS);
        let others = in_turn.filter(|&way| way != highest || worth(way) <= mine);
        others.min_by_key(|&way| rank(way)).filter(|&way| rank(way) <= (mine, gain.verified) && mine > 0)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]
        #[test]
        fn who_goes_is_found_in_one_comparison_as_by_the_rules(
            heads in (0_u16..20).prop_flat_map(|silent| prop::array::uniform7(head(silent))),
            last in 0..WAYS, hundreds in -1_i32..=4, verified in any::<bool>(), fades in any::<bool>(),
        ) {
            let points = hundreds * 100;
            let decay = Decay::new(fades.then_some(Duration::from_secs(60)));
            let gain = Gain { points: Points(points), threshold: Points(999), verified, triggered: false, takes_back: false };
            let moment = Moment { decay: &decay, now: 0, tick: NOW };
            let entry = Entry { place: Place { fingerprint: 1, secret: 0, hosts_differ: 0 }, gain, moment };
            let expected = goes(&heads, last, gain, moment);
            prop_assert_eq!(victim(&heads, last as u64, &entry), expected.map(|way| (way, heads[way])));
        }
    }
}
