//! What the outside reads: one [`Event`] a line, as JSON or as PortSentry's classic text.
//!
//! Field names are Suricata EVE's where EVE has one. Whatever bytes the network sent, an event is one line.
//! Run by the sensor's main thread. The sinks are opened before confinement and never wait: a reader that is slow or
//! gone costs lines, which are counted, and never detection.
#![forbid(unsafe_code)]

pub mod classic;
pub mod emitter;
pub mod history;
pub mod journald;
pub mod json;
pub mod report;
pub mod stderr;
pub mod syslog;
pub mod text;
pub mod time;

use std::net::IpAddr;

use ipnet::IpNet;
use serde::Serialize;

pub use emitter::Emitter;
pub use report::{Confinement, Flood, FloodEnd, FloodState, Network, Start, Stats};

use crate::detect::probe::{Probe, Protocol, ScanType};

/// Something that happened. Fields that do not apply are absent from the JSON, which [`json::line`] writes.
#[derive(Clone, Debug)]
pub struct Event {
    /// Microseconds since 1970 UTC; written as `2026-11-22T00:38:01.758123+0000` in local time.
    pub timestamp: u64,
    /// What kind of thing happened.
    pub event_type: EventType,
    /// Who sent what to where.
    pub flow: Option<Flow>,
    /// What its source has done so far.
    pub scan: Option<Scan>,
    /// What we did about it.
    pub action: Option<Action>,
    /// `start` and `reload`: what runs, and how it is confined.
    pub start: Option<Start>,
    /// `stats` and `stop`: counters.
    pub stats: Option<Stats>,
    /// `stats` of one source: what it did after its alarm.
    pub summary: Option<Summary>,
    /// `flood`: what came at once.
    pub flood: Option<Flood>,
    /// `error`: what, where, what to do.
    pub error: Option<String>,
    /// The probe behind it, for the classic line.
    pub probe: Option<Probe>,
    /// `-v`: a line before the others that only classic text has.
    pub remark: Option<String>,
}

impl Event {
    /// An event with nothing but its time (microseconds since 1970 UTC) and kind.
    pub fn new(timestamp: u64, event_type: EventType) -> Event {
        Event {
            timestamp,
            event_type,
            flow: None,
            scan: None,
            action: None,
            start: None,
            stats: None,
            summary: None,
            flood: None,
            error: None,
            probe: None,
            remark: None,
        }
    }
}

/// The `event_type` field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EventType {
    /// The daemon is up and watching.
    Start,
    /// The configuration was read again, and it goes by that.
    Reload,
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
    /// A flood of forged sources began or ended.
    Flood,
    /// Something went wrong.
    Error,
    /// The daemon ends.
    Stop,
}

impl EventType {
    /// Every kind, in the order above.
    pub const ALL: [EventType; EventType::Stop as usize + 1] = [
        EventType::Start,
        EventType::Reload,
        EventType::Probe,
        EventType::Scan,
        EventType::Block,
        EventType::Unblock,
        EventType::Stats,
        EventType::Flood,
        EventType::Error,
        EventType::Stop,
    ];
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
    /// The source's name, where RESOLVE_HOST asked for it. Whoever owns the address chose it: never trust it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub src_host: Option<String>,
}

impl Flow {
    /// A flow of which only the source is known.
    pub fn from_source(src_ip: IpAddr) -> Flow {
        Flow {
            src_ip,
            src_port: None,
            dest_ip: None,
            dest_port: None,
            proto: None,
            in_iface: None,
            src_host: None,
        }
    }
}

impl From<&Probe> for Flow {
    /// Port 0 means "none" in a probe and is left out, but for [`Protocol::Ip`], whose number 0 is a real one.
    fn from(probe: &Probe) -> Flow {
        let real = |port: u16| (port != 0).then_some(port);
        Flow {
            src_port: real(probe.source_port),
            dest_ip: Some(probe.destination),
            dest_port: if probe.protocol == Protocol::Ip { Some(probe.port) } else { real(probe.port) },
            proto: Some(probe.protocol),
            ..Flow::from_source(probe.source)
        }
    }
}

/// The `scan` object.
#[derive(Clone, Copy, Debug)]
pub struct Scan {
    /// Kind of scan that the latest probe belongs to.
    pub scan_type: ScanType,
    /// Points so far.
    pub score: f32,
    /// Points at which a source counts as a scanner.
    pub threshold: f32,
    /// Distinct ports probed.
    pub distinct_ports: u32,
    /// Probes in all.
    pub probes: u32,
    /// The source has completed a handshake once; this very probe may be forged all the same.
    pub verified: bool,
    /// First probe, microseconds since 1970 UTC; written like `timestamp`.
    pub first_seen: u64,
}

/// The `summary` object: what a scanner did from its alarm until it fell quiet.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// Probes since the alarm, the one that raised it among them.
    pub probes: u64,
    /// Different ports among these.
    pub distinct_ports: u64,
    /// Those, as `1,7,512-515`; of very many the first ranges, and then `…`.
    pub ports: String,
    /// From the alarm to the last probe, seconds.
    pub seconds: u64,
}

/// The `action` object.
#[derive(Clone, Debug, Serialize)]
pub struct Action {
    /// What became of it.
    pub verdict: ActionVerdict,
    /// What was blocked or lifted: one address, or the prefix that stands for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<IpNet>,
    /// By which responses.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub with: Vec<String>,
    /// What they did, for the classic lines.
    #[serde(skip)]
    pub deeds: Vec<Deed>,
    /// `lifted`: not by an operator, but because the target has become one that is never blocked; for the classic line.
    #[serde(skip)]
    pub spared: bool,
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

impl Action {
    /// An action of which only the verdict is known.
    pub fn new(verdict: ActionVerdict) -> Action {
        Action {
            verdict,
            target: None,
            with: Vec::new(),
            deeds: Vec::new(),
            spared: false,
            seconds: None,
            offence: None,
            micros: None,
            error: None,
        }
    }
}

/// What a response did, in the words it did it with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deed {
    /// The firewall or the routing table has it, by the response of this name.
    Shut(&'static str),
    /// This line went to hosts.deny.
    Wrappers(String),
    /// KILL_ROUTE ran as this.
    Route(String),
    /// KILL_RUN_CMD ran as this.
    Ran(String),
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
    /// `unblock`: its time is over.
    Expired,
    /// `unblock`: an operator lifted it, or its target has become one that is never blocked.
    Lifted,
}
