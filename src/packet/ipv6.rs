//! IPv6 (RFC 8200): fixed header, extension headers and fragments.
//!
//! Pure. Follows a bounded chain of hop-by-hop, routing, destination, fragment and authentication headers; what else
//! may follow (ESP, mobility, tunnels) is a protocol of its own.
#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::net::{IpAddr, Ipv6Addr};

use super::fragment::{self, Fragment};
use super::span::Span;
use super::transport::{self, Envelope, Version};
use super::{Checksums, Packet, Reject, Transport};

/// How many extension headers are followed. RFC 8200 §4.1 names seven in the recommended order.
pub const MAX_EXTENSIONS: usize = 8;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const NO_NEXT_HEADER: u8 = 59;
const DESTINATION_OPTIONS: u8 = 60;

/// `datagram` begins at the IP header and may end with padding.
#[inline]
pub(super) fn parse(datagram: Span<'_>, checksums: Checksums) -> Result<Packet, Reject> {
    let [first, _, _, _, l0, l1, next, _, addresses @ ..] = datagram.head::<40>(Reject::IpHeader)?;
    if first >> 4 != 6 {
        return Err(Reject::IpVersion);
    }
    let length = u16::from_be_bytes([*l0, *l1]);
    if length == 0 && *next == HOP_BY_HOP {
        return Err(Reject::Jumbogram);
    }
    let payload = datagram.skip(40, Reject::IpHeader)?.trim(length.into(), Reject::IpLength)?;
    let envelope = Envelope { version: Version::V6, addresses, checksums, first_fragment: None };
    let transport = match *next {
        HOP_BY_HOP => {
            // RFC 8200 §4.3: nowhere but here.
            let (next, payload) = options(payload)?;
            extensions(next, payload, envelope)?
        }
        next => extensions(next, payload, envelope)?,
    };
    let (source, destination) = split(addresses);
    Ok(Packet { source, destination, ip_options: None, transport })
}

#[inline]
fn split(addresses: &[u8; 32]) -> (IpAddr, IpAddr) {
    let (pair, _) = addresses.as_chunks::<16>();
    let [source, destination] = pair else {
        return (Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into());
    };
    (Ipv6Addr::from(*source).to_canonical(), Ipv6Addr::from(*destination).to_canonical())
}

/// Walks the chain from `next` to the transport header or to a fragment that holds none.
#[inline]
fn extensions(next: u8, payload: Span<'_>, envelope: Envelope<'_>) -> Result<Transport, Reject> {
    let (mut next, mut payload, mut envelope, mut fragmented) = (next, payload, envelope, false);
    for _ in 0..=MAX_EXTENSIONS {
        (next, payload) = match next {
            DESTINATION_OPTIONS => options(payload)?,
            ROUTING => routing(payload)?,
            AUTHENTICATION => authentication(payload)?,
            FRAGMENT if fragmented => return Err(Reject::ExtensionHeader),
            FRAGMENT => {
                fragmented = true;
                let (next, fragment, rest) = fragment_header(payload)?;
                if fragment.offset > 0 {
                    return Ok(fragment::later(&fragment, next, rest));
                }
                // An atomic fragment (RFC 6946) is a whole packet.
                envelope.first_fragment = fragment.more.then_some(fragment.identification);
                (next, rest)
            }
            HOP_BY_HOP => return Err(Reject::ExtensionHeader),
            NO_NEXT_HEADER => return Err(Reject::NoNextHeader),
            protocol => return transport::parse(protocol, payload, &envelope),
        };
    }
    Err(Reject::ExtensionDepth)
}

/// Next header and what follows a header whose second byte counts 8-byte units beyond the first.
fn options(payload: Span<'_>) -> Result<(u8, Span<'_>), Reject> {
    let [next, units] = *payload.head(Reject::ExtensionHeader)?;
    let length = usize::from(units).saturating_add(1) << 3;
    Ok((next, payload.skip(length, Reject::ExtensionHeader)?))
}

fn routing(payload: Span<'_>) -> Result<(u8, Span<'_>), Reject> {
    let [_, _, _, segments_left] = *payload.head(Reject::ExtensionHeader)?;
    if segments_left > 0 {
        return Err(Reject::SourceRouted);
    }
    options(payload)
}

/// RFC 4302 §2.2: counted in 4-byte units, minus 2.
fn authentication(payload: Span<'_>) -> Result<(u8, Span<'_>), Reject> {
    let [next, units] = *payload.head(Reject::ExtensionHeader)?;
    if units == 0 {
        return Err(Reject::ExtensionHeader);
    }
    let length = usize::from(units).saturating_add(2) << 2;
    Ok((next, payload.skip(length, Reject::ExtensionHeader)?))
}

/// RFC 8200 §4.5, with its checks of the fragment's length.
fn fragment_header(payload: Span<'_>) -> Result<(u8, Fragment, Span<'_>), Reject> {
    let [next, _, high, low, identification @ ..] = *payload.head::<8>(Reject::ExtensionHeader)?;
    let place = u16::from_be_bytes([high, low]);
    let fragment = Fragment {
        identification: u32::from_be_bytes(identification),
        offset: place & !7,
        more: place & 1 != 0,
    };
    let rest = payload.skip(8, Reject::ExtensionHeader)?;
    let odd = fragment.more && rest.length() & 7 != 0;
    if odd || (rest.length() == 0 && (fragment.more || fragment.offset > 0)) {
        return Err(Reject::FragmentLength);
    }
    fragment.fits(rest.length())?;
    Ok((next, fragment, rest))
}
