//! The end of every block at once: an operator's `unblock all`, and the goodbye where FLUSH_ON_STOP says so. Helper.
//!
//! The kernel lets go first. `unblock all` is answered when the last file and program has, by the worst that came of it.
#![forbid(unsafe_code)]

use std::time::Instant;

use ipnet::IpNet;

use super::Service;
use super::tell::timed_reply;
use crate::helper::decide::done;
use crate::helper::error::log;
use crate::helper::escalation::Block;
use crate::helper::jobs::{Asked, Job};
use crate::helper::respond::{Refusal, Respond};
use crate::protocol::{Outcome, Response, Responses};

impl<R: Respond> Service<R> {
    /// Where the kernel refuses everybody stays on record, and a look puts back who is not in force any more.
    pub(super) fn do_flush(&mut self, id: u64) {
        let begun = Instant::now();
        if let Err(refusal) = self.flush_kernel() {
            log(&refusal.text);
            let still = self.core.escalation.after(None, self.now.utc).map(|(_, block)| block);
            return self.answer_end(id, still, Outcome::Failed(refusal.errno), begun);
        }
        self.overtake(|_| true);
        let lifted = self.core.escalation.lift_all(self.now.utc);
        let mut answer = Job::last(Asked { id, found: !lifted.is_empty() });
        for (response, refusal) in self.take_back_all(&lifted) {
            log(&refusal.text);
            answer.refuse(response, refusal);
        }
        self.jobs.push(answer);
        self.ledger.renew();
        self.advance();
    }

    /// A table that somebody has put in the place of ours may hold anybody: it is made anew, and nobody is in it.
    fn flush_kernel(&mut self) -> Result<(), Refusal> {
        match self.responses.flush() {
            Err(refusal) if refusal.table_gone => self.install_these(&[]),
            flushed => flushed,
        }
    }

    /// All that was before the answer is done.
    pub(super) fn flushed(&mut self, asked: Asked, job: &Job) {
        self.tell_failures(asked.id, &job.failures);
        self.answer(timed_reply(asked.id, job.outcome(asked), job.begun));
    }

    /// Unlike an operator's flush this forgives nobody. From now on nobody confirms or clears whom the tripwire trips, and
    /// whoever ends the sensor may end us before the last command has. Those that restored blocks wait for are the next
    /// start's: it would wait for us, and a great many are not run in the time that it has.
    pub(super) fn do_stop(&mut self, id: u64) {
        self.disarm();
        self.jobs.drop_renewals();
        let outcome = match self.flush_on_stop.then(|| self.flush_kernel()) {
            None => Outcome::NotBlocked,
            Some(Err(refusal)) => Outcome::Failed(refusal.errno),
            Some(Ok(())) => {
                self.ledger.renew();
                self.overtake(|_| true);
                let ended = self.core.escalation.end_all(self.now.utc);
                for (response, refusal) in self.take_back_all(&ended) {
                    if let Some((first, _)) = ended.first() {
                        self.tell_refusal(*first, response, refusal);
                    }
                }
                self.advance();
                if ended.is_empty() { Outcome::NotBlocked } else { Outcome::Lifted }
            }
        };
        self.stopped = true;
        self.answer(done(id, outcome));
    }

    /// Files and programs' part of every block, and of what earlier ones left behind: all lines go at once, and so does
    /// what programs of ours put in place. Returns what failed.
    fn take_back_all(&mut self, ended: &[(IpNet, Block)]) -> Vec<(Response, Refusal)> {
        let lines = self.take_lines(ended).err().map(|refusal| (Response::HostsDeny, refusal));
        let refused: Vec<(Response, Refusal)> = lines.into_iter().chain(self.empty_programs()).collect();
        let failed: Responses = refused.iter().map(|(response, _)| *response).collect();
        // One by one it would be a program for each of them.
        let kept = failed.and(Response::Iptables);
        self.undo(ended, kept);
        self.rewrite_blocked_file();
        refused
    }
}
