//! Carries out what `decide` decided: kernel first, then the record, the reply, the ledger. Helper.
//!
//! A reply says what really happened. Nothing here waits for the sensor.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ipnet::IpNet;

use super::authorise::Authority;
use super::clock::{Clock, Now};
use super::decide::{Action, Core, Grant, done, in_force};
use super::error::{HelperError, log};
use super::escalation::{Block, Escalation, Terms};
use super::ledger::{Ledger, Loaded};
use super::respond::{Refusal, Respond, Timed};
use crate::protocol::channel::FrameWriter;
use crate::protocol::{Outcome, Reply, Request, Settings};

/// Replies that may wait for a slow sensor.
const REPLIES: usize = 128;
/// Lifted at once, more than this are not noted one by one: the ledger is written anew.
const MANY: usize = 256;

/// The helper at work.
pub struct Service<R> {
    core: Core,
    responses: R,
    ledger: Ledger,
    clock: Clock,
    now: Now,
    flush_on_stop: bool,
    pending: Vec<Grant>,
    listing: Option<(u64, Option<IpNet>)>,
    stopped: bool,
    /// Where replies wait to be written.
    pub replies: FrameWriter,
}

impl<R: Respond> Service<R> {
    /// Puts the table and the unexpired blocks in place, and queues `Ready`, which also tells `landlock`, the interface
    /// in force.
    pub fn start(
        settings: Settings,
        responses: R,
        ledger: (Ledger, Loaded),
        landlock: u8,
    ) -> Result<Service<R>, HelperError> {
        let mut clock = Clock::start();
        let ((now, _), (ledger, loaded)) = (clock.read(), ledger);
        let mut service = Service {
            core: core(&settings, now),
            responses,
            ledger,
            clock,
            now,
            flush_on_stop: settings.flush_on_stop,
            pending: Vec::new(),
            listing: None,
            stopped: false,
            replies: FrameWriter::new(REPLIES),
        };
        service.core.authority.surround(service.responses.surroundings());
        report(&loaded);
        service.restore(loaded.entries, landlock)?;
        Ok(service)
    }

    fn restore(&mut self, entries: BTreeMap<IpNet, Block>, landlock: u8) -> Result<(), HelperError> {
        let dropped = self.core.restore(entries, self.now);
        if dropped > 0 {
            log(&format!("{dropped} entries of the ledger are now in the never-block set and were dropped"));
            self.ledger.renew();
        }
        self.install()?;
        self.commit();
        let restored = u32::try_from(self.core.escalation.len()).unwrap_or(u32::MAX);
        self.answer(Reply::Ready { restored, landlock });
        Ok(())
    }

    fn install(&mut self) -> Result<(), Refusal> {
        let (entries, now) = (self.core.escalation.entries(), self.now.utc);
        let blocks = entries.filter(|(_, block)| block.until > now);
        let blocks: Vec<Timed> = blocks.map(|(target, block)| timed(target, block, now)).collect();
        self.responses.install(self.core.authority.never(), &blocks)
    }

    /// Whether a request can be taken: its reply must find room, and replies must not overtake a list.
    pub fn is_free(&self) -> bool {
        self.listing.is_none() && !self.stopped && self.replies.room() > self.pending.len()
    }

    /// Whether the sensor asked for the end.
    pub fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// Carries out one request. Blocks are put off until [`finish`](Self::finish), to go to the kernel together.
    pub fn carry_out(&mut self, request: &Request) {
        if !joins(request, &self.pending) {
            self.finish();
        }
        match self.core.decide(request, self.pending.len(), self.now) {
            Action::Answer(reply) => self.answer(reply),
            Action::Block(grant) => self.pending.push(grant),
            Action::Unblock { id, target } => self.do_unblock(id, target),
            Action::List { id } => self.listing = Some((id, None)),
            Action::Flush { id } => self.do_flush(id),
            Action::Protect { id } => self.do_protect(id),
            Action::Stop { id } => self.do_stop(id),
        }
    }

