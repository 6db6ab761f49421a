//! pcapng: sections of blocks. Interfaces and packets are read, every other block is passed over.
//!
//! Source: draft-ietf-opsawg-pcapng.
#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::io::Read;

use super::Frame;
use super::bytes::{ByteOrder, length};
use super::error::{CaptureError, Fault};
use super::input::Input;
use crate::packet::LinkType;

/// A section header block: the same in either byte order.
pub(super) const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
/// The packet block of before 2012.
const OLD_PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const PACKET: u32 = 6;

const BYTE_ORDER: u32 = 0x1a2b_3c4d;

const OPTION_NAME: u16 = 2;
const OPTION_RESOLUTION: u16 = 9;
const OPTION_OFFSET: u16 = 14;

/// Interfaces of one section that are remembered.
const MOST_INTERFACES: usize = 65_536;
/// Linux ends names at 15 bytes, Windows at some 60.
const LONGEST_NAME: usize = 128;

/// What the section so far says.
#[derive(Debug)]
pub(super) struct Pcapng {
    order: ByteOrder,
    interfaces: Vec<Interface>,
    /// The latest packet's time, for packets that have none.
    time: u64,
}

#[derive(Debug)]
struct Interface {
    link_number: u16,
    snap_length: u32,
    /// `if_tsresol`: a power of ten, or of two where the highest bit is set.
    resolution: u8,
    /// Seconds to be added.
    offset: i64,
    name: Option<String>,
}

/// A packet in its block.
struct Found {
    interface: u32,
    ticks: Option<u64>,
    captured: u32,
    on_wire: u32,
    /// Bytes of the block from its first on.
    behind: usize,
}

impl Pcapng {
    /// Reads the first section header, whose block type has been read.
    pub(super) fn open<R: Read>(input: &mut Input<R>) -> Result<Pcapng, CaptureError> {
        let mut capture = Pcapng { order: ByteOrder::Little, interfaces: Vec::new(), time: 0 };
        capture.begin_section(input)?;
        Ok(capture)
    }

    pub(super) fn next_frame<'a, R: Read>(
        &'a mut self,
        input: &'a mut Input<R>,
    ) -> Result<Option<Frame<'a>>, CaptureError> {
        let Some(found) = self.next_packet(input)? else { return Ok(None) };
        let interface = self.interfaces.get(length(found.interface));
        let interface = interface.ok_or_else(|| input.fault(Fault::Interface(found.interface)))?;
        let link = LinkType::from_capture(interface.link_number);
        let link = link.ok_or_else(|| input.fault(Fault::LinkType(interface.link_number.into())))?;
        self.time = found.ticks.map_or(self.time, |ticks| interface.micros(ticks));
        let bytes = found.bytes(input.record()).ok_or_else(|| input.fault(Fault::Block))?;
        let wire_length = length(found.on_wire).max(bytes.len());
        Ok(Some(Frame { time: self.time, link, bytes, wire_length, interface: interface.name.as_deref() }))
    }

    /// Reads blocks up to the next packet's, which stays in `input`.
    fn next_packet<R: Read>(&mut self, input: &mut Input<R>) -> Result<Option<Found>, CaptureError> {
        loop {
            input.begin();
            let Some(kind) = input.bytes_or_end::<4>("a block header")? else { return Ok(None) };
            if u32::from_be_bytes(kind) == SECTION {
                self.begin_section(input)?;
                continue;
            }
            self.fill_block(input)?;
            let (order, body) = (self.order, input.record());
            let found = match order.u32(kind) {
                PACKET => packet(order, body),
                OLD_PACKET => old_packet(order, body),
                SIMPLE_PACKET => self.simple_packet(body),
                INTERFACE => {
                    let interface = interface(order, body).ok_or_else(|| input.fault(Fault::Block))?;
                    self.add(interface).map_err(|fault| input.fault(fault))?;
                    continue;
                }
                _ => continue,
            };
            return found.map(Some).ok_or_else(|| input.fault(Fault::Block));
        }
    }

    /// The rest of a section header. Interfaces are numbered anew in each section.
    fn begin_section<R: Read>(&mut self, input: &mut Input<R>) -> Result<(), CaptureError> {
        let [l0, l1, l2, l3, o0, o1, o2, o3] = input.bytes("a section header")?;
        let order = [o0, o1, o2, o3];
        self.order = match (u32::from_be_bytes(order), u32::from_le_bytes(order)) {
            (BYTE_ORDER, _) => ByteOrder::Big,
            (_, BYTE_ORDER) => ByteOrder::Little,
            _ => return Err(input.fault(Fault::ByteOrder)),
        };
        self.interfaces.clear();
        // The byte order stands in the body already.
        self.fill_rest(self.order.u32([l0, l1, l2, l3]), 16, input)
    }

    fn fill_block<R: Read>(&self, input: &mut Input<R>) -> Result<(), CaptureError> {
        let block_length = self.order.u32(input.bytes("a block header")?);
        self.fill_rest(block_length, 12, input)
    }

    /// The body of a block of which `known` bytes are known, the closing length among them.
    fn fill_rest<R: Read>(
        &self,
        block_length: u32,
        known: u32,
        input: &mut Input<R>,
    ) -> Result<(), CaptureError> {
        let body = block_length.checked_sub(known).filter(|_| block_length.is_multiple_of(4));
        input.fill(body.ok_or_else(|| input.fault(Fault::Block))?, "a block")?;
        let again = self.order.u32(input.bytes("a block")?);
        if again == block_length { Ok(()) } else { Err(input.fault(Fault::Block)) }
    }

    fn add(&mut self, interface: Interface) -> Result<(), Fault> {
        if self.interfaces.len() >= MOST_INTERFACES {
            return Err(Fault::Interfaces(MOST_INTERFACES));
        }
        self.interfaces.push(interface);
        Ok(())
    }

    /// All of it that the first interface's snap length leaves; no time.
    fn simple_packet(&self, body: &[u8]) -> Option<Found> {
        let mut rest = body;
        let on_wire = self.order.take_u32(&mut rest)?;
        let limit = self.interfaces.first().map_or(0, |first| first.snap_length);
        let snapped = if limit == 0 { on_wire } else { on_wire.min(limit) };
        let captured = u32::try_from(rest.len()).unwrap_or(u32::MAX).min(snapped);
        Some(Found { interface: 0, ticks: None, captured, on_wire, behind: rest.len() })
    }
}

