//! The only unsafe code of the crate: system calls that no safe crate wraps. Everything here has a safe face.
//!
//! Packet rings, random numbers, forks, programs that take every signal, ends of children, pidfds, prefetching, listening
//! without Fast Open, the heap of all threads, and the naming of refused system calls live on it. It decides nothing and
//! parses nothing: which packets, how many rings and what a slot means are the caller's.
#![allow(unsafe_code)]

use std::io;
use std::marker::PhantomData;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::ptr::NonNull;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use nix::unistd::ForkResult;

/// Bytes of one ring slot: header, link address and packet. A divisor of every page size, so no slot straddles two blocks.
pub const SLOT_BYTES: usize = 256;
/// The smallest page that Linux has; where pages are larger (arm64: 16 or 64 KiB) so must be a ring's blocks.
const SMALLEST_PAGE: usize = 4096;
/// The largest ring, bytes.
const MOST_BYTES: usize = 1 << 28;
/// The part of a slot that nearly every packet's headers end in.
const HEADERS: usize = 128;
/// How many slots ahead that part is called into the cache: the kernel wrote it on another processor.
const AHEAD: usize = 8;
/// Of x86-64.
#[cfg(target_arch = "x86_64")]
const CACHE_LINE: usize = 64;
/// if_ether.h: every ethertype. The field is big-endian.
const EVERY_PROTOCOL: u16 = (libc::ETH_P_ALL as u16).to_be();

