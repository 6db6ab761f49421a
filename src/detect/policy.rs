//! From a probe to a verdict: which probes count, and how much.
//!
//! Run by the ring threads, once for each probe. Changes nothing but the score table; what is done about a verdict
//! (log, block, stay silent) is the main thread's.
#![forbid(unsafe_code)]

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use super::peers::{Course, Peers, Served};
use super::probe::{Probe, Protocol, ScanType};
use super::table::{Evidence, Ledger, ScoreTable, Seat, SourceKey, Standing, Vantage};
use super::walk::{self, Walk};
use super::weights::{self, Points};
use crate::config::{BlockMode, PortSet};
use crate::networks::Networks;
use crate::packet::{Packet, Transport};

/// What is watched, and what a source may do before it counts as a scanner. Immutable: a reload makes a new one.
#[derive(Clone, Debug)]
pub struct Watch {
    /// Watched TCP ports, decoys among them.
    pub tcp_ports: PortSet,
    /// Watched UDP ports, decoys among them.
    pub udp_ports: PortSet,
    /// SCAN_TRIGGER: probes of watched ports before the alarm; 0 and 1 both mean the first.
    pub scan_trigger: u32,
    /// IPv6 sources are one if they share this many bits.
    pub ipv6_prefix: u8,
    /// Where each IPv6 address is a source of its own: on our own links, around protected addresses, behind translators.
    pub one_by_one: Networks,
    /// Whose addresses are probed: this host's, in the daemon.
    pub vantage: Vantage,
    /// SENSITIVITY: how everything that is not a watched port is judged.
    pub walk: Walk,
    /// BLOCK_TCP.
    pub block_tcp: BlockMode,
    /// BLOCK_UDP.
    pub block_udp: BlockMode,
}

/// What a probe means.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verdict {
    /// Its port is not watched: it does not count.
    NotWatched,
    /// A service runs on its port: it does not count.
    ServiceInUse,
    /// Its source address cannot be anybody's: it does not count.
    Martian,
    /// It answers what was sent to its source: it does not count.
    Answer,
    /// The same packet once more: it does not count twice.
    Retransmission,
    /// It counts, and its source is still below the trigger.
    Probe(Standing),
    /// It counts, and its source is over the trigger; [`Standing::crossed`] on the one probe that took it there.
    Scan(Standing),
}

impl Watch {
    /// Judges `probe` at `now` microseconds. `in_use` tells whether a service holds a port (UDP: any socket; of TCP
    /// connections [`Peers`] knows). For a visit to a decoy, whose socket is ours, it says no.
    pub fn judge(
        &self,
        probe: &Probe,
        table: &ScoreTable,
        peers: &Peers,
        in_use: impl Fn(Protocol, u16) -> bool,
        now: u64,
    ) -> Verdict {
        self.judge_at(table.seat(self.account(probe)), probe, table, peers, in_use, now)
    }

    /// The same where the seat of the probe's account is known: see [`Watch::account`].
    #[inline]
    pub fn judge_at(
        &self,
        seat: Seat,
        probe: &Probe,
        table: &ScoreTable,
        peers: &Peers,
        in_use: impl Fn(Protocol, u16) -> bool,
        now: u64,
    ) -> Verdict {
        debug_assert_eq!(seat, table.seat(self.account(probe)), "another source's seat");
        let is_watched = self.is_watched(probe.protocol, probe.port) || self.takes_for_watched(probe);
        if !is_watched && !self.walk.is_on() {
            return Verdict::NotWatched;
        }
        if is_martian(&probe.source, &probe.destination) {
            return Verdict::Martian;
        }
        if let Some(course) = probe.farewell() {
            return self.judge_farewell(seat, probe, course, table, now);
        }
        if peers.expect(probe, now) {
            return Verdict::Answer;
        }
        let in_use = in_use(probe.protocol, probe.port);
        let heard = peers.heard(probe.destination, probe.protocol, now);
        if is_watched && !in_use {
            if walk::may_be_an_answer(probe, heard) {
                return Verdict::Answer;
            }
            return self.enter_watched(seat, probe, table, now);
        }
        if probe.scan_type == ScanType::Ack && peers.serves(probe, now) {
            return Verdict::ServiceInUse;
        }
        match self.walk.evidence(probe, walk::Place { in_use, heard, vantage: self.vantage }) {
            Some(evidence) => enter(seat.in_ledger(Ledger::Walk), probe, evidence, table, now),
            None if in_use => Verdict::ServiceInUse,
            None => Verdict::NotWatched,
        }
    }

