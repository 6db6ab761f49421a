//! Who on this host takes in a probe, and who is connected to it: asked of the kernel's socket tables.
//!
//! Main thread. Must never take our own decoys for services.
#![forbid(unsafe_code)]

use std::io;
use std::net::SocketAddr;

use ipnet::IpNet;

use super::Host;
use crate::detect::peers::Peers;
use crate::detect::probe::Protocol;
use crate::detect::weights::FIRST_EPHEMERAL_PORT;
use crate::detect::{Probe, Watch};
use crate::netlink::sock_diag::Transport;
use crate::sensor::ports_in_use::PortsInUse;
use crate::sensor::sightings::{Sighting, State};

/// The questions about single sockets of one turn. Each is one for each interface, as a socket may be bound to one.
#[derive(Debug, Default)]
pub(super) struct Questions {
    asked: usize,
}

impl Questions {
    /// So many cost no more than a list of all; a question takes a few microseconds.
    const MOST: usize = 24;

    /// Whether `probes` may be asked about, each at `interfaces`, in place of a list.
    fn suffice(probes: usize, interfaces: usize) -> bool {
        probes.saturating_mul(interfaces) <= Questions::MOST
    }

    /// Whether one probe more may be asked about in this turn: one always, of many interfaces no other. Else who forges
    /// segments of connections has us ask the kernel in place of everything else.
    fn allow(&self, interfaces: usize) -> bool {
        self.asked == 0 || self.asked.saturating_add(interfaces) <= Questions::MOST
    }

    fn count(&mut self, interfaces: usize) {
        self.asked = self.asked.saturating_add(interfaces);
    }

    fn begin_turn(&mut self) {
        self.asked = 0;
    }
}

impl Host {
    /// Before the first look, where the machine has just been started: each watched port that is no decoy's may be a
    /// service's that is still on its way up, and is awaited as if it had been there already.
    pub fn await_services(&self, watch: &Watch, in_use: &PortsInUse) {
        if !self.ignore_services {
            in_use.presume(Protocol::Tcp, &watch.tcp_ports.without(&self.decoys.tcp));
            in_use.presume(Protocol::Udp, &watch.udp_ports.without(&self.decoys.udp));
        }
    }

    /// Looks at the host's sockets again. The services on ports of `watch` that are gone since the last look are awaited;
    /// and for as long what others still send to a UDP socket that is closed is no failure of theirs.
    ///
    /// # Errors
    /// The kernel did not list them.
    pub fn look_at_sockets(&mut self, watch: &Watch, in_use: &PortsInUse, uptime: u64) -> io::Result<()> {
        if self.ignore_services {
            return Ok(());
        }
        in_use.heed_doubt();
        // Without an answer the doubt stays.
        let sockets = self.sockets.read().inspect_err(|_| in_use.doubt())?;
        let mut is_awaited = self.departed.look(uptime);
        let has_changed = in_use.replace(
            &sockets,
            |protocol, port| self.decoys.contains(protocol, port),
            |protocol, port| {
                (protocol == Protocol::Udp || watch.is_watched(protocol, port)) && is_awaited(protocol, port)
            },
            uptime,
        );
        self.rings.iter_mut().for_each(|rings| rings.is_stale |= has_changed);
        Ok(())
    }

    /// Makes known to `peers` which connections stand, from ports that are no service's: those older than the daemon, none
    /// of which it saw begin. Of ephemeral ports nothing need be known: a segment to them is no probe anyway.
    ///
    /// # Errors
    /// The kernel did not list them.
    pub fn note_connections(&mut self, peers: &Peers, in_use: &PortsInUse, now: u64) -> io::Result<()> {
        let may_be_blamed = |port| {
            port < FIRST_EPHEMERAL_PORT
                && !in_use.holds(Protocol::Tcp, port)
                && !self.decoys.tcp.contains(port)
        };
        for (local, remote) in self.sockets.both_ends()? {
            if may_be_blamed(local.port()) {
                peers.note_connection(local, remote, now);
            }
        }
        Ok(())
    }

