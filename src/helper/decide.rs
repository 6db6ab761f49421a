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

/// What is to be done about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing but this reply.
    Answer(Reply),
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
    /// Judges `request`; `pending` grants are on their way to the kernel.
    pub fn decide(&mut self, request: &Request, pending: usize, now: Now) -> Action {
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
                return self.decide_block(asked, (seconds, standing), pending, now);
            }
            // None of them costs more than its frames, which the sensor must take; and an end must never be refused.
            Request::Ping { .. } => return Action::Answer(Reply::Pong { id }),
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
        pending: usize,
        now: Now,
    ) -> Action {
        let Grant { id, target, run_only, .. } = asked;
        if let Err(outcome) = self.authority.check_target(&target) {
            return Action::Answer(done(id, outcome));
        }
        // An operator's own length is always granted: it renews the same block, or outlasts a wider one. What only ran
        // a command shuts nobody out.
        let current = self.escalation.covering(&target, now.utc).filter(|_| seconds == 0);
        if let Some(block) = current.filter(|block| run_only || !block.is_run_only()) {
            return Action::Answer(in_force(id, Outcome::AlreadyBlocked, block, now.utc, 0, block.with));
        }
        match self.authority.grant(self.escalation.len() + pending, standing, now.uptime) {
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
        left.ended.retain(|(_, block)| !block.with.is_empty());
        left
    }
}

/// The reply about something that is not in force.
pub fn done(id: u64, outcome: Outcome) -> Reply {
    Reply::Done { id, outcome, seconds: 0, offence: 0, micros: 0, with: Responses::NONE, tripped: false }
}

/// The reply about a block in force at `now`.
pub fn in_force(id: u64, outcome: Outcome, block: Block, now: u64, micros: u32, with: Responses) -> Reply {
    let seconds = u32::try_from(block.left(now).div_ceil(1000)).unwrap_or(u32::MAX);
    Reply::Done { id, outcome, seconds, offence: block.offence, micros, with, tripped: false }
}

#[cfg(test)]
mod tests {
    use super::super::escalation::Terms;
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn core() -> Core {
        let terms = Terms { first: 60_000, longest: 600_000, factor: 2 };
        let authority = Authority::new(vec![net("10.0.0.0/8")], 32_768, 0);
        Core { authority, escalation: Escalation::new(terms) }
    }

    fn at(seconds: u64) -> Now {
        Now { utc: 1_000_000 + seconds * 1000, uptime: seconds * 1000 }
    }

    fn ask(target: &str, seconds: u32) -> Request {
        let (target, protocol) = (net(target), Protocol::Tcp);
        Request::Block { id: 1, target, seconds, port: 22, protocol, verified: true, run_only: false }
    }

