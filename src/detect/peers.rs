//! What we ourselves sent lately, by flow: so that an answer is never taken for a probe.
//!
//! Ring threads (and `replay`) write and read it, all at once, without a lock; memory is bounded. It forgets what
//! is old or pushed out, and then an answer may count as a failed contact; it never takes one flow for another: not the
//! remote port makes an answer (`nmap -g 53`), but that we wrote to that address and port from this very port.
#![forbid(unsafe_code)]

mod flow;
mod hearing;

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::AcqRel, Ordering::Relaxed};

use siphasher::sip::SipHasher13;

use self::flow::Flow;
pub use self::hearing::{Heard, Hearing};
use super::lines::{Lines, WAYS};
use super::probe::{Probe, Protocol};
use super::shared_ports::SharedPorts;
use crate::packet::{Packet, TcpFlags, Transport};

/// Places: 65,536 flows in half a megabyte, which a host that asks nothing and serves nobody never takes.
const LINES: usize = 4096;

/// How late an answer to a datagram may come, seconds. Resolvers give up after 5 to 30, an NTP poll may be 1,024 apart.
const DATAGRAM_SECONDS: u64 = 1_100;
/// How long a connection may be silent and still be one: two hours is TCP's keep-alive (RFC 9293 §3.8.4).
const CONNECTION_SECONDS: u64 = 3 * 3600;

/// A connection's time is renewed no more often, seconds: most of what is looked at writes nothing.
const RENEWED_AFTER: u64 = 60;

/// Times have 24 bits, of seconds.
const SECONDS: u64 = (1 << 24) - 1;

/// What a flow of ours is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// We asked, or are in the middle of it: what comes back on it is an answer.
    Asked,
    /// A service here accepted it, and its client has not said so much as that it heard.
    Accepted,
    /// The client completed the handshake, and has not said anything yet.
    Opened,
}

/// What a client made of a connection that a service here had accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Course {
    /// It said something: an exchange.
    Exchanged,
    /// Its kernel refused, with a bare RST, what it had not asked for: `nmap -sS`, masscan, zmap at an open port.
    HalfOpen,
    /// It reset its own connection without a word: `nmap -sT` at an open port, a balancer's look at a service.
    Abandoned,
}

/// A service of ours spoke to somebody: whoever asked at this port did not ask in vain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Served {
    /// To whom.
    pub client: IpAddr,
    /// From which address of ours.
    pub host: IpAddr,
    /// Transport.
    pub protocol: Protocol,
    /// Our port.
    pub port: u16,
}

impl Served {
    /// What `probe` turned out to be.
    pub fn of(probe: &Probe) -> Served {
        let Probe { source: client, destination: host, protocol, port, .. } = *probe;
        Served { client, host, protocol, port }
    }
}

/// The memory.
#[derive(Debug)]
pub struct Peers {
    /// Flow mark 40 bits, second 24. The flows of a line share a place; the oldest makes room.
    flows: Lines<LINES>,
    /// Local ports that ever asked anything, by protocol: what comes to any other answers nothing, and that is all a
    /// scan of the ports of services costs here.
    asked_from: [SharedPorts; 3],
    /// A UDP port is among them that was not.
    asked_anew: AtomicBool,
    hearing: Hearing,
    hasher: SipHasher13,
}

impl Peers {
    /// An empty memory, keyed with random bytes.
    pub fn new(key: &[u8; 16], hearing: Hearing) -> Peers {
        Peers {
            flows: Lines::new(),
            asked_from: std::array::from_fn(|_| SharedPorts::new()),
            asked_anew: AtomicBool::new(false),
            hearing,
            hasher: SipHasher13::new_with_key(key),
        }
    }

    /// Takes note of a packet that a protected host sent at `now` microseconds. Tells if it was a service's.
    pub fn note_sent(&self, packet: &Packet, now: u64) -> Option<Served> {
        self.hearing.note_sender(packet.source, &self.hasher);
        let (flow, part) = Flow::sent(packet)?;
        self.insert(flow, part, now);
        // One datagram is like another: an answer, if something was asked.
        let serves = part == Part::Accepted || flow.protocol == Protocol::Udp;
        let Flow { protocol, host, peer: client, port, peer_port: _ } = flow;
        serves.then_some(Served { client, host, protocol, port })
    }

