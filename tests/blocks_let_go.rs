//! Whoever is not blocked any more is let in, whatever refuses to let go of him at first; and nobody is told so before.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs::File;
use std::net::Ipv4Addr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Output;

use nix::sys::signal::Signal;
use serde_json::Value;
use support::daemon::{Daemon, PATIENCE, Setup, client, kill, suspend};
use support::tracer::{self, Tracer};
use support::{Lab, eventually, ledger};

const PORTS: &str = "TCP_PORTS=\"111\"\nBLOCK_TCP=\"1\"\nTRIPWIRE=\"0\"";
const SOURCE: &str = "198.51.100.9";

/// Not a test: the process that follows the daemon's calls.
#[test]
#[ignore = "the tracer's own process"]
fn the_tracer() {
    tracer::follow();
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn lists(daemon: &Daemon) -> bool {
    lists_any(daemon, SOURCE)
}

fn lists_any(daemon: &Daemon, address: &str) -> bool {
    String::from_utf8_lossy(&daemon.client(&["list"]).stdout).contains(address)
}

/// Blocks that the sensor counts.
fn mirrored(daemon: &Daemon) -> u32 {
    let status = String::from_utf8(daemon.client(&["status"]).stdout).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("blocks in force")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

fn has_route(lab: &Lab) -> bool {
    let routes = lab.on_target(&["ip", "route", "show", "type", "blackhole"]);
    String::from_utf8_lossy(&routes.stdout).contains(SOURCE)
}

fn in_the_set(lab: &Lab) -> bool {
    lab.nft_table().contains(SOURCE)
}

#[test]
fn a_route_that_stays_is_a_block_and_one_that_outstays_its_block_goes_by_itself() {
    let lab = Lab::new(1);
    let lines = format!("{PORTS}\nBLOCK_WITH=\"nftables,route\"");
    let (setup, tracer) = (Setup::new(&lab, &lines), Tracer::new(true));
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_portsentry-rs"));
    let mut daemon = setup.start_program_through(tracer.through(), program, &[]);
    let block = |daemon: &Daemon, seconds: &str| {
        let output = daemon.client(&["block", SOURCE, seconds]);
        assert!(output.status.success() && has_route(&lab) && in_the_set(&lab), "{}", said(&output));
    };

    // An operator is told, and can ask again.
    block(&daemon, "600");
    tracer.refuse_route_deletions(true);
    let output = daemon.client(&["unblock", SOURCE]);
    let told = said(&output);
    assert!(!output.status.success(), "{output:?}");
    assert!(told.contains("is still blocked") && told.contains("route: "), "{told}");
    assert!(has_route(&lab) && !in_the_set(&lab) && lists(&daemon));
    tracer.refuse_route_deletions(false);
    assert!(daemon.client(&["unblock", SOURCE]).status.success());
    assert!(!has_route(&lab) && !lists(&daemon));

    // Of everybody's blocks none is lifted where one cannot be: the list is true.
    block(&daemon, "600");
    tracer.refuse_route_deletions(true);
    assert!(!daemon.client(&["unblock", "all"]).status.success());
    assert!(has_route(&lab) && in_the_set(&lab) && lists(&daemon));
    tracer.refuse_route_deletions(false);
    assert!(daemon.client(&["unblock", "all"]).status.success());
    assert!(!has_route(&lab) && !in_the_set(&lab) && !lists(&daemon));

    // Nobody asks: its time is over, or the source is protected from now on.
    for ends_by_time in [true, false] {
        block(&daemon, if ends_by_time { "6" } else { "600" });
        tracer.refuse_route_deletions(true);
        if !ends_by_time {
            let config = daemon.path("portsentry.conf");
            let text = std::fs::read_to_string(&config).unwrap();
            std::fs::write(&config, format!("{text}NEVER_BLOCK=\"{SOURCE}\"\n")).unwrap();
            daemon.signal(nix::sys::signal::Signal::SIGHUP);
        }
        let told = daemon.wait_for_new("what stays", |event| {
            event["event_type"] == "unblock" && event["action"]["verdict"] == "failed"
        });
        assert!(told["action"]["error"].as_str().unwrap().starts_with("route: "), "{told}");
        assert!(has_route(&lab) && !lists(&daemon));
        tracer.refuse_route_deletions(false);
        eventually("a look takes it away", PATIENCE, || !has_route(&lab));
    }
}

/// More of them than find room at once on their way to the sensor.
#[test]
fn blocks_that_are_let_go_together_are_told_each_and_claimed_by_nobody() {
    const MANY: u32 = 300;
    let lab = Lab::new(1);
    let setup = Setup::new(&lab, &format!("{PORTS}\nBLOCK_WITH=\"route\""));
    let first = u32::from(Ipv4Addr::new(198, 51, 100, 0));
    ledger::write(&setup.path("state"), first, MANY);
    let mut daemon = setup.start();
    eventually("they are known", PATIENCE, || mirrored(&daemon) == MANY);
    let (batch, via) = (daemon.path("batch"), lab.peer(0).v4);
    let address = |number| Ipv4Addr::from(first + number);
    let own: String = (0..MANY).map(|it| format!("route replace {}/32 via {via}\n", address(it))).collect();
    std::fs::write(&batch, own).unwrap();
    assert!(lab.on_target(&["ip", "-batch", batch.to_str().unwrap()]).status.success());
    for number in 0..MANY {
        daemon.wait_for("its end", |event| {
            event["action"]["verdict"] == "failed" && event["src_ip"] == address(number).to_string()
        });
    }
    assert_eq!(mirrored(&daemon), 0);
    assert_eq!(daemon.seen.iter().filter(|event| event["event_type"] == "unblock").count(), MANY as usize);
    assert!(daemon.client(&["block", "203.0.113.9"]).status.success(), "requests are taken again");
}

/// An address of the scanner's is this host's own for a moment, in which one of the two processes does not look.
#[test]
fn what_only_one_of_the_two_has_seen_keeps_them_of_one_mind() {
    let lab = Lab::new(1);
    let (scanner, target) = (lab.peer(0), lab.target());
    let setup = Setup::new(&lab, PORTS);
    // With a history file each probe is told.
    setup.rewrite(&format!("{PORTS}\nHISTORY_FILE=\"{}\"", setup.path("history").display()));
    let mut daemon = setup.start();
    let address = scanner.v4.to_string();
    let own = format!("{address}/32");
    let change = |verb| support::ip(&["-n", &target, "address", verb, &own, "dev", "lo"]);
    // A packet that came before is no further probe.
    let mut ports = 2000..;
    let mut scan = |daemon: &mut Daemon, verdict: &str| {
        eventually("a scan is answered so", PATIENCE, || {
            let from = ports.next().unwrap().to_string();
            scanner.hping3(&["-c", "1", "-S", "-s", &from, "-p", "111", &scanner.target_v4.to_string()]);
            daemon.wait_for_new("its verdict", |event| event["action"].is_object())["action"]["verdict"]
                == *verdict
        });
    };
    scan(&mut daemon, "blocked");

    // The sensor alone: the block stands, and so does what is said of it.
    suspend(daemon.helper_pid());
    change("add");
    scan(&mut daemon, "ignored");
    change("delete");
    kill(daemon.helper_pid(), Signal::SIGCONT);
    scan(&mut daemon, "already_blocked");
    assert!(lab.is_blocked(scanner.v4) && lists_any(&daemon, &address));
    assert_eq!(daemon.events_of("unblock", &address).count(), 0, "{:#?}", daemon.seen);

    // The helper alone: the end is told, and the next scan blocked.
    suspend(daemon.pid());
    change("add");
    eventually("the helper lifts it", PATIENCE, || !lab.is_blocked(scanner.v4));
    change("delete");
    kill(daemon.pid(), Signal::SIGCONT);
    let over = daemon.wait_for_new("its end", |event| event["event_type"] == "unblock");
    assert_eq!(over["action"]["verdict"], "lifted", "{over}");
    scan(&mut daemon, "blocked");
    assert!(lab.is_blocked(scanner.v4));
}

/// As while thousands of addresses are added at once.
#[test]
fn an_address_that_cannot_be_followed_at_once_is_followed_a_moment_later_and_nobody_ends_for_it() {
    let lab = Lab::new(1);
    let (setup, tracer) = (Setup::new(&lab, PORTS), Tracer::new(true));
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_portsentry-rs"));
    let mut daemon = setup.start_program_through(tracer.through(), program, &[]);
    assert!(daemon.client(&["block", SOURCE]).status.success());
    let add = |address: &str| {
        support::ip(&["-n", &lab.target(), "address", "add", &format!("{address}/32"), "dev", "lo"])
    };

    // The list of addresses cannot be had.
    tracer.refuse(Some(libc::RTM_GETADDR));
    add(SOURCE);
    assert_eq!(said(&daemon.client(&["block", "10.77.99.1"])), "");
    assert!(in_the_set(&lab));
    tracer.refuse(None);
    let over = daemon.wait_for_new("its end", |event| event["event_type"] == "unblock");
    assert_eq!(over["src_ip"], SOURCE, "{over}");
    assert!(!lab.is_blocked(SOURCE.parse::<Ipv4Addr>().unwrap()));
    assert!(in_the_set(&lab), "in the never-block set");

    // The firewall does not take it: the kernel has no batch of changes then.
    const BEGIN_OF_BATCH: u16 = 0x10;
    tracer.refuse(Some(BEGIN_OF_BATCH));
    add("10.77.99.2");
    eventually("the helper knows it", PATIENCE, || {
        said(&daemon.client(&["block", "10.77.99.2"])).contains("never")
    });
    assert!(!lab.nft_table().contains("10.77.99.2"));
    tracer.refuse(None);
    eventually("and soon the kernel", PATIENCE, || lab.nft_table().contains("10.77.99.2"));
}

/// Two sources are blocked with this configuration: what `unblock all` says while something `fails`. Once nothing does it
/// takes back what is left.
fn all_are_let_go(lines: &str, fail: impl Fn(&Daemon, bool), is_left: impl Fn(&Daemon) -> bool) -> String {
    let lab = Lab::new(1);
    let setup = Setup::new(&lab, "");
    let folder = setup.path("").display().to_string();
    setup.rewrite(&format!("{PORTS}\n{}", lines.replace("FOLDER", &folder)));
    let daemon = setup.start();
    for address in [SOURCE, "2001:db8::9"] {
        assert!(daemon.client(&["block", address]).status.success());
    }
    fail(&daemon, true);
    let output = daemon.client(&["unblock", "all"]);
    assert!(!output.status.success() && is_left(&daemon) && !lists(&daemon), "{output:?}");
    let told = said(&output);
    assert!(told.contains("could not be taken back"), "{told}");
    fail(&daemon, false);
    let output = daemon.client(&["unblock", "all"]);
    assert!(output.status.success() && !is_left(&daemon), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "Every source is no longer blocked\n");
    assert_eq!(String::from_utf8_lossy(&daemon.client(&["unblock", "all"]).stdout), "nobody is blocked\n");
    told
}

#[test]
fn unblock_all_is_answered_by_the_worst_of_its_commands_and_takes_back_what_is_left() {
    let told = all_are_let_go(
        "BLOCK_WITH=\"nftables,command\"\nKILL_ROUTE=\"echo $TARGET$ >> FOLDER/rules\"\n\
         UNBLOCK_CMD=\"sleep 1; test ! -e FOLDER/fails && flock FOLDER/lock sed -i /$TARGET$/d FOLDER/rules\"",
        |daemon, fails| match fails {
            true => std::fs::write(daemon.path("fails"), "").unwrap(),
            false => std::fs::remove_file(daemon.path("fails")).unwrap(),
        },
        |daemon| !std::fs::read_to_string(daemon.path("rules")).unwrap().is_empty(),
    );
    assert!(told.contains("command: exit status 1"), "{told}");
    assert!(told.contains(SOURCE) && told.contains("2001:db8::9"), "whose it is: {told}");
}

/// Nobody edits a file that everybody may write.
fn let_everybody_write(daemon: &Daemon, everybody: bool) {
    let mode = if everybody { 0o666 } else { 0o644 };
    let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
    std::fs::set_permissions(daemon.path("hosts.deny"), mode).unwrap();
}

#[test]
fn a_line_of_hosts_deny_that_outstays_its_block_goes_by_itself() {
    let lab = Lab::new(1);
    let setup = Setup::new(&lab, "");
    let file = setup.path("hosts.deny");
    setup.rewrite(&format!(
        "{PORTS}\nBLOCK_WITH=\"nftables,hosts_deny\"\nHOSTS_DENY_FILE=\"{}\"",
        file.display()
    ));
    let mut daemon = setup.start();
    let has_line = || std::fs::read_to_string(&file).unwrap().contains(SOURCE);
    assert!(daemon.client(&["block", SOURCE, "3"]).status.success() && has_line());
    let_everybody_write(&daemon, true);
    let told = daemon.wait_for("what stays", |event| {
        event["event_type"] == "unblock" && event["action"]["verdict"] == "failed"
    });
    assert!(told["action"]["error"].as_str().unwrap().starts_with("hosts_deny: "), "{told}");
    assert!(has_line() && !lists(&daemon));
    let_everybody_write(&daemon, false);
    eventually("a look takes it out", PATIENCE, || !has_line());
    assert_eq!(String::from_utf8_lossy(&daemon.client(&["unblock", "all"]).stdout), "nobody is blocked\n");
}

#[test]
fn whoever_takes_hosts_deny_away_has_let_everybody_in_and_the_next_line_makes_it_anew() {
    let lab = Lab::new(1);
    let setup = Setup::new(&lab, "");
    let file = setup.path("hosts.deny");
    setup.rewrite(&format!("{PORTS}\nBLOCK_WITH=\"hosts_deny\"\nHOSTS_DENY_FILE=\"{}\"", file.display()));
    let mut daemon = setup.start_through("sh", &["-c", "umask 077; exec \"$@\"", "sh"].map(str::to_owned));
    assert!(daemon.client(&["block", SOURCE, "600"]).status.success());
    std::fs::remove_file(&file).unwrap();
    let lifted = daemon.client(&["unblock", SOURCE]);
    assert!(lifted.status.success(), "{}", String::from_utf8_lossy(&lifted.stderr));
    daemon.wait_for("the end", |event| event["action"]["verdict"] == "lifted");
    assert!(!file.exists(), "nothing is to be kept in it");
    let blocked = daemon.client(&["block", SOURCE, "600"]);
    assert!(blocked.status.success(), "{}", String::from_utf8_lossy(&blocked.stderr));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), format!("ALL: {SOURCE}\n"));
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o644);
}

