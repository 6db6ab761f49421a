//! Why a running daemon's answer cannot be had or printed, and what to do about it. The command line's process.
#![forbid(unsafe_code)]

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("No daemon runs at {0}; start portsentry-rs, or name its configuration file with -c")]
    NoDaemon(PathBuf),
    /// Not ours to use.
    #[error("{0} may be used by root only; try sudo")]
    NotAllowed(PathBuf),
    /// The socket failed.
    #[error("The daemon at {path} did not answer: {source}; look into its log")]
    Socket {
        /// The socket's path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The answer broke off.
    #[error(
        "The daemon at {0} broke off its answer: nobody read on for ten seconds, or it ended; look into its log"
    )]
    BrokenOff(PathBuf),
    /// The answer makes no sense to us.
    #[error("The answer was not understood ({0}); the daemon is of another version, restart it")]
    Unreadable(#[from] serde_json::Error),
    /// The sensor answers, the helper does not.
    #[error(
        "the helper (process {0}) has not answered for six seconds: until it does nobody is blocked or let in; look into the log, and restart the daemon if it stays so"
    )]
    HelperSilent(u32),
    /// The daemon would not.
    #[error("{0}")]
    Refused(String),
    /// Standard output failed.
    #[error("The answer cannot be printed: {0}")]
    Print(io::Error),
}

impl ClientError {
    /// The socket at `path` failed so.
    pub(super) fn socket(path: &Path, source: io::Error) -> ClientError {
        let path = path.to_owned();
        let is = |kinds: &[ErrorKind]| kinds.contains(&source.kind());
        if is(&[ErrorKind::NotFound, ErrorKind::ConnectionRefused]) {
            ClientError::NoDaemon(path)
        } else if is(&[ErrorKind::PermissionDenied]) {
            ClientError::NotAllowed(path)
        } else if is(&[ErrorKind::ConnectionReset]) {
            ClientError::BrokenOff(path)
        } else {
            ClientError::Socket { path, source }
        }
    }
}
