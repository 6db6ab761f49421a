//! From exec to the `start` event, when every port is watched and both processes are confined; and what both weigh then.
#![forbid(unsafe_code)]

use std::time::Instant;

use super::Effort;
use super::figures::{Figures, median, spread};
use super::support::daemon::Setup;
use super::support::{Lab, resident};

/// Adds the rows.
pub fn measure(effort: Effort, figures: &mut Figures) {
    figures.part("Start");
    let lab = Lab::new(1);
    let bare: Vec<f64> = (0..effort.starts).map(|_| millis(|| drop(lab.on_target(&["true"])))).collect();
    let (mut times, mut memory) = (Vec::new(), Vec::new());
    for _ in 0..effort.starts {
        let setup = Setup::new(&lab, "TCP_PORTS=\"1-1024\"\nUDP_PORTS=\"1-1024\"");
        let begun = Instant::now();
        let daemon = setup.start();
        times.push(begun.elapsed().as_secs_f64() * 1e3);
        memory.push((resident(daemon.pid()) as f64, resident(daemon.helper_pid()) as f64));
        daemon.stop();
    }
    let ready: Vec<f64> = times.iter().map(|time| time - median(&bare)).collect();
    figures.add("start → ready (target ≤ 50)", median(&ready), "ms", spread(&ready));
    figures.compare("start → ready, TRIPWIRE at its default", "≤ 50", "ms", [vec![], vec![], ready, vec![]]);
    figures.add("left out above: `ip netns exec` itself", median(&bare), "ms", spread(&bare));
    let (sensor, helper): (Vec<f64>, Vec<f64>) = memory.into_iter().unzip();
    figures.add("memory of the sensor", median(&sensor), "KiB", "resident");
    figures.add("memory of the helper", median(&helper), "KiB", "resident; target of both: ≤ 8192");
}

fn millis(action: impl FnOnce()) -> f64 {
    let begun = Instant::now();
    action();
    begun.elapsed().as_secs_f64() * 1e3
}
