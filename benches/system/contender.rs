//! Who is compared: nobody, the daemon without and with its tripwire, and Debian's portsentry 1.2, all asked alike.
//!
//! Every one of them watches every TCP port and blocks at the first probe.
#![forbid(unsafe_code)]

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::process::{cpu, cpu_with_children};
use super::support::daemon::{Daemon, Setup};
use super::support::{Lab, eventually, resident};

const OURS: &str = "TCP_PORTS=\"1-65535\"\nUDP_PORTS=\"1-65535\"\nBLOCK_TCP=\"1\"\nBLOCK_UDP=\"1\"";
const THEIRS: &str = "TCP_PORTS=\"1\"\nUDP_PORTS=\"1\"\nADVANCED_PORTS_TCP=\"65535\"\nADVANCED_PORTS_UDP=\"1\"\n\
    IGNORE_FILE=\"/etc/portsentry/portsentry.ignore\"\nHISTORY_FILE=\"/etc/portsentry/history\"\n\
    BLOCKED_FILE=\"/etc/portsentry/blocked\"\nRESOLVE_HOST=\"0\"\nBLOCK_TCP=\"1\"\nBLOCK_UDP=\"1\"\nSCAN_TRIGGER=\"0\"\n\
    KILL_ROUTE=\"ip route add blackhole $TARGET$\"\n";
/// What `-atcp` reads packets from: a raw socket for TCP, in /proc/net/raw the local port 6.
const RAW_SOCKET: &str = "00000000:0006";
const PATIENCE: Duration = Duration::from_secs(60);
/// Who has not run for so long has nothing left to do.
const REST: Duration = Duration::from_millis(300);

/// A column of the comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contender {
    Nobody,
    Ours { tripwire: bool },
    Theirs,
}

impl Contender {
    /// In the order of the table's columns.
    pub const ALL: [Contender; 4] = [
        Contender::Nobody,
        Contender::Ours { tripwire: false },
        Contender::Ours { tripwire: true },
        Contender::Theirs,
    ];

    /// The column's head.
    pub fn name(self) -> &'static str {
        match self {
            Contender::Nobody => "no daemon",
            Contender::Ours { tripwire: false } => "tripwire 0",
            Contender::Ours { tripwire: true } => "tripwire 1",
            Contender::Theirs => "1.2 -atcp",
        }
    }

    /// Starts it on the target of a lab, and waits until it watches.
    pub fn start(self, lab: &Lab) -> Running {
        match self {
            Contender::Nobody => Running::Nobody,
            Contender::Ours { tripwire } => Running::Ours(Box::new(ours(lab, tripwire))),
            Contender::Theirs => Running::Theirs(Rival::start(lab)),
        }
    }
}

fn ours(lab: &Lab, tripwire: bool) -> Daemon {
    let daemon = Setup::new(lab, &format!("{OURS}\nTRIPWIRE=\"{}\"", u8::from(tripwire))).start();
    let is_armed = || {
        let traps = lab.on_target(&["nft", "-n", "list", "set", "inet", "portsentry", "traps_tcp"]);
        String::from_utf8_lossy(&traps.stdout).contains("elements")
    };
    eventually("the traps are set", PATIENCE, || !tripwire || is_armed());
    daemon
}

/// One that watches; it ends when dropped.
pub enum Running {
    Nobody,
    Ours(Box<Daemon>),
    Theirs(Rival),
}

impl Running {
    /// Processor time of all its processes.
    pub fn cpu(&self) -> Duration {
        match self {
            Running::Nobody => Duration::ZERO,
            Running::Ours(daemon) => cpu(daemon.pid()) + cpu(daemon.helper_pid()),
            Running::Theirs(rival) => cpu_with_children(rival.pid),
        }
    }

    /// Resident memory of all its processes, KiB.
    pub fn memory(&self) -> f64 {
        match self {
            Running::Nobody => 0.0,
            Running::Ours(daemon) => daemon.memory() as f64,
            Running::Theirs(rival) => resident(rival.pid) as f64,
        }
    }

    /// Waits until it uses no more processor time.
    pub fn settle(&self) {
        let mut last = Duration::MAX;
        eventually("all is judged", PATIENCE, || {
            std::thread::sleep(REST);
            let now = self.cpu();
            now.saturating_sub(std::mem::replace(&mut last, now)) < REST / 100
        });
    }
}

/// portsentry 1.2, with /etc/portsentry as it alone sees it.
pub struct Rival {
    pid: u32,
    _folder: tempfile::TempDir,
}

impl Rival {
    fn start(lab: &Lab) -> Rival {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(folder.path().join("portsentry.conf"), THEIRS).expect("the folder is ours");
        for name in ["portsentry.ignore", "history", "blocked"] {
            std::fs::write(folder.path().join(name), "").expect("the folder is ours");
        }
        // `ip netns exec` gives each program mounts of its own.
        let start =
            format!("mount --bind {} /etc/portsentry && exec portsentry -atcp", folder.path().display());
        let started = lab.on_target(&["sh", "-c", &format!("{start} </dev/null >/dev/null 2>&1")]);
        assert!(started.status.success(), "portsentry 1.2 does not start: {start}");
        let watches =
            || String::from_utf8_lossy(&lab.on_target(&["cat", "/proc/net/raw"]).stdout).contains(RAW_SOCKET);
        eventually("portsentry 1.2 watches", PATIENCE, watches);
        let found = Command::new("ip").args(["netns", "pids", &lab.target()]).output().expect("iproute2");
        let found = String::from_utf8_lossy(&found.stdout).into_owned();
        let of_rival = |pid: &&str| is_called(pid, "portsentry");
        let pid = found.split_whitespace().find(of_rival).and_then(|pid| pid.parse().ok());
        Rival { pid: pid.expect("it runs in the namespace"), _folder: folder }
    }
}

fn is_called(pid: &str, name: &str) -> bool {
    let path = Path::new("/proc").join(pid).join("comm");
    std::fs::read_to_string(path).is_ok_and(|comm| comm.trim_end() == name)
}

impl Drop for Rival {
    fn drop(&mut self) {
        super::support::daemon::kill(self.pid, nix::sys::signal::Signal::SIGKILL);
    }
}
