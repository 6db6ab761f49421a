//! Who does what honest hosts do is never blocked, nor is who is only named by forged packets.

mod support;

use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use nix::sys::signal::Signal;
use support::daemon::{Daemon, PATIENCE, Setup, suspend};
use support::service::{Service, answers};
use support::{Lab, eventually, inside, ip};

/// A blocking daemon on which nothing but the walk can tell.
const CONFIG: &str = "TCP_PORTS=\"1\"\nUDP_PORTS=\"1\"\nBLOCK_TCP=\"1\"\nBLOCK_UDP=\"1\"";

/// No alarm at all, and so nobody blocked.
fn nobody_is_flagged(what: &str, live: impl FnOnce(&Lab)) {
    nobody_is_flagged_by(what, CONFIG, |lab, _| live(lab));
}

fn nobody_is_flagged_by(what: &str, config: &str, live: impl FnOnce(&Lab, &mut Daemon)) {
    let lab = Lab::new(2);
    let mut daemon = Setup::new(&lab, config).start();
    live(&lab, &mut daemon);
    daemon.catch_up();
    assert!(daemon.seen.iter().all(|event| event["event_type"] == "start"), "{what}: {:#?}", daemon.seen);
}

fn blocked(daemon: &Daemon) -> Vec<&str> {
    let blocks = daemon.seen.iter().filter(|event| event["action"]["verdict"] == "blocked");
    blocks.filter_map(|event| event["src_ip"].as_str()).collect()
}

/// `count` TCP segments or datagrams in another's name.
fn forge(lab: &Lab, name: &str, words: &[&str], count: &str) {
    let peer = lab.peer(0);
    let target = peer.target_v4.to_string();
    peer.hping3(&[&["-a", name, "-i", "u2000", "-c", count], words, &[&target]].concat());
}

#[test]
fn a_client_that_tries_a_dead_port_twenty_times_between_downloads() {
    nobody_is_flagged("a dead port", |lab| {
        let _service = Service::start(&lab.target(), 80);
        let client = lab.peer(0);
        for v6 in [false, true] {
            let dead = SocketAddr::new(client.target(v6), 8443);
            for _ in 0..20 {
                inside(&client.netns, || {
                    let refused = TcpStream::connect_timeout(&dead, Duration::from_secs(1));
                    assert!(refused.is_err());
                });
                assert!(answers(&client.netns, client.target(v6), 80, PATIENCE));
            }
        }
    });
}

#[test]
fn a_password_guesser_at_a_live_port() {
    nobody_is_flagged("a guesser", |lab| {
        let _service = Service::start(&lab.target(), 22);
        let client = lab.peer(0);
        (0..200).for_each(|_| assert!(answers(&client.netns, client.target(false), 22, PATIENCE)));
    });
}

#[test]
fn a_service_whose_every_transfer_has_a_port_of_its_own() {
    nobody_is_flagged("passive FTP", |lab| {
        let client = lab.peer(0);
        for port in 20_000..20_040 {
            let listener = inside(&lab.target(), move || {
                TcpListener::bind(SocketAddr::new("::".parse().unwrap(), port)).unwrap()
            });
            let to = SocketAddr::new(client.target(false), port);
            let stream = inside(&client.netns, move || TcpStream::connect_timeout(&to, PATIENCE));
            drop((stream.unwrap(), listener));
        }
    });
}

/// The target asks `server_port` of peer 0 from each of `ports`, closes, and only then all answers come.
fn answers_come_late(lab: &Lab, server_port: u16, ports: std::ops::Range<u16>) {
    let server = server(lab, false, server_port);
    let clients = ask(lab, &server, ports);
    clients.into_iter().for_each(|client| _ = server.send_to(b"answer", client).unwrap());
}

