//! Link headers and VLAN tags: finds where IP begins in a frame.
//!
//! Pure. Follows 802.1Q and 802.1ad tags up to a fixed depth; PPPoE, MPLS and LLC are not IP here.
#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use super::span::Span;
use super::{Checksums, Packet, Reject, ipv4, ipv6};

/// How many VLAN tags are followed: QinQ has two, and one more each for a provider that wraps it.
pub const MAX_VLAN_TAGS: usize = 4;

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
/// `ARPHRD_NETLINK` of `linux/if_arp.h`: a cooked header's protocol is then no ethertype.
const ARPHRD_NETLINK: u16 = 824;

/// What stands before the network header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkType {
    /// IEEE 802.3 with an ethertype, without frame check sequence.
    Ethernet,
    /// Nothing: the IP version nibble tells.
    Raw,
    /// BSD loopback: a four-byte address family, in either byte order (`LINKTYPE_NULL` and `LINKTYPE_LOOP`).
    Loopback,
    /// Linux cooked capture, 16-byte header.
    LinuxSll,
    /// Linux cooked capture, version 2, 20-byte header.
    LinuxSll2,
    /// Nothing, but the ethertype is known: what an `AF_PACKET` `SOCK_DGRAM` ring delivers. Where it is a VLAN
    /// ethertype, the rest of that tag (and perhaps inner ones) still stands before IP.
    Cooked {
        /// `sll_protocol`, host order.
        ethertype: u16,
    },
}

impl LinkType {
    /// The link type a capture file states by its number (the `LINKTYPE_` registry of tcpdump.org, and the `DLT_RAW`
    /// values that old files hold); `None` if it is not one that can be read.
    pub const fn from_capture(number: u16) -> Option<Self> {
        match number {
            0 | 108 => Some(Self::Loopback),
            1 => Some(Self::Ethernet),
            12 | 14 | 101 | 228 | 229 => Some(Self::Raw),
            113 => Some(Self::LinuxSll),
            276 => Some(Self::LinuxSll2),
            _ => None,
        }
    }
}

/// Parses a frame that was captured whole.
pub fn parse(link: LinkType, frame: &[u8], checksums: Checksums) -> Result<Packet, Reject> {
    parse_cut(link, frame, frame.len(), checksums)
}

/// Parses a frame of which perhaps only the beginning was captured; `wire_length` is its original length in bytes,
/// counted like `frame` from the link header. Lengths are judged by it, and checksums over bytes that were not
/// captured are trusted.
#[inline]
pub fn parse_cut(
    link: LinkType,
    frame: &[u8],
    wire_length: usize,
    checksums: Checksums,
) -> Result<Packet, Reject> {
    let frame = Span::new(frame, wire_length);
    match link {
        LinkType::Ethernet => ethernet(frame, checksums),
        LinkType::Raw => raw(frame, checksums),
        LinkType::Loopback => loopback(frame, checksums),
        LinkType::LinuxSll => linux_sll(frame, checksums),
        LinkType::LinuxSll2 => linux_sll2(frame, checksums),
        LinkType::Cooked { ethertype } => network(ethertype, frame, checksums),
    }
}

#[inline]
fn ethernet(frame: Span<'_>, checksums: Checksums) -> Result<Packet, Reject> {
    let [.., high, low] = *frame.head::<14>(Reject::LinkHeader)?;
    network(u16::from_be_bytes([high, low]), frame.skip(14, Reject::LinkHeader)?, checksums)
}

fn raw(frame: Span<'_>, checksums: Checksums) -> Result<Packet, Reject> {
    let [first] = *frame.head(Reject::IpHeader)?;
    match first >> 4 {
        4 => ipv4::parse(frame, checksums),
        6 => ipv6::parse(frame, checksums),
        _ => Err(Reject::IpVersion),
    }
}

fn loopback(frame: Span<'_>, checksums: Checksums) -> Result<Packet, Reject> {
    let family = *frame.head(Reject::LinkHeader)?;
    let datagram = frame.skip(4, Reject::LinkHeader)?;
    // A family is a small number: of the two readings the lesser one is meant.
    match u32::from_be_bytes(family).min(u32::from_le_bytes(family)) {
        2 => ipv4::parse(datagram, checksums),
        // AF_INET6 of Linux, NetBSD and OpenBSD, FreeBSD, macOS.
        10 | 24 | 28 | 30 => ipv6::parse(datagram, checksums),
        _ => Err(Reject::NotIp),
    }
}

fn linux_sll(frame: Span<'_>, checksums: Checksums) -> Result<Packet, Reject> {
    let [_, _, hardware_high, hardware_low, .., high, low] = *frame.head::<16>(Reject::LinkHeader)?;
    let datagram = frame.skip(16, Reject::LinkHeader)?;
    cooked([hardware_high, hardware_low], [high, low], datagram, checksums)
}

fn linux_sll2(frame: Span<'_>, checksums: Checksums) -> Result<Packet, Reject> {
    let [high, low, _, _, _, _, _, _, hardware_high, hardware_low, ..] =
        *frame.head::<20>(Reject::LinkHeader)?;
    let datagram = frame.skip(20, Reject::LinkHeader)?;
    cooked([hardware_high, hardware_low], [high, low], datagram, checksums)
}

fn cooked(
    hardware: [u8; 2],
    ethertype: [u8; 2],
    datagram: Span<'_>,
    checksums: Checksums,
) -> Result<Packet, Reject> {
    if u16::from_be_bytes(hardware) == ARPHRD_NETLINK {
        return Err(Reject::NotIp);
    }
    network(u16::from_be_bytes(ethertype), datagram, checksums)
}

/// `payload` is what follows `ethertype`: IP, or the rest of a VLAN tag.
#[inline]
fn network(ethertype: u16, payload: Span<'_>, checksums: Checksums) -> Result<Packet, Reject> {
    match ethertype {
        IPV4 => ipv4::parse(payload, checksums),
        IPV6 => ipv6::parse(payload, checksums),
        _ => tagged(ethertype, payload, checksums),
    }
}

fn tagged(ethertype: u16, payload: Span<'_>, checksums: Checksums) -> Result<Packet, Reject> {
    let (mut ethertype, mut payload) = (ethertype, payload);
    for _ in 0..MAX_VLAN_TAGS {
        if !is_vlan(ethertype) {
            break;
        }
        let [_, _, high, low] = *payload.head(Reject::LinkHeader)?;
        ethertype = u16::from_be_bytes([high, low]);
        payload = payload.skip(4, Reject::LinkHeader)?;
    }
    match ethertype {
        IPV4 => ipv4::parse(payload, checksums),
        IPV6 => ipv6::parse(payload, checksums),
        _ if is_vlan(ethertype) => Err(Reject::VlanDepth),
        _ => Err(Reject::NotIp),
    }
}

/// 802.1Q, 802.1ad, and the QinQ ethertype that was in use before 802.1ad.
const fn is_vlan(ethertype: u16) -> bool {
    matches!(ethertype, 0x8100 | 0x88a8 | 0x9100)
}
