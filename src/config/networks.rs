//! Addresses and networks in the forms that people write them.
//!
//! Pure. Host bits are masked: `10.0.0.1/8` is `10.0.0.0/8`. IPv4-mapped IPv6 addresses become IPv4.
#![forbid(unsafe_code)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::error::Fault;

/// Between the networks of a list.
const SEPARATORS: [char; 3] = [',', ' ', '\t'];

/// Reads `address`, `address/length`, or for IPv4 `address/netmask`.
pub fn parse_network(text: &str) -> Result<IpNet, Fault> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    let network = match address.parse() {
        Ok(IpAddr::V4(v4)) => {
            IpNet::V4(v4_network(v4, length).map_err(|fault| fault.shifted(address.len() + 1))?)
        }
        Ok(IpAddr::V6(v6)) => v6_network(v6, length).map_err(|fault| fault.shifted(address.len() + 1))?,
        Err(_) => {
            let what = without_zone(text);
            let otherwise = || format!("`{address}` is not an IPv4 or IPv6 address; names are not looked up");
            return Err(Fault::new(0, what.unwrap_or_else(otherwise)));
        }
    };
    Ok(network.trunc())
}

/// What to say of an address with a zone (RFC 4007, section 11), as `fe80::1%eth0`. No response tells interfaces apart, nor
/// does the never-block set: to drop the zone unasked would shut out, or spare, others on other links.
pub fn without_zone(text: &str) -> Option<String> {
    let (address, zone) = text.split_once('%')?;
    address.parse::<Ipv6Addr>().ok()?;
    let length = zone.find('/').and_then(|at| zone.get(at..)).unwrap_or_default();
    Some(format!(
        "`{text}` has a zone, and addresses are meant on all interfaces alike: write {address}{length} if whoever has it on another link may be meant too"
    ))
}

/// Reads networks with commas or blanks between them.
pub fn parse_networks(text: &str) -> Result<Vec<IpNet>, Fault> {
    super::list::items(text, &SEPARATORS)
        .map(|(at, item)| parse_network(item).map_err(|fault| fault.shifted(at)))
        .collect()
}

/// What is doubtful about a right entry: an address without a length that ends in zeros, as a network does. Somebody who
/// means the network would leave all but one of its addresses unprotected.
pub fn doubt(item: &str) -> Option<String> {
    let (zeros, bits) = match item.parse().ok()? {
        IpAddr::V4(v4) => (v4.octets().iter().rev().take_while(|octet| **octet == 0).count() * 8, 32),
        IpAddr::V6(v6) => (v6.segments().iter().rev().take_while(|group| **group == 0).count() * 16, 128),
    };
    let length = bits - zeros;
    (zeros > 0 && length > 0).then(|| {
        format!(
            "`{item}` is a single address, though it ends in zeros as networks do: write {item}/{length} for the network, or {item}/{bits} for the address"
        )
    })
}

/// The doubtful ones in a list, each with its place.
pub fn doubts(text: &str) -> impl Iterator<Item = (usize, String)> {
    super::list::items(text, &SEPARATORS).filter_map(|(at, item)| Some((at, doubt(item)?)))
}

fn v4_network(address: Ipv4Addr, length: Option<&str>) -> Result<Ipv4Net, Fault> {
    let wrong =
        |text: &str| Fault::new(0, format!("`{text}` is neither a prefix length from 0 to 32 nor a netmask"));
    match length {
        None => Ok(Ipv4Net::from(address)),
        Some(text) => match (number(text), text.parse::<Ipv4Addr>()) {
            (Some(length), _) => Ipv4Net::new(address, length).map_err(|_| wrong(text)),
            (None, Ok(mask)) => Ipv4Net::with_netmask(address, mask)
                .map_err(|_| Fault::new(0, format!("netmask {mask} is not ones followed by zeros"))),
            (None, Err(_)) => Err(wrong(text)),
        },
    }
}

