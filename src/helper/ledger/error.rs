//! Why the ledger cannot be used, and what to do about it. Helper.
//!
//! Names the file and what was tried, never what stands in it.
#![forbid(unsafe_code)]

use std::io;
use std::path::{Path, PathBuf};

/// Why the ledger cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The system refused.
    #[error("cannot {doing} {path:?}: {error}; STATE_DIR must be a folder that the helper may write")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// Something that we did not make lies there.
    #[error("{path:?} is {what}: move it away, it may have been planted")]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
}

impl LedgerError {
    /// Which error of the system's it is, if it is one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            LedgerError::Io { error, .. } => error.raw_os_error(),
            LedgerError::Foreign { .. } => None,
        }
    }
}

pub(super) fn io_error<'a>(
    doing: &'static str,
    path: &'a Path,
) -> impl FnOnce(io::Error) -> LedgerError + use<'a> {
    move |error| LedgerError::Io { doing, path: path.to_owned(), error }
}
