//! Every way to respond does what it says, for IPv4 and IPv6: it blocks, the system's own tool shows it, it is gone after
//! its time and after `unblock`, once is enough, and it is there again after a restart.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::os::unix::fs::PermissionsExt;
use std::process::Output;
use std::time::{Duration, Instant};

use portsentry::protocol::wording::PATH;
use portsentry::protocol::{Response, Responses};
use serde_json::Value;
use support::daemon::{Daemon, PATIENCE, Setup, alive, client};
use support::service::{Service, answers};
use support::{Lab, eventually};

/// One response at a time: what the tripwire adds is told in its own tests.
const PORTS: &str = "TCP_PORTS=\"111\"\nBLOCK_TCP=\"1\"\nBLOCK_TIME_FACTOR=\"1\"\nTRIPWIRE=\"0\"";

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn offend(lab: &Lab, daemon: &mut Daemon, v6: bool) -> Value {
    let scanner = lab.peer(0);
    let target = scanner.target(v6).to_string();
    let family = if v6 { "-6" } else { "-4" };
    scanner.run(&[
        "nmap",
        family,
        "-n",
        "-Pn",
        "--disable-arp-ping",
        "-sS",
        "--max-retries",
        "0",
        "-p",
        "111",
        &target,
    ]);
    daemon.wait_for_new("the block", |event| event["event_type"] == "block")
}

fn unblock(lab: &Lab, daemon: &mut Daemon, v6: bool) {
    let output = daemon.client(&["unblock", &lab.peer(0).address(v6).to_string()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    daemon.wait_for_new("the unblock", |event| event["event_type"] == "unblock");
}

/// Runs one response through its life. `shown` is how often the system's own tool shows the source.
fn life_of(response: &str, lines: impl Fn(&Setup) -> String, shown: impl Fn(&Lab, &Setup2, bool) -> usize) {
    life_started_by(Setup::start, response, lines, shown);
}

/// Likewise, with a daemon that is started so.
fn life_started_by(
    start: impl Fn(Setup) -> Daemon,
    response: &str,
    lines: impl Fn(&Setup) -> String,
    shown: impl Fn(&Lab, &Setup2, bool) -> usize,
) {
    for v6 in [false, true] {
        let lab = Lab::new(1);
        let setup = Setup::new(&lab, "");
        let view = Setup2 { folder: setup.path("") };
        let config = |seconds: &str| format!("{PORTS}\nBLOCK_TIME=\"{seconds}\"\n{}", lines(&setup));
        let first = config("10m");
        let short = config("5s");
        setup.rewrite(&first);
        let mut daemon = start(setup);

        let block = offend(&lab, &mut daemon, v6);
        assert_eq!(block["action"]["verdict"], "blocked", "{block}");
        assert_eq!(block["action"]["with"][0], response, "{block}");
        assert_eq!(shown(&lab, &view, v6), 1, "{response} blocks (IPv6: {v6})");

        let address = lab.peer(0).address(v6).to_string();
        let again = daemon.client(&["block", &address, "700"]);
        assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stderr));
        assert_eq!(shown(&lab, &view, v6), 1, "{response}: once is enough (IPv6: {v6})");

        let (status, setup) = daemon.stop();
        assert_eq!(status.code(), Some(0));
        assert_eq!(shown(&lab, &view, v6), 1, "{response} outlives the daemon (IPv6: {v6})");
        let mut daemon = start(setup);
        assert_eq!(shown(&lab, &view, v6), 1, "{response} is there after a restart (IPv6: {v6})");

        unblock(&lab, &mut daemon, v6);
        eventually("nothing is left after unblock", PATIENCE, || shown(&lab, &view, v6) == 0);

        let (_, setup) = daemon.stop();
        setup.rewrite(&short);
        let mut daemon = start(setup);
        let block = offend(&lab, &mut daemon, v6);
        assert_eq!(block["action"]["seconds"], 5, "{block}");
        assert_eq!(shown(&lab, &view, v6), 1);
        daemon.wait_for_new("the end", |event| event["action"]["verdict"] == "expired");
        eventually("nothing is left after its time", PATIENCE, || shown(&lab, &view, v6) == 0);
    }
}

/// The daemon's folder, for files that a response writes.
struct Setup2 {
    folder: std::path::PathBuf,
}

impl Setup2 {
    fn count(&self, file: &str, line: &str) -> usize {
        let text = std::fs::read_to_string(self.folder.join(file)).unwrap_or_default();
        text.lines().filter(|found| *found == line).count()
    }
}

#[test]
fn nftables_lives_its_life() {
    life_of(
        "nftables",
        |_| "BLOCK_WITH=\"nftables\"".into(),
        |lab, _, v6| usize::from(lab.is_blocked(lab.peer(0).address(v6))),
    );
}

#[test]
fn a_blackhole_route_lives_its_life() {
    life_of(
        "route",
        |_| "BLOCK_WITH=\"route\"".into(),
        |lab, _, v6| {
            let family = if v6 { "-6" } else { "-4" };
            let routes = text(&lab.on_target(&["ip", family, "route", "show", "type", "blackhole"]));
            routes.matches(&lab.peer(0).address(v6).to_string()).count()
        },
    );
}

fn blackholes(lab: &Lab, address: &str) -> usize {
    let [v4, v6] = ["-4", "-6"]
        .map(|family| text(&lab.on_target(&["ip", family, "route", "show", "type", "blackhole"])));
    [v4, v6].concat().matches(address).count()
}

#[test]
fn a_blackhole_route_that_somebody_deletes_is_put_back_and_one_that_was_lifted_is_not() {
    let lab = Lab::new(1);
    let mine = "203.0.113.9";
    assert!(lab.on_target(&["ip", "route", "add", "blackhole", mine]).status.success());
    let daemon = Setup::new(&lab, &format!("{PORTS}\nBLOCK_WITH=\"route\"")).start();
    for address in ["198.51.100.1", "198.51.100.9", "2001:db8::9"] {
        assert!(daemon.client(&["block", address]).status.success());
    }
    for address in ["198.51.100.9", "2001:db8::9"] {
        assert!(lab.on_target(&["ip", "route", "del", "blackhole", address]).status.success());
        eventually("the next look puts it back", PATIENCE, || blackholes(&lab, address) == 1);
        let lifted = blackholes(&lab, address);
        assert!(daemon.client(&["unblock", address]).status.success());
        assert_eq!((lifted, blackholes(&lab, address)), (1, 0));
        let restore = ["ip", "route", "add", "blackhole", address, "proto", "113"];
        assert!(lab.on_target(&restore).status.success());
        eventually("the next look takes it away", PATIENCE, || blackholes(&lab, address) == 0);
    }
    assert!(daemon.client(&["unblock", "all"]).status.success());
    assert_eq!((blackholes(&lab, "198.51.100.1"), blackholes(&lab, mine)), (0, 1), "nobody else's goes");
}

