//! What becomes of a request: the whole judgement in one place, as actions that `service` carries out. Pure; helper.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::authorise::{Authority, Standing};
use super::clock::Now;
use super::escalation::{Block, Escalation};
use super::record::Record;
use crate::detect::probe::Protocol;
use crate::protocol::{Datagrams, Outcome, Page, Reply, Request, Responses};

/// A block that was granted and that the kernel does not have yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The request's number.
    pub id: u64,
    /// What to block.
    pub target: IpNet,
    /// From when, until when, for which offence.
    pub block: Block,
    /// The port that was probed, 0 where an operator asked.
    pub port: u16,
    /// Its transport.
    pub protocol: Protocol,
    /// The tripwire had shut the source out before.
    pub tripped: bool,
    /// KILL_RUN_CMD and nothing else.
    pub run_only: bool,
}

/// What is on its way while a request is judged.
pub struct Underway<'a> {
    /// How many grants the kernel does not have yet.
    pub granted: usize,
    /// Whether a block on record is being lifted, and what of it shut somebody out at once is gone.
    pub is_ending: &'a dyn Fn(&IpNet, &Block) -> bool,
}

/// What is to be done about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing but this reply.
    Answer(Reply),
    /// Give a sign of life.
    Pong {
        /// The request's number.
        id: u64,
    },
    /// Block it; grants that follow each other go to the kernel together.
    Block(Grant),
    /// Lift one block.
    Unblock {
        /// The request's number.
        id: u64,
        /// What was blocked.
        target: IpNet,
    },
    /// Stream a page of the list.
    List {
        /// The request's number.
        id: u64,
        /// What the page before ended with.
        after: Option<IpNet>,
    },
    /// Lift every block.
    Flush {
        /// The request's number.
        id: u64,
    },
    /// The never-block set has grown: tell the kernel, and lift what it now covers.
    Protect {
        /// The request's number.
        id: u64,
    },
    /// Put traps of the tripwire's in the place of others.
    Traps {
        /// The request's number.
        id: u64,
        /// Whether they are UDP's.
        datagrams: Datagrams,
        /// The ports.
        page: Page,
    },
    /// Have the tripwire leave an address alone.
    Spare {
        /// The request's number.
        id: u64,
        /// Whom.
        address: IpAddr,
    },
    /// End.
    Stop {
        /// The request's number.
        id: u64,
    },
}

/// All that the helper knows.
pub struct Core {
    /// Who may not be blocked, and how much may be asked.
    pub authority: Authority,
    /// What is blocked, and who has offended.
    pub escalation: Escalation,
}

/// What a ledger held that is not in force any more.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Leftovers {
    /// How many blocks were dropped because their target is now in the never-block set.
    pub dropped: usize,
    /// How many blocks ended because there are more than MAX_BLOCKS.
    pub let_go: usize,
    /// What ended while nobody was there to take it back, or just now.
    pub ended: Vec<(IpNet, Block)>,
    /// What began later than the clock says now: the clock stands behind, as after a start without a battery.
    pub ahead: BTreeSet<IpNet>,
}

impl Core {
    /// Judges `request`.
    pub fn decide(&mut self, request: &Request, underway: &Underway<'_>, now: Now) -> Action {
        let id = request.id();
        let decided = match *request {
            Request::Block { target, seconds, port, protocol, verified, run_only, .. } => {
                let asked = Grant {
                    id,
                    target,
                    block: self.escalation.sentence(&target, seconds, now.utc),
                    port,
                    protocol,
                    tripped: false,
                    run_only,
                };
                let standing = if verified { Standing::Proved } else { Standing::Claimed };
                return self.decide_block(asked, (seconds, standing), underway, now);
            }
            // None of them costs more than its frames, which the sensor must take; and an end must never be refused.
            Request::Ping { .. } => return Action::Pong { id },
            Request::Stop { .. } => return Action::Stop { id },
            Request::List { after: after @ Some(_), .. } => return Action::List { id, after },
            Request::Protect { network, .. } => {
                self.authority.protect(network).map(|()| Action::Protect { id })
            }
            Request::Traps { datagrams, page, .. } => self.permit(Action::Traps { id, datagrams, page }, now),
            Request::Spare { address, .. } => self.permit(Action::Spare { id, address }, now),
            Request::Unblock { target, .. } => self.permit(Action::Unblock { id, target }, now),
            Request::List { after, .. } => self.permit(Action::List { id, after }, now),
            Request::Flush { .. } => self.permit(Action::Flush { id }, now),
        };
        decided.unwrap_or_else(|outcome| Action::Answer(done(id, outcome)))
    }

