//! A port with a live service is no trap, whenever the service came, nor while it starts again; when it goes for good, the
//! port is watched again.

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use support::daemon::{Daemon, PATIENCE, Setup, suspend};
use support::service::{Service, answers};
use support::{Host, Lab, ip};

/// The promise: so long after it is missed a service is awaited,
const AWAITED: Duration = Duration::from_secs(60);
/// and from then on its port is watched, if somebody called within seconds after it went.
const WATCHED_AGAIN: Duration = Duration::from_secs(70);

const CONFIG: &str = "TCP_PORTS=\"80,443,111\"\nUDP_PORTS=\"69\"\nBLOCK_TCP=\"1\"\nBLOCK_UDP=\"1\"";

#[test]
fn a_service_older_than_the_daemon_never_counts() {
    let lab = Lab::new(1);
    let client = lab.peer(0);
    let _service = Service::start(&lab.target(), 80);
    let mut daemon = Setup::new(&lab, CONFIG).start();
    for v6 in [false, true] {
        (0..5).for_each(|_| assert!(answers(&client.netns, client.target(v6), 80, PATIENCE)));
    }
    daemon.catch_up();
    assert!(daemon.seen.iter().all(|event| event["event_type"] == "start"), "{:#?}", daemon.seen);
}

#[test]
fn a_service_that_starts_later_does_not_count() {
    let lab = Lab::new(1);
    let client = lab.peer(0);
    let mut daemon = Setup::new(&lab, CONFIG).start();
    let _service = Service::start(&lab.target(), 443);
    // The very first contact after it began to listen.
    assert!(answers(&client.netns, client.target(false), 443, PATIENCE));
    assert!(answers(&client.netns, client.target(true), 443, PATIENCE));
    daemon.catch_up();
    assert!(daemon.seen.iter().all(|event| event["event_type"] == "start"), "{:#?}", daemon.seen);
}

#[test]
fn who_calls_while_a_service_starts_again_is_no_prober() {
    let lab = Lab::new(1);
    let client = lab.peer(0);
    let mut daemon = Setup::new(&lab, CONFIG).start();
    let service = Service::start(&lab.target(), 443);
    assert!(answers(&client.netns, client.target(false), 443, PATIENCE), "so the daemon knows of it");
    daemon.catch_up();
    drop(service);
    let stopped = Instant::now();
    while stopped.elapsed() < Duration::from_secs(5) {
        assert!(!answers(&client.netns, client.target(false), 443, PATIENCE));
        daemon.catch_up();
    }
    let _service = Service::start(&lab.target(), 443);
    let served = answers(&client.netns, client.target(false), 443, PATIENCE);
    daemon.catch_up();
    assert!(daemon.seen.iter().all(|event| event["event_type"] == "start"), "{:#?}", daemon.seen);
    assert!(served);
}

/// Probes a port from the moment its service stopped, one packet at a time: none counts while the service is awaited, since
/// `begun` at the earliest, and each that is sent later.
fn assert_watched_again(daemon: &mut Daemon, client: &Host, kind: &str, port: u16, begun: Instant) {
    let stopped = Instant::now();
    while !daemon.seen.iter().any(|event| event["event_type"] == "block") {
        let sent = stopped.elapsed();
        let port = port.to_string();
        client.nmap(&[kind, "--max-retries", "0", "-p", &port, &client.target_v4.to_string()]);
        daemon.catch_up();
        let counted = daemon.seen.iter().any(|event| event["event_type"] == "scan");
        assert!(!counted || begun.elapsed() >= AWAITED, "{:#?}", daemon.seen);
        assert!(
            counted || sent < WATCHED_AGAIN,
            "sent {sent:?} after the stop and not counted: {:#?}",
            daemon.seen
        );
    }
    let scan = daemon.wait_for("the scan", |event| event["event_type"] == "scan");
    assert_eq!(scan["dest_port"], port, "{scan}");
}

/// Starts the daemon as if the machine had been up for so many seconds.
fn started_after_boot(lab: &Lab, seconds: u64) -> Daemon {
    let text = std::fs::read_to_string("/proc/uptime").unwrap();
    let up: u64 = text.split('.').next().and_then(|seconds| seconds.parse().ok()).unwrap();
    let offset = i64::try_from(seconds).unwrap() - i64::try_from(up).unwrap();
    let flags = ["--time", "--boottime", &offset.to_string()].map(str::to_owned);
    Setup::new(lab, CONFIG).start_through("unshare", &flags)
}

