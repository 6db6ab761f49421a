//! Helper → sensor: what really happened. Pure; the helper encodes, the sensor decodes.
#![forbid(unsafe_code)]

use ipnet::IpNet;

use super::frame::{self, Frame, FrameError, Writer, field};
use super::{Response, Responses};

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
        /// The request's number; 0 before `Remains`.
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
    /// A block is over and a response to it would not end: the notes with number 0 before this say why. Nobody asked.
    Remains {
        /// What was blocked.
        target: IpNet,
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

/// Bytes of text in one note.
pub const NOTE_BYTES: usize = 48;

/// One response that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Note {
    /// Which.
    pub response: Response,
    /// How.
    pub fault: Fault,
    /// What was said about it: printable ASCII, filled up with zeros.
    pub text: [u8; NOTE_BYTES],
}

/// How a response failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The system refused: an `errno` value.
    Errno(i32),
    /// The command ended with this status.
    Exit(i32),
    /// A signal ended the command.
    Signal(i32),
    /// The command did not end in time (seconds) and was killed.
    Hung(i32),
    /// So many commands were running or waiting that this one was not run.
    Busy,
    /// An unblock overtook it.
    Lifted,
}

impl Note {
    /// A note whose text is the `part`th piece of `text`, with anything but printable ASCII made a `?`.
    pub fn new(response: Response, fault: Fault, text: &str, part: usize) -> Note {
        let mut bytes = [0; NOTE_BYTES];
        let plain = text.chars().map(|c| if matches!(c, ' '..='~') { c as u8 } else { b'?' });
        bytes.iter_mut().zip(plain.skip(part.saturating_mul(NOTE_BYTES))).for_each(|(to, from)| *to = from);
        Note { response, fault, text: bytes }
    }

    /// Its text.
    pub fn text(&self) -> String {
        self.text.iter().take_while(|&&byte| byte != 0).map(|&byte| char::from(byte)).collect()
    }

    fn is_clean(text: &[u8]) -> bool {
        let end = text.iter().position(|&byte| byte == 0).unwrap_or(text.len());
        text.iter()
            .enumerate()
            .all(|(at, byte)| if at < end { matches!(byte, b' '..=b'~') } else { *byte == 0 })
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Fault::Errno(errno) => write!(out, "{}", std::io::Error::from_raw_os_error(*errno)),
            Fault::Exit(status) => write!(out, "exit status {status}"),
            Fault::Signal(signal) => write!(out, "ended by signal {signal}"),
            Fault::Hung(seconds) => write!(out, "not done within {seconds} s and killed"),
            Fault::Busy => write!(out, "not run: too many commands are running or waiting"),
            Fault::Lifted => write!(out, "given up: the block was lifted meanwhile"),
        }
    }
}

impl Fault {
    fn code(self) -> u8 {
        match self {
            Fault::Errno(_) => 1,
            Fault::Exit(_) => 2,
            Fault::Signal(_) => 3,
            Fault::Hung(_) => 4,
            Fault::Busy => 5,
            Fault::Lifted => 6,
        }
    }

    fn number(self) -> i32 {
        match self {
            Fault::Errno(number) | Fault::Exit(number) | Fault::Signal(number) | Fault::Hung(number) => {
                number
            }
            Fault::Busy | Fault::Lifted => 0,
        }
    }

    fn of(code: [u8; 1], number: i32) -> Option<Fault> {
        Some(match code {
            [1] => Fault::Errno(number),
            [2] => Fault::Exit(number),
            [3] => Fault::Signal(number),
            [4] => Fault::Hung(number),
            [5] => Fault::Busy,
            [6] => Fault::Lifted,
            [_] => return None,
        })
    }

    /// The errno that says it best, for [`Outcome::Failed`].
    pub fn errno(self) -> i32 {
        match self {
            Fault::Errno(errno) => errno,
            Fault::Hung(_) => libc::ETIMEDOUT,
            Fault::Busy => libc::EAGAIN,
            Fault::Lifted => libc::ECANCELED,
            Fault::Exit(_) | Fault::Signal(_) => libc::EIO,
        }
    }
}

const READY: u8 = 0x81;
const DONE: u8 = 0x82;
const ENTRY: u8 = 0x83;
const END: u8 = 0x84;
const PONG: u8 = 0x85;
const NOTE: u8 = 0x86;
const REMAINS: u8 = 0x87;

impl Reply {
    /// The same, with what the tripwire had to do with it.
    pub fn after_a_trip(self, tripped: bool) -> Reply {
        match self {
            Reply::Done { id, outcome, seconds, offence, micros, with, tripped: _ } => {
                Reply::Done { id, outcome, seconds, offence, micros, with, tripped }
            }
            Reply::Ready { .. }
            | Reply::Note { .. }
            | Reply::Entry { .. }
            | Reply::End { .. }
            | Reply::Remains { .. }
            | Reply::Pong { .. } => self,
        }
    }

