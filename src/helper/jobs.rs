//! Blocks and ends of blocks that take several steps, some of them programs that run on their own. Helper.
//!
//! A job is here, all of them are in `list`, what one answers for that others do is `last`. Jobs about one target go one after
//! the other, each from what the one before it has left on record; jobs about others do not wait for them. A program that
//! is ended in the midst of its work may have done it: that is undone. Never blocks: programs are looked at when the loop
//! says that they have something to tell. Bounded: at most [`AT_ONCE`] programs run.
#![forbid(unsafe_code)]

mod last;
mod list;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use ipnet::IpNet;

pub use self::list::Jobs;
use super::command::{Failure, Running};
use super::decide::Grant;
use super::escalation::Escalation;
use super::respond::Refusal;
use super::steps::{About, Step, Steps, Work};
use crate::protocol::{Fault, Response, Responses};

/// Programs that run at a time.
pub const AT_ONCE: usize = 8;
/// Blocks that may wait for a program; a program of one beyond is not run, and its event says so.
pub const WAITING: usize = 64;

/// A request to lift a block, or every one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Its number.
    pub id: u64,
    /// Whether there was one.
    pub found: bool,
}

/// What a job is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A block that was granted.
    Block(Grant),
    /// The end of one; `Some` where a request asked for it.
    Lift(Option<Asked>),
    /// The answer to a request to lift every block: done when all before it are.
    Flush(Asked),
    /// A restored block whose command is run again.
    Renew,
    /// Overtaken by an unblock, the never-block set or the end of the block that it renews: what it has done so far is
    /// undone, nobody waits for it.
    Abandoned,
}

/// One of them.
#[derive(Debug)]
pub struct Job {
    /// What it is for.
    pub purpose: Purpose,
    /// What is blocked or lifted.
    pub target: IpNet,
    /// What is in force for it; of the end of a block, what was until then.
    pub with: Responses,
    /// What it took back.
    pub undone: Responses,
    /// What it could not take back.
    pub kept: Responses,
    /// What failed.
    pub failures: Vec<(Response, Failure)>,
    /// When it began.
    pub begun: Instant,
    /// Its target was blocked when it began, and is known to be.
    pub renews: bool,
    /// What [`Jobs::news`] told of before it was done.
    pub told: Responses,
    /// What its own steps have brought about, or may have, and nobody else knows of yet.
    did: Responses,
    steps: VecDeque<Step>,
    running: Option<(Step, Running)>,
    /// What its step is to put there was not there before, as far as we know.
    is_new: bool,
    /// So many wait that its programs are not run.
    without_programs: bool,
    /// What its command would do an earlier block's did, of which only the end waits behind this one.
    takes_over: bool,
}

impl Job {
    /// A job of these steps; nothing has taken effect yet.
    pub fn new(purpose: Purpose, target: IpNet, steps: VecDeque<Step>) -> Job {
        Job {
            purpose,
            target,
            with: Responses::NONE,
            undone: Responses::NONE,
            kept: Responses::NONE,
            failures: Vec::new(),
            begun: Instant::now(),
            renews: false,
            told: Responses::NONE,
            did: Responses::NONE,
            steps,
            running: None,
            is_new: false,
            without_programs: false,
            takes_over: false,
        }
    }

    /// Notes that the kernel refused.
    pub fn refuse(&mut self, response: Response, refusal: Refusal) {
        self.failures.push((response, refusal.into()));
    }

    /// What failed.
    pub fn failed(&self) -> Responses {
        self.failures.iter().map(|(response, _)| *response).collect()
    }

    fn is_block(&self) -> bool {
        match self.purpose {
            Purpose::Block(_) | Purpose::Renew => true,
            Purpose::Lift(_) | Purpose::Flush(_) | Purpose::Abandoned => false,
        }
    }