#[test]
fn who_calls_while_the_machine_boots_and_its_services_come_up_is_no_prober() {
    let lab = Lab::new(1);
    let client = lab.peer(0);
    let begun = Instant::now();
    let mut daemon = started_after_boot(&lab, 20);
    let refused = |port| !answers(&client.netns, client.target(false), port, PATIENCE);
    assert!(refused(443) && refused(111));
    daemon.catch_up();
    let _service = Service::start(&lab.target(), 443);
    let served = answers(&client.netns, client.target(false), 443, PATIENCE);
    daemon.catch_up();
    assert!(daemon.seen.iter().all(|event| event["event_type"] == "start"), "{:#?}", daemon.seen);
    assert!(served);
    // Where no service came after all the port is watched.
    assert_watched_again(&mut daemon, client, "-sS", 111, begun);
}

#[test]
fn who_calls_where_nothing_listens_when_the_machine_has_long_been_up_is_a_prober() {
    let lab = Lab::new(1);
    let client = lab.peer(0);
    let mut daemon = started_after_boot(&lab, 125);
    assert!(!answers(&client.netns, client.target(false), 111, PATIENCE));
    daemon.wait_for("the scan", |event| event["event_type"] == "scan");
}

#[test]
fn a_port_is_watched_again_a_minute_after_its_service_was_missed() {
    let lab = Lab::new(1);
    let client = lab.peer(0);
    let mut daemon = Setup::new(&lab, CONFIG).start();
    let service = Service::start(&lab.target(), 443);
    assert!(answers(&client.netns, client.target(false), 443, PATIENCE), "so the daemon knows of it");
    daemon.catch_up();
    drop(service);
    assert_watched_again(&mut daemon, client, "-sS", 443, Instant::now());
}

#[test]
fn a_bound_udp_socket_is_a_service_until_it_is_closed() {
    let lab = Lab::new(1);
    let client = lab.peer(0);
    let mut daemon = Setup::new(&lab, CONFIG).start();
    let socket = support::inside(&lab.target(), || UdpSocket::bind("0.0.0.0:69").unwrap());
    client.nmap(&["-sU", "-p", "69", &client.target_v4.to_string()]);
    daemon.catch_up();
    assert!(daemon.seen.iter().all(|event| event["event_type"] == "start"), "{:#?}", daemon.seen);
    drop(socket);
    assert_watched_again(&mut daemon, client, "-sU", 69, Instant::now());
}

#[test]
fn who_still_sends_to_udp_ports_of_calls_that_are_over_is_no_prober() {
    let lab = Lab::new(1);
    let peer = lab.peer(0);
    let server = support::inside(&peer.netns, || UdpSocket::bind("0.0.0.0:10000").unwrap());
    let ports = 29_200..29_240;
    let calls: Vec<UdpSocket> = support::inside(&lab.target(), || {
        ports.clone().map(|port| UdpSocket::bind(("0.0.0.0", port)).unwrap()).collect()
    });
    // What was said before, it does not know.
    let mut daemon = Setup::new(&lab, CONFIG).start();
    drop(calls);
    // A service that has just come has it look at the sockets, and turn to the ports that are free now.
    let has_rested = || daemon.stats()["uptime"].as_u64().is_some_and(|seconds| seconds >= 2);
    support::eventually("the rings may be turned again", PATIENCE, has_rested);
    let _service = Service::start(&lab.target(), 443);
    assert!(answers(&peer.netns, peer.target(false), 443, PATIENCE));
    daemon.catch_up();
    let send = |ports: std::ops::Range<u16>| {
        ports.for_each(|port| _ = server.send_to(b"voice", (peer.target_v4, port)).unwrap());
    };
    send(ports);
    daemon.catch_up();
    assert!(daemon.seen.iter().all(|event| event["event_type"] == "start"), "{:#?}", daemon.seen);
    // At ports that were never anybody's it is one.
    send(20_000..20_020);
    daemon.wait_for("the scan", |event| event["event_type"] == "scan");
}

