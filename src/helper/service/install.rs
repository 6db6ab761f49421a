//! What the kernel is to have, put in place as a whole: at the start, and when somebody else changed it. Helper.
//!
//! The record says afterwards what each response took: a block that none of them did is no block.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::Service;
use super::restore::{at_once, timed_all};
use crate::helper::error::log;
use crate::helper::escalation::{Block, Escalation};
use crate::helper::respond::{Refusal, Refused, Respond};
use crate::protocol::{Response, Responses};

/// What is said where the kernel did not have what we told of.
const CHANGED: &str = "somebody changed the firewall or the blocks in it: they are installed again";
/// Likewise where the kernel, or a program, would not let go of a block that is over.
const OVERDUE: &str = "something of a block that is over could not be taken back: those in force are installed again, without it";

impl<R: Respond> Service<R> {
    /// Puts table, routes and what is [`in_force`](Self::in_force) in place. Returns what a response could not take.
    pub(super) fn install(&mut self, in_force: &[(IpNet, Block)]) -> Result<Vec<Refused>, Refusal> {
        let blocks = timed_all(in_force, self.now.utc);
        let refused = self.responses.install(self.core.authority.never(), &blocks)?;
        self.overdue = self.overdue.without(self.at_once);
        let without: BTreeSet<(IpNet, Response)> =
            refused.iter().map(|(target, response, _)| (*target, *response)).collect();
        let kernels = at_once(&Response::ALL);
        for &(target, block) in in_force {
            // Of what the kernel does this is all: another response of an earlier configuration is not looked after.
            let took: Responses =
                self.at_once.iter().filter(|response| !without.contains(&(target, *response))).collect();
            self.taken_back(target, kernels.without(took));
            if !took.without(block.with).is_empty() {
                self.record(target, Block { with: took, ..block });
            }
        }
        Ok(refused)
    }

    /// Likewise, while the sensor listens, and says why: somebody changed the table, or it holds what is over.
    pub(super) fn install_again(&mut self) -> Result<(), Refusal> {
        self.install_these(&self.in_force())
    }

    /// Likewise, of these blocks alone, whatever the record has besides.
    pub(super) fn install_these(&mut self, blocks: &[(IpNet, Block)]) -> Result<(), Refusal> {
        let why = self.why_again(self.at_once);
        let refused = self.install(blocks)?;
        log(why);
        self.let_go(&refused);
        Ok(())
    }

    /// Why what these responses hold is put in place again.
    pub(super) fn why_again(&self, responses: impl Into<Responses>) -> &'static str {
        if self.overdue.among(responses).is_empty() { CHANGED } else { OVERDUE }
    }

    /// Takes out of the record what no response holds any more, tells the sensor of each, and says what was refused.
    pub(super) fn let_go(&mut self, refused: &[Refused]) {
        if let Some((target, response, refusal)) = refused.first() {
            let alike = format!("{} of the blocks are without {}", refused.len(), response.name());
            self.say_one(&alike, &format!("{alike}, {target} first: {refusal}"));
        }
        let is_over = |target: &IpNet| {
            let block = self.core.escalation.get(target).filter(|block| !block.with.block());
            block.is_some() && !self.jobs.will_block(target)
        };
        let over: Vec<&Refused> = refused.iter().filter(|(target, ..)| is_over(target)).collect();
        for (target, response, refusal) in &over {
            self.end_early(*target, Responses::NONE);
            self.tell_over(*target, &[(*response, refusal.clone().into())]);
        }
        if !over.is_empty() {
            self.rewrite_blocked_file();
        }
    }

    /// The blocks that shut somebody out.
    pub(super) fn in_force(&self) -> Vec<(IpNet, Block)> {
        let ending = self.jobs.ending();
        // Being lifted, the kernel's part first: it is on record again where it was blocked anew since.
        let stands = |(target, block): &(IpNet, Block)| {
            !ending.contains(target) || !block.with.among(self.at_once).is_empty()
        };
        shut_out(&self.core.escalation, self.now.utc).filter(stands).collect()
    }
}

/// The blocks on record that shut somebody out at `now`, those that are being lifted among them.
pub(super) fn shut_out(record: &Escalation, now: u64) -> impl Iterator<Item = (IpNet, Block)> + '_ {
    record.entries().filter(move |(_, block)| block.until > now && !block.is_run_only())
}
