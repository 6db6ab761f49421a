//! The tripwire in the kernel: its traps as they change, whom it spares, whom it has shut out. Helper.
//!
//! Where there is none, all of it is done and nobody was shut out.
#![forbid(unsafe_code)]

use std::net::IpAddr;

use ipnet::IpNet;

use super::{Nftables, Result};
use crate::helper::respond::Knock;
use crate::helper::ruleset::TABLE;
use crate::helper::tripwire::{self, Tripwire};
use crate::netlink::nftables::{Family, Kind, element};
use crate::protocol::{Datagrams, Page};

impl Nftables {
    /// Whether there is a tripwire.
    pub fn has_tripwire(&self) -> bool {
        self.tripwire.is_some()
    }

    /// Puts a page of traps in the place of the former.
    pub fn set_traps(&mut self, datagrams: Datagrams, page: Page) -> Result<()> {
        let commands = self.tripwire.as_mut().map(|tripwire| tripwire.set(datagrams, page));
        self.apply(&commands.unwrap_or_default())
    }

    /// Has the tripwire leave an address alone for a while.
    pub fn spare(&mut self, address: IpAddr) -> Result<()> {
        let commands = self.tripwire.as_ref().map(|_| tripwire::spare(address));
        self.apply(&commands.unwrap_or_default())
    }

    /// Takes the tripwire's traps away: nobody would confirm or clear whom it trips.
    pub fn disarm(&mut self) -> Result<()> {
        let commands = self.tripwire.as_mut().map(Tripwire::disarm);
        self.apply(&commands.unwrap_or_default())
    }

    /// Whom of the sources of these probes, at traps, the tripwire has shut out.
    pub fn tripped(&mut self, probes: &[Knock]) -> Result<Vec<bool>> {
        let Some(tripwire) = &self.tripwire else { return Ok(vec![false; probes.len()]) };
        let may_be = |(_, port): &Knock| port.is_some_and(|(over, port)| tripwire.is_trap(over, port));
        let asked: Vec<bool> = probes.iter().map(may_be).collect();
        let mut tripped = Vec::new();
        for family in Family::BOTH {
            if probes.iter().zip(&asked).any(|((it, _), asked)| *asked && Family::of(it.addr()) == family) {
                tripped.extend(self.tripped_of(family)?);
            }
        }
        let is_in = |target: &IpNet| tripped.iter().any(|address| target.contains(address));
        Ok(probes.iter().zip(asked).map(|((target, _), asked)| asked && is_in(target)).collect())
    }

    fn tripped_of(&mut self, family: Family) -> Result<Vec<IpAddr>> {
        let name = tripwire::tripped_name(family);
        let fill = |message: &mut _| element::elements(message, TABLE, &name, &[]);
        self.dump("list a set", Kind::GetElements, fill, |message, list: &mut Vec<_>| {
            list.extend(element::decode(message).map(|(key, _)| key));
        })
    }
}
