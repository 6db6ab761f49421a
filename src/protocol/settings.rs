//! What the helper is told once, before the sensor sees any packet: one JSON document, length-prefixed.
#![forbid(unsafe_code)]

use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// The helper's settings. Times are seconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The configured never-block set; the helper adds the host's own addresses and gateways itself, and keeps them current.
    pub never_block: Vec<IpNet>,
    /// Responses, in the order in which they are applied.
    pub block_with: Vec<Response>,
    /// Length of a first block.
    pub block_time: u32,
    /// Longest block that escalation leads to.
    pub block_time_max: u32,
    /// Each further offence multiplies the length by this.
    pub block_time_factor: u32,
    /// Folder of the ledger; exists and is writable for the helper.
    pub state_dir: PathBuf,
    /// Lift every block on a clean stop.
    pub flush_on_stop: bool,
    /// User and group to become once the files are open; `None` keeps the present ones.
    pub run_as: Option<(u32, u32)>,
}

/// Ways to block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Response {
    /// Timed sets in the table `inet portsentry`.
    Nftables,
}
