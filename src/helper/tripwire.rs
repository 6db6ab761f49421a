//! The tripwire: rules by which the kernel itself shuts out, for a moment, who probes a port where nobody listens.
//!
//! Pure; the helper's. The prober's next packet is dropped already, while the sensor, which saw the same packet, asks
//! for a real block or lets the entry lapse. Never more than the sensor would: only its traps, only as many a minute as
//! it would block on one forgeable packet, nobody in the never sets, no whole segment of a connection that stands.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use super::ruleset::{PROBE, source, unless_never};
use crate::detect::weights::FIRST_EPHEMERAL_PORT;
use crate::netlink::nftables::element::ELEMENTS_PER_MESSAGE;
use crate::netlink::nftables::expression::{META_INPUT_KIND, META_INPUT_NAME, META_TRANSPORT};
use crate::netlink::nftables::{
    Command, Comparison, Element, Elements, Expression, Family, Key, Set, Verdict,
};
use crate::protocol::{Datagrams, Page, Terms};

/// How long the kernel waits for the sensor's word. Forged packets cost whom they name no more than this, once a
/// [`SPARED`]; a sensor in a flood takes a tenth of it.
pub const PROVISIONAL: Duration = Duration::from_secs(5);
/// How long the tripwire leaves alone whom the sensor has cleared: as long as the sensor does. And from trip to trip of
/// one source, for of a broken packet, of a copy and of an answer the sensor says nothing.
pub const SPARED: Duration = Duration::from_secs(60);
/// More than [`Terms`] can fill within [`SPARED`].
const TRIPPED_CAPACITY: u32 = 8_192;
/// Cleared addresses at once; past it the oldest must lapse first.
const SPARED_CAPACITY: u32 = 16_384;

/// Every port. The sets of traps may hold times, though none has one, for the kernel keeps others of so short a key in
/// a bitmap with a list, which it walks to its end for each element that is added.
const PORTS: u32 = 1 << 16;

/// Where what may be a probe learns whether anybody hears it.
const UNHEARD: &str = "unheard";
/// Where the packets of tripped sources go.
const TRIPPED: &str = "tripped";
const TCP_TRAPS: &str = "traps_tcp";
const UDP_TRAPS: &str = "traps_udp";
const WATCHED: &str = "watched";

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;
/// Answers come from ports below (RFC 6335 §6, the system ports): to a question whose socket is closed again, perhaps.
const FIRST_CLIENT_PORT: u16 = 1024;

const FAMILIES: [Family; 2] = [Family::Ipv4, Family::Ipv6];

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
        let name = traps_name(datagrams);
        let mut commands = in_messages(&elements(&new), |part| Command::AddElements(name.to_owned(), part));
        commands.extend(in_messages(&elements(&old), |part| Command::DeleteElements(name.to_owned(), part)));
        commands
    }

    /// Forgets every trap, also for when the table is made anew. Returns what takes them and every trip away in the kernel;
    /// the rules stay and find nothing.
    pub fn disarm(&mut self) -> Vec<Command> {
        self.tcp.clear();
        self.udp.clear();
        let traps = [TCP_TRAPS, UDP_TRAPS].map(|name| Command::EmptySet(name.to_owned()));
        traps.into_iter().chain(forget_all()).collect()
    }

    /// Makes sets, chains and rules, to follow those of the blocks.
    pub fn make(&self) -> Vec<Command> {
        let mut commands: Vec<Command> = FAMILIES.into_iter().flat_map(sets).collect();
        for datagrams in [Datagrams::No, Datagrams::Yes] {
            let name = traps_name(datagrams);
            commands.push(set(name, Key::Port, Elements::Timed { capacity: PORTS }));
            let pages = self.traps(datagrams).values();
            let ports = pages.flat_map(|page| page.ports().filter(|&port| page.contains(port)));
            let ports: Vec<u16> = ports.collect();
            commands
                .extend(in_messages(&elements(&ports), |part| Command::AddElements(name.to_owned(), part)));
        }
        commands.extend(self.interfaces());
        commands.extend([TRIPPED, UNHEARD].map(|chain| Command::NewChain(chain, None)));
        commands.extend(of_connections());
        commands.extend(FAMILIES.map(of_tripped));
        commands.extend(knocks());
        commands.extend(tripped());
        commands.extend(self.unheard());
        commands
    }

    fn traps(&self, datagrams: Datagrams) -> &Traps {
        match datagrams {
            Datagrams::No => &self.tcp,
            Datagrams::Yes => &self.udp,
        }
    }

    /// None where all are watched.
    fn interfaces(&self) -> Vec<Command> {
        if self.terms.interfaces.is_empty() {
            return Vec::new();
        }
        let names = self.terms.interfaces.iter().map(|name| Element::Interface(padded(name)));
        let names: Vec<Element> = names.collect();
        let mut commands = vec![set(WATCHED, Key::Interface, Elements::Fixed)];
        commands.extend(in_messages(&names, |part| Command::AddElements(WATCHED.to_owned(), part)));
        commands
    }

    /// Nobody is tripped by a packet that a socket takes in, that is for another host, or that the sensor does not see.
    fn unheard(&self) -> Vec<Command> {
        let rule = |mut rule: Vec<Expression>, verdict| {
            rule.push(Expression::Verdict(verdict));
            Command::NewRule(UNHEARD, rule)
        };
        let mut rules = vec![unless_never(UNHEARD)];
        if !self.terms.interfaces.is_empty() {
            let elsewhere =
                vec![Expression::Meta(META_INPUT_NAME), Expression::LookupNot(WATCHED.to_owned())];
            rules.push(rule(elsewhere, Verdict::Return));
        }
        rules.push(rule(from_a_bridge(), Verdict::Return));
        let local = u32::from(libc::RTN_LOCAL).to_ne_bytes().to_vec();
        rules.push(rule(
            vec![Expression::DestinationType, Expression::Compare(Comparison::Other, local)],
            Verdict::Return,
        ));
        // Told of every socket there is, in whatever state; which of the two it is does not matter.
        rules.extend([0, 1].map(|transparent| {
            rule(vec![Expression::SocketIsTransparent, Expression::equals(&[transparent])], Verdict::Return)
        }));
        rules.extend(FAMILIES.map(|family| rule(among(spared_name(family), family), Verdict::Return)));
        rules.extend(FAMILIES.map(|family| rule(among(lately_name(family), family), Verdict::Return)));
        rules.push(rule(vec![Expression::OverLimit { per_minute: self.terms.per_minute }], Verdict::Return));
        rules.extend(FAMILIES.map(|family| {
            let mut trip = source(family);
            trip.push(Expression::Remember(lately_name(family), SPARED));
            trip.push(Expression::Remember(tripped_name(family), PROVISIONAL));
            rule(trip, Verdict::Drop)
        }));
        rules
    }
}

