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
    /// For an event.
    short: &'static str,
    /// For the log.
    long: &'static str,
}

const KEPT: [Kept; 2] = [
    Kept {
        response: Response::Iptables,
        short: "flush and delete the chain PORTSENTRY",
        long: "iptables -D INPUT -j PORTSENTRY; iptables -F PORTSENTRY; iptables -X PORTSENTRY; likewise with \
               ip6tables; then ipset destroy portsentry4 and portsentry6, if there are such",
    },
    Kept {
        response: Response::HostsDeny,
        short: "delete its lines",
        long: "delete their lines from that file",
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
        let installed = self.steps.installed();
        let not_asked = KEPT.into_iter().filter(|kept| !installed.contains(kept.response));
        not_asked.filter_map(|kept| self.stray(kept, ended)).collect()
    }

    fn stray(&mut self, kept: Kept, ended: &[(IpNet, Block)]) -> Option<Stray> {
        let on_record = self.core.escalation.entries().chain(ended.iter().copied());
        let has = on_record.filter(|(_, block)| block.with.contains(kept.response));
        let targets: BTreeSet<IpNet> = has.map(|(target, _)| target).collect();
        targets.iter().for_each(|target| self.taken_back(*target, Responses::NONE.and(kept.response)));
        targets.first().map(|first| (kept, *first, targets.len()))
    }

    pub(super) fn tell_others(&mut self, strays: &[Stray]) {
        for (Kept { response, short, long }, first, count) in strays {
            let name = response.name();
            log(&format!(
                "{count} blocks of an earlier configuration, {first} first, stay in {name}, which BLOCK_WITH no longer \
                 names, and no unblock lifts them there: {long}"
            ));
            // As much as two notes hold.
            let text = format!("{count} blocks stay in {name}, unlisted in BLOCK_WITH: {short}");
            self.tell_remains(*first, &[(*response, Failure { fault: Fault::Errno(libc::EPERM), text })]);
        }
    }
}
