//! How much each kind of evidence counts, with the source of every number.
//!
//! Pure constants; the ring threads read them through the policy. No other file may hold a weight.
#![forbid(unsafe_code)]

use std::time::Duration;

/// Evidence in 256ths of a point. One point is one failed first contact of the threshold random walk (Jung, Paxson,
/// Berger, Balakrishnan, IEEE S&P 2004): its ln 4 for θ0 = 0.8, θ1 = 0.2, divided by itself. Negative forgives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Points(pub i32);

impl Points {
    /// Nothing.
    pub const NONE: Points = Points(0);
    /// One whole point.
    pub const ONE: Points = Points(256);

    /// In whole points, as events show it.
    pub fn as_f32(self) -> f32 {
        self.0 as f32 / 256.0
    }
}

/// A probe of a watched port where no service is: PortSentry's unit, a whole point, for the same port as for another.
pub const WATCHED_PORT: Points = Points::ONE;

/// A bare ACK or FIN+ACK to a watched port: a connection forgotten in a restart sends the same, to its one port. So it
/// counts once a port, and less than [`HALF_POINT`]: one port alone never triggers, two do under the strictest setting.
pub const STRAY: Points = Points(96);

/// What may be missing of a whole score at the trigger: see [`trigger_threshold`].
pub const HALF_POINT: Points = Points(128);

/// SCAN_TRIGGER values above this act as this: scores saturate at 1,023 points.
pub const TRIGGER_MAX: u32 = 1_000;

/// After this long a point is worth half. A night's pause between two halves of a scan is 6 hours, nmap's slowest
/// timing (-T0) 5 minutes: ten of its probes lose half a point, while the weekly stray of an innocent is gone by the next.
/// PortSentry never forgets a probe, whereby any host that errs twice in a year is a scanner under SCAN_TRIGGER=2.
pub const HALF_LIFE: Duration = Duration::from_secs(6 * 3600);

/// The score at which SCAN_TRIGGER=`trigger` is reached: 0 and 1 mean the first probe.
///
/// Half a point below the count, because points decay: two probes count as two while the first is at most one
/// [`HALF_LIFE`] old, and a quick scan triggers at exactly its n-th probe whatever n is.
pub fn trigger_threshold(trigger: u32) -> Points {
    let whole = i32::try_from(trigger.clamp(1, TRIGGER_MAX)).unwrap_or(1);
    Points(whole * Points::ONE.0 - HALF_POINT.0)
}
