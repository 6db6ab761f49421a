//! What goes over the control socket: one JSON request line, then JSON reply lines, the last of which
//! [`ControlReply::is_last`].
//!
//! Pure and total: a line is understood whole or refused whole.
#![forbid(unsafe_code)]

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::config::networks::without_zone;
use crate::event::{Start, Stats};
use crate::protocol::Outcome;

/// Longest request line, bytes, newline included.
pub const REQUEST_LIMIT: usize = 4096;

/// What an operator may ask for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ControlRequest {
    /// How the daemon is: one `status` line.
    Status,
    /// What is blocked: an `entry` line each, then `end`.
    List,
    /// Block a source: one `done` line.
    Block {
        /// An address, or a network without host bits.
        #[serde(with = "target")]
        address: IpNet,
        /// For how long, seconds; 0 means BLOCK_TIME.
        #[serde(default)]
        seconds: u32,
    },
    /// Lift a block: one `done` line.
    Unblock {
        /// Exactly what was blocked.
        #[serde(with = "target")]
        address: IpNet,
    },
    /// Lift every block: one `done` line.
    UnblockAll,
}

impl ControlRequest {
    /// Whether something is to be done: that takes as long as the responses do (COMMAND_TIMEOUT), and is done even if
    /// nobody waits for the answer.
    pub fn is_work(&self) -> bool {
        match self {
            ControlRequest::Block { .. } | ControlRequest::Unblock { .. } | ControlRequest::UnblockAll => {
                true
            }
            ControlRequest::Status | ControlRequest::List => false,
        }
    }
}

/// What the daemon answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ControlReply {
    /// To `Status`.
    Status(Box<Status>),
    /// To `List`: one block.
    Entry(Entry),
    /// To `List`: no more.
    End {
        /// How many entries there were.
        count: u64,
    },
    /// To `Block`, `Unblock` and `UnblockAll`: what became of it.
    Done(Done),
    /// The request was not understood or not admitted: what, and what to do.
    Error {
        /// One sentence.
        message: String,
    },
}

/// How the daemon is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Status {
    /// Running since, seconds since 1970 UTC.
    pub since: u64,
    /// Whether the helper has given a sign of life since this was asked for; else nobody is blocked or let in. A daemon of
    /// before an upgrade, which does not ask it, says nothing against it.
    #[serde(default = "nothing_against_it")]
    pub helper_answers: bool,
    /// What the `start` event said.
    pub start: Start,
    /// What a `stats` event would say now.
    pub stats: Stats,
}

fn nothing_against_it() -> bool {
    true
}

/// One block in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// What is blocked.
    #[serde(with = "target")]
    pub target: IpNet,
    /// When it began, seconds since 1970 UTC.
    pub since: u64,
    /// When it ends, likewise.
    pub until: u64,
    /// Which offence of this source, from 1.
    pub offence: u16,
}

/// What became of a block or unblock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Done {
    /// In a word.
    pub verdict: DoneVerdict,
    /// For how long from now, seconds; 0 where nothing is blocked.
    pub seconds: u32,
    /// Which offence of the source; 0 where nothing is blocked.
    pub offence: u16,
    /// Why it was refused or failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The `verdict` of a [`Done`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DoneVerdict {
    /// The kernel has it.
    Blocked,
    /// It was blocked before.
    AlreadyBlocked,
    /// It is no longer blocked.
    Lifted,
    /// There was nothing to lift.
    NotBlocked,
    /// The helper will not; `error` says why.
    Refused,
    /// The system could not; `error` says why.
    Failed,
}

impl ControlReply {
    /// Whether this answer is complete with it.
    pub fn is_last(&self) -> bool {
        match self {
            ControlReply::Entry(_) => false,
            ControlReply::Status(_) | ControlReply::End { .. } => true,
            ControlReply::Done(_) | ControlReply::Error { .. } => true,
        }
    }
}

impl Done {
    /// The helper's answer in an operator's words.
    pub fn new(outcome: Outcome, seconds: u32, offence: u16) -> Done {
        let (verdict, error) = match outcome {
            Outcome::Blocked => (DoneVerdict::Blocked, None),
            Outcome::AlreadyBlocked => (DoneVerdict::AlreadyBlocked, None),
            Outcome::Lifted => (DoneVerdict::Lifted, None),
            Outcome::NotBlocked => (DoneVerdict::NotBlocked, None),
            Outcome::RefusedNeverBlock
            | Outcome::RefusedPrefix
            | Outcome::RefusedRate
            | Outcome::RefusedFull => (DoneVerdict::Refused, outcome_reason(outcome)),
            Outcome::Failed(_) => (DoneVerdict::Failed, outcome_reason(outcome)),
        };
        Done { verdict, seconds, offence, error }
    }
}

/// Why the helper did not do it, for `action.error` and `Done::error`; `None` where it did.
pub fn outcome_reason(outcome: Outcome) -> Option<String> {
    let reason = match outcome {
        Outcome::Blocked | Outcome::AlreadyBlocked | Outcome::Lifted | Outcome::NotBlocked => return None,
        Outcome::RefusedNeverBlock => "It overlaps the never-block set.".to_owned(),
        Outcome::RefusedPrefix => "The prefix is wider than /24 (IPv4) or /48 (IPv6).".to_owned(),
        Outcome::RefusedRate => "Too much was asked for in this minute; try again later.".to_owned(),
        Outcome::RefusedFull => "The table of blocks is full; lift some first.".to_owned(),
        Outcome::Failed(errno) => format!("The system refused: {}", std::io::Error::from_raw_os_error(errno)),
    };
    Some(reason)
}

