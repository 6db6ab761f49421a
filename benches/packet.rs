//! Nanoseconds a packet of the parser, next to etherparse's on the same frames in the same run.
//!
//! The figures are medians of rounds in which both parsers take turns, and count the thread's own processor time, so
//! that a busy machine disturbs both little and alike.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::hint::black_box;
use std::net::IpAddr;
use std::time::Duration;

use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use nix::time::{ClockId, clock_gettime};
use portsentry::packet::{Checksums, LinkType, Reassembly, parse};

const ROUNDS: usize = 31;
const PACKETS: usize = 400_000;
/// Distinct frames, as of a scan: enough that no branch predictor learns one of them.
const FRAMES: u16 = 64;

type Frames = Vec<Vec<u8>>;
type Parser<'a> = (&'a str, Box<dyn FnMut(&[u8])>);

fn tcp4() -> Frames {
    build(|port, frame| {
        let ip = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([192, 0, 2, 1], [192, 0, 2, 2], 64);
        ip.tcp(40_000, port, 7, 1024).syn().options_raw(&[2, 4, 5, 0xb4]).unwrap().write(frame, &[]).unwrap();
    })
}

fn tcp6() -> Frames {
    build(|port, frame| {
        let ip = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv6([0x20; 16], [0x21; 16], 64);
        ip.tcp(40_000, port, 7, 1024).syn().options_raw(&[2, 4, 5, 0xb4]).unwrap().write(frame, &[]).unwrap();
    })
}

fn udp4() -> Frames {
    build(|port, frame| {
        let ip = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([192, 0, 2, 1], [192, 0, 2, 2], 64);
        ip.udp(40_000, port).write(frame, &[0x55; 64]).unwrap();
    })
}

fn build(write: impl Fn(u16, &mut Vec<u8>)) -> Frames {
    (1..=FRAMES)
        .map(|port| {
            let mut frame = Vec::new();
            write(port, &mut frame);
            frame
        })
        .collect()
}

/// The packet is looked at where it was written: copying one just written costs more than parsing it, since its
/// narrow stores cannot be forwarded to wide loads.
fn ours(frame: &[u8], checksums: Checksums) {
    let parsed = parse(LinkType::Ethernet, black_box(frame), checksums);
    assert!(black_box(&parsed).is_ok());
}

/// As a ring does it: only fragments are offered.
fn with_reassembly(frame: &[u8], table: &mut Reassembly<()>) {
    match &parse(LinkType::Ethernet, black_box(frame), Checksums::Trust) {
        Ok(packet) if packet.transport.is_fragment() => {
            black_box(&table.offer(*packet, (), 0));
        }
        parsed => assert!(black_box(parsed).is_ok()),
    }
}

/// The same facts as ours, taken from etherparse's slices.
fn theirs(frame: &[u8]) {
    let sliced = SlicedPacket::from_ethernet(black_box(frame)).expect("a valid frame");
    match &sliced.net {
        Some(NetSlice::Ipv4(ip)) => {
            black_box(&(
                IpAddr::from(ip.header().source_addr()),
                IpAddr::from(ip.header().destination_addr()),
            ));
        }
        Some(NetSlice::Ipv6(ip)) => {
            black_box(&(
                ip.header().source_addr().to_canonical(),
                ip.header().destination_addr().to_canonical(),
            ));
        }
        Some(NetSlice::Arp(_)) | None => {}
    }
    match &sliced.transport {
        Some(TransportSlice::Tcp(tcp)) => {
            let flags = tcp.header_slice().get(13).copied();
            black_box(&(tcp.source_port(), tcp.destination_port(), tcp.sequence_number(), flags));
        }
        Some(TransportSlice::Udp(udp)) => {
            black_box(&(udp.source_port(), udp.destination_port(), udp.payload().len()));
        }
        Some(TransportSlice::Icmpv4(_) | TransportSlice::Icmpv6(_) | TransportSlice::Igmp(_)) | None => {}
    }
}

/// Spent by this thread.
fn processor_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap().into()
}

/// Nanoseconds a frame of one round.
fn round(frames: &Frames, parser: &mut dyn FnMut(&[u8])) -> f64 {
    let start = processor_time();
    for frame in frames.iter().cycle().take(PACKETS) {
        parser(frame);
    }
    (processor_time() - start).as_secs_f64() * 1e9 / PACKETS as f64
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn compare(name: &str, frames: &Frames) {
    let mut table = Reassembly::new();
    let mut parsers: [Parser<'_>; 4] = [
        ("trust", Box::new(|frame: &[u8]| ours(frame, Checksums::Trust))),
        ("verify", Box::new(|frame: &[u8]| ours(frame, Checksums::Verify))),
        ("trust+reassembly", Box::new(move |frame: &[u8]| with_reassembly(frame, &mut table))),
        ("etherparse", Box::new(theirs)),
    ];
    let mut times = vec![Vec::with_capacity(ROUNDS); parsers.len()];
    for _ in 0..ROUNDS {
        for ((_, parser), times) in parsers.iter_mut().zip(&mut times) {
            times.push(round(frames, parser));
        }
    }
    for ((parser, _), times) in parsers.iter().zip(times) {
        let nanoseconds = median(times);
        println!("{name:<10} {parser:<17} {nanoseconds:6.1} ns/packet {:7.1} M packets/s", 1e3 / nanoseconds);
    }
}

fn main() {
    println!("median of {ROUNDS} rounds of {PACKETS} packets, one thread");
    compare("IPv4 SYN", &tcp4());
    compare("IPv6 SYN", &tcp6());
    compare("IPv4 UDP", &udp4());
}
