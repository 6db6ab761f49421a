//! What is known of the network around us, piece by piece: from the lists as they are read, and from what is told between.
//!
//! Pure; both roles. Only adds: of what went somebody else may still have a part, so that only a reading lets go of it.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

use super::doubt::Part;
use crate::netlink::route::{Address, Link, News, Route};

/// All that is known.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Each with the interface that has it; two may have the same.
    pub(super) addresses: BTreeSet<(IpAddr, u32)>,
    pub(super) networks: BTreeSet<IpNet>,
    pub(super) broadcasts: BTreeSet<IpAddr>,
    pub(super) gateways: BTreeSet<IpAddr>,
    pub(super) local: BTreeSet<IpNet>,
    pub(super) links: BTreeMap<u32, Link>,
}

impl Known {
    /// Takes in what came. Gives how much of it is new.
    ///
    /// Links may be watched by name: one is new if it comes or takes another name. All else of a link, as that it is up,
    /// changes often, and is known when the links are read.
    pub(super) fn learn(&mut self, news: &News) -> usize {
        match news {
            News::Address { is_there: true, address } => {
                usize::from(self.addresses.insert((address.local, address.interface)))
                    + add(&mut self.networks, network_of(address))
                    + add(&mut self.broadcasts, broadcasts_of(address))
            }
            News::Link { is_there: true, link } => self.learn_link(link),
            News::Route(Route { is_there: true, gateways, .. }) => {
                add(&mut self.gateways, gateways.iter().copied())
            }
            News::Local { is_there: true, network } => add(&mut self.local, [*network]),
            News::Address { is_there: false, .. }
            | News::Link { is_there: false, .. }
            | News::Route(Route { is_there: false, .. })
            | News::Local { is_there: false, .. } => 0,
        }
    }

    /// Where this is what is doubted: what came is there.
    pub(super) fn clear_of(&mut self, news: &News) {
        let mut came = Known::default();
        came.learn(news);
        self.addresses.leave_out(&came.addresses);
        self.networks.leave_out(&came.networks);
        self.broadcasts.leave_out(&came.broadcasts);
        self.gateways.leave_out(&came.gateways);
        self.local.leave_out(&came.local);
        self.links.leave_out(&came.links);
    }

    fn learn_link(&mut self, link: &Link) -> usize {
        let is_known = self.links.get(&link.index).is_some_and(|known| known.has_names_of(link));
        if !is_known {
            self.links.insert(link.index, link.clone());
        }
        usize::from(!is_known)
    }
}

impl Extend<News> for Known {
    fn extend<T: IntoIterator<Item = News>>(&mut self, news: T) {
        for news in news {
            self.learn(&news);
        }
    }
}

/// Gives how many were not in it.
fn add<T: Ord>(known: &mut BTreeSet<T>, came: impl IntoIterator<Item = T>) -> usize {
    came.into_iter().map(|one| usize::from(known.insert(one))).sum()
}

fn network_of(address: &Address) -> Option<IpNet> {
    IpNet::new(address.local, address.prefix_len).ok().map(|network| network.trunc())
}

