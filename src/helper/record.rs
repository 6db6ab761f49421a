//! Blocks by target, and the order in which they end: what is due costs no look at the rest, be there a million. Pure;
//! helper.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use ipnet::IpNet;

use super::escalation::Block;

/// Each target once. About 85 bytes a block when restored, 130 when they came one by one.
#[derive(Debug, Default)]
pub struct Record {
    by_target: BTreeMap<IpNet, Block>,
    by_end: BTreeSet<(u64, IpNet)>,
}

impl FromIterator<(IpNet, Block)> for Record {
    fn from_iter<I: IntoIterator<Item = (IpNet, Block)>>(blocks: I) -> Record {
        Record::of(blocks.into_iter().collect())
    }
}

impl Record {
    fn of(by_target: BTreeMap<IpNet, Block>) -> Record {
        let by_end = by_target.iter().map(|(target, block)| (block.until, *target)).collect();
        Record { by_target, by_end }
    }

    /// Puts a block in, in place of an older one of the same target.
    pub fn insert(&mut self, target: IpNet, block: Block) {
        let old = self.by_target.insert(target, block).map(|old| old.until);
        if old != Some(block.until) {
            old.map(|until| self.by_end.remove(&(until, target)));
            self.by_end.insert((block.until, target));
        }
    }

    /// Takes a block out.
    pub fn remove(&mut self, target: &IpNet) -> Option<Block> {
        let block = self.by_target.remove(target)?;
        self.by_end.remove(&(block.until, *target));
        Some(block)
    }

    /// The block of exactly `target`.
    pub fn get(&self, target: &IpNet) -> Option<&Block> {
        self.by_target.get(target)
    }

    /// When the first one ends.
    pub fn first_end(&self) -> Option<u64> {
        self.by_end.first().map(|&(until, _)| until)
    }

    /// Those that end by `by`.
    pub fn ending_by(&self, by: u64) -> impl Iterator<Item = IpNet> + '_ {
        self.by_end.iter().take_while(move |(until, _)| *until <= by).map(|(_, target)| *target)
    }

    /// Takes out the one that ends first.
    pub fn take_first(&mut self) -> Option<(IpNet, Block)> {
        let (_, target) = self.by_end.pop_first()?;
        self.by_target.remove(&target).map(|block| (target, block))
    }

    /// Takes out one that has ended by `now`.
    pub fn take_ended(&mut self, now: u64) -> Option<(IpNet, Block)> {
        self.first_end().filter(|&until| until <= now).and_then(|_| self.take_first())
    }

    /// Takes out those that end first, until there are no more than `room`.
    pub fn keep_last(&mut self, room: usize) -> impl Iterator<Item = (IpNet, Block)> + '_ {
        std::iter::from_fn(move || if self.len() > room { self.take_first() } else { None })
    }

    /// Changes every block's times.
    pub fn change_all(&mut self, change: impl FnMut(&mut Block)) {
        let mut blocks = std::mem::take(self).by_target;
        blocks.values_mut().for_each(change);
        *self = Record::of(blocks);
    }

    /// Those after `last`, in the order of targets.
    pub fn after(&self, last: Option<IpNet>) -> impl Iterator<Item = (IpNet, Block)> + '_ {
        let from = last.map_or(Bound::Unbounded, Bound::Excluded);
        self.by_target.range((from, Bound::Unbounded)).map(|(target, block)| (*target, *block))
    }

    /// All of them, by target.
    pub fn into_blocks(self) -> BTreeMap<IpNet, Block> {
        self.by_target
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_target.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_target.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::prelude::*;

    use super::*;
    use crate::protocol::Responses;

    fn block(until: u64) -> Block {
        Block { since: 0, until, offence: 1, with: Responses::NONE, owed: Responses::NONE }
    }

    fn target(number: u8) -> IpNet {
        IpAddr::from([192, 0, 2, number]).into()
    }

    #[test]
    fn a_block_that_is_put_in_again_ends_when_it_says_last() {
        let mut record = Record::default();
        record.insert(target(1), block(10));
        record.insert(target(1), block(30));
        assert_eq!((record.first_end(), record.take_ended(29)), (Some(30), None));
        assert_eq!((record.ending_by(29).count(), record.ending_by(30).count()), (0, 1));
        assert_eq!(record.take_ended(30), Some((target(1), block(30))));
    }

    proptest! {
        #[test]
        fn blocks_come_out_in_the_order_of_their_ends_and_each_once(
            puts in prop::collection::vec((any::<u8>(), 0u64..50), 0..100),
            gone in prop::collection::vec(any::<u8>(), 0..20),
            later in 0u64..9,
        ) {
            let (mut record, mut model) = (Record::default(), BTreeMap::new());
            for (number, until) in puts {
                record.insert(target(number), block(until));
                model.insert(number, until + later);
            }
            for number in gone {
                prop_assert_eq!(record.remove(&target(number)).is_some(), model.remove(&number).is_some());
            }
            record.change_all(|block| block.until += later);
            prop_assert_eq!(record.after(None).count(), model.len());
            let mut last = 0;
            while let Some((target, block)) = record.take_ended(30) {
                prop_assert!(last <= block.until && block.until <= 30 && record.get(&target).is_none());
                last = block.until;
            }
            prop_assert_eq!(record.len(), model.values().filter(|&&until| until > 30).count());
            prop_assert_eq!(record.first_end(), model.values().filter(|&&until| until > 30).min().copied());
        }
    }
}
