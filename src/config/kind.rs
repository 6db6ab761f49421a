//! The kinds of value: how the text of each is read, what is allowed, and where the result goes in [`Config`].
//!
//! Pure. The kinds of a key are chosen in `keys`; no key is named here.
#![forbid(unsafe_code)]

use std::ops::RangeInclusive;
use std::path::PathBuf;

use ipnet::IpNet;

use super::duration::parse_duration;
use super::error::Fault;
use super::list::items;
use super::networks::parse_networks;
use super::{BlockMode, Config, Interfaces, LogFormat, PortSet};
use crate::detect::weights::Sensitivity;
use crate::protocol::settings::{Response, Sandbox};

/// A kind of value, together with the place in [`Config`] it is written to.
#[derive(Clone, Debug)]
pub enum Kind {
    /// `1,7,20-25`.
    Ports(fn(&mut Config, PortSet)),
    /// The absolute path of a file or folder: `-D` and the service manager leave the folder we were started in.
    Path(fn(&mut Config, PathBuf)),
    /// The absolute path of a unix socket, which the kernel limits to 107 bytes (unix(7)).
    Socket(fn(&mut Config, PathBuf)),
    /// 0 or 1.
    Switch(fn(&mut Config, bool)),
    /// 0, 1 or 2.
    Mode(fn(&mut Config, BlockMode)),
    /// A whole number in a range.
    Number(RangeInclusive<u32>, fn(&mut Config, u32)),
    /// A length of time, stored in seconds.
    Duration(fn(&mut Config, u32)),
    /// Any text, kept as it is.
    Text(fn(&mut Config, String)),
    /// Any text with `$TARGET$` in it.
    Target(fn(&mut Config, String)),
    /// Interfaces by name, or one of ALL, ALL_NLO, any.
    Interfaces(fn(&mut Config, Interfaces)),
    /// Ways to block, in order.
    Responses(fn(&mut Config, Vec<Response>)),
    /// Addresses and networks.
    Networks(fn(&mut Config, Vec<IpNet>)),
    /// off, low, medium or high.
    Sensitivity(fn(&mut Config, Sensitivity)),
    /// auto, json or classic.
    Format(fn(&mut Config, LogFormat)),
    /// A user's name or uid:gid.
    User(fn(&mut Config, String)),
    /// strict, best-effort or off.
    Confinement(fn(&mut Config, Sandbox)),
}

impl Kind {
    /// Reads `text` and writes the result into `config`; on a fault `config` stays as it was.
    pub fn set(&self, config: &mut Config, text: &str) -> Result<(), Fault> {
        let word = text.trim();
        let expected = || self.allowed();
        let result = match self {
            Kind::Ports(set) => return PortSet::parse(text).map(|ports| set(config, ports)),
            Kind::Duration(set) => return parse_duration(text).map(|seconds| set(config, seconds)),
            Kind::Interfaces(set) => return interfaces(text).map(|interfaces| set(config, interfaces)),
            Kind::Responses(set) => return responses(text).map(|responses| set(config, responses)),
            Kind::Networks(set) => return parse_networks(text).map(|networks| set(config, networks)),
            Kind::Target(set) => return target(text).map(|text| set(config, text)),
            Kind::Text(set) => {
                set(config, text.into());
                return Ok(());
            }
            Kind::Path(set) => path(word, 4_095).map(|path| set(config, path)),
            Kind::Socket(set) => path(word, 107).map(|path| set(config, path)),
            Kind::Switch(set) => one_of(word, SWITCHES, expected).map(|on| set(config, on)),
            Kind::Mode(set) => one_of(word, MODES, || MODES_MEANT.into()).map(|mode| set(config, mode)),
            Kind::Number(range, set) => number(word, range).map(|number| set(config, number)),
            Kind::Sensitivity(set) => one_of(word, LEVELS, expected).map(|level| set(config, level)),
            Kind::Format(set) => one_of(word, FORMATS, expected).map(|format| set(config, format)),
            Kind::User(set) => user(word).map(|user| set(config, user)),
            Kind::Confinement(set) => one_of(word, SANDBOXES, expected).map(|sandbox| set(config, sandbox)),
        };
        result.map_err(|fault| fault.shifted(text.len() - text.trim_start().len()))
    }

