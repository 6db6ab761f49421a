//! The main thread: one epoll over decoys, sightings, the helper's replies, control, signals, names and netlink, with a
//! timeout for what is due.
//!
//! Performs what the pure parts decide. Waits for nothing but epoll, short questions to the kernel, and at the end the
//! helper's goodbye; an idle daemon does not wake.
#![forbid(unsafe_code)]

mod judgement;

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::signalfd::SignalFd;

use super::clock::Now;
use super::decoy::Decoys;
use super::flood::{Costs, Floods};
use super::followed::Followed;
use super::half_open::{HalfOpen, Knock};
use super::helper_link::{HelperLink, LinkError};
use super::host::Host;
use super::notify::Notifier;
use super::operators::{Answers, Operators};
use super::report::Reporter;
use super::responder::{Effect, Responder, Turn, micros};
use super::sightings::Sighting;
use super::signals::{self, Asked};
use super::traps::{self, Traps};
use super::watcher::Shared;
use crate::config::Loaded;
use crate::control::protocol::{ControlReply, ControlRequest, Entry};
use crate::control::server::ControlServer;
use crate::event::{Event, EventType};
use crate::protocol::{Note, Reply, Request};

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

/// How long a clean stop waits for the helper.
const FAREWELL: Duration = Duration::from_secs(2);

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
        self.operators.mirror();
        self.set_traps();
        let mut ready = [EpollEvent::empty(); 64];
        loop {
            self.operators.go_on(&self.control, &mut self.responder);
            if let Err(error) = self.send() {
                return End::Helper(error);
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
                    Err(error) => return End::Helper(error),
                }
            }
            self.on_time(now);
        }
    }

    /// Says goodbye to the helper, which lifts the blocks first if it was told to. Returns whether it ended well.
    pub fn stop(&mut self) -> bool {
        self.notifier.stopping();
        let well = self.farewell();
        let now = self.shared.clock.now();
        self.reporter.stop(now, &self.responder, &self.shared, &self.host);
        well
    }

    /// What the helper still answers is still told. Where requests wait, the last one has to wait for room too.
    fn farewell(&mut self) -> bool {
        let deadline = Instant::now() + FAREWELL;
        let mut said = false;
        while Instant::now() < deadline {
            said = said || self.responder.requests.send(|id| Request::Stop { id }).is_ok();
            if self.send().is_err() {
                return false;
            }
            match self.on_replies(self.shared.clock.now()) {
                Ok(()) => self.link.wait_reply(deadline),
                Err(LinkError::Ended(status)) => return said && status.success(),
                Err(_) => return false,
            }
        }
        false
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

    fn on_replies(&mut self, now: Now) -> Result<(), LinkError> {
        let (mut turn, mut answers) = (Turn::default(), Answers::new());
        // A long list must not keep signals and sightings from having their turn. Replies that were read already have
        // theirs now: the pipe would not wake us for them.
        for taken in 0.. {
            if taken >= BATCH && !self.link.holds_replies() {
                break;
            }
            let Some(reply) = self.link.next_reply()? else { break };
            self.notifier.heard_of_helper();
            self.on_reply(reply, now, &mut turn, &mut answers);
        }
        self.tell(&turn, now);
        for (client, reply) in answers {
            self.control.reply(&self.epoll, client, &reply, now.instant);
        }
        Ok(())
    }

    fn on_reply(&mut self, reply: Reply, now: Now, turn: &mut Turn, answers: &mut Answers) {
        match reply {
            Reply::Note { id, note } => self.notes.entry(id).or_default().push(note),
            Reply::Done { id, outcome, seconds, offence, micros, with, tripped } => {
                let notes = self.notes.remove(&id).unwrap_or_default();
                let effect = Effect { outcome, seconds, offence, micros, with, tripped, notes };
                if !self.operators.on_done(id, &effect, now, &mut self.responder, turn, answers) {
                    self.responder.on_done(id, &effect, now, turn);
                }
            }
            Reply::Entry { id, target, since, until, offence, with } => {
                let entry = Entry { target, since, until, offence };
                self.operators.on_entry(id, entry, with, now, &mut self.responder, answers);
            }
            Reply::Remains { target } => {
                let notes = self.notes.remove(&0).unwrap_or_default();
                self.responder.on_remains(target, &notes, now, turn);
            }
            Reply::End { id } => self.operators.on_end(id, answers),
            Reply::Ready { .. } | Reply::Pong { .. } => {}
        }
    }

    fn on_signals(&mut self, now: Now) -> Option<End> {
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

    fn on_routes(&mut self, now: Now) {
        match self.host.follow(&mut self.responder, &self.shared) {
            Ok(()) => {
                let mut turn = Turn::default();
                self.responder.on_protected(now, &mut turn);
                self.tell(&turn, now);
            }
            Err(error) => {
                self.reporter.error(now, &format!("the host's addresses cannot be followed: {error}"))
            }
        }
    }

    fn on_control(&mut self, token: u64, now: Now) {
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

    fn on_time(&mut self, now: Now) {
        let mut turn = Turn::default();
        self.host.begin_turn();
        let left_open: Vec<Knock> = self.half_open.expired(now.instant).collect();
        for (probe, interface) in left_open {
            let _ = self.judge(probe, interface, now, &mut turn);
        }
        self.decoys.on_deadline(now.instant, &self.epoll);
        self.control.sweep(&self.epoll, now.instant);
        self.responder.on_time(now, &mut turn);
        self.leave_the_quiet(now, &mut turn);
        self.look_for_floods(now, &mut turn);
        if self.traps.are_behind() {
            self.set_traps();
        }
        self.reporter.flush();
        self.reporter.on_names(now);
        self.tell(&turn, now);
        if self.notifier.next_beat().is_some_and(|due| due <= now.instant) {
            self.notifier.beat(now.instant, &self.in_short(now));
            // A full queue needs no question: its requests will be answered, or the helper stands still.
            let _ = self.responder.requests.send(|id| Request::Ping { id });
        }
        if self.sweep_at <= now.instant {
            self.shared.table.sweep(micros(now));
            self.sweep_at = now.instant + self.sweep_every;
        }
    }

    /// Keeps the tripwire in step with the configuration, the decoys and the services.
    pub(super) fn set_traps(&mut self) {
        let (watch, decoys) = (&self.responder.watch, self.decoys.ports_of_both());
        let wanted = traps::wanted(watch, &decoys, &self.shared.in_use, &self.shared.peers);
        self.traps.become_these(wanted, &mut self.responder.requests);
    }

    /// The counts, for the service manager.
    pub(super) fn in_short(&self, now: Now) -> String {
        self.reporter.in_short(now, &self.responder, &self.shared, &self.host)
    }

    fn leave_the_quiet(&mut self, now: Now, turn: &mut Turn) {
        for quiet in self.followed.leave_quiet(&self.shared.trails, micros(now)) {
            self.responder.on_quiet(&quiet, now, turn);
        }
    }

    fn look_for_floods(&mut self, now: Now, turn: &mut Turn) {
        let costs = || Costs {
            drops: self.host.packets_and_drops().1,
            held_back: self.shared.gate.turned_away.blocks.load(Ordering::Relaxed),
        };
        if let Some(flood) = self.floods.look(&self.shared.gauge, now, costs) {
            let event = Event { flood: Some(flood), ..Event::new(now.wall, EventType::Flood) };
            turn.events.push((event, 0));
        }
    }

    fn tell(&mut self, turn: &Turn, now: Now) {
        for (event, interface) in &turn.events {
            let event: Event = self.host.with_interface(event, *interface);
            self.reporter.emit(&event, now);
        }
    }

    /// Writes what is queued for the helper; watches the pipe for room only while some of it is left.
    fn send(&mut self) -> Result<(), LinkError> {
        if self.link.flush(&mut self.responder.requests)? {
            let flags = if self.link.is_waiting() { EpollFlags::EPOLLOUT } else { EpollFlags::empty() };
            let mut event = EpollEvent::new(flags, REQUESTS);
            self.epoll.modify(self.link.request_pipe(), &mut event).map_err(std::io::Error::from)?;
        }
        Ok(())
    }

    /// Until the next deadline.
    fn timeout(&self) -> EpollTimeout {
        let now = self.shared.clock.now();
        let deadlines = [
            self.decoys.next_deadline(),
            self.half_open.next_deadline(),
            self.control.next_deadline(),
            self.notifier.next_beat(),
        ];
        let nearest = deadlines.into_iter().flatten().fold(self.sweep_at, Instant::min);
        let wait = nearest.saturating_duration_since(now.instant);
        let block =
            self.responder.blocks.next_end().map(|end| Duration::from_millis(end.saturating_sub(now.uptime)));
        let quiet = self.followed.next_quiet(&self.shared.trails);
        let quiet = quiet.map(|quiet| Duration::from_micros(quiet.saturating_sub(micros(now))));
        let told = self.reporter.wants_flush(now.instant);
        let flood = self.floods.next_look();
        let soonest = block.into_iter().chain(quiet).chain(told).chain(flood).fold(wait, Duration::min);
        // A millisecond more, as epoll counts whole ones and must not come too early.
        EpollTimeout::try_from(soonest + Duration::from_millis(1)).unwrap_or(EpollTimeout::MAX)
    }
}

fn errno(error: std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}
