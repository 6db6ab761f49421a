//! The daemon as it is built, measured from outside: `make bench`, or in under a minute `make bench-quick`.
//!
//! Prints one table and writes it to bench-results/. Everything runs in network namespaces made here, on one machine
//! and in one run, so that the rows can be held against one another. Needs root.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a bench that cannot go on should say so and end"
)]

mod blocked;
mod contender;
mod contest;
mod figures;
mod flood;
mod latency;
mod load;
mod machine;
mod memory;
mod process;
mod rest;
mod sender;
mod size;
mod start;
#[path = "../../tests/support/mod.rs"]
mod support;
mod throughput;

use figures::Figures;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Repeats of each flood and of each round in memory; the median is told.
    pub repeats: usize,
    /// Packets of one flood: ten times a multiple of [`sender::BATCH`], since slow floods are a tenth as long.
    pub flood: u32,
    /// Triggers whose way to the drop is timed.
    pub triggers: usize,
    /// Starts of the daemon.
    pub starts: usize,
    /// First SYNs of which each contender has its own lab.
    pub contests: usize,
    /// TCP streams for each contender.
    pub streams: usize,
    /// How long each lasts, seconds.
    pub stream_seconds: u32,
    /// How long nothing happens, seconds.
    pub rest_seconds: u64,
    /// Most sources that are blocked at once.
    pub blocked: u32,
}

const WHOLE: Effort = Effort {
    repeats: 5,
    flood: 3_000_320,
    triggers: 100,
    starts: 11,
    contests: 15,
    streams: 5,
    stream_seconds: 5,
    rest_seconds: 30,
    blocked: 1_000_000,
};
const QUICK: Effort = Effort {
    repeats: 1,
    flood: 500_480,
    triggers: 30,
    starts: 5,
    contests: 1,
    streams: 1,
    stream_seconds: 1,
    rest_seconds: 5,
    blocked: 1_000,
};

type Part = (&'static str, fn(Effort, &mut Figures));

const PARTS: [Part; 11] = [
    ("memory", memory::measure),
    ("start", start::measure),
    ("rest", rest::measure),
    ("size", size::measure),
    ("latency", latency::measure),
    ("flood", flood::measure),
    ("throughput", throughput::measure),
    ("load", load::measure),
    ("blocked", blocked::measure),
    ("contest", contest::measure),
    ("instructions", memory::instructions),
];

/// Left out of a quick run unless named.
const SLOW: [&str; 2] = ["blocked", "instructions"];

/// Arguments: `--quick`, and names of parts where not all are wanted.
fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [word, kind, count, ..] = arguments.as_slice()
        && word == "judge"
    {
        return memory::judge(kind.parse().expect("a number"), count.parse().expect("a number"));
    }
    let named = |name: &str| arguments.iter().any(|argument| argument == name);
    let effort = if named("--quick") { QUICK } else { WHOLE };
    let all = !PARTS.iter().any(|(name, _)| named(name));
    let machine = machine::describe();
    println!("{machine}\n{}\n{effort:?}", machine::go_first());
    let mut figures = Figures::default();
    for (name, measure) in PARTS {
        let is_due = all && !(named("--quick") && SLOW.contains(&name));
        if is_due || named(name) {
            measure(effort, &mut figures);
        }
    }
    figures.print_table();
    figures.save(&machine);
}
