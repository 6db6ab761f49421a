//! A reply as a frame, and back. Pure; the helper encodes, the sensor decodes.
//!
//! Total: every frame is one reply or an error, and no two frames are the same reply.
#![forbid(unsafe_code)]

use super::{Fault, Note, Outcome, Reply};
use crate::protocol::frame::{self, Frame, FrameError, Writer, field};
use crate::protocol::{Response, Responses};

const READY: u8 = 0x81;
const DONE: u8 = 0x82;
const ENTRY: u8 = 0x83;
const END: u8 = 0x84;
const PONG: u8 = 0x85;
const NOTE: u8 = 0x86;
const OVER: u8 = 0x87;
const LEFT_BEHIND: u8 = 0x88;

impl Reply {
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
            Reply::Over { target } => Writer::new(OVER).network(target),
            Reply::LeftBehind => Writer::new(LEFT_BEHIND),
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
                tripwire: frame::flag(bytes, frame::TRIPPED, READY, "tripwire flag")?,
            },
            DONE => decode_done(bytes, id)?,
            ENTRY => decode_entry(bytes, id)?,
            OVER => Reply::Over { target: frame::network(bytes, OVER)? },
            LEFT_BEHIND => Reply::LeftBehind,
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
        tripped: frame::flag(bytes, frame::TRIPPED, DONE, "tripwire flag")?,
    })
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

#[cfg(test)]
mod tests {
    use ipnet::IpNet;
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
            any::<[u8; 4]>().prop_map(|ip| Reply::Over { target: IpNet::new(ip.into(), 32).unwrap() }),
            Just(Reply::LeftBehind),
            any::<u64>().prop_map(|id| Reply::End { id }),
            any::<u64>().prop_map(|id| Reply::Pong { id }),
        ]
    }

    /// A note's text goes into events, to terminals too.
    #[test]
    fn a_note_of_anything_but_plain_text_is_none() {
        let note = |text: &str| Note::new(Response::Iptables, Fault::Exit(2), text, 0);
        assert_eq!(note("no\u{1b}[2J\u{e9}\nchain").text(), "no?[2J??chain");
        let good = Reply::Note { id: 1, note: note("no chain") }.encode();
        for wrong in [0x1b, b'\n', 0x7f, 0xe9, 0] {
            let mut bad = good;
            bad[frame::NOTE_TEXT + 2] = wrong;
            assert_eq!(
                Reply::decode(&bad),
                Err(FrameError::Field { kind: NOTE, field: "text" }),
                "{wrong:#x}"
            );
        }
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
