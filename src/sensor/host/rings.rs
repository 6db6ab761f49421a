//! The packet rings as the host turns them: their filter keeps in step with interfaces and services.
//!
//! Main thread. Never reads a packet: that is the ring threads'.
#![forbid(unsafe_code)]

use std::sync::atomic::Ordering;

use super::Host;
use crate::config::Interfaces;
use crate::detect::policy::Watch;
use crate::sensor::attention;
use crate::sensor::filter::{self, Interest, Watched};
use crate::sensor::ports_in_use::PortsInUse;
use crate::sensor::ring::{RingControl, RingError};

/// A filter is replaced at most so often, milliseconds: for a host whose sockets come and go all the time.
const REFILTER: u64 = 1000;

impl Host {
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

    /// An interface that is made anew has another index. Rings of all interfaces see new ones by themselves.
    pub(super) fn watch_interfaces(&mut self) -> Result<(), RingError> {
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
}
