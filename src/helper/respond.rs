//! The seam between the helper's judgement and the system: what it does to the kernel and learns from it. Helper.
//!
//! One implementation is the machine's own, [`System`]; no decision is taken here.
#![forbid(unsafe_code)]

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use ipnet::IpNet;

use super::command::Failure;
use super::error::HelperError;
use super::nftables::{Nftables, NftablesError};
use super::route::Routes;
use super::ruleset;
use super::tripwire::Tripwire;
use crate::netlink::surroundings::Surroundings;
use crate::networks::Networks;
use crate::protocol::{Datagrams, Fault, Page, Response, Responses, Settings};

/// The system refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Refusal {
    /// As the sensor is told.
    pub errno: i32,
    /// Our table is not as it was made, or not known to be: it must be installed again first.
    pub table_gone: bool,
    /// As the log is told: what, where, what to do.
    pub text: String,
}

impl Refusal {
    /// That has nothing to do with our table.
    pub fn new(errno: i32, text: impl Into<String>) -> Refusal {
        Refusal { errno, table_gone: false, text: text.into() }
    }

    /// Likewise, for this reason.
    pub fn of(error: &io::Error, text: impl Into<String>) -> Refusal {
        Refusal::new(error.raw_os_error().unwrap_or(libc::EIO), text)
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Failure {
        Failure { fault: Fault::Errno(refusal.errno), text: refusal.text }
    }
}

/// What to block, one address or a prefix whose host bits do not count, and for how long from now.
pub type Timed = (IpNet, Duration);

/// What is in force against a source, and for how much longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InForce {
    /// By which responses.
    pub with: Responses,
    /// How long.
    pub left: Duration,
}

/// The record of blocks: the first one after a target, in the order of targets.
pub type Walk<'a> = dyn Fn(Option<IpNet>) -> Option<(IpNet, InForce)> + 'a;

/// A block that a response could not take.
pub type Refused = (IpNet, Response, Refusal);

/// A source to be blocked, and the port that it probed; none where it was no TCP or UDP port.
pub type Knock = (IpNet, Option<(Datagrams, u16)>);

/// What became of one block, or of its end, where the kernel itself was asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// What took effect; of an end, what was in force until now.
    pub with: Responses,
    /// What did not, and why: of an end, what still shuts the source out, or may.
    pub refused: Vec<(Response, Refusal)>,
}

