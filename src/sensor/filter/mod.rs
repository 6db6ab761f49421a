//! What the rings are to see → the kernel filter that lets nothing else wake us (classic BPF).
//!
//! Pure: the sensor compiles it at start, on reload and when interfaces or services change. It may let too much
//! through (the parser judges for itself), never too little; traffic of established connections stays below.
#![forbid(unsafe_code)]

pub mod assembler;
#[cfg(test)]
mod machine;
#[cfg(test)]
mod promises;

use assembler::{Assembler, Mark, code};

pub use assembler::Instruction;

use super::frame::CAPTURED_BYTES;
use crate::config::PortSet;
use crate::packet::TcpFlags;

/// What is wanted. Ports of live services should be in none of the sets: their traffic is no probe.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interest {
    /// Where.
    pub interfaces: Watched,
    /// TCP ports whose opening segments (SYN alone) go up. Impossible flags go up on any port.
    pub tcp: PortSet,
    /// TCP ports where an ACK without payload goes up (ACK, window and Maimon scans). Ports that this host itself
    /// connects from must not be here, or each of its downloads' peers wakes us.
    pub tcp_acks: PortSet,
    /// UDP ports.
    pub udp: PortSet,
    /// UDP ports that this host asks from: only what comes from no system port (below 1024) goes up, or each answer of
    /// a resolver, time server or web server would wake us.
    pub udp_clients: PortSet,
    /// ICMP queries other than pings: timestamp and address mask.
    pub icmp: bool,
    /// IP protocols other than TCP, UDP, SCTP, ICMP, and those of routers and tunnels.
    pub other_protocols: bool,
    /// Also what this host itself sends to open a flow, or from a port that is wanted: see [`Writer::sent`].
    pub packet_types: PacketTypes,
}

/// The interfaces of an [`Interest`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Watched {
    /// Every one, loopback too, also those that come later.
    All,
    /// The same without loopback.
    #[default]
    AllButLoopback,
    /// These, by index.
    Indexes(Vec<u32>),
}

/// The packet types of linux/if_packet.h that an [`Interest`] includes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PacketTypes {
    /// PACKET_HOST: what is addressed to this host.
    #[default]
    ToUs,
    /// And PACKET_OUTGOING: what this host sends.
    ToUsAndFromUs,
}

/// A filter ready for the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// In running order.
    pub instructions: Vec<Instruction>,
    /// The interest was too ragged for a filter of bounded size: more goes up than was asked for.
    pub widened: bool,
}

/// Ranges a port set may have. Seven searches of 36 still fit, twice over, into 20,480 bytes: the `net.core.optmem_max`
/// of kernels before 6.8, where old and new filter count together during a swap.
const MOST_RANGES: usize = 36;
/// Interfaces that may be told apart.
const MOST_INTERFACES: usize = 64;
/// if_arp.h: ARPHRD_LOOPBACK.
const LOOPBACK: u32 = 772;

const TCP: u32 = 6;
const UDP: u32 = 17;
const SCTP: u32 = 132;
/// ICMP and ICMPv6.
const ICMP: [u32; 2] = [1, 58];
/// IPv6 extension headers that a loop would have to walk: hop-by-hop, routing, AH, destination options.
const EXTENSIONS: [u32; 4] = [0, 43, 51, 60];
/// ICMP timestamp and address mask requests (RFC 792, RFC 950); ICMPv6 has neither.
const QUERIES: [u32; 2] = [13, 17];
/// Protocols that routers and tunnels speak all day: IGMP, IP in IP, IPv6 in IP, GRE, ESP, AH.
const TUNNELS: [u32; 6] = [2, 4, 41, 47, 50, 51];
/// The first port that is no system port (RFC 6335 §6).
const FIRST_CLIENT_PORT: u32 = crate::detect::weights::FIRST_CLIENT_PORT as u32;
const FRAGMENT: u32 = 44;
/// 802.1Q, 802.1ad, and QinQ before the standard.
const VLANS: [u32; 3] = [0x8100, 0x88a8, 0x9100];

