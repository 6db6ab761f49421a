//! The decoys: ports where nothing lives, kept open to see who comes. One epoll loop, the main thread's. Run by the sensor.
//!
//! Bounded in visitors, bytes and time; a visitor beyond the bounds is still seen, only not talked to. Never lets
//! anybody in.
#![forbid(unsafe_code)]

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use nix::sys::resource::{Resource, getrlimit};
use socket2::Socket;

use super::conversation::{Conversation, State, say};
use super::datagram::{self, Courtesy};
use super::listener::Listener;
pub use super::listener::{DecoyError, Skipped};
use super::services::{Next, Service, Talk};
use crate::config::BothPorts;
use crate::detect::probe::{Probe, Protocol, ScanType};
use crate::packet::TcpFlags;

/// Conversations at a time.
const CONVERSATIONS: usize = 256;
/// Conversations at a time with one source.
const CONVERSATIONS_PER_SOURCE: usize = 4;
/// Visitors taken from one port before the loop looks at anything else.
const TAKEN_PER_WAKE: usize = 64;
/// Open files that are left to others, the clients of the control socket first of all: a visitor on one of the last is seen,
/// and not talked to.
const FILES_TO_SPARE: RawFd = 16;
/// How long a port rests after the kernel had no file or memory for its next visitor.
const REST: Duration = Duration::from_secs(1);

/// Somebody came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Visit {
    /// Who; IPv4-mapped addresses are given as IPv4.
    pub source: SocketAddr,
    /// Which of our addresses and ports was asked, likewise.
    pub destination: SocketAddr,
    /// The interface it came by; 0 where only `destination` tells, as with most of TCP.
    pub interface: u32,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// A TCP handshake proves that the source receives at its address; a datagram proves nothing.
    pub verified: bool,
}

impl Visit {
    /// The visit as a probe: what the score table counts.
    pub fn probe(&self) -> Probe {
        let tcp = self.protocol == Protocol::Tcp;
        Probe {
            source: self.source.ip(),
            destination: self.destination.ip(),
            source_port: self.source.port(),
            port: self.destination.port(),
            protocol: self.protocol,
            scan_type: if tcp { ScanType::Connect } else { ScanType::Udp },
            flags: TcpFlags::default(),
            sequence: 0,
            ip_options: None,
            verified: self.verified,
        }
    }
}

/// What decoys must be told of others, to know whom they have to do with.
#[derive(Clone, Copy)]
pub struct Manners<'a> {
    /// Whether PORT_BANNER is for this source.
    pub due: &'a dyn Fn(IpAddr) -> bool,
    /// Whether an address that a datagram was sent to is everybody's: who calls all its neighbours looks for no decoy.
    pub is_for_everybody: &'a dyn Fn(IpAddr) -> bool,
}

/// All decoys and the visitors they talk to.
#[derive(Debug)]
pub struct Decoys {
    listeners: Vec<Listener>,
    /// PORT_BANNER: said instead of any service's greeting.
    banner: Option<Vec<u8>>,
    courtesy: Courtesy,
    conversations: Vec<Option<Conversation>>,
    /// Listeners that rest, and until when.
    resting: Vec<(usize, Instant)>,
    token_base: u64,
    /// Where the descriptors end that visitors may hold.
    files: RawFd,
}

impl Decoys {
    /// Binds every one of `ports` that is free; the others are returned.
    ///
    /// # Errors
    /// A port that may not be bound, or too many of them. A port in use is none.
    pub fn bind(ports: &BothPorts, banner: Option<&str>) -> Result<(Decoys, Vec<Skipped>), DecoyError> {
        let (mut listeners, mut skipped) = (Vec::new(), Vec::new());
        for (protocol, port) in ports.iter() {
            match Listener::bind(port, protocol)? {
                Some(listener) => listeners.push(listener),
                None => skipped.push(Skipped { port, protocol }),
            }
        }
        let decoys = Decoys {
            listeners,
            banner: banner.map(|text| text.as_bytes().to_vec()),
            courtesy: Courtesy::default(),
            conversations: Vec::new(),
            resting: Vec::new(),
            token_base: 0,
            files: files_of_process().saturating_sub(FILES_TO_SPARE),
        };
        Ok((decoys, skipped))
    }

    /// The ports that are ours.
    pub fn ports(&self) -> BothPorts {
        self.listeners.iter().map(|listener| (listener.protocol, listener.port)).collect()
    }

