//! A Debian with systemd as its first process, in a container on the target of a lab. Slow: half a minute the first time,
//! for its root is made of packages; each machine leaves that root as it found it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use super::{Lab, eventually};

const PACKAGES: &str = "systemd,systemd-sysv,dbus,iproute2,nftables,procps,make,passwd";
/// A boot takes 2 s on an idle machine.
const BOOT: Duration = Duration::from_secs(90);
/// Calls that systemd-nspawn of Debian 12 does not yet know to be harmless.
const LANDLOCK: &str =
    "--system-call-filter=landlock_create_ruleset landlock_add_rule landlock_restrict_self seccomp";
/// Where systemd keeps its control groups, whichever of them this host has: unified, or legacy beside unified.
const HIERARCHIES: [&str; 3] = ["/sys/fs/cgroup", "/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified"];
/// Runs "$@" in the control group $0 of each hierarchy: two machines in one group would take each other's units for
/// their own, and remove them.
const IN_ITS_GROUP: &str = "for procs in $0; do echo $$ > \"$procs\" || exit; done; exec \"$@\"";

/// A machine that has booted.
pub struct Machine {
    /// What it is connected to.
    pub lab: Lab,
    nspawn: Child,
    leader: String,
}

impl Machine {
    /// Boots a machine with `peers` peers around it. It sees this repository as /source and the release as /release.
    pub fn boot(peers: u8) -> Machine {
        let lab = Lab::new(peers);
        let groups = groups(&lab.target());
        groups.iter().for_each(|group| std::fs::create_dir(group).expect("control groups are to be had"));
        let procs: Vec<String> =
            groups.iter().map(|group| format!("{}/cgroup.procs", group.display())).collect();
        let nspawn = Command::new("sh")
            .args(["-c", IN_ITS_GROUP, &procs.join(" "), "systemd-nspawn"])
            .args(["--quiet", "--boot", "--register=no", "--keep-unit", "--volatile=overlay", LANDLOCK])
            .args(["--capability=CAP_NET_ADMIN,CAP_NET_RAW", "--machine", &lab.target()])
            .arg(format!("--network-namespace-path=/run/netns/{}", lab.target()))
            .arg(format!("--directory={}", root().display()))
            .arg(format!("--bind-ro={}:/source", env!("CARGO_MANIFEST_DIR")))
            .arg(format!("--bind-ro={}:/release", release().display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("systemd-nspawn is installed");
        let mut machine = Machine { lab, nspawn, leader: String::new() };
        eventually("the machine has booted", BOOT, || {
            // Looked up each time: on the way there systemd-nspawn has other children.
            machine.leader = first_process_below(machine.nspawn.id()).unwrap_or_default();
            !machine.leader.is_empty()
                && ["running", "degraded"].contains(&machine.says("systemctl is-system-running").trim())
        });
        machine
    }

    /// Runs a shell's script on the machine, as root at its console would: `sudo` is there, `sudoedit` leaves a file as
    /// it is, and `make` finds everything built.
    pub fn shell(&self, script: &str) -> Output {
        assert!(!self.leader.is_empty(), "no machine to run on: {script}");
        let prelude = "sudo() { \"$@\"; }; sudoedit() { test -e \"$1\"; }; cd /source; \
                       make() { command make --no-print-directory --old-file=build RELEASE=/release \"$@\"; };";
        Command::new("nsenter")
            .args(["--all", "--target", &self.leader, "--", "env", "-i", "HOME=/root"])
            .arg("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .args(["bash", "-c", &format!("{prelude} {script}")])
            .output()
            .expect("nsenter is there")
    }

    /// What a script that succeeds prints.
    pub fn run(&self, script: &str) -> String {
        let output = self.shell(script);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let log = || text(&self.shell("journalctl --no-pager -n 60").stdout);
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{script}: {}\n{stdout}{stderr}\n{}", output.status, log());
        stdout
    }

    /// What a script prints, whether or not it succeeds.
    pub fn says(&self, script: &str) -> String {
        String::from_utf8_lossy(&self.shell(script).stdout).into_owned()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // The first process of a container takes its whole world with it; systemd-nspawn then tidies up and ends.
        let leader = self.leader.parse().map(nix::unistd::Pid::from_raw);
        let ended = leader.map(|leader| nix::sys::signal::kill(leader, nix::sys::signal::Signal::SIGKILL));
        if !matches!(ended, Ok(Ok(()))) {
            let _ = self.nspawn.kill();
        }
        let _ = self.nspawn.wait();
        groups(&self.lab.target()).iter().for_each(|group| remove(group));
    }
}

/// The first process of a machine: the child of `parent` that is number 1 in a process namespace of its own. Any other,
/// as systemd-nspawn has on the way there, still lives in this machine, and a script run beside it would change this one.
pub fn first_process_below(parent: u32) -> Option<String> {
    let children = format!("/proc/{parent}/task/{parent}/children");
    let children = std::fs::read_to_string(children).expect("the parent lives");
    children.split_whitespace().find(|pid| begins_a_machine(pid)).map(str::to_owned)
}

/// NSpid of proc_pid_status(5): its number in each process namespace, from ours to its own.
fn begins_a_machine(pid: &str) -> bool {
    let Ok(status) = std::fs::read_to_string(format!("/proc/{pid}/status")) else { return false };
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
    matches!(numbers.split_whitespace().collect::<Vec<_>>()[..], [_, .., "1"])
}

/// The control groups of the machine `name`: one in each hierarchy.
fn groups(name: &str) -> Vec<PathBuf> {
    let hierarchies = HIERARCHIES.iter().map(PathBuf::from).filter(|path| path.join("cgroup.procs").exists());
    hierarchies.map(|path| path.join(name)).collect()
}

/// Removes a control group and those in it, which no longer hold a process.
fn remove(group: &Path) {
    for inner in std::fs::read_dir(group).into_iter().flatten().flatten() {
        if inner.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&inner.path());
        }
    }
    let _ = std::fs::remove_dir(group);
}

/// The release build, which `make test` names.
pub fn release() -> PathBuf {
    let release = std::env::var_os("PORTSENTRY_RELEASE").map(PathBuf::from);
    release.expect("PORTSENTRY_RELEASE names the folder of the release build: run `make test`")
}

/// The root of the machines, made once and kept below target/.
fn root() -> PathBuf {
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    ROOT.get_or_init(|| {
        let labs = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("labs");
        let (root, unfinished) = (labs.join("systemd"), labs.join("systemd.unfinished"));
        if root.exists() {
            return root;
        }
        std::fs::create_dir_all(&labs).expect("target/ is ours");
        let _ = std::fs::remove_dir_all(&unfinished);
        let made = Command::new("mmdebstrap")
            .args(["--quiet", "--variant=minbase", &format!("--include={PACKAGES}"), "bookworm"])
            .arg(&unfinished)
            .output()
            .expect("mmdebstrap is installed");
        assert!(made.status.success(), "mmdebstrap: {}", String::from_utf8_lossy(&made.stderr));
        std::fs::rename(&unfinished, &root).expect("target/ is ours");
        root
    })
    .clone()
}