/// A text that names neither an address nor a network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Neither form.
    #[error("{0:?} is neither an address nor a network; write 192.0.2.7 or 2001:db8::/64")]
    Unreadable(String),
    /// `fe80::1%eth0`.
    #[error("{0}")]
    Zone(String),
    /// `10.0.0.1/24`.
    #[error("{given} has bits beyond its prefix length; write {network} or {address}")]
    HostBits {
        /// As given.
        given: String,
        /// The network it lies in.
        network: IpNet,
        /// The address alone.
        address: IpAddr,
    },
}

/// An address, or a network without host bits. IPv4-mapped IPv6 addresses are IPv4.
pub fn parse_target(text: &str) -> Result<IpNet, TargetError> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(IpNet::from(address.to_canonical()));
    }
    if let Some(what) = without_zone(text) {
        return Err(TargetError::Zone(what));
    }
    let network: IpNet = text.parse().map_err(|_| TargetError::Unreadable(text.to_owned()))?;
    if network.trunc() == network {
        return Ok(network);
    }
    Err(TargetError::HostBits { given: text.to_owned(), network: network.trunc(), address: network.addr() })
}

/// Targets as text in JSON.
mod target {
    use ipnet::IpNet;
    use serde::de::{Deserialize, Deserializer, Error};
    use serde::ser::Serializer;

    use crate::protocol::wording::address;

    pub(super) fn serialize<S: Serializer>(target: &IpNet, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&address(target))
    }

    pub(super) fn deserialize<'a, D: Deserializer<'a>>(deserializer: D) -> Result<IpNet, D::Error> {
        super::parse_target(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::protocol::wording::address;

    #[test]
    fn targets_are_single_addresses_or_true_networks() {
        for (text, shown) in [
            ("192.0.2.7", "192.0.2.7"),
            ("192.0.2.7/32", "192.0.2.7"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("2001:DB8::/64", "2001:db8::/64"),
        ] {
            assert_eq!(address(&parse_target(text).unwrap()), shown);
        }
        let error = parse_target("10.0.0.1/24").unwrap_err().to_string();
        assert!(error.contains("10.0.0.0/24 or 10.0.0.1"), "{error}");
        let error = parse_target("fe80::1%eth0").unwrap_err().to_string();
        assert!(error.contains("write fe80::1 if"), "{error}");
        for wrong in ["", "all", "10.0.0.1/33", "example.org", "10.0.0.1 "] {
            assert!(parse_target(wrong).is_err(), "{wrong}");
        }
    }

    /// `make uninstall` of a new version must see the daemon that runs.
    #[test]
    fn the_status_of_a_daemon_from_before_an_upgrade_can_be_read() {
        let start = r#"{"version":"0.1.0","pid":1,"helper_pid":2,"mode":"stealth","network":"host","interfaces":[],"tcp_ports":"",
            "udp_ports":"","decoy_tcp_ports":"","decoy_udp_ports":"","restored":0,"confinement":{"in_force":[],"missing":[]}}"#;
        let stats = serde_json::to_string(&Stats::default()).unwrap();
        let old = format!(r#"{{"since":1,"start":{start},"stats":{stats}}}"#);
        assert!(serde_json::from_str::<Status>(&old).unwrap().helper_answers);
    }

    #[test]
    fn requests_have_this_form_and_no_other() {
        let read = |text: &str| serde_json::from_str::<ControlRequest>(text);
        assert_eq!(read("\"status\"").unwrap(), ControlRequest::Status);
        let block = read(r#"{"block":{"address":"10.0.0.1"}}"#).unwrap();
        assert_eq!(block, ControlRequest::Block { address: "10.0.0.1/32".parse().unwrap(), seconds: 0 });
        for wrong in [
            r#"{"block":{"address":"10.0.0.1","second":5}}"#,
            r#"{"block":{"address":"10.0.0.1/8"}}"#,
            r#"{"block":{"address":"10.0.0.1","seconds":-1}}"#,
            r#"{"block":{}}"#,
            r#""reboot""#,
            "\"status\" \"list\"",
            "",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn every_refusal_says_why() {
        for outcome in [Outcome::RefusedNeverBlock, Outcome::RefusedFull, Outcome::Failed(libc::ENOBUFS)] {
            assert!(Done::new(outcome, 0, 0).error.is_some());
        }
        assert_eq!(Done::new(Outcome::Blocked, 60, 1).error, None);
    }

    proptest! {
        #[test]
        fn requests_read_back_as_they_were_written(bits in any::<u32>(), prefix in 0u8..=32, seconds in any::<u32>()) {
            let address = IpNet::new(IpAddr::V4(bits.into()), prefix).unwrap().trunc();
            let request = ControlRequest::Block { address, seconds };
            let text = serde_json::to_string(&request).unwrap();
            prop_assert_eq!(serde_json::from_str::<ControlRequest>(&text).unwrap(), request);
        }

        #[test]
        fn no_line_is_too_strange_to_be_refused(line in any::<Vec<u8>>()) {
            let _ = serde_json::from_slice::<ControlRequest>(&line);
        }
    }
}