    /// Whether asking about each of these with [`takes`](Self::takes) costs less than a list of all sockets, and tells
    /// all that a list would. It tells more: of connections no list is made.
    pub fn may_ask(&self, sightings: &[Sighting]) -> bool {
        Questions::suffice(sightings.len(), self.interfaces_to_ask())
            && sightings.iter().all(|sighting| match sighting.state {
                State::Counted(_) => sighting.probe.protocol != Protocol::Sctp,
                State::HalfOpen | State::Served | State::FromItself => true,
                // The ring threads' own picture is out of date: only a list puts it right.
                State::Doubtful => false,
            })
    }

    /// Whether one probe more may be asked about in this turn with [`takes`](Self::takes).
    pub fn may_ask_more(&self) -> bool {
        self.questions.allow(self.interfaces_to_ask())
    }

    /// At most: every link, and the one that a probe came by, should it be gone.
    fn interfaces_to_ask(&self) -> usize {
        self.surroundings.links().count().saturating_add(1)
    }

    /// Whether a socket that is no decoy takes in this probe.
    ///
    /// # Errors
    /// The kernel did not say.
    pub fn takes(&mut self, probe: &Probe, interface: u32) -> io::Result<bool> {
        let Some(transport) = transport_of(probe.protocol) else { return Ok(false) };
        if self.ignore_services || self.decoys.contains(probe.protocol, probe.port) {
            return Ok(false);
        }
        self.questions.count(self.interfaces_to_ask());
        let local = SocketAddr::new(probe.destination, probe.port);
        let remote = SocketAddr::new(probe.source, probe.source_port);
        // A socket may be bound to the bridge or VRF that the interface belongs to: any interface will do.
        let others = self.surroundings.links().map(|link| link.index).filter(|&index| index != interface);
        for index in std::iter::once(interface).chain(others) {
            if self.sockets.takes(transport, local, remote, index)? != Some(false) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether `source` has an open connection to this host, decoys aside; see
    /// [`Connected`](crate::sensor::connected::Connected).
    ///
    /// # Errors
    /// The kernel did not list them.
    pub fn is_connected_with(&mut self, source: IpNet) -> io::Result<bool> {
        self.connected.is(source, &self.decoys.tcp, &mut self.sockets)
    }

    /// What was learnt of connections in one turn is forgotten, and how much was asked.
    pub fn begin_turn(&mut self) {
        self.questions.begin_turn();
        self.connected.begin_turn();
    }

    /// Learns who is connected while nothing waits.
    pub fn look_around(&mut self) {
        self.connected.look_around(&mut self.sockets);
    }
}

fn transport_of(protocol: Protocol) -> Option<Transport> {
    match protocol {
        Protocol::Tcp => Some(Transport::Tcp),
        Protocol::Udp => Some(Transport::Udp),
        Protocol::Sctp => Some(Transport::Sctp),
        Protocol::Icmp | Protocol::Ip => None,
    }
}

#[cfg(test)]
mod tests {
    use super::Questions;

    /// How many probes of a hundred that came together are asked about.
    fn asked(questions: &mut Questions, interfaces: usize) -> usize {
        questions.begin_turn();
        let mut asked = 0;
        while asked < 100 && questions.allow(interfaces) {
            questions.count(interfaces);
            asked += 1;
        }
        asked
    }

    #[test]
    fn of_a_flood_no_more_is_asked_in_one_turn_than_a_list_would_cost_but_always_something() {
        let mut questions = Questions::default();
        let interfaces = [1, 3, 13, 24, 25, 10_000];
        assert_eq!(interfaces.map(|many| asked(&mut questions, many)), [24, 8, 1, 1, 1, 1]);
        assert_eq!(
            interfaces.map(|many| asked(&mut questions, many)),
            [24, 8, 1, 1, 1, 1],
            "in the next turn"
        );
    }

    #[test]
    fn what_would_cost_more_questions_than_a_list_is_listed() {
        assert!(Questions::suffice(12, 2) && !Questions::suffice(13, 2) && !Questions::suffice(1, 25));
    }
}
