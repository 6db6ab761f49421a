//! What we ourselves sent lately, by flow: so that an answer is never taken for a probe.
//!
//! Ring threads (and `replay`) write and read it, all at once, without a lock; memory is bounded. It forgets what
//! is old or pushed out, and then an answer may count as a failed contact; it never takes one flow for another: not the
//! remote port makes an answer (`nmap -g 53`), but that we wrote to that address and port from this very port.
#![forbid(unsafe_code)]

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};

use siphasher::sip::SipHasher13;

use super::lines::{Lines, WAYS};
use super::probe::{Probe, Protocol};
use crate::packet::{Packet, TcpFlags, Transport};

/// Places: 65,536 flows in half a megabyte, which a host that asks nothing and serves nobody never takes.
const LINES: usize = 4096;
/// Local addresses that are known to have sent something.
const SENDERS: usize = 4096;

/// How late an answer to a datagram may come, seconds. Resolvers give up after 5 to 30, an NTP poll may be 1,024 apart.
const DATAGRAM_SECONDS: u64 = 1_100;
/// How long a connection may be silent and still be one: two hours is TCP's keep-alive (RFC 9293 §3.8.4).
const CONNECTION_SECONDS: u64 = 3 * 3600;

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
    /// It refused, with RST, what it had asked for itself: `nmap -sS`, masscan, zmap at an open port.
    HalfOpen,
    /// It completed the handshake and reset the connection without a word: `nmap -sT` at an open port.
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

/// The memory.
#[derive(Debug)]
pub struct Peers {
    /// Flow mark 40 bits, second 24. The flows of a line share a place; the oldest makes room.
    flows: Lines<LINES>,
    /// Local ports that ever asked anything, by protocol: what comes to any other answers nothing, and that is all a
    /// scan of the ports of services costs here.
    asked_from: [Ports; 3],
    /// A UDP port is among them that was not.
    asked_anew: AtomicBool,
    /// A 32-bit mark of each local address that sent anything: where one sends nothing, we see but half of its traffic.
    senders: Box<[AtomicU32]>,
    hasher: SipHasher13,
    /// What this very host sends is always seen.
    hears_all: bool,
}

/// One bit a port.
type Ports = Box<[AtomicU64]>;

impl Peers {
    /// An empty memory, keyed with random bytes. `hears_all`: everything that the protected hosts send is offered (the
    /// daemon); otherwise a host counts as heard once it sent something (a capture may hold one direction only).
    pub fn new(key: &[u8; 16], hears_all: bool) -> Peers {
        Peers {
            flows: Lines::new(),
            asked_from: std::array::from_fn(|_| (0..1024).map(|_| AtomicU64::new(0)).collect()),
            asked_anew: AtomicBool::new(false),
            senders: (0..SENDERS).map(|_| AtomicU32::new(0)).collect(),
            hasher: SipHasher13::new_with_key(key),
            hears_all,
        }
    }

    /// Takes note of a packet that a protected host sent at `now` microseconds. Tells if it was a service's.
    pub fn note_sent(&self, packet: &Packet, now: u64) -> Option<Served> {
        self.note_sender(packet.source);
        let (flow, part) = Flow::sent(packet)?;
        self.insert(flow, part, now);
        // One datagram is like another: an answer, if something was asked.
        let serves = part == Part::Accepted || flow.protocol == Protocol::Udp;
        let Flow { protocol, host, peer: client, port, peer_port: _ } = flow;
        serves.then_some(Served { client, host, protocol, port })
    }

    /// Whether `probe` answers what was sent from its destination: then it is none.
    pub fn expect(&self, probe: &Probe, now: u64) -> bool {
        self.asks_from(probe.protocol, probe.port) && self.holds(Flow::of(probe), Part::Asked, now)
    }

    /// Whether anything was ever asked from this port: by this host, or by another behind it.
    pub fn asks_from(&self, protocol: Protocol, port: u16) -> bool {
        let ever_asked = |word: &AtomicU64| word.load(Relaxed) >> (port % 64) & 1 == 1;
        self.asked_from(protocol, port).is_some_and(ever_asked)
    }

    /// Whether [`asks_from`](Self::asks_from) holds for a UDP port more than when [`heed`](Self::heed) was called last.
    pub fn has_news(&self) -> bool {
        self.asked_anew.load(Relaxed)
    }

