//! What the sensor says of itself: the `start` and `stop` events, errors, `status`.
//!
//! Main thread. Owns the outputs; counts are read where they are kept.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::clock::Now;
use super::host::Host;
use super::names::Names;
use super::responder::Responder;
use super::watcher::Shared;
use crate::config::Config;
use crate::control::protocol::Status;
use crate::event::{Emitter, Event, EventType, Start, Stats};
use crate::packet::Reject;
use crate::repeats::Repeats;

/// Longer than anything waits for a name.
const END: Duration = Duration::from_secs(60);

/// How soon lines that a slow reader left over are tried again.
const FLUSH_AFTER: Duration = Duration::from_millis(100);

/// The outputs, and what `start` said.
pub struct Reporter {
    emitter: Emitter,
    start: Start,
    /// Seconds since 1970 UTC.
    since: u64,
    /// Milliseconds of uptime: the wall clock may be set at any time.
    started: u64,
    errors: Repeats,
    /// RESOLVE_HOST: where events wait for the names of their sources.
    names: Option<Names>,
}

impl Reporter {
    /// Nothing said yet.
    pub fn new(emitter: Emitter, names: Option<Names>, start: Start, now: Now) -> Reporter {
        Reporter {
            emitter,
            start,
            since: now.wall / 1_000_000,
            started: now.uptime,
            errors: Repeats::default(),
            names,
        }
    }