/// The effects of the helper that the kernel brings about at once, and what it learns itself about the host.
pub trait Respond {
    /// Puts everything in place: a new table, the never-block set, these blocks. Returns which of them a response could
    /// not take, though it stands.
    fn install(&mut self, never: &Networks, blocks: &[Timed]) -> Result<Vec<Refused>, Refusal>;
    /// Whether what was installed is still there, by this record: somebody else may have changed the firewall. Of very
    /// many blocks each call looks at some. Where nobody is on record no packet is asked for anybody any more.
    fn is_in_place(&mut self, record: &Walk<'_>) -> Result<bool, Refusal>;
    /// Whether our table and its rules stand, as far as the kernel tells; who is in it is not looked at.
    fn rules_stand(&mut self) -> bool;
    /// Takes away what an earlier configuration left behind, and says what could not be.
    fn remove_others(&mut self) -> Vec<Refusal>;
    /// Blocks, in one go; one result for each element, in their order.
    fn block(&mut self, batch: &[Timed]) -> Vec<Effects>;
    /// Lifts one block. What one response refuses keeps no other from its part. Where our table is not as it was made
    /// nothing of it is lifted: who is in it then nobody knows.
    fn unblock(&mut self, target: &IpNet) -> Effects;
    /// Takes back what does not end by itself with a block's time.
    fn expire(&mut self, target: &IpNet) -> Result<(), Refusal>;
    /// Lifts all blocks. Where it is refused the sets are as they were, unless our table is not as it was made; a look puts
    /// back what is gone of them and of routes.
    fn flush(&mut self) -> Result<(), Refusal>;
    /// Replaces the never-block set.
    fn set_never(&mut self, never: &Networks) -> Result<(), Refusal>;
    /// Puts a page of the tripwire's traps in the place of the former.
    fn set_traps(&mut self, datagrams: Datagrams, page: Page) -> Result<(), Refusal>;
    /// Has the tripwire leave an address alone.
    fn spare(&mut self, address: IpAddr) -> Result<(), Refusal>;
    /// Takes the tripwire's traps away for good.
    fn disarm(&mut self) -> Result<(), Refusal>;
    /// Whom of the sources of these probes the tripwire has shut out; none where the kernel does not tell.
    fn tripped(&mut self, probes: &[Knock]) -> Vec<bool>;
    /// Whether there is a tripwire.
    fn has_tripwire(&self) -> bool;
    /// Readable when the surroundings may have changed.
    fn watch(&self) -> BorrowedFd<'_>;
    /// Takes the news in. Returns whether there were any.
    fn learn(&mut self) -> io::Result<bool>;
    /// When to take them in though nothing is readable: they could not be had before.
    fn next_try(&self) -> Option<Instant>;
    /// The host's own addresses, gateways and broadcasts, as they are now.
    fn surroundings(&self) -> Vec<IpNet>;
}

/// This machine: nftables and routes to act on, route netlink to learn from.
pub struct System {
    nftables: Option<Nftables>,
    routes: Option<Routes>,
    /// Those that were not asked for, until what they may hold of an earlier configuration is gone.
    others: (Option<Nftables>, Option<Routes>),
    surroundings: Surroundings,
}

impl System {
    /// Opens what the configured responses take. Changes nothing yet.
    pub fn open(settings: &Settings) -> Result<System, HelperError> {
        let asked = |response| settings.block_with.contains(&response);
        let tripwire = settings.tripwire.clone().map(Tripwire::new);
        let capacity = ruleset::capacity(settings.max_blocks);
        let nftables = asked(Response::Nftables).then(|| Nftables::open(tripwire, capacity));
        let nftables = nftables.transpose().map_err(Refusal::from)?;
        let routes = asked(Response::Route).then(Routes::open).transpose()?;
        let table = (!asked(Response::Nftables)).then(|| Nftables::open(None, capacity));
        let table = match table.transpose() {
            // A kernel that has no nf_tables has no table of ours either.
            Err(NftablesError::Socket(_) | NftablesError::Unsupported { .. }) => None,
            table => table.map_err(Refusal::from)?,
        };
        let others = (table, (!asked(Response::Route)).then(Routes::open).transpose()?);
        let surroundings = Surroundings::open().map_err(HelperError::Surroundings)?;
        Ok(System { nftables, routes, others, surroundings })
    }
}

impl Respond for System {
    fn install(&mut self, never: &Networks, blocks: &[Timed]) -> Result<Vec<Refused>, Refusal> {
        if let Some(nftables) = &mut self.nftables {
            nftables.install(never, blocks)?;
        }
        let targets = blocks.iter().map(|(target, _)| *target).collect();
        let refused = self.routes.as_mut().map_or(Ok(Vec::new()), |routes| routes.install(&targets))?;
        Ok(refused.into_iter().map(|(target, refusal)| (target, Response::Route, refusal)).collect())
    }

    fn is_in_place(&mut self, record: &Walk<'_>) -> Result<bool, Refusal> {
        let table = self.nftables.as_mut().map_or(Ok(true), |nftables| nftables.stands(record))?;
        Ok(table && self.routes.as_mut().map_or(Ok(true), |routes| routes.stand(record))?)
    }

    fn rules_stand(&mut self) -> bool {
        self.nftables.as_mut().is_none_or(|nftables| nftables.rules_stand().unwrap_or(true))
    }

    fn remove_others(&mut self) -> Vec<Refusal> {
        let (table, routes) = std::mem::take(&mut self.others);
        let table = table.map(|mut table| match table.is_there() {
            Ok(true) => table.remove_table(),
            there => there.map(drop),
        });
        let routes = routes.map(|mut routes| routes.flush());
        let done = [table.map(|done| done.map_err(Refusal::from)), routes];
        done.into_iter().flatten().filter_map(Result::err).collect()
    }

