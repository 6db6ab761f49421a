//! The packet rings against a real kernel: what the filter promises holds on a wire, and nothing is lost uncounted.
//!
//! Needs root. Two namespaces joined by a veth pair are made for each test and removed with it.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::net::if_::if_nametoindex;
use nix::sched::{CloneFlags, setns};
use nix::sys::eventfd::EventFd;
use portsentry::config::{Interfaces, PortSet};
use portsentry::packet::{Checksums, LinkType, Reject, Transport};
use portsentry::sensor::filter::{Interest, Watched, compile};
use portsentry::sensor::frame::Frame;
use portsentry::sensor::ring::{self, Reader, Ring, RingControl, RingError};
use socket2::{Domain, Socket, Type};

/// Longer than anything here takes: a wait that reaches it has failed.
const LONG: Duration = Duration::from_secs(10);

/// Two namespaces, `us` (10.77.0.1, fd77::1) and `them` (.2), joined by the interfaces `wire`.
struct Lab {
    us: String,
    them: String,
}

impl Lab {
    fn new() -> Lab {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let id = format!("{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let lab = Lab { us: format!("ring_us_{id}"), them: format!("ring_them_{id}") };
        for namespace in [&lab.us, &lab.them] {
            ip(&format!("netns add {namespace}"));
            ip(&format!("-n {namespace} link set lo up"));
        }
        lab.join("wire", 77);
        lab
    }

    fn join(&self, name: &str, net: u8) {
        let (us, them) = (&self.us, &self.them);
        ip(&format!("-n {us} link add {name} type veth peer name {name} netns {them}"));
        for (namespace, host) in [(us, 1), (them, 2)] {
            ip(&format!("-n {namespace} addr add 10.{net}.0.{host}/24 dev {name}"));
            ip(&format!("-n {namespace} addr add fd{net}::{host}/64 dev {name} nodad"));
            ip(&format!("-n {namespace} link set {name} up"));
        }
    }

    fn on_us(&self) {
        enter(&self.us);
    }

    /// Runs a command on the other host.
    fn they(&self, command: &str) {
        run("ip", &format!("netns exec {} {command}", self.them));
    }

    /// One UDP datagram from the other host: what shows that a ring is awake and everything before it is through.
    fn they_knock(&self, to: &str, times: usize) {
        self.they_send(&vec![to.parse().unwrap(); times]);
    }

    /// A UDP datagram to each of `addresses`.
    fn they_send(&self, addresses: &[SocketAddr]) {
        let (them, addresses) = (self.them.clone(), addresses.to_vec());
        let knock = move || {
            enter(&them);
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            addresses.iter().for_each(|to| assert_eq!(socket.send_to(b"knock", to).unwrap(), 5));
        };
        std::thread::spawn(knock).join().unwrap();
    }

    /// A frame from the other host, as it is, to whoever has the card 02:00:00:00:00:01.
    fn they_frame(&self, rest: &[u8]) {
        let (them, frame) =
            (self.them.clone(), [&[2, 0, 0, 0, 0, 1][..], &[2, 0, 0, 0, 0, 2], rest].concat());
        let send = move || {
            enter(&them);
            assert_eq!(card().send(&frame).unwrap(), frame.len());
        };
        std::thread::spawn(send).join().unwrap();
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for namespace in [&self.us, &self.them] {
            let _ = Command::new("ip").args(["netns", "del", namespace]).status();
        }
    }
}

/// What puts whole frames on this host's `wire`.
fn card() -> Socket {
    let card = Socket::new(Domain::PACKET, Type::RAW, None).unwrap();
    portsentry::sys::bind_packet_socket(card.as_fd(), if_nametoindex("wire").unwrap()).unwrap();
    card
}

fn enter(namespace: &str) {
    let file = File::open(format!("/run/netns/{namespace}")).unwrap();
    setns(file, CloneFlags::CLONE_NEWNET).unwrap();
}

fn ip(arguments: &str) {
    run("ip", arguments);
}

fn run(program: &str, arguments: &str) {
    let mut command = Command::new(program);
    let status =
        command.args(arguments.split(' ')).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
    assert!(status.success(), "{program} {arguments}");
}

/// What a test keeps of a frame.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    ring: usize,
    ethertype: u16,
    interface: u32,
    bytes: Vec<u8>,
}

