//! TCP, UDP, SCTP and ICMP headers inside an IP payload of known length.
//!
//! Pure. Believes lengths and checksums only as far as the receiving host would; of a first fragment it takes what
//! is there.
#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use super::checksum::{self, Checksums, Sum};
use super::span::Span;
use super::{Reject, TcpFlags, Transport};

/// IANA protocol numbers.
pub(super) const TCP: u8 = 6;
pub(super) const SCTP: u8 = 132;
const ICMP: u8 = 1;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;

/// The chunk type that stands for "no chunk" (255 is reserved by RFC 9260 §3.2).
const NO_CHUNK: u8 = 255;

/// The IP version, which decides what ICMP is and whether UDP may go without a checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    V4,
    V6,
}

/// What the IP header says about the payload.
#[derive(Clone, Copy, Debug)]
pub(super) struct Envelope<'a> {
    pub(super) version: Version,
    /// Source and destination as they stand in the header: the pseudo-header's beginning.
    pub(super) addresses: &'a [u8],
    pub(super) checksums: Checksums,
    /// The identification, if this is the first fragment of several.
    pub(super) first_fragment: Option<u32>,
}

impl Envelope<'_> {
    fn is_whole(&self) -> bool {
        self.first_fragment.is_none()
    }

    /// The bytes to verify, if they are to be and all of them are at hand.
    fn verifiable<'a>(&self, payload: Span<'a>) -> Option<&'a [u8]> {
        match self.checksums {
            Checksums::Verify | Checksums::Captured if self.is_whole() => payload.whole(),
            Checksums::Verify | Checksums::Captured | Checksums::Trust => None,
        }
    }

    /// Whether the payload is undamaged as far as can be told; the pseudo-header is that of RFC 9293 §3.1 and
    /// RFC 8200 §8.1, which sum alike. The checksum stands `at` so many bytes into the payload.
    #[inline(always)]
    fn is_intact(&self, protocol: u8, at: usize, payload: Span<'_>) -> bool {
        self.verifiable(payload).is_none_or(|bytes| {
            let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
            let pseudo = Sum::default().bytes(self.addresses).word(protocol.into()).word(length);
            pseudo.bytes(bytes).is_valid() || self.is_unfinished(pseudo, bytes, at)
        })
    }

    /// Whether the checksum in a capture file was left to a network card.
    fn is_unfinished(&self, pseudo: Sum, bytes: &[u8], at: usize) -> bool {
        let field = bytes.get(at..).and_then(|rest| rest.first_chunk());
        self.checksums == Checksums::Captured && pseudo.is_unfinished(field)
    }
}

/// Reads the header of `protocol` at the beginning of `payload`, which ends where IP says.
#[inline(always)]
pub(super) fn parse(protocol: u8, payload: Span<'_>, envelope: &Envelope<'_>) -> Result<Transport, Reject> {
    match (protocol, envelope.version) {
        (TCP, _) => tcp(payload, envelope),
        (UDP, _) => udp(payload, envelope),
        (SCTP, _) => sctp(payload, envelope),
        (ICMP, Version::V4) => icmp(payload, envelope),
        (ICMPV6, Version::V6) => icmpv6(payload, envelope),
        _ => Ok(Transport::Other { protocol }),
    }
}

#[inline(always)]
fn tcp(segment: Span<'_>, envelope: &Envelope<'_>) -> Result<Transport, Reject> {
    // The control bits are in byte 13: a first fragment of 16 bytes shows all that is asked for.
    if let Some(identification) = envelope.first_fragment.filter(|_| segment.length() < 14) {
        return tiny(TCP, identification, segment, Reject::TcpHeader);
    }
    let [s0, s1, d0, d1, q0, q1, q2, q3, _, _, _, _, offset, flags] = *segment.head(Reject::TcpHeader)?;
    let header_length = usize::from(offset >> 4) << 2;
    if header_length < 20 || (envelope.is_whole() && header_length > segment.length()) {
        return Err(Reject::TcpHeader);
    }
    if !envelope.is_intact(TCP, 16, segment) {
        return Err(Reject::TcpChecksum);
    }
    Ok(Transport::Tcp {
        source_port: u16::from_be_bytes([s0, s1]),
        port: u16::from_be_bytes([d0, d1]),
        flags: TcpFlags(flags),
        sequence: u32::from_be_bytes([q0, q1, q2, q3]),
        payload: beyond(segment.length(), header_length),
    })
}

