//! Frame bytes → [`Packet`] or [`Reject`]: everything the sensor believes about what came over the wire.
//!
//! Pure and total: any byte string yields one or the other, never a panic, an allocation or a read past the frame.
//! Knows nothing of configuration, sockets or what a scan is.
#![forbid(unsafe_code)]

mod checksum;
mod fragment;
mod ipv4;
mod ipv6;
mod link;
mod reassembly;
mod reject;
#[cfg(test)]
mod samples;
mod span;
mod transport;
mod vlan;

use std::net::IpAddr;

pub use checksum::Checksums;
pub use ipv6::{MAX_EXTENSION_BYTES, MAX_EXTENSIONS};
pub use link::{LinkType, MAX_VLAN_TAGS, is_to_many, parse, parse_cut};
pub use reassembly::{REASSEMBLY_ENTRIES, REASSEMBLY_SECONDS, Reassembly};
pub use reject::Reject;
pub use vlan::first_ethertype;

/// One parsed packet: addresses and the transport header's facts, in host byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Source address; never an IPv4-mapped one.
    pub source: IpAddr,
    /// Destination address, likewise.
    pub destination: IpAddr,
    /// The IPv4 header carries options (IHL > 5); `None` for IPv6, where the question does not arise.
    pub ip_options: Option<bool>,
    /// What the IP payload is.
    pub transport: Transport,
}

/// The transport header, as far as a probe is told by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// RFC 9293.
    Tcp {
        /// Source port.
        source_port: u16,
        /// Destination port.
        port: u16,
        /// The control bits.
        flags: TcpFlags,
        /// Sequence number: tells a retransmission from a new probe.
        sequence: u32,
        /// Bytes after the TCP header, as the IP length states them.
        payload: u16,
    },
    /// RFC 768.
    Udp {
        /// Source port.
        source_port: u16,
        /// Destination port.
        port: u16,
        /// Bytes after the UDP header.
        payload: u16,
    },
    /// RFC 9260: ports and the type of the first chunk (1 INIT, 10 COOKIE ECHO …).
    Sctp {
        /// Source port.
        source_port: u16,
        /// Destination port.
        port: u16,
        /// First chunk's type; 255 where the packet holds none.
        chunk: u8,
    },
    /// ICMP (RFC 792) or ICMPv6 (RFC 4443): type and code.
    Icmp {
        /// Type field; its meaning depends on the IP version.
        kind: u8,
        /// Code field.
        code: u8,
    },
    /// A first fragment too short for its transport header (`nmap -f`): only the ports are known. No honest stack tears
    /// there: over IPv4 a fragment holds 8 bytes only behind 40 bytes of options (RFC 791 §3.2), over IPv6 never
    /// (RFC 8200 §5).
    TinyFragment {
        /// IANA protocol number.
        protocol: u8,
        /// Source port.
        source_port: u16,
        /// Destination port.
        port: u16,
        /// Fragment identification, to meet the rest by.
        identification: u32,
        /// TCP sequence number or 0.
        sequence: u32,
    },
    /// A later fragment: no transport header here. `offset` in bytes.
    LaterFragment {
        /// IANA protocol number.
        protocol: u8,
        /// Fragment identification.
        identification: u32,
        /// Offset of this fragment in the whole payload, bytes.
        offset: u16,
        /// First payload bytes at that offset (zero-filled), enough to hold the TCP flags of an 8-byte first fragment.
        head: [u8; 16],
        /// How many bytes of `head` are real.
        head_length: u8,
    },
    /// Behind more IPv6 extension headers than are followed ([`MAX_EXTENSIONS`], [`MAX_EXTENSION_BYTES`]), or behind the end
    /// of a first fragment that ends among them.
    Buried,
    /// Any other IP protocol.
    Other {
        /// IANA protocol number.
        protocol: u8,
    },
}

impl Transport {
    /// Whether a host takes it, out of a packet to itself, from a frame that is to many too. Linux wants segments and chunks
    /// in frames of their own (tcp_v4_rcv, sctp_rcv), and complains of no protocol that it lacks but in those (icmp_send).
    pub const fn may_come_to_many(&self) -> bool {
        match self {
            Self::Udp { .. } | Self::Icmp { .. } | Self::Buried => true,
            Self::Tcp { .. }
            | Self::Sctp { .. }
            | Self::TinyFragment { .. }
            | Self::LaterFragment { .. }
            | Self::Other { .. } => false,
        }
    }

    /// Whether this may be half a header, for [`Reassembly::offer`] to complete. Asking first spares the hot path a copy.
    #[inline]
    pub const fn is_fragment(&self) -> bool {
        matches!(self, Self::TinyFragment { .. } | Self::LaterFragment { .. })
    }
}

/// The TCP control bits of RFC 9293 §3.1 as they stand in header byte 13 (CWR ECE URG ACK PSH RST SYN FIN).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    /// FIN bit.
    pub const FIN: u8 = 0x01;
    /// SYN bit.
    pub const SYN: u8 = 0x02;
    /// RST bit.
    pub const RST: u8 = 0x04;
    /// PSH bit.
    pub const PSH: u8 = 0x08;
    /// ACK bit.
    pub const ACK: u8 = 0x10;
    /// URG bit.
    pub const URG: u8 = 0x20;

    /// The six classic bits; ECE and CWR (RFC 3168) say nothing about the kind of probe.
    pub const fn classic(self) -> u8 {
        self.0 & 0x3f
    }

    /// Whether every bit of `bits` is set.
    pub const fn has(self, bits: u8) -> bool {
        self.0 & bits == bits
    }
}