impl Seen {
    fn udp_port(&self) -> u16 {
        self.half(if self.ethertype == 0x0800 { 22 } else { 42 })
    }

    /// What the packet path makes of it.
    fn transport(&self) -> Result<Transport, Reject> {
        let link = LinkType::Cooked { ethertype: self.ethertype };
        portsentry::packet::parse(link, &self.bytes, Checksums::Trust).map(|packet| packet.transport)
    }

    fn half(&self, at: usize) -> u16 {
        u16::from_be_bytes([self.bytes[at], self.bytes[at + 1]])
    }
}

/// Ring threads that send what they see coming in (or, instead, going out) to the test, stopped on drop.
struct Readers {
    seen: Receiver<Seen>,
    stop: std::sync::Arc<EventFd>,
    threads: Vec<JoinHandle<()>>,
}

impl Readers {
    fn start(rings: Vec<Ring>) -> Readers {
        Readers::hearing(false, rings)
    }

    fn hearing(sent: bool, rings: Vec<Ring>) -> Readers {
        let (sender, seen) = channel();
        let stop = std::sync::Arc::new(EventFd::new().unwrap());
        let threads =
            rings.into_iter().enumerate().map(|(at, ring)| read(at, ring, sent, &stop, &sender)).collect();
        Readers { seen, stop, threads }
    }

    fn next(&self) -> Seen {
        self.seen.recv_timeout(LONG).expect("a packet within ten seconds")
    }

    /// Everything up to and with the first packet to UDP port `port`.
    fn until_knock(&self, port: u16) -> Vec<Seen> {
        let mut all = vec![self.next()];
        while all.last().unwrap().udp_port() != port {
            all.push(self.next());
        }
        all
    }
}

fn read(
    at: usize,
    ring: Ring,
    sent: bool,
    stop: &std::sync::Arc<EventFd>,
    sender: &Sender<Seen>,
) -> JoinHandle<()> {
    let (stop, sender) = (stop.clone(), sender.clone());
    std::thread::spawn(move || {
        ring.run(stop.as_fd(), |frame: &Frame<'_>| {
            if (frame.packet_type == libc::PACKET_OUTGOING) != sent {
                return;
            }
            let (ethertype, interface) = (frame.ethertype, frame.interface);
            let _ = sender.send(Seen { ring: at, ethertype, interface, bytes: frame.bytes.to_vec() });
        })
        .unwrap()
    })
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.stop.write(1).unwrap();
        self.threads.drain(..).for_each(|thread| thread.join().unwrap());
    }
}

fn ports(ports: &[u16]) -> PortSet {
    ports.iter().copied().collect()
}

/// Watches TCP 23 and UDP 9 and 10: the latter are knocked on.
fn interest() -> Interest {
    Interest { tcp: ports(&[23]), udp: ports(&[9, 10]), ..Interest::default() }
}

fn open(workers: usize, interest: &Interest) -> (Readers, RingControl) {
    let (rings, control) = ring::open(workers, interest).unwrap();
    (Readers::start(rings), control)
}

#[test]
fn a_syn_is_seen_with_its_ethertype_and_interface() {
    let lab = Lab::new();
    lab.on_us();
    let (readers, _control) = open(1, &interest());
    lab.they("nmap -sS -Pn -n -p 23 --max-retries 0 10.77.0.1");
    let seen = readers.next();
    assert_eq!((seen.ethertype, &seen.bytes[12..16]), (0x0800, &[10, 77, 0, 2][..]));
    assert_eq!(Watched::Indexes(vec![seen.interface]), resolve("wire").unwrap());
    assert_eq!((u16::from_be_bytes([seen.bytes[22], seen.bytes[23]]), seen.bytes[33] & 0x3f), (23, 0x02));
}

/// Tells, whenever nothing follows for now, which ports were knocked at since it last told.
struct Rester {
    heard: Vec<u16>,
    told: Sender<Vec<u16>>,
}

