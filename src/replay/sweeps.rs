//! When the score table is swept by the captures' clock. Pure; knows nothing of the table.
#![forbid(unsafe_code)]

use std::time::Duration;

/// Half-lives after which no score is worth anything, and before which none that was passes for a fresh one (`detect::table`:
/// 20 and 64).
const FADED: u64 = 32;

/// The sweeps so far. Times are in microseconds of the captures' clock.
#[derive(Debug)]
pub struct Sweeps {
    every: Option<u64>,
    last: u64,
}

impl Sweeps {
    /// One each half-life; none where scores never fade.
    pub fn every(half_life: Option<Duration>) -> Sweeps {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1);
        Sweeps { every: half_life.map(micros), last: 0 }
    }

    /// Has `sweep`, which gives how many accounts it leaves, do so as of the time that it is told, if it is due at `now`. Once
    /// for a silence of whatever length: what had faded in the course of it has done so at its end, too. After a very
    /// long one everything has.
    pub fn on_time(&mut self, now: u64, sweep: impl FnOnce(u64) -> usize) {
        let Some(every) = self.every else { return };
        let due = now.saturating_sub(self.last) / every;
        if due > 0 {
            let is_empty = sweep(self.last + due.min(FADED) * every) == 0;
            self.last = if is_empty { now } else { self.last + due * every };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HALF_LIFE: u64 = 1_000_000;

    /// The times of the sweeps at these moments, where `left` accounts stay.
    fn swept<const N: usize>(moments: [u64; N], left: usize) -> [Option<u64>; N] {
        let mut sweeps = Sweeps::every(Some(Duration::from_micros(HALF_LIFE)));
        moments.map(|now| {
            let mut swept = None;
            sweeps.on_time(now, |at| {
                swept = Some(at);
                left
            });
            swept
        })
    }

    #[test]
    fn a_silence_of_many_half_lives_costs_one_sweep_at_its_last() {
        assert_eq!(swept([999_999, 20_500_000, 20_999_999], 1), [None, Some(20_000_000), None]);
        assert_eq!(swept([1_000_000, 21_000_000, 21_999_999], 1), [Some(1_000_000), Some(21_000_000), None]);
    }

    #[test]
    fn after_a_longer_one_everything_has_faded_before_ticks_wrap() {
        let longest = u64::MAX;
        assert_eq!(
            swept([500 * HALF_LIFE, longest, longest], 0)[..2],
            [32, 532].map(|n| Some(n * HALF_LIFE))
        );
    }

    #[test]
    fn where_nobody_is_left_the_next_is_due_a_half_life_from_now() {
        assert_eq!(swept([1_500_000, 2_499_999, 2_500_000], 0), [Some(1_000_000), None, Some(2_500_000)]);
    }

    #[test]
    fn scores_that_never_fade_are_left_alone() {
        Sweeps::every(None).on_time(u64::MAX, |_| unreachable!("none is due"));
    }
}
