//! From a probe to a case: what the ring threads and the decoys saw is judged once more against the host as it is now,
//! and what counts goes to the responder.
#![forbid(unsafe_code)]

use super::{BATCH, EventLoop, WITHDRAWN};
use crate::detect::Probe;
use crate::detect::peers::Served;
use crate::detect::policy::Verdict;
use crate::detect::table::Standing;
use crate::sensor::clock::Now;
use crate::sensor::decoy::{Manners, Visit};
use crate::sensor::helper_link::LinkError;
use crate::sensor::responder::Case;
use crate::sensor::sightings::{Sighting, State};
use crate::sensor::turn::Turn;

/// How a batch learns whether a service takes in a probe.
#[derive(Clone, Copy, Debug)]
enum Sockets {
    /// By a question to the kernel for each.
    AskEach,
    /// All were listed just now.
    Listed,
    /// They could not be listed.
    Unknown,
}

impl EventLoop {
    pub(super) fn on_sightings(&mut self, now: Now) -> Result<(), LinkError> {
        let mut batch = std::mem::take(&mut self.batch);
        self.shared.sightings.take(BATCH, &mut batch);
        self.heed_answers();
        self.host.begin_turn();
        if self.shared.in_use.is_doubted() {
            self.look_at_sockets(now);
        }
        let sockets = self.sockets_for(&batch, now);
        let mut turn = Turn::at(now);
        for sighting in batch.drain(..) {
            self.on_sighting(sighting, sockets, &mut turn);
        }
        self.batch = batch;
        // The block first: telling may wake a reader, which costs more than all of the above.
        let sent = self.send();
        self.tell(turn);
        sent
    }

    /// Nobody is blamed for using a service that came a moment ago: a few sightings are asked about one by one, for many
    /// the sockets are listed once.
    fn sockets_for(&mut self, batch: &[Sighting], now: Now) -> Sockets {
        if self.host.may_ask(batch) {
            Sockets::AskEach
        } else if self.look_at_sockets(now) {
            Sockets::Listed
        } else {
            Sockets::Unknown
        }
    }

    /// A port that something is asked from is no trap any longer.
    fn heed_answers(&mut self) {
        let peers = &self.shared.peers;
        if peers.has_news() {
            peers.heed();
            if self.traps.await_answers(peers) {
                self.set_traps();
            }
        }
    }

    /// Whether it was counted in error, for want of knowing that a service took it.
    fn is_served(&mut self, probe: &Probe, interface: u32, sockets: Sockets, now: Now) -> bool {
        if probe.counts_at_a_service() {
            return false;
        }
        match sockets {
            Sockets::Unknown => true,
            Sockets::AskEach | Sockets::Listed if probe.verified => false,
            Sockets::Listed => {
                self.shared.in_use.holds(probe.protocol, probe.port)
                    || probe.scan_type.may_be_stray()
                        // Beyond the turn's questions all are believed: a scanner is asked about again in the next.
                        && (!self.host.may_ask_more() || self.is_taken(probe, interface, now))
            }
            Sockets::AskEach => {
                let is_taken = self.is_taken(probe, interface, now);
                if is_taken {
                    // The ring threads shall know too; of an error the list will say what is wrong.
                    self.look_at_sockets(now);
                }
                is_taken
            }
        }
    }

    /// Asks about this one probe; an error counts as yes. Of a connection no list tells, so the ring threads learn it
    /// here: what else comes on it wakes nobody, and its last segments, when the socket is gone, are not blamed on the peer.
    fn is_taken(&mut self, probe: &Probe, interface: u32, now: Now) -> bool {
        let taken = self.host.takes(probe, interface);
        if probe.scan_type.may_be_stray() && matches!(taken, Ok(true)) {
            let [local, remote] = [(probe.destination, probe.port), (probe.source, probe.source_port)];
            self.shared.peers.note_connection(local.into(), remote.into(), now.micros());
        }
        taken.unwrap_or(true)
    }

    /// A fresh look at all sockets, for the ring threads too.
    fn look_at_sockets(&mut self, now: Now) -> bool {
        let watch = &self.responder.watch;
        match self.host.look_at_sockets(watch, &self.shared.in_use, now.uptime) {
            Ok(()) => {
                let turned = self.host.turn_attention(watch, &self.shared.in_use, now.uptime);
                match turned {
                    Ok(true) => self.set_traps(),
                    Ok(false) => {}
                    Err(error) => {
                        // What the rings see is no reason to leave a trap where a service came.
                        self.set_traps();
                        self.reporter.error(now, &error.to_string());
                    }
                }
                true
            }
            Err(error) => {
                self.reporter.error(
                    now,
                    &format!("the host's sockets cannot be listed: {error}; until they can, no probe counts"),
                );
                false
            }
        }
    }

