//! What whoever runs the daemon asks of it: by signal or over the control socket.
//!
//! Main thread. Nothing that a stranger sends may have a say here.
#![forbid(unsafe_code)]

use super::{End, EventLoop};
use crate::control::protocol::{ControlReply, ControlRequest};
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

    pub(super) fn on_control(&mut self, token: u64, now: Now) {
        for incoming in self.control.on_ready(&self.epoll, token, now.instant) {
            let reply = if incoming.request == ControlRequest::Status {
                let status = self.reporter.status(now, &self.responder, &self.shared, &self.host);
                Some(ControlReply::Status(Box::new(status)))
            } else {
                self.operators.on_request(incoming.client, &incoming.request, &mut self.responder)
            };
            if let Some(reply) = reply {
                self.control.reply(&self.epoll, incoming.client, &reply, now.instant);
            }
        }
    }
}
