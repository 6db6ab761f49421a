//! What became of a request, and the code it goes over the pipe by. Pure; the helper says it, the sensor tells it on.
//!
//! Total: a code that is not known is no outcome, never one like it.
#![forbid(unsafe_code)]

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

impl Outcome {
    pub(super) fn code(self) -> u8 {
        match self {
            Outcome::Blocked => 1,
            Outcome::AlreadyBlocked => 2,
            Outcome::Lifted => 3,
            Outcome::NotBlocked => 4,
            Outcome::RefusedNeverBlock => 5,
            Outcome::RefusedPrefix => 6,
            Outcome::RefusedRate => 7,
            Outcome::RefusedFull => 8,
            Outcome::Failed(_) => 9,
        }
    }

    pub(super) fn errno(self) -> i32 {
        match self {
            Outcome::Failed(errno) => errno,
            Outcome::Blocked
            | Outcome::AlreadyBlocked
            | Outcome::Lifted
            | Outcome::NotBlocked
            | Outcome::RefusedNeverBlock
            | Outcome::RefusedPrefix
            | Outcome::RefusedRate
            | Outcome::RefusedFull => 0,
        }
    }

    pub(super) fn of(code: [u8; 1], errno: i32) -> Option<Outcome> {
        Some(match code {
            [1] => Outcome::Blocked,
            [2] => Outcome::AlreadyBlocked,
            [3] => Outcome::Lifted,
            [4] => Outcome::NotBlocked,
            [5] => Outcome::RefusedNeverBlock,
            [6] => Outcome::RefusedPrefix,
            [7] => Outcome::RefusedRate,
            [8] => Outcome::RefusedFull,
            [9] => Outcome::Failed(errno),
            [_] => return None,
        })
    }
}
