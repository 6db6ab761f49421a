//! The end of the daemon: the goodbye to the helper, what is still to be told before the `stop` event, the helper's death.
//!
//! Main thread. Waits for the helper, but no longer than [`FAREWELL`], and [`LAST_WORDS`] where it is about to be gone.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use super::EventLoop;
use crate::control::protocol::outcome_reason;
use crate::protocol::{Outcome, Request};
use crate::sensor::clock::Now;
use crate::sensor::helper_link::LinkError;
use crate::sensor::turn::Turn;

/// How long a clean stop waits for the helper: for its answer, as it may have to wait itself (for the lock of iptables,
/// for the disk), and for the commands that it still runs. Less than a service manager or a container engine waits for us
/// (TimeoutStopSec and `podman stop`, ten seconds).
pub const FAREWELL: Duration = Duration::from_secs(8);

/// How long a helper that takes no more requests may take to be gone.
const LAST_WORDS: Duration = Duration::from_millis(500);

const STILL_AT_WORK: &str = "commands are still running and are left to the helper, which ends when they do, unless a \
     service manager or the container's end kills it and them before; what it is kept from undoing is undone at the next \
     start";

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
    /// at work still; what went wrong is told.
    pub fn stop(&mut self) -> bool {
        self.notifier.stopping();
        let end = self.farewell();
        let now = self.shared.clock.now();
        if let Err(error) = &end {
            self.reporter.error(now, &error.to_string());
        }
        self.tell_ends(now);
        self.reporter.stop(now, &self.responder, &self.shared, &self.host);
        end.is_ok()
    }

    /// What the helper still answers is still told. Where requests wait, the last one has to wait for room too.
    fn farewell(&mut self) -> Result<(), LinkError> {
        let deadline = Instant::now() + FAREWELL;
        loop {
            if self.goodbye == Goodbye::Unsaid
                && let Ok(id) = self.responder.requests.send(|id| Request::Stop { id })
            {
                self.goodbye = Goodbye::Said(id);
            }
            let answered = self.goodbye == Goodbye::Answered;
            match Instant::now() >= deadline {
                true if answered => {
                    self.reporter.error(self.shared.clock.now(), STILL_AT_WORK);
                    return Ok(());
                }
                true => return Err(LinkError::NoGoodbye),
                false => {}
            }
            // Who has answered and ended takes no more requests.
            let sent = if answered { Ok(()) } else { self.send() };
            let heard = match sent {
                Ok(()) => self.on_replies(self.shared.clock.now()),
                Err(error) => Err(self.last_words(error)),
            };
            match heard {
                Ok(()) => self.link.wait_reply(deadline),
                Err(LinkError::Ended(status)) if self.goodbye != Goodbye::Unsaid && status.success() => {
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Why the helper is gone, who may have been found so by writing to it; what it had said before is told.
    pub(super) fn last_words(&mut self, error: LinkError) -> LinkError {
        let deadline = Instant::now() + LAST_WORDS;
        while error.is_broken_pipe() && Instant::now() < deadline {
            match self.on_replies(self.shared.clock.now()) {
                Ok(()) => self.link.wait_reply(deadline),
                Err(end) => return end,
            }
        }
        error
    }

    /// Every block that has an event has one of its end: also what was lifted a moment ago, all at once, and would have
    /// been told in turns to come.
    fn tell_ends(&mut self, now: Now) {
        while self.responder.blocks.next_end().is_some_and(|end| end <= now.uptime) {
            let mut turn = Turn::at(now);
            self.responder.on_time(&mut turn);
            self.tell(turn);
        }
    }

    /// The helper answered the goodbye.
    pub(super) fn on_goodbye(&mut self, outcome: Outcome, now: Now) {
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
}
