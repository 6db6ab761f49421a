//! Programs that the helper runs: the administrator's commands, and iptables. The helper's; never a shell where plain
//! words do, never waits for one of the administrator's.
//!
//! Each gets its own process group, a clean environment, no input, nothing open but standard error, no signal blocked, and
//! a time limit.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::protocol::Fault;
use crate::protocol::channel::set_nonblocking;
use crate::protocol::wording::{PATH, Words};
use crate::sys;

/// What is kept of a program's first line on standard error, bytes.
const FIRST_LINE: usize = 200;
/// Read of a program that floods its standard error, in one go; the rest waits in the pipe and holds it up alone.
const GULP: usize = 16 * 1024;

/// Why a response failed, or what of it could not be taken back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// How.
    pub fault: Fault,
    /// The first line of the program's standard error, or what the system refused.
    pub text: String,
}

/// A running program.
#[derive(Debug)]
pub struct Running {
    child: Child,
    ended: OwnedFd,
    /// Until it is closed: a pipe that nobody holds open any more is readable for ever.
    stderr: Option<ChildStderr>,
    said: Vec<u8>,
    limit: Duration,
    deadline: Instant,
    hung: bool,
}

impl Running {
    /// Starts `words`; it has `limit` to end.
    pub fn start(words: &Words, limit: Duration) -> Result<Running, Failure> {
        let (mut command, name) = prepared(words)?;
        let child = command.stdin(Stdio::null()).spawn().map_err(|error| unable(&name, &error))?;
        Running::watched(child, &name, limit, sys::pidfd_open)
    }

    /// Takes a started program over. One that cannot be watched is ended at once, for nobody would hold it to its time:
    /// what it had done by then nobody knows, as with every other that is killed.
    fn watched(
        mut child: Child,
        name: &str,
        limit: Duration,
        end_of: impl FnOnce(u32) -> io::Result<OwnedFd>,
    ) -> Result<Running, Failure> {
        let stderr = child.stderr.take();
        let nonblocking = stderr.as_ref().map_or(Ok(()), set_nonblocking);
        match nonblocking.and_then(|()| end_of(child.id())) {
            Ok(ended) => {
                let deadline = Instant::now() + limit;
                Ok(Running { child, ended, stderr, said: Vec::new(), limit, deadline, hung: false })
            }
            Err(error) => {
                kill_group(&child);
                let _ = child.wait();
                let text = format!("{name} cannot be watched: {error}");
                Err(Failure { fault: Fault::Signal(libc::SIGKILL), text })
            }
        }
    }

    /// Readable when it has ended, and when it has said something.
    pub fn watch(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        std::iter::once(self.ended.as_fd()).chain(self.stderr.as_ref().map(AsFd::as_fd))
    }

    /// When its time is up.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Takes in what it said. Returns its end, if it has ended; kills it if its time is up.
    pub fn look(&mut self, now: Instant) -> Option<Result<(), Failure>> {
        self.listen();
        if now >= self.deadline && !self.hung {
            self.hung = true;
            self.kill();
        }
        let ended = self.child.try_wait().transpose()?;
        self.listen();
        Some(ended.map_err(|error| unseen(&error)).and_then(|status| self.judge(status)))
    }

    /// Ends it and all of its group.
    pub fn kill(&self) {
        kill_group(&self.child);
    }

    /// A program that floods must not fill memory: all but the beginning is read and dropped.
    fn listen(&mut self) {
        let mut gulp = [0; GULP];
        match self.stderr.as_mut().map(|stderr| stderr.read(&mut gulp)) {
            Some(Ok(0)) => self.stderr = None,
            Some(Ok(count)) => {
                let room = FIRST_LINE.saturating_sub(self.said.len());
                self.said.extend(gulp.iter().take(count.min(room)));
            }
            Some(Err(_)) | None => {}
        }
    }

    fn judge(&self, status: ExitStatus) -> Result<(), Failure> {
        let fault = match (self.hung, status.code(), status.signal()) {
            (true, ..) => Fault::Hung(i32::try_from(self.limit.as_secs()).unwrap_or(i32::MAX)),
            (false, Some(0), _) => return Ok(()),
            (false, Some(code), _) => Fault::Exit(code),
            (false, None, signal) => Fault::Signal(signal.unwrap_or(0)),
        };
        let first = self.said.split(|&byte| byte == b'\n').next().unwrap_or_default();
        Err(Failure { fault, text: String::from_utf8_lossy(first).trim().to_owned() })
    }
}

/// Nobody would hold it to its time any more.
impl Drop for Running {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            self.kill();
        }
    }
}

/// Runs `words` with `input` and waits for the end, and all else with it: for iptables at the start, where what it put in
/// place is looked at, and where that is put back.
pub fn run_to_end(words: &[&str], input: &str, limit: Duration) -> Result<(), Failure> {
    finish(words, input, limit, 0).map(drop)
}

