//! What confinement is really in force, in the kernel's own words, for the `start` event. Run by both roles.
//!
//! Reads through a file opened before the confinement, because the confinement forbids opening it; changes nothing.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use serde::Serialize;

use super::landlock::LandlockInForce;
use super::{Capability, SandboxError};

/// proc(5); of the calling thread, for capabilities and filters belong to threads.
const STATUS: &str = "/proc/thread-self/status";

/// The kernel's account of a thread.
#[derive(Debug)]
pub struct Witness(File);

/// The confinement of one process, as the `start` event shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Confinement {
    /// Effective user.
    pub uid: u32,
    /// Effective group.
    pub gid: u32,
    /// CapPrm, by name.
    pub permitted: Vec<String>,
    /// CapEff.
    pub effective: Vec<String>,
    /// CapInh.
    pub inheritable: Vec<String>,
    /// CapAmb.
    pub ambient: Vec<String>,
    /// CapBnd.
    pub bounding: Vec<String>,
    /// PR_SET_NO_NEW_PRIVS.
    pub no_new_privs: bool,
    /// A seccomp filter is in force.
    pub seccomp: bool,
    /// How many (Linux 5.9). Whoever started us may have brought one of its own, as containers do.
    pub filters: u32,
    /// Landlock, which /proc does not tell: the caller fills it in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub landlock: Option<LandlockInForce>,
}

impl Witness {
    /// Opens the account of the calling thread.
    pub fn open() -> Result<Witness, SandboxError> {
        File::open(STATUS).map(Witness).map_err(unreadable)
    }

    /// Opens the account of another process's first thread.
    pub fn of_process(process: u32) -> Result<Witness, SandboxError> {
        let path = format!("/proc/{process}/status");
        File::open(&path).map(Witness).map_err(|source| SandboxError::File { path: path.into(), source })
    }

    /// What is in force for that thread now.
    pub fn in_force(&self) -> Result<Confinement, SandboxError> {
        let mut text = [0_u8; 4096];
        let length = self.0.read_at(&mut text, 0).map_err(unreadable)?;
        Ok(confinement(&String::from_utf8_lossy(text.get(..length).unwrap_or_default())))
    }
}

impl Confinement {
    /// The same, with no claim to a seccomp filter that was there before: `outside` of them.
    pub fn beyond(self, outside: u32) -> Confinement {
        Confinement { seccomp: self.seccomp && self.filters > outside, ..self }
    }
}

fn unreadable(source: io::Error) -> SandboxError {
    SandboxError::File { path: STATUS.into(), source }
}

fn confinement(status: &str) -> Confinement {
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_default().trim()
    };
    // "Uid: real effective saved filesystem"
    let effective_id = |name| field(name).split_whitespace().nth(1).and_then(|id| id.parse().ok());
    Confinement {
        uid: effective_id("Uid").unwrap_or(0),
        gid: effective_id("Gid").unwrap_or(0),
        permitted: names(field("CapPrm")),
        effective: names(field("CapEff")),
        inheritable: names(field("CapInh")),
        ambient: names(field("CapAmb")),
        bounding: names(field("CapBnd")),
        no_new_privs: field("NoNewPrivs") == "1",
        seccomp: field("Seccomp") == "2",
        filters: field("Seccomp_filters").parse().unwrap_or(0),
        landlock: None,
    }
}

/// A mask that cannot be read counts as full: never claim a right gone that was not seen gone.
fn names(mask: &str) -> Vec<String> {
    let mask = u64::from_str_radix(mask, 16).unwrap_or(u64::MAX);
    (0..64_u8).filter(|bit| mask >> bit & 1 == 1).map(name).collect()
}

/// A capability that is younger than this program is known by its number.
fn name(bit: u8) -> String {
    let known = caps::all().into_iter().find(|capability: &Capability| capability.index() == bit);
    known.map_or_else(|| format!("cap_{bit}"), |capability| capability.to_string().to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_account_is_read_to_names() {
        let status = "Name:\tx\nUid:\t0\t120\t120\t120\nGid:\t1\t130\t1\t1\nCapInh:\t0000000000000000\n\
                      CapPrm:\t0000000000001000\nCapEff:\t0000000000001000\nCapBnd:\t8000000000001000\n\
                      CapAmb:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t1\n";
        let read = confinement(status);
        assert_eq!((read.uid, read.gid, read.no_new_privs, read.seccomp), (120, 130, true, true));
        assert!(read.clone().beyond(0).seccomp && !read.clone().beyond(1).seccomp);
        assert_eq!(read.permitted, ["cap_net_admin"]);
        assert_eq!(read.bounding, ["cap_net_admin", "cap_63"]);
        assert!(read.inheritable.is_empty() && read.ambient.is_empty());
    }

    #[test]
    fn what_was_not_seen_is_not_claimed() {
        let read = confinement("");
        assert!(!read.no_new_privs && !read.seccomp && read.permitted.len() == 64 && read.uid == 0);
    }

    #[test]
    fn this_very_thread_has_an_account() {
        let confinement = Witness::open().unwrap().in_force().unwrap();
        assert_eq!(confinement.uid, nix::unistd::geteuid().as_raw());
    }
}
