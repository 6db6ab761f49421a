//! What no rule of ours may drop, whoever sends it: the chain that is asked before, and the sets of those in it.
//!
//! Pure; the helper's. Only whoever is blocked or tripped comes this way, so what it costs nobody else pays.
#![forbid(unsafe_code)]

use std::net::IpAddr;

use super::{NEVER, add, among, from_header, of_family, rule, set};
use crate::netlink::nftables::expression::{META_INPUT, META_TRANSPORT};
use crate::netlink::nftables::{Command, Comparison, Element, Elements, Expression, Family, Key, Verdict};
use crate::networks::Networks;

/// `LOOPBACK_IFINDEX` of net/flow.h: `lo` is the first interface of every network namespace.
const LOOPBACK_INDEX: u32 = 1;
/// Where the hop limit stands in the IPv6 header.
const HOP_LIMIT: u32 = 7;
/// First and last ICMPv6 type, and the hop limit they must have: Neighbour Discovery (RFC 4861), and a router's question
/// after listeners (RFC 2710, RFC 3810), without whose answer a switch brings us nobody's solicitations any more.
const LINK_MESSAGES: [(u8, u8, u8); 2] = [(133, 137, 255), (130, 130, 1)];

/// The chain's rules.
pub(super) fn never_rules() -> [Command; 5] {
    let [v4, v6] = Family::BOTH.map(|family| among(family, never_name(family)));
    let [discovery, listeners] = LINK_MESSAGES.map(link_message);
    [from_loopback(), v4, v6, discovery, listeners].map(|conditions| rule(NEVER, conditions, Verdict::Accept))
}

/// The host talking to itself is never cut off, not even in the moment in which an address becomes its own.
fn from_loopback() -> Vec<Expression> {
    vec![Expression::Meta(META_INPUT), Expression::equals(&LOOPBACK_INDEX.to_ne_bytes())]
}

/// What IPv4 has ARP for, IPv6 says in packets, which have a source: without them a blocked router's hardware address cannot
/// be asked for, nor ours by it, and what others send through it is cut off too. The kernel asks for the same hop limits,
/// which show that no router has passed the message on.
fn link_message((first, last, hop_limit): (u8, u8, u8)) -> Vec<Expression> {
    let mut rule = from_header(Family::Ipv6, HOP_LIMIT, 1);
    let protocol = u8::try_from(libc::IPPROTO_ICMPV6).unwrap_or_default();
    rule.extend([
        Expression::equals(&[hop_limit]),
        Expression::Meta(META_TRANSPORT),
        Expression::equals(&[protocol]),
        Expression::Transport { offset: 0, length: 1 },
        Expression::Compare(Comparison::AtLeast, vec![first]),
        Expression::Compare(Comparison::AtMost, vec![last]),
    ]);
    rule
}

fn never_name(family: Family) -> String {
    of_family("never", family)
}

pub(super) fn never_set(family: Family) -> Command {
    set(never_name(family), Key::Address(family), Elements::Ranges)
}

/// Puts `never` in the place of what the never sets hold.
pub fn replace_never(never: &Networks) -> Vec<Command> {
    let mut commands = Family::BOTH.map(|family| Command::EmptySet(never_name(family))).to_vec();
    commands.extend(never_elements(never));
    commands
}

pub(super) fn never_elements(never: &Networks) -> impl Iterator<Item = Command> {
    let v4 = never.ranges_v4().map(|(first, last)| {
        range(first.into(), u32::from(last).checked_add(1).map(|end| IpAddr::V4(end.into())))
    });
    let v6 = never.ranges_v6().map(|(first, last)| {
        range(first.into(), u128::from(last).checked_add(1).map(|end| IpAddr::V6(end.into())))
    });
    let v4 = add(never_name(Family::Ipv4), &v4.flatten().collect::<Vec<_>>());
    v4.into_iter().chain(add(never_name(Family::Ipv6), &v6.flatten().collect::<Vec<_>>()))
}

/// A range up to the last address there is has no end element.
fn range(first: IpAddr, end: Option<IpAddr>) -> impl Iterator<Item = Element> {
    [Some(Element::RangeFirst(first)), end.map(Element::RangeEnd)].into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_up_to_the_last_address_stays_open() {
        let all: Networks = ["240.0.0.0/4".parse().unwrap()].into_iter().collect();
        let first = Element::RangeFirst("240.0.0.0".parse().unwrap());
        let commands: Vec<Command> = never_elements(&all).collect();
        assert_eq!(commands, [Command::AddElements("never4".to_owned(), vec![first])]);
    }
}
