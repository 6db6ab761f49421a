//! The Internet checksum (RFC 1071) and SCTP's CRC32c (RFC 9260 appendix A).
//!
//! Pure. A packet whose checksum the host would refuse is no evidence (`nmap --badsum`), but a checksum that a
//! network card has yet to fill in is no bad one: the caller says which it is.
#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

/// Whether the checksums of a frame mean anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksums {
    /// Came over a wire: verify whatever was captured whole.
    Verify,
    /// From a capture file: verify likewise, but a field that a network card was yet to fill in is no wrong one. It holds
    /// zero, or the pseudo-header's sum alone (what Linux leaves there).
    Captured,
    /// Already verified, or never computed (offload on a local capture): believe them.
    Trust,
}

/// A ones' complement sum in memory order: RFC 1071 §2(B) lets the byte swap wait until the end, and a sum that
/// includes its own checksum is 0xffff in either order.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sum(u64);

impl Sum {
    /// Adds bytes that begin at an even offset; an odd last byte is padded with zero.
    #[inline]
    pub(super) fn bytes(self, bytes: &[u8]) -> Self {
        let (words, rest) = bytes.as_chunks::<4>();
        let mut tail = [0; 4];
        for (slot, byte) in tail.iter_mut().zip(rest) {
            *slot = *byte;
        }
        // 2^16 words of 32 bits stay far below 2^64: the addition cannot wrap.
        let sum = words.iter().fold(self.0, |sum, word| sum.wrapping_add(u32::from_ne_bytes(*word).into()));
        Self(sum.wrapping_add(u32::from_ne_bytes(tail).into()))
    }

    /// Adds one 16-bit number in host order, as if it stood in network order.
    pub(super) fn word(self, word: u16) -> Self {
        Self(self.0.wrapping_add(word.to_be().into()))
    }

    /// Whether the sum, checksum field included, is that of undamaged bytes.
    pub(super) fn is_valid(self) -> bool {
        self.folded() == 0xffff
    }

    /// Whether `field` is a checksum of which only `self`, the pseudo-header, has been summed, or nothing.
    pub(super) fn is_unfinished(self, field: Option<&[u8; 2]>) -> bool {
        field.is_some_and(|field| *field == [0, 0] || u64::from(u16::from_ne_bytes(*field)) == self.folded())
    }

    fn folded(self) -> u64 {
        let mut sum = self.0;
        while sum >> 16 != 0 {
            sum = (sum & 0xffff).wrapping_add(sum >> 16);
        }
        sum
    }
}

/// The reflected Castagnoli polynomial's remainders of every byte.
const CASTAGNOLI: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0_u32;
    let mut slots: &mut [u32] = &mut table;
    while let Some((slot, rest)) = slots.split_first_mut() {
        *slot = remainder(byte);
        byte = byte.wrapping_add(1);
        slots = rest;
    }
    table
};

const fn remainder(byte: u32) -> u32 {
    let mut remainder = byte;
    let mut bit = 0_u8;
    while bit < 8 {
        remainder = (remainder >> 1) ^ (0x82f6_3b78 & (remainder & 1).wrapping_neg());
        bit = bit.wrapping_add(1);
    }
    remainder
}

fn crc32c(seed: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(seed, |crc, byte| {
        let [low, ..] = crc.to_le_bytes();
        (crc >> 8) ^ CASTAGNOLI.get(usize::from(low ^ byte)).copied().unwrap_or(0)
    })
}

/// Whether an SCTP packet's CRC32c, computed with its own field (bytes 8 to 11, little-endian) as zero, is right.
pub(super) fn sctp_is_valid(packet: &[u8]) -> bool {
    let Some((head, rest)) = packet.split_first_chunk::<8>() else { return false };
    let Some((stated, chunks)) = rest.split_first_chunk::<4>() else { return false };
    let crc = crc32c(crc32c(crc32c(u32::MAX, head), &[0; 4]), chunks);
    !crc == u32::from_le_bytes(*stated)
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_1071_sums_to_its_stated_value() {
        // §3: 00 01 f2 03 f4 f5 f6 f7 sums to ddf2, so ~ddf2 = 220d makes it valid.
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert!(Sum::default().bytes(&bytes).word(0x220d).is_valid());
        assert!(!Sum::default().bytes(&bytes).word(0x220e).is_valid());
    }

    #[test]
    fn an_odd_last_byte_counts_as_the_high_half_of_a_word() {
        assert!(Sum::default().bytes(&[0x12, 0x34, 0x56]).word(!(0x1234 + 0x5600)).is_valid());
        assert!(Sum::default().bytes(&[0x12]).word(!0x1200).is_valid());
    }

    #[test]
    fn all_zero_bytes_are_not_valid() {
        assert!(!Sum::default().bytes(&[0; 20]).is_valid());
    }

    #[test]
    fn crc32c_of_the_check_string_is_the_published_one() {
        assert_eq!(!crc32c(u32::MAX, b"123456789"), 0xe306_9283);
    }

    #[test]
    fn an_sctp_packet_shorter_than_its_common_header_is_not_valid() {
        assert!(!sctp_is_valid(&[0; 11]));
    }
}
