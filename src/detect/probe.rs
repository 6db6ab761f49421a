//! What one packet (or one visit to a decoy) is as a probe.
#![forbid(unsafe_code)]

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::packet::TcpFlags;

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
    /// Any other impossible combination.
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
    /// Anything else; the IANA number is in [`Probe::port`].
    Ip = 0,
}

/// One contact with a port by a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Who asked.
    pub source: IpAddr,
    /// Which of our addresses was asked.
    pub destination: IpAddr,
    /// Source port, 0 where there is none.
    pub source_port: u16,
    /// Destination port, 0 where there is none; for [`Protocol::Ip`] the IANA protocol number.
    pub port: u16,
    /// Transport.
    pub protocol: Protocol,
    /// What kind of scan sends such a packet.
    pub scan_type: ScanType,
    /// TCP flags as seen, 0 where there are none.
    pub flags: TcpFlags,
    /// TCP sequence number (0 elsewhere): with the ports it tells a retransmission from a new probe.
    pub sequence: u32,
    /// IPv4 options present; `None` where that cannot be known.
    pub ip_options: Option<bool>,
    /// The source proved that it receives at its address (it completed a handshake): not spoofable.
    pub verified: bool,
}
