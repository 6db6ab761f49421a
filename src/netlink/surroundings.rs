//! The host's own place in the network: its addresses, networks, broadcast addresses, gateways and interfaces, kept current.
//!
//! Both roles have one each: the helper does not take the sensor's word for which addresses must never be blocked.
//! Two sockets, both opened before confinement; reading them needs no right.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use ipnet::{IpNet, Ipv4Net};

use super::message::Malformed;
use super::retry::Retry;
use super::route::{self, Address, Link, List, News, Route};
use super::socket::Socket;

/// Gateways that are learnt one by one before the routes are read again: those that went are let go of then.
const LEARNT: usize = 1024;

/// What is known of the network around us.
#[derive(Debug)]
pub struct Surroundings {
    notifications: Socket,
    lists: Socket,
    /// Each with the interface that has it; two may have the same.
    addresses: BTreeSet<(IpAddr, u32)>,
    networks: BTreeSet<IpNet>,
    broadcasts: BTreeSet<IpAddr>,
    routes: Routes,
    links: BTreeMap<u32, Link>,
    /// What must be read again, also after an attempt that failed.
    stale: Stale,
    /// Attempts at that.
    retry: Retry,
    /// What was read differs from what is known to whoever asks.
    changed: bool,
}

/// What is known of the routes.
#[derive(Debug, Default, PartialEq)]
struct Routes {
    gateways: BTreeSet<IpAddr>,
    local: BTreeSet<IpNet>,
}

impl Extend<News> for Routes {
    fn extend<T: IntoIterator<Item = News>>(&mut self, news: T) {
        for news in news {
            match news {
                News::Route(Route { gateways, .. }) => self.gateways.extend(gateways),
                News::Local(network) => drop(self.local.insert(network)),
                News::Address(_) | News::Link(_) => {}
            }
        }
    }
}

/// Which lists must be read again.
#[derive(Clone, Copy, Debug, Default)]
struct Stale {
    addresses: bool,
    links: bool,
    routes: bool,
    /// Gateways that came since the routes were read.
    learnt: usize,
}

impl Stale {
    const ALL: Stale = Stale { addresses: true, links: true, routes: true, learnt: 0 };

    /// Of the routes to somewhere a router may have a million that change all the time, too many to read: one that comes
    /// names its gateways, which are `known` from now on; of those that go, theirs are let go of with the next reading.
    /// True if there is a new one.
    fn note(&mut self, news: News, known: &mut BTreeSet<IpAddr>) -> bool {
        let before = known.len();
        match news {
            News::Address(_) => self.addresses = true,
            News::Link(_) => self.links = true,
            News::Route(Route { is_there, is_default, gateways }) => {
                self.routes |= is_default;
                known.extend(gateways.into_iter().filter(|_| is_there));
            }
            News::Local(_) => self.routes = true,
        }
        let learnt = known.len() - before;
        self.learnt += learnt;
        // A link that goes down takes its routes along without a word for each (IPv4), and so may an address.
        self.routes |= self.links || self.addresses || self.learnt > LEARNT;
        learnt > 0
    }
}

impl Surroundings {
    /// Opens both sockets and reads everything, which waits while the lists keep changing. Notifications are joined first,
    /// so that no change falls in between.
    pub fn open() -> io::Result<Surroundings> {
        let mut surroundings = Surroundings {
            notifications: Socket::open(libc::NETLINK_ROUTE, route::GROUPS)?,
            lists: Socket::open(libc::NETLINK_ROUTE, 0)?,
            addresses: BTreeSet::new(),
            networks: BTreeSet::new(),
            broadcasts: BTreeSet::new(),
            routes: Routes::default(),
            links: BTreeMap::new(),
            stale: Stale::ALL,
            retry: Retry::default(),
            changed: false,
        };
        surroundings.drain()?;
        while let Some(next) = surroundings.next_try() {
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
            surroundings.drain()?;
        }
        Ok(surroundings)
    }

