//! The helper keeps CAP_NET_ADMIN, its ledger's folder and the system calls of its work, and nothing else where it can.
//!
//! Rights go before it touches the kernel or a file, files and calls before it reads the first request. What it runs
//! inherits all of that: with iptables or the administrator's commands it gives up less, and says so.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use super::error::{HelperError, log};
use super::seccomp;
use crate::protocol::settings::Rights;
use crate::protocol::{Response, Settings};
use crate::sandbox::cage::Cage;
use crate::sandbox::identity::Identity;
use crate::sandbox::landlock::{self, Rules};
use crate::sandbox::selfcheck::{self, Expectations, prove};
use crate::sandbox::{Capability, capabilities};

/// What it takes to write nftables rules and routes, and all that is kept unless a response needs more.
const KEPT: Capability = Capability::CAP_NET_ADMIN;

/// Where programs and what they load lie (hier(7)): to run and to read.
const PROGRAMS: [&str; 6] = ["/usr", "/bin", "/sbin", "/lib", "/lib64", "/lib32"];
/// What iptables looks up: the loader's list, protocols, its own configuration; which modules the kernel has.
const READ_BY_PROGRAMS: [&str; 3] = ["/etc", "/proc", "/sys/module"];
/// The lock of iptables, wherever this build of it has it, and where its output goes.
const WRITTEN_BY_PROGRAMS: [&str; 2] = ["/run", "/dev/null"];

/// What the iptables programs and a hosts.deny of another owner take besides.
const KEPT_AS_ROOT: [Capability; 3] = [KEPT, Capability::CAP_NET_RAW, Capability::CAP_CHOWN];

/// The filter to enter at last; its proof begins now, while a program may still be run. `None` also where the helper
/// runs programs: what calls those of this host make nobody knows, and they would inherit the filter.
///
/// # Errors
/// The filter cannot be made.
pub fn cage(settings: &Settings) -> Result<Option<Cage>, HelperError> {
    if settings.runs_programs() {
        return Ok(None);
    }
    let named = settings.sandbox_log.then_some("helper");
    Ok(Cage::prepare(&seccomp::rules(settings), settings.sandbox, named)?)
}

/// Gives up what the configured responses can do without: usually root and every capability but one.
///
/// # Errors
/// The one that is kept is missing, a step failed, or something that must not work any more worked.
pub fn rights(rights: Rights, run_as: Option<(u32, u32)>) -> Result<(), HelperError> {
    #[cfg(feature = "escape-attempts")]
    if crate::sandbox::escape::is_off(crate::sandbox::escape::Layer::Rights) {
        return Ok(());
    }
    capabilities::require(&[KEPT])?;
    match rights {
        Rights::NetAdmin => ordinary_user(run_as),
        Rights::Root => root_without(&KEPT_AS_ROOT),
        // What the administrator's commands need nobody knows: they run with the rights they always had.
        Rights::Commands => Ok(()),
    }
}

fn ordinary_user(run_as: Option<(u32, u32)>) -> Result<(), HelperError> {
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

fn root_without(kept: &[Capability]) -> Result<(), HelperError> {
    capabilities::keep_only(kept)?;
    capabilities::no_new_privs()?;
    let lost = vec![Capability::CAP_DAC_OVERRIDE, Capability::CAP_SYS_ADMIN, Capability::CAP_SYS_PTRACE];
    prove(&Expectations { lost, ..Expectations::default() })?;
    Ok(())
}

/// Leaves every file but those of the ledger's folder and what the responses work on. Returns the Landlock interface in
/// force; 0 with the administrator's commands, which would inherit it.
///
/// # Errors
/// The kernel has less than SANDBOX asks for, or a file outside can still be opened.
pub fn files(settings: &Settings) -> Result<u8, HelperError> {
    if settings.rights() == Rights::Commands {
        return Ok(0);
    }
    let in_force = landlock::restrict(&rules(settings), settings.sandbox, landlock::FLOOR)?;
    let (in_force, untried) = selfcheck::proven(in_force, settings.sandbox)?;
    untried.iter().for_each(|said| log(said));
    Ok(u8::try_from(in_force.abi).unwrap_or(0))
}

fn rules(settings: &Settings) -> Rules {
    let mut rules = Rules { own: vec![settings.state_dir.clone()], ..Rules::default() };
    if settings.block_with.contains(&Response::HostsDeny) {
        // Replaced by rename: a right to the file alone would end with the first line.
        rules.own.extend(settings.custom.hosts_deny_file.parent().map(Path::to_owned));
    }
    if settings.runs_programs() {
        rules.execute.extend(paths(&PROGRAMS));
        rules.read.extend(paths(&READ_BY_PROGRAMS));
        rules.own.extend(paths(&WRITTEN_BY_PROGRAMS));
    }
    rules
}

fn paths(paths: &[&str]) -> Vec<PathBuf> {
    paths.iter().map(PathBuf::from).collect()
}