#[test]
fn a_route_of_the_hosts_own_costs_its_block_the_response_and_nobody_the_daemon() {
    let lab = Lab::new(1);
    let setup = Setup::new(&lab, &format!("{PORTS}\nBLOCK_WITH=\"nftables,route\""));
    let daemon = setup.start();
    for address in ["198.51.100.9", "198.51.100.10"] {
        assert!(daemon.client(&["block", address, "3600"]).status.success());
    }
    let (_, setup) = daemon.stop();
    assert!(lab.on_target(&["ip", "route", "del", "blackhole", "198.51.100.9"]).status.success());
    let own = ["ip", "route", "add", "198.51.100.9/32", "via", &lab.peer(0).v4.to_string()];
    assert!(lab.on_target(&own).status.success());
    let daemon = setup.start();
    let with = |daemon: &Daemon, address: &str| {
        let ledger = std::fs::read_to_string(daemon.path("state/ledger")).unwrap();
        let mut lines = ledger.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let last = lines.rfind(|it| it["target"] == address).unwrap();
        Responses::try_from(u8::try_from(last["with"].as_u64().unwrap_or(0)).unwrap()).unwrap()
    };
    let (nftables, route) = (Responses::from(Response::Nftables), Responses::from(Response::Route));
    assert_eq!(with(&daemon, "198.51.100.9/32"), nftables);
    assert_eq!(with(&daemon, "198.51.100.10/32"), nftables.and(route));
    assert!(lab.is_blocked("198.51.100.9".parse::<std::net::IpAddr>().unwrap()));

    // Where routes are all there is, nothing blocks it.
    let (_, setup) = daemon.stop();
    setup.rewrite(&format!("{PORTS}\nBLOCK_WITH=\"route\""));
    let mut daemon = setup.start();
    let list = text(&daemon.client(&["list"]));
    assert!(!list.contains("198.51.100.9") && list.contains("198.51.100.10"), "{list}");
    let refused = daemon.client(&["block", "198.51.100.9"]);
    let told = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && told.contains("File exists"), "{refused:?}");
    assert!(!text(&daemon.client(&["list"])).contains("198.51.100.9"));
    let told = daemon.wait_for("what became of it", |event| event["action"]["verdict"] == "failed");
    assert!(told["action"]["error"].as_str().unwrap().contains("File exists"), "{told}");
    let routes = text(&lab.on_target(&["ip", "route"]));
    assert!(routes.contains("198.51.100.9 via"), "{routes}");
}

#[test]
fn what_an_earlier_configuration_left_in_the_kernel_goes_with_it() {
    let lab = Lab::new(1);
    let with = |response: &str| format!("{PORTS}\nBLOCK_WITH=\"{response}\"");
    let daemon = Setup::new(&lab, &with("nftables")).start();
    for address in ["198.51.100.9", "2001:db8::9"] {
        assert!(daemon.client(&["block", address]).status.success());
    }
    let (_, setup) = daemon.stop();
    assert!(lab.has_nft_table());
    setup.rewrite(&with("route"));
    let daemon = setup.start();
    assert!(!lab.has_nft_table());
    assert_eq!(["198.51.100.9", "2001:db8::9"].map(|it| blackholes(&lab, it)), [1, 1]);

    let (_, setup) = daemon.stop();
    setup.rewrite(&with("nftables"));
    let daemon = setup.start();
    assert!(lab.is_blocked("198.51.100.9".parse::<std::net::IpAddr>().unwrap()));
    assert_eq!(["198.51.100.9", "2001:db8::9"].map(|it| blackholes(&lab, it)), [0, 0]);
    drop(daemon);
}

/// KILL_RUN_CMD is no response that shuts anybody out: where the one that did is gone, the next must come in its place.
#[test]
fn a_block_that_a_command_was_told_of_too_is_put_in_place_by_whatever_blocks_from_now_on() {
    let lab = Lab::new(1);
    for before in ["nftables", "hosts_deny"] {
        for (after, told) in
            [("iptables", true), ("hosts_deny", false), ("command", true), ("nftables", false)]
        {
            let setup = Setup::new(&lab, "");
            let [deny, rules] = ["hosts.deny", "rules"].map(|name| setup.path(name));
            let lines = |with: &str, told: bool| {
                let tell = if told { "KILL_RUN_CMD=\"true\"\n" } else { "" };
                let way = match with {
                    "command" => format!("KILL_ROUTE=\"echo $TARGET$ >> {}\"", rules.display()),
                    _ => format!("BLOCK_WITH=\"{with}\"\nHOSTS_DENY_FILE=\"{}\"", deny.display()),
                };
                format!("{PORTS}\n{tell}{way}")
            };
            setup.rewrite(&lines(before, true));
            let daemon = setup.start();
            assert!(daemon.client(&["block", "198.51.100.9"]).status.success());
            let (_, setup) = daemon.stop();
            setup.rewrite(&lines(after, told));
            let mut daemon = setup.start();
            let has = |path: &std::path::Path| {
                std::fs::read_to_string(path).unwrap_or_default().contains("198.51.100.9")
            };
            eventually(&format!("{after} blocks what {before} did"), PATIENCE, || match after {
                "iptables" => {
                    let sets = text(&lab.on_target(&["ipset", "list", "portsentry4"]));
                    (sets + &text(&lab.on_target(&["iptables", "-S"]))).contains("198.51.100.9")
                }
                "hosts_deny" => has(&deny),
                "command" => has(&rules),
                _ => lab.is_blocked("198.51.100.9".parse::<std::net::IpAddr>().unwrap()),
            });
            let start = daemon.wait_for("the start", |event| event["event_type"] == "start");
            assert_eq!(start["start"]["restored"], 1, "{start}");
            assert!(text(&daemon.client(&["list"])).contains("198.51.100.9"));
            assert!(daemon.client(&["unblock", "198.51.100.9"]).status.success());
        }
    }
}

#[test]
fn what_an_earlier_configuration_left_where_no_right_reaches_is_told_and_not_claimed() {
    let lab = Lab::new(1);
    let setup = Setup::new(&lab, "");
    let deny = setup.path("hosts.deny");
    let lines = format!("{PORTS}\nHOSTS_DENY_FILE=\"{}\"", deny.display());
    setup.rewrite(&format!("{lines}\nBLOCK_WITH=\"iptables,hosts_deny\""));
    let daemon = setup.start();
    assert!(daemon.client(&["block", "198.51.100.9"]).status.success());
    let (_, setup) = daemon.stop();
    setup.rewrite(&format!("{lines}\nBLOCK_WITH=\"nftables\""));
    let mut daemon = setup.start();
    for response in ["iptables", "hosts_deny"] {
        let stays = format!("1 blocks stay in {response}");
        daemon.wait_for("what stays", |event| {
            event["error"].as_str().is_some_and(|error| error.contains(&stays))
        });
    }
    assert!(daemon.seen.iter().all(|event| event["event_type"] != "unblock"), "it is in force still");
    assert!(daemon.client(&["unblock", "198.51.100.9"]).status.success());
    assert!(std::fs::read_to_string(&deny).unwrap().contains("198.51.100.9"));
}

