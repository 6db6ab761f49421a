//! At rest nothing wakes the helper but the watchdog's questions: the looks at the firewall go along with them.

mod support;

use std::os::unix::net::UnixDatagram;

use support::Lab;
use support::daemon::{Daemon, PATIENCE, Setup};

/// Four beats to this, each a little more than half the time between two looks: the unit's are three quarters of it.
const WATCHDOG_USEC: u64 = 22_400_000;
const BEATS: u64 = 4;

/// Waits for the next sign of life.
fn beat(manager: &UnixDatagram) {
    let mut told = [0; 512];
    loop {
        let length = manager.recv(&mut told).expect("the watchdog is told");
        if told[..length].starts_with(b"WATCHDOG=1") {
            return;
        }
    }
}

/// How often the helper went to sleep, now that all of the daemon sleeps (proc_pid_status(5)).
fn sleeps(daemon: &Daemon) -> u64 {
    daemon.turns();
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.helper_pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    line.and_then(|number| number.trim().parse().ok()).expect("a number")
}

#[test]
fn the_helper_is_woken_by_the_watchdog_alone() {
    let lab = Lab::new(1);
    let setup = Setup::new(&lab, "TCP_PORTS=\"111\"\nBLOCK_TCP=\"1\"");
    let socket = setup.path("notify");
    let manager = UnixDatagram::bind(&socket).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let variables = [format!("NOTIFY_SOCKET={}", socket.display()), format!("WATCHDOG_USEC={WATCHDOG_USEC}")];
    let daemon = setup.start_through("env", &variables);
    assert!(daemon.client(&["block", "198.51.100.9"]).status.success());
    // What is new in the lab (its addresses) has been told by then.
    beat(&manager);
    let before = sleeps(&daemon);
    (0..BEATS).for_each(|_| beat(&manager));
    let woken = sleeps(&daemon) - before;
    assert!(woken <= BEATS + 1, "woken {woken} times in {BEATS} beats, in which two looks were due");
    // And the looks were taken: what somebody takes away comes back with one.
    assert!(lab.on_target(&["nft", "delete", "table", "inet", "portsentry"]).status.success());
    beat(&manager);
    beat(&manager);
    assert!(lab.nft_table().contains("198.51.100.9"), "{}", lab.nft_table());
}
