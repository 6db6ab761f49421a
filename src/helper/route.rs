//! The response route: blackhole routes, so that this host answers a source no more. The helper's; needs CAP_NET_ADMIN.
//!
//! The kernel does not time them: whoever makes one must unmake it. Touches no route but our own.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::io;
use std::iter::successors;
use std::time::Instant;

use ipnet::IpNet;

use super::respond::{Refusal, Walk};
use crate::netlink::route::List;
use crate::netlink::{Socket, blackhole};
use crate::protocol::Response;

const CREATE: u16 = (libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16;

/// Of the time, what [`Routes::stand`] takes at most.
const SHARE: u32 = 100;

/// An open line to the routing tables.
#[derive(Debug)]
pub struct Routes {
    socket: Socket,
    /// When they may be compared with the record again.
    next_look: Instant,
}

impl Routes {
    /// Opens the socket. Changes nothing.
    pub fn open() -> Result<Routes, Refusal> {
        let socket = Socket::open(libc::NETLINK_ROUTE, 0).map_err(refusal("open a netlink socket"))?;
        Ok(Routes { socket, next_look: Instant::now() })
    }

    /// Makes these the routes that are ours, and no others. Returns which of them cannot be made, and why: this host may
    /// have a route of its own for exactly that destination.
    pub fn install(&mut self, wanted: &BTreeSet<IpNet>) -> Result<Vec<(IpNet, Refusal)>, Refusal> {
        let ours = self.ours()?;
        ours.difference(wanted).try_for_each(|target| self.unblock(target).map(drop))?;
        let missing = wanted.difference(&ours);
        Ok(missing.filter_map(|target| Some((*target, self.block(target).err()?))).collect())
    }

    /// Whether ours are exactly those of the record. The kernel lists everybody's routes: where they are very many they
    /// are looked at the less often, for a [`SHARE`]th of the time.
    pub fn stand(&mut self, record: &Walk<'_>) -> Result<bool, Refusal> {
        let begun = Instant::now();
        if begun < self.next_look {
            return Ok(true);
        }
        let ours = self.ours()?;
        let wanted = successors(record(None), |(last, _)| record(Some(*last)));
        let wanted = wanted.filter(|(_, it)| it.with.contains(Response::Route)).map(|(target, _)| target);
        let same = wanted.eq(ours);
        self.next_look = begun + begun.elapsed() * SHARE;
        Ok(same)
    }

    /// Blackholes `target`, also if it is already. A route of somebody else's for exactly it is an error.
    pub fn block(&mut self, target: &IpNet) -> Result<(), Refusal> {
        let made =
            self.socket.request(libc::RTM_NEWROUTE, CREATE, |message| blackhole::fill(message, target));
        match made {
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) && self.is_ours(target) => Ok(()),
            made => made.map_err(refusal("add a blackhole route")),
        }
    }

    /// Takes the route to `target` away. Returns whether there was one.
    pub fn unblock(&mut self, target: &IpNet) -> Result<bool, Refusal> {
        let gone = self.socket.request(libc::RTM_DELROUTE, 0, |message| blackhole::fill(message, target));
        match gone {
            Ok(()) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(false),
            Err(error) => Err(refusal("remove a blackhole route")(error)),
        }
    }

    /// Takes every route of ours away.
    pub fn flush(&mut self) -> Result<(), Refusal> {
        self.install(&BTreeSet::new()).map(drop)
    }

    /// Every route of ours, as the kernel tells.
    pub fn ours(&mut self) -> Result<BTreeSet<IpNet>, Refusal> {
        Ok(self.list().map_err(refusal("list routes"))?.into_iter().collect())
    }

    fn list(&mut self) -> io::Result<Vec<IpNet>> {
        self.socket.dump(
            List::Routes.number(),
            |message| List::Routes.fill(message),
            |message, list: &mut Vec<_>| list.extend(blackhole::decode(message)),
        )
    }

    fn is_ours(&mut self, target: &IpNet) -> bool {
        self.list().is_ok_and(|list| list.contains(target))
    }
}

fn refusal(step: &'static str) -> impl Fn(io::Error) -> Refusal {
    move |error| {
        let advice = match error.raw_os_error() {
            Some(libc::EPERM) => "; the helper needs CAP_NET_ADMIN in this network namespace",
            Some(libc::EEXIST) => "; somebody else has a route for exactly this destination",
            Some(libc::EAFNOSUPPORT | libc::EOPNOTSUPP) => "; the kernel lacks this address family",
            _ => "",
        };
        Refusal::of(&error, format!("cannot {step}: {error}{advice}"))
    }
}
