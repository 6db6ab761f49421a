//! VLAN tags that are left in a frame though the kernel names what is behind them.
//!
//! Pure. Never takes for a tag what may be IP.
#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use super::Reject;
use super::link::{IPV4, IPV6, MAX_VLAN_TAGS};
use super::span::Span;

/// 802.1Q.
const VLAN: u16 = 0x8100;

/// What a cooked frame begins with, of which the kernel took out the outermost VLAN tag and named the `innermost`
/// ethertype: that, or a VLAN's where inner tags remain. Linux names them so since 6.11; before, it named what comes next.
pub fn first_ethertype(innermost: u16, frame: &[u8], wire_length: usize) -> u16 {
    let mut rest = Span::new(frame, wire_length);
    for _ in 0..MAX_VLAN_TAGS {
        let (Ok(&[_, _, high, low]), Ok(inner)) =
            (rest.head(Reject::LinkHeader), rest.skip(4, Reject::LinkHeader))
        else {
            return innermost;
        };
        let next = u16::from_be_bytes([high, low]);
        if next == innermost && is_whole(innermost, inner) {
            return VLAN;
        }
        if !is_vlan(next) {
            return innermost;
        }
        rest = inner;
    }
    VLAN
}

/// Whether an IP header of this ethertype begins here, and the length that it states fits. What reads as a tag before it
/// is then one: as IP it would be 2048 bytes and a late fragment, or longer than the wire, or come from no host's address.
fn is_whole(ethertype: u16, datagram: Span<'_>) -> bool {
    let Ok(&[first, _, total_high, total_low, payload_high, payload_low]) = datagram.head(Reject::IpHeader)
    else {
        return false;
    };
    let total = match (ethertype, first >> 4) {
        (IPV4, 4) => usize::from(u16::from_be_bytes([total_high, total_low])),
        (IPV6, 6) => usize::from(u16::from_be_bytes([payload_high, payload_low])).saturating_add(40),
        _ => return false,
    };
    (20..=datagram.length()).contains(&total)
}

/// 802.1Q, 802.1ad, and the QinQ ethertype that was in use before 802.1ad.
pub(super) const fn is_vlan(ethertype: u16) -> bool {
    matches!(ethertype, VLAN | 0x88a8 | 0x9100)
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
mod tests {
    use super::super::samples::{SYN4, SYN6, syn4, syn6};
    use super::super::{Checksums, LinkType, Packet, parse};
    use super::*;

    /// What the packet path makes of a frame that the kernel calls so.
    fn read(innermost: u16, frame: &[u8]) -> Result<Packet, Reject> {
        let ethertype = first_ethertype(innermost, frame, frame.len());
        parse(LinkType::Cooked { ethertype }, frame, Checksums::Verify)
    }

    #[test]
    fn inner_tags_are_found_where_the_kernel_names_what_is_behind_them() {
        // One that reads like IPv4 (priority 2), one like IPv6 (priority 3), and one like neither.
        for control in [[0x45, 0], [0x60, 0], [0, 42]] {
            for (innermost, syn, packet) in [(IPV4, &SYN4[..], syn4()), (IPV6, &SYN6[..], syn6())] {
                for count in 0..=MAX_VLAN_TAGS {
                    let mut frame = Vec::new();
                    (0..count).for_each(|left| {
                        let next = if left + 1 == count { innermost } else { VLAN };
                        let control = if left == 0 { control } else { [0, 3] };
                        frame.extend([control, next.to_be_bytes()].concat());
                    });
                    frame.extend_from_slice(syn);
                    for padding in [0, 6] {
                        frame.resize(frame.len() + padding, 0);
                        assert_eq!(read(innermost, &frame), Ok(packet), "{count} left, {control:?}");
                    }
                }
            }
        }
        let deep = [0, 42, 0x81, 0].repeat(MAX_VLAN_TAGS);
        let deep = [&deep[..], &[0, 42, 8, 0], &SYN4].concat();
        assert_eq!(read(IPV4, &deep), Err(Reject::VlanDepth));
    }

    #[test]
    fn ip_that_reads_like_a_tag_and_what_is_neither_stay_what_they_were_called() {
        // 2048 bytes long, and its identification reads like the beginning of another header.
        for flags in [0, 0x20, 0x40] {
            let long = [&[0x45, 0, 8, 0, 0x45, 0, flags, 0, 64, 6][..], &[0; 2038]].concat();
            assert_eq!(first_ethertype(IPV4, &long, 2048), IPV4);
        }
        for (ethertype, frame) in [(0x0806, &[0, 42, 8, 6][..]), (IPV4, &[0x50; 60]), (IPV6, &[0; 60])] {
            assert_eq!(first_ethertype(ethertype, frame, frame.len()), ethertype);
        }
        let tagged = [&[0, 42, 8, 0][..], &SYN4].concat();
        for length in 0..10 {
            assert_eq!(first_ethertype(IPV4, &tagged[..length], tagged.len()), IPV4, "cut to {length}");
        }
    }
}
