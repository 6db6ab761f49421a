//! Promise: a decoy looks like its service to real clients, every visitor is seen exactly once, and no visitor costs
//! more than the limits. Real ports, in a network namespace of each test's own. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use portsentry::config::BothPorts;
use portsentry::detect::ScanType;
use portsentry::detect::probe::Protocol;
use portsentry::sensor::decoy::{DecoyError, Decoys, Manners, Skipped, Visit};
use socket2::{Domain, Socket, Type};

const TOKENS: u64 = 7000;
/// Far beyond what anything here takes; only a failure waits so long.
const PATIENCE: Duration = Duration::from_secs(20);

/// Moves this thread, and what it starts, to an empty network with a loopback.
fn alone() {
    unshare(CloneFlags::CLONE_NEWNET).expect("run this test as root: it makes a network namespace");
    assert!(Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap().success());
}

fn ports(tcp: &[u16], udp: &[u16]) -> BothPorts {
    let [tcp, udp] = [tcp, udp].map(|ports| ports.iter().copied().collect());
    BothPorts { tcp, udp }
}

/// Decoys and their loop, driven by hand.
struct Stage {
    decoys: Decoys,
    epoll: Epoll,
    visits: Vec<Visit>,
}

impl Stage {
    fn new(tcp: &[u16], udp: &[u16], banner: Option<&str>) -> Stage {
        let (mut decoys, skipped) = Decoys::bind(&ports(tcp, udp), banner).unwrap();
        assert_eq!(skipped, []);
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
        decoys.register(&epoll, TOKENS).unwrap();
        Stage { decoys, epoll, visits: Vec::new() }
    }

    /// One wake-up of the loop, at `now`; returns how many sockets were ready within `wait` milliseconds.
    fn turn(&mut self, now: Instant, wait: u16) -> usize {
        let mut events = [EpollEvent::empty(); 64];
        let ready = self.epoll.wait(&mut events, wait).unwrap();
        for event in &events[..ready] {
            let manners = Manners { due: &|_| true, is_for_everybody: &|_| false };
            self.decoys.on_ready(event.data(), now, &self.epoll, manners, &mut self.visits);
        }
        self.decoys.on_deadline(now, &self.epoll);
        ready
    }

    /// Turns until `done`; the clock stands still at `now`.
    fn turn_until(&mut self, now: Instant, done: impl Fn(&Stage) -> bool) {
        let give_up = Instant::now() + PATIENCE;
        while !done(self) {
            assert!(Instant::now() < give_up, "{} visits", self.visits.len());
            self.turn(now, 10);
        }
    }

    /// Runs by the real clock in a thread of its own until the result is dropped or joined.
    fn run(mut self) -> Running {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !told.load(Ordering::Relaxed) {
                self.turn(Instant::now(), 10);
            }
            self
        });
        Running { stop, thread: Some(thread) }
    }
}

struct Running {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Stage>>,
}

