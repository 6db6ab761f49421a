//! The transport layer: which way a packet goes and by which protocol; what of UDP, SCTP, ICMP and the rest goes up.
//!
//! Pure, main thread. Must not read the headers before: all that it has of them is what [`super::network`] leaves.
#![forbid(unsafe_code)]

use super::Writer;
use super::assembler::{Mark, code};
use super::interest::Interest;
use super::ports::Port;

pub(super) const TCP: u32 = 6;
const UDP: u32 = 17;
pub(super) const SCTP: u32 = 132;
/// ICMP and ICMPv6.
const ICMP: [u32; 2] = [1, 58];
/// ICMP timestamp and address mask requests (RFC 792, RFC 950); ICMPv6 has neither.
const QUERIES: [u32; 2] = [13, 17];
/// Protocols that routers and tunnels speak all day: IGMP, IP in IP, IPv6 in IP, GRE, ESP, AH.
const TUNNELS: [u32; 6] = [2, 4, 41, 47, 50, 51];
/// The first port that is no system port (RFC 6335 §6).
const FIRST_CLIENT_PORT: u32 = crate::detect::weights::FIRST_CLIENT_PORT as u32;

/// Scratch word: the transport protocol.
const PROTOCOL: u32 = 1;

impl Writer {
    /// With the protocol in A and the transport header's place in X.
    pub(super) fn transport(&mut self, interest: &Interest) -> Mark {
        let received = self.received(interest);
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

    /// By the first chunk: INIT (1) and COOKIE ECHO (10) open an association, INIT ACK (2) accepts one (RFC 9260 §3.2).
    fn sctp(&mut self, chunks: &[u32]) -> Mark {
        let chunk = self.assembler.any_of(chunks, self.accept, self.reject);
        self.assembler.operation(code::LOAD_BYTE_X, 12, chunk)
    }
}
