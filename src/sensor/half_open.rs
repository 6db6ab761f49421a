//! SYNs to decoy ports that are waiting for their handshake: `nmap -sS` never completes one, a visitor does.
//!
//! Pure, run by the sensor's main thread; time is an argument. Bounded: a flood pushes the oldest SYN out, and it
//! counts as a probe at once, so nobody escapes by flooding.
#![forbid(unsafe_code)]

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::detect::Probe;

/// How many handshakes are waited for.
const CAPACITY: usize = 1024;
/// How long a handshake may take: the first retransmission of a SYN-ACK comes after 1 s (RFC 6298 §2.1), the second after 3.
const PATIENCE: Duration = Duration::from_secs(3);

type Key = (IpAddr, u16, u16);

/// The SYNs that no handshake has followed yet.
///
/// The map's keys come from attackers: its hasher is SipHash under a random key (`RandomState`).
#[derive(Debug, Default)]
pub struct HalfOpen {
    waiting: HashMap<Key, (Probe, Instant)>,
    /// In order of arrival; may name keys that were completed since.
    arrivals: VecDeque<(Key, Instant)>,
    displaced: u64,
}

impl HalfOpen {
    /// An empty table.
    pub fn new() -> HalfOpen {
        HalfOpen::default()
    }

    /// Notes a SYN to a decoy port. Returns the probe that had to make room for it: it counts now. A retransmission
    /// changes nothing.
    pub fn saw_syn(&mut self, probe: Probe, now: Instant) -> Option<Probe> {
        let key = (probe.source, probe.source_port, probe.port);
        if self.waiting.contains_key(&key) {
            return None;
        }
        let displaced = if self.arrivals.len() >= CAPACITY { self.take_oldest() } else { None };
        self.displaced = self.displaced.saturating_add(u64::from(displaced.is_some()));
        self.waiting.insert(key, (probe, now));
        self.arrivals.push_back((key, now));
        displaced
    }

    /// A decoy accepted this connection: its SYN was no half-open probe.
    pub fn completed(&mut self, source: IpAddr, source_port: u16, port: u16) {
        self.waiting.remove(&(source, source_port, port));
    }

    /// The probes whose handshake did not come in time.
    pub fn expired(&mut self, now: Instant) -> impl Iterator<Item = Probe> + '_ {
        std::iter::from_fn(move || {
            loop {
                let &(_, arrived) = self.arrivals.front()?;
                if now.saturating_duration_since(arrived) < PATIENCE {
                    return None;
                }
                if let Some(probe) = self.take_oldest() {
                    return Some(probe);
                }
            }
        })
    }

    /// When [`HalfOpen::expired`] has something to give, at the earliest.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.arrivals.front().and_then(|(_, arrived)| arrived.checked_add(PATIENCE))
    }

    /// SYNs that were counted early for want of room, since the start.
    pub fn displaced(&self) -> u64 {
        self.displaced
    }

    /// `None` if the oldest arrival was completed. A key may have come again since: then the entry is not the oldest's.
    fn take_oldest(&mut self) -> Option<Probe> {
        let (key, arrived) = self.arrivals.pop_front()?;
        let (probe, seen) = *self.waiting.get(&key)?;
        (seen == arrived).then(|| self.waiting.remove(&key)).flatten().map(|_| probe)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::ScanType;
    use crate::detect::probe::Protocol;
    use crate::packet::TcpFlags;

    fn syn(source_port: u16) -> Probe {
        Probe {
            source: "192.0.2.1".parse().unwrap(),
            destination: "198.51.100.1".parse().unwrap(),
            source_port,
            port: 23,
            protocol: Protocol::Tcp,
            scan_type: ScanType::Syn,
            flags: TcpFlags(TcpFlags::SYN),
            sequence: 1,
            ip_options: Some(false),
            verified: false,
        }
    }

    #[test]
    fn only_a_syn_without_a_handshake_counts_and_only_once() {
        let (mut table, start) = (HalfOpen::new(), Instant::now());
        assert_eq!(table.saw_syn(syn(1), start), None);
        assert_eq!(table.saw_syn(syn(2), start), None);
        assert_eq!(table.saw_syn(syn(2), start + Duration::from_secs(1)), None);
        table.completed(syn(1).source, 1, 23);
        assert_eq!(table.expired(start + PATIENCE - Duration::from_millis(1)).count(), 0);
        assert_eq!(table.next_deadline(), Some(start + PATIENCE));
        assert_eq!(table.expired(start + PATIENCE).collect::<Vec<_>>(), vec![syn(2)]);
        assert_eq!((table.expired(start + PATIENCE * 9).count(), table.next_deadline()), (0, None));
    }

    #[test]
    fn a_port_that_is_used_again_waits_its_full_time() {
        let (mut table, start) = (HalfOpen::new(), Instant::now());
        table.saw_syn(syn(1), start);
        table.completed(syn(1).source, 1, 23);
        table.saw_syn(syn(1), start + Duration::from_secs(2));
        assert_eq!(table.expired(start + Duration::from_secs(4)).count(), 0);
        assert_eq!(table.expired(start + Duration::from_secs(5)).count(), 1);
    }

    #[test]
    fn a_flood_pushes_out_the_oldest_which_then_counts() {
        let (mut table, now) = (HalfOpen::new(), Instant::now());
        let pushed: Vec<Probe> = (0..5000).filter_map(|port| table.saw_syn(syn(port), now)).collect();
        assert_eq!((pushed.len(), table.displaced()), (5000 - CAPACITY, 5000 - CAPACITY as u64));
        assert_eq!((pushed.first(), table.waiting.len()), (Some(&syn(0)), CAPACITY));
        assert_eq!(table.arrivals.len(), CAPACITY);
    }
}
