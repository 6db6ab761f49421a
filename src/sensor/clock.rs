//! The two times the sensor goes by, read once a turn and passed down: nothing below reads a clock.
#![forbid(unsafe_code)]

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// One moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Microseconds since 1970 UTC: for events. May jump when the clock is set.
    pub wall: u64,
    /// Milliseconds since the daemon started: for expiry and decay. Never jumps.
    pub uptime: u64,
    /// The same moment, for deadlines.
    pub instant: Instant,
}

impl Now {
    /// Whole seconds since the daemon started.
    pub fn seconds(self) -> u64 {
        self.uptime / 1000
    }

    /// Microseconds since the daemon started: the score table's clock.
    #[inline]
    pub fn micros(self) -> u64 {
        self.uptime.saturating_mul(1000)
    }
}

/// Where [`Now`] comes from.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started: Instant,
}

impl Clock {
    /// Begins to count.
    pub fn start() -> Clock {
        Clock { started: Instant::now() }
    }

    /// This moment.
    pub fn now(&self) -> Now {
        let (wall, instant) =
            (SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(), Instant::now());
        let uptime = instant.saturating_duration_since(self.started);
        Now { wall: saturate(wall.as_micros()), uptime: saturate(uptime.as_millis()), instant }
    }
}

fn saturate(value: u128) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}