fn v6_network(address: Ipv6Addr, length: Option<&str>) -> Result<IpNet, Fault> {
    let wrong = |text: &str| Fault::new(0, format!("`{text}` is not a prefix length from 0 to 128"));
    let length = match length {
        None => 128,
        Some(text) => number(text).filter(|&length| length <= 128).ok_or_else(|| wrong(text))?,
    };
    let mapped = address.to_ipv4_mapped().zip(length.checked_sub(96));
    let network = match mapped {
        Some((v4, length)) => Ipv4Net::new(v4, length).map(IpNet::V4),
        None => Ipv6Net::new(address, length).map(IpNet::V6),
    };
    network.map_err(|_| wrong(&length.to_string()))
}

/// Digits only: `parse` alone would take `+8`.
fn number(text: &str) -> Option<u8> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_network_is_read_and_masked() {
        for (text, network) in [
            ("10.0.0.1", "10.0.0.1/32"),
            ("10.0.0.1/8", "10.0.0.0/8"),
            ("10.1.2.3/255.0.0.0", "10.0.0.0/8"),
            ("10.1.2.3/0.0.0.0", "0.0.0.0/0"),
            ("2001:DB8::FF/32", "2001:db8::/32"),
            ("::1", "::1/128"),
            ("::ffff:10.1.2.3", "10.1.2.3/32"),
            ("::ffff:10.1.2.3/104", "10.0.0.0/8"),
        ] {
            assert_eq!(parse_network(text).unwrap(), network.parse().unwrap(), "{text}");
        }
    }

    #[test]
    fn a_wrong_network_is_refused_where_it_goes_wrong() {
        for (text, offset) in [
            ("", 0),
            ("localhost", 0),
            ("10.0.0", 0),
            ("10.0.0.1/33", 9),
            ("10.0.0.1/", 9),
            ("10.0.0.1/+8", 9),
            ("10.0.0.1/255.0.255.0", 9),
            ("::1/129", 4),
            ("::1/255.0.0.0", 4),
            ("fe80::1%eth0", 0),
        ] {
            assert_eq!(parse_network(text).unwrap_err().offset, offset, "{text}");
        }
    }

    #[test]
    fn an_address_with_a_zone_is_refused_with_what_to_write_and_what_that_means() {
        for (text, plain) in
            [("fe80::1%eth0", "write fe80::1 if"), ("fe80::%eth0.7/64", "write fe80::/64 if")]
        {
            let message = parse_network(text).unwrap_err().message;
            assert!(message.contains(plain) && message.contains("on all interfaces alike"), "{message}");
        }
        for text in ["fe80::1", "eth0", "%", "192.0.2.1%eth0", "x%y"] {
            assert_eq!(without_zone(text), None, "{text}");
        }
    }

    #[test]
    fn an_address_that_looks_like_a_network_is_doubtful_unless_it_says_what_it_is() {
        for (item, meant) in [
            ("203.0.113.0", "203.0.113.0/24"),
            ("10.0.0.0", "10.0.0.0/8"),
            ("2001:db8:1::", "2001:db8:1::/48"),
        ] {
            assert!(doubt(item).is_some_and(|text| text.contains(meant)), "{item}");
        }
        for item in ["203.0.113.0/32", "203.0.113.0/24", "203.0.113.9", "0.0.0.0", "::", "2001:db8:1::7", "x"]
        {
            assert_eq!(doubt(item), None, "{item}");
        }
        assert_eq!(doubts("192.0.2.1, 10.0.0.0").map(|(at, _)| at).collect::<Vec<_>>(), [11]);
    }

    #[test]
    fn lists_take_commas_and_blanks_and_point_at_the_bad_entry() {
        assert_eq!(parse_networks(" 10.0.0.0/8, ::1 192.0.2.1,").unwrap().len(), 3);
        assert_eq!(parse_networks("10.0.0.0/8, bad").unwrap_err().offset, 12);
        assert_eq!(parse_networks("10.0.0.0/8,::1/200").unwrap_err().offset, 15);
    }
}