#[test]
fn unblock_all_says_so_where_lines_of_hosts_deny_stay_and_takes_them_out_later() {
    let told = all_are_let_go(
        "BLOCK_WITH=\"nftables,hosts_deny\"\nHOSTS_DENY_FILE=\"FOLDER/hosts.deny\"",
        let_everybody_write,
        |daemon| !std::fs::read_to_string(daemon.path("hosts.deny")).unwrap().is_empty(),
    );
    assert!(told.contains("hosts_deny: "), "{told}");
}

/// A pipe for a command to read.
fn gate(setup: &Setup) -> PathBuf {
    let gate = setup.path("gate");
    nix::unistd::mkfifo(&gate, nix::sys::stat::Mode::S_IRWXU).unwrap();
    gate
}

/// The command that reads it waits until this is dropped.
fn hold(gate: &Path) -> File {
    let mut open = std::fs::OpenOptions::new();
    open.write(true).custom_flags(nix::libc::O_NONBLOCK);
    // Nobody can write to a pipe that nobody reads.
    let mut held = None;
    eventually("the command reads", PATIENCE, || {
        held = open.open(gate).ok();
        held.is_some()
    });
    held.unwrap()
}

#[test]
fn who_is_blocked_while_unblock_all_is_at_work_stays_blocked_and_is_not_told_as_lifted() {
    let lab = Lab::new(1);
    let setup = Setup::new(&lab, "");
    let gate = gate(&setup);
    setup.rewrite(&format!(
        "{PORTS}\nBLOCK_WITH=\"nftables,command\"\nKILL_ROUTE=\"true $TARGET$\"\n\
         UNBLOCK_CMD=\"cat {} # $TARGET$\"\nCOMMAND_TIMEOUT=\"60s\"",
        gate.display()
    ));
    let mut daemon = setup.start();
    let (config, target) = (daemon.path("portsentry.conf"), lab.target());
    assert!(daemon.client(&["block", "198.51.100.1"]).status.success());
    std::thread::scope(|threads| {
        let all = threads.spawn(|| client(&config, &target, &["unblock", "all"]));
        let held = hold(&gate);
        let output = client(&config, &target, &["block", SOURCE]);
        assert!(output.status.success() && !all.is_finished(), "{}", said(&output));
        drop(held);
        let output = all.join().unwrap();
        assert!(output.status.success(), "{}", said(&output));
    });
    daemon.wait_for("the end of the first", |event| event["action"]["verdict"] == "lifted");
    daemon.catch_up();
    assert_eq!(daemon.events_of("unblock", SOURCE).count(), 0, "{:#?}", daemon.seen);
    assert!(lists(&daemon) && in_the_set(&lab));
}

