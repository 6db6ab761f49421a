//! The bytes of a capture, counted; one record is held at a time.
#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::io::{self, BufReader, Read};

use super::error::{CaptureError, Fault};

/// Longest record or block that is held, bytes. No frame is longer than 256 KiB (libpcap's MAXIMUM_SNAPLEN), but blocks
/// of names or secrets may be.
pub(super) const LONGEST: u32 = 16 * 1024 * 1024;

/// A reader with a position.
#[derive(Debug)]
pub(super) struct Input<R> {
    reader: BufReader<R>,
    offset: u64,
    /// Where the record begins that is being read: errors name it.
    begin: u64,
    record: Vec<u8>,
}

impl<R: Read> Input<R> {
    pub(super) fn new(reader: R) -> Input<R> {
        Input { reader: BufReader::with_capacity(1 << 16, reader), offset: 0, begin: 0, record: Vec::new() }
    }

    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// From here on errors name this place.
    pub(super) fn begin(&mut self) {
        self.begin = self.offset;
    }

    pub(super) fn fault(&self, fault: Fault) -> CaptureError {
        CaptureError { offset: self.begin, fault }
    }

    /// The four bytes that tell what a file is.
    pub(super) fn magic(&mut self) -> Result<[u8; 4], CaptureError> {
        self.bytes("its first four bytes")
    }

    /// Exactly `N` bytes of `what`.
    pub(super) fn bytes<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], CaptureError> {
        self.bytes_or_end(what)?.ok_or_else(|| self.fault(Fault::Torn(what)))
    }

    /// Exactly `N` bytes of `what`, or none at the very end.
    pub(super) fn bytes_or_end<const N: usize>(
        &mut self,
        what: &'static str,
    ) -> Result<Option<[u8; N]>, CaptureError> {
        let mut bytes = [0; N];
        let mut filled = 0;
        while let Some(room) = bytes.get_mut(filled..).filter(|room| !room.is_empty()) {
            match self.reader.read(room) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(self.fault(Fault::Torn(what))),
                Ok(read) => {
                    filled = filled.saturating_add(read);
                    self.offset = self.offset.saturating_add(read as u64);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.fault(Fault::Io(error))),
            }
        }
        Ok(Some(bytes))
    }

    /// Reads `length` bytes of `what`. A claim costs no memory: the buffer grows by what comes.
    pub(super) fn fill(&mut self, length: u32, what: &'static str) -> Result<(), CaptureError> {
        if length > LONGEST {
            return Err(self.fault(Fault::Length { what, length }));
        }
        self.record.clear();
        let taken = (&mut self.reader).take(length.into()).read_to_end(&mut self.record);
        let read = taken.map_err(|error| self.fault(Fault::Io(error)))?;
        self.offset = self.offset.saturating_add(read as u64);
        if read as u64 == u64::from(length) { Ok(()) } else { Err(self.fault(Fault::Torn(what))) }
    }

    /// What [`fill`](Self::fill) read.
    pub(super) fn record(&self) -> &[u8] {
        &self.record
    }
}
