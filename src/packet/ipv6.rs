//! IPv6 (RFC 8200): fixed header, extension headers and fragments.
//!
//! Pure. Follows a bounded chain of hop-by-hop, routing, destination, fragment and authentication headers; what else
//! may follow (ESP, mobility, tunnels) is a protocol of its own.
#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod options;

use std::net::{IpAddr, Ipv6Addr};

use super::fragment::{self, Fragment};
use super::span::Span;
use super::transport::{self, Envelope, Version};
use super::{Checksums, Packet, Reject, Transport};

/// How many extension headers are followed. RFC 8200 §4.1 names seven in the recommended order.
pub const MAX_EXTENSIONS: usize = 8;

/// And how many bytes of them: with the fixed header before them and a TCP header behind they fit a ring's slot, which
/// holds 176 bytes. Nearly all packets stay far below: most that have more than 8 bytes never cross the Internet
/// (RFC 7872). Only within one operator's domain do honest ones have more: a segment routing header of 7 segments is 120
/// bytes (RFC 8754 §2), and what telemetry writes on the way may be as much again (IOAM, RFC 9486).
pub const MAX_EXTENSION_BYTES: usize = 112;

/// Bytes that no header is shorter than: RFC 8200 §4, RFC 768.
const SHORTEST: usize = 8;

/// So many of them are looked through for options that no host takes, where what they lead to is not in sight.
const FOLLOWED: usize = 32;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const NO_NEXT_HEADER: u8 = 59;
const DESTINATION_OPTIONS: u8 = 60;

/// `datagram` begins at the IP header and may end with padding.
#[inline(always)]
pub(super) fn parse(datagram: Span<'_>, checksums: Checksums) -> Result<Packet, Reject> {
    let [first, _, _, _, l0, l1, next, _, addresses @ ..] = datagram.head::<40>(Reject::IpHeader)?;
    if first >> 4 != 6 {
        return Err(Reject::IpVersion);
    }
    let (length, rest) = (u16::from_be_bytes([*l0, *l1]), datagram.skip(40, Reject::IpHeader)?);
    let is_unstated = length == 0 && *next == HOP_BY_HOP;
    let payload = if is_unstated { unstated(rest)? } else { rest.trim(length.into(), Reject::IpLength)? };
    let (source, destination) = split(addresses);
    if source.is_ipv4() || destination.is_ipv4() {
        return Err(Reject::MappedAddress);
    }
    let envelope = Envelope { version: Version::V6, addresses, checksums, first_fragment: None };
    let transport = extensions(*next, payload, envelope, is_unstated)?;
    if matches!(transport, Transport::Buried) && has_refused_options(*next, payload) {
        return Err(Reject::ExtensionHeader);
    }
    Ok(Packet { source, destination, ip_options: None, transport })
}

#[inline(always)]
fn split(addresses: &[u8; 32]) -> (IpAddr, IpAddr) {
    let (pair, _) = addresses.as_chunks::<16>();
    let [source, destination] = pair else {
        return (Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into());
    };
    (Ipv6Addr::from(*source).to_canonical(), Ipv6Addr::from(*destination).to_canonical())
}

