//! Who is kept account of, and where in the table that account may stand.
//!
//! Pure. An attacker chooses the addresses, so everything here is keyed with 128 random bits that never leave the process.
#![forbid(unsafe_code)]

use std::net::{IpAddr, Ipv6Addr};

use siphasher::sip::SipHasher13;

use crate::detect::Probe;
use crate::detect::probe::Protocol;

/// The upper 96 bits of an IPv4-mapped address (RFC 4291 §2.5.5.2).
const MAPPED: u128 = 0xffff;

/// What the probed addresses are to each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Vantage {
    /// Addresses of one host, as the daemon sees them: a port is the same port on all of them.
    #[default]
    Host,
    /// Each is a host of its own, which knows only what came to it: a source has an account with each.
    EachHost,
    /// Hosts of one site: a source has one account, and the same port of another host is another port.
    Network,
}

/// What an account counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Ledger {
    /// Probes of watched ports, toward SCAN_TRIGGER.
    #[default]
    Watched,
    /// Failed contacts with all others, toward the end of the random walk.
    Walk,
    /// Of the probes of watched ports those that nobody can have forged, once more: no alarm of its own, but its proof.
    Proven,
}

impl Ledger {
    /// The other one that alarms come of.
    pub fn other(self) -> Ledger {
        match self {
            Ledger::Watched | Ledger::Proven => Ledger::Walk,
            Ledger::Walk => Ledger::Watched,
        }
    }
}

/// One account: an IPv4 address, or an IPv6 prefix (whoever holds a /64 holds all its addresses).
///
/// Addresses as 128 bits (IPv4 mapped), not as [`IpAddr`]: its copies are loaded wider than they were stored, and such a
/// load waits for every store before it, those to lines that are not in the cache among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SourceKey {
    source: u128,
    /// With [`With::OneHost`] its address, else 0.
    host: u128,
    with: With,
    ledger: Ledger,
}

/// Whom an account is kept by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum With {
    Host,
    OneHost,
    Network,
}

impl SourceKey {
    /// The account of `source`; IPv6 addresses are cut to `ipv6_prefix` bits (more than 128 act as 128), IPv4-mapped
    /// ones are IPv4.
    #[inline]
    pub fn of(source: &IpAddr, ipv6_prefix: u8) -> SourceKey {
        let bits = bits(source);
        let host_bits = if is_v4(bits) { 0 } else { 128_u32.saturating_sub(u32::from(ipv6_prefix)) };
        let mask = u128::MAX.checked_shl(host_bits).unwrap_or(0);
        SourceKey { source: bits & mask, host: 0, with: With::Host, ledger: Ledger::Watched }
    }

    /// The account of the same source in `ledger`. A source has one in each: none's points are another's.
    pub fn in_ledger(self, ledger: Ledger) -> SourceKey {
        SourceKey { ledger, ..self }
    }

    /// All accounts of the same source.
    pub fn in_all(self) -> [SourceKey; 3] {
        [Ledger::Watched, Ledger::Walk, Ledger::Proven].map(|ledger| self.in_ledger(ledger))
    }

    /// The account that `vantage` keeps of this source once it has probed `destination`.
    pub fn seen_from(self, vantage: Vantage, destination: &IpAddr) -> SourceKey {
        let (with, host) = match vantage {
            Vantage::Host => (With::Host, 0),
            Vantage::EachHost => (With::OneHost, bits(destination)),
            Vantage::Network => (With::Network, 0),
        };
        SourceKey { with, host, ..self }
    }

    /// The address, or the first address of the prefix.
    pub fn address(self) -> IpAddr {
        IpAddr::V6(Ipv6Addr::from(self.source)).to_canonical()
    }
}

/// A source with its keyed hash: where its accounts stand. Made ahead of a judgement and used for all of it, since it is
/// the dearest part of a look-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seat {
    /// Its lower half chooses the bucket.
    pub(super) hash: u64,
    with: With,
    pub(super) ledger: Ledger,
}

