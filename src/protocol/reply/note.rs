//! Why a response failed: how, and what was said about it. Pure; the helper notes it, the sensor tells it on.
//!
//! Its text is printable ASCII, whoever said it: what else there is becomes a `?`, and a frame that holds it is refused.
#![forbid(unsafe_code)]

use crate::protocol::Response;

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

    pub(super) fn is_clean(text: &[u8]) -> bool {
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
    /// Whether a program was ended in the midst of its work: nobody knows how much of it is done. One that ends by itself
    /// with an error is taken at its word.
    pub fn is_cut_short(self) -> bool {
        match self {
            Fault::Signal(_) | Fault::Hung(_) => true,
            Fault::Errno(_) | Fault::Exit(_) | Fault::Busy | Fault::Lifted => false,
        }
    }

    pub(super) fn code(self) -> u8 {
        match self {
            Fault::Errno(_) => 1,
            Fault::Exit(_) => 2,
            Fault::Signal(_) => 3,
            Fault::Hung(_) => 4,
            Fault::Busy => 5,
            Fault::Lifted => 6,
        }
    }

    pub(super) fn number(self) -> i32 {
        match self {
            Fault::Errno(number) | Fault::Exit(number) | Fault::Signal(number) | Fault::Hung(number) => {
                number
            }
            Fault::Busy | Fault::Lifted => 0,
        }
    }

    pub(super) fn of(code: [u8; 1], number: i32) -> Option<Fault> {
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

    /// The errno that says it best, for [`Outcome::Failed`](super::Outcome::Failed).
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
