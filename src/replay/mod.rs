//! The daemon without a wire: captured frames through its parser, classifier, score table and responder.
//!
//! Pure: the captures' clock is the only one, and nothing is ever blocked. Memory is bounded whatever the capture holds.
#![forbid(unsafe_code)]

mod clock;
mod services;
mod vantage;

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

pub use vantage::View;

use self::clock::CaptureClock;
use self::services::Services;
use crate::capture::Frame;
use crate::config::{BlockMode, Loaded};
use crate::detect::policy::{Verdict, Watch};
use crate::detect::table::ScoreTable;
use crate::detect::{Peers, Probe};
use crate::event::emitter::Form;
use crate::event::{Event, EventType, Stats};
use crate::packet::{Checksums, Packet, Reassembly, Reject, is_to_many, parse_cut};
use crate::sensor::clock::Now;
use crate::sensor::launch;
use crate::sensor::report::rejected;
use crate::sensor::responder::{Case, Responder, Setup, Turn, micros};

/// Packets that are held back before they are judged, so that a service is known by its answer before the question
/// is: about 16 MiB.
const LOOKAHEAD: usize = 1 << 17;

/// The score table's key. The daemon's is random, for its probes are an attacker's. Here the same capture must always
/// yield the same events; who would make it so that accounts collide could as well have left packets out.
const KEY: [u8; 16] = *b"portsentry-rs re";

/// A daemon that is shown captures.
pub struct Replay {
    view: View,
    watch: Arc<Watch>,
    table: Arc<ScoreTable>,
    peers: Peers,
    half_life: Option<Duration>,
    responder: Responder,
    services: Services,
    reassembly: Reassembly,
    waiting: VecDeque<Seen>,
    clock: CaptureClock,
    /// When the score table was swept last, microseconds of the captures' clock.
    swept: u64,
    /// Times of the first and the latest frame, microseconds since 1970 UTC.
    span: Option<(u64, u64)>,
    packets: u64,
    rejects: [u64; Reject::ALL.len()],
}

/// A packet that waits to be judged.
#[derive(Debug)]
struct Seen {
    packet: Packet,
    now: Now,
    /// The link header sends it to one host, not to a group.
    to_one: bool,
    interface: Option<Arc<str>>,
}

impl Replay {
    /// A daemon as `loaded` configures it that has seen nothing.
    pub fn new(loaded: &Loaded, view: View) -> Replay {
        let config = &loaded.config;
        let (tcp_decoys, udp_decoys) = config.bound_ports();
        let watch = Arc::new(Watch {
            vantage: view.vantage(),
            // Nothing can be blocked any more: what would have been is told.
            block_tcp: BlockMode::Log,
            block_udp: BlockMode::Log,
            ..launch::watch(config, (tcp_decoys.clone(), udp_decoys.clone()))
        });
        let half_life = launch::half_life(config);
        let table = Arc::new(ScoreTable::new(config.table_size, &KEY, half_life));
        let responder = Responder::new(Setup {
            watch: watch.clone(),
            never: config.never_block.iter().chain(&loaded.ignored).copied().collect(),
            table: table.clone(),
            order: Vec::new(),
            custom: crate::protocol::settings::Custom::default(),
            verbose_ignore: None,
            tell_all: launch::tells_all(config, Form::Json),
            queue: 0,
            block_limit: config.block_limit,
        });
        Replay {
            view,
            watch,
            table,
            // A capture may hold one direction only.
            peers: Peers::new(&KEY, false),
            half_life,
            responder,
            services: Services::new(tcp_decoys, udp_decoys),
            reassembly: Reassembly::new(),
            waiting: VecDeque::new(),
            clock: CaptureClock::start(),
            swept: 0,
            span: None,
            packets: 0,
            rejects: [0; Reject::ALL.len()],
        }
    }

    /// The next frames are another capture's. Its clock goes on from here even if it was made earlier.
    pub fn begin_capture(&mut self) {
        self.clock.begin_capture();
    }

    /// Takes in a frame, and gives what there is to tell of an earlier one.
    pub fn on_frame(&mut self, frame: &Frame<'_>) -> Vec<Event> {
        let now = self.clock.at(frame.time);
        self.packets = self.packets.saturating_add(1);
        let (first, latest) = self.span.unwrap_or((frame.time, frame.time));
        self.span = Some((first.min(frame.time), latest.max(frame.time)));
        if let Some(packet) = self.packet_of(frame, now) {
            let interface = frame.interface.map(Arc::from);
            let to_one = !is_to_many(frame.link, frame.bytes);
            self.waiting.push_back(Seen { packet, now, to_one, interface });
        }
        if self.waiting.len() > LOOKAHEAD { self.judge_next().unwrap_or_default() } else { Vec::new() }
    }

