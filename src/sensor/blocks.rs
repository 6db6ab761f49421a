//! What the sensor believes to be blocked: a mirror of the helper's record, for events and for keeping quiet.
//!
//! Pure. The helper's replies fill it; it decides nothing about the firewall.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ipnet::IpNet;

use crate::networks::Networks;
use crate::protocol::Responses;

/// One block in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// When it ends, milliseconds of [`super::clock::Now::uptime`].
    pub until: u64,
    /// Which offence of the source it is for.
    pub offence: u16,
    /// Which responses took effect; KILL_RUN_CMD and nothing else (BLOCK_*=2) shuts nobody out.
    pub with: Responses,
}

/// Blocks by target, and the order in which they end. As large as the helper's table, which is bounded.
#[derive(Default)]
pub struct Blocks {
    by_target: HashMap<IpNet, Block>,
    by_end: BTreeSet<(u64, IpNet)>,
    /// Many were lifted at once: still to be told of.
    lifted: BTreeMap<IpNet, Block>,
}

/// How a block came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Its time is over.
    Expired,
    /// Somebody lifted it.
    Lifted,
    /// Its target has become one that is never blocked.
    Spared,
}

impl Blocks {
    /// Records a block, in place of an older one of the same target.
    pub fn insert(&mut self, target: IpNet, block: Block) {
        self.remove(&target);
        self.by_target.insert(target, block);
        self.by_end.insert((block.until, target));
    }

    /// Forgets a block. Returns it if there was one.
    pub fn remove(&mut self, target: &IpNet) -> Option<Block> {
        let block = self.by_target.remove(target)?;
        self.by_end.remove(&(block.until, *target));
        Some(block)
    }

    /// The block of exactly this target, if it is in force at `uptime`.
    pub fn get(&self, target: &IpNet, uptime: u64) -> Option<&Block> {
        self.by_target.get(target).filter(|block| block.until > uptime)
    }

    /// Takes out the block of exactly this target if it has ended by `uptime`: to be told of before the next one.
    pub fn take_end_of(&mut self, target: &IpNet, uptime: u64) -> Option<(Block, Ending)> {
        self.take_lifted(target).or_else(|| {
            self.by_target.get(target).filter(|block| block.until <= uptime)?;
            self.remove(target).map(|block| (block, Ending::Expired))
        })
    }

    /// Takes out the block of exactly this target if it was lifted with many others and is still to be told of.
    pub fn take_lifted(&mut self, target: &IpNet) -> Option<(Block, Ending)> {
        self.lifted.remove(target).map(|block| (block, Ending::Lifted))
    }

    /// A wider block that `target` lies in.
    pub fn covering(&self, target: &IpNet) -> Option<IpNet> {
        let shuts_out = |net: &IpNet| self.by_target.get(net).is_some_and(|block| !block.with.is_run_only());
        std::iter::successors(target.supernet(), IpNet::supernet).find(shuts_out)
    }

    /// When the next block ends, milliseconds of uptime.
    pub fn next_end(&self) -> Option<u64> {
        let lifted = self.lifted.first_key_value().map(|_| 0);
        lifted.or_else(|| self.by_end.first().map(|&(until, _)| until))
    }

    /// Lifts every block; [`take_ended`](Self::take_ended) brings them one by one.
    pub fn lift_all(&mut self) {
        self.by_end.clear();
        self.lifted.extend(std::mem::take(&mut self.by_target));
    }

    /// Takes out one block that has ended by `uptime`.
    pub fn take_ended(&mut self, uptime: u64) -> Option<(IpNet, Block, Ending)> {
        if let Some((target, block)) = self.lifted.pop_first() {
            return Some((target, block, Ending::Lifted));
        }
        let &(_, target) = self.by_end.first().filter(|&&(until, _)| until <= uptime)?;
        self.remove(&target).map(|block| (target, block, Ending::Expired))
    }

    /// Whoever is shut out.
    pub fn networks(&self) -> Networks {
        self.by_target.keys().copied().collect()
    }

    /// How many are in force.
    pub fn len(&self) -> usize {
        self.by_target.len()
    }

    /// Whether none is in force.
    pub fn is_empty(&self) -> bool {
        self.by_target.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn blocks_end_in_order_and_a_renewed_one_ends_later() {
        let mut blocks = Blocks::default();
        for (target, until) in [("192.0.2.1/32", 3000), ("192.0.2.2/32", 1000), ("2001:db8::/64", 2000)] {
            blocks.insert(net(target), Block { until, offence: 1, with: Responses::NONE });
        }
        blocks.insert(net("192.0.2.2/32"), Block { until: 9000, offence: 2, with: Responses::NONE });
        assert_eq!((blocks.len(), blocks.next_end()), (3, Some(2000)));
        assert_eq!(blocks.covering(&net("2001:db8::7/128")), Some(net("2001:db8::/64")));
        assert_eq!(
            (blocks.covering(&net("2001:db8::/64")), blocks.covering(&net("192.0.2.1/32"))),
            (None, None)
        );
        assert_eq!(blocks.take_ended(1999), None);
        assert_eq!(blocks.take_ended(3000).unwrap().0, net("2001:db8::/64"));
        assert_eq!(blocks.take_ended(3000).unwrap().0, net("192.0.2.1/32"));
        assert_eq!(blocks.take_ended(3000), None);
        assert_eq!(blocks.remove(&net("192.0.2.2/32")).unwrap().offence, 2);
        assert!(blocks.is_empty() && blocks.next_end().is_none());
    }

    #[test]
    fn an_end_that_waits_to_be_told_is_taken_out_before_the_next_block() {
        let (mut blocks, one) = (Blocks::default(), net("192.0.2.1/32"));
        let block = |until| Block { until, offence: 1, with: Responses::NONE };
        blocks.insert(one, block(3000));
        assert_eq!(blocks.take_end_of(&one, 2999), None);
        assert_eq!(blocks.get(&one, 2999), Some(&block(3000)));
        assert_eq!(blocks.get(&one, 3000), None);
        assert_eq!(blocks.take_end_of(&one, 3000), Some((block(3000), Ending::Expired)));
        blocks.insert(one, block(9000));
        blocks.lift_all();
        assert_eq!(blocks.take_end_of(&one, 3000), Some((block(9000), Ending::Lifted)));
        blocks.insert(one, block(12_000));
        assert_eq!((blocks.take_ended(4000), blocks.len()), (None, 1));
    }

    #[test]
    fn what_is_lifted_at_once_is_told_one_by_one_and_not_in_force_meanwhile() {
        let mut blocks = Blocks::default();
        for target in ["192.0.2.1/32", "192.0.2.2/32"] {
            blocks.insert(net(target), Block { until: 3000, offence: 1, with: Responses::NONE });
        }
        blocks.lift_all();
        assert_eq!(
            (blocks.len(), blocks.next_end(), blocks.get(&net("192.0.2.1/32"), 0)),
            (0, Some(0), None)
        );
        let told: BTreeSet<_> = std::iter::from_fn(|| blocks.take_ended(0))
            .map(|(it, _, end)| (it, end == Ending::Lifted))
            .collect();
        assert_eq!(told, BTreeSet::from([(net("192.0.2.1/32"), true), (net("192.0.2.2/32"), true)]));
        assert_eq!(blocks.next_end(), None);
    }
}
