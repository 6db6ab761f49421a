//! Attempts at everything that a captured process would try, made by the real role from within its real cage; and the
//! switch that takes single layers of it away. Feature `escape-attempts`, for `tests/cage_holds.rs` alone: no release
//! has this file.
#![forbid(unsafe_code)]

use std::ffi::CString;
use std::fs::OpenOptions;
use std::io::{self, ErrorKind, Write};
use std::net::{TcpStream, UdpSocket};
use std::os::fd::RawFd;
use std::os::unix::fs::OpenOptionsExt;

use nix::mount::{MsFlags, mount};
use nix::sys::signal::kill;
use nix::unistd::{Pid, Uid, setuid};
use socket2::{Domain, Socket, Type};

use super::Capability;
use crate::sys::raw_call;

/// `ROLE ATTEMPT LAYERS TARGET`: who tries what under which layers (comma-separated); a process outside.
pub const VARIABLE: &str = "PORTSENTRY_ESCAPE";
/// `NUMBER ARGUMENT…`: the call that a proof of a filter makes.
pub const CALL: &str = "PORTSENTRY_CALL";
/// A place that everybody may write to and no role has any business in.
pub const OUTSIDE: &str = "/tmp/portsentry-escape";

/// A layer of the cage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// uid and capabilities.
    Rights,
    /// Files, TCP, signals.
    Landlock,
    /// System calls.
    Seccomp,
}

type Attempt = fn(target: i32) -> io::Result<()>;

const ATTEMPTS: &[(&str, Attempt)] = &[
    ("shadow", |_| OpenOptions::new().read(true).custom_flags(reading()).open("/etc/shadow").map(drop)),
    ("write", |_| OpenOptions::new().write(true).create(true).truncate(false).open(OUTSIDE).map(drop)),
    ("execve", |_| program().and_then(|path| raw(libc::SYS_execve, [path.as_ptr() as usize, 0, 0, 0]))),
    ("ptrace", |target| raw(libc::SYS_ptrace, [libc::PTRACE_SEIZE as usize, target as usize, 0, 0])),
    ("packet", |_| Socket::new(Domain::PACKET, Type::RAW, None).map(drop)),
    ("inet", |_| Socket::new(Domain::IPV4, Type::DGRAM, None).map(drop)),
    ("tcp", |_| reached(TcpStream::connect("127.0.0.1:9").map(drop))),
    ("udp", |_| reached(UdpSocket::bind("0.0.0.0:0")?.send_to(b"out", "127.0.0.1:9").map(drop))),
    ("setuid", |_| Ok(setuid(Uid::from_raw(0))?)),
    ("capability", |_| {
        caps::raise(None, caps::CapSet::Effective, Capability::CAP_NET_RAW)
            .map_err(|error| io::Error::new(ErrorKind::PermissionDenied, error.to_string()))
    }),
    ("signal", |target| Ok(kill(Pid::from_raw(target), None)?)),
    ("mount", |_| Ok(mount(Some("none"), "/mnt", Some("tmpfs"), MsFlags::empty(), None::<&str>)?)),
    ("bpf", |_| map()),
    ("userfaultfd", |_| raw(libc::SYS_userfaultfd, [libc::O_CLOEXEC as usize, 0, 0, 0])),
    ("io_uring", |_| {
        let mut parameters = [0_u64; 32];
        raw(libc::SYS_io_uring_setup, [1, parameters.as_mut_ptr() as usize, 0, 0])
    }),
    ("ring", |_| reached(by_ring(&everybody()))),
    ("ring_bare", |_| reached(by_ring(&[]))),
    ("ring_message", |_| reached(by_ring_message())),
    #[cfg(target_arch = "x86_64")]
    ("x32", |_| reached(raw(0x4000_0000 | libc::SYS_getppid, [0; 4]))),
];

/// Whether the test took this layer away.
pub fn is_off(layer: Layer) -> bool {
    let name = format!("{layer:?}").to_lowercase();
    asked().is_some_and(|[_, _, layers, _]| !layers.split(',').any(|on| on == name))
}

