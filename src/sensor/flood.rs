//! Whether a flood of forged sources is on: one event when it begins and one when it ends, whatever its size.
//!
//! Ring threads count sources that nobody has seen before, once a round; the main thread looks at the counts. Decides
//! nothing about blocks.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::clock::Now;
use crate::detect::Probe;
use crate::detect::probe::Protocol;
use crate::event::{Flood, FloodState};

/// New sources a second from which on it is one. A host's background is some hundred a *day*; the largest botnet's scan
/// of one host comes at a few a second.
const FLOOD: u64 = 1_000;
/// It is over after so many seconds below that.
const CALM: u64 = 10;
/// Probes whose ports are remembered: enough to name those that are a tenth of all.
const SAMPLES: usize = 64;
/// Of each round of packets the last few: a flood may come whole in one, where a thread was kept from running.
const OF_A_ROUND: usize = 4;
/// Ports that are named.
const NAMED: usize = 3;

/// What the ring threads count, all at once.
#[derive(Debug)]
pub struct Gauge {
    /// Second of uptime 32 bits, new sources in it 32.
    window: AtomicU64,
    /// The latest second with a flood in it, and one; 0: none.
    latest: AtomicU64,
    /// New sources since the start.
    total: AtomicU64,
    /// Protocol 8 bits, port 16, and one.
    ports: [AtomicU32; SAMPLES],
}

/// New sources of one thread's round of packets.
#[derive(Clone, Copy, Debug, Default)]
pub struct Newcomers {
    count: u32,
    latest: [u32; OF_A_ROUND],
}

impl Newcomers {
    /// One more.
    pub fn add(&mut self, probe: &Probe) {
        if let Some(place) = self.latest.get_mut(self.count as usize % OF_A_ROUND) {
            *place = ((probe.protocol as u32) << 16 | u32::from(probe.port)).saturating_add(1);
        }
        self.count = self.count.saturating_add(1);
    }
}

impl Default for Gauge {
    fn default() -> Gauge {
        Gauge {
            window: AtomicU64::new(0),
            latest: AtomicU64::new(0),
            total: AtomicU64::new(0),
            ports: [const { AtomicU32::new(0) }; SAMPLES],
        }
    }
}

impl Gauge {
    /// Adds up a round. Says whether the main thread should look: a flood's worth has just come together.
    pub fn add(&self, round: Newcomers, now: Now) -> bool {
        if round.count == 0 {
            return false;
        }
        let count = u64::from(round.count);
        let first = self.total.fetch_add(count, Relaxed) as usize;
        let samples = round.latest.into_iter().filter(|&sample| sample > 0);
        for (port, sample) in self.ports.iter().cycle().skip(first % SAMPLES).zip(samples) {
            port.store(sample, Relaxed);
        }
        let second = now.seconds() & 0xffff_ffff;
        let counted = |window: u64| match window >> 32 == second {
            true => window.saturating_add(count),
            false => second << 32 | count,
        };
        let before = self.window.fetch_update(Relaxed, Relaxed, |window| Some(counted(window))).unwrap_or(0);
        let (before, after) =
            (if before >> 32 == second { before as u32 } else { 0 }, counted(before) as u32);
        if u64::from(after) < FLOOD {
            return false;
        }
        self.latest.store(second.saturating_add(1), Relaxed);
        u64::from(before) < FLOOD
    }

    /// The ports that most of the latest samples went to, as `111/tcp`.
    fn top_ports(&self) -> Vec<String> {
        let mut counts: HashMap<u32, usize> = HashMap::new();
        for sample in self.ports.iter().map(|port| port.load(Relaxed)).filter(|&sample| sample > 0) {
            *counts.entry(sample).or_default() += 1;
        }
        let mut counts: Vec<(usize, u32)> = counts.into_iter().map(|(port, count)| (count, port)).collect();
        counts.sort_unstable_by(|one, other| other.cmp(one));
        let named = counts.iter().filter(|&&(count, _)| count > 1).take(NAMED);
        named.map(|&(_, sample)| name(sample.saturating_sub(1))).collect()
    }
}

/// Counts that are told of at the end, as they stand.
#[derive(Clone, Copy, Debug, Default)]
pub struct Costs {
    /// Packets that found no room in a ring.
    pub drops: u64,
    /// Blocks that BLOCK_LIMIT held back.
    pub held_back: u64,
}

/// The main thread's side.
#[derive(Debug, Default)]
pub struct Floods {
    on: Option<On>,
}

