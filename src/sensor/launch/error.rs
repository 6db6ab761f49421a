//! What can go wrong before the daemon watches.
#![forbid(unsafe_code)]

use std::io;

use crate::control::server::BindError;
use crate::event;
use crate::event::history::HistoryError;
use crate::sandbox::SandboxError;
use crate::sensor::helper_link::LinkError;
use crate::sensor::listener::DecoyError;
use crate::sensor::parked::ThreadError;
use crate::sensor::ring::RingError;
use crate::sensor::state_dir::StateDirError;

/// A step of the start that failed. Nothing is left behind.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A right is missing, or could not be given up.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// No outputs.
    #[error(transparent)]
    Output(#[from] event::emitter::EmitterError),
    /// No history file.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// A decoy could not be bound.
    #[error(transparent)]
    Decoy(#[from] DecoyError),
    /// No packet rings.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// No control socket.
    #[error(transparent)]
    Control(#[from] BindError),
    /// No ring threads.
    #[error(transparent)]
    Thread(#[from] ThreadError),
    /// No helper.
    #[error(transparent)]
    Helper(#[from] LinkError),
    /// The ledger has no folder.
    #[error(transparent)]
    StateDir(#[from] StateDirError),
    /// The kernel refused something small.
    #[error("{0}: {1}")]
    System(&'static str, io::Error),
}

/// The kernel refused what `what` names.
pub fn system(what: &'static str) -> impl Fn(nix::errno::Errno) -> StartError {
    move |errno| StartError::System(what, errno.into())
}
