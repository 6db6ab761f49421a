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
mod tests {
    use nix::sys::signal::{SigSet, SigmaskHow};

    use super::*;
    use crate::protocol::wording::words;

    fn end_of(text: &str, limit: Duration) -> Result<(), Failure> {
        let mut running = Running::start(&words(text), limit)?;
        loop {
            if let Some(end) = running.look(Instant::now()) {
                return end;
            }
            let mut fds: Vec<PollFd<'_>> =
                running.watch().map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
            let left = running.deadline().saturating_duration_since(Instant::now()).as_millis() + 1;
            poll(&mut fds, PollTimeout::try_from(left).unwrap()).unwrap();
        }
    }

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn the_exit_status_and_the_first_line_of_standard_error_are_told() {
        assert_eq!(end_of("true", LONG), Ok(()));
        let failure = end_of("echo out; echo why >&2; echo more >&2; exit 3", LONG).unwrap_err();
        assert_eq!(failure, Failure { fault: Fault::Exit(3), text: "why".into() });
        assert_eq!(end_of("kill -9 $$", LONG).unwrap_err().fault, Fault::Signal(9));
        assert_eq!(end_of("/nonexistent/x 192.0.2.7", LONG).unwrap_err().fault, Fault::Errno(libc::ENOENT));
    }

    #[test]
    fn a_program_that_hangs_is_killed_with_its_children() {
        let begun = Instant::now();
        let failure = end_of("sleep 30 & wait", Duration::from_millis(200)).unwrap_err();
        assert!(matches!(failure.fault, Fault::Hung(_)) && begun.elapsed() < LONG);
    }

    #[test]
    fn a_flood_is_read_and_dropped_and_a_background_child_holds_up_nobody() {
        let flood = "i=0; while [ $i -lt 2000 ]; do echo aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa >&2; i=$((i+1)); done";
        assert_eq!(end_of(flood, LONG), Ok(()));
        let begun = Instant::now();
        assert_eq!(end_of("sleep 3 >/dev/null 2>&1 & exit 0", LONG), Ok(()));
        assert!(begun.elapsed() < Duration::from_secs(3));
    }

    #[test]
    fn a_program_that_has_closed_its_standard_error_wakes_nobody_until_it_ends() {
        let mut running = Running::start(&words("exec 2>&-; sleep 30; true"), LONG).unwrap();
        while running.stderr.is_some() {
            assert_eq!(running.look(Instant::now()), None);
        }
        let mut fds: Vec<PollFd<'_>> = running.watch().map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        assert_eq!(poll(&mut fds, PollTimeout::from(300u16)).unwrap(), 0);
    }

    #[test]
    fn a_program_that_cannot_be_watched_is_ended_and_taken_for_one_that_was_cut_short() {
        let (mut command, name) = prepared(&words("sleep 60")).unwrap();
        let child = command.stdin(Stdio::null()).spawn().unwrap();
        let process = PathBuf::from(format!("/proc/{}", child.id()));
        assert!(process.exists());
        let none_left = |_| Err(io::Error::from_raw_os_error(libc::EMFILE));
        let failure = Running::watched(child, &name, LONG, none_left).unwrap_err();
        assert!(
            failure.fault.is_cut_short() && failure.text.starts_with("sleep cannot be watched"),
            "{failure:?}"
        );
        assert!(!process.exists());
    }

    #[test]
    fn a_program_whose_end_somebody_else_has_taken_has_ended_all_the_same() {
        let mut running = Running::start(&words("true"), LONG).unwrap();
        nix::sys::wait::waitpid(Pid::from_raw(running.child.id().try_into().unwrap()), None).unwrap();
        let failure = running.look(Instant::now()).unwrap().unwrap_err();
        assert!(
            failure.fault.is_cut_short() && failure.text.starts_with("its end was not seen"),
            "{failure:?}"
        );
    }

    #[test]
    fn a_program_is_found_on_the_path_or_nowhere() {
        assert!(found("sh").is_some() && found("/bin/sh").is_some());
        assert!(found("no-such-program").is_none() && found("/etc/passwd").is_none() && found("").is_none());
    }

    #[test]
    fn input_is_given_and_signals_are_not_blocked() {
        let grep = ["grep", "-q", "right", "-"];
        assert_eq!(run_to_end(&grep, "left\nright\n", LONG), Ok(()));
        assert_eq!(run_to_end(&grep, "left\n", LONG).unwrap_err().fault, Fault::Exit(1));
        // As the helper does.
        let before = SigSet::from_iter([Signal::SIGTERM, Signal::SIGHUP])
            .thread_swap_mask(SigmaskHow::SIG_BLOCK)
            .unwrap();
        let blocks_none = ["grep", "-q", "^SigBlk:[[:space:]]*0*$", "/proc/self/status"];
        assert_eq!(run_to_end(&blocks_none, "", LONG), Ok(()));
        // Which sends it SIGTERM, and no other signal.
        assert_eq!(end_of("timeout 0.1 sleep 60", LONG).unwrap_err().fault, Fault::Exit(124));
        before.thread_set_mask().unwrap();
    }

    #[test]
    fn what_a_program_says_is_read_and_no_more_of_it_than_was_asked_for() {
        assert_eq!(run_and_read(&["echo", "one"], LONG, 5), Ok(Some("one\n".into())));
        assert_eq!(run_and_read(&["true"], LONG, 5), Ok(Some(String::new())));
        assert_eq!(run_and_read(&["echo", "four"], LONG, 5), Ok(None));
        assert_eq!(run_and_read(&["cat", "/dev/zero"], LONG, 100_000), Ok(None));
        let (lines, begun) =
            (run_and_read(&["seq", "30000"], LONG, 1 << 20).unwrap().unwrap(), Instant::now());
        assert_eq!(lines.lines().count(), 30_000);
        assert_eq!(run_and_read(&["cat", "/nonexistent"], LONG, 9).unwrap_err().fault, Fault::Exit(1));
        assert!(begun.elapsed() < LONG);
    }
}
