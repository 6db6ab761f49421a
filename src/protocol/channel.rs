//! Frames on a non-blocking pipe. Both roles; the bytes' meaning is `request`'s and `reply`'s.
//!
//! Neither side can make the other grow: a reader holds at most [`BURST`] bytes, a writer the number of frames it was
//! made for. A writer that is full refuses and counts; what then (drop, wait, end) is the role's to say.
//! Writes are of whole frames and at most PIPE_BUF long, so the kernel never takes part of one.
#![forbid(unsafe_code)]

use std::io::{self, Read, Write};
use std::os::fd::AsFd;

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use super::{FRAME_LENGTH, Frame, Request};

/// Bytes taken from or given to a pipe in one call: PIPE_BUF of Linux (`linux/limits.h`), 64 frames.
pub const BURST: usize = 4096;

/// What a look into the pipe brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intake {
    /// Bytes came, or whole frames still wait to be taken.
    Some,
    /// The pipe is empty.
    Nothing,
    /// The other side closed the pipe, at the end of a frame.
    End,
}

/// Why no frames can be read.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The pipe ended within a frame.
    #[error("the pipe ended after {0} bytes of a frame of {FRAME_LENGTH}", FRAME_LENGTH = FRAME_LENGTH)]
    Torn(usize),
    /// The pipe failed.
    #[error("the pipe could not be read: {0}")]
    Io(#[from] io::Error),
}

/// Puts pieces of frames together.
pub struct FrameReader {
    buffer: [u8; BURST],
    filled: usize,
    taken: usize,
}

impl Default for FrameReader {
    fn default() -> FrameReader {
        FrameReader { buffer: [0; BURST], filled: 0, taken: 0 }
    }
}

impl FrameReader {
    /// Reads once. Frames that were not taken yet keep their place and leave less room.
    pub fn fill(&mut self, pipe: &mut impl Read) -> Result<Intake, ChannelError> {
        self.buffer.copy_within(self.taken..self.filled, 0);
        self.filled -= self.taken;
        self.taken = 0;
        let Some(room) = self.buffer.get_mut(self.filled..).filter(|room| !room.is_empty()) else {
            return Ok(Intake::Some);
        };
        match pipe.read(room) {
            Ok(0) if !self.filled.is_multiple_of(FRAME_LENGTH) => {
                Err(ChannelError::Torn(self.filled % FRAME_LENGTH))
            }
            Ok(0) => Ok(Intake::End),
            Ok(count) => {
                self.filled = (self.filled + count).min(BURST);
                Ok(Intake::Some)
            }
            Err(error) if again(&error) => Ok(Intake::Nothing),
            Err(error) => Err(error.into()),
        }
    }

    /// The next whole frame.
    pub fn take(&mut self) -> Option<Frame> {
        let (frame, _) = self.buffer.get(self.taken..self.filled)?.split_first_chunk::<FRAME_LENGTH>()?;
        self.taken += FRAME_LENGTH;
        Some(*frame)
    }

    /// Whether [`take`](Self::take) would give a frame.
    pub fn is_waiting(&self) -> bool {
        self.filled - self.taken >= FRAME_LENGTH
    }
}

/// The queue was full: the frame was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the pipe's queue is full: the other process is slow or stuck")]
pub struct QueueFull;

/// A bounded queue of frames before a pipe.
pub struct FrameWriter {
    queue: Vec<u8>,
    sent: usize,
    capacity: usize,
    refused: u64,
}

impl FrameWriter {
    /// A queue with room for `frames` frames beside those in the pipe itself.
    pub fn new(frames: usize) -> FrameWriter {
        let capacity = frames.saturating_mul(FRAME_LENGTH);
        FrameWriter { queue: Vec::with_capacity(capacity), sent: 0, capacity, refused: 0 }
    }

    /// Queues a frame. Never blocks, never writes.
    pub fn push(&mut self, frame: &Frame) -> Result<(), QueueFull> {
        if self.room() == 0 {
            self.refused = self.refused.saturating_add(1);
            return Err(QueueFull);
        }
        if self.queue.len() + FRAME_LENGTH > self.capacity {
            self.queue.drain(..self.sent);
            self.sent = 0;
        }
        self.queue.extend_from_slice(frame);
        Ok(())
    }

    /// Writes what the pipe takes now. Returns how many bytes it took.
    pub fn flush(&mut self, pipe: &mut impl Write) -> io::Result<usize> {
        let before = self.sent;
        while let Some(rest) = self.queue.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match pipe.write(rest.get(..BURST).unwrap_or(rest)) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.sent = (self.sent + count).min(self.queue.len()),
                Err(error) if again(&error) => return Ok(self.sent - before),
                Err(error) => return Err(error),
            }
        }
        let sent = self.sent - before;
        self.queue.clear();
        self.sent = 0;
        Ok(sent)
    }

    /// How many more frames [`push`](Self::push) would take.
    pub fn room(&self) -> usize {
        (self.capacity - (self.queue.len() - self.sent)) / FRAME_LENGTH
    }

    /// Whether everything was written.
    pub fn is_empty(&self) -> bool {
        self.queue.len() == self.sent
    }

    /// How many frames were refused since the start.
    pub fn refused(&self) -> u64 {
        self.refused
    }
}

