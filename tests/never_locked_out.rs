//! Nobody in the never-block set is blocked, whatever is sent in their name: neither by the sensor nor by the helper.

mod support;

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::Value;
use support::daemon::{Daemon, PATIENCE, Setup};
use support::service::{Service, answers};
use support::{Host, Lab, inside};

const CONFIG: &str = "TCP_PORTS=\"111\"\nBLOCK_TCP=\"1\"";

/// Scans 111 from the lab's peer and waits for the verdict `ignored`; nothing may be blocked.
fn scan_is_ignored(lab: &Lab, daemon: &mut Daemon, v6: bool) {
    let scanner = lab.peer(0);
    let target = scanner.target(v6).to_string();
    scanner.nmap(&["-sS", "-p", "111", &target, if v6 { "-6" } else { "-v0" }]);
    let source = scanner.address(v6).to_string();
    let scan =
        daemon.wait_for_new("the scan", |event| event["event_type"] == "scan" && event["src_ip"] == *source);
    assert_eq!(scan["action"]["verdict"], "ignored", "{scan}");
    assert!(answers(&scanner.netns, scanner.target(v6), 80, PATIENCE), "{source} is shut out");
    daemon.catch_up();
    assert!(!daemon.seen.iter().any(|event| event["event_type"] == "block"), "{:#?}", daemon.seen);
}

#[test]
fn a_network_of_the_ignore_file_is_reported_and_left_alone() {
    let lab = Lab::new(1);
    let _service = Service::start(&lab.target(), 80);
    let setup = Setup::new(&lab, CONFIG);
    std::fs::write(setup.path("ignore"), "10.77.0.9/24 # the office\nFD77::/16").unwrap();
    append(&setup, &format!("IGNORE_FILE=\"{}\"\n", setup.path("ignore").display()));
    let mut daemon = setup.start();
    scan_is_ignored(&lab, &mut daemon, false);
    scan_is_ignored(&lab, &mut daemon, true);
}

#[test]
fn never_block_is_obeyed() {
    let lab = Lab::new(1);
    let _service = Service::start(&lab.target(), 80);
    let setup = Setup::new(&lab, CONFIG);
    append(&setup, "NEVER_BLOCK=\"10.77.0.2, fd77::/64\"\n");
    let mut daemon = setup.start();
    scan_is_ignored(&lab, &mut daemon, false);
    scan_is_ignored(&lab, &mut daemon, true);
}

#[test]
fn the_default_gateway_is_never_blocked_also_one_that_comes_later() {
    let lab = Lab::new(1);
    let _service = Service::start(&lab.target(), 80);
    let peer = lab.peer(0);
    support::ip(&["-n", &lab.target(), "route", "add", "default", "via", &peer.v4.to_string()]);
    let mut daemon = Setup::new(&lab, CONFIG).start();
    scan_is_ignored(&lab, &mut daemon, false);
    support::ip(&["-n", &lab.target(), "-6", "route", "add", "default", "via", &peer.v6.to_string()]);
    scan_is_ignored(&lab, &mut daemon, true);
}

#[test]
fn the_resolver_is_never_blocked() {
    let lab = Lab::new(1);
    let _service = Service::start(&lab.target(), 80);
    let peer = lab.peer(0);
    let _resolvers = Resolvers::set(&lab.target(), &[peer.address(false), peer.address(true)]);
    let mut daemon = Setup::new(&lab, CONFIG).start();
    scan_is_ignored(&lab, &mut daemon, false);
    scan_is_ignored(&lab, &mut daemon, true);
}

#[test]
fn the_hosts_own_addresses_are_never_blocked_also_ones_that_come_later() {
    let lab = Lab::new(1);
    let daemon = Setup::new(&lab, CONFIG).start();
    support::ip(&["-n", &lab.target(), "address", "add", "10.77.99.1/32", "dev", "lo"]);
    for own in [
        "10.77.0.1",
        "fd77::1",
        "127.0.0.1",
        "10.77.99.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "ff02::1",
    ] {
        let output = daemon.client(&["block", own]);
        assert!(!output.status.success(), "block {own} was accepted");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(text.contains("never"), "block {own}: {text}");
    }
    assert!(daemon.client(&["block", "10.77.0.2"]).status.success());
}

