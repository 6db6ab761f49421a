//! Whether the kernel's table is still what we made of it, others changing the firewall too. Helper.
//!
//! Asks for no more than a look can afford: whose table, base chain and rules these are, which is exact, and one number.
//! If by that somebody else has changed anything, of each block that it is still there, [`BUDGET`] of it at each look, once
//! round the record: a list of all of a large set takes the kernel the square of its size (26 s for a million). What a look
//! has found, or could not find out, is in doubt until a look finds all of it well.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ipnet::IpNet;

use super::identity::Identity;
use super::round::Round;
use super::{Nftables, NftablesError, Result};
use crate::helper::respond::{InForce, Walk};
use crate::helper::ruleset::{BlockSet, PROBE, TABLE};
use crate::netlink::Message;
use crate::netlink::nftables::{self, Command, Element, Kind, element};
use crate::protocol::Response;

/// What a look may take for blocks, a fiftieth of the time between two at most: about 30,000 of them.
const BUDGET: Duration = Duration::from_millis(100);
/// Blocks that are asked for in one request: their answers fit a quarter of the usual receive buffer (208 KiB).
const ASKED_AT_ONCE: usize = 64;
/// The kernel ends a block this much before the record at most: the clocks round differently.
const EARLY: Duration = Duration::from_secs(2);
/// And this much after it: its time runs from when the kernel has taken it, of a million the last after seconds.
const LATE: Duration = Duration::from_secs(60);

/// What we know of our table.
#[derive(Debug, Default)]
pub(super) struct Standing {
    /// The number of the last change that is ours or that we have looked into. `None`: the blocks are in doubt.
    generation: Option<u32>,
    /// Likewise the number of the last change with which the rules were as we made them. `None`: not looked at since.
    rules_at: Option<u32>,
    /// The table, its base chain and its rules, as we made them. Without a table: nothing that may stand is known as ours.
    made: Identity,
    /// Which blocks are still to be looked at.
    round: Round,
}

impl Standing {
    /// A batch of ours came true, of which the kernel has `told` this. What may have changed nothing has no number then: to
    /// count it would hide the next change, somebody else's.
    pub(super) fn committed(&mut self, commands: &[Command], told: Identity) {
        self.made = std::mem::take(&mut self.made).after(commands, told);
        let counted = commands.iter().any(Command::is_a_change);
        let count = |last: Option<u32>| last.filter(|_| counted).map(nftables::next_generation);
        (self.generation, self.rules_at) = (count(self.generation), count(self.rules_at));
    }

    /// Whether there are rules that were ours when they were seen last.
    pub(super) fn is_known(&self) -> bool {
        self.made.is_there()
    }

    /// The next look goes round the blocks.
    pub(super) fn doubt(&mut self) {
        self.generation = None;
    }

    /// The blocks are to be looked at if anybody else has changed something since the last number.
    fn compare(&mut self, generation: u32) {
        if self.generation.replace(generation) != Some(generation) {
            self.round.begin();
        }
    }
}

impl Nftables {
    /// Whether a table by our name is in the kernel, whoever made it.
    pub fn is_there(&mut self) -> Result<bool> {
        Ok(self.table()?.is_there())
    }

    /// Whether our table is in the kernel as we made it: a set that no rule asks blocks nobody.
    pub fn is_installed(&mut self) -> Result<bool> {
        Ok(self.standing.is_known() && self.identity()? == self.standing.made)
    }

    /// Likewise, where somebody else may have changed the ruleset since this was asked last: a number, mostly.
    pub fn rules_stand(&mut self) -> Result<bool> {
        // Asked for first: a change that comes in between is noticed next time.
        let generation = Some(self.ask_generation()?);
        if self.standing.rules_at != generation {
            let stands = self.is_installed()?;
            self.standing.rules_at = generation.filter(|_| stands);
        }
        Ok(self.standing.rules_at.is_some())
    }

    /// Likewise, and whether the blocks are there: all that could be looked at since somebody else changed the ruleset.
    /// Where nobody is on record the rules heed nobody any more.
    pub fn stands(&mut self, record: &Walk<'_>) -> Result<bool> {
        let stands = self.look(record);
        // Whoever repairs it may fail.
        if !matches!(stands, Ok(true)) {
            self.standing.doubt();
        }
        stands
    }

