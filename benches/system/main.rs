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

mod figures;
mod flood;
mod latency;
mod machine;
mod memory;
mod process;
mod sender;
mod size;
mod start;
#[path = "../../tests/support/mod.rs"]
mod support;

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
}

const WHOLE: Effort = Effort { repeats: 5, flood: 3_000_320, triggers: 100, starts: 11 };
const QUICK: Effort = Effort { repeats: 3, flood: 500_480, triggers: 30, starts: 5 };

type Part = (&'static str, fn(Effort, &mut Figures));

const PARTS: [Part; 5] = [
    ("memory", memory::measure),
    ("start", start::measure),
    ("size", size::measure),
    ("latency", latency::measure),
    ("flood", flood::measure),
];

/// Arguments: `--quick`, and names of parts where not all are wanted.
fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let named = |name: &str| arguments.iter().any(|argument| argument == name);
    let effort = if named("--quick") { QUICK } else { WHOLE };
    let all = !PARTS.iter().any(|(name, _)| named(name));
    let machine = machine::describe();
    println!("{machine}\n{}\n{effort:?}", machine::go_first());
    let mut figures = Figures::default();
    for (name, measure) in PARTS {
        if all || named(name) {
            measure(effort, &mut figures);
        }
    }
    figures.save(&machine);
}
