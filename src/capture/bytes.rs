//! Numbers out of a header, in the byte order that the capture was written in. Total: too few bytes yield `None`.
#![forbid(unsafe_code)]

/// Which byte comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ByteOrder {
    Little,
    Big,
}

impl ByteOrder {
    pub(super) fn u16(self, bytes: [u8; 2]) -> u16 {
        match self {
            ByteOrder::Little => u16::from_le_bytes(bytes),
            ByteOrder::Big => u16::from_be_bytes(bytes),
        }
    }

    pub(super) fn u32(self, bytes: [u8; 4]) -> u32 {
        match self {
            ByteOrder::Little => u32::from_le_bytes(bytes),
            ByteOrder::Big => u32::from_be_bytes(bytes),
        }
    }

    pub(super) fn u64(self, bytes: [u8; 8]) -> u64 {
        match self {
            ByteOrder::Little => u64::from_le_bytes(bytes),
            ByteOrder::Big => u64::from_be_bytes(bytes),
        }
    }

    /// Takes a number off the front of `bytes`.
    pub(super) fn take_u16(self, bytes: &mut &[u8]) -> Option<u16> {
        take(bytes).map(|number| self.u16(number))
    }

    /// Likewise.
    pub(super) fn take_u32(self, bytes: &mut &[u8]) -> Option<u32> {
        take(bytes).map(|number| self.u32(number))
    }
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*first)
}

/// A length that came as 32 bits.
pub(super) fn length(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
