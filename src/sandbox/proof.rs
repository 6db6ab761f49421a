//! Proves a seccomp filter without dying of it: a short-lived copy of this very program enters the same filter, makes
//! a call that no list allows, and must die of SIGSYS. Started by both roles while they still may run a program.
//!
//! The copy reads the compiled filter from its standard input and does nothing else.
#![forbid(unsafe_code)]

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::OnceLock;

use nix::sys::prctl;

use super::SandboxError;
use super::seccomp::Filter;
use super::syscalls;
use crate::line_writer;
use crate::sys;

/// The argument that makes either program the copy.
pub const ARGUMENT: &str = "--seccomp-proof";
/// The kernel's bound on a filter (BPF_MAXINSNS, linux/bpf_common.h), in bytes.
const LONGEST: u64 = 4096 * 8;

/// A copy on its way to its death.
#[derive(Debug)]
pub struct Proof(Child);

impl Proof {
    /// Starts the copy.
    ///
    /// # Errors
    /// This program cannot be run again.
    pub fn begin(filter: &Filter) -> Result<Proof, SandboxError> {
        let spawned = Command::new("/proc/self/exe")
            .arg(ARGUMENT)
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let mut child = spawned.map_err(failed)?;
        if let Some(mut stdin) = child.stdin.take() {
            // A copy that ends early is judged by how it ended.
            let _ = stdin.write_all(&filter.to_bytes());
        }
        Ok(Proof(child))
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// It lived, or died of something else.
    pub fn require(mut self) -> Result<(), SandboxError> {
        let status = self.0.wait().map_err(failed)?;
        match (status.signal(), status.code()) {
            (Some(libc::SIGSYS), _) => Ok(()),
            (_, Some(0)) => Err(SandboxError::Escaped("a system call outside the seccomp rules".into())),
            _ => Err(SandboxError::Seccomp(format!("a process that entered the filter ended with {status}"))),
        }
    }
}

/// The copy. Success means that the filter does not hold.
pub fn copy() -> ExitCode {
    // Its death is no news: no core file, and nothing for a crash collector.
    let _ = prctl::set_dumpable(false);
    let mut bytes = Vec::new();
    let read = io::stdin().take(LONGEST).read_to_end(&mut bytes);
    match read.is_ok() && Filter::from_bytes(&bytes).apply().is_ok() {
        true => {
            #[cfg(feature = "escape-attempts")]
            super::escape::call_asked_for();
            call_outside();
            ExitCode::SUCCESS
        }
        false => ExitCode::FAILURE,
    }
}

/// uname(2): harmless where it works, and on no list.
fn call_outside() {
    let _ = nix::sys::utsname::uname();
}

/// Who names refused calls.
static ROLE: OnceLock<&str> = OnceLock::new();

/// From now on a call that the filter refuses (under [`OnMismatch::Name`](super::seccomp::OnMismatch)) is named on
/// standard error before the process, which is `role`, dies of SIGSYS.
///
/// # Errors
/// The kernel takes no signal handler.
pub fn name_refused_calls(role: &'static str) -> Result<(), SandboxError> {
    let _ = ROLE.set(role);
    sys::on_refused_call(name_and_die).map_err(failed)
}

/// Runs as a signal handler: neither allocates nor takes a lock.
fn name_and_die(number: i64) {
    let mut line = [0_u8; 160];
    let mut rest = line.as_mut_slice();
    let name = syscalls::name(number).unwrap_or("not in our table");
    let role = ROLE.get().copied().unwrap_or_default();
    let _ = writeln!(
        rest,
        "portsentry-rs {role}: system call {number} ({name}) is outside the seccomp rules; please report it"
    );
    let unused = rest.len();
    let text = line.get(..line.len() - unused).unwrap_or_default();
    // Whoever does not read does not keep the process alive.
    if line_writer::has_room(io::stderr()).unwrap_or(false) {
        let _ = nix::unistd::write(io::stderr().as_fd(), text);
    }
    // SIGSYS is blocked while its handler runs: a second refusal kills at once.
    call_outside();
}

fn failed(error: io::Error) -> SandboxError {
    SandboxError::Seccomp(error.to_string())
}
