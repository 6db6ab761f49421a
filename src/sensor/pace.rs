//! How fast packets come: whether a ring thread should let some gather before it looks again.
//!
//! Pure; the time is passed in. Goes by packets over time, not by packets in one round: on a busy machine a thread may be
//! woken for each single packet of a flood, which costs several times what judging it does.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

/// How long packets gather in a flood. At 100,000 packets a second that saves nine tenths of the wake-ups' time; at a
/// million, 1,000 packets come meanwhile, a quarter of a lone ring and, spread over two, of each of them.
pub const BREATH: Duration = Duration::from_millis(1);
/// So many packets in that time are a flood: fewer are cheaper to look at one by one, and sooner seen.
const FLOOD: u32 = 16;

/// One ring's.
#[derive(Debug)]
pub struct Pace {
    since: Instant,
    packets: u32,
}

impl Pace {
    /// Nothing has come by `now`.
    pub fn new(now: Instant) -> Pace {
        Pace { since: now, packets: 0 }
    }

    /// Whether the last packets, `more` among them, came as fast as a flood's. `now` is asked for once in many packets.
    pub fn is_flood(&mut self, more: usize, now: impl FnOnce() -> Instant) -> bool {
        self.packets = self.packets.saturating_add(u32::try_from(more).unwrap_or(u32::MAX));
        if self.packets < FLOOD {
            return false;
        }
        let now = now();
        let (packets, since) = (std::mem::take(&mut self.packets), std::mem::replace(&mut self.since, now));
        now.saturating_duration_since(since) < BREATH.saturating_mul(packets) / FLOOD
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said of each of `rounds`: packets, and microseconds after the round before.
    fn said(rounds: impl IntoIterator<Item = (usize, u64)>) -> Vec<bool> {
        let mut now = Instant::now();
        let mut pace = Pace::new(now);
        let ask = |(packets, later)| {
            now += Duration::from_micros(later);
            pace.is_flood(packets, || now)
        };
        rounds.into_iter().map(ask).collect()
    }

    #[test]
    fn single_packets_that_come_fast_are_a_flood() {
        let flood = said([(1, 20); 64]);
        assert_eq!(flood.iter().filter(|&&is_flood| is_flood).count(), 4);
    }

    #[test]
    fn a_quick_scan_and_a_burst_after_silence_are_looked_at_at_once() {
        assert!(!said([(1, 100); 200]).contains(&true));
        assert_eq!(said([(30, 1_000_000), (0, 10), (30, 1_000_000)]), [false; 3]);
    }

    #[test]
    fn a_flood_goes_on_while_each_breath_brings_many_and_ends_with_the_first_that_does_not() {
        let breath = |packets| (packets, 1_100);
        assert_eq!(said([breath(300), breath(300), breath(5), breath(5)]), [true, true, false, false]);
    }
}