    /// What is allowed, in a few words: `0, 1 or 2`.
    pub fn allowed(&self) -> String {
        match self {
            Kind::Ports(_) => "ports and ranges like 1,7,20-25".into(),
            Kind::Path(_) => "a path from / on".into(),
            Kind::Socket(_) => "a path from / on, of at most 107 bytes".into(),
            Kind::Switch(_) => "0 or 1".into(),
            Kind::Mode(_) => "0, 1 or 2".into(),
            Kind::Number(range, _) => format!("a number from {} to {}", range.start(), range.end()),
            Kind::Duration(_) => {
                "a time like 30s, 10m, 1h, 7d, 2w; seconds without a unit; -1 for ever".into()
            }
            Kind::Text(_) => "text".into(),
            Kind::Target(_) => "text with $TARGET$ in it".into(),
            Kind::Interfaces(_) => "interface names, or one of ALL, ALL_NLO, any".into(),
            Kind::Responses(_) => RESPONSES.into(),
            Kind::Networks(_) => "addresses and networks like 192.0.2.1, 2001:db8::/32".into(),
            Kind::Sensitivity(_) => "low, medium, high or off".into(),
            Kind::Format(_) => "auto, json or classic".into(),
            Kind::User(_) => "a user's name or uid:gid".into(),
            Kind::Confinement(_) => "strict, best-effort or off".into(),
        }
    }
}

fn wrong(text: &str, expected: &str) -> Fault {
    Fault::new(0, format!("`{text}` is not allowed here; expected {expected}"))
}

/// Longer paths than the kernel takes (PATH_MAX, sun_path) would fail at start, or worse, be cut.
fn path(text: &str, longest: usize) -> Result<PathBuf, Fault> {
    match text.len() <= longest {
        true if text.starts_with('/') => Ok(PathBuf::from(text)),
        true => Err(wrong(text, "the whole path, from / on")),
        false => Err(Fault::new(
            0,
            format!("this path is {} bytes long; at most {longest} can be used", text.len()),
        )),
    }
}

const SWITCHES: &[(&str, bool)] = &[("0", false), ("1", true)];
const MODES: &[(&str, BlockMode)] =
    &[("0", BlockMode::Log), ("1", BlockMode::Block), ("2", BlockMode::RunCommand)];
const MODES_MEANT: &str = "0 (log only), 1 (block) or 2 (run KILL_RUN_CMD only)";
const LEVELS: &[(&str, Sensitivity)] = &[
    (Sensitivity::Off.name(), Sensitivity::Off),
    (Sensitivity::Low.name(), Sensitivity::Low),
    (Sensitivity::Medium.name(), Sensitivity::Medium),
    (Sensitivity::High.name(), Sensitivity::High),
];
const FORMATS: &[(&str, LogFormat)] =
    &[("auto", LogFormat::Auto), ("json", LogFormat::Json), ("classic", LogFormat::Classic)];
const SANDBOXES: &[(&str, Sandbox)] =
    &[("strict", Sandbox::Strict), ("best-effort", Sandbox::BestEffort), ("off", Sandbox::Off)];

fn one_of<T: Copy>(text: &str, values: &[(&str, T)], expected: impl Fn() -> String) -> Result<T, Fault> {
    let meant = values.iter().find(|(word, _)| *word == text).map(|&(_, value)| value);
    meant.ok_or_else(|| wrong(text, &expected()))
}

fn number(text: &str, range: &RangeInclusive<u32>) -> Result<u32, Fault> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|number| digits && range.contains(number));
    number.ok_or_else(|| wrong(text, &format!("a number from {} to {}", range.start(), range.end())))
}

fn target(text: &str) -> Result<String, Fault> {
    match text.contains("$TARGET$") {
        true => Ok(text.into()),
        false => Err(Fault::new(0, "$TARGET$ is missing; it stands for the address of the scanner")),
    }
}

fn user(text: &str) -> Result<String, Fault> {
    let id = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u32>().is_ok();
    let letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '$');
    let named = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && text.chars().all(letter);
    match named || text.split_once(':').is_some_and(|(uid, gid)| id(uid) && id(gid)) {
        true => Ok(text.into()),
        false => Err(wrong(text, "a user's name or uid:gid in numbers")),
    }
}

