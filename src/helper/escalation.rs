//! What is blocked until when, and how often each source has earned it. Pure, the time is passed in; helper.
//!
//! Mirrors the kernel's sets: an entry is entered only after the kernel took it, and ends on the same clock.
//! Times are milliseconds since 1970 UTC.
#![forbid(unsafe_code)]

mod block;

use ipnet::IpNet;

pub use self::block::Block;
use super::authorise::widest;
use super::record::Record;
use crate::networks::Networks;
use crate::protocol::settings::LONGEST_BLOCK;
use crate::protocol::{Response, Responses};

/// How long an offence is remembered after its block has ended.
pub const MEMORY: u64 = 7 * 24 * 3600 * 1000;
/// Offenders remembered beside those that are blocked; past it the oldest are forgotten.
pub const MAX_OFFENDERS: usize = 32_768;
/// As many at once: what is still to be taken back is passed over, and whoever looks for the oldest without it may meet them
/// all.
const FORGOTTEN_AT_ONCE: usize = MAX_OFFENDERS / 16;
/// Longest block, also for an operator: a year.
pub const LONGEST: u64 = LONGEST_BLOCK as u64 * 1000;

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

    /// The block that a new offence of `target` earns at `now`, with nothing in force yet; enters nothing. `seconds`
    /// other than 0 is an operator's own length: it is an offence too, unless it renews a block in force.
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
            with: Responses::NONE,
            owed: Responses::NONE,
        }
    }

    /// Enters a block that the kernel has taken. What is in force of an earlier one of the same target still is, and so
    /// is the line of hosts.deny of one that is over, where it could not be taken out: it goes with this one. So does what
    /// a command did, but whether that shuts anybody out nobody knows. Returns the block as it is on record now.
    pub fn enter(&mut self, target: IpNet, block: Block) -> Block {
        let over = self.offenders.remove(&target).map_or(Responses::NONE, |over| over.remains());
        let line = over.among(Response::HostsDeny);
        let (with, owed) = self.get(&target).map_or_else(Default::default, |it| (it.with, it.owed));
        let with = block.with.and(with).and(line);
        let block = Block { with, owed: owed.and(over).without(with), ..block };
        self.blocks.insert(target, block);
        block
    }

    /// Enters what a ledger held, before anything else.
    pub fn enter_all(&mut self, blocks: Record) {
        self.blocks = blocks;
    }

    /// Remembers an offence whose block is over at `now`, and what of it is still to be taken back.
    pub fn remember(&mut self, target: IpNet, block: Block, now: u64) {
        if self.offenders.len() >= MAX_OFFENDERS {
            self.forget_the_oldest();
        }
        self.offenders.insert(target, block.over(now));
    }

    /// A record that is forgotten with something still to be taken back leaves that for ever: only where all are such.
    fn forget_the_oldest(&mut self) {
        let settled = |target: &IpNet| self.offenders.get(target).is_some_and(|it| it.remains().is_empty());
        let oldest = self.offenders.ending_by(u64::MAX).filter(settled);
        let forgotten: Vec<IpNet> = oldest.take(FORGOTTEN_AT_ONCE).collect();
        for target in &forgotten {
            self.offenders.remove(target);
        }
        if forgotten.is_empty() {
            self.offenders.keep_last(MAX_OFFENDERS - FORGOTTEN_AT_ONCE).for_each(drop);
        }
    }

    /// Lifts a block and forgives what led to it; what is still to be taken back is remembered. Returns the block.
    pub fn lift(&mut self, target: &IpNet, now: u64) -> Option<Block> {
        let past = self.offenders.remove(target);
        let block = self.blocks.remove(target);
        self.forgive(*target, block.or(past), now);
        block
    }

    /// Lifts and forgives everything. Returns the blocks there were, and those of which something is still to be taken
    /// back.
    pub fn lift_all(&mut self, now: u64) -> Vec<(IpNet, Block)> {
        let (blocks, past) = (std::mem::take(&mut self.blocks), std::mem::take(&mut self.offenders));
        let left = past.after(None).filter(|(_, block)| !block.remains().is_empty());
        let all: Vec<(IpNet, Block)> = blocks.after(None).chain(left).collect();
        all.iter().for_each(|(target, block)| self.forgive(*target, Some(*block), now));
        all
    }

    /// Offence 0: nothing is held against it, but that something is still to be taken back.
    fn forgive(&mut self, target: IpNet, block: Option<Block>, now: u64) {
        if let Some(block) = block.filter(|block| !block.remains().is_empty()) {
            self.remember(target, Block { offence: 0, ..block }, now);
        }
    }

    /// Remembers at `now` that these responses to `target` are still to be taken back: with its block where there is one.
    /// Returns whether that is news.
    pub fn leave(&mut self, target: &IpNet, left: Responses, now: u64) -> bool {
        let known = self.known_of(target).unwrap_or(Block::nothing(now));
        let news = left.without(known.to_end());
        let known = Block { owed: known.owed.and(news), ..known };
        match self.get(target) {
            _ if news.is_empty() => {}
            Some(_) => self.blocks.insert(*target, known),
            None => self.remember(*target, known, now),
        }
        !news.is_empty()
    }

    /// Ends the block of `target` at `now`: it shuts nobody out, although its time is not over.
    pub fn end(&mut self, target: &IpNet, now: u64) {
        if let Some(block) = self.blocks.remove(target) {
            self.remember(*target, block, now);
        }
    }

    /// Ends every block at `now`, and remembers why. Returns them.
    pub fn end_all(&mut self, now: u64) -> Vec<(IpNet, Block)> {
        self.blocks.change_all(|block| block.until = block.until.min(now));
        self.expire(now)
    }

    /// Takes what has ended out of the list, and forgets what is too long ago. Returns the blocks that ended, as they
    /// were.
    pub fn expire(&mut self, now: u64) -> Vec<(IpNet, Block)> {
        let ended: Vec<(IpNet, Block)> = std::iter::from_fn(|| self.blocks.take_ended(now)).collect();
        self.forget_what_is_long_ago(now);
        for (target, block) in &ended {
            self.remember(*target, *block, now);
        }
        ended
    }

    /// A line of hosts.deny that could not be taken out outlives the offence: else nobody would ever take it out.
    fn forget_what_is_long_ago(&mut self, now: u64) {
        let Some(long_ago) = now.checked_sub(MEMORY) else { return };
        let long_over: Vec<(IpNet, Block)> =
            std::iter::from_fn(|| self.offenders.take_ended(long_ago)).collect();
        for (target, _) in long_over.into_iter().filter(|(_, block)| block.with.contains(Response::HostsDeny))
        {
            let left = Block { with: Response::HostsDeny.into(), ..Block::nothing(now) };
            self.offenders.insert(target, left);
        }
    }

    /// Whose blocks end by `by`.
    pub fn ending_by(&self, by: u64) -> impl Iterator<Item = IpNet> + '_ {
        self.blocks.ending_by(by)
    }

    /// Whose block is over and not this response to it.
    pub fn over_with(&self, response: Response) -> impl Iterator<Item = IpNet> + '_ {
        let over = self.offenders.after(None).filter(move |(_, block)| block.with.contains(response));
        over.map(|(target, _)| target)
    }

    /// These responses are not in force any more. Returns whether the record said that one of them was, or may
    /// have been left behind.
    pub fn take_back(&mut self, target: &IpNet, gone: Responses) -> bool {
        // Where nothing is asked nothing is looked for: a million blocks may end at once.
        let known = if gone.is_empty() { None } else { self.known_of(target) };
        let Some(block) = known.filter(|block| !block.to_end().among(gone).is_empty()) else { return false };
        let left = Block { with: block.with.without(gone), owed: block.owed.without(gone), ..block };
        match self.blocks.get(target).is_some() {
            true => self.blocks.insert(*target, left),
            false => self.keep(*target, left),
        }
        true
    }

    /// The block of `target` that ended last shut nobody out: it counts for no offence.
    pub fn withdraw(&mut self, target: &IpNet) {
        if let Some(&over) = self.offenders.get(target) {
            self.keep(*target, Block { offence: over.offence.saturating_sub(1), ..over });
        }
    }

    /// What is over, as far as anything is held against it or still to be taken back.
    fn keep(&mut self, target: IpNet, over: Block) {
        match over.offence == 0 && over.with.is_empty() {
            true => drop(self.offenders.remove(&target)),
            false => self.offenders.insert(target, over),
        }
    }

    /// What is in force against exactly `target` at `now`.
    pub fn in_force(&self, target: &IpNet, now: u64) -> Responses {
        self.get(target).filter(|block| block.until > now).map_or(Responses::NONE, |block| block.with)
    }

    /// What is in force against exactly `target`, or was, or may be, and has not been taken back.
    pub fn remains(&self, target: &IpNet) -> Responses {
        self.known_of(target).map_or(Responses::NONE, |block| block.to_end())
    }

    /// What is on record about exactly `target`: its block, or the last one that is over.
    pub fn known_of(&self, target: &IpNet) -> Option<Block> {
        self.blocks.get(target).or_else(|| self.offenders.get(target)).copied()
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

    /// The blocks in force at `now` that hold all of `target`, the narrowest first.
    pub fn covering(&self, target: &IpNet, now: u64) -> impl Iterator<Item = (IpNet, Block)> + '_ {
        around(target).filter_map(move |network| {
            let block = self.get(&network).filter(|block| block.until > now)?;
            Some((network, block))
        })
    }

    /// Whether `target` or a network around it is blocked or remembered.
    pub fn knows(&self, target: &IpNet) -> bool {
        around(target).any(|network| self.known_of(&network).is_some())
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
        self.blocks.change_all(|block| block.shift(step));
        self.offenders.change_all(|block| block.shift(step));
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

/// `target` and all networks around it that may be blocked, the narrowest first.
fn around(target: &IpNet) -> impl Iterator<Item = IpNet> + use<> {
    let address = target.addr();
    let lengths = (widest(target)..=target.prefix_len()).rev();
    lengths.filter_map(move |length| IpNet::new(address, length).ok().map(|network| network.trunc()))
}

#[cfg(test)]
mod tests;
