//! Sources whose block failed a moment ago: for how long none is asked for anew.
//!
//! Pure and bounded. A command that fails each time may have done half of its work each time, as one that adds a rule and
//! then cannot log it: the longer it goes on failing for a source, the more seldom it is run for it again.
#![forbid(unsafe_code)]

use std::collections::HashMap;

use ipnet::IpNet;

use super::RETRY;
use super::effect::Effect;
use crate::protocol::{Fault, Outcome, Response};

/// The longest, microseconds.
const LONGEST: u64 = 3_600_000_000;
/// Sources that are remembered; of more those go first whose time is over first.
const REMEMBERED: usize = 1024;

/// Microseconds of uptime, as everywhere in the score table.
#[derive(Clone, Copy)]
struct Wait {
    until: u64,
    length: u64,
}

/// Who waits.
#[derive(Default)]
pub(super) struct Retries {
    of: HashMap<IpNet, Wait>,
}

impl Retries {
    /// What became of a block of `target`. Returns until when it is left alone where that failed.
    pub fn note(&mut self, target: IpNet, done: &Effect, now: u64) -> Option<u64> {
        let Outcome::Failed(_) = done.outcome else {
            self.of.remove(&target);
            return None;
        };
        let before = self.of.get(&target).filter(|wait| now < wait.until.saturating_add(wait.length));
        let length = match (before, command_failed(done)) {
            (Some(wait), true) => (wait.length * 2).min(LONGEST),
            (_, true) | (_, false) => RETRY,
        };
        let until = now.saturating_add(length);
        self.make_room(now);
        self.of.insert(target, Wait { until, length });
        Some(until)
    }

    /// Whether it is still left alone.
    pub fn is_waiting(&self, target: &IpNet, now: u64) -> bool {
        self.of.get(target).is_some_and(|wait| now < wait.until)
    }

    fn make_room(&mut self, now: u64) {
        if self.of.len() < REMEMBERED {
            return;
        }
        self.of.retain(|_, wait| now < wait.until.saturating_add(wait.length));
        let first = self.of.iter().min_by_key(|(target, wait)| (wait.until, **target)).map(|(it, _)| *it);
        if let Some(first) = first.filter(|_| self.of.len() >= REMEMBERED) {
            self.of.remove(&first);
        }
    }
}

/// Whether KILL_ROUTE failed, or was not to be had: what is run besides is run each time too, be it a mail. A kernel that
/// refuses may take the next, and nothing is left of its refusal.
fn command_failed(done: &Effect) -> bool {
    let is_its_own = |fault| !matches!(fault, Fault::Busy | Fault::Lifted);
    done.notes.iter().any(|note| note.response == Response::Command && is_its_own(note.fault))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Note, Responses};

    const SECOND: u64 = 1_000_000;

    fn effect(outcome: Outcome, response: Response, fault: Fault) -> Effect {
        let notes = vec![Note::new(response, fault, "", 0)];
        let with = Responses::NONE;
        Effect { outcome, seconds: 0, offence: 0, micros: 0, with, tripped: false, notes }
    }

    fn source(number: u32) -> IpNet {
        IpNet::from(std::net::IpAddr::from(number.to_be_bytes()))
    }

    #[test]
    fn a_command_that_goes_on_failing_is_run_more_and_more_seldom_and_at_least_hourly() {
        let failed = effect(Outcome::Failed(libc::EIO), Response::Command, Fault::Exit(2));
        let (mut retries, mut now, mut runs) = (Retries::default(), 0, 0);
        while now < 24 * 3600 * SECOND {
            assert!(!retries.is_waiting(&source(1), now));
            let until = retries.note(source(1), &failed, now).unwrap();
            assert!(retries.is_waiting(&source(1), until - 1) && until - now <= LONGEST);
            (now, runs) = (until, runs + 1);
        }
        assert!((24..40).contains(&runs), "{runs}");
    }

    #[test]
    fn what_the_kernel_refused_is_asked_for_again_soon_and_a_block_ends_all_waiting() {
        let refused = effect(Outcome::Failed(libc::ENOMEM), Response::Nftables, Fault::Errno(libc::ENOMEM));
        let failed = effect(Outcome::Failed(libc::EIO), Response::Command, Fault::Exit(2));
        let blocked = effect(Outcome::Blocked, Response::Nftables, Fault::Errno(0));
        let mut retries = Retries::default();
        for turn in 0..4 {
            assert_eq!(retries.note(source(1), &refused, turn * RETRY), Some((turn + 1) * RETRY));
        }
        assert_eq!(retries.note(source(1), &failed, 0), Some(2 * RETRY), "it has failed before");
        assert_eq!(retries.note(source(1), &blocked, SECOND), None);
        assert!(!retries.is_waiting(&source(1), SECOND));
        assert_eq!(retries.note(source(1), &failed, 0), Some(RETRY));
        let missing = effect(Outcome::Failed(libc::ENOENT), Response::Command, Fault::Errno(libc::ENOENT));
        let busy = effect(Outcome::Failed(libc::EAGAIN), Response::Command, Fault::Busy);
        for (what, second) in [(missing, 3 * RETRY), (busy, 2 * RETRY)] {
            let mut retries = Retries::default();
            assert_eq!(retries.note(source(2), &what, 0), Some(RETRY));
            assert_eq!(retries.note(source(2), &what, RETRY), Some(second));
        }
        // Long quiet, it begins anew.
        assert_eq!(retries.note(source(1), &failed, 3 * RETRY), Some(4 * RETRY));
    }

    #[test]
    fn no_more_are_remembered_than_there_is_room_for() {
        let failed = effect(Outcome::Failed(libc::EIO), Response::Command, Fault::Exit(2));
        let mut retries = Retries::default();
        for number in 0..5000 {
            let _ = retries.note(source(number), &failed, u64::from(number));
        }
        assert_eq!(retries.of.len(), REMEMBERED);
        assert!(retries.is_waiting(&source(4999), 5000) && !retries.is_waiting(&source(0), 5000));
    }
}
