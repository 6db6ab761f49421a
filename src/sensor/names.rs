//! RESOLVE_HOST: events wait here for the name of their source, a short while and in order. The sensor's main thread.
//!
//! Only what is told waits; blocks never do. The socket is opened before confinement. Everything is bounded: events that
//! wait, questions on their way, names that are remembered.
#![forbid(unsafe_code)]

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use super::ptr;
use crate::event::Event;
use crate::sys;

/// How long an event waits for a name.
const PATIENCE: Duration = Duration::from_millis(1_500);
/// How long a name, or that there is none, is believed.
const REMEMBERED: Duration = Duration::from_secs(300);
/// Events that wait; the oldest is told without a name to make room.
const WAITING: usize = 1_024;
/// Questions on their way; sources beyond are told by address.
const ASKED: usize = 64;
/// Names remembered.
const KNOWN: usize = 1_024;

/// A source's name as far as it is known.
#[derive(Debug)]
enum Known {
    Asked { id: u16, until: Instant },
    Told { name: Option<String>, until: Instant },
}

/// The resolver's end of it.
#[derive(Debug)]
pub struct Names {
    socket: UdpSocket,
    known: HashMap<IpAddr, Known>,
    waiting: VecDeque<(Event, Instant)>,
}

impl Names {
    /// Opens a socket to `resolver`, port 53.
    ///
    /// # Errors
    /// There is no way to it.
    pub fn open(resolver: IpAddr) -> io::Result<Names> {
        let any: IpAddr = match resolver {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect((resolver, 53))?;
        socket.set_nonblocking(true)?;
        Ok(Names { socket, known: HashMap::new(), waiting: VecDeque::new() })
    }

    /// Takes an event in; those that need wait no longer come out of [`ready`](Self::ready).
    pub fn hold(&mut self, event: Event, now: Instant) {
        if let Some(flow) = event.flow.as_ref().filter(|_| event.probe.is_some()) {
            self.ask(flow.src_ip, now);
        }
        self.waiting.push_back((event, now + PATIENCE));
    }

    /// The next event to tell, in the order in which they came.
    pub fn ready(&mut self, now: Instant) -> Option<Event> {
        let (event, until) = self.waiting.front()?;
        let source = event.flow.as_ref().filter(|_| event.probe.is_some()).map(|flow| flow.src_ip);
        let name = source.and_then(|source| self.known.get(&source));
        let must_wait =
            matches!(name, Some(Known::Asked { until: name_until, .. }) if now < *name_until && now < *until);
        if must_wait && self.waiting.len() <= WAITING {
            return None;
        }
        let name = name.and_then(|known| match known {
            Known::Told { name, .. } => name.clone(),
            Known::Asked { .. } => None,
        });
        let (mut event, _) = self.waiting.pop_front()?;
        if let Some(flow) = &mut event.flow {
            flow.src_host = name;
        }
        Some(event)
    }

    /// Takes answers in: no more in a turn than there can be questions, for whoever floods us with them would keep
    /// the main thread here. What is left makes the socket ready again.
    pub fn on_ready(&mut self, now: Instant) {
        let mut datagram = [0; 1232];
        for _ in 0..ASKED {
            // An error tells of a resolver that is not there; the questions' time runs out.
            let Ok(length) = self.socket.recv(&mut datagram) else { return };
            let bytes = datagram.get(..length).unwrap_or_default();
            let Some((answered, name)) = ptr::answer(bytes) else { continue };
            let asked = |(source, known): &(&IpAddr, &mut Known)| {
                matches!(known, Known::Asked { id, .. } if *id == answered) && ptr::is_about(bytes, **source)
            };
            if let Some((_, known)) = self.known.iter_mut().find(asked) {
                *known = Known::Told { name, until: now + REMEMBERED };
            }
        }
    }

    /// When an event that waits is told without a name.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.waiting.front().map(|(_, until)| *until)
    }

    fn ask(&mut self, source: IpAddr, now: Instant) {
        let lasting = |known: &Known| match known {
            Known::Asked { until, .. } | Known::Told { until, .. } => now < *until,
        };
        if self.known.get(&source).is_some_and(lasting) {
            return;
        }
        if self.known.len() >= KNOWN {
            self.known.retain(|_, known| lasting(known));
        }
        let on_their_way =
            self.known.values().filter(|known| matches!(known, Known::Asked { .. }) && lasting(known));
        if on_their_way.count() >= ASKED || self.known.len() >= KNOWN {
            return;
        }
        let Ok(id) = sys::random().map(u16::from_ne_bytes) else { return };
        if self.socket.send(&ptr::question(id, source)).is_ok() {
            self.known.insert(source, Known::Asked { id, until: now + PATIENCE });
        }
    }
}

impl AsFd for Names {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_answers_is_taken_in_by_turns() {
        let resolver = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.connect(resolver.local_addr().unwrap()).unwrap();
        socket.set_nonblocking(true).unwrap();
        for _ in 0..2 * ASKED {
            resolver.send_to(b"no answer", socket.local_addr().unwrap()).unwrap();
        }
        let mut names = Names { socket, known: HashMap::new(), waiting: VecDeque::new() };
        let is_ready = |names: &Names| names.socket.peek(&mut [0; 16]).is_ok();
        names.on_ready(Instant::now());
        assert!(is_ready(&names), "the rest waits for its turn");
        names.on_ready(Instant::now());
        assert!(!is_ready(&names));
    }
}
