//! What a process has used, as the kernel counts it.
#![forbid(unsafe_code)]

use std::time::Duration;

/// Processor time of all threads, from `/proc/PID/task/*/schedstat`: nanoseconds, where `stat` counts hundredths.
pub fn cpu(pid: u32) -> Duration {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("the process lives");
    let spent = threads.map(|thread| nanoseconds(&thread.expect("a thread").path().display().to_string()));
    Duration::from_nanos(spent.sum())
}

/// Likewise of the first thread alone.
pub fn cpu_of_first_thread(pid: u32) -> Duration {
    Duration::from_nanos(nanoseconds(&format!("/proc/{pid}/task/{pid}")))
}

/// Of a process and of its children that have ended, hundredths of a second: proc_pid_stat(5).
pub fn cpu_with_children(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process lives");
    let fields = stat.rsplit(") ").next().unwrap_or_default().split_whitespace();
    let ticks = fields.skip(11).take(4).map(|field| field.parse::<u64>().expect("ticks"));
    Duration::from_millis(10 * ticks.sum::<u64>())
}

fn nanoseconds(task: &str) -> u64 {
    let text = std::fs::read_to_string(format!("{task}/schedstat")).unwrap_or_default();
    text.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0)
}