/// The command of his next block cannot be started, so that this block is told in the moment in which that of the last fails.
#[test]
fn who_is_blocked_anew_before_the_command_of_his_last_block_fails_stays_blocked_for_everybody() {
    let lab = Lab::new(1);
    let setup = Setup::new(&lab, "");
    let (gate, program) = (gate(&setup), setup.path("program"));
    std::fs::copy("/bin/true", &program).unwrap();
    setup.rewrite(&format!(
        "{PORTS}\nBLOCK_WITH=\"nftables,command\"\nKILL_ROUTE=\"{} $TARGET$\"\n\
         UNBLOCK_CMD=\"cat {}; false # $TARGET$\"\nCOMMAND_TIMEOUT=\"60s\"",
        program.display(),
        gate.display()
    ));
    let mut daemon = setup.start();
    let (config, target) = (daemon.path("portsentry.conf"), lab.target());
    assert!(daemon.client(&["block", SOURCE, "1"]).status.success());
    let held = hold(&gate);
    eventually("it ends", PATIENCE, || !in_the_set(&lab));
    std::fs::remove_file(&program).unwrap();
    std::thread::scope(|threads| {
        let anew = threads.spawn(|| client(&config, &target, &["block", SOURCE]));
        eventually("the next is in force", PATIENCE, || in_the_set(&lab));
        assert!(!anew.is_finished(), "its command waits");
        drop(held);
        assert!(anew.join().unwrap().status.success());
    });
    let is_anew =
        |event: &Value| event["action"]["verdict"] == "blocked" && event["action"]["error"].is_string();
    daemon.wait_for("the next without its command", is_anew);
    daemon.catch_up();
    assert!(lists(&daemon) && in_the_set(&lab));
    assert_eq!(mirrored(&daemon), 1, "{:#?}", daemon.seen);
}
