//! The start: what the ledger and BLOCKED_FILE know is put in place before `Ready` is said. Helper.
//!
//! What may not be blocked any more is dropped and told; what ended meanwhile is taken back.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, VecDeque};

use ipnet::IpNet;

use super::others::Stray;
use super::{Opened, REPLIES, Service, timed};
use crate::helper::authorise::{Authority, Standing};
use crate::helper::blocked_file;
use crate::helper::clock::{Clock, Now};
use crate::helper::decide::{Core, Leftovers};
use crate::helper::error::{HelperError, log};
use crate::helper::escalation::{Block, Escalation, Terms};
use crate::helper::jobs::{Job, Jobs, Purpose};
use crate::helper::ledger::Loaded;
use crate::helper::respond::{Respond, Timed};
use crate::helper::steps::Step;
use crate::netlink::Retry;
use crate::protocol::channel::FrameWriter;
use crate::protocol::{Reply, Response, Responses, Settings};
use crate::repeats::Repeats;

impl<R: Respond> Service<R> {
    /// Puts everything and the unexpired blocks in place, and queues `Ready`.
    pub fn start(settings: Settings, opened: Opened<R>) -> Result<Service<R>, HelperError> {
        let mut clock = Clock::start();
        let (now, _) = clock.read();
        let (ledger, loaded) = opened.ledger;
        let (blocked_file, blocked) = opened.blocked_file.unzip();
        let mut service = Service {
            core: core(&settings, now),
            responses: opened.responses,
            at_once: at_once(&settings.block_with),
            steps: opened.steps,
            jobs: Jobs::default(),
            blocked_file,
            ledger,
            clock,
            now,
            flush_on_stop: settings.flush_on_stop,
            pending: Vec::new(),
            protecting: Vec::new(),
            listing: None,
            unasked: VecDeque::new(),
            stopped: false,
            overdue: Responses::NONE,
            never_retry: Retry::default(),
            looked: now.uptime,
            roused: false,
            said: Repeats::default(),
            replies: FrameWriter::new(REPLIES),
        };
        service.core.authority.surround(service.responses.surroundings());
        report(&loaded);
        service.restore(loaded.entries, blocked.unwrap_or_default(), opened.landlock)?;
        Ok(service)
    }

    fn restore(
        &mut self,
        entries: BTreeMap<IpNet, Block>,
        blocked: blocked_file::Loaded,
        landlock: u8,
    ) -> Result<(), HelperError> {
        let left = self.core.restore(entries, self.now);
        let losses = [
            (left.dropped, "entries of the ledger are now in the never-block set and were dropped"),
            (left.let_go, "blocks that would have ended first were let go: MAX_BLOCKS is lower than it was"),
        ];
        for (count, what) in losses.into_iter().filter(|(count, _)| *count > 0) {
            log(&format!("{count} {what}"));
            self.ledger.renew();
        }
        self.adopt(&blocked);
        // Before any response of an earlier configuration is struck off: who was shut out by that alone is shut out still.
        let in_force = self.in_force();
        let told_only = self.core.escalation.len().saturating_sub(in_force.len());
        let refused = self.install(&in_force)?;
        let mut others = self.leave_others(&left.ended);
        others.extend(self.install_steps(in_force, &left)?);
        self.remove_others();
        self.let_go(&refused);
        self.commit();
        let restored = self.core.escalation.len().saturating_sub(told_only);
        let restored = u32::try_from(restored).unwrap_or(u32::MAX);
        let tripwire = self.responses.has_tripwire();
        self.answer(Reply::Ready { restored, landlock, tripwire });
        self.tell_others(&others);
        Ok(())
    }

    /// Takes over from BLOCKED_FILE whom the ledger does not know: PortSentry's own blocks, after the change to us.
    fn adopt(&mut self, blocked: &blocked_file::Loaded) {
        if blocked.damaged {
            log("BLOCKED_FILE: what is no whole record is dropped, and the file written anew");
        }
        for target in blocked.addresses.iter().map(|&address| IpNet::from(address)) {
            let is_new =
                !self.core.escalation.knows(&target) && self.core.authority.check_target(&target).is_ok();
            if is_new && self.core.authority.has_room(self.core.escalation.len(), Standing::Claimed) {
                let block = self.core.escalation.sentence(&target, 0, self.now.utc);
                self.core.escalation.enter(target, block);
                self.note(target);
            }
        }
        self.rewrite_blocked_file();
    }

    /// The files and programs' part of the start: what ended while nobody was there is taken back, what is in force put
    /// in place, commands run again where the machine was started since. None of them runs before `Ready` is queued: what
    /// they have to say comes after it. Returns whose lines of hosts.deny were not found.
    fn install_steps(
        &mut self,
        in_force: Vec<(IpNet, Block)>,
        left: &Leftovers,
    ) -> Result<Option<Stray>, HelperError> {
        let had_a_line = |(_, block): &&(IpNet, Block)| block.with.contains(Response::HostsDeny);
        let gone: Vec<IpNet> = left.ended.iter().filter(had_a_line).map(|(target, _)| *target).collect();
        let stood = self.steps.install(&timed_all(&in_force, self.now.utc), &gone)?;
        let unfound = self.unfound(in_force.iter().chain(&left.ended), &stood);
        left.ended.iter().for_each(|(target, _)| self.note(*target));
        self.undo(&left.ended, Responses::NONE);
        let boot = self.clock.boot();
        let everywhere = self.steps.installed();
        for (target, block) in in_force {
            // A line that stood there before we did anything is ours only if the record says so.
            let installed = match stood.contains(&target) {
                true => everywhere.without(Response::HostsDeny),
                false => everywhere,
            };
            let renew = self.steps.must_renew(&block, boot, left.ahead.contains(&target));
            // What is left of an earlier one is not undone by running it again.
            if renew && block.with.contains(Response::Command) {
                self.taken_back(target, Response::Command);
            }
            if !installed.without(block.with).is_empty() {
                self.record(target, Block { with: installed, ..block });
            }
            if renew {
                let steps = [Step::Do(Response::Command)].into();
                self.jobs.push(Job::new(Purpose::Renew, target, steps));
            }
        }
        Ok(unfound)
    }
}

fn core(settings: &Settings, now: Now) -> Core {
    let terms = Terms {
        first: u64::from(settings.block_time) * 1000,
        longest: u64::from(settings.block_time_max) * 1000,
        factor: settings.block_time_factor.into(),
    };
    Core {
        authority: Authority::new(settings.never_block.clone(), settings.max_blocks, now.uptime),
        escalation: Escalation::new(terms),
    }
}

/// Those of them that the kernel brings about at once.
pub(super) fn at_once(responses: &[Response]) -> Responses {
    responses.iter().copied().filter(|response| response.is_at_once()).collect()
}

pub(super) fn timed_all(blocks: &[(IpNet, Block)], now: u64) -> Vec<Timed> {
    blocks.iter().map(|(target, block)| timed(*target, *block, now)).collect()
}

fn report(loaded: &Loaded) {
    if loaded.foreign > 0 {
        log(&format!("ledger: {} lines were not understood and are dropped", loaded.foreign));
    }
    if loaded.torn {
        log("ledger: the last line was cut off, as by a power failure, and is dropped");
    }
}
