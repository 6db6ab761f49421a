//! Helper → sensor: what really happened. Pure; the helper encodes, the sensor decodes.
#![forbid(unsafe_code)]

use ipnet::IpNet;

use super::frame::{self, Frame, FrameError, Writer, field};

/// What the helper says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The table stands and `restored` unexpired blocks are in the kernel again. Sent once, first.
    Ready {
        /// Number of blocks re-applied from the ledger.
        restored: u32,
        /// The Landlock interface that the helper is confined by; 0: none. The kernel shows it to nobody else.
        landlock: u8,
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

const READY: u8 = 0x81;
const DONE: u8 = 0x82;
const ENTRY: u8 = 0x83;
const END: u8 = 0x84;
const PONG: u8 = 0x85;

impl Reply {
    /// The reply's frame.
    pub fn encode(&self) -> Frame {
        let writer = match self {
            Reply::Ready { restored, landlock } => {
                Writer::new(READY).put(frame::SECONDS, restored.to_be_bytes()).put(frame::CODE, [*landlock])
            }
            Reply::Done { id, outcome, seconds, offence, micros } => Writer::new(DONE)
                .put(frame::ID, id.to_be_bytes())
                .put(frame::CODE, [outcome.code()])
                .put(frame::ERRNO, outcome.errno().to_be_bytes())
                .put(frame::SECONDS, seconds.to_be_bytes())
                .put(frame::OFFENCE, offence.to_be_bytes())
                .put(frame::MICROS, micros.to_be_bytes()),
            Reply::Entry { id, target, since, until, offence } => Writer::new(ENTRY)
                .put(frame::ID, id.to_be_bytes())
                .network(target)
                .put(frame::SINCE, since.to_be_bytes())
                .put(frame::UNTIL, until.to_be_bytes())
                .put(frame::OFFENCE, offence.to_be_bytes()),
            Reply::End { id } => Writer::new(END).put(frame::ID, id.to_be_bytes()),
            Reply::Pong { id } => Writer::new(PONG).put(frame::ID, id.to_be_bytes()),
        };
        writer.frame()
    }

    /// What `bytes` report. Total: every frame is one reply or an error.
    pub fn decode(bytes: &Frame) -> Result<Reply, FrameError> {
        let (kind, id) = (frame::kind(bytes)?, frame::id(bytes));
        let reply = match kind {
            READY => Reply::Ready {
                restored: u32::from_be_bytes(field(bytes, frame::SECONDS)),
                landlock: u8::from_be_bytes(field(bytes, frame::CODE)),
            },
            DONE => decode_done(bytes, id)?,
            ENTRY => decode_entry(bytes, id)?,
            END => Reply::End { id },
            PONG => Reply::Pong { id },
            unknown => return Err(FrameError::Kind(unknown)),
        };
        match reply.encode() == *bytes {
            true => Ok(reply),
            false => Err(FrameError::Reserved(kind)),
        }
    }
}

fn decode_done(bytes: &Frame, id: u64) -> Result<Reply, FrameError> {
    let (code, errno) = (field(bytes, frame::CODE), i32::from_be_bytes(field(bytes, frame::ERRNO)));
    Ok(Reply::Done {
        id,
        outcome: Outcome::of(code, errno).ok_or(FrameError::Field { kind: DONE, field: "outcome" })?,
        seconds: u32::from_be_bytes(field(bytes, frame::SECONDS)),
        offence: u16::from_be_bytes(field(bytes, frame::OFFENCE)),
        micros: u32::from_be_bytes(field(bytes, frame::MICROS)),
    })
}

fn decode_entry(bytes: &Frame, id: u64) -> Result<Reply, FrameError> {
    Ok(Reply::Entry {
        id,
        target: frame::network(bytes, ENTRY)?,
        since: u64::from_be_bytes(field(bytes, frame::SINCE)),
        until: u64::from_be_bytes(field(bytes, frame::UNTIL)),
        offence: u16::from_be_bytes(field(bytes, frame::OFFENCE)),
    })
}

impl Outcome {
    fn code(self) -> u8 {
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

    fn errno(self) -> i32 {
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

    fn of(code: [u8; 1], errno: i32) -> Option<Outcome> {
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_outcome() -> impl Strategy<Value = Outcome> {
        (1u8..=9, any::<i32>()).prop_map(|(code, errno)| Outcome::of([code], errno).unwrap())
    }

    fn any_reply() -> impl Strategy<Value = Reply> {
        let target = (any::<[u8; 16]>(), 0u8..=128).prop_map(|(ip, len)| IpNet::new(ip.into(), len).unwrap());
        prop_oneof![
            any::<(u32, u8)>().prop_map(|(restored, landlock)| Reply::Ready { restored, landlock }),
            (any::<u64>(), any_outcome(), any::<u32>(), any::<u16>(), any::<u32>()).prop_map(
                |(id, outcome, seconds, offence, micros)| Reply::Done {
                    id,
                    outcome,
                    seconds,
                    offence,
                    micros
                }
            ),
            (any::<u64>(), target, any::<u64>(), any::<u64>(), any::<u16>()).prop_map(
                |(id, target, since, until, offence)| Reply::Entry {
                    id,
                    target: target.trunc(),
                    since,
                    until,
                    offence
                }
            ),
            any::<u64>().prop_map(|id| Reply::End { id }),
            any::<u64>().prop_map(|id| Reply::Pong { id }),
        ]
    }

    proptest! {
        #[test]
        fn a_reply_survives_the_pipe(reply in any_reply()) {
            prop_assert_eq!(Reply::decode(&reply.encode()), Ok(reply));
        }

        #[test]
        fn every_flipped_bit_is_another_reply_or_an_error(reply in any_reply(), bit in 0..64usize * 8) {
            let mut bytes = reply.encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            if let Ok(other) = Reply::decode(&bytes) {
                prop_assert_ne!(other, reply);
                prop_assert_eq!(other.encode(), bytes);
            }
        }
    }
}