    /// Takes note of a connection over TCP that the kernel has between `local`, which is ours, and `remote`: what comes on
    /// it was asked for, if longer ago than anything is remembered.
    pub fn note_connection(&self, local: SocketAddr, remote: SocketAddr, now: u64) {
        self.insert(Flow::between(Protocol::Tcp, local, remote), Part::Asked, now);
    }

    /// Takes note of what a protected host sent to everybody: whoever hears it may answer, from any port.
    pub fn note_call(&self, packet: &Packet, now: u64) {
        let call =
            Flow::sent(packet).filter(|(flow, _)| flow.protocol == Protocol::Udp && flow.asks_everybody());
        if let Some((flow, part)) = call {
            self.insert(flow.with_anybody(), part, now);
        }
    }

    /// Whether `probe` answers what was sent from its destination: then it is none.
    pub fn expect(&self, probe: &Probe, now: u64) -> bool {
        let flow = Flow::of(probe);
        self.asks_from(flow.protocol, flow.port)
            && (self.goes_on(flow, now)
                || flow.protocol == Protocol::Udp && self.holds(flow.with_anybody(), Part::Asked, now))
    }

    /// Whether anything was ever asked from this port: by this host, or by another behind it.
    pub fn asks_from(&self, protocol: Protocol, port: u16) -> bool {
        self.asked_from(protocol).is_some_and(|ports| ports.contains(port))
    }

    /// Whether [`asks_from`](Self::asks_from) holds for a UDP port more than when [`heed`](Self::heed) was called last.
    pub fn has_news(&self) -> bool {
        self.asked_anew.load(Relaxed)
    }

    /// The news is heard. To be called before the ports are looked at: whose news this takes back, its port is seen.
    pub fn heed(&self) {
        self.asked_anew.swap(false, AcqRel);
    }

    /// Whether `probe` belongs to a connection that a service here accepted.
    pub fn serves(&self, probe: &Probe, now: u64) -> bool {
        let flow = Flow::of(probe);
        self.holds(flow, Part::Accepted, now) || self.holds(flow, Part::Opened, now)
    }

    /// Takes note of what came in at `now` microseconds on a connection that a service here accepted. Tells, once for
    /// each, what became of it. One that is closed (FIN) without a word is neither good nor bad: so does who only looks
    /// whether a service is up.
    pub fn note_received(&self, packet: &Packet, now: u64) -> Option<Course> {
        let Transport::Tcp { flags, payload, .. } = packet.transport else { return None };
        let flow = Flow::received(packet)?;
        let [is_reset, is_end, is_ack] =
            [TcpFlags::RST, TcpFlags::FIN, TcpFlags::ACK].map(|flag| flags.has(flag));
        if !(is_reset || is_ack) {
            return None;
        }
        let part = [Part::Accepted, Part::Opened].into_iter().find(|&part| self.take(flow, part, now))?;
        match (is_reset, part) {
            // Its kernel has no such connection, or it would have the RST acknowledge what it heard.
            (true, Part::Accepted) if !is_ack => return Some(Course::HalfOpen),
            (true, Part::Accepted | Part::Opened | Part::Asked) => return Some(Course::Abandoned),
            (false, _) => {}
        }
        // What comes next on it is a conversation's, or the end of one.
        let next = if payload > 0 || is_end { Part::Asked } else { Part::Opened };
        self.insert(flow, next, now);
        (payload > 0).then_some(Course::Exchanged)
    }

    /// What of the answers to `host`'s own questions over `protocol` can be known for answers at `now`.
    pub fn heard(&self, host: IpAddr, protocol: Protocol, now: u64) -> Heard {
        self.hearing.of(host, protocol, &self.hasher, now)
    }