fn server(lab: &Lab, v6: bool, port: u16) -> UdpSocket {
    let peer = lab.peer(0);
    let server = inside(&peer.netns, || UdpSocket::bind((peer.address(v6), port)).unwrap());
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    // A link that is up is ready for IPv6 a while later, and a first question would be lost.
    let ping = ["ping", "-q", "-c", "1", "-W", "1", &peer.address(v6).to_string()];
    eventually("the target hears the server", PATIENCE, || lab.on_target(&ping).status.success());
    server
}

/// Whom the server has to answer.
fn ask(lab: &Lab, server: &UdpSocket, ports: std::ops::Range<u16>) -> Vec<SocketAddr> {
    let to = server.local_addr().unwrap();
    let from = lab.peer(0).target(to.is_ipv6());
    let mut heard = [0; 16];
    let one = |port| {
        inside(&lab.target(), || {
            let asks = UdpSocket::bind((from, port)).unwrap();
            asks.send_to(b"question", to).unwrap();
        });
        server.recv_from(&mut heard).unwrap().1
    };
    ports.map(one).collect()
}

#[test]
fn whom_this_host_asks_whatever_the_sensitivity_and_after_it_was_changed() {
    let lab = Lab::new(2);
    let lines = format!("{}\nSENSITIVITY=\"off\"", CONFIG.replace("UDP_PORTS=\"1\"", "UDP_PORTS=\"33333\""));
    let setup = Setup::new(&lab, &lines);
    let mut daemon = setup.start();
    answers_come_late(&lab, 9_999, 33_333..33_334);
    daemon.catch_up();
    let path = daemon.path("portsentry.conf");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("SENSITIVITY=\"off\"", "SENSITIVITY=\"medium\"")).unwrap();
    daemon.signal(Signal::SIGHUP);
    daemon.catch_up();
    answers_come_late(&lab, 27_015, 20_000..20_020);
    daemon.catch_up();
    assert!(daemon.seen.iter().all(|event| event["event_type"] != "scan"), "{:#?}", daemon.seen);
}

#[test]
fn answers_to_questions_of_before_the_start() {
    let lab = Lab::new(1);
    let server = server(&lab, false, 9_999);
    // Of a daemon that is started again while somebody is slow: no socket is left to tell of them.
    let clients = ask(&lab, &server, 40_000..40_040);
    let mut daemon = Setup::new(&lab, CONFIG).start();
    clients.into_iter().for_each(|client| _ = server.send_to(b"answer", client).unwrap());
    daemon.catch_up();
    assert!(daemon.seen.iter().all(|event| event["event_type"] == "start"), "{:#?}", daemon.seen);
    // Ports that nothing is asked from are another matter.
    let to = |port| SocketAddr::new(lab.peer(0).target(false), port);
    (20_000..20_010).for_each(|port| _ = server.send_to(b"probe", to(port)).unwrap());
    daemon.wait_for("the scan", |event| event["event_type"] == "scan");
}

#[test]
fn answers_to_questions_for_which_the_rings_had_no_room() {
    nobody_is_flagged_by("a resolver of a host that is out of breath", CONFIG, |lab, daemon| {
        let server = server(lab, false, 53);
        let crowd = inside(&lab.peer(1).netns, || UdpSocket::bind("0.0.0.0:0").unwrap());
        suspend(daemon.pid());
        // All to one port, of which nobody thinks any harm: more than the ring holds.
        let to = SocketAddr::new(lab.peer(1).target(false), 20_000);
        (0..10_000).for_each(|_| _ = crowd.send_to(b"crowd", to).unwrap());
        let clients = ask(lab, &server, 10_000..10_100);
        daemon.signal(Signal::SIGCONT);
        // The answers shall find room.
        daemon.catch_up();
        clients.into_iter().for_each(|client| _ = server.send_to(b"answer", client).unwrap());
    });
}

