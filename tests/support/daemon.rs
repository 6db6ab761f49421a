//! The real daemon on the target of a lab: start it, read its events, end it.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Host, Lab, eventually, resident};

/// The daemon as cargo built it for tests.
const BINARY: &str = env!("CARGO_BIN_EXE_portsentry-rs");

/// How long a test waits for something that should take milliseconds, on a busy two-core machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// No thread of the daemon pauses for so long while it has work: a ring thread's breath in a flood takes 1 ms. Rest is
/// that nothing happens, so it takes time to tell; a machine that gives nobody the processor for so long looks the same.
const REST: Duration = Duration::from_millis(20);

/// A line that no daemon writes.
const CAUGHT_UP: &str = "caught up";

/// A running daemon with its own folder for configuration, state and control socket.
pub struct Daemon {
    child: Child,
    netns: String,
    folder: tempfile::TempDir,
    lines: Receiver<String>,
    /// Every event read so far.
    pub seen: Vec<Value>,
}

/// What a daemon runs on; survives the daemon, so that another can be started on the same state.
pub struct Setup {
    folder: tempfile::TempDir,
    netns: String,
}

impl Setup {
    /// Writes a configuration: the given lines, and state and control socket in a fresh folder.
    pub fn new(lab: &Lab, lines: &str) -> Setup {
        let folder = tempfile::tempdir().expect("a temporary folder");
        // The daemon leaves root: its user must be able to pass through.
        std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let setup = Setup { folder, netns: lab.target() };
        setup.rewrite(lines);
        setup
    }

    /// Writes the configuration anew, on the same state.
    pub fn rewrite(&self, lines: &str) {
        let path = self.folder.path().display();
        let text =
            format!("STATE_DIR=\"{path}/state\"\nCONTROL_SOCKET=\"{path}/run/control.sock\"\n{lines}\n");
        std::fs::write(self.folder.path().join("portsentry.conf"), text).expect("the folder is ours");
    }

    /// Runs the program with the configuration to its end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        client(&self.folder.path().join("portsentry.conf"), &self.netns, arguments)
    }

    /// A file in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts the daemon and waits for its `start` event.
    pub fn start(self) -> Daemon {
        self.start_with(&[])
    }

    /// Likewise with run flags.
    pub fn start_with(self, flags: &[&str]) -> Daemon {
        self.start_program(Path::new(BINARY), flags)
    }

    /// Likewise another build of the daemon.
    pub fn start_program(self, program: &Path, flags: &[&str]) -> Daemon {
        let mut command = self.command(&[], program);
        command.args(flags);
        self.started(command)
    }

    /// Starts the daemon through a program that changes its surroundings and then becomes it, and waits likewise.
    pub fn start_through(self, program: &str, flags: &[String]) -> Daemon {
        let command = self.command(&through(program, flags), Path::new(BINARY));
        self.started(command)
    }

    /// Likewise another build of the daemon, with run flags.
    pub fn start_program_through(
        self,
        (program, before): (&str, Vec<String>),
        daemon: &Path,
        flags: &[&str],
    ) -> Daemon {
        let mut command = self.command(&through(program, &before), daemon);
        command.args(flags);
        self.started(command)
    }

    /// Starts the daemon likewise and waits for its end; its output.
    pub fn fail_through(&self, program: &str, flags: &[String]) -> Output {
        self.command(&through(program, flags), Path::new(BINARY)).output().expect("the daemon starts")
    }

    fn command(&self, through: &[&str], program: &Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.netns]).args(through);
        command.arg(program).arg("-c");
        command.arg(self.folder.path().join("portsentry.conf"));
        command
    }

    fn started(self, mut command: Command) -> Daemon {
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("the daemon starts");
        let (sender, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        std::thread::spawn(move || {
            stdout.lines().map_while(Result::ok).for_each(|line| drop(sender.send(line)))
        });
        let mut daemon = Daemon { child, netns: self.netns, folder: self.folder, lines, seen: Vec::new() };
        daemon.wait_for("the start event", |event| event["event_type"] == "start");
        daemon
    }
}

fn through<'a>(program: &'a str, flags: &'a [String]) -> Vec<&'a str> {
    [program].into_iter().chain(flags.iter().map(String::as_str)).collect()
}

