//! Which ports have a local socket: the kernel's socket tables over sock_diag(7) (`linux/inet_diag.h`).
//!
//! The sensor's; needs no right once the socket is open. Never binds a port to find out.
#![forbid(unsafe_code)]

mod connections;

use std::io;
use std::net::{IpAddr, SocketAddr};

pub use connections::States;

use super::message::{self, Encoder, Message};
use super::socket::Socket;

/// `SOCK_DIAG_BY_FAMILY` of linux/sock_diag.h.
const BY_FAMILY: u16 = 20;
/// `1 << TCP_LISTEN`, also for SCTP.
const LISTENING: u32 = 1 << 10;
const ANY_STATE: u32 = u32::MAX;
/// `struct inet_diag_msg`.
const HEADER_LENGTH: usize = 72;
/// `INET_DIAG_SKV6ONLY`: one byte, for IPv6 sockets.
const ONLY_V6: u16 = 11;
const FAMILIES: [i32; 2] = [libc::AF_INET, libc::AF_INET6];

/// Transports whose sockets are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// Listening sockets.
    Tcp,
    /// All sockets that have a port.
    Udp,
    /// Listening sockets, where the kernel has SCTP.
    Sctp,
}

impl Transport {
    /// Every one.
    pub const ALL: [Transport; 3] = [Transport::Tcp, Transport::Udp, Transport::Sctp];

    const fn number(self) -> i32 {
        match self {
            Transport::Tcp => libc::IPPROTO_TCP,
            Transport::Udp => libc::IPPROTO_UDP,
            Transport::Sctp => libc::IPPROTO_SCTP,
        }
    }

    const fn states(self) -> u32 {
        match self {
            Transport::Tcp | Transport::Sctp => LISTENING,
            Transport::Udp => ANY_STATE,
        }
    }
}

/// A socket of this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LocalSocket {
    /// Its transport.
    pub transport: Transport,
    /// Where it is bound.
    pub local: SocketAddr,
    /// Whom a UDP socket is connected to: it hears nobody else. `None`: it hears everybody.
    pub remote: Option<SocketAddr>,
    /// Bound to an IPv6 address and deaf to IPv4. A socket at `[::]` without this hears both.
    pub only_v6: bool,
    /// Interface that it is bound to; 0: any.
    pub interface: u32,
    /// Number by which `/proc/PID/fd` names it.
    pub inode: u32,
    /// Its owner.
    pub uid: u32,
}

/// An open line to the socket tables.
#[derive(Debug)]
pub struct SocketTables(Socket);

impl SocketTables {
    /// Opens the line.
    pub fn open() -> io::Result<SocketTables> {
        Socket::open(libc::NETLINK_SOCK_DIAG, 0).map(SocketTables)
    }

    /// All that may hear a stranger now: listening TCP and SCTP sockets and every UDP socket, of both families.
    pub fn read(&mut self) -> io::Result<Vec<LocalSocket>> {
        let mut sockets = Vec::new();
        for transport in Transport::ALL {
            for family in FAMILIES {
                sockets.extend(self.read_one(transport, family)?);
            }
        }
        Ok(sockets)
    }

    /// Whether a socket takes in what `remote` sends to `local` by way of `interface` (0: of none that a socket could be
    /// bound to): the kernel looks it up as it would for the packet itself, which takes microseconds where a list
    /// costs a walk through whole hash tables. `None` for SCTP, whose listeners the kernel does not look up so.
    pub fn takes(
        &mut self,
        transport: Transport,
        local: SocketAddr,
        remote: SocketAddr,
        interface: u32,
    ) -> io::Result<Option<bool>> {
        let Some(question) = question(transport, local, remote, interface) else { return Ok(None) };
        match self.0.request(BY_FAMILY, 0, |message| message.put(&question)) {
            Ok(()) => Ok(Some(true)),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(Some(false)),
            Err(error) => Err(error),
        }
    }

    fn read_one(&mut self, transport: Transport, family: i32) -> io::Result<Vec<LocalSocket>> {
        let request = request(transport, family);
        let fill = |message: &mut Encoder| message.put(&request);
        let list = self
            .0
            .dump(BY_FAMILY, fill, |message, list: &mut Vec<_>| list.extend(decode(transport, message)));
        match list {
            // The kernel has no SCTP, or none of its modules is loaded: then it has no such socket.
            Err(error) if transport == Transport::Sctp && error.raw_os_error() == Some(libc::ENOENT) => {
                Ok(Vec::new())
            }
            list => list,
        }
    }
}

/// `struct inet_diag_req_v2`; its `id`, 48 bytes, is of no account in a dump.
fn request(transport: Transport, family: i32) -> [u8; 56] {
    request_states(transport, family, transport.states())
}

fn request_states(transport: Transport, family: i32, states: u32) -> [u8; 56] {
    let byte = |number: i32| u8::try_from(number).unwrap_or_default();
    let [a, b, c, d] = states.to_ne_bytes();
    let mut request = [0; 56];
    let head = [byte(family), byte(transport.number()), 0, 0, a, b, c, d];
    request.iter_mut().zip(head).for_each(|(to, from)| *to = from);
    request
}

/// `struct inet_diag_req_v2` about one socket: its `id` is `struct inet_diag_sockid`: source and destination port in
/// network order, source and destination address (16 bytes each), interface, cookie (8; all ones: any).
fn question(transport: Transport, local: SocketAddr, remote: SocketAddr, interface: u32) -> Option<[u8; 56]> {
    let (source, destination) = match transport {
        Transport::Tcp => (local, remote),
        // The kernel's udp_dump_one has them the other way round, "for historical reasons".
        Transport::Udp => (remote, local),
        Transport::Sctp => return None,
    };
    let family = if local.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let head = request(transport, family);
    let parts: [&[u8]; 7] = [
        head.get(..8)?,
        &source.port().to_be_bytes(),
        &destination.port().to_be_bytes(),
        &sixteen(source.ip()),
        &sixteen(destination.ip()),
        &interface.to_ne_bytes(),
        &[0xff; 8],
    ];
    parts.concat().try_into().ok()
}

