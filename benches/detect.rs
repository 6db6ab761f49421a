//! Packet → probe → verdict in memory, one core: `cargo bench --bench detect`.
//!
//! Prints the median, best and worst of the rounds for each load. Packets lie ready, so nothing but our own code is timed.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use portsentry::config::{BlockMode, PortSet};
use portsentry::detect::Peers;
use portsentry::detect::walk::Walk;
use portsentry::detect::weights::{HALF_LIFE, Sensitivity};
use portsentry::detect::{Probe, ScoreTable, Verdict, Watch};
use portsentry::packet::{Packet, TcpFlags, Transport};

const ROUNDS: usize = 15;
const PACKETS: u32 = 1_000_000;
const START: u64 = 1_800_000_000_000_000;

fn main() {
    println!("{:<44} {:>9} {:>9} {:>9} {:>9}", "load (one core)", "ns/packet", "best", "worst", "M/s");
    report("one source, 65,535 ports", (0..PACKETS).map(|at| syn(1, at)).collect(), true);
    report(
        "one million random sources, one port each",
        (0..PACKETS).map(|at| syn(scatter(at), at)).collect(),
        true,
    );
    report("mixed: 10 scanners, half the packets noise", (0..PACKETS).map(mixed).collect(), true);
    report("not watched: classified and left", (0..PACKETS).map(|at| syn(1, at)).collect(), false);
}

/// Packet `at` of a scan by `source`: each a port and a sequence number of its own.
fn syn(source: u32, at: u32) -> Packet {
    let transport = Transport::Tcp {
        source_port: 40_000,
        port: (at % 65_535 + 1) as u16,
        flags: TcpFlags(TcpFlags::SYN),
        sequence: at,
        payload: 0,
    };
    let v4 = |bits| IpAddr::V4(Ipv4Addr::from(bits));
    Packet {
        source: v4(0x0b00_0000 ^ source),
        destination: v4(0xc000_0201),
        ip_options: Some(false),
        transport,
    }
}

fn mixed(at: u32) -> Packet {
    match at % 2 {
        0 => syn(at / 2 % 10, at),
        _ => syn(scatter(at), at),
    }
}

/// A number that looks random, different for each `at`; below 2^24, so that no source is a martian.
fn scatter(at: u32) -> u32 {
    at.wrapping_mul(0x9e37_79b1) >> 8
}

fn report(name: &str, packets: Vec<Packet>, watched: bool) {
    let mut rounds: Vec<f64> = (0..ROUNDS).map(|_| round(&packets, watched)).collect();
    rounds.sort_by(f64::total_cmp);
    let (best, median, worst) = (rounds[0], rounds[ROUNDS / 2], rounds[ROUNDS - 1]);
    println!("{name:<44} {median:>9.1} {best:>9.1} {worst:>9.1} {:>9.1}", 1_000.0 / median);
}

/// Nanoseconds a packet, in a fresh table of the default kind.
fn round(packets: &[Packet], watched: bool) -> f64 {
    let table = ScoreTable::new(32_768, &[0x5a; 16], Some(HALF_LIFE));
    let ports: PortSet = (1..=u16::MAX).filter(|_| watched).collect();
    let watch = Watch {
        tcp_ports: ports,
        udp_ports: PortSet::new(),
        scan_trigger: 2,
        ipv6_prefix: 64,
        on_link: portsentry::networks::Networks::default(),
        vantage: Default::default(),
        walk: Walk::new(Sensitivity::Medium),
        block_tcp: BlockMode::Block,
        block_udp: BlockMode::Block,
    };
    let peers = Peers::new(&[0xa5; 16], true);
    let begun = Instant::now();
    let mut scans = 0_u32;
    for (at, packet) in packets.iter().enumerate() {
        let Some(probe) = Probe::from_packet(black_box(packet)) else { continue };
        let verdict = watch.judge(&probe, &table, &peers, |_, _| false, START + at as u64);
        scans += u32::from(matches!(verdict, Verdict::Scan(_)));
    }
    let spent = begun.elapsed();
    black_box(scans);
    spent.as_secs_f64() * 1e9 / packets.len() as f64
}
