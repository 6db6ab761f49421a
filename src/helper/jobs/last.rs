//! What jobs answer for that others do. The answer to a request to lift every block is a job of no steps, done when those
//! before it are, whatever they are for; an operator's unblock comes after the block under way that it has overtaken. Helper.
//!
//! It fails where one of them does: nobody is told that somebody is let in while something of a block stays.
#![forbid(unsafe_code)]

use std::collections::VecDeque;

use ipnet::{IpNet, Ipv4Net};

use super::{Asked, Failure, Job, Purpose};
use crate::protocol::{Outcome, Response, Responses};

/// What is told of the failures of a great many.
const TOLD: usize = 3;

/// What jobs failed at, and what some of them undid.
#[derive(Debug, Default)]
pub(super) struct Failures {
    /// The first few of it.
    few: Vec<(Response, Failure)>,
    /// What blocks that were given up could not undo.
    given_up: Vec<(IpNet, Vec<(Response, Failure)>)>,
    /// And what they did undo.
    undone: Vec<(IpNet, Responses)>,
}

impl Failures {
    /// Of a job that is done, with the name of whom it was about: whoever asked about all has to know where to look.
    pub(super) fn note(&mut self, job: &Job) {
        let room = TOLD.saturating_sub(self.few.len());
        let named = job.failures.iter().map(|(response, failure)| match job.has_a_target() {
            true => (*response, named(failure, job.target)),
            false => (*response, failure.clone()),
        });
        self.few.extend(named.take(room));
        // Of many that are given up few have come so far, and everybody's end is held against them.
        if job.purpose == Purpose::Abandoned && !job.failures.is_empty() {
            self.given_up.push((job.target, job.failures.clone()));
        }
        if job.purpose == Purpose::Abandoned && !job.undone.is_empty() {
            self.undone.push((job.target, job.undone));
        }
    }
}

impl Job {
    /// The answer to a request to lift every block.
    pub fn last(asked: Asked) -> Job {
        // Nobody's block: none is so wide.
        let everybody = IpNet::from(Ipv4Net::default());
        Job::new(Purpose::Flush(asked), everybody, VecDeque::new())
    }

    /// What has become of what was `asked`, now that this is done.
    pub fn outcome(&self, asked: Asked) -> Outcome {
        match self.failures.first() {
            Some((_, failure)) => Outcome::Failed(failure.fault.errno()),
            None if asked.found => Outcome::Lifted,
            None => Outcome::NotBlocked,
        }
    }

    /// Leaves steps of these responses out.
    pub fn leave(&mut self, kept: Responses) {
        self.steps.retain(|step| !kept.contains(step.response()));
    }

    /// Whether it is about blocks of somebody, and no answer about all.
    pub fn has_a_target(&self) -> bool {
        !matches!(self.purpose, Purpose::Flush(_))
    }

    pub(super) fn may_end(&self, is_first: bool) -> bool {
        is_first || self.has_a_target()
    }

    /// What those before it failed at is its failure. What a block that was given up has undone already is not undone twice
    /// by the end of an earlier one.
    pub(super) fn answer_for(&mut self, others: &Failures) {
        match self.purpose {
            Purpose::Flush(_) => {
                let room = TOLD.saturating_sub(self.failures.len());
                self.failures.extend(others.few.iter().take(room).cloned());
            }
            Purpose::Lift(Some(_)) => {
                let overtaken = others.given_up.iter().filter(|(target, _)| *target == self.target);
                self.failures.extend(overtaken.flat_map(|(_, failures)| failures).cloned());
            }
            Purpose::Lift(None) => {
                let target = self.target;
                let overtaken = others.undone.iter().filter(|(other, _)| *other == target);
                overtaken.for_each(|(_, undone)| self.leave(*undone));
            }
            Purpose::Block(_) | Purpose::Renew | Purpose::Abandoned => {}
        }
    }
}

fn named(failure: &Failure, target: IpNet) -> Failure {
    let text = match failure.text.is_empty() {
        true => target.to_string(),
        false => format!("{target}: {}", failure.text),
    };
    Failure { text, ..failure.clone() }
}
