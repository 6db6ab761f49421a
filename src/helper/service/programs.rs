//! What programs put in place: looked at before a block is told of, and while one is in force. Helper.
//!
//! A program that did its work proves nothing of the rest: a set that no rule asks blocks nobody, nor does a chain that
//! INPUT does not jump to.
#![forbid(unsafe_code)]

use std::iter::successors;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use ipnet::IpNet;

use super::Service;
use super::restore::timed_all;
use crate::helper::command::Failure;
use crate::helper::error::log;
use crate::helper::escalation::Block;
use crate::helper::iptables::SOON;
use crate::helper::jobs::{Job, Purpose};
use crate::helper::respond::{Refusal, Respond};
use crate::netlink::nftables::Family;
use crate::protocol::{Fault, Response, Responses};

/// The response that programs of ours bring about.
const OURS: Response = Response::Iptables;

impl<R: Respond> Service<R> {
    /// The responses of ours that others may undo, or bring back, with a firewall of theirs.
    pub(super) fn in_firewall(&self) -> Responses {
        self.at_once.and(self.steps.installed().among(OURS))
    }

    /// Looks whether the programs list what they were to put in place, and one block of each family that is on record;
    /// where that is not so, or a program could not take back what is over, everything is put in place anew, and nothing
    /// else.
    pub(super) fn look_at_programs(&mut self) -> Result<(), Refusal> {
        if !self.steps.installed().contains(OURS) {
            return Ok(());
        }
        if self.overdue.contains(OURS) {
            return self.put_programs_back(&[]);
        }
        let mut unsettled = self.jobs.unfinished(OURS);
        let soon = self.now.utc.saturating_add(u64::try_from(SOON.as_millis()).unwrap_or(u64::MAX));
        unsettled.extend(self.core.escalation.ending_by(soon));
        let as_made = self.steps.is_as_made(&unsettled)?;
        let stands = as_made && self.steps.stand(&self.sample(), true)?;
        if stands { Ok(()) } else { self.put_programs_back(&[]) }
    }

    /// A program could not take back its part of a block, and the record claims it no more: the next look does. What a
    /// command did no look can take back, but the end of the block in force, or whoever is asked to lift it. What another
    /// did take back is gone, whichever block it was of.
    pub(super) fn keep_in_mind(&mut self, job: &Job) {
        self.taken_back(job.target, job.undone.among(Response::Command));
        if self.core.escalation.leave(&job.target, job.kept.among(Response::Command), self.now.utc) {
            self.note(job.target);
        }
        let claimed = self.core.escalation.remains(&job.target);
        self.overdue = self.overdue.and(job.kept.among(OURS).without(claimed));
    }

    /// Takes every block out of what programs put in place, whoever put it there. Where that fails the next look does it.
    pub(super) fn empty_programs(&mut self) -> Option<(Response, Refusal)> {
        let refusal = self.steps.empty().err()?;
        self.overdue = self.overdue.and(OURS);
        Some((OURS, refusal))
    }

    /// One of each family, of those that a look cannot outlast.
    fn sample(&self) -> Vec<IpNet> {
        let (record, now) = (&self.core.escalation, self.now.utc);
        let first_after = |last: Option<IpNet>| {
            let mut blocks = successors(record.after(last, now), |(last, _)| record.after(Some(*last), now));
            let lasts = |block: &Block| Duration::from_millis(block.left(now)) > SOON;
            blocks.find(|(_, block)| block.with.contains(OURS) && lasts(block)).map(|(target, _)| target)
        };
        // In the order of targets IPv6 comes after the last of IPv4.
        let last_v4 = IpNet::from(IpAddr::from(Ipv4Addr::BROADCAST));
        [None, Some(last_v4)].into_iter().filter_map(first_after).collect()
    }

    /// Before these blocks are told of. What does not hold and cannot be made to is a failure of theirs; what failed for
    /// there was no chain to put it in holds once there is one. Returns whether they could be looked at: where they could
    /// not, what the programs said of their work stands, and nothing more is to be asked in this turn, for each question
    /// may wait for a lock.
    pub(super) fn prove(&mut self, done: &mut [Job]) -> bool {
        let blocks = done.iter_mut().filter(|job| matches!(job.purpose, Purpose::Block(_)));
        let proved = self.prove_blocks(&mut blocks.collect::<Vec<&mut Job>>());
        if let Err(refusal) = &proved {
            self.say(&refusal.text);
        }
        proved.is_ok()
    }

