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
use crate::protocol::{Fault, Response};

/// A response whose traces are to be removed by hand, and how.
#[derive(Clone, Copy)]
struct Kept {
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

/// As many are named in the log, be there a million.
const NAMED: usize = 32;

/// What stays, of whose blocks.
pub(super) struct Stray {
    kept: Kept,
    /// The first of them.
    named: Vec<IpNet>,
    count: usize,
}

impl Stray {
    fn of(kept: Kept, targets: &BTreeSet<IpNet>) -> Option<Stray> {
        let named = targets.iter().take(NAMED).copied().collect();
        (!targets.is_empty()).then_some(Stray { kept, named, count: targets.len() })
    }

    fn long(&self) -> String {
        let mut names: Vec<String> = self.named.iter().map(IpNet::to_string).collect();
        let more = self.count.saturating_sub(self.named.len());
        names.extend((more > 0).then(|| format!("{more} more")));
        format!("{} blocks of an earlier configuration ({}) {}", self.count, names.join(", "), self.kept.long)
    }

    fn short(&self) -> String {
        let [before, after] = self.kept.short;
        format!("{before}{} blocks {after}", self.count)
    }
}

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
        Stray::of(UNFOUND, &targets)
    }

    fn stray(&mut self, kept: Kept, ended: &[(IpNet, Block)]) -> Option<Stray> {
        let on_record = self.core.escalation.entries().chain(ended.iter().copied());
        let has = on_record.filter(|(_, block)| block.to_end().contains(kept.response));
        let targets: BTreeSet<IpNet> = has.map(|(target, _)| target).collect();
        targets.iter().for_each(|target| self.taken_back(*target, kept.response));
        Stray::of(kept, &targets)
    }

    pub(super) fn tell_others(&mut self, strays: &[Stray]) {
        for stray in strays {
            log(&stray.long());
            let failure = Failure { fault: Fault::Errno(stray.kept.errno), text: stray.short() };
            self.tell_left_behind((stray.kept.response, failure));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::reply::NOTE_BYTES;

    #[test]
    fn the_log_names_whose_traces_stay_and_an_event_has_room_for_how_many() {
        let targets: BTreeSet<IpNet> = (0..40u32)
            .map(|host| IpNet::from(std::net::IpAddr::from((0xc633_6400 + host).to_be_bytes())))
            .collect();
        assert!(Stray::of(UNFOUND, &BTreeSet::new()).is_none());
        let all = Stray::of(UNFOUND, &targets).unwrap().long();
        assert!(
            all.starts_with("40 blocks of an earlier configuration (198.51.100.0/32, 198.51.100.1/32, "),
            "{all}"
        );
        assert!(all.contains(", 198.51.100.31/32, 8 more) had no line"), "{all}");
        let two = Stray::of(UNFOUND, &targets.into_iter().take(2).collect()).unwrap().long();
        assert!(two.contains("(198.51.100.0/32, 198.51.100.1/32) had no line"), "{two}");
        for kept in KEPT.into_iter().chain([UNFOUND]) {
            let million = Stray { kept, named: Vec::new(), count: 1_000_000 };
            assert!(million.short().len() <= 2 * NOTE_BYTES, "{}", million.short());
        }
    }
}