    /// Takes note of what a protected host itself sent at `now` microseconds: its answers are expected, and a port that
    /// it answers from is no failed contact.
    pub fn note_sent(&self, packet: &Packet, table: &ScoreTable, peers: &Peers, now: u64) -> Option<Served> {
        if let Transport::Udp { source_port, .. } = packet.transport
            // Who forges our address behind a bridge of ours must not make everybody's probes of it answers.
            && !self.is_watched(Protocol::Udp, source_port)
        {
            peers.note_call(packet, now);
        }
        let served = peers.note_sent(packet, now)?;
        // A watched port that answers and is no decoy is a service, if perhaps another host's behind this one.
        self.take_back(&served, table, now);
        Some(served)
    }

    /// A service took in what was counted for the port that `served` names: that was no probe. What else its sender did
    /// stands, or who has a connection with us could by one packet to its end of it undo a scan.
    pub fn take_back(&self, served: &Served, table: &ScoreTable, now: u64) {
        let key = self.account_with(&served.client, &served.host);
        if let Some(failure) = self.walk.failure() {
            table.retract(key.in_ledger(Ledger::Walk), served, failure, now);
        }
        if self.is_watched(served.protocol, served.port) {
            table.retract(key.in_ledger(Ledger::Watched), served, self.evidence_of_probe(), now);
        }
    }

    /// What came in at `now` microseconds, as a probe if it may be one. On a connection that a service here accepted, a
    /// client's first word forgives, and its going away without one is the probe.
    pub fn note_received(
        &self,
        packet: &Packet,
        table: &ScoreTable,
        peers: &Peers,
        now: u64,
    ) -> Option<Probe> {
        let mut probe = Probe::from_packet(packet);
        if let (Transport::Buried, Some(probe)) = (packet.transport, &mut probe) {
            // What tells one from its retransmission is out of sight.
            probe.sequence = now as u32;
        }
        match peers.note_received(packet, now) {
            Some(Course::Exchanged) => {
                probe.inspect(|probe| self.reward(probe, table, now));
                probe
            }
            Some(course) => Probe::of_farewell(packet, course),
            None => probe,
        }
    }

    /// Anybody can add to an account by probes in its owner's name: what is proved to be the owner's is summed up apart.
    fn enter_watched(&self, seat: Seat, probe: &Probe, table: &ScoreTable, now: u64) -> Verdict {
        let evidence = self.evidence(probe);
        let proven =
            probe.verified && table.record(seat.in_ledger(Ledger::Proven), probe, evidence, now).triggered;
        let standing = table.record(seat.in_ledger(Ledger::Watched), probe, evidence, now);
        verdict_of(Standing { proven, ..standing })
    }

    /// Counted apart from the failures, for those are taken back when the service answers.
    fn judge_farewell(
        &self,
        seat: Seat,
        probe: &Probe,
        course: Course,
        table: &ScoreTable,
        now: u64,
    ) -> Verdict {
        match self.walk.course(course) {
            Some(evidence) => enter(
                seat.in_ledger(Ledger::Walk),
                &in_the_name_of(Protocol::Icmp, probe),
                evidence,
                table,
                now,
            ),
            None => Verdict::ServiceInUse,
        }
    }

    /// Only of use to a source that has something to be forgiven.
    fn reward(&self, probe: &Probe, table: &ScoreTable, now: u64) {
        let account = self.account(probe).in_ledger(Ledger::Walk);
        let evidence = self.walk.course(Course::Exchanged);
        if let Some(evidence) = evidence.filter(|_| table.standing(account, now).is_some()) {
            table.record(table.seat(account), &in_the_name_of(Protocol::Ip, probe), evidence, now);
        }
    }

    /// Whether a probe of this port counts.
    pub fn is_watched(&self, protocol: Protocol, port: u16) -> bool {
        match protocol {
            Protocol::Tcp => self.tcp_ports.contains(port),
            Protocol::Udp => self.udp_ports.contains(port),
            Protocol::Sctp | Protocol::Icmp | Protocol::Ip => false,
        }
    }

    /// Who hides the port may have hidden a watched one. Where the walk is quicker to tell it is left to that.
    fn takes_for_watched(&self, probe: &Probe) -> bool {
        probe.hides_its_port() && !self.walk.is_quicker_than(weights::trigger_threshold(self.scan_trigger))
    }

    /// What is to be done about a scan over `protocol`; only TCP and UDP have a key, the others go with TCP.
    pub fn block_mode(&self, protocol: Protocol) -> BlockMode {
        match protocol {
            Protocol::Udp => self.block_udp,
            Protocol::Tcp | Protocol::Sctp | Protocol::Icmp | Protocol::Ip => self.block_tcp,
        }
    }

