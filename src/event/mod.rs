//! What the outside reads: one [`Event`] a line, as JSON or as PortSentry's classic text.
//!
//! Field names are Suricata EVE's where EVE has one. Whatever bytes the network sent, an event is one line.
#![forbid(unsafe_code)]

use std::net::IpAddr;

use serde::Serialize;

use crate::detect::probe::{Probe, Protocol, ScanType};

/// Something that happened. Fields that do not apply are absent from the JSON.
#[derive(Clone, Debug, Serialize)]
pub struct Event {
    /// Microseconds since 1970 UTC; written as `2026-11-22T00:38:01.758123+0000` in local time.
    #[serde(skip)]
    pub timestamp: u64,
    /// What kind of thing happened.
    pub event_type: EventType,
    /// Who sent what to where.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub flow: Option<Flow>,
    /// What its source has done so far.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scan: Option<Scan>,
    /// What we did about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<Action>,
    /// `start`: what runs, and how it is confined.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start: Option<serde_json::Value>,
    /// `stats` and `stop`: counters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stats: Option<serde_json::Value>,
    /// `error`: what, where, what to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The probe behind it, for the classic line.
    #[serde(skip)]
    pub probe: Option<Probe>,
}

/// The `event_type` field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EventType {
    /// The daemon is up and watching.
    Start,
    /// A probe of a watched port by a source below the trigger.
    Probe,
    /// A source crossed the trigger.
    Scan,
    /// A block was asked for, and this is what became of it.
    Block,
    /// A block ended: expired or lifted.
    Unblock,
    /// Counters.
    Stats,
    /// Something went wrong.
    Error,
    /// The daemon ends.
    Stop,
}

/// The 5-tuple, under EVE's names.
#[derive(Clone, Debug, Serialize)]
pub struct Flow {
    /// Source address.
    pub src_ip: IpAddr,
    /// Source port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub src_port: Option<u16>,
    /// Destination address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dest_ip: Option<IpAddr>,
    /// Destination port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dest_port: Option<u16>,
    /// Transport.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proto: Option<Protocol>,
    /// Interface it came in by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_iface: Option<String>,
}

/// The `scan` object.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Scan {
    /// Kind of scan that the latest probe belongs to.
    #[serde(rename = "type")]
    pub scan_type: ScanType,
    /// Points so far.
    pub score: f32,
    /// Points at which a source counts as a scanner.
    pub threshold: f32,
    /// Distinct ports probed.
    pub distinct_ports: u32,
    /// Probes in all.
    pub probes: u32,
    /// A handshake was completed: the source is not spoofed.
    pub verified: bool,
    /// First probe, microseconds since 1970 UTC; written like `timestamp`.
    #[serde(skip)]
    pub first_seen: u64,
}

/// The `action` object.
#[derive(Clone, Debug, Serialize)]
pub struct Action {
    /// What became of it.
    pub verdict: ActionVerdict,
    /// By which responses.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub with: Vec<String>,
    /// For how long, seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u32>,
    /// Which offence of this source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offence: Option<u16>,
    /// How long the effect took, microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub micros: Option<u32>,
    /// Why it failed or was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The `action.verdict` field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ActionVerdict {
    /// Blocking is off for this protocol: only told.
    Logged,
    /// The kernel, or the command's exit status, said so.
    Blocked,
    /// It was blocked before.
    AlreadyBlocked,
    /// The source is in the never-block set.
    Ignored,
    /// A budget held it back.
    Suppressed,
    /// It could not be done; `error` says why.
    Failed,
}