    /// Takes in every notification that waits; `true` if anything is different now. Call it when [`AsFd::as_fd`] is readable,
    /// and at the time of [`next_try`](Self::next_try).
    /// A notification only says which list to read again, or adds a gateway: order, replacement and loss of notifications
    /// then do not matter.
    ///
    /// # Errors
    /// A list could not be read for some time, as [`Retry`] has it; until then what is known of it stands.
    pub fn drain(&mut self) -> io::Result<bool> {
        self.take_notifications()?;
        if !self.retry.is_waiting(Instant::now()) {
            let read = self.read_again();
            self.retry.settle(read, Instant::now())?;
        }
        Ok(std::mem::take(&mut self.changed))
    }

    /// When to [`drain`](Self::drain) though nothing is readable: a list could not be read.
    pub fn next_try(&self) -> Option<Instant> {
        self.retry.next()
    }

    fn take_notifications(&mut self) -> io::Result<()> {
        let (stale, gateways, changed) = (&mut self.stale, &mut self.routes.gateways, &mut self.changed);
        loop {
            match self.notifications.notifications() {
                Ok(Some(mut messages)) => messages.try_for_each(|message| {
                    let news = route::decode(&message?);
                    *changed |= news.is_some_and(|news| stale.note(news, gateways));
                    Ok(())
                }),
                Ok(None) => return Ok(()),
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    *stale = Stale::ALL;
                    Ok(())
                }
                Err(error) => return Err(error),
            }
            .map_err(|malformed: Malformed| io::Error::other(malformed))?;
        }
    }

    /// All that is the host's own: its addresses, and networks that are local by route.
    pub fn own(&self) -> impl Iterator<Item = IpNet> + '_ {
        self.addresses().map(IpNet::from).chain(self.routes.local.iter().copied())
    }

    /// The addresses of the host's interfaces.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.addresses.iter().map(|&(address, _)| address)
    }

    /// The interfaces that have `address`, by index.
    pub fn interfaces_of(&self, address: IpAddr) -> impl Iterator<Item = u32> + '_ {
        self.addresses.range((address, 0)..=(address, u32::MAX)).map(|&(_, interface)| interface)
    }

    /// The networks of our own links: whoever is in one is a neighbour.
    pub fn networks(&self) -> impl Iterator<Item = IpNet> + '_ {
        self.networks.iter().copied()
    }

    /// Gateways of all routes, of every table.
    pub fn gateways(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.routes.gateways.iter().copied()
    }

    /// Directed broadcast addresses of the networks we are in (IPv4).
    pub fn broadcasts(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.broadcasts.iter().copied()
    }

    /// Whether what is sent to `address` is for all who hear it. IPv4-mapped addresses count as IPv4.
    pub fn is_for_everybody(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let is_limited_broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
        address.is_multicast() || is_limited_broadcast || self.broadcasts.contains(&address)
    }

    /// All interfaces, in the order of their indices.
    pub fn links(&self) -> impl Iterator<Item = &Link> + '_ {
        self.links.values()
    }

    /// Whether packets of others pass through this host.
    pub fn is_router(&self) -> bool {
        self.links().any(|link| link.forwards)
    }

    /// Whether an interface leads back to this host (IFF_LOOPBACK).
    pub fn is_loopback(&self, index: u32) -> bool {
        self.links.get(&index).is_some_and(|link| link.flags & libc::IFF_LOOPBACK as u32 != 0)
    }

    /// The name of an interface.
    pub fn interface_name(&self, index: u32) -> Option<&str> {
        self.links.get(&index).map(|link| link.name.as_str())
    }

    /// Whether an interface has this name, be it not its first.
    pub fn is_called(&self, index: u32, name: &str) -> bool {
        self.links.get(&index).is_some_and(|link| link.is_called(name))
    }

    /// Whether `address` is this host's: [`own`](Self::own), or in the loopback networks. IPv4-mapped addresses count as
    /// IPv4.
    pub fn is_own(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_loopback() || self.own().any(|network| network.contains(&address))
    }

    /// What the network tells us never to block: own addresses, gateways, broadcast addresses.
    pub fn never_block(&self) -> impl Iterator<Item = IpNet> + '_ {
        self.own().chain(self.gateways().chain(self.broadcasts()).map(IpNet::from))
    }

    /// A list that cannot be read keeps no other from being read and told of, nor is what was read before it forgotten.
    fn read_again(&mut self) -> io::Result<()> {
        let stale = self.stale;
        let addresses = if stale.addresses { self.read_addresses() } else { Ok(false) };
        let links = if stale.links { self.read_links() } else { Ok(false) };
        let routes = if stale.routes { self.read_routes() } else { Ok(false) };
        self.stale = Stale {
            addresses: addresses.is_err(),
            links: links.is_err(),
            routes: routes.is_err(),
            learnt: if stale.routes { 0 } else { stale.learnt },
        };
        let read = [addresses, links, routes];
        self.changed |= read.iter().any(|read| matches!(read, Ok(true)));
        read.into_iter().try_for_each(|read| read.map(drop))
    }

    fn read_addresses(&mut self) -> io::Result<bool> {
        let list: Vec<Address> = self.read(List::Addresses, |news| match news {
            News::Address(address) => Some(address),
            News::Link(_) | News::Route(_) | News::Local(_) => None,
        })?;
        let broadcasts = replace(&mut self.broadcasts, list.iter().flat_map(broadcasts_of).collect());
        let owned = list.iter().map(|address| (address.local, address.interface)).collect();
        let addresses = replace(&mut self.addresses, owned);
        let networks = replace(&mut self.networks, list.iter().filter_map(network_of).collect());
        Ok(broadcasts | addresses | networks)
    }

    fn read_links(&mut self) -> io::Result<bool> {
        let links = self.read(List::Links, |news| match news {
            News::Link(link) => Some((link.index, link)),
            News::Address(_) | News::Route(_) | News::Local(_) => None,
        })?;
        Ok(replace(&mut self.links, links))
    }

    fn read_routes(&mut self) -> io::Result<bool> {
        let routes = self.read(List::Routes, Some)?;
        Ok(replace(&mut self.routes, routes))
    }

    fn read<T, C, I>(&mut self, list: List, want: impl Fn(News) -> I) -> io::Result<C>
    where
        C: Default + Extend<T>,
        I: IntoIterator<Item = T>,
    {
        self.lists.dump(
            list.number(),
            |message| list.fill(message),
            |message, found: &mut C| {
                found.extend(route::decode(message).into_iter().flat_map(&want));
            },
        )
    }
}

