//! Who is connected over TCP.
//!
//! The sensor's, as [`SocketTables`]. Each question makes the kernel walk through its whole table of connections, whose
//! size follows the machine's memory (half a millisecond at 24 GiB, nobody connected): one walk is for both families.
#![forbid(unsafe_code)]

use std::io;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::{BY_FAMILY, FAMILIES, LocalSocket, SocketTables, Transport, decode, request_states};
use crate::netlink::message::Message;

/// `TCPDIAG_GETSOCK` of linux/inet_diag.h: the older question, which knows no family and so is about all of them.
const OF_ALL_FAMILIES: u16 = 18;
/// `INET_DIAG_REQ_BYTECODE`: the kernel lists only what this program accepts.
const BYTECODE: u16 = 1;
/// `INET_DIAG_BC_D_COND`: a condition on the remote end.
const REMOTE_IS: u8 = 8;

/// Which TCP connections are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum States {
    /// Those that stand.
    Established,
    /// And those that are being made, by either side.
    EstablishedOrOpening,
}

impl States {
    /// Bits by number: TCP_ESTABLISHED, TCP_SYN_SENT, TCP_SYN_RECV (net/tcp_states.h).
    const fn mask(self) -> u32 {
        match self {
            States::Established => 1 << 1,
            States::EstablishedOrOpening => 1 << 1 | 1 << 2 | 1 << 3,
        }
    }
}

impl SocketTables {
    /// The local ports of established TCP connections with `remote`. The kernel looks for them, so that a busy server's
    /// thousands of others need not be read.
    pub fn connected_with(&mut self, remote: IpNet) -> io::Result<Vec<u16>> {
        let found = self.connections_in(States::Established, Some(&remote_is(remote)), usize::MAX)?;
        Ok(found.iter().map(|socket| socket.local.port()).collect())
    }

    /// The remote address and local port of every TCP connection, but of no more than `most`: one walk, where many are
    /// asked about.
    pub fn connections(&mut self, states: States, most: usize) -> io::Result<Vec<(IpAddr, u16)>> {
        let found = self.connections_in(states, None, most)?;
        let ends = |socket: &LocalSocket| Some((socket.remote?.ip().to_canonical(), socket.local.port()));
        Ok(found.iter().filter_map(ends).collect())
    }

    /// Both ends, ours first, of every TCP connection that stands.
    pub fn both_ends(&mut self) -> io::Result<Vec<(SocketAddr, SocketAddr)>> {
        let found = self.connections_in(States::Established, None, usize::MAX)?;
        let canonical = |end: SocketAddr| SocketAddr::new(end.ip().to_canonical(), end.port());
        Ok(found.iter().filter_map(|it| Some((canonical(it.local), canonical(it.remote?)))).collect())
    }

    /// Whatever goes wrong with the older question, the newer one has the last word.
    fn connections_in(
        &mut self,
        states: States,
        condition: Option<&[u8]>,
        most: usize,
    ) -> io::Result<Vec<LocalSocket>> {
        let request = request_of_all_families(states.mask());
        let of_all = self.list(OF_ALL_FAMILIES, &request, condition, most);
        of_all.or_else(|_| self.each_family(states, condition, most))
    }

    fn each_family(
        &mut self,
        states: States,
        condition: Option<&[u8]>,
        most: usize,
    ) -> io::Result<Vec<LocalSocket>> {
        let mut connections = Vec::new();
        for family in FAMILIES {
            let request = request_states(Transport::Tcp, family, states.mask());
            connections.extend(self.list(BY_FAMILY, &request, condition, most)?);
        }
        Ok(connections)
    }

    /// Somebody who floods us with SYNs decides how many connections are about to be made: what goes beyond `most` is
    /// read and not kept.
    fn list(
        &mut self,
        kind: u16,
        request: &[u8],
        condition: Option<&[u8]>,
        most: usize,
    ) -> io::Result<Vec<LocalSocket>> {
        self.0.dump(
            kind,
            |message| {
                message.put(request);
                condition.iter().for_each(|program| message.attribute(BYTECODE, program));
            },
            |message: &Message<'_>, list: &mut Vec<LocalSocket>| {
                if list.len() < most {
                    list.extend(decode(Transport::Tcp, message));
                }
            },
        )
    }
}

/// `struct inet_diag_req`: four bytes and the `id`, of no account in a dump, then the states and 32 bits nobody uses.
fn request_of_all_families(states: u32) -> [u8; 60] {
    let mut request = [0; 60];
    request.iter_mut().skip(52).zip(states.to_ne_bytes()).for_each(|(to, from)| *to = from);
    request
}

