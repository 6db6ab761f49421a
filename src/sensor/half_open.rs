//! SYNs to decoy ports that are waiting for their handshake: `nmap -sS` never completes one, a visitor does.
//!
//! Pure, run by the sensor's main thread; time is an argument. Bounded: a flood pushes the oldest SYN out, and it
//! counts as a probe at once, so nobody escapes by flooding. Ring and decoy tell the main thread of the same visitor by
//! different ways, so the handshake may be heard of before the SYN: it is remembered just as long.
#![forbid(unsafe_code)]

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::detect::Probe;
use crate::detect::probe::Protocol;

/// How many handshakes are waited for.
const CAPACITY: usize = 1024;
/// How long a handshake may take: the first retransmission of a SYN-ACK comes after 1 s (RFC 6298 §2.1), the second after 3.
const PATIENCE: Duration = Duration::from_secs(3);

type Key = (IpAddr, u16, u16);

/// A SYN, and the index of the interface it came in by.
pub type Knock = (Probe, u32);

/// The SYNs that no handshake has followed yet.
///
/// The map's keys come from attackers: its hasher is SipHash under a random key (`RandomState`).
#[derive(Debug, Default)]
pub struct HalfOpen {
    /// `None` once its handshake was completed.
    waiting: HashMap<Key, Option<Knock>>,
    /// In order of arrival.
    arrivals: VecDeque<(Key, Instant)>,
}

impl HalfOpen {
    /// An empty table.
    pub fn new() -> HalfOpen {
        HalfOpen::default()
    }

    /// Notes a SYN to a decoy port. Returns the probe that had to make room for it: it counts now. A retransmission
    /// changes nothing.
    pub fn saw_syn(&mut self, knock: Knock, now: Instant) -> Option<Knock> {
        let key = key_of(&knock.0);
        if self.waiting.contains_key(&key) {
            return None;
        }
        self.admit(key, Some(knock), now)
    }

    /// Whether the handshake that `segment` may complete is waited for.
    pub fn waits_for(&self, segment: &Probe) -> bool {
        self.waiting.get(&key_of(segment)).is_some_and(Option::is_some)
    }

    /// A decoy accepted `visit`: its SYN, seen already or still to be seen, is no half-open probe. Returns the one that
    /// had to make room, as [`HalfOpen::saw_syn`] does. A datagram has no SYN, and takes up no room.
    pub fn completed(&mut self, visit: &Probe, now: Instant) -> Option<Knock> {
        if visit.protocol != Protocol::Tcp {
            return None;
        }
        let key = key_of(visit);
        if let Some(waiting) = self.waiting.get_mut(&key) {
            *waiting = None;
            return None;
        }
        self.admit(key, None, now)
    }

    fn admit(&mut self, key: Key, knock: Option<Knock>, now: Instant) -> Option<Knock> {
        let displaced = if self.arrivals.len() >= CAPACITY { self.take_oldest() } else { None };
        self.waiting.insert(key, knock);
        self.arrivals.push_back((key, now));
        displaced
    }

    /// The probes whose handshake did not come in time.
    pub fn expired(&mut self, now: Instant) -> impl Iterator<Item = Knock> + '_ {
        self.take_while(move |arrived| now.saturating_duration_since(arrived) >= PATIENCE)
    }

    /// All that still wait, as if their time were over.
    pub fn drain(&mut self) -> impl Iterator<Item = Knock> + '_ {
        self.take_while(|_| true)
    }

    fn take_while(&mut self, is_due: impl Fn(Instant) -> bool) -> impl Iterator<Item = Knock> {
        let due = std::iter::from_fn(move || {
            let is_next = self.arrivals.front().is_some_and(|&(_, arrived)| is_due(arrived));
            is_next.then(|| self.take_oldest())
        });
        // Without those whose handshake was completed.
        due.flatten()
    }

    /// When [`HalfOpen::expired`] has something to give, at the earliest.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.arrivals.front().and_then(|(_, arrived)| arrived.checked_add(PATIENCE))
    }

    /// `None` if the oldest arrival was completed.
    fn take_oldest(&mut self) -> Option<Knock> {
        let (key, _) = self.arrivals.pop_front()?;
        self.waiting.remove(&key)?
    }
}

fn key_of(probe: &Probe) -> Key {
    (probe.source, probe.source_port, probe.port)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::probe::samples;

    fn syn(source_port: u16) -> Probe {
        Probe { source_port, ..samples::syn("192.0.2.1", 23) }
    }

    fn knock(source_port: u16) -> Knock {
        (syn(source_port), 7)
    }

    #[test]
    fn only_a_syn_without_a_handshake_counts_and_only_once() {
        let (mut table, start) = (HalfOpen::new(), Instant::now());
        assert_eq!(table.saw_syn(knock(1), start), None);
        assert_eq!(table.saw_syn(knock(2), start), None);
        assert_eq!(table.saw_syn(knock(2), start + Duration::from_secs(1)), None);
        assert_eq!(table.completed(&syn(1), start), None);
        assert_eq!(table.expired(start + PATIENCE - Duration::from_millis(1)).count(), 0);
        assert_eq!(table.next_deadline(), Some(start + PATIENCE));
        assert_eq!(table.expired(start + PATIENCE).collect::<Vec<_>>(), vec![knock(2)]);
        assert_eq!((table.expired(start + PATIENCE * 9).count(), table.next_deadline()), (0, None));
    }

    #[test]
    fn a_handshake_that_is_heard_of_before_its_syn_excuses_it_all_the_same() {
        let (mut table, start) = (HalfOpen::new(), Instant::now());
        assert_eq!(table.completed(&syn(1), start), None);
        assert_eq!(table.saw_syn(knock(1), start), None);
        assert_eq!(table.expired(start + PATIENCE).count(), 0);
        // Forgotten in its time: the same port may be used again.
        assert_eq!(table.saw_syn(knock(1), start + PATIENCE), None);
        assert_eq!(table.expired(start + PATIENCE * 2).count(), 1);
    }

    #[test]
    fn datagrams_excuse_no_syn_and_push_none_out() {
        let (mut table, start) = (HalfOpen::new(), Instant::now());
        let datagram = |port| Probe { protocol: Protocol::Udp, ..syn(port) };
        assert_eq!((0..5000).find_map(|port| table.completed(&datagram(port), start)), None);
        assert_eq!(table.saw_syn(knock(1), start), None);
        assert_eq!((2..5000).find_map(|port| table.completed(&datagram(port), start)), None);
        assert_eq!(table.expired(start + PATIENCE).collect::<Vec<_>>(), vec![knock(1)]);
    }

    #[test]
    fn a_flood_pushes_out_the_oldest_which_then_counts() {
        let (mut table, now) = (HalfOpen::new(), Instant::now());
        let pushed: Vec<Knock> = (0..5000).filter_map(|port| table.saw_syn(knock(port), now)).collect();
        assert_eq!((pushed.len(), pushed.first()), (5000 - CAPACITY, Some(&knock(0))));
        assert_eq!(table.waiting.len(), CAPACITY);
        assert_eq!(table.arrivals.len(), CAPACITY);
    }
}
