//! What the sensor is told: replies, notes on what failed, the list. Helper.
//!
//! Never waits for the sensor, and never queues more than there is room for: what nobody asked for waits until there is.
#![forbid(unsafe_code)]

use std::rc::Rc;
use std::time::{Duration, Instant};

use ipnet::IpNet;

use super::{FRAMES, Listing, Service};
use crate::helper::command::Failure;
use crate::helper::error::log;
use crate::helper::escalation::Block;
use crate::helper::respond::{Refusal, Respond};
use crate::protocol::reply::NOTE_BYTES;
use crate::protocol::{Note, Outcome, Reply, Response, Responses};

/// What nobody asked for: the end of a block, or where it has no target what is left behind; and what failed: many fail
/// alike.
pub(super) struct Unasked {
    pub(super) target: Option<IpNet>,
    failures: Rc<[(Response, Failure)]>,
}

impl<R: Respond> Service<R> {
    /// Room was made sure of by [`is_free`](Self::is_free); were it not, the count of refusals ends the helper.
    pub(super) fn answer(&mut self, reply: Reply) {
        let _ = self.replies.push(&reply.encode());
    }

    /// Queues more of the page that was asked for, as much as there is room. A block may be answered before it ends: what
    /// is due keeps its room. While nothing waits to be written there is room: as much was due when the page was asked for.
    pub fn list(&mut self) {
        while let Some(Listing { id, after, left }) = self.listing.filter(|_| self.has_room_for(1)) {
            let next = self.core.escalation.after(after, self.now.utc).filter(|_| left > 0);
            self.listing = next.map(|(target, _)| Listing { id, after: Some(target), left: left - 1 });
            self.answer(next.map_or(Reply::End { id }, |(target, block)| entry(id, target, block)));
        }
    }

    /// Why responses failed, before the last word on the request.
    pub(super) fn tell_failures(&mut self, id: u64, failures: &[(Response, Failure)]) {
        let pieces = |text: &str| text.chars().count().div_ceil(NOTE_BYTES).clamp(1, 2);
        let notes = failures.iter().flat_map(|(response, failure)| {
            (0..pieces(&failure.text)).map(|part| Note::new(*response, failure.fault, &failure.text, part))
        });
        notes.take(FRAMES - 1).for_each(|note| self.answer(Reply::Note { id, note }));
    }

    /// A block is over, and nobody asked for that: the sensor, which counts it still, is told of each, be there a million of
    /// them. `failures`: why, or what of it would not end.
    pub(super) fn tell_over(&mut self, target: IpNet, failures: &[(Response, Failure)]) {
        let before = self.unasked.back().map(|it| &it.failures).filter(|before| ***before == *failures);
        let failures = before.map_or_else(|| failures.into(), Rc::clone);
        self.unasked.push_back(Unasked { target: Some(target), failures });
    }

    /// What an earlier configuration has left, of which no block's end tells.
    pub(super) fn tell_left_behind(&mut self, what: (Response, Failure)) {
        self.unasked.push_back(Unasked { target: None, failures: [what].into() });
    }

    /// What a block that is over has left behind, if anything.
    pub(super) fn tell_remains(&mut self, target: IpNet, failures: &[(Response, Failure)]) {
        if !failures.is_empty() {
            self.tell_over(target, failures);
        }
    }

    /// Queues as much of what nobody asked for as there is room for.
    pub fn tell(&mut self) {
        while self.is_telling()
            && let Some(Unasked { target, failures }) = self.unasked.pop_front()
        {
            self.tell_failures(0, &failures);
            self.answer(target.map_or(Reply::LeftBehind, |target| Reply::Over { target }));
        }
    }

    /// Whether there is any, and room for it.
    pub fn is_telling(&self) -> bool {
        !self.unasked.is_empty() && self.has_room_for(1)
    }

    /// In the log. What is refused again and again, every ten seconds or whenever a stranger likes, must not fill it: the same
    /// thing at most once a minute.
    pub(super) fn say(&mut self, text: &str) {
        self.say_one(text, text);
    }

    /// Likewise one of those that are `alike`, whatever else each of them says.
    pub(super) fn say_one(&mut self, alike: &str, text: &str) {
        if self.said.are_over(alike, self.now.uptime) {
            log(text);
        }
    }

    /// Many may be refused, each with its target in the text: the sensor is told of each.
    pub(super) fn tell_refusal(&mut self, target: IpNet, response: Response, refusal: Refusal) {
        self.say_one(&format!("{} {}", response.name(), refusal.errno), &refusal.text);
        self.tell_remains(target, &[(response, refusal.into())]);
    }
}

/// The reply about something that is not in force, after an effect that took until now.
pub(super) fn timed_reply(id: u64, outcome: Outcome, begun: Instant) -> Reply {
    let (micros, with) = (micros(begun.elapsed()), Responses::NONE);
    Reply::Done { id, outcome, seconds: 0, offence: 0, micros, with, tripped: false }
}

fn entry(id: u64, target: IpNet, block: Block) -> Reply {
    let (since, until) = (block.since / 1000, block.until.div_ceil(1000));
    Reply::Entry { id, target, since, until, offence: block.offence, with: block.with }
}

pub(super) fn micros(span: Duration) -> u32 {
    u32::try_from(span.as_micros()).unwrap_or(u32::MAX)
}
