//! All jobs, in the order in which they came: which goes on, which waits for another, and what is due of them. Helper.
#![forbid(unsafe_code)]

use std::collections::{BTreeSet, VecDeque};
use std::os::fd::BorrowedFd;
use std::time::Instant;

use ipnet::IpNet;

use super::last::Failures;
use super::{AT_ONCE, Job, Purpose, WAITING};
use crate::helper::decide::Grant;
use crate::helper::escalation::Escalation;
use crate::helper::steps::{Step, Steps};
use crate::protocol::{Response, Responses};

/// All of them, in the order in which they came.
#[derive(Debug, Default)]
pub struct Jobs {
    list: VecDeque<Job>,
    /// Whose command runs or has run, and no record says so: nobody knows yet what it has done.
    unsettled: BTreeSet<IpNet>,
}

impl Jobs {
    /// Adds one. Ends of blocks are never turned away: there are no more of them than blocks.
    pub fn push(&mut self, mut job: Job) {
        let was_granted = |job: &Job| matches!(job.purpose, Purpose::Block(_));
        // Ends are not counted against the list: a great many may come at once.
        if was_granted(&job) && self.list.iter().filter(|other| was_granted(other)).count() >= WAITING {
            job.without_programs = true;
        }
        self.list.push_back(job);
    }

    /// Goes on with every job that can at `utc`, and returns those that are done, in order. Who waits for one of these
    /// goes on once the record says what it did.
    pub fn advance(&mut self, steps: &mut Steps, record: &Escalation, utc: u64) -> Vec<Job> {
        let now = Instant::now();
        let mut running = self.list.iter().filter(|job| job.running.is_some()).count();
        let (mut busy, mut done, mut rest) = (BTreeSet::new(), Vec::new(), VecDeque::new());
        let mut failed = Failures::default();
        let handed_over: BTreeSet<IpNet> =
            self.list.iter().filter(|job| job.can_hand_over()).map(|job| job.target).collect();
        for mut job in std::mem::take(&mut self.list) {
            if job.is_outlived(record, utc) {
                job.give_up();
            }
            let ran = job.running.is_some();
            job.look(steps, now);
            let runs = job.running.is_some();
            running -= usize::from(ran && !runs);
            let is_next = !busy.contains(&job.target);
            if is_next {
                job.takes_over = job.is_block() && handed_over.contains(&job.target);
                job.go_on(steps, record, utc, running < AT_ONCE);
                running += usize::from(job.running.is_some() && !runs);
            }
            busy.insert(job.target);
            job.answer_for(&failed);
            // Also one without a step waits for those before it: what it is to answer for may not be over.
            match is_next && job.is_done() && job.may_end(rest.is_empty()) {
                true => {
                    failed.note(&job);
                    done.push(job);
                }
                false => rest.push_back(job),
            }
        }
        self.unsettled = rest.iter().filter(|job| job.is_unsettled()).map(|job| job.target).collect();
        self.list = rest;
        done
    }

    /// Ends the jobs that would block one of those who are `meant`. Returns the requests they were for.
    pub fn abandon(&mut self, meant: impl Fn(&IpNet) -> bool) -> Vec<Grant> {
        let mut grants = Vec::new();
        for job in self.list.iter_mut().filter(|job| job.is_block() && meant(&job.target)) {
            if let Purpose::Block(grant) = job.purpose {
                grants.push(grant);
            }
            job.give_up();
        }
        grants
    }

    /// Leaves out renewals that have not begun: the next start finds their blocks without their command, and runs it then.
    pub fn drop_renewals(&mut self) {
        let waits =
            |job: &Job| job.running.is_none() && job.steps.front() == Some(&Step::Do(Response::Command));
        self.list.retain(|job| job.purpose != Purpose::Renew || !waits(job));
    }

    /// Moves the times of blocks on their way by `step` milliseconds, as those on record are.
    pub fn shift(&mut self, step: i64) {
        for job in &mut self.list {
            if let Purpose::Block(grant) = &mut job.purpose {
                grant.block.shift(step);
            }
        }
    }

    /// Whose blocks are on their way out.
    pub fn ending(&self) -> BTreeSet<IpNet> {
        let ends = self.list.iter().filter(|job| matches!(job.purpose, Purpose::Lift(_)));
        ends.map(|job| job.target).collect()
    }

    /// Whether the block of exactly `target` is on its way out.
    pub fn is_ending(&self, target: &IpNet) -> bool {
        self.list.iter().any(|job| matches!(job.purpose, Purpose::Lift(_)) && job.target == *target)
    }

    /// For whom what a command did is undone, or will be.
    pub fn undoing(&self) -> BTreeSet<IpNet> {
        let undoes = self.list.iter().filter(|job| !job.is_block() && job.undoes_its_command());
        undoes.map(|job| job.target).collect()
    }

    /// Whether something is on its way that will block `target`.
    pub fn will_block(&self, target: &IpNet) -> bool {
        self.list.iter().any(|job| job.is_block() && job.target == *target)
    }

    /// What blocks under way have left behind, or may have, and did not when this was asked last.
    pub fn news(&mut self) -> Vec<(IpNet, Option<Grant>, Responses)> {
        self.list.iter_mut().filter_map(Job::news).collect()
    }

    /// Whether a command about `target` is under way or about to be undone, whatever the record says.
    pub fn is_unsettled(&self, target: &IpNet) -> bool {
        self.unsettled.contains(target)
    }

    /// All of whom that is true.
    pub fn unsettled(&self) -> impl Iterator<Item = IpNet> + '_ {
        self.unsettled.iter().copied()
    }

    /// Whose `response` is being brought about or taken back by a program this moment.
    pub fn changing(&self, response: Response) -> BTreeSet<IpNet> {
        let changes = |step: Step| step == Step::Do(response) || step == Step::Undo(response);
        let changing = |job: &&Job| job.running.as_ref().is_some_and(|(step, _)| changes(*step));
        self.list.iter().filter(changing).map(|job| job.target).collect()
    }

    /// Likewise, and whose has yet to be taken back.
    pub fn unfinished(&self, response: Response) -> BTreeSet<IpNet> {
        let to_undo = self.list.iter().filter(|job| job.to_undo().contains(response)).map(|job| job.target);
        self.changing(response).into_iter().chain(to_undo).collect()
    }

    /// Requests that wait for their jobs.
    pub fn answers_due(&self) -> usize {
        self.list.iter().filter(|job| job.is_due()).count()
    }

    /// What to poll: programs that end, and what they say.
    pub fn watch(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.list.iter().filter_map(|job| job.running.as_ref()).flat_map(|(_, running)| running.watch())
    }

    /// When a program's time is up.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.list.iter().filter_map(|job| job.running.as_ref()).map(|(_, running)| running.deadline()).min()
    }

    /// Whether nothing is on its way.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}
