//! How much of what the protected hosts send is heard at all: where a question may have been missed, what looks like its
//! answer is no proof of anything.
//!
//! Ring threads ask and tell, all at once, without a lock. Never knows of a single flow.
#![forbid(unsafe_code)]

use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use siphasher::sip::SipHasher13;

use super::CONNECTION_SECONDS;
use crate::detect::probe::Protocol;

/// Local addresses of a capture that are known to have sent something.
const SENDERS: usize = 4096;
/// How late the answer to a question may come that was missed, microseconds: resolvers give up after 5 to 30 seconds.
const LATE: u64 = 30_000_000;
/// How long a router remembers two that exchange datagrams after the last of them, microseconds: nf_conntrack's
/// udp_timeout_stream (120 s; in older kernels 180). Until then the one that was asked may speak first, as SIP servers do.
const STREAM: u64 = 180_000_000;
/// The same of a connection.
const CONNECTION: u64 = CONNECTION_SECONDS * 1_000_000;

/// What a question that nobody saw means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// That it was not asked.
    All,
    /// That it may have been lost on its way to us, this once.
    NotAllOfLate,
    /// That it was not asked since the start, which was a moment ago: what was asked before may still be answered.
    SinceTheStart,
    /// Nothing: this host's questions are not to be seen.
    Nothing,
}

/// Whose words are heard.
#[derive(Debug)]
pub enum Hearing {
    /// Everything that this host sends is offered (the daemon), but for what was lost.
    OfThisHost(Gaps),
    /// A host counts as heard once it sent something: a capture may hold one direction only. A 32-bit mark of each
    /// address that did.
    OfSenders(Box<[AtomicU32]>),
}

/// Until when answers may come to what was missed, microseconds.
#[derive(Debug)]
pub struct Gaps {
    datagrams: Gap,
    connections: Gap,
    /// And to what a socket asked before the start that is closed by now.
    asked_before: u64,
}

/// Of one kind.
#[derive(Debug)]
struct Gap {
    until: AtomicU64,
    /// How long answers may come to what was missed.
    lasts: u64,
}

impl Hearing {
    /// Of this very host, from `now` microseconds on. One that forwards (`is_router`) speaks for others under its own
    /// address, and what they said before now nobody knows; its own sockets are the kernel's to tell, while they are open.
    pub fn of_this_host(is_router: bool, now: u64) -> Hearing {
        let (datagrams, connections) = if is_router { (STREAM, CONNECTION) } else { (LATE, LATE) };
        let gap = |lasts| Gap { until: AtomicU64::new(0), lasts };
        let asked_before = now.saturating_add(LATE);
        let gaps = Gaps { datagrams: gap(datagrams), connections: gap(connections), asked_before };
        let hearing = Hearing::OfThisHost(gaps);
        if is_router {
            hearing.lost(now);
        }
        hearing
    }

    /// Of whoever sends something in a capture.
    pub fn of_senders() -> Hearing {
        Hearing::OfSenders((0..SENDERS).map(|_| AtomicU32::new(0)).collect())
    }

    pub(super) fn of(&self, host: IpAddr, protocol: Protocol, hasher: &SipHasher13, now: u64) -> Heard {
        match self {
            Hearing::OfThisHost(gaps) => gaps.at(protocol, now),
            Hearing::OfSenders(senders) => {
                let (slot, mark) = sender(senders, host, hasher);
                match slot.is_some_and(|slot| slot.load(Relaxed) == mark) {
                    true => Heard::All,
                    false => Heard::Nothing,
                }
            }
        }
    }

    pub(super) fn lost(&self, now: u64) {
        if let Hearing::OfThisHost(gaps) = self {
            for gap in [&gaps.datagrams, &gaps.connections] {
                gap.until.fetch_max(now.saturating_add(gap.lasts), Relaxed);
            }
        }
    }

    pub(super) fn note_sender(&self, host: IpAddr, hasher: &SipHasher13) {
        let Hearing::OfSenders(senders) = self else { return };
        if let (Some(slot), mark) = sender(senders, host, hasher) {
            slot.store(mark, Relaxed);
        }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        match self {
            Hearing::OfThisHost(_) => 0,
            Hearing::OfSenders(senders) => size_of_val::<[AtomicU32]>(senders),
        }
    }
}

impl Gaps {
    fn at(&self, protocol: Protocol, now: u64) -> Heard {
        let gap = match protocol {
            Protocol::Tcp | Protocol::Sctp => &self.connections,
            Protocol::Udp | Protocol::Icmp | Protocol::Ip => &self.datagrams,
        };
        if now < gap.until.load(Relaxed) {
            Heard::NotAllOfLate
        } else if protocol == Protocol::Udp && now < self.asked_before {
            Heard::SinceTheStart
        } else {
            Heard::All
        }
    }
}

fn sender<'a>(senders: &'a [AtomicU32], host: IpAddr, hasher: &SipHasher13) -> (Option<&'a AtomicU32>, u32) {
    let hash = match host {
        IpAddr::V4(address) => hasher.hash(&address.octets()),
        IpAddr::V6(address) => hasher.hash(&address.octets()),
    };
    (senders.get(hash as usize % SENDERS), ((hash >> 32) as u32).max(1))
}
