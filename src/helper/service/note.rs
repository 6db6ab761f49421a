//! What the ledger says: what the record says, and what commands under way may have done, which nobody knows before they
//! end. Helper.
//!
//! Every line goes through here, one that is appended and each of a file that is written anew: whoever ends us leaves to
//! the next start all that is to be taken back.
#![forbid(unsafe_code)]

use ipnet::IpNet;

use super::Service;
use crate::helper::error::log;
use crate::helper::escalation::{Block, Escalation};
use crate::helper::jobs::Jobs;
use crate::helper::ledger::Written;
use crate::helper::respond::Respond;
use crate::protocol::Response;

/// What is remembered of a ledger that cannot be written begins with this.
const LEDGER: &str = "ledger ";

impl<R: Respond> Service<R> {
    /// The ledger says of `target` what is true of it now.
    pub(super) fn note(&mut self, target: IpNet) {
        let known = self.core.escalation.known_of(&target);
        match word_of(&target, known, &self.jobs, self.now.utc) {
            Some(block) => self.ledger.note(target, block),
            None => self.ledger.forget(target),
        }
    }

    /// What outlasts this program is kept before its job is done. A line is in force; what a command that runs has done
    /// nobody knows, so the ledger alone has it.
    pub(super) fn note_news(&mut self) {
        for (target, grant, news) in self.jobs.news() {
            if let Some(grant) = grant.filter(|_| news.contains(Response::HostsDeny)) {
                self.record(target, Block { with: Response::HostsDeny.into(), ..grant.block });
            }
            if news.contains(Response::Command) {
                self.note(target);
            }
        }
    }

    /// Makes the ledger, and BLOCKED_FILE where it could not be written, say what the record says. A full disk is
    /// reported and tried again later: the kernel has the blocks, only a restart would miss them.
    pub fn commit(&mut self) {
        if self.blocked_file.as_ref().is_some_and(|file| file.is_due(self.now.uptime)) {
            self.rewrite_blocked_file();
        }
        let (record, uptime) = (&self.core.escalation, self.now.uptime);
        match self.ledger.commit(lines(record, &self.jobs, self.now.utc), record.known(), uptime) {
            Ok(Written::AsEver) => {}
            Ok(Written::Again) => {
                log("ledger: it is written again, and whole");
                self.said.forget(LEDGER);
            }
            // Appended first, then written anew: one fault, in two texts.
            Err(error) => {
                let text =
                    format!("ledger: {error}; until it is written again a restart forgets what came since");
                self.say_one(&format!("{LEDGER}{:?}", error.errno()), &text);
            }
        }
    }
}

/// All that the ledger is to hold.
fn lines<'a>(record: &'a Escalation, jobs: &'a Jobs, now: u64) -> impl Iterator<Item = (IpNet, Block)> + 'a {
    let unknown = jobs.unsettled().filter(|target| record.known_of(target).is_none());
    let known = record.entries().map(|(target, block)| (target, Some(block)));
    let all = known.chain(unknown.map(|target| (target, None)));
    all.filter_map(move |(target, known)| Some((target, word_of(&target, known, jobs, now)?)))
}

/// From now on where its command is under way: that of a restored block is not to be run once more, unless the machine is
/// started again.
fn word_of(target: &IpNet, known: Option<Block>, jobs: &Jobs, now: u64) -> Option<Block> {
    if !jobs.is_unsettled(target) {
        return known;
    }
    let known = known.unwrap_or(Block::nothing(now));
    let (with, owed) = (known.with.and(Response::Command), known.owed.without(Response::Command));
    Some(Block { since: now.min(known.until), with, owed, ..known })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::detect::probe::Protocol;
    use crate::helper::decide::Grant;
    use crate::helper::escalation::Terms;
    use crate::helper::jobs::{Job, Purpose};
    use crate::helper::steps::tests::that_run;
    use crate::protocol::Responses;

    fn grant(target: IpNet, block: Block) -> Grant {
        Grant { id: 1, target, block, port: 0, protocol: Protocol::Tcp, tripped: false, run_only: false }
    }

    #[test]
    fn a_file_that_is_written_anew_has_what_commands_under_way_may_have_done() {
        let [blocked, known, unknown] =
            ["192.0.2.1/32", "192.0.2.2/32", "192.0.2.3/32"].map(|it| it.parse::<IpNet>().unwrap());
        let block = Block {
            since: 10,
            until: 90,
            offence: 2,
            with: Responses::from(Response::Nftables),
            owed: Responses::NONE,
        };
        let mut record = Escalation::new(Terms { first: 80, longest: 80, factor: 1 });
        record.enter(blocked, block);
        record.remember(known, Block { until: 20, ..block }, 20);
        let (mut jobs, mut steps) = (Jobs::default(), that_run("sleep 60 # $TARGET$", "true $TARGET$"));
        for target in [blocked, known, unknown] {
            jobs.push(Job::new(Purpose::Block(grant(target, block)), target, steps.to_block(false)));
        }
        let read = |jobs: &Jobs| lines(&record, jobs, 30).collect::<BTreeMap<IpNet, Block>>();
        assert_eq!(read(&jobs), record.entries().collect(), "none has begun");

        assert!(jobs.advance(&mut steps, &record, 30).is_empty());
        let with = Responses::from(Response::Command);
        let under_way = BTreeMap::from([
            (blocked, Block { since: 30, with: with.and(block.with), ..block }),
            (known, Block { since: 20, until: 20, with, ..block }),
            (unknown, Block { since: 30, until: 30, offence: 0, with, owed: Responses::NONE }),
        ]);
        assert_eq!(read(&jobs), under_way);
        // Given up, what they may have done is yet to be undone.
        jobs.abandon(|_| true);
        assert_eq!(read(&jobs), under_way);
        while !jobs.is_empty() {
            jobs.advance(&mut steps, &record, 30);
            assert_eq!(jobs.unsettled().next().is_none(), jobs.is_empty());
        }
        assert_eq!(read(&jobs), record.entries().collect());
    }
}
