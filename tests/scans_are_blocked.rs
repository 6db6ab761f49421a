//! A real nmap scan of a watched port is seen, named, and its source blocked by the kernel; nobody else is touched.

mod support;

use std::time::Duration;

use support::daemon::{PATIENCE, Setup};
use support::service::{Service, answers};
use support::{Lab, eventually};

const CONFIG: &str = r#"
TCP_PORTS="1,11,15,79,111,1080"
UDP_PORTS="7,9,69,161"
DECOY_TCP_PORTS="23"
WORKERS="2"
BLOCK_TCP="1"
BLOCK_UDP="1"
"#;
const DECOY: u16 = 23;
const SERVICE: u16 = 80;
const SHORT: Duration = Duration::from_millis(700);

/// One nmap scan kind, the port it goes to, and the type it must be given.
const KINDS: &[(&str, &str, &str)] = &[
    ("-sS", "111", "syn"),
    // A handshake completed with a decoy is what tells a connect scan from a SYN scan.
    ("-sT", "23", "connect"),
    ("-sU", "69", "udp"),
    ("-sN", "111", "null"),
    ("-sF", "111", "fin"),
    ("-sX", "111", "xmas"),
];

fn dropped_packets(lab: &Lab) -> u64 {
    // "… counter packets 3 bytes 180 drop": the sum over the drop rules.
    let table = lab.nft_table();
    let words: Vec<&str> = table.split_whitespace().collect();
    words
        .windows(3)
        .filter(|three| three[0] == "counter" && three[1] == "packets")
        .map(|three| three[2].parse::<u64>().unwrap())
        .sum()
}

/// As for balancers and honeypots, whose networks no interface has an address of.
#[test]
fn a_scan_of_a_network_that_is_local_by_route_is_seen_also_where_that_comes_later() {
    let lab = Lab::new(1);
    let scanner = lab.peer(0);
    let _daemon = Setup::new(&lab, CONFIG).start();
    for (v6, network, target) in
        [(false, "198.51.100.0/24", "198.51.100.7"), (true, "2001:db8::/48", "2001:db8::7")]
    {
        support::ip(&["-n", &lab.target(), "route", "add", "local", network, "dev", "lo"]);
        eventually("its scanner is blocked", PATIENCE, || {
            let kind = if v6 { "-6" } else { "-v0" };
            scanner.nmap(&["-sS", "-p", "111", target, kind]);
            lab.is_blocked(scanner.address(v6))
        });
    }
}

#[test]
fn an_interface_that_is_named_by_another_of_its_names_is_watched_whatever_changes_around_it() {
    let lab = Lab::new(1);
    let scanner = lab.peer(0);
    let (target, interface) = (lab.target(), scanner.target_interface.as_str());
    support::ip(&["-n", &target, "link", "property", "add", "dev", interface, "altname", "enp0s77"]);
    let mut daemon = Setup::new(&lab, &format!("{CONFIG}INTERFACES=\"enp0s77\"\n")).start();
    support::ip(&["-n", &target, "address", "add", "198.51.100.7/32", "dev", interface]);
    eventually("the address is known", PATIENCE, || lab.nft_table().contains("198.51.100.7"));
    daemon.catch_up();
    scanner.nmap(&["-sS", "-p", "111", &scanner.target_v4.to_string()]);
    let block = daemon.wait_for("a block", |event| event["event_type"] == "block");
    assert_eq!(block["in_iface"], interface, "{block}");
    assert_eq!(block["action"]["with"], serde_json::json!(["tripwire", "nftables"]), "{block}");
    let lifted = daemon.client(&["unblock", "all"]);
    assert!(lifted.status.success(), "{lifted:?}");
    scanner.nmap(&["-sT", "-p", &DECOY.to_string(), &scanner.target_v4.to_string()]);
    daemon.wait_for("a visit", |event| event["event_type"] == "block" && event["dest_port"] == DECOY);
}

