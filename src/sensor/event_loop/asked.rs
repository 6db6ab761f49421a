//! What whoever runs the daemon asks of it: by signal or over the control socket.
//!
//! Main thread. Nothing that a stranger sends may have a say here.
#![forbid(unsafe_code)]

use super::{End, EventLoop};
use crate::control::protocol::{ControlReply, ControlRequest};
use crate::control::server::{ClientId, Incoming};
use crate::sensor::clock::Now;
use crate::sensor::signals::{self, Asked};

impl EventLoop {
    pub(super) fn on_signals(&mut self, now: Now) -> Option<End> {
        while let Some(asked) = signals::next(&self.signals) {
            match asked {
                Asked::Stop => return Some(End::Asked),
                Asked::Reload => {
                    self.notifier.reloading();
                    self.reload(now);
                    // Last, so that whoever sees a log file made anew knows the rest to be in force.
                    self.reporter.reopen(now);
                    self.notifier.ready(&self.in_short(now));
                }
            }
        }
        None
    }

    /// Answers `status`.
    pub(super) fn answer_status(&mut self, clients: Vec<ClientId>, helper_answers: bool, now: Now) {
        for client in clients {
            let status = self.reporter.status(now, helper_answers, &self.responder, &self.shared, &self.host);
            let reply = ControlReply::Status(Box::new(status));
            self.control.reply(&self.epoll, client, &reply, now.instant);
        }
    }

    pub(super) fn on_control(&mut self, token: u64, now: Now) {
        for incoming in self.control.on_ready(&self.epoll, token, now.instant) {
            let Incoming { client, request } = incoming;
            if request == ControlRequest::Status {
                let is_there = |client| self.control.is_waiting(client);
                self.pulse.ask(client, now.instant, is_there, &mut self.responder.requests);
            } else if let Some(reply) = self.operators.on_request(client, &request, &mut self.responder) {
                self.control.reply(&self.epoll, client, &reply, now.instant);
            }
        }
    }
}
