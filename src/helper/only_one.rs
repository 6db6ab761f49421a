//! One helper for a network namespace, and one for a STATE_DIR: two would take each other's table and ledger apart.
//! Helper, at the start, before it touches either.
//!
//! Guards against mistakes, not against malice: what a stranger holds keeps nobody from starting.
#![forbid(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, UnixAddr, UnixCredentials, connect, getsockopt, socket, sockopt,
};

use super::error::{HelperError, log};
use crate::protocol::settings::LEDGER_LOCK;

/// Abstract names are a network namespace's own, as nftables is, and end with their socket.
const NAME: &str = "portsentry-rs/inet portsentry";
/// A helper whose sensor was killed is gone within a second: the next daemon's waits for it.
const PATIENCE: Duration = Duration::from_millis(1_500);
const LOOK: Duration = Duration::from_millis(10);

/// Who has what we want.
#[derive(Clone, Copy)]
enum Holder {
    /// A daemon's helper, by its process id: none above 0 where it is of another process namespace.
    Daemon(i32),
    /// Somebody who is no daemon of this host's.
    Stranger,
    /// It has just ended, or never listened.
    Nobody,
}

impl Holder {
    /// One answer is enough: the holder takes no connection in, so each question stays in its queue (net.core.somaxconn),
    /// and once that is full it can no longer be told from a stranger.
    fn or_else(self, ask: impl FnOnce() -> Holder) -> Holder {
        match self {
            Holder::Nobody => ask(),
            Holder::Daemon(_) | Holder::Stranger => self,
        }
    }
}

/// What keeps a second helper out, for as long as this lives.
#[derive(Debug)]
pub struct Alone {
    _name: Option<UnixListener>,
}

impl Alone {
    /// The only helper in this network namespace. Before confinement, which may forbid to ask who another is.
    ///
    /// # Errors
    /// Another daemon's helper is there, and stays.
    pub fn in_this_network() -> Result<Alone, HelperError> {
        let mut holder = Holder::Nobody;
        let taken = patiently(|| match UnixListener::bind_addr(&SocketAddr::from_abstract_name(NAME)?) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                holder = holder.or_else(name_holder);
                Ok(Err(holder))
            }
            bound => bound.map(Ok),
        });
        match taken {
            Ok(Ok(listener)) => Ok(Alone { _name: Some(listener) }),
            Ok(Err(Holder::Daemon(process))) => {
                Err(HelperError::NotAlone("this network namespace", told(process)))
            }
            Ok(Err(Holder::Stranger | Holder::Nobody)) => Ok(unguarded("a stranger holds the name")),
            Err(error) => Ok(unguarded(&error.to_string())),
        }
    }
}

/// Whatever forbids us to guard against a second daemon does not forbid the first one.
fn unguarded(why: &str) -> Alone {
    log(&format!("a second daemon in this network namespace would not be noticed: {why}"));
    Alone { _name: None }
}

/// The only helper on `folder`; holds for as long as the file is open.
///
/// # Errors
/// Another daemon's helper uses it, and stays; the lock file cannot be made.
pub fn on_state(folder: &Path) -> Result<File, HelperError> {
    let mut options = OpenOptions::new();
    // O_NONBLOCK: a planted FIFO must not hold us.
    options.write(true).create(true).mode(0o600).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    let file = options.open(folder.join(LEDGER_LOCK));
    let file = file.map_err(|error| {
        HelperError::System("make the lock file in STATE_DIR, which the daemon's user must reach", error)
    })?;
    match patiently(|| Ok(lock(&file)?.map_or(Ok(()), |holder| Err(Holder::Daemon(holder))))) {
        Ok(Err(Holder::Daemon(process))) => Err(HelperError::NotAlone("this STATE_DIR", told(process))),
        Ok(Ok(()) | Err(Holder::Stranger | Holder::Nobody)) => Ok(file),
        Err(error) => {
            log(&format!("a second daemon on this STATE_DIR would not be noticed: {error}"));
            Ok(file)
        }
    }
}

/// Tries again until nobody has it or it is too long.
fn patiently<T>(mut attempt: impl FnMut() -> io::Result<Result<T, Holder>>) -> io::Result<Result<T, Holder>> {
    let begun = Instant::now();
    loop {
        match attempt()? {
            Err(Holder::Daemon(_) | Holder::Nobody) if begun.elapsed() < PATIENCE => std::thread::sleep(LOOK),
            result => return Ok(result),
        }
    }
}

/// Root's and our own processes are believed, by the kernel's word of who listens there.
fn name_holder() -> Holder {
    let trusted = |holder: &UnixCredentials| [0, nix::unistd::geteuid().as_raw()].contains(&holder.uid());
    match listening() {
        Ok(holder) if trusted(&holder) => Holder::Daemon(holder.pid()),
        Err(Errno::ECONNREFUSED) => Holder::Nobody,
        Ok(_) | Err(_) => Holder::Stranger,
    }
}

/// Never waits: whoever holds the name may let its queue fill up.
fn listening() -> nix::Result<UnixCredentials> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let asking = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    connect(asking.as_raw_fd(), &UnixAddr::new_abstract(NAME.as_bytes())?)?;
    getsockopt(&asking, sockopt::PeerCredentials)
}

/// A record lock: the kernel tells who has it, by process id, and takes it back with its process (fcntl(2)). `None`: it is
/// ours now.
fn lock(file: &File) -> io::Result<Option<i32>> {
    match fcntl(file.as_fd(), FcntlArg::F_SETLK(&whole())) {
        Ok(_) => Ok(None),
        Err(Errno::EAGAIN) => {
            let mut asked = whole();
            fcntl(file.as_fd(), FcntlArg::F_GETLK(&mut asked))?;
            Ok(Some(asked.l_pid))
        }
        Err(errno) => Err(errno.into()),
    }
}

fn whole() -> libc::flock {
    libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

fn told(process: i32) -> String {
    if process > 0 { format!("process {process}") } else { "elsewhere".into() }
}
