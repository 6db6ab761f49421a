//! A host whose links and addresses come and go all the time, as a container host's may, is watched all the same. What that
//! costs is measured (docs/performance.md), and the pace in which its lists are read proved where it is made.

mod support;

use std::collections::HashSet;
use std::io::Write;
use std::net::IpAddr;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use portsentry::netlink::surroundings::Surroundings;
use support::Lab;
use support::daemon::{Daemon, Setup};

const CONFIG: &str = "TCP_PORTS=\"111\"\nBLOCK_TCP=\"1\"";

/// ip(8) on the target, told what to do line by line; what it cannot do it leaves.
fn ip_on(lab: &Lab) -> (Child, ChildStdin) {
    let mut ip = Command::new("ip")
        .args(["-n", &lab.target(), "-force", "-batch", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("ip starts");
    let lines = ip.stdin.take().expect("piped");
    (ip, lines)
}

fn change(lab: &Lab, lines: impl IntoIterator<Item = String>) {
    let (mut ip, mut input) = ip_on(lab);
    lines.into_iter().for_each(|line| writeln!(input, "{line}").expect("ip reads"));
    drop(input);
    ip.wait().expect("our child");
}

/// Changes that go on until they are dropped.
struct Restless {
    over: Arc<AtomicBool>,
    feeder: Option<JoinHandle<()>>,
}

impl Restless {
    /// `lines` again and again, with a pause after each.
    fn begin(lab: &Lab, lines: Vec<String>, pause: Duration) -> Restless {
        let (mut ip, mut input) = ip_on(lab);
        let over = Arc::new(AtomicBool::new(false));
        let ends = over.clone();
        let feed = move || {
            for line in lines.iter().cycle() {
                if ends.load(Ordering::Relaxed) || writeln!(input, "{line}").is_err() {
                    break;
                }
                if !pause.is_zero() {
                    std::thread::sleep(pause);
                }
            }
            drop(input);
            let _ = ip.wait();
        };
        Restless { over, feeder: Some(std::thread::spawn(feed)) }
    }
}

impl Drop for Restless {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let _ = self.feeder.take().map(JoinHandle::join);
    }
}

fn assert_a_scan_is_blocked(lab: &Lab, daemon: &mut Daemon) {
    let scanner = lab.peer(0);
    scanner.nmap(&["-sS", "-p", "111", &scanner.target_v4.to_string()]);
    let source = scanner.v4.to_string();
    let block =
        daemon.wait_for("the block", |event| event["event_type"] == "block" && event["src_ip"] == *source);
    assert_eq!(block["action"]["verdict"], "blocked", "{block}");
    assert!(lab.is_blocked(scanner.v4));
}

#[test]
fn among_links_that_change_all_the_time_an_address_is_known_at_once_and_a_scan_is_blocked() {
    let lab = Lab::new(1);
    change(&lab, (0..500).map(|number| format!("link add v{number} type veth peer name w{number}")));
    // What is made of the surroundings takes long where there is much of it.
    change(
        &lab,
        (0..4000).map(|number| format!("address add 10.200.{}.{}/32 dev lo", number / 250, number % 250)),
    );
    let mut daemon = Setup::new(&lab, CONFIG).start();
    let changes = ["mtu 1400", "up", "mtu 1500", "down"].map(|change| format!("link set v0 {change}"));
    let _changes = Restless::begin(&lab, changes.into(), Duration::from_millis(5));
    // An address that comes in the midst of it is known at once.
    support::ip(&["-n", &lab.target(), "address", "add", "10.99.9.9/32", "dev", "lo"]);
    let refused = daemon.client(&["block", "10.99.9.9"]);
    assert!(!refused.status.success(), "{refused:?}");
    assert_a_scan_is_blocked(&lab, &mut daemon);
}

/// Addresses of the host alone stand before all others in the kernel's list: one that goes while it is read has the reading
/// pass over another, which is there.
#[test]
fn an_address_that_a_reading_passes_over_stays_the_hosts_own() {
    let lab = Lab::new(1);
    let standing = |third, fourth| format!("10.200.{third}.{fourth}");
    let all = || (0..8).flat_map(|third| (1..=250).map(move |fourth| standing(third, fourth)));
    change(&lab, all().map(|address| format!("address add {address}/32 dev lo")));
    let _changes: Vec<Restless> = (100..103)
        .map(|third| {
            let line =
                move |verb, fourth| format!("address {verb} 10.201.{third}.{fourth}/32 dev lo scope host");
            let pair = move |fourth| ["add", "del"].map(|verb| line(verb, fourth));
            Restless::begin(&lab, (1..=250).flat_map(pair).collect(), Duration::ZERO)
        })
        .collect();
    let all: Vec<IpAddr> = all().map(|address| address.parse().expect("an address")).collect();
    let mut here = support::inside(&lab.target(), || Surroundings::open().expect("lists can be read"));
    let (mut readings, mut last) = (0, None);
    support::eventually(
        "ten readings, of which the kernel lets few be whole",
        Duration::from_secs(120),
        || {
            let own: HashSet<IpAddr> = here.addresses().collect();
            let lost = all.iter().find(|address| !own.contains(address));
            assert_eq!(lost, None, "after {readings} readings");
            here.drain().expect("lists can be read");
            let next = here.next_try();
            readings += usize::from(next.is_some() && std::mem::replace(&mut last, next) != next);
            readings >= 10
        },
    );
}

#[test]
fn addresses_that_change_while_they_are_listed_keep_nobody_from_starting_and_blocking() {
    let lab = Lab::new(1);
    let address =
        |verb: &str, third: usize, fourth: usize| format!("address {verb} 10.200.{third}.{fourth}/32 dev lo");
    change(&lab, (0..40).flat_map(|third| (1..=250).map(move |fourth| address("add", third, fourth))));
    let _changes: Vec<Restless> = (100..103)
        .map(|third| {
            let pair = |fourth| ["add", "del"].map(|verb| address(verb, third, fourth));
            Restless::begin(&lab, (1..=250).flat_map(pair).collect(), Duration::ZERO)
        })
        .collect();
    let mut daemon = Setup::new(&lab, CONFIG).start();
    // One that was there before, perhaps at the end of a list that never came whole.
    let refused = daemon.client(&["block", "10.200.39.250"]);
    assert!(!refused.status.success(), "{refused:?}");
    assert_a_scan_is_blocked(&lab, &mut daemon);
}
