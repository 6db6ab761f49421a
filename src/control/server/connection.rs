//! A client's connection: its question comes in, its answer goes out. Run by the sensor's event loop.
//!
//! Never waits for the other end, keeps at most [`REPLY_LIMIT`] bytes for it, and lets in nobody but root and the
//! daemon's own user.
#![forbid(unsafe_code)]

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::sys::epoll::EpollFlags;
use nix::sys::socket::{getsockopt, sockopt};

use crate::control::protocol::{ControlReply, ControlRequest, REQUEST_LIMIT};

/// Time from connecting until the question has come: whoever is silent must not keep others waiting for a place.
pub const ASKING_TIME: Duration = Duration::from_secs(1);

/// Longest time in which a client takes nothing of what waits for it; how long the whole of an answer takes does not
/// matter, and while the helper is at work on it nobody is late but the helper.
pub const CLIENT_TIME: Duration = Duration::from_secs(10);

/// Bytes of replies kept for a client that does not read: more than a page of a list takes.
pub const REPLY_LIMIT: usize = 4 * 1024 * 1024;

/// Bytes of a list that go out together.
const TOGETHER: usize = 16 * 1024;

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) stream: UnixStream,
    pub(super) serial: u64,
    /// None while it is the client who waits for us.
    pub(super) deadline: Option<Instant>,
    request: Vec<u8>,
    pub(super) asked: bool,
    reply: Vec<u8>,
    /// The last line of the answer is in `reply`.
    pub(super) complete: bool,
}

/// What is to become of a client after a step.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Keep,
    Close,
}

pub(super) enum Received {
    Request(ControlRequest),
    Part,
    Wrong(String),
    Gone,
}

impl Connection {
    pub(super) fn admitted(
        stream: UnixStream,
        serial: u64,
        admitted: u32,
        now: Instant,
    ) -> Option<Connection> {
        stream.set_nonblocking(true).ok()?;
        let uid = getsockopt(&stream, sockopt::PeerCredentials).ok()?.uid();
        let mut client = Connection {
            stream,
            serial,
            deadline: Some(now + ASKING_TIME),
            request: Vec::new(),
            asked: false,
            reply: Vec::new(),
            complete: false,
        };
        if uid == 0 || uid == admitted {
            return Some(client);
        }
        let message = "Only root and the daemon's own user may use the control socket; try sudo.".to_owned();
        client.answer(&ControlReply::Error { message }, now);
        None
    }

    pub(super) fn has_read_all(&self) -> bool {
        self.reply.is_empty()
    }

    /// What epoll is to tell of: its question, room for its answer, or nothing (its hang-up is reported always).
    pub(super) fn awaited(&self) -> EpollFlags {
        match (self.asked, self.reply.is_empty()) {
            (false, _) => EpollFlags::EPOLLIN,
            (true, false) => EpollFlags::EPOLLOUT,
            (true, true) => EpollFlags::empty(),
        }
    }

    pub(super) fn receive(&mut self) -> Received {
        let mut buffer = [0; REQUEST_LIMIT];
        match self.stream.read(&mut buffer) {
            Ok(0) => Received::Gone,
            Ok(length) => {
                self.request.extend(buffer.iter().take(length));
                self.understood()
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                Received::Part
            }
            Err(_) => Received::Gone,
        }
    }

    fn understood(&mut self) -> Received {
        let end = self.request.iter().take(REQUEST_LIMIT).position(|&byte| byte == b'\n');
        let Some(line) = end.and_then(|end| self.request.get(..end)) else {
            let full = self.request.len() >= REQUEST_LIMIT;
            return if full { Received::Wrong(too_long()) } else { Received::Part };
        };
        match serde_json::from_slice(line) {
            Ok(request) => {
                self.asked = true;
                self.deadline = None;
                self.request = Vec::new();
                Received::Request(request)
            }
            Err(error) => Received::Wrong(format!("The request was not understood: {error}.")),
        }
    }

    pub(super) fn answer(&mut self, reply: &ControlReply, now: Instant) -> Fate {
        self.asked = true;
        self.complete = reply.is_last();
        let Ok(mut line) = serde_json::to_vec(reply) else { return Fate::Close };
        line.push(b'\n');
        if self.reply.len() + line.len() > REPLY_LIMIT {
            return Fate::Close;
        }
        let before = self.reply.len();
        self.reply.extend(line);
        if before == 0 {
            self.deadline = Some(now + CLIENT_TIME);
        }
        // What waits goes out when epoll says that there is room. The lines of a list wait for each other.
        let fills_up = before < TOGETHER && self.reply.len() >= TOGETHER;
        if fills_up || before == 0 && self.complete { self.send(now) } else { Fate::Keep }
    }

    /// Also with nothing to send: what epoll said may be out of date (room for what has gone out since), and a write of
    /// nothing tells whether anybody is there still.
    pub(super) fn send(&mut self, now: Instant) -> Fate {
        match self.stream.write(&self.reply) {
            Ok(0) => {}
            Ok(written) => {
                self.reply.drain(..written.min(self.reply.len()));
                self.deadline = (!self.reply.is_empty()).then_some(now + CLIENT_TIME);
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(_) => return Fate::Close,
        }
        if self.complete && self.reply.is_empty() { Fate::Close } else { Fate::Keep }
    }
}

fn too_long() -> String {
    format!("The request is longer than {REQUEST_LIMIT} bytes; send one JSON object and a newline.")
}