impl Daemon {
    /// The sensor's process id (`ip netns exec` becomes the program it runs).
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Does `what` while the helper stands still: it sees the end of it alone.
    pub fn unseen_by_the_helper<T>(&self, what: impl FnOnce() -> T) -> T {
        let helper = self.helper_pid();
        suspend(helper);
        let done = what();
        kill(helper, nix::sys::signal::Signal::SIGCONT);
        done
    }

    /// The helper's process id.
    pub fn helper_pid(&self) -> u32 {
        let children = format!("/proc/{0}/task/{0}/children", self.pid());
        let text = std::fs::read_to_string(children).expect("the sensor lives");
        text.split_whitespace().next().expect("it has a helper").parse().expect("a number")
    }

    /// Resident memory of both processes, KiB.
    pub fn memory(&self) -> u64 {
        resident(self.pid()) + resident(self.helper_pid())
    }

    /// A file in the daemon's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Waits for an event; panics with everything seen so far if none comes.
    pub fn wait_for(&mut self, what: &str, matches: impl Fn(&Value) -> bool) -> Value {
        if let Some(event) = self.seen.iter().find(|event| matches(event)) {
            return event.clone();
        }
        self.wait_for_new(what, matches)
    }

    /// Likewise, but only among events not read yet.
    pub fn wait_for_new(&mut self, what: &str, matches: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    // The classic first line is not JSON.
                    let Ok(event) = serde_json::from_str::<Value>(&line) else { continue };
                    self.seen.push(event.clone());
                    if matches(&event) {
                        return event;
                    }
                }
                Err(RecvTimeoutError::Timeout) => panic!("{what} did not come; seen: {:#?}", self.seen),
                Err(RecvTimeoutError::Disconnected) => {
                    panic!("the daemon ended before {what}: {:#?}", self.seen)
                }
            }
        }
    }

    /// Waits until whatever was sent before has been judged and told, and reads what was told. A SYN to a decoy alone
    /// may still be waiting for its handshake: see [`outlast_handshakes`](Self::outlast_handshakes).
    pub fn catch_up(&mut self) {
        eventually("the daemon has nothing left to do", PATIENCE, || self.is_at_rest());
        // By way of the daemon's own pipe, so that it comes after all that is in there.
        let stdout = std::fs::File::options().write(true).open(format!("/proc/{}/fd/1", self.pid()));
        stdout.and_then(|mut pipe| writeln!(pipe, "{CAUGHT_UP}")).expect("the daemon lives");
        loop {
            let line = self.lines.recv_timeout(PATIENCE).expect("the pipe brings what was written into it");
            if line == CAUGHT_UP {
                return;
            }
            self.seen.extend(serde_json::from_str::<Value>(&line));
        }
    }

    /// Waits until no earlier SYN to a decoy is waiting for its handshake any more. They are judged in the order in
    /// which they came: `marker`, a host that nothing else is asked of, leaves one more half open and is heard of last.
    pub fn outlast_handshakes(&mut self, marker: &Host, decoy: u16) {
        self.catch_up();
        marker.nmap(&["-sS", "--max-retries", "0", "-p", &decoy.to_string(), &marker.target_v4.to_string()]);
        let source = marker.v4.to_string();
        self.wait_for("the marker", |event| event["src_ip"] == *source);
        self.catch_up();
    }

    /// Whether no packet is on its way into this machine, and no thread of sensor and helper has run for a while.
    fn is_at_rest(&self) -> bool {
        let before = self.turns_taken();
        std::thread::sleep(REST);
        before.is_some() && before == self.turns_taken()
    }

    /// How often the threads of both processes had the processor; none if one has it or wants it now, or if packets
    /// wait to be delivered.
    fn turns_taken(&self) -> Option<u64> {
        let threads = [self.pid(), self.helper_pid()].into_iter().flat_map(threads);
        threads.map(|thread| turns_of_sleeper(&thread)).sum::<Option<u64>>().filter(|_| backlog_is_empty())
    }

    /// How often threads of the daemon were given the processor, now that all of them sleep.
    pub fn turns(&self) -> u64 {
        let begun = Instant::now();
        loop {
            if let Some(turns) = self.turns_taken() {
                return turns;
            }
            assert!(begun.elapsed() < PATIENCE, "the daemon does not come to rest");
            std::thread::yield_now();
        }
    }

    /// Events seen of a type from a source.
    pub fn events_of<'a>(&'a self, kind: &'a str, source: &'a str) -> impl Iterator<Item = &'a Value> {
        self.seen.iter().filter(move |event| event["event_type"] == kind && event["src_ip"] == source)
    }

    /// Runs the client side of the command line against this daemon.
    pub fn client(&self, arguments: &[&str]) -> Output {
        client(&self.folder.path().join("portsentry.conf"), &self.netns, arguments)
    }

    /// What it has counted so far.
    pub fn stats(&self) -> Value {
        serde_json::from_slice(&self.client(&["stats", "--json"]).stdout).expect("counters")
    }

    /// Asks it to end and waits.
    pub fn stop(mut self) -> (ExitStatus, Setup) {
        self.signal(nix::sys::signal::Signal::SIGTERM);
        let status = self.wait();
        (status, self.into_setup())
    }

    /// Sends the sensor a signal.
    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        kill(self.pid(), signal);
    }

    /// Waits for the sensor to end by itself.
    pub fn wait(&mut self) -> ExitStatus {
        self.wait_at_most(PATIENCE)
    }

    /// Likewise; panics if it takes longer than `limit`.
    pub fn wait_at_most(&mut self, limit: Duration) -> ExitStatus {
        eventually("the sensor ends", limit, || self.try_wait().is_some());
        self.try_wait().expect("it has ended")
    }

    /// How the sensor ended, if it has.
    pub fn try_wait(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("our child")
    }

    /// Keeps the folder for a next daemon on the same state.
    pub fn into_setup(mut self) -> Setup {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let folder = std::mem::replace(&mut self.folder, tempfile::tempdir().expect("a temporary folder"));
        Setup { folder, netns: self.netns.clone() }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a process a signal; it may be gone already.
pub fn kill(pid: u32, signal: nix::sys::signal::Signal) {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).expect("a process id"));
    let _ = nix::sys::signal::kill(pid, signal);
}

