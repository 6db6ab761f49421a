//! Promise: what happens to a daemon in days of service happens to it within the strict cage, and it goes on watching.
//! Needs root.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;
use support::daemon::{Daemon, PATIENCE, Setup, alive, client, kill, suspend};
use support::service::{Service, answers};
use support::tracer::{self, Tracer};
use support::{Lab, eventually, ip};

/// A scan of `port` from peer `index` is seen and told.
fn scan_is_seen(lab: &Lab, daemon: &mut Daemon, index: usize, port: &str) {
    let peer = lab.peer(index);
    peer.nmap(&["-sS", &format!("-p{port}"), &peer.target_v4.to_string()]);
    let source = peer.v4.to_string();
    daemon.wait_for_new("the scan", |event| {
        event["event_type"] == "scan" && event["src_ip"] == source.as_str()
    });
}

/// Both processes live, and still within their cages.
fn still_caged(daemon: &Daemon) {
    for process in [daemon.pid(), daemon.helper_pid()] {
        assert!(alive(process));
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
        assert!(status.contains("Seccomp:\t2"), "{status}");
    }
}

#[test]
fn addresses_interfaces_and_services_come_and_go() {
    let lab = Lab::new(3);
    let mut daemon =
        Setup::new(&lab, "TCP_PORTS=\"1,7\"\nDECOY_TCP_PORTS=\"23\"\nWORKERS=\"2\"\nINTERFACES=\"p0 p1 p2\"")
            .start();
    let target = lab.target();
    ip(&["-n", &target, "address", "add", "10.99.0.1/24", "dev", "p0"]);
    ip(&["-n", &target, "address", "del", "10.99.0.1/24", "dev", "p0"]);
    ip(&["-n", &target, "link", "set", "p0", "down"]);
    ip(&["-n", &target, "link", "set", "p0", "up"]);
    // Watched interfaces by name: one that is made anew has another index, and the rings take another filter.
    ip(&["-n", &target, "link", "del", "p1"]);
    lab.connect(lab.peer(1));
    daemon.catch_up();
    scan_is_seen(&lab, &mut daemon, 1, "1");
    // One that takes another name is watched no more; the rest are.
    ip(&["-n", &target, "link", "set", "p1", "name", "gone"]);
    daemon.catch_up();
    scan_is_seen(&lab, &mut daemon, 0, "1");
    a_service_comes_and_goes(&lab, &mut daemon);
    still_caged(&daemon);
}

/// Whoever calls on it has the daemon look: it is in use, and in use no more.
fn a_service_comes_and_goes(lab: &Lab, daemon: &mut Daemon) {
    let client = lab.peer(2);
    let service = Service::start(&lab.target(), 7);
    assert!(answers(&client.netns, client.target(false), 7, PATIENCE));
    daemon.catch_up();
    let source = client.v4.to_string();
    assert_eq!(daemon.events_of("scan", &source).count(), 0, "{:#?}", daemon.seen);
    drop(service);
    // For a minute it may only be starting again.
    eventually("its port is watched again", PATIENCE + Duration::from_secs(60), || {
        client.nmap(&["-sS", "-p7", &client.target_v4.to_string()]);
        daemon.catch_up();
        daemon.events_of("scan", &source).count() > 0
    });
}

#[test]
fn a_suspended_daemon_goes_on_where_it_stopped() {
    let lab = Lab::new(1);
    let mut daemon = Setup::new(&lab, "TCP_PORTS=\"1\"\nBLOCK_TCP=\"1\"\nBLOCK_TIME=\"1h\"").start();
    let (sensor, helper) = (daemon.pid(), daemon.helper_pid());
    assert!(daemon.client(&["block", "203.0.113.9"]).status.success());
    suspend(sensor);
    suspend(helper);
    kill(sensor, Signal::SIGCONT);
    kill(helper, Signal::SIGCONT);
    scan_is_seen(&lab, &mut daemon, 0, "1");
    still_caged(&daemon);
}

/// As with 2.x's history in /var/log: the daemon's user may make nothing there. `check` says so; the start calls nothing an
/// error that logrotate does.
#[test]
fn logrotate_with_our_file_is_followed_where_the_daemon_may_make_no_file() {
    followed_by("portsentry-rs");
}

