//! The shortest way out, for the segments that streams consist of.
//!
//! Pure, main thread; the kernel runs it for every packet of the host, so each instruction counts. It must let go
//! nothing that the rest of the filter would let up.
#![forbid(unsafe_code)]

use super::Writer;
use super::assembler::{Mark, code};
use super::tcp::{ACK, SYN};
use super::transport::TCP;

/// Where a family's header, of its usual length and without options, has what [`Writer::segment`] asks for.
struct Layout {
    /// Of the length that it states.
    length: u32,
    /// The length from which on any TCP segment has a payload.
    with_payload: u32,
    /// Of the transport protocol.
    protocol: u32,
    /// Of the TCP flags behind it.
    flags: u32,
}

const IPV4: Layout = Layout { length: 2, with_payload: 20 + 60 + 1, protocol: 9, flags: 20 + 13 };
const IPV6: Layout = Layout { length: 4, with_payload: 60 + 1, protocol: 6, flags: 40 + 13 };

impl Writer {
    /// What streams consist of is let go before anything else is asked. Nothing new is said here: `whole` would not let
    /// it up either, after three times the instructions, in as many more lines of a cache that a stream keeps emptying.
    pub(super) fn streams(&mut self, whole: Mark) -> Mark {
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

    /// A TCP segment with ACK and without SYN: no probe if this host sends it, nor if it comes with a payload.
    fn segment(&mut self, layout: &Layout, whole: Mark) -> Mark {
        let outgoing = u32::from(libc::PACKET_OUTGOING);
        let way = self.assembler.test(code::IF_EQUAL, outgoing, self.reject, whole);
        let way = self.about(libc::SKF_AD_PKTTYPE, way);
        let long = self.assembler.test(code::IF_AT_LEAST, layout.with_payload, self.reject, way);
        let long = self.assembler.operation(code::LOAD_HALF, layout.length, long);
        let flags = self.assembler.test(code::IF_EQUAL, ACK, long, whole);
        let flags = self.assembler.operation(code::AND, SYN | ACK, flags);
        let flags = self.assembler.operation(code::LOAD_BYTE, layout.flags, flags);
        let tcp = self.assembler.test(code::IF_EQUAL, TCP, flags, whole);
        self.assembler.operation(code::LOAD_BYTE, layout.protocol, tcp)
    }
}