/// Clears an address: what it sends is no longer dropped, and it is not tripped again so soon. Its time begins anew, as
/// with [`refresh_blocks`](super::ruleset::refresh_blocks): on every kernel, and always a change.
pub fn spare(address: IpAddr) -> Vec<Command> {
    let set = spared_name(family_of(address));
    let element = vec![Element::Timed(address, Some(SPARED))];
    let add = Command::AddElements(set.clone(), element.clone());
    vec![add.clone(), Command::DeleteElements(set, element), add]
}

/// Forgets that an address was tripped. To delete it alone would fail where it is not.
pub fn forget(address: IpAddr) -> Vec<Command> {
    let set = tripped_name(family_of(address));
    let element = vec![Element::Timed(address, Some(PROVISIONAL))];
    vec![Command::AddElements(set.clone(), element.clone()), Command::DeleteElements(set, element)]
}

/// Forgets all who are tripped.
pub fn forget_all() -> Vec<Command> {
    FAMILIES.map(|family| Command::EmptySet(tripped_name(family))).to_vec()
}

/// The set of who is tripped.
pub fn tripped_set(ipv6: bool) -> String {
    tripped_name(if ipv6 { Family::Ipv6 } else { Family::Ipv4 })
}

fn family_of(address: IpAddr) -> Family {
    if address.is_ipv6() { Family::Ipv6 } else { Family::Ipv4 }
}

fn digit(family: Family) -> char {
    if family == Family::Ipv6 { '6' } else { '4' }
}

fn tripped_name(family: Family) -> String {
    format!("trip{}", digit(family))
}

fn spared_name(family: Family) -> String {
    format!("spared{}", digit(family))
}

fn traps_name(datagrams: Datagrams) -> &'static str {
    match datagrams {
        Datagrams::No => TCP_TRAPS,
        Datagrams::Yes => UDP_TRAPS,
    }
}

fn lately_name(family: Family) -> String {
    format!("lately{}", digit(family))
}

fn sets(family: Family) -> [Command; 3] {
    let key = Key::Address(family);
    [
        set(&tripped_name(family), key, Elements::Learnt { capacity: TRIPPED_CAPACITY }),
        set(&lately_name(family), key, Elements::Learnt { capacity: TRIPPED_CAPACITY }),
        set(&spared_name(family), key, Elements::Timed { capacity: SPARED_CAPACITY }),
    ]
}

fn set(name: &str, key: Key, elements: Elements) -> Command {
    Command::NewSet(Set { name: name.to_owned(), key, elements })
}

fn elements(ports: &[u16]) -> Vec<Element> {
    ports.iter().map(|&port| Element::Port(port)).collect()
}

