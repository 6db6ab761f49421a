//! From a scanner's first SYN to the moment it gets no more answers.
//!
//! The scanner pings the target every 20 µs. The target's kernel answers within the very call that sends, so the last
//! ping that was answered tells, to one spacing, when the block began. The scanner has a processor to itself, as a
//! machine of its own would: on the daemon's, its busy waiting would hold up the very thread that is to block it.
#![forbid(unsafe_code)]

use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use portsentry::control::ControlRequest;
use portsentry::control::client::ask;
use portsentry::netlink::sock_diag::{SocketTables, Transport};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::Effort;
use super::figures::{Figures, median, spread};
use super::machine;
use super::sender::{checksum, raw_socket, syn};
use super::support::daemon::{Daemon, Setup};
use super::support::{Host, Lab, inside};

const PORT: u16 = 111;
const SPACING: Duration = Duration::from_micros(20);
/// So long without an answer: it has ended.
const SILENCE: Duration = Duration::from_millis(5);
const GIVE_UP: Duration = Duration::from_secs(2);

/// Adds the rows.
pub fn measure(effort: Effort, figures: &mut Figures) {
    figures.part("First SYN → dropped, without tripwire, nothing else going on (target ≤ 250)");
    for peace in Peace::ALL {
        triggers(peace, effort, figures);
    }
    let lab = Lab::new(1);
    let looks: Vec<f64> = inside(&lab.target(), || (0..effort.triggers).map(|_| look()).collect());
    figures.add("for comparison: listing all sockets", median(&looks), "µs", spread(&looks));
    let questions: Vec<f64> =
        inside(&lab.target(), || (0..effort.triggers).map(|_| question(lab.peer(0))).collect());
    figures.add("for comparison: asking about one", median(&questions), "µs", spread(&questions));
}

/// Who else is connected to the host while a scanner comes: PROTECT_ESTABLISHED has the daemon find out whether he is.
#[derive(Clone, Copy)]
struct Peace {
    connections: usize,
    /// Another one is opened just before each scan, so that nothing known of connections holds any more.
    restless: bool,
}

impl Peace {
    const ALL: [Peace; 4] = [
        Peace { connections: 0, restless: false },
        Peace { connections: 2_000, restless: false },
        Peace { connections: 0, restless: true },
        Peace { connections: 2_000, restless: true },
    ];

    fn name(self) -> String {
        let also = if self.restless { ", one just now" } else { "" };
        format!("{} connected{also}", self.connections)
    }
}

fn triggers(peace: Peace, effort: Effort, figures: &mut Figures) {
    let lab = Lab::new(2);
    let (scanner, friend) = (lab.peer(0).clone(), lab.peer(1));
    let service = inside(&lab.target(), || TcpListener::bind("0.0.0.0:4000").expect("the port is free"));
    let connect = || {
        let to = SocketAddrV4::new(friend.target_v4, 4000);
        let client = inside(&friend.netns, || TcpStream::connect(to).expect("the service accepts"));
        (client, service.accept().expect("somebody connected").0)
    };
    // Before the daemon starts, which lists them then.
    let mut kept: Vec<_> = (0..peace.connections).map(|_| connect()).collect();
    machine::keep_to(false);
    let mut daemon = Setup::new(&lab, "TCP_PORTS=\"111\"\nBLOCK_TCP=\"1\"\nTRIPWIRE=\"0\"").start();
    let (mut dropped, mut applied, mut told) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..effort.triggers {
        if peace.restless {
            kept.push(connect());
        }
        let sequence = u32::try_from(round * 7919 + 1).expect("few rounds");
        dropped.push(inside(&scanner.netns, || time_to_silence(&scanner, sequence)).micros);
        let block = daemon.wait_for_new("a block", |event| event["event_type"] == "block");
        applied.push(block["action"]["micros"].as_f64().expect("a block took some time"));
        told.push(micros_between(&block["scan"]["first_seen"], &block["timestamp"]));
        unblock(&daemon, scanner.v4);
    }
    machine::keep_to_all();
    figures.add(format!("{}: sent → last answer", peace.name()), median(&dropped), "µs", spread(&dropped));
    figures.add("  of it, the kernel takes the block", median(&applied), "µs", spread(&applied));
    figures.add("  first_seen → block told (whole milliseconds)", median(&told), "µs", spread(&told));
}

