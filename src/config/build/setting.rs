//! Which text of a key counts: the command line's or the environment's, the file's last, or the default.
//!
//! Pure. A line of the file that a later one makes void must never be passed over without a word.
#![forbid(unsafe_code)]

use crate::config::error::{ConfigError, Origin, Position};
use crate::config::keys::{KEYS, Key};
use crate::config::parse::Assignment;
use crate::config::{Config, Flags};

/// The text in force for one key.
#[derive(Clone, Debug)]
pub struct Setting {
    /// Which key.
    pub key: &'static Key,
    /// Its text; empty means not set.
    pub text: String,
    /// Where the text comes from.
    pub origin: Origin,
}

/// A key's text from elsewhere than the file. It wins over the file.
#[derive(Clone, Debug)]
pub struct Override {
    /// The key's name.
    pub key: &'static str,
    /// Its text.
    pub text: String,
    /// The flag or variable that it came by.
    pub origin: Origin,
}

/// What the command line and the environment say.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// Flags and variables that set a key.
    pub settings: Vec<Override>,
    /// Flags that have no key.
    pub flags: Flags,
}

/// The last one that counts: command line or environment, then the file's last line, then the default.
pub(super) fn setting(
    key: &'static Key,
    name: &str,
    found: &[Assignment<'_>],
    overrides: &Overrides,
) -> Setting {
    let is_set = |text: &str| !text.trim().is_empty();
    let outside = overrides.settings.iter().rev().find(|o| o.key == key.name && is_set(&o.text));
    let inside = found.iter().rev().find(|a| a.key == key.name).filter(|a| is_set(a.value));
    let (text, origin) = match (outside, inside) {
        (Some(o), _) => (o.text.clone(), o.origin.clone()),
        (None, Some(a)) => (a.value.into(), Origin::File(name.into(), a.value_at)),
        (None, None) => (key.default.into(), Origin::Default),
    };
    Setting { key, text, origin }
}

pub(super) fn apply(setting: &Setting, config: &mut Config) -> Option<ConfigError> {
    if setting.text.is_empty() {
        return None;
    }
    let fault = setting.key.kind.set(config, &setting.text).err()?;
    let origin = setting.origin.advanced(&setting.text, fault.offset);
    Some(ConfigError::new(origin, format!("{}: {}", setting.key.name, fault.message)))
}

/// Lines that a later one makes void.
pub(super) fn repeated(found: &[Assignment<'_>]) -> Vec<(Position, String)> {
    let void = |key: &Key| {
        let mut all: Vec<&Assignment<'_>> = found.iter().filter(|a| a.key == key.name).collect();
        let last = all.pop().map_or(0, |last| last.key_at.line);
        let message = format!("{} is set again in line {last}, and that one counts", key.name);
        all.into_iter().map(move |a| (a.key_at, message.clone())).collect::<Vec<_>>()
    };
    KEYS.iter().flat_map(void).collect()
}

/// Text after a value that is no comment: PortSentry skips it, and so do we, but not without a word.
pub(super) fn skipped<'a>(found: &'a [Assignment<'a>]) -> impl Iterator<Item = (Position, String)> + 'a {
    let message = |key: &str| format!("{key} ends at its closing quote; what stands after it is skipped");
    found.iter().filter_map(move |a| a.skipped_at.map(|at| (at, message(a.key))))
}

#[cfg(test)]
mod tests {
    use crate::config::build::tests::{bad, good};
    use crate::config::error::Origin;
    use crate::config::{Interfaces, LogFormat, Override, Overrides, parse};

    #[test]
    fn the_last_duplicate_wins_and_the_others_are_warned_of() {
        let loaded = good("TCP_PORTS=\"bad\"\nTCP_PORTS=\"7\"\n");
        assert_eq!(loaded.config.tcp_ports.to_string(), "7");
        assert_eq!(loaded.warnings.len(), 1);
        assert!(loaded.warnings[0].to_string().starts_with("conf:1:1: TCP_PORTS is set again in line 2"));
        assert!(
            bad("TCP_PORTS=\"7\"\nTCP_PORTS=\"\"")[0].contains("no port to watch"),
            "emptied by the last one"
        );
    }

    #[test]
    fn an_empty_value_means_not_set() {
        let loaded = good("TCP_PORTS=\"1\"\nBLOCK_TIME=\"\"\nIGNORE_FILE=\"\"\nPORT_BANNER=\"\"");
        assert_eq!(loaded.config.block_time, 3_600);
        assert_eq!((loaded.config.ignore_file, loaded.config.port_banner), (None, None));
    }

    #[test]
    fn the_command_line_and_the_environment_win_over_the_file() {
        let set = |key, text: &str, origin| Override { key, text: text.into(), origin };
        let mut overrides = Overrides::default();
        overrides.settings.push(set("INTERFACES", "eth0,lo", Origin::CommandLine("-i")));
        overrides.settings.push(set("LOG_FORMAT", "classic", Origin::Environment("PORTSENTRY_LOG_FORMAT")));
        let text = b"TCP_PORTS=1\nINTERFACES=any\nLOG_FORMAT=json";
        let loaded = parse("conf", text, &overrides).unwrap();
        assert_eq!(loaded.config.interfaces, Interfaces::Named(vec!["eth0".into(), "lo".into()]));
        assert_eq!(loaded.config.log_format, LogFormat::Classic);
        assert_eq!(loaded.origin("INTERFACES").to_string(), "command line -i");
        overrides.settings[1].text = "xml".into();
        let errors = parse("conf", text, &overrides).unwrap_err();
        assert!(errors[0].to_string().starts_with("environment PORTSENTRY_LOG_FORMAT: LOG_FORMAT: `xml`"));
        overrides.settings[1].text = String::new();
        assert_eq!(parse("conf", text, &overrides).unwrap().config.log_format, LogFormat::Json);
    }
}
