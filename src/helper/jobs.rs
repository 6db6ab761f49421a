//! Blocks and ends of blocks that take several steps, some of them programs that run on their own. Helper.
//!
//! Jobs about one target go one after the other; jobs about others do not wait for them. Never blocks: programs are
//! looked at when the loop says that they have something to tell. Bounded: at most [`AT_ONCE`] programs run.
#![forbid(unsafe_code)]

use std::collections::{BTreeSet, VecDeque};
use std::os::fd::BorrowedFd;
use std::time::Instant;

use ipnet::IpNet;

use super::command::{Failure, Running};
use super::decide::Grant;
use super::respond::Refusal;
use super::steps::{Step, Steps};
use crate::protocol::{Fault, Response, Responses};

/// Programs that run at a time.
pub const AT_ONCE: usize = 8;
/// Blocks that may wait for a program; a program of one beyond is not run, and its event says so.
pub const WAITING: usize = 64;

/// What a job is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A block that was granted.
    Block(Grant),
    /// The end of one; `Some` where a request asked for it and whether the kernel had it.
    Lift(Option<(u64, bool)>),
    /// A restored block whose command is run again.
    Renew,
    /// Overtaken by an unblock: its program is on its way out, nobody waits for it.
    Abandoned,
}

/// One of them.
#[derive(Debug)]
pub struct Job {
    /// What it is for.
    pub purpose: Purpose,
    /// What is blocked or lifted.
    pub target: IpNet,
    /// What took effect.
    pub with: Responses,
    /// What failed.
    pub failures: Vec<(Response, Failure)>,
    /// When it began.
    pub begun: Instant,
    steps: VecDeque<Step>,
    running: Option<(Response, Running)>,
}

impl Job {
    /// A job of these steps; nothing has taken effect yet.
    pub fn new(purpose: Purpose, target: IpNet, steps: VecDeque<Step>) -> Job {
        Job {
            purpose,
            target,
            with: Responses::NONE,
            failures: Vec::new(),
            begun: Instant::now(),
            steps,
            running: None,
        }
    }

    /// Notes that the kernel refused.
    pub fn refuse(&mut self, response: Response, refusal: Refusal) {
        self.failures.push((response, Failure { fault: Fault::Errno(refusal.errno), text: refusal.text }));
    }

    fn is_block(&self) -> bool {
        match self.purpose {
            Purpose::Block(_) | Purpose::Renew => true,
            Purpose::Lift(_) | Purpose::Abandoned => false,
        }
    }

    fn settle(&mut self, response: Response, end: Result<(), Failure>, steps: &mut Steps) {
        match end {
            Ok(()) => {
                self.with = self.with.and(response);
                steps.took(response, self.target, self.is_block());
            }
            Err(failure) => self.failures.push((response, failure)),
        }
    }

    fn look(&mut self, steps: &mut Steps, now: Instant) {
        let Some((response, running)) = &mut self.running else { return };
        let (response, end) = (*response, running.look(now));
        if let Some(end) = end {
            self.running = None;
            self.settle(response, end, steps);
        }
    }

    /// Takes steps until one is a program. `room`: whether another program may run.
    fn go_on(&mut self, steps: &mut Steps, room: bool) {
        while self.running.is_none() {
            match self.steps.front() {
                Some(Step::Run { .. }) if !room => return,
                _ => {}
            }
            let Some(step) = self.steps.pop_front() else { return };
            self.take(step, steps);
        }
    }

    fn take(&mut self, step: Step, steps: &mut Steps) {
        match step {
            Step::InForce(response) => self.with = self.with.and(response),
            Step::Line(line) => match steps.write_line(&line) {
                Ok(()) => self.with = self.with.and(Response::HostsDeny),
                Err(refusal) => self.refuse(Response::HostsDeny, refusal),
            },
            Step::Run { response, words, limit } => match Running::start(&words, limit) {
                Ok(running) => self.running = Some((response, running)),
                Err(failure) => self.failures.push((response, failure)),
            },
        }
    }

    /// Whether no step is left.
    pub fn is_done(&self) -> bool {
        self.steps.is_empty() && self.running.is_none()
    }

    /// Whether a request waits for it.
    pub fn is_due(&self) -> bool {
        matches!(self.purpose, Purpose::Block(_) | Purpose::Lift(Some(_)))
    }

    /// So many wait that its programs are not run.
    fn go_without_programs(&mut self) {
        for step in std::mem::take(&mut self.steps) {
            match step {
                Step::Run { response, .. } => {
                    self.failures.push((response, Failure { fault: Fault::Busy, text: String::new() }));
                }
                step @ (Step::Line(_) | Step::InForce(_)) => self.steps.push_back(step),
            }
        }
    }
}

/// All of them, in the order in which they came.
#[derive(Debug, Default)]
pub struct Jobs {
    list: VecDeque<Job>,
}

impl Jobs {
    /// Adds one. Ends of blocks are never turned away: there are no more of them than blocks.
    pub fn push(&mut self, mut job: Job) {
        let is_block = |job: &Job| matches!(job.purpose, Purpose::Block(_));
        // Ends are not counted against the list: a great many may come at once.
        if is_block(&job) && self.list.iter().filter(|other| is_block(other)).count() >= WAITING {
            job.go_without_programs();
        }
        self.list.push_back(job);
    }

    /// Goes on with every job that can, and returns those that are done, in order.
    pub fn advance(&mut self, steps: &mut Steps) -> Vec<Job> {
        let now = Instant::now();
        let mut running = self.list.iter().filter(|job| job.running.is_some()).count();
        let (mut busy, mut done, mut rest) = (BTreeSet::new(), Vec::new(), VecDeque::new());
        for mut job in std::mem::take(&mut self.list) {
            let ran = job.running.is_some();
            job.look(steps, now);
            let runs = job.running.is_some();
            running -= usize::from(ran && !runs);
            if !busy.contains(&job.target) {
                job.go_on(steps, running < AT_ONCE);
                running += usize::from(job.running.is_some() && !runs);
            }
            match job.is_done() {
                true => done.push(job),
                false => {
                    busy.insert(job.target);
                    rest.push_back(job);
                }
            }
        }
        self.list = rest;
        done
    }

    /// Ends the jobs that would block `target`, or every one. Returns the requests they were for.
    pub fn abandon(&mut self, target: Option<&IpNet>) -> Vec<Grant> {
        let mut grants = Vec::new();
        let meant = |job: &&mut Job| job.is_block() && target.is_none_or(|target| job.target == *target);
        for job in self.list.iter_mut().filter(meant) {
            if let Purpose::Block(grant) = job.purpose {
                grants.push(grant);
            }
            job.purpose = Purpose::Abandoned;
            job.steps.clear();
            if let Some((_, running)) = &job.running {
                running.kill();
            }
        }
        grants
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
