//! What a ring thread does with a frame: parses it at once, and judges it when what that needs is at hand.
//!
//! The packet path: no lock, no allocation, no system call but the bell's. Never acts on a verdict.
#![forbid(unsafe_code)]

mod judge;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use nix::sys::eventfd::EventFd;

use self::judge::{Judge, Unjudged};
use super::clock::Clock;
use super::delay_line::DelayLine;
use super::filter::Watched;
use super::flood::Gauge;
use super::frame::Frame;
use super::gate::Gate;
use super::ports_in_use::PortsInUse;
use super::ring::Reader;
use super::sightings::Sightings;
use super::trails::Trails;
use crate::config::BothPorts;
use crate::detect::policy::Watch;
use crate::detect::{Peers, ScoreTable};
use crate::networks::Networks;
use crate::packet::{LinkType, Packet, REASSEMBLY_SECONDS, Reassembly, Reject, Transport, parse_cut};

/// After so long a half that waits is overdue, though only whole seconds are counted.
const LATE_HALF: Duration = Duration::from_secs(REASSEMBLY_SECONDS + 1);

/// What all threads of the sensor go by. Replaced whole when the configuration or the host's addresses change.
#[derive(Clone, Debug)]
pub struct View {
    /// What is watched and how it is judged.
    pub watch: Arc<Watch>,
    /// The addresses of this host: a packet to any other is only passing through.
    pub own: Networks,
    /// Where packets come in: of very many interfaces the rings' filter tells none apart.
    pub interfaces: Watched,
    /// Where our own decoys listen: over TCP a handshake, or its absence, says more than the SYN, and what they say is no
    /// service's answer.
    pub decoys: BothPorts,
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
            Transport::Tcp { source_port, .. } => self.decoys.tcp.contains(source_port),
            Transport::Udp { source_port, .. } => self.decoys.udp.contains(source_port),
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
    judge: Judge,
    /// Of what came in, with the interface by which it did.
    reassembly: Reassembly<u32>,
    unjudged: DelayLine<Unjudged>,
}

impl Watcher {
    /// A watcher with nothing in reassembly.
    pub fn new(shared: Arc<Shared>) -> Watcher {
        Watcher { judge: Judge::new(shared), reassembly: Reassembly::new(), unjudged: DelayLine::default() }
    }

    fn put_together(&mut self, piece: Packet, interface: u32) {
        if let Some((packet, interface)) = self.reassembly.offer(piece, interface, self.judge.now.seconds()) {
            self.put_off(&packet, interface);
        }
    }

