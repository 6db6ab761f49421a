//! The host's own place in the network: its addresses, networks, broadcast addresses, gateways and interfaces, kept current.
//!
//! Both roles have one each: the helper does not take the sensor's word for which addresses must never be blocked.
//! Two sockets, both opened before confinement; reading them needs no right.
#![forbid(unsafe_code)]

mod doubt;
mod known;
mod stale;

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use ipnet::IpNet;

use self::doubt::{Lacking, Spell, take_in};
use self::known::Known;
use self::stale::{Rest, Stale};
use super::message::Malformed;
use super::retry::Retry;
use super::route::{self, Link, List};
use super::socket::Socket;

/// Readings at the start of lists that change under each: with what came in all of them it begins.
const ATTEMPTS: usize = 4;

/// What is known of the network around us.
#[derive(Debug)]
pub struct Surroundings {
    notifications: Socket,
    lists: Socket,
    known: Known,
    /// What of it no reading has had since one was not whole.
    doubted: Known,
    /// For how long addresses, links and routes were not had whole.
    spells: [Spell; 3],
    /// What must be read again, also after an attempt that failed.
    stale: Stale,
    /// Attempts at that that failed.
    retry: Retry,
    /// Until when that is put off.
    rest: Rest,
    /// What was read differs from what is known to whoever asks.
    changed: bool,
}

impl Surroundings {
    /// Opens both sockets and reads everything, several times where the lists change under it. Notifications are joined
    /// first, so that no change falls in between.
    pub fn open() -> io::Result<Surroundings> {
        let mut surroundings = Surroundings {
            notifications: Socket::open(libc::NETLINK_ROUTE, route::GROUPS)?,
            lists: Socket::open(libc::NETLINK_ROUTE, 0)?,
            known: Known::default(),
            doubted: Known::default(),
            spells: Default::default(),
            stale: Stale::ALL,
            retry: Retry::default(),
            rest: Rest::default(),
            changed: false,
        };
        for _ in 0..ATTEMPTS {
            surroundings.read_now()?;
            if !surroundings.stale.is_any() {
                break;
            }
        }
        Ok(surroundings)
    }

    /// Waits where lists cannot be read, but not where they change meanwhile. What is different is no news: nobody asked
    /// before.
    fn read_now(&mut self) -> io::Result<()> {
        loop {
            self.rest = Rest::default();
            self.drain()?;
            let Some(next) = self.retry.next() else { return Ok(()) };
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
        }
    }

    /// Takes in every notification that waits; `true` if anything is different now. Call it when [`AsFd::as_fd`] is readable,
    /// and at the time of [`next_try`](Self::next_try).
    ///
    /// A notification only says which list to read again, or adds what came to what is [`Known`]: order, replacement and loss
    /// of notifications then do not matter. Where they come all the time, the lists are read in the pace of [`Rest`].
    ///
    /// # Errors
    /// A list could not be read for some time, as [`Retry`] has it; until then what is known of it stands.
    pub fn drain(&mut self) -> io::Result<bool> {
        self.take_notifications()?;
        let begun = Instant::now();
        if self.stale.is_any() && self.rest.is_over(begun) {
            let read = self.read_again();
            let ended = Instant::now();
            self.rest = Rest::after(begun, ended);
            self.retry.settle(read, ended)?;
        }
        Ok(std::mem::take(&mut self.changed))
    }

    /// When to [`drain`](Self::drain) though nothing is readable: a list is yet to be read, or to be had whole.
    pub fn next_try(&self) -> Option<Instant> {
        self.rest.until().filter(|_| self.stale.is_any())
    }

    fn take_notifications(&mut self) -> io::Result<()> {
        let (stale, known, changed) = (&mut self.stale, &mut self.known, &mut self.changed);
        let doubted = &mut self.doubted;
        loop {
            match self.notifications.notifications() {
                Ok(Some(mut messages)) => messages.try_for_each(|message| {
                    if let Some(news) = route::decode(&message?) {
                        let learnt = known.learn(&news);
                        doubted.clear_of(&news);
                        stale.note(&news, learnt);
                        *changed |= learnt > 0;
                    }
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
        self.addresses().map(IpNet::from).chain(self.known.local.iter().copied())
    }

    /// The addresses of the host's interfaces.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.known.addresses.iter().map(|&(address, _)| address)
    }

    /// The interfaces that have `address`, by index.
    pub fn interfaces_of(&self, address: IpAddr) -> impl Iterator<Item = u32> + '_ {
        self.known.addresses.range((address, 0)..=(address, u32::MAX)).map(|&(_, interface)| interface)
    }

    /// The networks of our own links: whoever is in one is a neighbour.
    pub fn networks(&self) -> impl Iterator<Item = IpNet> + '_ {
        self.known.networks.iter().copied()
    }

    /// Gateways of all routes, of every table.
    pub fn gateways(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.known.gateways.iter().copied()
    }

    /// Directed broadcast addresses of the networks we are in (IPv4).
    pub fn broadcasts(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.known.broadcasts.iter().copied()
    }

    /// Whether what is sent to `address` is for all who hear it. IPv4-mapped addresses count as IPv4.
    pub fn is_for_everybody(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let is_limited_broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
        address.is_multicast() || is_limited_broadcast || self.known.broadcasts.contains(&address)
    }

    /// All interfaces, in the order of their indices.
    pub fn links(&self) -> impl Iterator<Item = &Link> + '_ {
        self.known.links.values()
    }

