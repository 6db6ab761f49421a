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

/// What was asked for: one that failed says nothing of the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Errand {
    pub target: IpNet,
    /// KILL_RUN_CMD and nothing else (BLOCK_*=2).
    pub run_only: bool,
}

/// Microseconds of uptime, as everywhere in the score table.
#[derive(Clone, Copy)]
struct Wait {
    until: u64,
    length: u64,
}

impl Wait {
    /// Whether it is long past: whoever fails again then begins anew.
    fn is_forgotten(&self, now: u64) -> bool {
        now >= self.until.saturating_add(self.length)
    }
}

/// Who waits.
#[derive(Default)]
pub(super) struct Retries {
    of: HashMap<Errand, Wait>,
}

impl Retries {
    /// What became of `errand`, for which programs of the administrator's were to be run (`runs`). Returns until when its
    /// target is left alone where it failed.
    pub fn note(&mut self, errand: Errand, done: &Effect, runs: bool, now: u64) -> Option<u64> {
        match done.outcome {
            Outcome::Failed(_) => Some(self.wait(errand, runs && !is_refusal_of_the_system(done), now)),
            Outcome::Blocked | Outcome::AlreadyBlocked | Outcome::Lifted => {
                self.of.remove(&errand);
                None
            }
            Outcome::NotBlocked
            | Outcome::RefusedNeverBlock
            | Outcome::RefusedPrefix
            | Outcome::RefusedRate
            | Outcome::RefusedFull => None,
        }
    }

    fn wait(&mut self, errand: Errand, grows: bool, now: u64) -> u64 {
        let before = self.of.get(&errand).filter(|wait| !wait.is_forgotten(now));
        let length = match before.filter(|_| grows) {
            Some(wait) => (wait.length * 2).min(LONGEST),
            None => RETRY,
        };
        let until = now.saturating_add(length);
        if !self.of.contains_key(&errand) {
            self.make_room(now);
        }
        self.of.insert(errand, Wait { until, length });
        until
    }

    /// Until when nothing is asked for, microseconds of uptime; `None` where it may be.
    pub fn until(&self, errand: &Errand, now: u64) -> Option<u64> {
        self.of.get(errand).map(|wait| wait.until).filter(|&until| now < until)
    }

    /// What is to be had may have changed for this target. Returns whether it waited.
    pub fn forget(&mut self, target: IpNet) -> bool {
        [false, true].map(|run_only| self.of.remove(&Errand { target, run_only }).is_some()).contains(&true)
    }

    /// And for all of them, who are returned.
    pub fn forget_all(&mut self) -> impl Iterator<Item = IpNet> + '_ {
        self.of.drain().map(|(errand, _)| errand.target)
    }

    fn make_room(&mut self, now: u64) {
        if self.of.len() < REMEMBERED {
            return;
        }
        self.of.retain(|_, wait| !wait.is_forgotten(now));
        let first = self.of.iter().min_by_key(|(errand, wait)| (wait.until, **errand)).map(|(it, _)| *it);
        if let Some(first) = first.filter(|_| self.of.len() >= REMEMBERED) {
            self.of.remove(&first);
        }
    }
}

