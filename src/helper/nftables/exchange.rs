//! What is said to nf_tables and what it answers: batches, dumps, and what an error means. Helper.
//!
//! Never says that a batch came true before the kernel has acknowledged it.
#![forbid(unsafe_code)]

use std::io;

use super::identity::Identity;
use super::{Nftables, NftablesError, Result};
use crate::helper::ruleset::TABLE;
use crate::netlink::nftables::batch::{self, MAKE_A_RULE, MAKE_A_SET};
use crate::netlink::nftables::{self, Command, Kind};
use crate::netlink::socket::refused;
use crate::netlink::{Encoder, Message};

impl Nftables {
    /// The number of the last change of any table. EPERM without the right; EINVAL from a netlink without nf_tables.
    pub(super) fn ask_generation(&mut self) -> Result<u32> {
        let step = "ask for the ruleset's generation";
        let decode = |message: &Message<'_>, list: &mut Vec<u32>| list.extend(nftables::generation(message));
        let answer = self.socket.ask(Kind::GetGeneration.number(), nftables::family_header, decode);
        match answer {
            Ok(numbers) => Ok(numbers.first().copied().unwrap_or_default()),
            Err(source) if source.raw_os_error() == Some(libc::EINVAL) => {
                Err(NftablesError::Unsupported { step, source, feature: "nf_tables (CONFIG_NF_TABLES)" })
            }
            Err(source) => Err(NftablesError::new(step, source)),
        }
    }

    pub(super) fn dump<C: Default>(
        &mut self,
        step: &'static str,
        kind: Kind,
        fill: impl Fn(&mut Encoder),
        decode: impl Fn(&Message<'_>, &mut C),
    ) -> Result<C> {
        let list = self.socket.dump(kind.number(), fill, decode);
        list.map_err(|source| self.explain(step, source))
    }

    /// Sends one batch. `Ok` means that the kernel has committed it.
    pub(super) fn apply(&mut self, commands: &[Command]) -> Result<()> {
        if commands.is_empty() {
            return Ok(());
        }
        let told = self.commit(commands).map_err(|(step, source)| self.explain(step, source))?;
        self.standing.committed(commands, told);
        Ok(())
    }

    /// What the kernel tells of it comes before the acknowledgement.
    fn commit(&mut self, commands: &[Command]) -> std::result::Result<Identity, (&'static str, io::Error)> {
        let numbers = batch::sequence_numbers(commands);
        let first = self.socket.reserve(numbers);
        let last = first.wrapping_add(numbers).wrapping_sub(1);
        self.socket.send(batch::encode(commands, TABLE, first)).map_err(|error| ("send a batch", error))?;
        let (mut told, mut failed) = (Identity::default(), "commit a batch");
        // An error ends it, whichever command it is about; without one, the last command's acknowledgement does.
        let settle = |message: &Message<'_>| {
            let number = message.sequence.wrapping_sub(first).checked_sub(1);
            let command = number.and_then(|number| commands.get(usize::try_from(number).ok()?));
            failed = command.map_or(failed, Command::describe);
            told.learn(message);
            message.errno().map(refused)
        };
        match self.socket.answers(first, last, settle) {
            Ok(()) => Ok(told),
            Err(error) => Err((failed, error)),
        }
    }

    /// ENOENT has many reasons: no such element, no table, or a rule with an expression that the kernel does not know.
    /// EEXIST of a set has one: one of another kind stands by its name.
    fn explain(&mut self, step: &'static str, source: io::Error) -> NftablesError {
        match source.raw_os_error() {
            Some(libc::EEXIST) if step == MAKE_A_SET => NftablesError::TableGone { step },
            Some(libc::ENOENT) if step == MAKE_A_RULE => {
                NftablesError::Unsupported { step, source, feature: "nf_tables' basic expressions" }
            }
            Some(libc::ENOENT) if matches!(self.is_installed(), Ok(false)) => {
                NftablesError::TableGone { step }
            }
            _ => NftablesError::new(step, source),
        }
    }
}
