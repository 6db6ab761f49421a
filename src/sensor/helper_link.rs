//! The sensor's end of the boundary: starts the helper, sends requests, takes replies.
//!
//! Never waits once the daemon runs, but for the list of blocks at first and for the goodbye: a full queue refuses, and the
//! caller says so in the event.
#![forbid(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

use crate::protocol::channel::{ChannelError, FrameReader, Intake, RequestWriter, set_nonblocking};
use crate::protocol::settings::SettingsError;
use crate::protocol::{FrameError, Reply, Settings};

/// The helper's file name, beside the sensor's own executable.
pub const HELPER: &str = "portsentry-rs-helper";

/// Requests that may wait for a busy helper.
pub const QUEUE: usize = 1024;

/// How long the helper may take to install its table and restore a large ledger.
pub const READY_WITHIN: Duration = Duration::from_secs(60);

/// A running helper.
pub struct HelperLink {
    child: Child,
    requests: ChildStdin,
    waiting: bool,
    replies: ChildStdout,
    reader: FrameReader,
}

/// What the helper says of itself once it is ready.
#[derive(Clone, Copy, Debug)]
pub struct Ready {
    /// Blocks that were put back into the kernel.
    pub restored: u32,
    /// The Landlock interface that confines it; 0: none.
    pub landlock: u8,
    /// Whether the tripwire's rules stand.
    pub tripwire: bool,
}

/// Why there is no helper to talk to.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The executable's folder is not known.
    #[error("the path of this program cannot be found: {0}; is /proc mounted?")]
    OwnPath(io::Error),
    /// It could not be started.
    #[error("the helper {path} could not be started: {error}; it belongs beside portsentry-rs, and takes a process and open files to spare (TasksMax=, LimitNOFILE=)", path = .0.display(), error = .1)]
    Spawn(PathBuf, io::Error),
    /// The pipe broke.
    #[error("the pipe to the helper failed: {0}")]
    Pipe(#[from] io::Error),
    /// The settings could not be told.
    #[error("the helper was not told its settings: {0}")]
    Settings(#[from] SettingsError),
    /// A reply could not be read.
    #[error("the helper's replies cannot be read: {0}")]
    Channel(#[from] ChannelError),
    /// A reply made no sense.
    #[error("the helper sent a frame that is no reply: {0}; are both programs of the same version?")]
    Frame(#[from] FrameError),
    /// It answered before it said that it is ready.
    #[error("the helper answered before it was ready; are both programs of the same version?")]
    OutOfOrder,
    /// A system call outside its rules.
    #[error(
        "the helper died of SIGSYS: it made a system call outside its seccomp rules; blocks stay in place, SANDBOX_LOG=\"1\" names the call, please report it"
    )]
    Refused,
    /// It ended.
    #[error("the helper ended ({0}); its own message stands above")]
    Ended(ExitStatus),
    /// It did not get ready.
    #[error("the helper was not ready within {} s", READY_WITHIN.as_secs())]
    Slow,
    /// It did not answer that it is to end.
    #[error(
        "the helper has not answered within {} s that it is to end, and is not waited for any longer: it stands still, or waits for the lock of iptables or for the disk; blocks that FLUSH_ON_STOP was to lift may still be in force",
        super::event_loop::FAREWELL.as_secs()
    )]
    NoGoodbye,
}

