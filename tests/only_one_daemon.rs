//! Promise: a second daemon where there can be one does not start, says whose process the other is, and leaves the
//! other's table and ledger alone. Needs root.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::io::Read;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use nix::sys::signal::Signal;
use support::daemon::{Daemon, PATIENCE, Setup, kill, suspend};
use support::{Lab, eventually, netns_run};

const LINES: &str = "TCP_PORTS=\"1\"\nBLOCK_TCP=\"1\"\nBLOCK_TIME=\"1h\"";

fn blocking(lab: &Lab) -> Daemon {
    let daemon = Setup::new(lab, LINES).start();
    assert!(daemon.client(&["block", "203.0.113.9"]).status.success());
    daemon
}

/// A daemon in `netns` that ends by itself, as it must.
fn second(netns: &str, config: &Path) -> Output {
    let config = config.display().to_string();
    netns_run(netns, &["timeout", "20", env!("CARGO_BIN_EXE_portsentry-rs"), "-c", &config])
}

/// It gave up over `place`, naming `process`, and the first daemon is as it was.
fn gave_up(output: &Output, place: &str, process: u32, lab: &Lab, first: &mut Daemon) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(said.contains(place) && said.contains(&format!("process {process}")), "{said}");
    assert!(lab.nft_table().contains("203.0.113.9"), "{}", lab.nft_table());
    let listed = first.client(&["list"]);
    assert!(String::from_utf8_lossy(&listed.stdout).contains("203.0.113.9"), "{listed:?}");
    assert!(first.try_wait().is_none());
}

/// How many connections wait in the queue of the name by which daemons notice each other.
fn questions(lab: &Lab) -> String {
    let listed = netns_run(&lab.target(), &["ss", "-Hxl"]).stdout;
    let listed = String::from_utf8(listed).unwrap();
    let line = listed.lines().find(|line| line.contains("@portsentry-rs/inet portsentry")).unwrap();
    line.split_whitespace().nth(2).unwrap().to_owned()
}

#[test]
fn in_the_same_network_namespace_with_all_else_apart() {
    let lab = Lab::new(1);
    let mut first = blocking(&lab);
    let other = Setup::new(&lab, LINES);
    let output = second(&lab.target(), &other.path("portsentry.conf"));
    let helper = first.helper_pid();
    gave_up(&output, "another daemon is at work in this network namespace", helper, &lab, &mut first);
    assert_eq!(questions(&lab), "1", "a service manager that tries for hours must not fill the queue");
}

#[test]
fn on_the_same_state_in_another_network_namespace() {
    let lab = Lab::new(1);
    let mut first = blocking(&lab);
    let (config, other) = (first.path("portsentry.conf"), first.path("other.conf"));
    let text = std::fs::read_to_string(config).unwrap().replace("control.sock", "other.sock");
    std::fs::write(&other, text).unwrap();
    let output = second(&lab.peer(0).netns, &other);
    let helper = first.helper_pid();
    gave_up(&output, "another daemon is at work in this STATE_DIR", helper, &lab, &mut first);
    let there = lab.peer(0).run(&["nft", "list", "tables"]);
    assert!(!String::from_utf8_lossy(&there.stdout).contains("portsentry"), "{there:?}");
}

#[test]
fn on_the_same_control_socket() {
    let lab = Lab::new(1);
    let mut first = blocking(&lab);
    let config = first.path("portsentry.conf");
    let output = second(&lab.target(), &config);
    let sensor = first.pid();
    gave_up(&output, "Another daemon", sensor, &lab, &mut first);
}

#[test]
fn a_daemon_takes_the_place_of_one_that_was_just_killed() {
    let lab = Lab::new(1);
    let mut first = blocking(&lab);
    let helper = first.helper_pid();
    suspend(helper);
    first.signal(Signal::SIGKILL);
    first.wait();
    // The helper of the killed one does not notice before the next one's has found the name taken.
    let next = std::thread::scope(|scope| {
        scope.spawn(|| {
            eventually("the next one has asked who is there", PATIENCE, || questions(&lab) == "1");
            kill(helper, Signal::SIGCONT);
        });
        first.into_setup().start()
    });
    let listed = next.client(&["list"]);
    assert!(String::from_utf8_lossy(&listed.stdout).contains("203.0.113.9"), "{listed:?}");
}

/// Anybody may hold the name by which daemons notice each other; that must not keep the first one from starting.
#[test]
fn a_strangers_socket_of_that_name_keeps_nobody_out() {
    let lab = Lab::new(1);
    let script = "import os, socket, time; os.setuid(4242); it = socket.socket(socket.AF_UNIX); \
                  it.bind('\\0portsentry-rs/inet portsentry'); it.listen(); print(flush=True); time.sleep(600)";
    let mut stranger = Command::new("ip")
        .args(["netns", "exec", &lab.target(), "python3", "-c", script])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    stranger.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    drop(blocking(&lab));
    let _ = stranger.kill();
    let _ = stranger.wait();
}