/// Whether a process is alive (a zombie is not).
pub fn alive(pid: u32) -> bool {
    state(pid).is_some_and(|state| state != 'Z')
}

/// Stops a process and waits until it stands still: SIGCONT takes back a stop that nobody has obeyed yet (signal(7)).
pub fn suspend(pid: u32) {
    kill(pid, nix::sys::signal::Signal::SIGSTOP);
    eventually("the process stands still", PATIENCE, || state(pid) == Some('T'));
}

/// The third field of proc_pid_stat(5); none if there is no such process.
fn state(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(')').next()?.trim_start().chars().next()
}

fn threads(pid: u32) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/task")).expect("the process lives");
    entries.map(|entry| entry.expect("it can be listed").path()).collect()
}

/// How often a thread was given the processor; none unless it sleeps until something happens (proc_pid_status(5)).
fn turns_of_sleeper(thread: &Path) -> Option<u64> {
    let status = std::fs::read_to_string(thread.join("status")).ok()?;
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let number = |name| field(name)?.parse::<u64>().ok();
    let sleeps = field("State:")?.starts_with('S');
    let turns = number("voluntary_ctxt_switches:")?.checked_add(number("nonvoluntary_ctxt_switches:")?)?;
    sleeps.then_some(turns)
}

/// Whether no packet waits in a processor's input queue: the twelfth column of softnet_stat (Linux 5.10), hexadecimal.
fn backlog_is_empty() -> bool {
    let text = std::fs::read_to_string("/proc/net/softnet_stat").expect("Linux has it");
    text.lines().all(|line| line.split_whitespace().nth(11).is_none_or(|length| length == "00000000"))
}

/// Runs the client of the daemon with this configuration, in that namespace.
pub fn client(config: &Path, netns: &str, arguments: &[&str]) -> Output {
    Command::new("ip")
        .args(["netns", "exec", netns, BINARY])
        .args(arguments)
        .arg("-c")
        .arg(config)
        .output()
        .expect("the client starts")
}
