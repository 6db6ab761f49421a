//! The tripwire's rules: what is a knock at a trap, whom it trips, and what becomes of who is tripped.
//!
//! Pure; the helper's. Never drops what may be a segment of a connection, nor anything of somebody in the never sets.
#![forbid(unsafe_code)]

use super::{PROVISIONAL, SPARED, WATCHED, lately_name, padded, spared_name, traps_name, tripped_name};
use crate::helper::ruleset::{PROBE, among, rule, source, unless_never};
use crate::netlink::nftables::expression::{META_INPUT_KIND, META_INPUT_NAME, META_TRANSPORT};
use crate::netlink::nftables::{Command, Comparison, Expression, Family, Verdict};
use crate::protocol::{Datagrams, Terms};

/// Where what may be a probe learns whether anybody hears it.
const UNHEARD: &str = "unheard";
/// Where the packets of tripped sources go.
const TRIPPED: &str = "tripped";

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;
/// Answers come from ports below (RFC 6335 §6, the system ports): to a question whose socket is closed again, perhaps.
const FIRST_CLIENT_PORT: u16 = 1024;

/// Its chains, and all their rules in their order.
pub(super) fn all(terms: &Terms) -> Vec<Command> {
    let mut commands = [TRIPPED, UNHEARD].map(|chain| Command::NewChain(chain, None)).to_vec();
    commands.extend(base());
    commands.extend(tripped());
    commands.extend(unheard(terms));
    commands
}

/// The rules of the base chain, which every packet goes through.
pub(super) fn base() -> Vec<Command> {
    of_connections().into_iter().chain(Family::BOTH.map(of_tripped)).chain(knocks()).collect()
}

/// Every segment that may belong to a connection goes on, of this host or of one behind it, whoever is tripped: a forged
/// SYN may have named its peer. The most frequent kind first. None of them is a probe at the first packet (a bare ACK may
/// be a stray), and of what they are answered with, open ports and closed ones send the same.
fn of_connections() -> [Command; 3] {
    [(SYN | ACK, ACK), (SYN | RST, RST), (FIN | SYN | RST | ACK, SYN | ACK)]
        .map(|(mask, set)| rule(PROBE, flags(mask, Comparison::Equal, set), Verdict::Return))
}

fn of_tripped(family: Family) -> Command {
    rule(PROBE, among(family, tripped_name(family)), Verdict::Jump(TRIPPED))
}

/// What the sensor judges a probe at the first packet: SYN without ACK, flags that belong to no connection in any state,
/// and a datagram that is no answer.
fn knocks() -> [Command; 2] {
    let is_trap = |kind| vec![port_at(2), Expression::Lookup(traps_name(kind).to_owned())];
    // Says no more of a whole segment than `of_connections`; of a torn one nobody knows the flags.
    let segments = [flags(SYN | ACK, Comparison::Other, ACK), is_trap(Datagrams::No)].concat();
    let is_no_answer = Expression::Compare(Comparison::AtLeast, FIRST_CLIENT_PORT.to_be_bytes().to_vec());
    let datagrams =
        [over(libc::IPPROTO_UDP), is_trap(Datagrams::Yes), vec![port_at(0), is_no_answer]].concat();
    [segments, datagrams].map(|knock| rule(PROBE, knock, Verdict::Jump(UNHEARD)))
}

fn tripped() -> Vec<Command> {
    let mut rules = vec![unless_never(TRIPPED)];
    rules.extend(Family::BOTH.map(|it| rule(TRIPPED, among(it, spared_name(it)), Verdict::Return)));
    rules.push(rule(TRIPPED, vec![Expression::Counter], Verdict::Drop));
    rules
}

/// Nobody is tripped by a packet that a socket takes in, that is for another host, or that the sensor does not see.
fn unheard(terms: &Terms) -> Vec<Command> {
    let mut let_go: Vec<Vec<Expression>> = Vec::new();
    if !terms.interfaces.is_empty() {
        let_go.push(vec![Expression::Meta(META_INPUT_NAME), Expression::LookupNot(WATCHED.to_owned())]);
    }
    let_go.push(from_a_bridge());
    let local = u32::from(libc::RTN_LOCAL).to_ne_bytes().to_vec();
    let_go.push(vec![Expression::DestinationType, Expression::Compare(Comparison::Other, local)]);
    // Told of every socket there is, in whatever state; which of the two it is does not matter.
    let heard = |transparent| vec![Expression::SocketIsTransparent, Expression::equals(&[transparent])];
    let_go.extend([0, 1].map(heard));
    let_go.extend(Family::BOTH.map(|family| among(family, spared_name(family))));
    let_go.extend(Family::BOTH.map(|family| among(family, lately_name(family))));
    let_go.push(vec![Expression::OverLimit { per_minute: terms.per_minute }]);
    let mut rules = vec![unless_never(UNHEARD)];
    rules.extend(let_go.into_iter().map(|conditions| rule(UNHEARD, conditions, Verdict::Return)));
    rules.extend(Family::BOTH.map(trip));
    rules
}

fn trip(family: Family) -> Command {
    let mut trip = source(family);
    trip.push(Expression::Remember(lately_name(family), SPARED));
    trip.push(Expression::Remember(tripped_name(family), PROVISIONAL));
    rule(UNHEARD, trip, Verdict::Drop)
}

/// With br_netfilter a bridge has its packets go through these rules before it takes them in, and before the sensor sees
/// those that are to the bridge's own hardware address: what was dropped by then, nobody would hear of.
fn from_a_bridge() -> Vec<Expression> {
    vec![Expression::Meta(META_INPUT_KIND), Expression::equals(&padded("bridge"))]
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

    #[test]
    fn who_is_spared_is_looked_for_before_anything_is_dropped() {
        let text = format!("{:?}", tripped());
        assert!(text.find("spared6").unwrap() < text.find("Drop").unwrap());
        let text = format!("{:?}", unheard(&Terms { interfaces: Vec::new(), per_minute: 120 }));
        for before in ["DestinationType", "Transparent", "spared6", "lately6", "OverLimit"] {
            assert!(text.find(before).unwrap() < text.find("Remember").unwrap(), "{before}");
        }
    }
}
