//! Capabilities: what is held, what is missing, and giving the rest up. Run by both roles, at start only.
//!
//! They belong to the calling thread (capabilities(7)): must run before any other thread exists.
#![forbid(unsafe_code)]

use std::fmt::Display;

use caps::{CapSet, Capability, CapsHashSet};
use nix::sys::prctl;
use nix::unistd::{Gid, Uid, getresuid, setgroups, setresgid, setresuid};

use super::SandboxError;
use super::identity::Identity;

/// What each capability of ours is for.
const PURPOSES: [(Capability, &str); 7] = [
    (Capability::CAP_NET_ADMIN, "to change the firewall"),
    (Capability::CAP_NET_RAW, "to open packet rings"),
    (Capability::CAP_NET_BIND_SERVICE, "to bind decoys below port 1024"),
    (Capability::CAP_SETUID, "to leave uid 0 for RUN_AS"),
    (Capability::CAP_SETGID, "to leave group 0 for RUN_AS"),
    (Capability::CAP_SETPCAP, "to empty the bounding set"),
    (Capability::CAP_DAC_OVERRIDE, "to open files of other users"),
];

/// What became of the bounding set, the ceiling of what an `execve` can give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bounding {
    /// Holds what is kept and nothing else.
    Trimmed,
    /// Left as it was, for want of CAP_SETPCAP. Moot under no_new_privs for a process without capabilities.
    LeftAlone,
}

/// What became of the user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum User {
    /// uid 0 was left for good.
    Changed,
    /// The daemon was started as an ordinary user and stays that.
    Kept,
}

/// The capabilities this thread may use: its permitted set.
pub fn held() -> Result<CapsHashSet, SandboxError> {
    caps::read(None, CapSet::Permitted).map_err(refused("reading the permitted set"))
}

/// Makes `needs` effective; what a file's capabilities gave may be permitted alone. Fails unless all of them are held,
/// naming each that is not and what it is for.
pub fn require(needs: &[Capability]) -> Result<(), SandboxError> {
    let held = held()?;
    let missing: Vec<String> =
        needs.iter().filter(|need| !held.contains(need)).map(|&need| with_purpose(need)).collect();
    if !missing.is_empty() {
        return Err(SandboxError::Missing(missing.join(", ")));
    }
    let raise = |&need: &Capability| caps::raise(None, CapSet::Effective, need);
    needs.iter().try_for_each(raise).map_err(refused("raising the effective set"))
}

/// Gives up everything but `keep`, which stays permitted, effective and bounding; no program that is run inherits any
/// of it. Takes nothing that is not held.
pub fn keep_only(keep: &[Capability]) -> Result<Bounding, SandboxError> {
    let held = held()?;
    let kept: CapsHashSet = keep.iter().copied().filter(|capability| held.contains(capability)).collect();
    // First, for it needs CAP_SETPCAP, which the next steps take.
    let bounding = trim_bounding(keep)?;
    for set in [CapSet::Ambient, CapSet::Inheritable] {
        caps::clear(None, set).map_err(refused("clearing the inherited sets"))?;
    }
    // Effective before permitted: it must never be the larger one (capset(2)).
    caps::set(None, CapSet::Effective, &kept).map_err(refused("trimming the effective set"))?;
    caps::set(None, CapSet::Permitted, &kept).map_err(refused("trimming the permitted set"))?;
    Ok(bounding)
}

/// Gives up every capability.
pub fn drop_all() -> Result<Bounding, SandboxError> {
    keep_only(&[])
}

/// Leaves uid 0 for `identity`, with the capabilities in `keep` and no other, and makes sure that there is no way back.
/// A process that is not uid 0 has nothing to leave: only its capabilities are trimmed.
///
/// # Errors
/// Missing CAP_SETUID or CAP_SETGID; a number that the user namespace does not map; a way back to uid 0.
pub fn become_user(identity: &Identity, keep: &[Capability]) -> Result<(User, Bounding), SandboxError> {
    if !is_any_root()? {
        return Ok((User::Kept, keep_only(keep)?));
    }
    require(&[Capability::CAP_SETGID, Capability::CAP_SETUID])?;
    // The bounding set must be trimmed now: leaving uid 0 clears the effective set, and with it CAP_SETPCAP.
    let bounding = trim_bounding(keep)?;
    prctl::set_keepcaps(true).map_err(identity_step("PR_SET_KEEPCAPS"))?;
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    setgroups(&[]).map_err(identity_step("setgroups"))?;
    setresgid(gid, gid, gid).map_err(identity_step("setresgid"))?;
    setresuid(uid, uid, uid).map_err(identity_step("setresuid"))?;
    prctl::set_keepcaps(false).map_err(identity_step("PR_SET_KEEPCAPS"))?;
    keep_only(keep)?;
    no_way_back()?;
    Ok((User::Changed, bounding))
}

/// No `execve` gives rights from here on (PR_SET_NO_NEW_PRIVS).
pub fn no_new_privs() -> Result<(), SandboxError> {
    prctl::set_no_new_privs().map_err(identity_step("PR_SET_NO_NEW_PRIVS"))
}

fn trim_bounding(keep: &[Capability]) -> Result<Bounding, SandboxError> {
    let may = caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP)
        .map_err(refused("reading the effective set"))?;
    if !may {
        return Ok(Bounding::LeftAlone);
    }
    let bounding = caps::read(None, CapSet::Bounding).map_err(refused("reading the bounding set"))?;
    for &capability in bounding.iter().filter(|capability| !keep.contains(capability)) {
        caps::drop(None, CapSet::Bounding, capability).map_err(refused("trimming the bounding set"))?;
    }
    Ok(Bounding::Trimmed)
}

/// The saved uid counts: it is a way back.
pub(super) fn is_any_root() -> Result<bool, SandboxError> {
    let ids = getresuid().map_err(identity_step("getresuid"))?;
    Ok([ids.real, ids.effective, ids.saved].iter().any(|uid| uid.is_root()))
}

fn no_way_back() -> Result<(), SandboxError> {
    let (root, group) = (Uid::from_raw(0), Gid::from_raw(0));
    if setresuid(root, root, root).is_ok() || is_any_root()? {
        return Err(SandboxError::Escaped("setresuid(0)".into()));
    }
    if setresgid(group, group, group).is_ok() {
        return Err(SandboxError::Escaped("setresgid(0)".into()));
    }
    Ok(())
}

fn with_purpose(capability: Capability) -> String {
    let purpose = PURPOSES.iter().find(|(known, _)| *known == capability).map(|(_, purpose)| purpose);
    format!("{capability} ({})", purpose.unwrap_or(&"for what the configuration asks"))
}

fn refused<E: Display>(step: &'static str) -> impl FnOnce(E) -> SandboxError {
    move |error| SandboxError::Capabilities { step, reason: error.to_string() }
}

fn identity_step(step: &'static str) -> impl FnOnce(nix::Error) -> SandboxError {
    move |source| SandboxError::Identity { step, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_capability_is_named_with_its_purpose() {
        assert_eq!(with_purpose(Capability::CAP_NET_RAW), "CAP_NET_RAW (to open packet rings)");
    }
}