#[test]
fn devices_that_answer_a_question_to_everybody() {
    nobody_is_flagged("a device over SSDP", |lab| {
        let (target, peer) = (lab.peer(0).target_v4, lab.peer(0));
        let device = inside(&peer.netns, || UdpSocket::bind("0.0.0.0:1900").unwrap());
        for port in 20_000..20_040 {
            inside(&lab.target(), || {
                let asks = UdpSocket::bind((target, port)).unwrap();
                asks.send_to(b"M-SEARCH", "239.255.255.250:1900").unwrap();
            });
            device.send_to(b"here", (target, port)).unwrap();
        }
    });
}

#[test]
fn servers_of_hosts_behind_this_one_who_were_asked_before_the_daemon_was_there() {
    // A database, and a SIP provider that asks whether its phones are there.
    for (kind, server) in [(&["-A"][..], "5432"), (&["--udp"], "5060")] {
        let lab = Lab::new(2);
        lab.on_target(&["sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"]);
        let mut daemon = Setup::new(&lab, CONFIG).start();
        let name = lab.peer(0).v4.to_string();
        let speaks = |first| forge(&lab, &name, &[kind, &["-s", server, "-k", "-p", first]].concat(), "50");
        speaks("++2000");
        daemon.catch_up();
        assert!(daemon.seen.iter().all(|event| event["event_type"] != "scan"), "{:#?}", daemon.seen);
        // Ports that no client has are another matter.
        speaks("++200");
        daemon.wait_for("the scan", |event| event["event_type"] == "scan");
    }
}

#[test]
fn a_resolver_that_answers_ten_thousand_questions_late() {
    nobody_is_flagged("a resolver", |lab| answers_come_late(lab, 53, 10_000..20_000));
}

#[test]
fn a_resolver_over_ipv6_whose_answers_come_in_pieces() {
    nobody_is_flagged("a resolver of long answers", |lab| {
        let server = server(lab, true, 53);
        let clients = ask(lab, &server, 40_000..40_100);
        clients.into_iter().for_each(|client| _ = server.send_to(&[0; 3_000], client).unwrap());
    });
}

#[test]
fn a_time_server_and_a_web_server_over_quic() {
    nobody_is_flagged("a time server", |lab| answers_come_late(lab, 123, 30_000..31_000));
    nobody_is_flagged("QUIC", |lab| answers_come_late(lab, 443, 40_000..40_100));
    nobody_is_flagged("a game server", |lab| answers_come_late(lab, 27_015, 20_000..20_100));
}

#[test]
fn backscatter_and_strays() {
    nobody_is_flagged("backscatter", |lab| {
        forge(lab, "198.51.100.7", &["-S", "-A", "-s", "443", "-k", "-p", "++1000"], "1000");
        forge(lab, "198.51.100.7", &["-R", "-s", "443", "-k", "-p", "++1000"], "1000");
        forge(lab, "198.51.100.7", &["-R", "-A", "-s", "443", "-k", "-p", "++1000"], "1000");
    });
    nobody_is_flagged("stray ACKs of a host that was restarted", |lab| {
        let _service = Service::start(&lab.target(), 80);
        for port in ["80", "8080"] {
            forge(lab, "198.51.100.8", &["-A", "-s", "40000", "-k", "-p", port], "100");
            forge(lab, "198.51.100.8", &["-F", "-A", "-s", "40000", "-k", "-p", port], "20");
        }
    });
}

