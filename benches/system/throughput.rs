//! One TCP stream between two hosts, for each contender in turn.
#![forbid(unsafe_code)]

use std::process::{Command, Stdio};
use std::time::Duration;

use super::Effort;
use super::contender::Contender;
use super::figures::Figures;
use super::support::{Lab, eventually};

/// iperf3's own.
const PORT: &str = ":5201";

/// Adds the rows. Before and after each contender's stream there is one without a daemon, and the contender's is held
/// against the mean of both; nobody's ratio shows what doing nothing varies by.
pub fn measure(effort: Effort, figures: &mut Figures) {
    let (mut speeds, mut ratios): ([Vec<f64>; 4], [Vec<f64>; 4]) = Default::default();
    let mut before = stream(effort, Contender::Nobody);
    for _ in 0..effort.streams {
        for (column, contender) in Contender::ALL.into_iter().enumerate() {
            let with = stream(effort, contender);
            let after = stream(effort, Contender::Nobody);
            speeds[column].push(with);
            ratios[column].push(with / f64::midpoint(before, after));
            before = after;
        }
    }
    figures.compare("one TCP stream", "", "Gbit/s", speeds);
    figures.compare("of it without a daemon before and after", "≥ 0.98", "", ratios);
}

fn stream(effort: Effort, contender: Contender) -> f64 {
    let lab = Lab::new(1);
    let (peer, target) = (lab.peer(0), lab.target());
    let running = contender.start(&lab);
    let mut server = Command::new("ip")
        .args(["netns", "exec", &target, "iperf3", "-s", "-1"])
        .stdout(Stdio::null())
        .spawn()
        .expect("iperf3 is installed");
    let listens = || String::from_utf8_lossy(&lab.on_target(&["ss", "-Hltn"]).stdout).contains(PORT);
    eventually("the server listens", Duration::from_secs(10), listens);
    running.settle();
    let seconds = effort.stream_seconds.to_string();
    let output = peer.run(&["iperf3", "-J", "-c", &peer.target_v4.to_string(), "-t", &seconds]);
    server.wait().expect("the server ends after one client");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("iperf3 reports in JSON");
    report["end"]["sum_received"]["bits_per_second"].as_f64().expect("a rate") / 1e9
}
