//! The response nftables: timed sets in a table of our own, changed in batches that come true whole or not at all.
//!
//! The helper's; needs CAP_NET_ADMIN. Says "blocked" only after the kernel has said so, and touches no other table.
#![forbid(unsafe_code)]

mod error;
mod exchange;
mod identity;
mod round;
mod standing;
mod trip;

use std::collections::BTreeSet;

use ipnet::IpNet;

pub use error::{NftablesError, Result};

use self::standing::Standing;
use super::respond::Timed;
use super::ruleset::{self, BlockSet, PROBE};
use super::tripwire::{self, Tripwire};
use crate::netlink::Socket;
use crate::netlink::nftables::Command;
use crate::networks::Networks;
use crate::protocol::wording::is_address;

/// One batch may be this long, bytes: room for [`MOST_BLOCKS`](crate::protocol::settings::MOST_BLOCKS) of 48 bytes.
const LONGEST_BATCH: usize = 64 << 20;
/// Commands in one batch where the system does not allow [`LONGEST_BATCH`]; well within the default of 208 KiB.
const COMMANDS_PER_SHORT_BATCH: usize = 4;

/// An open line to nf_tables, and which sets it has made.
#[derive(Debug)]
pub struct Nftables {
    socket: Socket,
    sets: BTreeSet<BlockSet>,
    /// Those that the base chain heeds, from the first block until a look finds nobody on record: every packet pays for each.
    heeded: BTreeSet<BlockSet>,
    /// Of each set of blocks.
    capacity: u32,
    standing: Standing,
    /// None where it is not wanted, or the kernel lacks what it takes.
    tripwire: Option<Tripwire>,
}

impl Nftables {
    /// Opens the socket and makes sure of nf_tables and of our right to change it. Changes nothing. Each set of blocks
    /// made from now on has this `capacity`.
    pub fn open(tripwire: Option<Tripwire>, capacity: u32) -> Result<Nftables> {
        let socket = Socket::open(libc::NETLINK_NETFILTER, 0).map_err(NftablesError::Socket)?;
        socket.widen_send_buffer(LONGEST_BATCH).map_err(NftablesError::Socket)?;
        let standing = Standing::default();
        let (sets, heeded) = (BTreeSet::new(), BTreeSet::new());
        let mut nftables = Nftables { socket, sets, heeded, capacity, standing, tripwire };
        nftables.ask_generation()?;
        Ok(nftables)
    }

    /// Puts a new table with these never-block networks and blocks in the place of an old one, all in one moment:
    /// a block that was there and is in `blocks` lets nothing through in between.
    pub fn install(&mut self, never: &Networks, blocks: &[Timed]) -> Result<()> {
        let installed = self.install_anew(never, blocks);
        if installed.is_err() {
            self.standing.doubt();
        }
        installed
    }

    fn install_anew(&mut self, never: &Networks, blocks: &[Timed]) -> Result<()> {
        let heeded: BTreeSet<BlockSet> = blocks.iter().map(|(target, _)| BlockSet::of(target)).collect();
        let mut commands = ruleset::table(never, &heeded, self.capacity);
        let without_tripwire = commands.len();
        commands.extend(self.tripwire.iter().flat_map(Tripwire::make));
        let mut elements = ruleset::add_blocks(blocks);
        self.begin_install()?;
        let mut done = self.install_together(&mut commands, &mut elements);
        if let (Err(NftablesError::Unsupported { .. }), Some(_)) = (&done, &self.tripwire) {
            self.tripwire = None;
            commands.truncate(without_tripwire);
            done = self.install_together(&mut commands, &mut elements);
        }
        done?;
        self.sets = heeded.iter().copied().chain(BlockSet::SINGLES).collect();
        self.heeded = heeded;
        self.end_install()
    }

    /// In one batch; or, if the system takes no batch so long, in short ones, the table first.
    fn install_together(&mut self, table: &mut Vec<Command>, elements: &mut Vec<Command>) -> Result<()> {
        let length = table.len();
        table.append(elements);
        let whole = self.apply(table);
        *elements = table.split_off(length);
        match whole {
            Err(NftablesError::Refused { source, .. }) if source.raw_os_error() == Some(libc::EMSGSIZE) => {
                self.apply(table)?;
                elements.chunks(COMMANDS_PER_SHORT_BATCH).try_for_each(|chunk| self.apply(chunk))
            }
            done => done,
        }
    }

