//! What the helper is told once, before the sensor sees any packet: one JSON document, length-prefixed.
#![forbid(unsafe_code)]

use std::io::{self, Read, Write};
use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use super::responses::Response;
use super::responses::Responses;
use super::traps::Terms;

/// The ledger's file name in STATE_DIR: the sensor hands the file to the helper's user, the helper keeps it.
pub const LEDGER: &str = "ledger";
/// Whoever has this one locked, in the same place, is the helper at work on it.
pub const LEDGER_LOCK: &str = "ledger.lock";

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
    /// Blocks in force at once, at most [`MOST_BLOCKS`].
    pub max_blocks: u32,
    /// Folder of the ledger; exists and is writable for the helper.
    pub state_dir: PathBuf,
    /// Lift every block on a clean stop.
    pub flush_on_stop: bool,
    /// User and group to become once the files are open; `None` keeps the present ones.
    pub run_as: Option<(u32, u32)>,
    /// SANDBOX.
    pub sandbox: Sandbox,
    /// SANDBOX_LOG: name the system call that the helper dies of.
    pub sandbox_log: bool,
    /// BLOCKED_FILE.
    pub blocked_file: Option<PathBuf>,
    /// TRIPWIRE.
    pub tripwire: Option<Terms>,
    /// What the administrator wrote himself.
    pub custom: Custom,
}

/// SANDBOX: what happens where the kernel cannot confine as asked. Rights are given up in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sandbox {
    /// Below the stated floor the start fails; above it, as much as the kernel knows.
    #[default]
    Strict,
    /// As much as the kernel knows, be it nothing; the `start` event says what is missing.
    BestEffort,
    /// Neither Landlock nor seccomp.
    Off,
}

/// What the administrator wrote himself: `$TARGET$`, `$PORT$` and `$MODE$` are not yet replaced (see `wording`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Custom {
    /// KILL_ROUTE.
    pub kill_route: Option<String>,
    /// KILL_RUN_CMD.
    pub kill_run_cmd: Option<String>,
    /// UNBLOCK_CMD: run when a block ends that KILL_ROUTE made.
    pub unblock_cmd: Option<String>,
    /// KILL_HOSTS_DENY.
    pub hosts_deny: Option<String>,
    /// HOSTS_DENY_FILE.
    pub hosts_deny_file: PathBuf,
    /// COMMAND_TIMEOUT, seconds.
    pub command_timeout: u32,
    /// `$MODE$`: `stealth` or `connect`.
    pub mode: String,
}

/// What rights the helper cannot do without, each more than those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rights {
    /// CAP_NET_ADMIN as an ordinary user: nftables and routes.
    NetAdmin,
    /// uid 0 with CAP_NET_ADMIN, CAP_NET_RAW and CAP_CHOWN: hosts.deny and the iptables programs.
    Root,
    /// The uid and all rights of the start, and programs may gain more: the administrator's own commands may do whatever
    /// root may.
    Commands,
}

/// The longest block, whatever the configuration or an operator asks for: 365 days, in seconds.
pub const LONGEST_BLOCK: u32 = 365 * 24 * 3600;

/// The highest BLOCK_LIMIT, and what the helper grants a minute to sources that may be forged, whatever the sensor asks.
pub const BLOCKS_A_MINUTE: u32 = 2_400;

/// The highest MAX_BLOCKS.
pub const MOST_BLOCKS: u32 = 1 << 20;

/// Longest settings document, bytes: whatever was accepted of a configuration and an ignore file of a mebibyte each fits in. A
/// byte of them becomes three at most, where `::` and a comma are `"::/128",` here.
pub const MAX_SETTINGS: u32 = 8 << 20;

