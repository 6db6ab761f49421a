//! Why the helper ends, and with which exit code. Helper.
#![forbid(unsafe_code)]

use std::io;

use super::ledger::LedgerError;
use super::respond::Refusal;
use crate::protocol::FrameError;
use crate::protocol::channel::ChannelError;
use crate::protocol::settings::SettingsError;
use crate::sandbox::SandboxError;
use crate::stderr;

/// Why the helper ends other than by being asked to.
#[derive(Debug, thiserror::Error)]
pub enum HelperError {
    /// Not started by a sensor.
    #[error(
        "standard input and output are not a sensor's pipes: portsentry-rs starts this program itself, run that instead"
    )]
    NotSpawned,
    /// No settings.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// A frame that is not to be believed.
    #[error("the sensor broke the protocol and is no longer trusted: {0}")]
    Frame(#[from] FrameError),
    /// A frame that is not whole, or a broken pipe.
    #[error("the sensor broke the protocol and is no longer trusted: {0}")]
    Channel(#[from] ChannelError),
    /// End of file without `Stop`.
    #[error(
        "the sensor is gone; blocks stay in place; those that the kernel does not end by itself end at the next start"
    )]
    SensorGone,
    /// Replies are not read.
    #[error(
        "the sensor has not read a reply for {0} seconds; blocks stay in place; those that the kernel does not end by itself end at the next start"
    )]
    SensorStuck(u64),
    /// Two daemons, where there can be one.
    #[error(
        "another daemon is at work in {0}: its helper is {1}; stop it, or give this one a STATE_DIR and a network namespace of its own"
    )]
    NotAlone(&'static str, String),
    /// The ledger cannot be used.
    #[error("ledger: {0}")]
    Ledger(#[from] LedgerError),
    /// The table could not be put in place or kept right.
    #[error(transparent)]
    Respond(#[from] Refusal),
    /// The host's addresses and routes cannot be followed.
    #[error("cannot follow this host's addresses and routes: {0}; without them no block is safe")]
    Surroundings(#[source] io::Error),
    /// A right is missing, or could not be given up.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// Anything else that the system refused.
    #[error("cannot {0}: {1}")]
    System(&'static str, #[source] io::Error),
}

impl HelperError {
    /// 1 start-up or system error, 2 usage, 65 (EX_DATAERR of sysexits.h) protocol, 70 (EX_SOFTWARE) the sensor died.
    pub fn exit_code(&self) -> u8 {
        match self {
            HelperError::NotSpawned => 2,
            HelperError::Settings(SettingsError::Absent)
            | HelperError::SensorGone
            | HelperError::SensorStuck(_) => 70,
            HelperError::Settings(_) | HelperError::Frame(_) | HelperError::Channel(_) => 65,
            HelperError::NotAlone(..)
            | HelperError::Ledger(_)
            | HelperError::Respond(_)
            | HelperError::Surroundings(_)
            | HelperError::Sandbox(_)
            | HelperError::System(..) => 1,
        }
    }
}

/// Writes one line to the log, standard error, whatever `text` holds; a log that is gone or not read stops nothing.
pub fn log(text: &str) {
    let line: String = text.chars().flat_map(escaped).collect();
    stderr::say("portsentry-rs-helper", &line);
}

fn escaped(character: char) -> impl Iterator<Item = char> {
    let (plain, escape) = match character.is_control() {
        true => (None, Some(character.escape_default())),
        false => (Some(character), None),
    };
    plain.into_iter().chain(escape.into_iter().flatten())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_stays_a_line_whatever_it_quotes() {
        let line: String = "a\nb\u{1b}[0mé".chars().flat_map(escaped).collect();
        assert_eq!(line, "a\\nb\\u{1b}[0mé");
    }
}
