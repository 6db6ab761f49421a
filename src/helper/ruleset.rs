//! What stands in the table `inet portsentry`: sets, chains and rules, as commands to make them.
//!
//! Pure; the helper's. Single addresses live in the hash sets `blocked4` and `blocked6`. Prefixes of each length have
//! a hash set of masked addresses of their own (`blocked6_64`), made when first needed: lookups stay O(1), and prefixes
//! that lie within each other are listed, refreshed and lifted one by one, which a kernel interval set cannot do.
//!
//! What every packet of every stream goes through is the base chain, so it asks least: whether the source is among the
//! blocked, and not even that before somebody is. Whoever is, is asked in the chain that would drop its packet whether it
//! may be.
#![forbid(unsafe_code)]

mod never;

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

pub use self::never::replace_never;
use self::never::{never_elements, never_rules, never_set};
use super::respond::Timed;
use crate::netlink::nftables::element::ELEMENTS_PER_MESSAGE;
use crate::netlink::nftables::expression::META_PROTOCOL;
use crate::netlink::nftables::{
    Command, Element, Elements, Expression, Family, HOOK_PREROUTING, Key, PRIORITY_RAW, Set, Verdict,
};
use crate::networks::Networks;

/// Our table, of the family `inet`. Nobody else's is ever touched.
pub const TABLE: &str = "portsentry";
/// The kernel refuses more elements in one set of blocks; at least so many there may always be.
pub const SET_CAPACITY: u32 = 1 << 17;
/// The greatest `nelem_hint`.
const HINT: u32 = 0xffff;
/// The base chain.
pub(super) const PROBE: &str = "probe";
/// Where the packets of blocked sources go.
const BLOCKED: &str = "blocked";
/// Accepts what no chain of ours may drop, and returns otherwise. Each that drops jumps here first.
const NEVER: &str = "never";

/// What each set of blocks holds where there may be `blocks` in all: some more, as what has ended is in the set until
/// the kernel's next round.
///
/// The kernel makes a new set's buckets for the lowest 16 bits of its capacity (`nelem_hint` of linux/rhashtable.h): for
/// few at the usual capacity, and 1 MiB of them where very many blocks may come in one transaction, in which it cannot
/// put a table that grows in order.
pub fn capacity(blocks: u32) -> u32 {
    match blocks.saturating_add(blocks / 8) {
        few if few <= SET_CAPACITY => SET_CAPACITY,
        many => many | HINT,
    }
}

/// The set for blocks of one family and prefix length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BlockSet {
    family: Family,
    length: u8,
}

impl BlockSet {
    /// The two sets that always stand.
    pub const SINGLES: [BlockSet; 2] =
        [BlockSet { family: Family::Ipv4, length: 32 }, BlockSet { family: Family::Ipv6, length: 128 }];

    /// Where `target` belongs.
    pub fn of(target: &IpNet) -> BlockSet {
        BlockSet { family: Family::of(target.addr()), length: target.prefix_len() }
    }

    /// `blocked4`, `blocked6`, or with the prefix length `blocked6_64`.
    pub fn name(self) -> String {
        let name = of_family("blocked", self.family);
        if self.is_single() { name } else { format!("{name}_{}", self.length) }
    }

    fn is_single(self) -> bool {
        BlockSet::SINGLES.contains(&self)
    }

    fn mask(self) -> Vec<u8> {
        let zeros = |width: u8| u32::from(width.saturating_sub(self.length));
        match self.family {
            Family::Ipv4 => u32::MAX.checked_shl(zeros(32)).unwrap_or(0).to_be_bytes().to_vec(),
            Family::Ipv6 => u128::MAX.checked_shl(zeros(128)).unwrap_or(0).to_be_bytes().to_vec(),
        }
    }

    /// Makes the set where it is not there.
    pub fn make(self, capacity: u32) -> Command {
        set(self.name(), Key::Address(self.family), Elements::Timed { capacity })
    }

    /// Shuts out what comes from it, before whatever else the base chain says: in which order does not matter.
    fn rule(self) -> Command {
        let mut rule = source(self.family);
        if !self.is_single() {
            rule.push(Expression::Mask(self.mask()));
        }
        rule.push(Expression::Lookup(self.name()));
        rule.push(Expression::Verdict(Verdict::Jump(BLOCKED)));
        Command::InsertRule(PROBE, rule)
    }
}

