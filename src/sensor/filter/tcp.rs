//! TCP segments: opening ones and bare ACKs of wanted ports, and whatever flags no connection ever has.
//!
//! Pure, main thread. What carries an established connection's bytes must never go up, whichever way it goes.
#![forbid(unsafe_code)]

use super::Writer;
use super::assembler::{Mark, code};
use super::interest::Interest;
use super::network::SEGMENT;
use super::ports::Port;
use crate::packet::TcpFlags;

pub(super) const SYN: u32 = TcpFlags::SYN as u32;
pub(super) const ACK: u32 = TcpFlags::ACK as u32;
const RST: u32 = TcpFlags::RST as u32;
const FIN: u32 = TcpFlags::FIN as u32;

impl Writer {
    pub(super) fn tcp(&mut self, interest: &Interest) -> Mark {
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

    pub(super) fn tcp_sent(&mut self, interest: &Interest) -> Mark {
        let opened = self.port_in(&interest.tcp_acks, Port::Source, self.accept, self.reject);
        let accepted = self.port_in(&interest.tcp, Port::Source, self.accept, self.reject);
        let syn = self.assembler.test(code::IF_ANY, ACK, accepted, opened);
        let syn = self.assembler.test(code::IF_ANY, SYN, syn, self.reject);
        let flags = self.assembler.test(code::IF_ANY, RST | FIN, self.reject, syn);
        self.assembler.operation(code::LOAD_BYTE_X, 13, flags)
    }
}