/// One is still in force, and one is over when the daemon comes back.
#[test]
fn lines_of_hosts_deny_in_another_form_are_told_of_and_no_end_of_a_block_claims_them() {
    let lab = Lab::new(1);
    let setup = Setup::new(&lab, "");
    let deny = setup.path("hosts.deny");
    let with = |line: &str, never: &str| {
        format!(
            "{PORTS}\nHOSTS_DENY_FILE=\"{}\"\nKILL_HOSTS_DENY=\"{line}\"\nNEVER_BLOCK=\"{never}\"",
            deny.display()
        )
    };
    let stays = |event: &Value| {
        event["error"].as_str().is_some_and(|error| error.contains("had no line in the form of now"))
    };
    setup.rewrite(&with("ALL: $TARGET$", ""));
    let daemon = setup.start();
    for address in ["198.51.100.9", "198.51.100.10"] {
        assert!(daemon.client(&["block", address]).status.success());
    }
    let (_, setup) = daemon.stop();
    setup.rewrite(&with("sshd: $TARGET$", "198.51.100.10"));
    let mut daemon = setup.start();
    let told = daemon.wait_for("what stays", stays);
    assert!(told["event_type"] == "error" && told["action"].is_null() && told["src_ip"].is_null(), "{told}");
    assert!(told["error"].as_str().unwrap().contains(": 2 blocks "), "{told}");
    assert!(daemon.seen.iter().all(|event| event["event_type"] != "unblock"), "one is in force still");
    let lines = || std::fs::read_to_string(&deny).unwrap();
    assert_eq!(lines(), "ALL: 198.51.100.9\nALL: 198.51.100.10\nsshd: 198.51.100.9\n");
    let (_, setup) = daemon.stop();
    let mut daemon = setup.start();
    assert!(daemon.client(&["unblock", "198.51.100.9"]).status.success());
    daemon.catch_up();
    assert_eq!(lines(), "ALL: 198.51.100.9\nALL: 198.51.100.10\n");
    assert!(!daemon.seen.iter().any(stays), "once");
}

/// The ledger of a configuration with `nftables,command`: a block that is over, one that ends in `seconds`, and one that
/// does not.
fn blocks_by_a_command(setup: &Setup, seconds: u64) {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() * 1000;
    let line = |(host, until): (u8, u64)| {
        let since = now - 3000;
        format!(
            "{{\"target\":\"198.51.100.{host}/32\",\"since\":{since},\"until\":{until},\"offence\":1,\"with\":17}}\n"
        )
    };
    let blocks = [(9, now - 1000), (10, now + 1000 * seconds), (11, now + 3_600_000)];
    std::fs::create_dir(setup.path("state")).unwrap();
    std::fs::write(setup.path("state/ledger"), blocks.map(line).concat()).unwrap();
}

/// UNBLOCK_CMD alone is given no right to run, and the end of such a block must not try: beside KILL_RUN_CMD it is.
#[test]
fn what_a_command_did_that_is_set_no_longer_is_undone_or_told_and_not_claimed() {
    for (left, undone) in [("", false), ("UNBLOCK_CMD", false), ("KILL_RUN_CMD=\"true\"\nUNBLOCK_CMD", true)]
    {
        let lab = Lab::new(1);
        let setup = Setup::new(&lab, "");
        let rules = setup.path("rules");
        let lines =
            if left.is_empty() { "" } else { &format!("{left}=\"sed -i /$TARGET$/d {}\"", rules.display()) };
        setup.rewrite(&format!("{PORTS}\n{lines}"));
        blocks_by_a_command(&setup, 5);
        let standing = "198.51.100.9\n198.51.100.10\n198.51.100.11\n";
        std::fs::write(&rules, standing).unwrap();
        let mut daemon = setup.start();
        daemon.wait_for("the end of the second", |event| {
            event["action"]["verdict"] == "expired" && event["src_ip"] == "198.51.100.10"
        });
        assert!(daemon.client(&["unblock", "198.51.100.11"]).status.success(), "{left}");
        let text = || std::fs::read_to_string(&rules).unwrap();
        if undone {
            eventually("everything is undone", PATIENCE, || text().is_empty());
        }
        daemon.catch_up();
        let of_a_block = |event: &Value| event["action"]["error"].is_string();
        assert!(!daemon.seen.iter().any(of_a_block), "{left}: {:#?}", daemon.seen);
        let told = daemon.seen.iter().filter_map(|event| event["error"].as_str()).collect::<Vec<_>>();
        let stays = "command: Operation not permitted (os error 1): what KILL_ROUTE did for 3 blocks stays: take it back by hand";
        assert_eq!(told, if undone { vec![] } else { vec![stays] }, "{left}");
        assert_eq!(text(), if undone { "" } else { standing }, "{left}");
        assert!(daemon.client(&["list"]).status.success(), "it lives");
    }
}

#[test]
fn iptables_lives_its_life() {
    life_of(
        "iptables",
        |_| "BLOCK_WITH=\"iptables\"".into(),
        |lab, _, v6| {
            let (program, set) = if v6 { ("ip6tables", "portsentry6") } else { ("iptables", "portsentry4") };
            let rules = text(&lab.on_target(&[program, "-w", "-S"]));
            assert_eq!(rules.matches("-A INPUT -j PORTSENTRY").count(), 1, "{rules}");
            let address = lab.peer(0).address(v6).to_string();
            match rules.contains(set) {
                true => text(&lab.on_target(&["ipset", "list", set])).matches(&format!("{address} ")).count(),
                false => rules.matches(&format!("-s {address}/")).count(),
            }
        },
    );
}

#[test]
fn the_sets_of_ipset_have_room_for_any_max_blocks_also_where_an_earlier_one_was_lower() {
    let lab = Lab::new(1);
    let mut setup = Setup::new(&lab, "");
    for most in [1_000, 1_048_576] {
        setup.rewrite(&format!("{PORTS}\nBLOCK_WITH=\"iptables\"\nMAX_BLOCKS=\"{most}\""));
        let daemon = setup.start();
        let rules = text(&lab.on_target(&["iptables", "-w", "-S", "PORTSENTRY"]));
        assert!(rules.contains("--match-set portsentry4"), "{rules}");
        let set = text(&lab.on_target(&["ipset", "list", "-t", "portsentry4"]));
        let mut words = set.split_whitespace().skip_while(|word| *word != "maxelem");
        assert!(words.nth(1).unwrap().parse::<u32>().unwrap() >= most, "{set}");
        setup = daemon.stop().1;
    }
}

/// Starts a daemon that finds `instead` where the machine has ipset.
fn start_with_ipset_being(instead: &str, setup: Setup) -> Daemon {
    // In a mount namespace of its own: nobody else sees it.
    let script = format!(
        "PATH={PATH}; for ipset in $(which -a ipset); do mount --bind {instead} $ipset || exit; done; exec \"$@\""
    );
    setup.start_through("unshare", &["--mount", "sh", "-c", &script, "sh"].map(str::to_owned))
}

/// A device is no program, so this ipset is not there.
fn start_without_ipset(setup: Setup) -> Daemon {
    start_with_ipset_being("/dev/null", setup)
}

/// Like an ipset whose kernel has no sets.
fn start_with_failing_ipset(setup: Setup) -> Daemon {
    start_with_ipset_being("/bin/false", setup)
}

/// How often a rule of its own drops the source.
fn plain_rules(lab: &Lab, v6: bool) -> usize {
    let (program, bits) = if v6 { ("ip6tables", 128) } else { ("iptables", 32) };
    let rules = text(&lab.on_target(&[program, "-w", "-S"]));
    assert_eq!(rules.matches("-A INPUT -j PORTSENTRY").count(), 1, "{rules}");
    assert!(!rules.contains("match-set"), "{rules}");
    let address = lab.peer(0).address(v6);
    rules.lines().filter(|rule| *rule == format!("-A PORTSENTRY -s {address}/{bits} -j DROP")).count()
}

#[test]
fn iptables_without_ipset_lives_its_life() {
    let lines = |_: &Setup| "BLOCK_WITH=\"iptables\"".into();
    life_started_by(start_without_ipset, "iptables", lines, |lab, _, v6| plain_rules(lab, v6));
}

#[test]
fn iptables_with_an_ipset_that_fails_lives_its_life() {
    let lines = |_: &Setup| "BLOCK_WITH=\"iptables\"".into();
    life_started_by(start_with_failing_ipset, "iptables", lines, |lab, _, v6| plain_rules(lab, v6));
}

