//! What the rings are to see → the kernel filter that lets nothing else wake us (classic BPF).
//!
//! Pure: the sensor compiles it at start, on reload and when interfaces or services change. It may let too much
//! through (the parser judges for itself), never too little; traffic of established connections stays below.
#![forbid(unsafe_code)]

mod arrival;
pub mod assembler;
mod interest;
#[cfg(test)]
mod machine;
mod network;
mod ports;
#[cfg(test)]
mod promises;
mod streams;
mod tcp;
mod transport;

use assembler::{Assembler, Mark, code};

pub use assembler::Instruction;
pub use interest::{Interest, Watched};

use super::frame::CAPTURED_BYTES;

/// A filter ready for the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// In running order.
    pub instructions: Vec<Instruction>,
    /// The interest was too ragged for a filter of bounded size: more goes up than was asked for.
    pub widened: bool,
}

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
    let whole = writer.arrival(&interest.interfaces, network);
    writer.streams(whole);
    Program { widened: writer.widened, instructions: writer.assembler.finish() }
}

/// A filter that lets nothing up.
pub fn nothing() -> Program {
    let mut assembler = Assembler::default();
    assembler.accept(0);
    Program { instructions: assembler.finish(), widened: false }
}

/// Each part is written after what it goes on to; see [`Assembler`].
struct Writer {
    assembler: Assembler,
    accept: Mark,
    reject: Mark,
    widened: bool,
}

impl Writer {
    /// Loads what the kernel knows about the packet: `what` is one of SKF_AD_*.
    fn about(&mut self, what: libc::c_int, next: Mark) -> Mark {
        self.assembler.operation(code::LOAD_WORD, (libc::SKF_AD_OFF + what).cast_unsigned(), next)
    }
}
