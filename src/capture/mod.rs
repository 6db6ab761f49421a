//! Capture files → frames: pcap and pcapng, of either byte order, as a stream.
//!
//! Pure but for the reader it is given; run by `replay`. Total: any bytes yield frames and then an end or an error with
//! its byte offset, never a panic. Memory is bounded by one record, and that by what really is in the file.
#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod bytes;
mod error;
mod input;
mod pcap;
mod pcapng;

use std::io::Read;

pub use error::{CaptureError, Fault};

use self::input::Input;
use self::pcap::Pcap;
use self::pcapng::Pcapng;
use crate::packet::LinkType;

/// One captured frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// When, microseconds since 1970 UTC.
    pub time: u64,
    /// What it begins with.
    pub link: LinkType,
    /// What was captured of it.
    pub bytes: &'a [u8],
    /// How many bytes it had on the wire; never fewer than were captured.
    pub wire_length: usize,
    /// The interface, where the capture names it.
    pub interface: Option<&'a str>,
}

/// A capture that is being read.
#[derive(Debug)]
pub struct Capture<R> {
    input: Input<R>,
    format: Format,
}

#[derive(Debug)]
enum Format {
    Pcap(Pcap),
    Pcapng(Pcapng),
}

impl<R: Read> Capture<R> {
    /// Reads the beginning of a capture.
    ///
    /// # Errors
    /// It is no capture, or none that can be read here.
    pub fn open(reader: R) -> Result<Capture<R>, CaptureError> {
        let mut input = Input::new(reader);
        let magic = input.magic()?;
        let format = match pcapng::SECTION == u32::from_be_bytes(magic) {
            true => Format::Pcapng(Pcapng::open(&mut input)?),
            false => Format::Pcap(Pcap::open(magic, &mut input)?),
        };
        Ok(Capture { input, format })
    }

    /// The next frame; `None` at the end.
    ///
    /// # Errors
    /// The capture is damaged from here on, or its link type is not known.
    pub fn next_frame(&mut self) -> Result<Option<Frame<'_>>, CaptureError> {
        match &mut self.format {
            Format::Pcap(pcap) => pcap.next_frame(&mut self.input),
            Format::Pcapng(pcapng) => pcapng.next_frame(&mut self.input),
        }
    }

    /// Bytes read so far.
    pub fn offset(&self) -> u64 {
        self.input.offset()
    }
}
