//! A slow scanner is found at its usual probe in a flood of forged sources, in the same memory; prefixes of IPv6 are one
//! source each; and the largest scan is a handful of events.

mod support;

use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use support::daemon::{Daemon, Setup};
use support::{Lab, inside, ip};

const CONFIG: &str = "TCP_PORTS=\"1\"\nUDP_PORTS=\"1\"\nBLOCK_TCP=\"1\"\nBLOCK_UDP=\"1\"";
const SOURCES: &str = "200000";

fn alarm_at(daemon: &mut Daemon, source: &str) -> u64 {
    let scan =
        daemon.wait_for("the alarm", |event| event["event_type"] == "scan" && event["src_ip"] == *source);
    scan["scan"]["distinct_ports"].as_u64().unwrap()
}

#[test]
fn two_hundred_thousand_forged_sources_hide_no_slow_scanner() {
    let lab = Lab::new(2);
    let mut daemon = Setup::new(&lab, CONFIG).start();
    let before = daemon.memory();
    let (scanner, flooder) = (lab.peer(0), lab.peer(1));
    std::thread::scope(|scope| {
        let target = flooder.target_v4.to_string();
        let flood = move || {
            flooder.hping3(&["--rand-source", "-S", "-p", "5000", "-i", "u20", "-c", SOURCES, &target]);
        };
        let flood = scope.spawn(flood);
        scanner.nmap(&[
            "-sS",
            "-T2",
            "--max-retries",
            "0",
            "-p",
            "2000-2014",
            &scanner.target_v4.to_string(),
        ]);
        flood.join().unwrap();
    });
    let ports = alarm_at(&mut daemon, &scanner.v4.to_string());
    daemon.catch_up();
    let after = daemon.memory();
    println!("flagged at port {ports}; memory {before} KiB before, {after} KiB after {SOURCES} sources");
    assert!(ports <= 10 && after <= before + 1024, "{ports} {before} {after}");
    assert!(daemon.seen.len() < 20, "{} events", daemon.seen.len());
}

/// SYNs to a port each from so many addresses of a prefix, off-link by way of peer 0.
fn knock(lab: &Lab, prefix: u16, ports: std::ops::Range<u16>) {
    let peer = lab.peer(0);
    for port in ports {
        let from = Ipv6Addr::new(0x2001, 0xdb8, 0, prefix, 0, 0, 0, port);
        ip(&["-n", &peer.netns, "address", "add", &format!("{from}/128"), "dev", "eth0", "nodad"]);
        let to = SocketAddr::new(IpAddr::V6(peer.target_v6), port);
        inside(&peer.netns, || {
            let socket = socket2::Socket::new(socket2::Domain::IPV6, socket2::Type::STREAM, None).unwrap();
            socket.bind(&SocketAddr::new(from.into(), 0).into()).unwrap();
            let refused = socket.connect_timeout(&to.into(), Duration::from_millis(500));
            assert!(refused.is_err());
        });
    }
}

#[test]
fn sixty_four_addresses_of_one_slash_64_are_one_source_and_two_of_them_are_two() {
    let lab = Lab::new(1);
    ip(&["-n", &lab.target(), "-6", "route", "add", "2001:db8::/32", "via", &lab.peer(0).v6.to_string()]);
    let mut daemon = Setup::new(&lab, CONFIG).start();
    // Two prefixes, each below the threshold.
    knock(&lab, 1, 3000..3006);
    knock(&lab, 2, 3006..3012);
    daemon.catch_up();
    assert!(daemon.seen.iter().all(|event| event["event_type"] == "start"), "{:#?}", daemon.seen);
    knock(&lab, 3, 4000..4064);
    let block = daemon.wait_for("the block", |event| event["action"]["verdict"] == "blocked");
    assert_eq!(block["action"]["target"], "2001:db8:0:3::/64", "{block}");
    daemon.catch_up();
    assert_eq!(daemon.seen.iter().filter(|event| event["event_type"] == "scan").count(), 1);
}

