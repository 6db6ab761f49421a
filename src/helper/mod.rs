//! The helper: authorise a request, apply it, remember it. Never sees a packet, never parses a string from the sensor.
#![forbid(unsafe_code)]

pub mod nftables;
pub mod ruleset;