    /// The reply's frame.
    pub fn encode(&self) -> Frame {
        let writer = match self {
            Reply::Ready { restored, landlock, tripwire } => Writer::new(READY)
                .put(frame::SECONDS, restored.to_be_bytes())
                .put(frame::CODE, [*landlock])
                .put(frame::TRIPPED, [u8::from(*tripwire)]),
            Reply::Done { id, outcome, seconds, offence, micros, with, tripped } => Writer::new(DONE)
                .put(frame::ID, id.to_be_bytes())
                .put(frame::CODE, [outcome.code()])
                .put(frame::ERRNO, outcome.errno().to_be_bytes())
                .put(frame::SECONDS, seconds.to_be_bytes())
                .put(frame::OFFENCE, offence.to_be_bytes())
                .put(frame::MICROS, micros.to_be_bytes())
                .put(frame::RESPONSES, [u8::from(*with)])
                .put(frame::TRIPPED, [u8::from(*tripped)]),
            Reply::Note { id, note } => Writer::new(NOTE)
                .put(frame::ID, id.to_be_bytes())
                .put(frame::NOTE_RESPONSE, [note.response as u8])
                .put(frame::NOTE_FAULT, [note.fault.code()])
                .put(frame::NOTE_NUMBER, note.fault.number().to_be_bytes())
                .put(frame::NOTE_TEXT, note.text),
            Reply::Entry { id, target, since, until, offence, with } => Writer::new(ENTRY)
                .put(frame::ID, id.to_be_bytes())
                .network(target)
                .put(frame::SINCE, since.to_be_bytes())
                .put(frame::UNTIL, until.to_be_bytes())
                .put(frame::OFFENCE, offence.to_be_bytes())
                .put(frame::RESPONSES, [u8::from(*with)]),
            Reply::Remains { target } => Writer::new(REMAINS).network(target),
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
                tripwire: decode_tripped(bytes, READY)?,
            },
            DONE => decode_done(bytes, id)?,
            ENTRY => decode_entry(bytes, id)?,
            REMAINS => Reply::Remains { target: frame::network(bytes, REMAINS)? },
            END => Reply::End { id },
            PONG => Reply::Pong { id },
            NOTE => Reply::Note { id, note: decode_note(bytes)? },
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
        with: decode_responses(bytes, DONE)?,
        tripped: decode_tripped(bytes, DONE)?,
    })
}

fn decode_tripped(bytes: &Frame, kind: u8) -> Result<bool, FrameError> {
    match field(bytes, frame::TRIPPED) {
        [0] => Ok(false),
        [1] => Ok(true),
        [_] => Err(FrameError::Field { kind, field: "tripwire flag" }),
    }
}

fn decode_responses(bytes: &Frame, kind: u8) -> Result<Responses, FrameError> {
    let [bits] = field(bytes, frame::RESPONSES);
    Responses::try_from(bits).map_err(|_| FrameError::Field { kind, field: "set of responses" })
}

fn decode_note(bytes: &Frame) -> Result<Note, FrameError> {
    let wrong = |field| FrameError::Field { kind: NOTE, field };
    let [response] = field(bytes, frame::NOTE_RESPONSE);
    let known = Response::ALL.into_iter().find(|known| *known as u8 == response);
    let number = i32::from_be_bytes(field(bytes, frame::NOTE_NUMBER));
    let fault = Fault::of(field(bytes, frame::NOTE_FAULT), number).ok_or(wrong("fault"))?;
    let text = field(bytes, frame::NOTE_TEXT);
    match Note::is_clean(&text) {
        true => Ok(Note { response: known.ok_or(wrong("response"))?, fault, text }),
        false => Err(wrong("text")),
    }
}

fn decode_entry(bytes: &Frame, id: u64) -> Result<Reply, FrameError> {
    Ok(Reply::Entry {
        id,
        target: frame::network(bytes, ENTRY)?,
        since: u64::from_be_bytes(field(bytes, frame::SINCE)),
        until: u64::from_be_bytes(field(bytes, frame::UNTIL)),
        offence: u16::from_be_bytes(field(bytes, frame::OFFENCE)),
        with: decode_responses(bytes, ENTRY)?,
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
            any::<(u32, u8, bool)>().prop_map(|(restored, landlock, tripwire)| Reply::Ready {
                restored,
                landlock,
                tripwire
            }),
            (any::<u64>(), any_outcome(), any::<u32>(), any::<u16>(), any::<u32>(), 0u8..64, any::<bool>())
                .prop_map(|(id, outcome, seconds, offence, micros, with, tripped)| Reply::Done {
                    id,
                    outcome,
                    seconds,
                    offence,
                    micros,
                    with: Responses::try_from(with).unwrap(),
                    tripped,
                }),
            (any::<u64>(), 0usize..6, 1u8..=6, any::<i32>(), "\\PC{0,120}", 0usize..4).prop_map(
                |(id, response, code, number, text, part)| {
                    let fault = Fault::of([code], number).unwrap();
                    Reply::Note { id, note: Note::new(Response::ALL[response], fault, &text, part) }
                }
            ),
            (any::<u64>(), target, any::<u64>(), any::<u64>(), any::<u16>(), 0u8..64).prop_map(
                |(id, target, since, until, offence, with)| Reply::Entry {
                    id,
                    target: target.trunc(),
                    since,
                    until,
                    offence,
                    with: Responses::try_from(with).unwrap(),
                }
            ),
            any::<[u8; 4]>().prop_map(|ip| Reply::Remains { target: IpNet::new(ip.into(), 32).unwrap() }),
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