/// As docs/migrating.md has it.
#[test]
fn logrotate_is_followed_by_a_daemon_that_a_link_by_portsentrys_name_started() {
    followed_by("portsentry");
}

fn followed_by(name: &str) {
    let lab = Lab::new(2);
    let setup = Setup::new(&lab, "");
    let (history, rotated) = (setup.path("log/history"), setup.path("log/history.1"));
    std::fs::create_dir(setup.path("log")).unwrap();
    setup.rewrite(&format!("TCP_PORTS=\"1,9\"\nHISTORY_FILE=\"{}\"", history.display()));
    let told = String::from_utf8(setup.run(&["check"]).stderr).unwrap();
    assert!(told.contains("may not make HISTORY_FILE") && told.contains("let logrotate create it"), "{told}");
    let program = setup.path(name);
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_portsentry-rs"), &program).unwrap();
    let mut daemon = setup.start_program(&program, &[]);
    scan_is_seen(&lab, &mut daemon, 0, "1");

    let user = std::fs::metadata(&history).unwrap().uid().to_string();
    let name = Command::new("id").args(["-un", &user]).output().unwrap();
    let ours = include_str!("../config/logrotate")
        .replace("/var/log/portsentry-rs/history", &history.display().to_string())
        .replace("portsentry adm", &format!("{} root", String::from_utf8(name.stdout).unwrap().trim()));
    std::fs::write(daemon.path("logrotate"), ours).unwrap();
    let path = programs_that_mean(&daemon);
    let mut bystander =
        Command::new(daemon.path("programs/else/portsentry-rs")).arg0("sleep").arg("600").spawn().unwrap();
    let mut logrotate = Command::new("logrotate");
    logrotate.arg("--force").arg("--state").arg(daemon.path("status")).arg(daemon.path("logrotate"));
    let output = logrotate.env("PATH", path).output().expect("logrotate is installed: make test sees to it");
    assert!(output.status.success() && rotated.exists(), "{output:?}");
    daemon.wait_for("a reload", |event| event["event_type"] == "reload");
    assert!(bystander.try_wait().unwrap().is_none(), "what else is called so has nothing to do with it");
    bystander.kill().unwrap();
    bystander.wait().unwrap();
    scan_is_seen(&lab, &mut daemon, 1, "9");
    eventually("its line is in the new file", PATIENCE, || {
        std::fs::read_to_string(&history).unwrap().contains("port: [9]")
    });
    assert!(!std::fs::read_to_string(&rotated).unwrap().contains("port: [9]"));
    assert!(!daemon.seen.iter().any(|event| event["event_type"] == "error"), "{:#?}", daemon.seen);
}