    /// Packets were lost at `now` microseconds, questions perhaps among them.
    pub fn lost(&self, now: u64) {
        self.hearing.lost(now);
    }

    /// Bytes held, from the start to the end.
    pub fn memory_bytes(&self) -> usize {
        let ports = self.asked_from.iter().map(SharedPorts::memory_bytes).sum::<usize>();
        self.flows.memory_bytes() + self.hearing.memory_bytes() + ports
    }

    fn asked_from(&self, protocol: Protocol) -> Option<&SharedPorts> {
        let [tcp, udp, sctp] = &self.asked_from;
        match protocol {
            Protocol::Tcp => Some(tcp),
            Protocol::Udp => Some(udp),
            Protocol::Sctp => Some(sctp),
            Protocol::Icmp | Protocol::Ip => None,
        }
    }

    fn insert(&self, flow: Flow, part: Part, now: u64) {
        let asks_anew = || self.asked_from(flow.protocol).is_some_and(|ports| ports.insert(flow.port));
        if part == Part::Asked && asks_anew() && flow.protocol == Protocol::Udp {
            // A swap hands on what the last one released: `heed` sees the ports of all who had news, not of one.
            self.asked_anew.swap(true, AcqRel);
        }
        let Some((line, mark)) = self.line(flow, part) else { return };
        let words = || line.iter().map(|word| (word, word.load(Relaxed)));
        let same = words().find(|(_, held)| held >> 24 == mark);
        let oldest = || words().max_by_key(|&(_, held)| if held == 0 { u64::MAX } else { age(held, now) });
        if let Some((word, _)) = same.or_else(oldest) {
            word.store(mark << 24 | seconds(now), Relaxed);
        }
    }

    /// Whether what comes in on `flow` answers what we asked. A connection that is spoken on is no older for it; to a
    /// datagram's flow nobody but us adds time.
    fn goes_on(&self, flow: Flow, now: u64) -> bool {
        let Some((word, held)) = self.find(flow, Part::Asked, now) else { return false };
        if flow.protocol != Protocol::Udp && age(held, now) >= RENEWED_AFTER {
            // Where another flow took the place meanwhile, it keeps it.
            let _ = word.compare_exchange(held, held & !SECONDS | seconds(now), Relaxed, Relaxed);
        }
        true
    }

    fn holds(&self, flow: Flow, part: Part, now: u64) -> bool {
        self.find(flow, part, now).is_some()
    }

    fn take(&self, flow: Flow, part: Part, now: u64) -> bool {
        let found = self.find(flow, part, now);
        found.is_some_and(|(word, held)| word.compare_exchange(held, 0, Relaxed, Relaxed).is_ok())
    }

    fn find(&self, flow: Flow, part: Part, now: u64) -> Option<(&AtomicU64, u64)> {
        let (line, mark) = self.line(flow, part)?;
        let (word, held) =
            line.iter().map(|word| (word, word.load(Relaxed))).find(|(_, held)| held >> 24 == mark)?;
        let lasts = match flow.protocol {
            Protocol::Udp => DATAGRAM_SECONDS,
            Protocol::Tcp | Protocol::Sctp | Protocol::Icmp | Protocol::Ip => CONNECTION_SECONDS,
        };
        (age(held, now) <= lasts).then_some((word, held))
    }

    fn line(&self, flow: Flow, part: Part) -> Option<(&[AtomicU64; WAYS], u64)> {
        let hash = flow.hash(&self.hasher, part);
        // The line by the low bits, the mark by the high ones; never 0, which is an empty word.
        Some((self.flows.of(hash)?, (hash >> 24).max(1)))
    }
}

fn seconds(now: u64) -> u64 {
    (now / 1_000_000) & SECONDS
}

/// Of a flow that is held, seconds. A clock that runs a little behind on this thread makes an age just below the wrap: no
/// age at all.
fn age(held: u64, now: u64) -> u64 {
    let age = seconds(now).wrapping_sub(held) & SECONDS;
    if age > SECONDS - 60 { 0 } else { age }
}

#[cfg(test)]
mod tests;
