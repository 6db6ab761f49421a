//! The main thread: one epoll over decoys, sightings, the helper's replies, control, signals, names and netlink, with a
//! timeout for what is due.
//!
//! Performs what the pure parts decide. Waits for nothing but epoll, short questions to the kernel, the helper's list at
//! first and its goodbye at the end; an idle daemon does not wake.
#![forbid(unsafe_code)]

mod asked;
mod deadlines;
mod exchange;
mod goodbye;
mod judgement;

use std::collections::{HashMap, VecDeque};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::signalfd::SignalFd;

pub use self::goodbye::{FAREWELL, Goodbye};
use super::clock::Now;
use super::decoy::Decoys;
use super::flood::Floods;
use super::followed::Followed;
use super::half_open::HalfOpen;
use super::helper_link::{HelperLink, LinkError};
use super::host::Host;
use super::notify::Notifier;
use super::operators::Operators;
use super::protections::Protections;
use super::pulse::Pulse;
use super::report::Reporter;
use super::responder::Responder;
use super::sightings::Sighting;
use super::traps::{self, Traps};
use super::turn::Turn;
use super::watcher::Shared;
use crate::config::Loaded;
use crate::control::server::ControlServer;
use crate::detect::SourceKey;
use crate::protocol::Note;

const SIGHTINGS: u64 = 0;
const REPLIES: u64 = 1;
const REQUESTS: u64 = 2;
const SIGNALS: u64 = 3;
const ROUTES: u64 = 4;
const NAMES: u64 = 5;
const CONTROL: u64 = 0x100;
const DECOYS: u64 = 0x1_0000;

/// Sightings handled in one turn, so that signals and control have theirs during a flood.
pub const BATCH: usize = 512;
/// Withdrawn alarms that are remembered.
const WITHDRAWN: usize = 16;

/// How the loop ended.
#[derive(Debug)]
pub enum End {
    /// SIGTERM or SIGINT.
    Asked,
    /// The helper is gone.
    Helper(LinkError),
    /// epoll failed.
    Epoll(Errno),
}

/// Everything the main thread owns.
pub struct EventLoop {
    pub(super) epoll: Epoll,
    pub(super) shared: Arc<Shared>,
    pub(super) decoys: Decoys,
    pub(super) half_open: HalfOpen,
    pub(super) link: HelperLink,
    pub(super) responder: Responder,
    pub(super) operators: Operators,
    pub(super) protections: Protections,
    pub(super) pulse: Pulse,
    pub(super) control: ControlServer,
    pub(super) signals: SignalFd,
    pub(super) host: Host,
    pub(super) reporter: Reporter,
    pub(super) notifier: Notifier,
    /// Sightings of one turn; kept so that a turn allocates nothing.
    pub(super) batch: Vec<Sighting>,
    /// PROTECT_ESTABLISHED.
    pub(super) protect_established: bool,
    /// Where the tripwire lies.
    pub(super) traps: Traps,
    /// Whose alarm was withdrawn, as a service that had just come took in the probe that raised it: the next probe of theirs
    /// that was counted with it raises it again. The latest [`WITHDRAWN`].
    pub(super) withdrawn: VecDeque<SourceKey>,
    /// Scanners that are followed until they fall quiet.
    pub(super) followed: Followed,
    /// The flood that is on.
    pub(super) floods: Floods,
    /// How often the score table is swept: every half-life of a score.
    pub(super) sweep_every: Duration,
    /// The configuration in force.
    pub(super) loaded: Loaded,
    /// What the helper said about requests whose last word is still due.
    pub(super) notes: HashMap<u64, Vec<Note>>,
    /// Whether the helper was told to end.
    pub(super) goodbye: Goodbye,
    /// When the score table is swept next, so that no account of long ago passes for a fresh one.
    pub(super) sweep_at: Instant,
}

/// An epoll that nothing is registered with.
///
/// # Errors
/// The kernel refused.
pub fn epoll() -> nix::Result<Epoll> {
    Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)
}

