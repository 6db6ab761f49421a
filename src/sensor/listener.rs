//! Binds the decoys' ports: one dual-stack socket a port. Run by the sensor while it still has CAP_NET_BIND_SERVICE.
//!
//! Takes only ports that are free, and never lets another process share one. A port in use is somebody's service.
#![forbid(unsafe_code)]

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol as IpProtocol, Socket, Type};
use thiserror::Error;

use crate::detect::probe::Protocol;
use crate::sys;

/// Handshakes that the kernel completes ahead of us, for each port. The loop empties it at every wake-up; beyond it
/// SYN cookies take over, so a flood costs no more memory than this.
const BACKLOG: i32 = 64;
/// Bytes; the kernel doubles it. A decoy reads 1 KiB at most and says less than 3.
const BUFFER: usize = 4096;

/// A decoy's socket, bound to every address of the host.
#[derive(Debug)]
pub struct Listener {
    /// The port it is bound to.
    pub port: u16,
    /// TCP (listening) or UDP.
    pub protocol: Protocol,
    /// Non-blocking, close-on-exec.
    pub socket: Socket,
}

/// A port that was left alone because something else is bound to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// The port.
    pub port: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "no decoy on {} port {}: something else is bound to it, and is left alone; after a boot or an upgrade whichever starts first has the port: take it out of the list",
            self.protocol, self.port
        )
    }
}

/// Why the decoys could not be put up.
#[derive(Debug, Error)]
pub enum DecoyError {
    /// The kernel refused a port.
    #[error("decoy on {protocol} port {port}: {source}; {}", mend(source))]
    Bind {
        /// The port.
        port: u16,
        /// TCP or UDP.
        protocol: Protocol,
        /// The kernel's word.
        source: io::Error,
    },
    /// The event loop would not take a socket.
    #[error("decoys in the event loop: {0}; check the limit fs.epoll.max_user_watches")]
    Register(#[source] nix::Error),
}

impl Listener {
    /// Binds `port`; `Ok(None)` where it is in use.
    pub fn bind(port: u16, protocol: Protocol) -> Result<Option<Listener>, DecoyError> {
        match bound(port, protocol) {
            Ok(socket) => Ok(Some(Listener { port, protocol, socket })),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(None),
            Err(source) => Err(DecoyError::Bind { port, protocol, source }),
        }
    }
}

fn mend(refused: &io::Error) -> &'static str {
    match refused.raw_os_error() {
        Some(libc::EACCES | libc::EPERM) => {
            "ports below 1024 need CAP_NET_BIND_SERVICE, give it or take the port out of the list"
        }
        Some(libc::EMFILE | libc::ENFILE) => {
            "raise the limit of open files (LimitNOFILE=, ulimit -n) or list fewer ports"
        }
        _ => "take the port out of the list if this stays",
    }
}

/// IPv6 may be missing from the kernel (`ipv6.disable=1`); then the IPv4 half is all there is to listen on.
fn bound(port: u16, protocol: Protocol) -> io::Result<Socket> {
    match bound_in(Domain::IPV6, SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)), protocol) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)) => {
            bound_in(Domain::IPV4, SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)), protocol)
        }
        result => result,
    }
}

fn bound_in(domain: Domain, address: SocketAddr, protocol: Protocol) -> io::Result<Socket> {
    let tcp = protocol == Protocol::Tcp;
    let (kind, number) = if tcp { (Type::STREAM, IpProtocol::TCP) } else { (Type::DGRAM, IpProtocol::UDP) };
    let socket = Socket::new(domain, kind.nonblocking().cloexec(), Some(number))?;
    if domain == Domain::IPV6 {
        socket.set_only_v6(false)?;
    }
    socket.set_recv_buffer_size(BUFFER)?;
    socket.set_send_buffer_size(BUFFER)?;
    if tcp {
        // For a restart while old connections are in TIME_WAIT. On UDP the same option would let another process share the port.
        socket.set_reuse_address(true)?;
    } else {
        tell_destinations(&socket, domain)?;
    }
    socket.bind(&address.into())?;
    if tcp {
        socket.listen(BACKLOG)?;
        demand_handshakes(&socket)?;
    }
    Ok(socket)
}

/// A visit is proof of an address only where a handshake came before it. With bits 0x200 and 0x400 of net.ipv4.tcp_fastopen
/// listen(2) itself turns Fast Open on, and a single SYN with data, which may be forged, makes a visit.
fn demand_handshakes(socket: &Socket) -> io::Result<()> {
    match sys::end_fast_open(socket.as_fd()) {
        // There is none to turn off.
        Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => return Ok(()),
        result => result?,
    }
    // Who came in between has proved nothing.
    for _ in 0..=BACKLOG {
        if socket.accept4(libc::SOCK_CLOEXEC).is_err() {
            break;
        }
    }
    Ok(())
}

/// A datagram's destination is known only from its control message.
fn tell_destinations(socket: &Socket, domain: Domain) -> io::Result<()> {
    let done = match domain == Domain::IPV6 {
        true => setsockopt(socket, sockopt::Ipv6RecvPacketInfo, &true),
        false => setsockopt(socket, sockopt::Ipv4PacketInfo, &true),
    };
    Ok(done?)
}