/// Tries what `role` was asked to try, says what came of it and ends the process.
pub fn attempt(role: &str) {
    let Some([who, what, _, target]) = asked() else { return };
    let found = ATTEMPTS.iter().find(|(name, _)| *name == what && who == role);
    let Some((_, attempt)) = found else { return };
    match attempt(target.parse().unwrap_or(0)) {
        Ok(()) => say("ESCAPE worked"),
        Err(error) => say(&format!("ESCAPE refused: {error}")),
    }
    std::process::exit(0);
}

fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// In a proof of a filter: makes the call that the test asked for, in place of the one that every filter refuses, and
/// ends well. Whatever the kernel says to it is fine: it was asked.
pub fn call_asked_for() {
    let Ok(text) = std::env::var(CALL) else { return };
    let mut words = text.split(' ').map(|word| word.parse::<u64>().unwrap_or_default());
    let number = words.next().unwrap_or_default() as i64;
    let arguments = std::array::from_fn(|_| words.next().unwrap_or_default() as usize);
    let _ = raw_call(number, arguments);
    std::process::exit(0);
}

fn asked() -> Option<[String; 4]> {
    let text = std::env::var(VARIABLE).ok()?;
    text.split(' ').map(str::to_owned).collect::<Vec<_>>().try_into().ok()
}

/// The flags that the role's rules let it read files with: whoever captured it would use them.
fn reading() -> i32 {
    let is_sensor = asked().is_some_and(|[who, ..]| who == "sensor");
    if is_sensor { crate::config::OPEN_FLAGS } else { 0 }
}

fn program() -> io::Result<CString> {
    Ok(CString::new("/bin/true")?)
}

/// The network's own refusal, and the kernel's lack of a call, are no cage.
fn reached(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::ECONNREFUSED | libc::ENETUNREACH | libc::ENETDOWN | libc::ENOSYS)
            ) =>
        {
            Ok(())
        }
        result => result,
    }
}

fn raw(number: i64, arguments: [usize; 4]) -> io::Result<()> {
    let [a, b, c, d] = arguments;
    raw_call(number, [a, b, c, d, 0, 0]).map(drop)
}

/// An open packet socket, found by a call that the sensor may make.
fn ring() -> io::Result<usize> {
    let is_ring = |number: &RawFd| crate::sys::is_packet_socket(*number);
    let found = (3..1024).find(is_ring).and_then(|number| usize::try_from(number).ok());
    found.ok_or_else(|| ErrorKind::NotFound.into())
}

/// struct sockaddr_ll (linux/if_packet.h): Ethernet's local experiments, to interface 1, which is lo.
fn everybody() -> [u8; 20] {
    let mut address = [0; 20];
    address[..2].copy_from_slice(&(libc::AF_PACKET as u16).to_ne_bytes());
    address[2..4].copy_from_slice(&0x88b5_u16.to_be_bytes());
    address[4..8].copy_from_slice(&1_i32.to_ne_bytes());
    address
}

/// A packet of our own making, past the firewall; to an address or, empty, to where the ring is bound.
fn by_ring(to: &[u8]) -> io::Result<()> {
    let packet = [0_u8; 46];
    let address = if to.is_empty() { 0 } else { to.as_ptr() as usize };
    let arguments = [ring()?, packet.as_ptr() as usize, packet.len(), 0, address, to.len()];
    raw_call(libc::SYS_sendto, arguments).map(drop)
}

/// Likewise (struct msghdr: address and length, parts and their number, control messages, flags).
fn by_ring_message() -> io::Result<()> {
    let (packet, to) = ([0_u8; 46], everybody());
    let part = [packet.as_ptr() as usize, packet.len()];
    let message = [to.as_ptr() as usize, to.len(), part.as_ptr() as usize, 1, 0, 0, 0];
    raw(libc::SYS_sendmsg, [ring()?, message.as_ptr() as usize, 0, 0])
}

/// BPF_MAP_CREATE of a one-element array map (union bpf_attr: type, key, value, entries).
fn map() -> io::Result<()> {
    let attributes = [2_u32, 4, 4, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    raw(libc::SYS_bpf, [0, attributes.as_ptr() as usize, size_of_val(&attributes), 0])
}
