//! The tripwire: rules by which the kernel itself shuts out, for a moment, who probes a port where nobody listens.
//!
//! Pure; the helper's. The prober's next packet is dropped already, while the sensor, which saw the same packet, asks
//! for a real block or lets the entry lapse. Never more than the sensor would: only its traps, only as many a minute as
//! it would block on one forgeable packet, nobody in the never sets, no whole segment of a connection that stands.
#![forbid(unsafe_code)]

mod rules;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use super::ruleset::{add, delete, of_family, refresh, set};
use crate::detect::weights::FIRST_EPHEMERAL_PORT;
use crate::netlink::nftables::{Command, Element, Elements, Family, Key, SWEEP_INTERVAL};
use crate::protocol::traps::{Datagrams, MOST_TRIPS, Page, Terms};

/// How long the kernel waits for the sensor's word. Forged packets cost whom they name no more than this, once a
/// [`SPARED`]; a sensor in a flood takes a tenth of it.
pub const PROVISIONAL: Duration = Duration::from_secs(5);
/// How long the tripwire leaves alone whom the sensor has cleared: as long as the sensor does. And from trip to trip of
/// one source, for of a broken packet, of a copy and of an answer the sensor says nothing.
pub const SPARED: Duration = Duration::from_secs(60);
/// More than [`Terms`] can fill within [`SPARED`] and until the kernel has swept it: a full set trips nobody.
const TRIPPED_CAPACITY: u32 = 8_192;
/// At once, and then a minute.
const _: () = {
    let seconds = SPARED.as_secs() as u32 + SWEEP_INTERVAL.as_secs() as u32;
    assert!(MOST_TRIPS + MOST_TRIPS * seconds / 60 < TRIPPED_CAPACITY / 2);
};
/// Cleared addresses at once; past it the oldest must lapse first.
const SPARED_CAPACITY: u32 = 16_384;

/// Every port.
const PORTS: u32 = 1 << 16;

/// The set of the interfaces whose packets the sensor sees.
const WATCHED: &str = "watched";

/// The tripwire as it is to stand.
#[derive(Clone, Debug)]
pub struct Tripwire {
    terms: Terms,
    tcp: Traps,
    udp: Traps,
}

/// Pages with traps on them, by number.
type Traps = BTreeMap<u8, Page>;

impl Tripwire {
    /// One without traps.
    pub fn new(terms: Terms) -> Tripwire {
        Tripwire { terms, tcp: Traps::new(), udp: Traps::new() }
    }

    /// Whether a packet to this port may have tripped its source.
    pub fn is_trap(&self, datagrams: Datagrams, port: u16) -> bool {
        self.traps(datagrams).values().any(|page| page.contains(port))
    }

    /// Takes a page of traps in. Returns what makes the kernel's sets say the same. Of UDP ports those that this host
    /// asks from are left out, whoever wants them: their packets are answers.
    pub fn set(&mut self, datagrams: Datagrams, page: Page) -> Vec<Command> {
        let allowed = |port: u16| datagrams == Datagrams::No || port < FIRST_EPHEMERAL_PORT;
        let page = Page::of(page.number, |port| page.contains(port) && allowed(port));
        let traps = match datagrams {
            Datagrams::No => &mut self.tcp,
            Datagrams::Yes => &mut self.udp,
        };
        let before = traps.insert(page.number, page);
        traps.retain(|_, page| !page.is_empty());
        let was = |port: u16| before.is_some_and(|before| before.contains(port));
        let changed = page.ports().filter(|&port| was(port) != page.contains(port));
        let (new, old): (Vec<u16>, Vec<u16>) = changed.partition(|&port| page.contains(port));
        let name = || traps_name(datagrams).to_owned();
        [add(name(), &elements(new)), delete(name(), &elements(old))].concat()
    }

    /// Forgets every trap, also for when the table is made anew. Returns what takes them and every trip away in the
    /// kernel; the rules stay and find nothing.
    pub fn disarm(&mut self) -> Vec<Command> {
        self.tcp.clear();
        self.udp.clear();
        let traps = Datagrams::BOTH.map(|datagrams| Command::EmptySet(traps_name(datagrams).to_owned()));
        traps.into_iter().chain(forget_all()).collect()
    }

    /// Makes sets, chains and rules, to follow those of the blocks.
    pub fn make(&self) -> Vec<Command> {
        let mut commands: Vec<Command> = Family::BOTH.into_iter().flat_map(sets_of_sources).collect();
        commands.extend(Datagrams::BOTH.into_iter().flat_map(|datagrams| self.set_of_traps(datagrams)));
        commands.extend(self.set_of_interfaces());
        commands.extend(rules::all(&self.terms));
        commands
    }

    fn traps(&self, datagrams: Datagrams) -> &Traps {
        match datagrams {
            Datagrams::No => &self.tcp,
            Datagrams::Yes => &self.udp,
        }
    }

