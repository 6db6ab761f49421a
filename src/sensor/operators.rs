//! What operators ask over the control socket, and what they are answered.
//!
//! Main thread. A control request becomes a request to the helper, and the helper's replies become answers. A list is
//! passed on page by page, at its reader's pace: nothing of it is kept here.
#![forbid(unsafe_code)]

use std::collections::HashMap;

use ipnet::IpNet;

use super::clock::Now;
use super::responder::{Effect, Responder};
use super::turn::Turn;
use crate::control::protocol::{ControlReply, ControlRequest, Done, Entry};
use crate::control::server::{ClientId, ControlServer, Reader};
use crate::protocol::{LIST_PAGE, Outcome, Request, Responses};

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
        /// Whether the mirror knows that they are lifted.
        mirrored: bool,
    },
    /// A page of a listing.
    Page(Listing),
}

/// The blocks, page by page; the next page is asked for when this one has been read.
#[derive(Clone, Copy)]
struct Listing {
    /// Who asked; nobody: it is our own after the start, and fills the mirror.
    client: Option<ClientId>,
    count: u64,
    last: Option<IpNet>,
    in_page: usize,
}

/// Requests of operators that the helper has not answered yet; as many as its queue holds at most.
#[derive(Default)]
pub struct Operators {
    waiting: HashMap<u64, Waiting>,
    paused: Vec<Listing>,
}

impl Operators {
    /// Asks the helper for every block, to mirror them.
    pub fn mirror(&mut self) {
        self.paused.push(Listing::of(None));
    }

    /// Whether nobody waits for anything.
    pub fn are_served(&self) -> bool {
        self.paused.is_empty() && self.waiting.is_empty()
    }

    /// Asks for the next page of each list whose reader has taken the last one.
    pub fn go_on(&mut self, control: &ControlServer, responder: &mut Responder) {
        for listing in std::mem::take(&mut self.paused) {
            let reader = listing.client.map_or(Reader::Ready, |client| control.reader(client));
            match reader {
                Reader::Gone => {}
                Reader::Busy => self.paused.push(listing),
                Reader::Ready => self.ask_for_page(listing, responder),
            }
        }
    }

    /// Where the queue is full the next turn tries again: the helper's answers wake us.
    fn ask_for_page(&mut self, listing: Listing, responder: &mut Responder) {
        match responder.requests.send(|id| Request::List { id, after: listing.last }) {
            Ok(id) => drop(self.waiting.insert(id, Waiting::Page(Listing { in_page: 0, ..listing }))),
            Err(_) => self.paused.push(listing),
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
                self.paused.push(Listing::of(Some(client)));
                return None;
            }
            ControlRequest::Block { address: target, seconds } => (
                responder.requests.send(|id| operator_block(id, target, seconds)),
                Waiting::Block { client, target },
            ),
            ControlRequest::Unblock { address: target } => (
                responder.requests.send(|id| Request::Unblock { id, target }),
                Waiting::Unblock { client, target },
            ),
            ControlRequest::UnblockAll => (
                responder.requests.send(|id| Request::Flush { id }),
                Waiting::Flush { client, mirrored: false },
            ),
        };
        match sent {
            Ok(id) => {
                self.waiting.insert(id, waiting);
                None
            }
            Err(full) => Some(ControlReply::Error { message: full.to_string() }),
        }
    }

    /// The helper answers request `id`. Requests are carried out in their order: where an earlier one to lift every block
    /// is not answered yet, the kernel has lifted them, and programs are still at work. Blocks from now on are none of those.
    pub fn on_answer_to(&mut self, id: u64, responder: &mut Responder) {
        for (_, waiting) in self.waiting.iter_mut().filter(|(flush, _)| **flush < id) {
            if let Waiting::Flush { mirrored, .. } = waiting
                && !std::mem::replace(mirrored, true)
            {
                responder.blocks.lift_all();
            }
        }
    }

    /// The helper carried a request out or refused it. `false` if it was not an operator's.
    pub fn on_done(
        &mut self,
        id: u64,
        effect: &Effect,
        responder: &mut Responder,
        turn: &mut Turn,
        answers: &mut Answers,
    ) -> bool {
        let Some(waiting) = self.waiting.remove(&id) else { return false };
        let (mut outcome, mut reason) = (effect.outcome, responder.reason(effect));
        let client = match waiting {
            Waiting::Block { client, target } => {
                if matches!(effect.outcome, Outcome::Blocked | Outcome::AlreadyBlocked) {
                    responder.on_operator_block(target, effect, turn);
                }
                client
            }
            Waiting::Unblock { client, target } => {
                responder.on_let_in(target, turn.now);
                if effect.outcome == Outcome::Lifted {
                    responder.on_lifted(target, turn);
                } else if matches!(effect.outcome, Outcome::Failed(_)) && effect.seconds == 0 {
                    responder.on_part_lifted(target, effect, turn);
                }
                if let Some(wider) = responder.blocks.covering(&target).filter(|_| reason.is_none()) {
                    (outcome, reason) = (Outcome::NotBlocked, Some(within(&wider)));
                }
                reason = reason.or_else(|| responder.left_by_lifting(outcome));
                client
            }
            Waiting::Flush { client, mirrored } => {
                if !mirrored && has_lifted(effect) {
                    responder.blocks.lift_all();
                }
                responder.end_waits();
                reason = reason.or_else(|| responder.left_by_lifting(outcome));
                client
            }
            // A listing ends with `End`, not here.
            Waiting::Page(Listing { client: Some(client), .. }) => client,
            Waiting::Page(Listing { client: None, .. }) => return true,
        };
        let mut done = Done::new(outcome, effect.seconds, effect.offence);
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
        let Some(Waiting::Page(listing)) = self.waiting.get_mut(&id) else { return };
        listing.count += 1;
        listing.in_page += 1;
        listing.last = Some(entry.target);
        match listing.client {
            Some(client) => answers.push((client, ControlReply::Entry(entry))),
            None => {
                let left = entry.until.saturating_sub(now.wall / 1_000_000);
                let seconds = u32::try_from(left).unwrap_or(u32::MAX);
                responder.on_block(entry.target, seconds, entry.offence, with, now);
            }
        }
    }

    /// A page is complete, and with it the listing unless the page was full.
    pub fn on_end(&mut self, id: u64, answers: &mut Answers) {
        let Some(Waiting::Page(listing)) = self.waiting.remove(&id) else { return };
        match (listing.in_page < LIST_PAGE, listing.client) {
            (false, _) => self.paused.push(listing),
            (true, Some(client)) => answers.push((client, ControlReply::End { count: listing.count })),
            (true, None) => {}
        }
    }
}

impl Listing {
    fn of(client: Option<ClientId>) -> Listing {
        Listing { client, count: 0, last: None, in_page: 0 }
    }
}

/// Whether the record of blocks is empty: also where files or programs could not take back all of their part.
fn has_lifted(effect: &Effect) -> bool {
    effect.outcome == Outcome::Lifted || matches!(effect.outcome, Outcome::Failed(_)) && effect.seconds == 0
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
        run_only: false,
    }
}