const RESPONSES: &str = "nftables, iptables, route, hosts_deny, command, or several with commas between them";

fn responses(text: &str) -> Result<Vec<Response>, Fault> {
    let mut out = Vec::new();
    for (at, item) in items(text, &[',', ' ', '\t']) {
        // KILL_RUN_CMD blocks nobody: its key alone asks for it.
        let named = Response::ALL.into_iter().find(|response| response.blocks() && response.name() == item);
        let response = named.ok_or_else(|| wrong(item, RESPONSES).shifted(at))?;
        if !out.contains(&response) {
            out.push(response);
        }
    }
    Ok(out)
}

fn interfaces(text: &str) -> Result<Interfaces, Fault> {
    let mut names: Vec<String> = Vec::new();
    for (at, item) in items(text, &[',', ' ', '\t']) {
        let alone = items(text, &[',', ' ', '\t']).all(|(_, other)| other == item);
        match (item, alone) {
            ("ALL" | "any", true) => return Ok(Interfaces::All),
            ("ALL_NLO", true) => return Ok(Interfaces::AllButLoopback),
            ("ALL" | "any" | "ALL_NLO", false) => {
                return Err(Fault::new(at, format!("{item} stands alone; take out the other interfaces")));
            }
            _ if !is_interface_name(item) => return Err(wrong(item, "the name of an interface").shifted(at)),
            _ if !names.iter().any(|name| name == item) => names.push(item.into()),
            _ => {}
        }
    }
    match names.is_empty() {
        true => Err(wrong(text, "the name of an interface")),
        false => Ok(Interfaces::Named(names)),
    }
}

/// The kernel's own rule (`dev_valid_name` in net/core/dev.c; IFNAMSIZ is 16 with the final NUL), less control
/// characters, which it allows and which have no place in an event.
fn is_interface_name(name: &str) -> bool {
    let printable = !name.contains(|c: char| c.is_control() || c.is_whitespace());
    printable && name.len() <= 15 && !matches!(name, "." | "..") && !name.contains(['/', ':'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_are_names_or_one_word_for_all() {
        let named = |names: &[&str]| Interfaces::Named(names.iter().map(ToString::to_string).collect());
        assert_eq!(interfaces("any"), Ok(Interfaces::All));
        assert_eq!(interfaces(" ALL "), Ok(Interfaces::All));
        assert_eq!(interfaces("ALL,ALL"), Ok(Interfaces::All));
        assert_eq!(interfaces("ALL_NLO"), Ok(Interfaces::AllButLoopback));
        assert_eq!(interfaces("eth0, eth1 eth0"), Ok(named(&["eth0", "eth1"])));
        for (text, offset) in [("eth0,ALL", 5), ("eth0,a-name-too-long-", 5), ("a/b", 0), (",", 0)] {
            assert_eq!(interfaces(text).unwrap_err().offset, offset, "{text}");
        }
    }

    #[test]
    fn numbers_outside_their_range_are_refused_with_the_range() {
        assert_eq!(number("7", &(0..=9)), Ok(7));
        for text in ["10", "-1", "+1", "1.5", "x", "99999999999"] {
            assert!(number(text, &(0..=9)).unwrap_err().message.contains("0 to 9"), "{text}");
        }
    }

    #[test]
    fn users_are_names_or_pairs_of_numbers() {
        for good in ["nobody", "_portsentry", "svc-a.b", "0:0", "65534:65534"] {
            assert!(user(good).is_ok(), "{good}");
        }
        for bad in ["1000", "a b", "1:", "a:b", "-x", "4294967296:1"] {
            assert!(user(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_path_that_the_kernel_would_cut_or_that_depends_on_where_we_are_is_refused() {
        assert!(path(&"/".repeat(107), 107).is_ok());
        assert!(path(&"/".repeat(108), 107).unwrap_err().message.contains("108 bytes"));
        for relative in ["state", "./state", "~/state", "var/lib/x"] {
            assert!(path(relative, 107).unwrap_err().message.contains("from / on"), "{relative}");
        }
    }
}
