//! SIGHUP: the configuration and the ignore file are read again. What needs rights that are gone is named, not done.
//!
//! Main thread, within the cage. A configuration with an error changes nothing.
#![forbid(unsafe_code)]

use std::collections::HashSet;

use ipnet::IpNet;

use super::clock::Now;
use super::event_loop::EventLoop;
use super::terms;
use crate::config::{BlockMode, ConfigError, Loaded, Mode};
use crate::detect::policy::Watch;

/// Keys that take effect at once, beside BLOCK_TCP and BLOCK_UDP.
const AT_ONCE: [&str; 5] = ["SCAN_TRIGGER", "SENSITIVITY", "IPV6_PREFIX", "NEVER_BLOCK", "IGNORE_FILE"];
/// Likewise where packets are watched: under `--connect` these are bound, and binding takes rights.
const PORTS: [&str; 6] = [
    "TCP_PORTS",
    "UDP_PORTS",
    "ADVANCED_PORTS_TCP",
    "ADVANCED_PORTS_UDP",
    "ADVANCED_EXCLUDE_TCP",
    "ADVANCED_EXCLUDE_UDP",
];

impl EventLoop {
    /// Reads the configuration again and goes by it.
    pub(super) fn reload(&mut self, now: Now) {
        match self.loaded.reload() {
            Ok(loaded) => self.go_by(loaded, now),
            Err(errors) => self.reporter.answer(now, &refused(&errors)),
        }
    }

    fn go_by(&mut self, loaded: Loaded, now: Now) {
        let (loaded, waiting) = in_force(&self.loaded, loaded);
        waiting.told().for_each(|text| self.reporter.answer(now, &text));
        let new = added(self.loaded.never_block(), loaded.never_block());
        let watch = terms::watch(&loaded.config, &self.decoys.ports());
        let modes = |watch: &Watch| (watch.block_tcp, watch.block_udp);
        if modes(&watch) != modes(&self.responder.watch) {
            self.responder.end_silences();
        }
        self.responder.end_waits();
        if let Err(error) = self.host.go_by(&new, watch, &mut self.responder, &self.shared) {
            self.reporter.answer(now, &format!("the new ports are not watched: {error}"));
        }
        self.protections.ask(new, &self.responder.blocks.networks());
        self.responder.verbose_ignore = terms::told_ignored(&loaded);
        self.loaded = loaded;
        self.set_traps();
        self.reporter.reload(now, &self.loaded.config);
    }
}

/// What of a new configuration is in force only after a restart.
#[derive(Debug, Default, PartialEq, Eq)]
struct Waiting {
    /// Keys that were changed.
    keys: Vec<&'static str>,
    /// What is never blocked any more: a captured sensor must not be able to ask the helper for that.
    kept: Vec<IpNet>,
}

impl Waiting {
    fn told(&self) -> impl Iterator<Item = String> {
        let keys = || format!("changed, but in force only after a restart: {}", self.keys.join(", "));
        let kept = self.kept.first().map(|first| {
            let count = self.kept.len();
            format!("taken out of NEVER_BLOCK or the ignore file, but never blocked until a restart: {count}, first {first}")
        });
        (!self.keys.is_empty()).then(keys).into_iter().chain(kept)
    }
}

/// What is in `after` and not in `before`.
fn added(before: impl Iterator<Item = IpNet>, after: impl Iterator<Item = IpNet>) -> Vec<IpNet> {
    let before: HashSet<IpNet> = before.collect();
    let mut new = HashSet::new();
    after.filter(|network| !before.contains(network) && new.insert(*network)).collect()
}

/// What is in force from now on, and what waits for a restart. That stays what it was, so that each reload names it until
/// the restart comes.
fn in_force(old: &Loaded, mut new: Loaded) -> (Loaded, Waiting) {
    let keys = needs_restart(old, &new);
    let kept = added(new.never_block(), old.never_block());
    for (old, new) in old.settings.iter().zip(&mut new.settings) {
        if keys.contains(&new.key.name) {
            new.clone_from(old);
        }
    }
    let (was, config) = (&old.config, &mut new.config);
    config.never_block.extend(&kept);
    config.kill_run_cmd.clone_from(&was.kill_run_cmd);
    if keys.contains(&"BLOCK_TCP") {
        config.block_tcp = was.block_tcp;
    }
    if keys.contains(&"BLOCK_UDP") {
        config.block_udp = was.block_udp;
    }
    if config.flags.mode == Mode::Connect {
        config.tcp_ports.clone_from(&was.tcp_ports);
        config.udp_ports.clone_from(&was.udp_ports);
    }
    (new, Waiting { keys, kept })
}

fn needs_restart(old: &Loaded, new: &Loaded) -> Vec<&'static str> {
    let both = old.settings.iter().zip(&new.settings);
    let changed = both.filter(|(old, new)| old.text != new.text).map(|(_, new)| new.key.name);
    changed.filter(|key| !at_once(key, old, new)).collect()
}

