//! What a daemon does that has nothing to do: how often any of its threads is given a processor.
#![forbid(unsafe_code)]

use std::time::Duration;

use super::Effort;
use super::figures::Figures;
use super::support::Lab;
use super::support::daemon::Setup;

/// Adds the row.
pub fn measure(effort: Effort, figures: &mut Figures) {
    figures.part("At rest, somebody blocked; no service manager here asks for the watchdog's wake-ups");
    let lab = Lab::new(1);
    let mut daemon = Setup::new(&lab, "TCP_PORTS=\"1-1024\"\nUDP_PORTS=\"1-1024\"").start();
    assert!(daemon.client(&["block", "198.51.100.9"]).status.success(), "he is blocked");
    daemon.catch_up();
    let before = daemon.turns();
    std::thread::sleep(Duration::from_secs(effort.rest_seconds));
    let woken = daemon.turns() - before;
    let what = format!("wake-ups of all threads in {} s", effort.rest_seconds);
    figures.add(
        what,
        woken as f64,
        "times",
        "the helper looks at the firewall every ten seconds: target none else",
    );
}
