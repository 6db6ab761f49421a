//! The classic format of libpcap: a file header of 24 bytes, then each frame after a header of 16.
//!
//! Source: draft-ietf-opsawg-pcap. Also read is Kuznetzov's, whose record headers are 8 bytes longer.
#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::io::Read;

use super::Frame;
use super::bytes::{ByteOrder, length};
use super::error::{CaptureError, Fault};
use super::input::Input;
use crate::packet::LinkType;

/// No frame is longer, bytes: libpcap's MAXIMUM_SNAPLEN is 262,144, and this leaves room for odd writers.
const LONGEST_FRAME: u32 = 1 << 20;

/// What a file header says.
#[derive(Debug)]
pub(super) struct Pcap {
    order: ByteOrder,
    nanoseconds: bool,
    long_records: bool,
    link: LinkType,
}

impl Pcap {
    /// Reads the rest of the file header.
    pub(super) fn open<R: Read>(magic: [u8; 4], input: &mut Input<R>) -> Result<Pcap, CaptureError> {
        let Some((order, kind)) = kind_of(magic) else {
            let compressed = is_compressed(magic);
            return Err(input.fault(if compressed { Fault::Compressed } else { Fault::NotACapture }));
        };
        let [.., a, b, c, d] = input.bytes::<20>("the file header")?;
        // The upper bits tell of frame check sequences, which end up beyond the IP length and are ignored.
        let number = order.u32([a, b, c, d]) & 0xffff;
        let link = LinkType::from_capture(u16::try_from(number).unwrap_or(u16::MAX));
        let link = link.ok_or_else(|| input.fault(Fault::LinkType(number)))?;
        Ok(Pcap { order, nanoseconds: kind == NANOSECONDS, long_records: kind == LONG_RECORDS, link })
    }

    pub(super) fn next_frame<'a, R: Read>(
        &self,
        input: &'a mut Input<R>,
    ) -> Result<Option<Frame<'a>>, CaptureError> {
        input.begin();
        let Some(header) = input.bytes_or_end::<16>("a record header")? else { return Ok(None) };
        let numbers = header.as_chunks::<4>().0;
        let [seconds, fraction, captured, on_wire] = *numbers else { return Ok(None) };
        if self.long_records {
            let _: [u8; 8] = input.bytes("a record header")?;
        }
        let captured = self.order.u32(captured);
        if captured > LONGEST_FRAME {
            return Err(input.fault(Fault::Length { what: "a frame", length: captured }));
        }
        input.fill(captured, "a frame")?;
        let wire_length = length(self.order.u32(on_wire)).max(length(captured));
        let time = self.time(self.order.u32(seconds), self.order.u32(fraction));
        Ok(Some(Frame { time, link: self.link, bytes: input.record(), wire_length, interface: None }))
    }

    fn time(&self, seconds: u32, fraction: u32) -> u64 {
        let micros = if self.nanoseconds { fraction / 1000 } else { fraction };
        u64::from(seconds).saturating_mul(1_000_000).saturating_add(micros.into())
    }
}

const MICROSECONDS: u32 = 0xa1b2_c3d4;
const NANOSECONDS: u32 = 0xa1b2_3c4d;
const LONG_RECORDS: u32 = 0xa1b2_cd34;

fn kind_of(magic: [u8; 4]) -> Option<(ByteOrder, u32)> {
    let known = |kind: &u32| matches!(*kind, MICROSECONDS | NANOSECONDS | LONG_RECORDS);
    let big = Some(u32::from_be_bytes(magic)).filter(known).map(|kind| (ByteOrder::Big, kind));
    let little = Some(u32::from_le_bytes(magic)).filter(known).map(|kind| (ByteOrder::Little, kind));
    big.or(little)
}

/// gzip, bzip2, xz, zstd, lz4.
fn is_compressed(magic: [u8; 4]) -> bool {
    matches!(
        magic,
        [0x1f, 0x8b, ..]
            | [b'B', b'Z', b'h', _]
            | [0xfd, b'7', b'z', b'X']
            | [0x28, 0xb5, 0x2f, 0xfd]
            | [0x04, 0x22, 0x4d, 0x18]
    )
}