/// One `struct inet_diag_bc_op` (code, where to go on if it holds, 16 bits: where if not; the end accepts, 4 beyond it
/// refuses) and its `struct inet_diag_hostcond` (family, prefix length, 2 of padding, port or -1, address). An IPv4
/// condition meets IPv4-mapped ends too.
fn remote_is(remote: IpNet) -> Vec<u8> {
    let (family, address) = match remote.network() {
        IpAddr::V4(address) => (libc::AF_INET, address.octets().to_vec()),
        IpAddr::V6(address) => (libc::AF_INET6, address.octets().to_vec()),
    };
    let length = u8::try_from(12 + address.len()).unwrap_or(u8::MAX);
    let refuse = u16::from(length).saturating_add(4);
    let mut program = vec![REMOTE_IS, length];
    program.extend(refuse.to_ne_bytes());
    program.extend([u8::try_from(family).unwrap_or_default(), remote.prefix_len(), 0, 0]);
    program.extend((-1_i32).to_ne_bytes());
    program.extend(address);
    program
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn connect(listen: &str, to: &str) -> (TcpListener, TcpStream, TcpStream) {
        let listener = TcpListener::bind(listen).unwrap();
        let client = TcpStream::connect((to, listener.local_addr().unwrap().port())).unwrap();
        let accepted = listener.accept().unwrap().0;
        (listener, client, accepted)
    }

    #[test]
    fn a_connection_is_found_by_its_remote_end_alone() {
        let mut tables = SocketTables::open().unwrap();
        for (listen, to, from) in [
            ("127.0.0.1:0", "127.0.0.1", "127.0.0.1/32"),
            ("[::1]:0", "::1", "::1/128"),
            ("[::]:0", "127.0.0.1", "127.0.0.0/8"),
        ] {
            let (listener, client, _accepted) = connect(listen, to);
            let port = listener.local_addr().unwrap().port();
            assert!(tables.connected_with(from.parse().unwrap()).unwrap().contains(&port), "{listen}");
            let client_ip = client.local_addr().unwrap().ip().to_canonical();
            for states in [States::Established, States::EstablishedOrOpening] {
                assert!(
                    tables.connections(states, usize::MAX).unwrap().contains(&(client_ip, port)),
                    "{listen}"
                );
            }
            for other in ["192.0.2.1/32", "2001:db8::/64"] {
                assert_eq!(tables.connected_with(other.parse().unwrap()).unwrap(), Vec::<u16>::new());
            }
        }
    }

    /// A kernel that no longer knew the older question would be asked the newer one.
    #[test]
    fn the_older_question_and_the_newer_find_the_same() {
        let mut tables = SocketTables::open().unwrap();
        let kept =
            [connect("127.0.0.1:0", "127.0.0.1"), connect("[::1]:0", "::1"), connect("[::]:0", "127.0.0.1")];
        let ports: Vec<u16> =
            kept.iter().map(|(listener, ..)| listener.local_addr().unwrap().port()).collect();
        for condition in
            [None, Some(remote_is("::/0".parse().unwrap())), Some(remote_is("127.0.0.0/8".parse().unwrap()))]
        {
            let ours = |found: Vec<LocalSocket>| {
                let mut ours: Vec<_> =
                    found.into_iter().filter(|it| ports.contains(&it.local.port())).collect();
                ours.sort();
                ours
            };
            let request = request_of_all_families(States::Established.mask());
            let older = tables.list(OF_ALL_FAMILIES, &request, condition.as_deref(), usize::MAX).unwrap();
            let newer = tables.each_family(States::Established, condition.as_deref(), usize::MAX).unwrap();
            assert!(!ours(newer.clone()).is_empty());
            assert_eq!(ours(older), ours(newer), "{condition:?}");
        }
    }

    #[test]
    fn a_connection_that_is_being_made_is_told_apart() {
        let tcp = || socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        // Nobody accepts, and there is room for one in the queue: another's SYN is left unanswered.
        let listener = tcp();
        listener.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        let (queued, waiting) = (tcp(), tcp());
        queued.connect(&address).unwrap();
        waiting.set_nonblocking(true).unwrap();
        let connecting = waiting.connect(&address).unwrap_err();
        assert_eq!(connecting.raw_os_error(), Some(libc::EINPROGRESS));
        let port = waiting.local_addr().unwrap().as_socket().unwrap().port();
        let mut tables = SocketTables::open().unwrap();
        let mut sees = |states| tables.connections(states, usize::MAX).unwrap().iter().any(|it| it.1 == port);
        assert_eq!([sees(States::Established), sees(States::EstablishedOrOpening)], [false, true]);
    }
}
