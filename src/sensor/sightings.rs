//! What ring threads tell the main thread: a bounded queue and a bell.
//!
//! Pushing never waits: where the queue is full the sighting is counted and lost, and the score table keeps the evidence.
#![forbid(unsafe_code)]

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam_queue::ArrayQueue;
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::detect::Probe;
use crate::detect::table::Standing;

/// Room for sightings on their way: one batch of the main thread's, at about 200 bytes each.
const CAPACITY: usize = 512;

/// Something on the wire that the main thread has to know.
#[derive(Clone, Copy, Debug)]
pub struct Sighting {
    /// The probe.
    pub probe: Probe,
    /// Index of the interface it came in by.
    pub interface: u32,
    /// What is known of it so far.
    pub state: State,
}

/// How far the ring thread got with a probe.
#[derive(Clone, Copy, Debug)]
pub enum State {
    /// Counted; this is what its source has done so far.
    Counted(Standing),
    /// A SYN to a decoy: it counts here only if no handshake follows.
    HalfOpen,
    /// To a port that was in use when we last looked, too long ago. Not counted.
    Doubtful,
    /// To a port with a service: for the classic line.
    Served,
    /// From the very address it goes to (`-d`).
    FromItself,
}

impl Sighting {
    /// More than one packet of it says that its source is one.
    fn is_earned(&self) -> bool {
        matches!(self.state, State::Counted(standing) if standing.triggered && (standing.distinct_ports > 1 || standing.verified))
    }
}

/// The queue. Any thread pushes, the main thread pops.
pub struct Sightings {
    queue: ArrayQueue<Sighting>,
    bell: EventFd,
    rung: AtomicBool,
    lost: AtomicU64,
}

impl Sightings {
    /// An empty queue.
    ///
    /// # Errors
    /// The kernel gives no eventfd.
    pub fn new() -> nix::Result<Sightings> {
        let bell = EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        Ok(Sightings {
            queue: ArrayQueue::new(CAPACITY),
            bell,
            rung: AtomicBool::new(false),
            lost: AtomicU64::new(0),
        })
    }

    /// Hands over a sighting, or counts it as lost. Half of the room is for sources that are over the trigger by more
    /// than one port, so that a flood of single probes does not hide a scanner.
    pub fn push(&self, sighting: Sighting) {
        let has_room = sighting.is_earned() || self.have_room();
        if !has_room || self.queue.push(sighting).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        self.ring();
    }

    /// Whether a sighting would be taken whatever its source did before. Other threads may be quicker.
    pub fn have_room(&self) -> bool {
        self.queue.len() < CAPACITY / 2
    }

    /// Asks the main thread to look around: one system call a batch, since only the first ring after it took its turn
    /// goes through.
    pub fn ring(&self) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            let _ = self.bell.write(1);
        }
    }

    /// Silences the bell and takes up to `most` sightings; rings again if some are left.
    pub fn take(&self, most: usize, out: &mut Vec<Sighting>) {
        let _ = self.bell.read();
        self.rung.store(false, Ordering::Release);
        out.extend(std::iter::from_fn(|| self.queue.pop()).take(most));
        if !self.queue.is_empty() {
            self.ring();
        }
    }

    /// How many found no room.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

/// Readable when there are sightings to take.
impl AsFd for Sightings {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}
