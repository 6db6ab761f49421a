//! What goes to the helper and what comes back: queued requests, replies for whoever waits for them, the goodbye.
//!
//! Main thread. Waits for the helper at the end alone, and no longer than [`FAREWELL`].
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use nix::sys::epoll::{EpollEvent, EpollFlags};

use super::{BATCH, EventLoop, REQUESTS};
use crate::control::protocol::Entry;
use crate::protocol::{Reply, Request};
use crate::sensor::clock::Now;
use crate::sensor::helper_link::LinkError;
use crate::sensor::operators::Answers;
use crate::sensor::responder::{Effect, Turn};

/// How long a clean stop waits for the helper.
const FAREWELL: Duration = Duration::from_secs(2);

impl EventLoop {
    /// Says goodbye to the helper, which lifts the blocks first if it was told to. Returns whether it ended well.
    pub fn stop(&mut self) -> bool {
        self.notifier.stopping();
        let well = self.farewell();
        let now = self.shared.clock.now();
        self.reporter.stop(now, &self.responder, &self.shared, &self.host);
        well
    }

    /// What the helper still answers is still told. Where requests wait, the last one has to wait for room too.
    fn farewell(&mut self) -> bool {
        let deadline = Instant::now() + FAREWELL;
        let mut said = false;
        while Instant::now() < deadline {
            said = said || self.responder.requests.send(|id| Request::Stop { id }).is_ok();
            if self.send().is_err() {
                return false;
            }
            match self.on_replies(self.shared.clock.now()) {
                Ok(()) => self.link.wait_reply(deadline),
                Err(LinkError::Ended(status)) => return said && status.success(),
                Err(_) => return false,
            }
        }
        false
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
        // A long list must not keep signals and sightings from having their turn. Replies that were read already have
        // theirs now: the pipe would not wake us for them.
        for taken in 0.. {
            if taken >= BATCH && !self.link.holds_replies() {
                break;
            }
            let Some(reply) = self.link.next_reply()? else { break };
            self.notifier.heard_of_helper();
            self.on_reply(reply, now, &mut turn, &mut answers);
        }
        self.tell(&turn, now);
        for (client, reply) in answers {
            self.control.reply(&self.epoll, client, &reply, now.instant);
        }
        Ok(())
    }

    fn on_reply(&mut self, reply: Reply, now: Now, turn: &mut Turn, answers: &mut Answers) {
        match reply {
            Reply::Note { id, note } => self.notes.entry(id).or_default().push(note),
            Reply::Done { id, outcome, seconds, offence, micros, with, tripped } => {
                let notes = self.notes.remove(&id).unwrap_or_default();
                let effect = Effect { outcome, seconds, offence, micros, with, tripped, notes };
                let is_theirs = self.operators.on_done(id, &effect, now, &mut self.responder, turn, answers)
                    || self.protections.on_done(id, outcome, (&mut self.responder, now, turn));
                if !is_theirs {
                    self.responder.on_done(id, &effect, now, turn);
                }
            }
            Reply::Entry { id, target, since, until, offence, with } => {
                let entry = Entry { target, since, until, offence };
                self.operators.on_entry(id, entry, with, now, &mut self.responder, answers);
            }
            Reply::Remains { target } => {
                let notes = self.notes.remove(&0).unwrap_or_default();
                self.responder.on_remains(target, &notes, now, turn);
            }
            Reply::End { id } => self.operators.on_end(id, answers),
            Reply::Ready { .. } | Reply::Pong { .. } => {}
        }
    }
}
