//! The packet rings as the host turns them: their filter keeps in step with interfaces and services.
//!
//! Main thread. Never reads a packet: that is the ring threads'.
#![forbid(unsafe_code)]

use std::sync::atomic::Ordering;

use super::Host;
use crate::config::Interfaces;
use crate::detect::policy::Watch;
use crate::netlink::route::Link;
use crate::sensor::attention;
use crate::sensor::filter::{self, Interest, Watched};
use crate::sensor::ports_in_use::PortsInUse;
use crate::sensor::ring::{RingControl, RingError};

/// A filter is replaced at most so often, milliseconds: for a host whose sockets come and go all the time.
const REFILTER: u64 = 1000;

/// The rings, and what they were turned to last.
pub struct Rings {
    control: RingControl,
    interest: Interest,
    /// Services came or went that the filter does not know of.
    pub(super) is_stale: bool,
    /// When the filter was set last for services that came or went, milliseconds of uptime.
    set: u64,
    /// The kernel did not take the last filter: some rings may go by an older one.
    is_refused: bool,
}

impl Rings {
    /// As they were opened, for `interest`.
    pub fn new(control: RingControl, interest: Interest) -> Rings {
        Rings { control, interest, is_stale: false, set: 0, is_refused: false }
    }

    fn turn_to(&mut self, interest: Interest) -> Result<(), RingError> {
        self.interest = interest;
        let set = self.control.set_filter(&filter::compile(&self.interest));
        self.is_refused = set.is_err();
        set
    }

    fn wanted(&self, watch: &Watch, in_use: &PortsInUse) -> Interest {
        attention::wanted(self.interest.interfaces.clone(), watch, in_use)
    }
}

impl Host {
    /// The rings to keep in step with interfaces and services.
    pub fn set_rings(&mut self, rings: Rings) {
        self.rings = Some(rings);
    }

    /// Packets that the rings brought, and that they had no room for.
    pub fn packets_and_drops(&self) -> (u64, u64) {
        let Some(Rings { control, .. }) = &self.rings else { return (0, 0) };
        let counters = control.counters();
        // Where the kernel does not tell, the count as of the last time it did is the best there is.
        let drops = control.count_drops().unwrap_or_else(|_| counters.dropped.load(Ordering::Relaxed));
        (counters.seen.load(Ordering::Relaxed), drops)
    }

    /// Slots of the rings that made no sense: a kernel bug if ever above 0.
    pub fn unreadable_slots(&self) -> u64 {
        let unreadable = |rings: &Rings| rings.control.counters().unreadable.load(Ordering::Relaxed);
        self.rings.as_ref().map_or(0, unreadable)
    }

    /// The interfaces that INTERFACES names as of now. One that is made anew has another index.
    pub(in crate::sensor) fn watched(&self) -> Watched {
        let names = match &self.interfaces {
            Interfaces::All => return Watched::All,
            Interfaces::AllButLoopback => return Watched::AllButLoopback,
            Interfaces::Named(names) => names,
        };
        let is_named = |link: &&Link| names.iter().any(|name| link.is_called(name));
        Watched::Indexes(self.surroundings.links().filter(is_named).map(|link| link.index).collect())
    }

    /// Rings of all interfaces see new ones by themselves.
    pub(super) fn watch_interfaces(&mut self) -> Result<(), RingError> {
        let interfaces = self.watched();
        match self.rings.as_mut().filter(|rings| rings.interest.interfaces != interfaces) {
            Some(rings) => rings.turn_to(Interest { interfaces, ..rings.interest.clone() }),
            None => Ok(()),
        }
    }

    /// A new configuration's ports.
    pub(super) fn watch_ports(&mut self, watch: &Watch, in_use: &PortsInUse) -> Result<(), RingError> {
        let Some(rings) = &mut self.rings else { return Ok(()) };
        rings.turn_to(rings.wanted(watch, in_use))
    }

    /// Turns the rings' attention away from ports in use, and back to those that are not. Returns whether it was time
    /// to: services came or went, or the kernel did not take the last filter.
    ///
    /// # Errors
    /// The kernel takes no new filter; it is asked again in its time.
    pub fn turn_attention(
        &mut self,
        watch: &Watch,
        in_use: &PortsInUse,
        uptime: u64,
    ) -> Result<bool, RingError> {
        let is_due = |rings: &&mut Rings| {
            (rings.is_stale || rings.is_refused) && uptime.saturating_sub(rings.set) >= REFILTER
        };
        let Some(rings) = self.rings.as_mut().filter(is_due) else { return Ok(false) };
        (rings.is_stale, rings.set) = (false, uptime);
        let wanted = rings.wanted(watch, in_use);
        if wanted != rings.interest || rings.is_refused {
            rings.turn_to(wanted)?;
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::net::UdpSocket;
    use std::os::fd::OwnedFd;

    use super::*;
    use crate::config::{BothPorts, parse};
    use crate::sensor::host::Known;
    use crate::sensor::terms;

    fn host() -> Host {
        let known = Known {
            configured_never: Vec::new(),
            interfaces: Interfaces::AllButLoopback,
            decoys: BothPorts::default(),
            ignore_services: false,
        };
        Host::open(known).unwrap()
    }

    fn watch(ports: &str) -> Watch {
        let loaded = parse("a", format!("TCP_PORTS=\"{ports}\"").as_bytes(), &Default::default()).unwrap();
        terms::watch(&loaded.config, &BothPorts::default())
    }

    /// Any socket takes a filter, and nothing else does.
    fn refusing() -> RingControl {
        RingControl::over(OwnedFd::from(File::open("/dev/null").unwrap()))
    }

    fn taking() -> RingControl {
        RingControl::over(OwnedFd::from(UdpSocket::bind("127.0.0.1:0").unwrap()))
    }

    #[test]
    fn a_filter_that_the_kernel_refused_is_tried_again_until_it_is_taken() {
        let (mut host, in_use) = (host(), PortsInUse::new(false));
        host.set_rings(Rings::new(refusing(), Interest::default()));
        host.watch_ports(&watch("23"), &in_use).unwrap_err();
        let turn = |host: &mut Host, uptime| host.turn_attention(&watch("23"), &in_use, uptime);
        turn(&mut host, REFILTER).unwrap_err();
        assert!(!turn(&mut host, 2 * REFILTER - 1).unwrap(), "not before its time");
        turn(&mut host, 2 * REFILTER).unwrap_err();
        host.rings.as_mut().unwrap().control = taking();
        assert!(turn(&mut host, 3 * REFILTER).unwrap());
        assert!(!turn(&mut host, 4 * REFILTER).unwrap(), "nothing is left to do");
    }
}
