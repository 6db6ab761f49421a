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
