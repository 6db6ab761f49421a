//! What the sensor knows of the host it runs on: addresses, interfaces, sockets; kept current over netlink.
//!
//! Main thread. Opened before confinement; reading needs no right.
#![forbid(unsafe_code)]

use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use ipnet::{IpNet, Ipv6Net};

use super::attention;
use super::connected::Connected;
use super::filter::{self, Interest, Watched};
use super::never_block;
use super::ports_in_use::PortsInUse;
use super::responder::Responder;
use super::ring::{RingControl, RingError};
use super::sightings::{Sighting, State};
use super::watcher::{Shared, View};
use crate::config::{Interfaces, PortSet};
use crate::detect::Probe;
use crate::detect::policy::Watch;
use crate::detect::probe::Protocol;
use crate::event::Event;
use crate::netlink::sock_diag::{SocketTables, Transport};
use crate::netlink::surroundings::Surroundings;
use crate::networks::Networks;

/// Questions about single sockets that cost no more than a list of all; a question takes a few microseconds.
const QUESTIONS: usize = 24;

/// Where IPv4 hosts appear as IPv6 ones (RFC 6052 §2.1, RFC 8215): neighbours there have nothing to do with each other.
const TRANSLATED: [IpNet; 2] = [
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96)),
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, 0, 0), 48)),
];

/// The host.
pub struct Host {
    surroundings: Surroundings,
    sockets: SocketTables,
    connected: Connected,
    /// NEVER_BLOCK, the ignore file and the resolvers.
    configured_never: Vec<IpNet>,
    interfaces: Interfaces,
    decoy_tcp: PortSet,
    decoy_udp: PortSet,
    /// `-S`: ports with a service count too.
    ignore_services: bool,
    rings: Option<(RingControl, Interest)>,
    /// Services came or went that the rings' filter does not know of; when it was set last, milliseconds of uptime.
    filter_is_stale: bool,
    filter_set: u64,
}

/// A filter is replaced at most so often, milliseconds: for a host whose sockets come and go all the time.
const REFILTER: u64 = 1000;