#[test]
fn daily_life() {
    nobody_is_flagged_by("traceroute", CONFIG, |lab, daemon| {
        // Before that nothing at such ports counts, whoever sends it.
        let is_past_the_start = || daemon.stats()["uptime"].as_u64().is_some_and(|seconds| seconds > 30);
        eventually("the daemon has run for half a minute", 4 * PATIENCE, is_past_the_start);
        forge(lab, "10.77.0.2", &["--udp", "-s", "41000", "-p", "++33434"], "90");
        // tracepath
        forge(lab, "10.77.0.2", &["--udp", "-s", "41000", "-p", "++44444"], "64");
        lab.peer(0).run(&["ping", "-q", "-c", "20", "-i", "0.01", &lab.peer(0).target_v4.to_string()]);
    });
    nobody_is_flagged("neighbours", |lab| {
        let peer = lab.peer(0);
        let to: Vec<String> = ["255.255.255.255", "10.77.0.255", "224.0.0.251", "239.255.255.250"]
            .map(String::from)
            .into_iter()
            .chain([peer.target_v4.to_string()])
            .collect();
        inside(&peer.netns, || {
            let socket = UdpSocket::bind("10.77.0.2:0").unwrap();
            socket.set_broadcast(true).unwrap();
            for port in [67, 68, 137, 138, 546, 547, 1900, 3702, 5353, 5355] {
                to.iter().for_each(|to| drop(socket.send_to(b"hello", (to.as_str(), port))));
            }
        });
    });
}

#[test]
fn who_calls_all_neighbours_on_the_ports_of_decoys() {
    let lab = Lab::new(1);
    let peer = lab.peer(0);
    // A printer's driver that looks for printers, a Wake-on-LAN packet.
    let config = format!("{CONFIG}\nDECOY_UDP_PORTS=\"9,161\"\nPORT_BANNER=\"go away\"");
    let mut daemon = Setup::new(&lab, &config).start();
    let everybody = ["255.255.255.255", "10.77.0.255", "224.0.0.1", "ff02::1%eth0"];
    let call = |to: &str| {
        inside(&peer.netns, || {
            let socket = UdpSocket::bind(if to.contains(':') { "[::]:0" } else { "0.0.0.0:0" }).unwrap();
            socket.set_broadcast(true).unwrap();
            [9, 161].iter().for_each(|&port| _ = socket.send_to(b"hello", (to, port)).unwrap());
        });
    };
    everybody.into_iter().for_each(call);
    daemon.catch_up();
    assert!(daemon.seen.iter().all(|event| event["event_type"] == "start"), "{:#?}", daemon.seen);
    // Who calls this host alone is another matter.
    call(&peer.target_v4.to_string());
    daemon.wait_for("the scan", |event| event["event_type"] == "scan");
}

#[test]
fn what_the_host_itself_refuses_is_no_evidence() {
    nobody_is_flagged_by("--badsum", CONFIG, |lab, daemon| {
        let (peer, target) = (lab.peer(0), lab.peer(0).target_v4.to_string());
        for kind in ["-sS", "-sU", "-sN", "-sY"] {
            peer.nmap(&[kind, "--badsum", "--max-rtt-timeout", "50ms", "-p", "2000-2030", &target]);
        }
        daemon.catch_up();
        let counters = &daemon.stats()["counters"];
        for (protocol, scans) in [("tcp", 2), ("udp", 1), ("sctp", 1)] {
            let refused = counters[format!("rejected_{protocol}_checksum")].as_u64();
            assert!(refused.is_some_and(|refused| refused >= 31 * scans), "{counters}");
        }
    });
}

#[test]
fn names_that_nobody_bears_and_that_must_not_be_shut_out() {
    let lab = Lab::new(3);
    let (gateway, resolver) = (lab.peer(1).v4.to_string(), "203.0.113.53");
    ip(&["-n", &lab.target(), "route", "add", "default", "via", &gateway]);
    lab.ask(&[resolver]);
    let _service = Service::start(&lab.target(), 80);
    let mut daemon = Setup::new(&lab, CONFIG).start();
    let own = lab.peer(0).target_v4.to_string();
    let names = [&*gateway, resolver, &own, "0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255"];
    for name in names {
        forge(&lab, name, &["-S", "-p", "++2000"], "40");
    }
    // The last alarm tells that all before it were judged.
    forge(&lab, "198.51.100.99", &["-S", "-p", "++2000"], "40");
    daemon.wait_for("the forger's alarm", |event| event["action"]["verdict"] == "blocked");
    daemon.catch_up();
    assert_eq!(blocked(&daemon), ["198.51.100.99"]);
}