/// As media do that go one way alone: no answer tells that somebody was there, each time at another port.
#[test]
fn who_sends_to_udp_sockets_that_come_and_go_in_silence_is_no_prober_for_a_few_errors() {
    let lab = Lab::new(1);
    let peer = lab.peer(0);
    let mut daemon = Setup::new(&lab, CONFIG).start();
    let sender = support::inside(&peer.netns, || UdpSocket::bind("0.0.0.0:10000").unwrap());
    let send = |port| sender.send_to(b"voice", (peer.target_v4, port)).unwrap();
    for port in 20_000..20_030 {
        let call = support::inside(&lab.target(), || UdpSocket::bind(("0.0.0.0", port)).unwrap());
        call.set_read_timeout(Some(PATIENCE)).unwrap();
        send(port);
        call.recv(&mut [0; 16]).unwrap();
        daemon.catch_up();
    }
    (30_000..30_003).for_each(|port| _ = send(port));
    daemon.catch_up();
    assert!(daemon.seen.iter().all(|event| event["event_type"] == "start"), "{:#?}", daemon.seen);
    (30_003..30_010).for_each(|port| _ = send(port));
    daemon.wait_for("the scan", |event| event["event_type"] == "scan");
}

#[test]
fn what_goes_to_a_udp_service_that_came_later_soon_wakes_nobody() {
    let lab = Lab::new(1);
    let daemon = Setup::new(&lab, CONFIG).start();
    let service = support::inside(&lab.target(), || UdpSocket::bind("0.0.0.0:4353").unwrap());
    let client = support::inside(&lab.peer(0).netns, || UdpSocket::bind("0.0.0.0:0").unwrap());
    [&service, &client].iter().for_each(|socket| socket.set_read_timeout(Some(PATIENCE)).unwrap());
    let mut heard = [0; 16];
    let mut exchange = || {
        client.send_to(b"question", (lab.peer(0).target_v4, 4353)).unwrap();
        let (_, from) = service.recv_from(&mut heard).unwrap();
        service.send_to(b"answer", from).unwrap();
        client.recv_from(&mut heard).unwrap();
    };
    support::eventually("what is said goes by unseen", PATIENCE, || {
        let seen = packets(&daemon);
        (0..20).for_each(|_| exchange());
        packets(&daemon) == seen
    });
}

/// How many the rings brought so far.
fn packets(daemon: &Daemon) -> u64 {
    let stats = daemon.stats();
    stats["packets"].as_u64().unwrap_or_else(|| panic!("{stats}"))
}

#[test]
fn a_scan_whose_ninth_port_is_that_of_a_new_service_is_one_all_the_same() {
    let lab = Lab::new(1);
    let scanner = lab.peer(0);
    let mut daemon = Setup::new(&lab, "TCP_PORTS=\"1\"\nBLOCK_TCP=\"0\"").start();
    let _service = support::inside(&lab.target(), || TcpListener::bind("0.0.0.0:4000").unwrap());
    // All of it is judged before the alarm is.
    suspend(daemon.pid());
    support::inside(&scanner.netns, || {
        for port in (5000..5008).chain([4000]).chain(5008..5020) {
            let _ = TcpStream::connect_timeout(&(scanner.target_v4, port).into(), PATIENCE);
        }
    });
    daemon.signal(nix::sys::signal::Signal::SIGCONT);
    daemon.wait_for("the alarm", |event| event["event_type"] == "scan");
}

/// Connections to port 2049 of `peer` from ports where nobody listens, as a mount of NFS has them, and their other ends.
fn mounts(lab: &Lab, peer: &Host, ports: std::ops::Range<u16>) -> Vec<(TcpStream, TcpStream)> {
    let server = support::inside(&peer.netns, || TcpListener::bind("0.0.0.0:2049").unwrap());
    let connection = |port: u16| {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([0; 4], port)).into()).unwrap();
        socket.connect(&SocketAddr::from((peer.v4, 2049)).into()).unwrap();
        (TcpStream::from(socket), server.accept().unwrap().0)
    };
    support::inside(&lab.target(), || ports.map(connection).collect())
}

/// One host with a few interfaces, and one with so many that the sockets are listed, whatever there is to ask of them.
fn few_and_many_interfaces() -> impl Iterator<Item = Lab> {
    [0, 12].into_iter().map(|more| {
        let lab = Lab::new(1);
        for number in 0..more {
            let ends = [format!("a{number}"), format!("b{number}")];
            ip(&["-n", &lab.target(), "link", "add", &ends[0], "type", "veth", "peer", "name", &ends[1]]);
        }
        lab
    })
}

const FILE_SERVED: &str = "TCP_PORTS=\"1\"\nBLOCK_TCP=\"1\"\nPROTECT_ESTABLISHED=\"0\"";

/// Everything is written, acknowledged and read.
fn ask_each(mounts: &mut [(TcpStream, TcpStream)]) {
    for (mount, served) in mounts {
        mount.write_all(b"a question").unwrap();
        served.read_exact(&mut [0; 10]).unwrap();
    }
}