    /// Whether packets of others pass through this host.
    pub fn is_router(&self) -> bool {
        self.links().any(|link| link.forwards)
    }

    /// Whether an interface leads back to this host (IFF_LOOPBACK).
    pub fn is_loopback(&self, index: u32) -> bool {
        self.known.links.get(&index).is_some_and(|link| link.flags & libc::IFF_LOOPBACK as u32 != 0)
    }

    /// The name of an interface.
    pub fn interface_name(&self, index: u32) -> Option<&str> {
        self.known.links.get(&index).map(|link| link.name.as_str())
    }

    /// Whether an interface has this name, be it not its first.
    pub fn is_called(&self, index: u32, name: &str) -> bool {
        self.known.links.get(&index).is_some_and(|link| link.is_called(name))
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
        let addresses = if stale.addresses { self.read_addresses() } else { Ok(Reading::WHOLE) };
        let links = if stale.links { self.read_links() } else { Ok(Reading::WHOLE) };
        let routes = if stale.routes { self.read_routes() } else { Ok(Reading::WHOLE) };
        let is_due = |read: &io::Result<Reading>| !matches!(read, Ok(Reading { is_whole: true, .. }));
        self.stale = Stale {
            addresses: is_due(&addresses),
            links: is_due(&links),
            routes: is_due(&routes),
            learnt: if stale.routes { 0 } else { stale.learnt },
        };
        let read = [addresses, links, routes];
        self.changed |= read.iter().flatten().any(|reading| reading.has_news);
        read.into_iter().try_for_each(|read| read.map(drop))
    }

    fn read_addresses(&mut self) -> io::Result<Reading> {
        let (read, is_whole, lacking) = self.read(List::Addresses)?;
        let (known, doubted) = (&mut self.known, &mut self.doubted);
        let has_news = take_in(&mut known.broadcasts, &mut doubted.broadcasts, read.broadcasts, lacking)
            | take_in(&mut known.addresses, &mut doubted.addresses, read.addresses, lacking)
            | take_in(&mut known.networks, &mut doubted.networks, read.networks, lacking);
        Ok(Reading { is_whole, has_news })
    }

    fn read_links(&mut self) -> io::Result<Reading> {
        let (read, is_whole, lacking) = self.read(List::Links)?;
        let has_news = take_in(&mut self.known.links, &mut self.doubted.links, read.links, lacking);
        Ok(Reading { is_whole, has_news })
    }

    fn read_routes(&mut self) -> io::Result<Reading> {
        let (read, is_whole, lacking) = self.read(List::Routes)?;
        let (known, doubted) = (&mut self.known, &mut self.doubted);
        let has_news = take_in(&mut known.gateways, &mut doubted.gateways, read.gateways, lacking)
            | take_in(&mut known.local, &mut doubted.local, read.local, lacking);
        Ok(Reading { is_whole, has_news })
    }

    /// What was read, whether it was whole, and what that says of what it lacks.
    fn read(&mut self, list: List) -> io::Result<(Known, bool, Lacking)> {
        let (read, is_whole) = self.lists.dump_once(
            list.number(),
            |message| list.fill(message),
            |message, found: &mut Known| found.extend(route::decode(message)),
        )?;
        let [addresses, links, routes] = &mut self.spells;
        let spell = match list {
            List::Addresses => addresses,
            List::Links => links,
            List::Routes => routes,
        };
        Ok((read, is_whole, spell.note(is_whole, Instant::now())))
    }
}

/// How a list was read.
struct Reading {
    /// It did not change meanwhile.
    is_whole: bool,
    /// Something is different from before.
    has_news: bool,
}

impl Reading {
    const WHOLE: Reading = Reading { is_whole: true, has_news: false };
}

impl AsFd for Surroundings {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.notifications.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
