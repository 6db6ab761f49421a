//! The daemon without a wire: captured frames through its parser, classifier, score table and responder.
//!
//! Pure: the captures' clock is the only one, and nothing is ever blocked. Memory is bounded whatever the capture holds.
#![forbid(unsafe_code)]

mod clock;
mod interfaces;
mod services;
mod sweeps;
mod vantage;

use std::collections::VecDeque;
use std::sync::Arc;

pub use vantage::View;

use self::clock::CaptureClock;
use self::interfaces::Interfaces;
use self::services::Services;
use self::sweeps::Sweeps;
use crate::capture::Frame;
use crate::config::{BlockMode, Loaded};
use crate::detect::peers::Hearing;
use crate::detect::policy::{Verdict, Watch};
use crate::detect::probe::Protocol;
use crate::detect::table::ScoreTable;
use crate::detect::{Peers, Probe, ScanType};
use crate::event::emitter::Form;
use crate::event::{Event, EventType, Stats};
use crate::packet::{Checksums, Packet, Reassembly, Reject, is_to_many, parse_cut};
use crate::sensor::clock::Now;
use crate::sensor::followed::Followed;
use crate::sensor::gate::Gate;
use crate::sensor::half_open::{HalfOpen, Knock};
use crate::sensor::report::rejected;
use crate::sensor::responder::{Case, Responder, Setup};
use crate::sensor::trails::{QUIET, Trails};
use crate::sensor::turn::Turn;
use crate::sensor::{host, terms};

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
    responder: Responder,
    services: Services,
    /// SYNs to decoys that a visit may yet follow.
    half_open: HalfOpen,
    trails: Trails,
    followed: Followed,
    interfaces: Interfaces,
    reassembly: Reassembly<Origin>,
    waiting: VecDeque<Seen>,
    clock: CaptureClock,
    /// The moment of the frame that was taken in last.
    heard: Option<Now>,
    /// The moment of the packet that was judged last.
    latest: Option<Now>,
    sweeps: Sweeps,
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
    origin: Origin,
}

/// What is known of a packet that does not stand in it.
#[derive(Clone, Copy, Debug)]
struct Origin {
    /// It may be for one host alone.
    to_one: bool,
    /// Its number in [`Interfaces`].
    interface: u32,
}

