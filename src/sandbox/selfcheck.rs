//! Proves a confinement by trying to break it. Run by both roles after capabilities, user and Landlock are given up
//! and *before* seccomp, under which these attempts would be deadly.
//!
//! Whatever works here ends the start; what cannot be tried is not claimed. Sends no packet and changes nothing.
#![forbid(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;

use caps::CapSet;
use nix::unistd::{Uid, setresuid};
use socket2::{Domain, Socket, Type};

use super::landlock::LandlockInForce;
use super::{Capability, Sandbox, SandboxError};

/// What must not work any more.
#[derive(Clone, Debug, Default)]
pub struct Expectations {
    /// Files that exist and must not be readable. A folder will do: under Landlock even `/` cannot be opened.
    pub unreadable: Vec<PathBuf>,
    /// Files that exist and must not be writable.
    pub unwritable: Vec<PathBuf>,
    /// Capabilities that must not come back.
    pub lost: Vec<Capability>,
    /// A new packet socket must be refused.
    pub no_packet_socket: bool,
    /// Binding a TCP port must be refused (Landlock ABI 4).
    pub no_tcp: bool,
    /// uid 0 must not come back.
    pub no_root: bool,
}

/// What Landlock as it is `in_force` must refuse, whatever a role's rules are: no role reads `/` or writes
/// `/dev/zero`.
pub fn under_landlock(in_force: &LandlockInForce) -> Expectations {
    let holds = in_force.abi > 0;
    let path = |path: &str| if holds { vec![path.into()] } else { Vec::new() };
    let (unreadable, unwritable) = (path("/"), path("/dev/zero"));
    Expectations { unreadable, unwritable, no_tcp: in_force.abi >= 4, ..Expectations::default() }
}

/// Tries everything in `expectations`.
///
/// # Errors
/// [`SandboxError::Escaped`] names the first attempt that worked, [`SandboxError::Untried`] one that proves nothing: its
/// file is missing, or no descriptor is left for it.
pub fn prove(expectations: &Expectations) -> Result<(), SandboxError> {
    for path in &expectations.unreadable {
        refused(File::open(path), || format!("reading {}", path.display()))?;
    }
    for path in &expectations.unwritable {
        refused(OpenOptions::new().append(true).open(path), || format!("writing {}", path.display()))?;
    }
    for &capability in &expectations.lost {
        failed(regained(capability), || format!("regaining {capability}"))?;
    }
    let root = Uid::from_raw(0);
    failed(expectations.no_root && setresuid(root, root, root).is_ok(), || "setresuid(0)".into())?;
    let packet = || Socket::new(Domain::PACKET, Type::RAW, None);
    failed(expectations.no_packet_socket && packet().is_ok(), || "opening a packet socket".into())?;
    let tcp = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    failed(expectations.no_tcp && tcp().is_ok(), || "binding a TCP port".into())
}

/// Tries what Landlock as it is `in_force` must refuse. Returns what may be claimed of it, and why that is less than there
/// may be: nothing, where best effort will do and it cannot be tried.
///
/// # Errors
/// Something worked, or (unless best effort will do) could not be tried.
pub fn proven(
    in_force: LandlockInForce,
    sandbox: Sandbox,
) -> Result<(LandlockInForce, Option<String>), SandboxError> {
    match prove(&under_landlock(&in_force)) {
        Err(SandboxError::Untried { what, source }) if sandbox == Sandbox::BestEffort => {
            let said = format!(
                "{what} was to prove that the confinement holds, and could not be tried: {source}; Landlock is not claimed"
            );
            Ok((LandlockInForce { abi: 0, complete: false, ..in_force }, Some(said)))
        }
        proved => proved.map(|()| (in_force, None)),
    }
}

/// Only a refusal proves anything: a missing file or a full table of files is no cage.
fn refused(attempt: io::Result<File>, what: impl FnOnce() -> String) -> Result<(), SandboxError> {
    match attempt.map_err(|error| (error.raw_os_error(), error)) {
        Ok(_) => Err(SandboxError::Escaped(what())),
        Err((Some(libc::EACCES | libc::EPERM), _)) => Ok(()),
        Err((_, source)) => Err(SandboxError::Untried { what: what(), source }),
    }
}

fn failed(worked: bool, what: impl FnOnce() -> String) -> Result<(), SandboxError> {
    if worked { Err(SandboxError::Escaped(what())) } else { Ok(()) }
}

/// Whether it is still there, or can be raised from the permitted set or by an `execve` (the ambient set).
fn regained(capability: Capability) -> bool {
    [CapSet::Permitted, CapSet::Effective, CapSet::Inheritable].into_iter().any(|set| {
        caps::has_cap(None, set, capability).unwrap_or(true) || caps::raise(None, set, capability).is_ok()
    }) || caps::raise(None, CapSet::Ambient, capability).is_ok()
}
