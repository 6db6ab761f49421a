//! The helper's nftables response and the netlink readings do in a real kernel what they say.
//!
//! Needs root, ip, nft and ping. Every test has namespaces of its own, which end with it.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "clippy's leave for tests does not reach their helper functions")]

#[path = "support/nft.rs"]
mod nft;

use std::collections::BTreeSet;
use std::fs::File;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns, unshare};
use portsentry::helper::nftables::{Nftables, NftablesError};
use portsentry::helper::respond::{InForce, Timed};
use portsentry::helper::ruleset::SET_CAPACITY;
use portsentry::helper::tripwire::Tripwire;
use portsentry::netlink::Surroundings;
use portsentry::netlink::sock_diag::SocketTables;
use portsentry::networks::Networks;
use portsentry::protocol::{Response, Responses, Terms};

/// The protected host's and the scanner's namespace, joined by a veth pair. This thread is in the host's.
struct Lab {
    host: String,
    scanner: String,
}

impl Lab {
    fn new() -> Lab {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let id = format!("{}_{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let lab = Lab { host: format!("codec_host_{id}"), scanner: format!("codec_scan_{id}") };
        for name in [&lab.host, &lab.scanner] {
            run(&format!("ip netns add {name}"));
            run(&format!("ip -n {name} link set lo up"));
        }
        run(&format!("ip -n {} link add wire type veth peer name wire netns {}", lab.host, lab.scanner));
        for (name, last) in [(&lab.host, 1), (&lab.scanner, 2), (&lab.scanner, 3)] {
            run(&format!("ip -n {name} address add 192.0.2.{last}/24 dev wire"));
            run(&format!("ip -n {name} address add 2001:db8::{last}/64 dev wire nodad"));
            run(&format!("ip -n {name} link set wire up"));
        }
        run(&format!("ip -n {} address add 2001:db8:0:1::2/64 dev wire nodad", lab.scanner));
        run(&format!("ip -n {} route add 2001:db8:0:1::/64 dev wire", lab.host));
        let host = File::open(format!("/run/netns/{}", lab.host)).unwrap();
        setns(host, CloneFlags::CLONE_NEWNET).unwrap();
        lab.until_reachable();
        lab
    }

    /// The link needs a moment to come up.
    fn until_reachable(&self) {
        for (source, target) in [("192.0.2.2", "192.0.2.1"), ("2001:db8::2", "2001:db8::1")] {
            wait_until(|| self.pings(source, target));
        }
    }

    fn pings(&self, source: &str, target: &str) -> bool {
        let command = format!("ip netns exec {} ping -n -q -c 1 -W 1 -I {source} {target}", self.scanner);
        output(&command).status.success()
    }

    /// Whether the host answers each of these sources.
    fn answers(&self, sources: &[&str]) -> Vec<bool> {
        let target = |source: &str| if source.contains(':') { "2001:db8::1" } else { "192.0.2.1" };
        sources.iter().map(|source| self.pings(source, target(source))).collect()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // Out of the namespace, so that it ends now.
        let _ = unshare(CloneFlags::CLONE_NEWNET);
        for name in [&self.host, &self.scanner] {
            let _ = output(&format!("ip netns delete {name}"));
        }
    }
}

fn output(command: &str) -> Output {
    let mut words = command.split_whitespace();
    Command::new(words.next().unwrap()).args(words).output().unwrap()
}

fn run(command: &str) -> String {
    let output = output(command);
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn wait_until(mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(10), "waited in vain");
        std::thread::yield_now();
    }
}

fn networks(texts: &[&str]) -> Networks {
    texts.iter().map(|text| net(text)).collect()
}

fn net(text: &str) -> IpNet {
    text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).unwrap()
}

fn seconds(target: &str, seconds: u64) -> Timed {
    (net(target), Duration::from_secs(seconds))
}

fn block(nftables: &mut Nftables, blocks: &[Timed]) {
    nftables.block(blocks).into_iter().for_each(|result| result.unwrap());
}

fn installed(never: &[&str], blocks: &[Timed]) -> Nftables {
    let mut nftables = Nftables::open(None, SET_CAPACITY).unwrap();
    nftables.install(&networks(never), blocks).unwrap();
    nftables
}