/// An address as the kernel's 16 bytes hold it: IPv4 in the first four.
fn sixteen(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        }
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// `struct inet_diag_msg`: family, state, timer, retrans; source and destination port in network order, source and
/// destination address (16 bytes each), interface, cookie (8); expires, rqueue, wqueue, uid, inode.
fn decode(transport: Transport, message: &Message<'_>) -> Option<LocalSocket> {
    let (header, attributes) = message.split::<HEADER_LENGTH>()?;
    let family = i32::from(*header.first()?);
    let number = |at: usize| header.get(at..)?.first_chunk().map(|raw| u32::from_ne_bytes(*raw));
    let end = |port_at: usize, address_at: usize| {
        let port = u16::from_be_bytes(*header.get(port_at..)?.first_chunk()?);
        Some(SocketAddr::new(address(family, header.get(address_at..)?)?, port))
    };
    let (local, remote) = (end(4, 8)?, end(6, 24)?);
    Some(LocalSocket {
        transport,
        local,
        remote: (remote.port() != 0).then_some(remote),
        only_v6: attributes.find(ONLY_V6).and_then(|flag| flag.byte()) == Some(1),
        interface: number(40)?,
        uid: number(64)?,
        inode: number(68)?,
    })
}

fn address(family: i32, bytes: &[u8]) -> Option<IpAddr> {
    let length = match family {
        libc::AF_INET => 4,
        libc::AF_INET6 => 16,
        _ => return None,
    };
    message::address(bytes.get(..length)?)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use proptest::prelude::*;

    use super::*;

    fn find(local: SocketAddr) -> Option<LocalSocket> {
        SocketTables::open().unwrap().read().unwrap().into_iter().find(|socket| socket.local == local)
    }

    #[test]
    fn a_listener_is_seen_and_so_is_its_end() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let local = listener.local_addr().unwrap();
        let seen = find(local).unwrap();
        assert_eq!(
            (seen.transport, seen.remote, seen.uid),
            (Transport::Tcp, None, nix::unistd::getuid().as_raw())
        );
        assert_ne!(seen.inode, 0);
        drop(listener);
        assert_eq!(find(local), None);
    }

    #[test]
    fn a_connected_udp_socket_is_told_from_one_that_hears_everybody() {
        let (open, connected) =
            (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        connected.connect(open.local_addr().unwrap()).unwrap();
        assert_eq!(find(open.local_addr().unwrap()).unwrap().remote, None);
        assert_eq!(find(connected.local_addr().unwrap()).unwrap().remote, Some(open.local_addr().unwrap()));
    }

    #[test]
    fn a_listener_at_the_ipv6_wildcard_hears_ipv4_unless_it_said_no() {
        for only_v6 in [false, true] {
            let socket = socket2::Socket::new(socket2::Domain::IPV6, socket2::Type::STREAM, None).unwrap();
            socket.set_only_v6(only_v6).unwrap();
            socket.bind(&"[::]:0".parse::<SocketAddr>().unwrap().into()).unwrap();
            socket.listen(1).unwrap();
            let local = socket.local_addr().unwrap().as_socket().unwrap();
            assert_eq!(find(local).unwrap().only_v6, only_v6);
        }
    }

    fn takes(transport: Transport, local: SocketAddr, remote: &str) -> bool {
        let mut tables = SocketTables::open().unwrap();
        tables.takes(transport, local, remote.parse().unwrap(), 0).unwrap().unwrap()
    }

    #[test]
    fn a_question_about_one_packet_finds_its_listener_and_nobody_elses() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let local = listener.local_addr().unwrap();
        assert!(takes(Transport::Tcp, local, "127.0.0.9:40000"));
        let elsewhere = SocketAddr::new("127.0.0.2".parse().unwrap(), local.port());
        assert!(!takes(Transport::Tcp, elsewhere, "127.0.0.9:40000"));
        drop(listener);
        assert!(!takes(Transport::Tcp, local, "127.0.0.9:40000"));
    }

    #[test]
    fn a_question_about_a_datagram_knows_connected_sockets_and_both_families() {
        let connected = UdpSocket::bind("127.0.0.1:0").unwrap();
        connected.connect("127.0.0.1:9").unwrap();
        let local = connected.local_addr().unwrap();
        assert!(takes(Transport::Udp, local, "127.0.0.1:9"));
        assert!(!takes(Transport::Udp, local, "127.0.0.1:10"));
        let six = UdpSocket::bind("[::1]:0").unwrap();
        assert!(takes(Transport::Udp, six.local_addr().unwrap(), "[::1]:9"));
    }

    #[test]
    fn a_question_about_ipv4_finds_a_listener_at_the_ipv6_wildcard() {
        let listener = TcpListener::bind("[::]:0").unwrap();
        let local = SocketAddr::new("127.0.0.1".parse().unwrap(), listener.local_addr().unwrap().port());
        assert!(takes(Transport::Tcp, local, "127.0.0.9:40000"));
    }

    proptest! {
        #[test]
        fn any_answer_is_read_without_a_panic(payload in proptest::collection::vec(any::<u8>(), 0..120)) {
            let _ = decode(Transport::Tcp, &Message { kind: BY_FAMILY, flags: 0, sequence: 0, payload: &payload });
        }
    }
}
