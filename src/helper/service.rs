//! Carries out what `decide` decided: kernel first, then the record, the reply, the ledger. Helper.
//!
//! A reply says what really happened. Nothing here waits for the sensor.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ipnet::IpNet;

use super::authorise::{Authority, Standing};
use super::blocked_file::{self, BlockedFile};
use super::clock::{Clock, Now};
use super::command::Failure;
use super::decide::{Action, Core, Grant, RunOnly, done, in_force};
use super::error::{HelperError, log};
use super::escalation::{Block, Escalation, Terms};
use super::jobs::{Job, Jobs, Purpose, WAITING};
use super::ledger::{Ledger, Loaded};
use super::respond::{Effects, Knock, Refusal, Respond, Timed};
use super::steps::Steps;
use crate::detect::probe::Protocol;
use crate::protocol::channel::FrameWriter;
use crate::protocol::reply::NOTE_BYTES;
use crate::protocol::{
    Datagrams, Fault, LIST_PAGE, Note, Outcome, Page, Reply, Request, Response, Responses, Settings,
};

/// Frames that one request may be answered with: its notes and the last word.
const FRAMES: usize = 7;
/// Replies that may wait for a slow sensor: room for every job that waits, and for a batch.
const REPLIES: usize = FRAMES * (WAITING + 82);
/// Lifted at once, more than this are not noted one by one: the ledger is written anew.
const MANY: usize = 256;

/// What a [`Service`] is made of: everything is open, nothing changed yet.
pub struct Opened<R> {
    /// Kernel and surroundings.
    pub responses: R,
    /// Files and programs.
    pub steps: Steps,
    /// STATE_DIR.
    pub ledger: (Ledger, Loaded),
    /// BLOCKED_FILE.
    pub blocked_file: Option<(BlockedFile, blocked_file::Loaded)>,
    /// The Landlock interface in force, which `Ready` tells.
    pub landlock: u8,
}

/// How often the firewall is looked at while somebody is blocked, milliseconds.
const LOOK: u64 = 10_000;

/// A page of the list on its way.
#[derive(Clone, Copy)]
struct Listing {
    id: u64,
    after: Option<IpNet>,
    left: usize,
}

