//! Follows every system call of a daemon by ptrace, from before its first instruction. What stands on x86_64 for a
//! machine whose vDSO reads no clock, and for one whose wall clock is set: the daemon alone sees it.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::ptrace::{self, Options};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::daemon::PATIENCE;
use super::eventually;

/// A system call of a process that has entered its filter: the program's name, the number, the arguments.
pub type Call = (String, i64, [u64; 6]);

/// linux/auxvec.h: where the vDSO lies; an entry to be passed over.
const AT_SYSINFO_EHDR: u64 = 33;
const AT_IGNORE: u64 = 1;

/// Of messages to routing tables and firewall.
const UNKNOWN_KIND: u16 = 0x3ff;

const REFUSING: &str = "refusing";
const GATE: &str = "TRACER_GATE";
const NO_VDSO: &str = "TRACER_NO_VDSO";

/// A process that follows one daemon and all that it starts, until the last of them has ended. A process of its own, for
/// a thread's tracees would be everybody's to wait for.
pub struct Tracer {
    gate: tempfile::TempDir,
    process: Child,
}

impl Tracer {
    /// Waits for what [`through`](Self::through) starts. `vdso`: whether the daemon may use that. The calling file needs
    /// an ignored test `the_tracer` that calls [`follow`].
    pub fn new(vdso: bool) -> Tracer {
        let gate = tempfile::tempdir().expect("a temporary folder");
        nix::unistd::mkfifo(&gate.path().join("fifo"), nix::sys::stat::Mode::S_IRWXU)
            .expect("a pipe with a name");
        let mut command = Command::new(std::env::current_exe().expect("/proc is there"));
        command.args(["--exact", "the_tracer", "--ignored", "--nocapture"]).stdout(Stdio::null());
        command.env(GATE, gate.path());
        if !vdso {
            command.env(NO_VDSO, "1");
        }
        Tracer { gate, process: command.spawn().expect("this very test runs again") }
    }

    /// Program and flags for [`Setup::start_program_through`](super::daemon::Setup::start_program_through): waits to be
    /// followed, then becomes the daemon.
    pub fn through(&self) -> (&'static str, Vec<String>) {
        let gate = self.gate.path().display();
        let script = format!(
            "echo $$ > {gate}/new && mv {gate}/new {gate}/pid && read -r _ < {gate}/fifo && exec \"$@\""
        );
        ("sh", vec!["-c".into(), script, "sh".into()])
    }

    /// Has the daemon see a wall clock that is `seconds` ahead of this machine's. Holds for calls that really are made:
    /// without the vDSO.
    pub fn set_wall_clock(&self, seconds: i64) {
        let (new, shift) = (self.gate.path().join("new"), self.gate.path().join("shift"));
        std::fs::write(&new, seconds.to_string())
            .and_then(|()| std::fs::rename(&new, shift))
            .expect("the folder is ours");
    }

    /// Has the kernel refuse to delete routes from now on, or no longer.
    pub fn refuse_route_deletions(&self, refuse: bool) {
        self.refuse(refuse.then_some(libc::RTM_DELROUTE));
    }

    /// Has the kernel refuse netlink messages of this kind from now on: each is made one that it does not know.
    pub fn refuse(&self, kind: Option<u16>) {
        let (new, refusing) = (self.gate.path().join("new"), self.gate.path().join(REFUSING));
        let text = kind.map(|kind| kind.to_string()).unwrap_or_default();
        std::fs::write(&new, text)
            .and_then(|()| std::fs::rename(&new, refusing))
            .expect("the folder is ours");
    }