    /// Judges one of the packets that are held back; `None` when there are no more.
    pub fn judge_next(&mut self) -> Option<Vec<Event>> {
        let seen = self.waiting.pop_front()?;
        self.sweep(micros(seen.now));
        Some(self.judge(&seen))
    }

    /// The `stats` event of all that was seen.
    pub fn stats(&self) -> Event {
        let (first, latest) = self.span.unwrap_or_default();
        let mut event = Event::new(latest, EventType::Stats);
        event.stats = Some(Stats {
            uptime: latest.saturating_sub(first) / 1_000_000,
            packets: self.packets,
            probes: self.responder.probes,
            scans: self.responder.scans,
            sources: self.table.occupancy().occupied as u64,
            counters: rejected(self.rejects).collect(),
            ..Stats::default()
        });
        event
    }

    /// The packet to be judged. One that its receiver refused for its checksum still tells what its sender serves.
    fn packet_of(&mut self, frame: &Frame<'_>, now: Now) -> Option<Packet> {
        let parsed = |checksums| parse_cut(frame.link, frame.bytes, frame.wire_length, checksums);
        match parsed(Checksums::Captured) {
            Ok(packet) => {
                self.services.learn(&packet);
                let seconds = u32::try_from(now.seconds()).unwrap_or(u32::MAX);
                self.reassembly.offer(packet, seconds)
            }
            Err(reject) => {
                if let Some(count) = self.rejects.get_mut(reject as usize) {
                    *count = count.saturating_add(1);
                }
                if let Ok(packet) = parsed(Checksums::Trust) {
                    self.services.learn(&packet);
                    self.note_sent(&packet, now);
                }
                None
            }
        }
    }

    /// Every source is somebody's host, and so protected in its turn.
    fn note_sent(&self, packet: &Packet, now: Now) {
        self.watch.note_sent(packet, &self.table, &self.peers, micros(now));
    }

    fn judge(&mut self, seen: &Seen) -> Vec<Event> {
        self.note_sent(&seen.packet, seen.now);
        let probe = self.watch.note_received(&seen.packet, &self.table, &self.peers, micros(seen.now));
        let probe = probe.filter(|probe| seen.to_one && self.is_for_us(probe));
        let Some(probe) = probe else { return Vec::new() };
        let in_use = |protocol, port| self.services.holds(probe.destination, protocol, port);
        let standing = match self.watch.judge(&probe, &self.table, &self.peers, in_use, micros(seen.now)) {
            Verdict::Probe(standing) => standing,
            Verdict::Scan(standing) if self.responder.is_worth_telling(standing) => standing,
            Verdict::Scan(_)
            | Verdict::NotWatched
            | Verdict::ServiceInUse
            | Verdict::Martian
            | Verdict::Answer
            | Verdict::Retransmission => return Vec::new(),
        };
        let mut turn = Turn::default();
        self.responder.on_case(Case { probe, standing, interface: 0, connected: false }, seen.now, &mut turn);
        turn.events.into_iter().map(|(event, _)| with_interface(event, seen.interface.as_deref())).collect()
    }

    /// A packet to oneself is left out, as the daemon does unless told otherwise.
    fn is_for_us(&self, probe: &Probe) -> bool {
        self.view.protects(probe.destination) && probe.source != probe.destination
    }

    /// As often as the daemon does, so that no account of long ago passes for a fresh one. A long silence is cut short
    /// once everything has faded.
    fn sweep(&mut self, now: u64) {
        let Some(half_life) = self.half_life else { return };
        let step = u64::try_from(half_life.as_micros()).unwrap_or(u64::MAX);
        while self.swept.saturating_add(step) <= now {
            self.swept = self.swept.saturating_add(step);
            if self.table.sweep(self.swept) == 0 {
                self.swept = now;
            }
        }
    }
}

fn with_interface(mut event: Event, interface: Option<&str>) -> Event {
    if let Some(flow) = &mut event.flow {
        flow.in_iface = interface.map(str::to_owned);
    }
    event
}

/// Whether an address can be one host's: not a group's, not everybody's, not nobody's.
fn is_one_host(address: IpAddr) -> bool {
    let everybody = matches!(address, IpAddr::V4(address) if address.is_broadcast());
    !(everybody || address.is_multicast() || address.is_unspecified())
}
