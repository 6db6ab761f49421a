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

/// `datagram` begins at the IP header and may end with padding.
#[inline]
pub(super) fn parse(datagram: Span<'_>, checksums: Checksums) -> Result<Packet, Reject> {
    let header = header(datagram)?;
    // Cut to the stated length first: padding is neither payload nor summed.
    let datagram = datagram.trim(header.total_length.into(), Reject::IpLength)?;
    let payload = datagram.skip(header.length, Reject::IpLength)?;
    if checksums == Checksums::Verify
        && !Sum::default().bytes(datagram.front(header.length, Reject::IpLength)?).is_valid()
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

#[inline]
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

#[inline]
fn content(header: &Header<'_>, payload: Span<'_>, checksums: Checksums) -> Result<Transport, Reject> {
    let envelope =
        Envelope { version: Version::V4, addresses: header.addresses, checksums, first_fragment: None };
    if header.fragmentation & (MORE | OFFSET) == 0 {
        return transport::parse(header.protocol, payload, &envelope);
    }
    let fragment = Fragment {
        identification: header.identification.into(),
        offset: (header.fragmentation & OFFSET) << 3,
        more: header.fragmentation & MORE != 0,
    };
    let payload = whole_units(&fragment, payload)?;
    // What is reassembled must fit in a total length, header included.
    fragment.fits(payload.length().saturating_add(header.length))?;
    if fragment.offset > 0 {
        return Ok(fragment::later(&fragment, header.protocol, payload));
    }
    let envelope = Envelope { first_fragment: Some(fragment.identification), ..envelope };
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
