//! The network layer: which family, where the transport header stands, and which fragments can say something.
//!
//! Pure, main thread. Where a loop would be needed to find out (IPv6 extension headers), the packet goes up.
#![forbid(unsafe_code)]

use super::Writer;
use super::assembler::{Mark, code};
use super::transport::{SCTP, TCP};

/// IPv6 extension headers that a loop would have to walk: routing, AH, destination options.
const EXTENSIONS: [u32; 3] = [43, 51, 60];
const HOP_BY_HOP: u32 = 0;
const FRAGMENT: u32 = 44;
/// 802.1Q, 802.1ad, and QinQ before the standard.
const VLANS: [u32; 3] = [0x8100, 0x88a8, 0x9100];

/// Scratch word: bytes after the IP header, as that header states them.
pub(super) const SEGMENT: u32 = 0;

impl Writer {
    pub(super) fn network(&mut self, ipv4: Mark, ipv6: Mark) -> Mark {
        // What this host sends by a VLAN was heard there already, without the tag that its card did not put in.
        let tagged = self.if_it_came();
        let vlan = self.assembler.any_of(&VLANS, tagged, self.reject);
        let six = self.assembler.test(code::IF_EQUAL, libc::ETH_P_IPV6 as u32, ipv6, vlan);
        let four = self.assembler.test(code::IF_EQUAL, libc::ETH_P_IP as u32, ipv4, six);
        self.about(libc::SKF_AD_PROTOCOL, four)
    }

    pub(super) fn ipv4(&mut self, transport: Mark) -> Mark {
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

    /// A TCP segment's flags stand in its 14th byte, the type of SCTP's first chunk in its 13th. The shortest first fragment
    /// has 8, so besides that one only the fragment at 8 bytes (1 unit) can bring them: the rest of a fragmented stream
    /// stays below.
    fn ipv4_later_fragment(&mut self) -> Mark {
        let torn = self.assembler.any_of(&[TCP, SCTP], self.accept, self.reject);
        let torn = self.assembler.operation(code::LOAD_BYTE, 9, torn);
        let second = self.assembler.test(code::IF_EQUAL, 1, torn, self.reject);
        self.assembler.operation(code::AND, 0x1fff, second)
    }

    /// One too short for a TCP header goes up whatever it is; any other says all that a whole packet says.
    fn first_fragment(&mut self, whole: Mark) -> Mark {
        let long = self.assembler.test(code::IF_AT_LEAST, 20, whole, self.accept);
        self.assembler.operation(code::LOAD_MEMORY, SEGMENT, long)
    }

    pub(super) fn ipv6(&mut self, transport: Mark) -> Mark {
        let fragment = self.ipv6_fragment();
        let plain = self.assembler.operation(code::X_IS, 40, transport);
        let extension = self.assembler.any_of(&EXTENSIONS, self.accept, plain);
        // A host itself sends it with reports of the groups that it listens to (RFC 3810 §5), each time its router asks.
        let hop_by_hop = self.if_it_came();
        let extension = self.assembler.test(code::IF_EQUAL, HOP_BY_HOP, hop_by_hop, extension);
        let next_header = self.assembler.test(code::IF_EQUAL, FRAGMENT, fragment, extension);
        let next_header = self.assembler.operation(code::LOAD_BYTE, 6, next_header);
        let segment = self.assembler.operation(code::STORE, SEGMENT, next_header);
        self.assembler.operation(code::LOAD_HALF, 4, segment)
    }

    /// What this host sends is no reason to wake.
    fn if_it_came(&mut self) -> Mark {
        let way =
            self.assembler.test(code::IF_EQUAL, u32::from(libc::PACKET_OUTGOING), self.reject, self.accept);
        self.about(libc::SKF_AD_PKTTYPE, way)
    }

    /// Whole packets in a fragment header, first fragments, and those at 8 bytes.
    fn ipv6_fragment(&mut self) -> Mark {
        let offset = self.assembler.any_of(&[0, 8], self.accept, self.reject);
        let offset = self.assembler.operation(code::AND, 0xfff8, offset);
        self.assembler.operation(code::LOAD_HALF, 42, offset)
    }
}
