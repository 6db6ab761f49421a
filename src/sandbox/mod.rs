//! How a process gives rights up. Mechanism only: who gives up what stands in the role.
#![forbid(unsafe_code)]

pub mod capabilities;
pub mod error;
pub mod identity;
pub mod in_force;
pub mod landlock;
pub mod seccomp;
pub mod selfcheck;
mod syscalls;

pub use caps::Capability;
pub use error::SandboxError;

/// SANDBOX: what happens where the kernel cannot do what is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Below the stated floor the start fails; above it, as much as the kernel knows.
    Strict,
    /// As much as the kernel knows, be it nothing; the `start` event says what is missing.
    BestEffort,
    /// Nothing.
    Off,
}
