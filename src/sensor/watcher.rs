//! What a ring thread does with a frame: parse, classify, judge, and tell the main thread what it has to know.
//!
//! The packet path: no lock, no allocation, no system call but the bell's. Never acts on a verdict.
#![forbid(unsafe_code)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::{ArcSwap, Guard};
use nix::sys::eventfd::EventFd;

use super::clock::{Clock, Now};
use super::delay_line::DelayLine;
use super::flood::{Gauge, Newcomers};
use super::frame::{Checksum, Frame};
use super::gate::{Gate, Tally, Worth};
use super::ports_in_use::PortsInUse;
use super::ring::Reader;
use super::sightings::{Sighting, Sightings, State};
use super::trails::Trails;
use crate::config::{BlockMode, PortSet};
use crate::detect::peers::Served;
use crate::detect::policy::{Verdict, Watch};
use crate::detect::probe::Protocol;
use crate::detect::table::{Ledger, ScoreTable, Seat, Standing};
use crate::detect::{Peers, Probe, ScanType};
use crate::networks::Networks;
use crate::packet::{Checksums, LinkType, Packet, Reassembly, Reject, Transport};

/// What all threads of the sensor go by. Replaced whole when the configuration or the host's addresses change.
#[derive(Clone, Debug)]
pub struct View {
    /// What is watched and how it is judged.
    pub watch: Arc<Watch>,
    /// The addresses of this host: a packet to any other is only passing through.
    pub own: Networks,
    /// TCP ports where a decoy of ours listens: a handshake, or its absence, says more than the SYN.
    pub decoys: PortSet,
    /// UDP ports where one does: what it says is no service's answer.
    pub decoys_udp: PortSet,
    /// A packet from the address it goes to is left out (`-L` takes it in).
    pub skip_local: bool,
    /// Every probe is passed on, not only what changes something: classic text promises a line each.
    pub tell_all: bool,
    /// Classic text has a line for each packet to a service.
    pub tell_served: bool,
    /// `-d`: and one for each packet from the address it goes to.
    pub debug: bool,
}

impl View {
    /// What our own decoys say.
    fn is_of_a_decoy(&self, packet: &Packet) -> bool {
        match packet.transport {
            Transport::Tcp { source_port, .. } => self.decoys.contains(source_port),
            Transport::Udp { source_port, .. } => self.decoys_udp.contains(source_port),
            Transport::Sctp { .. }
            | Transport::Icmp { .. }
            | Transport::TinyFragment { .. }
            | Transport::LaterFragment { .. }
            | Transport::Buried
            | Transport::Other { .. } => false,
        }
    }
}

/// What all ring threads share.
pub struct Shared {
    /// The present view.
    pub view: ArcSwap<View>,
    /// The scores.
    pub table: Arc<ScoreTable>,
    /// What this host sent lately.
    pub peers: Peers,
    /// What scanners did after their alarm.
    pub trails: Trails,
    /// What the main thread is asked about.
    pub gate: Arc<Gate>,
    /// Whether a flood is on.
    pub gauge: Gauge,
    /// Ports with a live service.
    pub in_use: PortsInUse,
    /// The way to the main thread.
    pub sightings: Sightings,
    /// Frames that were not understood, by reason.
    pub rejects: [AtomicU64; Reject::ALL.len()],
    /// What would end the ring threads. Never readable: they end with the process.
    pub stop: EventFd,
    /// Time.
    pub clock: Clock,
}

/// One ring thread's state.
pub struct Watcher {
    shared: Arc<Shared>,
    reassembly: Reassembly,
    /// The view and the time of this round of packets.
    view: Guard<Arc<View>>,
    now: Now,
    /// What was turned away in this round.
    tally: Tally,
    newcomers: Newcomers,
    unjudged: DelayLine<Unjudged>,
}

/// A packet that was read.
#[derive(Clone, Copy, Debug)]
enum Unjudged {
    /// By this host.
    Sent(Packet),
    Received {
        packet: Packet,
        interface: u32,
        /// Its source's, whose memory has been called.
        seat: Seat,
    },
}