    /// Gives the kernel the blocks that were granted, and answers for each as the kernel did.
    pub fn finish(&mut self) {
        let grants = std::mem::take(&mut self.pending);
        if grants.is_empty() {
            return;
        }
        let begun = Instant::now();
        let results = self.do_block(&grants);
        let micros = micros(begun.elapsed());
        let mut logged = false;
        for (at, grant) in grants.iter().enumerate() {
            match results.get(at) {
                Some(Ok(())) => self.blocked(grant, micros),
                Some(Err(refusal)) => {
                    // One line a batch: a sensor must not be able to fill the log.
                    if !std::mem::replace(&mut logged, true) {
                        log(&format!("{} was not blocked: {refusal}", grant.target));
                    }
                    self.answer(done(grant.id, Outcome::Failed(refusal.errno)));
                }
                None => self.answer(done(grant.id, Outcome::Failed(libc::EIO))),
            }
        }
    }

    fn blocked(&mut self, grant: &Grant, micros: u32) {
        self.core.escalation.enter(grant.target, grant.block);
        self.ledger.note(grant.target, grant.block);
        self.answer(in_force(grant.id, Outcome::Blocked, grant.block, self.now.utc, micros));
    }

    fn do_block(&mut self, grants: &[Grant]) -> Vec<Result<(), Refusal>> {
        let batch: Vec<Timed> = grants.iter().map(|it| timed(it.target, it.block, self.now.utc)).collect();
        let results = self.responses.block(&batch);
        match results.iter().any(|result| result.as_ref().is_err_and(|refusal| refusal.table_gone)) {
            true => self.block_in_a_new_table(&batch, results),
            false => results,
        }
    }

    /// Somebody's `nft flush ruleset` must not end the protection: everything is installed again.
    fn block_in_a_new_table(
        &mut self,
        batch: &[Timed],
        results: Vec<Result<(), Refusal>>,
    ) -> Vec<Result<(), Refusal>> {
        log("the firewall table was deleted by somebody and is installed again");
        match self.install() {
            Ok(()) => self.responses.block(batch),
            Err(refusal) => {
                log(&refusal.text);
                results
            }
        }
    }

    fn do_unblock(&mut self, id: u64, target: IpNet) {
        let begun = Instant::now();
        let outcome = match self.responses.unblock(&target) {
            // Blocked for the kernel, or at least on record: either way it is lifted now.
            Ok(was_blocked) if self.core.escalation.lift(&target) | was_blocked => {
                self.ledger.forget(target);
                Outcome::Lifted
            }
            Ok(_) => Outcome::NotBlocked,
            Err(refusal) => Outcome::Failed(refusal.errno),
        };
        self.answer(timed_reply(id, outcome, begun));
    }

    fn do_flush(&mut self, id: u64) {
        let begun = Instant::now();
        let outcome = match self.responses.flush() {
            Ok(()) if self.core.escalation.lift_all() > 0 => Outcome::Lifted,
            Ok(()) => Outcome::NotBlocked,
            Err(refusal) => Outcome::Failed(refusal.errno),
        };
        self.ledger.renew();
        self.answer(timed_reply(id, outcome, begun));
    }

    fn do_protect(&mut self, id: u64) {
        let begun = Instant::now();
        let outcome = match self.apply_never() {
            Ok(()) => Outcome::Lifted,
            Err(refusal) => Outcome::Failed(refusal.errno),
        };
        self.answer(timed_reply(id, outcome, begun));
    }

    /// Unlike an operator's flush this forgives nobody.
    fn do_stop(&mut self, id: u64) {
        let outcome = match self.flush_on_stop.then(|| self.responses.flush()) {
            None => Outcome::NotBlocked,
            Some(Err(refusal)) => Outcome::Failed(refusal.errno),
            Some(Ok(())) => {
                self.ledger.renew();
                match self.core.escalation.end_all(self.now.utc) {
                    0 => Outcome::NotBlocked,
                    _ => Outcome::Lifted,
                }
            }
        };
        self.stopped = true;
        self.answer(done(id, outcome));
    }

    /// Takes in that addresses or routes of the host changed.
    pub fn learn(&mut self) -> Result<(), HelperError> {
        if !self.responses.learn().map_err(HelperError::Surroundings)? {
            return Ok(());
        }
        let surroundings = self.responses.surroundings();
        match self.core.authority.surround(surroundings) {
            true => Ok(self.apply_never()?),
            false => Ok(()),
        }
    }

    fn apply_never(&mut self) -> Result<(), Refusal> {
        let applied = self.responses.set_never(self.core.authority.never());
        if applied.as_ref().is_err_and(|refusal| refusal.table_gone) {
            self.install()?;
        } else {
            applied?;
        }
        let covered = self.core.escalation.covered_by(self.core.authority.never());
        if let Some(first) = covered.first() {
            log(&format!(
                "{} blocks lifted, {first} first: they are now in the never-block set",
                covered.len()
            ));
        }
        self.lift(&covered);
        Ok(())
    }

