//! A command that hangs, fails, floods, forks or is missing costs its own block and nothing else, and its event says which.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use support::daemon::{Daemon, PATIENCE, Setup};
use support::offence::{PORTS, block_of, blocked_in_kernel, scan};
use support::silence::{SPACING, time_to_silence};
use support::{Lab, eventually, ip, processes};

#[test]
fn a_command_that_hangs_for_one_source_delays_no_block_of_another() {
    let lab = Lab::new(2);
    let hang = "KILL_RUN_CMD=\"case $TARGET$ in 10.77.0.*) sleep 60;; esac\"";
    let conf = format!("{PORTS}\nBLOCK_WITH=\"nftables\"\nTRIPWIRE=\"0\"\n{hang}\nCOMMAND_TIMEOUT=\"10s\"");
    let mut daemon = Setup::new(&lab, &conf).start();
    scan(&lab, 0);
    eventually("the kernel has the block while the command hangs", Duration::from_secs(6), || {
        blocked_in_kernel(&lab, 0)
    });
    scan(&lab, 1);
    let other = block_of(&lab, &mut daemon, 1);
    assert_eq!(daemon.events_of("block", "10.77.0.2").count(), 0, "the first one's command still hangs");
    assert_eq!(other["action"]["with"], serde_json::json!(["nftables", "run_command"]), "{other}");
    let hung = block_of(&lab, &mut daemon, 0);
    assert_eq!(hung["action"]["verdict"], "blocked", "{hung}");
    assert_eq!(hung["action"]["with"], serde_json::json!(["nftables"]), "{hung}");
    let error = hung["action"]["error"].as_str().unwrap();
    assert!(error.starts_with("run_command: not done within 10 s"), "{error}");
}

/// Sources that are timed, and that keep commands busy: more than run at a time.
const TIMED: u8 = 15;
const BUSY: u8 = 10;

