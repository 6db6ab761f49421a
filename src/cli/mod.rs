//! The command line of `portsentry-rs`: arguments in, exit code out.
#![forbid(unsafe_code)]

pub mod status;