/// What the system refuses it may take the next time. What a program refuses, and who is shut out already by a line or a route
/// that is not ours, will be refused again, and each time all programs are run, be it to send a mail.
fn is_refusal_of_the_system(done: &Effect) -> bool {
    done.notes.iter().any(|note| {
        let by_a_program = matches!(note.response, Response::Command | Response::RunCommand);
        let stands_already = note.fault == Fault::Errno(libc::EEXIST);
        !by_a_program && !stands_already || matches!(note.fault, Fault::Busy | Fault::Lifted)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Note, Responses};

    const SECOND: u64 = 1_000_000;

    fn effect(outcome: Outcome, notes: &[(Response, Fault)]) -> Effect {
        let notes = notes.iter().map(|&(response, fault)| Note::new(response, fault, "", 0)).collect();
        let with = Responses::NONE;
        Effect { outcome, seconds: 0, offence: 0, micros: 0, with, tripped: false, notes }
    }

    fn failed(notes: &[(Response, Fault)]) -> Effect {
        effect(Outcome::Failed(libc::EIO), notes)
    }

    fn block_of(number: u32) -> Errand {
        Errand { target: IpNet::from(std::net::IpAddr::from(number.to_be_bytes())), run_only: false }
    }

    const COMMAND: (Response, Fault) = (Response::Command, Fault::Exit(2));
    const KERNEL: (Response, Fault) = (Response::Nftables, Fault::Errno(libc::ENOMEM));

    #[test]
    fn a_command_that_goes_on_failing_is_run_more_and_more_seldom_and_at_least_hourly() {
        let failed = failed(&[COMMAND]);
        let (mut retries, mut now, mut runs) = (Retries::default(), 0, 0);
        while now < 24 * 3600 * SECOND {
            assert_eq!(retries.until(&block_of(1), now), None);
            let until = retries.note(block_of(1), &failed, true, now).unwrap();
            assert_eq!(retries.until(&block_of(1), until - 1), Some(until));
            assert!(until - now <= LONGEST);
            (now, runs) = (until, runs + 1);
        }
        assert!((24..40).contains(&runs), "{runs}");
    }

    /// How long each of four failures in a row has its source left alone.
    fn waits(notes: &[(Response, Fault)], runs: bool) -> [u64; 4] {
        let (mut retries, mut now) = (Retries::default(), 0);
        [(); 4].map(|()| {
            let until = retries.note(block_of(1), &failed(notes), runs, now).unwrap();
            until - std::mem::replace(&mut now, until)
        })
    }

    #[test]
    fn what_the_system_refused_is_asked_for_again_soon_and_what_programs_were_run_for_in_vain_later() {
        let (soon, later) = ([RETRY; 4], [RETRY, 2 * RETRY, 4 * RETRY, 8 * RETRY]);
        assert_eq!(waits(&[KERNEL], false), soon);
        assert_eq!(waits(&[KERNEL, COMMAND], true), soon);
        assert_eq!(waits(&[(Response::Command, Fault::Busy)], true), soon);
        assert_eq!(waits(&[(Response::HostsDeny, Fault::Errno(libc::ENOSPC))], true), soon);
        assert_eq!(waits(&[(Response::HostsDeny, Fault::Errno(libc::EEXIST))], false), soon);
        assert_eq!(waits(&[COMMAND], true), later);
        assert_eq!(waits(&[(Response::Command, Fault::Errno(libc::ENOENT))], true), later);
        assert_eq!(waits(&[(Response::RunCommand, Fault::Exit(1))], true), later);
        assert_eq!(waits(&[(Response::HostsDeny, Fault::Errno(libc::EEXIST))], true), later);
        assert_eq!(waits(&[(Response::Route, Fault::Errno(libc::EEXIST))], true), later);
    }

    #[test]
    fn a_block_ends_all_waiting_and_long_quiet_and_an_operator_do_but_no_lack_of_allowance() {
        let (mut retries, failed) = (Retries::default(), failed(&[COMMAND]));
        let fail = |retries: &mut Retries, now| retries.note(block_of(1), &failed, true, now);
        assert_eq!(fail(&mut retries, 0), Some(RETRY));
        assert_eq!(retries.note(block_of(1), &effect(Outcome::RefusedRate, &[]), true, RETRY), None);
        assert_eq!(fail(&mut retries, RETRY), Some(3 * RETRY));
        assert_eq!(retries.note(block_of(1), &effect(Outcome::Blocked, &[]), true, RETRY), None);
        assert_eq!(fail(&mut retries, 3 * RETRY), Some(4 * RETRY));
        assert_eq!(fail(&mut retries, 9 * RETRY), Some(10 * RETRY), "long quiet");
        assert!(retries.forget(block_of(1).target) && !retries.forget(block_of(1).target));
        assert_eq!(retries.until(&block_of(1), 9 * RETRY), None);
        assert_eq!(fail(&mut retries, 10 * RETRY), Some(11 * RETRY));
        assert_eq!(retries.forget_all().collect::<Vec<_>>(), [block_of(1).target]);
        assert_eq!(retries.until(&block_of(1), 10 * RETRY), None);
    }

    #[test]
    fn a_mail_that_cannot_be_sent_keeps_no_block_waiting() {
        let mut retries = Retries::default();
        let mail = Errand { run_only: true, ..block_of(1) };
        retries.note(mail, &failed(&[(Response::RunCommand, Fault::Exit(1))]), true, 0);
        assert!(retries.until(&mail, 0).is_some() && retries.until(&block_of(1), 0).is_none());
    }

    #[test]
    fn no_more_are_remembered_than_there_is_room_for() {
        let failed = failed(&[COMMAND]);
        let mut retries = Retries::default();
        for number in 0..5000 {
            let _ = retries.note(block_of(number), &failed, true, u64::from(number));
        }
        assert_eq!(retries.of.len(), REMEMBERED);
        assert!(
            retries.until(&block_of(4999), 5000).is_some() && retries.until(&block_of(0), 5000).is_none()
        );
        let _ = retries.note(block_of(4999), &failed, true, 5000);
        assert_eq!(retries.of.len(), REMEMBERED, "one that is known takes nobody's place");
    }
}
