//! A packet that was read → what the main thread has to know of it, if anything.
//!
//! The packet path: no lock, no allocation, no system call but the bell's. Never acts on a verdict.
#![forbid(unsafe_code)]

use std::sync::Arc;

use arc_swap::Guard;

use super::{Shared, View};
use crate::config::BlockMode;
use crate::detect::peers::Served;
use crate::detect::policy::Verdict;
use crate::detect::probe::Protocol;
use crate::detect::table::{Ledger, Seat, Standing};
use crate::detect::{Probe, ScanType};
use crate::packet::Packet;
use crate::sensor::clock::Now;
use crate::sensor::flood::Newcomers;
use crate::sensor::gate::{Tally, Worth, weight};
use crate::sensor::sightings::{Sighting, State};

/// A packet that was read.
#[derive(Debug)]
pub(super) enum Unjudged {
    /// By this host.
    Sent(Packet),
    Received {
        packet: Packet,
        interface: u32,
        /// Its source's, whose memory has been called.
        seat: Seat,
    },
}

/// One ring thread's judgement.
pub(super) struct Judge {
    pub shared: Arc<Shared>,
    /// The view and the time of this round of packets.
    pub view: Guard<Arc<View>>,
    pub now: Now,
    /// What was turned away in this round.
    tally: Tally,
    newcomers: Newcomers,
}

impl Judge {
    pub fn new(shared: Arc<Shared>) -> Judge {
        let (view, now) = (shared.view.load(), shared.clock.now());
        Judge { shared, view, now, tally: Tally::default(), newcomers: Newcomers::default() }
    }

    /// Goes by what holds now, for the round that begins.
    pub fn look_up(&mut self) {
        self.view = self.shared.view.load();
        self.now = self.shared.clock.now();
    }

    /// Takes note of one packet.
    #[inline]
    pub fn judge(&mut self, unjudged: &Unjudged) {
        let (packet, interface, seat) = match unjudged {
            Unjudged::Sent(packet) => return self.note_sent(packet),
            Unjudged::Received { packet, interface, seat } => (packet, *interface, *seat),
        };
        let (shared, micros) = (&self.shared, self.now.micros());
        let probe = self.view.watch.note_received(packet, &shared.table, &shared.peers, micros);
        // By reference: see `DelayLine::push`.
        let Some(probe) = &probe else { return };
        if !self.view.own.contains(probe.destination) || !self.view.interfaces.takes(interface) {
            return;
        }
        if let Some(state) = self.state_of(probe, seat) {
            self.shared.sightings.push(Sighting { probe: *probe, interface, state });
        }
    }

    /// What this host sent: whoever answers it is no scanner, and where a service spoke nobody knocked in vain.
    fn note_sent(&self, packet: &Packet) {
        let (view, shared) = (&self.view, &self.shared);
        if !view.own.contains(packet.source) || view.is_of_a_decoy(packet) {
            return;
        }
        let micros = self.now.micros();
        let served = view.watch.note_sent(packet, &shared.table, &shared.peers, micros);
        let is_news = |served: Served| !shared.in_use.holds(served.protocol, served.port);
        let has_come = served.is_some_and(is_news) && !shared.in_use.is_fresh(self.now.uptime);
        if has_come {
            // A service that came since the last look: its traffic need not wake us any longer.
            shared.in_use.doubt();
        }
        if has_come || shared.peers.has_news() {
            // Or a port for answers, which is none for traps.
            shared.sightings.ring();
        }
    }

    /// What the last round turned away and who was new in it; rings where the main thread has something to say of it.
    pub fn add_up(&mut self) {
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

    fn is_quiet(&self, seat: Seat, micros: u64) -> bool {
        let standing = self.shared.table.standing_at(seat, micros);
        !self.view.tell_all && standing.is_some_and(|standing| standing.quiet)
    }

    fn state_of(&mut self, probe: &Probe, seat: Seat) -> Option<State> {
        let view = &self.view;
        if view.skip_local && probe.source == probe.destination {
            let told = view.debug && view.watch.is_watched(probe.protocol, probe.port);
            return told.then_some(State::FromItself);
        }
        let micros = self.now.micros();
        let is_at_decoy = probe.protocol == Protocol::Tcp && view.decoys.tcp.contains(probe.port);
        // The visitor's own end of the conversation: the visit counts, and once is enough.
        if is_at_decoy && probe.scan_type.may_be_stray() {
            return None;
        }
        if is_at_decoy && probe.scan_type == ScanType::Syn {
            if self.is_quiet(seat, micros) {
                return None;
            }
            if self.may_wait() {
                return Some(State::HalfOpen);
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
        self.state_after(verdict, probe)
    }

    /// Whether one more SYN to a decoy may wait for its handshake: more than can do so count at once.
    fn may_wait(&self) -> bool {
        self.shared.sightings.have_room() && self.shared.gate.knocks.spend(u32::MAX, self.now.uptime)
    }

    #[inline]
    fn state_after(&mut self, verdict: Verdict, probe: &Probe) -> Option<State> {
        let view = &self.view;
        match verdict {
            Verdict::Scan(standing) => self.is_told(probe, standing).then_some(State::Counted(standing)),
            Verdict::Probe(standing) => {
                // A failed contact is no event until there are enough of them.
                let is_told = match standing.ledger {
                    Ledger::Walk => self.is_doubted(probe, standing),
                    Ledger::Watched | Ledger::Proven => {
                        self.shared.gate.admits(&standing, Worth::Line, self.now, &mut self.tally)
                    }
                };
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

    /// Of a source halfway to an alarm. Services that listen for datagrams and answer none come and go without a word that
    /// would take back what was counted for them: the main thread asks the kernel before that is nearly enough, or who
    /// sent to eight of them within hours is a scanner for one error. A port that it has sent to lately adds nothing.
    /// What a flood leaves no allowance for stays counted.
    fn is_doubted(&self, probe: &Probe, standing: Standing) -> bool {
        let shared = &self.shared;
        probe.protocol == Protocol::Udp
            && standing.new_port
            && standing.score >= self.view.watch.walk.threshold() / 2.0
            && shared.sightings.have_room()
            && shared.gate.doubts.spend(weight(&standing), self.now.uptime)
    }

    /// Of a source over the trigger. Whoever is told of is followed; one that is told of already may be.
    fn is_told(&mut self, probe: &Probe, standing: Standing) -> bool {
        let (view, shared) = (&self.view, &self.shared);
        let micros = self.now.micros();
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