/// The helper knows the KILL_RUN_CMD of the start: where there was none, 2 has nothing to run.
fn at_once(key: &str, old: &Loaded, new: &Loaded) -> bool {
    let can_run = |mode| mode != BlockMode::RunCommand || old.config.kill_run_cmd.is_some();
    match key {
        "BLOCK_TCP" => can_run(new.config.block_tcp),
        "BLOCK_UDP" => can_run(new.config.block_udp),
        key => AT_ONCE.contains(&key) || (new.config.flags.mode == Mode::Stealth && PORTS.contains(&key)),
    }
}

fn refused(errors: &[ConfigError]) -> String {
    let first = errors.first().map(ToString::to_string).unwrap_or_default();
    let more = match errors.len().saturating_sub(1) {
        0 => String::new(),
        1 => " (and one more error)".to_owned(),
        more => format!(" (and {more} more errors)"),
    };
    format!("the configuration was not read again, the old one stays in force: {first}{more}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Flags, Overrides, parse};

    fn loaded(text: &str, mode: Mode) -> Loaded {
        let flags = Flags { mode, ..Flags::default() };
        parse("a", text.as_bytes(), &Overrides { flags, ..Overrides::default() }).unwrap()
    }

    #[test]
    fn only_what_takes_rights_or_the_helper_needs_a_restart() {
        let text =
            "TCP_PORTS=\"1\"\nSCAN_TRIGGER=\"1\"\nRESOLVE_HOST=\"0\"\nWORKERS=\"1\"\nDECOY_TCP_PORTS=\"5\"";
        let changed =
            "TCP_PORTS=\"2\"\nSCAN_TRIGGER=\"2\"\nRESOLVE_HOST=\"1\"\nWORKERS=\"2\"\nDECOY_TCP_PORTS=\"6\"";
        for (mode, expected) in [
            (Mode::Stealth, vec!["DECOY_TCP_PORTS", "RESOLVE_HOST", "WORKERS"]),
            (Mode::Connect, vec!["TCP_PORTS", "DECOY_TCP_PORTS", "RESOLVE_HOST", "WORKERS"]),
        ] {
            assert_eq!(needs_restart(&loaded(text, mode), &loaded(changed, mode)), expected);
        }
    }

    #[test]
    fn what_waits_for_a_restart_is_named_until_it_comes_and_keeps_its_value() {
        let before = loaded("TCP_PORTS=1\nBLOCK_TCP=1\nBLOCK_UDP=1", Mode::Stealth);
        let changed = || loaded("TCP_PORTS=1\nBLOCK_TCP=2\nBLOCK_UDP=0\nKILL_RUN_CMD=x", Mode::Stealth);
        let keys = |old: &Loaded, new: Loaded| {
            let (after, waiting) = in_force(old, new);
            (after, waiting.keys)
        };
        let (after, waiting) = keys(&before, changed());
        assert_eq!(waiting, ["BLOCK_TCP", "KILL_RUN_CMD"], "the helper has no command to run");
        assert_eq!((after.config.block_tcp, after.config.block_udp), (BlockMode::Block, BlockMode::Log));
        let (after, waiting) = keys(&after, changed());
        assert_eq!(waiting, ["BLOCK_TCP", "KILL_RUN_CMD"]);
        assert_eq!(keys(&after, before.clone()).1, [""; 0]);
        let (after, waiting) = keys(&changed(), before);
        assert_eq!((after.config.block_tcp, waiting), (BlockMode::Block, vec!["KILL_RUN_CMD"]));
        assert_eq!(keys(&after, changed()).0.config.block_tcp, BlockMode::RunCommand);
    }
    #[test]
    fn what_is_taken_out_of_the_never_block_set_is_kept_and_named_until_a_restart() {
        let never = |list: &str| loaded(&format!("TCP_PORTS=1\nNEVER_BLOCK=\"{list}\""), Mode::Stealth);
        let (after, waiting) = in_force(&never("192.0.2.1 192.0.2.2"), never("192.0.2.2 192.0.2.3"));
        let kept: Vec<IpNet> = vec!["192.0.2.1/32".parse().unwrap()];
        assert_eq!((waiting.keys.len(), &waiting.kept), (0, &kept));
        let (after, waiting) = in_force(&after, never("192.0.2.2"));
        assert_eq!((waiting.kept.len(), after.never_block().count()), (2, 3), "as the helper has it");
        let (_, waiting) = in_force(&after, never("192.0.2.1 192.0.2.2 192.0.2.3"));
        assert_eq!(waiting, Waiting::default());
    }

    #[test]
    fn bound_ports_are_those_of_the_start() {
        let (after, waiting) =
            in_force(&loaded("TCP_PORTS=1", Mode::Connect), loaded("TCP_PORTS=2", Mode::Connect));
        assert_eq!((after.config.tcp_ports.to_string(), waiting.keys), ("1".to_owned(), vec!["TCP_PORTS"]));
    }
}
