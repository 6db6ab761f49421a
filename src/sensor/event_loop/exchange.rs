//! What goes to the helper and what comes back: queued requests, replies for whoever waits for them, the goodbye.
//!
//! Main thread. Waits for the helper at the end alone, and no longer than [`ANSWER`], or [`FAREWELL`] where it answers.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use nix::sys::epoll::{EpollEvent, EpollFlags};

use super::{BATCH, EventLoop, REQUESTS};
use crate::control::protocol::{Entry, outcome_reason};
use crate::protocol::{Outcome, Reply, Request};
use crate::sensor::clock::Now;
use crate::sensor::helper_link::LinkError;
use crate::sensor::operators::Answers;
use crate::sensor::responder::{Effect, Turn};

/// How long the helper may take to answer that it is to end.
const ANSWER: Duration = Duration::from_secs(2);
/// How long a clean stop waits for the commands that the helper still runs: less than a service manager or a container
/// engine waits for us (TimeoutStopSec and `podman stop`, ten seconds).
const FAREWELL: Duration = Duration::from_secs(8);

const STILL_AT_WORK: &str = "commands are still running and are left to the helper, which ends when they do; what it is \
     kept from undoing is undone at the next start";

/// How far the goodbye has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goodbye {
    /// Nobody has asked for it.
    Unsaid,
    /// The request with this number.
    Said(u64),
    /// The helper goes as soon as its commands have ended.
    Answered,
}

impl EventLoop {
    /// Says goodbye to the helper, which lifts the blocks first if it was told to. Returns whether it ended well, or is
    /// at work still.
    pub fn stop(&mut self) -> bool {
        self.notifier.stopping();
        let well = self.farewell();
        let now = self.shared.clock.now();
        self.reporter.stop(now, &self.responder, &self.shared, &self.host);
        well
    }

    /// What the helper still answers is still told. Where requests wait, the last one has to wait for room too.
    fn farewell(&mut self) -> bool {
        let begun = Instant::now();
        loop {
            if self.goodbye == Goodbye::Unsaid
                && let Ok(id) = self.responder.requests.send(|id| Request::Stop { id })
            {
                self.goodbye = Goodbye::Said(id);
            }
            let answered = self.goodbye == Goodbye::Answered;
            let deadline = begun + if answered { FAREWELL } else { ANSWER };
            if Instant::now() >= deadline {
                if answered {
                    self.reporter.error(self.shared.clock.now(), STILL_AT_WORK);
                }
                return answered;
            }
            // Who has answered and ended takes no more requests.
            if !answered && self.send().is_err() {
                return false;
            }
            match self.on_replies(self.shared.clock.now()) {
                Ok(()) => self.link.wait_reply(deadline),
                Err(LinkError::Ended(status)) => {
                    return self.goodbye != Goodbye::Unsaid && status.success();
                }
                Err(_) => return false,
            }
        }
    }

    /// The helper answered the goodbye.
    fn on_goodbye(&mut self, outcome: Outcome, now: Now) {
        self.goodbye = Goodbye::Answered;
        match outcome {
            Outcome::Lifted => self.responder.blocks.lift_all(),
            Outcome::Failed(_) => {
                let why = outcome_reason(outcome).unwrap_or_default();
                self.reporter.error(now, &format!("the blocks could not be lifted (FLUSH_ON_STOP): {why}"));
            }
            Outcome::Blocked
            | Outcome::AlreadyBlocked
            | Outcome::RefusedNeverBlock
            | Outcome::RefusedPrefix
            | Outcome::RefusedRate
            | Outcome::RefusedFull
            | Outcome::NotBlocked => {}
        }
    }

    /// Writes what is queued for the helper; watches the pipe for room only while some of it is left.
    pub(super) fn send(&mut self) -> Result<(), LinkError> {
        if self.link.flush(&mut self.responder.requests)? {
            let flags = if self.link.is_waiting() { EpollFlags::EPOLLOUT } else { EpollFlags::empty() };
            let mut event = EpollEvent::new(flags, REQUESTS);
            self.epoll.modify(self.link.request_pipe(), &mut event).map_err(std::io::Error::from)?;
        }
        Ok(())
    }

    pub(super) fn on_replies(&mut self, now: Now) -> Result<(), LinkError> {
        let (mut turn, mut answers) = (Turn::default(), Answers::new());
        let taken = self.take_replies(now, &mut turn, &mut answers);
        // Also what the helper said right before it ended.
        self.tell(&turn, now);
        for (client, reply) in answers {
            self.control.reply(&self.epoll, client, &reply, now.instant);
        }
        taken
    }

    /// A long list must not keep signals and sightings from having their turn. Replies that were read already have theirs
    /// now: the pipe would not wake us for them.
    fn take_replies(&mut self, now: Now, turn: &mut Turn, answers: &mut Answers) -> Result<(), LinkError> {
        for taken in 0.. {
            if taken >= BATCH && !self.link.holds_replies() {
                break;
            }
            let Some(reply) = self.link.next_reply()? else { break };
            self.notifier.heard_of_helper();
            self.on_reply(reply, now, turn, answers);
        }
        Ok(())
    }

    fn on_reply(&mut self, reply: Reply, now: Now, turn: &mut Turn, answers: &mut Answers) {
        match reply {
            Reply::Note { id, note } => self.notes.entry(id).or_default().push(note),
            Reply::Done { id, outcome, .. } if self.goodbye == Goodbye::Said(id) => {
                self.on_goodbye(outcome, now);
            }
            Reply::Done { id, outcome, seconds, offence, micros, with, tripped } => {
                self.operators.on_answer_to(id, &mut self.responder);
                let notes = self.notes.remove(&id).unwrap_or_default();
                let effect = Effect { outcome, seconds, offence, micros, with, tripped, notes };
                let is_theirs = self.operators.on_done(id, &effect, now, &mut self.responder, turn, answers)
                    || self.protections.on_done(id, outcome, (&mut self.responder, now, turn));
                if !is_theirs {
                    self.responder.on_done(id, &effect, now, turn);
                }
            }
            Reply::Entry { id, target, since, until, offence, with } => {
                self.operators.on_answer_to(id, &mut self.responder);
                let entry = Entry { target, since, until, offence };
                self.operators.on_entry(id, entry, with, now, &mut self.responder, answers);
            }
            Reply::Over { target } => {
                let notes = self.notes.remove(&0).unwrap_or_default();
                self.responder.on_over(target, &notes, now, turn);
            }
            Reply::End { id } => self.operators.on_end(id, answers),
            Reply::Ready { .. } | Reply::Pong { .. } => {}
        }
    }
}