    /// The socket that names come in by.
    pub fn names(&self) -> Option<BorrowedFd<'_>> {
        self.names.as_ref().map(AsFd::as_fd)
    }

    /// A name may have come, or an event waited long enough.
    pub fn on_names(&mut self, now: Now) {
        if let Some(names) = &mut self.names {
            names.on_ready(now.instant);
        }
        self.tell_ready(now.instant);
    }

    fn tell_ready(&mut self, now: Instant) {
        while let Some(event) = self.names.as_mut().and_then(|names| names.ready(now)) {
            self.emitter.emit(&event);
        }
    }

    /// A line that only PortSentry's text has.
    pub fn note(&mut self, text: &str) {
        self.emitter.note(text);
    }

    /// Says that the daemon watches.
    pub fn start(&mut self, now: Now) {
        let mut event = Event::new(now.wall, EventType::Start);
        event.start = Some(self.start.clone());
        self.emit(event, now);
    }

    /// Says that it ends, with its counts.
    pub fn stop(&mut self, now: Now, responder: &Responder, shared: &Shared, host: &Host) {
        let mut event = Event::new(now.wall, EventType::Stop);
        event.stats = Some(self.stats(now, responder, shared, host));
        self.tell_held(now);
        self.names = None;
        self.emit(event, now);
        self.emitter.flush();
    }

    /// Tells what is held back, for the end has come: whoever still waits for a name, without it.
    pub fn tell_held(&mut self, now: Now) {
        self.tell_ready(now.instant + END);
        self.emitter.flush();
    }

    /// Says that the configuration was read again, and what is watched by it.
    pub fn reload(&mut self, now: Now, config: &Config) {
        self.start.tcp_ports = config.tcp_ports.in_short();
        self.start.udp_ports = config.udp_ports.in_short();
        let mut event = Event::new(now.wall, EventType::Reload);
        event.start = Some(self.start.clone());
        self.emit(event, now);
    }

    /// Says what went wrong; the same thing at most once a minute.
    pub fn error(&mut self, now: Now, error: &str) {
        if self.errors.are_over(error, now.uptime) {
            self.answer(now, error);
        }
    }

    /// Says what went wrong to whoever asked for it just now, and waits to hear: each time.
    pub fn answer(&mut self, now: Now, error: &str) {
        let mut event = Event::new(now.wall, EventType::Error);
        event.error = Some(error.to_owned());
        self.emit(event, now);
    }

    /// Tells the outside.
    pub fn emit(&mut self, event: Event, now: Now) {
        match &mut self.names {
            None => self.emitter.emit(&event),
            Some(names) => {
                names.hold(event, now.instant);
                self.tell_ready(now.instant);
            }
        }
    }

    /// Opens the log files anew.
    pub fn reopen(&mut self, now: Now) {
        if let Err(error) = self.emitter.reopen() {
            self.answer(now, &error.to_string());
        }
    }

    /// Writes what a slow reader left over.
    pub fn flush(&mut self) {
        self.emitter.flush();
    }

    /// When [`flush`](Self::flush) should come by, if there is anything left over.
    pub fn wants_flush(&self, now: Instant) -> Option<Duration> {
        let flush = self.emitter.has_pending().then_some(FLUSH_AFTER);
        let name = self.names.as_ref().and_then(Names::next_deadline);
        flush.into_iter().chain(name.map(|deadline| deadline.saturating_duration_since(now))).min()
    }

    /// The answer to `status`.
    pub fn status(
        &self,
        now: Now,
        helper_answers: bool,
        responder: &Responder,
        shared: &Shared,
        host: &Host,
    ) -> Status {
        Status {
            since: self.since,
            helper_answers,
            start: self.start.clone(),
            stats: self.stats(now, responder, shared, host),
        }
    }

    /// The counts in one line, for the service manager.
    pub fn in_short(&self, now: Now, responder: &Responder, shared: &Shared, host: &Host) -> String {
        let Stats { probes, scans, blocks, blocks_in_force, drops, lost_lines, .. } =
            self.stats(now, responder, shared, host);
        let losses = [(drops, "packets dropped"), (lost_lines, "log lines lost")];
        let losses =
            losses.iter().filter(|(count, _)| *count > 0).map(|(count, of)| format!(", {count} {of}"));
        let losses: String = losses.collect();
        format!(
            "watching: {probes} probes, {scans} scans, {blocks} blocks, {blocks_in_force} in force{losses}"
        )
    }

    fn stats(&self, now: Now, responder: &Responder, shared: &Shared, host: &Host) -> Stats {
        let (packets, drops) = host.packets_and_drops();
        let turned_away = &shared.gate.turned_away;
        Stats {
            uptime: now.uptime.saturating_sub(self.started) / 1000,
            packets,
            drops,
            probes: responder.probes.saturating_add(turned_away.probes.load(Ordering::Relaxed)),
            scans: responder.scans.saturating_add(turned_away.scans.load(Ordering::Relaxed)),
            blocks: responder.blocked,
            blocks_in_force: responder.blocks.len() as u64,
            sources: shared.table.occupancy().occupied as u64,
            lost_lines: self.emitter.lost_lines(),
            counters: counters(shared, host.unreadable_slots()),
        }
    }
}

/// Rejected packets by reason, lost sightings, what the gate turned away; what is zero is left out.
fn counters(shared: &Shared, unreadable_slots: u64) -> BTreeMap<String, u64> {
    let turned_away = &shared.gate.turned_away;
    let others = [
        ("sightings_lost", shared.sightings.lost()),
        ("slots_unreadable", unreadable_slots),
        ("blocks_held_back", turned_away.blocks.load(Ordering::Relaxed)),
        ("lines_held_back", turned_away.lines.load(Ordering::Relaxed)),
    ];
    let counts = shared.rejects.each_ref().map(|count| count.load(Ordering::Relaxed));
    let others = others.into_iter().filter(|&(_, count)| count > 0);
    rejected(counts).chain(others.map(|(name, count)| (name.to_owned(), count))).collect()
}

/// The counters of rejected packets, by the names they have outside; `counts` is in the order of [`Reject::ALL`].
pub fn rejected(counts: [u64; Reject::ALL.len()]) -> impl Iterator<Item = (String, u64)> {
    let named = Reject::ALL.iter().zip(counts).filter(|&(_, count)| count > 0);
    named.map(|(reject, count)| (format!("rejected_{}", reject.name()), count))
}
