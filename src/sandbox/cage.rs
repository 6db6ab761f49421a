//! A role's seccomp filter from its lists to its effect: compile, prove on a copy, enter. Run by both roles.
//!
//! SANDBOX decides here, and only here, what becomes of a filter that cannot be had.
#![forbid(unsafe_code)]

use super::proof::{self, Proof};
use super::seccomp::{Filter, OnMismatch, Rule};
use super::{Sandbox, SandboxError};

/// A filter that is being proved.
#[derive(Debug)]
pub struct Cage {
    sandbox: Sandbox,
    proved: Result<(Filter, Proof), SandboxError>,
}

impl Cage {
    /// Compiles `lists` and starts the proof, which runs while the caller goes on. `named`: as whom to name refused
    /// calls (SANDBOX_LOG). Must be called while this process may still run a program; `None` under SANDBOX="off".
    ///
    /// # Errors
    /// The lists are wrong, or (unless best effort will do) the proof cannot be begun.
    pub fn prepare(
        lists: &[&[Rule]],
        sandbox: Sandbox,
        named: Option<&'static str>,
    ) -> Result<Option<Cage>, SandboxError> {
        #[cfg(feature = "escape-attempts")]
        if super::escape::is_off(super::escape::Layer::Seccomp) {
            return Ok(None);
        }
        if sandbox == Sandbox::Off {
            return Ok(None);
        }
        let mismatch = if named.is_some() { OnMismatch::Name } else { OnMismatch::Kill };
        let filter = Filter::compile(lists, mismatch)?;
        named.map_or(Ok(()), proof::name_refused_calls)?;
        let proved = Proof::begin(&filter).map(|proof| (filter, proof));
        match proved {
            Err(error) if sandbox == Sandbox::Strict => Err(error),
            proved => Ok(Some(Cage { sandbox, proved })),
        }
    }

    /// Enters the filter, with every thread of the process, for good.
    ///
    /// # Errors
    /// The proof failed or the kernel took no filter; under best effort the process then goes on without.
    pub fn enter(self) -> Result<(), SandboxError> {
        let entered = self.proved.and_then(|(filter, proof)| proof.require().and_then(|()| filter.apply()));
        match entered {
            // A filter that is in force and does not hold is no matter of effort.
            Err(error @ SandboxError::Seccomp(_)) if self.sandbox == Sandbox::BestEffort => {
                drop(error);
                Ok(())
            }
            entered => entered,
        }
    }
}