    /// The sockets that answer datagrams, by their numbers; none without PORT_BANNER.
    pub fn answering(&self) -> Vec<RawFd> {
        let udp = self.listeners.iter().filter(|listener| listener.protocol == Protocol::Udp);
        udp.filter(|_| self.banner.is_some()).map(|listener| listener.socket.as_raw_fd()).collect()
    }

    /// Conversations going on.
    pub fn conversations(&self) -> usize {
        self.conversations.iter().flatten().count()
    }

    /// Enters the decoys into the loop, under the tokens from `token_base` on: one for each listener, then the conversations'.
    ///
    /// # Errors
    /// The kernel would not watch a socket.
    pub fn register(&mut self, epoll: &Epoll, token_base: u64) -> Result<(), DecoyError> {
        self.token_base = token_base;
        for (token, listener) in (token_base..).zip(&self.listeners) {
            let event = EpollEvent::new(EpollFlags::EPOLLIN, token);
            epoll.add(&listener.socket, event).map_err(DecoyError::Register)?;
        }
        Ok(())
    }

    /// A socket of ours is ready. New visitors are greeted first and then added to `visits`, each exactly once: who
    /// gets blocked for his visit has seen the greeting. A stale or foreign token does nothing.
    pub fn on_ready(
        &mut self,
        token: u64,
        now: Instant,
        epoll: &Epoll,
        manners: Manners,
        visits: &mut Vec<Visit>,
    ) {
        let Some(index) = token.checked_sub(self.token_base).and_then(|at| usize::try_from(at).ok()) else {
            return;
        };
        match self.listeners.get(index).map(|listener| listener.protocol) {
            Some(Protocol::Tcp) => self.welcome(index, now, epoll, manners, visits),
            Some(_) => self.collect(index, now, manners, visits),
            None => self.talk(index.saturating_sub(self.listeners.len()), now),
        }
    }

    /// When [`Decoys::on_deadline`] is due.
    pub fn next_deadline(&self) -> Option<Instant> {
        let talks = self.conversations.iter().flatten().map(Conversation::deadline);
        talks.chain(self.resting.iter().map(|&(_, until)| until)).min()
    }

    /// Ends the conversations whose time is up and wakes the ports that have rested.
    pub fn on_deadline(&mut self, now: Instant, epoll: &Epoll) {
        for slot in &mut self.conversations {
            slot.take_if(|conversation| conversation.deadline() <= now);
        }
        let rested: Vec<usize> =
            self.resting.extract_if(.., |&mut (_, until)| until <= now).map(|(index, _)| index).collect();
        for index in rested {
            self.watch(index, EpollFlags::EPOLLIN, epoll);
        }
    }

    fn talk(&mut self, slot: usize, now: Instant) {
        if let Some(slot) = self.conversations.get_mut(slot) {
            slot.take_if(|conversation| conversation.on_ready(now) == State::Over);
        }
    }

    fn welcome(
        &mut self,
        index: usize,
        now: Instant,
        epoll: &Epoll,
        manners: Manners,
        visits: &mut Vec<Visit>,
    ) {
        for _ in 0..TAKEN_PER_WAKE {
            let Some(listener) = self.listeners.get(index) else { return };
            match listener.socket.accept4(libc::SOCK_CLOEXEC) {
                Ok((stream, source)) => {
                    let port = listener.port;
                    let source = source.as_socket().map(canonical);
                    visits.extend(
                        source.and_then(|source| self.greet(stream, source, port, now, epoll, manners.due)),
                    );
                }
                Err(error) => match error.raw_os_error() {
                    Some(libc::EAGAIN) => return,
                    // The visitor stays in the queue and would wake us for ever.
                    Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => {
                        return self.rest(index, now, epoll);
                    }
                    // Network errors of a connection that is gone already (accept(2)): the next one may be well.
                    _ => {}
                },
            }
        }
    }

    /// `None` only where the kernel no longer knows whom the connection was for.
    fn greet(
        &mut self,
        stream: Socket,
        source: SocketAddr,
        port: u16,
        now: Instant,
        epoll: &Epoll,
        due: &dyn Fn(IpAddr) -> bool,
    ) -> Option<Visit> {
        let service = if self.banner.is_some() { Service::Silent } else { Service::at(port) };
        let (text, next) = match &self.banner {
            Some(banner) if due(source.ip()) => (banner.as_slice(), Next::Close),
            Some(_) => (&[][..], Next::Close),
            None => service.greeting(),
        };
        let greeted = say(&stream, text);
        let local = stream.local_addr().ok()?.as_socket()?;
        let (destination, interface) = (canonical(local), scope(local));
        // The kernel gives the lowest number that is free.
        let may_stay = greeted && stream.as_raw_fd() < self.files;
        if may_stay && let Some(slot) = self.free_slot(source.ip()) {
            let talk = Talk::new(service);
            self.keep(slot, Conversation::begin(stream, source.ip(), talk, next, now), epoll);
        }
        Some(Visit { source, destination, interface, protocol: Protocol::Tcp, verified: true })
    }

