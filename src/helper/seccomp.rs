//! The helper's system calls: what serving requests takes once its sockets and its ledger are open. Helper.
//!
//! Data only, beside [`BASE`]. No socket, no program, no file but those of its folders (Landlock sees to which).
#![forbid(unsafe_code)]

use crate::protocol::{Response, Settings};
#[cfg(target_env = "musl")]
use crate::sandbox::base::opens;
use crate::sandbox::base::{BASE, opens_at};
use crate::sandbox::seccomp::{Rule, pin, rule};

/// As the ledger opens its successor; std adds O_CLOEXEC.
const NEW_LEDGER: i32 =
    libc::O_WRONLY | libc::O_APPEND | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW | libc::O_CLOEXEC;

/// hosts.deny is nobody else's pipe.
const HOSTS_DENY_NOW: i32 = libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;
/// As its successor is opened.
const NEW_HOSTS_DENY: i32 = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_CLOEXEC;

/// Writing the ledger anew, and syncing what is appended.
const LEDGER: &[Rule] = &[
    rule("fdatasync", "what was appended outlives a power cut"),
    rule("fsync", "the new ledger and its folder, likewise"),
    #[cfg(target_env = "musl")]
    opens::<NEW_LEDGER>("a new ledger"),
    opens_at::<NEW_LEDGER>("a new ledger"),
    #[cfg(target_env = "musl")]
    opens::<{ libc::O_CLOEXEC }>("its folder, to sync it"),
    opens_at::<{ libc::O_CLOEXEC }>("its folder, to sync it"),
    rule("unlink", "what an interrupted rewrite left over"),
    rule("unlinkat", "what an interrupted rewrite left over")
        .with(&[pin(0, libc::AT_FDCWD), pin(2, 0)])
        .instead_of("unlink"),
    rule("rename", "the new ledger takes its place"),
    rule("renameat", "the new ledger takes its place")
        .with(&[pin(0, libc::AT_FDCWD), pin(2, libc::AT_FDCWD)])
        .instead_of("rename"),
];

/// Blocks of an earlier run are told from those of an earlier start of the machine.
const BOOT: &[Rule] = &[rule("clock_gettime", "when the machine was started, where the vDSO has no time")
    .with(&[pin(0, libc::CLOCK_BOOTTIME)])];

/// With hosts.deny, which is replaced whole, as the ledger is.
const HOSTS_DENY: &[Rule] = &[
    #[cfg(target_env = "musl")]
    opens::<HOSTS_DENY_NOW>("hosts.deny as it is now"),
    opens_at::<HOSTS_DENY_NOW>("hosts.deny as it is now"),
    #[cfg(target_env = "musl")]
    opens::<NEW_HOSTS_DENY>("its successor"),
    opens_at::<NEW_HOSTS_DENY>("its successor"),
    #[cfg(target_env = "musl")]
    rule("fstat", "its mode and owner"),
    #[cfg(not(target_env = "musl"))]
    rule("statx", "its mode and owner").with(&[pin(2, libc::AT_EMPTY_PATH)]),
    rule("fchmod", "the successor has the same mode"),
    rule("fchown", "and the same owner"),
];

/// With BLOCKED_FILE, which is open already.
const BLOCKED_FILE: &[Rule] = &[
    rule("ftruncate", "what has ended is taken out of BLOCKED_FILE"),
    rule("lseek", "the file is written anew from its start").with(&[pin(2, libc::SEEK_SET)]),
];

/// The lists in force under `settings`, where the helper runs no program.
pub fn rules(settings: &Settings) -> Vec<&'static [Rule]> {
    let mut lists = vec![BASE, LEDGER, BOOT];
    if settings.block_with.contains(&Response::HostsDeny) {
        lists.push(HOSTS_DENY);
    }
    if settings.blocked_file.is_some() {
        lists.push(BLOCKED_FILE);
    }
    lists
}
