//! Packet → [`Probe`] → score → [`Verdict`]: what a packet means and what its source has earned.
//!
//! Pure: clock and randomness are arguments, and no socket, file or firewall is known here.
#![forbid(unsafe_code)]

pub mod probe;

pub use probe::{Probe, ScanType};