fn add_addresses(lab: &Lab, peer: usize, count: u8) -> Vec<Ipv4Addr> {
    let [a, b, c, _] = lab.peer(peer).v4.octets();
    let added = (10..10 + count).map(|host| Ipv4Addr::new(a, b, c, host)).collect::<Vec<_>>();
    for address in &added {
        ip(&["-n", &lab.peer(peer).netns, "address", "add", &format!("{address}/24"), "dev", "eth0"]);
    }
    added
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// SCAN_TRIGGER=2, so that no tripwire comes first: what is timed is the daemon.
#[test]
fn another_source_is_dropped_as_fast_while_commands_hang_fail_flood_fork_or_are_missing() {
    let ports = "TCP_PORTS=\"111,119\"\nBLOCK_TCP=\"1\"\nSCAN_TRIGGER=\"2\"\nBLOCK_WITH=\"nftables\"\nBLOCK_LIMIT=\"1000\"";
    let quiet = Lab::new(2);
    let (sources, without) = (add_addresses(&quiet, 1, TIMED), Setup::new(&quiet, ports).start());
    for (how, command) in [
        ("hangs", "sleep 600"),
        ("fails", "exit 3"),
        ("floods", "while :; do echo aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa >&2; done"),
        ("forks", "for i in 1 2 3 4 5 6 7 8 9; do sleep 600 & done; wait"),
        ("is missing", "exec /nonexistent/command"),
    ] {
        let lab = Lab::new(2);
        let kill = format!("KILL_RUN_CMD=\"case $TARGET$ in 10.77.0.*) {command};; esac\"");
        let daemon = Setup::new(&lab, &format!("{ports}\n{kill}\nCOMMAND_TIMEOUT=\"60s\"")).start();
        add_addresses(&lab, 1, TIMED);
        for busy in add_addresses(&lab, 0, BUSY) {
            time_to_silence(lab.peer(0), busy, &[111, 119]);
        }
        let (mut with_it, mut alone) = (Vec::new(), Vec::new());
        for &source in &sources {
            with_it.push(time_to_silence(lab.peer(1), source, &[111, 119]));
            alone.push(time_to_silence(quiet.peer(1), source, &[111, 119]));
        }
        assert!(without.client(&["unblock", "all"]).status.success());
        let (with_it, alone) = (median(with_it), median(alone));
        let ratio = with_it.max(SPACING).as_secs_f64() / alone.max(SPACING).as_secs_f64();
        eprintln!(
            "a command {how}: dropped {with_it:?} after the trigger, {alone:?} without one: ratio {ratio:.2}"
        );
        assert!(with_it < 2 * alone + Duration::from_millis(20), "{how}: {with_it:?} against {alone:?}");
        drop(daemon);
    }
}

#[test]
fn an_end_that_a_command_will_not_bring_about_is_told() {
    let lab = Lab::new(1);
    let lift =
        "KILL_ROUTE=\"true $TARGET$\"\nUNBLOCK_CMD=\"echo $TARGET$ stays >&2; exit 4\"\nBLOCK_TIME=\"2s\"";
    let mut daemon = Setup::new(&lab, &format!("{PORTS}\n{lift}")).start();
    scan(&lab, 0);
    let told = daemon.wait_for("the failure", |event| {
        event["event_type"] == "unblock" && event["action"]["verdict"] == "failed"
    });
    assert_eq!((&told["src_ip"], &told["action"]["target"]), (&"10.77.0.2".into(), &"10.77.0.2/32".into()));
    assert_eq!(told["action"]["error"], "command: exit status 4: 10.77.0.2 stays", "{told}");
}

#[test]
fn the_end_of_a_block_says_that_what_its_command_did_stays_and_only_there() {
    let lab = Lab::new(1);
    let both = "BLOCK_WITH=\"nftables\"\nKILL_ROUTE=\"true $TARGET$\"\nBLOCK_TIME=\"2s\"";
    for (undo, stays) in [("", true), ("UNBLOCK_CMD=\"true $TARGET$\"", false)] {
        let mut daemon = Setup::new(&lab, &format!("{PORTS}\n{both}\n{undo}")).start();
        scan(&lab, 0);
        let end = daemon.wait_for("its end", |event| event["event_type"] == "unblock");
        assert_eq!(end["action"]["verdict"], "expired", "{end}");
        let error = end["action"]["error"].as_str().unwrap_or_default();
        assert_eq!(error.contains("What KILL_ROUTE did to shut it out stays"), stays, "{end}");
    }
}

/// The route of a block that is over is there still, and shuts its source out for good: the next block's cannot be added.
#[test]
fn a_block_that_fails_for_an_earlier_ones_route_stands_still_says_so_and_what_would_take_it_back() {
    let lab = Lab::new(1);
    let route = "KILL_ROUTE=\"/sbin/ip route add blackhole $TARGET$\"\nBLOCK_TIME=\"1s\"";
    let undo = "UNBLOCK_CMD=\"/sbin/ip route del blackhole $TARGET$\"";
    for (set, stands) in [(undo, false), ("", true)] {
        let mut daemon = Setup::new(&lab, &format!("{PORTS}\n{route}\n{set}")).start();
        let mut block = || {
            scan(&lab, 0);
            let told = daemon.wait_for_new("the block", |event| event["event_type"] == "block");
            if told["action"]["verdict"] == "blocked" {
                daemon.wait_for_new("its end", |event| event["event_type"] == "unblock");
            }
            told["action"].clone()
        };
        assert_eq!(block()["verdict"], "blocked");
        let again = block();
        assert_eq!(again["verdict"], if stands { "failed" } else { "blocked" }, "{again}");
        let error = again["error"].as_str().unwrap_or_default();
        assert_eq!(error.contains("File exists"), stands, "{again}");
        assert_eq!(
            error.contains(&format!("seems to stand still: set UNBLOCK_CMD to what takes it back: {undo}")),
            stands
        );
        if stands {
            let asked = daemon.client(&["block", "10.77.0.2"]);
            assert!(String::from_utf8_lossy(&asked.stderr).contains(error), "{asked:?}");
        }
    }
}

#[test]
fn an_operator_is_told_that_nothing_takes_back_what_a_command_did() {
    let lab = Lab::new(1);
    let mut daemon = Setup::new(&lab, &format!("{PORTS}\nKILL_ROUTE=\"true $TARGET$\"")).start();
    for who in ["10.77.0.2", "all"] {
        scan(&lab, 0);
        daemon.wait_for("the block", |event| event["event_type"] == "block");
        let lifted = daemon.client(&["unblock", who]);
        let told = String::from_utf8_lossy(&lifted.stdout);
        assert!(lifted.status.success() && told.contains("no longer blocked by portsentry-rs"), "{lifted:?}");
        assert!(told.contains("What KILL_ROUTE did") && told.contains("UNBLOCK_CMD is not set"), "{told}");
    }
    drop(daemon);
    let alarm = "BLOCK_WITH=\"nftables\"\nKILL_RUN_CMD=\"true iptables -I INPUT -s $TARGET$ -j DROP\"";
    let mut daemon = Setup::new(&lab, &format!("{PORTS}\n{alarm}")).start();
    scan(&lab, 0);
    block_of(&lab, &mut daemon, 0);
    let lifted = daemon.client(&["unblock", "10.77.0.2"]);
    let told = String::from_utf8_lossy(&lifted.stdout);
    assert!(lifted.status.success() && told.contains("What KILL_RUN_CMD did stays"), "{lifted:?}");
}

#[test]
fn an_operator_lifts_a_block_whose_command_still_hangs() {
    let lab = Lab::new(1);
    let mut daemon = Setup::new(
        &lab,
        &format!("{PORTS}\nBLOCK_WITH=\"nftables\"\nKILL_RUN_CMD=\"sleep 60\"\nCOMMAND_TIMEOUT=\"50s\""),
    )
    .start();
    scan(&lab, 0);
    eventually("the kernel has the block", PATIENCE, || blocked_in_kernel(&lab, 0));
    let begun = Instant::now();
    assert!(daemon.client(&["unblock", "10.77.0.2"]).status.success());
    assert!(begun.elapsed() < Duration::from_secs(5) && !blocked_in_kernel(&lab, 0));
    let block = block_of(&lab, &mut daemon, 0);
    assert_eq!(block["action"]["verdict"], "failed", "{block}");
}

#[test]
fn no_command_outlives_the_helper_that_holds_it_to_its_time() {
    let lab = Lab::new(1);
    let forks =
        "KILL_RUN_CMD=\"for i in 1 2 3; do sleep 600 & done; wait # $TARGET$\"\nCOMMAND_TIMEOUT=\"600s\"";
    let daemon = Setup::new(&lab, &format!("{PORTS}\nBLOCK_WITH=\"nftables\"\n{forks}")).start();
    scan(&lab, 0);
    let running = || processes(&lab.target()).len();
    // Sensor, helper, the shell and what it forked.
    eventually("the command runs", PATIENCE, || running() == 6);
    drop(daemon);
    eventually("nothing is left", PATIENCE, || running() == 0);
    assert!(blocked_in_kernel(&lab, 0));
}

#[test]
fn every_way_to_fail_is_told_and_is_no_block() {
    for (command, words) in [
        ("/nonexistent/block $TARGET$", "command: No such file or directory"),
        ("echo out of order >&2; exit 3 # $TARGET$", "command: exit status 3: out of order"),
        ("kill -9 $$ # $TARGET$", "command: ended by signal 9"),
        ("sleep 60 & sleep 60 # $TARGET$", "command: not done within 1 s and killed"),
    ] {
        let lab = Lab::new(1);
        let conf = format!("{PORTS}\nKILL_ROUTE=\"{command}\"\nCOMMAND_TIMEOUT=\"1s\"");
        let mut daemon = Setup::new(&lab, &conf).start();
        scan(&lab, 0);
        let block = block_of(&lab, &mut daemon, 0);
        assert_eq!(block["action"]["verdict"], "failed", "{command}: {block}");
        assert!(block["action"]["error"].as_str().unwrap().starts_with(words), "{command}: {block}");
        let listed = daemon.client(&["list"]);
        assert!(!String::from_utf8_lossy(&listed.stdout).contains("10.77.0.2"), "{command}");
    }
}

#[test]
fn a_command_that_floods_or_leaves_a_child_behind_has_still_done_its_work() {
    for command in [
        "i=0; while [ $i -lt 3000 ]; do echo aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa; echo bbbbbbbbbbbbbbbbbbbbbbbbb >&2; i=$((i+1)); done; true $TARGET$",
        "sleep 30 & true $TARGET$",
    ] {
        let lab = Lab::new(1);
        let mut daemon = Setup::new(&lab, &format!("{PORTS}\nKILL_ROUTE=\"{command}\"")).start();
        scan(&lab, 0);
        let begun = Instant::now();
        let block = block_of(&lab, &mut daemon, 0);
        assert_eq!(block["action"]["verdict"], "blocked", "{command}: {block}");
        assert!(begun.elapsed() < Duration::from_secs(8), "{command}");
    }
}

/// PortSentry gives every command to a shell: `exec` is nothing that could be found on a PATH.
#[test]
fn a_command_that_begins_with_a_word_of_the_shells_is_run_by_one() {
    let lab = Lab::new(1);
    let mut daemon = Setup::new(&lab, &format!("{PORTS}\nKILL_ROUTE=\"exec /bin/true $TARGET$\"")).start();
    scan(&lab, 0);
    let block = block_of(&lab, &mut daemon, 0);
    assert_eq!(block["action"]["verdict"], "blocked", "{block}");
    assert_eq!(block["action"]["with"], serde_json::json!(["command"]), "{block}");
}

#[test]
fn block_2_runs_the_command_and_shuts_nobody_out() {
    let lab = Lab::new(1);
    let setup = Setup::new(&lab, "");
    let ran = setup.path("ran").display().to_string();
    setup.rewrite(&format!(
        "TCP_PORTS=\"111,119\"\nBLOCK_TCP=\"2\"\nKILL_RUN_CMD=\"echo $TARGET$ $PORT$ $MODE$ >> {ran}\"\n\
         BLOCKED_FILE=\"{}\"",
        setup.path("blocked").display()
    ));
    let mut daemon = setup.start();
    scan(&lab, 0);
    let block = block_of(&lab, &mut daemon, 0);
    assert_eq!(block["action"]["with"], serde_json::json!(["run_command"]), "{block}");
    assert!(!blocked_in_kernel(&lab, 0), "{}", lab.nft_table());
    scan(&lab, 0);
    daemon.catch_up();
    assert_eq!(
        std::fs::read_to_string(&ran).unwrap(),
        "10.77.0.2 111 stealth\n",
        "a told source is not told again"
    );
    // Nor does BLOCKED_FILE say that it is blocked, neither when it grows nor when it is written anew.
    let records = |daemon: &Daemon| std::fs::read(daemon.path("blocked")).unwrap();
    assert_eq!(records(&daemon), b"");
    for address in ["198.51.100.1", "198.51.100.2"] {
        assert!(daemon.client(&["block", address]).status.success());
    }
    assert!(daemon.client(&["unblock", "198.51.100.2"]).status.success());
    assert_eq!(records(&daemon)[2..], [198, 51, 100, 1]);
}

/// The operator is not told of a failure while what he asked for is done.
#[test]
fn who_blocks_by_hand_waits_for_a_slow_command_and_hears_what_became_of_it() {
    let lab = Lab::new(0);
    let setup = Setup::new(&lab, "");
    let go = setup.path("go");
    let wait = format!("while [ ! -e {} ]; do sleep 0.1; done", go.display());
    setup.rewrite(&format!("{PORTS}\nCOMMAND_TIMEOUT=\"60s\"\nKILL_ROUTE=\"{wait} # $TARGET$\""));
    let conf = setup.path("portsentry.conf");
    let mut daemon = setup.start();
    let client = Command::new("ip")
        .args([
            "netns",
            "exec",
            &lab.target(),
            env!("CARGO_BIN_EXE_portsentry-rs"),
            "block",
            "198.51.100.1",
            "-c",
        ])
        .arg(conf)
        .stdout(Stdio::piped())
        .stderr(std::fs::File::create(daemon.path("said")).unwrap())
        .spawn()
        .unwrap();
    // Longer than anybody waits for an answer that is not the helper's.
    let said = || std::fs::read_to_string(daemon.path("said")).unwrap();
    eventually("the client is told to wait", 2 * PATIENCE, || said().contains("still at work"));
    std::fs::write(&go, "").unwrap();
    let output = client.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && told.contains("198.51.100.1 is blocked for"), "{output:?}");
    daemon.wait_for("the block", |event| event["event_type"] == "block");
}