    fn count(&self, reject: Reject) {
        if let Some(count) = self.judge.shared.rejects.get(reject as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Calls what judging `packet`, which came in, will need, and has it wait for that.
    #[inline]
    fn put_off(&mut self, packet: &Packet, interface: u32) {
        let (view, table) = (&self.judge.view, &self.judge.shared.table);
        let seat = table.seat(view.watch.account_with(&packet.source, &packet.destination));
        table.home(seat).into_iter().for_each(crate::sys::prefetch);
        let received = || Unjudged::Received { packet: *packet, interface, seat };
        self.unjudged.push(received, |due| self.judge.judge(due));
    }
}

impl Reader for Watcher {
    fn on_wake(&mut self) {
        self.judge.look_up();
        while let Some((packet, interface)) = self.reassembly.overdue(self.judge.now.seconds()) {
            self.put_off(&packet, interface);
        }
    }

    fn on_loss(&mut self) {
        self.judge.shared.peers.lost(self.judge.now.micros());
    }

    fn on_frame(&mut self, frame: &Frame<'_>) {
        let link = LinkType::Cooked { ethertype: frame.ethertype };
        match &parse_cut(link, frame.bytes, frame.wire_length as usize, frame.checksums) {
            Ok(packet) if frame.packet_type == libc::PACKET_OUTGOING => {
                self.unjudged.push(|| Unjudged::Sent(*packet), |due| self.judge.judge(due));
            }
            // No evidence: the host drops it.
            Ok(packet) if frame.is_to_many() && !packet.transport.may_come_to_many() => {}
            Ok(packet) if !packet.transport.is_fragment() => self.put_off(packet, frame.interface),
            Ok(piece) => self.put_together(*piece, frame.interface),
            Err(reject) => self.count(*reject),
        }
    }

    fn patience(&self) -> Option<Duration> {
        self.reassembly.is_waiting().then_some(LATE_HALF)
    }

    fn on_rest(&mut self) {
        self.unjudged.empty(|due| self.judge.judge(due));
        self.judge.add_up();
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use crate::detect::policy::samples;
    use crate::detect::weights::{self, Sensitivity};
    use crate::packet::Checksums;

    /// The last byte of an address in 2001:db8::/120, and a port.
    type End = (u8, u16);

    const HOST: u8 = 1;
    const PEER: u8 = 2;
    /// A watched port that this host also asks from, and the port that it asks.
    const ASKS: u16 = 700;
    const SERVES: u16 = 5_000;

    fn shared() -> Arc<Shared> {
        let [tcp_ports, udp_ports] = [ASKS; 2].map(|port| [port].into_iter().collect());
        let watch = Watch { tcp_ports, udp_ports, ..samples::watch(Sensitivity::Medium) };
        let view = View {
            watch: Arc::new(watch),
            own: ["2001:db8::1/128".parse().unwrap()].into_iter().collect(),
            interfaces: Watched::Indexes(vec![2]),
            decoys: BothPorts::default(),
            skip_local: true,
            tell_all: false,
            tell_served: false,
            debug: false,
        };
        Arc::new(Shared {
            view: ArcSwap::from_pointee(view),
            table: Arc::new(ScoreTable::new(64, &[7; 16], Some(weights::HALF_LIFE))),
            peers: Peers::new(&[5; 16], crate::detect::peers::Hearing::of_this_host(false, 0)),
            trails: Trails::new(&[3; 16]),
            gate: Arc::new(Gate::new(60)),
            gauge: Gauge::default(),
            in_use: PortsInUse::new(false),
            sightings: Sightings::new().unwrap(),
            rejects: [const { AtomicU64::new(0) }; Reject::ALL.len()],
            stop: EventFd::from_value(0).unwrap(),
            clock: Clock::start(),
        })
    }

    /// A datagram of no bytes over IPv6.
    fn datagram(from: End, to: End) -> Vec<u8> {
        let mut bytes = vec![0x60, 0, 0, 0, 0, 8, 17, 64];
        for (host, _) in [from, to] {
            bytes.extend([0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, host]);
        }
        for half in [from.1, to.1, 8, 0] {
            bytes.extend(half.to_be_bytes());
        }
        bytes
    }

    /// What the main thread is told of a round of these packets.
    fn told(round: &[(End, End)]) -> usize {
        let way = |from: End| if from.0 == HOST { libc::PACKET_OUTGOING } else { libc::PACKET_HOST };
        told_of(round.iter().map(|&(from, to)| (datagram(from, to), way(from))))
    }

    /// Likewise of these, each in a frame of its packet type.
    fn told_of(frames: impl IntoIterator<Item = (Vec<u8>, u8)>) -> usize {
        told_from(2, frames)
    }

    /// Likewise where they came in by this interface.
    fn told_from(interface: u32, frames: impl IntoIterator<Item = (Vec<u8>, u8)>) -> usize {
        let shared = shared();
        let mut watcher = Watcher::new(shared.clone());
        watcher.on_wake();
        for (bytes, packet_type) in frames {
            watcher.on_frame(&Frame {
                bytes: &bytes,
                wire_length: bytes.len() as u32,
                ethertype: libc::ETH_P_IPV6 as u16,
                interface,
                packet_type,
                checksums: Checksums::Trust,
                after_loss: false,
            });
        }
        watcher.on_rest();
        assert!(shared.rejects.iter().all(|count| count.load(Ordering::Relaxed) == 0));
        let mut sightings = Vec::new();
        shared.sightings.take(10, &mut sightings);
        sightings.len()
    }

    #[test]
    fn of_frames_to_many_datagrams_are_probes_and_segments_are_not() {
        let udp = datagram((PEER, 9), (HOST, ASKS));
        let mut tcp = [&udp[..44], &[0; 16]].concat();
        (tcp[5], tcp[6], tcp[52]) = (20, 6, 0x50);
        for to_many in [libc::PACKET_BROADCAST, libc::PACKET_MULTICAST] {
            let told = |packet: &[u8], packet_type| told_of([(packet.to_vec(), packet_type)]);
            assert_eq!([told(&udp, libc::PACKET_HOST), told(&udp, to_many)], [1, 1]);
            assert_eq!([told(&tcp, libc::PACKET_HOST), told(&tcp, to_many)], [1, 0]);
        }
    }

    #[test]
    fn what_comes_in_by_an_interface_that_is_not_watched_is_no_probe_though_the_filter_lets_it_up() {
        let probe = || [(datagram((PEER, 9), (HOST, ASKS)), libc::PACKET_HOST)];
        assert_eq!([2, 3].map(|interface| told_from(interface, probe())), [1, 0]);
    }

    #[test]
    fn what_is_for_a_host_behind_this_one_is_no_probe_of_it() {
        assert_eq!([HOST, 3].map(|host| told(&[((PEER, 9), (host, ASKS))])), [1, 0]);
    }

    #[test]
    fn of_a_source_halfway_to_an_alarm_each_port_is_doubted_once_however_often_it_comes() {
        let port = |number| ((PEER, 9), (HOST, SERVES + number));
        let again = (10..50).map(|from| ((PEER, from), (HOST, SERVES + 4)));
        let halfway: Vec<_> = (0..5).map(port).collect();
        let repeated: Vec<_> = halfway.iter().copied().chain(again).collect();
        let further = [&repeated[..], &[port(5)]].concat();
        assert_eq!([&halfway[..4], &halfway, &repeated, &further].map(told), [0, 1, 1, 2]);
    }

    #[test]
    fn an_answer_in_the_round_of_its_question_is_no_probe_wherever_in_it_they_stand() {
        let (question, answer) = (((HOST, ASKS), (PEER, SERVES)), ((PEER, SERVES), (HOST, ASKS)));
        let other = ((PEER, 9), (HOST, SERVES));
        for between in 0..6 {
            let round = [vec![question], vec![other; between], vec![answer]].concat();
            assert_eq!(told(&round), 0, "{between} between question and answer");
            let mut turned = round;
            turned.reverse();
            assert_eq!(told(&turned), 1, "{between} between answer and question");
        }
    }
}
