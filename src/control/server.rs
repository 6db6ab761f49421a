//! The daemon's end of the control socket; run by the sensor's event loop.
//!
//! Bound before confinement. Never waits for a client: each has [`ASKING_TIME`] to ask, [`CLIENT_TIME`] to read on, and
//! as long as the helper takes to wait for its word; at most [`REPLY_LIMIT`] bytes are kept for it. The socket's file
//! stays when the daemon ends (by then it has no right to remove it) and is taken away by the next start.
#![forbid(unsafe_code)]

mod bind;
mod connection;

use std::io::{self, ErrorKind};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};

pub use bind::{BindError, obstacle};
pub use connection::{ASKING_TIME, CLIENT_TIME, REPLY_LIMIT};

use self::connection::{Connection, Fate, Received};
use super::protocol::{ControlReply, ControlRequest};

/// Clients served at once; further ones wait in the socket's queue.
pub const CLIENTS: usize = 8;

/// Tokens that the server uses, from the base given to [`ControlServer::register`]: the listener's, then the clients'.
pub const TOKENS: u64 = CLIENTS as u64 + 1;

/// Pause after the system had no descriptor for a client: a ready listener would spin the event loop.
const REST: Duration = Duration::from_secs(1);

/// Which client asked; outlives the client without ever meaning another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientId {
    slot: usize,
    serial: u64,
}

/// A client that is being sent a long answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// It has read everything.
    Ready,
    /// Something still waits for it.
    Busy,
    /// It is not there any more.
    Gone,
}

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incoming {
    /// Who asked.
    pub client: ClientId,
    /// For what.
    pub request: ControlRequest,
}

/// The listening socket and its clients.
#[derive(Debug)]
pub struct ControlServer {
    listener: UnixListener,
    admitted: u32,
    base: u64,
    serial: u64,
    /// No descriptor was to be had: the listener rests until then.
    resting: Option<Instant>,
    clients: [Option<Connection>; CLIENTS],
}

impl ControlServer {
    /// Binds `path` with mode 0600, making its folder (0755) and removing a socket that nobody listens on. Root and
    /// the user id `admitted` (the daemon's own, after it left root) may use it.
    pub fn bind(path: &Path, admitted: u32) -> Result<ControlServer, BindError> {
        Ok(ControlServer {
            listener: bind::bound(path, admitted)?,
            admitted,
            base: 0,
            serial: 0,
            resting: None,
            clients: Default::default(),
        })
    }

    /// Adds the listener to `epoll`; the tokens `base..base + TOKENS` are the server's from now on.
    pub fn register(&mut self, epoll: &Epoll, base: u64) -> io::Result<()> {
        self.base = base;
        Ok(epoll.add(&self.listener, EpollEvent::new(EpollFlags::EPOLLIN, base))?)
    }

    /// Whether an epoll token is the server's.
    pub fn owns(&self, token: u64) -> bool {
        (self.base..self.base.saturating_add(TOKENS)).contains(&token)
    }

    /// Serves a socket that epoll reported as ready. Yields the requests that are complete now; each must be answered
    /// with [`ControlServer::reply`].
    pub fn on_ready(&mut self, epoll: &Epoll, token: u64, now: Instant) -> Vec<Incoming> {
        match token.checked_sub(self.base) {
            Some(0) => {
                self.accept(epoll, now);
                Vec::new()
            }
            Some(client) => self.serve(epoll, client as usize - 1, now).into_iter().collect(),
            None => Vec::new(),
        }
    }

    /// Sends a line to `client`; after the last one of an answer the connection ends. A client that is gone or does not
    /// read loses its answer.
    pub fn reply(&mut self, epoll: &Epoll, client: ClientId, reply: &ControlReply, now: Instant) {
        let found = self.clients.get_mut(client.slot).and_then(Option::as_mut);
        if let Some(found) = found.filter(|found| found.serial == client.serial && !found.complete) {
            let fate = found.answer(reply, now);
            self.settle(epoll, client.slot, fate);
        }
    }

    /// Whether `client` still waits for (more of) its answer.
    pub fn is_waiting(&self, client: ClientId) -> bool {
        self.connection(client).is_some_and(|found| !found.complete)
    }