fn in_messages(elements: &[Element], command: impl Fn(Vec<Element>) -> Command) -> Vec<Command> {
    elements.chunks(ELEMENTS_PER_MESSAGE).map(|part| command(part.to_vec())).collect()
}

/// With br_netfilter a bridge has its packets go through these rules before it takes them in, and before the sensor sees
/// those that are to the bridge's own hardware address: what was dropped by then, nobody would hear of.
fn from_a_bridge() -> Vec<Expression> {
    vec![Expression::Meta(META_INPUT_KIND), Expression::equals(&padded("bridge"))]
}

fn padded(name: &str) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes.iter_mut().zip(name.bytes()).for_each(|(to, from)| *to = from);
    bytes
}

fn of_tripped(family: Family) -> Command {
    let mut rule = among(tripped_name(family), family);
    rule.push(Expression::Verdict(Verdict::Jump(TRIPPED)));
    Command::NewRule(PROBE, rule)
}

fn among(set: String, family: Family) -> Vec<Expression> {
    let mut rule = source(family);
    rule.push(Expression::Lookup(set));
    rule
}

fn tripped() -> Vec<Command> {
    let rule = |mut rule: Vec<Expression>, verdict| {
        rule.push(Expression::Verdict(verdict));
        Command::NewRule(TRIPPED, rule)
    };
    let mut rules = vec![unless_never(TRIPPED)];
    rules.extend(FAMILIES.map(|family| rule(among(spared_name(family), family), Verdict::Return)));
    rules.push(rule(vec![Expression::Counter], Verdict::Drop));
    rules
}

/// Every segment that may belong to a connection goes on, of this host or of one behind it, whoever is tripped: a forged
/// SYN may have named its peer. The most frequent kind first. None of them is a probe at the first packet (a bare ACK may
/// be a stray), and of what they are answered with, open ports and closed ones send the same.
fn of_connections() -> [Command; 3] {
    [(SYN | ACK, ACK), (SYN | RST, RST), (FIN | SYN | RST | ACK, SYN | ACK)].map(|(mask, set)| {
        let mut rule = flags(mask, Comparison::Equal, set);
        rule.push(Expression::Verdict(Verdict::Return));
        Command::NewRule(PROBE, rule)
    })
}

/// What the sensor judges a probe at the first packet: SYN without ACK, flags that belong to no connection in any state,
/// and a datagram that is no answer.
fn knocks() -> [Command; 2] {
    let is_trap = |set: &str| vec![port_at(2), Expression::Lookup(set.to_owned())];
    // Says no more of a whole segment than `of_connections`; of a torn one nobody knows the flags.
    let segments = [flags(SYN | ACK, Comparison::Other, ACK), is_trap(TCP_TRAPS)].concat();
    let mut datagrams = over(libc::IPPROTO_UDP);
    datagrams.extend(is_trap(UDP_TRAPS));
    let no_answer = Expression::Compare(Comparison::AtLeast, FIRST_CLIENT_PORT.to_be_bytes().to_vec());
    datagrams.extend([port_at(0), no_answer]);
    [segments, datagrams].map(|mut rule| {
        rule.push(Expression::Verdict(Verdict::Jump(UNHEARD)));
        Command::NewRule(PROBE, rule)
    })
}

fn over(protocol: i32) -> Vec<Expression> {
    vec![Expression::Meta(META_TRANSPORT), Expression::equals(&[u8::try_from(protocol).unwrap_or_default()])]
}

/// TCP whose flags under `mask` compare so with `flags`; where they cannot be read, the rule ends.
fn flags(mask: u8, comparison: Comparison, flags: u8) -> Vec<Expression> {
    let mut rule = over(libc::IPPROTO_TCP);
    rule.extend([
        Expression::Transport { offset: 13, length: 1 },
        Expression::Mask(vec![mask]),
        Expression::Compare(comparison, vec![flags]),
    ]);
    rule
}

fn port_at(offset: u32) -> Expression {
    Expression::Transport { offset, length: 2 }
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
        let add = |ports: &[u16]| Command::AddElements(TCP_TRAPS.to_owned(), elements(ports));
        let delete = |ports: &[u16]| Command::DeleteElements(TCP_TRAPS.to_owned(), elements(ports));
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

    #[test]
    fn who_is_spared_is_looked_for_before_anything_is_dropped() {
        let text = format!("{:?}", tripped());
        assert!(text.find("spared6").unwrap() < text.find("Drop").unwrap());
        let text = format!("{:?}", tripwire().unheard());
        for before in ["DestinationType", "Transparent", "spared6", "lately6", "OverLimit"] {
            assert!(text.find(before).unwrap() < text.find("Remember").unwrap(), "{before}");
        }
    }
}
