//! Packet bytes → parse → probe → verdict in memory, on one core: a ring thread's way, but for the frame before it and the gate
//! after it.
#![forbid(unsafe_code)]

use std::hint::black_box;
use std::net::Ipv4Addr;

use nix::time::{ClockId, clock_gettime};
use portsentry::config::{BlockMode, PortSet};
use portsentry::detect::peers::{Hearing, Peers};
use portsentry::detect::table::{Seat, Vantage};
use portsentry::detect::walk::Walk;
use portsentry::detect::weights::{HALF_LIFE, Sensitivity};
use portsentry::detect::{Probe, ScoreTable, Verdict, Watch};
use portsentry::networks::Networks;
use portsentry::packet::{Checksums, LinkType, Packet, parse_cut};
use portsentry::sensor::delay_line::DelayLine;

use super::Effort;
use super::figures::{Figures, median, spread};
use super::sender::{LENGTH, stranger, syn};

const PACKETS: u32 = 500_000;
/// The configuration's own.
const TABLE_SIZE: usize = 16_384;
const ETHERTYPE_IPV4: u16 = 0x0800;
const TARGET: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// What comes in: its name, who sends the n-th packet, and whether its ports are watched.
type Kind = (&'static str, fn(u32) -> Ipv4Addr, bool);

const KINDS: [Kind; 3] = [
    ("in memory: one scanner, all ports", |_| Ipv4Addr::new(11, 0, 0, 1), true),
    ("in memory: spoofed sources", stranger, true),
    ("in memory: ports not watched", |_| Ipv4Addr::new(11, 0, 0, 1), false),
];

/// Packets whose instructions are counted.
const COUNTED: u32 = 100_000;

/// Adds the rows.
pub fn measure(effort: Effort, figures: &mut Figures) {
    figures.part("Packet bytes → verdict in memory, one core, own processor time (target ≥ 20 M/s)");
    for (what, source, watched) in KINDS {
        rows(effort, figures, what, &packets(source, PACKETS), watched);
    }
}

/// Adds what callgrind counts of the same.
pub fn instructions(_: Effort, figures: &mut Figures) {
    figures.part("Instructions a packet of the same, counted by callgrind: the same on any day");
    for (kind, (what, ..)) in KINDS.iter().enumerate() {
        let [none, all] = [0, COUNTED].map(|packets| counted(kind, packets));
        figures.add(*what, (all - none) / f64::from(COUNTED), "instructions", "");
    }
}

/// What callgrind is shown: the first packets of one kind, where [`COUNTED`] of them are made.
pub fn judge(kind: usize, count: usize) {
    let (_, source, watched) = KINDS[kind];
    black_box(round(&packets(source, COUNTED)[..count], watched));
}

/// Instructions of this program in all.
fn counted(kind: usize, packets: u32) -> f64 {
    let this = std::env::current_exe().expect("a program has a file");
    let output = std::process::Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(this)
        .args(["judge", &kind.to_string(), &packets.to_string()])
        .output()
        .expect("valgrind is installed");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let count = said.lines().find_map(|line| line.split("Collected : ").nth(1));
    count
        .and_then(|count| count.trim().parse().ok())
        .unwrap_or_else(|| panic!("callgrind counted nothing: {said}"))
}

fn packets(source: fn(u32) -> Ipv4Addr, count: u32) -> Vec<[u8; LENGTH]> {
    (0..count).map(|at| syn(source(at), TARGET, (at % 65_535 + 1) as u16, at)).collect()
}

fn rows(effort: Effort, figures: &mut Figures, what: &'static str, packets: &[[u8; LENGTH]], watched: bool) {
    let rounds: Vec<f64> = (0..effort.repeats * 3).map(|_| round(packets, watched)).collect();
    let speeds: Vec<f64> = rounds.iter().map(|nanoseconds| 1e3 / nanoseconds).collect();
    figures.compare(what, "≥ 20", "M packets/s", [vec![], speeds.clone(), speeds, vec![]]);
    figures.add(what, 1e3 / median(&rounds), "M packets/s", format!("ns a packet: {}", spread(&rounds)));
}

/// Nanoseconds a packet, in a fresh table.
fn round(packets: &[[u8; LENGTH]], watched: bool) -> f64 {
    let (table, watch) = (ScoreTable::new(TABLE_SIZE, &[0x5a; 16], Some(HALF_LIFE)), watch(watched));
    let peers = Peers::new(&[0xa5; 16], Hearing::of_this_host(false, 0));
    let mut unjudged = DelayLine::default();
    let judge = |(packet, seat, at): &(Packet, Seat, u64)| {
        let probe = Probe::from_packet(packet);
        let verdict =
            probe.map(|probe| watch.judge_at(*seat, &probe, &table, &peers, |_, _| false, 1_000_000 + at));
        black_box(matches!(verdict, Some(Verdict::Scan(_))));
    };
    let begun = processor_time();
    for (at, bytes) in (0..).zip(packets) {
        let link = LinkType::Cooked { ethertype: ETHERTYPE_IPV4 };
        let parsed = parse_cut(link, black_box(bytes), LENGTH, Checksums::Trust);
        let packet = parsed.as_ref().expect("a whole packet");
        assert!(!packet.transport.is_fragment());
        let seat = table.seat(watch.account_with(&packet.source, &packet.destination));
        table.home(seat).into_iter().for_each(portsentry::sys::prefetch);
        unjudged.push(|| (*packet, seat, at), judge);
    }
    unjudged.empty(judge);
    (processor_time() - begun) * 1e9 / packets.len() as f64
}

fn watch(watched: bool) -> Watch {
    Watch {
        tcp_ports: (1..=u16::MAX).filter(|_| watched).collect(),
        udp_ports: PortSet::new(),
        scan_trigger: 2,
        ipv6_prefix: 64,
        one_by_one: Networks::default(),
        vantage: Vantage::default(),
        walk: Walk::new(Sensitivity::Medium),
        block_tcp: BlockMode::Block,
        block_udp: BlockMode::Block,
    }
}

/// Seconds that this thread has run.
fn processor_time() -> f64 {
    let spent: std::time::Duration = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("a clock").into();
    spent.as_secs_f64()
}
