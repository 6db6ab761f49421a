//! The end of blocks one by one, whoever brings it about: an operator, their time, the never-block set. Helper.
//!
//! What a block has left behind is taken back, and told where that fails.
#![forbid(unsafe_code)]

use std::time::Instant;

use ipnet::IpNet;

use super::Service;
use super::install::shut_out;
use super::tell::{micros, timed_reply};
use crate::helper::decide::{done, in_force};
use crate::helper::escalation::Block;
use crate::helper::jobs::{Asked, Job, Purpose};
use crate::helper::respond::{Effects, Refusal, Respond};
use crate::protocol::{Fault, Outcome, Response, Responses};

impl<R: Respond> Service<R> {
    pub(super) fn do_unblock(&mut self, id: u64, target: IpNet) {
        self.overtake(|it| *it == target);
        let kernel = self.lift_in_kernel(&target);
        let with = self.core.escalation.remains(&target);
        let is_known = self.core.escalation.get(&target).is_some() || !with.is_empty();
        let asked = Asked { id, found: !kernel.with.is_empty() || is_known };
        let mut job = self.lift_job(target, with, Some(asked));
        kernel.refused.into_iter().for_each(|(response, refusal)| job.refuse(response, refusal));
        let line = with.contains(Response::HostsDeny).then_some(target);
        if let Err(refusal) = self.steps.take_lines(line.into_iter()) {
            job.refuse(Response::HostsDeny, refusal);
        }
        self.taken_back(target, with.without(job.to_undo().and(job.failed())));
        self.jobs.push(job);
        self.advance();
    }

    /// A table that somebody has put in the place of ours may hold `target` still: it is made anew, without him.
    fn lift_in_kernel(&mut self, target: &IpNet) -> Effects {
        let mut effects = self.responses.unblock(target);
        if effects.table_gone() {
            let others: Vec<(IpNet, Block)> =
                self.in_force().into_iter().filter(|(other, _)| other != target).collect();
            let installed = self.install_these(&others).err();
            effects.refused = installed.map(|refusal| (Response::Nftables, refusal)).into_iter().collect();
        }
        effects
    }

    /// What an operator's unblock could not take back is remembered, so that it can be asked for again. Whether a
    /// command that failed to end a block has ended it, nobody knows: it is no block that could be told of.
    pub(super) fn lifted(&mut self, asked: Option<Asked>, job: &Job) {
        let Some(asked) = asked else { return self.given_up(job) };
        self.taken_back(job.target, job.undone);
        self.tell_failures(asked.id, &job.failures);
        let unknown = job.failed().among(Response::Command);
        // Blocked anew meanwhile, or what blocks would not end.
        let known = self.core.escalation.known_of(&job.target);
        match known.is_some_and(|known| known.with.without(unknown).block()) {
            true => self.taken_back(job.target, unknown),
            false => self.forget(&job.target),
        }
        let still = self.core.escalation.get(&job.target);
        self.answer_end(asked.id, still, job.outcome(asked), job.begun);
    }

    /// Nobody waits for it. Where an unblock has overtaken it that finds on record what is left to take back.
    pub(super) fn given_up(&mut self, job: &Job) {
        self.taken_back(job.target, job.undone);
        self.tell_remains(job.target, &job.failures);
    }

    /// Where it failed the answer says what is `still` in force.
    pub(super) fn answer_end(&mut self, id: u64, still: Option<Block>, outcome: Outcome, begun: Instant) {
        self.answer(match still.filter(|_| matches!(outcome, Outcome::Failed(_))) {
            Some(block) => in_force(id, outcome, block, self.now.utc, micros(begun.elapsed()), false),
            None => timed_reply(id, outcome, begun),
        });
    }

    /// These responses to `target` are not in force any more.
    pub(super) fn taken_back(&mut self, target: IpNet, gone: impl Into<Responses>) {
        if self.core.escalation.take_back(&target, gone.into()) {
            self.note(target);
        }
    }

    pub(super) fn forget(&mut self, target: &IpNet) {
        let was = self.core.escalation.lift(target, self.now.utc);
        self.note(*target);
        if was.is_some() {
            self.rewrite_blocked_file();
        }
    }

    /// Nobody asked for it: the sensor has a view of its own of who is never blocked, and goes by what it is told here.
    pub(super) fn lift(&mut self, targets: &[IpNet]) {
        let (mut lifted, mut gone) = (Vec::new(), None);
        for target in targets {
            for (response, refusal) in self.responses.unblock(target).refused {
                match refusal.table_gone {
                    true => gone = Some(*target),
                    false => self.keeps_hold(*target, response, refusal),
                }
            }
            let block = self.core.escalation.lift(target, self.now.utc);
            lifted.extend(block.map(|block| (*target, block)));
            self.note(*target);
            self.tell_over(*target, &[]);
        }
        // Once for all of them.
        if let Some(target) = gone
            && let Err(refusal) = self.install_again()
        {
            self.keeps_hold(target, Response::Nftables, refusal);
        }
        self.take_back(&lifted);
    }

