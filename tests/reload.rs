//! SIGHUP: what the configuration says now is done by both processes, and what is not done is said.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::daemon::{Daemon, PATIENCE, Setup};
use support::{Lab, eventually};

/// A daemon and its configuration, which can be changed while it runs.
struct Running {
    daemon: Daemon,
    config: std::path::PathBuf,
    first: String,
}

impl Running {
    fn start(lab: &Lab, lines: &str) -> Running {
        let setup = Setup::new(lab, lines);
        let config = setup.path("portsentry.conf");
        let first = std::fs::read_to_string(&config).unwrap();
        Running { daemon: setup.start(), config, first }
    }

    /// Has it read these lines in the place of `lines`, whole ones of the first configuration.
    fn reload(&self, lines: &str, instead: &str) {
        let text = self.first.replacen(lines, instead, 1);
        assert!(lines == instead || text != self.first, "{lines} are not there");
        std::fs::write(&self.config, text).unwrap();
        self.daemon.signal(nix::sys::signal::Signal::SIGHUP);
    }

    /// One probe of a peer, and what came of it. The same port again would be the same packet again.
    fn probe(&mut self, lab: &Lab, peer: usize, port: u16) -> Value {
        let host = lab.peer(peer);
        let source = host.v4.to_string();
        host.hping3(&["-c", "1", "-S", "-p", &port.to_string(), &host.target_v4.to_string()]);
        self.daemon.wait_for_new("what came of the probe", |event| {
            event["src_ip"] == *source && event["action"].is_object()
        })
    }
}

const RUN_ONLY: &str = "TCP_PORTS=\"111,119\"\nBLOCK_TCP=\"2\"\nBLOCK_UDP=\"2\"\nKILL_RUN_CMD=\"/bin/true\"\nSENSITIVITY=\"off\"";

#[test]
fn blocks_are_what_block_tcp_says_after_a_reload_for_whoever_was_told_of_before_too() {
    let lab = Lab::new(2);
    let mut running = Running::start(&lab, RUN_ONLY);
    let ran = running.probe(&lab, 0, 111);
    assert_eq!(ran["action"]["with"], json!(["run_command"]), "{ran}");
    assert!(!lab.is_blocked(lab.peer(0).v4), "{}", lab.nft_table());

    running.reload("BLOCK_TCP=\"2\"\nBLOCK_UDP=\"2\"", "BLOCK_TCP=\"1\"\nBLOCK_UDP=\"1\"");
    running.daemon.catch_up();
    for peer in [0, 1] {
        let blocked = running.probe(&lab, peer, 119);
        assert_eq!(blocked["action"]["verdict"], "blocked", "{blocked}");
        assert!(blocked["action"]["with"].as_array().unwrap().contains(&json!("nftables")), "{blocked}");
        assert!(lab.is_blocked(lab.peer(peer).v4), "{blocked}: {}", lab.nft_table());
    }
}

#[test]
fn nobody_is_shut_out_any_more_where_a_reload_asks_for_the_command_alone() {
    let lab = Lab::new(1);
    let mut running = Running::start(&lab, &RUN_ONLY.replace("=\"2\"", "=\"0\""));
    assert_eq!(running.probe(&lab, 0, 111)["action"]["verdict"], "logged");
    running.reload("BLOCK_TCP=\"0\"", "BLOCK_TCP=\"2\"");
    running.daemon.catch_up();
    let ran = running.probe(&lab, 0, 119);
    assert_eq!(ran["action"]["with"], json!(["run_command"]), "{ran}");
    assert!(!lab.is_blocked(lab.peer(0).v4), "{}", lab.nft_table());
}

const BLOCKS: &str = "TCP_PORTS=\"111,119\"\nBLOCK_TCP=\"1\"\nSENSITIVITY=\"off\"\nNEVER_BLOCK=\"192.0.2.9\"";
const MINE: &str = "NEVER_BLOCK=\"192.0.2.9";

#[test]
fn who_is_added_to_never_block_is_let_in_again_and_told_of() {
    let lab = Lab::new(1);
    let mut running = Running::start(&lab, BLOCKS);
    assert_eq!(running.probe(&lab, 0, 111)["action"]["verdict"], "blocked");
    running.reload(MINE, "NEVER_BLOCK=\"192.0.2.9 10.77.0.0/24");
    let told = running.daemon.wait_for("the end of the block", |event| event["event_type"] == "unblock");
    assert_eq!((&told["src_ip"], &told["action"]["verdict"]), (&json!("10.77.0.2"), &json!("lifted")));
    assert!(!lab.is_blocked(lab.peer(0).v4), "told before it was so: {}", lab.nft_table());
    assert_eq!(blocks_in_force(&running), "0");
    assert_eq!(running.probe(&lab, 0, 119)["action"]["verdict"], "ignored");
}