/// Why changes around us could not be followed.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// netlink.
    #[error(transparent)]
    Netlink(#[from] io::Error),
    /// The rings.
    #[error(transparent)]
    Ring(#[from] RingError),
}

/// What a [`Host`] is made of, beside what it opens itself.
pub struct Known {
    /// NEVER_BLOCK, the ignore file and the resolvers.
    pub configured_never: Vec<IpNet>,
    /// INTERFACES.
    pub interfaces: Interfaces,
    /// `-S`.
    pub ignore_services: bool,
}

impl Host {
    /// Opens route and sock_diag sockets and reads the surroundings.
    ///
    /// # Errors
    /// The kernel has no such netlink family.
    pub fn open(known: Known) -> io::Result<Host> {
        Ok(Host {
            surroundings: Surroundings::open()?,
            sockets: SocketTables::open()?,
            connected: Connected::open(),
            configured_never: known.configured_never,
            interfaces: known.interfaces,
            decoy_tcp: PortSet::new(),
            decoy_udp: PortSet::new(),
            ignore_services: known.ignore_services,
            rings: None,
            filter_is_stale: false,
            filter_set: 0,
        })
    }

    /// Which ports our own decoys hold: those are no services.
    pub fn set_decoys(&mut self, tcp: PortSet, udp: PortSet) {
        (self.decoy_tcp, self.decoy_udp) = (tcp, udp);
    }

    /// The rings to keep in step with the interfaces, and what they were opened for.
    pub fn set_rings(&mut self, rings: RingControl, interest: Interest) {
        self.rings = Some((rings, interest));
    }

    /// Packets that the rings brought, and that they had no room for.
    pub fn packets_and_drops(&self) -> (u64, u64) {
        let Some((rings, _)) = &self.rings else { return (0, 0) };
        let counters = rings.counters();
        // Where the kernel does not tell, the count as of the last time it did is the best there is.
        let drops = rings.count_drops().unwrap_or_else(|_| counters.dropped.load(Ordering::Relaxed));
        (counters.seen.load(Ordering::Relaxed), drops)
    }

    /// Slots of the rings that made no sense: a kernel bug if ever above 0.
    pub fn unreadable_slots(&self) -> u64 {
        self.rings.as_ref().map_or(0, |(rings, _)| rings.counters().unreadable.load(Ordering::Relaxed))
    }

    /// The network around us.
    pub fn surroundings(&self) -> &Surroundings {
        &self.surroundings
    }

    /// The never-block set as of now.
    pub fn never_block(&self) -> Networks {
        never_block::in_force(&self.configured_never, &self.surroundings)
    }

    /// The host's own addresses.
    pub fn own(&self) -> Networks {
        self.surroundings.addresses().map(IpNet::from).collect()
    }

    /// `watch`, with the networks in which IPv6 sources are judged one by one as of now.
    pub fn watch(&self, watch: &Watch) -> Watch {
        let protected = self.configured_never.iter().copied().chain(self.surroundings.never_block());
        let one_by_one = one_by_one(self.surroundings.networks(), protected, watch.ipv6_prefix);
        Watch { one_by_one, ..watch.clone() }
    }

    /// Takes in address, route and interface changes, and passes them on to whoever goes by them.
    ///
    /// # Errors
    /// The kernel's messages cannot be read, or it takes no new filter.
    pub fn follow(&mut self, responder: &mut Responder, shared: &Shared) -> Result<(), FollowError> {
        if !self.surroundings.drain()? {
            return Ok(());
        }
        self.pass_on(responder, shared);
        self.watch_interfaces()?;
        Ok(())
    }

    /// Goes by a new configuration from now on: further networks that are never blocked, other ports.
    ///
    /// # Errors
    /// The rings take no new filter.
    pub fn go_by(
        &mut self,
        never: &[IpNet],
        watch: Watch,
        responder: &mut Responder,
        shared: &Shared,
    ) -> Result<(), RingError> {
        let new: Vec<IpNet> =
            never.iter().filter(|network| !self.configured_never.contains(network)).copied().collect();
        self.configured_never.extend(new);
        responder.watch = Arc::new(watch);
        self.pass_on(responder, shared);
        let Some((rings, interest)) = self.rings.as_mut() else { return Ok(()) };
        *interest = attention::turned(interest, &responder.watch, &shared.in_use);
        rings.set_filter(&filter::compile(interest))
    }

    fn pass_on(&self, responder: &mut Responder, shared: &Shared) {
        responder.never = self.never_block();
        responder.watch = Arc::new(self.watch(&responder.watch));
        let view =
            View { watch: responder.watch.clone(), own: self.own(), ..View::clone(&shared.view.load()) };
        shared.view.store(Arc::new(view));
    }

    /// An interface that is made anew has another index. Rings of all interfaces see new ones by themselves.
    fn watch_interfaces(&mut self) -> Result<(), RingError> {
        let Interfaces::Named(names) = &self.interfaces else { return Ok(()) };
        let links = self.surroundings.links().filter(|link| names.contains(&link.name));
        let present = Watched::Indexes(links.map(|link| link.index).collect());
        let Some((rings, interest)) =
            self.rings.as_mut().filter(|(_, interest)| interest.interfaces != present)
        else {
            return Ok(());
        };
        interest.interfaces = present;
        rings.set_filter(&filter::compile(interest))
    }

    /// Looks at the host's sockets again.
    ///
    /// # Errors
    /// The kernel did not list them.
    pub fn look_at_sockets(&mut self, in_use: &PortsInUse, uptime: u64) -> io::Result<()> {
        if self.ignore_services {
            return Ok(());
        }
        let sockets = self.sockets.read()?;
        self.filter_is_stale |= in_use.replace(
            &sockets,
            |protocol, port| is_decoy(&self.decoy_tcp, &self.decoy_udp, protocol, port),
            uptime,
        );
        Ok(())
    }

    /// Whether asking about each of these with [`takes`](Self::takes) costs less than a list of all sockets, and tells
    /// all that a list would.
    pub fn may_ask(&self, sightings: &[Sighting]) -> bool {
        let each = self.surroundings.links().count().saturating_add(1);
        sightings.len().saturating_mul(each) <= QUESTIONS
            && sightings.iter().all(|sighting| match sighting.state {
                State::Counted(_) => sighting.probe.protocol != Protocol::Sctp,
                State::HalfOpen | State::Served | State::FromItself => true,
                // The ring threads' own picture is out of date: only a list puts it right.
                State::Doubtful => false,
            })
    }

    /// Whether a socket that is no decoy takes in this probe.
    ///
    /// # Errors
    /// The kernel did not say.
    pub fn takes(&mut self, probe: &Probe, interface: u32) -> io::Result<bool> {
        let Some(transport) = transport_of(probe.protocol) else { return Ok(false) };
        let ours = is_decoy(&self.decoy_tcp, &self.decoy_udp, probe.protocol, probe.port);
        if self.ignore_services || ours {
            return Ok(false);
        }
        let local = SocketAddr::new(probe.destination, probe.port);
        let remote = SocketAddr::new(probe.source, probe.source_port);
        // A socket may be bound to the bridge or VRF that the interface belongs to: any interface will do.
        let others = self.surroundings.links().map(|link| link.index).filter(|&index| index != interface);
        for index in std::iter::once(interface).chain(others) {
            if self.sockets.takes(transport, local, remote, index)? != Some(false) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether `source` has an open connection to this host, decoys aside; see [`Connected`].
    ///
    /// # Errors
    /// The kernel did not list them.
    pub fn is_connected_with(&mut self, source: IpNet) -> io::Result<bool> {
        self.connected.is(source, &self.decoy_tcp, &mut self.sockets)
    }

    /// What was learnt of connections in one turn is forgotten.
    pub fn begin_turn(&mut self) {
        self.connected.begin_turn();
    }

    /// Learns who is connected while nothing waits.
    pub fn look_around(&mut self) {
        self.connected.look_around(&mut self.sockets);
    }

    /// Turns the rings' attention away from ports in use, and back to those that are not. Returns whether it was time
    /// to: services came or went.
    ///
    /// # Errors
    /// The kernel takes no new filter.
    pub fn turn_attention(
        &mut self,
        watch: &Watch,
        in_use: &PortsInUse,
        uptime: u64,
    ) -> Result<bool, RingError> {
        let is_due = self.filter_is_stale && uptime.saturating_sub(self.filter_set) >= REFILTER;
        let Some((rings, interest)) = self.rings.as_mut().filter(|_| is_due) else { return Ok(false) };
        (self.filter_is_stale, self.filter_set) = (false, uptime);
        let turned = attention::turned(interest, watch, in_use);
        if turned != *interest {
            *interest = turned;
            rings.set_filter(&filter::compile(interest))?;
        }
        Ok(true)
    }

    /// The event, with the interface's name.
    pub fn with_interface(&self, event: &Event, index: u32) -> Event {
        let mut event = event.clone();
        if let Some(flow) = &mut event.flow {
            flow.in_iface = self.surroundings.interface_name(index).map(str::to_owned);
        }
        event
    }
}

/// Where IPv6 sources are judged one by one: on our own links, behind translators, around who is protected.
pub(crate) fn one_by_one(
    on_link: impl IntoIterator<Item = IpNet>,
    protected: impl IntoIterator<Item = IpNet>,
    prefix: u8,
) -> Networks {
    let around = protected.into_iter().filter_map(|network| around(network, prefix));
    on_link.into_iter().chain(TRANSLATED).chain(around).collect()
}

/// The prefix that a source beside this protected network would be judged by: it must not shield its neighbours.
fn around(network: IpNet, prefix: u8) -> Option<IpNet> {
    match network {
        IpNet::V6(v6) if v6.prefix_len() > prefix => {
            IpNet::new(v6.network().into(), prefix).ok().map(|wide| wide.trunc())
        }
        IpNet::V6(_) | IpNet::V4(_) => None,
    }
}

fn transport_of(protocol: Protocol) -> Option<Transport> {
    match protocol {
        Protocol::Tcp => Some(Transport::Tcp),
        Protocol::Udp => Some(Transport::Udp),
        Protocol::Sctp => Some(Transport::Sctp),
        Protocol::Icmp | Protocol::Ip => None,
    }
}

fn is_decoy(tcp: &PortSet, udp: &PortSet, protocol: Protocol, port: u16) -> bool {
    match protocol {
        Protocol::Tcp => tcp.contains(port),
        Protocol::Udp => udp.contains(port),
        Protocol::Sctp | Protocol::Icmp | Protocol::Ip => false,
    }
}
