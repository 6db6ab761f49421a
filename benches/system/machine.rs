//! What the figures were measured on.
#![forbid(unsafe_code)]

/// Processor, cores, kernel and load, in one line.
pub fn describe() -> String {
    let cpus = read("/proc/cpuinfo");
    let field = |name: &str| cpus.lines().find_map(|line| line.strip_prefix(name)?.split(": ").nth(1));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!(
        "{cores} × {} at {} MHz; Linux {}; load {}",
        field("model name").unwrap_or("unknown processor"),
        field("cpu MHz").unwrap_or("?"),
        read("/proc/sys/kernel/osrelease").trim(),
        read("/proc/loadavg").trim(),
    )
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}