/// What a scanner still got after its first SYN.
pub struct Silence {
    /// Until the last ping that was answered was sent.
    pub micros: f64,
    /// Pings that were answered.
    pub answered: u32,
}

/// Sends a SYN to the watched port, then pings until nobody answers any more.
pub fn time_to_silence(scanner: &Host, sequence: u32) -> Silence {
    machine::keep_to(true);
    let (pings, raw) = (ping_socket(scanner.target_v4), raw_socket());
    assert!(is_answered(&pings, 0), "the target answers before the scan");
    let target = SockAddr::from(SocketAddrV4::new(scanner.target_v4, 0));
    let begun = Instant::now();
    raw.send_to(&syn(scanner.v4, scanner.target_v4, PORT, sequence), &target).expect("a route");
    let (mut last, mut next, mut answered) = (Duration::ZERO, Duration::ZERO, 0);
    for number in 1.. {
        while begun.elapsed() < next {
            std::hint::spin_loop();
        }
        let sent = begun.elapsed();
        if is_answered(&pings, number) {
            last = sent;
            answered += 1;
        }
        if sent - last > SILENCE {
            break;
        }
        assert!(sent < GIVE_UP, "never blocked");
        next = sent + SPACING;
    }
    Silence { micros: last.as_secs_f64() * 1e6, answered }
}

/// A raw ICMP socket that hears only the target.
pub fn ping_socket(target: Ipv4Addr) -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)).expect("root may have one");
    socket.connect(&SockAddr::from(SocketAddrV4::new(target, 0))).expect("a route");
    socket.set_nonblocking(true).expect("it can be");
    socket
}

/// Whether the answer to this ping lies there when the call that sent it returns.
pub fn is_answered(socket: &Socket, number: u16) -> bool {
    let mut ping = [8, 0, 0, 0, 0x70, 0x73, 0, 0];
    ping[6..].copy_from_slice(&number.to_be_bytes());
    let sum = checksum(&ping, 0);
    ping[2..4].copy_from_slice(&sum.to_be_bytes());
    socket.send(&ping).expect("a route");
    let mut answered = false;
    let mut answer = [MaybeUninit::new(0_u8); 128];
    while let Ok((length, _)) = socket.recv_from(&mut answer) {
        // An IPv4 header of 20 bytes, then type 0; the target's complaints about the SYN are no answers.
        answered |= length >= 28;
    }
    answered
}

fn unblock(daemon: &Daemon, source: Ipv4Addr) {
    let request = ControlRequest::Unblock { address: std::net::IpAddr::from(source).into() };
    ask(&daemon.path("run/control.sock"), &request).expect("the daemon answers");
}

/// Between two times as events write them, RFC 3339 with microseconds, less than a minute apart.
fn micros_between(earlier: &serde_json::Value, later: &serde_json::Value) -> f64 {
    let seconds = |time: &serde_json::Value| -> f64 {
        let text = time.as_str().expect("a time").get(17..26).expect("seconds with six digits");
        text.parse().expect("a number")
    };
    (seconds(later) - seconds(earlier)).rem_euclid(60.0) * 1e6
}

fn question(scanner: &Host) -> f64 {
    let mut tables = SocketTables::open().expect("the kernel has sock_diag");
    let (local, remote) = ((scanner.target_v4, PORT).into(), (scanner.v4, 40_000).into());
    let begun = Instant::now();
    tables.takes(Transport::Tcp, local, remote, 0).expect("the kernel looks it up");
    begun.elapsed().as_secs_f64() * 1e6
}

fn look() -> f64 {
    let mut tables = SocketTables::open().expect("the kernel has sock_diag");
    let begun = Instant::now();
    tables.read().expect("the kernel lists its sockets");
    begun.elapsed().as_secs_f64() * 1e6
}
