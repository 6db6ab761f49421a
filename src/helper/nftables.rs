//! The response nftables: timed sets in a table of our own, changed in batches that come true whole or not at all.
//!
//! The helper's; needs CAP_NET_ADMIN. Says "blocked" only after the kernel has said so, and touches no other table.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

use ipnet::IpNet;

use super::respond::Knock;
use super::ruleset::{self, Block, BlockSet, TABLE};
use super::tripwire::{self, Tripwire};
use crate::netlink::nftables::batch::{self, MAKE_A_RULE};
use crate::netlink::nftables::{self, Command, Kind, element};
use crate::netlink::socket::refused;
use crate::netlink::{Message, Socket};
use crate::networks::Networks;
use crate::protocol::{Datagrams, Outcome, Page};

/// One batch may be this long, bytes: room for [`MOST_BLOCKS`](crate::protocol::settings::MOST_BLOCKS) of 48 bytes.
const LONGEST_BATCH: usize = 64 << 20;
/// Commands in one batch where the system does not allow [`LONGEST_BATCH`]; well within the default of 208 KiB.
const COMMANDS_PER_SHORT_BATCH: usize = 4;

/// Why nftables did not do what we asked.
#[derive(Debug, thiserror::Error)]
pub enum NftablesError {
    /// No netlink socket.
    #[error("cannot open a netlink socket to netfilter: {0}; the kernel needs CONFIG_NETFILTER_NETLINK")]
    Socket(#[source] io::Error),
    /// EPERM.
    #[error(
        "cannot {step} in nftables: not permitted; the helper needs CAP_NET_ADMIN in this network namespace"
    )]
    NotPermitted {
        /// What was tried.
        step: &'static str,
    },
    /// The kernel lacks nf_tables or a part of it.
    #[error("cannot {step} in nftables: {source}; the kernel needs {feature}")]
    Unsupported {
        /// What was tried.
        step: &'static str,
        /// Kernel configuration or module.
        feature: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// Somebody deleted our table, as `nft flush ruleset` does.
    #[error("cannot {step} in nftables: the table inet portsentry is gone; it must be installed again")]
    TableGone {
        /// What was tried.
        step: &'static str,
    },
    /// The set holds as many elements as it may: see [`ruleset::capacity`].
    #[error("cannot {step} in nftables: the set is full; lift blocks or shorten BLOCK_TIME")]
    Full {
        /// What was tried.
        step: &'static str,
    },
    /// Anything else.
    #[error("cannot {step} in nftables: {source}")]
    Refused {
        /// What was tried.
        step: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl NftablesError {
    fn new(step: &'static str, source: io::Error) -> NftablesError {
        match source.raw_os_error() {
            Some(libc::EPERM) => NftablesError::NotPermitted { step },
            Some(libc::ENFILE) => NftablesError::Full { step },
            Some(libc::EOPNOTSUPP | libc::EAFNOSUPPORT) => {
                NftablesError::Unsupported { step, source, feature: "nf_tables with CONFIG_NF_TABLES_INET" }
            }
            _ => NftablesError::Refused { step, source },
        }
    }

    /// The errno behind it, for [`Outcome::Failed`]; EIO where there is none.
    pub fn errno(&self) -> i32 {
        match self {
            NftablesError::NotPermitted { .. } => libc::EPERM,
            NftablesError::TableGone { .. } => libc::ENOENT,
            NftablesError::Full { .. } => libc::ENFILE,
            NftablesError::Socket(source)
            | NftablesError::Unsupported { source, .. }
            | NftablesError::Refused { source, .. } => source.raw_os_error().unwrap_or(libc::EIO),
        }
    }
}

/// Short for results here.
pub type Result<T> = std::result::Result<T, NftablesError>;

/// An open line to nf_tables, and which of our sets it holds.
#[derive(Debug)]
pub struct Nftables {
    socket: Socket,
    sets: BTreeSet<BlockSet>,
    /// Of each set of blocks.
    capacity: u32,
    /// Rules that we made and that must be there.
    rules: usize,
    /// None where it is not wanted, or the kernel lacks what it takes.
    tripwire: Option<Tripwire>,
}

impl Nftables {
    /// Opens the socket, makes sure of nf_tables and of our right to change it, and finds the table of an earlier run,
    /// which [`Nftables::list`] can then read. Changes nothing. Sets made from now on have this `capacity`.
    pub fn open(tripwire: Option<Tripwire>, capacity: u32) -> Result<Nftables> {
        let socket = Socket::open(libc::NETLINK_NETFILTER, 0).map_err(NftablesError::Socket)?;
        socket.widen_send_buffer(LONGEST_BATCH).map_err(NftablesError::Socket)?;
        let mut nftables = Nftables { socket, sets: BTreeSet::new(), capacity, rules: 0, tripwire };
        nftables.ask_generation()?;
        nftables.sets = nftables.find_sets()?;
        Ok(nftables)
    }

    /// Puts a new table with these never-block networks and blocks in the place of an old one, all in one moment:
    /// a block that was there and is in `blocks` lets nothing through in between.
    pub fn install(&mut self, never: &Networks, blocks: &[Block]) -> Result<()> {
        let sets =
            BlockSet::SINGLES.into_iter().chain(blocks.iter().map(|block| BlockSet::of(&block.target)));
        let sets: BTreeSet<BlockSet> = sets.collect();
        let mut commands = ruleset::table(never, self.capacity);
        commands.extend(
            sets.iter()
                .filter(|set| !BlockSet::SINGLES.contains(set))
                .flat_map(|set| ruleset::new_set(*set, self.capacity)),
        );
        let without_tripwire = commands.len();
        commands.extend(self.tripwire.iter().flat_map(Tripwire::make));
        let mut elements = ruleset::add_blocks(blocks);
        let mut done = self.install_together(&mut commands, &mut elements);
        if let (Err(NftablesError::Unsupported { .. }), Some(_)) = (&done, &self.tripwire) {
            self.tripwire = None;
            commands.truncate(without_tripwire);
            done = self.install_together(&mut commands, &mut elements);
        }
        done?;
        (self.sets, self.rules) = (sets, rules_in(&commands));
        Ok(())
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

    /// Blocks each target for its time, counted from now, also if it is blocked already. One result a block, in order:
    /// one that is refused does not keep out the others.
    pub fn block(&mut self, blocks: &[Block]) -> Vec<Result<()>> {
        match self.block_together(blocks) {
            Ok(()) => blocks.iter().map(|_| Ok(())).collect(),
            Err(error) if blocks.len() <= 1 => vec![Err(error)],
            Err(_) => blocks.chunks(1).map(|block| self.block_together(block)).collect(),
        }
    }

    fn block_together(&mut self, blocks: &[Block]) -> Result<()> {
        let needed: BTreeSet<BlockSet> = blocks.iter().map(|block| BlockSet::of(&block.target)).collect();
        let missing: Vec<BlockSet> = needed.difference(&self.sets).copied().collect();
        let mut commands: Vec<Command> =
            missing.iter().flat_map(|set| ruleset::new_set(*set, self.capacity)).collect();
        let rules = rules_in(&commands);
        commands.extend(ruleset::refresh_blocks(blocks));
        self.apply(&commands)?;
        self.sets.extend(missing);
        self.rules = self.rules.saturating_add(rules);
        Ok(())
    }

    /// Lifts exactly this block: [`Outcome::Lifted`] or [`Outcome::NotBlocked`].
    pub fn unblock(&mut self, target: &IpNet) -> Result<Outcome> {
        if !self.sets.contains(&BlockSet::of(target)) {
            return Ok(Outcome::NotBlocked);
        }
        if self.tripwire.is_some() && target.prefix_len() == target.max_prefix_len() {
            self.apply(&tripwire::forget(target.addr()))?;
        }
        match self.apply(&ruleset::delete_block(target)) {
            Ok(()) => Ok(Outcome::Lifted),
            Err(NftablesError::Refused { source, .. }) if source.raw_os_error() == Some(libc::ENOENT) => {
                Ok(Outcome::NotBlocked)
            }
            Err(error) => Err(error),
        }
    }

    /// Lifts every block.
    pub fn flush(&mut self) -> Result<()> {
        let mut commands: Vec<Command> = self.sets.iter().map(|set| Command::EmptySet(set.name())).collect();
        commands.extend(self.tripwire.iter().flat_map(|_| tripwire::forget_all()));
        self.apply(&commands)
    }

    /// Puts `never` in the place of the never-block set, in one moment.
    pub fn set_never(&mut self, never: &Networks) -> Result<()> {
        self.apply(&ruleset::replace_never(never))
    }

    /// Whether there is a tripwire.
    pub fn has_tripwire(&self) -> bool {
        self.tripwire.is_some()
    }

    /// Puts a page of traps in the place of the former.
    pub fn set_traps(&mut self, datagrams: Datagrams, page: Page) -> Result<()> {
        let commands = self.tripwire.as_mut().map(|tripwire| tripwire.set(datagrams, page));
        self.apply(&commands.unwrap_or_default())
    }

    /// Has the tripwire leave an address alone for a while.
    pub fn spare(&mut self, address: IpAddr) -> Result<()> {
        let commands = self.tripwire.as_ref().map(|_| tripwire::spare(address));
        self.apply(&commands.unwrap_or_default())
    }

    /// Takes the tripwire's traps away: nobody would confirm or clear whom it trips.
    pub fn disarm(&mut self) -> Result<()> {
        let commands = self.tripwire.as_ref().map(|_| tripwire::disarm());
        self.apply(&commands.unwrap_or_default())
    }

    /// Whom of the sources of these probes, at traps, the tripwire has shut out.
    pub fn tripped(&mut self, probes: &[Knock]) -> Result<Vec<bool>> {
        let Some(tripwire) = &self.tripwire else { return Ok(vec![false; probes.len()]) };
        let may_be = |(_, port): &Knock| port.is_some_and(|(over, port)| tripwire.is_trap(over, port));
        let asked: Vec<bool> = probes.iter().map(may_be).collect();
        let mut tripped = Vec::new();
        for ipv6 in [false, true] {
            if probes.iter().zip(&asked).any(|((it, _), asked)| *asked && it.addr().is_ipv6() == ipv6) {
                tripped.extend(self.tripped_of(ipv6)?);
            }
        }
        let is_in = |target: &IpNet| tripped.iter().any(|address| target.contains(address));
        Ok(probes.iter().zip(asked).map(|((target, _), asked)| asked && is_in(target)).collect())
    }

    fn tripped_of(&mut self, ipv6: bool) -> Result<Vec<IpAddr>> {
        let name = tripwire::tripped_set(ipv6);
        let fill = |message: &mut _| element::elements(message, TABLE, &name, &[]);
        self.dump("list a set", Kind::GetElements, fill, |message, list| {
            list.extend(element::decode(message).map(|(key, _)| key));
        })
    }

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

    /// Whether our table is in the kernel with all its rules: a set that no rule asks blocks nobody.
    pub fn is_installed(&mut self) -> Result<bool> {
        let fill = |message: &mut _| nftables::rules_of(message, TABLE);
        let rules = self.dump("look for the table", Kind::GetRule, fill, |_, list| list.push(()))?;
        Ok(!rules.is_empty() && rules.len() >= self.rules)
    }

    /// Deletes our table, if it is there, and with it all we ever did.
    pub fn remove_table(&mut self) -> Result<()> {
        self.apply(&[Command::NewTable, Command::DeleteTable])?;
        self.sets.clear();
        Ok(())
    }

    /// EPERM without the right; EINVAL from a netlink without nf_tables.
    fn ask_generation(&mut self) -> Result<()> {
        let step = "ask for the ruleset's generation";
        let answer = self.socket.request(Kind::GetGeneration.number(), 0, nftables::family_header);
        answer.map_err(|source| match source.raw_os_error() {
            Some(libc::EINVAL) => {
                NftablesError::Unsupported { step, source, feature: "nf_tables (CONFIG_NF_TABLES)" }
            }
            _ => NftablesError::new(step, source),
        })
    }

    fn find_sets(&mut self) -> Result<BTreeSet<BlockSet>> {
        if !self.is_installed()? {
            return Ok(BTreeSet::new());
        }
        let fill = |message: &mut _| nftables::sets_of(message, TABLE);
        let names = self.dump("list our sets", Kind::GetSet, fill, |message, names| {
            names.extend(nftables::set_name(message))
        })?;
        Ok(names.iter().filter_map(|name| BlockSet::named(name)).collect())
    }

    fn dump<T>(
        &mut self,
        step: &'static str,
        kind: Kind,
        fill: impl Fn(&mut crate::netlink::Encoder),
        decode: impl Fn(&Message<'_>, &mut Vec<T>),
    ) -> Result<Vec<T>> {
        let list = self.socket.dump(kind.number(), fill, decode);
        list.map_err(|source| self.explain(step, source))
    }

    /// Sends one batch. `Ok` means that the kernel has committed it.
    fn apply(&mut self, commands: &[Command]) -> Result<()> {
        if commands.is_empty() {
            return Ok(());
        }
        self.commit(commands).map_err(|(step, source)| self.explain(step, source))
    }

    fn commit(&mut self, commands: &[Command]) -> std::result::Result<(), (&'static str, io::Error)> {
        let numbers = batch::sequence_numbers(commands);
        let first = self.socket.reserve(numbers);
        let last = first.wrapping_add(numbers).wrapping_sub(1);
        self.socket.send(batch::encode(commands, TABLE, first)).map_err(|error| ("send a batch", error))?;
        let mut failed = "commit a batch";
        // An error ends it, whichever command it is about; without one, the last command's acknowledgement does.
        let settle = |message: &Message<'_>| {
            let number = message.sequence.wrapping_sub(first).checked_sub(1);
            let command = number.and_then(|number| commands.get(usize::try_from(number).ok()?));
            failed = command.map_or(failed, Command::describe);
            message.errno().map(refused)
        };
        self.socket.answers(first, last, settle).map_err(|error| (failed, error))
    }

    /// ENOENT has many reasons: no such element, no table, or a rule with an expression that the kernel does not know.
    fn explain(&mut self, step: &'static str, source: io::Error) -> NftablesError {
        if source.raw_os_error() != Some(libc::ENOENT) {
            return NftablesError::new(step, source);
        }
        if step == MAKE_A_RULE {
            return NftablesError::Unsupported { step, source, feature: "nf_tables' basic expressions" };
        }
        match self.is_installed() {
            Ok(false) => NftablesError::TableGone { step },
            Ok(true) | Err(_) => NftablesError::new(step, source),
        }
    }
}

fn rules_in(commands: &[Command]) -> usize {
    commands
        .iter()
        .filter(|command| matches!(command, Command::NewRule(..) | Command::InsertRule(..)))
        .count()
}