    fn look(&mut self, record: &Walk<'_>) -> Result<bool> {
        let generation = self.ask_generation()?;
        if !self.is_installed()? {
            return Ok(false);
        }
        self.standing.rules_at = Some(generation);
        self.standing.compare(generation);
        let begun = Instant::now();
        while begun.elapsed() < BUDGET {
            let next = std::iter::from_fn(|| self.standing.round.next(record));
            let part: Vec<(IpNet, InForce)> = next.take(ASKED_AT_ONCE).collect();
            if part.is_empty() {
                break;
            }
            if !self.hold(&part)? {
                return Ok(false);
            }
        }
        if record(None).is_none() {
            self.heed_nobody();
        }
        Ok(true)
    }

    /// From now on changes that are not ours are noticed.
    pub(super) fn begin_install(&mut self) -> Result<()> {
        self.standing.generation = Some(self.ask_generation()?);
        // What comes true of it, if not all does, are not the rules we have made.
        self.standing.rules_at = None;
        Ok(())
    }

    /// The table was made anew. If somebody else changed the ruleset meanwhile, the blocks are looked at.
    pub(super) fn end_install(&mut self) -> Result<()> {
        self.standing.round = Round::default();
        let generation = self.ask_generation()?;
        self.standing.compare(generation);
        Ok(())
    }

    /// What stands by the names of ours, whoever made it.
    fn identity(&mut self) -> Result<Identity> {
        let decode = |message: &Message<'_>, it: &mut Identity| it.learn(message);
        let fill = |message: &mut _| nftables::table(message, TABLE);
        let rules = self.dump("look for rules", Kind::GetRule, fill, decode)?;
        let fill = |message: &mut _| nftables::one_chain(message, TABLE, PROBE);
        let chain = match self.socket.ask(Kind::GetChain.number(), fill, decode) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Identity::default(),
            chain => chain.map_err(|error| NftablesError::new("look for the base chain", error))?,
        };
        Ok(rules.with(chain).with(self.table()?))
    }

    /// Of that the table alone.
    fn table(&mut self) -> Result<Identity> {
        let decode = |message: &Message<'_>, it: &mut Identity| it.learn(message);
        self.dump("look for the table", Kind::GetTable, nftables::family_header, decode)
    }

    /// Whether the kernel has these blocks, for about as long.
    fn hold(&mut self, part: &[(IpNet, InForce)]) -> Result<bool> {
        let mut sets: BTreeMap<BlockSet, BTreeMap<IpAddr, Duration>> = BTreeMap::new();
        let ours = part.iter().filter(|(_, it)| it.with.contains(Response::Nftables) && it.left > EARLY);
        for (target, it) in ours {
            sets.entry(BlockSet::of(target)).or_default().insert(target.network(), it.left);
        }
        for (set, blocks) in sets {
            let found = match self.ask_for(set, blocks.keys().copied()) {
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(false),
                found => found.map_err(|error| NftablesError::new("look for blocks", error))?,
            };
            let agrees = |(key, remaining): &(IpAddr, Option<Duration>)| {
                blocks.get(key).zip(*remaining).is_some_and(|(left, remaining)| {
                    remaining.saturating_add(EARLY) >= *left && remaining <= left.saturating_add(LATE)
                })
            };
            if found.len() != blocks.len() || !found.iter().all(agrees) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// ENOENT if one of them is not there.
    fn ask_for(
        &mut self,
        set: BlockSet,
        keys: impl Iterator<Item = IpAddr>,
    ) -> io::Result<Vec<(IpAddr, Option<Duration>)>> {
        let elements: Vec<Element> = keys.map(|key| Element::Timed(key, None)).collect();
        let decode = |message: &Message<'_>, list: &mut Vec<_>| list.extend(element::decode(message));
        let fill = |message: &mut _| element::elements(message, TABLE, &set.name(), &elements);
        self.socket.ask(Kind::GetElements.number(), fill, decode)
    }
}