    fn on_sighting(&mut self, sighting: Sighting, sockets: Sockets, turn: &mut Turn) {
        let Sighting { probe, interface, state } = sighting;
        match state {
            State::HalfOpen => {
                if let Some((displaced, interface)) =
                    self.half_open.saw_syn((probe, interface), turn.now.instant)
                {
                    self.judge(displaced, interface, turn);
                }
            }
            State::Doubtful => self.judge(probe, interface, turn),
            State::Served => self.tell_served(&probe),
            State::FromItself => {
                let Probe { source, destination, .. } = probe;
                let both =
                    format!("Source address {source} same as destination address {destination}, skipping");
                self.reporter.note(&format!("debug: {both}"));
            }
            State::Counted(standing) => {
                if self.is_served(&probe, interface, sockets, turn.now) {
                    // Counted against a service that came since the last look, or that was there for this one alone.
                    self.withdraw(&probe, standing, turn.now);
                    self.traps.spare(&probe, &mut self.responder.requests);
                    self.tell_served(&probe);
                } else {
                    let standing = self.raise_again(&probe, standing);
                    self.on_case(probe, standing, interface, turn);
                }
            }
        }
    }

    fn withdraw(&mut self, probe: &Probe, standing: Standing, now: Now) {
        let (watch, account) = (&self.responder.watch, self.responder.watch.account(probe));
        watch.take_back(&Served::of(probe), &self.shared.table, now.micros());
        if standing.crossed {
            if self.withdrawn.len() >= WITHDRAWN {
                self.withdrawn.pop_front();
            }
            self.withdrawn.push_back(account);
        }
    }

    /// A quick scan is over before its alarm is withdrawn: what else it did stands, and one of its probes is the alarm.
    fn raise_again(&mut self, probe: &Probe, standing: Standing) -> Standing {
        let account = self.responder.watch.account(probe);
        let withdrawn =
            self.withdrawn.iter().position(|&other| other == account).filter(|_| standing.triggered);
        match withdrawn {
            Some(at) => {
                self.withdrawn.remove(at);
                Standing { crossed: true, ..standing }
            }
            None => standing,
        }
    }

    /// Only for packets that could have been probes of a watched port.
    fn tell_served(&mut self, probe: &Probe) {
        if probe.scan_type.may_be_stray() || !self.responder.watch.is_watched(probe.protocol, probe.port) {
            return;
        }
        let Probe { source, port, .. } = probe;
        self.reporter
            .note(&format!("Ignoring packet from {source} to destination port {port}, a service is running"));
    }

    pub(super) fn judge(&mut self, probe: Probe, interface: u32, turn: &mut Turn) {
        let in_use = |protocol, port| self.shared.in_use.holds(protocol, port);
        let watch = self.responder.watch.clone();
        match watch.judge(&probe, &self.shared.table, &self.shared.peers, in_use, turn.now.micros()) {
            Verdict::Probe(standing) => self.on_case(probe, standing, interface, turn),
            Verdict::Scan(standing) => {
                if self.responder.is_worth_telling(standing) {
                    self.on_case(probe, standing, interface, turn);
                }
            }
            Verdict::ServiceInUse => self.tell_served(&probe),
            Verdict::NotWatched | Verdict::Martian | Verdict::Answer | Verdict::Retransmission => {}
        }
    }

    fn on_case(&mut self, probe: Probe, standing: Standing, interface: u32, turn: &mut Turn) {
        let connected = self.protect_established
            && self.responder.may_blame_an_innocent(&probe, &standing, turn.now)
            && self.is_connected_with(probe.source, turn.now);
        if connected {
            self.traps.spare(&probe, &mut self.responder.requests);
        }
        let case = Case { probe, standing, interface, connected };
        if standing.crossed {
            let account = self.responder.watch.account(&case.probe);
            self.followed.follow(&self.shared.trails, account, case, turn.now.micros());
        }
        self.responder.on_case(case, turn);
    }

    /// Where the kernel does not tell, nobody is taken for connected.
    fn is_connected_with(&mut self, source: std::net::IpAddr, now: Now) -> bool {
        let target = self.responder.watch.target(source);
        self.host.is_connected_with(target).unwrap_or_else(|error| {
            self.reporter.error(now, &format!("the host's connections cannot be listed: {error}"));
            false
        })
    }

    pub(super) fn on_decoy(&mut self, token: u64, now: Now) {
        let mut visits = Vec::new();
        let (responder, table) = (&self.responder, &self.shared.table);
        let due = |source| responder.would_trigger(source, table, now.micros());
        let surroundings = self.host.surroundings();
        let is_for_everybody = |address| surroundings.is_for_everybody(address);
        let manners = Manners { due: &due, is_for_everybody: &is_for_everybody };
        self.decoys.on_ready(token, now.instant, &self.epoll, manners, &mut visits);
        let mut turn = Turn::at(now);
        self.host.begin_turn();
        visits.iter().for_each(|visit| self.on_visit(visit, &mut turn));
        self.tell(turn);
    }

    fn on_visit(&mut self, visit: &Visit, turn: &mut Turn) {
        // A decoy is open everywhere, but INTERFACES says whose scans are our concern.
        if !self.host.watches(visit.interface, visit.destination.ip()) {
            return;
        }
        let probe = visit.probe();
        if let Some((displaced, interface)) = self.half_open.completed(&probe, turn.now.instant) {
            self.judge(displaced, interface, turn);
        }
        self.judge(probe, visit.interface, turn);
    }
}
