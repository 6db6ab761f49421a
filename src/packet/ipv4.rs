//! IPv4 (RFC 791): header, options, total length, checksum and fragments.
//!
//! Pure. Judges lengths, never addresses: martians are a matter of policy. Tunnels are not entered.
#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::net::{IpAddr, Ipv4Addr};

use super::checksum::Sum;
use super::fragment::{self, Fragment};
use super::span::Span;
use super::transport::{self, Envelope, Version};
use super::{Checksums, Packet, Reject, Transport};

/// The More Fragments bit and the 13 bits of offset; Don't Fragment and the reserved bit say nothing of fragments.
const MORE: u16 = 0x2000;
const OFFSET: u16 = 0x1fff;

/// The facts of the fixed header that matter here.
struct Header<'a> {
    length: usize,
    total_length: u16,
    identification: u16,
    fragmentation: u16,
    protocol: u8,
    addresses: &'a [u8; 8],
}

impl Header<'_> {
    fn fragment(&self) -> Fragment {
        Fragment {
            identification: self.identification.into(),
            offset: (self.fragmentation & OFFSET) << 3,
            more: self.fragmentation & MORE != 0,
        }
    }
}

/// `datagram` begins at the IP header and may end with padding.
#[inline(always)]
pub(super) fn parse(datagram: Span<'_>, checksums: Checksums) -> Result<Packet, Reject> {
    let header = header(datagram)?;
    // Cut to the stated length first: padding is neither payload nor summed.
    let datagram = datagram.trim(header.total_length.into(), Reject::IpLength)?;
    let payload = datagram.skip(header.length, Reject::IpLength)?;
    if checksums != Checksums::Trust
        && !is_intact(datagram.front(header.length, Reject::IpLength)?, checksums)
    {
        return Err(Reject::IpChecksum);
    }
    let [s0, s1, s2, s3, d0, d1, d2, d3] = *header.addresses;
    Ok(Packet {
        source: IpAddr::V4(Ipv4Addr::new(s0, s1, s2, s3)),
        destination: IpAddr::V4(Ipv4Addr::new(d0, d1, d2, d3)),
        ip_options: Some(header.length > 20),
        transport: content(&header, payload, checksums)?,
    })
}

#[inline(always)]
fn header(datagram: Span<'_>) -> Result<Header<'_>, Reject> {
    let [first, _, t0, t1, i0, i1, f0, f1, _, protocol, _, _, addresses @ ..] =
        datagram.head::<20>(Reject::IpHeader)?;
    if first >> 4 != 4 {
        return Err(Reject::IpVersion);
    }
    let length = usize::from(first & 0x0f) << 2;
    if length < 20 {
        return Err(Reject::IpHeader);
    }
    Ok(Header {
        length,
        total_length: u16::from_be_bytes([*t0, *t1]),
        identification: u16::from_be_bytes([*i0, *i1]),
        fragmentation: u16::from_be_bytes([*f0, *f1]),
        protocol: *protocol,
        addresses,
    })
}

/// Only a network card that sums for its host leaves 0: over a header, that is never the right sum.
fn is_intact(header: &[u8], checksums: Checksums) -> bool {
    let sum = Sum::default().bytes(header);
    sum.is_valid() || (checksums == Checksums::Captured && header.get(10..12) == Some(&[0, 0]))
}

#[inline(always)]
fn content(header: &Header<'_>, payload: Span<'_>, checksums: Checksums) -> Result<Transport, Reject> {
    let (mut payload, mut first_fragment) = (payload, None);
    if header.fragmentation & (MORE | OFFSET) != 0 {
        let fragment = header.fragment();
        payload = whole_units(&fragment, payload)?;
        // What is reassembled must fit in a total length, header included.
        fragment.fits(payload.length().saturating_add(header.length))?;
        if fragment.offset > 0 {
            return Ok(fragment::later(&fragment, header.protocol, payload));
        }
        first_fragment = Some(fragment.identification);
    }
    let envelope = Envelope { version: Version::V4, addresses: header.addresses, checksums, first_fragment };
    transport::parse(header.protocol, payload, &envelope)
}

/// Linux drops the odd end of a fragment that is not the last rather than the fragment.
fn whole_units<'a>(fragment: &Fragment, payload: Span<'a>) -> Result<Span<'a>, Reject> {
    let length = if fragment.more { payload.length() & !7 } else { payload.length() };
    if length == 0 {
        return Err(Reject::FragmentLength);
    }
    payload.trim(length, Reject::FragmentLength)
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
mod tests {
    use super::super::samples::{OPTIONS4, REST4, SYN4, TINY4, changed, syn4};
    use super::*;

