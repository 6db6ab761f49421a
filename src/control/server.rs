//! The daemon's end of the control socket; run by the sensor's event loop.
//!
//! Bound before confinement. Never waits for a client: each has [`ASKING_TIME`] to ask, [`CLIENT_TIME`] to read on, and
//! at most [`REPLY_LIMIT`] bytes are kept for it. The socket's file stays when the daemon ends (by then it has no right
//! to remove it) and is taken away by the next start.
#![forbid(unsafe_code)]

use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::geteuid;
use socket2::{Domain, SockAddr, Socket, Type};

use super::protocol::{ControlReply, ControlRequest, REQUEST_LIMIT};

/// Clients served at once; further ones wait in the socket's queue.
pub const CLIENTS: usize = 8;

/// Tokens that the server uses, from the base given to [`ControlServer::register`]: the listener's, then the clients'.
pub const TOKENS: u64 = CLIENTS as u64 + 1;

/// Time from connecting until the question has come: whoever is silent must not keep others waiting for a place.
pub const ASKING_TIME: Duration = Duration::from_secs(1);

/// Longest time in which a client that has asked takes nothing of its answer; how long the whole of it takes does not
/// matter.
pub const CLIENT_TIME: Duration = Duration::from_secs(10);

/// Pause after the system had no descriptor for a client: a ready listener would spin the event loop.
const REST: Duration = Duration::from_secs(1);

/// Bytes of replies kept for a client that does not read: more than a page of a list takes.
pub const REPLY_LIMIT: usize = 4 * 1024 * 1024;

/// Bytes of a list that go out together.
const TOGETHER: usize = 16 * 1024;

/// Why the control socket cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// A daemon answers there.
    #[error("Another daemon, process {1}, answers on {0}; stop it, or give this one its own CONTROL_SOCKET")]
    Occupied(PathBuf, String),
    /// A file of another kind is there.
    #[error("{0} exists and is not a socket; remove it, or give another CONTROL_SOCKET")]
    NotASocket(PathBuf),
    /// The system refused.
    #[error(
        "The control socket {path} cannot be made: {source}; check CONTROL_SOCKET and the rights of its folder"
    )]
    System {
        /// The configured path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

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
    clients: [Option<Client>; CLIENTS],
}

#[derive(Debug)]
struct Client {
    stream: UnixStream,
    serial: u64,
    deadline: Instant,
    request: Vec<u8>,
    asked: bool,
    reply: Vec<u8>,
    /// The last line of the answer is in `reply`.
    complete: bool,
}

/// What is to become of a client after a step.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Keep,
    Close,
}