/// The configured broadcast address, and the one that the kernel gives every network shorter than /31 besides
/// (`fib_add_ifaddr` in net/ipv4/fib_frontend.c).
fn broadcasts_of(address: &Address) -> impl Iterator<Item = IpAddr> + use<> {
    let derived = match address.local {
        IpAddr::V4(local) if address.prefix_len < 31 => Ipv4Net::new(local, address.prefix_len).ok(),
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    };
    derived.map(|network| IpAddr::V4(network.broadcast())).into_iter().chain(address.broadcast)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(local: &str, prefix_len: u8, broadcast: Option<&str>) -> Address {
        let broadcast = broadcast.map(|text| text.parse().unwrap());
        Address { interface: 1, local: local.parse().unwrap(), prefix_len, broadcast }
    }

    #[test]
    fn a_network_has_its_last_address_for_broadcast_and_the_configured_one() {
        let found = |address: &Address| broadcasts_of(address).map(|ip| ip.to_string()).collect::<Vec<_>>();
        assert_eq!(found(&address("192.0.2.7", 24, None)), ["192.0.2.255"]);
        assert_eq!(found(&address("192.0.2.7", 24, Some("192.0.2.0"))), ["192.0.2.255", "192.0.2.0"]);
        assert_eq!(found(&address("192.0.2.7", 31, None)), Vec::<String>::new());
        assert_eq!(found(&address("2001:db8::1", 64, None)), Vec::<String>::new());
    }

    #[test]
    fn an_address_that_comes_is_known_with_its_interface_its_network_and_its_broadcasts() {
        let mut known = Known::default();
        let address = address("192.0.2.7", 24, Some("192.0.2.0"));
        let mut learn = |is_there, interface| {
            known.learn(&News::Address { is_there, address: Address { interface, ..address } })
        };
        assert_eq!(learn(false, 1), 0);
        assert_eq!([learn(true, 1), learn(true, 1)], [4, 0]);
        assert_eq!(learn(true, 2), 1, "another has it besides");
        assert_eq!(learn(false, 2), 0);
        assert_eq!(known.addresses, BTreeSet::from([(address.local, 1), (address.local, 2)]));
        assert_eq!(known.networks, BTreeSet::from(["192.0.2.0/24".parse().unwrap()]));
        assert_eq!(known.broadcasts.len(), 2);
    }

    #[test]
    fn what_comes_is_not_doubted_any_more() {
        let address = address("192.0.2.7", 24, Some("192.0.2.0"));
        let gateways = vec!["192.0.2.1".parse().unwrap()];
        let news = [
            News::Address { is_there: true, address },
            News::Route(Route { is_there: true, is_default: false, gateways }),
            News::Local { is_there: true, network: "198.51.100.7/32".parse().unwrap() },
        ];
        let mut doubted = Known::default();
        doubted.extend(news.clone());
        news.iter().for_each(|news| doubted.clear_of(news));
        assert!(doubted.addresses.is_empty() && doubted.networks.is_empty() && doubted.broadcasts.is_empty());
        assert!(doubted.gateways.is_empty() && doubted.local.is_empty());
    }

    #[test]
    fn what_comes_to_be_the_hosts_own_is_known_and_not_let_go_of() {
        let mut known = Known::default();
        let own = |is_there| News::Local { is_there, network: "198.51.100.7/32".parse().unwrap() };
        assert_eq!([false, true, true, false].map(|is_there| known.learn(&own(is_there))), [0, 1, 0, 0]);
        assert_eq!(known.local.len(), 1, "two interfaces may have it");
    }

    #[test]
    fn a_gateway_that_comes_is_known_and_not_let_go_of() {
        let mut known = Known::default();
        let [first, second]: [IpAddr; 2] = ["192.0.2.1", "fe80::1"].map(|text| text.parse().unwrap());
        let mut learn = |is_there, gateways: &[IpAddr]| {
            known.learn(&News::Route(Route { is_there, is_default: false, gateways: gateways.to_vec() }))
        };
        assert_eq!(learn(true, &[first]), 1);
        assert_eq!(learn(false, &[first, second]), 0, "another route may lead by it");
        assert_eq!(learn(true, &[first, second]), 1);
        assert_eq!(known.gateways, BTreeSet::from([first, second]));
    }

    #[test]
    fn a_link_that_comes_or_takes_a_name_is_known_at_once_and_all_else_of_it_when_they_are_read() {
        let mut known = Known::default();
        let link = |name: &str, alternatives: &[&str], flags| Link {
            index: 7,
            name: name.to_owned(),
            alternatives: alternatives.iter().map(|&name| name.to_owned()).collect(),
            hardware: 1,
            flags,
            forwards: false,
            bridge: None,
        };
        let mut learn = |is_there, link: &Link| {
            let learnt = known.learn(&News::Link { is_there, link: link.clone() });
            (learnt, known.links.get(&7).cloned())
        };
        let [wire, cable, both] = [link("wire", &[], 0), link("cable", &[], 0), link("cable", &["wire"], 0)];
        assert_eq!(learn(true, &wire), (1, Some(wire.clone())));
        assert_eq!(learn(true, &wire), (0, Some(wire.clone())));
        assert_eq!(learn(true, &link("wire", &[], 1)), (0, Some(wire)), "the reading has it");
        assert_eq!(learn(true, &cable), (1, Some(cable)));
        assert_eq!(learn(true, &both), (1, Some(both.clone())));
        assert_eq!(learn(false, &both), (0, Some(both)));
    }
}
