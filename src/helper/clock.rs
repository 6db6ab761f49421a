//! The helper's time: UTC that runs evenly, so that records keep step with the kernel's own timers. Helper.
//!
//! The kernel counts a block's time on a clock that nobody sets and that stands still while the machine sleeps. Here
//! too; when the wall clock is set or the machine wakes, the difference is reported (one of a size a minute) and the records are moved by it.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Smallest difference between the clocks that is taken for a step, milliseconds; adjustment by slewing adds up to it
/// only in hours.
const STEP: i64 = 1_000;

/// A moment, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Since 1970 UTC.
    pub utc: u64,
    /// Since the helper's start; never goes back.
    pub uptime: u64,
}

/// Reads the time.
pub struct Clock {
    start: Instant,
    origin: u64,
}

impl Clock {
    /// Starts at the present wall-clock time.
    pub fn start() -> Clock {
        Clock { start: Instant::now(), origin: wall() }
    }

    /// When the machine was started, milliseconds since 1970 UTC; 0 where that cannot be known.
    pub fn boot(&self) -> u64 {
        let up = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME).map(Duration::from);
        up.map_or(0, |up| wall().saturating_sub(millis(up)))
    }

    /// The time, and by how many milliseconds the wall clock was set since the last call.
    pub fn read(&mut self) -> (Now, i64) {
        let uptime = millis(self.start.elapsed());
        let step = step(self.origin, uptime, wall());
        self.origin = self.origin.saturating_add_signed(step);
        (Now { utc: self.origin.saturating_add(uptime), uptime }, step)
    }
}

/// How far `wall` is from where an even clock stands, 0 if that is no step.
fn step(origin: u64, uptime: u64, wall: u64) -> i64 {
    let ahead = i64::try_from(i128::from(wall) - i128::from(origin) - i128::from(uptime)).unwrap_or(0);
    if ahead.saturating_abs() < STEP { 0 } else { ahead }
}

fn wall() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis)
}

/// Whole milliseconds of `span`.
pub fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_drift_is_kept_even_and_a_set_clock_is_reported() {
        assert_eq!(step(1_000_000, 500, 1_000_900), 0);
        assert_eq!(step(1_000_000, 500, 4_600_500), 3_600_000);
        assert_eq!(step(4_000_000, 500, 400_500), -3_600_000);
        assert_eq!(step(0, 0, u64::MAX), 0);
    }

    #[test]
    fn time_rises() {
        let mut clock = Clock::start();
        let (before, _) = clock.read();
        let (after, step) = clock.read();
        assert!(after.uptime >= before.uptime && after.utc >= before.utc);
        assert_eq!(step, 0);
    }
}