/// PortSentry's own line that drops a source and then logs it fails where iptables knows no such level: the first half is done
/// each time.
#[test]
fn a_command_that_fails_is_not_run_again_for_each_probe_where_each_is_told() {
    let lab = Lab::new(1);
    let setup = Setup::new(&lab, "");
    let (rules, history) = (setup.path("rules"), setup.path("history"));
    setup.rewrite(&format!(
        "TCP_PORTS=\"1-60\"\nBLOCK_TCP=\"1\"\nHISTORY_FILE=\"{}\"\nKILL_ROUTE=\"echo $TARGET$ >> {} && exit 2\"",
        history.display(),
        rules.display()
    ));
    let mut daemon = setup.start();
    let target = lab.peer(0).target(false).to_string();
    let probe = |ports: &str, count: &str| {
        lab.peer(0).hping3(&["-S", "-i", "u2000", "-c", count, "-p", ports, &target]);
    };
    probe("1", "1");
    assert_eq!(block_of(&lab, &mut daemon, 0)["action"]["verdict"], "failed");
    probe("++2", "19");
    let told = daemon.wait_for("the last of them", |event| event["dest_port"] == 20);
    assert_eq!(told["action"]["verdict"], "suppressed", "{told}");
    assert_eq!(told["action"]["error"], "its block has failed, and is tried again later", "{told}");
    assert_eq!(std::fs::read_to_string(&rules).unwrap().lines().count(), 1);
    eventually("each probe has its line", PATIENCE, || {
        let text = std::fs::read_to_string(&history).unwrap();
        text.lines().filter(|line| line.ends_with("blocked: [false]")).count() == 20
    });
    // An operator who has mended it need not wait.
    daemon.client(&["unblock", &lab.peer(0).v4.to_string()]);
    probe("21", "1");
    eventually("it is run again", PATIENCE, || std::fs::read_to_string(&rules).unwrap().lines().count() == 2);
}
