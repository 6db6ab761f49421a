//! Blocks, from the grant to the reply: kernel first, then the record. Helper.
//!
//! What goes to the kernel together is answered one by one, each with what became of it.
#![forbid(unsafe_code)]

use std::time::Instant;

use ipnet::IpNet;

use super::tell::micros;
use super::{Service, timed};
use crate::detect::probe::Protocol;
use crate::helper::decide::{Grant, done, in_force};
use crate::helper::escalation::Block;
use crate::helper::jobs::{Job, Purpose};
use crate::helper::respond::{Effects, Knock, Respond, Timed};
use crate::protocol::{Datagrams, Outcome, Response};

impl<R: Respond> Service<R> {
    /// Gives the kernel what was put off.
    pub fn finish(&mut self) {
        self.finish_blocks();
        self.finish_protecting();
    }

    /// Gives the kernel the blocks that were granted, and goes on with what is to be done besides.
    fn finish_blocks(&mut self) {
        let grants = std::mem::take(&mut self.pending);
        if grants.is_empty() {
            return;
        }
        let begun = Instant::now();
        let shut_out: Vec<Grant> = grants.iter().filter(|grant| !grant.run_only).copied().collect();
        let mut results = self.do_block(&shut_out).into_iter();
        let knocks: Vec<Knock> = grants.iter().map(knock).collect();
        let tripped = self.responses.tripped(&knocks);
        for (grant, tripped) in grants.into_iter().zip(tripped) {
            let effects =
                if grant.run_only { Effects::default() } else { results.next().unwrap_or_default() };
            self.begin(Grant { tripped, ..grant }, effects, begun);
        }
        self.advance();
    }

    /// What the kernel has is on record from now on, whatever becomes of the rest.
    fn begin(&mut self, grant: Grant, effects: Effects, begun: Instant) {
        let mut job = Job::new(Purpose::Block(grant), grant.target, self.steps.to_block(grant.run_only));
        (job.with, job.begun) = (effects.with, begun);
        job.renews = self.core.escalation.get(&grant.target).is_some();
        effects.refused.into_iter().for_each(|(response, refusal)| job.refuse(response, refusal));
        if effects.with.block() && !job.is_done() {
            self.record(grant.target, Block { with: effects.with, ..grant.block });
        }
        self.jobs.push(job);
    }

    /// The firewall may have been loaded anew while programs of these blocks ran, or by one of them: what the kernel took
    /// before must stand when it is told of. Where no program runs hardly a moment lies in between.
    pub(super) fn prove_table(&mut self, done: &mut [Job]) {
        let claims = |job: &&mut Job| {
            matches!(job.purpose, Purpose::Block(_)) && job.with.contains(Response::Nftables)
        };
        let mut claimed: Vec<&mut Job> = done.iter_mut().filter(claims).collect();
        let may_be_gone = !claimed.is_empty() && !self.steps.to_block(false).is_empty();
        if may_be_gone
            && !self.responses.rules_stand()
            && let Err(refusal) = self.install_again()
        {
            self.say(&refusal.text);
            // It may have come as far as the table: the next look makes one of what is on record alone.
            self.overdue = self.overdue.and(Response::Nftables);
            self.unclaim(&mut claimed, Response::Nftables, &refusal);
        }
    }

    pub(super) fn blocked(&mut self, grant: &Grant, job: &Job) {
        let holds = job.with.block() || grant.run_only && job.with.contains(Response::RunCommand);
        self.tell_failures(grant.id, &job.failures);
        let Some(block) = holds.then_some(Block { with: job.with, ..grant.block }) else {
            let errno = job.failures.first().map_or(libc::EIO, |(_, failure)| failure.fault.errno());
            return self.answer(done(grant.id, Outcome::Failed(errno)));
        };
        self.record(grant.target, block);
        // The end of an earlier one, told after this answer, would end this one; the log has what failed.
        self.unasked.retain(|it| it.target != Some(grant.target));
        let micros = micros(job.begun.elapsed());
        self.answer(in_force(grant.id, Outcome::Blocked, block, self.now.utc, micros, grant.tripped));
    }

    /// Kernel, file or command has it: now it is a block. Whom a command has told of alone is not shut out, and is none of
    /// BLOCKED_FILE's: whoever reads that, a later start too, would block him.
    pub(super) fn record(&mut self, target: IpNet, block: Block) {
        let before = self.core.escalation.get(&target);
        let block = self.core.escalation.enter(target, block);
        if before != Some(block) {
            self.note(target);
        }
        let is_out = before.is_some_and(|before| !before.is_run_only());
        if let Some(file) = self.blocked_file.as_mut().filter(|_| !is_out && !block.is_run_only())
            && let Err(refusal) = file.add(target.addr(), self.now.uptime)
        {
            self.say(&refusal.text);
        }
    }

    /// A restored block that its command alone would have put in force again is none where the command failed. One that is
    /// over does not come here: its renewal is given up.
    pub(super) fn renewed(&mut self, job: &Job) {
        self.taken_back(job.target, job.undone);
        let Some(block) = self.core.escalation.get(&job.target) else { return };
        if job.with.is_empty() && !block.with.block() {
            self.end_early(job.target, job.kept);
            self.rewrite_blocked_file();
            return self.tell_remains(job.target, &job.failures);
        }
        // From now, as where an operator renews one: a start after this one is none of the machine's.
        self.record(job.target, Block { with: job.with, since: self.now.utc, ..block });
    }

    fn do_block(&mut self, grants: &[Grant]) -> Vec<Effects> {
        let batch: Vec<Timed> = grants.iter().map(|it| timed(it.target, it.block, self.now.utc)).collect();
        let results = self.responses.block(&batch);
        if !results.iter().any(Effects::table_gone) {
            return results;
        }
        // Somebody's `nft flush ruleset` must not end the protection: everything is installed again.
        match self.install_again() {
            Ok(()) => self.responses.block(&batch),
            Err(refusal) => {
                self.say(&refusal.text);
                results
            }
        }
    }
}

fn knock(grant: &Grant) -> Knock {
    let over = match grant.protocol {
        Protocol::Tcp => Some(Datagrams::No),
        Protocol::Udp => Some(Datagrams::Yes),
        Protocol::Sctp | Protocol::Icmp | Protocol::Ip => None,
    };
    (grant.target, over.map(|over| (over, grant.port)))
}