    fn block(&mut self, batch: &[Timed]) -> Vec<Effects> {
        let mut effects = vec![Effects::default(); batch.len()];
        let sets = self.nftables.iter_mut().flat_map(|nftables| nftables.block(batch));
        for (effects, set) in effects.iter_mut().zip(sets) {
            effects.note(Response::Nftables, set.map(|()| true).map_err(Refusal::from));
        }
        for (effects, (target, _)) in effects.iter_mut().zip(batch) {
            let route = self.routes.as_mut().map_or(Ok(false), |it| it.block(target).map(|()| true));
            effects.note(Response::Route, route);
        }
        effects
    }

    fn unblock(&mut self, target: &IpNet) -> Effects {
        let mut effects = Effects::default();
        let set = self.nftables.as_mut().map_or(Ok(false), |it| it.unblock(target));
        effects.note(Response::Nftables, set.map_err(Refusal::from));
        let route = self.routes.as_mut().map_or(Ok(false), |it| it.unblock(target));
        effects.note(Response::Route, route);
        effects
    }

    fn expire(&mut self, target: &IpNet) -> Result<(), Refusal> {
        self.routes.as_mut().map_or(Ok(()), |routes| routes.unblock(target).map(drop))
    }

    fn flush(&mut self) -> Result<(), Refusal> {
        // First: a look sees routes that are missing at once, and the sets only if it was somebody else who emptied them.
        self.routes.as_mut().map_or(Ok(()), Routes::flush)?;
        Ok(self.nftables.as_mut().map_or(Ok(()), Nftables::flush)?)
    }

    fn set_never(&mut self, never: &Networks) -> Result<(), Refusal> {
        Ok(self.nftables.as_mut().map_or(Ok(()), |nftables| nftables.set_never(never))?)
    }

    fn set_traps(&mut self, datagrams: Datagrams, page: Page) -> Result<(), Refusal> {
        Ok(self.nftables.as_mut().map_or(Ok(()), |nftables| nftables.set_traps(datagrams, page))?)
    }

    fn spare(&mut self, address: IpAddr) -> Result<(), Refusal> {
        Ok(self.nftables.as_mut().map_or(Ok(()), |nftables| nftables.spare(address))?)
    }

    fn disarm(&mut self) -> Result<(), Refusal> {
        Ok(self.nftables.as_mut().map_or(Ok(()), Nftables::disarm)?)
    }

    fn tripped(&mut self, probes: &[Knock]) -> Vec<bool> {
        let told = self.nftables.as_mut().and_then(|nftables| nftables.tripped(probes).ok());
        told.unwrap_or_else(|| vec![false; probes.len()])
    }

    fn has_tripwire(&self) -> bool {
        self.nftables.as_ref().is_some_and(Nftables::has_tripwire)
    }

    fn watch(&self) -> BorrowedFd<'_> {
        self.surroundings.as_fd()
    }

    fn learn(&mut self) -> io::Result<bool> {
        self.surroundings.drain()
    }

    fn next_try(&self) -> Option<Instant> {
        self.surroundings.next_try()
    }

    fn surroundings(&self) -> Vec<IpNet> {
        self.surroundings.never_block().collect()
    }
}

impl Effects {
    fn note(&mut self, response: Response, took_effect: Result<bool, Refusal>) {
        match took_effect {
            Ok(true) => self.with = self.with.and(response),
            Ok(false) => {}
            Err(refusal) => self.refused.push((response, refusal)),
        }
    }

    /// Whether our table was found missing, or somebody else's in its place.
    pub fn table_gone(&self) -> bool {
        self.refused.iter().any(|(_, refusal)| refusal.table_gone)
    }
}

impl From<NftablesError> for Refusal {
    fn from(error: NftablesError) -> Refusal {
        let table_gone = matches!(error, NftablesError::TableGone { .. });
        Refusal { errno: error.errno(), table_gone, text: error.to_string() }
    }
}
