//! The answer to a request to lift every block: a job of no steps, done when those before it are, whatever they are for.
//! Helper.
//!
//! It fails where one of them does: nobody is told that everybody is let in while something of a block stays.
#![forbid(unsafe_code)]

use std::collections::VecDeque;

use ipnet::{IpNet, Ipv4Net};

use super::{Failure, Job, Purpose};
use crate::protocol::{Response, Responses};

/// What is told of the failures of a great many.
const TOLD: usize = 3;

/// What jobs failed at, the first few of it.
#[derive(Debug, Default)]
pub(super) struct Failures(Vec<(Response, Failure)>);

impl Failures {
    /// Of a job that is done, with the name of whom it was about: whoever asked about all has to know where to look.
    pub(super) fn note(&mut self, job: &Job) {
        let room = TOLD.saturating_sub(self.0.len());
        let named = job.failures.iter().map(|(response, failure)| match job.has_a_target() {
            true => (*response, named(failure, job.target)),
            false => (*response, failure.clone()),
        });
        self.0.extend(named.take(room));
    }
}

impl Job {
    /// The answer to request `id`.
    pub fn last(id: u64, found: bool) -> Job {
        // Nobody's block: none is so wide.
        let everybody = IpNet::from(Ipv4Net::default());
        Job::new(Purpose::Flush { id, found }, everybody, VecDeque::new())
    }

    /// Leaves steps of these responses out.
    pub fn leave(&mut self, kept: Responses) {
        self.steps.retain(|step| !kept.contains(step.response()));
    }

    /// Whether it is about blocks of somebody, and no answer about all.
    pub fn has_a_target(&self) -> bool {
        !matches!(self.purpose, Purpose::Flush { .. })
    }

    pub(super) fn may_end(&self, is_first: bool) -> bool {
        is_first || self.has_a_target()
    }

    /// What those before it failed at is its failure.
    pub(super) fn answer_for(&mut self, others: &Failures) {
        if !self.has_a_target() {
            let room = TOLD.saturating_sub(self.failures.len());
            self.failures.extend(others.0.iter().take(room).cloned());
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
