//! What kinds of scan and which transports there are, under the names that events have for them.
//!
//! Pure. Never tells which of them a packet is.
#![forbid(unsafe_code)]

use std::fmt;

use serde::{Deserialize, Serialize};

/// The kinds of scan that are told apart; the names are those of the `scan.type` field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum ScanType {
    /// SYN alone (ECE and CWR ignored).
    Syn,
    /// A TCP handshake completed with a decoy.
    Connect,
    /// No flag at all.
    Null,
    /// FIN alone.
    Fin,
    /// FIN, PSH and URG.
    Xmas,
    /// FIN and ACK.
    Maimon,
    /// ACK alone (also nmap's window scan).
    Ack,
    /// Any other impossible combination; also a transport header torn into fragments that did not meet or read like an
    /// answer, or buried under more IPv6 extension headers than packets commonly have (RFC 9098 §4: to evade whoever looks).
    OtherFlags,
    /// A UDP datagram.
    Udp,
    /// An SCTP INIT chunk.
    SctpInit,
    /// An SCTP COOKIE ECHO chunk out of the blue.
    SctpCookieEcho,
    /// An IP protocol this host does not speak.
    IpProtocol,
    /// An ICMP query used for probing.
    Icmp,
}

impl ScanType {
    /// Whether no honest stack sends such a segment, so that one is proof enough of a crafted packet.
    ///
    /// RFC 9293 §3.10.7.4: once a connection exists every segment but a RST carries ACK, and one without it is dropped;
    /// so NULL, FIN, XMAS and their kin belong to no connection in any state, and SYN excludes FIN and RST (§3.5).
    /// [`ScanType::Maimon`] and [`ScanType::Ack`] are not among them: see [`ScanType::may_be_stray`].
    pub const fn is_impossible(self) -> bool {
        match self {
            ScanType::Null | ScanType::Fin | ScanType::Xmas | ScanType::OtherFlags => true,
            ScanType::Syn
            | ScanType::Connect
            | ScanType::Maimon
            | ScanType::Ack
            | ScanType::Udp
            | ScanType::SctpInit
            | ScanType::SctpCookieEcho
            | ScanType::IpProtocol
            | ScanType::Icmp => false,
        }
    }

    /// Whether a connection that this host has forgotten (a restart, a closed socket) would send the same.
    pub const fn may_be_stray(self) -> bool {
        matches!(self, ScanType::Maimon | ScanType::Ack)
    }
}

/// The transport of a probe, under the names of the `proto` field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[repr(u8)]
pub enum Protocol {
    /// IANA 6.
    Tcp = 6,
    /// IANA 17.
    Udp = 17,
    /// IANA 132.
    Sctp = 132,
    /// IANA 1 or 58.
    Icmp = 1,
    /// Anything else; the IANA number is in [`Probe::port`](super::Probe::port).
    Ip = 0,
}

impl Protocol {
    /// Its name in events and lines.
    pub const fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
            Protocol::Sctp => "SCTP",
            Protocol::Icmp => "ICMP",
            Protocol::Ip => "IP",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
