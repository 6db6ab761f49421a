//! What the service manager is told (sd_notify(3)). Connected before confinement, which allows no new socket.
#![forbid(unsafe_code)]

use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The way to the service manager, if there is one.
pub struct Notifier(Option<UnixDatagram>);

impl Notifier {
    /// Connects to where NOTIFY_SOCKET says; a leading `@` stands for the abstract namespace.
    pub fn open() -> Notifier {
        Notifier(connected())
    }

    /// The daemon watches. Nobody may be listening: then there is nothing to tell.
    pub fn ready(&self) {
        if let Some(socket) = &self.0 {
            let _ = socket.send(b"READY=1\n");
        }
    }
}

fn connected() -> Option<UnixDatagram> {
    let name = std::env::var_os("NOTIFY_SOCKET")?;
    let address = match name.as_bytes().strip_prefix(b"@") {
        Some(abstract_name) => SocketAddr::from_abstract_name(abstract_name).ok()?,
        None => SocketAddr::from_pathname(&name).ok()?,
    };
    let socket = UnixDatagram::unbound().ok()?;
    socket.connect_addr(&address).ok()?;
    socket.set_nonblocking(true).ok()?;
    Some(socket)
}