#[test]
fn a_server_that_ends_connections_older_than_the_daemon_is_no_scanner() {
    for lab in few_and_many_interfaces() {
        let peer = lab.peer(0);
        let mut mounts = mounts(&lab, peer, 700..720);
        let mut daemon = Setup::new(&lab, FILE_SERVED).start();
        let before = packets(&daemon);
        (0..100).for_each(|_| ask_each(&mut mounts));
        support::eventually("all is acknowledged", PATIENCE, || packets(&daemon) >= before + 20);
        daemon.catch_up();
        // The server first: its last ACK meets a socket that is gone.
        for (mount, served) in mounts {
            drop(served);
            drop(mount);
        }
        daemon.catch_up();
        assert!(daemon.seen.iter().all(|event| event["event_type"] == "start"), "{:#?}", daemon.seen);
        // Where it has no connection it is one.
        peer.hping3(&["-A", "-i", "u2000", "-c", "20", "-p", "++2000", &peer.target_v4.to_string()]);
        daemon.wait_for("the scan", |event| event["event_type"] == "scan");
    }
}

/// Those that one side has ended are not among the connections that the daemon learns when it starts.
#[test]
fn of_a_connection_that_it_was_told_of_the_daemon_needs_no_socket_at_its_end() {
    for lab in few_and_many_interfaces() {
        let peer = lab.peer(0);
        // As many as an alarm takes, and one more.
        let mut mounts = mounts(&lab, peer, 700..710);
        mounts.iter().for_each(|(_, served)| served.shutdown(Shutdown::Write).unwrap());
        let mut daemon = Setup::new(&lab, FILE_SERVED).start();
        for _ in 0..3 {
            let before = packets(&daemon);
            ask_each(&mut mounts);
            support::eventually("all is acknowledged", PATIENCE, || packets(&daemon) >= before + 10);
            daemon.catch_up();
        }
        let before = packets(&daemon);
        drop(mounts);
        support::eventually("the ends are acknowledged", PATIENCE, || packets(&daemon) >= before + 10);
        daemon.catch_up();
        assert!(daemon.seen.iter().all(|event| event["event_type"] == "start"), "{:#?}", daemon.seen);
    }
}

/// Eight ports at a time that nobody serves, one less than an alarm takes, and then `knock`, which something takes in.
fn assert_no_knock_undoes_a_scan<T>(lab: &Lab, knock: impl Fn(u16) -> T) {
    let scanner = lab.peer(0);
    let mut daemon = Setup::new(lab, "TCP_PORTS=\"1\"\nBLOCK_TCP=\"0\"").start();
    for round in 0..3 {
        let (first, target) = (format!("++{}", 5000 + 8 * round), scanner.target_v4.to_string());
        scanner.hping3(&["-S", "-i", "u2000", "-c", "8", "-p", &first, &target]);
        daemon.catch_up();
        let _answerer = knock(round);
        daemon.catch_up();
    }
    daemon.wait_for("the alarm", |event| event["event_type"] == "scan");
}

#[test]
fn a_scanner_whom_this_host_is_connected_to_is_one_all_the_same() {
    let lab = Lab::new(1);
    let scanner = lab.peer(0);
    let _server = support::inside(&scanner.netns, || TcpListener::bind("0.0.0.0:443").unwrap());
    // Before the daemon is there, as any connection that it does not remember.
    let ours = support::inside(&lab.target(), || TcpStream::connect((scanner.v4, 443)).unwrap());
    let port = ours.local_addr().unwrap().port().to_string();
    assert_no_knock_undoes_a_scan(&lab, |_| {
        let target = scanner.target_v4.to_string();
        scanner.hping3(&["-S", "-c", "1", "-s", "443", "-k", "-p", &port, &target]);
    });
}

#[test]
fn a_scanner_for_whom_a_service_opens_a_port_each_time_is_one_all_the_same() {
    let lab = Lab::new(1);
    let scanner = lab.peer(0);
    assert_no_knock_undoes_a_scan(&lab, |round| {
        // As passive FTP does.
        let port = 20_000 + round;
        let listener = support::inside(&lab.target(), || TcpListener::bind(("0.0.0.0", port)).unwrap());
        let to = (scanner.target_v4, port).into();
        let stream = support::inside(&scanner.netns, || TcpStream::connect_timeout(&to, PATIENCE)).unwrap();
        (listener, stream)
    });
}