/// After each of `changes`, old blocks are put back, and new ones are told of only where they hold.
fn holds_after(with: &str, start: fn(Setup) -> Daemon, changes: &[&str]) {
    let lab = Lab::new(1);
    let _service = Service::start(&lab.target(), 80);
    let scanner = lab.peer(0);
    let answered = |v6| answers(&scanner.netns, scanner.target(v6), 80, Duration::from_millis(300));
    let daemon = start(Setup::new(&lab, &format!("{PORTS}\nBLOCK_WITH=\"{with}\"")));
    let client = |arguments: &[&str]| {
        let output = daemon.client(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    for (number, change) in changes.iter().enumerate() {
        for v6 in [false, true] {
            let (program, set) = if v6 { ("ip6tables", "portsentry6") } else { ("iptables", "portsentry4") };
            let script = change.replace("IPTABLES", program).replace("SET", set);
            let address = scanner.address(v6).to_string();
            let change = || {
                let made = lab.on_target(&["sh", "-c", &script]);
                assert!(made.status.success(), "{script}: {}", String::from_utf8_lossy(&made.stderr));
            };
            daemon.unseen_by_the_helper(|| {
                change();
                assert!(answered(v6), "{script}");
            });
            client(&["block", &address]);
            assert!(!answered(v6), "a block that is told of holds after {script}");
            if number == 0 {
                daemon.unseen_by_the_helper(|| {
                    change();
                    assert!(answered(v6), "{script}");
                });
                eventually("the next look puts it back", PATIENCE, || !answered(v6));
            }
            client(&["unblock", &address]);
        }
    }
}

#[test]
fn nftables_blocks_nobody_in_word_alone_whatever_somebody_flushes() {
    holds_after(
        "nftables",
        Setup::start,
        &[
            "nft flush chain inet portsentry probe",
            "nft flush table inet portsentry",
            "nft delete table inet portsentry",
            "nft flush ruleset",
        ],
    );
}

/// As one does that has nftables.service load its file, which begins with `flush ruleset`.
#[test]
fn a_command_that_loads_the_firewall_anew_leaves_no_block_in_word_alone() {
    let lab = Lab::new(1);
    let _service = Service::start(&lab.target(), 80);
    let scanner = lab.peer(0);
    for key in ["KILL_ROUTE", "KILL_RUN_CMD"] {
        let with = if key == "KILL_ROUTE" { "nftables,command" } else { "nftables" };
        let lines = format!("{PORTS}\nBLOCK_WITH=\"{with}\"\n{key}=\"nft flush ruleset; : $TARGET$\"");
        let daemon = Setup::new(&lab, &lines).start();
        for v6 in [false, true] {
            assert!(daemon.client(&["block", &scanner.address(v6).to_string()]).status.success());
            let (address, limit) = (scanner.target(v6), Duration::from_millis(300));
            assert!(!answers(&scanner.netns, address, 80, limit), "{key}: a block that is told of holds");
        }
        let told = text(&daemon.client(&["list"]));
        assert_eq!(told.lines().count(), 3, "{key}: {told}");
    }
}

#[test]
fn iptables_blocks_nobody_in_word_alone_whatever_somebody_flushes() {
    holds_after(
        "iptables",
        Setup::start,
        &[
            "IPTABLES -F",
            "IPTABLES -D INPUT -j PORTSENTRY",
            "IPTABLES -F && IPTABLES -X",
            "IPTABLES -F PORTSENTRY",
            "ipset flush SET",
        ],
    );
}

#[test]
fn iptables_without_ipset_blocks_nobody_in_word_alone_whatever_somebody_flushes() {
    holds_after(
        "iptables",
        start_without_ipset,
        &["IPTABLES -F", "IPTABLES -D INPUT -j PORTSENTRY", "IPTABLES -F && IPTABLES -X"],
    );
}

/// Starts a daemon without ipset whose iptables, of both families, goes through `script` first while it is locked.
fn start_with_iptables_going_through(script: &str, setup: Setup) -> (Daemon, impl Fn(bool)) {
    let no_ipset = "for ipset in $(which -a ipset); do mount --bind /dev/null $ipset || exit; done;";
    start_with_programs_going_through(&["iptables", "ip6tables"], script, no_ipset, setup)
}

/// Likewise, of these programs, after `mounts`. The script goes by name and arguments.
fn start_with_programs_going_through(
    programs: &[&str],
    script: &str,
    mounts: &str,
    setup: Setup,
) -> (Daemon, impl Fn(bool)) {
    let folder = setup.path("programs");
    std::fs::create_dir(&folder).unwrap();
    for program in programs {
        let text = format!(
            "#!/bin/sh\n[ -e /usr/local/sbin/locked ] && case \"$0 $*\" in {script} esac\nexec /usr/sbin/{program} \"$@\"\n"
        );
        let file = folder.join(program);
        std::fs::write(&file, text).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let mounts =
        format!("PATH={PATH}; {mounts} mount --bind {} /usr/local/sbin && exec \"$@\"", folder.display());
    let daemon = setup.start_through("unshare", &["--mount", "sh", "-c", &mounts, "sh"].map(str::to_owned));
    let lock = move |locked| match locked {
        true => std::fs::write(folder.join("locked"), "").unwrap(),
        false => std::fs::remove_file(folder.join("locked")).unwrap(),
    };
    (daemon, lock)
}

/// Whether a program in the lab's target was started with these words.
fn runs(lab: &Lab, words: &str) -> bool {
    let listed = text(&lab.on_target(&["ip", "netns", "pids", &lab.target()]));
    let started_as = |pid: &str| std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    listed.lines().any(|pid| started_as(pid).replace('\0', " ").contains(words))
}

#[test]
fn a_rule_that_is_being_added_while_everything_is_put_in_place_anew_is_there_once_and_goes_with_its_block() {
    for with in ["iptables", "nftables,iptables"] {
        let lab = Lab::new(2);
        let setup = Setup::new(&lab, &format!("{PORTS}\nBLOCK_WITH=\"{with}\""));
        let (conf, target) = (setup.path("portsentry.conf"), lab.target());
        let waits =
            "*'-A PORTSENTRY -s 10.77.0.2'*) while [ -e /usr/local/sbin/locked ]; do sleep 0.05; done;;";
        let (_daemon, lock) = start_with_iptables_going_through(waits, setup);
        lock(true);
        let client = |arguments: &[&str]| {
            let output = client(&conf, &target, arguments);
            assert!(
                output.status.success(),
                "{with}: {arguments:?}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        };
        std::thread::scope(|threads| {
            let slow = threads.spawn(|| client(&["block", "10.77.0.2"]));
            eventually("its rule is being added", PATIENCE, || runs(&lab, "-A PORTSENTRY -s 10.77.0.2"));
            assert!(lab.on_target(&["iptables", "-D", "INPUT", "-j", "PORTSENTRY"]).status.success());
            client(&["block", "10.77.1.2"]);
            lock(false);
            slow.join().unwrap();
        });
        assert_eq!(plain_rules(&lab, false), 1, "{with}");
        client(&["unblock", "10.77.0.2"]);
        assert_eq!(plain_rules(&lab, false), 0, "{with}");
    }
}

#[test]
fn a_rule_that_cannot_be_looked_at_is_a_block_on_record_until_it_is_lifted() {
    let lab = Lab::new(1);
    let _service = Service::start(&lab.target(), 80);
    let scanner = lab.peer(0);
    let answered = |v6, limit| answers(&scanner.netns, scanner.target(v6), 80, limit);
    let setup = Setup::new(&lab, &format!("{PORTS}\nBLOCK_WITH=\"iptables\""));
    let (daemon, lock) = start_with_iptables_going_through("*' -C '*) exit 4;;", setup);
    for v6 in [false, true] {
        lock(true);
        let address = scanner.address(v6).to_string();
        let output = daemon.client(&["block", &address]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(!answered(v6, Duration::from_millis(300)));
        assert!(text(&daemon.client(&["list"])).contains(&address));
        lock(false);
        assert!(daemon.client(&["unblock", &address]).status.success());
        assert!(answered(v6, PATIENCE), "nothing is left behind (IPv6: {v6})");
    }
}

#[test]
fn a_rule_whose_deletion_fails_when_its_block_is_over_goes_with_a_look() {
    let lab = Lab::new(1);
    let setup = Setup::new(&lab, &format!("{PORTS}\nBLOCK_WITH=\"iptables\""));
    let (mut daemon, lock) = start_with_iptables_going_through("*' -D '*) exit 4;;", setup);
    for v6 in [false, true] {
        let address = lab.peer(0).address(v6).to_string();
        lock(true);
        assert!(daemon.client(&["block", &address, "2"]).status.success());
        let told = daemon.wait_for_new("what stays", |event| event["action"]["verdict"] == "failed");
        assert_eq!(told["action"]["error"], "iptables: exit status 4", "{told}");
        assert!(plain_rules(&lab, v6) == 1 && !text(&daemon.client(&["list"])).contains(&address));
        lock(false);
        eventually("nothing is left of it", PATIENCE, || plain_rules(&lab, v6) == 0);
    }
}

#[test]
fn a_rule_that_never_came_to_be_is_no_failure_when_it_is_taken_back() {
    let lab = Lab::new(1);
    let setup = Setup::new(&lab, &format!("{PORTS}\nBLOCK_WITH=\"iptables\""));
    let (conf, target) = (setup.path("portsentry.conf"), lab.target());
    let waits = "*' -A '*) while [ -e /usr/local/sbin/locked ]; do sleep 0.05; done;;";
    let (mut daemon, lock) = start_with_iptables_going_through(waits, setup);
    lock(true);
    let address = lab.peer(0).v4.to_string();
    std::thread::scope(|threads| {
        let block = threads.spawn(|| client(&conf, &target, &["block", &address]));
        eventually("its rule is being added", PATIENCE, || runs(&lab, "-A PORTSENTRY"));
        daemon.client(&["unblock", &address]);
        assert!(!block.join().unwrap().status.success(), "it was lifted before it stood");
    });
    lock(false);
    daemon.catch_up();
    let failed = daemon.seen.iter().find(|event| event["action"]["verdict"] == "failed");
    assert!(failed.is_none() && plain_rules(&lab, false) == 0, "{failed:?}");
}

#[test]
fn unblock_all_empties_iptables_as_a_whole_and_says_so_where_it_cannot() {
    let lab = Lab::new(1);
    let setup = Setup::new(&lab, &format!("{PORTS}\nBLOCK_WITH=\"iptables\""));
    let fails = "*' -D '*) exit 4;; *' -C INPUT '*|*' -I '*) [ -e /usr/local/sbin/held ] && exit 4;;";
    let (daemon, lock) = start_with_iptables_going_through(fails, setup);
    let addresses = [false, true].map(|v6| lab.peer(0).address(v6).to_string());
    let block = || addresses.iter().all(|address| daemon.client(&["block", address]).status.success());
    let rules = || [false, true].map(|v6| plain_rules(&lab, v6));
    assert!(block() && rules() == [1, 1]);
    lock(true);
    let held = daemon.path("programs/held");
    std::fs::write(&held, "").unwrap();
    let output = daemon.client(&["unblock", "all"]);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("iptables: ") && told.contains("could not be taken back"), "{output:?}");
    std::fs::remove_file(held).unwrap();
    eventually("a look takes away what stayed", PATIENCE, || rules() == [0, 0]);
    assert!(block() && rules() == [1, 1]);
    let output = daemon.client(&["unblock", "all"]);
    assert!(output.status.success() && rules() == [0, 0], "{output:?}");
    // Where there is nothing to take back nothing is put in place.
    std::fs::write(daemon.path("programs/held"), "").unwrap();
    assert!(daemon.client(&["unblock", "all"]).status.success());
}

/// What `save` wrote into a file while somebody was blocked does not outlast him where `restore` brings it back, whether or
/// not others are blocked; and an unblock lifts it at once.
fn nobody_is_brought_back(
    start: fn(Setup) -> Daemon,
    [save, restore]: [&str; 2],
    shown: impl Fn(&Lab, bool) -> usize,
) {
    for v6 in [false, true] {
        let lab = Lab::new(1);
        let daemon = start(Setup::new(&lab, &format!("{PORTS}\nBLOCK_WITH=\"iptables\"")));
        let address = lab.peer(0).address(v6).to_string();
        let lower = if v6 { "2001:db8::1" } else { "10.1.1.1" };
        let client = |arguments: &[&str]| {
            let output = daemon.client(arguments);
            assert!(output.status.success(), "{arguments:?}: {output:?}");
        };
        let (family, family_of_sets) =
            if v6 { ("ip6tables", "portsentry6") } else { ("iptables", "portsentry4") };
        let run = |script: &str| {
            let script = script.replace("IPTABLES", family).replace("SET", family_of_sets);
            let script = script.replace("FILE", &daemon.path("saved").display().to_string());
            let made = lab.on_target(&["sh", "-c", &script]);
            assert!(made.status.success(), "{script}: {made:?}");
        };
        client(&["block", lower]);
        client(&["block", &address]);
        run(save);
        client(&["unblock", &address]);
        for others in [true, false] {
            assert_eq!(shown(&lab, v6), 0, "(others are blocked: {others}, IPv6: {v6})");
            run(restore);
            assert_eq!(shown(&lab, v6), 1);
            eventually("a look takes him out", PATIENCE, || shown(&lab, v6) == 0);
            assert_eq!(text(&daemon.client(&["list"])).contains(lower), others);
            if others {
                client(&["unblock", lower]);
            }
        }
        run(restore);
        // He is not blocked, so that is what it says.
        daemon.client(&["unblock", &address]);
        assert_eq!(shown(&lab, v6), 0, "IPv6: {v6}");
    }
}

#[test]
fn a_saved_chain_that_somebody_restores_brings_back_no_lifted_block() {
    let saved = ["IPTABLES-save > FILE", "IPTABLES-restore < FILE"];
    nobody_is_brought_back(start_without_ipset, saved, plain_rules);
}

#[test]
fn a_saved_set_that_somebody_restores_brings_back_no_lifted_block() {
    let saved = ["ipset save SET > FILE", "ipset -exist restore < FILE"];
    nobody_is_brought_back(Setup::start, saved, |lab, v6| {
        let set = if v6 { "portsentry6" } else { "portsentry4" };
        let address = lab.peer(0).address(v6);
        text(&lab.on_target(&["ipset", "list", set])).matches(&format!("{address} ")).count()
    });
}

/// Starts a daemon whose iptables has ipset, where these restore nothing while they are locked.
fn start_with_sets_and_no_restoring_by(programs: &[&str], setup: Setup) -> (Daemon, impl Fn(bool)) {
    start_with_programs_going_through(programs, "*restore*) exit 4;;", "", setup)
}

#[test]
fn who_is_let_in_leaves_the_set_though_nothing_can_be_put_in_place_anew() {
    let lab = Lab::new(1);
    let _service = Service::start(&lab.target(), 80);
    let scanner = lab.peer(0);
    let answered = |limit| answers(&scanner.netns, scanner.target(false), 80, limit);
    let setup = Setup::new(&lab, &format!("{PORTS}\nBLOCK_WITH=\"iptables\""));
    let programs = ["ipset", "iptables-restore", "ip6tables-restore"];
    let (daemon, lock) = start_with_sets_and_no_restoring_by(&programs, setup);
    let address = scanner.v4.to_string();
    assert!(daemon.client(&["block", &address]).status.success());
    lock(true);
    assert!(lab.on_target(&["ip6tables", "-D", "INPUT", "-j", "PORTSENTRY"]).status.success());
    let refused = daemon.client(&["block", "2001:db8::9"]);
    assert!(!refused.status.success(), "{refused:?}");
    assert!(!answered(Duration::from_millis(300)), "the other family's block holds");
    let lifted = daemon.client(&["unblock", &address]);
    assert!(lifted.status.success(), "{lifted:?}");
    assert!(answered(PATIENCE), "who is told to be let in is");
}

#[test]
fn who_cannot_be_shut_out_is_in_no_file_and_has_no_offence_the_more() {
    let lab = Lab::new(1);
    let setup = Setup::new(&lab, "");
    let file = setup.path("blocked");
    setup.rewrite(&format!("{PORTS}\nBLOCK_WITH=\"iptables\"\nBLOCKED_FILE=\"{}\"", file.display()));
    let (mut daemon, lock) = start_with_sets_and_no_restoring_by(&["ipset"], setup);
    let says = || std::fs::read(&file).unwrap();
    assert!(daemon.client(&["block", "198.51.100.1"]).status.success());
    assert_eq!(says()[2..], [198, 51, 100, 1]);
    lock(true);
    assert!(lab.on_target(&["sh", "-c", "iptables -F && iptables -X"]).status.success());
    for _ in 0..2 {
        assert!(!daemon.client(&["block", "198.51.100.9"]).status.success());
    }
    assert_eq!(says()[2..], [198, 51, 100, 1], "nobody else is blocked");
    assert!(!daemon.client(&["block", "198.51.100.1", "700"]).status.success());
    assert_eq!(says(), b"", "nor is who cannot be blocked anew");
    daemon.wait_for("the end of the block that could not be renewed", |event| {
        event["event_type"] == "unblock" && event["action"]["target"] == "198.51.100.1/32"
    });
    lock(false);
    let rules = || text(&lab.on_target(&["iptables", "-w", "-S"]));
    eventually("the next look puts it back", PATIENCE, || rules().contains("--match-set portsentry4 src"));
    assert!(daemon.client(&["block", "198.51.100.9"]).status.success());
    let told = daemon.wait_for("the block", |event| {
        event["action"]["verdict"] == "blocked" && event["action"]["target"] == "198.51.100.9/32"
    });
    assert_eq!(told["action"]["offence"], 1, "{told}");
    assert_eq!(says()[2..], [198, 51, 100, 9]);
}

#[test]
fn who_could_be_shut_out_in_part_alone_is_let_in_by_the_next_look() {
    let lab = Lab::new(1);
    let setup = Setup::new(&lab, &format!("{PORTS}\nBLOCK_WITH=\"iptables\""));
    let restoring = ["iptables-restore", "ip6tables-restore"];
    let (daemon, lock) = start_with_sets_and_no_restoring_by(&restoring, setup);
    let jump = |how| lab.on_target(&["iptables", "-w", how, "INPUT", "-j", "PORTSENTRY"]).status.success();
    let set = || text(&lab.on_target(&["ipset", "save", "portsentry4"]));
    assert!(daemon.client(&["block", "198.51.100.1"]).status.success());
    lock(true);
    assert!(jump("-D"));
    assert!(!daemon.client(&["block", "198.51.100.9"]).status.success());
    assert!(jump("-I"));
    lock(false);
    eventually("it is in no set", PATIENCE, || !set().contains("198.51.100.9"));
    assert!(set().contains("198.51.100.1"));
}

#[test]
fn an_ipset_that_fails_for_a_while_is_used_again_after_it() {
    let lab = Lab::new(1);
    let setup = Setup::new(&lab, &format!("{PORTS}\nBLOCK_WITH=\"iptables\""));
    let (daemon, lock) = start_with_sets_and_no_restoring_by(&["ipset"], setup);
    assert!(daemon.client(&["block", "198.51.100.1"]).status.success());
    lock(true);
    let flush = ["sh", "-c", "iptables -F && iptables -X"];
    assert!(lab.on_target(&flush).status.success());
    let refused = daemon.client(&["block", "198.51.100.9"]);
    let told = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && told.contains("iptables"), "{refused:?}");
    lock(false);
    let rules = || text(&lab.on_target(&["iptables", "-w", "-S"]));
    eventually("the next look puts it back", PATIENCE, || rules().contains("--match-set portsentry4 src"));
    assert!(daemon.client(&["block", "198.51.100.9"]).status.success());
    let held = text(&lab.on_target(&["ipset", "list", "portsentry4"]));
    assert!(["198.51.100.1 ", "198.51.100.9 "].iter().all(|it| held.contains(it)), "{held}");
    assert!(!rules().contains("198.51.100."), "{}", rules());
}

#[test]
fn what_cannot_be_installed_again_is_not_said_to_be_and_is_once_it_is() {
    let lab = Lab::new(1);
    let setup = Setup::new(&lab, &format!("{PORTS}\nBLOCK_WITH=\"iptables\""));
    let log = setup.path("log");
    let to_log = format!("exec 2> {};", log.display());
    let said = || std::fs::read_to_string(&log).unwrap();
    let (daemon, lock) =
        start_with_programs_going_through(&["iptables"], "*' -I '*) exit 4;;", &to_log, setup);
    assert!(daemon.client(&["block", "198.51.100.9"]).status.success());
    lock(true);
    assert!(lab.on_target(&["iptables", "-D", "INPUT", "-j", "PORTSENTRY"]).status.success());
    eventually("the look is refused", PATIENCE, || said().contains("iptables cannot be set up"));
    assert!(!said().contains("installed again"), "{}", said());
    lock(false);
    eventually("the next look puts it back", PATIENCE, || said().contains("they are installed again"));
}

#[test]
fn a_jump_that_could_not_be_looked_for_is_not_put_in_twice() {
    let lab = Lab::new(1);
    let setup = Setup::new(&lab, &format!("{PORTS}\nBLOCK_WITH=\"iptables\""));
    let log = setup.path("log");
    let to_log = format!("exec 2> {};", log.display());
    let said = || std::fs::read_to_string(&log).unwrap();
    let locked = "*' -w 5 -C INPUT'*) exit 4;;";
    let (daemon, lock) = start_with_programs_going_through(&["iptables"], locked, &to_log, setup);
    assert!(daemon.client(&["block", "198.51.100.9"]).status.success());
    lock(true);
    assert!(lab.on_target(&["iptables", "-F", "PORTSENTRY"]).status.success());
    eventually("the look is refused", PATIENCE, || said().contains("iptables cannot be set up"));
    let rules = text(&lab.on_target(&["iptables", "-S", "INPUT"]));
    assert_eq!(rules.matches("-j PORTSENTRY").count(), 1, "{rules}");
}

#[test]
fn an_iptables_that_lists_its_rules_otherwise_is_said_to_and_asked_for_single_ones_alone() {
    let lab = Lab::new(1);
    let setup = Setup::new(&lab, &format!("{PORTS}\nBLOCK_WITH=\"iptables\""));
    let log = setup.path("log");
    let mounts = format!(
        "exec 2> {}; for ipset in $(which -a ipset); do mount --bind /dev/null $ipset || exit; done;",
        log.display()
    );
    let said = |what: &str| std::fs::read_to_string(&log).unwrap().matches(what).count();
    let otherwise = "*' -S '*) echo '-A PORTSENTRY in a language of its own'; exit;; \
                     *'-C PORTSENTRY -s'*) exit 4;;";
    let (daemon, lock) =
        start_with_programs_going_through(&["iptables", "ip6tables"], otherwise, &mounts, setup);
    assert!(daemon.client(&["block", "198.51.100.9"]).status.success());
    lock(true);
    eventually("a look finds the list strange", PATIENCE, || said("does not list as expected") == 1);
    // Where a list is taken for somebody else's change no look gets as far as this.
    eventually("the next look asks for the block", PATIENCE, || said("cannot be looked at") > 0);
    assert_eq!((said("installed again"), said("does not list as expected")), (1, 1));
}

#[test]
fn an_entry_that_ends_by_itself_while_it_is_looked_for_is_no_change_by_somebody_else() {
    let lab = Lab::new(1);
    let setup = Setup::new(&lab, &format!("{PORTS}\nBLOCK_WITH=\"iptables\""));
    let log = setup.path("log");
    let to_log = format!("exec 2> {};", log.display());
    let said = || std::fs::read_to_string(&log).unwrap().matches("installed again").count();
    // A look that begins before the end goes on after it.
    let waits = "*'-C INPUT'*) while ipset -q test portsentry4 198.51.100.9; do sleep 0.05; done;;";
    let (daemon, lock) = start_with_programs_going_through(&["iptables"], waits, &to_log, setup);
    assert!(lab.on_target(&["iptables", "-D", "INPUT", "-j", "PORTSENTRY"]).status.success());
    eventually("a look", PATIENCE, || said() == 1);
    assert!(daemon.client(&["block", "198.51.100.9", "12"]).status.success());
    lock(true);
    eventually("it has ended", PATIENCE, || !text(&daemon.client(&["list"])).contains("198.51.100.9"));
    assert_eq!(said(), 1, "{}", std::fs::read_to_string(&log).unwrap());
}

#[test]
fn many_blocks_that_iptables_refuses_wait_for_its_lock_no_longer_than_a_few() {
    let lab = Lab::new(1);
    let setup = Setup::new(&lab, &format!("{PORTS}\nBLOCK_WITH=\"iptables\""));
    let refuse = "*' -A '*) exit 1;; *' -C '*) sleep 2; exit 4;;";
    let (daemon, lock) = start_with_iptables_going_through(refuse, setup);
    lock(true);
    let (program, config) = (env!("CARGO_BIN_EXE_portsentry-rs"), daemon.path("portsentry.conf"));
    let block = format!("{program} block 198.51.100.$last -c {}", config.display());
    let all = format!("for last in $(seq 8); do {block} && echo SUCCESS & done; wait");
    let begun = Instant::now();
    let told = lab.on_target(&["sh", "-c", &all]);
    assert!(begun.elapsed() < Duration::from_secs(12), "{:?}", begun.elapsed());
    let refused = String::from_utf8_lossy(&told.stderr);
    assert_eq!(refused.matches("iptables").count(), 8, "{refused}");
    assert!(!text(&told).contains("SUCCESS"));
}

#[test]
fn a_block_longer_than_ipset_can_time_is_in_its_set_until_it_is_lifted() {
    let lab = Lab::new(1);
    let lines = format!("{PORTS}\nBLOCK_WITH=\"iptables\"\nBLOCK_TIME=\"-1\"");
    let held = |v6: bool| {
        let set = if v6 { "portsentry6" } else { "portsentry4" };
        let address = lab.peer(0).address(v6);
        text(&lab.on_target(&["ipset", "list", set])).contains(&format!("\n{address} timeout 0"))
    };
    let mut daemon = Setup::new(&lab, &lines).start();
    for v6 in [false, true] {
        let block = offend(&lab, &mut daemon, v6);
        assert_eq!(block["action"]["verdict"], "blocked", "{block}");
        assert!(held(v6));
    }
    let (_, setup) = daemon.stop();
    let mut daemon = setup.start();
    for v6 in [false, true] {
        assert!(held(v6));
        unblock(&lab, &mut daemon, v6);
        assert!(!held(v6));
    }
}

#[test]
fn a_rule_of_iptables_shuts_its_source_out_and_nobody_else() {
    for v6 in [false, true] {
        let lab = Lab::new(2);
        let _service = Service::start(&lab.target(), 80);
        let answered =
            |peer: usize, limit| answers(&lab.peer(peer).netns, lab.peer(peer).target(v6), 80, limit);
        let mut daemon = start_without_ipset(Setup::new(&lab, &format!("{PORTS}\nBLOCK_WITH=\"iptables\"")));
        assert!(answered(0, PATIENCE));
        offend(&lab, &mut daemon, v6);
        assert!(!answered(0, Duration::from_millis(300)), "it is shut out (IPv6: {v6})");
        assert!(answered(1, PATIENCE), "and it alone (IPv6: {v6})");
        unblock(&lab, &mut daemon, v6);
        assert!(answered(0, PATIENCE), "and let in again (IPv6: {v6})");
    }
}

#[test]
fn hosts_deny_lives_its_life() {
    let lines = |setup: &Setup| {
        format!(
            "KILL_HOSTS_DENY=\"ALL: $TARGET$ : DENY $PORT$ \"\nHOSTS_DENY_FILE=\"{}\"",
            setup.path("hosts.deny").display()
        )
    };
    life_of("hosts_deny", lines, |lab, view, v6| {
        let address = lab.peer(0).address(v6);
        let pattern = if v6 { format!("[{address}]") } else { address.to_string() };
        view.count("hosts.deny", &format!("ALL: {pattern} : DENY 0"))
    });
}

#[test]
fn a_line_of_hosts_deny_that_is_the_administrators_stays_and_is_no_block_of_ours() {
    let lab = Lab::new(1);
    let setup = Setup::new(&lab, "");
    let deny = setup.path("hosts.deny");
    let mine = "# mine\nALL: 10.77.0.2\n";
    std::fs::write(&deny, mine).unwrap();
    let lines = format!("BLOCK_WITH=\"nftables,hosts_deny\"\nHOSTS_DENY_FILE=\"{}\"", deny.display());
    setup.rewrite(&format!("{PORTS}\n{lines}"));
    let mut daemon = setup.start();
    let block = offend(&lab, &mut daemon, false);
    assert_eq!(block["action"]["with"], serde_json::json!(["nftables"]), "{block}");
    let error = block["action"]["error"].as_str().unwrap();
    assert!(error.contains("the line is there already and is not ours"), "{error}");
    let (_, setup) = daemon.stop();
    let mut daemon = setup.start();
    unblock(&lab, &mut daemon, false);
    assert_eq!(std::fs::read_to_string(&deny).unwrap(), mine);
    // One that ended while nobody was there, and had no line.
    offend(&lab, &mut daemon, false);
    let (_, setup) = daemon.stop();
    setup.rewrite(&format!("{PORTS}\n{lines}\nNEVER_BLOCK=\"10.77.0.2\""));
    let _daemon = setup.start();
    assert_eq!(std::fs::read_to_string(&deny).unwrap(), mine);
}

#[test]
fn a_command_lives_its_life() {
    let lines = |setup: &Setup| {
        let list = setup.path("list");
        let list = list.display();
        format!("KILL_ROUTE=\"echo $TARGET$ >> {list}\"\nUNBLOCK_CMD=\"sed -i -e '/^$TARGET$/d' {list}\"")
    };
    life_of("command", lines, |lab, view, v6| view.count("list", &lab.peer(0).address(v6).to_string()));
}

#[test]
fn all_of_them_together_respond_and_a_blocked_file_follows() {
    let lab = Lab::new(1);
    let setup = Setup::new(&lab, "");
    let folder = setup.path("");
    let folder = folder.display();
    setup.rewrite(&format!(
        "{PORTS}\nBLOCK_WITH=\"nftables,iptables,route,hosts_deny,command\"\nKILL_ROUTE=\"touch {folder}/route-$TARGET$\"\n\
         KILL_RUN_CMD=\"touch {folder}/ran-$TARGET$-$PORT$-$MODE$\"\nHOSTS_DENY_FILE=\"{folder}/hosts.deny\"\n\
         BLOCKED_FILE=\"{folder}/blocked\""
    ));
    let mut daemon = setup.start();
    let block = offend(&lab, &mut daemon, false);
    let with = serde_json::json!(["nftables", "iptables", "route", "hosts_deny", "command", "run_command"]);
    assert_eq!(block["action"]["with"], with, "{block}");
    assert!(daemon.path("route-10.77.0.2").exists() && daemon.path("ran-10.77.0.2-111-stealth").exists());
    let record = if cfg!(target_endian = "little") { [2, 0, 10, 77, 0, 2] } else { [0, 2, 10, 77, 0, 2] };
    assert_eq!(std::fs::read(daemon.path("blocked")).unwrap(), record);
    assert!(daemon.client(&["unblock", "all"]).status.success());
    eventually("the record is gone", PATIENCE, || std::fs::read(daemon.path("blocked")).unwrap().is_empty());
}

#[test]
fn who_stands_in_portsentrys_blocked_file_is_blocked_at_start() {
    let lab = Lab::new(1);
    let setup = Setup::new(&lab, "");
    let never = "NEVER_BLOCK=\"192.0.2.66\"";
    setup.rewrite(&format!("{PORTS}\n{never}\nBLOCKED_FILE=\"{}\"", setup.path("blocked").display()));
    let mut records = vec![2, 0, 192, 0, 2, 7, 10, 0];
    records.extend("2001:db8::7".parse::<std::net::Ipv6Addr>().unwrap().octets());
    records.extend([2, 0, 192, 0, 2, 66]);
    records.extend([2, 0, 192]);
    std::fs::write(setup.path("blocked"), &records).unwrap();
    let daemon = setup.start();
    let table = lab.nft_table();
    assert!(table.contains("192.0.2.7") && table.contains("2001:db8::7"), "{table}");
    let list = text(&daemon.client(&["list"]));
    assert!(list.contains("192.0.2.7") && !list.contains("192.0.2.66"), "nobody who is protected: {list}");
    assert_eq!(std::fs::read(daemon.path("blocked")).unwrap(), records[..24], "nor the torn record");
}

#[test]
fn a_response_that_cannot_work_ends_the_start_and_says_why() {
    let lab = Lab::new(1);
    let setup = Setup::new(&lab, "");
    std::os::unix::fs::symlink("/etc/hostname", setup.path("hosts.deny")).unwrap();
    setup.rewrite(&format!(
        "{PORTS}\nBLOCK_WITH=\"hosts_deny\"\nHOSTS_DENY_FILE=\"{}\"",
        setup.path("hosts.deny").display()
    ));
    for arguments in [&["check"][..], &[]] {
        let output = setup.run(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(told.contains("hosts.deny") && told.contains("symbolic link"), "{arguments:?}: {told}");
    }
}

#[test]
fn the_table_of_nftables_is_not_made_where_only_classic_keys_respond() {
    let lab = Lab::new(1);
    let mut daemon = Setup::new(&lab, &format!("{PORTS}\nKILL_ROUTE=\"true $TARGET$\"")).start();
    let block = offend(&lab, &mut daemon, false);
    assert_eq!(block["action"]["with"], serde_json::json!(["command"]), "{block}");
    assert!(!lab.has_nft_table());
}

#[test]
fn what_a_response_costs_the_helpers_confinement_is_told_and_no_more_is_given() {
    let seccomp = "helper: seccomp, for the iptables programs would inherit it";
    let why = "for the configured commands run as uid 0 and would inherit it";
    let (no_files, no_calls) = (format!("helper: Landlock, {why}"), format!("helper: seccomp, {why}"));
    let expected: [(&str, &[&str], [&str; 2]); 4] = [
        ("BLOCK_WITH=\"nftables,route\"", &[], ["1", "2"]),
        ("BLOCK_WITH=\"hosts_deny\"", &[], ["1", "2"]),
        ("BLOCK_WITH=\"iptables\"", &[seccomp], ["1", "0"]),
        ("KILL_ROUTE=\"true $TARGET$\"", &[&no_files, &no_calls], ["0", "0"]),
    ];
    for (lines, missing, in_force) in expected {
        let lab = Lab::new(1);
        let setup = Setup::new(&lab, "");
        let deny = setup.path("hosts.deny");
        setup.rewrite(&format!("{PORTS}\nHOSTS_DENY_FILE=\"{}\"\n{lines}", deny.display()));
        let mut daemon = setup.start();
        let start = daemon.wait_for("the start", |event| event["event_type"] == "start");
        assert_eq!(start["start"]["confinement"]["missing"], serde_json::json!(missing), "{lines}: {start}");
        let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.helper_pid())).unwrap();
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim();
        assert_eq!([field("NoNewPrivs:"), field("Seccomp:")], in_force, "{lines}");
    }
}

/// What `make uninstall` runs once the daemon is gone.
#[test]
fn what_blocks_leave_in_the_kernel_can_be_taken_back_without_the_daemon() {
    let lab = Lab::new(1);
    for lines in ["BLOCK_WITH=\"nftables,route,iptables\"", "BLOCK_WITH=\"route\""] {
        let mut daemon = Setup::new(&lab, &format!("{PORTS}\n{lines}")).start();
        for v6 in [false, true] {
            offend(&lab, &mut daemon, v6);
        }
        let helper = daemon.helper_pid();
        drop(daemon);
        eventually("the helper has ended", PATIENCE, || !alive(helper));
        let left = || {
            let says = |command: &[&str]| text(&lab.on_target(command));
            [
                says(&["ip", "-4", "route", "show", "proto", "113"]),
                says(&["ip", "-6", "route", "show", "proto", "113"]),
                says(&[
                    "sh",
                    "-c",
                    "iptables-save | grep -i portsentry; ip6tables-save | grep -i portsentry",
                ]),
                says(&["ipset", "-n", "list"]),
                says(&["nft", "list", "table", "inet", "portsentry"]),
            ]
        };
        assert!(left()[..2].iter().all(|routes| routes.contains("blackhole")), "{:?}", left());
        let undo = concat!(env!("CARGO_MANIFEST_DIR"), "/config/undo.sh");
        // Once more finds nothing, and says nothing.
        for _ in 0..2 {
            let output = lab.on_target(&[undo]);
            assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
            assert_eq!(left(), [""; 5]);
        }
    }
}
