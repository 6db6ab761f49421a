//! Landlock: which files a process may still reach, and that it makes no TCP connection. Run by both roles, at start.
//!
//! Holds for the calling thread and those it starts later: must run before any other thread exists. Files that are
//! open already stay usable.
#![forbid(unsafe_code)]

use std::fmt::Display;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, LandlockStatus, PathBeneath, PathFd,
    PathFdError, RestrictionStatus, Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetStatus,
    Scope, make_bitflags,
};
use serde::Serialize;

use super::{Sandbox, SandboxError};

/// The least that SANDBOX="strict" accepts: file access (Linux 5.13).
pub const FLOOR: ABI = ABI::V1;
/// The newest interface whose rights are asked for. A newer kernel's further rights are not denied by us.
const KNOWN: ABI = ABI::V9;

/// What stays reachable. Everything else is denied: other files, TCP bind and connect (ABI 4), and signals and
/// abstract sockets to processes outside (ABI 6).
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// Files to read, folders to list and read.
    pub read: Vec<PathBuf>,
    /// Files to write without cutting them short (ABI 3); folders in which such files may be created.
    pub append: Vec<PathBuf>,
    /// Folders to read, and in which to create, write, rename and remove files.
    pub own: Vec<PathBuf>,
    /// Programs to run.
    pub execute: Vec<PathBuf>,
    /// Unix sockets to connect to (needs saying from ABI 9 on).
    pub connect: Vec<PathBuf>,
}

/// What the kernel enforces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LandlockInForce {
    /// Interface version in force; 0: none.
    pub abi: i32,
    /// Everything that was asked for, of the newest interface known, is enforced.
    pub complete: bool,
    /// Paths of the rules that do not exist, or that this user may not reach: they stay out of reach even if that
    /// changes later.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<PathBuf>,
}

const READ: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ReadFile | ReadDir});
const APPEND: BitFlags<AccessFs> = make_bitflags!(AccessFs::{WriteFile | MakeReg});
const OWN: BitFlags<AccessFs> =
    make_bitflags!(AccessFs::{ReadFile | ReadDir | WriteFile | MakeReg | RemoveFile | Truncate});
const EXECUTE: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ReadFile | Execute});
const CONNECT: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ResolveUnix});
/// The rights that mean something for a file that is no folder.
const OF_FILES: BitFlags<AccessFs> =
    make_bitflags!(AccessFs::{ReadFile | WriteFile | Execute | Truncate | IoctlDev | ResolveUnix});

/// Confines the calling thread to `rules`. Under [`Sandbox::Strict`], interface `floor` must be had in full.
///
/// # Errors
/// The kernel has less than the floor, or a path of the rules exists and cannot be opened, though this user may.
pub fn restrict(rules: &Rules, sandbox: Sandbox, floor: ABI) -> Result<LandlockInForce, SandboxError> {
    #[cfg(feature = "escape-attempts")]
    let sandbox = match super::escape::is_off(super::escape::Layer::Landlock) {
        true => Sandbox::Off,
        false => sandbox,
    };
    let least = match sandbox {
        Sandbox::Off => return Ok(LandlockInForce { abi: 0, complete: false, missing: Vec::new() }),
        Sandbox::BestEffort => ABI::Unsupported,
        Sandbox::Strict => floor,
    };
    let mut missing = Vec::new();
    let mut ruleset = handled(least)?;
    let grants = [
        (&rules.read, READ),
        (&rules.append, APPEND),
        (&rules.own, OWN),
        (&rules.execute, EXECUTE),
        (&rules.connect, CONNECT),
    ];
    for (path, access) in grants.iter().flat_map(|(paths, access)| paths.iter().map(|path| (path, *access))) {
        ruleset = granted(ruleset, path, access, &mut missing)?;
    }
    let status = ruleset.restrict_self().map_err(refused)?;
    Ok(LandlockInForce {
        abi: abi_of(&status),
        complete: status.ruleset == RulesetStatus::FullyEnforced,
        missing,
    })
}

/// Below the floor a missing right is an error; above it, it is left out.
fn handled(least: ABI) -> Result<RulesetCreated, SandboxError> {
    let mut ruleset = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    if least != ABI::Unsupported {
        ruleset = ruleset.handle_access(AccessFs::from_all(least)).map_err(refused)?;
    }
    let wanted = ruleset.set_compatibility(CompatLevel::BestEffort);
    let files = wanted.handle_access(AccessFs::from_all(KNOWN)).map_err(refused)?;
    let network = files.handle_access(AccessNet::from_all(KNOWN)).map_err(refused)?;
    network.scope(Scope::from_all(KNOWN)).map_err(refused)?.create().map_err(refused)
}

fn granted(
    ruleset: RulesetCreated,
    path: &Path,
    access: BitFlags<AccessFs>,
    missing: &mut Vec<PathBuf>,
) -> Result<RulesetCreated, SandboxError> {
    match PathFd::new(path) {
        Ok(opened) => {
            let access = if path.is_dir() { access } else { access & OF_FILES };
            ruleset.add_rule(PathBeneath::new(opened, access)).map_err(refused)
        }
        // Where the file's own mode forbids it, nothing is left to forbid. What that means is the role's to say.
        Err(PathFdError::OpenCall { source, .. })
            if matches!(source.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) =>
        {
            missing.push(path.to_owned());
            Ok(ruleset)
        }
        Err(PathFdError::OpenCall { source, .. }) => {
            Err(SandboxError::Unopened { path: path.to_owned(), source })
        }
        Err(error) => Err(refused(error)),
    }
}

fn abi_of(status: &RestrictionStatus) -> i32 {
    match status.landlock {
        LandlockStatus::NotEnabled | LandlockStatus::NotImplemented => 0,
        LandlockStatus::Available { effective_abi, .. } => effective_abi as i32,
    }
}

fn refused(error: impl Display) -> SandboxError {
    SandboxError::Landlock(error.to_string())
}