fn ruleset() -> String {
    run("nft list ruleset")
}

fn targets() -> Vec<String> {
    nft::blocked().iter().map(|(target, _)| target.to_string()).collect()
}

#[test]
fn a_blocked_source_is_dropped_and_counted_and_an_innocent_one_is_answered() {
    let lab = Lab::new();
    let mut nftables = installed(&[], &[]);
    let sources = ["192.0.2.2", "192.0.2.3", "2001:db8::2", "2001:db8::3", "2001:db8:0:1::2"];
    assert_eq!(lab.answers(&sources), [true; 5]);
    block(
        &mut nftables,
        &[seconds("192.0.2.2", 60), seconds("2001:db8::2", 60), seconds("2001:db8:0:1::/64", 60)],
    );
    assert_eq!(nft::dropped(), [0, 0]);
    assert_eq!(lab.answers(&sources), [false, true, false, true, false]);
    let [packets, bytes] = nft::dropped();
    assert!((3..20).contains(&packets) && bytes >= packets * 84, "{packets} packets, {bytes} bytes");
    let lifted = ["192.0.2.2", "192.0.2.2", "198.51.100.0/25"].map(|it| nftables.unblock(&net(it)).unwrap());
    assert_eq!(lifted, [true, false, false]);
    nftables.flush().unwrap();
    assert_eq!(lab.answers(&sources), [true; 5]);
}

