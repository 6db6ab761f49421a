//! Why a capture cannot be read any further, and at which byte.
#![forbid(unsafe_code)]

use std::io;

/// What is wrong, and where.
#[derive(Debug, thiserror::Error)]
#[error("{fault}, at byte {offset}")]
pub struct CaptureError {
    /// The first byte of the record, block or header that is wrong.
    pub offset: u64,
    /// What is wrong with it.
    pub fault: Fault,
}

/// What is wrong.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// Another kind of file.
    #[error("this is neither pcap nor pcapng")]
    NotACapture,
    /// gzip, zstd, xz, lz4 or bzip2.
    #[error("this is compressed; unpack it first, as in: zcat FILE | portsentry-rs replay -")]
    Compressed,
    /// The end comes too early.
    #[error("the capture is cut off in the middle of {0}")]
    Torn(&'static str),
    /// Longer than anything can be: these bytes are not what they should be.
    #[error("the capture is damaged: {what} claims {length} bytes")]
    Length {
        /// Which part.
        what: &'static str,
        /// As claimed.
        length: u32,
    },
    /// The two lengths round a pcapng block differ, or its contents do not fit in.
    #[error("the capture is damaged: a block's lengths contradict each other")]
    Block,
    /// pcapng's byte-order magic.
    #[error("the capture is damaged: a section without a byte order")]
    ByteOrder,
    /// A packet of an interface that was not described.
    #[error("the capture is damaged: a packet of interface {0}, which is not described")]
    Interface(u32),
    /// More interfaces than a section can hold.
    #[error("the capture describes more than {0} interfaces")]
    Interfaces(usize),
    /// A link type that the parser does not know.
    #[error(
        "frames of link type {0} cannot be read, only Ethernet (1), raw IP (12, 14, 101, 228, 229), \
         loopback (0, 108) and Linux cooked (113, 276); convert the capture or leave it out"
    )]
    LinkType(u32),
    /// The system.
    #[error("the capture cannot be read: {0}")]
    Io(#[from] io::Error),
}
