//! Helper → sensor: what really happened.
#![forbid(unsafe_code)]

use ipnet::IpNet;

/// What the helper says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The table stands and `restored` unexpired blocks are in the kernel again. Sent once, first.
    Ready {
        /// Number of blocks re-applied from the ledger.
        restored: u32,
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
    },
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

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The kernel has it.
    Blocked,
    /// It was blocked before; nothing was changed.
    AlreadyBlocked,
    /// It is no longer blocked (Unblock, Flush), or is now protected (Protect).
    Lifted,
    /// There was nothing to lift.
    NotBlocked,
    /// The target overlaps the never-block set.
    RefusedNeverBlock,
    /// The prefix is wider than /24 (IPv4) or /48 (IPv6), or its family is not one we block.
    RefusedPrefix,
    /// Too many requests in this minute.
    RefusedRate,
    /// The table is full.
    RefusedFull,
    /// The system refused: an `errno` value.
    Failed(i32),
}