    /// The news is heard. To be called before the ports are looked at.
    pub fn heed(&self) {
        self.asked_anew.store(false, SeqCst);
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
            (true, Part::Accepted) => return Some(Course::HalfOpen),
            (true, Part::Opened | Part::Asked) => return Some(Course::Abandoned),
            (false, _) => {}
        }
        // What comes next on it is a conversation's, or the end of one.
        let next = if payload > 0 || is_end { Part::Asked } else { Part::Opened };
        self.insert(flow, next, now);
        (payload > 0).then_some(Course::Exchanged)
    }

    /// Whether what `host` sends is seen, so that an answer without a question is none.
    pub fn hears(&self, host: IpAddr) -> bool {
        self.hears_all || {
            let (slot, mark) = self.sender(host);
            slot.is_some_and(|slot| slot.load(Relaxed) == mark)
        }
    }

    /// Bytes held, from the start to the end.
    pub fn memory_bytes(&self) -> usize {
        let ports = self.asked_from.iter().map(|ports| size_of_val::<[AtomicU64]>(ports)).sum::<usize>();
        self.flows.memory_bytes() + size_of_val::<[AtomicU32]>(&self.senders) + ports
    }

    fn asked_from(&self, protocol: Protocol, port: u16) -> Option<&AtomicU64> {
        let [tcp, udp, sctp] = &self.asked_from;
        let ports = match protocol {
            Protocol::Tcp => tcp,
            Protocol::Udp => udp,
            Protocol::Sctp => sctp,
            Protocol::Icmp | Protocol::Ip => return None,
        };
        ports.get(usize::from(port) / 64)
    }

    fn note_sender(&self, host: IpAddr) {
        if self.hears_all {
            return;
        }
        let (slot, mark) = self.sender(host);
        if let Some(slot) = slot {
            slot.store(mark, Relaxed);
        }
    }

    fn sender(&self, host: IpAddr) -> (Option<&AtomicU32>, u32) {
        let hash = match host {
            IpAddr::V4(address) => self.hasher.hash(&address.octets()),
            IpAddr::V6(address) => self.hasher.hash(&address.octets()),
        };
        (self.senders.get(hash as usize % SENDERS), ((hash >> 32) as u32).max(1))
    }

    fn insert(&self, flow: Flow, part: Part, now: u64) {
        if let Some(word) = self.asked_from(flow.protocol, flow.port).filter(|_| part == Part::Asked) {
            let bit = 1 << (flow.port % 64);
            if word.load(Relaxed) & bit == 0 {
                word.fetch_or(bit, SeqCst);
                if flow.protocol == Protocol::Udp {
                    self.asked_anew.store(true, SeqCst);
                }
            }
        }
        let Some((line, mark)) = self.line(flow, part) else { return };
        let second = seconds(now);
        let words = || line.iter().map(|word| (word, word.load(Relaxed)));
        let same = words().find(|(_, held)| held >> 24 == mark);
        let age = |held: u64| match held {
            0 => u64::MAX,
            held => second.wrapping_sub(held) & SECONDS,
        };
        let victim = same.or_else(|| words().max_by_key(|&(_, held)| age(held)));
        if let Some((word, _)) = victim {
            word.store(mark << 24 | second, Relaxed);
        }
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
        // A clock that runs a little behind on this thread makes an age just below the wrap: no age at all.
        let age = seconds(now).wrapping_sub(held) & SECONDS;
        let lasts = match flow.protocol {
            Protocol::Udp => DATAGRAM_SECONDS,
            Protocol::Tcp | Protocol::Sctp | Protocol::Icmp | Protocol::Ip => CONNECTION_SECONDS,
        };
        (age <= lasts || age > SECONDS - 60).then_some((word, held))
    }

    fn line(&self, flow: Flow, part: Part) -> Option<(&[AtomicU64; WAYS], u64)> {
        let hash = flow.hash(&self.hasher, part);
        // The line by the low bits, the mark by the high ones; never 0, which is an empty word.
        Some((self.flows.of(hash)?, (hash >> 24).max(1)))
    }
}

/// A flow as the protected host sees it.
#[derive(Clone, Copy, Debug)]
struct Flow {
    protocol: Protocol,
    host: IpAddr,
    peer: IpAddr,
    port: u16,
    peer_port: u16,
}

