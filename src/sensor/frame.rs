//! One ring slot → [`Frame`]: what the kernel says about a packet, and the packet.
//!
//! Pure and total: the slot is memory that the kernel shares with us, so every offset in it is checked before it is
//! followed. Layout: `struct tpacket2_hdr` and `struct sockaddr_ll` of linux/if_packet.h, in host byte order.
#![forbid(unsafe_code)]

use crate::packet::{Checksums, first_ethertype};

/// `tp_net` in a cooked V2 slot: 32 bytes of header and 20 of link address, aligned to 16, and 16 more.
const PACKET_OFFSET: usize = 80;
/// How many bytes of a packet the filter lets into a slot: all headers that IPv4 or TCP can have, and of IPv6 some.
pub const CAPTURED_BYTES: usize = crate::sys::SLOT_BYTES - PACKET_OFFSET;

/// One packet as the kernel handed it up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'slot> {
    /// The packet from its network header on; at most [`CAPTURED_BYTES`].
    pub bytes: &'slot [u8],
    /// How long it was on the wire from there, bytes.
    pub wire_length: u32,
    /// What `bytes` begins with (IEEE 802 number, host order), also where the kernel names what is behind it. An inner VLAN
    /// tag may remain (0x8100, 0x88a8).
    pub ethertype: u16,
    /// The interface it came in on.
    pub interface: u32,
    /// PACKET_HOST 0, BROADCAST 1, MULTICAST 2, OTHERHOST 3, OUTGOING 4.
    pub packet_type: u8,
    /// Whether its checksums mean anything: those that the hardware or the kernel checked (TP_STATUS_CSUM_VALID) are right,
    /// and those of this machine's own packets are yet to be computed (TP_STATUS_CSUMNOTREADY).
    pub checksums: Checksums,
    /// Packets were lost before this one (TP_STATUS_LOSING), and the kernel was not asked how many since.
    pub after_loss: bool,
}

impl<'slot> Frame<'slot> {
    /// Whether its link header sends it to everybody or to a group.
    pub fn is_to_many(&self) -> bool {
        [libc::PACKET_BROADCAST, libc::PACKET_MULTICAST].contains(&self.packet_type)
    }

