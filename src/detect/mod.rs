//! Packet → [`Probe`] → score → [`Verdict`]: what a packet means and what its source has earned.
//!
//! Pure: clock and randomness are arguments, and no socket, file or firewall is known here.
#![forbid(unsafe_code)]

#[cfg(test)]
#[cfg(not(loom))]
mod laws;
mod lines;
pub mod peers;
pub mod policy;
pub mod probe;
mod shared_ports;
pub mod table;
pub mod walk;
pub mod weights;

pub use peers::Peers;
pub use policy::{Verdict, Watch};
pub use probe::{Probe, ScanType};
pub use shared_ports::SharedPorts;
pub use table::{Evidence, ScoreTable, SourceKey, Standing};