impl Watcher {
    /// A watcher with nothing in reassembly.
    pub fn new(shared: Arc<Shared>) -> Watcher {
        let (view, now) = (shared.view.load(), shared.clock.now());
        Watcher {
            shared,
            reassembly: Reassembly::new(),
            view,
            now,
            tally: Tally::default(),
            newcomers: Newcomers::default(),
            unjudged: DelayLine::new(),
        }
    }

    fn packet_of(&mut self, frame: &Frame<'_>) -> Option<Packet> {
        let checksums = match frame.checksum {
            // Offloaded on this very machine: the field holds no checksum yet.
            Checksum::Valid | Checksum::NotComputed => Checksums::Trust,
            Checksum::Unknown => Checksums::Verify,
        };
        let link = LinkType::Cooked { ethertype: frame.ethertype };
        match crate::packet::parse_cut(link, frame.bytes, frame.wire_length as usize, checksums) {
            Ok(packet) if !packet.transport.is_fragment() => Some(packet),
            Ok(packet) => {
                let seconds = u32::try_from(self.now.seconds()).unwrap_or(u32::MAX);
                self.reassembly.offer(packet, seconds)
            }
            Err(reject) => {
                if let Some(count) = self.shared.rejects.get(reject as usize) {
                    count.fetch_add(1, Ordering::Relaxed);
                }
                None
            }
        }
    }

    #[inline]
    fn unjudged(&self, packet: Packet, frame: &Frame<'_>) -> Unjudged {
        if frame.packet_type == libc::PACKET_OUTGOING {
            return Unjudged::Sent(packet);
        }
        let account = self.view.watch.account_with(packet.source, packet.destination);
        let seat = self.shared.table.seat(account);
        self.shared.table.home(seat).into_iter().for_each(crate::sys::prefetch);
        Unjudged::Received { packet, interface: frame.interface, seat }
    }

    #[inline]
    fn judge(&mut self, unjudged: Unjudged) {
        let (packet, interface, seat) = match unjudged {
            Unjudged::Sent(packet) => return self.note_sent(&packet),
            Unjudged::Received { packet, interface, seat } => (packet, interface, seat),
        };
        let (shared, micros) = (&self.shared, super::responder::micros(self.now));
        let probe = self.view.watch.note_received(&packet, &shared.table, &shared.peers, micros);
        let Some(probe) = probe.filter(|probe| self.view.own.contains(probe.destination)) else { return };
        if let Some(state) = self.state_of(&probe, seat) {
            self.shared.sightings.push(Sighting { probe, interface, state });
        }
    }

    /// What this host sent: whoever answers it is no scanner, and where a service spoke nobody knocked in vain.
    fn note_sent(&self, packet: &Packet) {
        let (view, shared) = (&self.view, &self.shared);
        if !view.own.contains(packet.source) || view.is_of_a_decoy(packet) {
            return;
        }
        let micros = super::responder::micros(self.now);
        let served = view.watch.note_sent(packet, &shared.table, &shared.peers, micros);
        let is_news = |served: Served| !shared.in_use.holds(served.protocol, served.port);
        let has_come = served.is_some_and(is_news) && !shared.in_use.is_fresh(self.now.uptime);
        if has_come || shared.peers.has_news() {
            // A service that came since the last look: its traffic need not wake us any longer. Or a port for answers,
            // which is none for traps.
            shared.sightings.ring();
        }
    }

    /// What the last round turned away and who was new in it; rings where the main thread has something to say of it.
    fn add_up(&mut self) {
        let (tally, newcomers) = (std::mem::take(&mut self.tally), std::mem::take(&mut self.newcomers));
        let mut has_news = self.shared.gauge.add(newcomers, self.now);
        if tally != Tally::default() {
            self.shared.gate.add(tally);
            has_news |= self.shared.gate.has_news(self.now);
        }
        if has_news {
            self.shared.sightings.ring();
        }
    }

