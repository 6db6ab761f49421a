//! What goes to the helper and what comes back: queued requests, replies for whoever waits for them.
//!
//! Main thread. Never waits for the helper, but for the list of blocks before it begins.
#![forbid(unsafe_code)]

use std::time::Instant;

use nix::sys::epoll::{EpollEvent, EpollFlags};

use super::{BATCH, EventLoop, Goodbye, REQUESTS};
use crate::control::protocol::Entry;
use crate::protocol::Reply;
use crate::sensor::clock::Now;
use crate::sensor::helper_link::{LinkError, READY_WITHIN};
use crate::sensor::operators::Answers;
use crate::sensor::responder::{self, Effect};
use crate::sensor::turn::Turn;

impl EventLoop {
    /// Learns which blocks there are, before anybody is told how many or can lift one, as its end would have no event; then
    /// the daemon is ready.
    ///
    /// # Errors
    /// The helper ended, or took longer than for its own start.
    pub(super) fn begin(&mut self) -> Result<(), LinkError> {
        let deadline = Instant::now() + READY_WITHIN;
        self.operators.mirror();
        self.set_traps();
        loop {
            self.operators.go_on(&self.control, &mut self.responder);
            self.send()?;
            if self.operators.are_served() {
                self.notifier.ready(&self.in_short(self.shared.clock.now()));
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(LinkError::Slow);
            }
            self.link.wait_reply(deadline);
            self.on_replies(self.shared.clock.now())?;
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
        let (mut turn, mut answers) = (Turn::at(now), Answers::new());
        let taken = self.take_replies(&mut turn, &mut answers);
        // Also what the helper said right before it ended.
        self.tell(turn);
        for (client, reply) in answers {
            self.control.reply(&self.epoll, client, &reply, now.instant);
        }
        taken
    }

    /// A long list must not keep signals and sightings from having their turn. Replies that were read already have theirs
    /// now: the pipe would not wake us for them.
    fn take_replies(&mut self, turn: &mut Turn, answers: &mut Answers) -> Result<(), LinkError> {
        for taken in 0.. {
            if taken >= BATCH && !self.link.holds_replies() {
                break;
            }
            let Some(reply) = self.link.next_reply()? else { break };
            self.notifier.heard_of_helper();
            let waited = self.pulse.heard();
            self.answer_status(waited, true, turn.now);
            self.on_reply(reply, turn, answers);
        }
        Ok(())
    }

    fn on_reply(&mut self, reply: Reply, turn: &mut Turn, answers: &mut Answers) {
        match reply {
            Reply::Note { id, note } => self.notes.entry(id).or_default().push(note),
            Reply::Done { id, outcome, .. } if self.goodbye == Goodbye::Said(id) => {
                self.operators.on_answer_to(id, &mut self.responder);
                self.on_goodbye(outcome, turn.now);
            }
            Reply::Done { id, outcome, seconds, offence, micros, with, tripped } => {
                self.operators.on_answer_to(id, &mut self.responder);
                let notes = self.notes.remove(&id).unwrap_or_default();
                let effect = Effect { outcome, seconds, offence, micros, with, tripped, notes };
                let is_theirs = self.operators.on_done(id, &effect, &mut self.responder, turn, answers)
                    || self.protections.on_done(id, outcome, turn);
                if !is_theirs {
                    self.responder.on_done(id, &effect, turn);
                }
            }
            Reply::Entry { id, target, since, until, offence, with } => {
                self.operators.on_answer_to(id, &mut self.responder);
                let entry = Entry { target, since, until, offence };
                self.operators.on_entry(id, entry, with, turn.now, &mut self.responder, answers);
            }
            Reply::Over { target } => {
                let notes = self.notes.remove(&0).unwrap_or_default();
                self.responder.on_over(target, &notes, turn);
            }
            Reply::LeftBehind => {
                let notes = self.notes.remove(&0).unwrap_or_default();
                responder::on_left_behind(&notes, turn);
            }
            Reply::End { id } => self.operators.on_end(id, answers),
            Reply::Ready { .. } | Reply::Pong { .. } => {}
        }
    }
}
