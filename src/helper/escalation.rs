//! What is blocked until when, and how often each source has earned it. Pure, the time is passed in; helper.
//!
//! Mirrors the kernel's sets: an entry is entered only after the kernel took it, and ends on the same clock.
//! Times are milliseconds since 1970 UTC.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::authorise::{WIDEST_V4, WIDEST_V6};
use super::record::Record;
use crate::networks::Networks;
use crate::protocol::Responses;

/// How long an offence is remembered after its block has ended.
pub const MEMORY: u64 = 7 * 24 * 3600 * 1000;
/// Offenders remembered beside those that are blocked; past it the oldest is forgotten.
pub const MAX_OFFENDERS: usize = 32_768;
/// Longest block, also for an operator: a year.
pub const LONGEST: u64 = 365 * 24 * 3600 * 1000;

/// The lengths of blocks, milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// BLOCK_TIME: for a first offence.
    pub first: u64,
    /// BLOCK_TIME_MAX: however many there were.
    pub longest: u64,
    /// BLOCK_TIME_FACTOR: from each offence to the next.
    pub factor: u64,
}

impl Terms {
    /// BLOCK_TIME × FACTOR^(offence − 1), at most BLOCK_TIME_MAX.
    pub fn length(&self, offence: u16) -> u64 {
        let growth = self.factor.saturating_pow(u32::from(offence.saturating_sub(1)));
        self.first.saturating_mul(growth).min(self.longest.max(self.first)).min(LONGEST)
    }
}

/// A block: in force while `since <= now < until`. It is also a line of the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// When it began.
    pub since: u64,
    /// When it ends.
    pub until: u64,
    /// Which offence of this source it answers, from 1.
    pub offence: u16,
    /// What is in force, or was and has not been taken back yet.
    #[serde(default, skip_serializing_if = "Responses::is_empty")]
    pub with: Responses,
}

impl Block {
    /// Milliseconds left at `now`.
    pub fn left(&self, now: u64) -> u64 {
        self.until.saturating_sub(now)
    }

    /// Whether nothing but KILL_RUN_CMD answered (BLOCK_*=2): it is told as blocked, and shut out of nothing.
    pub fn is_run_only(&self) -> bool {
        self.with.is_run_only()
    }
}

/// All blocks in force and all offences remembered.
pub struct Escalation {
    terms: Terms,
    blocks: Record,
    offenders: Record,
}

impl Escalation {
    /// Nothing blocked, nobody known.
    pub fn new(terms: Terms) -> Escalation {
        Escalation { terms, blocks: Record::default(), offenders: Record::default() }
    }

    /// The block that a new offence of `target` earns at `now`; enters nothing. `seconds` other than 0 is an
    /// operator's own length: it is an offence too, unless it renews a block in force.
    pub fn sentence(&self, target: &IpNet, seconds: u32, now: u64) -> Block {
        let current = self.blocks.get(target).filter(|block| block.until > now);
        let past = self.blocks.get(target).or_else(|| self.offenders.get(target));
        let past = past.filter(|block| now < block.until.saturating_add(MEMORY));
        let offence = match current {
            Some(block) => block.offence,
            None => past.map_or(0, |block| block.offence).saturating_add(1),
        };
        let length = match seconds {
            0 => self.terms.length(offence),
            given => (u64::from(given) * 1000).min(LONGEST),
        };
        Block {
            // From now, also where it was in force: a ledger line that says longer than the longest is not believed.
            since: now,
            until: now.saturating_add(length),
            offence,
            with: current.map_or(Responses::NONE, |block| block.with),
        }
    }

    /// Enters a block that the kernel has taken.
    pub fn enter(&mut self, target: IpNet, block: Block) {
        self.offenders.remove(&target);
        self.blocks.insert(target, block);
    }

    /// Enters what a ledger held, before anything else.
    pub fn enter_all(&mut self, blocks: Record) {
        self.blocks = blocks;
    }

    /// Remembers an offence whose block has ended.
    pub fn remember(&mut self, target: IpNet, block: Block) {
        if self.offenders.len() >= MAX_OFFENDERS {
            self.offenders.take_first();
        }
        self.offenders.insert(target, block);
    }

    /// Lifts a block and forgives what led to it. Returns whether it was in the record.
    pub fn lift(&mut self, target: &IpNet) -> bool {
        self.offenders.remove(target);
        self.blocks.remove(target).is_some()
    }

    /// Lifts and forgives everything. Returns the blocks there were.
    pub fn lift_all(&mut self) -> BTreeMap<IpNet, Block> {
        self.offenders = Record::default();
        std::mem::take(&mut self.blocks).into_blocks()
    }