/// The name of the one of two sets that is for this family: `never4`, `never6`.
pub(super) fn of_family(name: &str, family: Family) -> String {
    match family {
        Family::Ipv4 => format!("{name}4"),
        Family::Ipv6 => format!("{name}6"),
    }
}

/// Makes a set.
pub(super) fn set(name: String, key: Key, elements: Elements) -> Command {
    Command::NewSet(Set { name, key, elements })
}

/// Appends a rule: this verdict where `conditions` hold.
pub(super) fn rule(chain: &'static str, mut conditions: Vec<Expression>, verdict: Verdict) -> Command {
    conditions.push(Expression::Verdict(verdict));
    Command::NewRule(chain, conditions)
}

/// Goes on only if the packet's source is in this set.
pub(super) fn among(family: Family, set: String) -> Vec<Expression> {
    let mut conditions = source(family);
    conditions.push(Expression::Lookup(set));
    conditions
}

/// Loads the source address of a packet of this family.
pub(super) fn source(family: Family) -> Vec<Expression> {
    let offset = match family {
        Family::Ipv4 => 12,
        Family::Ipv6 => 8,
    };
    from_header(family, offset, u32::from(family.length()))
}

/// Loads a field of the network header of a packet of this family.
fn from_header(family: Family, offset: u32, length: u32) -> Vec<Expression> {
    let protocol = match family {
        Family::Ipv4 => libc::NFPROTO_IPV4,
        Family::Ipv6 => libc::NFPROTO_IPV6,
    };
    let protocol = u8::try_from(protocol).unwrap_or_default();
    vec![
        Expression::Meta(META_PROTOCOL),
        Expression::equals(&[protocol]),
        Expression::Network { offset, length },
    ]
}

/// Makes the whole table anew, whose base chain heeds these sets: an old one goes in the same moment. Then come the
/// elements, with [`add_blocks`].
pub fn table(never: &Networks, heeded: &BTreeSet<BlockSet>, capacity: u32) -> Vec<Command> {
    // A table must be there to be deleted, and "make" is content with one that is.
    let mut commands = vec![Command::NewTable, Command::DeleteTable, Command::NewTable];
    commands.extend(Family::BOTH.map(never_set));
    let always = BTreeSet::from(BlockSet::SINGLES);
    commands.extend(always.union(heeded).map(|set| set.make(capacity)));
    commands.extend([NEVER, BLOCKED].map(|chain| Command::NewChain(chain, None)));
    commands.push(Command::NewChain(PROBE, Some((HOOK_PREROUTING, PRIORITY_RAW))));
    commands.extend(never_rules());
    commands.extend(blocked_rules());
    commands.extend(never_elements(never));
    commands.extend(heeded.iter().map(|set| set.rule()));
    commands
}

fn blocked_rules() -> [Command; 2] {
    [unless_never(BLOCKED), rule(BLOCKED, vec![Expression::Counter], Verdict::Drop)]
}

/// The first rule of a chain that drops.
pub(super) fn unless_never(chain: &'static str) -> Command {
    rule(chain, Vec::new(), Verdict::Jump(NEVER))
}

/// Adds elements to a set, in messages of as many as fit.
pub(super) fn add(set: String, elements: &[Element]) -> Vec<Command> {
    let chunks = elements.chunks(ELEMENTS_PER_MESSAGE);
    chunks.map(|chunk| Command::AddElements(set.clone(), chunk.to_vec())).collect()
}

/// Deletes elements of a set, which must all be there.
pub(super) fn delete(set: String, elements: &[Element]) -> Vec<Command> {
    let chunks = elements.chunks(ELEMENTS_PER_MESSAGE);
    chunks.map(|chunk| Command::DeleteElements(set.clone(), chunk.to_vec())).collect()
}

/// Has the base chain heed `set`, which is made where it is not there.
pub fn heed(set: BlockSet, capacity: u32) -> [Command; 2] {
    [set.make(capacity), set.rule()]
}

/// The elements of `blocks`, each set's together and each target once; of two times for one target the later counts.
fn by_set(blocks: &[Timed]) -> BTreeMap<BlockSet, Vec<Element>> {
    let mut times: Vec<Timed> = blocks.iter().map(|(target, left)| (target.trunc(), *left)).collect();
    times.sort_by_key(|(target, _)| *target);
    times.dedup_by(|later, earlier| {
        let same = later.0 == earlier.0;
        if same {
            earlier.1 = later.1;
        }
        same
    });
    let mut sets: BTreeMap<BlockSet, Vec<Element>> = BTreeMap::new();
    for (target, time) in times {
        sets.entry(BlockSet::of(&target)).or_default().push(Element::Timed(target.addr(), Some(time)));
    }
    sets
}