    fn permit(&mut self, action: Action, now: Now) -> Result<Action, Outcome> {
        self.authority.permit(now.uptime).map(|()| action)
    }

    fn decide_block(
        &mut self,
        asked: Grant,
        (seconds, standing): (u32, Standing),
        underway: &Underway<'_>,
        now: Now,
    ) -> Action {
        let Grant { id, target, run_only, .. } = asked;
        if let Err(outcome) = self.authority.check_target(&target) {
            return Action::Answer(done(id, outcome));
        }
        // An operator's own length is always granted: it renews the same block, or outlasts a wider one. What only ran
        // a command shuts nobody out, nor will what is being lifted: a new block waits for the end of that.
        let mut current = self.escalation.covering(&target, now.utc).filter(|_| seconds == 0);
        let holds = |(target, block): &(IpNet, Block)| {
            (run_only || !block.is_run_only()) && !(underway.is_ending)(target, block)
        };
        if let Some((_, block)) = current.find(holds) {
            return Action::Answer(in_force(id, Outcome::AlreadyBlocked, block, now.utc, 0, false));
        }
        match self.authority.grant(self.escalation.len() + underway.granted, standing, now.uptime) {
            Ok(()) => Action::Block(asked),
            Err(outcome) => Action::Answer(done(id, outcome)),
        }
    }

    /// Takes over what a ledger held. A block lasts no longer than it was granted for, wherever the clock stands now;
    /// what may no longer be blocked is dropped, and of more than MAX_BLOCKS those that end first are over now. What was
    /// lifted (offence 0) is over wherever the clock stands: only what is left to take back of it came here.
    pub fn restore(&mut self, entries: BTreeMap<IpNet, Block>, now: Now) -> Leftovers {
        let mut left = Leftovers::default();
        let in_force = entries.into_iter().filter_map(|(target, mut block)| {
            block.until = block.until.min(now.utc.saturating_add(block.until.saturating_sub(block.since)));
            let ahead = block.since > now.utc;
            block.since = block.since.min(now.utc);
            let may_be = self.authority.check_target(&target).is_ok();
            if may_be && block.offence > 0 && block.until > now.utc {
                left.ahead.extend(ahead.then_some(target));
                return Some((target, block));
            }
            self.escalation.remember(target, block, now.utc);
            if !may_be {
                left.dropped += 1;
                self.escalation.lift(&target, now.utc);
            }
            left.ended.push((target, block));
            None
        });
        let mut in_force: Record = in_force.collect();
        for (target, block) in in_force.keep_last(self.authority.max_blocks()) {
            self.escalation.remember(target, block, now.utc);
            left.let_go += 1;
            left.ended.push((target, Block { until: now.utc, ..block }));
        }
        self.escalation.enter_all(in_force);
        left.ended.retain(|(_, block)| !block.to_end().is_empty());
        left
    }
}

/// The reply about something that is not in force.
pub fn done(id: u64, outcome: Outcome) -> Reply {
    Reply::Done { id, outcome, seconds: 0, offence: 0, micros: 0, with: Responses::NONE, tripped: false }
}

/// The reply about a block in force at `now`.
pub fn in_force(id: u64, outcome: Outcome, block: Block, now: u64, micros: u32, tripped: bool) -> Reply {
    let seconds = u32::try_from(block.left(now).div_ceil(1000)).unwrap_or(u32::MAX);
    Reply::Done { id, outcome, seconds, offence: block.offence, micros, with: block.with, tripped }
}

#[cfg(test)]
mod tests;
