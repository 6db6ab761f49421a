//! A stretch of the wire of which perhaps only the beginning was captured.
//!
//! Pure. Keeps truncation by the capture apart from malformation by the sender: every length is judged by the wire,
//! every byte is read from what was captured.
#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use super::Reject;

/// `captured` is the beginning of `length` bytes on the wire; `captured.len() <= length` always.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span<'a> {
    captured: &'a [u8],
    length: usize,
}

impl<'a> Span<'a> {
    /// A wire length under the captured length is a lie of the capture file; the bytes at hand are believed.
    pub(super) fn new(captured: &'a [u8], wire_length: usize) -> Self {
        Self { captured, length: wire_length.max(captured.len()) }
    }

    /// Bytes on the wire.
    pub(super) fn length(self) -> usize {
        self.length
    }

    /// The bytes at hand, at most [`Self::length`].
    pub(super) fn captured(self) -> &'a [u8] {
        self.captured
    }

    /// All bytes, or `None` where the capture ends early.
    pub(super) fn whole(self) -> Option<&'a [u8]> {
        (self.captured.len() == self.length).then_some(self.captured)
    }

    /// The first `N` bytes; `short` if the wire itself had fewer.
    #[inline(always)]
    pub(super) fn head<const N: usize>(self, short: Reject) -> Result<&'a [u8; N], Reject> {
        self.captured.first_chunk().ok_or_else(|| self.blame(N, short))
    }

    /// The first `count` bytes; `short` if the wire itself had fewer.
    pub(super) fn front(self, count: usize, short: Reject) -> Result<&'a [u8], Reject> {
        self.captured.get(..count).ok_or_else(|| self.blame(count, short))
    }

    /// What follows the first `count` bytes; `short` if the wire itself had fewer.
    #[inline(always)]
    pub(super) fn skip(self, count: usize, short: Reject) -> Result<Self, Reject> {
        let length = self.length.checked_sub(count).ok_or(short)?;
        let captured = self.captured.get(count..).ok_or(Reject::CutShort)?;
        Ok(Self { captured, length })
    }

    /// The first `length` bytes alone (Ethernet pads short frames); `beyond` if the wire had fewer.
    #[inline(always)]
    pub(super) fn trim(self, length: usize, beyond: Reject) -> Result<Self, Reject> {
        if length > self.length {
            return Err(beyond);
        }
        Ok(Self { captured: self.captured.get(..length).unwrap_or(self.captured), length })
    }

    #[cold]
    fn blame(self, needed: usize, short: Reject) -> Reject {
        if self.length < needed { short } else { Reject::CutShort }
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_byte_is_blamed_on_the_capture_only_if_the_wire_had_it() {
        let cut = Span::new(&[1, 2, 3], 8);
        assert_eq!(cut.head::<4>(Reject::IpHeader), Err(Reject::CutShort));
        assert_eq!(cut.head::<9>(Reject::IpHeader), Err(Reject::IpHeader));
        assert_eq!(cut.skip(4, Reject::IpHeader), Err(Reject::CutShort));
        assert_eq!(cut.skip(9, Reject::IpHeader), Err(Reject::IpHeader));
        assert_eq!(cut.front(4, Reject::IpHeader), Err(Reject::CutShort));
        assert_eq!(cut.head::<3>(Reject::IpHeader), Ok(&[1, 2, 3]));
    }

    #[test]
    fn trimming_to_what_was_captured_makes_a_cut_span_whole() {
        let cut = Span::new(&[1, 2, 3], 8);
        assert_eq!(cut.whole(), None);
        assert_eq!(cut.trim(5, Reject::IpLength).map(Span::length), Ok(5));
        assert_eq!(cut.trim(2, Reject::IpLength).map(Span::whole), Ok(Some(&[1, 2][..])));
        assert_eq!(cut.trim(9, Reject::IpLength), Err(Reject::IpLength));
    }

    #[test]
    fn a_wire_length_below_the_capture_is_not_believed() {
        assert_eq!(Span::new(&[1, 2, 3], 1).length(), 3);
    }
}
