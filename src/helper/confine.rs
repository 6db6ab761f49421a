//! The helper keeps CAP_NET_ADMIN, its ledger's folder and the system calls of its work, and nothing else.
//!
//! Rights go before it touches the kernel or a file, files and calls before it reads the first request.
#![forbid(unsafe_code)]

use super::error::HelperError;
use super::seccomp;
use crate::protocol::Settings;
use crate::sandbox::cage::Cage;
use crate::sandbox::identity::Identity;
use crate::sandbox::landlock::{self, Rules};
use crate::sandbox::selfcheck::{self, Expectations, prove};
use crate::sandbox::{Capability, capabilities};

/// What it takes to write nftables rules, and all that is kept.
const KEPT: Capability = Capability::CAP_NET_ADMIN;

/// The filter to enter at last; its proof begins now, while a program may still be run.
///
/// # Errors
/// The filter cannot be made.
pub fn cage(settings: &Settings) -> Result<Option<Cage>, HelperError> {
    Ok(Cage::prepare(&seccomp::rules(settings), settings.sandbox, settings.sandbox_log)?)
}

/// Leaves root for `run_as` (user and group) and every capability but one.
///
/// # Errors
/// The one that is kept is missing, a step failed, or something that must not work any more worked.
pub fn rights(run_as: Option<(u32, u32)>) -> Result<(), HelperError> {
    #[cfg(feature = "escape-attempts")]
    if crate::sandbox::escape::is_off(crate::sandbox::escape::Layer::Rights) {
        return Ok(());
    }
    capabilities::require(&[KEPT])?;
    match run_as {
        Some((uid, gid)) => capabilities::become_user(&Identity { uid, gid }, &[KEPT]).map(drop)?,
        None => capabilities::keep_only(&[KEPT]).map(drop)?,
    }
    capabilities::no_new_privs()?;
    prove(&Expectations {
        lost: vec![Capability::CAP_NET_RAW, Capability::CAP_DAC_OVERRIDE, Capability::CAP_SYS_ADMIN],
        no_packet_socket: true,
        no_root: run_as.is_some(),
        ..Expectations::default()
    })?;
    Ok(())
}

/// Leaves every file but those of the ledger's folder. Returns the Landlock interface in force.
///
/// # Errors
/// The kernel has less than SANDBOX asks for, or a file outside can still be opened.
pub fn files(settings: &Settings) -> Result<u8, HelperError> {
    let rules = Rules { own: vec![settings.state_dir.clone()], ..Rules::default() };
    let in_force = landlock::restrict(&rules, settings.sandbox, landlock::FLOOR)?;
    prove(&selfcheck::under_landlock(&in_force))?;
    Ok(u8::try_from(in_force.abi).unwrap_or(0))
}
