//! The real daemon on the target of a lab: start it, read its events, end it.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Lab, eventually};

/// The daemon as cargo built it for tests.
const BINARY: &str = env!("CARGO_BIN_EXE_portsentry-rs");

/// How long a test waits for something that should take milliseconds, on a busy two-core machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

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
        let path = folder.path().display();
        let text =
            format!("STATE_DIR=\"{path}/state\"\nCONTROL_SOCKET=\"{path}/run/control.sock\"\n{lines}\n");
        std::fs::write(folder.path().join("portsentry.conf"), text).expect("the folder is ours");
        Setup { folder, netns: lab.target() }
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

    /// The helper's process id.
    pub fn helper_pid(&self) -> u32 {
        let children = format!("/proc/{0}/task/{0}/children", self.pid());
        let text = std::fs::read_to_string(children).expect("the sensor lives");
        text.split_whitespace().next().expect("it has a helper").parse().expect("a number")
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

    /// Reads what has been written so far. `status` answers only after the event loop went round, so whatever was
    /// seen on the wire before has been judged by then.
    pub fn catch_up(&mut self) {
        self.client(&["status"]);
        while let Ok(line) = self.lines.recv_timeout(Duration::from_millis(100)) {
            if let Ok(event) = serde_json::from_str(&line) {
                self.seen.push(event);
            }
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
        let mut status = None;
        eventually("the sensor ends", PATIENCE, || {
            status = self.child.try_wait().expect("our child");
            status.is_some()
        });
        status.expect("it has ended")
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
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit(')').next().is_some_and(|rest| !rest.trim_start().starts_with('Z')))
}

fn client(config: &Path, netns: &str, arguments: &[&str]) -> Output {
    Command::new("ip")
        .args(["netns", "exec", netns, BINARY])
        .args(arguments)
        .arg("-c")
        .arg(config)
        .output()
        .expect("the client starts")
}
