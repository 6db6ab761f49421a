//! What an earlier configuration has left in force: taken away at the start, or told of where that takes rights that this
//! one does without. Helper.
//!
//! From then on nobody looks after it: the record does not claim it, for no unblock would lift it.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::Service;
use crate::helper::command::Failure;
use crate::helper::error::log;
use crate::helper::escalation::Block;
use crate::helper::respond::Respond;
use crate::protocol::{Fault, Response, Responses};

/// A response that this configuration may not have the rights for, and how its traces are removed by hand.
#[derive(Clone, Copy)]
pub(super) struct Kept {
    response: Response,
    /// For an event, as much as two notes hold: what stays of a number of blocks, and what to do.
    short: [&'static str; 2],
    /// For the log.
    long: &'static str,
}

const KEPT: [Kept; 3] = [
    Kept {
        response: Response::Iptables,
        short: ["", "stay in iptables, unlisted in BLOCK_WITH: flush and delete the chain PORTSENTRY"],
        long: "stay in iptables, which BLOCK_WITH no longer names, and no unblock lifts them there: \
               iptables -D INPUT -j PORTSENTRY; iptables -F PORTSENTRY; iptables -X PORTSENTRY; likewise with \
               ip6tables; then ipset destroy portsentry4 and portsentry6, if there are such",
    },
    Kept {
        response: Response::HostsDeny,
        short: ["", "stay in hosts_deny, unlisted in BLOCK_WITH: delete its lines"],
        long: "stay in hosts_deny, which BLOCK_WITH no longer names, and no unblock lifts them there: \
               delete their lines from that file",
    },
    Kept {
        response: Response::Command,
        short: ["what KILL_ROUTE did for ", "stays: take it back by hand"],
        long: "were made by KILL_ROUTE, which is set no longer: what it did stays, and no unblock takes it back \
               (UNBLOCK_CMD is run for them only beside KILL_ROUTE or KILL_RUN_CMD): take it back by hand",
    },
];

/// What stays, whose block is the first of them, and how many there are.
pub(super) type Stray = (Kept, IpNet, usize);

impl<R: Respond> Service<R> {
    /// The kernel's part, once what replaces it stands.
    pub(super) fn remove_others(&mut self) {
        self.responses.remove_others().iter().for_each(|refusal| log(&refusal.text));
    }

    /// Takes out of the record what has to stay.
    pub(super) fn leave_others(&mut self, ended: &[(IpNet, Block)]) -> Vec<Stray> {
        let looked_after = self.steps.looked_after();
        let left = KEPT.into_iter().filter(|kept| !looked_after.contains(kept.response));
        left.filter_map(|kept| self.stray(kept, ended)).collect()
    }

    fn stray(&mut self, kept: Kept, ended: &[(IpNet, Block)]) -> Option<Stray> {
        let on_record = self.core.escalation.entries().chain(ended.iter().copied());
        let has = on_record.filter(|(_, block)| block.to_end().contains(kept.response));
        let targets: BTreeSet<IpNet> = has.map(|(target, _)| target).collect();
        targets.iter().for_each(|target| self.taken_back(*target, Responses::NONE.and(kept.response)));
        targets.first().map(|first| (kept, *first, targets.len()))
    }

    pub(super) fn tell_others(&mut self, strays: &[Stray]) {
        for (Kept { response, short: [before, after], long }, first, count) in strays {
            log(&format!("{count} blocks of an earlier configuration, {first} first, {long}"));
            let text = format!("{before}{count} blocks {after}");
            self.tell_remains(*first, &[(*response, Failure { fault: Fault::Errno(libc::EPERM), text })]);
        }
    }
}
