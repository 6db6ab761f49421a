//! What the figures were measured on.
#![forbid(unsafe_code)]

use std::sync::OnceLock;

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

/// How many processors there are.
static ALL: OnceLock<usize> = OnceLock::new();

/// Processor, cores, kernel and load, in one line.
pub fn describe() -> String {
    let cpus = read("/proc/cpuinfo");
    let field = |name: &str| cpus.lines().find_map(|line| line.strip_prefix(name)?.split(": ").nth(1));
    format!(
        "{} × {} at {} MHz; Linux {}; load {}",
        processors(),
        field("model name").unwrap_or("unknown processor"),
        field("cpu MHz").unwrap_or("?"),
        read("/proc/sys/kernel/osrelease").trim(),
        read("/proc/loadavg").trim(),
    )
}

/// Puts this process, and with it every daemon and sender that it starts, before whatever else runs on the machine:
/// on a busy one the figures would tell of its scheduler. Says how that went.
pub fn go_first() -> String {
    let pid = std::process::id().to_string();
    let asked = std::process::Command::new("renice").args(["-n", "-20", "-p", &pid]).output();
    let heard = asked.is_ok_and(|output| output.status.success());
    if heard { "everything at nice -20" } else { "at the usual priority (no renice)" }.to_owned()
}

/// Keeps the calling thread, and what it starts from now on, to the first processor (`first`) or to all the others; a
/// machine with one processor has no choice.
pub fn keep_to(first: bool) {
    let all = processors();
    keep_to_range(if first || all == 1 { 0..1 } else { 1..all });
}

/// Lets the calling thread run anywhere again.
pub fn keep_to_all() {
    keep_to_range(0..processors());
}

fn keep_to_range(processors: std::ops::Range<usize>) {
    let mut set = CpuSet::new();
    processors.for_each(|cpu| set.set(cpu).expect("a processor that there is"));
    sched_setaffinity(Pid::from_raw(0), &set).expect("a thread may choose");
}

/// Counted once, before any thread was kept to some of them.
fn processors() -> usize {
    *ALL.get_or_init(|| std::thread::available_parallelism().map_or(1, usize::from))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}