#[derive(Debug)]
struct On {
    since: u64,
    total: u64,
    costs: Costs,
}

impl Floods {
    /// What there is to tell of at `now`; `costs` are asked for at the beginning and the end alone.
    pub fn look(&mut self, gauge: &Gauge, now: Now, costs: impl FnOnce() -> Costs) -> Option<Flood> {
        let latest = gauge.latest.load(Relaxed).checked_sub(1)?;
        let total = gauge.total.load(Relaxed);
        let is_calm = now.seconds().saturating_sub(latest) >= CALM;
        match &self.on {
            None if is_calm => None,
            None => {
                self.on = Some(On { since: latest, total, costs: costs() });
                let rate = gauge.window.load(Relaxed) & 0xffff_ffff;
                Some(Flood { state: FloodState::Began, rate, ports: gauge.top_ports(), ended: None })
            }
            Some(_) if !is_calm => None,
            Some(on) => {
                let (sources, costs) = (total.saturating_sub(on.total), costs());
                let seconds = latest.saturating_sub(on.since).saturating_add(1);
                let ended = crate::event::FloodEnd {
                    seconds,
                    sources,
                    drops: costs.drops.saturating_sub(on.costs.drops),
                    blocks_held_back: costs.held_back.saturating_sub(on.costs.held_back),
                };
                self.on = None;
                let (rate, ports) = (sources / seconds, gauge.top_ports());
                Some(Flood { state: FloodState::Ended, rate, ports, ended: Some(ended) })
            }
        }
    }

    /// How soon [`Floods::look`] may find that it is over; nobody looks in peace.
    pub fn next_look(&self) -> Option<Duration> {
        self.on.is_some().then_some(Duration::from_secs(1))
    }
}

fn name(sample: u32) -> String {
    let protocols = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp, Protocol::Icmp];
    let known = protocols.into_iter().find(|&protocol| protocol as u32 == sample >> 16);
    let protocol = known.unwrap_or(Protocol::Ip).name().to_ascii_lowercase();
    format!("{}/{protocol}", sample & 0xffff)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::detect::probe::samples::syn;

    fn at(second: u64) -> Now {
        Now { wall: 0, uptime: second * 1000, instant: Instant::now() }
    }

    fn round(count: u32, port: u16) -> Newcomers {
        let mut round = Newcomers::default();
        (0..count).for_each(|_| round.add(&syn("192.0.2.1", port)));
        round
    }

    #[test]
    fn a_flood_is_told_of_when_it_begins_and_when_it_has_been_over_for_a_while() {
        let (gauge, mut floods) = (Gauge::default(), Floods::default());
        assert!(!gauge.add(round(999, 23), at(5)) && floods.look(&gauge, at(5), Costs::default).is_none());
        assert!(gauge.add(round(1, 23), at(5)) && !gauge.add(round(500, 23), at(5)));
        let began = floods.look(&gauge, at(5), Costs::default).unwrap();
        assert_eq!((began.state, began.rate, began.ports), (FloodState::Began, 1_500, vec!["23/tcp".into()]));
        for second in 6..15 {
            gauge.add(round(2_000, 23), at(second));
            assert!(floods.look(&gauge, at(second), Costs::default).is_none());
        }
        assert!(floods.next_look().is_some() && floods.look(&gauge, at(23), Costs::default).is_none());
        let ended = floods.look(&gauge, at(24), || Costs { drops: 7, held_back: 9 }).unwrap();
        let end = ended.ended.unwrap();
        assert_eq!((end.seconds, end.sources, end.drops, end.blocks_held_back), (10, 18_000, 7, 9));
        assert!(floods.next_look().is_none() && floods.look(&gauge, at(99), Costs::default).is_none());
    }

    #[test]
    fn a_flood_that_comes_in_one_round_names_its_port() {
        let (gauge, mut floods) = (Gauge::default(), Floods::default());
        assert!(gauge.add(round(1_000, 23), at(5)));
        assert_eq!(floods.look(&gauge, at(5), Costs::default).unwrap().ports, ["23/tcp"]);
    }

    #[test]
    fn a_thousand_new_sources_in_two_seconds_are_none() {
        let gauge = Gauge::default();
        assert!(!gauge.add(round(700, 23), at(5)) && !gauge.add(round(700, 23), at(6)));
        assert!(Floods::default().look(&gauge, at(6), Costs::default).is_none());
    }
}
