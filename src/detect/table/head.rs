//! The word that is the account: who, how much, as of when. And how a score fades.
//!
//! Pure. One 64-bit word, so that one compare-and-swap changes a score *and* proves whose it is: a point can never
//! land on another source's account, whatever is evicted meanwhile.
#![forbid(unsafe_code)]

use std::time::Duration;

use crate::detect::weights::Points;

/// The largest score: 1,023 and 255/256 points.
pub(super) const SCORE_MAX: u64 = (1 << 18) - 1;

/// An account word: fingerprint 28 bits, triggered 1, score 18 (10.8 fixed point), verified 1, tick 16. 0 is no account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head(pub u64);

impl Head {
    pub const EMPTY: Head = Head(0);
    const TRIGGERED: u64 = 1 << 35;
    const SCORE: u32 = 17;
    const VERIFIED: u64 = 1 << 16;

    pub fn new(fingerprint: u64, tick: u16) -> Head {
        Head(fingerprint << 36 | u64::from(tick))
    }

    pub fn fingerprint(self) -> u64 {
        self.0 >> 36
    }

    pub fn verified(self) -> bool {
        self.0 & Head::VERIFIED != 0
    }

    pub fn triggered(self) -> bool {
        self.0 & Head::TRIGGERED != 0
    }

    /// Points as of [`Head::tick`], in 256ths.
    pub fn score(self) -> u64 {
        self.0 >> Head::SCORE & SCORE_MAX
    }

    /// Score and, of equal ones, proof: one number that orders like both.
    pub fn rank(self) -> u64 {
        self.0 >> 16 & (SCORE_MAX << 1 | 1)
    }

    pub fn tick(self) -> u16 {
        self.0 as u16
    }

    /// This account with `gain` added as of `now`.
    #[inline(always)]
    pub fn with(self, gain: Gain, decay: &Decay, now: u16) -> Head {
        let faded = decay.faded(self.score(), self.tick(), now);
        let points = i64::from(gain.points.0);
        let score = (faded as i64).saturating_add(points).clamp(0, SCORE_MAX as i64) as u64;
        // Forgiveness never triggers, even if the threshold was lowered since.
        let reached = points > 0 && score as i64 >= i64::from(gain.threshold.0);
        let rests_on_it = gain.takes_back && (score as i64) < i64::from(gain.threshold.0);
        let triggered = self.triggered() && !rests_on_it || gain.triggered || reached;
        let verified = self.verified() || gain.verified;
        let flags = (u64::from(verified) * Head::VERIFIED) | (u64::from(triggered) * Head::TRIGGERED);
        let tick = if age(self.tick(), now) == 0 { self.tick() } else { now };
        Head(self.fingerprint() << 36 | flags | score << Head::SCORE | u64::from(tick))
    }
}

/// What one probe (or a duplicate account that is merged) brings to an account.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gain {
    pub points: Points,
    pub threshold: Points,
    pub verified: bool,
    pub triggered: bool,
    /// What was counted in error: a trigger that was reached by it alone goes with it.
    pub takes_back: bool,
}

/// Ticks from `then` to `now`. Ticks wrap; whatever lies in the half of the circle ahead of `now` is a clock that ran a
/// little fast on another thread (or was set back), and is no age at all.
pub(super) fn age(then: u16, now: u16) -> u16 {
    let age = now.wrapping_sub(then);
    if age < 1 << 15 { age } else { 0 }
}

/// So long a silence, 2^29 µs, counts in the contest for a place: nine minutes, nearly twice the gap between probes of
/// nmap's slowest scan.
const SILENCE_SHIFT: u32 = 29;

/// Where nothing fades ticks tell the last probe alone: of four and a half minutes, so that an account is old to the contest
/// for a hundred days before the circle has come half round.
const NO_DECAY_SHIFT: u32 = 28;

/// How scores fade: by half in each half-life.
#[derive(Clone, Debug)]
pub(super) struct Decay {
    /// A tick is 2^shift microseconds.
    shift: u32,
    /// Ticks in a half-life, 256 to 512: the half-life holds to 0.2 %. None: no decay.
    half_life: Option<u16>,
    /// 2^(-n / half_life) in 65536ths.
    fractions: Box<[u64]>,
}

impl Decay {
    /// `None` for scores that never fade. Half-lives are kept between a millisecond and a year.
    pub fn new(half_life: Option<Duration>) -> Decay {
        let Some(half_life) = half_life else {
            return Decay { shift: NO_DECAY_SHIFT, half_life: None, fractions: Box::default() };
        };
        let micros =
            u64::try_from(half_life.as_micros()).unwrap_or(u64::MAX).clamp(1_000, 365 * 86_400_000_000);
        let shift = micros.ilog2() - 8;
        let ticks = ((micros + (1 << shift >> 1)) >> shift) as u16;
        let fraction = |at: u16| (65_536.0 * (-f64::from(at) / f64::from(ticks)).exp2()).round() as u64;
        Decay { shift, half_life: Some(ticks), fractions: (0..ticks).map(fraction).collect() }
    }

    /// The tick of a time in microseconds.
    pub fn tick(&self, now: u64) -> u16 {
        (now >> self.shift) as u16
    }

    /// How many silences of nine minutes lie between ticks `then` and `now`. Of two ticks at least, or one could be over
    /// at the tick after `then`, which may be at once.
    pub fn silences(&self, then: u16, now: u16) -> u32 {
        let ticks = SILENCE_SHIFT.saturating_sub(self.shift).max(1);
        u32::from(age(then, now)) >> ticks
    }