impl EventLoop {
    /// Registers every descriptor. Called before confinement.
    ///
    /// # Errors
    /// The kernel refused one.
    pub fn register(&mut self) -> nix::Result<()> {
        let readable = |token| EpollEvent::new(EpollFlags::EPOLLIN, token);
        self.epoll.add(&self.shared.sightings, readable(SIGHTINGS))?;
        self.epoll.add(self.link.reply_pipe(), readable(REPLIES))?;
        self.epoll.add(self.link.request_pipe(), EpollEvent::new(EpollFlags::empty(), REQUESTS))?;
        self.epoll.add(self.signals.as_fd(), readable(SIGNALS))?;
        self.epoll.add(self.host.surroundings().as_fd(), readable(ROUTES))?;
        if let Some(names) = self.reporter.names() {
            self.epoll.add(names, readable(NAMES))?;
        }
        self.control.register(&self.epoll, CONTROL).map_err(errno)?;
        Ok(())
    }

    /// Registers the decoys, whose tokens come last.
    ///
    /// # Errors
    /// One could not be watched.
    pub fn register_decoys(&mut self) -> Result<(), super::listener::DecoyError> {
        self.decoys.register(&self.epoll, DECOYS)
    }

    /// Runs until a signal or the helper's death.
    pub fn run(&mut self) -> End {
        if let Err(error) = self.begin() {
            return self.without_helper(error);
        }
        let mut ready = [EpollEvent::empty(); 64];
        loop {
            self.operators.go_on(&self.control, &mut self.responder);
            self.protections.go_on(&mut self.responder.requests);
            if let Err(error) = self.send() {
                return self.without_helper(error);
            }
            if self.protect_established {
                self.host.look_around();
            }
            let count = match self.epoll.wait(&mut ready, self.timeout()) {
                Ok(count) => count,
                Err(Errno::EINTR) => continue,
                Err(errno) => return End::Epoll(errno),
            };
            let now = self.shared.clock.now();
            for event in ready.iter().take(count) {
                match self.on_ready(event.data(), now) {
                    Ok(None) => {}
                    Ok(Some(end)) => return end,
                    Err(error) => return self.without_helper(error),
                }
            }
            self.on_time(now);
        }
    }

    fn without_helper(&mut self, error: LinkError) -> End {
        let error = self.last_words(error);
        self.reporter.tell_held(self.shared.clock.now());
        End::Helper(error)
    }

    fn on_ready(&mut self, token: u64, now: Now) -> Result<Option<End>, LinkError> {
        match token {
            SIGHTINGS => self.on_sightings(now)?,
            REPLIES => self.on_replies(now)?,
            REQUESTS => {}
            SIGNALS => return Ok(self.on_signals(now)),
            ROUTES => self.on_routes(now),
            NAMES => self.reporter.on_names(now),
            token if self.control.owns(token) => self.on_control(token, now),
            token => self.on_decoy(token, now),
        }
        Ok(None)
    }

    pub(super) fn on_routes(&mut self, now: Now) {
        if let Err(error) = self.host.follow(&mut self.responder, &self.shared) {
            self.reporter
                .error(now, &format!("the host's addresses cannot be followed: {error}; it is tried again"));
        }
    }

    /// Keeps the tripwire in step with the configuration, the decoys and the services.
    pub(super) fn set_traps(&mut self) {
        let (watch, decoys) = (&self.responder.watch, self.decoys.ports());
        let wanted = traps::wanted(watch, &decoys, &self.shared.in_use, &self.shared.peers);
        self.traps.become_these(&wanted, &mut self.responder.requests);
    }

    /// The counts, for the service manager.
    pub(super) fn in_short(&self, now: Now) -> String {
        self.reporter.in_short(now, &self.responder, &self.shared, &self.host)
    }

    fn tell(&mut self, turn: Turn) {
        let (now, surroundings) = (turn.now, self.host.surroundings());
        for event in turn.events(|interface| surroundings.interface_name(interface)) {
            self.reporter.emit(event, now);
        }
    }
}

fn errno(error: std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}