/// As `status` tells it.
fn blocks_in_force(running: &Running) -> String {
    let output = running.daemon.client(&["status"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let mut words = text.split_once("blocks in force").map_or(&text[..], |(_, rest)| rest).split_whitespace();
    words.next().unwrap().to_owned()
}

/// Somebody else owns a table of our name: the kernel takes nothing from us.
#[test]
fn a_host_that_the_firewall_will_not_protect_is_off_the_record_and_the_refusal_is_told() {
    let lab = Lab::new(1);
    let mut running = Running::start(&lab, BLOCKS);
    assert_eq!(running.probe(&lab, 0, 111)["action"]["verdict"], "blocked");
    let mut owner = Command::new("ip")
        .args(["netns", "exec", &lab.target(), "nft", "-i"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = owner.stdin.take().unwrap();
    running.daemon.unseen_by_the_helper(|| {
        let lines = b"delete table inet portsentry\nadd table inet portsentry { flags owner ; }\n";
        stdin.write_all(lines).unwrap();
        eventually("the table is another's", PATIENCE, || lab.nft_table().contains("flags owner"));
    });
    running.reload(MINE, "NEVER_BLOCK=\"192.0.2.9 10.77.0.0/24");
    let told = running.daemon.wait_for("the refusal", |event| event["event_type"] == "error");
    let error = told["error"].as_str().unwrap();
    assert!(error.starts_with("NEVER_BLOCK: the helper could not protect"), "{error}");
    assert!(error.contains("(1, first 10.77.0.0/24): the firewall did not take them"), "{error}");
    running.daemon.wait_for("the end of the block", |event| event["event_type"] == "unblock");
    assert_eq!(blocks_in_force(&running), "0");
    let listed = running.daemon.client(&["list"]);
    assert!(!String::from_utf8_lossy(&listed.stdout).contains("10.77.0.2"), "{listed:?}");
    drop(stdin);
    owner.wait().unwrap();
}

/// None of them touches another, so that the kernel has each.
fn many(from: u32, count: u32) -> String {
    (from..from + count).map(|at| format!("{}\n", std::net::Ipv4Addr::from(0x0b00_0000 + 2 * at))).collect()
}

#[test]
fn thousands_that_are_added_to_the_ignore_file_keep_no_block_waiting() {
    let lab = Lab::new(1);
    let setup = Setup::new(&lab, "");
    let file = setup.path("ignore");
    std::fs::write(&file, many(0, 5_000)).unwrap();
    setup.rewrite(&format!("{BLOCKS}\nIGNORE_FILE=\"{}\"", file.display()));
    let mut daemon = setup.start();
    std::fs::write(&file, many(0, 8_000)).unwrap();
    daemon.signal(nix::sys::signal::Signal::SIGHUP);
    let begun = Instant::now();
    assert!(daemon.client(&["block", "203.0.113.7"]).status.success());
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(2), "a block waited for {took:?}");
    let last = many(7_999, 1);
    eventually("the kernel has the last of them", PATIENCE, || {
        let set = lab.on_target(&["nft", "list", "set", "inet", "portsentry", "never4"]);
        String::from_utf8_lossy(&set.stdout).contains(last.trim())
    });
    daemon.catch_up();
    assert!(daemon.seen.iter().all(|event| event["event_type"] != "error"), "{:#?}", daemon.seen);
}

/// The modes are right: it is Landlock that refuses, and no chmod helps.
#[test]
fn an_ignore_file_in_a_folder_that_the_running_daemon_may_not_open_takes_a_restart_and_is_told_so() {
    let lab = Lab::new(0);
    let mut running = Running::start(&lab, BLOCKS);
    let elsewhere = tempfile::tempdir().unwrap();
    std::fs::set_permissions(elsewhere.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let beside = running.config.with_file_name("ignore");
    for (path, kind) in [(elsewhere.path().join("ignore"), "error"), (beside, "reload")] {
        std::fs::write(&path, "192.0.2.10\n").unwrap();
        running.reload(MINE, &format!("IGNORE_FILE=\"{}\"\n{MINE}", path.display()));
        let told = running.daemon.wait_for_new("the outcome", |event| {
            ["error", "reload"].contains(&event["event_type"].as_str().unwrap_or_default())
        });
        assert_eq!(told["event_type"], kind, "{told}");
        let error = told["error"].as_str().unwrap_or_default();
        assert_eq!(
            error.contains("restart: while it runs it may open nothing outside"),
            kind == "error",
            "{told}"
        );
    }
}

#[test]
fn each_reload_tells_its_outcome_and_status_shows_what_is_watched_since() {
    let lab = Lab::new(1);
    let mut running = Running::start(&lab, BLOCKS);
    let is = |kind: &'static str| move |event: &Value| event["event_type"] == kind;
    // The same mistake twice within a minute.
    for _ in 0..2 {
        running.reload("TCP_PORTS=\"111,119\"", "TCP_PORTS=\"x\"");
        let told = running.daemon.wait_for_new("the mistake", is("error"));
        let error = told["error"].as_str().unwrap();
        assert!(error.starts_with("the configuration was not read again"), "{error}");
        assert!(!error.contains("more error"), "there is one: {error}");
    }
    for _ in 0..2 {
        running.reload("TCP_PORTS=\"111,119\"", "TCP_PORTS=\"111,120\"\nWORKERS=\"1\"");
        let told = running.daemon.wait_for_new("what waits", is("error"));
        assert_eq!(told["error"], "changed, but in force only after a restart: WORKERS");
        let told = running.daemon.wait_for_new("the reload", is("reload"));
        assert_eq!(told["start"]["tcp_ports"], "111,120", "{told}");
    }
    let status = running.daemon.client(&["status"]);
    let status = String::from_utf8(status.stdout).unwrap();
    assert!(status.contains("111,120") && !status.contains("111,119"), "{status}");
    let status: Value = serde_json::from_slice(&running.daemon.client(&["status", "--json"]).stdout).unwrap();
    assert_eq!(status["start"]["tcp_ports"], "111,120", "{status}");
    assert!(status["since"].is_u64() && status["stats"]["packets"].is_u64(), "{status}");

    running.reload(MINE, "NEVER_BLOCK=\"192.0.2.8");
    let told = running.daemon.wait_for_new("what stays", is("error"));
    assert_eq!(
        told["error"],
        "taken out of NEVER_BLOCK or the ignore file, but never blocked until a restart: 1, first 192.0.2.9/32"
    );
    running.daemon.wait_for_new("the reload", is("reload"));
    assert!(!running.daemon.client(&["block", "192.0.2.9"]).status.success());
    running.reload("", "");
    running.daemon.wait_for_new("what stays of the second", is("error"));
}
