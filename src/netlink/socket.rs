//! One netlink socket: requests answered by sequence number, dumps, notifications.
//!
//! Both roles. Takes messages from the kernel alone, never waits longer than [`PATIENCE`] for one, and never
//! believes in success before the kernel has said so.
#![forbid(unsafe_code)]

use std::io::{self, ErrorKind, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use nix::sys::socket::{MsgFlags, NetlinkAddr, recvmsg, setsockopt, sockopt};
use socket2::{Domain, Protocol, Type};

use super::message::{Encoder, Message, Messages};

/// How long an answer may take. The kernel answers within the `send` call itself, but for waits on its own locks.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// The kernel's dumps fill 32 KiB at most (`NLMSG_GOODSIZE`, `max_recvmsg_len` in net/netlink/af_netlink.c);
/// an error quotes the message that failed, and none of ours is longer than this.
const BUFFER_LENGTH: usize = 64 * 1024;
/// How often a dump starts over because the list changed under it (`NLM_F_DUMP_INTR`).
const DUMP_ATTEMPTS: usize = 16;

const REQUEST: u16 = libc::NLM_F_REQUEST as u16;
const ACK: u16 = libc::NLM_F_ACK as u16;
const DUMP: u16 = libc::NLM_F_DUMP as u16;
const DUMP_INTERRUPTED: u16 = libc::NLM_F_DUMP_INTR as u16;

/// An open netlink socket.
#[derive(Debug)]
pub struct Socket {
    socket: socket2::Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Socket {
    /// Opens a socket of a `NETLINK_*` protocol and joins `groups`, a mask of the protocol's first 32 multicast groups.
    pub fn open(protocol: i32, groups: u32) -> io::Result<Socket> {
        let kind = Type::RAW.cloexec();
        let socket =
            socket2::Socket::new(Domain::from(libc::AF_NETLINK), kind, Some(Protocol::from(protocol)))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        nix::sys::socket::bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
        Ok(Socket { socket, sequence: 0, buffer: vec![0; BUFFER_LENGTH] })
    }

    /// Lets one datagram to the kernel be this long, bytes; past the system's limit only with CAP_NET_ADMIN.
    pub fn widen_send_buffer(&self, bytes: usize) -> io::Result<()> {
        setsockopt(&self.socket, sockopt::SndBufForce, &bytes)
            .or_else(|_| setsockopt(&self.socket, sockopt::SndBuf, &bytes))
            .map_err(io::Error::from)
    }

    /// Reserves `count` sequence numbers and returns the first.
    pub fn reserve(&mut self, count: u32) -> u32 {
        let first = self.sequence.wrapping_add(1);
        self.sequence = self.sequence.wrapping_add(count);
        first
    }

    /// Sends what was encoded as one datagram.
    pub fn send(&self, encoder: Encoder) -> io::Result<()> {
        let bytes = encoder.finish().ok_or(ErrorKind::InvalidInput)?;
        let sent = self.socket.send(&bytes)?;
        if sent == bytes.len() { Ok(()) } else { Err(ErrorKind::WriteZero.into()) }
    }

    /// Sends one request and waits for its acknowledgement. `extra` is added to NLM_F_REQUEST and NLM_F_ACK.
    pub fn request(&mut self, kind: u16, extra: u16, fill: impl FnOnce(&mut Encoder)) -> io::Result<()> {
        let sequence = self.reserve(1);
        let mut encoder = Encoder::default();
        encoder.message(kind, REQUEST | ACK | extra, sequence, fill);
        self.send(encoder)?;
        self.answers(sequence, sequence, |message| message.errno().map(refused))
    }

    /// Receives datagrams until `settle` makes an end of a message whose sequence number lies in `first..=last`.
    /// Left-over answers to earlier requests are skipped.
    pub fn answers<T>(
        &mut self,
        first: u32,
        last: u32,
        mut settle: impl FnMut(&Message<'_>) -> Option<io::Result<T>>,
    ) -> io::Result<T> {
        let span = last.wrapping_sub(first);
        loop {
            for message in Messages(self.receive(MsgFlags::empty())?) {
                let message = message.map_err(io::Error::other)?;
                let ours = message.sequence.wrapping_sub(first) <= span;
                if let Some(end) = ours.then(|| settle(&message)).flatten() {
                    return end;
                }
            }
        }
    }

    /// Asks for a list and returns what `decode` makes of its messages.
    /// Starts over when the list changed meanwhile, so that what is returned was true at one moment.
    pub fn dump<C: Default>(
        &mut self,
        kind: u16,
        fill: impl Fn(&mut Encoder),
        decode: impl Fn(&Message<'_>, &mut C),
    ) -> io::Result<C> {
        for _ in 0..DUMP_ATTEMPTS {
            let (list, is_whole) = self.dump_once(kind, &fill, &decode)?;
            if is_whole {
                return Ok(list);
            }
        }
        Err(io::Error::new(ErrorKind::ResourceBusy, "the kernel's list changed at every attempt to read it"))
    }

    /// Asks for what is named in the request and returns what `decode` makes of the answers. All of them wait in the
    /// socket's receive buffer before the first is read: ask for no more than it takes.
    pub fn ask<C: Default>(
        &mut self,
        kind: u16,
        fill: impl FnOnce(&mut Encoder),
        decode: impl Fn(&Message<'_>, &mut C),
    ) -> io::Result<C> {
        self.exchange(kind, ACK, fill, decode).map(|(list, _)| list)
    }

    /// Likewise, and once only: whether that was true at one moment is returned too.
    pub fn dump_once<C: Default>(
        &mut self,
        kind: u16,
        fill: impl FnOnce(&mut Encoder),
        decode: impl Fn(&Message<'_>, &mut C),
    ) -> io::Result<(C, bool)> {
        let (list, interrupted) = self.exchange(kind, DUMP, fill, decode)?;
        Ok((list, !interrupted))
    }

    fn exchange<C: Default>(
        &mut self,
        kind: u16,
        extra: u16,
        fill: impl FnOnce(&mut Encoder),
        decode: impl Fn(&Message<'_>, &mut C),
    ) -> io::Result<(C, bool)> {
        let sequence = self.reserve(1);
        let mut encoder = Encoder::default();
        encoder.message(kind, REQUEST | extra, sequence, fill);
        self.send(encoder)?;
        let (mut list, mut interrupted) = (C::default(), false);
        self.answers(sequence, sequence, |message| {
            interrupted |= message.flags & DUMP_INTERRUPTED != 0;
            let end = message.errno().map(refused);
            if end.is_none() {
                decode(message, &mut list);
            }
            end
        })?;
        Ok((list, interrupted))
    }

    /// The next notifications' datagram, or `None` if there is none now. `ENOBUFS`: some were lost, ask again for the whole.
    pub fn notifications(&mut self) -> io::Result<Option<Messages<'_>>> {
        match self.receive(MsgFlags::MSG_DONTWAIT) {
            Ok(bytes) => Ok(Some(Messages(bytes))),
            Err(error) if error.kind() == ErrorKind::TimedOut => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn receive(&mut self, flags: MsgFlags) -> io::Result<&[u8]> {
        loop {
            if let Some(length) = receive_once(&self.socket, &mut self.buffer, flags)? {
                return Ok(self.buffer.get(..length).unwrap_or_default());
            }
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// An acknowledgement's number as a result.
pub fn refused(errno: i32) -> io::Result<()> {
    if errno == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(errno)) }
}

/// Length of a datagram from the kernel; `None` for one from another process, or if a signal came in between.
fn receive_once(socket: &socket2::Socket, buffer: &mut [u8], flags: MsgFlags) -> io::Result<Option<usize>> {
    let mut slices = [IoSliceMut::new(buffer)];
    let received = match recvmsg::<NetlinkAddr>(socket.as_raw_fd(), &mut slices, None, flags) {
        Ok(received) => received,
        Err(nix::Error::EINTR) => return Ok(None),
        Err(nix::Error::EAGAIN) => return Err(ErrorKind::TimedOut.into()),
        Err(errno) => return Err(errno.into()),
    };
    if received.flags.contains(MsgFlags::MSG_TRUNC) {
        return Err(io::Error::new(
            ErrorKind::InvalidData,
            "the kernel's answer is longer than any it should send",
        ));
    }
    Ok(received.address.is_some_and(|sender| sender.pid() == 0).then_some(received.bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RTM_GETLINK answers anybody: no rights needed.
    fn links(socket: &mut Socket) -> usize {
        let links = socket.dump(
            libc::RTM_GETLINK,
            |message| message.put(&[0; 16]),
            |message, list: &mut Vec<u16>| list.push(message.kind),
        );
        links.unwrap().len()
    }

    #[test]
    fn a_dump_is_read_to_its_end_and_can_be_repeated() {
        let mut socket = Socket::open(libc::NETLINK_ROUTE, 0).unwrap();
        assert!(links(&mut socket) >= 1);
        assert!(links(&mut socket) >= 1);
    }

    #[test]
    fn a_refusal_is_an_error_with_its_errno_and_spoils_nothing_after() {
        let mut socket = Socket::open(libc::NETLINK_ROUTE, 0).unwrap();
        let error = socket.request(0x3ff, 0, |message| message.put(&[0; 16])).unwrap_err();
        assert!(error.raw_os_error().is_some(), "{error}");
        assert!(links(&mut socket) >= 1);
    }

    #[test]
    fn an_answer_that_was_left_over_is_skipped() {
        let mut socket = Socket::open(libc::NETLINK_ROUTE, 0).unwrap();
        let mut encoder = Encoder::default();
        let sequence = socket.reserve(1);
        encoder.message(libc::RTM_GETLINK, REQUEST | DUMP, sequence, |message| message.put(&[0; 16]));
        socket.send(encoder).unwrap();
        // The first dump is still under way: it is read and thrown away, or answered EBUSY once.
        while socket
            .request(0x3ff, 0, |message| message.put(&[0; 16]))
            .is_err_and(|e| e.kind() == ErrorKind::ResourceBusy)
        {}
        assert!(links(&mut socket) >= 1);
    }

    #[test]
    fn no_notification_is_no_error() {
        let mut socket = Socket::open(libc::NETLINK_ROUTE, 1).unwrap();
        while socket.notifications().unwrap().is_some() {}
        assert!(socket.notifications().unwrap().is_none());
    }
}