impl AsFd for Surroundings {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.notifications.as_fd()
    }
}

fn replace<T: PartialEq>(old: &mut T, new: T) -> bool {
    let changed = *old != new;
    *old = new;
    changed
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
    fn a_gateway_that_comes_is_known_and_the_routes_are_not_read_for_it() {
        let (mut stale, mut known) = (Stale::default(), BTreeSet::new());
        let [first, second]: [IpAddr; 2] = ["192.0.2.1", "fe80::1"].map(|text| text.parse().unwrap());
        let route = |is_there, is_default, gateways: &[IpAddr]| {
            News::Route(Route { is_there, is_default, gateways: gateways.to_vec() })
        };
        assert!(stale.note(route(true, false, &[first, second]), &mut known), "news");
        assert_eq!(known, BTreeSet::from([first, second]));
        assert!(!stale.note(route(true, false, &[first]), &mut known), "none");
        known.remove(&second);
        assert!(!stale.note(route(false, false, &[first, second]), &mut known), "what goes is not added");
        assert_eq!(known, BTreeSet::from([first]), "and not removed: another route may lead by it");
        assert!(!stale.routes);
        assert!(!stale.note(route(false, true, &[second]), &mut known) && stale.routes);

        // Whoever changes its gateways all the time does not have them pile up.
        let (mut stale, mut known) = (Stale::default(), BTreeSet::new());
        let mut numbers = 0..;
        while !stale.routes {
            let gateway = std::net::Ipv4Addr::from(numbers.next().unwrap()).into();
            stale.note(route(true, false, &[gateway]), &mut known);
        }
        assert_eq!(known.len(), LEARNT + 1);
    }

    #[test]
    fn loopback_is_own_and_named_and_a_stranger_is_not() {
        let mut surroundings = Surroundings::open().unwrap();
        assert_eq!(surroundings.interface_name(1), Some("lo"));
        assert_eq!(surroundings.interface_name(u32::MAX), None);
        assert!(surroundings.is_own("127.3.2.1".parse().unwrap()));
        assert!(surroundings.is_own("::ffff:127.0.0.1".parse().unwrap()));
        assert!(!surroundings.is_own("203.0.113.9".parse().unwrap()));
        surroundings.drain().unwrap();
    }
}
