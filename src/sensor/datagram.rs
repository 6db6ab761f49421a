//! Datagrams to a UDP decoy: who sent them, to which address, and the banner if there is one. Run by the sensor.
//!
//! UDP sources are spoofed at will, so a decoy must be no use for reflection. It answers with PORT_BANNER only, whole to
//! a few visitors a minute ([`Courtesy`]) and beyond them with *fewer* bytes than it got, and never a port below 1024:
//! two decoys set upon each other fall silent soon, and an echo or chargen service cannot be set upon us at all.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::io::{IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg};
use socket2::Socket;

/// What a datagram tells; its content is never looked at.
#[derive(Clone, Copy, Debug)]
pub struct Datagram {
    /// Claimed sender.
    pub source: SocketAddr,
    /// The address of ours it was sent to; unspecified where the kernel did not say.
    pub destination: IpAddr,
    /// The interface it came in by; 0 where the kernel did not say.
    pub interface: u32,
    length: usize,
    sender: SockaddrStorage,
    arrival: Arrival,
}

/// The kernel's note on where a datagram came in; sent back, it makes the answer leave from there.
#[derive(Clone, Copy, Debug)]
enum Arrival {
    Unknown,
    V4(libc::in_pktinfo),
    V6(libc::in6_pktinfo),
}

/// Takes one datagram off a non-blocking socket.
///
/// # Errors
/// `EAGAIN` when there is none; `ECONNREFUSED` and the like report an earlier answer's fate and mean "try again".
pub fn receive(socket: &Socket) -> Result<Datagram, Errno> {
    // A longer one is cut: more bytes than a banner has are not needed to know that we may send it.
    let mut content = [0_u8; 1024];
    let mut control = cmsg_space!(libc::in6_pktinfo);
    let mut parts = [IoSliceMut::new(&mut content)];
    let flags = MsgFlags::MSG_DONTWAIT;
    let message = recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut parts, Some(&mut control), flags)?;
    let sender = message.address.ok_or(Errno::EINVAL)?;
    let arrival = message.cmsgs()?.fold(Arrival::Unknown, noted);
    let source = socket_address(&sender).ok_or(Errno::EINVAL)?;
    let (destination, interface) = (arrival.address(), arrival.interface());
    Ok(Datagram { source, destination, interface, length: message.bytes, sender, arrival })
}

/// Whole banners in a minute, to one address and to all together.
const WHOLE_TO_ONE: usize = 16;
const WHOLE_TO_ALL: usize = 64;
const MINUTE: Duration = Duration::from_secs(60);

/// To whom whole banners went within the last minute: what a forger can have us send to a third party is no more.
#[derive(Debug, Default)]
pub struct Courtesy {
    given: VecDeque<(IpAddr, Instant)>,
}

impl Courtesy {
    /// Whether one more may have the whole banner, which counts as given.
    pub fn extend_to(&mut self, visitor: IpAddr, now: Instant) -> bool {
        self.given.retain(|&(_, at)| now.saturating_duration_since(at) < MINUTE);
        let before = self.given.iter().filter(|&&(other, _)| other == visitor).count();
        let extended = before < WHOLE_TO_ONE && self.given.len() < WHOLE_TO_ALL;
        self.given.extend(extended.then_some((visitor, now)));
        extended
    }
}

/// Sends `banner`, `whole` or as much of it as the sender has paid for. Errors are nobody's concern: the visit is
/// reported anyway.
pub fn answer(socket: &Socket, to: &Datagram, banner: &[u8], whole: bool) {
    let paid = to.length.saturating_sub(1).min(banner.len());
    let worth = if whole { banner.len() } else { paid };
    let Some(text) = banner.get(..worth).filter(|text| !text.is_empty() && to.source.port() >= 1024) else {
        return;
    };
    let note = match &to.arrival {
        Arrival::Unknown => return,
        Arrival::V4(info) => ControlMessage::Ipv4PacketInfo(info),
        Arrival::V6(info) => ControlMessage::Ipv6PacketInfo(info),
    };
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    let _ = sendmsg(socket.as_raw_fd(), &[IoSlice::new(text)], &[note], flags, Some(&to.sender));
}

fn noted(before: Arrival, message: ControlMessageOwned) -> Arrival {
    if let ControlMessageOwned::Ipv6PacketInfo(info) = message {
        return Arrival::V6(info);
    }
    if let ControlMessageOwned::Ipv4PacketInfo(info) = message { Arrival::V4(info) } else { before }
}

impl Arrival {
    fn address(&self) -> IpAddr {
        match self {
            Arrival::Unknown => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            Arrival::V4(info) => IpAddr::V4(Ipv4Addr::from(u32::from_be(info.ipi_addr.s_addr))),
            Arrival::V6(info) => IpAddr::V6(Ipv6Addr::from(info.ipi6_addr.s6_addr)).to_canonical(),
        }
    }

    fn interface(&self) -> u32 {
        match self {
            Arrival::Unknown => 0,
            Arrival::V4(info) => u32::try_from(info.ipi_ifindex).unwrap_or(0),
            Arrival::V6(info) => info.ipi6_ifindex,
        }
    }
}

fn socket_address(storage: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = storage.as_sockaddr_in().map(|address| SocketAddr::from((address.ip(), address.port())));
    v4.or_else(|| storage.as_sockaddr_in6().map(|address| SocketAddr::from((address.ip(), address.port()))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_banners_are_few_for_one_visitor_and_for_all() {
        let (mut courtesy, begin) = (Courtesy::default(), Instant::now());
        let visitor = |number: u8| IpAddr::V4(Ipv4Addr::new(192, 0, 2, number));
        assert_eq!((0..1000).filter(|_| courtesy.extend_to(visitor(1), begin)).count(), WHOLE_TO_ONE);
        let others =
            (0..1000_u32).filter(|n| courtesy.extend_to(visitor((n % 200 + 2) as u8), begin)).count();
        assert_eq!(others, WHOLE_TO_ALL - WHOLE_TO_ONE);
        assert!(!courtesy.extend_to(visitor(250), begin + MINUTE / 2));
        assert!(courtesy.extend_to(visitor(1), begin + MINUTE) && courtesy.given.len() == 1);
    }
}