fn scan_is_blocked(v6: bool, kind: &str, port: &str, name: &str) {
    let lab = Lab::new(3);
    let (scanner, innocent, marker) = (lab.peer(0), lab.peer(1), lab.peer(2));
    let _service = Service::start(&lab.target(), SERVICE);
    let mut daemon = Setup::new(&lab, CONFIG).start();
    let target = scanner.target(v6);
    assert!(answers(&scanner.netns, target, SERVICE, PATIENCE), "the service answers before the scan");

    let address = target.to_string();
    let mut arguments = vec![kind, "-p", port, address.as_str()];
    if v6 {
        arguments.push("-6");
    }
    scanner.nmap(&arguments);

    let source = scanner.address(v6).to_string();
    let block = daemon.wait_for("a block", |event| event["event_type"] == "block");
    assert_eq!(
        (block["action"]["verdict"].as_str(), block["src_ip"].as_str()),
        (Some("blocked"), Some(&*source)),
        "{block}"
    );
    let before = dropped_packets(&lab);
    assert!(
        !answers(&scanner.netns, target, SERVICE, SHORT),
        "{kind}: the service still answers the scanner"
    );
    eventually("the kernel's drop counter rises", PATIENCE, || dropped_packets(&lab) > before);
    assert!(
        answers(&innocent.netns, innocent.target(v6), SERVICE, PATIENCE),
        "{kind}: the innocent host is shut out"
    );

    // Whoever scans a decoy may still be waited for.
    if port == DECOY.to_string() {
        daemon.outlast_handshakes(marker, DECOY)
    } else {
        daemon.catch_up()
    }
    let events: Vec<_> = daemon.seen.iter().filter(|event| event["src_ip"] == *source).collect();
    let types: Vec<_> = events.iter().map(|event| event["event_type"].as_str().unwrap()).collect();
    assert_eq!(types, ["scan", "block"], "{kind}: {events:#?}");
    assert_eq!(events[0]["scan"]["type"], name, "{}", events[0]);
    let bystander = innocent.address(v6).to_string();
    assert!(
        !daemon.seen.iter().any(|event| event["src_ip"] == *bystander),
        "the innocent host is in an event"
    );
}

#[test]
fn every_scan_kind_over_ipv4_is_named_and_blocked() {
    KINDS.iter().for_each(|(kind, port, name)| scan_is_blocked(false, kind, port, name));
}

#[test]
fn every_scan_kind_over_ipv6_is_named_and_blocked() {
    KINDS.iter().for_each(|(kind, port, name)| scan_is_blocked(true, kind, port, name));
}

#[test]
fn a_half_open_scan_of_a_decoy_is_blocked_too() {
    scan_is_blocked(false, "-sS", "23", "syn");
    scan_is_blocked(true, "-sS", "23", "syn");
}

#[test]
fn log_only_mode_reports_and_blocks_nobody() {
    let lab = Lab::new(1);
    let scanner = lab.peer(0);
    let _service = Service::start(&lab.target(), SERVICE);
    let mut daemon = Setup::new(&lab, "TCP_PORTS=\"111\"\nBLOCK_TCP=\"0\"").start();
    scanner.nmap(&["-sS", "-p", "111", &scanner.target_v4.to_string()]);
    let scan = daemon.wait_for("a scan", |event| event["event_type"] == "scan");
    assert_eq!(scan["action"]["verdict"], "logged", "{scan}");
    assert!(answers(&scanner.netns, scanner.target(false), SERVICE, PATIENCE));
}

#[test]
fn scan_trigger_counts_probes_of_watched_ports() {
    let lab = Lab::new(1);
    let scanner = lab.peer(0);
    let mut daemon = Setup::new(&lab, "TCP_PORTS=\"11,15,111\"\nBLOCK_TCP=\"1\"\nSCAN_TRIGGER=\"3\"").start();
    let target = scanner.target_v4.to_string();
    for port in ["11", "15"] {
        scanner.nmap(&["-sS", "-p", port, &target]);
        let probe = daemon.wait_for_new("a probe", |event| event["event_type"] == "probe");
        assert_eq!(probe["dest_port"].to_string(), port, "{probe}");
    }
    assert!(!daemon.seen.iter().any(|event| event["event_type"] == "scan"), "{:#?}", daemon.seen);
    scanner.nmap(&["-sS", "-p", "111", &target]);
    let scan = daemon.wait_for("the scan", |event| event["event_type"] == "scan");
    assert_eq!(
        (scan["scan"]["distinct_ports"].as_u64(), scan["dest_port"].as_u64()),
        (Some(3), Some(111)),
        "{scan}"
    );
    daemon.wait_for("the block", |event| event["event_type"] == "block");
}