    /// What events show as `threshold`: the probes of watched ports that a quick scan has to its name when it triggers,
    /// or the score at which the walk ends.
    pub fn threshold(&self, ledger: Ledger) -> f32 {
        match ledger {
            Ledger::Watched | Ledger::Proven => self.scan_trigger.clamp(1, weights::TRIGGER_MAX) as f32,
            Ledger::Walk => self.walk.threshold(),
        }
    }

    /// The account that a probe is entered in.
    pub fn account(&self, probe: &Probe) -> SourceKey {
        self.account_with(&probe.source, &probe.destination)
    }

    /// The account of `source` with `host`. Where the networks of the protected hosts are not known, a source in the
    /// same 64 bits (RFC 7421) is a neighbour, and is judged alone.
    #[inline]
    pub fn account_with(&self, source: &IpAddr, host: &IpAddr) -> SourceKey {
        let alone = self.vantage != Vantage::Host && in_one_network(source, host);
        let prefix = if alone { 128 } else { self.prefix_of(source) };
        SourceKey::of(source, prefix).seen_from(self.vantage, host)
    }

    /// The account that this host has of `source`.
    pub fn source_key(&self, source: IpAddr) -> SourceKey {
        SourceKey::of(&source, self.prefix_of(&source))
    }

    /// What is blocked if `source` earns it: exactly what it is judged by.
    pub fn target(&self, source: IpAddr) -> IpNet {
        let key = self.source_key(source).address();
        let prefix = if key.is_ipv4() { 32 } else { self.prefix_of(&source) };
        // No prefix here is longer than the address; one that were would mean the address alone.
        IpNet::new(key, prefix).unwrap_or(IpNet::from(key))
    }

    /// How much of a source's address makes the account; of IPv4 it is always the whole.
    #[inline]
    fn prefix_of(&self, source: &IpAddr) -> u8 {
        let alone = source.is_ipv6() && self.one_by_one.contains(*source);
        if alone { 128 } else { self.ipv6_prefix.min(128) }
    }

    fn evidence(&self, probe: &Probe) -> Evidence {
        match probe.scan_type.may_be_stray() {
            true => {
                Evidence { new_port: weights::STRAY, known_port: Points::NONE, ..self.evidence_of_probe() }
            }
            false => self.evidence_of_probe(),
        }
    }

    fn evidence_of_probe(&self) -> Evidence {
        let (new_port, known_port) = (weights::WATCHED_PORT, weights::WATCHED_PORT);
        Evidence { new_port, known_port, threshold: weights::trigger_threshold(self.scan_trigger) }
    }
}

fn enter(seat: Seat, probe: &Probe, evidence: Evidence, table: &ScoreTable, now: u64) -> Verdict {
    verdict_of(table.record(seat, probe, evidence, now))
}

fn verdict_of(standing: Standing) -> Verdict {
    match (standing.retransmission, standing.triggered) {
        (true, _) => Verdict::Retransmission,
        (false, true) => Verdict::Scan(standing),
        (false, false) => Verdict::Probe(standing),
    }
}

/// The same port, remembered apart: what is known of it as a failure says nothing of what else came of it. Only the
/// names of protocols without ports of their own serve.
fn in_the_name_of(protocol: Protocol, probe: &Probe) -> Probe {
    Probe { protocol, ..*probe }
}

fn in_one_network(one: &IpAddr, other: &IpAddr) -> bool {
    match (one, other) {
        (IpAddr::V6(one), IpAddr::V6(other)) => u128::from(*one) >> 64 == u128::from(*other) >> 64,
        (IpAddr::V4(_), _) | (_, IpAddr::V4(_)) => false,
    }
}

/// Sources that no host may have (RFC 6890), and that Linux answers nothing: loopback from elsewhere, multicast,
/// broadcast, unspecified. The rest of 0.0.0.0/8 it takes for addresses like others (since 5.3), and so may a neighbour.
fn is_martian(source: &IpAddr, destination: &IpAddr) -> bool {
    match source {
        IpAddr::V4(address) => {
            address.is_unspecified()
                || address.is_multicast()
                || *address == Ipv4Addr::BROADCAST
                || address.is_loopback() && !destination.is_loopback()
        }
        IpAddr::V6(address) => {
            address.is_unspecified()
                || address.is_multicast()
                || address.is_loopback() && !destination.is_loopback()
        }
    }
}

#[cfg(test)]
pub(crate) mod samples;
#[cfg(test)]
#[cfg(not(loom))]
#[allow(clippy::wildcard_enum_match_arm)]
mod tests;