impl Reader for Rester {
    fn on_frame(&mut self, frame: &Frame<'_>) {
        self.heard.push(u16::from_be_bytes([frame.bytes[22], frame.bytes[23]]));
    }

    fn on_rest(&mut self) {
        let heard = std::mem::take(&mut self.heard);
        if !heard.is_empty() {
            self.told.send(heard).unwrap();
        }
    }
}

#[test]
fn after_one_packet_and_after_many_the_reader_is_told_that_none_follows() {
    let lab = Lab::new();
    lab.on_us();
    let (mut rings, _control) = ring::open(1, &interest()).unwrap();
    let (told, rests) = channel();
    let stop = std::sync::Arc::new(EventFd::new().unwrap());
    let (ring, stopping) = (rings.remove(0), stop.clone());
    let rester = Rester { heard: Vec::new(), told };
    let reading = std::thread::spawn(move || ring.run(stopping.as_fd(), rester).unwrap());
    let at = |port: u16| SocketAddr::from(([10, 77, 0, 1], port));
    lab.they_send(&[at(9)]);
    assert_eq!(rests.recv_timeout(LONG).expect("a rest after one packet"), [9]);
    let sent: Vec<u16> =
        (0..500_usize).map(|at| if (at * at / 3).is_multiple_of(2) { 9 } else { 10 }).collect();
    lab.they_send(&sent.iter().map(|&port| at(port)).collect::<Vec<_>>());
    let mut heard = Vec::new();
    while heard.len() < sent.len() {
        heard.extend(rests.recv_timeout(LONG).expect("a rest after the last of them"));
    }
    stop.write(1).unwrap();
    reading.join().unwrap();
    assert_eq!(heard, sent);
}

/// Tells what it was given: a packet, or that some were lost.
struct Loser(Sender<bool>);

impl Reader for Loser {
    fn on_frame(&mut self, _: &Frame<'_>) {
        self.0.send(false).unwrap();
    }

    fn on_loss(&mut self) {
        self.0.send(true).unwrap();
    }
}

#[test]
fn before_the_first_packet_after_a_loss_the_reader_is_told_of_it_whoever_counted_it() {
    let lab = Lab::new();
    lab.on_us();
    let flood: Vec<SocketAddr> = (0..10_000).map(|_| SocketAddr::from(([10, 77, 0, 1], 9))).collect();
    for counted_by_us in [false, true] {
        let (mut rings, control) = ring::open(1, &interest()).unwrap();
        let (told, given) = channel();
        let stop = std::sync::Arc::new(EventFd::new().unwrap());
        // Nobody reads yet: the ring has no room for so many.
        lab.they_send(&flood);
        let lost = if counted_by_us { control.count_drops().unwrap() } else { 0 };
        let (ring, stopping) = (rings.remove(0), stop.clone());
        let reading = std::thread::spawn(move || ring.run(stopping.as_fd(), Loser(told)).unwrap());
        let next = || given.recv_timeout(LONG).expect("a packet");
        if counted_by_us {
            assert!(lost > 0 && next(), "told before the first packet that was in the ring");
        }
        // What was in the ring before it was full is not marked: a MiB in slots of 256 bytes.
        (0..4096).for_each(|_| assert!(!next()));
        lab.they_send(&flood[..1]);
        assert!(counted_by_us || next());
        assert!(!next());
        stop.write(1).unwrap();
        reading.join().unwrap();
        assert!(control.counters().dropped.load(Ordering::Relaxed) > 0);
    }
}

/// Counts how often it was woken, and by how many packets.
#[derive(Clone, Default)]
struct Sleeper(std::sync::Arc<[AtomicU32; 2]>);

impl Reader for Sleeper {
    fn on_wake(&mut self) {
        self.0[0].fetch_add(1, Ordering::SeqCst);
    }

