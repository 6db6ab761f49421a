//! The packet rings: the kernel writes what the filter lets up into shared memory, a thread a ring reads it there.
//!
//! Runs in the sensor; opened with CAP_NET_RAW, read without any right. One system call a wake-up, none a packet.
//! TPACKET_V2, not V3, by measurement (2 cores, veth): a lone SYN is seen after 58 µs against 653 µs (V3 hands over
//! blocks when full or when a timer of at least 1 ms says so), and in peace V2 causes no timer interrupt where V3
//! causes 1,000 a second. Under load V2 woke us for each packet; hence the breath in [`Ring::run`].
#![forbid(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::net::if_::{if_indextoname, if_nameindex, if_nametoindex};
use nix::poll::{PollFd, PollFlags, ppoll};
use socket2::{SockFilter, SockRef};

use super::filter::{self, Interest, Program, Watched};
use super::frame::Frame;
use super::pace::{BREATH, Pace};
use crate::config::Interfaces;
use crate::sys::{self, PacketRing};

/// Memory of all rings together, bytes: 4,096 packets, 4 ms of a million a second.
const MEMORY: usize = 1 << 20;
/// What spreads packets over rings: the flow's hash; when that ring is full, another. Not PACKET_FANOUT_FLAG_DEFRAG:
/// it reassembles in the host's own, limited fragment memory before any filter could say no.
const FANOUT: u32 = libc::PACKET_FANOUT_HASH | libc::PACKET_FANOUT_FLAG_ROLLOVER;

/// `net.core.optmem_max` with which every filter goes, bytes, which tests/packet_ring.rs proves: that of kernels before 6.8.
const OPTION_MEMORY: usize = 20_480;

