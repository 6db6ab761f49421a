//! The helper: authorise a request, apply it, remember it. Never sees a packet, never parses a string from the sensor.
//!
//! `start` opens everything, `run` waits, `decide` judges, `service` acts. A block goes: frame → authorise → escalation
//! → kernel (`respond`) → files and programs (`steps`, taken by `jobs`) → record → reply → ledger.
#![forbid(unsafe_code)]

pub mod authorise;
pub mod blocked_file;
pub mod budget;
pub mod clock;
pub mod command;
pub mod confine;
pub mod decide;
pub mod error;
pub mod escalation;
pub mod hosts_deny;
pub mod iptables;
pub mod jobs;
pub mod ledger;
pub mod nftables;
pub mod only_one;
pub mod record;
pub mod respond;
pub mod route;
pub mod ruleset;
pub mod run;
pub mod seccomp;
pub mod service;
pub mod start;
pub mod steps;
pub mod tripwire;
