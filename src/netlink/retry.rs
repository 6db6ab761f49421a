//! What failed and is tried again shortly: how often, and for how long before it counts as failed.
//!
//! Pure, time is an argument; both roles. The kernel is busy while many addresses are added at once, and its lists and sets
//! can be had a moment later: neither role may end for that, nor leave it at what it knew before.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

/// How long after an attempt the next one is due.
const PAUSE: Duration = Duration::from_millis(100);
/// How long attempts may fail.
const PATIENCE: Duration = Duration::from_secs(10);

/// Attempts at one thing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Retry {
    /// When the first of those that failed in a row was, and when the last one.
    failed: Option<(Instant, Instant)>,
}

impl Retry {
    /// Takes note of an attempt. An error is returned once attempts have failed for [`PATIENCE`], and again after as long.
    pub fn settle<E>(&mut self, attempt: Result<(), E>, now: Instant) -> Result<(), E> {
        let Err(error) = attempt else {
            self.failed = None;
            return Ok(());
        };
        let first = self.failed.map_or(now, |(first, _)| first);
        let is_over = now.saturating_duration_since(first) >= PATIENCE;
        self.failed = Some((if is_over { now } else { first }, now));
        if is_over { Err(error) } else { Ok(()) }
    }

    /// When the next attempt is due; `None` where the last one was a success.
    pub fn next(&self) -> Option<Instant> {
        self.failed.map(|(_, last)| last + PAUSE)
    }

    /// Whether the last attempt failed, and the next one is to wait.
    pub fn is_waiting(&self, now: Instant) -> bool {
        self.next().is_some_and(|next| now < next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_is_tried_ten_times_a_second_and_told_every_ten_seconds_until_it_succeeds() {
        let (mut retry, begin) = (Retry::default(), Instant::now());
        let told = |retry: &mut Retry, seconds: u64| {
            let mut told = 0;
            for attempt in 0..seconds * 10 {
                let now = begin + PAUSE * u32::try_from(attempt).unwrap();
                assert!(!retry.is_waiting(now));
                told += usize::from(retry.settle(Err(()), now).is_err());
                assert!(retry.is_waiting(now) && retry.next() == Some(now + PAUSE));
            }
            told
        };
        assert_eq!(told(&mut retry, 10), 0);
        assert_eq!(retry.settle(Ok::<(), ()>(()), begin), Ok(()));
        assert_eq!(retry.next(), None);
        assert_eq!(told(&mut retry, 31), 3);
    }
}
