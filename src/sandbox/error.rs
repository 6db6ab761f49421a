//! Why a process could not give up its rights. Every one of these ends the start: better no daemon than an open cage.
#![forbid(unsafe_code)]

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// A step of the confinement that failed.
#[derive(Debug, Error)]
pub enum SandboxError {
    /// Rights that the role needs and was not given.
    #[error(
        "missing {0}; start as root, or give it with AmbientCapabilities= (systemd) or --cap-add (container)"
    )]
    Missing(String),
    /// The kernel refused a change of capabilities.
    #[error("{step}: {reason}; is another security module in the way?")]
    Capabilities {
        /// What was tried.
        step: &'static str,
        /// The kernel's word.
        reason: String,
    },
    /// The kernel refused a change of user or group.
    #[error("{step} for RUN_AS: {source}; check that the user namespace maps that number")]
    Identity {
        /// What was tried.
        step: &'static str,
        /// The kernel's word.
        source: nix::Error,
    },
    /// RUN_AS names nobody, or somebody it may not be.
    #[error("RUN_AS=\"{name}\": {reason}; give a user of /etc/passwd or uid:gid")]
    RunAs {
        /// What was asked for.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A file that the confinement itself needs.
    #[error("{path}: {source}; mount /proc, and see that the file is readable", path = path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// The kernel's word.
        source: io::Error,
    },
    /// A file that was to stay reachable.
    #[error("{path}: {source}; the daemon needs it: see that it can be opened, or name another", path = path.display())]
    Unopened {
        /// Which.
        path: PathBuf,
        /// The kernel's word.
        source: io::Error,
    },
    /// Landlock at the stated floor is not to be had.
    #[error("Landlock: {0}; boot a kernel with lsm=…,landlock, or set SANDBOX=\"best-effort\"")]
    Landlock(String),
    /// SELinux has our policy, but not the way that the sensor takes through it.
    #[error(
        "SELinux: the sensor cannot enter {domain}: {source}; is the policy module portsentry_rs of this version?"
    )]
    Domain {
        /// Where to.
        domain: &'static str,
        /// The kernel's word.
        source: io::Error,
    },
    /// A role's list of system calls is wrong: a fault of this program.
    #[error("seccomp rule for {syscall}: {reason}; this is a fault of the program, please report it")]
    Rule {
        /// Which system call.
        syscall: &'static str,
        /// What is wrong with its rule.
        reason: &'static str,
    },
    /// The filter could not be built or entered.
    #[error(
        "seccomp: {0}; it takes a kernel with CONFIG_SECCOMP_FILTER, and /proc, /dev/null, a process and open files for a trial, or SANDBOX=\"best-effort\""
    )]
    Seccomp(String),
    /// Whether the cage is closed is not known.
    #[error(
        "{what} was to prove that the confinement holds, and could not be tried: {source}; see that the file is there and that descriptors are left, or set SANDBOX=\"best-effort\""
    )]
    Untried {
        /// What was to be refused.
        what: String,
        /// The kernel's word.
        source: io::Error,
    },
    /// The cage is open: something worked that must not.
    #[error("the confinement does not hold: {0} still works; nothing was started, please report it")]
    Escaped(String),
}