    fn on_frame(&mut self, _: &Frame<'_>) {
        self.0[1].fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn in_a_flood_a_wake_up_brings_many_packets_and_the_end_is_still_heard() {
    const SENT: u32 = 20_000;
    let lab = Lab::new();
    lab.on_us();
    let to: Vec<SocketAddr> = (0..SENT).map(|_| SocketAddr::from(([10, 77, 0, 1], 9))).collect();
    // A machine that is too busy to send a flood is asked again.
    let gathered = (0..10).any(|_| {
        let (mut rings, control) = ring::open(1, &interest()).unwrap();
        let (sleeper, stop) = (Sleeper::default(), std::sync::Arc::new(EventFd::new().unwrap()));
        let (ring, reader, stopping) = (rings.remove(0), sleeper.clone(), stop.clone());
        let reading = std::thread::spawn(move || ring.run(stopping.as_fd(), reader).unwrap());
        lab.they_send(&to);
        let count = |at: usize| sleeper.0[at].load(Ordering::SeqCst);
        let begun = std::time::Instant::now();
        while u64::from(count(1)) + control.count_drops().unwrap() < u64::from(SENT) {
            assert!(begun.elapsed() < LONG, "{} of {SENT}", count(1));
            std::thread::yield_now();
        }
        stop.write(1).unwrap();
        reading.join().unwrap();
        count(0) * 8 < count(1)
    });
    assert!(gathered);
}

#[test]
fn over_ipv6_too() {
    let lab = Lab::new();
    lab.on_us();
    let (readers, _control) = open(1, &interest());
    lab.they("nmap -6 -sS -Pn -n -p 23 --max-retries 0 fd77::1");
    let seen = readers.next();
    assert_eq!((seen.ethertype, seen.bytes[6], seen.bytes[53] & 0x3f), (0x86dd, 6, 0x02));
}

#[test]
fn every_kind_of_scan_is_seen_also_in_tiny_fragments() {
    let lab = Lab::new();
    lab.on_us();
    let interest = Interest { tcp_acks: ports(&[23]), ..interest() };
    let (readers, _control) = open(1, &interest);
    for (scan, flags) in [("-sN", 0), ("-sF", 0x01), ("-sX", 0x29), ("-sA", 0x10), ("-sM", 0x11)] {
        lab.they(&format!("nmap {scan} -Pn -n -p 23 --max-retries 0 10.77.0.1"));
        lab.they_knock("10.77.0.1:9", 1);
        let seen = readers.until_knock(9);
        assert!(
            seen.iter().any(|one| one.bytes[9] == 6 && one.bytes[33] & 0x3f == flags),
            "{scan}: {seen:?}"
        );
    }
    lab.they("nmap -sS -f -Pn -n -p 23 --max-retries 0 10.77.0.1");
    let (first, second) = (readers.next(), readers.next());
    assert_eq!((&first.bytes[6..8], first.bytes.len()), (&[0x20, 0x00][..], 28));
    assert_eq!((&second.bytes[6..8], second.bytes[25] & 0x3f), (&[0x20, 0x01][..], 0x02));
}

#[test]
fn an_established_stream_never_wakes_the_ring() {
    let lab = Lab::new();
    lab.on_us();
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let (readers, control) = open(1, &Interest { tcp: ports(&[port]), ..interest() });
    let them = lab.them.clone();
    let client = std::thread::spawn(move || {
        enter(&them);
        let mut stream = TcpStream::connect((Ipv4Addr::new(10, 77, 0, 1), port)).unwrap();
        stream.write_all(&vec![1; 20 << 20]).unwrap();
    });
    let mut received = Vec::new();
    listener.accept().unwrap().0.read_to_end(&mut received).unwrap();
    client.join().unwrap();
    lab.they_knock("10.77.0.1:9", 1);
    let seen = readers.until_knock(9);
    assert_eq!(
        (received.len(), seen.len(), seen[0].bytes[33]),
        (20 << 20, 2, 0xc2 & seen[0].bytes[33] | 0x02)
    );
    drop(readers);
    // Both, and the answer to the SYN.
    assert_eq!(control.counters().seen.load(Ordering::Relaxed), 3);
}

#[test]
fn the_filter_is_replaced_under_a_running_ring() {
    let lab = Lab::new();
    lab.on_us();
    let (readers, control) = open(2, &interest());
    lab.they_knock("10.77.0.1:9", 1);
    assert_eq!(readers.next().udp_port(), 9);
    control.set_filter(&compile(&Interest { udp: ports(&[11]), ..interest() })).unwrap();
    lab.they_knock("10.77.0.1:9", 1);
    lab.they_knock("10.77.0.1:11", 1);
    assert_eq!(readers.next().udp_port(), 11);
}

#[test]
fn the_largest_filters_fit_twice_into_the_smallest_option_memory() {
    let lab = Lab::new();
    lab.on_us();
    // Per namespace since Linux 6.8, which also raised the default from this value; before, no namespace has the file.
    let set = std::fs::write("/proc/sys/net/core/optmem_max", "20480");
    assert!(set.is_ok() || !std::path::Path::new("/proc/sys/net/core/optmem_max").exists());
    let ragged: PortSet = (1..=u16::MAX).step_by(2).collect();
    let interest = Interest {
        interfaces: Watched::Indexes((1..=64).collect()),
        tcp: ragged.clone(),
        tcp_acks: ragged.clone(),
        udp: ragged.clone(),
        udp_clients: ragged,
        icmp: true,
        other_protocols: true,
    };
    let (_rings, control) = ring::open(1, &interest).unwrap();
    control.set_filter(&compile(&interest)).unwrap();
}

#[test]
fn a_filter_that_the_option_memory_does_not_hold_names_the_sysctl_to_raise() {
    let lab = Lab::new();
    lab.on_us();
    // Per namespace since Linux 6.8: no other host's is lowered.
    if std::fs::write("/proc/sys/net/core/optmem_max", "1024").is_err() {
        return;
    }
    let ragged: PortSet = (1..=u16::MAX).step_by(2).collect();
    let refused = ring::open(1, &Interest { tcp: ragged, ..interest() }).err().unwrap().to_string();
    assert!(refused.contains("sysctl -w net.core.optmem_max=20480"), "{refused}");
}

#[test]
fn loopback_is_left_out_unless_wanted() {
    let lab = Lab::new();
    lab.on_us();
    let (readers, control) = open(1, &interest());
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.send_to(b"to ourselves", "127.0.0.1:9").unwrap();
    lab.they_knock("10.77.0.1:10", 1);
    assert_eq!(readers.next().udp_port(), 10);
    control.set_filter(&compile(&Interest { interfaces: Watched::All, ..interest() })).unwrap();
    socket.send_to(b"to ourselves", "127.0.0.1:9").unwrap();
    assert_eq!(readers.next().udp_port(), 9);
}

#[test]
fn an_interface_that_comes_later_is_seen_and_a_named_one_alone_if_named() {
    let lab = Lab::new();
    lab.on_us();
    let (readers, control) = open(1, &interest());
    lab.join("later", 78);
    lab.they_knock("10.78.0.1:9", 1);
    assert_eq!(Watched::Indexes(vec![readers.next().interface]), resolve("later").unwrap());
    let interest = Interest { interfaces: resolve("wire").unwrap(), ..interest() };
    control.set_filter(&compile(&interest)).unwrap();
    lab.they_knock("10.78.0.1:9", 1);
    lab.they_knock("10.77.0.1:10", 1);
    assert_eq!(readers.next().udp_port(), 10);
}

/// What a network card gets to send where it cannot put in a VLAN's tag itself. On the VLAN's own device the same packet
/// was heard without it.
#[test]
fn what_goes_out_with_its_tag_in_it_is_not_heard_once_more() {
    let lab = Lab::new();
    lab.on_us();
    let (rings, _control) = ring::open(1, &interest()).unwrap();
    let readers = Readers::hearing(true, rings);
    let card = card();
    for tag in [0x8100_u16, 0x88a8, 0x9100] {
        let tagged = [&[0xff; 12][..], &tag.to_be_bytes(), &[0, 42, 8, 0], &[0x45; 40]].concat();
        assert_eq!(card.send(&tagged).unwrap(), tagged.len());
    }
    // And a question, which is wanted.
    let asks = UdpSocket::bind("10.77.0.1:9").unwrap();
    asks.send_to(b"question", "10.77.0.2:5000").unwrap();
    let heard = readers.next();
    assert_eq!((heard.ethertype, heard.half(20)), (0x0800, 9), "{heard:?}");
}

/// With a tag left in the packet the kernel may name what is behind all tags.
#[test]
fn what_comes_in_a_vlan_or_in_one_within_another_is_read_without_a_device_of_theirs() {
    let lab = Lab::new();
    ip(&format!("-n {} link set wire address 02:00:00:00:00:01", lab.us));
    lab.on_us();
    let (readers, _control) = open(1, &interest());
    let syn = [&[0x9c, 0x40, 0, 23][..], &[0; 8], &[0x50, 0x02, 4, 0, 0, 0, 0, 0]].concat();
    let four = [&[0x45, 0, 0, 40, 0, 1, 0, 0, 64, 6, 0, 0, 10, 77, 0, 2, 10, 77, 0, 1][..], &syn].concat();
    let six = [&[0x60, 0, 0, 0, 0, 20, 6, 64][..], &[0xfd; 32], &syn].concat();
    // Identifiers 1 to 3; in the second the priority makes the tag begin as IP does.
    let (outer, tag) = ([0x88, 0xa8, 0, 1], [0x81, 0]);
    for (ethertype, datagram) in [([0x08, 0], &four), ([0x86, 0xdd], &six)] {
        let second = [&tag[..], &[datagram[0], 2]].concat();
        let third = [&tag[..], &[0, 3]].concat();
        for tags in [outer.to_vec(), [&outer[..], &second].concat(), [&outer[..], &second, &third].concat()] {
            lab.they_frame(&[&tags[..], &ethertype, datagram].concat());
            let seen = readers.next();
            let is_it = matches!(seen.transport(), Ok(Transport::Tcp { port: 23, .. }));
            assert!(is_it && seen.bytes.ends_with(&syn), "{tags:02x?}: {seen:02x?}");
        }
    }
}

#[test]
fn two_rings_see_every_packet_once_between_them() {
    let lab = Lab::new();
    lab.on_us();
    let (readers, control) = open(2, &Interest { udp: (1..=1001).collect(), ..interest() });
    lab.they_send(&(1..=1001).map(|port| (Ipv4Addr::new(10, 77, 0, 1), port).into()).collect::<Vec<_>>());
    let all: Vec<Seen> = (0..1001).map(|_| readers.next()).collect();
    // Counted by the round: only a thread that has ended has counted all.
    drop(readers);
    let distinct: PortSet = all.iter().map(Seen::udp_port).collect();
    assert_eq!((distinct.len(), control.counters().seen.load(Ordering::Relaxed)), (1001, 1001));
    assert!(all.iter().any(|one| one.ring == 0) && all.iter().any(|one| one.ring == 1), "one ring does all");
}

#[test]
fn what_a_full_ring_loses_is_counted_and_the_rest_is_read() {
    let lab = Lab::new();
    lab.on_us();
    let (rings, control) = ring::open(1, &interest()).unwrap();
    lab.they_knock("10.77.0.1:9", 10_000);
    let dropped = control.count_drops().unwrap();
    assert_eq!(dropped, 10_000 - 4_096);
    assert_eq!(control.count_drops().unwrap(), dropped);
    let readers = Readers::start(rings);
    (0..4_096).for_each(|_| assert_eq!(readers.next().udp_port(), 9));
    lab.they_knock("10.77.0.1:10", 1);
    assert_eq!(readers.next().udp_port(), 10);
}

#[test]
fn a_missing_interface_is_named_with_those_there_are() {
    let lab = Lab::new();
    lab.on_us();
    let error = resolve("eth9").unwrap_err().to_string();
    assert_eq!(error, r#"there is no interface "eth9" here, only lo, wire; correct INTERFACES"#);
}

#[test]
fn without_the_capability_the_error_names_it() {
    let lab = Lab::new();
    lab.on_us();
    // Capabilities belong to threads, and this one ends with the test.
    caps::drop(None, caps::CapSet::Effective, caps::Capability::CAP_NET_RAW).unwrap();
    let error = ring::open(1, &interest()).map(drop).unwrap_err();
    assert!(matches!(error, RingError::NoCapability) && error.to_string().contains("CAP_NET_RAW"));
}

fn resolve(name: &str) -> Result<Watched, RingError> {
    ring::resolve(&Interfaces::Named(vec![name.to_owned()]))
}