#[test]
fn who_has_an_open_connection_is_not_blocked_in_its_name() {
    let lab = Lab::new(2);
    let innocent = lab.peer(1);
    let listener = inside(&lab.target(), || TcpListener::bind("0.0.0.0:22").unwrap());
    let mut daemon = Setup::new(&lab, CONFIG).start();
    let to = SocketAddr::new(innocent.target(false), 22);
    let mut session = inside(&innocent.netns, || TcpStream::connect(to).unwrap());
    let (mut shell, _) = listener.accept().unwrap();
    forge(&lab, &innocent.v4.to_string(), &["-S", "-p", "++2000"], "40");
    let source = innocent.v4.to_string();
    let scan = daemon.wait_for("the alarm", |event| event["event_type"] == "scan");
    assert_eq!(
        (scan["src_ip"].as_str(), scan["action"]["verdict"].as_str()),
        (Some(&*source), Some("suppressed"))
    );
    std::io::Write::write_all(&mut shell, b"still here").unwrap();
    let mut heard = [0; 10];
    session.set_read_timeout(Some(PATIENCE)).unwrap();
    session.read_exact(&mut heard).unwrap();
    daemon.catch_up();
    assert!(blocked(&daemon).is_empty(), "{:#?}", daemon.seen);
}

#[test]
fn who_once_went_astray_and_has_an_open_connection_is_not_blocked_for_what_is_forged_in_its_name() {
    let lab = Lab::new(2);
    let innocent = lab.peer(1);
    let listener = inside(&lab.target(), || TcpListener::bind("0.0.0.0:22").unwrap());
    let config = "TCP_PORTS=\"1,7\"\nDECOY_TCP_PORTS=\"8080\"\nSCAN_TRIGGER=\"2\"\nBLOCK_TCP=\"1\"";
    let mut daemon = Setup::new(&lab, config).start();
    let connect = |port| {
        let to = SocketAddr::new(innocent.target(false), port);
        inside(&innocent.netns, || TcpStream::connect(to).unwrap())
    };
    let (_session, source) = (connect(22), innocent.v4.to_string());
    let _shell = listener.accept().unwrap();
    drop(connect(8080));
    let visit = daemon.wait_for("the visit", |event| event["event_type"] == "probe");
    assert_eq!((visit["src_ip"].as_str(), &visit["scan"]["verified"]), (Some(&*source), &true.into()));
    forge(&lab, &source, &["-S", "-p", "1"], "5");
    let scan = daemon.wait_for("the alarm", |event| event["event_type"] == "scan");
    assert_eq!(scan["action"]["verdict"], "suppressed", "{scan}");
    daemon.catch_up();
    assert!(blocked(&daemon).is_empty(), "{:#?}", daemon.seen);
}

#[test]
fn the_true_scanner_is_blocked_among_its_decoys() {
    let lab = Lab::new(3);
    let (gateway, innocent) = (lab.peer(1).v4.to_string(), lab.peer(2).v4.to_string());
    ip(&["-n", &lab.target(), "route", "add", "default", "via", &gateway]);
    let _service = Service::start(&lab.target(), 80);
    let mut daemon = Setup::new(&lab, CONFIG).start();
    let (scanner, target) = (lab.peer(0).v4.to_string(), lab.peer(0).target_v4.to_string());
    let decoys = format!("{gateway},{innocent},ME");
    lab.peer(0).nmap(&["-sS", "-D", &decoys, "-p", "2000-2040", &target]);
    let block =
        |event: &serde_json::Value| event["action"]["verdict"] == "blocked" && event["src_ip"] == *scanner;
    daemon.wait_for("the scanner's block", block);
    daemon.catch_up();
    let mut all = blocked(&daemon);
    all.sort_unstable();
    // The gateway is in the never-block set. The innocent host has no connection here, so probes forged in its name look
    // like the scanner's own: it suffers, until its block ends.
    assert_eq!(all, [&*scanner, &*innocent]);
}