/// The payload of a packet that leaves its length to a jumbo option (RFC 2675 §2). Linux demands no such option: without
/// one it takes all that came, and none that it accepts is shorter than this.
#[cold]
fn unstated(rest: Span<'_>) -> Result<Span<'_>, Reject> {
    if rest.length() > usize::from(u16::MAX) { Err(Reject::Jumbogram) } else { Ok(rest) }
}

/// Walks the chain from `next` to the transport header or to a fragment that holds none. `is_unstated`: the fixed header
/// says no length, so that what follows may be no fragment (RFC 2675 §3).
#[inline(always)]
fn extensions(
    next: u8,
    payload: Span<'_>,
    envelope: Envelope<'_>,
    is_unstated: bool,
) -> Result<Transport, Reject> {
    let (whole, mut fragmented) = (payload.length(), is_unstated);
    let (mut next, mut payload, mut envelope) = (next, payload, envelope);
    for at in 0..=MAX_EXTENSIONS {
        let (following, length) = match next {
            NO_NEXT_HEADER => return Err(Reject::NoNextHeader),
            // RFC 8200 §4.3: nowhere but at the beginning.
            HOP_BY_HOP if at > 0 => return Err(Reject::ExtensionHeader),
            FRAGMENT if fragmented => return Err(Reject::ExtensionHeader),
            _ if is_torn(payload, SHORTEST, &envelope) => return Ok(Transport::Buried),
            HOP_BY_HOP | DESTINATION_OPTIONS => of_units(payload)?,
            ROUTING => routing(payload)?,
            AUTHENTICATION => authentication(payload)?,
            FRAGMENT => {
                fragmented = true;
                let (following, fragment, rest) = fragment_header(payload)?;
                if fragment.offset > 0 {
                    return Ok(fragment::later(&fragment, following, rest));
                }
                // An atomic fragment (RFC 6946) is a whole packet.
                envelope.first_fragment = fragment.more.then_some(fragment.identification);
                (following, 8)
            }
            protocol => return transport::parse(protocol, payload, &envelope),
        };
        if is_torn(payload, length, &envelope) {
            break;
        }
        let left = payload.length().checked_sub(length).ok_or(Reject::ExtensionHeader)?;
        if whole.saturating_sub(left) > MAX_EXTENSION_BYTES {
            break;
        }
        (next, payload) = (following, payload.skip(length, Reject::ExtensionHeader)?);
    }
    Ok(Transport::Buried)
}

/// Whether the host drops, without a word, for the options in the chain from `next` what the chain hides: any of them, the
/// last in sight too, of which the rest may be in another fragment.
#[cold]
fn has_refused_options(mut next: u8, mut payload: Span<'_>) -> bool {
    for _ in 0..FOLLOWED {
        let header = match next {
            HOP_BY_HOP | DESTINATION_OPTIONS => of_units(payload),
            ROUTING => routing(payload),
            AUTHENTICATION => authentication(payload),
            FRAGMENT => beginning(payload),
            _ => return false,
        };
        let Ok((following, length)) = header else { return false };
        let has_options = matches!(next, HOP_BY_HOP | DESTINATION_OPTIONS);
        if has_options && options::are_refused(payload.captured(), length) {
            return true;
        }
        let Ok(rest) = payload.skip(length, Reject::ExtensionHeader) else { return false };
        (next, payload) = (following, rest);
    }
    false
}

/// Whether a header of `length` bytes goes on in a fragment to come. No honest stack tears there (RFC 7112), but Linux does
/// not mind: it has a transport header whole in the first fragment, and asks nothing of one that ends before the chain does
/// (ipv6frag_thdr_truncated; older kernels of none).
fn is_torn(payload: Span<'_>, length: usize, envelope: &Envelope<'_>) -> bool {
    envelope.first_fragment.is_some() && payload.length() < length
}

/// Next header and length, bytes, of a header whose second byte counts 8-byte units beyond the first.
fn of_units(payload: Span<'_>) -> Result<(u8, usize), Reject> {
    let [next, units] = *payload.head(Reject::ExtensionHeader)?;
    Ok((next, usize::from(units).saturating_add(1) << 3))
}

fn routing(payload: Span<'_>) -> Result<(u8, usize), Reject> {
    let [_, _, _, segments_left] = *payload.head(Reject::ExtensionHeader)?;
    if segments_left > 0 {
        return Err(Reject::SourceRouted);
    }
    of_units(payload)
}

/// RFC 4302 §2.2: counted in 4-byte units, minus 2.
fn authentication(payload: Span<'_>) -> Result<(u8, usize), Reject> {
    let [next, units] = *payload.head(Reject::ExtensionHeader)?;
    if units == 0 {
        return Err(Reject::ExtensionHeader);
    }
    Ok((next, usize::from(units).saturating_add(2) << 2))
}

/// Next header and length of a fragment header behind which that next one begins.
fn beginning(payload: Span<'_>) -> Result<(u8, usize), Reject> {
    let (following, fragment, _) = fragment_header(payload)?;
    if fragment.offset > 0 { Err(Reject::ExtensionHeader) } else { Ok((following, 8)) }
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

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
mod tests;
