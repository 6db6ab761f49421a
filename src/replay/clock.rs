//! The captures' clock in place of the machine's.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use crate::sensor::clock::Now;

/// Turns frames' times into moments. Uptime never goes back, whatever the frames say.
#[derive(Debug)]
pub(super) struct CaptureClock {
    start: Instant,
    /// Microseconds since the first frame, less the time between captures that lie the wrong way round.
    uptime: u64,
    /// The latest time of this capture.
    latest: Option<u64>,
    begins: bool,
}

impl CaptureClock {
    /// Begins as the daemon's clock does: not at zero.
    pub(super) fn start() -> CaptureClock {
        CaptureClock { start: Instant::now(), uptime: 1_000_000, latest: None, begins: true }
    }

    /// The next time is another capture's.
    pub(super) fn begin_capture(&mut self) {
        self.begins = true;
    }

    /// The moment of a frame at `time`, microseconds since 1970 UTC.
    pub(super) fn at(&mut self, time: u64) -> Now {
        let latest = self.latest.unwrap_or(time);
        if self.begins || time > latest {
            self.uptime = self.uptime.saturating_add(time.saturating_sub(latest));
            self.latest = Some(time);
            self.begins = false;
        }
        let instant = self.start.checked_add(Duration::from_micros(self.uptime)).unwrap_or(self.start);
        Now { wall: time, uptime: self.uptime / 1000, instant }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    #[test]
    fn uptime_follows_the_frames_and_never_goes_back() {
        let mut clock = CaptureClock::start();
        let uptimes: Vec<u64> =
            [100, 103, 101, 104].map(|second| clock.at(second * SECOND).uptime).into_iter().collect();
        assert_eq!(uptimes, [1_000, 4_000, 4_000, 5_000]);
        assert_eq!(clock.at(102 * SECOND).wall, 102 * SECOND);
    }

    #[test]
    fn a_later_capture_goes_on_at_its_own_time_and_an_earlier_one_where_the_last_ended() {
        let mut clock = CaptureClock::start();
        clock.at(100 * SECOND);
        clock.begin_capture();
        assert_eq!(clock.at(160 * SECOND).uptime, 61_000);
        clock.begin_capture();
        assert_eq!(clock.at(50 * SECOND).uptime, 61_000);
        assert_eq!(clock.at(52 * SECOND).uptime, 63_000);
    }

    #[test]
    fn no_time_is_too_strange() {
        let mut clock = CaptureClock::start();
        for time in [u64::MAX, 0, u64::MAX] {
            clock.begin_capture();
            clock.at(time);
        }
    }
}