impl Replay {
    /// A daemon as `loaded` configures it that has seen nothing.
    pub fn new(loaded: &Loaded, view: View) -> Replay {
        let config = &loaded.config;
        let decoys = config.bound_ports();
        let watch = Arc::new(Watch {
            vantage: view.vantage(),
            one_by_one: host::one_by_one(view.on_link(), loaded.never_block(), config.ipv6_prefix),
            // Nothing can be blocked any more: what would have been is told.
            block_tcp: BlockMode::Log,
            block_udp: BlockMode::Log,
            ..terms::watch(config, &decoys)
        });
        let half_life = terms::half_life(config);
        let table = Arc::new(ScoreTable::new(config.table_size, &KEY, half_life));
        let responder = Responder::new(Setup {
            watch: watch.clone(),
            never: loaded.never_block().collect(),
            table: table.clone(),
            order: Vec::new(),
            custom: crate::protocol::settings::Custom::default(),
            verbose_ignore: None,
            tell_all: terms::tells_all(config, Form::Json),
            queue: 0,
            gate: Arc::new(Gate::open()),
        });
        Replay {
            view,
            watch,
            table,
            // A capture may hold one direction only.
            peers: Peers::new(&KEY, Hearing::of_senders()),
            responder,
            services: Services::new(decoys),
            half_open: HalfOpen::new(),
            trails: Trails::new(&KEY),
            followed: Followed::default(),
            interfaces: Interfaces::default(),
            reassembly: Reassembly::new(),
            waiting: VecDeque::new(),
            clock: CaptureClock::start(),
            heard: None,
            latest: None,
            sweeps: Sweeps::every(half_life),
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
        self.heard = Some(now);
        while let Some((packet, origin)) = self.reassembly.overdue(now.seconds()) {
            self.waiting.push_back(Seen { packet, now, origin });
        }
        if let Some(packet) = self.packet_of(frame, now) {
            let interface = self.interfaces.number(frame.interface);
            let to_one = self.view.is_for_one(&packet, is_to_many(frame.link, frame.bytes));
            let origin = Origin { to_one, interface };
            let whole = self.reassembly.offer(packet, origin, now.seconds());
            self.waiting.extend(whole.map(|(packet, origin)| Seen { packet, now, origin }));
        }
        if self.waiting.len() > LOOKAHEAD { self.judge_next().unwrap_or_default() } else { Vec::new() }
    }

    /// Judges one of the packets that are held back; `None` when there are no more.
    pub fn judge_next(&mut self) -> Option<Vec<Event>> {
        let seen = self.waiting.pop_front().or_else(|| self.last_half())?;
        // So that no account of long ago passes for a fresh one.
        self.sweeps.on_time(seen.now.micros(), |at| self.table.sweep(at));
        Some(self.judge(&seen))
    }

    /// Half a header whose other one cannot come any more.
    fn last_half(&mut self) -> Option<Seen> {
        let now = self.heard?;
        let (packet, origin) = self.reassembly.overdue(u64::MAX)?;
        Some(Seen { packet, now, origin })
    }

    /// What is left to tell when no more packets come: of SYNs that wait for a handshake, and of all who were not quiet yet.
    pub fn end(&mut self) -> Vec<Event> {
        let Some(now) = self.latest else { return Vec::new() };
        let mut turn = Turn::at(now);
        let waited: Vec<Knock> = self.half_open.drain().collect();
        waited.into_iter().for_each(|knock| self.count(knock, &mut turn));
        self.leave_quiet(u64::MAX, &mut turn);
        self.named(turn)
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

    /// The packet, whole or not. One that its receiver refused for its checksum still tells what its sender serves.
    fn packet_of(&mut self, frame: &Frame<'_>, now: Now) -> Option<Packet> {
        let parsed = |checksums| parse_cut(frame.link, frame.bytes, frame.wire_length, checksums);
        match parsed(Checksums::Captured) {
            Ok(packet) => {
                self.services.learn(&packet);
                Some(packet)
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

    /// Every source is somebody's host, and so protected in its turn. What a decoy says is no service's.
    fn note_sent(&self, packet: &Packet, now: Now) {
        if !self.services.is_of_a_decoy(packet) {
            self.watch.note_sent(packet, &self.table, &self.peers, now.micros());
        }
    }

    fn judge(&mut self, seen: &Seen) -> Vec<Event> {
        let mut turn = Turn::at(seen.now);
        self.on_time(&mut turn);
        self.note_sent(&seen.packet, seen.now);
        let probe = self.watch.note_received(&seen.packet, &self.table, &self.peers, seen.now.micros());
        let probe = probe.filter(|probe| seen.origin.to_one && self.view.judges(probe));
        let knock = probe.and_then(|probe| self.past_decoys((probe, seen.origin.interface), seen.now));
        knock.into_iter().for_each(|knock| self.count(knock, &mut turn));
        self.named(turn)
    }

    /// What time alone brings: SYNs that no handshake followed, scanners that fell quiet.
    fn on_time(&mut self, turn: &mut Turn) {
        self.latest = Some(turn.now);
        let expired: Vec<Knock> = self.half_open.expired(turn.now.instant).collect();
        expired.into_iter().for_each(|knock| self.count(knock, turn));
        self.leave_quiet(turn.now.micros(), turn);
    }

    /// The summaries of those who are quiet by `by` microseconds, each told at its own time.
    fn leave_quiet(&mut self, by: u64, turn: &mut Turn) {
        for quiet in self.followed.leave_quiet(&self.trails, by) {
            let now = turn.now;
            let ago = now.micros().saturating_sub(quiet.trail.latest.saturating_add(QUIET));
            let (wall, uptime) = (now.wall.saturating_sub(ago), now.uptime.saturating_sub(ago / 1000));
            let summary = self.responder.summary(&quiet, Now { wall, uptime, ..now });
            turn.add(summary, quiet.case.interface);
        }
    }

    /// A visitor of a decoy completes a handshake, and that is the probe; a SYN is one only if none follows.
    fn past_decoys(&mut self, (probe, interface): Knock, now: Now) -> Option<Knock> {
        if probe.protocol != Protocol::Tcp || !self.services.is_decoy(probe.protocol, probe.port) {
            return Some((probe, interface));
        }
        if probe.scan_type == ScanType::Syn {
            return self.half_open.saw_syn((probe, interface), now.instant);
        }
        if probe.scan_type == ScanType::Ack && self.half_open.waits_for(&probe) {
            // It makes no room: its SYN has a place.
            self.half_open.completed(&probe, now.instant);
            return Some((Probe { scan_type: ScanType::Connect, verified: true, ..probe }, interface));
        }
        (!probe.scan_type.may_be_stray()).then_some((probe, interface))
    }

    fn count(&mut self, (probe, interface): Knock, turn: &mut Turn) {
        let in_use = |_, _| self.services.take_in(&probe);
        let account = self.watch.account(&probe);
        let standing = match self.watch.judge(&probe, &self.table, &self.peers, in_use, turn.now.micros()) {
            Verdict::Probe(standing) => standing,
            Verdict::Scan(standing) => {
                if !standing.crossed {
                    self.trails.note(account, &probe, turn.now.micros());
                }
                if !self.responder.is_worth_telling(standing) {
                    return;
                }
                standing
            }
            Verdict::NotWatched
            | Verdict::ServiceInUse
            | Verdict::Martian
            | Verdict::Answer
            | Verdict::Retransmission => return,
        };
        let case = Case { probe, standing, interface, connected: false };
        if standing.crossed {
            self.followed.follow(&self.trails, account, case, turn.now.micros());
        }
        self.responder.on_case(case, turn);
    }

    fn named(&self, turn: Turn) -> Vec<Event> {
        turn.events(|interface| self.interfaces.name(interface)).collect()
    }
}