#[test]
fn a_spoofed_scan_in_the_gateways_name_blocks_nobody() {
    let lab = Lab::new(1);
    let _service = Service::start(&lab.target(), 80);
    let peer = lab.peer(0);
    support::ip(&["-n", &lab.target(), "route", "add", "default", "via", &peer.v4.to_string()]);
    let mut daemon = Setup::new(&lab, CONFIG).start();
    let target = peer.target_v4.to_string();
    // hping3 with a made-up source address: the target itself, and addresses that no host may have.
    for source in [target.as_str(), "127.0.0.1", "0.0.0.0", "224.0.0.1", "255.255.255.255"] {
        peer.hping3(&["-c", "2", "-i", "u1000", "-S", "-p", "111", "-a", source, &target]);
    }
    scan_is_ignored(&lab, &mut daemon, false);
}

/// What `/etc/resolv.conf` is for programs in a namespace: `ip netns exec` puts this folder over /etc.
struct Resolvers(PathBuf);

impl Resolvers {
    fn set(netns: &str, servers: &[IpAddr]) -> Resolvers {
        let folder = PathBuf::from("/etc/netns").join(netns);
        std::fs::create_dir_all(&folder).unwrap();
        let text: String = servers.iter().map(|server| format!("nameserver {server}\n")).collect();
        std::fs::write(folder.join("resolv.conf"), text).unwrap();
        Resolvers(folder)
    }
}

impl Drop for Resolvers {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A TCP connection from a host of the lab to the target; both ends.
fn connection(lab: &Lab, host: &Host) -> (TcpStream, TcpStream) {
    let listener = inside(&lab.target(), || TcpListener::bind("[::]:0").unwrap());
    let to = SocketAddr::new(host.target(false), listener.local_addr().unwrap().port());
    let client = inside(&host.netns, || TcpStream::connect_timeout(&to, PATIENCE).unwrap());
    (client, listener.accept().unwrap().0)
}

/// Sends a SYN to 111 in the name of `host`; what came of it.
fn outcome_of_forging(daemon: &mut Daemon, attacker: &Host, host: &Host) -> Value {
    let source = host.v4.to_string();
    attacker.hping3(&["-c", "1", "-S", "-p", "111", "-a", &source, &host.target_v4.to_string()]);
    daemon.wait_for_new("what came of it", |event| event["src_ip"] == *source && event["action"].is_object())
}

/// The daemon lists connections when nothing waits, and goes by that list until another connection is opened.
#[test]
fn whoever_has_an_open_connection_is_not_blocked_for_forged_packets_however_long_it_has_been_open() {
    let lab = Lab::new(5);
    let attacker = lab.peer(0);
    let (long_since, lately, just_now, nobody) = (lab.peer(1), lab.peer(2), lab.peer(3), lab.peer(4));
    let mut open = vec![connection(&lab, long_since)];
    let mut daemon = Setup::new(&lab, &format!("{CONFIG}\nTRIPWIRE=\"0\"")).start();
    open.push(connection(&lab, lately));
    // Each question wakes the daemon, which looks at its connections while it is awake, ten times a second at most.
    let asked = Instant::now();
    while asked.elapsed() < Duration::from_millis(500) {
        assert!(daemon.client(&["status"]).status.success());
    }
    for host in [long_since, lately] {
        let spared = outcome_of_forging(&mut daemon, attacker, host);
        assert_eq!(spared["action"]["verdict"], "suppressed", "{spared}");
    }
    open.push(connection(&lab, just_now));
    let spared = outcome_of_forging(&mut daemon, attacker, just_now);
    assert_eq!(spared["action"]["verdict"], "suppressed", "{spared}");
    let blocked = outcome_of_forging(&mut daemon, attacker, nobody);
    assert_eq!(blocked["action"]["verdict"], "blocked", "{blocked}");
}

fn append(setup: &Setup, line: &str) {
    let path = setup.path("portsentry.conf");
    let text = std::fs::read_to_string(&path).unwrap() + line;
    std::fs::write(path, text).unwrap();
}
