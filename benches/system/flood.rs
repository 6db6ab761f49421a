//! A flood of SYNs from spoofed sources over a real interface: what comes through, and what it costs.
//!
//! The receiving kernel works within the sender's own calls, so its cost shows in the sender's speed: hence the row
//! without a daemon, and with a daemon the same row again.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use portsentry::control::client::ask;
use portsentry::control::{ControlReply, ControlRequest};
use portsentry::event::Stats;

use super::Effort;
use super::figures::{Figures, median, spread};
use super::process::{cpu, cpu_of_first_thread};
use super::sender;
use super::support::daemon::{Daemon, Setup};
use super::support::{Lab, inside};

const PORT: u16 = 111;
const PACE: u32 = 100_000;

/// One flood with a daemon.
pub struct Outcome {
    pub sent: f64,
    pub sending: Duration,
    /// From the first packet sent to the last one judged.
    judging: Duration,
    packets: f64,
    pub drops: f64,
    pub sensor: Duration,
    /// Of it, the thread that decides, asks and tells; the others read the rings.
    first_thread: Duration,
    helper: Duration,
    growth: f64,
    pub slowest_status: Duration,
}

/// Adds the rows.
pub fn measure(effort: Effort, figures: &mut Figures) {
    for (pace, packets) in [(None, effort.flood), (Some(PACE), effort.flood / 10)] {
        let speed = pace.map_or("as fast as one core sends".to_owned(), |pace| format!("{pace} a second"));
        figures.part(&format!("Flood of {packets} spoofed SYNs to a watched port, {speed}"));
        let (mut bare, mut one, mut two) = (Vec::new(), Vec::new(), Vec::new());
        // In turn, for the machine is not the same from one minute to the next.
        for _ in 0..effort.repeats {
            bare.push(without(packets, pace));
            one.push(with(1, packets, pace));
            two.push(with(2, packets, pace));
        }
        figures.add("no daemon: sent", median(&bare), "k packets/s", spread(&bare));
        rows(figures, "1 ring thread: ", &one, median(&bare));
        rows(figures, "2 ring threads: ", &two, median(&bare));
    }
}

fn rows(figures: &mut Figures, who: &str, outcomes: &[Outcome], bare: f64) {
    let each = |of: fn(&Outcome) -> f64| -> Vec<f64> { outcomes.iter().map(of).collect() };
    let mut add = |what: &str, of: fn(&Outcome) -> f64, unit, note: &str| {
        let values = each(of);
        figures.add(format!("{who}{what}"), median(&values), unit, format!("{note}{}", spread(&values)));
    };
    let sent = median(&each(|it| it.sent / it.sending.as_secs_f64() / 1e3));
    add(
        "sent",
        |it| it.sent / it.sending.as_secs_f64() / 1e3,
        "k packets/s",
        &format!("{:.2} of no daemon; ", sent / bare),
    );
    add("ring → verdict", |it| it.packets / it.judging.as_secs_f64() / 1e3, "k packets/s", "");
    add("dropped for want of room in the ring", |it| 100.0 * it.drops / it.sent, "%", "");
    add("lost before the ring", |it| 100.0 * (it.sent - it.packets - it.drops) / it.sent, "%", "");
    add("sensor, per million sent", |it| it.sensor.as_secs_f64() * 1e6 / it.sent, "s CPU", "target ≤ 0.5; ");
    add(
        "ring threads of it",
        |it| (it.sensor.saturating_sub(it.first_thread)).as_secs_f64() * 1e6 / it.sent,
        "s CPU",
        "",
    );
    add("helper, per million sent", |it| it.helper.as_secs_f64() * 1e6 / it.sent, "s CPU", "");
    add("growth of both", |it| it.growth, "KiB", "target ≤ 1024; ");
    add("slowest answer to `status`", |it| it.slowest_status.as_secs_f64() * 1e3, "ms", "target ≤ 100; ");
}

/// Thousands of packets a second that the sender achieves when nobody listens.
fn without(packets: u32, pace: Option<u32>) -> f64 {
    let lab = Lab::new(1);
    let target = lab.peer(0).target_v4;
    let spent = inside(&lab.peer(0).netns, || sender::flood(target, PORT, packets, pace));
    f64::from(packets) / spent.as_secs_f64() / 1e3
}

/// `packets` at `pace` a second, or as fast as it goes.
pub fn with(workers: u32, packets: u32, pace: Option<u32>) -> Outcome {
    let lab = Lab::new(1);
    let config = format!("TCP_PORTS=\"{PORT}\"\nBLOCK_TCP=\"1\"\nWORKERS=\"{workers}\"\nTRIPWIRE=\"0\"");
    let daemon = Setup::new(&lab, &config).start();
    let (target, netns) = (lab.peer(0).target_v4, lab.peer(0).netns.clone());
    let (first, memory) = (stats(&daemon), daemon.memory());
    let (sensor, helper) = (cpu(daemon.pid()), cpu(daemon.helper_pid()));
    let first_thread = cpu_of_first_thread(daemon.pid());
    let begun = Instant::now();
    let sending = std::thread::spawn(move || inside(&netns, || sender::flood(target, PORT, packets, pace)));
    let slowest_status = watch_status(&daemon, || sending.is_finished());
    let sending = sending.join().expect("the flood was sent");
    let (last, finished) = settled(&daemon);
    Outcome {
        sent: f64::from(packets),
        sending,
        judging: finished - begun,
        packets: (last.packets - first.packets) as f64,
        drops: (last.drops - first.drops) as f64,
        sensor: cpu(daemon.pid()).saturating_sub(sensor),
        first_thread: cpu_of_first_thread(daemon.pid()).saturating_sub(first_thread),
        helper: cpu(daemon.helper_pid()).saturating_sub(helper),
        growth: daemon.memory() as f64 - memory as f64,
        slowest_status,
    }
}

fn stats(daemon: &Daemon) -> Stats {
    let replies = ask(&daemon.path("run/control.sock"), &ControlRequest::Status).expect("the daemon answers");
    match replies.into_iter().next() {
        Some(ControlReply::Status(status)) => status.stats,
        other => panic!("no status: {other:?}"),
    }
}

/// Asks for the status now and then until `done`; the longest that an answer took.
fn watch_status(daemon: &Daemon, done: impl Fn() -> bool) -> Duration {
    let mut slowest = Duration::ZERO;
    while !done() {
        let asked = Instant::now();
        stats(daemon);
        slowest = slowest.max(asked.elapsed());
        std::thread::sleep(Duration::from_millis(50));
    }
    slowest
}

/// The counts once they stand still, and when the last of them was new.
fn settled(daemon: &Daemon) -> (Stats, Instant) {
    let (mut last, mut finished) = (stats(daemon), Instant::now());
    while finished.elapsed() < Duration::from_millis(50) {
        std::thread::sleep(Duration::from_millis(1));
        let now = stats(daemon);
        if (now.packets, now.drops, now.probes) != (last.packets, last.drops, last.probes) {
            (last, finished) = (now, Instant::now());
        }
    }
    (last, finished)
}