/// The first eight bytes of TCP or SCTP: ports, and TCP's sequence number.
fn tiny(protocol: u8, identification: u32, segment: Span<'_>, short: Reject) -> Result<Transport, Reject> {
    let [s0, s1, d0, d1, sequence @ ..] = *segment.head::<8>(short)?;
    Ok(Transport::TinyFragment {
        protocol,
        source_port: u16::from_be_bytes([s0, s1]),
        port: u16::from_be_bytes([d0, d1]),
        identification,
        sequence: if protocol == TCP { u32::from_be_bytes(sequence) } else { 0 },
    })
}

#[inline(always)]
fn udp(datagram: Span<'_>, envelope: &Envelope<'_>) -> Result<Transport, Reject> {
    let [s0, s1, d0, d1, l0, l1, c0, c1] = *datagram.head(Reject::UdpLength)?;
    let length = match (u16::from_be_bytes([l0, l1]), envelope.version) {
        // RFC 2675 §4 lets the length be 0 in jumbograms, and Linux takes it in any IPv6 packet.
        (0, Version::V6) => datagram.length(),
        (length, Version::V4 | Version::V6) => length.into(),
    };
    if length < 8 || (envelope.is_whole() && length > datagram.length()) {
        return Err(Reject::UdpLength);
    }
    if !udp_is_intact(datagram, length, [c0, c1], envelope) {
        return Err(Reject::UdpChecksum);
    }
    Ok(Transport::Udp {
        source_port: u16::from_be_bytes([s0, s1]),
        port: u16::from_be_bytes([d0, d1]),
        payload: beyond(length, 8),
    })
}

/// A checksum of zero is none at all: fine over IPv4 (RFC 768), refused over IPv6 (RFC 8200 §8.1).
fn udp_is_intact(datagram: Span<'_>, length: usize, checksum: [u8; 2], envelope: &Envelope<'_>) -> bool {
    // What a first fragment lacks is part of the sum.
    if !envelope.is_whole() {
        return true;
    }
    match (checksum, envelope.version) {
        ([0, 0], Version::V4) => true,
        ([0, 0], Version::V6) => envelope.checksums != Checksums::Verify,
        ([_, _], Version::V4 | Version::V6) => {
            datagram.trim(length, Reject::UdpLength).is_ok_and(|bytes| envelope.is_intact(UDP, 6, bytes))
        }
    }
}

fn sctp(packet: Span<'_>, envelope: &Envelope<'_>) -> Result<Transport, Reject> {
    if let Some(identification) = envelope.first_fragment.filter(|_| packet.length() < 16) {
        return tiny(SCTP, identification, packet, Reject::SctpHeader);
    }
    let [s0, s1, d0, d1, ..] = *packet.head::<12>(Reject::SctpHeader)?;
    let chunk = match packet.length() {
        12 => NO_CHUNK,
        13..16 => return Err(Reject::SctpHeader),
        _ => {
            let [.., chunk] = *packet.head::<13>(Reject::SctpHeader)?;
            chunk
        }
    };
    let unfinished =
        |bytes: &[u8]| envelope.checksums == Checksums::Captured && bytes.get(8..12) == Some(&[0; 4]);
    let intact = |bytes| checksum::sctp_is_valid(bytes) || unfinished(bytes);
    if !envelope.verifiable(packet).is_none_or(intact) {
        return Err(Reject::SctpChecksum);
    }
    Ok(Transport::Sctp {
        source_port: u16::from_be_bytes([s0, s1]),
        port: u16::from_be_bytes([d0, d1]),
        chunk,
    })
}