impl Found {
    fn bytes<'a>(&self, body: &'a [u8]) -> Option<&'a [u8]> {
        let start = body.len().checked_sub(self.behind)?;
        body.get(start..)?.get(..length(self.captured))
    }
}

impl Interface {
    /// Microseconds since 1970 UTC.
    fn micros(&self, ticks: u64) -> u64 {
        let (ticks, power) = (u128::from(ticks), u32::from(self.resolution & 0x7f));
        let micros = match self.resolution & 0x80 {
            0 => 10_u128
                .checked_pow(power)
                .and_then(|second| ticks.saturating_mul(1_000_000).checked_div(second)),
            // 84 bits at most, so no bit is lost on the left.
            _ => ticks.saturating_mul(1_000_000).checked_shr(power),
        };
        let micros = u64::try_from(micros.unwrap_or(0)).unwrap_or(u64::MAX);
        micros.saturating_add_signed(self.offset.saturating_mul(1_000_000))
    }
}

fn packet(order: ByteOrder, body: &[u8]) -> Option<Found> {
    let mut rest = body;
    let interface = order.take_u32(&mut rest)?;
    timed(order, interface, rest)
}

/// Its interface has 16 bits, and as many count drops.
fn old_packet(order: ByteOrder, body: &[u8]) -> Option<Found> {
    let mut rest = body;
    let interface = order.take_u16(&mut rest)?;
    order.take_u16(&mut rest)?;
    timed(order, interface.into(), rest)
}

fn timed(order: ByteOrder, interface: u32, mut rest: &[u8]) -> Option<Found> {
    let (high, low) = (order.take_u32(&mut rest)?, order.take_u32(&mut rest)?);
    let (captured, on_wire) = (order.take_u32(&mut rest)?, order.take_u32(&mut rest)?);
    let ticks = Some(u64::from(high) << 32 | u64::from(low));
    Some(Found { interface, ticks, captured, on_wire, behind: rest.len() })
}

fn interface(order: ByteOrder, body: &[u8]) -> Option<Interface> {
    let mut rest = body;
    let link_number = order.take_u16(&mut rest)?;
    order.take_u16(&mut rest)?;
    let snap_length = order.take_u32(&mut rest)?;
    let mut interface = Interface { link_number, snap_length, resolution: 6, offset: 0, name: None };
    while let Some((code, value)) = option(order, &mut rest) {
        match (code, value) {
            (OPTION_NAME, name) => interface.name = name.get(..name.len().min(LONGEST_NAME)).map(text),
            (OPTION_RESOLUTION, &[resolution, ..]) => interface.resolution = resolution,
            (OPTION_OFFSET, &[a, b, c, d, e, f, g, h, ..]) => {
                interface.offset = order.u64([a, b, c, d, e, f, g, h]).cast_signed();
            }
            _ => {}
        }
    }
    Some(interface)
}

/// The next option, if there is one: code, length, value, and what fills it up to four bytes.
fn option<'a>(order: ByteOrder, rest: &mut &'a [u8]) -> Option<(u16, &'a [u8])> {
    let (code, size) = (order.take_u16(rest)?, usize::from(order.take_u16(rest)?));
    let (value, behind) = rest.split_at_checked(size)?;
    *rest = behind.get(size.next_multiple_of(4).saturating_sub(size)..).unwrap_or_default();
    (code != 0).then_some((code, value))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned()
}
