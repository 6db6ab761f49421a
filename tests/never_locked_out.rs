//! Nobody in the never-block set is blocked, whatever is sent in their name: neither by the sensor nor by the helper.

mod support;

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use support::daemon::{Daemon, PATIENCE, Setup};
use support::service::{Service, answers};
use support::{Host, Lab, eventually, inside, netns_run};

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
    assert!(!daemon.seen.iter().any(is_scanners_block), "{:#?}", daemon.seen);
}

/// Not an operator's.
fn is_scanners_block(event: &Value) -> bool {
    event["event_type"] == "block" && event["scan"].is_object()
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
fn neither_is_the_gateway_of_any_other_route_and_a_block_of_one_that_becomes_it_is_lifted() {
    let lab = Lab::new(1);
    let _service = Service::start(&lab.target(), 80);
    let peer = lab.peer(0);
    let mut daemon = Setup::new(&lab, CONFIG).start();
    for (v6, network) in [(false, "10.99.0.0/16"), (true, "2000::/3")] {
        let gateway = peer.address(v6).to_string();
        assert!(daemon.client(&["block", &gateway]).status.success());
        support::ip(&["-n", &lab.target(), "route", "add", network, "via", &gateway]);
        daemon.wait_for_new("the end of its block", |event| {
            event["event_type"] == "unblock" && event["src_ip"] == *gateway
        });
        scan_is_ignored(&lab, &mut daemon, v6);
    }
}

/// Whether `of`, which is forgotten first and then called, answers who has its address on this link.
fn is_found(netns: &str, device: &str, of: IpAddr) -> bool {
    let of = of.to_string();
    netns_run(netns, &["ip", "neighbour", "delete", &of, "dev", device]);
    netns_run(netns, &["ping", "-c", "1", "-W", "1", &of]);
    let known = netns_run(netns, &["ip", "neighbour", "show", "to", &of, "nud", "reachable"]);
    String::from_utf8_lossy(&known.stdout).contains("lladdr")
}

/// What a router passes on comes from others, and goes to it as long as its hardware address can be asked for.
#[test]
fn whoever_is_blocked_can_still_be_asked_for_his_hardware_address_and_ask_for_ours() {
    for with in ["nftables", "iptables"] {
        let lab = Lab::new(1);
        let _service = Service::start(&lab.target(), 80);
        let peer = lab.peer(0);
        let daemon = Setup::new(&lab, &format!("{CONFIG}\nBLOCK_WITH=\"{with}\"")).start();
        for v6 in [false, true] {
            assert!(answers(&peer.netns, peer.target(v6), 80, PATIENCE));
            assert!(daemon.client(&["block", &peer.address(v6).to_string()]).status.success());
            assert!(!answers(&peer.netns, peer.target(v6), 80, Duration::from_millis(300)), "{with}");
            assert!(is_found(&lab.target(), &peer.target_interface, peer.address(v6)), "{with} {v6}");
            assert!(is_found(&peer.netns, "eth0", peer.target(v6)), "{with} {v6}");
        }
    }
}

#[test]
fn the_resolver_is_never_blocked_whatever_encoding_the_systems_files_have() {
    let lab = Lab::new(1);
    let _service = Service::start(&lab.target(), 80);
    let peer = lab.peer(0);
    let _resolvers = Resolvers::set(&lab.target(), &[peer.address(false), peer.address(true)]);
    let mut daemon = Setup::new(&lab, CONFIG).start();
    scan_is_ignored(&lab, &mut daemon, false);
    scan_is_ignored(&lab, &mut daemon, true);
}

/// Runs what follows where the machine's own stub, if it has one, tells nobody whom it asks. The lab's resolv.conf may lie
/// upon one of these files.
const HIDES_RESOLVERS: &str = "
for file in /run/systemd/resolve/resolv.conf /run/NetworkManager/no-stub-resolv.conf; do
  [ ! -e $file ] || [ $file -ef /etc/resolv.conf ] || mount --bind /dev/null $file || exit
done
exec \"$@\"";

/// Whoever stands behind it can be shut out by one forged packet. Whoever has listed somebody may have listed them: a start
/// has nothing to say of that, every time, and a check says it still.
#[test]
fn a_stub_that_hides_the_resolvers_is_told_of_at_the_start_and_by_a_quiet_check() {
    let lab = Lab::new(1);
    let told = "whom that asks is not known here";
    let through = ["--mount", "sh", "-c", HIDES_RESOLVERS, "sh"];
    for (resolvers, config, at_the_start, by_check) in [
        (&["127.0.0.53"][..], CONFIG.to_owned(), true, true),
        (&["127.0.0.53"], format!("{CONFIG}\nNEVER_BLOCK=\"127.0.0.0/8, ::1, 0.0.0.0\""), true, true),
        (&["127.0.0.53"], format!("{CONFIG}\nNEVER_BLOCK=\"192.0.2.53\""), false, true),
        (&["127.0.0.53"], "TCP_PORTS=\"111\"".to_owned(), false, false),
        (&["127.0.0.53", "192.0.2.53"], CONFIG.to_owned(), false, false),
    ] {
        lab.ask(resolvers);
        let setup = Setup::new(&lab, &config);
        let conf = setup.path("portsentry.conf");
        let mut daemon = setup.start_through("unshare", &through.map(str::to_owned));
        daemon.wait_for("the start", |event| event["event_type"] == "start");
        let errors = daemon.seen.iter().filter_map(|event| event["error"].as_str());
        assert_eq!(
            errors.filter(|error| error.contains(told)).count(),
            usize::from(at_the_start),
            "{config}"
        );
        let check = [env!("CARGO_BIN_EXE_portsentry-rs"), "check", "--quiet", "-c", conf.to_str().unwrap()];
        let output = lab.on_target(&[&["unshare"][..], &through, &check].concat());
        let check = String::from_utf8(output.stderr).unwrap();
        let warned = check.lines().any(|line| line.starts_with("warning: ") && line.contains(told));
        assert!(output.status.success() && warned == by_check, "{config}: {check}");
    }
}

#[test]
fn the_hosts_own_addresses_are_never_blocked_also_ones_that_come_later() {
    let lab = Lab::new(1);
    let daemon = Setup::new(&lab, CONFIG).start();
    support::ip(&["-n", &lab.target(), "address", "add", "10.77.99.1/32", "dev", "lo"]);
    support::ip(&["-n", &lab.target(), "route", "add", "local", "198.51.100.0/24", "dev", "lo"]);
    for own in [
        "10.77.0.1",
        "fd77::1",
        "127.0.0.1",
        "10.77.99.1",
        "198.51.100.77",
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
    let lab = Lab::new(2);
    let _service = Service::start(&lab.target(), 80);
    let (gateway, attacker) = (lab.peer(0), lab.peer(1));
    support::ip(&["-n", &lab.target(), "route", "add", "default", "via", &gateway.v4.to_string()]);
    let mut daemon = Setup::new(&lab, CONFIG).start();
    let target = attacker.target_v4.to_string();
    // The target itself, and addresses that no host may have.
    for source in [target.as_str(), "127.0.0.1", "0.0.0.0", "224.0.0.1", "255.255.255.255"] {
        attacker.hping3(&["-c", "2", "-i", "u1000", "-S", "-p", "111", "-a", source, &target]);
    }
    let scan = outcome_of_forging(&mut daemon, attacker, gateway);
    assert_eq!(scan["action"]["verdict"], "ignored", "{scan}");
    assert!(answers(&gateway.netns, gateway.target(false), 80, PATIENCE), "the gateway is shut out");
    daemon.catch_up();
    assert!(!lab.is_blocked(gateway.v4), "{}", lab.nft_table());
    assert!(!daemon.seen.iter().any(|event| event["event_type"] == "block"), "{:#?}", daemon.seen);
}

/// What `/etc/resolv.conf` is for programs in a namespace: `ip netns exec` puts this folder over /etc.
struct Resolvers(PathBuf);

impl Resolvers {
    fn set(netns: &str, servers: &[IpAddr]) -> Resolvers {
        let folder = PathBuf::from("/etc/netns").join(netns);
        std::fs::create_dir_all(&folder).unwrap();
        let lines: String = servers.iter().map(|server| format!("nameserver {server}\n")).collect();
        // Other people's files, in another encoding.
        std::fs::write(folder.join("resolv.conf"), [b"# B\xfcro\n", lines.as_bytes()].concat()).unwrap();
        let users = std::fs::read("/etc/passwd").unwrap();
        let user = b"jurgen:x:60123:60123:J\xfcrgen:/:/bin/false\n";
        std::fs::write(folder.join("passwd"), [&user[..], &users].concat()).unwrap();
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

/// Waits until the daemon has looked twice at how many connections were ever opened: by the second look, which finds as
/// many as the first, it has listed them. What else its main thread reads in the meantime is not a third look's worth.
fn connections_are_listed(daemon: &Daemon) {
    let proc = |name: &str| std::fs::read_to_string(format!("/proc/{}/{name}", daemon.pid())).unwrap();
    let bytes_read = || {
        let account = proc(&format!("task/{}/io", daemon.pid()));
        let count = account.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap();
        count.parse::<usize>().unwrap()
    };
    let looked = bytes_read() + 3 * proc("net/snmp").len();
    eventually("the daemon lists its connections", PATIENCE, || {
        // Each question wakes it, and it looks while it is awake.
        assert!(daemon.client(&["status"]).status.success());
        bytes_read() >= looked
    });
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
    connections_are_listed(&daemon);
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
