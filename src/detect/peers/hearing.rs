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

/// What a question that nobody saw means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// That it was not asked.
    All,
    /// That it may have been lost on its way to us, this once.
    NotAllOfLate,
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
    datagrams: AtomicU64,
    connections: AtomicU64,
    /// How long a connection that was missed may still be there.
    connection: u64,
}

impl Hearing {
    /// Of this very host, from `now` microseconds on. One that forwards (`is_router`) has connections of others under its
    /// own address, and what they were before now nobody knows; its own are the kernel's to tell.
    pub fn of_this_host(is_router: bool, now: u64) -> Hearing {
        let connection = if is_router { CONNECTION_SECONDS * 1_000_000 } else { LATE };
        let until = if is_router { now.saturating_add(connection) } else { 0 };
        Hearing::OfThisHost(Gaps {
            datagrams: AtomicU64::new(0),
            connections: AtomicU64::new(until),
            connection,
        })
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
            gaps.datagrams.fetch_max(now.saturating_add(LATE), Relaxed);
            gaps.connections.fetch_max(now.saturating_add(gaps.connection), Relaxed);
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
        let until = match protocol {
            Protocol::Tcp | Protocol::Sctp => &self.connections,
            Protocol::Udp | Protocol::Icmp | Protocol::Ip => &self.datagrams,
        };
        if now < until.load(Relaxed) { Heard::NotAllOfLate } else { Heard::All }
    }
}

fn sender<'a>(senders: &'a [AtomicU32], host: IpAddr, hasher: &SipHasher13) -> (Option<&'a AtomicU32>, u32) {
    let hash = match host {
        IpAddr::V4(address) => hasher.hash(&address.octets()),
        IpAddr::V6(address) => hasher.hash(&address.octets()),
    };
    (senders.get(hash as usize % SENDERS), ((hash >> 32) as u32).max(1))
}
