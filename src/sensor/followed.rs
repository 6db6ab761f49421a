//! The scanners that are followed from their alarm until they fall quiet, for one summary each.
//!
//! One thread's: the main thread's in the daemon, `replay`'s own. The trails themselves are shared.
#![forbid(unsafe_code)]

use super::responder::Case;
use super::trails::{QUIET, Trail, Trails};
use crate::detect::table::SourceKey;

/// All that are followed: no more than there are trails.
#[derive(Default)]
pub struct Followed(Vec<Scanner>);

/// One of them.
struct Scanner {
    /// The number of its trail.
    at: usize,
    case: Case,
    /// Microseconds of uptime.
    alarm: u64,
}

/// One that fell quiet.
#[derive(Clone, Debug)]
pub struct Quiet {
    /// The probe that raised the alarm.
    pub case: Case,
    /// What came from then on.
    pub trail: Trail,
    /// When the alarm was raised, microseconds of uptime.
    pub alarm: u64,
}

impl Followed {
    /// Follows whoever raised an alarm at `now` microseconds, if there is room.
    pub fn follow(&mut self, trails: &Trails, account: SourceKey, case: Case, now: u64) {
        let Some(at) = trails.open(account, &case.probe, now) else { return };
        if !self.0.iter().any(|scanner| scanner.at == at) {
            self.0.push(Scanner { at, case, alarm: now });
        }
    }

    /// When the next one may be quiet, microseconds of uptime.
    pub fn next_quiet(&self, trails: &Trails) -> Option<u64> {
        self.0.iter().map(|scanner| scanner.is_quiet_at(trails)).min()
    }

    /// Leaves those who are quiet by `now`, in the order of their falling quiet.
    pub fn leave_quiet(&mut self, trails: &Trails, now: u64) -> Vec<Quiet> {
        let left = self.0.extract_if(.., |scanner| scanner.is_quiet_at(trails) <= now);
        let mut left: Vec<Quiet> = left
            .filter_map(|Scanner { at, case, alarm }| Some(Quiet { case, trail: trails.close(at)?, alarm }))
            .collect();
        left.sort_by_key(|quiet| quiet.trail.latest);
        left
    }
}

impl Scanner {
    fn is_quiet_at(&self, trails: &Trails) -> u64 {
        trails.latest(self.at).unwrap_or_default().saturating_add(QUIET)
    }
}