impl Flow {
    /// The flow that `packet` of ours opens or goes on with; `None` where it refuses or closes one.
    fn sent(packet: &Packet) -> Option<(Flow, Part)> {
        let (protocol, port, peer_port, part) = match packet.transport {
            Transport::Tcp { source_port, port, flags, .. } => {
                (Protocol::Tcp, source_port, port, tcp_part(flags)?)
            }
            Transport::Udp { source_port, port, .. } => (Protocol::Udp, source_port, port, Part::Asked),
            Transport::Sctp { source_port, port, chunk } => {
                (Protocol::Sctp, source_port, port, sctp_part(chunk)?)
            }
            Transport::Icmp { .. }
            | Transport::TinyFragment { .. }
            | Transport::LaterFragment { .. }
            | Transport::Buried
            | Transport::Other { .. } => return None,
        };
        Some((Flow { protocol, host: packet.source, peer: packet.destination, port, peer_port }, part))
    }

    /// The flow of TCP that `packet`, which came in, belongs to.
    fn received(packet: &Packet) -> Option<Flow> {
        let Transport::Tcp { source_port: peer_port, port, .. } = packet.transport else { return None };
        let (host, peer) = (packet.destination, packet.source);
        Some(Flow { protocol: Protocol::Tcp, host, peer, port, peer_port })
    }

    fn of(probe: &Probe) -> Flow {
        Flow {
            protocol: probe.protocol,
            host: probe.destination,
            peer: probe.source,
            port: probe.port,
            peer_port: probe.source_port,
        }
    }

    fn hash(self, hasher: &SipHasher13, part: Part) -> u64 {
        let mut bytes = [0_u8; 38];
        let (ends, rest) = bytes.split_at_mut(32);
        for (slot, address) in ends.chunks_exact_mut(16).zip([self.host, self.peer]) {
            slot.copy_from_slice(&match address {
                IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
                IpAddr::V6(address) => address.octets(),
            });
        }
        let [a, b] = self.port.to_be_bytes();
        let [c, d] = self.peer_port.to_be_bytes();
        rest.copy_from_slice(&[a, b, c, d, self.protocol as u8, part as u8]);
        hasher.hash(&bytes)
    }
}

/// A RST answers what belongs to no connection, so it makes none.
fn tcp_part(flags: TcpFlags) -> Option<Part> {
    match (flags.has(TcpFlags::RST), flags.has(TcpFlags::SYN | TcpFlags::ACK)) {
        (true, _) => None,
        (false, true) => Some(Part::Accepted),
        (false, false) => Some(Part::Asked),
    }
}

/// INIT ACK (2) is a service's, ABORT (6) refuses (RFC 9260 §3.2, §8.4); all others belong to an association of ours.
fn sctp_part(chunk: u8) -> Option<Part> {
    match chunk {
        6 => None,
        2 => Some(Part::Accepted),
        _ => Some(Part::Asked),
    }
}

