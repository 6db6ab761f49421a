//! How a process gives rights up. Mechanism only: who gives up what stands in the role.
#![forbid(unsafe_code)]

pub mod base;
pub mod cage;
pub mod capabilities;
pub mod error;
#[cfg(feature = "escape-attempts")]
pub mod escape;
pub mod identity;
pub mod in_force;
pub mod landlock;
pub mod proof;
pub mod seccomp;
pub mod selfcheck;
pub mod selinux;
pub mod syscalls;

pub use caps::Capability;
pub use error::SandboxError;

pub use crate::protocol::settings::Sandbox;
