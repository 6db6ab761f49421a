//! A daemon in PortSentry's place: PortSentry's own files under their own names, in folders that nobody else sees.
//!
//! `/etc`, `/run`, `/tmp`, `/var/lib` and `/var/log` are the test's alone, so that a configuration runs as it is, and
//! several do at a time.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::daemon::kill;
use super::{Lab, slow};

pub const SOON: Duration = Duration::from_secs(15);

/// The ignore file of Debian's package, as far as it says anything, and a host of the lab.
pub const IGNORED: &str = "127.0.0.1/32\n0.0.0.0\n10.77.1.2\n";

/// What the host's own /etc lends: who `nobody` is, the time zone, where libraries lie, which iptables is meant.
const LENT: [&str; 5] = ["passwd", "group", "localtime", "ld.so.cache", "alternatives"];

/// In the test's mount namespace; `/tmp` comes last, for the rest lies in it.
const MOUNTS: &str = r#"set -e
mount --make-rprivate /
mount --bind "$PROGRAMS" /mnt
for at in etc run var/lib var/log tmp; do mount --bind "$FOLDER/$at" "/$at"; done
cd /
exec /mnt/portsentry-rs "$@""#;

/// A daemon in classic text, and every line it wrote.
pub struct Classic {
    child: Child,
    folder: tempfile::TempDir,
    lines: Receiver<String>,
    /// Every line so far.
    pub seen: Vec<String>,
}

impl Classic {
    /// Runs with `config` as /etc/portsentry/portsentry.conf and `ignore` as portsentry.ignore beside it.
    pub fn start(lab: &Lab, config: &[u8], ignore: &[u8], flags: &[&str]) -> Classic {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["etc/portsentry", "run", "var/lib/portsentry", "var/log", "tmp"] {
            std::fs::create_dir_all(at(name)).unwrap();
        }
        // Whom the daemon becomes must find its way; /tmp is as everywhere.
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
        std::fs::set_permissions(at("tmp"), PermissionsExt::from_mode(0o1777)).unwrap();
        let lent = LENT.map(|name| Path::new("/etc").join(name));
        let _ = Command::new("cp").arg("-a").args(lent).arg(at("etc")).stderr(Stdio::null()).status();
        std::fs::write(at("etc/hosts.deny"), "").unwrap();
        std::fs::write(at("etc/portsentry/portsentry.conf"), config).unwrap();
        std::fs::write(at("etc/portsentry/portsentry.ignore"), ignore).unwrap();
        let programs = Path::new(env!("CARGO_BIN_EXE_portsentry-rs")).parent().unwrap();
        let mut child = Command::new("ip")
            .args(["netns", "exec", &lab.target(), "unshare", "--mount", "sh", "-c", MOUNTS, "sh"])
            .args(flags)
            .env("PORTSENTRY_LOG_FORMAT", "classic")
            .env("PROGRAMS", programs)
            .env("FOLDER", folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            stdout.lines().map_while(Result::ok).for_each(|line| drop(sender.send(line)))
        });
        let mut daemon = Classic { child, folder, lines, seen: Vec::new() };
        daemon.wait_for("Portsentry is now active and listening.");
        daemon
    }

    /// A file of the daemon's, by the name that it has for the daemon.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name.trim_start_matches('/'))
    }

    /// Has it read its files again.
    pub fn reload(&mut self) {
        kill(self.child.id(), Signal::SIGHUP);
        self.wait_for("The configuration was read again");
    }

    /// Waits for a line that begins so, and returns the lines since the last one that was waited for, it included.
    pub fn wait_for(&mut self, beginning: &str) -> Vec<String> {
        let (deadline, from) = (Instant::now() + SOON, self.seen.len());
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else {
                panic!("no {beginning:?} in {:#?}", self.seen)
            };
            self.seen.push(line.clone());
            if line.starts_with(beginning) {
                return self.seen[from..].to_vec();
            }
        }
    }
}

impl Drop for Classic {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn read_lines(path: &Path) -> Vec<String> {
    std::fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// Where Debian's package `portsentry` (1.2) lies unpacked, fetched once; `None`, said aloud, where no archive can be
/// reached. Where all tests are asked for (PORTSENTRY_SLOW_LABS=1) that is a failure.
pub fn debians_package() -> Option<&'static Path> {
    static PACKAGE: OnceLock<Option<PathBuf>> = OnceLock::new();
    PACKAGE.get_or_init(fetched).as_deref()
}

fn fetched() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("debians-portsentry");
    let unpacked = folder.join("unpacked");
    if !unpacked.join("etc/portsentry/portsentry.conf").exists() {
        std::fs::create_dir_all(&folder).unwrap();
        let fetch =
            "apt-get -qq download portsentry || { apt-get -qq update && apt-get -qq download portsentry; }";
        let unpack = format!("({fetch}) && for p in portsentry_*.deb; do dpkg-deb -x \"$p\" unpacked; done");
        let output = Command::new("sh").args(["-c", &unpack]).current_dir(&folder).output().unwrap();
        if !output.status.success() {
            let why = String::from_utf8_lossy(&output.stderr).into_owned();
            let what = format!("Debian's package portsentry cannot be fetched with apt-get: {why}");
            assert!(!slow::asked_for(), "{what}");
            slow::say(&format!("skipped: {what}"));
            return None;
        }
    }
    Some(unpacked)
}