impl Seat {
    /// `lane_key` is another secret than the hasher's.
    #[inline]
    pub(super) fn of(hasher: &SipHasher13, lane_key: u64, key: SourceKey) -> Seat {
        let hash = match key.with {
            With::Host | With::Network => hash_of(hasher, key.source),
            With::OneHost => hash_of(hasher, key.source) ^ mix(lane_key, hash_of(hasher, key.host)),
        };
        Seat { hash, with: key.with, ledger: key.ledger }
    }

    /// The same source's in `ledger`: all its accounts stand in one bucket, so that a look at another is no look at
    /// other memory.
    #[inline]
    pub fn in_ledger(self, ledger: Ledger) -> Seat {
        Seat { ledger, ..self }
    }
}

/// What the keyed hash makes of an account.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// Tells the tenants of a bucket apart: 28 bits, never 0.
    pub fingerprint: u64,
    /// A secret of this source: keys its lanes, and its upper 16 bits tag its details.
    pub secret: u64,
    /// Ports of different hosts are different ports: all bits, or none.
    pub hosts_differ: u64,
}

impl Place {
    /// `lane_key` is another secret than the hasher's, so that a bucket and a lane tell nothing of each other.
    #[inline]
    pub fn of(seat: Seat, lane_key: u64) -> Place {
        let own = match seat.ledger {
            Ledger::Watched => seat.hash,
            Ledger::Walk => mix(lane_key.rotate_left(17), seat.hash),
            Ledger::Proven => mix(lane_key.rotate_left(34), seat.hash),
        };
        let hosts_differ = if seat.with == With::Network { u64::MAX } else { 0 };
        Place { fingerprint: (own >> 36).max(1), secret: mix(lane_key, own), hosts_differ }
    }

    /// Marks words of this source: 16 bits.
    pub fn tag(self) -> u64 {
        self.secret >> 48
    }

    /// A protocol and port as 16 bits, never 0, different for each source.
    pub fn port_mark(self, host: &IpAddr, protocol: Protocol, port: u16) -> u64 {
        let port = u64::from(port) | (protocol as u64) << 16;
        let host = folded(host).rotate_left(24) & self.hosts_differ;
        (mix(self.secret, port ^ host) & 0xffff).max(1)
    }

    /// What is the same in a packet and its retransmission, as 24 bits, never 0. ECE and CWR are not: a SYN that asked
    /// for them in vain is sent again without (RFC 3168 §6.1.1.1).
    pub fn contact_mark(self, probe: &Probe) -> u64 {
        let ports = u64::from(probe.source_port) << 16 | u64::from(probe.port);
        let flags = u64::from(probe.flags.classic());
        let kind = (probe.protocol as u64) << 16 | flags << 8 | probe.scan_type as u64;
        let to = folded(&probe.destination);
        let told = mix(self.secret, ports << 32 | u64::from(probe.sequence));
        (mix(told, to ^ kind << 40) & 0xff_ffff).max(1)
    }
}

/// IPv4 addresses as IPv6 maps them. By reference, here as below: a copy is made in words that the address was not
/// written in, and waits for what was.
fn bits(address: &IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => MAPPED << 32 | u128::from(u32::from(*address)),
        IpAddr::V6(address) => u128::from(*address),
    }
}

fn is_v4(bits: u128) -> bool {
    bits >> 32 == MAPPED
}

fn hash_of(hasher: &SipHasher13, address: u128) -> u64 {
    match is_v4(address) {
        true => hasher.hash(&(address as u32).to_be_bytes()),
        false => hasher.hash(&address.to_be_bytes()),
    }
}

fn folded(address: &IpAddr) -> u64 {
    match address {
        IpAddr::V4(address) => u64::from(u32::from(*address)),
        IpAddr::V6(address) => {
            let bits = u128::from(*address);
            (bits >> 64) as u64 ^ (bits as u64).rotate_left(32)
        }
    }
}

/// A folded multiplication: strong enough under a secret that is SipHash's output and that nobody ever sees.
fn mix(secret: u64, value: u64) -> u64 {
    const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
    let product = u128::from(secret ^ value.wrapping_mul(GOLDEN)) * u128::from(secret.rotate_left(32) | 1);
    let folded = (product >> 64) as u64 ^ product as u64;
    folded ^ folded >> 29
}