    /// Ends every block at `now`, and remembers why. Returns them.
    pub fn end_all(&mut self, now: u64) -> Vec<(IpNet, Block)> {
        self.blocks.change_all(|block| block.until = block.until.min(now));
        self.expire(now)
    }

    /// Takes what has ended out of the list, and forgets what is too long ago. Returns the blocks that ended, as they
    /// were; what is remembered of them has nothing in force.
    pub fn expire(&mut self, now: u64) -> Vec<(IpNet, Block)> {
        let ended: Vec<(IpNet, Block)> = std::iter::from_fn(|| self.blocks.take_ended(now)).collect();
        let forgotten = now.checked_sub(MEMORY);
        while forgotten.and_then(|long_ago| self.offenders.take_ended(long_ago)).is_some() {}
        for (target, block) in &ended {
            self.remember(*target, Block { with: Responses::NONE, ..*block });
        }
        ended
    }

    /// When [`expire`](Self::expire) will next have something to do.
    pub fn next_end(&self) -> Option<u64> {
        self.blocks.first_end()
    }

    /// Blocks in the record.
    pub fn len(&self) -> usize {
        self.blocks.len()
    }

    /// Whether nothing is blocked.
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// The block in force at `now` that holds all of `target`, the narrowest if there are several.
    pub fn covering(&self, target: &IpNet, now: u64) -> Option<Block> {
        let widest = if target.addr().is_ipv4() { WIDEST_V4 } else { WIDEST_V6 };
        (widest..=target.prefix_len()).rev().find_map(|prefix| {
            let network = IpNet::new(target.addr(), prefix).ok()?.trunc();
            self.blocks.get(&network).filter(|block| block.until > now).copied()
        })
    }

    /// Whether `target` or a network around it is blocked or remembered.
    pub fn knows(&self, target: &IpNet) -> bool {
        let widest = if target.addr().is_ipv4() { WIDEST_V4 } else { WIDEST_V6 };
        let around =
            (widest..=target.prefix_len()).filter_map(|prefix| IpNet::new(target.addr(), prefix).ok());
        around
            .map(|network| network.trunc())
            .any(|it| self.blocks.get(&it).is_some() || self.offenders.get(&it).is_some())
    }

    /// The block of exactly `target`.
    pub fn get(&self, target: &IpNet) -> Option<Block> {
        self.blocks.get(target).copied()
    }

    /// Blocks that touch `never`.
    pub fn covered_by(&self, never: &Networks) -> Vec<IpNet> {
        let targets = self.blocks.after(None).map(|(target, _)| target);
        targets.filter(|target| never.overlaps(target)).collect()
    }

    /// The first block in force after `last` in the order of addresses: a list that needs no copy.
    pub fn after(&self, last: Option<IpNet>, now: u64) -> Option<(IpNet, Block)> {
        self.blocks.after(last).find(|(_, block)| block.until > now)
    }

    /// Moves every time by `step` milliseconds: the wall clock was set, the time that is left was not.
    pub fn shift(&mut self, step: i64) {
        let shift = |block: &mut Block| {
            block.since = block.since.saturating_add_signed(step);
            block.until = block.until.saturating_add_signed(step);
        };
        self.blocks.change_all(shift);
        self.offenders.change_all(shift);
    }

    /// How many [`entries`](Self::entries) there are.
    pub fn known(&self) -> usize {
        self.blocks.len() + self.offenders.len()
    }

    /// Everything worth keeping: blocks in force and offences remembered.
    pub fn entries(&self) -> impl Iterator<Item = (IpNet, Block)> + '_ {
        self.blocks.after(None).chain(self.offenders.after(None))
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use proptest::prelude::*;

    use super::*;

    const TERMS: Terms = Terms { first: 1_000, longest: 10_000, factor: 3 };

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn offend(record: &mut Escalation, target: &str, seconds: u32, now: u64) -> Block {
        let block = record.sentence(&net(target), seconds, now);
        record.enter(net(target), block);
        block
    }

    #[test]
    fn each_offence_lasts_longer_up_to_the_longest() {
        let lengths: Vec<_> = (1..=5).chain([u16::MAX]).map(|offence| TERMS.length(offence)).collect();
        assert_eq!(lengths, [1_000, 3_000, 9_000, 10_000, 10_000, 10_000]);
        assert_eq!(Terms { longest: 5, ..TERMS }.length(9), 1_000);
        assert_eq!(Terms { first: u64::MAX, longest: u64::MAX, factor: 1 }.length(1), LONGEST);
    }

