//! `-D`: the way into the background, in two steps, so that whoever started us hears what goes wrong at the start, and is
//! let go with an exit code that says how it went.
//!
//! Who stays behind and waits passes on what is said until then: no process of the daemon has the starter's standard error
//! beyond that, which might be a pipe that is read to its end.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read, Write, pipe};
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{ForkResult, chdir, dup2_stderr, dup2_stdin, dup2_stdout, setsid};

use super::error::{StartError, system};
use crate::protocol::channel::set_nonblocking;
use crate::sys;

/// A process that may still have its terminal.
pub struct Background(Option<Awaited>);

/// A start that somebody waits for.
struct Awaited {
    null: File,
    /// That it is closed before a byte came says that the start failed, however that came about.
    done: PipeWriter,
}

impl Background {
    /// With `-D`, chdir to / and no controlling terminal. Before there is a thread or a child, which would stay behind.
    /// Whoever called us waits in the process that stays behind, which ends here.
    ///
    /// # Errors
    /// No /dev/null, or no further process.
    pub fn enter(asked: bool) -> Result<Background, StartError> {
        if !asked {
            return Ok(Background(None));
        }
        let null = File::options().read(true).write(true).open("/dev/null");
        let null = null.map_err(|error| StartError::System("-D: /dev/null cannot be opened", error))?;
        let no_way = |error| StartError::System("-D: no way into the background", error);
        let (outcome, done) = pipe().map_err(no_way)?;
        let (said, words) = pipe().map_err(no_way)?;
        set_nonblocking(&said).map_err(no_way)?;
        if let ForkResult::Parent { .. } = sys::fork().map_err(no_way)? {
            drop((done, words));
            std::process::exit(exit_code(said, outcome));
        }
        // The helper inherits it, and once nobody reads there says what it says to nobody.
        dup2_stderr(words)
            .and_then(|()| setsid())
            .and_then(|_| chdir("/"))
            .map_err(system("-D: no way into the background"))?;
        Ok(Background(Some(Awaited { null, done })))
    }

    /// Leaves the standard streams and lets go whoever waits, the last thing of all.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn leave_terminal(&self) -> Result<(), StartError> {
        let Some(Awaited { null, done }) = &self.0 else { return Ok(()) };
        silence(null).map_err(system("-D: the terminal cannot be left"))?;
        // Nobody may wait any more.
        let _ = (&mut &*done).write_all(&[0]);
        Ok(())
    }
}

/// Waits for the end of the start and passes on what is said until then: of a start that failed, the reason.
fn exit_code(mut said: PipeReader, mut outcome: PipeReader) -> i32 {
    while !has_come(&outcome, &said) {
        pass_on(&mut said);
    }
    // What was said just before.
    pass_on(&mut said);
    i32::from(outcome.read_exact(&mut [0]).is_err())
}

/// Waits for either: whether `outcome` is there, or at least nothing more will be said.
fn has_come(outcome: &PipeReader, said: &PipeReader) -> bool {
    let mut fds = [outcome.as_fd(), said.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
    match poll(&mut fds, PollTimeout::NONE) {
        Ok(_) => {
            let [outcome, said] = fds.map(|fd| fd.revents().unwrap_or(PollFlags::empty()));
            !outcome.is_empty() || !said.contains(PollFlags::POLLIN)
        }
        Err(errno) => errno != Errno::EINTR,
    }
}

/// What is there by now. Whoever does not want to hear it stops nothing.
fn pass_on(said: &mut PipeReader) {
    let mut gulp = [0; 4096];
    while let Ok(length @ 1..) = said.read(&mut gulp) {
        let _ = io::stderr().write_all(gulp.get(..length).unwrap_or_default());
    }
}

fn silence(null: &File) -> nix::Result<()> {
    dup2_stdin(null)?;
    dup2_stdout(null)?;
    dup2_stderr(null)
}