    /// Blocks each target for its time, counted from now, also if it is blocked already, by rules that are still as we
    /// made them. One result a block, in order: one that is refused does not keep out the others.
    pub fn block(&mut self, blocks: &[Timed]) -> Vec<Result<()>> {
        match self.block_together(blocks) {
            Ok(()) => blocks.iter().map(|_| Ok(())).collect(),
            Err(NftablesError::TableGone { step }) => {
                blocks.iter().map(|_| Err(NftablesError::TableGone { step })).collect()
            }
            Err(error) if blocks.len() <= 1 => vec![Err(error)],
            Err(_) => blocks.chunks(1).map(|block| self.block_together(block)).collect(),
        }
    }

    fn block_together(&mut self, blocks: &[Timed]) -> Result<()> {
        let needed: BTreeSet<BlockSet> = blocks.iter().map(|(target, _)| BlockSet::of(target)).collect();
        let missing: Vec<BlockSet> = needed.difference(&self.heeded).copied().collect();
        let mut commands: Vec<Command> =
            missing.iter().flat_map(|set| ruleset::heed(*set, self.capacity)).collect();
        // A table in the place of ours may lack the base chain, which looks like a kernel that lacks what a rule takes.
        if !missing.is_empty() && !self.rules_stand()? {
            return Err(NftablesError::TableGone { step: "heed a set" });
        }
        commands.extend(ruleset::refresh_blocks(blocks));
        self.apply(&commands)?;
        if !missing.is_empty() {
            self.sets.extend(&missing);
            self.heeded.extend(missing);
        }
        self.was_ours("have a block hold")
    }

    /// What a batch did it did to our table. Where the kernel cannot be asked, what it said of a batch stands if the rules
    /// by which that holds are known as ours.
    fn was_ours(&mut self, step: &'static str) -> Result<()> {
        match self.rules_stand() {
            Ok(true) => Ok(()),
            Err(_) if self.standing.is_known() => Ok(()),
            Ok(false) | Err(_) => Err(NftablesError::TableGone { step }),
        }
    }

    /// Lifts exactly this block. Returns whether there was one.
    pub fn unblock(&mut self, target: &IpNet) -> Result<bool> {
        if self.tripwire.is_some() && is_address(target) {
            self.apply(&tripwire::forget(target.addr()))?;
        }
        match self.apply(&ruleset::delete_block(target)) {
            Ok(()) => Ok(true),
            Err(NftablesError::Refused { source, .. }) if source.raw_os_error() == Some(libc::ENOENT) => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Lifts every block.
    pub fn flush(&mut self) -> Result<()> {
        // One that somebody has taken away must not keep us from the others.
        let empty = |set: &BlockSet| [set.make(self.capacity), Command::EmptySet(set.name())];
        let mut commands: Vec<Command> = self.sets.iter().flat_map(empty).collect();
        commands.extend(self.tripwire.iter().flat_map(|_| tripwire::forget_all()));
        self.apply(&commands)?;
        self.was_ours("lift every block")
    }

    /// Nobody is blocked: no packet pays for asking who is. Where that fails the next look tries again.
    fn heed_nobody(&mut self) {
        let mut commands = vec![Command::EmptyChain(PROBE)];
        commands.extend(self.tripwire.iter().flat_map(|_| tripwire::base_rules()));
        if !self.heeded.is_empty() && self.apply(&commands).is_ok() {
            self.heeded.clear();
        }
    }

    /// Puts `never` in the place of the never-block set, in one moment.
    pub fn set_never(&mut self, never: &Networks) -> Result<()> {
        self.apply(&ruleset::replace_never(never))
    }

    /// Deletes our table, if it is there, and with it all we ever did.
    pub fn remove_table(&mut self) -> Result<()> {
        self.apply(&[Command::NewTable, Command::DeleteTable])?;
        self.sets.clear();
        self.heeded.clear();
        Ok(())
    }
}