/// Adds blocks to sets that hold none of them.
pub fn add_blocks(blocks: &[Timed]) -> Vec<Command> {
    by_set(blocks).into_iter().flat_map(|(set, elements)| add(set.name(), &elements)).collect()
}

/// Adds blocks, or sets the time anew of those that are there.
pub fn refresh_blocks(blocks: &[Timed]) -> Vec<Command> {
    by_set(blocks).into_iter().flat_map(|(set, elements)| refresh(set.name(), &elements)).collect()
}

/// Adds elements, or sets the time anew of those that are there. Only kernels since 6.12 change the time of an element
/// that is added again, and "delete" fails where there is none: add, delete and add is right on all of them, and always a
/// change.
pub(super) fn refresh(set: String, elements: &[Element]) -> Vec<Command> {
    let add = add(set.clone(), elements);
    [add.clone(), delete(set, elements), add].concat()
}

/// Deletes one block, which must be there.
pub fn delete_block(target: &IpNet) -> Vec<Command> {
    delete(BlockSet::of(target).name(), &[Element::Timed(target.network(), None)])
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tripwire::Tripwire;
    use super::*;
    use crate::protocol::Terms;

    #[test]
    fn single_addresses_and_prefixes_of_each_length_have_sets_of_their_own() {
        for (target, name) in [
            ("192.0.2.1/32", "blocked4"),
            ("192.0.2.0/24", "blocked4_24"),
            ("2001:db8::1/128", "blocked6"),
            ("2001:db8::/64", "blocked6_64"),
        ] {
            assert_eq!(BlockSet::of(&target.parse().unwrap()).name(), name);
        }
    }

    #[test]
    fn a_mask_has_as_many_ones_as_the_prefix_is_long() {
        for (text, ones) in [("10.0.0.0/25", 25), ("10.0.0.0/0", 0), ("2001:db8::/48", 48), ("::1/128", 128)]
        {
            let mask = BlockSet::of(&text.parse().unwrap()).mask();
            assert_eq!(mask.iter().map(|byte| byte.count_ones()).sum::<u32>(), ones, "{text}");
        }
    }

    #[test]
    fn a_target_that_is_given_twice_is_one_element_with_the_later_time() {
        let blocks = [1, 2].map(|time| ("192.0.2.1/32".parse().unwrap(), Duration::from_secs(time)));
        let element = Element::Timed("192.0.2.1".parse().unwrap(), Some(Duration::from_secs(2)));
        assert_eq!(add_blocks(&blocks), [Command::AddElements("blocked4".to_owned(), vec![element])]);
        assert_eq!(refresh_blocks(&blocks).len(), 3);
    }

    #[test]
    fn no_chain_drops_before_it_has_asked_whether_it_may() {
        let tripwire = Tripwire::new(Terms { interfaces: vec!["eth0".to_owned()], per_minute: 120 });
        let heeded = BTreeSet::from([BlockSet::of(&"2001:db8::/64".parse().unwrap())]);
        let mut commands = table(&Networks::default(), &heeded, SET_CAPACITY);
        commands.extend(tripwire.make());
        let mut rules: BTreeMap<&str, Vec<Vec<Expression>>> = BTreeMap::new();
        for command in commands {
            if let Command::InsertRule(chain, rule) = command {
                rules.entry(chain).or_default().insert(0, rule);
            } else if let Command::NewRule(chain, rule) = command {
                rules.entry(chain).or_default().push(rule);
            }
        }
        let drops = |rules: &&Vec<Vec<Expression>>| {
            rules.iter().flatten().any(|it| *it == Expression::Verdict(Verdict::Drop))
        };
        let dropping: Vec<_> = rules.values().filter(drops).collect();
        assert_eq!(dropping.len(), 3);
        for chain in dropping {
            assert_eq!(chain[0], [Expression::Verdict(Verdict::Jump(NEVER))]);
        }
        assert!(rules[NEVER].iter().all(|rule| rule.ends_with(&[Expression::Verdict(Verdict::Accept)])));
    }
}