    /// Decides and, like the kernel that takes everything, enters what was granted.
    fn block(core: &mut Core, target: &str, seconds: u32, now: Now) -> Result<Grant, Outcome> {
        match core.decide(&ask(target, seconds), 0, now) {
            Action::Block(grant) => {
                core.escalation.enter(grant.target, grant.block);
                Ok(grant)
            }
            Action::Answer(Reply::Done { outcome, .. }) => Err(outcome),
            other @ (Action::Answer(_)
            | Action::Unblock { .. }
            | Action::List { .. }
            | Action::Flush { .. }
            | Action::Protect { .. }
            | Action::Traps { .. }
            | Action::Spare { .. }
            | Action::Stop { .. }) => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_source_is_blocked_once_and_a_repeat_is_told_what_is_left() {
        let mut core = core();
        let grant = block(&mut core, "192.0.2.1/32", 0, at(0)).unwrap();
        assert_eq!(grant.block.until - grant.block.since, 60_000);
        let again = core.decide(&ask("192.0.2.1/32", 0), 0, at(20));
        let reply = Reply::Done {
            id: 1,
            outcome: Outcome::AlreadyBlocked,
            seconds: 40,
            offence: 1,
            micros: 0,
            with: Responses::NONE,
            tripped: false,
        };
        assert_eq!(again, Action::Answer(reply));
        assert_eq!(block(&mut core, "192.0.2.1/32", 0, at(60)).unwrap().block.offence, 2);
    }

    #[test]
    fn an_operator_renews_a_block_and_outlasts_a_wider_one() {
        let mut core = core();
        block(&mut core, "2001:db8::/64", 0, at(0)).unwrap();
        assert_eq!(block(&mut core, "2001:db8::/64", 5, at(1)).unwrap().block.until, at(6).utc);
        assert_eq!(block(&mut core, "2001:db8::1/128", 0, at(2)), Err(Outcome::AlreadyBlocked));
        assert_eq!(block(&mut core, "2001:db8::1/128", 900, at(2)).unwrap().block.until, at(902).utc);
    }

    #[test]
    fn the_never_block_set_holds_whatever_the_sensor_claims() {
        let mut core = core();
        for target in ["10.0.0.1/32", "127.0.0.1/32", "0.0.0.0/0", "::/0"] {
            assert_eq!(block(&mut core, target, 3600, at(0)), Err(Outcome::RefusedNeverBlock));
        }
        let protect = Request::Protect { id: 1, network: net("192.0.2.0/24") };
        assert_eq!(core.decide(&protect, 0, at(0)), Action::Protect { id: 1 });
        assert_eq!(block(&mut core, "192.0.2.9/32", 0, at(0)), Err(Outcome::RefusedNeverBlock));
    }

    #[test]
    fn a_flood_of_blocks_leaves_the_operator_a_way_in() {
        let mut core = core();
        let refused = (0..100_000u32).filter(|at_number| {
            let target = IpNet::from(std::net::IpAddr::from((0xc000_0000 + at_number).to_be_bytes()));
            block(&mut core, &target.to_string(), 0, at(0)) == Err(Outcome::RefusedRate)
        });
        assert!(refused.count() > 90_000);
        let list = Request::List { id: 2, after: None };
        assert_eq!(core.decide(&list, 0, at(0)), Action::List { id: 2, after: None });
        assert_eq!(core.decide(&Request::Flush { id: 3 }, 0, at(0)), Action::Flush { id: 3 });
    }

    #[test]
    fn a_restored_block_never_outlasts_its_grant() {
        let granted = Block { since: at(0).utc, until: at(60).utc, offence: 3, with: Responses::NONE };
        let entries = BTreeMap::from([(net("192.0.2.1/32"), granted), (net("10.1.1.1/32"), granted)]);
        let left = |now: Now| {
            let mut core = core();
            assert_eq!(core.restore(entries.clone(), now).dropped, 1);
            core.escalation.after(None, now.utc).map(|(_, block)| block.left(now.utc))
        };
        assert_eq!(left(at(20)), Some(40_000));
        assert_eq!(left(Now { utc: 5, uptime: 0 }), Some(60_000));
        assert_eq!(left(at(61)), None);
    }

    #[test]
    fn of_more_restored_blocks_than_there_may_be_those_that_end_first_are_over() {
        let mut core = core();
        core.authority = Authority::new(Vec::new(), 2, 0);
        let with = Responses::NONE.and(crate::protocol::Response::HostsDeny);
        let granted = |end: u64| Block { since: at(0).utc, until: at(end).utc, offence: 1, with };
        let ends = [("192.0.2.1/32", 90), ("192.0.2.2/32", 60), ("192.0.2.3/32", 80), ("192.0.2.4/32", 70)];
        let left = core.restore(ends.map(|(target, end)| (net(target), granted(end))).into(), at(20));
        let over = |target: &str| (net(target), granted(20));
        let ended = vec![over("192.0.2.2/32"), over("192.0.2.4/32")];
        assert_eq!(left, Leftovers { dropped: 0, let_go: 2, ended, ahead: BTreeSet::new() });
        assert_eq!((core.escalation.len(), core.escalation.known()), (2, 4));
        assert!(core.escalation.get(&net("192.0.2.1/32")).is_some_and(|block| block.until == at(90).utc));
        assert!(
            core.escalation.entries().skip(2).all(|(_, past)| past.until == at(20).utc && past.with == with)
        );
    }

    #[test]
    fn what_was_lifted_and_is_still_to_be_taken_back_is_in_force_on_no_clock() {
        let with = Responses::NONE.and(crate::protocol::Response::Command);
        let (target, lifted) =
            (net("192.0.2.1/32"), Block { since: at(0).utc, until: at(60).utc, offence: 0, with });
        for now in [at(20), at(61), Now { utc: 5, uptime: 0 }] {
            let mut core = core();
            let left = core.restore(BTreeMap::from([(target, lifted)]), now);
            assert!(left.ended.iter().map(|(target, _)| target).eq([&target]) && left.ahead.is_empty());
            assert!(core.escalation.is_empty() && core.escalation.remains(&target) == with);
        }
    }

    #[test]
    fn a_restored_offender_is_remembered() {
        let mut core = core();
        let past = Block { since: at(0).utc, until: at(60).utc, offence: 3, with: Responses::NONE };
        core.restore(BTreeMap::from([(net("192.0.2.1/32"), past)]), at(3600));
        assert_eq!(block(&mut core, "192.0.2.1/32", 0, at(3601)).unwrap().block.offence, 4);
    }
}
