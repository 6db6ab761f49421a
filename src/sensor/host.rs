//! What the sensor knows of the host it runs on: addresses, interfaces, sockets; kept current over netlink.
//!
//! Main thread. Opened before confinement; reading needs no right.
#![forbid(unsafe_code)]

mod neighbours;
mod rings;
mod sockets;

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use ipnet::IpNet;

pub(crate) use self::neighbours::one_by_one;
pub use self::rings::Rings;
use self::sockets::Questions;
use super::connected::Connected;
use super::departed::Departed;
use super::never_block;
use super::responder::Responder;
use super::ring::RingError;
use super::watcher::{Shared, View};
use crate::config::{BothPorts, Interfaces};
use crate::detect::policy::Watch;
use crate::netlink::sock_diag::SocketTables;
use crate::netlink::surroundings::Surroundings;
use crate::networks::Networks;

/// The host.
pub struct Host {
    surroundings: Surroundings,
    sockets: SocketTables,
    connected: Connected,
    departed: Departed,
    /// NEVER_BLOCK, the ignore file and the resolvers.
    configured_never: Vec<IpNet>,
    interfaces: Interfaces,
    /// Our own, which are no services.
    decoys: BothPorts,
    /// `-S`: ports with a service count too.
    ignore_services: bool,
    questions: Questions,
    /// None with `--connect`.
    rings: Option<Rings>,
}

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
    /// The ports of our own decoys: those are no services.
    pub decoys: BothPorts,
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
            departed: Departed::default(),
            configured_never: known.configured_never,
            interfaces: known.interfaces,
            decoys: known.decoys,
            ignore_services: known.ignore_services,
            questions: Questions::default(),
            rings: None,
        })
    }

    /// The network around us.
    pub fn surroundings(&self) -> &Surroundings {
        &self.surroundings
    }

    /// The never-block set as of now.
    pub fn never_block(&self) -> Networks {
        never_block::in_force(&self.configured_never, &self.surroundings)
    }

    /// The host's own addresses and networks.
    pub fn own(&self) -> Networks {
        self.surroundings.own().collect()
    }

    /// Whether INTERFACES takes in what came to `destination`, an address of ours, by `interface`; 0 where only the address
    /// tells. One that no link to others has (anycast on loopback, a local route) may be reached by any, and is taken in.
    pub fn watches(&self, interface: u32, destination: IpAddr) -> bool {
        let Interfaces::Named(names) = &self.interfaces else { return true };
        let is_named = |index| names.iter().any(|name| self.surroundings.is_called(index, name));
        match interface {
            0 => {
                let mut links = self.surroundings.interfaces_of(destination);
                let is_loopback = |index| self.surroundings.is_loopback(index);
                let is_anywhere = || self.surroundings.interfaces_of(destination).all(is_loopback);
                links.any(is_named) || !destination.is_loopback() && is_anywhere()
            }
            index => is_named(index),
        }
    }

    /// `watch`, with the networks in which IPv6 sources are judged one by one as of now.
    pub fn watch(&self, watch: &Watch) -> Watch {
        let protected = self.configured_never.iter().copied().chain(self.surroundings.never_block());
        let one_by_one = one_by_one(self.surroundings.networks(), protected, watch.ipv6_prefix);
        Watch { one_by_one, ..watch.clone() }
    }

    /// When to [`follow`](Self::follow) though nothing is readable: a list is yet to be read, or to be had whole.
    pub fn next_try(&self) -> Option<Instant> {
        self.surroundings.next_try()
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

    /// Goes by a new configuration from now on: other ports, and `new` networks that are never blocked.
    ///
    /// # Errors
    /// The rings take no new filter.
    pub fn go_by(
        &mut self,
        new: &[IpNet],
        watch: Watch,
        responder: &mut Responder,
        shared: &Shared,
    ) -> Result<(), RingError> {
        self.configured_never.extend(new);
        responder.watch = Arc::new(watch);
        self.pass_on(responder, shared);
        self.watch_ports(&responder.watch, &shared.in_use)
    }

    fn pass_on(&self, responder: &mut Responder, shared: &Shared) {
        responder.never = self.never_block();
        responder.watch = Arc::new(self.watch(&responder.watch));
        let (watch, own, interfaces) = (responder.watch.clone(), self.own(), self.watched());
        let view = View { watch, own, interfaces, ..View::clone(&shared.view.load()) };
        shared.view.store(Arc::new(view));
    }
}