/// Why rings cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// EPERM or EACCES on socket(2).
    #[error(
        "cannot open a packet socket: CAP_NET_RAW is missing; start as root or grant it (systemd: AmbientCapabilities=CAP_NET_RAW, container: --cap-add=NET_RAW)"
    )]
    NoCapability,
    /// A name in INTERFACES that no interface bears.
    #[error("there is no interface {name:?} here, only {present}; correct INTERFACES")]
    NoInterface {
        /// As configured.
        name: String,
        /// Those there are, comma-separated.
        present: String,
    },
    /// ENOMEM of SO_ATTACH_FILTER (socket(7)): the kernel takes a filter out of a socket's memory for options.
    #[error(
        "cannot set a packet filter of {bytes} bytes: {source}; where net.core.optmem_max is below {OPTION_MEMORY}, raise it: sysctl -w net.core.optmem_max={OPTION_MEMORY}"
    )]
    NoOptionMemory {
        /// What the filter takes.
        bytes: usize,
        /// What the kernel said.
        source: io::Error,
    },
    /// Any other step.
    #[error("cannot {step}: {source}")]
    Step {
        /// What was tried.
        step: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

/// What happened on the rings since the start.
#[derive(Debug, Default)]
pub struct Counters {
    /// Packets that passed the filter and were read.
    pub seen: AtomicU64,
    /// Packets that passed the filter and found no free slot. Current as of the last [`RingControl::count_drops`],
    /// or of the first packet after them.
    pub dropped: AtomicU64,
    /// Slots that made no sense: a kernel bug if ever above 0.
    pub unreadable: AtomicU64,
}

/// One ring, for one thread.
pub struct Ring {
    packets: PacketRing,
    counters: Arc<Counters>,
    /// Losses were counted by [`RingControl::count_drops`] since the last round.
    asked: Arc<AtomicBool>,
}

/// What the main thread may do to the rings while their threads run.
pub struct RingControl {
    reins: Vec<Rein>,
    counters: Arc<Counters>,
}

/// Of one ring.
struct Rein {
    socket: OwnedFd,
    /// See [`Ring::asked`].
    asked: Arc<AtomicBool>,
}

/// Opens `workers` rings that share the packets of `interest` among them, each packet going to one.
/// Needs CAP_NET_RAW; nothing of what follows does.
pub fn open(workers: usize, interest: &Interest) -> Result<(Vec<Ring>, RingControl), RingError> {
    let workers = workers.max(1);
    let counters = Arc::new(Counters::default());
    let rings: Vec<Ring> =
        (0..workers).map(|_| Ring::open(MEMORY / workers, &counters)).collect::<Result<_, _>>()?;
    share(&rings).map_err(step("share packets among the rings"))?;
    let rein = |ring: &Ring| {
        let socket = ring.packets.as_fd().try_clone_to_owned()?;
        Ok(Rein { socket, asked: ring.asked.clone() })
    };
    let reins = rings.iter().map(rein).collect::<io::Result<_>>();
    let control = RingControl { reins: reins.map_err(step("duplicate a packet socket"))?, counters };
    // Last, so that no packet is seen twice before all rings share.
    control.set_filter(&filter::compile(interest))?;
    Ok((rings, control))
}

/// The interfaces that `interfaces` names, by their index at this moment.
pub fn resolve(interfaces: &Interfaces) -> Result<Watched, RingError> {
    match interfaces {
        Interfaces::All => Ok(Watched::All),
        Interfaces::AllButLoopback => Ok(Watched::AllButLoopback),
        Interfaces::Named(names) => {
            names.iter().map(|name| index(name)).collect::<Result<_, _>>().map(Watched::Indexes)
        }
    }
}

/// The first name of the interface that has this one, which it is itself where there is no such interface.
pub fn first_name(name: &str) -> String {
    let first = if_nametoindex(name).and_then(if_indextoname);
    first.map_or_else(|_| name.to_owned(), |first| first.to_string_lossy().into_owned())
}

fn index(name: &str) -> Result<u32, RingError> {
    if_nametoindex(name).map_err(|_| RingError::NoInterface { name: name.to_owned(), present: present() })
}

fn present() -> String {
    let interfaces = if_nameindex();
    let names =
        interfaces.iter().flat_map(|all| all.iter()).map(|one| one.name().to_string_lossy().into_owned());
    names.collect::<Vec<_>>().join(", ")
}

fn step(step: &'static str) -> impl FnOnce(io::Error) -> RingError {
    move |source| RingError::Step { step, source }
}

fn no_socket(error: io::Error) -> RingError {
    if error.kind() == io::ErrorKind::PermissionDenied {
        return RingError::NoCapability;
    }
    step("open a packet socket")(error)
}

fn share(rings: &[Ring]) -> io::Result<()> {
    let [first, others @ ..] = rings else { return Ok(()) };
    if others.is_empty() {
        return Ok(());
    }
    let group = sys::found_fanout(first.packets.as_fd(), FANOUT)?;
    others.iter().try_for_each(|ring| sys::join_fanout(ring.packets.as_fd(), group))
}

/// Whoever reads a ring.
pub trait Reader {
    /// Packets follow: once before each round, for what need not be looked up for each.
    fn on_wake(&mut self) {}

    /// Packets were lost that should have come before the next one.
    fn on_loss(&mut self) {}

    /// One packet.
    fn on_frame(&mut self, frame: &Frame<'_>);

    /// No packet follows for now: once after each round, before the thread waits.
    fn on_rest(&mut self) {}

    /// How long the thread waits for packets before it begins a round without one; `None`: for ever.
    fn patience(&self) -> Option<Duration> {
        None
    }
}

impl<F: FnMut(&Frame<'_>)> Reader for F {
    fn on_frame(&mut self, frame: &Frame<'_>) {
        self(frame);
    }
}

impl Ring {
    /// Bound, but deaf until its filter is set.
    fn open(bytes: usize, counters: &Arc<Counters>) -> Result<Ring, RingError> {
        let socket = sys::packet_socket().map_err(no_socket)?;
        attach(socket.as_fd(), &filter::nothing())?;
        let packets = PacketRing::new(socket, bytes).map_err(step("map a packet ring"))?;
        // Never to one interface: a socket bound to one goes deaf when that one goes away, even if it comes back.
        sys::bind_packet_socket(packets.as_fd(), 0).map_err(step("bind a packet socket"))?;
        Ok(Ring { packets, counters: counters.clone(), asked: Arc::default() })
    }

    /// Gives each packet to `reader` in order of arrival, until `stop` (an eventfd, say) is readable.
    /// Sleeps without a timeout while there is nothing to do, unless `reader` asks for one.
    pub fn run(mut self, stop: BorrowedFd<'_>, mut reader: impl Reader) -> io::Result<()> {
        let mut pace = Pace::new(Instant::now());
        loop {
            reader.on_wake();
            let seen = self.round(&mut reader);
            reader.on_rest();
            // Nobody who is behind takes a breath: the wait ends at once where packets are left.
            let gather = pace.is_flood(seen, Instant::now) && seen < self.packets.slots();
            let stopped = if gather { breathe(stop)? } else { self.wait(stop, reader.patience())? };
            if stopped {
                return Ok(());
            }
        }
    }

    /// All packets there are, but no more than the ring holds: `stop` must get its turn in any flood.
    fn round(&mut self, reader: &mut impl Reader) -> usize {
        let mut seen = 0;
        let mut is_told = self.has_lost();
        if is_told {
            reader.on_loss();
        }
        let mut after_loss = false;
        while seen < self.packets.slots() {
            let Some(slot) = self.packets.next_slot() else { break };
            match Frame::read(slot.bytes()) {
                Some(frame) => {
                    after_loss |= frame.after_loss;
                    if after_loss && !is_told {
                        is_told = true;
                        reader.on_loss();
                    }
                    reader.on_frame(&frame);
                }
                None => drop(self.counters.unreadable.fetch_add(1, Ordering::Relaxed)),
            }
            seen += 1;
        }
        if seen > 0 {
            self.counters.seen.fetch_add(seen as u64, Ordering::Relaxed);
        }
        if after_loss {
            // The kernel marks packets until it is asked.
            let _ = take_drops(self.packets.as_fd(), &self.counters);
        }
        seen
    }

    /// Whether somebody else asked the kernel for this ring's losses, which then marks no packet for them.
    fn has_lost(&self) -> bool {
        self.asked.load(Ordering::Relaxed) && self.asked.swap(false, Ordering::Relaxed)
    }

    /// Until there is a packet, `stop` is readable or `patience` is over; says whether it was `stop`.
    fn wait(&self, stop: BorrowedFd<'_>, patience: Option<Duration>) -> io::Result<bool> {
        let socket = self.packets.as_fd();
        let mut both = [PollFd::new(stop, PollFlags::POLLIN), PollFd::new(socket, PollFlags::POLLIN)];
        patient(ppoll(&mut both, patience.map(Into::into), None))?;
        let [stop, packets] = &both;
        if packets.revents().is_some_and(|events| events.contains(PollFlags::POLLERR)) {
            // Reading the error clears it; left there, it would wake us again at once and for ever.
            SockRef::from(&socket).take_error()?;
        }
        Ok(stop.any().unwrap_or(true))
    }
}

/// Lets packets gather during a flood; says whether `stop` is readable.
fn breathe(stop: BorrowedFd<'_>) -> io::Result<bool> {
    let mut stop = [PollFd::new(stop, PollFlags::POLLIN)];
    let readable = patient(ppoll(&mut stop, Some(BREATH.into()), None))?;
    Ok(readable > 0)
}

/// A signal taken on this thread is no reason to end.
fn patient(result: nix::Result<i32>) -> io::Result<i32> {
    match result {
        Err(Errno::EINTR) => Ok(0),
        other => Ok(other?),
    }
}

impl RingControl {
    /// Of this one descriptor, ring or not.
    #[cfg(test)]
    pub(super) fn over(socket: OwnedFd) -> RingControl {
        RingControl { reins: vec![Rein { socket, asked: Arc::default() }], counters: Arc::default() }
    }

    /// Replaces the filter of every ring. Packets already in a ring stay.
    pub fn set_filter(&self, program: &Program) -> Result<(), RingError> {
        self.reins.iter().try_for_each(|rein| attach(rein.socket.as_fd(), program))
    }

    /// Fetches the kernel's drop counts (one getsockopt a ring) and adds them up in [`Counters::dropped`].
    pub fn count_drops(&self) -> io::Result<u64> {
        for rein in &self.reins {
            if take_drops(rein.socket.as_fd(), &self.counters)? > 0 {
                rein.asked.store(true, Ordering::Relaxed);
            }
        }
        Ok(self.counters.dropped.load(Ordering::Relaxed))
    }

    /// The counters of all rings together.
    pub fn counters(&self) -> Arc<Counters> {
        self.counters.clone()
    }
}

fn take_drops(socket: BorrowedFd<'_>, counters: &Counters) -> io::Result<u32> {
    let drops = sys::take_drops(socket)?;
    counters.dropped.fetch_add(drops.into(), Ordering::Relaxed);
    Ok(drops)
}

fn attach(socket: BorrowedFd<'_>, program: &Program) -> Result<(), RingError> {
    let native: Vec<SockFilter> = program
        .instructions
        .iter()
        .map(|one| SockFilter::new(one.code, one.jump_true, one.jump_false, one.k))
        .collect();
    let bytes = std::mem::size_of_val(native.as_slice());
    SockRef::from(&socket).attach_filter(&native).map_err(|error| match error.raw_os_error() {
        Some(libc::ENOMEM) => RingError::NoOptionMemory { bytes, source: error },
        _ => step("set a packet filter")(error),
    })
}