#[test]
fn nft_reads_our_table_as_we_mean_it() {
    let _lab = Lab::new();
    let mut nftables =
        installed(&["192.0.2.0/25", "192.0.2.128/25", "192.0.2.7/32", "240.0.0.0/4", "fe80::/10"], &[]);
    let single = seconds("2001:db8::1", 60);
    block(&mut nftables, &[seconds("198.51.100.1", 60), single, seconds("2001:db8:0:1::/64", 60)]);
    block(&mut nftables, &[seconds("198.51.100.0/24", 120)]);
    let text = ruleset();
    for line in [
        "iif \"lo\" accept",
        "ip saddr @never4 accept",
        "ip6 saddr @never6 accept",
        "ip6 hoplimit 255 icmpv6 type 133-137 accept",
        "ip saddr @blocked4 jump blocked",
        "ip6 saddr @blocked6 jump blocked",
        "ip6 saddr & ffff:ffff:ffff:ffff:: == @blocked6_64 jump blocked",
        "ip saddr & 255.255.255.0 == @blocked4_24 jump blocked",
        "jump never",
        "counter packets 0 bytes 0 drop",
        "type filter hook prerouting priority raw; policy accept;",
        "elements = { 192.0.2.0/24, 240.0.0.0/4 }",
        "elements = { fe80::/10 }",
        "198.51.100.0 timeout 2m expires",
        "198.51.100.1 timeout 1m expires",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    let json: serde_json::Value = serde_json::from_str(&run("nft -j list table inet portsentry")).unwrap();
    assert!(json["nftables"].as_array().unwrap().len() > 10);
}

#[test]
fn where_nobody_is_blocked_no_packet_is_asked_for_it_and_the_next_block_holds() {
    let lab = Lab::new();
    let tripwire = Tripwire::new(Terms { interfaces: Vec::new(), per_minute: 120 });
    for tripwire in [None, Some(tripwire)] {
        let has_tripwire = tripwire.is_some();
        let mut nftables = Nftables::open(tripwire, SET_CAPACITY).unwrap();
        nftables.install(&Networks::default(), &[]).unwrap();
        assert_eq!(nftables.has_tripwire(), has_tripwire);
        let base_chain = || run("nft list chain inet portsentry probe");
        let at_peace = base_chain();
        assert!(!at_peace.contains("blocked"), "{at_peace}");
        for target in ["192.0.2.2", "192.0.2.0/24", "2001:db8::/64"] {
            block(&mut nftables, &[seconds(target, 3600)]);
            assert!(nftables.stands(&for_an_hour(&[net(target)])).unwrap());
            let answers = ["192.0.2.2", "2001:db8::2"].map(|it| !net(target).contains(&net(it)));
            assert_eq!(lab.answers(&["192.0.2.2", "2001:db8::2"]), answers, "{target}");
            assert!(base_chain().contains("jump blocked"));
            assert!(nftables.unblock(&net(target)).unwrap());
            assert!(nftables.stands(&for_an_hour(&[])).unwrap());
            assert_eq!(base_chain(), at_peace);
        }
        // Whatever others have put there.
        for (set, target) in [("blocked4", "192.0.2.2"), ("blocked4_24", "192.0.2.0/24")] {
            let address = net(target).addr();
            run(&format!("nft add element inet portsentry {set} {{ {address} timeout 1h }}"));
            assert!(nftables.unblock(&net(target)).unwrap());
        }
    }
}

#[test]
fn what_others_do_to_the_table_while_nobody_is_blocked_costs_no_later_block_its_hold() {
    let lab = Lab::new();
    let mut nftables = installed(&[], &[]);
    let gone = "nft delete chain inet portsentry probe";
    let elsewhere = "nft add chain inet portsentry probe";
    for changes in [&[gone][..], &[gone, elsewhere], &["nft flush ruleset"]] {
        changes.iter().for_each(|change| drop(run(change)));
        let results = nftables.block(&[seconds("192.0.2.2", 60)]);
        assert!(matches!(results[..], [Err(NftablesError::TableGone { .. })]), "{changes:?}: {results:?}");
        assert!(!nftables.stands(&for_an_hour(&[])).unwrap(), "{changes:?}");
        nftables.install(&Networks::default(), &[]).unwrap();
        block(&mut nftables, &[seconds("192.0.2.2", 60)]);
        assert_eq!(lab.answers(&["192.0.2.2"]), [false]);
        assert!(nftables.unblock(&net("192.0.2.2")).unwrap());
        assert_eq!(lab.answers(&["192.0.2.2"]), [true]);
        assert!(nftables.stands(&for_an_hour(&[])).unwrap());
    }
    run("nft delete set inet portsentry blocked4");
    nftables.flush().unwrap();
    block(&mut nftables, &[seconds("192.0.2.2", 60)]);
    assert_eq!(lab.answers(&["192.0.2.2"]), [false]);
}

#[test]
fn others_who_change_tables_of_theirs_all_the_time_keep_no_first_block_from_holding() {
    let _lab = Lab::new();
    let mut nftables = installed(&[], &[]);
    let target = net("192.0.2.2");
    std::thread::scope(|scope| {
        let others = scope.spawn(|| {
            for change in ["nft add table inet others", "nft delete table inet others"].repeat(100) {
                run(change);
            }
        });
        while !others.is_finished() {
            block(&mut nftables, &[(target, Duration::from_secs(3600))]);
            assert!(nftables.stands(&for_an_hour(&[target])).unwrap());
            assert!(nftables.unblock(&target).unwrap());
            assert!(nftables.stands(&for_an_hour(&[])).unwrap());
        }
    });
}

/// Between our commit and our look at what came of it there is a moment. Whoever is late tries earlier next time.
#[test]
fn whatever_others_do_while_the_first_block_is_made_a_table_that_stands_drops() {
    let _lab = Lab::new();
    let blocks = [(net("192.0.2.2"), Duration::from_secs(3600))];
    let flush = "nft flush chain inet portsentry probe";
    let exchange = "nft flush chain inet portsentry probe; add rule inet portsentry probe counter";
    for (in_install, change) in [(false, flush), (false, exchange), (true, flush), (true, exchange)] {
        let mut nftables = installed(&[], &[]);
        let mut delay = Duration::from_millis(1);
        let mut outcomes = BTreeSet::new();
        for round in 0..200 {
            nftables.install(&Networks::default(), &[]).unwrap();
            let (told, late) = std::thread::scope(|scope| {
                let other = scope.spawn(|| run(change));
                let begun = Instant::now();
                wait_until(|| begun.elapsed() > delay);
                let told = if in_install {
                    nftables.install(&Networks::default(), &blocks).is_ok()
                } else {
                    nftables.block(&blocks).iter().all(Result::is_ok)
                };
                (told, other.is_finished())
            });
            delay = if late { delay.mul_f64(0.95) } else { delay.mul_f64(1.05) };
            let stands = nftables.stands(&for_an_hour(&[blocks[0].0])).unwrap();
            let drops = run("nft list chain inet portsentry probe").contains("jump blocked");
            assert!(drops || !stands, "round {round}, {delay:?}");
            outcomes.insert((told, drops));
        }
        assert!(outcomes.len() > 1, "always before or always after: {outcomes:?}");
    }
}

#[test]
fn a_never_block_source_is_answered_though_it_is_blocked() {
    let lab = Lab::new();
    let mut nftables =
        installed(&["192.0.2.2/32"], &[seconds("192.0.2.0/24", 60), seconds("2001:db8::/64", 60)]);
    assert_eq!(lab.answers(&["192.0.2.2", "192.0.2.3", "2001:db8::2"]), [true, false, false]);
    nftables.set_never(&networks(&["192.0.2.3/32", "2001:db8::/64"])).unwrap();
    assert_eq!(lab.answers(&["192.0.2.2", "192.0.2.3", "2001:db8::2"]), [false, true, true]);
    nftables.set_never(&Networks::default()).unwrap();
    assert_eq!(lab.answers(&["192.0.2.2", "192.0.2.3"]), [false, false]);
    nftables.set_never(&networks(&["0.0.0.0/0", "::/0"])).unwrap();
    assert_eq!(lab.answers(&["192.0.2.2", "192.0.2.3", "2001:db8::2"]), [true, true, true]);
}

#[test]
fn the_host_reaches_itself_even_if_its_own_address_is_blocked() {
    let _lab = Lab::new();
    let _nftables = installed(&[], &[seconds("192.0.2.1", 60)]);
    let listener = TcpListener::bind("192.0.2.1:0").unwrap();
    TcpStream::connect_timeout(&listener.local_addr().unwrap(), Duration::from_secs(5)).unwrap();
}

#[test]
fn a_block_ends_by_itself_and_blocking_again_sets_its_time_anew() {
    let lab = Lab::new();
    let mut nftables = installed(&[], &[]);
    let short = |target: &str| (net(target), Duration::from_millis(1500));
    block(&mut nftables, &[short("192.0.2.2"), short("192.0.2.3"), short("2001:db8::/64")]);
    block(&mut nftables, &[seconds("192.0.2.2", 600), seconds("2001:db8::/64", 600)]);
    assert_eq!(targets(), ["192.0.2.2/32", "192.0.2.3/32", "2001:db8::/64"]);
    wait_until(|| targets().len() == 2);
    assert_eq!(lab.answers(&["192.0.2.2", "192.0.2.3", "2001:db8::2"]), [false, true, false]);
    let blocked = nft::blocked();
    assert!(blocked.iter().all(|(_, left)| *left > Duration::from_secs(590)), "{blocked:?}");
    block(&mut nftables, &[seconds("192.0.2.2", 5)]);
    let (_, left) = nft::blocked().into_iter().find(|(target, _)| *target == net("192.0.2.2")).unwrap();
    assert!(left <= Duration::from_secs(5), "shorter as well: {left:?}");
}

#[test]
fn prefixes_within_each_other_are_blocked_and_lifted_one_by_one() {
    let lab = Lab::new();
    let mut nftables = installed(&[], &[]);
    let nested = ["192.0.2.0/24", "192.0.2.0/30", "192.0.2.2/31", "192.0.2.2/32"];
    block(&mut nftables, &nested.map(|target| seconds(target, 60)));
    assert_eq!(targets(), nested);
    for (number, target) in nested.iter().enumerate() {
        assert_eq!(lab.answers(&["192.0.2.2"]), [false]);
        assert!(nftables.unblock(&net(target)).unwrap());
        assert_eq!(targets().len(), 3 - number);
    }
    assert_eq!(lab.answers(&["192.0.2.2"]), [true]);
}

#[test]
fn a_new_run_installs_over_the_old_runs_blocks() {
    let lab = Lab::new();
    let blocks = ["192.0.2.2", "2001:db8:0:1::/64"].map(|target| seconds(target, 60));
    drop(installed(&[], &blocks));
    assert_eq!(lab.answers(&["192.0.2.2"]), [false], "blocks outlive the process");
    assert_eq!(targets(), ["192.0.2.2/32", "2001:db8:0:1::/64"]);
    let _nftables = installed(&[], &blocks);
    assert_eq!(targets(), ["192.0.2.2/32", "2001:db8:0:1::/64"]);
    assert_eq!(lab.answers(&["192.0.2.2", "2001:db8:0:1::2", "192.0.2.3"]), [false, false, true]);
}

#[test]
fn other_tables_are_left_as_they_are() {
    let _lab = Lab::new();
    run("nft add table inet other");
    run("nft add set inet other blocked4 { type ipv4_addr; }");
    run("nft add element inet other blocked4 { 203.0.113.1 }");
    let before = ruleset();
    let mut nftables = installed(&["192.0.2.1/32"], &[seconds("192.0.2.2", 60)]);
    nftables.install(&Networks::default(), &[]).unwrap();
    nftables.flush().unwrap();
    assert_ne!(ruleset(), before);
    nftables.remove_table().unwrap();
    assert_eq!(ruleset(), before);
    nftables.remove_table().unwrap();
    assert_eq!(targets(), Vec::<String>::new());
}

#[test]
fn a_flushed_ruleset_is_told_as_such_and_can_be_installed_again() {
    let lab = Lab::new();
    let mut nftables = installed(&[], &[]);
    assert!(nftables.is_installed().unwrap());
    run("nft flush ruleset");
    assert!(!nftables.is_installed().unwrap());
    let results = nftables.block(&[seconds("192.0.2.2", 60), seconds("2001:db8::/64", 60)]);
    assert!(
        results.iter().all(|result| matches!(result, Err(NftablesError::TableGone { .. }))),
        "{results:?}"
    );
    nftables.install(&Networks::default(), &[seconds("192.0.2.2", 60)]).unwrap();
    assert_eq!(lab.answers(&["192.0.2.2"]), [false]);
}

#[test]
fn one_block_of_very_many_that_is_gone_is_found_by_looks_that_take_no_time() {
    let _lab = Lab::new();
    let address = |number: u32| IpNet::from(IpAddr::from((0x0a00_0000 + number).to_be_bytes()));
    let (start, hour) = (Instant::now(), Duration::from_secs(3600));
    let blocks: Vec<Timed> = (0..100_000).map(|number| (address(number), hour)).collect();
    let mut nftables = installed(&[], &blocks);
    let with = Responses::from(Response::Nftables);
    let walk = |last: Option<IpNet>| {
        let next = blocks.partition_point(|(target, _)| Some(*target) <= last);
        let left = hour.saturating_sub(start.elapsed());
        blocks.get(next).map(|(target, _)| (*target, InForce { with, left }))
    };
    let mut look = || {
        let begun = Instant::now();
        let stands = nftables.stands(&walk).unwrap();
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
        stands
    };
    assert!(look());
    // Others' changes: cheap, and in nobody's way.
    for _ in 0..20 {
        run("nft add table inet others");
        run("nft delete table inet others");
        assert!(look());
    }
    run("nft delete element inet portsentry blocked4 { 10.1.134.159 }");
    let looks = (0..1_000).take_while(|_| look()).count();
    assert!(looks < 1_000, "not found");
}

/// A record of blocks that have an hour left.
fn for_an_hour(targets: &[IpNet]) -> impl Fn(Option<IpNet>) -> Option<(IpNet, InForce)> {
    let in_force = InForce { with: Responses::from(Response::Nftables), left: Duration::from_secs(3600) };
    move |last| targets.iter().find(|it| Some(**it) > last).map(|it| (*it, in_force))
}

#[test]
fn what_could_not_be_put_back_is_found_missing_until_it_is() {
    let _lab = Lab::new();
    let blocks = ["192.0.2.2", "192.0.2.3"].map(|target| seconds(target, 3600));
    let targets = blocks.map(|(target, _)| target);
    let record = for_an_hour(&targets);
    let too_many: Vec<Timed> = (0..9).map(|last| seconds(&format!("203.0.113.{last}"), 60)).collect();
    for change in ["nft flush ruleset", "nft delete element inet portsentry blocked4 { 192.0.2.2 }"] {
        let mut nftables = Nftables::open(None, 4).unwrap();
        nftables.install(&Networks::default(), &blocks).unwrap();
        assert!(nftables.stands(&record).unwrap());
        run(change);
        for _ in 0..3 {
            assert!(!nftables.stands(&record).unwrap(), "after {change}");
            let refused = nftables.install(&Networks::default(), &too_many);
            assert!(matches!(refused, Err(NftablesError::Full { .. })), "{refused:?}");
        }
        nftables.install(&Networks::default(), &blocks).unwrap();
        assert!(nftables.stands(&record).unwrap());
    }
}

#[test]
fn a_batch_of_ours_that_changes_nothing_hides_nobody_elses_change() {
    let _lab = Lab::new();
    let mut nftables = installed(&[], &[]);
    let targets = ["192.0.2.2", "192.0.2.3"].map(net);
    let record = for_an_hour(&targets);
    // Nothing is in these sets.
    nftables.flush().unwrap();
    block(&mut nftables, &targets.map(|target| seconds(&target.to_string(), 3600)));
    run("nft delete element inet portsentry blocked4 { 192.0.2.3 }");
    assert!(!nftables.stands(&record).unwrap());
}

#[test]
fn a_set_of_another_kind_by_a_name_of_ours_is_told_as_a_table_that_is_not_ours() {
    let _lab = Lab::new();
    let blocks = [seconds("192.0.2.2", 60), seconds("192.0.2.0/25", 60)];
    let mut nftables = installed(&[], &[]);
    run("nft delete set inet portsentry blocked4");
    for name in ["blocked4", "blocked4_25"] {
        run(&format!("nft add set inet portsentry {name} {{ type ipv6_addr; }}"));
        let results = nftables.block(&blocks);
        assert!(results.iter().all(|it| matches!(it, Err(NftablesError::TableGone { .. }))), "{results:?}");
        nftables.install(&Networks::default(), &[]).unwrap();
    }
    run("nft delete set inet portsentry blocked6; add set inet portsentry blocked6 { type ipv4_addr; }");
    assert!(matches!(nftables.flush(), Err(NftablesError::TableGone { .. })));
    nftables.install(&Networks::default(), &blocks).unwrap();
    assert_eq!(targets().len(), 2);
}

#[test]
fn ten_thousand_blocks_go_in_and_stay_in_over_a_new_install() {
    let _lab = Lab::new();
    let mut nftables = installed(&[], &[]);
    let address = |number: u32| IpAddr::from((0x0a00_0000 + number).to_be_bytes());
    let of = |number: u32| (address(number).into(), Duration::from_secs(3600));
    let all: Vec<Timed> = (0..10_000).map(of).collect();
    for chunk in all.chunks(100) {
        block(&mut nftables, chunk);
    }
    assert_eq!(targets().len(), 10_000);
    nftables.install(&networks(&["192.0.2.1/32"]), &all).unwrap();
    assert_eq!(targets().len(), 10_000);
    let never: Vec<IpNet> = (0..3_000).map(|number| address(2 * number).into()).collect();
    nftables.set_never(&never.into_iter().collect()).unwrap();
    assert_eq!(run("nft list set inet portsentry never4").matches("10.0.").count(), 3_000);
}

#[test]
fn a_full_set_says_so_and_keeps_what_it_has() {
    let _lab = Lab::new();
    let of = |number: u32| (IpAddr::from(number.to_be_bytes()).into(), Duration::from_secs(3600));
    let full: Vec<Timed> = (0..SET_CAPACITY).map(|number| of(0x0a00_0000 + number)).collect();
    let mut nftables = installed(&[], &full);
    let results = nftables.block(&[seconds("192.0.2.2", 60), seconds("2001:db8::2", 60)]);
    assert!(matches!(results[..], [Err(NftablesError::Full { .. }), Ok(())]), "{results:?}");
    assert_eq!(targets().len(), full.len() + 1);
}

#[test]
fn root_of_a_user_namespace_may_not_send_long_batches_and_installs_in_short_ones() {
    let test = "install_two_full_sets";
    let own = std::env::current_exe().unwrap();
    run(&format!("unshare --user --map-root-user {} --exact --ignored {test}", own.display()));
}

#[test]
#[ignore = "run by the test above, in a user namespace"]
fn install_two_full_sets() {
    // Never in the machine's own namespace, however this test is started.
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    // 11 MiB: more than such a root may send at once where wmem_max is 4 MiB; the default is 208 KiB.
    let v4 = |number: u32| IpNet::from(IpAddr::from((0x0a00_0000 + number).to_be_bytes()));
    let v6 = |number: u32| IpNet::from(IpAddr::from(u128::from(number).to_be_bytes()));
    let targets = (0..SET_CAPACITY).flat_map(|number| [v4(number), v6(number)]);
    let blocks: Vec<Timed> = targets.map(|target| (target, Duration::from_secs(600))).collect();
    for _ in 0..2 {
        let _nftables = installed(&["192.0.2.1/32"], &blocks);
        assert_eq!(nft::blocked().len(), blocks.len());
    }
}

#[test]
fn without_the_right_the_error_names_the_capability() {
    let _lab = Lab::new();
    caps::drop(None, caps::CapSet::Effective, caps::Capability::CAP_NET_ADMIN).unwrap();
    let error = Nftables::open(None, SET_CAPACITY).unwrap_err();
    caps::raise(None, caps::CapSet::Effective, caps::Capability::CAP_NET_ADMIN).unwrap();
    assert!(error.to_string().contains("CAP_NET_ADMIN"), "{error}");
    assert_eq!(error.errno(), libc_eperm());
}

fn libc_eperm() -> i32 {
    nix::Error::EPERM as i32
}

#[test]
fn a_listener_is_noticed_and_so_is_its_end() {
    let _lab = Lab::new();
    let mut tables = SocketTables::open().unwrap();
    assert_eq!(tables.read().unwrap(), []);
    let listener = TcpListener::bind("[2001:db8::1]:0").unwrap();
    let local: Vec<SocketAddr> = tables.read().unwrap().iter().map(|socket| socket.local).collect();
    assert_eq!(local, [listener.local_addr().unwrap()]);
    drop(listener);
    assert_eq!(tables.read().unwrap(), []);
}

#[test]
fn addresses_routes_and_links_are_noticed_when_they_come_and_go() {
    let _lab = Lab::new();
    let mut around = Surroundings::open().unwrap();
    let has = |around: &Surroundings, text: &str| around.is_own(text.parse().unwrap());
    assert!(has(&around, "192.0.2.1") && has(&around, "2001:db8::1") && !has(&around, "192.0.2.9"));
    assert_eq!(
        around.broadcasts().map(|ip| ip.to_string()).collect::<Vec<_>>(),
        ["127.255.255.255", "192.0.2.255"]
    );
    assert_eq!(around.gateways().count(), 0);

    assert!(after(&mut around, "ip address add 192.0.2.9/24 dev wire"));
    assert!(has(&around, "192.0.2.9"));
    assert!(after(&mut around, "ip address delete 192.0.2.9/24 dev wire"));
    assert!(!has(&around, "192.0.2.9"));
    // However lately the list was read, with all that goes by it.
    run("ip address add 192.0.2.129/25 dev wire broadcast 192.0.2.200");
    assert!(around.drain().unwrap());
    assert_eq!(around.interfaces_of("192.0.2.129".parse().unwrap()).count(), 1);
    assert!(around.is_for_everybody("192.0.2.200".parse().unwrap()));
    assert!(around.networks().any(|network| network == net("192.0.2.128/25")));
    assert!(after(&mut around, "ip address delete 192.0.2.129/25 dev wire"));

    assert!(after(&mut around, "ip route add local 203.0.113.0/24 dev lo"));
    assert!(has(&around, "203.0.113.77") && !has(&around, "203.0.112.1"));
    run("ip route add local 198.51.100.0/24 dev lo table 100");
    run("ip -6 route add local 2001:db8:9::/48 dev lo");
    around.drain().unwrap();
    assert!(has(&around, "2001:db8:9::1") && !has(&around, "198.51.100.1"));
    assert!(after(&mut around, "ip route delete local 203.0.113.0/24 dev lo"));
    assert!(!has(&around, "203.0.113.77"));

    let gateways = |around: &Surroundings| around.gateways().map(|ip| ip.to_string()).collect::<Vec<_>>();
    assert!(after(&mut around, "ip route add default via 192.0.2.2"));
    assert_eq!(gateways(&around), ["192.0.2.2"]);
    assert!(after(&mut around, "ip route replace default via 192.0.2.3"));
    assert_eq!(gateways(&around), ["192.0.2.3"]);
    assert!(after(&mut around, "ip -6 route add default nexthop via 2001:db8::2 nexthop via 2001:db8::3"));
    assert_eq!(gateways(&around), ["192.0.2.3", "2001:db8::2", "2001:db8::3"]);
    assert!(after(&mut around, "ip route replace default nexthop via 192.0.2.2 nexthop via 192.0.2.3"));
    assert_eq!(gateways(&around), ["192.0.2.2", "192.0.2.3", "2001:db8::2", "2001:db8::3"]);
    assert!(after(&mut around, "ip -4 route replace default via inet6 2001:db8::7 dev wire"));
    assert_eq!(gateways(&around), ["2001:db8::2", "2001:db8::3", "2001:db8::7"]);

    // Others too are depended on: a management network's, or `2000::/3` in place of a default route.
    assert!(after(&mut around, "ip route add 10.0.0.0/8 via 192.0.2.8"));
    assert!(after(&mut around, "ip -6 route add 2000::/3 via 2001:db8::8"));
    assert!(!after(&mut around, "ip -6 route add 2001:db8:7::/48 via 2001:db8::8"), "it is known");
    assert_eq!(gateways(&around), ["192.0.2.8", "2001:db8::2", "2001:db8::3", "2001:db8::7", "2001:db8::8"]);

    assert!(after(&mut around, "ip link set wire down"));
    assert_eq!(gateways(&around), Vec::<String>::new());
    assert!(after(&mut around, "ip link set wire name cable"));
    let link = around.links().find(|link| link.name == "cable").unwrap();
    assert_eq!((link.hardware, around.interface_name(link.index)), (1, Some("cable")));
    assert!(after(&mut around, "ip link delete cable"));
    assert_eq!(around.links().map(|link| link.name.as_str()).collect::<Vec<_>>(), ["lo"]);
    assert!(!has(&around, "192.0.2.1"));
}

#[test]
fn what_is_known_from_the_start_is_no_news() {
    // One in which nothing happens.
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    assert!(!settled(&mut Surroundings::open().unwrap()));
}

#[test]
fn lost_notifications_do_no_harm() {
    let _lab = Lab::new();
    let mut around = Surroundings::open().unwrap();
    // Far more than the socket's buffer holds.
    for number in 0..4 {
        let lines: String = (0..1000)
            .map(|n| format!("address add 10.{number}.{}.{}/32 dev wire\n", n / 250, n % 250))
            .collect();
        let path = std::env::temp_dir().join(format!("codec_{}_{number}", std::process::id()));
        std::fs::write(&path, lines).unwrap();
        run(&format!("ip -batch {}", path.display()));
        std::fs::remove_file(&path).unwrap();
    }
    assert!(settled(&mut around));
    assert_eq!(around.addresses().filter(|address| address.to_string().starts_with("10.")).count(), 4000);
    assert!(!around.drain().unwrap());
}

/// Runs a command and says whether the notification made a difference.
fn after(around: &mut Surroundings, command: &str) -> bool {
    run(command);
    poll(&mut [PollFd::new(around.as_fd(), PollFlags::POLLIN)], PollTimeout::from(5000_u16)).unwrap();
    settled(around)
}

/// Whether anything is different once all is read. Lists that were read a moment ago are read again in their time.
fn settled(around: &mut Surroundings) -> bool {
    let mut differs = around.drain().unwrap();
    while let Some(next) = around.next_try() {
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        differs |= around.drain().unwrap();
    }
    differs
}