/// Scratch word: bytes after the IP header, as that header states them.
const SEGMENT: u32 = 0;
/// Scratch word: the transport protocol.
const PROTOCOL: u32 = 1;

const SYN: u32 = TcpFlags::SYN as u32;
const ACK: u32 = TcpFlags::ACK as u32;
const RST: u32 = TcpFlags::RST as u32;
const FIN: u32 = TcpFlags::FIN as u32;

/// The program for `interest`.
pub fn compile(interest: &Interest) -> Program {
    let mut assembler = Assembler::default();
    let reject = assembler.accept(0);
    let accept = assembler.accept(CAPTURED_BYTES as u32);
    let mut writer = Writer { assembler, accept, reject, widened: false };
    let transport = writer.transport(interest);
    let ipv4 = writer.ipv4(transport);
    let ipv6 = writer.ipv6(transport);
    let network = writer.network(ipv4, ipv6);
    let interfaces = writer.interfaces(&interest.interfaces, network);
    let whole = writer.packet_types(interest.packet_types, interfaces);
    writer.streams(whole);
    Program { widened: writer.widened, instructions: writer.assembler.finish() }
}

/// A filter that lets nothing up.
pub fn nothing() -> Program {
    let mut assembler = Assembler::default();
    assembler.accept(0);
    Program { instructions: assembler.finish(), widened: false }
}

/// Where a port stands in the transport header, the same in TCP, UDP and SCTP.
#[derive(Clone, Copy)]
enum Port {
    Source = 0,
    Destination = 2,
}

/// Each part is written after what it goes on to; see [`Assembler`].
struct Writer {
    assembler: Assembler,
    accept: Mark,
    reject: Mark,
    widened: bool,
}

/// Where a family's header, of its usual length and without options, has what [`Writer::segment`] asks for.
struct Layout {
    /// Of the length, and the length from which on any TCP segment has a payload.
    length: (u32, u32),
    /// Of the transport protocol.
    protocol: u32,
    /// Of the TCP flags behind it.
    flags: u32,
}

const IPV4: Layout = Layout { length: (2, 20 + 60 + 1), protocol: 9, flags: 20 + 13 };
const IPV6: Layout = Layout { length: (4, 60 + 1), protocol: 6, flags: 40 + 13 };

impl Writer {
    /// What streams consist of is let go before anything else is asked. Nothing new is said here: `whole` would not let
    /// it up either, after three times the instructions, in as many more lines of a cache that a stream keeps emptying.
    fn streams(&mut self, whole: Mark) -> Mark {
        let four = self.segment(&IPV4, whole);
        let fragment = self.assembler.test(code::IF_ANY, 0x3fff, whole, four);
        let fragment = self.assembler.operation(code::LOAD_HALF, 6, fragment);
        let plain = self.assembler.test(code::IF_EQUAL, 0x45, fragment, whole);
        let plain = self.assembler.operation(code::LOAD_BYTE, 0, plain);
        let six = self.segment(&IPV6, whole);
        let six = self.assembler.test(code::IF_EQUAL, libc::ETH_P_IPV6 as u32, six, whole);
        let four = self.assembler.test(code::IF_EQUAL, libc::ETH_P_IP as u32, plain, six);
        self.about(libc::SKF_AD_PROTOCOL, four)
    }

    /// A TCP segment with ACK, without SYN, and with a payload: no probe, whichever way it goes.
    fn segment(&mut self, layout: &Layout, whole: Mark) -> Mark {
        let flags = self.assembler.test(code::IF_EQUAL, ACK, self.reject, whole);
        let flags = self.assembler.operation(code::AND, SYN | ACK, flags);
        let flags = self.assembler.operation(code::LOAD_BYTE, layout.flags, flags);
        let tcp = self.assembler.test(code::IF_EQUAL, TCP, flags, whole);
        let tcp = self.assembler.operation(code::LOAD_BYTE, layout.protocol, tcp);
        let (length, with_payload) = layout.length;
        let long = self.assembler.test(code::IF_AT_LEAST, with_payload, tcp, whole);
        self.assembler.operation(code::LOAD_HALF, length, long)
    }