    fn is_quiet(&self, probe: &Probe, micros: u64) -> bool {
        let standing = self.shared.table.standing(self.view.watch.account(probe), micros);
        !self.view.tell_all && standing.is_some_and(|standing| standing.quiet)
    }

    fn state_of(&mut self, probe: &Probe, seat: Seat) -> Option<State> {
        let view = &self.view;
        if view.skip_local && probe.source == probe.destination {
            let told = view.debug && view.watch.is_watched(probe.protocol, probe.port);
            return told.then_some(State::FromItself);
        }
        let micros = super::responder::micros(self.now);
        if probe.protocol == Protocol::Tcp && view.decoys.contains(probe.port) {
            if probe.scan_type == ScanType::Syn {
                if self.is_quiet(probe, micros) {
                    return None;
                }
                // More than can wait for their handshakes count at once.
                if self.shared.gate.knocks.spend(u32::MAX, self.now.uptime) {
                    return Some(State::HalfOpen);
                }
            }
            // The visitor's own end of the conversation: the visit counts, and once is enough.
            if probe.scan_type.may_be_stray() {
                return None;
            }
        }
        let in_use = |protocol, port| self.shared.in_use.holds(protocol, port);
        let (table, peers) = (&self.shared.table, &self.shared.peers);
        let verdict = view.watch.judge_at(seat, probe, table, peers, in_use, micros);
        if let Verdict::Probe(Standing { probes: 1, .. }) | Verdict::Scan(Standing { probes: 1, .. }) =
            verdict
        {
            self.newcomers.add(probe);
        }
        match verdict {
            Verdict::Scan(standing) => self.is_told(probe, standing).then_some(State::Counted(standing)),
            Verdict::Probe(standing) => {
                // A failed contact is no event until there are enough of them.
                let is_told = standing.ledger == Ledger::Watched
                    && self.shared.gate.admits(&standing, Worth::Line, self.now, &mut self.tally);
                is_told.then_some(State::Counted(standing))
            }
            Verdict::ServiceInUse => {
                let served = view.tell_served && view.watch.is_watched(probe.protocol, probe.port);
                let doubtful = !self.shared.in_use.is_fresh(self.now.uptime);
                doubtful.then_some(State::Doubtful).or(served.then_some(State::Served))
            }
            Verdict::NotWatched | Verdict::Martian | Verdict::Answer | Verdict::Retransmission => None,
        }
    }

    /// Of a source over the trigger. Whoever is told of is followed; one that is told of already may be.
    fn is_told(&mut self, probe: &Probe, standing: Standing) -> bool {
        let (view, shared) = (&self.view, &self.shared);
        let micros = super::responder::micros(self.now);
        let account = view.watch.account(probe);
        if !standing.crossed {
            shared.trails.note(account, probe, micros);
        }
        if standing.quiet && !view.tell_all {
            return false;
        }
        let logs = view.watch.block_mode(probe.protocol) == BlockMode::Log;
        let worth = match (standing.quiet || logs, view.tell_all) {
            (true, _) => Worth::Line,
            (false, true) => Worth::BlockOrLine,
            (false, false) => Worth::Block,
        };
        let admitted = shared.gate.admits(&standing, worth, self.now, &mut self.tally);
        if admitted && standing.crossed {
            let _ = shared.trails.open(account, probe, micros);
        }
        admitted
    }
}

impl Reader for Watcher {
    fn on_wake(&mut self) {
        self.view = self.shared.view.load();
        self.now = self.shared.clock.now();
    }

    fn on_frame(&mut self, frame: &Frame<'_>) {
        let Some(packet) = self.packet_of(frame) else { return };
        let unjudged = self.unjudged(packet, frame);
        if let Some(due) = self.unjudged.push(unjudged) {
            self.judge(due);
        }
    }

    fn on_rest(&mut self) {
        while let Some(due) = self.unjudged.pop() {
            self.judge(due);
        }
        self.add_up();
    }
}