    #[test]
    fn a_second_offence_after_expiry_counts_and_one_after_a_week_does_not() {
        let mut record = Escalation::new(TERMS);
        assert_eq!(
            offend(&mut record, "192.0.2.1/32", 0, 0),
            Block { since: 0, until: 1_000, offence: 1, with: Responses::NONE }
        );
        assert_eq!(record.next_end(), Some(1_000));
        assert_eq!(record.expire(999).len(), 0);
        assert_eq!(record.expire(1_000).len(), 1);
        assert!(record.is_empty());
        let second = offend(&mut record, "192.0.2.1/32", 0, 5_000);
        assert_eq!(second, Block { since: 5_000, until: 8_000, offence: 2, with: Responses::NONE });
        assert_eq!(record.sentence(&net("192.0.2.1/32"), 0, 8_000 + MEMORY).offence, 1);
    }

    #[test]
    fn an_operators_length_overrides_counts_once_and_renews_without_counting() {
        let mut record = Escalation::new(TERMS);
        assert_eq!(
            offend(&mut record, "192.0.2.1/32", 60, 0),
            Block { since: 0, until: 60_000, offence: 1, with: Responses::NONE }
        );
        assert_eq!(
            offend(&mut record, "192.0.2.1/32", 90, 10),
            Block { since: 10, until: 90_010, offence: 1, with: Responses::NONE }
        );
        assert_eq!(record.sentence(&net("192.0.2.1/32"), u32::MAX, 20).until, LONGEST + 20);
    }

    #[test]
    fn lifting_forgives_and_ending_remembers() {
        let mut record = Escalation::new(TERMS);
        offend(&mut record, "192.0.2.1/32", 0, 0);
        assert!(record.lift(&net("192.0.2.1/32")) && !record.lift(&net("192.0.2.1/32")));
        assert_eq!(offend(&mut record, "192.0.2.1/32", 0, 10).offence, 1);
        assert_eq!(record.end_all(20).len(), 1);
        assert_eq!(record.sentence(&net("192.0.2.1/32"), 0, 30).offence, 2);
        assert_eq!(record.lift_all().len(), 0);
        assert_eq!(record.sentence(&net("192.0.2.1/32"), 0, 30).offence, 1);
    }

    #[test]
    fn a_block_covers_itself_and_what_lies_inside_until_it_ends() {
        let mut record = Escalation::new(TERMS);
        for target in ["2001:db8::/64", "2001:db8:0:1::1/128", "192.0.2.0/32"] {
            offend(&mut record, target, 0, 0);
        }
        let covered = |text: &str, now: u64| record.covering(&net(text), now).is_some();
        assert!(
            covered("2001:db8::7/128", 999) && covered("2001:db8::/64", 999) && covered("192.0.2.0/32", 0)
        );
        assert!(
            !covered("2001:db8::7/128", 1_000) && !covered("2001:db8::/48", 0) && !covered("192.0.2.0/24", 0)
        );
    }

    #[test]
    fn offenders_are_bounded_and_the_oldest_are_forgotten() {
        let mut record = Escalation::new(TERMS);
        let target = |at: u32| IpNet::from(IpAddr::V4(Ipv4Addr::from(at)));
        let count = u32::try_from(MAX_OFFENDERS).unwrap() + 10;
        for at in 0..count {
            record.remember(
                target(at),
                Block { since: 0, until: u64::from(at), offence: 1, with: Responses::NONE },
            );
        }
        assert!(record.offenders.len() <= MAX_OFFENDERS);
        assert!(record.offenders.get(&target(0)).is_none());
        assert!(record.offenders.get(&target(count - 1)).is_some());
    }

    #[test]
    fn a_set_clock_leaves_the_time_that_is_left() {
        let mut record = Escalation::new(TERMS);
        let block = offend(&mut record, "192.0.2.1/32", 0, 1_000_000);
        record.shift(-900_000);
        let (_, shifted) = record.after(None, 100_000).unwrap();
        assert_eq!(shifted.left(100_000), block.left(1_000_000));
        assert_eq!(record.next_end(), Some(101_000));
    }

    proptest! {
        #[test]
        fn the_list_walks_every_block_in_force_once(ends in prop::collection::btree_map(any::<u32>(), 0u64..100, 0..50), now in 0u64..100) {
            let mut record = Escalation::new(TERMS);
            for (address, until) in &ends {
                record.enter(IpNet::from(IpAddr::V4(Ipv4Addr::from(*address))), Block { since: 0, until: *until, offence: 1, with: Responses::NONE });
            }
            let (mut last, mut seen) = (None, 0);
            while let Some((target, block)) = record.after(last, now) {
                prop_assert!(block.until > now && last < Some(target));
                (last, seen) = (Some(target), seen + 1);
            }
            prop_assert_eq!(seen, ends.values().filter(|&&until| until > now).count());
            prop_assert_eq!(record.expire(now).len() + seen, ends.len());
        }
    }
}
