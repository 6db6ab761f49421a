//! A set of networks, looked up by address: sorted, merged, binary-searched.
//!
//! Pure; both roles hold their never-block sets in one. Merging is also what the kernel's interval sets demand.
#![forbid(unsafe_code)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// An immutable set of addresses given as prefixes. IPv4-mapped IPv6 addresses count as IPv4.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks {
    v4: Vec<(u32, u32)>,
    v6: Vec<(u128, u128)>,
}

impl Networks {
    /// The union of `networks`. Host bits are ignored: `10.0.0.1/8` is `10.0.0.0/8`.
    pub fn new(networks: impl IntoIterator<Item = IpNet>) -> Networks {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for network in networks {
            match network {
                IpNet::V4(net) => v4.push((u32::from(net.network()), u32::from(net.broadcast()))),
                IpNet::V6(net) => v6.push((u128::from(net.network()), u128::from(net.broadcast()))),
            }
        }
        Networks { v4: merged(v4, 1), v6: merged(v6, 1) }
    }

    /// Adds `network`: what one takes to add to a set of many, where [`new`](Self::new) would sort them all again.
    pub fn insert(&mut self, network: &IpNet) {
        match network {
            IpNet::V4(net) => add(&mut self.v4, (u32::from(net.network()), u32::from(net.broadcast())), 1),
            IpNet::V6(net) => add(&mut self.v6, (u128::from(net.network()), u128::from(net.broadcast())), 1),
        }
    }

    /// Whether `address` is in the set.
    pub fn contains(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(address) => holds(&self.v4, u32::from(address)),
            IpAddr::V6(address) => holds(&self.v6, u128::from(address)),
        }
    }

    /// Whether any address of `network` is in the set.
    pub fn overlaps(&self, network: &IpNet) -> bool {
        match network {
            IpNet::V4(net) => meets(&self.v4, u32::from(net.network()), u32::from(net.broadcast())),
            IpNet::V6(net) => meets(&self.v6, u128::from(net.network()), u128::from(net.broadcast())),
        }
    }

    /// Disjoint IPv4 ranges in ascending order, both ends included.
    pub fn ranges_v4(&self) -> impl Iterator<Item = (Ipv4Addr, Ipv4Addr)> + '_ {
        self.v4.iter().map(|&(first, last)| (Ipv4Addr::from(first), Ipv4Addr::from(last)))
    }

    /// Disjoint IPv6 ranges in ascending order, both ends included.
    pub fn ranges_v6(&self) -> impl Iterator<Item = (Ipv6Addr, Ipv6Addr)> + '_ {
        self.v6.iter().map(|&(first, last)| (Ipv6Addr::from(first), Ipv6Addr::from(last)))
    }

    /// Whether the set holds no address.
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }
}

impl FromIterator<IpNet> for Networks {
    fn from_iter<I: IntoIterator<Item = IpNet>>(networks: I) -> Networks {
        Networks::new(networks)
    }
}

fn merged<T>(mut ranges: Vec<(T, T)>, one: T) -> Vec<(T, T)>
where
    T: Copy + Ord + std::ops::Sub<Output = T>,
{
    ranges.sort_unstable();
    let mut out: Vec<(T, T)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match out.last_mut() {
            // Overlapping, or touching end to end. The second test cannot underflow: first > before.1 there.
            Some(before) if first <= before.1 || first - before.1 == one => before.1 = before.1.max(last),
            _ => out.push((first, last)),
        }
    }
    out
}

/// Puts one range in its place, as one with those that it overlaps or touches.
fn add<T>(ranges: &mut Vec<(T, T)>, (mut first, mut last): (T, T), one: T)
where
    T: Copy + Ord + std::ops::Sub<Output = T>,
{
    // Neither difference can underflow: the test before it says which of the two is greater.
    let begin = ranges.partition_point(|range| range.1 < first && first - range.1 > one);
    let end = ranges.partition_point(|range| range.0 <= last || range.0 - last == one);
    for range in ranges.get(begin..end).unwrap_or_default() {
        (first, last) = (first.min(range.0), last.max(range.1));
    }
    ranges.splice(begin..end, [(first, last)]);
}

fn holds<T: Copy + Ord>(ranges: &[(T, T)], address: T) -> bool {
    meets(ranges, address, address)
}

fn meets<T: Copy + Ord>(ranges: &[(T, T)], first: T, last: T) -> bool {
    let at = ranges.partition_point(|range| range.1 < first);
    ranges.get(at).is_some_and(|range| range.0 <= last)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Of few addresses, so that they meet, at both ends of the space.
        #[test]
        fn one_by_one_they_make_the_same_set(all in prop::collection::vec((0u8..8, any::<bool>(), 29u8..=32), 0..12)) {
            let networks: Vec<IpNet> = all.iter().flat_map(|&(host, top, length)| {
                let v4 = if top { u32::MAX - u32::from(host) } else { host.into() };
                let v6 = if top { u128::MAX - u128::from(host) } else { host.into() };
                let v4 = IpNet::new(Ipv4Addr::from(v4).into(), length).unwrap();
                [v4, IpNet::new(Ipv6Addr::from(v6).into(), length + 96).unwrap()]
            }).collect();
            let mut set = Networks::default();
            networks.iter().for_each(|network| set.insert(network));
            prop_assert_eq!(set, Networks::new(networks));
        }
    }

    fn set(texts: &[&str]) -> Networks {
        texts.iter().map(|text| text.parse::<IpNet>().unwrap()).collect()
    }

    #[test]
    fn host_bits_are_ignored_and_edges_are_inside() {
        let networks = set(&["10.0.0.1/8", "fe80::1/10"]);
        for inside in ["10.0.0.0", "10.255.255.255", "::ffff:10.1.2.3", "fe80::", "febf:ffff::1"] {
            assert!(networks.contains(inside.parse().unwrap()), "{inside}");
        }
        for outside in ["9.255.255.255", "11.0.0.0", "fec0::", "::"] {
            assert!(!networks.contains(outside.parse().unwrap()), "{outside}");
        }
    }

    #[test]
    fn overlapping_and_touching_networks_become_one_range() {
        let networks =
            set(&["10.0.1.0/24", "10.0.0.0/24", "10.0.0.7/32", "0.0.0.0/32", "255.255.255.255/32"]);
        assert_eq!(networks.ranges_v4().count(), 3);
        assert!(networks.overlaps(&"10.0.0.0/8".parse().unwrap()));
        assert!(!networks.overlaps(&"10.0.2.0/24".parse().unwrap()));
    }

    #[test]
    fn the_whole_address_space_is_one_range() {
        let networks = set(&["0.0.0.0/0", "::/0", "1.2.3.4/32"]);
        assert_eq!((networks.ranges_v4().count(), networks.ranges_v6().count()), (1, 1));
        assert!(networks.contains("255.255.255.255".parse().unwrap()));
        assert!(Networks::default().is_empty());
    }
}