/// Likewise, and returns what it writes to its standard output; none where that is not less than `most` bytes: then it is
/// ended.
pub fn run_and_read(words: &[&str], limit: Duration, most: usize) -> Result<Option<String>, Failure> {
    let output = finish(words, "", limit, most)?;
    Ok((output.len() < most).then(|| String::from_utf8_lossy(&output).into_owned()))
}

fn finish(words: &[&str], input: &str, limit: Duration, most: usize) -> Result<Vec<u8>, Failure> {
    let words = Words::Plain(words.iter().map(ToString::to_string).collect());
    let (mut command, name) = prepared(&words)?;
    let failed = |error: io::Error| unable(&name, &error);
    // A file, not a pipe: a program that reads nothing cannot hold us up.
    let mut stdin = File::from(memfd_create(c"input", MFdFlags::MFD_CLOEXEC).map_err(|e| failed(e.into()))?);
    stdin.write_all(input.as_bytes()).and_then(|()| stdin.rewind()).map_err(failed)?;
    if most > 0 {
        command.stdout(Stdio::piped());
    }
    let mut child = command.stdin(stdin).spawn().map_err(failed)?;
    let mut stdout = child.stdout.take();
    let mut running = Running::watched(child, &name, limit, sys::pidfd_open)?;
    stdout.as_ref().map_or(Ok(()), set_nonblocking).map_err(failed)?;
    let mut output = Vec::new();
    loop {
        let end = running.look(Instant::now());
        // After its end all that it wrote is there.
        stdout = stdout.and_then(|stdout| read_on(stdout, &mut output, most));
        let is_too_much = output.len() >= most.max(1);
        if let Some(end) = end {
            return if is_too_much { Ok(output) } else { end.map(|()| output) };
        }
        if is_too_much {
            running.kill();
        }
        let watched = running.watch().chain(stdout.as_ref().map(AsFd::as_fd));
        let mut fds: Vec<PollFd<'_>> = watched.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        let left = running.deadline().saturating_duration_since(Instant::now()) + Duration::from_millis(1);
        let _ = poll(&mut fds, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX));
    }
}

/// Reads what has come, up to `most` bytes in all; gives the pipe back while there may be more.
fn read_on(mut stdout: ChildStdout, output: &mut Vec<u8>, most: usize) -> Option<ChildStdout> {
    let room = u64::try_from(most.saturating_sub(output.len())).unwrap_or(u64::MAX);
    let read = stdout.by_ref().take(room).read_to_end(output);
    read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock).then_some(stdout)
}

/// Where `name` is, if it can be run: itself if it is a path, else looked for on [`PATH`].
pub fn found(name: &str) -> Option<PathBuf> {
    let executable = |path: &Path| {
        std::fs::metadata(path).is_ok_and(|facts| facts.is_file() && facts.permissions().mode() & 0o111 != 0)
    };
    if name.contains('/') {
        return Some(PathBuf::from(name)).filter(|path| executable(path));
    }
    PATH.split(':').map(|folder| Path::new(folder).join(name)).find(|path| executable(path))
}

fn prepared(words: &Words) -> Result<(Command, String), Failure> {
    let (name, arguments): (&str, Vec<&str>) = match words {
        Words::Shell(text) => ("/bin/sh", vec!["-c", text]),
        Words::Plain(words) => {
            let mut words = words.iter().map(String::as_str);
            (words.next().unwrap_or_default(), words.collect())
        }
    };
    let missing = || Failure { fault: Fault::Errno(libc::ENOENT), text: format!("{name} cannot be run") };
    let mut command = Command::new(found(name).ok_or_else(missing)?);
    command.args(arguments).env_clear().env("PATH", PATH).env("HOME", "/").current_dir("/");
    command.process_group(0).stdout(Stdio::null()).stderr(Stdio::piped());
    // Ours are: what they run in the background would not be ended by `timeout`, nor by whoever asks it to end.
    sys::unblock_signals(&mut command);
    Ok((command, name.to_owned()))
}

fn unable(name: &str, error: &io::Error) -> Failure {
    let fault = Fault::Errno(error.raw_os_error().unwrap_or(libc::EIO));
    Failure { fault, text: format!("{name} cannot be run") }
}

/// It is no child of ours any more: it has ended, and somebody else was told how. What it had done nobody knows.
fn unseen(error: &io::Error) -> Failure {
    Failure { fault: Fault::Signal(0), text: format!("its end was not seen: {error}") }
}

fn kill_group(child: &Child) {
    if let Ok(pid) = i32::try_from(child.id()) {
        let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
    }
}

#[cfg(test)]
mod tests;
