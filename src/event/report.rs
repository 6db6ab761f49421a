//! What the daemon says of itself: the `start` and `stats` objects, in events and in `status` alike.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::config::Mode;

/// The `start` object: what runs, what it watches, and how it is confined.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Start {
    /// [`crate::VERSION`].
    pub version: String,
    /// The sensor's process.
    pub pid: u32,
    /// The helper's process.
    pub helper_pid: u32,
    /// How it watches.
    pub mode: Mode,
    /// Whose network it watches.
    pub network: Network,
    /// Interfaces watched, by name.
    pub interfaces: Vec<String>,
    /// Watched TCP ports, as `1,7,512-515`; of a great many the first, and how many more.
    pub tcp_ports: String,
    /// Watched UDP ports, likewise.
    pub udp_ports: String,
    /// TCP ports on which a decoy listens, likewise.
    pub decoy_tcp_ports: String,
    /// UDP ports, likewise.
    pub decoy_udp_ports: String,
    /// Unexpired blocks that were put back into the kernel.
    pub restored: u32,
    /// How both processes are confined.
    pub confinement: Confinement,
}

/// The `network` field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// The one that the machine booted with.
    Host,
    /// A network namespace of its own, as a container's.
    Own,
    /// /proc does not tell.
    Unknown,
}

/// The `confinement` object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Confinement {
    /// What holds, as `seccomp`, `landlock 7`, `no capabilities`.
    pub in_force: Vec<String>,
    /// What was wanted and could not be had (only with SANDBOX="best-effort").
    pub missing: Vec<String>,
}

/// The `stats` object: counts since the start, and levels as of now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stats {
    /// Seconds since the start.
    pub uptime: u64,
    /// Packets that passed the kernel's filter and were looked at.
    pub packets: u64,
    /// Packets that the kernel dropped because a ring was full.
    pub drops: u64,
    /// Probes of watched ports.
    pub probes: u64,
    /// Sources that crossed the trigger.
    pub scans: u64,
    /// Blocks that were carried out.
    pub blocks: u64,
    /// Blocks in force now.
    pub blocks_in_force: u64,
    /// Sources in the score table now.
    pub sources: u64,
    /// Log lines that could not be written.
    pub lost_lines: u64,
    /// Further counters by name, as reasons for which packets were refused.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub counters: BTreeMap<String, u64>,
}

/// The `flood` object: more sources that nobody has seen before than any scan has. They are forged, or a botnet's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Flood {
    /// Whether this is its beginning or its end.
    pub state: FloodState,
    /// New sources a second: at the beginning of its first second, at the end of all of them.
    pub rate: u64,
    /// The ports that most of them knocked at, as `111/tcp`; none where no port stands out.
    pub ports: Vec<String>,
    /// What it came to.
    #[serde(flatten)]
    pub ended: Option<FloodEnd>,
}

/// The `flood.state` field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FloodState {
    /// It has just begun.
    Began,
    /// It has been over for ten seconds.
    Ended,
}

/// What a flood came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct FloodEnd {
    /// How long it lasted.
    pub seconds: u64,
    /// New sources.
    pub sources: u64,
    /// Packets that the kernel dropped because a ring was full.
    pub drops: u64,
    /// Blocks that BLOCK_LIMIT held back.
    pub blocks_held_back: u64,
}