    /// Waits until all that was followed has ended; every call made within a filter.
    pub fn finish(mut self) -> BTreeSet<Call> {
        let process = &mut self.process;
        eventually("the tracer ends", PATIENCE, || process.try_wait().expect("our child").is_some());
        let text = std::fs::read_to_string(self.gate.path().join("calls")).expect("the tracer ended well");
        text.lines().map(|line| parsed(line).expect("the tracer wrote it")).collect()
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn parsed(line: &str) -> Option<Call> {
    let mut words = line.split(' ');
    let (role, number) = (words.next()?.to_owned(), words.next()?.parse().ok()?);
    let arguments: Vec<u64> = words.map_while(|word| word.parse().ok()).collect();
    Some((role, number, arguments.try_into().ok()?))
}

/// The tracer's own process.
pub fn follow() {
    let gate = PathBuf::from(std::env::var_os(GATE).expect("Tracer::new runs this"));
    let tracees = Tracees {
        vdso: std::env::var_os(NO_VDSO).is_none(),
        shift: gate.join("shift"),
        refusing: gate.join(REFUSING),
        roles: HashMap::new(),
        pending: HashMap::new(),
        calls: BTreeSet::new(),
    };
    let calls = tracees.follow(&gate);
    let mut text = String::new();
    for (role, number, arguments) in calls {
        let arguments = arguments.map(|argument| argument.to_string()).join(" ");
        let _ = writeln!(text, "{role} {number} {arguments}");
    }
    std::fs::write(gate.join("calls"), text).expect("the folder is ours");
}

struct Tracees {
    vdso: bool,
    /// Holds by how many seconds the wall clock is set, once it is.
    shift: PathBuf,
    /// Holds the kind of message that is to be refused, if any.
    refusing: PathBuf,
    /// Whose filter each process has entered.
    roles: HashMap<Pid, String>,
    /// The call that each thread is in.
    pending: HashMap<Pid, (i64, [u64; 6])>,
    calls: BTreeSet<Call>,
}

impl Tracees {
    fn follow(mut self, gate: &Path) -> BTreeSet<Call> {
        let pid = gate.join("pid");
        eventually("somebody wants to be traced", PATIENCE, || pid.exists());
        let first = std::fs::read_to_string(pid).expect("the file is there");
        let first = Pid::from_raw(first.trim().parse().expect("a process id"));
        let options = Options::PTRACE_O_TRACESYSGOOD
            | Options::PTRACE_O_TRACECLONE
            | Options::PTRACE_O_TRACEFORK
            | Options::PTRACE_O_TRACEVFORK
            | Options::PTRACE_O_TRACEEXEC
            | Options::PTRACE_O_EXITKILL;
        ptrace::seize(first, options).expect("root may trace");
        ptrace::interrupt(first).expect("it lives");
        // Open at both ends, so that neither waits for the other.
        let mut gate =
            File::options().read(true).write(true).open(gate.join("fifo")).expect("the pipe is there");
        gate.write_all(b"go\n").expect("there is room for a line");
        while let Ok(status) = waitpid(None, Some(WaitPidFlag::__WALL)) {
            self.stopped(status);
        }
        self.calls
    }

    fn stopped(&mut self, status: WaitStatus) {
        let Some(pid) = status.pid() else { return };
        let signal = match status {
            WaitStatus::Stopped(_, signal) => Some(signal),
            WaitStatus::PtraceSyscall(_) => {
                self.at_call(pid);
                None
            }
            WaitStatus::PtraceEvent(_, _, libc::PTRACE_EVENT_EXEC) if !self.vdso => {
                let _ = hide_vdso(pid);
                None
            }
            WaitStatus::Exited(..) | WaitStatus::Signaled(..) => {
                self.pending.remove(&pid);
                None
            }
            WaitStatus::PtraceEvent(..) | WaitStatus::Continued(_) | WaitStatus::StillAlive => None,
        };
        // Who was killed meanwhile is told of by the next wait.
        let _ = ptrace::syscall(pid, signal);
    }

    /// A thread stops twice at each call, and first on its way in. (musl cannot ask which it is.)
    fn at_call(&mut self, pid: Pid) {
        match self.pending.remove(&pid) {
            None => self.enters(pid),
            Some(call) => self.leaves(pid, call),
        }
    }

    fn enters(&mut self, pid: Pid) {
        // Of one that was killed on its way in there is no account; it stops no more.
        let Some((number, arguments, _)) = account(pid) else { return };
        self.pending.insert(pid, (number, arguments));
        let refused = || std::fs::read_to_string(&self.refusing).ok()?.parse().ok();
        if let Some(kind) = (number == libc::SYS_sendto).then(refused).flatten() {
            let _ = spoil(pid, arguments[1], kind);
        }
        let leader = leader(pid).unwrap_or(pid);
        if let Some(role) = self.roles.get(&leader) {
            self.calls.insert((role.clone(), number, arguments));
        }
    }

    fn leaves(&mut self, pid: Pid, (number, arguments): (i64, [u64; 6])) {
        if number == libc::SYS_seccomp && !self.roles.contains_key(&pid) && is_filtered(pid) {
            self.roles.insert(pid, role(pid));
        }
        let is_wall_clock = number == libc::SYS_clock_gettime && arguments[0] == libc::CLOCK_REALTIME as u64;
        let shift = || std::fs::read_to_string(&self.shift).ok()?.parse().ok();
        if let Some(seconds) = is_wall_clock.then(shift).flatten() {
            let _ = add_to_word(pid, arguments[1], seconds);
        }
    }
}

/// The call that a stopped thread is in: number, arguments, stack pointer (proc_pid_syscall(5)).
fn account(pid: Pid) -> Option<(i64, [u64; 6], u64)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/syscall")).ok()?;
    let mut words = text.split_whitespace();
    let number = words.next()?.parse().ok()?;
    let mut rest = words.map(|word| u64::from_str_radix(word.trim_start_matches("0x"), 16).unwrap_or(0));
    let arguments = std::array::from_fn(|_| rest.next().unwrap_or(0));
    Some((number, arguments, rest.next()?))
}

fn status(pid: Pid, name: &str) -> Option<String> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    value.map(|value| value.trim().to_owned())
}

