//! From a scanner's last SYN to the moment it gets no more answers, as the scanner sees it.

use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::{Host, inside};

/// So long without an answer: it has ended.
const SILENCE: Duration = Duration::from_millis(100);
/// From ping to ping: what is shorter cannot be told apart.
pub const SPACING: Duration = Duration::from_micros(50);
/// Nobody waits longer for a block.
pub const GIVE_UP: Duration = Duration::from_secs(2);

/// Knocks at `ports` from `source`, an address of `host`, and then pings until nobody answers any more: when the last
/// ping was answered, counted from the last knock. Panics after [`GIVE_UP`].
pub fn time_to_silence(host: &Host, source: Ipv4Addr, ports: &[u16]) -> Duration {
    let target = host.target_v4;
    inside(&host.netns, move || {
        let pings = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)).expect("root may have one");
        let at = |address, port| SockAddr::from(SocketAddr::V4(SocketAddrV4::new(address, port)));
        pings.bind(&at(source, 0)).expect("an address of ours");
        pings.connect(&at(target, 0)).expect("a route");
        pings.set_nonblocking(true).expect("it can be");
        assert!(is_answered(&pings, 0), "the target answers before the scan");
        for &port in ports {
            let knock = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
            knock.set_nonblocking(true).expect("it can be");
            knock.bind(&at(source, 0)).expect("an address of ours");
            // Refused or under way: the SYN is sent.
            let _ = knock.connect(&at(target, port));
        }
        until_silent(&pings)
    })
}

fn until_silent(pings: &Socket) -> Duration {
    let begun = Instant::now();
    let mut last = Duration::ZERO;
    for number in 1_u16.. {
        let sent = begun.elapsed();
        if is_answered(pings, number) {
            last = sent;
        }
        if sent - last > SILENCE {
            return last;
        }
        assert!(sent < GIVE_UP, "not blocked within {GIVE_UP:?}");
        while begun.elapsed() < sent + SPACING {
            std::hint::spin_loop();
        }
    }
    unreachable!("{GIVE_UP:?} are over long before")
}

/// Whether an answer lies there when the call that sent a ping returns: over veth the target answers within it.
fn is_answered(socket: &Socket, number: u16) -> bool {
    let mut ping = [8, 0, 0, 0, 0x70, 0x73, 0, 0];
    ping[6..].copy_from_slice(&number.to_be_bytes());
    let words = ping.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum::<u32>();
    let sum = !((words & 0xffff) + (words >> 16)) as u16;
    ping[2..4].copy_from_slice(&sum.to_be_bytes());
    socket.send(&ping).expect("a route");
    let mut answered = false;
    let mut answer = [MaybeUninit::new(0_u8); 128];
    while let Ok((length, _)) = socket.recv_from(&mut answer) {
        // An IPv4 header of 20 bytes and an echo reply of 8; what else the target says is longer.
        answered |= length == 28;
    }
    answered
}