    pub(super) fn expire(&mut self) {
        let ended = self.core.escalation.expire(self.now.utc);
        for (target, block) in &ended {
            if let Err(refusal) = self.responses.expire(target) {
                self.keeps_hold(*target, Response::Route, refusal);
            }
            // What the kernel ends by itself needs no word in the ledger.
            if block.to_end().iter().any(|response| response != Response::Nftables) {
                self.note(*target);
            }
        }
        self.take_back(&ended);
    }

    /// Nothing holds a block any more, although its time is not over: what it was to take back goes with it, but for what was
    /// `kept`. Programs run with the next [`advance`](Self::advance).
    pub(super) fn end_early(&mut self, target: IpNet, kept: Responses) {
        let Some(block) = self.core.escalation.get(&target) else { return };
        self.core.escalation.end(&target, self.now.utc);
        self.note(target);
        self.undo(&[(target, block)], kept);
    }

    /// A response would not let go of a block that is over. That is told, and tried again at each look.
    fn keeps_hold(&mut self, target: IpNet, response: Response, refusal: Refusal) {
        self.overdue = self.overdue.and(response);
        self.tell_refusal(target, response, refusal);
    }

    /// Files and programs' part of blocks that are over; what fails is told.
    pub(super) fn take_back(&mut self, ended: &[(IpNet, Block)]) {
        // All lines go at once, or none does: one report is enough.
        let refused = self.take_lines(ended).err();
        let kept = refused.iter().map(|_| Response::HostsDeny).collect();
        if let (Some(refusal), Some((first, _))) = (refused, ended.first()) {
            self.tell_refusal(*first, Response::HostsDeny, refusal);
        }
        self.undo(ended, kept);
        if !ended.is_empty() {
            self.rewrite_blocked_file();
        }
        self.advance();
    }

    /// Programs' part of it; what else there was is over, but for what was `kept` and has no step here. What the kernel
    /// alone did costs nothing here, be it a million of them.
    pub(super) fn undo<'a>(&mut self, ended: impl IntoIterator<Item = &'a (IpNet, Block)>, kept: Responses) {
        // What a command undoes already it does not undo twice.
        let undoing = self.jobs.undoing();
        for (target, block) in ended {
            let kept = if undoing.contains(target) { kept.and(Response::Command) } else { kept };
            let mut job = self.lift_job(*target, block.to_end(), None);
            job.with = block.with;
            job.leave(kept);
            self.taken_back(*target, block.remains().without(job.to_undo().and(kept)));
            if !job.is_done() {
                self.jobs.push(job);
            }
        }
    }

    /// Where it fails each look tries again.
    pub(super) fn take_lines(&mut self, ended: &[(IpNet, Block)]) -> Result<(), Refusal> {
        let has_line = |(_, block): &&(IpNet, Block)| block.with.contains(Response::HostsDeny);
        let taken = self.steps.take_lines(ended.iter().filter(has_line).map(|(target, _)| *target));
        if taken.is_err() {
            self.overdue = self.overdue.and(Response::HostsDeny);
        }
        taken
    }

    /// Takes out the lines of blocks that are over, where that failed when they ended.
    pub(super) fn look_at_lines(&mut self) -> Result<(), Refusal> {
        if !self.overdue.contains(Response::HostsDeny) {
            return Ok(());
        }
        let left: Vec<IpNet> = self.core.escalation.over_with(Response::HostsDeny).collect();
        self.steps.take_lines(left.iter().copied())?;
        self.overdue = self.overdue.without(Response::HostsDeny);
        left.into_iter().for_each(|target| self.taken_back(target, Response::HostsDeny));
        Ok(())
    }

    fn lift_job(&self, target: IpNet, with: Responses, asked: Option<Asked>) -> Job {
        Job::new(Purpose::Lift(asked), target, self.steps.to_lift(&target, with, asked.is_some()))
    }

    /// Blocks on their way are given up: whoever asked for them is told.
    pub(super) fn overtake(&mut self, meant: impl Fn(&IpNet) -> bool) {
        for grant in self.jobs.abandon(meant) {
            self.answer(done(grant.id, Outcome::Failed(Fault::Lifted.errno())));
        }
    }

    pub(super) fn rewrite_blocked_file(&mut self) {
        let addresses = shut_out(&self.core.escalation, self.now.utc).map(|(target, _)| target.addr());
        let written = self.blocked_file.as_mut().map(|file| file.rewrite(addresses, self.now.uptime));
        if let Some(Err(refusal)) = written {
            self.say(&refusal.text);
        }
    }
}
