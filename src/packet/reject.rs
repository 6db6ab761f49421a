//! Why bytes are no packet: one reason each, so that counters can tell a cut capture from a forged header.
//!
//! Pure. A reject is counted, never scored: what the host itself would drop is no evidence.
#![forbid(unsafe_code)]

/// The reason why a frame yields no [`super::Packet`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[repr(u8)]
pub enum Reject {
    /// The capture (snaplen) ends before a header that was on the wire: not the sender's fault.
    #[error("the capture ends inside a header, capture more bytes of each frame")]
    CutShort,
    /// Fewer bytes on the wire than a link header or VLAN tag takes.
    #[error("the frame is shorter than its link header")]
    LinkHeader,
    /// More than [`super::MAX_VLAN_TAGS`] VLAN tags.
    #[error("the frame has more VLAN tags than are followed")]
    VlanDepth,
    /// ARP, LLC, PPPoE and every other payload that is not IP.
    #[error("the frame carries no IP")]
    NotIp,
    /// The version nibble is not what the link layer announced (or neither 4 nor 6).
    #[error("the IP version is not the announced one")]
    IpVersion,
    /// Shorter than an IP header, or an IPv4 header length under 20 bytes.
    #[error("the IP header is too short")]
    IpHeader,
    /// The IP length reaches beyond the frame or does not hold its own header.
    #[error("the IP length disagrees with the frame")]
    IpLength,
    /// RFC 791 header checksum.
    #[error("the IPv4 header checksum is wrong")]
    IpChecksum,
    /// A fragment without data, or (IPv6) one that is not the last and no multiple of 8 bytes.
    #[error("the fragment's length is impossible")]
    FragmentLength,
    /// A fragment that ends beyond 65,535 bytes (ping of death, teardrop).
    #[error("the fragment reaches beyond the longest packet")]
    FragmentRange,
    /// An IPv6 extension header that is cut off, or stands where RFC 8200 §4.1 or RFC 2675 §3 lets none stand.
    #[error("an IPv6 extension header is malformed or misplaced")]
    ExtensionHeader,
    /// An IPv6 packet from or to an IPv4-mapped address: none may be on a wire (RFC 4942 §2.2), and taken for IPv4 it would
    /// blame a host that sent nothing. Linux answers those from one all the same since 5.12, but for SYNs at a listener.
    #[error("an IPv6 packet bears an IPv4-mapped address")]
    MappedAddress,
    /// A routing header with segments left: no transport of this host will see it (RFC 5095), unless seg6_enabled
    /// has it obey the header, and that leads back here.
    #[error("the packet is source-routed to another node")]
    SourceRouted,
    /// RFC 2675: more than 65,535 bytes behind a payload length of 0. No segment of a scan is as long.
    #[error("the packet is a jumbogram")]
    Jumbogram,
    /// RFC 8200 §4.7: nothing follows.
    #[error("the packet says that nothing follows its headers")]
    NoNextHeader,
    /// Shorter than a TCP header, or an impossible data offset.
    #[error("the TCP header's length is impossible")]
    TcpHeader,
    /// RFC 9293 §3.1 checksum.
    #[error("the TCP checksum is wrong")]
    TcpChecksum,
    /// Shorter than a UDP header, or a length field that disagrees with IP's.
    #[error("the UDP length is impossible")]
    UdpLength,
    /// RFC 768 checksum, or none over IPv6 (RFC 8200 §8.1).
    #[error("the UDP checksum is wrong")]
    UdpChecksum,
    /// Shorter than the SCTP common header, or a chunk header that is cut off.
    #[error("the SCTP packet is shorter than its headers")]
    SctpHeader,
    /// RFC 9260 §6.8 CRC32c.
    #[error("the SCTP checksum is wrong")]
    SctpChecksum,
    /// Shorter than the 8 bytes every ICMP message has.
    #[error("the ICMP message is shorter than its header")]
    IcmpHeader,
    /// RFC 792 or RFC 4443 checksum.
    #[error("the ICMP checksum is wrong")]
    IcmpChecksum,
}

impl Reject {
    /// Every reason, in the order of their numbers: `ALL[reject as usize] == reject`.
    pub const ALL: [Self; 23] = [
        Self::CutShort,
        Self::LinkHeader,
        Self::VlanDepth,
        Self::NotIp,
        Self::IpVersion,
        Self::IpHeader,
        Self::IpLength,
        Self::IpChecksum,
        Self::FragmentLength,
        Self::FragmentRange,
        Self::ExtensionHeader,
        Self::MappedAddress,
        Self::SourceRouted,
        Self::Jumbogram,
        Self::NoNextHeader,
        Self::TcpHeader,
        Self::TcpChecksum,
        Self::UdpLength,
        Self::UdpChecksum,
        Self::SctpHeader,
        Self::SctpChecksum,
        Self::IcmpHeader,
        Self::IcmpChecksum,
    ];

    /// The counter's name in `stats`; it never changes once released.
    pub const fn name(self) -> &'static str {
        match self {
            Self::CutShort => "cut_short",
            Self::LinkHeader => "link_header",
            Self::VlanDepth => "vlan_depth",
            Self::NotIp => "not_ip",
            Self::IpVersion => "ip_version",
            Self::IpHeader => "ip_header",
            Self::IpLength => "ip_length",
            Self::IpChecksum => "ip_checksum",
            Self::FragmentLength => "fragment_length",
            Self::FragmentRange => "fragment_range",
            Self::ExtensionHeader => "extension_header",
            Self::MappedAddress => "mapped_address",
            Self::SourceRouted => "source_routed",
            Self::Jumbogram => "jumbogram",
            Self::NoNextHeader => "no_next_header",
            Self::TcpHeader => "tcp_header",
            Self::TcpChecksum => "tcp_checksum",
            Self::UdpLength => "udp_length",
            Self::UdpChecksum => "udp_checksum",
            Self::SctpHeader => "sctp_header",
            Self::SctpChecksum => "sctp_checksum",
            Self::IcmpHeader => "icmp_header",
            Self::IcmpChecksum => "icmp_checksum",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_found_under_its_own_number() {
        for (number, reject) in Reject::ALL.iter().enumerate() {
            assert_eq!(*reject as usize, number);
        }
    }

    #[test]
    fn names_are_distinct_and_snake_case() {
        let mut names: Vec<_> = Reject::ALL.iter().map(|reject| reject.name()).collect();
        assert!(names.iter().all(|name| name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Reject::ALL.len());
    }
}
