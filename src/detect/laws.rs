//! What holds for every sequence of contacts, judged from packet to score as the ring threads do.
#![forbid(unsafe_code)]

use std::net::{IpAddr, Ipv4Addr};

use proptest::prelude::*;

use super::peers::Hearing;
use super::policy::{Verdict, Watch, samples};
use super::table::{Ledger, Standing};
use super::weights::{self, Sensitivity};
use super::{Peers, ScoreTable};
use crate::packet::{Packet, TcpFlags, Transport};

const MINUTE: u64 = 60_000_000;
const START: u64 = 100_000 * MINUTE;
const HOST: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
/// Ports from here on are served.
const SERVED: u16 = 30_000;
/// What rounding may add up to, each step to the nearest 256th and fading from then on.
const ROUNDING: f32 = 4.0 / 256.0;

/// Something a source does.
#[derive(Clone, Copy, Debug)]
enum Deed {
    /// Knocks at a port that nobody serves.
    Fails(u16),
    /// Says something to a service.
    Succeeds(u16),
    /// Has a connection accepted and resets it.
    Refuses(u16),
    /// Sends flags that no honest stack sends.
    Impossible(u16),
}

struct Site {
    watch: Watch,
    table: ScoreTable,
    peers: Peers,
}

impl Site {
    fn new() -> Site {
        let watch = samples::watch(Sensitivity::Medium);
        // No bucket meets more than seven of the few sources here.
        let table = ScoreTable::new(7 * 1024, &[6; 16], Some(weights::HALF_LIFE));
        Site { watch, table, peers: Peers::new(&[4; 16], Hearing::of_this_host(false, 0)) }
    }

    /// Whether `source` is flagged by it.
    fn see(&self, source: u32, at: u32, deed: Deed, now: u64) -> bool {
        let client = IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + source));
        let source_port = 1_024 + (at % 60_000) as u16;
        let segment = |port, flags, payload| {
            let flags = TcpFlags(flags);
            let transport = Transport::Tcp { source_port, port, flags, sequence: at, payload };
            self.come(Packet { source: client, destination: HOST, ip_options: None, transport }, now)
        };
        let accept = |port| {
            let (flags, sequence) = (TcpFlags(0x12), at);
            let transport =
                Transport::Tcp { source_port: port, port: source_port, flags, sequence, payload: 0 };
            let packet = Packet { source: HOST, destination: client, ip_options: None, transport };
            self.watch.note_sent(&packet, &self.table, &self.peers, now);
        };
        match deed {
            Deed::Fails(port) => segment(port, 0x02, 0),
            Deed::Impossible(port) => segment(port, 0x29, 0),
            Deed::Succeeds(port) => {
                segment(port, 0x02, 0);
                accept(port);
                segment(port, 0x18, 9)
            }
            Deed::Refuses(port) => {
                segment(port, 0x02, 0);
                accept(port);
                segment(port, 0x04, 0)
            }
        }
    }

    fn come(&self, packet: Packet, now: u64) -> bool {
        let Some(probe) = self.watch.note_received(&packet, &self.table, &self.peers, now) else {
            return false;
        };
        let in_use = |_, port| port >= SERVED;
        matches!(self.watch.judge(&probe, &self.table, &self.peers, in_use, now), Verdict::Scan(_))
    }

    fn standing(&self, source: u32, now: u64) -> Option<Standing> {
        let key = self.watch.source_key(IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + source)));
        self.table.standing(key.in_ledger(Ledger::Walk), now)
    }

    fn score(&self, source: u32, now: u64) -> f32 {
        self.standing(source, now).map_or(0.0, |standing| standing.score)
    }
}

/// Deeds at ports of their own, `gap` minutes after the one before.
fn deeds() -> impl Strategy<Value = Vec<(u64, Deed)>> {
    let kinds = prop::collection::vec((0_u64..20, 0_u8..4), 1..40);
    kinds.prop_map(|kinds| {
        let deed = |(at, (gap, kind)): (usize, (u64, u8))| {
            let at = at as u16;
            let deed = match kind {
                0 => Deed::Succeeds(SERVED + at),
                1 => Deed::Refuses(SERVED + at),
                2 => Deed::Impossible(1_000 + at),
                _ => Deed::Fails(1_000 + at),
            };
            (gap, deed)
        };
        kinds.into_iter().enumerate().map(deed).collect()
    })
}

