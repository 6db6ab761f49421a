//! A day of what any address on the internet hears: those who touch many ports are found, nobody else is, and the score
//! table stays small. `UPDATE=1` writes the plot that docs/performance.md shows.

mod support;

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::path::Path;

use portsentry::capture::Frame;
use portsentry::config::{Overrides, parse};
use portsentry::event::{Event, EventType};
use portsentry::packet::LinkType;
use portsentry::replay::{Replay, View};
use support::capture::{START, SYN, tcp};
use support::plot::{Axis, Plot};

const TARGET: [u8; 4] = [198, 51, 100, 7];
const PACKETS: usize = 3_000;
const HOUR: u64 = 3_600_000_000;
/// Beside the watched port 1: all others are judged by the walk.
const CONFIG: &str = "TCP_PORTS=\"1\"\nUDP_PORTS=\"1\"";
const POPULAR: [u16; 12] = [23, 22, 80, 443, 445, 3389, 8080, 5555, 2323, 6379, 1433, 5900];

/// Reproducible noise: a linear congruential generator (Knuth's MMIX).
struct Noise(u64);

impl Noise {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) % end
    }
}

/// What one day brings: time, source, port, in the order of time. One source of twenty touches three ports or more.
fn day(sources: u64, noise: &mut Noise) -> Vec<(u64, [u8; 4], u16)> {
    let mut packets = Vec::new();
    let source = |at: u64| [11, 0, (at >> 8) as u8, at as u8];
    for at in 0..sources {
        let begins = START + noise.below(24 * HOUR);
        let many = if at % 20 == 0 { 3 + noise.below(18) } else { 0 };
        for _ in 0..many {
            packets.push((begins + noise.below(HOUR / 4), source(at), 1_000 + noise.below(60_000) as u16));
        }
        if many == 0 {
            packets.push((begins, source(at), POPULAR[noise.below(12) as usize]));
        }
    }
    // The rest are visits of the day's regulars to the one port that they are after.
    while packets.len() < PACKETS {
        let at = noise.below(sources);
        let port = POPULAR[at as usize % 12];
        if !at.is_multiple_of(20) {
            packets.push((START + noise.below(24 * HOUR), source(at), port));
        }
    }
    packets.sort_unstable();
    packets
}

/// What replaying it tells, and how many accounts there are after each hour.
fn replayed(packets: &[(u64, [u8; 4], u16)]) -> (Vec<Event>, Vec<u64>) {
    let loaded = parse("portsentry.conf", CONFIG.as_bytes(), &Overrides::default()).unwrap();
    let mut replay = Replay::new(&loaded, View::Host(TARGET.into()));
    let (mut events, mut accounts) = (Vec::new(), Vec::new());
    for (at, &(time, source, port)) in packets.iter().enumerate() {
        while time >= START + (accounts.len() as u64 + 1) * HOUR {
            accounts.push(replay.stats().stats.unwrap().sources);
        }
        let bytes = tcp(source, 40_000 + (at % 20_000) as u16, TARGET, port, SYN);
        let frame =
            Frame { time, link: LinkType::Raw, bytes: &bytes, wire_length: bytes.len(), interface: None };
        events.extend(replay.on_frame(&frame));
        events.extend(std::iter::from_fn(|| replay.judge_next()).flatten());
    }
    accounts.push(replay.stats().stats.unwrap().sources);
    (events, accounts)
}

fn plot(packets: &[(u64, [u8; 4], u16)], alarms: &[u64], accounts: &[u64]) -> String {
    let hour = |time: u64| (time - START) as f64 / HOUR as f64;
    let count = |times: Vec<u64>| {
        times.into_iter().enumerate().map(|(at, time)| (hour(time), at as f64 + 1.0)).collect()
    };
    let mut seen = HashSet::new();
    let firsts = packets.iter().filter(|packet| seen.insert(packet.1)).map(|packet| packet.0).collect();
    let accounts = accounts.iter().enumerate().map(|(at, &count)| (at as f64 + 1.0, count as f64)).collect();
    let linear = |label| Axis { label, logarithmic: false };
    let lines = vec![
        ("sources seen", count(firsts)),
        ("accounts held", accounts),
        ("alarms", count(alarms.to_vec())),
    ];
    Plot { title: "A day of background traffic", x: linear("hour"), y: linear("count"), lines }.svg()
}

#[test]
fn a_day_flags_those_who_touch_ten_ports_and_holds_an_account_a_visitor_at_most() {
    for sources in [300, 900, 1_500] {
        let packets = day(sources, &mut Noise(sources));
        let mut ports: HashMap<[u8; 4], HashSet<u16>> = HashMap::new();
        for (_, source, port) in &packets {
            ports.entry(*source).or_default().insert(*port);
        }
        let (events, accounts) = replayed(&packets);
        let source = |event: &Event| event.flow.as_ref().map(|flow| flow.src_ip);
        let alarms: Vec<&Event> = events.iter().filter(|event| event.event_type == EventType::Scan).collect();
        let flagged: HashSet<IpAddr> = alarms.iter().filter_map(|event| source(event)).collect();
        assert_eq!(flagged.len(), alarms.len(), "one alarm a source");
        // Of these alone there is more to tell: that they go on, and what they did.
        assert!(events.iter().all(|event| source(event).is_some_and(|source| flagged.contains(&source))));
        assert!(events.len() <= 4 * alarms.len(), "{events:#?}");
        for (source, ports) in &ports {
            let is_flagged = flagged.contains(&(*source).into());
            assert!(ports.len() < 10 || is_flagged, "{source:?} touched {} ports", ports.len());
            assert!(ports.len() > 8 || !is_flagged, "{source:?} touched {} ports", ports.len());
        }
        let most = accounts.iter().copied().max().unwrap_or(0);
        println!("{sources} sources: {} alarms, at most {most} accounts at a time", alarms.len());
        assert!(most <= sources, "{accounts:?}");
        if sources == 900 && std::env::var_os("UPDATE").is_some() {
            let alarms: Vec<u64> = alarms.iter().map(|event| event.timestamp).collect();
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/performance-day.svg");
            std::fs::write(path, plot(&packets, &alarms, &accounts)).unwrap();
        }
    }
}
