//! Helper → sensor: what really happened. Pure; the helper encodes, the sensor decodes.
#![forbid(unsafe_code)]

mod codec;
mod note;
mod outcome;

use ipnet::IpNet;

pub use note::{Fault, NOTE_BYTES, Note};
pub use outcome::Outcome;

use super::Responses;

/// What the helper says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The table stands and `restored` unexpired blocks are in the kernel again. Sent once, first.
    Ready {
        /// Number of blocks re-applied from the ledger.
        restored: u32,
        /// The Landlock interface that the helper is confined by; 0: none. The kernel shows it to nobody else.
        landlock: u8,
        /// Whether the tripwire's rules stand; its traps come with requests.
        tripwire: bool,
    },
    /// A request was carried out or refused.
    Done {
        /// The request's number.
        id: u64,
        /// What happened.
        outcome: Outcome,
        /// How long the block lasts from now, seconds; 0 where nothing is blocked.
        seconds: u32,
        /// Which offence of this source it is, from 1; 0 where nothing is blocked.
        offence: u16,
        /// Time the effect took, microseconds.
        micros: u32,
        /// Which responses took effect.
        with: Responses,
        /// The kernel's tripwire had shut the source out before.
        tripped: bool,
    },
    /// Why a response to a request failed, before the request's `Done`; several make up one text.
    Note {
        /// The request's number; 0 before `Over` and `LeftBehind`.
        id: u64,
        /// What failed, and why.
        note: Note,
    },
    /// One block in force, in answer to `List`.
    Entry {
        /// The request's number.
        id: u64,
        /// What is blocked.
        target: IpNet,
        /// When it began, seconds since 1970 UTC.
        since: u64,
        /// When it ends, likewise.
        until: u64,
        /// Which offence.
        offence: u16,
        /// Which responses are in force.
        with: Responses,
    },
    /// A block is over, and nobody asked for that. Where a response to it was not to be had any more, or would not end, the
    /// notes with number 0 before this say why; without any its target is never blocked from now on.
    Over {
        /// What was blocked.
        target: IpNet,
    },
    /// An earlier configuration has left something that nobody looks after now: the notes with number 0 before this say what.
    /// It is no block's end: those that it was left for may be in force.
    LeftBehind,
    /// No more entries.
    End {
        /// The request's number.
        id: u64,
    },
    /// Answer to `Ping`.
    Pong {
        /// The request's number.
        id: u64,
    },
}
