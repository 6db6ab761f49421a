//! Carries out what `decide` decided: kernel first, then the record, the reply, the ledger. Helper.
//!
//! A reply says what really happened. Nothing here waits for the sensor.
#![forbid(unsafe_code)]

mod block;
mod flush;
mod host;
mod install;
mod lift;
mod note;
mod others;
mod programs;
mod restore;
mod tell;

use std::collections::VecDeque;
use std::time::Duration;

use ipnet::IpNet;

use super::blocked_file::{self, BlockedFile};
use super::clock::{Clock, Now};
use super::command::Failure;
use super::decide::{Action, Core, Grant, Underway};
use super::escalation::Block;
use super::jobs::{Jobs, Purpose, WAITING};
use super::ledger::{Ledger, Loaded};
use super::respond::{Respond, Timed};
use super::steps::Steps;
use crate::netlink::Retry;
use crate::protocol::channel::FrameWriter;
use crate::protocol::{LIST_PAGE, Request, Responses};
use crate::repeats::Repeats;

/// Frames that one request may be answered with: its notes and the last word.
const FRAMES: usize = 7;
/// Replies that may wait for a slow sensor: 64 KiB, room for every job that waits and for 82 requests more.
const REPLIES: usize = FRAMES * (WAITING + 82);

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
    /// Requests by which the never-block set has grown: the kernel is told of all at once.
    protecting: Vec<u64>,
    listing: Option<Listing>,
    /// Ends of blocks that the sensor is still to be told of. No request is taken meanwhile: nobody is blocked anew whose
    /// end is not told, and they are no more than there were blocks. At the start also what was left behind.
    unasked: VecDeque<tell::Unasked>,
    stopped: bool,
    /// Responses that may hold what is over, for they would not let go of it: the next look takes it from them.
    overdue: Responses,
    /// Attempts at giving the kernel the never-block set with what was learnt.
    never_retry: Retry,
    /// When the firewall was last looked at, milliseconds of uptime.
    looked: u64,
    /// A sign of life was asked for: whoever keeps the time has woken us, and what is soon due is done with it.
    roused: bool,
    /// What was refused and said a moment ago.
    said: Repeats,
    /// Where replies wait to be written.
    pub replies: FrameWriter,
}

impl<R: Respond> Service<R> {
    /// Whether a request can be taken: its reply must find room, and replies must not overtake a list, nor the ends of
    /// blocks.
    pub fn is_free(&self) -> bool {
        self.listing.is_none() && self.unasked.is_empty() && !self.stopped && self.has_room_for(1)
    }

    /// Whether a list goes on as soon as replies find room.
    pub fn is_listing(&self) -> bool {
        self.listing.is_some()
    }

    /// For so many answers besides all that is due already. None may be queued unasked without it.
    fn has_room_for(&self, answers: usize) -> bool {
        let due = FRAMES * (self.pending.len() + self.jobs.answers_due() + answers) + self.protecting.len();
        self.replies.room() > due
    }

    /// Whether the sensor asked for the end.
    pub fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// Whether more of the never-block set may be at hand: telling the kernel of it costs as much for a thousand
    /// networks as for one.
    pub fn is_protecting(&self) -> bool {
        !self.protecting.is_empty()
    }

    /// Carries out one request. Blocks, and what is to be protected, are put off until [`finish`](Self::finish), to go to
    /// the kernel together.
    pub fn carry_out(&mut self, request: &Request) {
        if !joins(request, &self.pending) {
            self.finish();
        }
        let (jobs, at_once) = (&self.jobs, self.at_once);
        let is_ending =
            |target: &IpNet, block: &Block| block.with.among(at_once).is_empty() && jobs.is_ending(target);
        let underway = Underway { granted: self.pending.len(), is_ending: &is_ending };
        match self.core.decide(request, &underway, self.now) {
            Action::Answer(reply) => self.answer(reply),
            Action::Block(grant) => self.pending.push(grant),
            Action::Unblock { id, target } => self.do_unblock(id, target),
            Action::List { id, after } => self.listing = Some(Listing { id, after, left: LIST_PAGE }),
            Action::Flush { id } => self.do_flush(id),
            Action::Protect { id } => self.protecting.push(id),
            Action::Traps { id, datagrams, page } => self.do_traps(id, datagrams, page),
            Action::Spare { id, address } => self.do_spare(id, address),
            Action::Stop { id } => self.do_stop(id),
            Action::Pong { id } => self.do_pong(id),
        }
    }