/// A "cooked" packet socket: packets start at their network header, whatever the link. Hears nothing until bound.
/// Errors with `EPERM` without CAP_NET_RAW in the user namespace that owns the network namespace.
pub fn packet_socket() -> io::Result<OwnedFd> {
    // Protocol 0: a socket that hears before its filter stands would hand up packets nobody asked for.
    Ok(socket(AddressFamily::Packet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?)
}

/// Starts hearing every ethertype on the interface `index`, or on every one, also later ones, if it is 0.
pub fn bind_packet_socket(socket: BorrowedFd<'_>, index: u32) -> io::Result<()> {
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: EVERY_PROTOCOL,
        sll_ifindex: libc::c_int::try_from(index).map_err(|_| io::ErrorKind::InvalidInput)?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: `address` outlives the call and `length` is its size; bind only reads it. socket2 and nix offer no
    // way to make such an address.
    let result = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Founds a fanout group with an identifier that is free in this network namespace and returns the group's
/// description for [`join_fanout`]. `mode` is a PACKET_FANOUT_* type with flags. The socket must be bound.
pub fn found_fanout(socket: BorrowedFd<'_>, mode: u32) -> io::Result<u32> {
    join_fanout(socket, (mode | libc::PACKET_FANOUT_FLAG_UNIQUEID) << 16)?;
    get_packet_option(socket, libc::PACKET_FANOUT, 0u32)
}

/// Adds a bound socket to the group that `found_fanout` described: from now on each packet goes to one member.
pub fn join_fanout(socket: BorrowedFd<'_>, group: u32) -> io::Result<()> {
    set_packet_option(socket, libc::PACKET_FANOUT, &group)
}

/// Packets that found no free slot since the last call: the kernel's count restarts with each.
pub fn take_drops(socket: BorrowedFd<'_>) -> io::Result<u32> {
    let none = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
    Ok(get_packet_option(socket, libc::PACKET_STATISTICS, none)?.tp_drops)
}

/// A descriptor that is readable once the process `pid`, a child of ours, has ended. Since Linux 5.3.
pub fn pidfd_open(pid: u32) -> io::Result<OwnedFd> {
    let pid = libc::pid_t::try_from(pid).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: pidfd_open takes two integers and touches no memory of ours. No safe crate of ours wraps it.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let number =
        i32::try_from(result).ok().filter(|&number| number >= 0).ok_or_else(io::Error::last_os_error)?;
    // SAFETY: the kernel has just made this descriptor for us, close-on-exec, and nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Goes on as two processes, each told which it is. For a process of one thread: what another one holds locked would stay
/// so in the child for good.
pub fn fork() -> io::Result<ForkResult> {
    // SAFETY: the child of a process of one thread has all that its parent had, and may go on with any of it. Nobody
    // safe knows how many threads there are: nix's own `daemon` asks the same of its caller, but lets nobody wait.
    Ok(unsafe { nix::unistd::fork() }?)
}

/// Has every thread that is started from now on allocate from the process's one heap. With heaps of their own, as glibc has
/// them, threads would need calls to grow and to shrink those, and that they open a file of /proc.
pub fn share_heap() {
    // SAFETY: mallopt takes two integers and has an effect on where later allocations lie alone. There is no safe one.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1)
    };
}

/// Has the kernel keep the end of a child until it is asked for, whatever our starter made of SIGCHLD: one that is ignored is
/// handed on by exec, and of every child there is no status then.
pub fn keep_ends_of_children() {
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: no handler is put in place, and nobody has put one there whose end would matter: this is called first thing.
    // Fails for numbers of signals that there are not.
    let _ = unsafe { sigaction(Signal::SIGCHLD, &default) };
}

/// Has `command` start with no signal blocked, whatever its starter blocks: std hands that on.
pub fn unblock_signals(command: &mut Command) {
    let unblock = || SigSet::empty().thread_set_mask().map_err(io::Error::from);
    // SAFETY: runs in the child between fork and exec, where only async-signal-safe calls may be made: pthread_sigmask is
    // one, the set lies on the stack, and neither it nor an errno as an error allocates. std has no safe way to it.
    unsafe { command.pre_exec(unblock) };
}

/// Bytes that nobody can guess; waits until the kernel has some, early after boot. 256 at most come whole
/// (getrandom(2)). The crate of this name opens `/dev/urandom` in a static program, where a container may have none.
pub fn random<const N: usize>() -> io::Result<[u8; N]> {
    const { assert!(N <= 256) };
    let mut bytes = [0_u8; N];
    // SAFETY: the kernel writes at most `N` bytes to `bytes`, which lives through the call.
    let result = unsafe { libc::syscall(libc::SYS_getrandom, bytes.as_mut_ptr(), N, 0) };
    match usize::try_from(result) {
        Ok(length) if length == N => Ok(bytes),
        Ok(_) => Err(io::ErrorKind::UnexpectedEof.into()),
        Err(_) => Err(io::Error::last_os_error()),
    }
}

/// From now on nobody is in this listening socket's queue before his handshake is done: no TCP Fast Open (RFC 7413).
pub fn end_fast_open(socket: BorrowedFd<'_>) -> io::Result<()> {
    let longest_queue: libc::c_int = 0;
    set_option(socket, libc::IPPROTO_TCP, libc::TCP_FASTOPEN, &longest_queue)
}

fn set_packet_option<T: Copy>(socket: BorrowedFd<'_>, name: libc::c_int, value: &T) -> io::Result<()> {
    set_option(socket, libc::SOL_PACKET, name, value)
}

fn set_option<T: Copy>(
    socket: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
    value: &T,
) -> io::Result<()> {
    let length = size_of::<T>() as libc::socklen_t;
    let value: *const T = value;
    // SAFETY: the pointer is to a live `T` of `length` bytes, which the kernel reads during the call only. No safe
    // crate knows the SOL_PACKET options, nor TCP_FASTOPEN.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, value.cast(), length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// `T` is a plain kernel struct of integers here, for which every bit pattern is a value.
fn get_packet_option<T: Copy>(socket: BorrowedFd<'_>, name: libc::c_int, mut value: T) -> io::Result<T> {
    let mut length = size_of::<T>() as libc::socklen_t;
    let place: *mut T = &mut value;
    // SAFETY: the kernel writes at most `length` bytes to `place`, a live `T` that any bytes may fill; bytes it
    // leaves alone were initialised. No safe crate knows the SOL_PACKET options.
    let result =
        unsafe { libc::getsockopt(socket.as_raw_fd(), libc::SOL_PACKET, name, place.cast(), &mut length) };
    if result == 0 { Ok(value) } else { Err(io::Error::last_os_error()) }
}

/// A TPACKET_V2 receive ring: memory that the kernel fills and this process reads without a system call a packet.
///
/// Each slot belongs to one side at a time, as its status word says; the other side does not touch it meanwhile.
pub struct PacketRing {
    socket: OwnedFd,
    memory: NonNull<u8>,
    slots: usize,
    next: usize,
}

// SAFETY: the mapping belongs to this value alone, is reached through `&mut self` alone and is tied to no thread.
// The compiler cannot know that of a raw pointer.
unsafe impl Send for PacketRing {}

impl PacketRing {
    /// Gives `socket`, made by [`packet_socket`], a ring of at least `bytes` and maps it.
    pub fn new(socket: OwnedFd, bytes: usize) -> io::Result<PacketRing> {
        PacketRing::of(socket, &shape(bytes, page_bytes()))
    }

    fn of(socket: OwnedFd, shape: &libc::tpacket_req) -> io::Result<PacketRing> {
        let version = libc::tpacket_versions::TPACKET_V2 as libc::c_int;
        set_packet_option(socket.as_fd(), libc::PACKET_VERSION, &version)?;
        set_packet_option(socket.as_fd(), libc::PACKET_RX_RING, shape)?;
        let slots = shape.tp_frame_nr as usize;
        let memory = map_shared(socket.as_fd(), slots * SLOT_BYTES)?;
        Ok(PacketRing { socket, memory, slots, next: 0 })
    }

    /// The next filled slot in order of arrival, if there is one. Dropping it hands it back to the kernel.
    pub fn next_slot(&mut self) -> Option<Slot<'_>> {
        // SAFETY: `next < slots` always, so the slot lies inside the mapping, which lives as long as `self`.
        let base = unsafe { self.memory.add(self.next * SLOT_BYTES) };
        let slot = Slot { base, ring: PhantomData };
        if slot.status().load(Ordering::Acquire) & libc::TP_STATUS_USER == 0 {
            // Not ours: it must not be "handed back" either.
            std::mem::forget(slot);
            return None;
        }
        self.next = if self.next + 1 == self.slots { 0 } else { self.next + 1 };
        self.call_ahead();
        Some(slot)
    }

    fn call_ahead(&self) {
        let at = self.next + AHEAD.min(self.slots);
        let at = if at < self.slots { at } else { at - self.slots };
        // SAFETY: `next < slots`, hence `at < slots`: the slot lies inside the mapping, which lives as long as `self`, and
        // nobody looks into it here: the kernel may be writing to it.
        prefetch(unsafe { self.memory.add(at * SLOT_BYTES).cast::<[AtomicU8; HEADERS]>().as_ref() });
    }

    /// How many packets the ring holds at most.
    pub fn slots(&self) -> usize {
        self.slots
    }
}

/// A ring of at least `bytes` in blocks of one page: the kernel takes no part of one, and more than one might not be had
/// for want of contiguous memory.
fn shape(bytes: usize, page: usize) -> libc::tpacket_req {
    let block = page.max(SMALLEST_PAGE);
    let blocks = bytes.clamp(1, MOST_BYTES).div_ceil(block);
    libc::tpacket_req {
        tp_block_size: block as u32,
        tp_block_nr: blocks as u32,
        tp_frame_size: SLOT_BYTES as u32,
        tp_frame_nr: (blocks * (block / SLOT_BYTES)) as u32,
    }
}

fn page_bytes() -> usize {
    // SAFETY: sysconf takes an integer and touches no memory of ours. nix has it only with all of its `feature`.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(SMALLEST_PAGE)
}

/// Has the processor bring `place`, every line of it, into its cache. Only x86-64 can be told so in stable Rust.
pub fn prefetch<T>(place: &T) {
    #[cfg(target_arch = "x86_64")]
    for at in (0..size_of::<T>()).step_by(CACHE_LINE) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: `at` is within `place`; a prefetch changes nothing and never faults. There is no safe one.
        unsafe { _mm_prefetch::<_MM_HINT_T0>((&raw const *place).cast::<i8>().add(at)) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = place;
}

fn map_shared(socket: BorrowedFd<'_>, bytes: usize) -> io::Result<NonNull<u8>> {
    let length = NonZeroUsize::new(bytes).ok_or(io::ErrorKind::InvalidInput)?;
    let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    // SAFETY: a new mapping at an address of the kernel's choice aliases no Rust object. Safe Rust has no shared
    // memory.
    let memory = unsafe { mmap(None, length, access, MapFlags::MAP_SHARED, socket, 0) }?;
    Ok(memory.cast())
}

impl AsFd for PacketRing {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for PacketRing {
    fn drop(&mut self) {
        // SAFETY: this is the mapping made in `new`, unmapped once; every slot borrowed `self` and is gone.
        // An error would mean that it was no mapping: nothing is left to do about it.
        let _ = unsafe { munmap(self.memory.cast(), self.slots * SLOT_BYTES) };
    }
}

/// One filled slot, ours until dropped.
pub struct Slot<'ring> {
    base: NonNull<u8>,
    ring: PhantomData<&'ring mut PacketRing>,
}

impl Slot<'_> {
    /// The whole slot: `struct tpacket2_hdr` (linux/if_packet.h), `struct sockaddr_ll` at 32, then the packet.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the slot is SLOT_BYTES of the mapping and initialised by the kernel, which writes no slot whose
        // status is TP_STATUS_USER; ours leaves that state in `drop` only, when this borrow has ended.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), SLOT_BYTES) }
    }

    fn status(&self) -> &AtomicU32 {
        // SAFETY: slots are 256-aligned in a page-aligned mapping, so the first word is aligned and in bounds; both
        // sides touch it while the other may, and the kernel uses whole-word stores with barriers.
        unsafe { AtomicU32::from_ptr(self.base.as_ptr().cast()) }
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        // Release: our reads of the packet end before the kernel may overwrite it.
        self.status().store(libc::TP_STATUS_KERNEL, Ordering::Release);
    }
}

const _: () = assert!(SMALLEST_PAGE.is_multiple_of(SLOT_BYTES));
const _: () = assert!(SLOT_BYTES.is_multiple_of(libc::TPACKET_ALIGNMENT));

/// What [`on_refused_call`] reports to.
static REPORT: OnceLock<fn(i64)> = OnceLock::new();

/// Has `report` called with the number of each system call that a seccomp filter answers with SIGSYS, as a signal
/// handler: it must neither allocate nor take a lock. SIGSYS is blocked meanwhile, so a second one ends the process.
pub fn on_refused_call(report: fn(i64)) -> io::Result<()> {
    let _ = REPORT.set(report);
    let action = SigAction::new(SigHandler::SigAction(refused_call), SaFlags::SA_SIGINFO, SigSet::empty());
    // SAFETY: the handler reads its argument and calls `report`, which by the contract above is async-signal-safe.
    // No safe crate tells which call it was.
    unsafe { sigaction(Signal::SIGSYS, &action) }?;
    Ok(())
}

extern "C" fn refused_call(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    /// siginfo_t of a SIGSYS on 64-bit machines (asm-generic/siginfo.h, `_sigsys`).
    #[repr(C)]
    struct Refusal {
        number_errno_code: [libc::c_int; 4],
        address: u64,
        syscall: libc::c_int,
    }
    // SAFETY: the kernel passes a siginfo_t, which is longer than `Refusal` and aligned at least as much; libc has no
    // accessor for this member.
    let refusal = unsafe { info.cast::<Refusal>().read() };
    if let Some(report) = REPORT.get() {
        report(refusal.syscall.into());
    }
}

/// Whether this descriptor is a packet socket's, asked by a call that the sensor may make. No release has it.
#[cfg(feature = "escape-attempts")]
pub fn is_packet_socket(number: std::os::fd::RawFd) -> bool {
    // SAFETY: borrowed for this one call, which fails where nobody has this number open. No safe code borrows a number.
    take_drops(unsafe { BorrowedFd::borrow_raw(number) }).is_ok()
}

/// Any system call, for what a captured process would try. No release has it.
#[cfg(feature = "escape-attempts")]
pub fn raw_call(number: i64, arguments: [usize; 6]) -> io::Result<i64> {
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: not sound for every call; the attempts pass pointers to live memory that the kernel only reads or, for
    // io_uring_setup, fills within its 256 bytes. No safe crate makes these calls.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_random_numbers_are_alike() {
        let (one, other) = (random::<16>().unwrap(), random::<16>().unwrap());
        assert_ne!(one, other);
        assert_ne!(one, [0; 16]);
    }

    #[test]
    fn a_ring_is_made_of_whole_pages_whatever_their_size() {
        for page in [4_096_usize, 16_384, 65_536] {
            for (bytes, least) in [(0, 1), (1, 1), (1 << 20, 1 << 20), (usize::MAX, MOST_BYTES)] {
                let shape = shape(bytes, page);
                let total = shape.tp_block_size as usize * shape.tp_block_nr as usize;
                assert!((shape.tp_block_size as usize).is_multiple_of(page), "{page}");
                assert!((least..least + page).contains(&total), "{bytes} bytes in pages of {page}: {total}");
                assert_eq!(shape.tp_frame_nr as usize * SLOT_BYTES, total);
            }
        }
        assert_eq!(shape(1, 1).tp_block_size, 4096);
        assert!(page_bytes().is_power_of_two() && page_bytes() >= SMALLEST_PAGE);
    }

    /// Blocks of more than a page are what the kernel would ask for with larger pages.
    #[test]
    fn rings_of_larger_pages_bring_every_packet_in_order_and_go_round() {
        if !nix::unistd::geteuid().is_root() {
            return eprintln!("skipped: only root has packet rings");
        }
        for page in [4_096, 16_384, 65_536] {
            let socket = packet_socket().unwrap();
            let mut ring = PacketRing::of(socket, &shape(3 * page, page)).unwrap();
            assert_eq!(ring.slots(), 3 * page / SLOT_BYTES);
            bind_packet_socket(ring.as_fd(), nix::net::if_::if_nametoindex("lo").unwrap()).unwrap();
            let sender = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            for number in 0..2 * ring.slots() {
                let mark = format!("portsentry {} {page} {number}.", std::process::id());
                sender.send_to(mark.as_bytes(), sender.local_addr().unwrap()).unwrap();
                // Loopback delivers before send returns, unless the processor has enough to do; and others may use it.
                let begun = std::time::Instant::now();
                let is_it = |slot: Slot<'_>| slot.bytes().windows(mark.len()).any(|at| at == mark.as_bytes());
                while !ring.next_slot().is_some_and(is_it) {
                    assert!(begun.elapsed().as_secs() < 20, "no packet {number}");
                }
            }
        }
    }
}
