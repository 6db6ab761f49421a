//! What an earlier configuration has left in force: taken away at the start, or told of where that takes rights that this
//! one does without, or where it cannot be found any more. Helper.
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

/// A response whose traces are to be removed by hand, and how.
#[derive(Clone, Copy)]
pub(super) struct Kept {
    response: Response,
    /// Why nobody else does.
    errno: i32,
    /// For an event, as much as two notes hold: what stays of a number of blocks, and what to do.
    short: [&'static str; 2],
    /// For the log.
    long: &'static str,
}

/// Those that this configuration may not have the rights for.
const KEPT: [Kept; 3] = [
    Kept {
        response: Response::Iptables,
        errno: libc::EPERM,
        short: ["", "stay in iptables, unlisted in BLOCK_WITH: flush and delete the chain PORTSENTRY"],
        long: "stay in iptables, which BLOCK_WITH no longer names, and no unblock lifts them there: \
               iptables -D INPUT -j PORTSENTRY; iptables -F PORTSENTRY; iptables -X PORTSENTRY; likewise with \
               ip6tables; then ipset destroy portsentry4 and portsentry6, if there are such",
    },
    Kept {
        response: Response::HostsDeny,
        errno: libc::EPERM,
        short: ["", "stay in hosts_deny, unlisted in BLOCK_WITH: delete its lines"],
        long: "stay in hosts_deny, which BLOCK_WITH no longer names, and no unblock lifts them there: \
               delete their lines from that file",
    },
    Kept {
        response: Response::Command,
        errno: libc::EPERM,
        short: ["what KILL_ROUTE did for ", "stays: take it back by hand"],
        long: "were made by KILL_ROUTE, which is set no longer: what it did stays, and no unblock takes it back \
               (UNBLOCK_CMD is run for them only beside KILL_ROUTE or KILL_RUN_CMD): take it back by hand",
    },
];

/// A line is found again by how it is made now; of what it was made before nothing is on record.
const UNFOUND: Kept = Kept {
    response: Response::HostsDeny,
    errno: libc::ENODATA,
    short: ["", "had no line in the form of now: if any stand in an older one, delete them"],
    long: "had no line in hosts.deny as KILL_HOSTS_DENY makes it now: if that was changed, or HOSTS_DENY_FILE, or the mode \
           that $MODE$ tells, their lines in the form or the file of before stay there, and no unblock takes them out: \
           delete them; lines that somebody has taken out left nothing",
};

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

    /// Who has a line by the record, of which this form of it did not stand there.
    pub(super) fn unfound<'a>(
        &self,
        on_record: impl Iterator<Item = &'a (IpNet, Block)>,
        stood: &BTreeSet<IpNet>,
    ) -> Option<Stray> {
        let looks = self.steps.installed().contains(UNFOUND.response);
        let had_a_line = on_record.filter(|(_, block)| looks && block.with.contains(UNFOUND.response));
        let targets: BTreeSet<IpNet> =
            had_a_line.map(|(target, _)| *target).filter(|target| !stood.contains(target)).collect();
        targets.first().map(|first| (UNFOUND, *first, targets.len()))
    }

    fn stray(&mut self, kept: Kept, ended: &[(IpNet, Block)]) -> Option<Stray> {
        let on_record = self.core.escalation.entries().chain(ended.iter().copied());
        let has = on_record.filter(|(_, block)| block.to_end().contains(kept.response));
        let targets: BTreeSet<IpNet> = has.map(|(target, _)| target).collect();
        targets.iter().for_each(|target| self.taken_back(*target, Responses::NONE.and(kept.response)));
        targets.first().map(|first| (kept, *first, targets.len()))
    }

    pub(super) fn tell_others(&mut self, strays: &[Stray]) {
        for (Kept { response, errno, short: [before, after], long }, first, count) in strays {
            log(&format!("{count} blocks of an earlier configuration, {first} first, {long}"));
            let text = format!("{before}{count} blocks {after}");
            self.tell_left_behind((*response, Failure { fault: Fault::Errno(*errno), text }));
        }
    }
}