/// Why settings were not sent or not accepted.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The pipe was closed before the first byte: the sensor gave its start up.
    #[error("the sensor closed the pipe before sending any settings")]
    Absent,
    /// The pipe failed or ended within the document.
    #[error("the settings could not be passed over the pipe: {0}")]
    Pipe(#[source] io::Error),
    /// The document is longer than [`MAX_SETTINGS`].
    #[error("settings of {0} bytes, more than {MAX_SETTINGS}: shorten the never-block list", MAX_SETTINGS = MAX_SETTINGS)]
    TooLong(u64),
    /// The document is not of our form.
    #[error("the settings are not in the form of this build: {0}")]
    Form(#[source] serde_json::Error),
    /// A value has no meaning.
    #[error("the settings hold a meaningless {0}")]
    Value(&'static str),
}

impl Settings {
    /// Writes the document with its length (u32, big-endian) before it. Blocks until the reader has taken it.
    pub fn write_to(&self, pipe: &mut impl Write) -> Result<(), SettingsError> {
        let text = serde_json::to_vec(self).map_err(SettingsError::Form)?;
        let length = u32::try_from(text.len()).ok().filter(|&length| length <= MAX_SETTINGS);
        let length = length.ok_or(SettingsError::TooLong(text.len() as u64))?;
        pipe.write_all(&length.to_be_bytes())
            .and_then(|()| pipe.write_all(&text))
            .map_err(SettingsError::Pipe)
    }

    /// Reads one document, blocking, and takes not a byte more.
    pub fn read_from(pipe: &mut impl Read) -> Result<Settings, SettingsError> {
        let mut length = [0; 4];
        if pipe.read(&mut length[..1]).map_err(SettingsError::Pipe)? == 0 {
            return Err(SettingsError::Absent);
        }
        pipe.read_exact(&mut length[1..]).map_err(SettingsError::Pipe)?;
        let length = u32::from_be_bytes(length);
        if length > MAX_SETTINGS {
            return Err(SettingsError::TooLong(length.into()));
        }
        let mut text = vec![0; length as usize];
        pipe.read_exact(&mut text).map_err(SettingsError::Pipe)?;
        serde_json::from_slice::<Settings>(&text).map_err(SettingsError::Form)?.checked()
    }

    /// What the responses need. Folders and files: that of `custom.hosts_deny_file`; programs: everything on
    /// [`PATH`](super::wording::PATH) and whatever those run.
    pub fn rights(&self) -> Rights {
        let needs = |response: &Response| match response {
            Response::Nftables | Response::Route => Rights::NetAdmin,
            Response::Iptables | Response::HostsDeny => Rights::Root,
            Response::Command | Response::RunCommand => Rights::Commands,
        };
        self.block_with.iter().map(needs).max().unwrap_or(Rights::NetAdmin)
    }

    /// Whether the helper runs programs, which inherit its confinement.
    pub fn runs_programs(&self) -> bool {
        self.block_with.iter().any(|response| match response {
            Response::Nftables | Response::Route | Response::HostsDeny => false,
            Response::Iptables | Response::Command | Response::RunCommand => true,
        })
    }

    fn checked(self) -> Result<Settings, SettingsError> {
        match &self {
            Settings { block_time: 0, .. } => Err(SettingsError::Value("block_time of 0 seconds")),
            Settings { block_time_factor: 0, .. } => Err(SettingsError::Value("block_time_factor of 0")),
            Settings { max_blocks, .. } if !(1..=MOST_BLOCKS).contains(max_blocks) => {
                Err(SettingsError::Value("max_blocks"))
            }
            Settings { block_with, .. } if block_with.is_empty() || repeats(block_with) => {
                Err(SettingsError::Value("block_with: at least one response, each once"))
            }
            Settings { block_with, custom, .. } if lacks_text(block_with, custom) => {
                Err(SettingsError::Value("block_with: a response without its text"))
            }
            Settings { tripwire: Some(terms), .. } if !terms.are_sound() => {
                Err(SettingsError::Value("tripwire: its limit or the name of an interface"))
            }
            Settings { state_dir, .. } if !state_dir.is_absolute() => {
                Err(SettingsError::Value("state_dir: its path must be absolute"))
            }
            Settings { .. } => Ok(self),
        }
    }
}

fn repeats(responses: &[Response]) -> bool {
    responses.iter().copied().collect::<Responses>().iter().count() < responses.len()
}

fn lacks_text(responses: &[Response], custom: &Custom) -> bool {
    responses.iter().any(|response| match response {
        Response::Nftables | Response::Iptables | Response::Route => false,
        Response::HostsDeny => custom.hosts_deny.is_none() || !custom.hosts_deny_file.is_absolute(),
        Response::Command => custom.kill_route.is_none(),
        Response::RunCommand => custom.kill_run_cmd.is_none(),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn settings() -> Settings {
        Settings {
            never_block: vec!["10.0.0.0/8".parse().unwrap(), "2001:db8::/32".parse().unwrap()],
            block_with: vec![Response::Nftables],
            block_time: 3600,
            block_time_max: 86_400,
            block_time_factor: 2,
            max_blocks: 32_768,
            state_dir: "/var/lib/portsentry-rs".into(),
            flush_on_stop: false,
            run_as: Some((65534, 65534)),
            sandbox: Sandbox::Strict,
            sandbox_log: false,
            blocked_file: None,
            tripwire: Some(Terms { interfaces: vec!["eth0".to_owned()], per_minute: 120 }),
            custom: Custom::default(),
        }
    }

    fn sent(settings: &Settings) -> Vec<u8> {
        let mut bytes = Vec::new();
        settings.write_to(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn settings_survive_the_pipe_and_leave_the_next_byte_there() {
        let mut bytes = sent(&settings());
        bytes.push(7);
        let mut pipe = bytes.as_slice();
        assert_eq!(Settings::read_from(&mut pipe).unwrap(), settings());
        assert_eq!(pipe, [7]);
    }

    #[test]
    fn a_length_over_the_bound_is_refused_before_anything_is_read() {
        let error = Settings::read_from(&mut [0xff_u8, 0xff, 0xff, 0xff].as_slice()).unwrap_err();
        assert!(matches!(error, SettingsError::TooLong(_)));
    }

    #[test]
    fn no_response_gets_more_rights_than_it_takes_and_several_those_of_the_greediest() {
        use Response::{Command, HostsDeny, Iptables, Nftables, Route, RunCommand};
        let rights = |with: &[Response]| Settings { block_with: with.to_vec(), ..settings() }.rights();
        assert_eq!([&[Nftables][..], &[Route]].map(rights), [Rights::NetAdmin; 2]);
        assert_eq!([&[Iptables][..], &[HostsDeny], &[HostsDeny, Nftables]].map(rights), [Rights::Root; 3]);
        assert_eq!([&[Command][..], &[RunCommand], &[Iptables, Command]].map(rights), [Rights::Commands; 3]);
    }

    #[test]
    fn settings_that_end_early_are_refused() {
        let bytes = sent(&settings());
        for length in 1..bytes.len() {
            assert!(matches!(Settings::read_from(&mut &bytes[..length]), Err(SettingsError::Pipe(_))));
        }
        assert!(matches!(Settings::read_from(&mut [].as_slice()), Err(SettingsError::Absent)));
    }

    #[test]
    fn meaningless_values_are_refused() {
        for wrong in [
            Settings { block_time: 0, ..settings() },
            Settings { block_with: vec![], ..settings() },
            Settings { tripwire: Some(Terms { interfaces: vec![], per_minute: 0 }), ..settings() },
            Settings { tripwire: Some(Terms { interfaces: vec![], per_minute: 1_201 }), ..settings() },
            Settings {
                tripwire: Some(Terms { interfaces: vec!["x".repeat(16)], per_minute: 1 }),
                ..settings()
            },
            Settings {
                tripwire: Some(Terms { interfaces: vec!["eth0\0".to_owned()], per_minute: 1 }),
                ..settings()
            },
            Settings {
                block_with: vec![Response::HostsDeny],
                custom: Custom {
                    hosts_deny: Some("ALL: $TARGET$".to_owned()),
                    hosts_deny_file: "hosts.deny".into(),
                    ..Custom::default()
                },
                ..settings()
            },
            Settings { block_with: vec![Response::Route, Response::Route], ..settings() },
            Settings { block_with: vec![Response::Command], ..settings() },
            Settings { block_time_factor: 0, ..settings() },
            Settings { max_blocks: 0, ..settings() },
            Settings { max_blocks: MOST_BLOCKS + 1, ..settings() },
            Settings { state_dir: "state".into(), ..settings() },
        ] {
            assert!(matches!(
                Settings::read_from(&mut sent(&wrong).as_slice()),
                Err(SettingsError::Value(_))
            ));
        }
    }

    proptest! {
        #[test]
        fn any_document_is_settings_or_an_error(text in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut bytes = u32::try_from(text.len()).unwrap().to_be_bytes().to_vec();
            bytes.extend(text);
            let _ = Settings::read_from(&mut bytes.as_slice());
        }
    }
}