    /// Whether `client` has read all that it was sent.
    pub fn reader(&self, client: ClientId) -> Reader {
        match self.connection(client) {
            Some(found) if found.has_read_all() => Reader::Ready,
            Some(_) => Reader::Busy,
            None => Reader::Gone,
        }
    }

    /// That of `client`, if it is still there.
    fn connection(&self, client: ClientId) -> Option<&Connection> {
        let found = self.clients.get(client.slot).and_then(Option::as_ref);
        found.filter(|found| found.serial == client.serial)
    }

    /// When [`ControlServer::sweep`] has something to do; `None` while there is nothing to wait for.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.clients.iter().flatten().filter_map(|client| client.deadline).chain(self.resting).min()
    }

    /// Drops the clients whose time is over, and wakes a listener that rested.
    pub fn sweep(&mut self, epoll: &Epoll, now: Instant) {
        if self.resting.is_some_and(|until| until <= now) {
            self.resting = None;
            self.listen(epoll, EpollFlags::EPOLLIN);
        }
        for slot in 0..CLIENTS {
            let client = self.clients.get(slot).and_then(Option::as_ref);
            let late = client.and_then(|client| client.deadline).is_some_and(|deadline| deadline <= now);
            if late {
                self.settle(epoll, slot, Fate::Close);
            }
        }
    }

    /// At most [`CLIENTS`] a wake-up, so that a crowd that is turned away cannot hold up the event loop.
    fn accept(&mut self, epoll: &Epoll, now: Instant) {
        for _ in 0..CLIENTS {
            let Some(slot) = self.clients.iter().position(Option::is_none) else { break };
            match self.listener.accept() {
                Ok((stream, _)) => self.admit(epoll, slot, stream, now),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => return self.rest(epoll, now),
            }
        }
        if self.clients.iter().all(Option::is_some) {
            // The rest waits in the queue, and must not wake us until a place is free.
            self.listen(epoll, EpollFlags::empty());
        }
    }

    fn rest(&mut self, epoll: &Epoll, now: Instant) {
        self.resting = Some(now + REST);
        self.listen(epoll, EpollFlags::empty());
    }

    fn admit(&mut self, epoll: &Epoll, slot: usize, stream: UnixStream, now: Instant) {
        self.serial += 1;
        let event = EpollEvent::new(EpollFlags::EPOLLIN, self.base + slot as u64 + 1);
        if let Some(client) = Connection::admitted(stream, self.serial, self.admitted, now)
            && let Some(place) = self.clients.get_mut(slot)
            && epoll.add(&client.stream, event).is_ok()
        {
            *place = Some(client);
        }
    }

    fn serve(&mut self, epoll: &Epoll, slot: usize, now: Instant) -> Option<Incoming> {
        let client = self.clients.get_mut(slot)?.as_mut()?;
        let id = ClientId { slot, serial: client.serial };
        if client.asked {
            let fate = client.send(now);
            self.settle(epoll, slot, fate);
            return None;
        }
        let (request, fate) = match client.receive() {
            Received::Request(request) => (Some(Incoming { client: id, request }), Fate::Keep),
            Received::Part => (None, Fate::Keep),
            Received::Wrong(message) => (None, client.answer(&ControlReply::Error { message }, now)),
            Received::Gone => (None, Fate::Close),
        };
        self.settle(epoll, slot, fate);
        request
    }

    /// Closes the client, or has epoll tell of what it waits for now.
    fn settle(&mut self, epoll: &Epoll, slot: usize, fate: Fate) {
        let token = self.base + slot as u64 + 1;
        let Some(place) = self.clients.get_mut(slot) else { return };
        if let (Fate::Keep, Some(client)) = (fate, &place)
            && epoll.modify(&client.stream, &mut EpollEvent::new(client.awaited(), token)).is_ok()
        {
            return;
        }
        *place = None;
        self.listen(epoll, EpollFlags::EPOLLIN);
    }

    fn listen(&self, epoll: &Epoll, wanted: EpollFlags) {
        // Fails only if the listener was never registered, and then nothing wakes us anyhow.
        let _ = epoll.modify(&self.listener, &mut EpollEvent::new(wanted, self.base));
    }
}