    /// What a `score` as of tick `then` is worth at tick `now`, rounded to the nearest 256th.
    pub fn faded(&self, score: u64, then: u16, now: u16) -> u64 {
        match (age(then, now), self.half_life) {
            (0, _) | (_, None) => score,
            (age, Some(half_life)) => {
                let fraction = self.fractions.get(usize::from(age % half_life)).copied().unwrap_or(0);
                // A score has 18 bits: after 20 half-lives nothing is left of any.
                let halved = 16 + u32::from((age / half_life).min(20));
                (score * fraction + (1 << (halved - 1))) >> halved
            }
        }
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000_000;

    fn hours(count: u64) -> Decay {
        Decay::new(Some(Duration::from_secs(3600 * count)))
    }

    #[test]
    fn a_point_is_half_after_a_half_life_and_nothing_after_ten() {
        let decay = hours(6);
        let at = |hour: u64| decay.faded(256, decay.tick(0), decay.tick(hour * HOUR));
        assert_eq!(at(0), 256);
        assert!((127..=129).contains(&at(6)), "{}", at(6));
        assert!((63..=65).contains(&at(12)), "{}", at(12));
        assert_eq!((at(60), at(120)), (0, 0));
    }

    #[test]
    fn without_a_half_life_nothing_fades() {
        let decay = Decay::new(None);
        assert_eq!(decay.faded(300, 0, 30_000), 300);
    }

    #[test]
    fn a_silence_is_nine_minutes_whatever_the_half_life_but_a_whole_tick_at_least() {
        let silences =
            |decay: &Decay, minutes: u64| decay.silences(decay.tick(0), decay.tick(minutes * HOUR / 60));
        for half_life in [None, Some(60), Some(3_600), Some(6 * 3_600), Some(24 * 3_600)] {
            let decay = Decay::new(half_life.map(Duration::from_secs));
            assert_eq!([7, 10, 19].map(|at| silences(&decay, at)), [0, 1, 2], "{half_life:?}");
        }
        // A tick of 30 days is 143 minutes.
        let decay = hours(30 * 24);
        assert_eq!([142, 285, 287].map(|at| silences(&decay, at)), [0, 0, 1]);
        assert_eq!(Decay::new(Some(Duration::ZERO)).silences(0, 32_767), 0);
    }

    #[test]
    fn without_a_half_life_an_account_is_old_for_a_hundred_days() {
        let decay = Decay::new(None);
        for days in 1..=100 {
            let silences = decay.silences(decay.tick(0), decay.tick(days * 24 * HOUR));
            assert!(silences >= days as u32 * 160, "{silences} silences in {days} days");
        }
    }

    #[test]
    fn decay_is_monotone_in_age_and_in_score() {
        let decay = hours(6);
        for age in 0..12_000_u16 {
            for score in [1, 2, 255, 256, 1_000, SCORE_MAX] {
                let here = decay.faded(score, 65_000, 65_000_u16.wrapping_add(age));
                assert!(decay.faded(score, 65_000, 65_001_u16.wrapping_add(age)) <= here);
                assert!(decay.faded(score - 1, 65_000, 65_000_u16.wrapping_add(age)) <= here);
            }
        }
    }

    #[test]
    fn every_half_life_and_every_age_is_computed_without_overflow() {
        for half_life in [0, 1, 999, 1_000, 1_001, 60_000_000, u64::MAX] {
            let decay = Decay::new(Some(Duration::from_micros(half_life)));
            for age in 0..=u16::MAX {
                assert!(decay.faded(SCORE_MAX, 7, 7_u16.wrapping_add(age)) <= SCORE_MAX);
            }
        }
    }

    #[test]
    fn a_clock_that_runs_behind_ages_nothing_and_moves_no_tick_back() {
        let (decay, one) = (
            hours(6),
            Gain {
                points: Points::ONE,
                threshold: Points(999),
                verified: false,
                triggered: false,
                takes_back: false,
            },
        );
        let head = Head::new(5, 100).with(one, &decay, 100);
        assert_eq!(
            head.with(one, &decay, 99),
            Head::new(5, 100).with(Gain { points: Points(512), ..one }, &decay, 100)
        );
    }

    #[test]
    fn what_is_taken_back_takes_the_trigger_along_where_the_rest_does_not_reach_it() {
        let decay = hours(6);
        let gain = |points, takes_back| Gain {
            points: Points(points),
            threshold: Points(512),
            verified: false,
            triggered: false,
            takes_back,
        };
        let after = |points, takes_back| {
            let three = gain(768, false);
            Head::new(5, 100).with(three, &decay, 100).with(gain(points, takes_back), &decay, 100).triggered()
        };
        assert!(after(-256, true), "two are enough");
        assert!(!after(-512, true));
        assert!(after(-512, false), "who is forgiven has been a scanner all the same");
    }

    #[test]
    fn a_score_saturates_at_both_ends_and_keeps_the_other_fields() {
        let decay = hours(6);
        let gain = |points| Gain {
            points: Points(points),
            threshold: Points(i32::MAX),
            verified: true,
            triggered: false,
            takes_back: false,
        };
        let full = Head::new(0xfff_ffff, 0xffff).with(gain(i32::MAX), &decay, 0xffff);
        assert_eq!((full.score(), full.fingerprint(), full.tick()), (SCORE_MAX, 0xfff_ffff, 0xffff));
        assert!(full.verified() && !full.triggered());
        assert_eq!(full.with(gain(i32::MIN), &decay, 0xffff).score(), 0);
    }
}
