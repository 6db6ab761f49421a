//! Ring threads that exist and wait: the seccomp filter must reach them, and must not have to allow their making.
//!
//! They inherit what the main thread gave up before, and read no packet before the word is given.
#![forbid(unsafe_code)]

use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Barrier};
use std::thread::Builder;

use super::ring::Ring;
use super::watcher::{Shared, Watcher};
use crate::event::stderr;

/// A ring thread's stack, bytes: it calls nothing deep.
const THREAD_STACK: usize = 128 * 1024;

/// A thread could not be had.
#[derive(Debug, thiserror::Error)]
#[error("a ring thread cannot be started: {0}; lower WORKERS or raise the limit of processes")]
pub struct ThreadError(#[from] io::Error);

/// The waiting threads.
pub struct Parked(Arc<Barrier>);

impl Parked {
    /// Starts a thread for each ring. Returns when all wait: their making is over.
    ///
    /// # Errors
    /// The system starts no further thread; those before wait for ever, until the process ends.
    pub fn start(rings: Vec<Ring>, shared: &Arc<Shared>) -> Result<Parked, ThreadError> {
        let barrier = Arc::new(Barrier::new(rings.len() + 1));
        for (number, ring) in rings.into_iter().enumerate() {
            let (shared, barrier) = (shared.clone(), barrier.clone());
            let named = Builder::new().name(format!("ring{number}")).stack_size(THREAD_STACK);
            named.spawn(move || watch(ring, &shared, &barrier))?;
        }
        barrier.wait();
        Ok(Parked(barrier))
    }

    /// Gives the word.
    pub fn begin(self) {
        self.0.wait();
    }
}

fn watch(ring: Ring, shared: &Arc<Shared>, barrier: &Barrier) {
    let watcher = Watcher::new(shared.clone());
    barrier.wait();
    barrier.wait();
    // A ring that fails takes the daemon down: blind, it would be worse than gone.
    if let Err(error) = ring.run(shared.stop.as_fd(), watcher) {
        stderr::tell(format_args!("a packet ring failed: {error}"));
        std::process::exit(1);
    }
}