/// RFC 792: summed without a pseudo-header.
fn icmp(message: Span<'_>, envelope: &Envelope<'_>) -> Result<Transport, Reject> {
    let [kind, code, ..] = *message.head::<8>(Reject::IcmpHeader)?;
    let intact =
        |bytes| Sum::default().bytes(bytes).is_valid() || envelope.is_unfinished(Sum::default(), bytes, 2);
    if !envelope.verifiable(message).is_none_or(intact) {
        return Err(Reject::IcmpChecksum);
    }
    Ok(Transport::Icmp { kind, code })
}

/// RFC 4443 §2.3: summed with the pseudo-header.
fn icmpv6(message: Span<'_>, envelope: &Envelope<'_>) -> Result<Transport, Reject> {
    let [kind, code, ..] = *message.head::<8>(Reject::IcmpHeader)?;
    if !envelope.is_intact(ICMPV6, 2, message) {
        return Err(Reject::IcmpChecksum);
    }
    Ok(Transport::Icmp { kind, code })
}

/// Payload bytes after a header; of a first fragment, those in it.
fn beyond(length: usize, header_length: usize) -> u16 {
    u16::try_from(length.saturating_sub(header_length)).unwrap_or(u16::MAX)
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
mod tests {
    use super::super::samples::{ICMP4, ICMP6, SCTP4, SYN4, SYN6, UDP4, UDP6, changed, syn4, syn6};
    use super::super::{LinkType, Packet};
    use super::*;

    fn trusted(bytes: &[u8]) -> Result<Transport, Reject> {
        super::super::parse(LinkType::Raw, bytes, Checksums::Trust).map(|packet| packet.transport)
    }

    fn verified(bytes: &[u8]) -> Result<Transport, Reject> {
        super::super::parse(LinkType::Raw, bytes, Checksums::Verify).map(|packet| packet.transport)
    }

    #[test]
    fn right_checksums_pass() {
        let Packet { transport: syn, .. } = syn4();
        let udp = Transport::Udp { source_port: 40_000, port: 53, payload: 3 };
        assert_eq!((verified(&SYN4), verified(&SYN6)), (Ok(syn), Ok(syn6().transport)));
        assert_eq!((verified(&UDP4), verified(&UDP6)), (Ok(udp), Ok(udp)));
        assert_eq!(verified(&SCTP4), Ok(Transport::Sctp { source_port: 40_000, port: 2905, chunk: 1 }));
        assert_eq!(verified(&ICMP4), Ok(Transport::Icmp { kind: 8, code: 0 }));
        assert_eq!(verified(&ICMP6), Ok(Transport::Icmp { kind: 128, code: 0 }));
    }

    #[test]
    fn a_damaged_last_byte_is_refused_when_verified_and_believed_when_trusted() {
        let damaged: [(&[u8], Reject); 7] = [
            (&SYN4, Reject::TcpChecksum),
            (&SYN6, Reject::TcpChecksum),
            (&UDP4, Reject::UdpChecksum),
            (&UDP6, Reject::UdpChecksum),
            (&SCTP4, Reject::SctpChecksum),
            (&ICMP4, Reject::IcmpChecksum),
            (&ICMP6, Reject::IcmpChecksum),
        ];
        for (sample, reject) in damaged {
            let last = sample.len() - 1;
            let bad = changed(sample, last, sample[last] ^ 0x10);
            assert_eq!(verified(&bad), Err(reject));
            assert_eq!(trusted(&bad), verified(sample));
        }
    }

    #[test]
    fn in_a_capture_an_unfinished_checksum_passes_and_a_wrong_one_does_not() {
        let captured = |bytes: &[u8]| {
            super::super::parse(LinkType::Raw, bytes, Checksums::Captured).map(|packet| packet.transport)
        };
        let fields: [(&[u8], usize); 7] =
            [(&SYN4, 36), (&SYN6, 56), (&UDP4, 26), (&UDP6, 46), (&SCTP4, 28), (&ICMP4, 22), (&ICMP6, 42)];
        for (sample, at) in fields {
            let mut blank = sample.to_vec();
            blank[at..at + if at == 28 { 4 } else { 2 }].fill(0);
            assert_eq!(captured(&blank), verified(sample), "{at}");
            assert!(captured(&changed(sample, at, sample[at] ^ 0x10)).is_err(), "{at}");
        }
        // 192.0.2.1 and .2, protocol 6, 24 bytes: c000+0201+c000+0202+6+18 folds to 8422.
        let partial = changed(&changed(&SYN4, 36, 0x84), 37, 0x22);
        assert_eq!(
            (captured(&partial), verified(&partial)),
            (Ok(syn4().transport), Err(Reject::TcpChecksum))
        );
    }

    #[test]
    fn the_pseudo_header_is_summed() {
        // The IPv4 header's own sum is kept right, so that only UDP's is wrong.
        let udp4 = changed(&changed(&UDP4, 19, UDP4[19] + 1), 11, UDP4[11] - 1);
        let udp6 = changed(&UDP6, 39, UDP6[39] + 1);
        assert_eq!(verified(&udp4), Err(Reject::UdpChecksum));
        assert_eq!(verified(&udp6), Err(Reject::UdpChecksum));
    }

    #[test]
    fn udp_may_go_without_a_checksum_over_ipv4_only() {
        let bare = |sample: &[u8], at| changed(&changed(sample, at, 0), at + 1, 0);
        assert_eq!(verified(&bare(&UDP4, 26)), verified(&UDP4));
        assert_eq!(verified(&bare(&UDP6, 46)), Err(Reject::UdpChecksum));
        assert_eq!(trusted(&bare(&UDP6, 46)), verified(&UDP6));
    }

    #[test]
    fn a_udp_length_may_be_shorter_than_the_payload_and_never_longer() {
        let shorter = Transport::Udp { source_port: 40_000, port: 53, payload: 1 };
        assert_eq!(trusted(&changed(&UDP4, 25, 9)), Ok(shorter));
        assert_eq!(trusted(&changed(&UDP4, 25, 12)), Err(Reject::UdpLength));
        assert_eq!(trusted(&changed(&UDP4, 25, 7)), Err(Reject::UdpLength));
        assert_eq!(trusted(&changed(&UDP4, 25, 0)), Err(Reject::UdpLength));
        assert_eq!(trusted(&changed(&UDP6, 45, 0)), verified(&UDP6));
    }

    #[test]
    fn a_tcp_data_offset_must_lie_within_the_segment() {
        assert_eq!(trusted(&changed(&SYN4, 32, 0x40)), Err(Reject::TcpHeader));
        assert_eq!(trusted(&changed(&SYN4, 32, 0x70)), Err(Reject::TcpHeader));
        let Ok(Transport::Tcp { payload, .. }) = trusted(&changed(&SYN4, 32, 0x50)) else {
            panic!("no TCP packet")
        };
        assert_eq!(payload, 4);
    }

    #[test]
    fn a_header_that_ip_leaves_no_room_for_is_refused() {
        assert_eq!(trusted(&changed(&SYN4, 3, 39)), Err(Reject::TcpHeader));
        assert_eq!(trusted(&changed(&UDP4, 3, 27)), Err(Reject::UdpLength));
        assert_eq!(trusted(&changed(&SCTP4, 3, 31)), Err(Reject::SctpHeader));
        assert_eq!(trusted(&changed(&SCTP4, 3, 35)), Err(Reject::SctpHeader));
        assert_eq!(trusted(&changed(&ICMP4, 3, 27)), Err(Reject::IcmpHeader));
    }

    #[test]
    fn an_sctp_packet_without_chunks_says_so() {
        let bare = trusted(&changed(&SCTP4, 3, 32));
        assert_eq!(bare, Ok(Transport::Sctp { source_port: 40_000, port: 2905, chunk: NO_CHUNK }));
    }

    #[test]
    fn icmp_of_the_other_version_is_another_protocol() {
        assert_eq!(trusted(&changed(&ICMP4, 9, 58)), Ok(Transport::Other { protocol: 58 }));
        assert_eq!(trusted(&changed(&ICMP6, 6, 1)), Ok(Transport::Other { protocol: 1 }));
    }
}