    /// Goes on with every job that can, and says what became of those that are done: until none is, as one may have
    /// waited for another.
    pub fn advance(&mut self) {
        let mut can_look = true;
        loop {
            let mut done = self.jobs.advance(&mut self.steps, &self.core.escalation, self.now.utc);
            self.note_news();
            if done.is_empty() {
                return;
            }
            self.prove_table(&mut done);
            can_look = can_look && self.prove(&mut done);
            // Answers first: what is told unasked takes the room that they leave.
            done.sort_by_key(|job| !job.is_due());
            for job in done {
                // One of a kind a minute: strangers must not be able to fill the log, nor a sensor. Each is told of
                // besides, but what a restored block that goes on has lost.
                let failure = job.failures.first().filter(|_| job.has_a_target());
                if let Some((response, Failure { fault, text })) = failure {
                    let alike = format!("{}: {fault}", response.name());
                    self.say_one(&alike, &format!("{}: {alike}: {text}", job.target));
                }
                match job.purpose {
                    Purpose::Block(grant) => self.blocked(&grant, &job),
                    Purpose::Lift(asked) => self.lifted(asked, &job),
                    Purpose::Flush(asked) => self.flushed(asked, &job),
                    Purpose::Renew => self.renewed(&job),
                    Purpose::Abandoned => self.given_up(&job),
                }
                self.keep_in_mind(&job);
                if !job.told.is_empty() {
                    self.note(job.target);
                }
            }
        }
    }

    /// Reads the clock and lets go what has ended.
    pub fn tick(&mut self) {
        let (now, step) = self.clock.read();
        self.now = now;
        if step != 0 {
            let text = format!(
                "the clock was set by {} seconds, or the machine slept so long; blocks keep the time they had left",
                step / 1000
            );
            // Of the same size: a clock that is set again and again must not hide that the machine slept.
            self.say_one(
                &format!("the clock was set {}", step.unsigned_abs().checked_ilog2().unwrap_or(0)),
                &text,
            );
            self.core.escalation.shift(step);
            self.jobs.shift(step);
            self.ledger.renew();
        }
        if self.core.escalation.next_end().is_some_and(|end| end <= now.utc) {
            self.expire();
        }
        if self.next_look() == Some(0) || self.is_looking() {
            self.look();
        }
        self.roused = false;
    }

    /// Programs that run, and when the first one's time is up.
    pub fn jobs(&self) -> &Jobs {
        &self.jobs
    }

    /// Milliseconds until the next block ends, the firewall is looked at again, or a write that failed is tried again.
    pub fn next_end(&self) -> Option<u64> {
        let end = self.core.escalation.next_end().map(|end| end.saturating_sub(self.now.utc));
        let file = self.blocked_file.as_ref().and_then(BlockedFile::next_try);
        let writes = file.into_iter().chain(self.ledger.next_try());
        let write = writes.map(|at| at.saturating_sub(self.now.uptime)).min();
        end.into_iter().chain(self.next_look()).chain(write).min()
    }

    /// The descriptor that tells of changed surroundings.
    pub fn watch(&self) -> std::os::fd::BorrowedFd<'_> {
        self.responses.watch()
    }
}

/// Whether `request` can go to the kernel in one batch with `pending`: it must not meet any of them.
fn joins(request: &Request, pending: &[Grant]) -> bool {
    match request {
        Request::Block { target, .. } => {
            !pending.iter().any(|it| it.target.contains(target) || target.contains(&it.target))
        }
        // The set that is judged by has it already, and blocks come first: those that it covers are given up or lifted.
        Request::Protect { .. } | Request::Ping { .. } => true,
        Request::Unblock { .. }
        | Request::List { .. }
        | Request::Flush { .. }
        | Request::Traps { .. }
        | Request::Spare { .. }
        | Request::Stop { .. } => false,
    }
}

fn timed(target: IpNet, block: Block, now: u64) -> Timed {
    (target, Duration::from_millis(block.left(now)))
}