    /// Reads a filled slot; `None` if its offsets point outside of it.
    pub fn read(slot: &'slot [u8]) -> Option<Frame<'slot>> {
        let status = u32_at(slot, 0)?;
        let start = usize::from(u16_at(slot, 14)?);
        let captured = usize::try_from(u32_at(slot, 8)?).ok()?;
        let bytes = slot.get(start..start.checked_add(captured)?)?;
        let wire_length = u32_at(slot, 4)?;
        let named = u16::from_be(u16_at(slot, 34)?);
        // The outermost tag was taken out: more may be left.
        let was_tagged = status & libc::TP_STATUS_VLAN_VALID != 0;
        let was_checked = status & (libc::TP_STATUS_CSUM_VALID | libc::TP_STATUS_CSUMNOTREADY) != 0;
        Some(Frame {
            bytes,
            wire_length,
            ethertype: if was_tagged { first_ethertype(named, bytes, wire_length as usize) } else { named },
            interface: u32_at(slot, 36)?,
            packet_type: *slot.get(42)?,
            checksums: if was_checked { Checksums::Trust } else { Checksums::Verify },
            after_loss: status & libc::TP_STATUS_LOSING != 0,
        })
    }
}

fn u16_at(slot: &[u8], at: usize) -> Option<u16> {
    slot.get(at..)?.first_chunk().copied().map(u16::from_ne_bytes)
}

fn u32_at(slot: &[u8], at: usize) -> Option<u32> {
    slot.get(at..)?.first_chunk().copied().map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use proptest::prelude::*;

    use super::*;

    fn slot() -> Vec<u8> {
        let mut slot = vec![0; 256];
        let mut put = |at: usize, bytes: &[u8]| slot[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &(libc::TP_STATUS_USER | libc::TP_STATUS_VLAN_VALID).to_ne_bytes());
        put(4, &1500u32.to_ne_bytes());
        put(8, &40u32.to_ne_bytes());
        put(14, &80u16.to_ne_bytes());
        put(34, &0x86ddu16.to_be_bytes());
        put(36, &3u32.to_ne_bytes());
        put(42, &[4]);
        put(80, &[0x60; 40]);
        slot
    }

    #[test]
    fn the_offsets_are_those_of_the_kernel_headers() {
        assert_eq!(offset_of!(libc::tpacket2_hdr, tp_len), 4);
        assert_eq!(offset_of!(libc::tpacket2_hdr, tp_snaplen), 8);
        assert_eq!(offset_of!(libc::tpacket2_hdr, tp_net), 14);
        assert_eq!(size_of::<libc::tpacket2_hdr>(), 32);
        assert_eq!(offset_of!(libc::sockaddr_ll, sll_protocol), 2);
        assert_eq!(offset_of!(libc::sockaddr_ll, sll_ifindex), 4);
        assert_eq!(offset_of!(libc::sockaddr_ll, sll_pkttype), 10);
        assert_eq!(libc::TPACKET2_HDRLEN.next_multiple_of(16) + 16, PACKET_OFFSET);
    }

    #[test]
    fn a_slot_is_read_field_by_field() {
        let slot = slot();
        let frame = Frame::read(&slot).unwrap();
        assert_eq!(frame.bytes, [0x60; 40]);
        assert_eq!((frame.wire_length, frame.ethertype, frame.interface), (1500, 0x86dd, 3));
        assert_eq!((frame.packet_type, frame.checksums, frame.after_loss), (4, Checksums::Verify, false));
    }

    #[test]
    fn a_slot_says_that_packets_before_it_were_lost() {
        let mut slot = slot();
        slot[..4].copy_from_slice(&(libc::TP_STATUS_USER | libc::TP_STATUS_LOSING).to_ne_bytes());
        assert!(Frame::read(&slot).unwrap().after_loss);
    }

    #[test]
    fn only_where_a_tag_was_taken_out_may_more_be_left() {
        let mut slot = slot();
        slot[34..36].copy_from_slice(&0x0800_u16.to_be_bytes());
        slot[80..88].copy_from_slice(&[0, 42, 8, 0, 0x45, 0, 0, 36]);
        assert_eq!(Frame::read(&slot).unwrap().ethertype, 0x8100);
        slot[..4].copy_from_slice(&libc::TP_STATUS_USER.to_ne_bytes());
        assert_eq!(Frame::read(&slot).unwrap().ethertype, 0x0800);
    }

    #[test]
    fn checksums_that_were_checked_or_are_yet_to_be_made_are_believed() {
        for bit in [libc::TP_STATUS_CSUM_VALID, libc::TP_STATUS_CSUMNOTREADY] {
            let mut slot = slot();
            slot[..4].copy_from_slice(&bit.to_ne_bytes());
            assert_eq!(Frame::read(&slot).unwrap().checksums, Checksums::Trust);
        }
    }

    #[test]
    fn offsets_that_point_outside_the_slot_yield_nothing() {
        for (length, start) in [(177u32, 80u16), (u32::MAX, 80), (40, 217), (0, 257), (1, u16::MAX)] {
            let mut slot = slot();
            slot[8..12].copy_from_slice(&length.to_ne_bytes());
            slot[14..16].copy_from_slice(&start.to_ne_bytes());
            assert_eq!(Frame::read(&slot), None, "{length} bytes at {start}");
        }
    }

    proptest! {
        #[test]
        fn any_memory_yields_a_frame_inside_it_or_nothing(slot in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Some(frame) = Frame::read(&slot) {
                prop_assert!(slot.as_ptr_range().contains(&frame.bytes.as_ptr()) || frame.bytes.is_empty());
                prop_assert!(frame.bytes.len() <= slot.len());
            }
        }
    }
}