    fn free_slot(&self, source: IpAddr) -> Option<usize> {
        let known = self.conversations.iter().flatten().filter(|other| other.is_with(source)).count();
        let free = self.conversations.iter().position(Option::is_none).unwrap_or(self.conversations.len());
        (known < CONVERSATIONS_PER_SOURCE && free < CONVERSATIONS).then_some(free)
    }

    fn keep(&mut self, slot: usize, conversation: Conversation, epoll: &Epoll) {
        let token = u64::try_from(self.listeners.len() + slot).ok();
        let Some(token) = token.and_then(|offset| self.token_base.checked_add(offset)) else { return };
        let event = EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP, token);
        if epoll.add(&conversation, event).is_err() {
            return;
        }
        match self.conversations.get_mut(slot) {
            Some(free) => *free = Some(conversation),
            None => self.conversations.push(Some(conversation)),
        }
    }

    fn collect(&mut self, index: usize, now: Instant, manners: Manners, visits: &mut Vec<Visit>) {
        let Some(listener) = self.listeners.get(index) else { return };
        for _ in 0..TAKEN_PER_WAKE {
            match datagram::receive(&listener.socket) {
                Ok(datagram) if (manners.is_for_everybody)(datagram.destination) => {}
                Ok(datagram) => {
                    let source = canonical(datagram.source);
                    if let Some(banner) = self.banner.as_ref().filter(|_| (manners.due)(source.ip())) {
                        let whole = self.courtesy.extend_to(source.ip(), now);
                        datagram::answer(&listener.socket, &datagram, banner, whole);
                    }
                    let destination = SocketAddr::new(datagram.destination, listener.port);
                    let interface = datagram.interface;
                    let protocol = Protocol::Udp;
                    visits.push(Visit { source, destination, interface, protocol, verified: false });
                }
                Err(Errno::EAGAIN) => return,
                Err(_) => {}
            }
        }
    }

    fn rest(&mut self, index: usize, now: Instant, epoll: &Epoll) {
        self.watch(index, EpollFlags::empty(), epoll);
        self.resting.push((index, now + REST));
    }

    fn watch(&self, index: usize, flags: EpollFlags, epoll: &Epoll) {
        let offset = u64::try_from(index).ok();
        let token = offset.and_then(|offset| self.token_base.checked_add(offset));
        if let (Some(listener), Some(token)) = (self.listeners.get(index), token) {
            // Can only fail for a socket that is not in the loop, and then there is nothing to watch.
            let _ = epoll.modify(&listener.socket, &mut EpollEvent::new(flags, token));
        }
    }
}

/// How many files this process may have open at a time.
fn files_of_process() -> RawFd {
    let limit = getrlimit(Resource::RLIMIT_NOFILE).ok();
    limit.and_then(|(soft, _)| RawFd::try_from(soft).ok()).unwrap_or(RawFd::MAX)
}

/// A link-local address is one of a certain interface's.
fn scope(address: SocketAddr) -> u32 {
    match address {
        SocketAddr::V6(v6) => v6.scope_id(),
        SocketAddr::V4(_) => 0,
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_visit_is_a_verified_connect_or_an_unverified_datagram() {
        let source: SocketAddr = "[::ffff:192.0.2.1]:40000".parse().unwrap();
        let destination = "198.51.100.1:21".parse().unwrap();
        let (source, protocol) = (canonical(source), Protocol::Tcp);
        let visit = Visit { source, destination, interface: 0, protocol, verified: true };
        let probe = visit.probe();
        assert_eq!((probe.scan_type, probe.verified, probe.port), (ScanType::Connect, true, 21));
        assert_eq!(probe.source, "192.0.2.1".parse::<IpAddr>().unwrap());
        let datagram = Visit { protocol: Protocol::Udp, verified: false, ..visit };
        assert_eq!((datagram.probe().scan_type, datagram.probe().verified), (ScanType::Udp, false));
    }
}