    fn packet_types(&mut self, types: PacketTypes, next: Mark) -> Mark {
        let outgoing = u32::from(libc::PACKET_OUTGOING);
        let wanted: &[u32] = match types {
            PacketTypes::ToUs => &[0],
            PacketTypes::ToUsAndFromUs => &[0, outgoing],
        };
        let test = self.assembler.any_of(wanted, next, self.reject);
        self.about(libc::SKF_AD_PKTTYPE, test)
    }

    fn interfaces(&mut self, watched: &Watched, next: Mark) -> Mark {
        match watched {
            Watched::All => next,
            Watched::AllButLoopback => {
                let test = self.assembler.test(code::IF_EQUAL, LOOPBACK, self.reject, next);
                self.about(libc::SKF_AD_HATYPE, test)
            }
            Watched::Indexes(indexes) if indexes.len() <= MOST_INTERFACES => {
                let test = self.assembler.any_of(indexes, next, self.reject);
                self.about(libc::SKF_AD_IFINDEX, test)
            }
            Watched::Indexes(_) => {
                self.widened = true;
                next
            }
        }
    }

    fn network(&mut self, ipv4: Mark, ipv6: Mark) -> Mark {
        let vlan = self.assembler.any_of(&VLANS, self.accept, self.reject);
        let six = self.assembler.test(code::IF_EQUAL, libc::ETH_P_IPV6 as u32, ipv6, vlan);
        let four = self.assembler.test(code::IF_EQUAL, libc::ETH_P_IP as u32, ipv4, six);
        self.about(libc::SKF_AD_PROTOCOL, four)
    }

    fn ipv4(&mut self, transport: Mark) -> Mark {
        let protocol = self.assembler.operation(code::LOAD_BYTE, 9, transport);
        let later = self.ipv4_later_fragment();
        let first = self.first_fragment(protocol);
        let more = self.assembler.test(code::IF_ANY, 0x2000, first, protocol);
        let fragment = self.assembler.test(code::IF_ANY, 0x1fff, later, more);
        let fragment = self.assembler.operation(code::LOAD_HALF, 6, fragment);
        let segment = self.assembler.operation(code::STORE, SEGMENT, fragment);
        let segment = self.assembler.operation(code::SUBTRACT_X, 0, segment);
        let segment = self.assembler.operation(code::LOAD_HALF, 2, segment);
        self.assembler.operation(code::X_HEADER_LENGTH, 0, segment)
    }

    /// A TCP segment's flags stand in its 14th byte. The shortest first fragment has 8, so besides that one only the
    /// fragment at 8 bytes (1 unit) can bring them: the rest of a fragmented stream stays below.
    fn ipv4_later_fragment(&mut self) -> Mark {
        let tcp = self.assembler.test(code::IF_EQUAL, TCP, self.accept, self.reject);
        let tcp = self.assembler.operation(code::LOAD_BYTE, 9, tcp);
        let second = self.assembler.test(code::IF_EQUAL, 1, tcp, self.reject);
        self.assembler.operation(code::AND, 0x1fff, second)
    }

    /// One too short for a TCP header goes up whatever it is; any other says all that a whole packet says.
    fn first_fragment(&mut self, whole: Mark) -> Mark {
        let long = self.assembler.test(code::IF_AT_LEAST, 20, whole, self.accept);
        self.assembler.operation(code::LOAD_MEMORY, SEGMENT, long)
    }

    fn ipv6(&mut self, transport: Mark) -> Mark {
        let fragment = self.ipv6_fragment();
        let plain = self.assembler.operation(code::X_IS, 40, transport);
        let extension = self.assembler.any_of(&EXTENSIONS, self.accept, plain);
        let next_header = self.assembler.test(code::IF_EQUAL, FRAGMENT, fragment, extension);
        let next_header = self.assembler.operation(code::LOAD_BYTE, 6, next_header);
        let segment = self.assembler.operation(code::STORE, SEGMENT, next_header);
        self.assembler.operation(code::LOAD_HALF, 4, segment)
    }