fn leader(thread: Pid) -> Option<Pid> {
    status(thread, "Tgid")?.parse().ok().map(Pid::from_raw)
}

fn is_filtered(pid: Pid) -> bool {
    status(pid, "Seccomp").as_deref() == Some("2")
}

/// The program's name; a copy that only proves its filter is nobody.
fn role(pid: Pid) -> String {
    let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    if line.contains(portsentry::sandbox::proof::ARGUMENT) {
        return "proof".into();
    }
    let program = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    program.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// A program that was just put in this process's place never learns where its vDSO is: above the stack pointer lie the
/// arguments, the environment, each ended by 0, and then pairs of words.
fn hide_vdso(pid: Pid) -> std::io::Result<()> {
    let memory = File::options().read(true).write(true).open(format!("/proc/{pid}/mem"))?;
    let word = |at: u64| {
        let mut bytes = [0; 8];
        memory.read_exact_at(&mut bytes, at).map(|()| u64::from_ne_bytes(bytes))
    };
    let mut at = account(pid).map(|(_, _, stack)| stack).ok_or(std::io::ErrorKind::NotFound)? + 8;
    for _ in 0..2 {
        while word(at)? != 0 {
            at += 8;
        }
        at += 8;
    }
    while word(at)? != AT_SYSINFO_EHDR {
        at += 16;
    }
    memory.write_all_at(&AT_IGNORE.to_ne_bytes(), at)
}

/// The kind of a message stands after its length (struct nlmsghdr, linux/netlink.h).
fn spoil(pid: Pid, message: u64, refused: u16) -> std::io::Result<()> {
    let memory = File::options().read(true).write(true).open(format!("/proc/{pid}/mem"))?;
    let mut kind = [0; 2];
    memory.read_exact_at(&mut kind, message + 4)?;
    match u16::from_ne_bytes(kind) == refused {
        true => memory.write_all_at(&UNKNOWN_KIND.to_ne_bytes(), message + 4),
        false => Ok(()),
    }
}

fn add_to_word(pid: Pid, at: u64, value: i64) -> std::io::Result<()> {
    let memory = File::options().read(true).write(true).open(format!("/proc/{pid}/mem"))?;
    let mut bytes = [0; 8];
    memory.read_exact_at(&mut bytes, at)?;
    memory.write_all_at(&i64::from_ne_bytes(bytes).wrapping_add(value).to_ne_bytes(), at)
}
