//! What the kernel says of our table: who is blocked, what was dropped. Helper.
//!
//! Asks each time, for others change the firewall too. Changes nothing.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;

use super::{Nftables, Result};
use crate::helper::ruleset::{Block, BlockSet, TABLE};
use crate::netlink::Message;
use crate::netlink::nftables::{self, Kind, element};

impl Nftables {
    /// Every block in force and how long it still has, as the kernel tells.
    pub fn list(&mut self) -> Result<Vec<Block>> {
        let sets: Vec<BlockSet> = self.sets.iter().copied().collect();
        let lists: Result<Vec<Vec<Block>>> = sets.into_iter().map(|set| self.list_set(set)).collect();
        Ok(lists?.concat())
    }

    fn list_set(&mut self, set: BlockSet) -> Result<Vec<Block>> {
        let name = set.name();
        let decode = |message: &Message<'_>, list: &mut Vec<Block>| {
            let blocks = element::decode(message);
            list.extend(
                blocks.filter_map(|(key, remaining)| Some(Block { target: set.target(key)?, remaining })),
            );
        };
        self.dump(
            "list a set",
            Kind::GetElements,
            |message| element::elements(message, TABLE, &name, &[]),
            decode,
        )
    }

    /// Packets and bytes that our rules have dropped since [`Nftables::install`].
    pub fn counters(&mut self) -> Result<(u64, u64)> {
        let fill = |message: &mut _| nftables::rules_of(message, TABLE);
        let rules = self.dump("read the counters", Kind::GetRule, fill, |message, list| {
            list.push(nftables::rule_counters(message));
        })?;
        let sum = |(packets, bytes): (u64, u64), (p, b)| (packets.saturating_add(p), bytes.saturating_add(b));
        Ok(rules.into_iter().fold((0, 0), sum))
    }

    pub(super) fn find_sets(&mut self) -> Result<BTreeSet<BlockSet>> {
        if !self.is_installed()? {
            return Ok(BTreeSet::new());
        }
        let fill = |message: &mut _| nftables::sets_of(message, TABLE);
        let names = self.dump("list our sets", Kind::GetSet, fill, |message, names| {
            names.extend(nftables::set_name(message))
        })?;
        Ok(names.iter().filter_map(|name| BlockSet::named(name)).collect())
    }
}
