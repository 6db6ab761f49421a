//! The helper: authorise a request, apply it, remember it. Never sees a packet, never parses a string from the sensor.
#![forbid(unsafe_code)]

pub mod authorise;
pub mod budget;
pub mod clock;
pub mod escalation;
pub mod ledger;
pub mod nftables;
pub mod ruleset;