/// The helper at work.
pub struct Service<R> {
    core: Core,
    responses: R,
    /// Which of the responses `responses` is for.
    at_once: Responses,
    steps: Steps,
    jobs: Jobs,
    blocked_file: Option<BlockedFile>,
    ledger: Ledger,
    clock: Clock,
    now: Now,
    flush_on_stop: bool,
    pending: Vec<Grant>,
    listing: Option<Listing>,
    stopped: bool,
    /// When the firewall was last looked at, milliseconds of uptime.
    looked: u64,
    /// Where replies wait to be written.
    pub replies: FrameWriter,
}

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
            listing: None,
            stopped: false,
            looked: now.uptime,
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
        if left.dropped > 0 {
            let dropped = left.dropped;
            log(&format!("{dropped} entries of the ledger are now in the never-block set and were dropped"));
            self.ledger.renew();
        }
        self.adopt(&blocked);
        self.install()?;
        self.install_steps(&left.ended)?;
        self.commit();
        let restored = u32::try_from(self.core.escalation.len()).unwrap_or(u32::MAX);
        let tripwire = self.responses.has_tripwire();
        self.answer(Reply::Ready { restored, landlock, tripwire });
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
                self.ledger.note(target, block);
            }
        }
        self.rewrite_blocked_file();
    }

    /// The files and programs' part of the start: what ended while nobody was there is taken back, what is in force put
    /// in place, commands run again where the machine was started since.
    fn install_steps(&mut self, ended: &[(IpNet, Block)]) -> Result<(), HelperError> {
        let in_force = self.in_force();
        let gone: Vec<IpNet> = ended.iter().map(|(target, _)| *target).collect();
        self.steps.install(&timed_all(&in_force, self.now.utc), &gone)?;
        for (target, block) in ended {
            self.jobs.push(self.lift_job(*target, block.with, None));
            self.ledger.note(*target, Block { with: Responses::NONE, ..*block });
        }
        let boot = self.clock.boot();
        let installed = self.at_once.union(self.steps.installed());
        for (target, block) in in_force {
            if self.steps.must_renew(&block, boot) {
                self.jobs.push(Job::new(Purpose::Renew, target, self.steps.to_renew(&target)));
            }
            if block.with.union(installed) != block.with {
                self.record(target, Block { with: block.with.union(installed), ..block });
            }
        }
        self.advance();
        Ok(())
    }

    /// The blocks that shut somebody out.
    fn in_force(&self) -> Vec<(IpNet, Block)> {
        let now = self.now.utc;
        self.core
            .escalation
            .entries()
            .filter(|(_, block)| block.until > now && !block.is_run_only())
            .collect()
    }

    fn install(&mut self) -> Result<(), Refusal> {
        let blocks = timed_all(&self.in_force(), self.now.utc);
        self.responses.install(self.core.authority.never(), &blocks)
    }

    /// Whether a request can be taken: its reply must find room, and replies must not overtake a list.
    pub fn is_free(&self) -> bool {
        self.listing.is_none() && !self.stopped && self.has_room()
    }

    /// For what one more request is answered with, besides all that is due already.
    fn has_room(&self) -> bool {
        self.replies.room() > FRAMES * (self.pending.len() + self.jobs.answers_due() + 1)
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
            Action::List { id, after } => self.listing = Some(Listing { id, after, left: LIST_PAGE }),
            Action::Flush { id } => self.do_flush(id),
            Action::Protect { id } => self.do_protect(id),
            Action::Traps { id, datagrams, page } => self.do_traps(id, datagrams, page),
            Action::Spare { id, address } => self.do_spare(id, address),
            Action::Stop { id } => self.do_stop(id),
        }
    }

    /// Gives the kernel the blocks that were granted, and goes on with what is to be done besides.
    pub fn finish(&mut self) {
        let grants = std::mem::take(&mut self.pending);
        if grants.is_empty() {
            return;
        }
        let begun = Instant::now();
        let shut_out: Vec<Grant> = grants.iter().filter(|grant| !grant.run_only).copied().collect();
        let mut results = self.do_block(&shut_out).into_iter();
        let knocks: Vec<Knock> = grants.iter().map(knock).collect();
        let tripped = self.responses.tripped(&knocks);
        for (grant, tripped) in grants.into_iter().zip(tripped) {
            let effects =
                if grant.run_only { Effects::default() } else { results.next().unwrap_or_default() };
            self.begin(Grant { tripped, ..grant }, effects, begun);
        }
        self.advance();
    }

    /// What the kernel has is on record from now on, whatever becomes of the rest.
    fn begin(&mut self, grant: Grant, effects: Effects, begun: Instant) {
        let left = Duration::from_millis(grant.block.left(self.now.utc));
        let mut job = Job::new(Purpose::Block(grant), grant.target, self.steps.to_block(&grant, left));
        (job.with, job.begun) = (effects.with, begun);
        effects.refused.into_iter().for_each(|(response, refusal)| job.refuse(response, refusal));
        if effects.with.block() && !job.is_done() {
            self.record(grant.target, Block { with: grant.block.with.union(effects.with), ..grant.block });
        }
        self.jobs.push(job);
    }

    /// Goes on with every job that can, and says what became of those that are done.
    pub fn advance(&mut self) {
        let mut logged = false;
        for job in self.jobs.advance(&mut self.steps) {
            // One line a batch: a sensor must not be able to fill the log.
            if let Some((response, failure)) =
                job.failures.first().filter(|_| !std::mem::replace(&mut logged, true))
            {
                log(&format!("{}: {}: {}: {}", job.target, response.name(), failure.fault, failure.text));
            }
            match job.purpose {
                Purpose::Block(grant) => self.blocked(&grant, &job),
                Purpose::Lift(asked) => self.lifted(asked, &job),
                Purpose::Renew => self.renewed(&job),
                Purpose::Abandoned => {}
            }
        }
    }

    fn blocked(&mut self, grant: &Grant, job: &Job) {
        let holds = job.with.block() || grant.run_only && job.with.contains(Response::RunCommand);
        self.tell_failures(grant.id, &job.failures);
        let Some(block) = holds.then(|| Block { with: grant.block.with.union(job.with), ..grant.block })
        else {
            let errno = job.failures.first().map_or(libc::EIO, |(_, failure)| failure.fault.errno());
            return self.answer(done(grant.id, Outcome::Failed(errno)));
        };
        self.record(grant.target, block);
        let micros = micros(job.begun.elapsed());
        let reply = in_force(grant.id, Outcome::Blocked, block, self.now.utc, micros, job.with);
        self.answer(reply.after_a_trip(grant.tripped));
    }

    /// Kernel, file or command has it: now it is a block.
    fn record(&mut self, target: IpNet, block: Block) {
        let before = self.core.escalation.get(&target);
        self.core.escalation.enter(target, block);
        if before != Some(block) {
            self.ledger.note(target, block);
        }
        if let Some(file) = self.blocked_file.as_mut().filter(|_| before.is_none())
            && let Err(refusal) = file.add(target.addr())
        {
            log(&refusal.text);
        }
    }

    fn renewed(&mut self, job: &Job) {
        if let Some(block) = self.core.escalation.get(&job.target) {
            self.record(job.target, Block { with: block.with.union(job.with), ..block });
        }
    }

    /// Why responses failed, before the last word on the request.
    fn tell_failures(&mut self, id: u64, failures: &[(Response, Failure)]) {
        let pieces = |text: &str| text.chars().count().div_ceil(NOTE_BYTES).clamp(1, 2);
        let notes = failures.iter().flat_map(|(response, failure)| {
            (0..pieces(&failure.text)).map(|part| Note::new(*response, failure.fault, &failure.text, part))
        });
        notes.take(FRAMES - 1).for_each(|note| self.answer(Reply::Note { id, note }));
    }

    /// What a block that is over has left behind, unless replies are due that leave no room: the log has it in any case.
    fn tell_remains(&mut self, target: IpNet, failures: &[(Response, Failure)]) {
        if !failures.is_empty() && self.has_room() {
            self.tell_failures(0, failures);
            self.answer(Reply::Remains { target });
        }
    }

    fn tell_refusal(&mut self, target: IpNet, response: Response, refusal: Refusal) {
        log(&refusal.text);
        let failure = Failure { fault: Fault::Errno(refusal.errno), text: refusal.text };
        self.tell_remains(target, &[(response, failure)]);
    }

    fn do_block(&mut self, grants: &[Grant]) -> Vec<Effects> {
        let batch: Vec<Timed> = grants.iter().map(|it| timed(it.target, it.block, self.now.utc)).collect();
        let results = self.responses.block(&batch);
        match results.iter().any(Effects::table_gone) {
            true => self.block_in_a_new_table(&batch, results),
            false => results,
        }
    }

    /// Somebody's `nft flush ruleset` must not end the protection: everything is installed again.
    fn block_in_a_new_table(&mut self, batch: &[Timed], results: Vec<Effects>) -> Vec<Effects> {
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
        self.overtake(Some(&target));
        match self.responses.unblock(&target) {
            Ok(was_blocked) => {
                let with = self.core.escalation.get(&target).map_or(Responses::NONE, |block| block.with);
                let mut job = self.lift_job(target, with, Some((id, was_blocked)));
                if let Err(refusal) = self.take_lines(&[(target, with)]) {
                    job.refuse(Response::HostsDeny, refusal);
                }
                self.jobs.push(job);
                self.advance();
            }
            Err(refusal) => self.answer(done(id, Outcome::Failed(refusal.errno))),
        }
    }

    /// Blocks on their way are given up: whoever asked for them is told.
    fn overtake(&mut self, target: Option<&IpNet>) {
        for grant in self.jobs.abandon(target) {
            self.answer(done(grant.id, Outcome::Failed(Fault::Lifted.errno())));
        }
    }

    fn lift_job(&self, target: IpNet, with: Responses, asked: Option<(u64, bool)>) -> Job {
        Job::new(Purpose::Lift(asked), target, self.steps.to_lift(&target, with))
    }

    /// An operator's unblock that failed in part leaves the record, so that it can be asked for again.
    fn lifted(&mut self, asked: Option<(u64, bool)>, job: &Job) {
        let Some((id, was_blocked)) = asked else {
            return self.tell_remains(job.target, &job.failures);
        };
        self.tell_failures(id, &job.failures);
        let outcome = match job.failures.first() {
            Some((_, failure)) => Outcome::Failed(failure.fault.errno()),
            // Blocked for the kernel, or at least on record: either way it is lifted now.
            None if self.forget(&job.target) | was_blocked => Outcome::Lifted,
            None => Outcome::NotBlocked,
        };
        self.answer(timed_reply(id, outcome, job.begun, job.with));
    }

    fn forget(&mut self, target: &IpNet) -> bool {
        let was = self.core.escalation.lift(target);
        self.ledger.forget(*target);
        if was {
            self.rewrite_blocked_file();
        }
        was
    }

    fn rewrite_blocked_file(&mut self) {
        let (entries, now) = (self.core.escalation.entries(), self.now.utc);
        let addresses = entries.filter(|(_, block)| block.until > now).map(|(target, _)| target.addr());
        if let Some(Err(refusal)) = self.blocked_file.as_mut().map(|file| file.rewrite(addresses)) {
            log(&refusal.text);
        }
    }

    fn take_lines(&mut self, ended: &[(IpNet, Responses)]) -> Result<(), Refusal> {
        let lines =
            ended.iter().filter(|(_, with)| with.contains(Response::HostsDeny)).map(|(target, _)| *target);
        self.steps.take_lines(lines)
    }

    fn do_flush(&mut self, id: u64) {
        let begun = Instant::now();
        let outcome = match self.responses.flush() {
            Ok(()) => {
                self.overtake(None);
                let lifted: Vec<(IpNet, Block)> = self.core.escalation.lift_all().into_iter().collect();
                self.take_back(&lifted);
                if lifted.is_empty() { Outcome::NotBlocked } else { Outcome::Lifted }
            }
            Err(refusal) => Outcome::Failed(refusal.errno),
        };
        self.ledger.renew();
        self.answer(timed_reply(id, outcome, begun, Responses::NONE));
    }

    /// Files and programs' part of blocks that are over; what fails is told.
    fn take_back(&mut self, ended: &[(IpNet, Block)]) {
        let with: Vec<(IpNet, Responses)> =
            ended.iter().map(|(target, block)| (*target, block.with)).collect();
        // All lines go at once, or none does: one report is enough.
        if let (Err(refusal), Some((first, _))) = (self.take_lines(&with), with.first()) {
            self.tell_refusal(*first, Response::HostsDeny, refusal);
        }
        for (target, with) in with {
            let job = self.lift_job(target, with, None);
            // What the kernel alone did is over, be it a million of them.
            if !job.is_done() {
                self.jobs.push(job);
            }
        }
        if !ended.is_empty() {
            self.rewrite_blocked_file();
        }
        self.advance();
    }

    fn do_protect(&mut self, id: u64) {
        let begun = Instant::now();
        let applied = self.apply_never();
        self.answer_effect(id, applied, begun);
    }

    fn do_traps(&mut self, id: u64, datagrams: Datagrams, page: Page) {
        let begun = Instant::now();
        // Somebody changed our table: what is put in its place has the new traps.
        let set = self.responses.set_traps(datagrams, page).or_else(|_| self.install());
        self.answer_effect(id, set, begun);
    }

    fn do_spare(&mut self, id: u64, address: IpAddr) {
        let begun = Instant::now();
        let spared = self.responses.spare(address);
        self.answer_effect(id, spared, begun);
    }

    fn answer_effect(&mut self, id: u64, effect: Result<(), Refusal>, begun: Instant) {
        let outcome = effect.map_or_else(|refusal| Outcome::Failed(refusal.errno), |()| Outcome::Lifted);
        self.answer(timed_reply(id, outcome, begun, Responses::NONE));
    }

    /// Unlike an operator's flush this forgives nobody.
    fn do_stop(&mut self, id: u64) {
        let outcome = match self.flush_on_stop.then(|| self.responses.flush()) {
            None => Outcome::NotBlocked,
            Some(Err(refusal)) => Outcome::Failed(refusal.errno),
            Some(Ok(())) => {
                self.ledger.renew();
                self.overtake(None);
                let ended = self.core.escalation.end_all(self.now.utc);
                self.take_back(&ended);
                if ended.is_empty() { Outcome::NotBlocked } else { Outcome::Lifted }
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
        let mut lifted = Vec::new();
        for target in targets {
            self.overtake(Some(target));
            if let Err(refusal) = self.responses.unblock(target) {
                log(&refusal.text);
            }
            lifted.extend(self.core.escalation.get(target).map(|block| (*target, block)));
            self.core.escalation.lift(target);
        }
        self.take_back(&lifted);
        match targets.len() > MANY {
            true => self.ledger.renew(),
            false => targets.iter().for_each(|target| self.ledger.forget(*target)),
        }
    }

    /// Queues more of the page that was asked for, as much as there is room.
    pub fn list(&mut self) {
        while let Some(Listing { id, after, left }) = self.listing.filter(|_| self.replies.room() > 0) {
            let next = self.core.escalation.after(after, self.now.utc).filter(|_| left > 0);
            self.listing = next.map(|(target, _)| Listing { id, after: Some(target), left: left - 1 });
            self.answer(next.map_or(Reply::End { id }, |(target, block)| entry(id, target, block)));
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
            self.expire();
        }
        if self.next_look() == Some(0) {
            self.look();
        }
    }

    /// Milliseconds until the firewall is looked at again; `None` while nobody is blocked.
    fn next_look(&self) -> Option<u64> {
        let due = self.looked.saturating_add(LOOK).saturating_sub(self.now.uptime);
        self.core.escalation.next_end().map(|_| due)
    }

    /// A reload of somebody else's ruleset may flush ours with it: blocks that are told of must be there.
    fn look(&mut self) {
        self.looked = self.now.uptime;
        match self.responses.is_in_place() {
            Ok(true) => {}
            Ok(false) => {
                log("the firewall table, or a rule in it, was deleted by somebody and is installed again");
                if let Err(refusal) = self.install() {
                    log(&refusal.text);
                }
            }
            Err(refusal) => log(&refusal.text),
        }
    }

    fn expire(&mut self) {
        let ended = self.core.escalation.expire(self.now.utc);
        for (target, block) in &ended {
            if let Err(refusal) = self.responses.expire(target) {
                self.tell_refusal(*target, Response::Route, refusal);
            }
            // What the kernel ends by itself needs no word in the ledger.
            if block.with.iter().any(|response| response != Response::Nftables) {
                self.ledger.note(*target, Block { with: Responses::NONE, ..*block });
            }
        }
        self.take_back(&ended);
    }

    /// The sensor is gone, and with it whoever confirms or clears those whom the tripwire trips. Blocks stay.
    pub fn disarm(&mut self) {
        // A table that is gone has no traps either.
        let _ = self.responses.disarm();
    }

    /// Programs that run, and when the first one's time is up.
    pub fn jobs(&self) -> &Jobs {
        &self.jobs
    }

    /// Milliseconds until the next block ends, or the firewall is looked at again.
    pub fn next_end(&self) -> Option<u64> {
        let end = self.core.escalation.next_end().map(|end| end.saturating_sub(self.now.utc));
        end.into_iter().chain(self.next_look()).min()
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
        authority: Authority::new(settings.never_block.clone(), settings.max_blocks, now.uptime),
        escalation: Escalation::new(terms),
        run_only: RunOnly { tcp: settings.custom.run_only_tcp, udp: settings.custom.run_only_udp },
    }
}

/// What the kernel brings about at once.
fn at_once(responses: &[Response]) -> Responses {
    let kernel = |response: &Response| matches!(response, Response::Nftables | Response::Route);
    responses.iter().copied().filter(kernel).collect()
}

fn timed_all(blocks: &[(IpNet, Block)], now: u64) -> Vec<Timed> {
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
        | Request::Traps { .. }
        | Request::Spare { .. }
        | Request::Stop { .. } => false,
    }
}

fn knock(grant: &Grant) -> Knock {
    let over = match grant.protocol {
        Protocol::Tcp => Some(Datagrams::No),
        Protocol::Udp => Some(Datagrams::Yes),
        Protocol::Sctp | Protocol::Icmp | Protocol::Ip => None,
    };
    (grant.target, over.map(|over| (over, grant.port)))
}

fn timed(target: IpNet, block: Block, now: u64) -> Timed {
    (target, Some(Duration::from_millis(block.left(now))))
}

fn timed_reply(id: u64, outcome: Outcome, begun: Instant, with: Responses) -> Reply {
    Reply::Done { id, outcome, seconds: 0, offence: 0, micros: micros(begun.elapsed()), with, tripped: false }
}

fn entry(id: u64, target: IpNet, block: Block) -> Reply {
    let (since, until) = (block.since / 1000, block.until.div_ceil(1000));
    Reply::Entry { id, target, since, until, offence: block.offence, with: block.with }
}

fn micros(span: Duration) -> u32 {
    u32::try_from(span.as_micros()).unwrap_or(u32::MAX)
}
