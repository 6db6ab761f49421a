//! The layout that every frame shares, and the reasons for which one is refused. Pure; both roles.
//!
//! Numbers are big-endian. Bytes that a kind has no field for are zero; decoders prove it by encoding what they
//! understood and comparing, so each meaning has exactly one frame.
//!
//! | bytes | field | bytes | field |
//! |---|---|---|---|
//! | 0 | version | 36-39 | seconds, restored |
//! | 1 | kind | 40 | protocol, outcome |
//! | 8-15 | id | 41 | verified, responses |
//! | 2, 3, 4-7 | response, fault, its number (notes) | 16-63 | text (notes) |
//! | 16-31 | address, IPv4 in the first four | 44-47 | micros |
//! | 32, 33 | family 4 or 6, prefix length | 48-55 | since; errno in 48-51 |
//! | 34-35 | port, offence | 56-63 | until |
//! | 42 | run only, tripped | 16, 17, 32-63 | page, UDP, traps (traps) |
#![forbid(unsafe_code)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::{FRAME_LENGTH, FRAME_VERSION};

/// The bytes of one frame.
pub type Frame = [u8; FRAME_LENGTH];

/// Why a frame was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Another build speaks.
    #[error("frame of version {0} where {expected} is spoken: install sensor and helper of one build", expected = FRAME_VERSION)]
    Version(u8),
    /// No such kind, or one that belongs on the other pipe.
    #[error("frame of unknown kind {0:#04x}")]
    Kind(u8),
    /// A field holds a value that has no meaning.
    #[error("frame of kind {kind:#04x} with a meaningless {field}")]
    Field {
        /// The frame's kind.
        kind: u8,
        /// The field's name.
        field: &'static str,
    },
    /// Bits outside the fields, or a second spelling of a value.
    #[error("frame of kind {0:#04x} with bits set where it has no field")]
    Reserved(u8),
    /// A request that is repeated, missing or out of order.
    #[error("request {got} where request {expected} is due")]
    Order {
        /// The number that was due.
        expected: u64,
        /// The number that came.
        got: u64,
    },
}

pub(super) const ID: usize = 8;
pub(super) const PORT: usize = 34;
pub(super) const OFFENCE: usize = 34;
pub(super) const SECONDS: usize = 36;
pub(super) const CODE: usize = 40;
pub(super) const VERIFIED: usize = 41;
pub(super) const RESPONSES: usize = 41;
pub(super) const RUN_ONLY: usize = 42;
pub(super) const TRIPPED: usize = 42;
pub(super) const PAGE: usize = 16;
pub(super) const DATAGRAMS: usize = 17;
pub(super) const TRAPS: usize = 32;
pub(super) const NOTE_RESPONSE: usize = 2;
pub(super) const NOTE_FAULT: usize = 3;
pub(super) const NOTE_NUMBER: usize = 4;
pub(super) const NOTE_TEXT: usize = 16;
pub(super) const MICROS: usize = 44;
pub(super) const ERRNO: usize = 48;
pub(super) const SINCE: usize = 48;
pub(super) const UNTIL: usize = 56;
const KIND: usize = 1;
const ADDRESS: usize = 16;
const FAMILY: usize = 32;
const PREFIX: usize = 33;

/// A frame being written.
pub(super) struct Writer(Frame);

impl Writer {
    pub(super) fn new(kind: u8) -> Writer {
        let mut frame = [0; FRAME_LENGTH];
        frame[0] = FRAME_VERSION;
        frame[KIND] = kind;
        Writer(frame)
    }

    pub(super) fn put<const N: usize>(mut self, at: usize, bytes: [u8; N]) -> Writer {
        self.0.iter_mut().skip(at).zip(bytes).for_each(|(to, from)| *to = from);
        self
    }

    pub(super) fn network(self, network: &IpNet) -> Writer {
        let frame = match network.network() {
            IpAddr::V4(address) => self.put(ADDRESS, address.octets()).put(FAMILY, [4]),
            IpAddr::V6(address) => self.put(ADDRESS, address.octets()).put(FAMILY, [6]),
        };
        frame.put(PREFIX, [network.prefix_len()])
    }

    pub(super) fn frame(self) -> Frame {
        self.0
    }
}

/// `N` bytes of `frame` from `at`; past its end they are zero.
pub(super) fn field<const N: usize>(frame: &Frame, at: usize) -> [u8; N] {
    std::array::from_fn(|byte| frame.get(at + byte).copied().unwrap_or(0))
}

/// The kind byte of a frame of our version.
pub(super) fn kind(frame: &Frame) -> Result<u8, FrameError> {
    match field(frame, 0) {
        [FRAME_VERSION] => Ok(u8::from_be_bytes(field(frame, KIND))),
        [other] => Err(FrameError::Version(other)),
    }
}

pub(super) fn id(frame: &Frame) -> u64 {
    u64::from_be_bytes(field(frame, ID))
}

/// A byte that is 0 or 1.
pub(super) fn flag(frame: &Frame, at: usize, kind: u8, name: &'static str) -> Result<bool, FrameError> {
    match field(frame, at) {
        [0] => Ok(false),
        [1] => Ok(true),
        [_] => Err(FrameError::Field { kind, field: name }),
    }
}

/// `None` where the field is empty.
pub(super) fn network_if_any(frame: &Frame, kind: u8) -> Result<Option<IpNet>, FrameError> {
    match field(frame, FAMILY) {
        [0] => Ok(None),
        [_] => network(frame, kind).map(Some),
    }
}

pub(super) fn network(frame: &Frame, kind: u8) -> Result<IpNet, FrameError> {
    let address = match field(frame, FAMILY) {
        [4] => IpAddr::V4(Ipv4Addr::from(field::<4>(frame, ADDRESS))),
        [6] => IpAddr::V6(Ipv6Addr::from(field::<16>(frame, ADDRESS))),
        [_] => return Err(FrameError::Field { kind, field: "address family" }),
    };
    let [prefix] = field(frame, PREFIX);
    let network =
        IpNet::new(address, prefix).map_err(|_| FrameError::Field { kind, field: "prefix length" })?;
    match network.trunc() == network {
        true => Ok(network),
        false => Err(FrameError::Field { kind, field: "host part of its address" }),
    }
}
