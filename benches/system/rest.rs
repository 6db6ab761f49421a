//! What a daemon does that has nothing to do: how often any of its threads is given a processor besides the watchdog's
//! questions, which the unit has come every 7.5 seconds (WatchdogSec=30).
#![forbid(unsafe_code)]

use std::os::unix::net::UnixDatagram;

use super::Effort;
use super::figures::Figures;
use super::support::Lab;
use super::support::daemon::Setup;

/// Signs of life in the time that a watchdog allows.
const BEATS: u64 = 4;
/// One for the sensor to ask, one for the helper to answer, and one for the sensor to hear it.
const TURNS: u64 = 3;

/// Adds the row.
pub fn measure(effort: Effort, figures: &mut Figures) {
    figures.part("At rest, somebody blocked, under a watchdog as systemd's");
    let lab = Lab::new(1);
    let setup = Setup::new(&lab, "TCP_PORTS=\"1-1024\"\nUDP_PORTS=\"1-1024\"");
    let path = setup.path("notify");
    let manager = UnixDatagram::bind(&path).expect("a socket");
    let beat = || while !received(&manager).starts_with(b"WATCHDOG=1") {};
    let limit = format!("WATCHDOG_USEC={}", effort.rest_seconds * 1_000_000);
    let mut daemon = setup.start_through("env", &[format!("NOTIFY_SOCKET={}", path.display()), limit]);
    assert!(daemon.client(&["block", "198.51.100.9"]).status.success(), "he is blocked");
    daemon.catch_up();
    beat();
    let before = daemon.turns();
    (0..BEATS).for_each(|_| beat());
    let woken = daemon.turns() - before;
    let what = format!(
        "wake-ups of all threads in {} s, without the watchdog's {}",
        effort.rest_seconds,
        BEATS * TURNS
    );
    figures.add(what, woken as f64 - (BEATS * TURNS) as f64, "times", "target none");
}

fn received(manager: &UnixDatagram) -> Vec<u8> {
    let mut told = vec![0; 512];
    let length = manager.recv(&mut told).expect("the manager is told");
    told.truncate(length);
    told
}