    fn set_of_traps(&self, datagrams: Datagrams) -> Vec<Command> {
        let name = traps_name(datagrams).to_owned();
        let mut commands = vec![set(name.clone(), Key::Port, Elements::Hashed { capacity: PORTS })];
        let pages = self.traps(datagrams).values();
        let traps = pages.flat_map(|page| page.ports().filter(|&port| page.contains(port)));
        commands.extend(add(name, &elements(traps)));
        commands
    }

    /// None where all are watched.
    fn set_of_interfaces(&self) -> Vec<Command> {
        if self.terms.interfaces.is_empty() {
            return Vec::new();
        }
        let names = self.terms.interfaces.iter().map(|name| Element::Interface(padded(name)));
        let mut commands = vec![set(WATCHED.to_owned(), Key::Interface, Elements::Fixed)];
        commands.extend(add(WATCHED.to_owned(), &names.collect::<Vec<_>>()));
        commands
    }
}

/// Its rules in the base chain.
pub fn base_rules() -> Vec<Command> {
    rules::base()
}

/// Clears an address: what it sends is no longer dropped, and it is not tripped again so soon. Its time begins anew.
pub fn spare(address: IpAddr) -> Vec<Command> {
    refresh(spared_name(Family::of(address)), &[Element::Timed(address, Some(SPARED))])
}

/// Forgets that an address was tripped. To delete it alone would fail where it is not.
pub fn forget(address: IpAddr) -> Vec<Command> {
    let (set, element) = (tripped_name(Family::of(address)), [Element::Timed(address, Some(PROVISIONAL))]);
    [add(set.clone(), &element), delete(set, &element)].concat()
}

/// Forgets all who are tripped.
pub fn forget_all() -> Vec<Command> {
    Family::BOTH.map(|family| Command::EmptySet(tripped_name(family))).to_vec()
}

/// The set of who is tripped.
pub fn tripped_name(family: Family) -> String {
    of_family("trip", family)
}

fn spared_name(family: Family) -> String {
    of_family("spared", family)
}

/// The set of who was tripped not long ago.
fn lately_name(family: Family) -> String {
    of_family("lately", family)
}

fn traps_name(datagrams: Datagrams) -> &'static str {
    match datagrams {
        Datagrams::No => "traps_tcp",
        Datagrams::Yes => "traps_udp",
    }
}

fn sets_of_sources(family: Family) -> [Command; 3] {
    let key = Key::Address(family);
    [
        set(tripped_name(family), key, Elements::Learnt { capacity: TRIPPED_CAPACITY }),
        set(lately_name(family), key, Elements::Learnt { capacity: TRIPPED_CAPACITY }),
        set(spared_name(family), key, Elements::Timed { capacity: SPARED_CAPACITY }),
    ]
}

fn elements(ports: impl IntoIterator<Item = u16>) -> Vec<Element> {
    ports.into_iter().map(Element::Port).collect()
}

/// A name as the kernel compares it.
fn padded(name: &str) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes.iter_mut().zip(name.bytes()).for_each(|(to, from)| *to = from);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tripwire() -> Tripwire {
        Tripwire::new(Terms { interfaces: Vec::new(), per_minute: 120 })
    }

    fn page(number: u8, ports: &[u16]) -> Page {
        Page::of(number, |port| ports.contains(&port))
    }

    #[test]
    fn only_what_changes_goes_to_the_kernel() {
        let mut tripwire = tripwire();
        let add = |ports: &[u16]| Command::AddElements("traps_tcp".to_owned(), elements(ports.to_vec()));
        let delete =
            |ports: &[u16]| Command::DeleteElements("traps_tcp".to_owned(), elements(ports.to_vec()));
        assert_eq!(tripwire.set(Datagrams::No, page(0, &[1, 7])), [add(&[1, 7])]);
        assert_eq!(tripwire.set(Datagrams::No, page(0, &[7, 9])), [add(&[9]), delete(&[1])]);
        assert_eq!(tripwire.set(Datagrams::No, page(0, &[7, 9])), []);
        assert_eq!(tripwire.set(Datagrams::No, page(1, &[])), []);
        assert!(tripwire.is_trap(Datagrams::No, 9) && !tripwire.is_trap(Datagrams::Yes, 9));
        assert!(tripwire.make().contains(&add(&[7, 9])));
    }

    #[test]
    fn a_table_that_is_made_anew_after_the_end_of_the_tripwire_has_no_traps() {
        let mut tripwire = tripwire();
        assert_eq!(tripwire.set(Datagrams::No, page(0, &[1, 7])).len(), 1);
        assert!(tripwire.disarm().contains(&Command::EmptySet("traps_tcp".to_owned())));
        assert!(!tripwire.make().iter().any(|command| matches!(command, Command::AddElements(..))));
    }

    #[test]
    fn a_udp_port_that_we_ask_from_is_no_trap_whoever_wants_it() {
        let mut tripwire = tripwire();
        assert_eq!(tripwire.set(Datagrams::Yes, page(128, &[32_768, 33_000])), []);
        assert!(!tripwire.is_trap(Datagrams::Yes, 32_768));
        assert_eq!(tripwire.set(Datagrams::No, page(128, &[32_768])).len(), 1);
    }
}
