//! The seam between the helper's judgement and the system: what it does to the kernel and learns from it. Helper.
//!
//! One implementation is the machine's own, [`System`]; no decision is taken here.
#![forbid(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use ipnet::IpNet;

use super::error::HelperError;
use super::nftables::{Nftables, NftablesError};
use super::ruleset::Block;
use crate::netlink::surroundings::Surroundings;
use crate::networks::Networks;
use crate::protocol::Outcome;

/// The system refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Refusal {
    /// As the sensor is told.
    pub errno: i32,
    /// Our table was deleted by somebody: it must be installed again first.
    pub table_gone: bool,
    /// As the log is told: what, where, what to do.
    pub text: String,
}

/// What to block and for how long.
pub type Timed = (IpNet, Option<Duration>);

/// The effects of the helper, and what it learns itself about the host.
pub trait Respond {
    /// Puts everything in place: an empty table, the never-block set, these blocks.
    fn install(&mut self, never: &Networks, blocks: &[Timed]) -> Result<(), Refusal>;
    /// Blocks, in one go; one result for each element, in their order.
    fn block(&mut self, batch: &[Timed]) -> Vec<Result<(), Refusal>>;
    /// Lifts one block. Returns whether there was one.
    fn unblock(&mut self, target: &IpNet) -> Result<bool, Refusal>;
    /// Lifts all blocks.
    fn flush(&mut self) -> Result<(), Refusal>;
    /// Replaces the never-block set.
    fn set_never(&mut self, never: &Networks) -> Result<(), Refusal>;
    /// Readable when the surroundings may have changed.
    fn watch(&self) -> BorrowedFd<'_>;
    /// Takes the news in. Returns whether there were any.
    fn learn(&mut self) -> io::Result<bool>;
    /// The host's own addresses, gateways and broadcasts, as they are now.
    fn surroundings(&self) -> Vec<IpNet>;
}

/// This machine: nftables to act on, route netlink to learn from.
pub struct System {
    nftables: Nftables,
    surroundings: Surroundings,
}

impl System {
    /// Opens everything. Changes nothing yet.
    pub fn open() -> Result<System, HelperError> {
        Ok(System {
            nftables: Nftables::open().map_err(Refusal::from)?,
            surroundings: Surroundings::open().map_err(HelperError::Surroundings)?,
        })
    }
}

impl Respond for System {
    fn install(&mut self, never: &Networks, blocks: &[Timed]) -> Result<(), Refusal> {
        Ok(self.nftables.install(never, &listed(blocks))?)
    }

    fn block(&mut self, batch: &[Timed]) -> Vec<Result<(), Refusal>> {
        let results = self.nftables.block(&listed(batch));
        results.into_iter().map(|result| result.map_err(Refusal::from)).collect()
    }

    fn unblock(&mut self, target: &IpNet) -> Result<bool, Refusal> {
        Ok(self.nftables.unblock(target)? == Outcome::Lifted)
    }

    fn flush(&mut self) -> Result<(), Refusal> {
        Ok(self.nftables.flush()?)
    }

    fn set_never(&mut self, never: &Networks) -> Result<(), Refusal> {
        Ok(self.nftables.set_never(never)?)
    }

    fn watch(&self) -> BorrowedFd<'_> {
        self.surroundings.as_fd()
    }

    fn learn(&mut self) -> io::Result<bool> {
        self.surroundings.drain()
    }

    fn surroundings(&self) -> Vec<IpNet> {
        self.surroundings.never_block().collect()
    }
}

fn listed(blocks: &[Timed]) -> Vec<Block> {
    blocks.iter().map(|&(target, remaining)| Block { target, remaining }).collect()
}

impl From<NftablesError> for Refusal {
    fn from(error: NftablesError) -> Refusal {
        let table_gone = matches!(error, NftablesError::TableGone { .. });
        Refusal { errno: error.errno(), table_gone, text: error.to_string() }
    }
}
