//! What operators ask over the control socket, and what they are answered.
//!
//! Main thread. Pure: a control request becomes a request to the helper, and the helper's replies become answers.
#![forbid(unsafe_code)]

use std::collections::HashMap;

use ipnet::IpNet;

use super::clock::Now;
use super::responder::{Effect, Responder, Turn};
use crate::control::protocol::{ControlReply, ControlRequest, Done, Entry};
use crate::control::server::ClientId;
use crate::protocol::{Outcome, Request, Responses};

/// Answers on their way to clients.
pub type Answers = Vec<(ClientId, ControlReply)>;

/// Asked of the helper on somebody's behalf.
enum Waiting {
    Block {
        client: ClientId,
        target: IpNet,
    },
    Unblock {
        client: ClientId,
        target: IpNet,
    },
    Flush {
        client: ClientId,
    },
    List {
        client: ClientId,
        count: u64,
    },
    /// Our own listing after the start: fills the mirror.
    Mirror,
}

/// Requests of operators that the helper has not answered yet; as many as its queue holds at most.
#[derive(Default)]
pub struct Operators {
    waiting: HashMap<u64, Waiting>,
}

impl Operators {
    /// Asks the helper for every block, to mirror them.
    pub fn mirror(&mut self, responder: &mut Responder) {
        if let Ok(id) = responder.requests.send(|id| Request::List { id }) {
            self.waiting.insert(id, Waiting::Mirror);
        }
    }

    /// Passes a request on. `Status` is the event loop's to answer.
    pub fn on_request(
        &mut self,
        client: ClientId,
        request: &ControlRequest,
        responder: &mut Responder,
    ) -> Option<ControlReply> {
        let (sent, waiting) = match *request {
            ControlRequest::Status => return None,
            ControlRequest::List => {
                (responder.requests.send(|id| Request::List { id }), Waiting::List { client, count: 0 })
            }
            ControlRequest::Block { address: target, seconds } => (
                responder.requests.send(|id| operator_block(id, target, seconds)),
                Waiting::Block { client, target },
            ),
            ControlRequest::Unblock { address: target } => (
                responder.requests.send(|id| Request::Unblock { id, target }),
                Waiting::Unblock { client, target },
            ),
            ControlRequest::UnblockAll => {
                (responder.requests.send(|id| Request::Flush { id }), Waiting::Flush { client })
            }
        };
        match sent {
            Ok(id) => {
                self.waiting.insert(id, waiting);
                None
            }
            Err(full) => Some(ControlReply::Error { message: full.to_string() }),
        }
    }

    /// The helper carried a request out or refused it. `false` if it was not an operator's.
    pub fn on_done(
        &mut self,
        id: u64,
        effect: &Effect,
        now: Now,
        responder: &mut Responder,
        turn: &mut Turn,
        answers: &mut Answers,
    ) -> bool {
        let Some(waiting) = self.waiting.remove(&id) else { return false };
        let mut reason = effect.reason();
        let client = match waiting {
            Waiting::Block { client, target } => {
                if matches!(effect.outcome, Outcome::Blocked | Outcome::AlreadyBlocked) {
                    responder.on_operator_block(target, effect, now, turn);
                }
                client
            }
            Waiting::Unblock { client, target } => {
                if effect.outcome == Outcome::Lifted {
                    responder.on_lifted(target, now, turn);
                }
                reason = reason.or_else(|| responder.blocks.covering(&target).map(|wider| within(&wider)));
                client
            }
            Waiting::Flush { client } => {
                if effect.outcome == Outcome::Lifted {
                    let targets: Vec<IpNet> = responder.blocks.targets().collect();
                    targets.into_iter().for_each(|target| responder.on_lifted(target, now, turn));
                }
                client
            }
            // A listing ends with `End`, not here.
            Waiting::List { client, .. } => client,
            Waiting::Mirror => return true,
        };
        let mut done = Done::new(effect.outcome, effect.seconds, effect.offence);
        done.error = reason;
        answers.push((client, ControlReply::Done(done)));
        true
    }

    /// One block of a listing.
    pub fn on_entry(
        &mut self,
        id: u64,
        entry: Entry,
        with: Responses,
        now: Now,
        responder: &mut Responder,
        answers: &mut Answers,
    ) {
        match self.waiting.get_mut(&id) {
            Some(Waiting::List { client, count }) => {
                *count += 1;
                answers.push((*client, ControlReply::Entry(entry)));
            }
            Some(Waiting::Mirror) => {
                let left = entry.until.saturating_sub(now.wall / 1_000_000);
                let seconds = u32::try_from(left).unwrap_or(u32::MAX);
                responder.on_block(entry.target, seconds, entry.offence, with, now);
            }
            Some(Waiting::Block { .. } | Waiting::Unblock { .. } | Waiting::Flush { .. }) | None => {}
        }
    }

    /// A listing is complete.
    pub fn on_end(&mut self, id: u64, answers: &mut Answers) {
        if let Some(Waiting::List { client, count }) = self.waiting.remove(&id) {
            answers.push((client, ControlReply::End { count }));
        }
    }
}

/// An address is not let in while the network round it is shut out.
fn within(wider: &IpNet) -> String {
    format!("It lies within {wider}, which is blocked as a whole; lift that: portsentry-rs unblock {wider}")
}

fn operator_block(id: u64, target: IpNet, seconds: u32) -> Request {
    // No probe stands behind it: port 0; and no word is better than an operator's.
    Request::Block {
        id,
        target,
        seconds,
        port: 0,
        protocol: crate::detect::probe::Protocol::Tcp,
        verified: true,
    }
}
