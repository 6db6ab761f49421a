//! `-D`: the way into the background, in two steps, so that what goes wrong at the start is still told to whoever
//! started us.
#![forbid(unsafe_code)]

use std::fs::File;

use super::error::{StartError, system};

/// A process that may still have its terminal.
pub struct Background(Option<File>);

impl Background {
    /// With `-D`, chdir to / and no controlling terminal. Before there is a thread or a child, which would stay behind.
    ///
    /// # Errors
    /// No /dev/null, or no further process.
    pub fn enter(asked: bool) -> Result<Background, StartError> {
        if !asked {
            return Ok(Background(None));
        }
        let null = File::options().read(true).write(true).open("/dev/null");
        let null = null.map_err(|error| StartError::System("-D: /dev/null cannot be opened", error))?;
        nix::unistd::daemon(false, true).map_err(system("-D: no way into the background"))?;
        Ok(Background(Some(null)))
    }

    /// Leaves the standard streams, the last thing of all.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn leave_terminal(&self) -> Result<(), StartError> {
        self.0.as_ref().map_or(Ok(()), silence).map_err(system("-D: the terminal cannot be left"))
    }
}

fn silence(null: &File) -> nix::Result<()> {
    nix::unistd::dup2_stdin(null)?;
    nix::unistd::dup2_stdout(null)?;
    nix::unistd::dup2_stderr(null)
}
