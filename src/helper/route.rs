//! The response route: blackhole routes, so that this host answers a source no more. The helper's; needs CAP_NET_ADMIN.
//!
//! The kernel does not time them: whoever makes one must unmake it. Touches no route but our own.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::io;

use ipnet::IpNet;

use super::respond::Refusal;
use crate::netlink::route::List;
use crate::netlink::{Socket, blackhole};

const CREATE: u16 = (libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16;

/// An open line to the routing tables, and the routes that are ours there.
#[derive(Debug)]
pub struct Routes {
    socket: Socket,
    ours: BTreeSet<IpNet>,
}

impl Routes {
    /// Opens the socket and finds the routes of an earlier run. Changes nothing.
    pub fn open() -> Result<Routes, Refusal> {
        let socket = Socket::open(libc::NETLINK_ROUTE, 0).map_err(refusal("open a netlink socket"))?;
        let mut routes = Routes { socket, ours: BTreeSet::new() };
        routes.ours = routes.list().map_err(refusal("list routes"))?.into_iter().collect();
        Ok(routes)
    }

    /// Makes exactly these the routes that are ours.
    pub fn install(&mut self, targets: &[IpNet]) -> Result<(), Refusal> {
        let wanted: BTreeSet<IpNet> = targets.iter().copied().collect();
        let stale: Vec<IpNet> = self.ours.difference(&wanted).copied().collect();
        stale.iter().try_for_each(|target| self.unblock(target).map(drop))?;
        wanted.iter().try_for_each(|target| self.block(target))
    }

    /// Blackholes `target`, also if it is already. A route of somebody else's for exactly it is an error.
    pub fn block(&mut self, target: &IpNet) -> Result<(), Refusal> {
        let made =
            self.socket.request(libc::RTM_NEWROUTE, CREATE, |message| blackhole::fill(message, target));
        match made {
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) && self.is_ours(target) => {}
            made => made.map_err(refusal("add a blackhole route"))?,
        }
        self.ours.insert(*target);
        Ok(())
    }

    /// Takes the route to `target` away. Returns whether there was one.
    pub fn unblock(&mut self, target: &IpNet) -> Result<bool, Refusal> {
        let gone = self.socket.request(libc::RTM_DELROUTE, 0, |message| blackhole::fill(message, target));
        self.ours.remove(target);
        match gone {
            Ok(()) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(false),
            Err(error) => Err(refusal("remove a blackhole route")(error)),
        }
    }

    /// Takes every route of ours away.
    pub fn flush(&mut self) -> Result<(), Refusal> {
        self.install(&[])
    }

    /// Every route of ours, as the kernel tells.
    pub fn list(&mut self) -> io::Result<Vec<IpNet>> {
        self.socket.dump(
            List::Routes.number(),
            |message| List::Routes.fill(message),
            |message, list| list.extend(blackhole::decode(message)),
        )
    }

    fn is_ours(&mut self, target: &IpNet) -> bool {
        self.list().is_ok_and(|list| list.contains(target))
    }
}

fn refusal(step: &'static str) -> impl Fn(io::Error) -> Refusal {
    move |error| {
        let errno = error.raw_os_error().unwrap_or(libc::EIO);
        let advice = match errno {
            libc::EPERM => "; the helper needs CAP_NET_ADMIN in this network namespace",
            libc::EEXIST => "; somebody else has a route for exactly this destination",
            libc::EAFNOSUPPORT | libc::EOPNOTSUPP => "; the kernel lacks this address family",
            _ => "",
        };
        Refusal { errno, table_gone: false, text: format!("cannot {step}: {error}{advice}") }
    }
}