/// A PATH on which `portsentry-rs` asks `daemon`, and no unit is that of this machine's systemd; and beside it a program
/// that is called so and does nothing.
fn programs_that_mean(daemon: &Daemon) -> String {
    let folder = daemon.path("programs");
    std::fs::create_dir_all(folder.join("else")).unwrap();
    std::fs::copy("/usr/bin/sleep", folder.join("else/portsentry-rs")).unwrap();
    let (program, config) = (env!("CARGO_BIN_EXE_portsentry-rs"), daemon.path("portsentry.conf"));
    let ours = format!("exec {program} \"$@\" -c {}", config.display());
    for (name, script) in [("portsentry-rs", &*ours), ("systemctl", "exit 3")] {
        std::fs::write(folder.join(name), format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(folder.join(name), PermissionsExt::from_mode(0o755)).unwrap();
    }
    format!("{}:{}", folder.display(), std::env::var("PATH").unwrap())
}

#[test]
fn the_history_file_is_rotated_and_the_configuration_replaced() {
    let lab = Lab::new(2);
    let setup = Setup::new(&lab, "TCP_PORTS=\"1\"\nBLOCK_TCP=\"1\"");
    let (config, ignore) = (setup.path("portsentry.conf"), setup.path("ignore"));
    let (history, rotated) = (setup.path("log/history"), setup.path("log/history.1"));
    std::fs::write(&ignore, "").unwrap();
    let mut text = std::fs::read_to_string(&config).unwrap();
    text.push_str(&format!("HISTORY_FILE=\"{}\"\nIGNORE_FILE=\"{}\"\n", history.display(), ignore.display()));
    std::fs::write(&config, &text).unwrap();
    std::fs::create_dir(setup.path("log")).unwrap();
    // logrotate's `create` mode: the folder is the daemon's own.
    std::os::unix::fs::chown(setup.path("log"), Some(65534), Some(65534)).unwrap();
    let mut daemon = setup.start();
    let helper = daemon.helper_pid();

    std::fs::rename(&history, &rotated).unwrap();
    // Replaced as editors do it: a new file takes the place of the old one.
    let replaced = text.replace("TCP_PORTS=\"1\"", "TCP_PORTS=\"9\"\nWORKERS=\"1\"");
    for (path, text) in [(&config, replaced), (&ignore, format!("{}\n", lab.peer(1).v4))] {
        std::fs::write(path.with_extension("new"), text).unwrap();
        std::fs::rename(path.with_extension("new"), path).unwrap();
    }
    daemon.signal(Signal::SIGHUP);
    let named = daemon.wait_for("what needs a restart", |event| event["event_type"] == "error");
    assert!(named["error"].as_str().unwrap().ends_with("after a restart: WORKERS"), "{named}");
    eventually("the history file is made anew", PATIENCE, || history.exists());
    scan_is_seen(&lab, &mut daemon, 0, "9");
    eventually("its line is in the new file", PATIENCE, || {
        std::fs::read_to_string(&history).unwrap().contains(&lab.peer(0).v4.to_string())
    });
    assert_eq!(std::fs::read_to_string(&rotated).unwrap(), "");
    lab.peer(1).nmap(&["-sS", "-p9", &lab.peer(1).target_v4.to_string()]);
    daemon.catch_up();
    assert!(!lab.is_blocked(lab.peer(1).v4), "{}", lab.nft_table());
    // The helper knows it too: nobody can have it blocked.
    assert!(!daemon.client(&["block", &lab.peer(1).v4.to_string()]).status.success());
    still_caged(&daemon);
    assert_eq!(daemon.helper_pid(), helper);
}

#[test]
fn a_configuration_with_an_error_changes_nothing_and_is_told() {
    let lab = Lab::new(1);
    let setup = Setup::new(&lab, "TCP_PORTS=\"1\"");
    let config = setup.path("portsentry.conf");
    let mut daemon = setup.start();
    std::fs::write(&config, "TCP_PORTS=\"x\"\n").unwrap();
    daemon.signal(Signal::SIGHUP);
    let told = daemon.wait_for("the error", |event| event["event_type"] == "error");
    assert!(told["error"].as_str().unwrap().contains("portsentry.conf:1:"), "{told}");
    scan_is_seen(&lab, &mut daemon, 0, "1");
}

#[test]
#[ignore = "run by the other tests, as a process of its own"]
fn the_tracer() {
    tracer::follow();
}

const HOUR: i64 = 3_600;
/// A scanner's block.
const SHORT: Duration = Duration::from_secs(6);
/// An operator's, seconds.
const LONG: i64 = 1_800;

/// Nobody sets this machine's clock: the daemon alone sees another one, in every answer that the kernel gives it.
#[test]
fn blocks_keep_their_length_when_the_wall_clock_is_set_by_hours() {
    let lab = Lab::new(3);
    let tracer = Tracer::new(false);
    let text = format!("TCP_PORTS=\"1\"\nBLOCK_TCP=\"1\"\nBLOCK_TIME=\"{}s\"", SHORT.as_secs());
    let setup = Setup::new(&lab, &text);
    let program = Path::new(env!("CARGO_BIN_EXE_portsentry-rs"));
    let mut daemon = setup.start_program_through(tracer.through(), program, &[]);
    assert!(daemon.client(&["block", "203.0.113.9", &LONG.to_string()]).status.success());
    for (index, ahead) in [0, 3 * HOUR, -5 * HOUR].into_iter().enumerate() {
        // Before the block is asked for: on a busy machine the test may hear of it seconds late.
        let begun = Instant::now();
        scan_is_seen(&lab, &mut daemon, index, "1");
        let source = lab.peer(index).v4.to_string();
        daemon.wait_for("the block", |event| is_about(event, "block", &source));
        tracer.set_wall_clock(ahead);
        // An operator's view of it, in the daemon's time; what has passed since is the test's own.
        let left = long_left(&daemon, "203.0.113.9", ahead);
        assert!((LONG - 60..=LONG + 1).contains(&left), "{left} s left, the clock set by {ahead}");
        daemon.wait_for("the end", |event| is_about(event, "unblock", &source));
        let lasted = begun.elapsed();
        assert!(lasted >= SHORT, "ended after {lasted:?}");
        assert!(!lab.is_blocked(lab.peer(index).v4), "{}", lab.nft_table());
        assert!(lab.nft_table().contains("203.0.113.9"));
    }
    the_time_of_events_is_the_clocks(&lab, &mut daemon, -5 * HOUR);
    still_caged(&daemon);
    assert_eq!(daemon.stop().0.code(), Some(0));
}

/// Neither is it over before it is told of, nor does it outlast its time by the hours. Commands cost the helper its cage.
#[test]
fn a_block_whose_command_runs_while_the_wall_clock_is_set_keeps_its_length() {
    for ahead in [3 * HOUR, -5 * HOUR] {
        let lab = Lab::new(1);
        let tracer = Tracer::new(false);
        let setup = Setup::new(&lab, "");
        let [runs, goes_on] = ["runs", "goes-on"].map(|name| setup.path(name));
        let wait =
            format!("touch {}; until [ -e {} ]; do sleep 0.05; done", runs.display(), goes_on.display());
        setup.rewrite(&format!(
            "TCP_PORTS=\"1\"\nKILL_ROUTE=\"[ $TARGET$ = 203.0.113.9 ] || {{ {wait}; }}\"\nCOMMAND_TIMEOUT=\"60s\""
        ));
        let program = Path::new(env!("CARGO_BIN_EXE_portsentry-rs"));
        let daemon = setup.start_program_through(tracer.through(), program, &[]);
        let (config, netns) = (daemon.path("portsentry.conf"), lab.target());
        let block = |target: &str| {
            let output = client(&config, &netns, &["block", target, &LONG.to_string()]);
            assert!(output.status.success(), "{output:?}");
        };
        block("203.0.113.9");
        std::thread::scope(|threads| {
            let slow = threads.spawn(|| block("203.0.113.10"));
            eventually("its command runs", PATIENCE, || runs.exists());
            tracer.set_wall_clock(ahead);
            long_left(&daemon, "203.0.113.9", ahead);
            std::fs::write(&goes_on, "").unwrap();
            slow.join().unwrap();
        });
        let left = long_left(&daemon, "203.0.113.10", ahead);
        assert!((LONG - 60..=LONG + 1).contains(&left), "{left} s left, the clock set by {ahead}");
        assert_eq!(daemon.stop().0.code(), Some(0));
    }
}

fn is_about(event: &Value, kind: &str, source: &str) -> bool {
    event["event_type"] == kind && event["src_ip"] == source
}

/// Seconds left of an operator's block, once the helper has seen the clock as it is now.
fn long_left(daemon: &Daemon, target: &str, ahead: i64) -> i64 {
    let mut left = 0;
    eventually("the list is in the daemon's time", PATIENCE, || {
        let listed = String::from_utf8(daemon.client(&["list", "--json"]).stdout).unwrap();
        let entries = listed.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let Some(entry) = entries.into_iter().find(|it| it["target"] == target) else { return false };
        left = entry["until"].as_i64().unwrap() - wall_clock() - ahead;
        (0..=2 * LONG).contains(&left)
    });
    left
}

/// Seconds since 1970 UTC, as this machine has it.
fn wall_clock() -> i64 {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_REALTIME).unwrap().tv_sec()
}

fn the_time_of_events_is_the_clocks(lab: &Lab, daemon: &mut Daemon, ahead: i64) {
    scan_is_seen(lab, daemon, 0, "1");
    let told = daemon.seen.last().unwrap()["timestamp"].as_str().unwrap();
    let told: jiff::Timestamp = told.parse().unwrap();
    let difference = told.as_second() - wall_clock() - ahead;
    assert!(difference.abs() < 60, "{told}: {difference} s from the daemon's clock");
}
