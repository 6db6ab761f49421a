//! The helper's system calls: what serving requests takes once its sockets and its ledger are open. Helper.
//!
//! Data only, beside [`BASE`]. No socket, no program, no file but those of its own folder (Landlock sees to which).
#![forbid(unsafe_code)]

use crate::protocol::Settings;
use crate::sandbox::base::BASE;
use crate::sandbox::seccomp::{Rule, pin, rule};

/// As the ledger opens its successor; std adds O_CLOEXEC.
const NEW_LEDGER: i32 =
    libc::O_WRONLY | libc::O_APPEND | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW | libc::O_CLOEXEC;

/// Writing the ledger anew, and syncing what is appended.
const LEDGER: &[Rule] = &[
    rule("fdatasync", "what was appended outlives a power cut"),
    rule("fsync", "the new ledger and its folder, likewise"),
    rule("openat", "a new ledger").with(&[pin(0, libc::AT_FDCWD), pin(2, NEW_LEDGER)]),
    rule("openat", "its folder, to sync it").with(&[pin(0, libc::AT_FDCWD), pin(2, libc::O_CLOEXEC)]),
    #[cfg(target_arch = "x86_64")]
    rule("unlink", "what an interrupted rewrite left over"),
    #[cfg(not(target_arch = "x86_64"))]
    rule("unlinkat", "what an interrupted rewrite left over").with(&[pin(0, libc::AT_FDCWD), pin(2, 0)]),
    #[cfg(target_arch = "x86_64")]
    rule("rename", "the new ledger takes its place"),
    #[cfg(not(target_arch = "x86_64"))]
    rule("renameat", "the new ledger takes its place")
        .with(&[pin(0, libc::AT_FDCWD), pin(2, libc::AT_FDCWD)]),
];

/// The lists in force under `settings`.
pub fn rules(_settings: &Settings) -> Vec<&'static [Rule]> {
    vec![BASE, LEDGER]
}
