//! One visitor of a TCP decoy, from greeting to goodbye, within limits of bytes, answers and time. Run by the sensor.
//!
//! Never blocks and never queues: what does not fit the socket's buffer at once ends the conversation.
#![forbid(unsafe_code)]

use std::net::{IpAddr, Ipv6Addr, Shutdown};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, send};
use socket2::Socket;

use super::services::{Next, SPEECH_LIMIT, Talk};

/// A visitor who says nothing for so long is let go.
const IDLE_LIMIT: Duration = Duration::from_secs(5);
/// No visit lasts longer, however busy.
const TOTAL_LIMIT: Duration = Duration::from_secs(15);
/// After our FIN: how long we wait for the visitor's, so that it reads our last words before any reset.
const FAREWELL_LIMIT: Duration = Duration::from_secs(1);
/// Bytes read of one visitor.
const READ_LIMIT: usize = 1024;

/// A visitor that is being talked to.
#[derive(Debug)]
pub struct Conversation {
    stream: Socket,
    source: IpAddr,
    talk: Talk,
    heard: usize,
    leaving: bool,
    ends: Instant,
    deadline: Instant,
}

/// Whether a conversation needs its socket any longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Wait for the socket or the deadline.
    Open,
    /// Drop it.
    Over,
}

impl Conversation {
    /// Goes on after the greeting; `next` says whether there is anything to wait for.
    pub fn begin(stream: Socket, source: IpAddr, talk: Talk, next: Next, now: Instant) -> Conversation {
        let (ends, deadline) = (now + TOTAL_LIMIT, now + IDLE_LIMIT);
        let mut begun = Conversation { stream, source, talk, heard: 0, leaving: false, ends, deadline };
        if next == Next::Close {
            begun.say_goodbye(now);
        }
        begun
    }

    /// When it must end, unless something is heard before.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Whether `source` is the same visitor: the same address, or the same /64, of which any host has all.
    pub fn is_with(&self, source: IpAddr) -> bool {
        site(self.source) == site(source)
    }

    /// The socket has something: reads it once and answers.
    pub fn on_ready(&mut self, now: Instant) -> State {
        let mut heard = [0_u8; READ_LIMIT];
        match recv(self.stream.as_raw_fd(), &mut heard, MsgFlags::MSG_DONTWAIT) {
            Ok(0) => State::Over,
            Ok(length) => self.answer(heard.get(..length).unwrap_or_default(), now),
            Err(Errno::EAGAIN | Errno::EINTR) => State::Open,
            Err(_) => State::Over,
        }
    }

    /// What is heard after the goodbye only keeps the limits: it is read so that closing sends no reset, never looked at.
    fn answer(&mut self, heard: &[u8], now: Instant) -> State {
        let allowance = READ_LIMIT.saturating_sub(self.heard).min(heard.len());
        self.heard = self.heard.saturating_add(heard.len());
        if self.leaving {
            return if self.heard > 4 * READ_LIMIT { State::Over } else { State::Open };
        }
        let heard = heard.get(..allowance).unwrap_or_default();
        self.deadline = self.ends.min(now + IDLE_LIMIT);
        let mut out = Vec::new();
        let next = self.talk.hear(heard, &mut out);
        debug_assert!(out.len() <= SPEECH_LIMIT);
        if !say(&self.stream, &out) {
            return State::Over;
        }
        if next == Next::Close || self.heard >= READ_LIMIT {
            self.say_goodbye(now);
        }
        State::Open
    }

    fn say_goodbye(&mut self, now: Instant) {
        self.leaving = true;
        self.deadline = self.ends.min(now + FAREWELL_LIMIT);
        // Fails only if the visitor is gone, which the next event tells.
        let _ = self.stream.shutdown(Shutdown::Write);
    }
}

impl AsFd for Conversation {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// Writes all of `text` at once; `false` if the socket would not take it.
pub fn say(stream: &Socket, text: &[u8]) -> bool {
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    text.is_empty() || send(stream.as_raw_fd(), text, flags) == Ok(text.len())
}

fn site(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from(u128::from(address) & !u128::from(u64::MAX))),
    }
}
