//! Fragments as both IP versions know them: where a piece lies, and what a later piece shows of itself.
//!
//! Pure; the meeting of pieces is `reassembly.rs`.
#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use super::span::Span;
use super::{Reject, Transport};

/// Where a fragment lies in the whole payload.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fragment {
    /// 16 bits in IPv4, 32 in IPv6.
    pub(super) identification: u32,
    /// Bytes, a multiple of 8.
    pub(super) offset: u16,
    /// Not the last one.
    pub(super) more: bool,
}

impl Fragment {
    /// Refuses a fragment that ends beyond the longest packet there is: reassembly of it can only be an attack.
    pub(super) fn fits(&self, length: usize) -> Result<(), Reject> {
        let end = usize::from(self.offset).saturating_add(length);
        if end > usize::from(u16::MAX) { Err(Reject::FragmentRange) } else { Ok(()) }
    }
}

/// What a fragment that does not begin the payload says.
pub(super) fn later(fragment: &Fragment, protocol: u8, payload: Span<'_>) -> Transport {
    let mut head = [0; 16];
    let mut head_length = 0_u8;
    for (slot, byte) in head.iter_mut().zip(payload.captured()) {
        *slot = *byte;
        head_length = head_length.saturating_add(1);
    }
    Transport::LaterFragment {
        protocol,
        identification: fragment.identification,
        offset: fragment.offset,
        head,
        head_length,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_packet_there_is_fits_and_one_byte_more_does_not() {
        let last = Fragment { identification: 1, offset: 65_528, more: false };
        assert_eq!((last.fits(7), last.fits(8)), (Ok(()), Err(Reject::FragmentRange)));
    }
}