fn seconds(now: u64) -> u64 {
    (now / 1_000_000) & SECONDS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::ScanType;

    const SECOND: u64 = 1_000_000;
    const NOW: u64 = 1_000 * SECOND;

    fn peers() -> Peers {
        Peers::new(&[2; 16], true)
    }

    fn sent(transport: Transport) -> Packet {
        let address = |text: &str| text.parse().unwrap();
        let (source, destination) = (address("192.0.2.1"), address("198.51.100.53"));
        Packet { source, destination, ip_options: Some(false), transport }
    }

    fn udp(source_port: u16, port: u16) -> Packet {
        sent(Transport::Udp { source_port, port, payload: 9 })
    }

    fn tcp(source_port: u16, port: u16, flags: u8) -> Packet {
        let flags = TcpFlags(flags);
        sent(Transport::Tcp { source_port, port, flags, sequence: 1, payload: 0 })
    }

    fn back(protocol: Protocol, source_port: u16, port: u16) -> Probe {
        Probe {
            source: "198.51.100.53".parse().unwrap(),
            destination: "192.0.2.1".parse().unwrap(),
            source_port,
            port,
            protocol,
            scan_type: ScanType::Udp,
            flags: TcpFlags(0),
            sequence: 0,
            ip_options: None,
            verified: false,
        }
    }

    #[test]
    fn an_answer_is_expected_from_whom_we_asked_and_to_the_port_we_asked_from_alone() {
        let peers = peers();
        peers.note_sent(&udp(40_000, 53), NOW);
        assert!(peers.expect(&back(Protocol::Udp, 53, 40_000), NOW + SECOND));
        for (protocol, source_port, port) in
            [(Protocol::Udp, 53, 40_001), (Protocol::Udp, 54, 40_000), (Protocol::Tcp, 53, 40_000)]
        {
            assert!(
                !peers.expect(&back(protocol, source_port, port), NOW),
                "{protocol:?} {source_port} {port}"
            );
        }
        let stranger = Probe { source: "198.51.100.54".parse().unwrap(), ..back(Protocol::Udp, 53, 40_000) };
        assert!(!peers.expect(&stranger, NOW));
    }

    #[test]
    fn a_late_answer_is_one_and_that_of_yesterday_is_not() {
        let peers = peers();
        peers.note_sent(&udp(40_000, 53), NOW);
        assert!(peers.expect(&back(Protocol::Udp, 53, 40_000), NOW + DATAGRAM_SECONDS * SECOND));
        assert!(!peers.expect(&back(Protocol::Udp, 53, 40_000), NOW + (DATAGRAM_SECONDS + 2) * SECOND));
        assert!(peers.expect(&back(Protocol::Udp, 53, 40_000), NOW - SECOND));
    }

    #[test]
    fn what_closes_or_refuses_makes_no_flow() {
        let peers = peers();
        for flags in [0x04, 0x14] {
            assert_eq!(peers.note_sent(&tcp(80, 5_000, flags), NOW), None);
            assert!(!peers.expect(&back(Protocol::Tcp, 5_000, 80), NOW));
        }
        let served = peers.note_sent(&tcp(80, 5_000, 0x12), NOW).unwrap();
        assert_eq!((served.protocol, served.port), (Protocol::Tcp, 80));
        let ack = back(Protocol::Tcp, 5_000, 80);
        assert!(!peers.expect(&ack, NOW) && peers.serves(&ack, NOW));
        peers.note_sent(&tcp(40_000, 443, 0x02), NOW);
        assert!(peers.expect(&back(Protocol::Tcp, 443, 40_000), NOW));
    }

    /// What becomes of a connection to port 80 that was accepted, and whose client then sends these (flags, payload).
    fn courses(client: &[(u8, u16)]) -> Vec<Option<Course>> {
        let peers = peers();
        peers.note_sent(&tcp(80, 5_000, 0x12), NOW);
        let came = |&(flags, payload): &(u8, u16)| {
            let flags = TcpFlags(flags);
            let transport = Transport::Tcp { source_port: 5_000, port: 80, flags, sequence: 2, payload };
            let Packet { source: destination, destination: source, .. } = sent(transport);
            peers.note_received(&Packet { source, destination, ip_options: None, transport }, NOW)
        };
        client.iter().map(came).collect()
    }

    #[test]
    fn what_a_client_makes_of_its_connection_is_told_once() {
        let (ack, push, fin, reset, reset_ack) = ((0x10, 0), (0x18, 9), (0x11, 0), (0x04, 0), (0x14, 0));
        assert_eq!(courses(&[reset, reset]), [Some(Course::HalfOpen), None]);
        assert_eq!(courses(&[ack, reset_ack, reset]), [None, Some(Course::Abandoned), None]);
        assert_eq!(
            courses(&[ack, ack, push, push, reset]),
            [None, None, Some(Course::Exchanged), None, None]
        );
        assert_eq!(courses(&[push, reset]), [Some(Course::Exchanged), None]);
        assert_eq!(courses(&[ack, fin, reset]), [None; 3]);
        assert_eq!(courses(&[(0x02, 0), (0x12, 0), (0x00, 0)]), [None; 3]);
    }

    #[test]
    fn ten_thousand_open_questions_are_remembered_in_memory_that_never_grows() {
        let peers = peers();
        let memory = peers.memory_bytes();
        (0..10_000).for_each(|at| _ = peers.note_sent(&udp(20_000 + at, 53), NOW));
        let known = (0..10_000).filter(|at| peers.expect(&back(Protocol::Udp, 53, 20_000 + at), NOW)).count();
        assert_eq!(known, 10_000);
        (0..60_000).for_each(|at| _ = peers.note_sent(&udp(at, 123), NOW));
        assert_eq!(peers.memory_bytes(), memory);
    }

    #[test]
    fn a_host_is_heard_once_it_sent_something() {
        let peers = Peers::new(&[3; 16], false);
        let host = "192.0.2.1".parse().unwrap();
        assert!(!peers.hears(host));
        peers.note_sent(&tcp(80, 5_000, 0x14), NOW);
        assert!(peers.hears(host) && !peers.hears("192.0.2.2".parse().unwrap()));
    }
}