    fn trusted(bytes: &[u8]) -> Result<Packet, Reject> {
        parse(Span::new(bytes, bytes.len()), Checksums::Trust)
    }

    fn verified(bytes: &[u8]) -> Result<Packet, Reject> {
        parse(Span::new(bytes, bytes.len()), Checksums::Verify)
    }

    fn padded(bytes: &[u8]) -> Vec<u8> {
        let mut padded = bytes.to_vec();
        padded.resize(46, 0);
        padded
    }

    #[test]
    fn options_are_skipped_and_reported() {
        assert_eq!(verified(&OPTIONS4), Ok(Packet { ip_options: Some(true), ..syn4() }));
    }

    #[test]
    fn a_wrong_header_checksum_matters_only_when_verified() {
        let bad = changed(&SYN4, 10, SYN4[10] ^ 1);
        assert_eq!(verified(&bad), Err(Reject::IpChecksum));
        assert_eq!(trusted(&bad), Ok(syn4()));
    }

    #[test]
    fn impossible_lengths_are_refused() {
        assert_eq!(trusted(&changed(&SYN4, 0, 0x44)), Err(Reject::IpHeader));
        assert_eq!(trusted(&changed(&SYN4, 3, 19)), Err(Reject::IpLength));
        assert_eq!(trusted(&changed(&SYN4, 3, 45)), Err(Reject::IpLength));
        assert_eq!(trusted(&changed(&SYN4, 0, 0x4c)), Err(Reject::IpLength));
        assert_eq!(trusted(&SYN4[..19]), Err(Reject::IpHeader));
    }

    #[test]
    fn an_8_byte_first_fragment_with_padding_is_no_null_scan() {
        let tiny = Transport::TinyFragment {
            protocol: 6,
            source_port: 40_000,
            port: 22,
            identification: 0x1234,
            sequence: 7,
        };
        assert_eq!(verified(&padded(&TINY4)), Ok(Packet { transport: tiny, ..syn4() }));
    }

    #[test]
    fn a_later_fragment_shows_its_beginning_without_padding() {
        let Ok(Packet { transport: Transport::LaterFragment { offset, head, head_length, .. }, .. }) =
            verified(&padded(&REST4))
        else {
            panic!("no later fragment")
        };
        assert_eq!((offset, head_length, &head[..8]), (8, 8, &REST4[20..]));
        assert_eq!(head[8..], [0; 8]);
    }

    #[test]
    fn both_halves_of_a_torn_syn_make_the_syn() {
        let mut table = super::super::Reassembly::new();
        assert_eq!(table.offer(verified(&padded(&TINY4)).unwrap(), (), 0), None);
        assert_eq!(table.offer(verified(&padded(&REST4)).unwrap(), (), 0), Some((syn4(), ())));
    }

    #[test]
    fn a_16_byte_first_fragment_shows_the_flags_at_once() {
        let mut first = SYN4[..36].to_vec();
        (first[3], first[6]) = (36, 0x20);
        assert_eq!(trusted(&first), Ok(syn4()));
        // Of what is not there yet no sum can be made: only the header's own is.
        let sum = first[..20].chunks(2).enumerate().filter(|(at, _)| *at != 5);
        let sum = sum.fold(0, |sum, (_, word)| sum + u32::from(u16::from_be_bytes([word[0], word[1]])));
        [first[10], first[11]] = (!((sum & 0xffff) + (sum >> 16)) as u16).to_be_bytes();
        assert_eq!(verified(&first), Ok(syn4()));
        let unsummed = changed(&changed(&first, 10, 0), 11, 0);
        assert_eq!(verified(&unsummed), Err(Reject::IpChecksum));
    }

    #[test]
    fn a_fragment_beyond_the_longest_packet_is_refused() {
        let mut last = REST4.to_vec();
        [last[6], last[7]] = [0x1f, 0xff];
        assert_eq!(trusted(&last), Err(Reject::FragmentRange));
        // The header counts too: 65,512 + 8 + 20.
        [last[6], last[7]] = [0x1f, 0xfd];
        assert_eq!(trusted(&last), Err(Reject::FragmentRange));
        // 65,504 + 8 bytes of payload + 20 of header end at 65,532.
        [last[6], last[7]] = [0x1f, 0xfc];
        assert!(trusted(&last).is_ok());
    }

    #[test]
    fn a_fragment_of_less_than_a_unit_is_refused_unless_it_is_the_last() {
        let short = changed(&TINY4, 3, 27);
        assert_eq!(trusted(&short), Err(Reject::FragmentLength));
        let last = changed(&changed(&REST4, 3, 27), 6, 0);
        assert!(trusted(&last).is_ok());
    }
}