    /// Whole packets in a fragment header, first fragments, and those at 8 bytes.
    fn ipv6_fragment(&mut self) -> Mark {
        let offset = self.assembler.any_of(&[0, 8], self.accept, self.reject);
        let offset = self.assembler.operation(code::AND, 0xfff8, offset);
        self.assembler.operation(code::LOAD_HALF, 42, offset)
    }

    /// With the protocol in A and the transport header's place in X.
    fn transport(&mut self, interest: &Interest) -> Mark {
        let received = self.received(interest);
        if interest.packet_types == PacketTypes::ToUs {
            return received;
        }
        let sent = self.sent(interest);
        let [received, sent] =
            [received, sent].map(|way| self.assembler.operation(code::LOAD_MEMORY, PROTOCOL, way));
        let outgoing = u32::from(libc::PACKET_OUTGOING);
        let way = self.assembler.test(code::IF_EQUAL, outgoing, sent, received);
        let way = self.about(libc::SKF_AD_PKTTYPE, way);
        self.assembler.operation(code::STORE, PROTOCOL, way)
    }

    fn received(&mut self, interest: &Interest) -> Mark {
        let tcp = self.tcp(interest);
        let udp = self.udp(interest, Port::Destination, Port::Source);
        let sctp = self.sctp(&[1, 10]);
        let icmp = self.icmp(interest.icmp);
        let other = if interest.other_protocols { self.accept } else { self.reject };
        let other = self.assembler.any_of(&TUNNELS, self.reject, other);
        self.by_protocol(tcp, udp, sctp, icmp, other)
    }

    /// What this host sends, where an answer to it could go up: a connection it opens (SYN) from a port whose ACKs are
    /// wanted; the answer of a service (SYN and ACK) that was not known of; datagrams from wanted ports; an association
    /// opened or accepted. Never what is sent on an established connection.
    fn sent(&mut self, interest: &Interest) -> Mark {
        let tcp = self.tcp_sent(interest);
        let udp = self.udp(interest, Port::Source, Port::Destination);
        let sctp = self.sctp(&[1, 2]);
        self.by_protocol(tcp, udp, sctp, self.reject, self.reject)
    }

    fn by_protocol(&mut self, tcp: Mark, udp: Mark, sctp: Mark, icmp: Mark, other: Mark) -> Mark {
        let known = self.assembler.any_of(&ICMP, icmp, other);
        let known = self.assembler.test(code::IF_EQUAL, SCTP, sctp, known);
        let known = self.assembler.test(code::IF_EQUAL, UDP, udp, known);
        self.assembler.test(code::IF_EQUAL, TCP, tcp, known)
    }

    fn tcp_sent(&mut self, interest: &Interest) -> Mark {
        let opened = self.port_in(&interest.tcp_acks, Port::Source, self.accept, self.reject);
        let accepted = self.port_in(&interest.tcp, Port::Source, self.accept, self.reject);
        let syn = self.assembler.test(code::IF_ANY, ACK, accepted, opened);
        let syn = self.assembler.test(code::IF_ANY, SYN, syn, self.reject);
        let flags = self.assembler.test(code::IF_ANY, RST | FIN, self.reject, syn);
        self.assembler.operation(code::LOAD_BYTE_X, 13, flags)
    }

    fn udp(&mut self, interest: &Interest, ours: Port, theirs: Port) -> Mark {
        let stranger = self.assembler.test(code::IF_AT_LEAST, FIRST_CLIENT_PORT, self.accept, self.reject);
        let stranger = self.assembler.operation(code::LOAD_HALF_X, theirs as u32, stranger);
        let client = self.port_in(&interest.udp_clients, ours, stranger, self.reject);
        self.port_in(&interest.udp, ours, self.accept, client)
    }

    fn icmp(&mut self, wanted: bool) -> Mark {
        if !wanted {
            return self.reject;
        }
        let query = self.assembler.any_of(&QUERIES, self.accept, self.reject);
        self.assembler.operation(code::LOAD_BYTE_X, 0, query)
    }