    fn about(&self, now: u64) -> About {
        let (port, left) = match self.purpose {
            Purpose::Block(grant) => (grant.port, grant.block.left(now)),
            Purpose::Lift(_) | Purpose::Flush(_) | Purpose::Renew | Purpose::Abandoned => (0, 0),
        };
        About { target: self.target, port, left: Duration::from_millis(left) }
    }

    fn settle(&mut self, step: Step, end: Result<(), Failure>, steps: &mut Steps) {
        let given_up = self.purpose == Purpose::Abandoned;
        match (step, end) {
            (Step::Do(response), Ok(())) => {
                // Again: everything may have been put in place anew while it ran, and without it.
                steps.took(response, self.target, true);
                (self.with, self.did) = (self.with.and(response), self.did.and(response));
                if given_up {
                    self.steps.push_front(Step::Undo(response));
                }
            }
            (Step::Do(response), Err(failure)) => {
                // What was there before is there still, also of a set whose program was cut short.
                let was_there = response == Response::Iptables && !self.is_new;
                match failure.fault.is_cut_short() {
                    _ if was_there => {}
                    true => {
                        steps.took(response, self.target, true);
                        self.did = self.did.and(response);
                        self.steps.push_front(Step::Undo(response));
                    }
                    false => drop(steps.took(response, self.target, false)),
                }
                if !given_up {
                    self.failures.push((response, failure));
                }
            }
            (Step::Undo(response), Ok(())) => {
                self.undone = self.undone.and(response);
                self.kept = self.kept.without(response);
                steps.took(response, self.target, false);
            }
            (Step::Undo(response), Err(failure)) => {
                // Still there: whoever gives this up has it tried again.
                (self.kept, self.did) = (self.kept.and(response), self.did.and(response));
                let text = match self.is_block() {
                    true => format!("when taken back: {}", failure.text),
                    false => failure.text,
                };
                self.failures.push((response, Failure { text, ..failure }));
            }
        }
    }

    fn look(&mut self, steps: &mut Steps, now: Instant) {
        let Some((step, running)) = &mut self.running else { return };
        let (step, end) = (*step, running.look(now));
        if let Some(end) = end {
            self.running = None;
            self.settle(step, end, steps);
        }
    }

    /// Takes steps until one is a program. `room`: whether another program may run.
    fn go_on(&mut self, steps: &mut Steps, record: &Escalation, now: u64, room: bool) {
        while self.running.is_none() {
            let Some(&step) = self.steps.front() else { return };
            let work = steps.work(step, &self.about(now), self.before(step, record, now));
            if matches!(work, Work::Run { .. }) && !room && !self.without_programs {
                return;
            }
            self.steps.pop_front();
            self.take(step, work, steps);
        }
    }

    /// What is in force before `step`. A line of hosts.deny outlasts its block where it could not be taken out, and is
    /// ours still. What an operator lifts may have been lifted meanwhile; else what is to be undone was in force when the
    /// job was made. A block that was renewed takes over what the one before it has left, also where that one ended while
    /// it waited: no command runs twice for it, and the end that waits behind it takes nothing from it.
    fn before(&self, step: Step, record: &Escalation, now: u64) -> Responses {
        let itself = Responses::from(step.response());
        match (step, self.purpose) {
            (Step::Do(Response::HostsDeny), _) => record.remains(&self.target),
            (Step::Do(Response::Command), _) if self.takes_over => itself,
            (Step::Do(_), _) => record.in_force(&self.target, now),
            (Step::Undo(Response::Command), Purpose::Lift(Some(_))) => record.remains(&self.target),
            (Step::Undo(_), Purpose::Lift(None)) => itself.without(record.in_force(&self.target, now)),
            (Step::Undo(_), _) => itself,
        }
    }

