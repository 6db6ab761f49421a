//! A command that hangs, fails, floods, forks or is missing costs its own block and nothing else, and its event says which.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::time::{Duration, Instant};

use serde_json::Value;
use support::daemon::{Daemon, PATIENCE, Setup};
use support::{Lab, eventually};

const PORTS: &str = "TCP_PORTS=\"111,119\"\nBLOCK_TCP=\"1\"";

fn scan(lab: &Lab, peer: usize) {
    let host = lab.peer(peer);
    let target = host.target(false).to_string();
    host.run(&["nmap", "-n", "-Pn", "--disable-arp-ping", "-sS", "--max-retries", "0", "-p", "111", &target]);
}

fn block_of(lab: &Lab, daemon: &mut Daemon, peer: usize) -> Value {
    let source = lab.peer(peer).v4.to_string();
    daemon.wait_for("the block", |event| event["event_type"] == "block" && event["src_ip"] == source.as_str())
}

fn blocked_in_kernel(lab: &Lab, peer: usize) -> bool {
    lab.nft_table().contains(&format!("{} timeout", lab.peer(peer).v4))
}

#[test]
fn a_command_that_hangs_for_one_source_delays_no_block_of_another() {
    let lab = Lab::new(2);
    let hang = "KILL_RUN_CMD=\"case $TARGET$ in 10.77.0.*) sleep 60;; esac\"";
    let conf = format!("{PORTS}\nBLOCK_WITH=\"nftables\"\n{hang}\nCOMMAND_TIMEOUT=\"3s\"");
    let mut daemon = Setup::new(&lab, &conf).start();
    scan(&lab, 0);
    eventually("the kernel has the block while the command hangs", Duration::from_secs(2), || {
        blocked_in_kernel(&lab, 0)
    });
    let begun = Instant::now();
    scan(&lab, 1);
    let other = block_of(&lab, &mut daemon, 1);
    assert!(begun.elapsed() < Duration::from_secs(2), "{other}");
    assert_eq!(other["action"]["with"], serde_json::json!(["nftables", "run_command"]), "{other}");
    let hung = block_of(&lab, &mut daemon, 0);
    assert_eq!(hung["action"]["verdict"], "blocked", "{hung}");
    assert_eq!(hung["action"]["with"], serde_json::json!(["nftables"]), "{hung}");
    let error = hung["action"]["error"].as_str().unwrap();
    assert!(error.starts_with("run_command: not done within 3 s"), "{error}");
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

#[test]
fn block_2_runs_the_command_and_shuts_nobody_out() {
    let lab = Lab::new(1);
    let setup = Setup::new(&lab, "");
    let ran = setup.path("ran").display().to_string();
    setup.rewrite(&format!(
        "TCP_PORTS=\"111,119\"\nBLOCK_TCP=\"2\"\nKILL_RUN_CMD=\"echo $TARGET$ $PORT$ $MODE$ >> {ran}\""
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
}
