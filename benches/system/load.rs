//! Cost against load: the same flood at ever higher speed.
#![forbid(unsafe_code)]

use super::Effort;
use super::figures::Figures;
use super::flood::{self, Outcome};
use super::sender::BATCH;
use super::support::plot::{Axis, Plot};

const PACES: [u32; 7] = [1_000, 5_000, 20_000, 50_000, 100_000, 200_000, u32::MAX];

/// Adds the rows, and the plot.
pub fn measure(effort: Effort, figures: &mut Figures) {
    figures
        .part("Cost against load: spoofed SYNs to a watched port, each speed for about a second; tripwire 0");
    let (mut cpu, mut drops, mut status) = (Vec::new(), Vec::new(), Vec::new());
    for pace in PACES {
        let limit = (pace != u32::MAX).then_some(pace);
        let packets = (pace.min(effort.flood).div_ceil(BATCH as u32)) * BATCH as u32;
        let Outcome { sent, sending, sensor, drops: lost, slowest_status, .. } =
            flood::with(1, packets, limit);
        let rate = sent / sending.as_secs_f64();
        let percent = 100.0 * sensor.as_secs_f64() / sending.as_secs_f64();
        figures.add(
            format!("{rate:.0} packets/s"),
            percent,
            "% of a core",
            format!("{:.1} % dropped", 100.0 * lost / sent),
        );
        cpu.push((rate, percent));
        drops.push((rate, 100.0 * lost / sent));
        status.push((rate, slowest_status.as_secs_f64() * 1e3));
    }
    let plot = Plot {
        title: "Cost against load: spoofed SYNs to a watched port",
        x: Axis { label: "packets a second", logarithmic: true },
        y: Axis { label: "", logarithmic: false },
        lines: vec![("sensor, % of a core", cpu), ("dropped, %", drops), ("slowest status, ms", status)],
    };
    figures.plot("load", &plot.svg());
}