    fn take(&mut self, step: Step, work: Work, steps: &mut Steps) {
        if let Step::Undo(response) = step {
            self.did = self.did.without(response);
        }
        match (step, work) {
            (_, Work::Nothing) | (Step::Undo(_), Work::InForce) => {}
            (Step::Do(response), Work::InForce) => self.with = self.with.and(response),
            (_, Work::Line { line, ours }) => {
                self.settle(step, steps.write_line(&line, ours).map_err(Failure::from), steps);
            }
            (_, Work::NoLine(line)) => {
                self.settle(step, steps.take_line(&line).map_err(Failure::from), steps)
            }
            (_, Work::Run { .. }) if self.without_programs => {
                self.settle(step, Err(Failure { fault: Fault::Busy, text: String::new() }), steps);
            }
            (_, Work::Run { words, limit }) => {
                if let Step::Do(response) = step {
                    self.is_new = steps.took(response, self.target, true);
                }
                match Running::start(&words, limit) {
                    Ok(running) => self.running = Some((step, running)),
                    Err(failure) => self.settle(step, Err(failure), steps),
                }
            }
        }
    }

    /// Whether the block that it renews is over: what it would put in force now nobody would ever end.
    fn is_outlived(&self, record: &Escalation, now: u64) -> bool {
        let is_over = || record.get(&self.target).is_none_or(|block| block.until <= now);
        self.purpose == Purpose::Renew && is_over()
    }

    /// Its program is ended, and what it has done is undone, or tried to be once more.
    fn give_up(&mut self) {
        self.purpose = Purpose::Abandoned;
        self.failures.clear();
        self.steps = self.did.iter().map(Step::Undo).collect();
        if let Some((Step::Do(_), running)) = &self.running {
            running.kill();
        }
    }

    /// What outlasts this program, and is told for the first time: the line that it has written, the command that runs.
    fn news(&mut self) -> Option<(IpNet, Option<Grant>, Responses)> {
        let grant = match self.purpose {
            Purpose::Block(grant) => Some(grant),
            Purpose::Renew => None,
            Purpose::Lift(_) | Purpose::Flush(_) | Purpose::Abandoned => return None,
        };
        let line = self.did.among(Response::HostsDeny);
        let news = if self.is_at_its_command() { line.and(Response::Command) } else { line };
        let news = news.without(self.told);
        self.told = self.told.and(news);
        (!news.is_empty()).then_some((self.target, grant, news))
    }

    /// Whether its command runs, has run or is to be undone.
    fn is_at_its_command(&self) -> bool {
        let runs = self.running.as_ref().is_some_and(|(step, _)| step.response() == Response::Command);
        runs || self.did.and(self.to_undo()).contains(Response::Command)
    }

    /// Whether it is the end of a block that shut somebody out by its command, and that is not undone yet.
    fn can_hand_over(&self) -> bool {
        let waits = self.purpose == Purpose::Lift(None) && self.to_undo().contains(Response::Command);
        waits && self.with.contains(Response::Command)
    }

    fn undoes_its_command(&self) -> bool {
        let undo = Step::Undo(Response::Command);
        self.steps.contains(&undo) || self.running.as_ref().is_some_and(|(step, _)| *step == undo)
    }

    /// Whether it has run a command, or runs it, of which the record does not know yet.
    fn is_unsettled(&self) -> bool {
        (self.is_block() || self.purpose == Purpose::Abandoned) && self.is_at_its_command()
    }

    /// What it has yet to take back.
    pub fn to_undo(&self) -> Responses {
        let undoes = |step: &Step| match step {
            Step::Undo(response) => Some(*response),
            Step::Do(_) => None,
        };
        self.steps.iter().filter_map(undoes).collect()
    }

    /// Whether no step is left.
    pub fn is_done(&self) -> bool {
        self.steps.is_empty() && self.running.is_none()
    }

    /// Whether a request waits for it.
    pub fn is_due(&self) -> bool {
        matches!(self.purpose, Purpose::Block(_) | Purpose::Lift(Some(_)) | Purpose::Flush(_))
    }
}

#[cfg(test)]
mod tests;
