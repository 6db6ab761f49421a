//! Sensor → helper.
#![forbid(unsafe_code)]

use ipnet::IpNet;

use crate::detect::probe::Protocol;

/// What the sensor may ask for. Every request carries an `id` that its replies repeat; ids rise by one from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Block a source.
    Block {
        /// Request number.
        id: u64,
        /// The source: one address, or an IPv6 prefix. Host bits are zero.
        target: IpNet,
        /// How long, seconds; 0 asks for BLOCK_TIME with the escalation for repeat offenders.
        seconds: u32,
        /// The port that was probed, for commands' `$PORT$`; 0 if an operator asked.
        port: u16,
        /// Its transport.
        protocol: Protocol,
        /// The handshake was completed: the source is not spoofed.
        verified: bool,
    },
    /// Lift a block.
    Unblock {
        /// Request number.
        id: u64,
        /// Exactly what was blocked.
        target: IpNet,
    },
    /// Answer with one [`crate::protocol::Reply::Entry`] a block, then `End`.
    List {
        /// Request number.
        id: u64,
    },
    /// Lift every block.
    Flush {
        /// Request number.
        id: u64,
    },
    /// Add a prefix to the never-block set until restart. There is no way to take one out.
    Protect {
        /// Request number.
        id: u64,
        /// The prefix; host bits are zero.
        network: IpNet,
    },
    /// Answer with `Pong`.
    Ping {
        /// Request number.
        id: u64,
    },
}