impl LinkError {
    /// Whether it is only that the helper takes no more requests: why, its end will tell.
    pub fn is_broken_pipe(&self) -> bool {
        matches!(self, LinkError::Pipe(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

impl HelperLink {
    /// Starts the helper with a clean environment and the pipes, and tells it its settings.
    /// Everything that this process opened is close-on-exec.
    pub fn start(settings: &Settings) -> Result<HelperLink, LinkError> {
        let path = std::env::current_exe().map_err(LinkError::OwnPath)?.with_file_name(HELPER);
        let mut command = Command::new(&path);
        command.env_clear().current_dir("/").stdin(Stdio::piped()).stdout(Stdio::piped());
        #[cfg(feature = "escape-attempts")]
        command.envs(
            std::env::var_os(crate::sandbox::escape::VARIABLE)
                .map(|it| (crate::sandbox::escape::VARIABLE, it)),
        );
        let mut child = command.spawn().map_err(|error| LinkError::Spawn(path, error))?;
        let missing = || io::Error::from(io::ErrorKind::BrokenPipe);
        let mut requests = child.stdin.take().ok_or_else(missing)?;
        let replies = child.stdout.take().ok_or_else(missing)?;
        settings.write_to(&mut requests)?;
        set_nonblocking(&requests)?;
        set_nonblocking(&replies)?;
        Ok(HelperLink { child, requests, waiting: false, replies, reader: FrameReader::default() })
    }

    /// Waits until the table stands.
    pub fn wait_ready(&mut self) -> Result<Ready, LinkError> {
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            match self.next_reply()? {
                Some(Reply::Ready { restored, landlock, tripwire }) => {
                    return Ok(Ready { restored, landlock, tripwire });
                }
                // It must not answer before it is ready.
                Some(_) => return Err(LinkError::OutOfOrder),
                None => self.wait_readable(deadline)?,
            }
        }
    }

    /// The helper's process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Writes what is queued, as far as the pipe takes it. `true` if whether some of it is left has changed: then
    /// [`request_pipe`](Self::request_pipe) must be watched, or no longer.
    ///
    /// # Errors
    /// The helper is gone.
    pub fn flush(&mut self, queue: &mut RequestWriter) -> Result<bool, LinkError> {
        queue.frames().flush(&mut self.requests)?;
        let waited = std::mem::replace(&mut self.waiting, !queue.frames().is_empty());
        Ok(waited != self.waiting)
    }

    /// Whether requests wait for room in the pipe.
    pub fn is_waiting(&self) -> bool {
        self.waiting
    }

    /// The write end.
    pub fn request_pipe(&self) -> BorrowedFd<'_> {
        self.requests.as_fd()
    }

    /// The read end.
    pub fn reply_pipe(&self) -> BorrowedFd<'_> {
        self.replies.as_fd()
    }

    /// The next reply, if one has come.
    ///
    /// # Errors
    /// The helper is gone or talks nonsense; either ends the sensor.
    pub fn next_reply(&mut self) -> Result<Option<Reply>, LinkError> {
        if !self.reader.is_waiting() {
            match self.reader.fill(&mut self.replies)? {
                Intake::Some => {}
                Intake::Nothing => return Ok(None),
                Intake::End => return Err(self.end()),
            }
        }
        match self.reader.take() {
            Some(frame) => Ok(Some(Reply::decode(&frame)?)),
            None => Ok(None),
        }
    }

    /// Whether replies were read from the pipe and not taken yet.
    pub fn holds_replies(&self) -> bool {
        self.reader.is_waiting()
    }

    /// Waits until the helper says something or ends, but not beyond `deadline`.
    pub fn wait_reply(&self, deadline: Instant) {
        // Whatever went wrong, the next read tells it.
        let _ = self.wait_readable(deadline);
    }

    fn end(&mut self) -> LinkError {
        match self.child.wait() {
            Ok(status) if status.signal() == Some(libc::SIGSYS) => LinkError::Refused,
            Ok(status) => LinkError::Ended(status),
            Err(error) => LinkError::Pipe(error),
        }
    }

    fn wait_readable(&self, deadline: Instant) -> Result<(), LinkError> {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut fds = [PollFd::new(self.replies.as_fd(), PollFlags::POLLIN)];
        match ppoll(&mut fds, Some(TimeSpec::from(left)), None) {
            Ok(0) => Err(LinkError::Slow),
            Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
            Err(errno) => Err(LinkError::Pipe(errno.into())),
        }
    }
}