    fn lift(&mut self, targets: &[IpNet]) {
        for target in targets {
            if let Err(refusal) = self.responses.unblock(target) {
                log(&refusal.text);
            }
            self.core.escalation.lift(target);
        }
        match targets.len() > MANY {
            true => self.ledger.renew(),
            false => targets.iter().for_each(|target| self.ledger.forget(*target)),
        }
    }

    /// Queues more of the list that was asked for, as much as there is room.
    pub fn list(&mut self) {
        while let Some((id, last)) = self.listing.filter(|_| self.replies.room() > 0) {
            match self.core.escalation.after(last, self.now.utc) {
                Some((target, block)) => {
                    self.answer(entry(id, target, block));
                    self.listing = Some((id, Some(target)));
                }
                None => {
                    self.answer(Reply::End { id });
                    self.listing = None;
                }
            }
        }
    }

    /// Reads the clock and lets go what has ended.
    pub fn tick(&mut self) {
        let (now, step) = self.clock.read();
        self.now = now;
        if step != 0 {
            log(&format!("the clock was set by {} seconds; blocks keep the time they had left", step / 1000));
            self.core.escalation.shift(step);
            self.ledger.renew();
        }
        if self.core.escalation.next_end().is_some_and(|end| end <= now.utc) {
            self.core.escalation.expire(now.utc);
        }
    }

    /// Milliseconds until the next block ends.
    pub fn next_end(&self) -> Option<u64> {
        self.core.escalation.next_end().map(|end| end.saturating_sub(self.now.utc))
    }

    /// Makes the ledger say what the record says. A full disk is reported and tried again later: the kernel has the
    /// blocks, only a restart would miss them.
    pub fn commit(&mut self) {
        let record = &self.core.escalation;
        if let Err(error) = self.ledger.commit(record.entries(), record.known(), self.now.uptime) {
            log(&format!("ledger: {error}"));
        }
    }

    /// The descriptor that tells of changed surroundings.
    pub fn watch(&self) -> std::os::fd::BorrowedFd<'_> {
        self.responses.watch()
    }

    /// Room was made sure of by [`is_free`](Self::is_free); were it not, the count of refusals ends the helper.
    fn answer(&mut self, reply: Reply) {
        let _ = self.replies.push(&reply.encode());
    }
}

fn core(settings: &Settings, now: Now) -> Core {
    let terms = Terms {
        first: u64::from(settings.block_time) * 1000,
        longest: u64::from(settings.block_time_max) * 1000,
        factor: settings.block_time_factor.into(),
    };
    Core {
        authority: Authority::new(settings.never_block.clone(), now.uptime),
        escalation: Escalation::new(terms),
    }
}

fn report(loaded: &Loaded) {
    if loaded.foreign > 0 {
        log(&format!("ledger: {} lines were not understood and are dropped", loaded.foreign));
    }
    if loaded.torn {
        log("ledger: the last line was cut off, as by a power failure, and is dropped");
    }
}

/// Whether `request` can go to the kernel in one batch with `pending`: it must not meet any of them.
fn joins(request: &Request, pending: &[Grant]) -> bool {
    match request {
        Request::Block { target, .. } => {
            !pending.iter().any(|it| it.target.contains(target) || target.contains(&it.target))
        }
        Request::Ping { .. } => true,
        Request::Unblock { .. }
        | Request::List { .. }
        | Request::Flush { .. }
        | Request::Protect { .. }
        | Request::Stop { .. } => false,
    }
}

fn timed(target: IpNet, block: Block, now: u64) -> Timed {
    (target, Some(Duration::from_millis(block.left(now))))
}

fn timed_reply(id: u64, outcome: Outcome, begun: Instant) -> Reply {
    Reply::Done { id, outcome, seconds: 0, offence: 0, micros: micros(begun.elapsed()) }
}

fn entry(id: u64, target: IpNet, block: Block) -> Reply {
    let (since, until) = (block.since / 1000, block.until.div_ceil(1000));
    Reply::Entry { id, target, since, until, offence: block.offence }
}

fn micros(span: Duration) -> u32 {
    u32::try_from(span.as_micros()).unwrap_or(u32::MAX)
}