impl ControlServer {
    /// Binds `path` with mode 0600, making its folder (0755) and removing a socket that nobody listens on. Root and
    /// the user id `admitted` (the daemon's own, after it left root) may use it.
    pub fn bind(path: &Path, admitted: u32) -> Result<ControlServer, BindError> {
        clear(path)?;
        let listener = listening(path, admitted)
            .map_err(|source| BindError::System { path: path.to_owned(), source })?;
        Ok(ControlServer {
            listener,
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
        let Some(Some(found)) = self.clients.get_mut(client.slot) else { return };
        if found.serial != client.serial || found.complete {
            return;
        }
        let fate = found.answer(reply, now);
        self.settle(epoll, client.slot, fate);
    }

    /// Whether `client` still waits for (more of) its answer.
    pub fn is_waiting(&self, client: ClientId) -> bool {
        matches!(self.clients.get(client.slot), Some(Some(found)) if found.serial == client.serial && !found.complete)
    }

    /// Whether `client` has read all that it was sent.
    pub fn reader(&self, client: ClientId) -> Reader {
        match self.clients.get(client.slot) {
            Some(Some(found)) if found.serial == client.serial => {
                if found.reply.is_empty() {
                    Reader::Ready
                } else {
                    Reader::Busy
                }
            }
            Some(_) | None => Reader::Gone,
        }
    }

    /// When [`ControlServer::sweep`] has something to do; `None` while there is nothing to wait for.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.clients.iter().flatten().map(|client| client.deadline).chain(self.resting).min()
    }

    /// Drops the clients whose time is over, and wakes a listener that rested.
    pub fn sweep(&mut self, epoll: &Epoll, now: Instant) {
        if self.resting.is_some_and(|until| until <= now) {
            self.resting = None;
            self.listen(epoll, EpollFlags::EPOLLIN);
        }
        for slot in 0..CLIENTS {
            let late =
                self.clients.get(slot).is_some_and(|client| matches!(client, Some(it) if it.deadline <= now));
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
        if let Some(client) = Client::admitted(stream, self.serial, self.admitted, now) {
            self.enter(epoll, slot, client);
        }
    }

    fn enter(&mut self, epoll: &Epoll, slot: usize, client: Client) {
        let event = EpollEvent::new(EpollFlags::EPOLLIN, self.base + slot as u64 + 1);
        if epoll.add(&client.stream, event).is_ok()
            && let Some(place) = self.clients.get_mut(slot)
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
        let (request, fate) = match client.receive(now) {
            Received::Request(request) => (Some(Incoming { client: id, request }), Fate::Keep),
            Received::Part => (None, Fate::Keep),
            Received::Wrong(message) => (None, client.answer(&ControlReply::Error { message }, now)),
            Received::Gone => (None, Fate::Close),
        };
        self.settle(epoll, slot, fate);
        request
    }

    /// Closes the client, or tells epoll what it waits for: its question, room for its answer, or nothing (its hang-up
    /// is reported always).
    fn settle(&mut self, epoll: &Epoll, slot: usize, fate: Fate) {
        let token = self.base + slot as u64 + 1;
        let Some(place) = self.clients.get_mut(slot) else { return };
        if let (Fate::Keep, Some(client)) = (fate, &place) {
            let wanted = match (client.asked, client.reply.is_empty()) {
                (false, _) => EpollFlags::EPOLLIN,
                (true, false) => EpollFlags::EPOLLOUT,
                (true, true) => EpollFlags::empty(),
            };
            if epoll.modify(&client.stream, &mut EpollEvent::new(wanted, token)).is_ok() {
                return;
            }
        }
        *place = None;
        self.listen(epoll, EpollFlags::EPOLLIN);
    }

    fn listen(&self, epoll: &Epoll, wanted: EpollFlags) {
        // Fails only if the listener was never registered, and then nothing wakes us anyhow.
        let _ = epoll.modify(&self.listener, &mut EpollEvent::new(wanted, self.base));
    }
}

enum Received {
    Request(ControlRequest),
    Part,
    Wrong(String),
    Gone,
}

impl Client {
    fn admitted(stream: UnixStream, serial: u64, admitted: u32, now: Instant) -> Option<Client> {
        stream.set_nonblocking(true).ok()?;
        let uid = getsockopt(&stream, sockopt::PeerCredentials).ok()?.uid();
        let mut client = Client {
            stream,
            serial,
            deadline: now + ASKING_TIME,
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

    fn receive(&mut self, now: Instant) -> Received {
        let mut buffer = [0; REQUEST_LIMIT];
        match self.stream.read(&mut buffer) {
            Ok(0) => Received::Gone,
            Ok(length) => {
                self.request.extend(buffer.iter().take(length));
                self.understood(now)
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                Received::Part
            }
            Err(_) => Received::Gone,
        }
    }

    fn understood(&mut self, now: Instant) -> Received {
        let end = self.request.iter().take(REQUEST_LIMIT).position(|&byte| byte == b'\n');
        let Some(line) = end.and_then(|end| self.request.get(..end)) else {
            let full = self.request.len() >= REQUEST_LIMIT;
            return if full { Received::Wrong(too_long()) } else { Received::Part };
        };
        match serde_json::from_slice(line) {
            Ok(request) => {
                self.asked = true;
                self.deadline = now + CLIENT_TIME;
                self.request = Vec::new();
                Received::Request(request)
            }
            Err(error) => Received::Wrong(format!("The request was not understood: {error}.")),
        }
    }

    fn answer(&mut self, reply: &ControlReply, now: Instant) -> Fate {
        self.asked = true;
        self.complete = reply.is_last();
        let Ok(mut line) = serde_json::to_vec(reply) else { return Fate::Close };
        line.push(b'\n');
        if self.reply.len() + line.len() > REPLY_LIMIT {
            return Fate::Close;
        }
        let before = self.reply.len();
        self.reply.extend(line);
        // What waits goes out when epoll says that there is room. The lines of a list wait for each other.
        let fills_up = before < TOGETHER && self.reply.len() >= TOGETHER;
        if fills_up || before == 0 && self.complete { self.send(now) } else { Fate::Keep }
    }

    /// Also with nothing to send: what epoll said may be out of date (room for what has gone out since), and a write of
    /// nothing tells whether anybody is there still.
    fn send(&mut self, now: Instant) -> Fate {
        match self.stream.write(&self.reply) {
            Ok(0) => {}
            Ok(written) => {
                self.reply.drain(..written.min(self.reply.len()));
                self.deadline = now + CLIENT_TIME;
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

/// Leaves nothing at `path`, unless a daemon listens there or it is no socket.
fn clear(path: &Path) -> Result<(), BindError> {
    let failed = |source| BindError::System { path: path.to_owned(), source };
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        DirBuilder::new().recursive(true).mode(0o755).create(parent).map_err(failed)?;
    }
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
        Ok(found) if !found.file_type().is_socket() => return Err(BindError::NotASocket(path.to_owned())),
        Ok(_) => {}
    }
    let process = match connected(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            return fs::remove_file(path).map_err(failed);
        }
        Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(failed(error)),
        // A full queue (EAGAIN) is a daemon's too, if a busy one's.
        Err(_) => None,
        Ok(asking) => getsockopt(&asking, sockopt::PeerCredentials).ok().map(|daemon| daemon.pid()),
    };
    Err(BindError::Occupied(path.to_owned(), process.map_or_else(|| "unknown".into(), |pid| pid.to_string())))
}

fn connected(path: &Path) -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.connect(&SockAddr::unix(path)?)?;
    Ok(socket)
}

/// Nobody can connect before `listen`, and by then mode and owner are set.
fn listening(path: &Path, owner: u32) -> io::Result<UnixListener> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::unix(path)?)?;
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    if geteuid().is_root() {
        chown(path, Some(owner), None)?;
    }
    socket.listen(CLIENTS as i32)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/control");
        let first = ControlServer::bind(&path, 0).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(ControlServer::bind(&path, 0), Err(BindError::Occupied(..))));
        drop(first);
        assert!(path.exists());
        ControlServer::bind(&path, 0).unwrap();
    }

    #[test]
    fn what_is_not_a_socket_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control");
        fs::write(&path, "precious").unwrap();
        assert!(matches!(ControlServer::bind(&path, 0), Err(BindError::NotASocket(_))));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[test]
    fn a_path_too_long_for_a_socket_is_an_error_that_names_the_key() {
        let folder = tempfile::tempdir().unwrap();
        let error = ControlServer::bind(&folder.path().join("x".repeat(200)), 0).unwrap_err();
        assert!(error.to_string().contains("CONTROL_SOCKET"), "{error}");
    }
}
