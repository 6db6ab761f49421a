//! Signals as a descriptor: blocked before any thread exists, read by the event loop.
#![forbid(unsafe_code)]

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// SIGTERM, SIGINT: end.
    Stop,
    /// SIGHUP: read the configuration again and reopen the logs.
    Reload,
}

/// Blocks the signals that the daemon understands and opens the descriptor they are read from.
///
/// # Errors
/// The kernel refused.
pub fn open() -> nix::Result<SignalFd> {
    let mut signals = SigSet::empty();
    [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP].into_iter().for_each(|signal| signals.add(signal));
    signals.thread_block()?;
    // Where files may not grow further (LimitFSIZE=, ulimit -f) a write fails, and costs a line, not the daemon.
    SigSet::from(Signal::SIGXFSZ).thread_block()?;
    SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
}

/// The next signal that came.
pub fn next(signals: &SignalFd) -> Option<Asked> {
    let came = signals.read_signal().ok()??;
    match Signal::try_from(i32::try_from(came.ssi_signo).ok()?) {
        Ok(Signal::SIGHUP) => Some(Asked::Reload),
        Ok(_) => Some(Asked::Stop),
        Err(_) => None,
    }
}