impl Running {
    /// Ends it, and takes in whatever has come by now.
    fn finish(mut self) -> Stage {
        self.stop.store(true, Ordering::Relaxed);
        let mut stage = self.thread.take().unwrap().join().unwrap();
        let give_up = Instant::now() + PATIENCE;
        while stage.turn(Instant::now(), 0) > 0 {
            assert!(Instant::now() < give_up, "it never comes to rest");
        }
        stage
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn python(script: &str, host: &str) {
    let output = Command::new("python3").args(["-c", script, host]).output().unwrap();
    assert!(output.status.success(), "{host}: {}", String::from_utf8_lossy(&output.stderr));
}

const CLIENTS: &str = r#"
import ftplib, imaplib, poplib, smtplib, http.client, socket, sys
host = sys.argv[1]

def refused(kind, code, call, *arguments):
    try:
        call(*arguments)
    except kind as error:
        assert code in str(error), error
    else:
        raise AssertionError("let in")

ftp = ftplib.FTP(host, timeout=5)
refused(ftplib.error_perm, "530", ftp.login, "root", "toor")
assert ftp.quit().startswith("221")

imap = imaplib.IMAP4(host, timeout=5)
assert "IMAP4REV1" in imap.capabilities
refused(imaplib.IMAP4.error, "AUTHENTICATIONFAILED", imap.login, "root", "toor")
imap.logout()

pop = poplib.POP3(host, timeout=5)
assert "USER" in pop.capa()
assert pop.user("root").startswith(b"+OK")
refused(poplib.error_proto, "-ERR", pop.pass_, "toor")
pop.quit()

for port in 25, 587:
    smtp = smtplib.SMTP(host, port, timeout=5)
    assert smtp.ehlo()[0] == 250 and smtp.mail("a@example.org")[0] == 530
    assert smtp.quit()[0] == 221

web = http.client.HTTPConnection(host, 80, timeout=5)
web.request("GET", "/", headers={"User-Agent": "x" * 300})
answer = web.getresponse()
assert answer.status == 403 and answer.read() == b""

def talk(port, first, *turns):
    with socket.create_connection((host, port), timeout=5) as s:
        heard = b""
        def hear(until):
            nonlocal heard
            while until not in heard:
                more = s.recv(4096)
                assert more, (port, heard)
                heard += more
            heard = heard[heard.index(until) + len(until):]
        if first:
            hear(first)
        for sent, until in turns:
            s.sendall(sent)
            if until is None:
                assert s.recv(4096) == b"", port
            else:
                hear(until)

talk(22, b"SSH-2.0-", (b"SSH-2.0-probe\r\n", b"\n"))
talk(23, b"login: ", (b"root\r\n", b"Password: "), (b"toor\r\0", b"Login incorrect"))
talk(873, b"@RSYNCD: ", (b"@RSYNCD: 31.0\n", b"\n"), (b"files\n", b"@ERROR"))
talk(3306, b"\xff\x10\x04Too many connections")
talk(5900, b"RFB 003.008\n", (b"RFB 003.008\n", b"failures"))
talk(6379, b"", (b"*1\r\n$4\r\nPING\r\n", b"-NOAUTH"))
talk(4444, b"")
"#;

#[test]
fn real_clients_meet_a_plausible_service_over_both_ip_versions() {
    alone();
    let tcp = [21, 22, 23, 25, 80, 110, 143, 587, 873, 3306, 4444, 5900, 6379];
    let stage = Stage::new(&tcp, &[], None).run();
    for host in ["127.0.0.1", "::1"] {
        python(CLIENTS, host);
    }
    let mut visits = stage.finish().visits;
    for host in ["127.0.0.1", "::1"] {
        let host: IpAddr = host.parse().unwrap();
        let mut seen: Vec<u16> = visits
            .extract_if(.., |visit| visit.source.ip() == host && visit.destination.ip() == host)
            .inspect(|visit| assert!(visit.verified && visit.probe().scan_type == ScanType::Connect))
            .map(|visit| visit.destination.port())
            .collect();
        seen.sort_unstable();
        assert_eq!(seen, tcp, "each visitor exactly once");
    }
    assert_eq!(visits, []);
}

#[test]
fn a_port_in_use_is_left_to_its_service() {
    alone();
    let service = TcpListener::bind("127.0.0.1:8080").unwrap();
    let resolver = UdpSocket::bind("127.0.0.1:53").unwrap();
    let (decoys, skipped) = Decoys::bind(&ports(&[8080, 8081], &[53, 69]), None).unwrap();
    let left =
        [Skipped { port: 8080, protocol: Protocol::Tcp }, Skipped { port: 53, protocol: Protocol::Udp }];
    assert_eq!(skipped, left);
    assert_eq!(decoys.ports(), ports(&[8081], &[69]));
    drop((service, resolver));
}

#[test]
fn nobody_can_share_a_decoys_port() {
    alone();
    let _decoys = Decoys::bind(&ports(&[8080], &[69]), None).unwrap();
    for (kind, port) in [(Type::STREAM, 8080_u16), (Type::DGRAM, 69)] {
        let other = Socket::new(Domain::IPV4, kind, None).unwrap();
        other.set_reuse_address(true).unwrap();
        other.set_reuse_port(true).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let taken = other.bind(&address.into()).and_then(|()| other.listen(1));
        assert_eq!(taken.unwrap_err().kind(), ErrorKind::AddrInUse, "{kind:?}");
    }
}

#[test]
fn without_the_right_to_bind_the_missing_capability_is_named() {
    alone();
    // Capabilities belong to threads; this one is not used again.
    let bound = std::thread::spawn(|| {
        caps::drop(None, caps::CapSet::Effective, caps::Capability::CAP_NET_BIND_SERVICE).unwrap();
        Decoys::bind(&ports(&[23], &[]), None).map(|_| ())
    });
    let error = bound.join().unwrap().unwrap_err();
    assert!(matches!(error, DecoyError::Bind { port: 23, .. }));
    let told = error.to_string();
    assert!(told.starts_with("decoy on TCP port 23: ") && told.contains("CAP_NET_BIND_SERVICE"), "{told}");
}

fn connect_from(source: [u8; 4], port: u16) -> TcpStream {
    let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    client.bind(&SocketAddr::from((source, 0)).into()).unwrap();
    client.connect(&SocketAddr::from(([127, 0, 0, 1], port)).into()).unwrap();
    let client = TcpStream::from(client);
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client
}

/// All that comes until the other side closes. A reset counts as closing.
fn everything(client: &mut TcpStream) -> Vec<u8> {
    let mut heard = Vec::new();
    match client.read_to_end(&mut heard) {
        Err(error) if error.kind() == ErrorKind::ConnectionReset => heard,
        result => {
            result.unwrap();
            heard
        }
    }
}

#[test]
fn three_hundred_visitors_at_once_are_all_seen_and_greeted_but_256_are_talked_to() {
    alone();
    let (mut stage, now) = (Stage::new(&[21], &[], None), Instant::now());
    let mut clients = Vec::new();
    for batch in 0..10 {
        clients.extend((0..30).map(|host| connect_from([127, 1, batch, host + 1], 21)));
        stage.turn_until(now, |stage| stage.visits.len() == clients.len());
    }
    assert_eq!(stage.decoys.conversations(), 256);
    for client in &mut clients[256..] {
        assert!(everything(client).starts_with(b"220 "));
    }
    let mut greeting = [0; 4];
    clients[255].read_exact(&mut greeting).unwrap();
    assert_eq!(&greeting, b"220 ");
    drop(clients);
    stage.turn_until(now, |stage| stage.decoys.conversations() == 0);
    assert_eq!(stage.visits.len(), 300);
}

#[test]
fn one_source_gets_four_conversations_and_leaves_room_for_others() {
    alone();
    let (mut stage, now) = (Stage::new(&[21], &[], None), Instant::now());
    let greedy: Vec<TcpStream> = (0..20).map(|_| connect_from([127, 0, 0, 9], 21)).collect();
    stage.turn_until(now, |stage| stage.visits.len() == 20);
    assert_eq!(stage.decoys.conversations(), 4);
    let _other = connect_from([127, 0, 0, 10], 21);
    stage.turn_until(now, |stage| stage.visits.len() == 21);
    assert_eq!(stage.decoys.conversations(), 5);
    drop(greedy);
}

#[test]
fn a_visitor_who_says_nothing_is_let_go_after_five_seconds_and_a_slow_one_after_fifteen() {
    alone();
    let (mut stage, start) = (Stage::new(&[21], &[], None), Instant::now());
    let after = |seconds| start + Duration::from_secs(seconds);
    let mut silent = connect_from([127, 0, 0, 2], 21);
    stage.turn_until(start, |stage| stage.visits.len() == 1);
    let mut slow = connect_from([127, 0, 0, 3], 21);
    stage.turn_until(after(1), |stage| stage.visits.len() == 2);
    assert_eq!(stage.decoys.next_deadline(), Some(after(5)));
    stage.turn(after(5), 0);
    assert_eq!((stage.decoys.conversations(), stage.decoys.next_deadline()), (1, Some(after(6))));
    for (seconds, deadline) in [(5, 10), (9, 14), (13, 16), (15, 16)] {
        slow.write_all(b"x").unwrap();
        let heard = Some(after(deadline));
        assert!(stage.turn(after(seconds), 1000) == 1 && stage.decoys.next_deadline() == heard, "{seconds}");
    }
    stage.turn(after(16), 0);
    assert_eq!((stage.decoys.conversations(), stage.decoys.next_deadline()), (0, None));
    for client in [&mut silent, &mut slow] {
        assert!(everything(client).starts_with(b"220 "));
    }
}

#[test]
fn a_flood_of_garbage_ends_the_conversation_within_its_limits() {
    alone();
    let tcp = [21, 22, 23, 25, 80, 110, 143, 873, 3306, 4444, 5900, 6379];
    let stage = Stage::new(&tcp, &[], None).run();
    for port in tcp {
        let mut client = connect_from([127, 0, 0, 1], port);
        let noise: Vec<u8> = (0..1_u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        // The decoy closes long before it has all of that.
        let sent = client.write_all(&noise).err();
        let heard = everything(&mut client);
        assert!(heard.len() < 4096, "port {port}: {} bytes, {sent:?}", heard.len());
    }
    let mut stage = stage.finish();
    assert_eq!(stage.visits.len(), tcp.len());
    stage.turn_until(Instant::now(), |stage| stage.decoys.conversations() == 0);
}

#[test]
fn a_visitor_who_hangs_up_at_once_is_still_seen() {
    alone();
    let mut stage = Stage::new(&[23], &[], None);
    let client = connect_from([127, 0, 0, 1], 23);
    socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    stage.turn_until(Instant::now(), |stage| stage.visits.len() == 1);
    assert!(stage.visits[0].verified);
}

#[test]
fn the_banner_replaces_every_greeting_and_ends_the_visit() {
    alone();
    let stage = Stage::new(&[21, 80, 4444], &[], Some("** UNAUTHORIZED **")).run();
    for port in [21, 80, 4444] {
        let mut client = connect_from([127, 0, 0, 1], port);
        assert_eq!(everything(&mut client), b"** UNAUTHORIZED **");
        client.shutdown(Shutdown::Both).unwrap();
    }
    assert_eq!(stage.finish().visits.len(), 3);
}

#[test]
fn a_datagram_is_an_unverified_visit_and_gets_no_answer() {
    alone();
    let mut stage = Stage::new(&[], &[69], None);
    for (host, ours) in [("127.0.0.1:0", "127.0.0.3:69"), ("[::1]:0", "[::1]:69")] {
        let client = UdpSocket::bind(host).unwrap();
        client.send_to(&[0; 200], ours).unwrap();
        stage.visits.clear();
        stage.turn_until(Instant::now(), |stage| stage.visits.len() == 1);
        let visit = stage.visits[0];
        assert_eq!((visit.source, visit.verified), (client.local_addr().unwrap(), false));
        assert_eq!((visit.destination, visit.protocol), (ours.parse().unwrap(), Protocol::Udp));
        client.set_nonblocking(true).unwrap();
        assert_eq!(client.recv(&mut [0; 9]).unwrap_err().kind(), ErrorKind::WouldBlock);
    }
}

#[test]
fn a_banner_over_udp_is_whole_for_a_while_then_smaller_than_its_question_and_spares_low_ports() {
    alone();
    let mut stage = Stage::new(&[], &[69], Some("keep out"));
    for (from, ours) in [("127.0.0.1", "127.0.0.3:69"), ("::1", "[::1]:69")] {
        let from: IpAddr = from.parse().unwrap();
        let (client, resolver) = (UdpSocket::bind((from, 0)).unwrap(), UdpSocket::bind((from, 53)).unwrap());
        let whole = [(&client, 1, &b"keep out"[..]); 16];
        let paid = [
            (&client, 100, &b"keep out"[..]),
            (&client, 5, b"keep"),
            (&client, 1, b""),
            (&resolver, 100, b""),
        ];
        for (socket, sent, got) in whole.into_iter().chain(paid) {
            let before = stage.visits.len();
            socket.send_to(&vec![0; sent], ours).unwrap();
            stage.turn_until(Instant::now(), |stage| stage.visits.len() > before);
            // The answer is sent before the visit is told, and loopback delivers at once.
            socket.set_nonblocking(true).unwrap();
            let mut answer = [0; 64];
            match socket.recv_from(&mut answer) {
                Ok((length, sender)) => assert_eq!((&answer[..length], sender), (got, ours.parse().unwrap())),
                Err(error) => assert!(got.is_empty() && error.kind() == ErrorKind::WouldBlock, "{error}"),
            }
        }
    }
}

#[test]
fn without_files_to_spare_a_port_rests_instead_of_spinning() {
    let mut child = Command::new(std::env::current_exe().unwrap());
    let output = child.args(["--exact", "out_of_files", "--ignored", "--nocapture"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
#[ignore = "another test runs it in a process of its own: the limit of open files belongs to the process"]
fn out_of_files() {
    alone();
    let (mut stage, start) = (Stage::new(&[21], &[], None), Instant::now());
    let mut client = connect_from([127, 0, 0, 1], 21);
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, 3, most).unwrap();
    assert_eq!(stage.turn(start, 1000), 1);
    assert_eq!((stage.visits.len(), stage.turn(start, 50)), (0, 0));
    let rested = stage.decoys.next_deadline().unwrap();
    assert!(rested > start);
    setrlimit(Resource::RLIMIT_NOFILE, 256, most).unwrap();
    stage.turn(rested, 0);
    stage.turn_until(rested, |stage| stage.visits.len() == 1);
    let mut greeting = [0; 4];
    client.read_exact(&mut greeting).unwrap();
    assert_eq!(&greeting, b"220 ");
}