    fn tcp(&mut self, interest: &Interest) -> Mark {
        let opening = self.destination_port(&interest.tcp, self.accept);
        let bare = self.without_payload();
        let bare = self.destination_port(&interest.tcp_acks, bare);
        let unanswered = self.without_ack(opening);
        // SYN+ACK and RST+ACK are answers: to us, or to whoever forged our address. No probe either way.
        let acknowledged = self.assembler.test(code::IF_ANY, SYN | RST, self.reject, bare);
        let answered = self.assembler.test(code::IF_ANY, ACK, acknowledged, unanswered);
        let with_syn = self.assembler.test(code::IF_ANY, FIN | RST, self.accept, answered);
        let flags = self.assembler.test(code::IF_ANY, SYN, with_syn, answered);
        self.assembler.operation(code::LOAD_BYTE_X, 13, flags)
    }

    /// A lone RST is an answer, a lone SYN a request; everything else without ACK is impossible.
    fn without_ack(&mut self, opening: Mark) -> Mark {
        let syn = self.assembler.test(code::IF_EQUAL, SYN, opening, self.accept);
        let classic = self.assembler.operation(code::AND, 0x3f, syn);
        self.assembler.test(code::IF_ANY, RST, self.reject, classic)
    }

    fn without_payload(&mut self) -> Mark {
        let compare = self.assembler.test(code::IF_EQUAL_X, 0, self.accept, self.reject);
        let compare = self.assembler.operation(code::X_FROM_MEMORY, SEGMENT, compare);
        let header = self.assembler.operation(code::SHIFT_RIGHT, 2, compare);
        let header = self.assembler.operation(code::AND, 0xf0, header);
        self.assembler.operation(code::LOAD_BYTE_X, 12, header)
    }

    /// By the first chunk: INIT (1) and COOKIE ECHO (10) open an association, INIT ACK (2) accepts one (RFC 9260 §3.2).
    fn sctp(&mut self, chunks: &[u32]) -> Mark {
        let chunk = self.assembler.any_of(chunks, self.accept, self.reject);
        self.assembler.operation(code::LOAD_BYTE_X, 12, chunk)
    }

    fn destination_port(&mut self, ports: &PortSet, next: Mark) -> Mark {
        self.port_in(ports, Port::Destination, next, self.reject)
    }

    fn port_in(&mut self, ports: &PortSet, port: Port, yes: Mark, no: Mark) -> Mark {
        let (ranges, widened) = coarsened(ports.ranges());
        self.widened |= widened;
        let search = self.assembler.in_ranges(&ranges, yes, no);
        self.assembler.operation(code::LOAD_HALF_X, port as u32, search)
    }

    /// Loads what the kernel knows about the packet: `what` is one of SKF_AD_*.
    fn about(&mut self, what: libc::c_int, next: Mark) -> Mark {
        self.assembler.operation(code::LOAD_WORD, (libc::SKF_AD_OFF + what).cast_unsigned(), next)
    }
}

/// At most [`MOST_RANGES`], by closing the narrowest gaps first.
fn coarsened(ranges: Vec<(u16, u16)>) -> (Vec<(u16, u16)>, bool) {
    let surplus = ranges.len().saturating_sub(MOST_RANGES);
    if surplus == 0 {
        return (ranges, false);
    }
    let gap = |pair: &[(u16, u16)]| match pair {
        [before, after] => after.0.saturating_sub(before.1),
        _ => 0,
    };
    let mut narrowest: Vec<(u16, usize)> = ranges.windows(2).map(gap).zip(1..).collect();
    narrowest.sort_unstable();
    let closed: std::collections::BTreeSet<usize> =
        narrowest.iter().take(surplus).map(|&(_, at)| at).collect();
    let mut out: Vec<(u16, u16)> = Vec::with_capacity(MOST_RANGES);
    for (at, range) in ranges.into_iter().enumerate() {
        match out.last_mut() {
            Some(before) if closed.contains(&at) => before.1 = range.1,
            _ => out.push(range),
        }
    }
    (out, true)
}
