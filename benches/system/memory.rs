//! Packet bytes → parse → reassembly → probe → verdict in memory, as a ring thread does it, on one core.
#![forbid(unsafe_code)]

use std::hint::black_box;
use std::net::Ipv4Addr;

use nix::time::{ClockId, clock_gettime};
use portsentry::config::{BlockMode, PortSet};
use portsentry::detect::peers::Peers;
use portsentry::detect::table::Vantage;
use portsentry::detect::walk::Walk;
use portsentry::detect::weights::{HALF_LIFE, Sensitivity};
use portsentry::detect::{Probe, ScoreTable, Verdict, Watch};
use portsentry::networks::Networks;
use portsentry::packet::{Checksums, LinkType, Reassembly, parse_cut};

use super::Effort;
use super::figures::{Figures, median, spread};
use super::sender::{LENGTH, stranger, syn};

const PACKETS: u32 = 500_000;
const ETHERTYPE_IPV4: u16 = 0x0800;
const TARGET: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// Adds the rows.
pub fn measure(effort: Effort, figures: &mut Figures) {
    figures.part("Packet bytes → verdict in memory, one core, own processor time (target ≥ 20 M/s)");
    let one = |at: u32| syn(Ipv4Addr::new(11, 0, 0, 1), TARGET, (at % 65_535 + 1) as u16, at);
    let many = |at: u32| syn(stranger(at), TARGET, (at % 65_535 + 1) as u16, at);
    rows(effort, figures, "one scanner, all ports", &packets(one), true);
    rows(effort, figures, "500,000 spoofed sources", &packets(many), true);
    rows(effort, figures, "ports not watched", &packets(one), false);
}

fn packets(make: impl Fn(u32) -> [u8; LENGTH]) -> Vec<[u8; LENGTH]> {
    (0..PACKETS).map(make).collect()
}

fn rows(effort: Effort, figures: &mut Figures, what: &str, packets: &[[u8; LENGTH]], watched: bool) {
    let rounds: Vec<f64> = (0..effort.repeats * 3).map(|_| round(packets, watched)).collect();
    figures.add(what, 1e3 / median(&rounds), "M packets/s", format!("ns a packet: {}", spread(&rounds)));
}

/// Nanoseconds a packet, in a fresh table.
fn round(packets: &[[u8; LENGTH]], watched: bool) -> f64 {
    let (table, watch) = (ScoreTable::new(32_768, &[0x5a; 16], Some(HALF_LIFE)), watch(watched));
    let (mut reassembly, peers) = (Reassembly::new(), Peers::new(&[0xa5; 16], true));
    let begun = processor_time();
    for (at, bytes) in packets.iter().enumerate() {
        let link = LinkType::Cooked { ethertype: ETHERTYPE_IPV4 };
        let packet = parse_cut(link, black_box(bytes), LENGTH, Checksums::Trust).expect("a whole packet");
        let whole = match packet.transport.is_fragment() {
            false => Some(packet),
            true => reassembly.offer(packet, 0),
        };
        let probe = whole.and_then(|packet| Probe::from_packet(&packet));
        let verdict =
            probe.map(|probe| watch.judge(&probe, &table, &peers, |_, _| false, 1_000_000 + at as u64));
        black_box(matches!(verdict, Some(Verdict::Scan(_))));
    }
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