/// The score after `deeds` with `extra` before the one of that number, and whether its source was flagged.
fn judged(deeds: &[(u64, Deed)], extra: Option<(usize, Deed)>, stretch: u64) -> (f32, bool) {
    let (site, mut now, mut flagged) = (Site::new(), START, false);
    for (at, &(gap, deed)) in deeds.iter().enumerate() {
        now += gap * stretch * MINUTE;
        if let Some((_, extra)) = extra.filter(|(before, _)| *before == at) {
            flagged |= site.see(1, 5_000, extra, now);
        }
        flagged |= site.see(1, at as u32, deed, now);
    }
    (site.score(1, now), flagged)
}

proptest! {
    #[test]
    fn one_more_failure_never_lowers_a_score_and_never_undoes_a_flag(
        deeds in deeds(), at in 0_usize..40, kind in 0_u8..3,
    ) {
        let extra = match kind {
            0 => Deed::Fails(9_999),
            1 => Deed::Impossible(9_999),
            _ => Deed::Refuses(SERVED + 9_999),
        };
        let ((fewer, was), (more, is)) = (judged(&deeds, None, 1), judged(&deeds, Some((at, extra)), 1));
        prop_assert!(more >= fewer - ROUNDING, "{} {}", fewer, more);
        prop_assert!(is || !was);
    }

    #[test]
    fn one_more_success_never_raises_a_score_and_never_flags(deeds in deeds(), at in 0_usize..40) {
        let extra = Deed::Succeeds(SERVED + 9_999);
        let ((without, was), (with, is)) = (judged(&deeds, None, 1), judged(&deeds, Some((at, extra)), 1));
        prop_assert!(with <= without + ROUNDING, "{} {}", without, with);
        prop_assert!(was || !is);
    }

    #[test]
    fn successes_alone_leave_no_trace(ports in prop::collection::vec(SERVED..u16::MAX, 1..200)) {
        let site = Site::new();
        for (at, port) in ports.into_iter().enumerate() {
            prop_assert!(!site.see(1, at as u32, Deed::Succeeds(port), START + at as u64));
        }
        prop_assert_eq!(site.score(1, START + MINUTE), 0.0);
    }

    #[test]
    fn who_comes_in_between_does_not_matter(
        sources in prop::collection::vec(deeds(), 2..8), turns in prop::collection::vec(any::<prop::sample::Index>(), 320),
    ) {
        let alone: Vec<_> = sources.iter().enumerate().map(|(source, deeds)| {
            let site = Site::new();
            let flags: Vec<bool> = deeds.iter().enumerate()
                .map(|(at, &(_, deed))| site.see(source as u32, at as u32, deed, START)).collect();
            (flags, site.standing(source as u32, START))
        }).collect();
        let (site, mut next) = (Site::new(), vec![0; sources.len()]);
        for turn in turns {
            let open: Vec<usize> = (0..sources.len()).filter(|&source| next[source] < sources[source].len()).collect();
            if open.is_empty() {
                break;
            }
            let source = *turn.get(&open);
            let at = next[source];
            next[source] += 1;
            let flagged = site.see(source as u32, at as u32, sources[source][at].1, START);
            prop_assert_eq!(flagged, alone[source].0[at]);
            if next[source] == sources[source].len() {
                prop_assert_eq!(site.standing(source as u32, START), alone[source].1);
            }
        }
    }

    #[test]
    fn the_slower_the_same_deeds_come_the_less_they_weigh(deeds in deeds(), stretch in 1_u64..20) {
        let deeds: Vec<_> = deeds.into_iter().filter(|(_, deed)| !matches!(deed, Deed::Succeeds(_))).collect();
        let ((quick, was), (slow, is)) = (judged(&deeds, None, 1), judged(&deeds, None, stretch));
        prop_assert!(slow <= quick + ROUNDING * 4.0, "{} {}", quick, slow);
        prop_assert!(was || !is);
    }
}
