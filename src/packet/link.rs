//! Link headers and VLAN tags: finds where IP begins in a frame.
//!
//! Pure. Follows 802.1Q and 802.1ad tags up to a fixed depth; PPPoE, MPLS and LLC are not IP here.
//!
//! Each layer calls the next rather than returning what it found, and the layers below are `inline(always)`: results
//! handed back through memory and read again at once cost more than twice the parsing (`benches/packet.rs`).
#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use super::span::Span;
use super::vlan::is_vlan;
use super::{Checksums, Packet, Reject, ipv4, ipv6};

/// How many VLAN tags are followed: QinQ has two, and one more each for a provider that wraps it.
pub const MAX_VLAN_TAGS: usize = 4;

pub(super) const IPV4: u16 = 0x0800;
pub(super) const IPV6: u16 = 0x86dd;
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
        /// `sll_protocol`, host order; see [`super::first_ethertype`].
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

/// Whether the link header sends a frame to many: then an address of an unknown subnet may be its broadcast address.
pub fn is_to_many(link: LinkType, frame: &[u8]) -> bool {
    // PACKET_BROADCAST and PACKET_MULTICAST of linux/if_packet.h.
    let cooked = |kind: Option<&u8>| matches!(kind, Some(1 | 2));
    match link {
        LinkType::Ethernet => frame.first().is_some_and(|first| first & 1 == 1),
        LinkType::LinuxSll => cooked(frame.get(1)),
        LinkType::LinuxSll2 => cooked(frame.get(10)),
        LinkType::Raw | LinkType::Loopback | LinkType::Cooked { .. } => false,
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

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
mod tests {
    use super::super::samples::{ETHERNET4, SYN4, SYN6, syn4, syn6};
    use super::*;

    fn verified(link: LinkType, parts: &[&[u8]]) -> Result<Packet, Reject> {
        parse(link, &parts.concat(), Checksums::Verify)
    }

    fn tags(count: usize) -> Vec<u8> {
        let mut frame = ETHERNET4[..12].to_vec();
        for ethertype in [[0x88, 0xa8], [0x91, 0x00], [0x81, 0x00]].iter().cycle().take(count) {
            frame.extend_from_slice(ethertype);
            frame.extend_from_slice(&[0, 42]);
        }
        frame.extend_from_slice(&[8, 0]);
        frame
    }

    #[test]
    fn an_ethernet_frame_with_padding_yields_its_packet() {
        assert_eq!(verified(LinkType::Ethernet, &[&ETHERNET4, &SYN4, &[0; 6]]), Ok(syn4()));
    }

    #[test]
    fn vlan_tags_are_followed_up_to_the_stated_depth() {
        for count in 0..=MAX_VLAN_TAGS {
            assert_eq!(verified(LinkType::Ethernet, &[&tags(count), &SYN4]), Ok(syn4()));
        }
        let deep = tags(MAX_VLAN_TAGS + 1);
        assert_eq!(verified(LinkType::Ethernet, &[&deep, &SYN4]), Err(Reject::VlanDepth));
    }

    #[test]
    fn a_cooked_ring_delivers_ip_at_once_or_after_inner_tags() {
        let cooked = |ethertype| LinkType::Cooked { ethertype };
        assert_eq!(verified(cooked(0x0800), &[&SYN4]), Ok(syn4()));
        assert_eq!(verified(cooked(0x86dd), &[&SYN6]), Ok(syn6()));
        assert_eq!(verified(cooked(0x8100), &[&[0, 42, 8, 0], &SYN4]), Ok(syn4()));
        assert_eq!(verified(cooked(0x0806), &[&SYN4]), Err(Reject::NotIp));
        assert_eq!(verified(cooked(0x0800), &[&SYN6]), Err(Reject::IpVersion));
    }

    #[test]
    fn a_raw_packet_is_told_by_its_version() {
        assert_eq!(verified(LinkType::Raw, &[&SYN4]), Ok(syn4()));
        assert_eq!(verified(LinkType::Raw, &[&SYN6]), Ok(syn6()));
        assert_eq!(verified(LinkType::Raw, &[&[0x50; 60]]), Err(Reject::IpVersion));
        assert_eq!(verified(LinkType::Raw, &[]), Err(Reject::IpHeader));
    }

    #[test]
    fn a_loopback_family_is_read_in_either_byte_order() {
        for family in [[2, 0, 0, 0], [0, 0, 0, 2]] {
            assert_eq!(verified(LinkType::Loopback, &[&family, &SYN4]), Ok(syn4()));
        }
        for family in [[10, 0, 0, 0], [0, 0, 0, 24], [28, 0, 0, 0], [0, 0, 0, 30]] {
            assert_eq!(verified(LinkType::Loopback, &[&family, &SYN6]), Ok(syn6()));
        }
        assert_eq!(verified(LinkType::Loopback, &[&[7, 0, 0, 0], &SYN4]), Err(Reject::NotIp));
    }

    #[test]
    fn cooked_captures_name_their_ethertype() {
        let mut sll = [0_u8; 16];
        (sll[3], sll[14]) = (1, 8);
        assert_eq!(verified(LinkType::LinuxSll, &[&sll, &SYN4]), Ok(syn4()));
        let mut sll2 = [0_u8; 20];
        (sll2[0], sll2[1], sll2[9]) = (0x86, 0xdd, 1);
        assert_eq!(verified(LinkType::LinuxSll2, &[&sll2, &SYN6]), Ok(syn6()));
        [sll[2], sll[3]] = ARPHRD_NETLINK.to_be_bytes();
        assert_eq!(verified(LinkType::LinuxSll, &[&sll, &SYN4]), Err(Reject::NotIp));
    }

    #[test]
    fn a_frame_without_its_link_header_is_told_from_a_cut_capture() {
        assert_eq!(verified(LinkType::Ethernet, &[&ETHERNET4[..13]]), Err(Reject::LinkHeader));
        let cut = parse_cut(LinkType::Ethernet, &ETHERNET4[..13], 60, Checksums::Verify);
        assert_eq!(cut, Err(Reject::CutShort));
    }

    #[test]
    fn a_capture_cut_after_the_flags_yields_the_whole_packet() {
        for length in 34..SYN4.len() {
            let cut = parse_cut(LinkType::Raw, &SYN4[..length], SYN4.len(), Checksums::Verify);
            assert_eq!(cut, Ok(syn4()), "cut to {length}");
        }
        for length in 0..34 {
            let cut = parse_cut(LinkType::Raw, &SYN4[..length], SYN4.len(), Checksums::Verify);
            assert_eq!(cut, Err(Reject::CutShort), "cut to {length}");
        }
    }

    #[test]
    fn frames_to_groups_are_told_by_their_link_header() {
        let sll =
            |kind, at: usize| (0..20).map(|index| if index == at { kind } else { 0 }).collect::<Vec<u8>>();
        for kind in [1, 2] {
            assert!(is_to_many(LinkType::LinuxSll, &sll(kind, 1)));
            assert!(is_to_many(LinkType::LinuxSll2, &sll(kind, 10)));
        }
        assert!(is_to_many(LinkType::Ethernet, &[0xff; 14]) && is_to_many(LinkType::Ethernet, &[0x33; 14]));
        assert!(!is_to_many(LinkType::Ethernet, &ETHERNET4) && !is_to_many(LinkType::Raw, &[0xff; 14]));
        assert!(!is_to_many(LinkType::LinuxSll, &sll(4, 1)) && !is_to_many(LinkType::LinuxSll2, &[]));
    }

    #[test]
    fn link_types_are_known_by_their_capture_numbers() {
        assert_eq!(LinkType::from_capture(1), Some(LinkType::Ethernet));
        assert_eq!(LinkType::from_capture(276), Some(LinkType::LinuxSll2));
        assert_eq!(LinkType::from_capture(105), None);
    }
}
