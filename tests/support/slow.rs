//! The one switch for slow labs (containers, virtual machines: half a minute and more each), and how long they took.

use std::time::Instant;

/// Turns the slow labs on; `.ci/run` sets it.
const SWITCH: &str = "PORTSENTRY_SLOW_LABS";

/// A slow lab that runs; says when it ends how long it took.
pub struct SlowLab {
    name: &'static str,
    begun: Instant,
}

impl SlowLab {
    /// Begins the lab `name` if slow labs are asked for; else says that it was skipped, and why.
    pub fn begin(name: &'static str) -> Option<SlowLab> {
        if !asked_for() {
            say(&format!("skipped: {name} is a slow lab; {SWITCH}=1 runs it"));
            return None;
        }
        Some(SlowLab { name, begun: Instant::now() })
    }
}

/// Whether slow labs are asked for, and with them every test that this machine can run.
pub fn asked_for() -> bool {
    std::env::var_os(SWITCH).is_some_and(|value| value == "1")
}

impl Drop for SlowLab {
    fn drop(&mut self) {
        say(&format!("slow lab: {} took {:.1} s", self.name, self.begun.elapsed().as_secs_f32()));
    }
}

/// Past the test harness, which shows what a test prints only where it fails.
pub fn say(line: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "{line}");
}