/// The sensor's end of the request pipe: gives every request that is really sent its number.
pub struct RequestWriter {
    frames: FrameWriter,
    next: u64,
}

impl RequestWriter {
    /// A queue with room for `frames` requests.
    pub fn new(frames: usize) -> RequestWriter {
        RequestWriter { frames: FrameWriter::new(frames), next: 1 }
    }

    /// Queues the request that `make` makes of its number. A refused request uses no number up, as the helper ends
    /// on a gap.
    pub fn send(&mut self, make: impl FnOnce(u64) -> Request) -> Result<u64, QueueFull> {
        let id = self.next;
        self.frames.push(&make(id).encode())?;
        self.next = id.saturating_add(1);
        Ok(id)
    }

    /// The queue behind it, to flush and to ask for room.
    pub fn frames(&mut self) -> &mut FrameWriter {
        &mut self.frames
    }
}

/// Makes reads and writes of `pipe` return at once.
pub fn set_nonblocking(pipe: impl AsFd) -> io::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(pipe.as_fd(), FcntlArg::F_GETFL)?);
    fcntl(pipe.as_fd(), FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

fn again(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn numbered(id: u64) -> Frame {
        Request::Ping { id }.encode()
    }

    #[test]
    fn a_full_pipe_and_a_full_queue_refuse_and_count_and_lose_nothing() {
        let (mut reader, mut writer) = io::pipe().unwrap();
        set_nonblocking(&reader).unwrap();
        set_nonblocking(&writer).unwrap();
        let mut requests = RequestWriter::new(100);
        let mut sent = 0;
        loop {
            match requests.send(|id| Request::Ping { id }) {
                Ok(id) => sent = id,
                Err(QueueFull) if requests.frames().flush(&mut writer).unwrap() == 0 => break,
                Err(QueueFull) => {}
            }
        }
        assert!(requests.frames().refused() > 0);
        let (mut intake, mut expected) = (FrameReader::default(), 1);
        while expected <= sent {
            requests.frames().flush(&mut writer).unwrap();
            assert_eq!(intake.fill(&mut reader).unwrap(), Intake::Some);
            while let Some(frame) = intake.take() {
                assert_eq!(frame, numbered(expected));
                expected += 1;
            }
        }
        assert!(requests.frames().is_empty());
        assert_eq!(intake.fill(&mut reader).unwrap(), Intake::Nothing);
        drop(writer);
        assert_eq!(intake.fill(&mut reader).unwrap(), Intake::End);
    }

    #[test]
    fn a_pipe_that_ends_within_a_frame_is_torn() {
        let bytes = [numbered(1).as_slice(), &numbered(2)[..63]].concat();
        let (mut pipe, mut reader) = (bytes.as_slice(), FrameReader::default());
        assert_eq!(reader.fill(&mut pipe).unwrap(), Intake::Some);
        assert_eq!(reader.take(), Some(numbered(1)));
        assert_eq!(reader.take(), None);
        assert!(matches!(reader.fill(&mut pipe), Err(ChannelError::Torn(63))));
    }

    #[test]
    fn frames_that_nobody_takes_fill_the_reader_and_no_more() {
        let bytes = vec![0; BURST * 2];
        let (mut pipe, mut reader) = (bytes.as_slice(), FrameReader::default());
        for _ in 0..5 {
            assert_eq!(reader.fill(&mut pipe).unwrap(), Intake::Some);
        }
        assert_eq!(pipe.len(), BURST);
    }

    /// Gives and takes at most a few bytes a call.
    struct Trickle<'a>(&'a mut Vec<u8>, usize);

    impl Read for Trickle<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let count = self.1.min(into.len()).min(self.0.len());
            into[..count].copy_from_slice(&self.0[..count]);
            self.0.drain(..count);
            Ok(count)
        }
    }

    impl Write for Trickle<'_> {
        fn write(&mut self, from: &[u8]) -> io::Result<usize> {
            let count = self.1.min(from.len());
            self.0.extend(&from[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    proptest! {
        #[test]
        fn frames_in_any_pieces_arrive_whole(count in 1u64..200, give in 1usize..300, take in 1usize..5000) {
            let (mut wire, mut requests) = (Vec::new(), RequestWriter::new(10));
            for _ in 0..count {
                requests.send(|id| Request::Ping { id }).unwrap();
                requests.frames().flush(&mut Trickle(&mut wire, give)).unwrap();
            }
            let mut reader = FrameReader::default();
            for id in 1..=count {
                while !reader.is_waiting() {
                    prop_assert_eq!(reader.fill(&mut Trickle(&mut wire, take)).unwrap(), Intake::Some);
                }
                prop_assert_eq!(reader.take(), Some(numbered(id)));
            }
            prop_assert_eq!(reader.fill(&mut Trickle(&mut wire, take)).unwrap(), Intake::End);
        }
    }
}