#[test]
fn a_scan_of_every_port_is_a_handful_of_events_and_ends_in_a_summary() {
    let lab = Lab::new(1);
    let scanner = lab.peer(0);
    let mut daemon =
        Setup::new(&lab, &CONFIG.replace("\"1\"\nBLOCK_TCP=\"1\"", "\"1\"\nBLOCK_TCP=\"0\"")).start();
    let open = inside(&lab.target(), || std::net::TcpListener::bind("0.0.0.0:22").unwrap());
    scanner.nmap(&["-sS", "-T4", "-p", "1-65535", &scanner.target_v4.to_string()]);
    drop((open, None::<TcpStream>));
    // A minute of quiet is what the promise is about.
    support::eventually("the summary", Duration::from_secs(120), || {
        daemon.catch_up();
        daemon.seen.iter().any(|event| !event["summary"].is_null())
    });
    let summary =
        daemon.wait_for("the summary", |event| event["event_type"] == "stats" && !event["summary"].is_null());
    assert_eq!(summary["src_ip"], scanner.v4.to_string(), "{summary}");
    // On a busy machine the ring runs over now and then, and says so.
    let stats = daemon.stats();
    let (told, dropped) = (summary["summary"]["distinct_ports"].as_u64(), stats["drops"].as_u64());
    assert!(told.unwrap() + dropped.unwrap() > 65_000, "{summary} {stats}");
    daemon.catch_up();
    let kinds: Vec<_> =
        daemon.seen.iter().map(|event| (&event["event_type"], &event["action"]["verdict"])).collect();
    assert!(kinds.len() <= 6, "{kinds:?}");
}

#[test]
fn a_flood_of_alarms_is_told_of_twice_and_a_scanner_in_its_midst_is_blocked() {
    let lab = Lab::new(2);
    let config = "TCP_PORTS=\"111,2000-2014\"\nUDP_PORTS=\"1\"\nBLOCK_TCP=\"1\"\nSCAN_TRIGGER=\"1\"";
    let mut daemon = Setup::new(&lab, config).start();
    let (scanner, flooder) = (lab.peer(0), lab.peer(1));
    let target = flooder.target_v4.to_string();
    let state = |event: &serde_json::Value, state: &str| event["flood"]["state"] == *state;
    std::thread::scope(|scope| {
        let flood = scope.spawn(|| {
            flooder.hping3(&["--rand-source", "-S", "-p", "111", "-i", "u20", "-c", SOURCES, &target]);
        });
        let began = daemon.wait_for("the flood", |event| state(event, "began"));
        assert_eq!(began["flood"]["ports"][0], "111/tcp", "{began}");
        scanner.nmap(&["-sS", "-p", "2000-2014", &scanner.target_v4.to_string()]);
        let source = scanner.v4.to_string();
        let is_block =
            |event: &serde_json::Value| event["event_type"] == "block" && event["src_ip"] == *source;
        let block = daemon.wait_for("the scanner's block", is_block);
        assert_eq!(block["action"]["verdict"], "blocked", "{block}");
        flood.join().unwrap();
    });
    let ended = daemon.wait_for("its end", |event| state(event, "ended"));
    assert!(ended["flood"]["blocks_held_back"].as_u64().unwrap() > 10_000, "{ended}");
    assert_eq!(daemon.seen.iter().filter(|event| event["event_type"] == "flood").count(), 2);
    assert!(daemon.seen.len() < 1_000, "{} events", daemon.seen.len());
}

/// What `nmap -D` sends: every port in the name of many others too.
#[test]
fn forged_sources_of_several_ports_each_hide_no_scanner_of_more() {
    let lab = Lab::new(2);
    let config = "TCP_PORTS=\"100-200,2000-2999\"\nUDP_PORTS=\"1\"\nBLOCK_TCP=\"1\"\nBLOCK_LIMIT=\"60\"";
    let mut daemon = Setup::new(&lab, config).start();
    let (scanner, forger) = (lab.peer(0), lab.peer(1));
    let target = forger.target_v4.to_string();
    let forge =
        ["-sS", "-Pn", "-n", "-T5", "--max-retries", "0", "--max-rtt-timeout", "20ms", "-D", "RND:100"];
    forger.nmap(&[&forge[..], &["-p", "100-104", &target]].concat());
    // Slow enough that it is still at it when its first ports are no news any more.
    let target = scanner.target_v4.to_string();
    let scan = ["-sS", "-Pn", "-n", "-T5", "--max-retries", "0", "--max-rtt-timeout", "20ms"];
    scanner.nmap(&[&scan[..], &["--max-rate", "200", "-p", "2000-2499", &target]].concat());
    let source = scanner.v4.to_string();
    let block = daemon.wait_for("the scanner's block", |event| {
        event["event_type"] == "block" && event["src_ip"] == *source
    });
    println!("blocked at {} ports", block["scan"]["distinct_ports"]);
    assert_eq!(block["action"]["verdict"], "blocked", "{block}");
    let held = daemon.seen.iter().filter(|event| event["action"]["verdict"] == "suppressed").count();
    assert!(held > 10, "the forger had used up what there was: {held}");
}