    fn prove_blocks(&mut self, jobs: &mut [&mut Job]) -> Result<(), Refusal> {
        let gone = self.families_gone(jobs)?;
        for job in jobs.iter_mut().filter(|job| was_refused(job) && gone.contains(&family_of(job))) {
            job.failures.retain(|failure| !is_refusal(failure));
            job.with = job.with.and(OURS);
        }
        let mut claimed: Vec<&mut Job> =
            jobs.iter_mut().map(|job| &mut **job).filter(|job| job.with.contains(OURS)).collect();
        if claimed.is_empty() {
            return Ok(());
        }
        let targets: Vec<IpNet> = claimed.iter().map(|job| job.target).collect();
        if gone.is_empty() && self.steps.stand(&targets, true)? {
            return Ok(());
        }
        // None is on record, nor in BLOCKED_FILE, before it stands.
        let block_of = |job: &&mut Job| match job.purpose {
            Purpose::Block(grant) => Some((job.target, Block { with: job.with, ..grant.block })),
            Purpose::Lift(_) | Purpose::Flush(_) | Purpose::Renew | Purpose::Abandoned => None,
        };
        let blocks: Vec<(IpNet, Block)> = claimed.iter().filter_map(block_of).collect();
        let Err(refusal) = self.put_programs_back(&blocks) else { return Ok(()) };
        // It may have come as far as the sets: the next look puts in place what is on record alone.
        self.overdue = self.overdue.and(OURS);
        self.unclaim(&mut claimed, OURS, &refusal);
        Ok(())
    }

    /// A response that these jobs would tell of does not hold, and cannot be made to.
    pub(super) fn unclaim(&mut self, jobs: &mut [&mut Job], response: Response, refusal: &Refusal) {
        let ended = jobs.iter_mut().filter_map(|job| self.unclaim_one(job, response, refusal).then_some(()));
        if ended.count() > 0 {
            self.rewrite_blocked_file();
        }
    }

    /// Returns whether a block ended with it.
    fn unclaim_one(&mut self, job: &mut Job, response: Response, refusal: &Refusal) -> bool {
        let failure = Failure::from(refusal.clone());
        job.failures.push((response, failure.clone()));
        job.with = job.with.without(response);
        // Its own block on record, or the one that it was to renew: where nothing else holds it, it is over.
        let known = self.core.escalation.get(&job.target).filter(|block| block.with.contains(response));
        self.taken_back(job.target, response);
        let is_over = known.is_some_and(|block| !block.with.without(response).block());
        if is_over {
            // The next look empties what programs hold; what the job has tried to undo is not tried at once again.
            self.taken_back(job.target, job.undone);
            self.end_early(job.target, job.kept.and(response));
            match job.renews {
                true => self.tell_over(job.target, &[(response, failure)]),
                false => self.withdraw(job.target),
            }
        }
        is_over
    }

    /// A block that ended before anybody was told of it was none: its own answer says what failed.
    fn withdraw(&mut self, target: IpNet) {
        self.core.escalation.withdraw(&target);
        self.note(target);
    }

    /// The families in which a program failed and what it would put a block in is not there.
    fn families_gone(&self, jobs: &[&mut Job]) -> Result<Vec<Family>, Refusal> {
        let mut gone = Vec::new();
        for family in Family::BOTH {
            let first = jobs.iter().find(|job| family_of(job) == family && was_refused(job));
            if let Some(job) = first
                && !self.steps.stand(&[job.target], false)?
            {
                gone.push(family);
            }
        }
        Ok(gone)
    }

    /// What is on record, and what is `claimed` and not yet there. But for what a program is at work on: it would be there
    /// twice, or stay after its end, and is looked at when that program has ended.
    fn put_programs_back(&mut self, claimed: &[(IpNet, Block)]) -> Result<(), Refusal> {
        let (mut in_force, mut apart) = (self.in_force(), self.jobs.changing(OURS));
        apart.extend(claimed.iter().map(|(target, _)| *target));
        in_force.retain(|(target, _)| !apart.contains(target));
        in_force.extend(claimed);
        self.steps.install_again(&timed_all(&in_force, self.now.utc))?;
        log(self.why_again(OURS));
        self.overdue = self.overdue.without(OURS);
        for (target, block) in in_force.into_iter().filter(|(_, block)| !block.with.contains(OURS)) {
            self.record(target, Block { with: OURS.into(), ..block });
        }
        Ok(())
    }
}

fn family_of(job: &Job) -> Family {
    Family::of(job.target.addr())
}

fn was_refused(job: &Job) -> bool {
    job.failures.iter().any(is_refusal)
}

/// 1 and 2 are what the programs say where there is no chain or no set; 4, that the lock is another's.
fn is_refusal((response, failure): &(Response, Failure)) -> bool {
    *response == OURS && matches!(failure.fault, Fault::Exit(1 | 2))
}
