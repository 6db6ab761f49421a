//! `-D`: the way into the background, in two steps, so that whoever started us hears what goes wrong at the start, and is
//! let go with an exit code that says how it went.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{PipeReader, PipeWriter, Read, Write, pipe};

use nix::unistd::{ForkResult, chdir, dup2_stderr, dup2_stdin, dup2_stdout, setsid};

use super::error::{StartError, system};
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
        if let ForkResult::Parent { .. } = sys::fork().map_err(no_way)? {
            drop(done);
            std::process::exit(exit_code(outcome));
        }
        setsid().and_then(|_| chdir("/")).map_err(system("-D: no way into the background"))?;
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

/// Waits for the end of the start; of a start that failed the reason has been told.
fn exit_code(mut outcome: PipeReader) -> i32 {
    i32::from(outcome.read_exact(&mut [0]).is_err())
}

fn silence(null: &File) -> nix::Result<()> {
    dup2_stdin(null)?;
    dup2_stdout(null)?;
    dup2_stderr(null)
}
