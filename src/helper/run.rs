//! The helper's loop: requests, replies, changed surroundings, ends of blocks, on one thread. Helper.
//!
//! Never waits for the sensor without a limit, and reads no request while a reply waits: so a sensor that floods or
//! does not listen costs neither memory nor time beyond [`PATIENCE`].
#![forbid(unsafe_code)]

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

use super::clock::millis;
use super::error::HelperError;
use super::respond::Respond;
use super::service::Service;
use crate::protocol::Request;
use crate::protocol::channel::{FrameReader, Intake, set_nonblocking};
use crate::protocol::request::Order;

/// How long replies may wait for the sensor to read any.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// Ends of blocks are looked for no more often than this, milliseconds; what has ended is not listed meanwhile.
const SWEEP: u64 = 1_000;

/// The pipes and what is on its way in them.
pub struct Loop<I, O> {
    requests: I,
    replies: O,
    reader: FrameReader,
    order: Order,
    progress: Instant,
}

/// What woke the loop.
#[derive(Default)]
struct Woken {
    requests: bool,
    surroundings: bool,
    sensor_deaf: bool,
}

impl<I: Read + AsFd, O: Write + AsFd> Loop<I, O> {
    /// Takes the pipes over.
    pub fn new(requests: I, replies: O) -> io::Result<Loop<I, O>> {
        set_nonblocking(&requests)?;
        set_nonblocking(&replies)?;
        let (reader, order) = (FrameReader::default(), Order::default());
        Ok(Loop { requests, replies, reader, order, progress: Instant::now() })
    }

    /// Serves until the sensor asks for the end, is gone or is not to be trusted. What was begun when it asked is
    /// brought to its end, whether it waits for that or not.
    pub fn run<R: Respond>(&mut self, service: &mut Service<R>) -> Result<(), HelperError> {
        match self.serve_to_the_end(service) {
            Err(HelperError::SensorGone) if service.is_stopped() => {
                finish(service);
                Ok(())
            }
            end => end,
        }
    }

    fn serve_to_the_end<R: Respond>(&mut self, service: &mut Service<R>) -> Result<(), HelperError> {
        loop {
            service.tick();
            service.advance();
            let served = self.serve(service);
            let flushed = self.flush(service);
            // What the kernel has is recorded even if the sensor is already gone.
            service.commit();
            served.and(flushed)?;
            if service.is_stopped()
                && service.replies.is_empty()
                && service.jobs().is_empty()
                && !service.is_telling()
            {
                return Ok(());
            }
            let woken = self.wait(service)?;
            if woken.sensor_deaf {
                return Err(HelperError::SensorGone);
            }
            if woken.surroundings || service.next_try().is_some_and(|next| next <= Instant::now()) {
                service.learn()?;
            }
            if woken.requests && self.reader.fill(&mut self.requests)? == Intake::End {
                return Err(HelperError::SensorGone);
            }
        }
    }

    /// Carries out what has come, as far as replies find room. The blocks before a bad frame are still carried out.
    fn serve<R: Respond>(&mut self, service: &mut Service<R>) -> Result<(), HelperError> {
        let mut result = self.serve_what_has_come(service);
        while result.is_ok() && service.is_protecting() && service.is_free() {
            result = match self.reader.fill(&mut self.requests) {
                Ok(Intake::Some) => self.serve_what_has_come(service),
                // An end is found again by whoever reads next.
                Ok(Intake::Nothing | Intake::End) => break,
                Err(error) => Err(error.into()),
            };
        }
        service.finish();
        service.tell();
        service.list();
        result
    }

    fn serve_what_has_come<R: Respond>(&mut self, service: &mut Service<R>) -> Result<(), HelperError> {
        while service.is_free() {
            let Some(frame) = self.reader.take() else { break };
            let request = Request::decode(&frame).and_then(|it| self.order.check(it.id()).map(|()| it))?;
            service.carry_out(&request);
        }
        Ok(())
    }

    fn flush<R: Respond>(&mut self, service: &mut Service<R>) -> Result<(), HelperError> {
        let sent = match service.replies.flush(&mut self.replies) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Err(HelperError::SensorGone),
            sent => sent.map_err(|error| HelperError::System("write replies", error))?,
        };
        if sent > 0 || service.replies.is_empty() {
            self.progress = Instant::now();
        }
        match self.progress.elapsed() > PATIENCE || service.replies.refused() > 0 {
            true => Err(HelperError::SensorStuck(PATIENCE.as_secs())),
            false => Ok(()),
        }
    }

    fn wait<R: Respond>(&self, service: &Service<R>) -> Result<Woken, HelperError> {
        let unsent = !service.replies.is_empty();
        // A deaf sensor is noticed on the reply pipe even when there is nothing to say.
        let replies = if unsent { PollFlags::POLLOUT } else { PollFlags::empty() };
        let mut fds =
            vec![PollFd::new(service.watch(), PollFlags::POLLIN), PollFd::new(self.replies.as_fd(), replies)];
        // A hang-up is reported unasked: while requests are not wanted their pipe is left out.
        let wanted = !unsent && service.is_free();
        if wanted {
            fds.push(PollFd::new(self.requests.as_fd(), PollFlags::POLLIN));
        }
        fds.extend(service.jobs().watch().map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        match ppoll(&mut fds, self.patience(service).map(TimeSpec::from), None) {
            Err(Errno::EINTR) => return Ok(Woken::default()),
            Err(errno) => return Err(HelperError::System("wait for the sensor", errno.into())),
            Ok(_) => {}
        }
        let events: Vec<PollFlags> =
            fds.iter().map(|fd| fd.revents().unwrap_or(PollFlags::empty())).collect();
        let at = |index: usize| events.get(index).copied().unwrap_or(PollFlags::empty());
        Ok(Woken {
            surroundings: !at(0).is_empty(),
            sensor_deaf: at(1).contains(PollFlags::POLLERR),
            requests: wanted && !at(2).is_empty(),
        })
    }

    /// How long to wait: not at all while frames that have come can be served. Where the room for answers is taken by
    /// programs that run, until one of them ends.
    fn patience<R: Respond>(&self, service: &Service<R>) -> Option<Duration> {
        let at_hand = service.is_listing()
            || service.is_telling()
            || service.is_looking()
            || service.is_free() && self.reader.is_waiting();
        if service.replies.is_empty() && at_hand {
            return Some(Duration::ZERO);
        }
        let stuck = (!service.replies.is_empty()).then_some(millis(PATIENCE) + 1);
        let end = service.next_end().map(|end| end.max(SWEEP));
        let job = service.jobs().next_deadline().map(left);
        let again = service.next_try().map(left);
        let soonest = stuck.into_iter().chain(end).chain(job).chain(again).min();
        soonest.map(|millis| Duration::from_millis(millis.min(3_600_000)))
    }
}

/// Lets the programs that run come to their end, each within its own limit. The ledger keeps step: whoever ends us in
/// the midst of it leaves the rest to the next start.
fn finish<R: Respond>(service: &mut Service<R>) {
    while !service.jobs().is_empty() {
        let mut fds: Vec<PollFd<'_>> =
            service.jobs().watch().map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        let wait = Duration::from_millis(service.jobs().next_deadline().map_or(0, left));
        let _ = ppoll(&mut fds, Some(TimeSpec::from(wait)), None);
        drop(fds);
        service.advance();
        service.commit();
    }
}

/// Milliseconds until `deadline`, one more as they are counted whole.
fn left(deadline: Instant) -> u64 {
    millis(deadline.saturating_duration_since(Instant::now())).saturating_add(1)
}
