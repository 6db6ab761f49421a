//! What the configuration means to each part: rights, the helper's settings, the watch. Pure; `replay` and a reload ask
//! here too, so that none of them reads a key in a way of its own.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::time::Duration;

use super::traps;
use crate::config::{BothPorts, Config, FOREVER, Loaded, Mode};
use crate::detect::policy::Watch;
use crate::detect::table::Vantage;
use crate::detect::walk::Walk;
use crate::event::emitter::Form;
use crate::networks::Networks;
use crate::protocol::Settings;
use crate::protocol::settings::{Custom, Rights};
use crate::sandbox::Capability;
use crate::sandbox::identity::Identity;

/// The rights that this configuration takes. Ports below 1024 need one of their own.
pub fn needs(config: &Config) -> Vec<Capability> {
    let mut needs = vec![Capability::CAP_NET_ADMIN];
    if config.flags.mode == Mode::Stealth {
        needs.push(Capability::CAP_NET_RAW);
    }
    if config.bound_ports().iter().any(|(_, port)| port < 1024) {
        needs.push(Capability::CAP_NET_BIND_SERVICE);
    }
    needs
}

/// Whom the helper ends as: responses by files and programs keep it root.
pub fn helper_user(settings: &Settings, identity: Identity) -> Identity {
    match settings.rights() {
        Rights::NetAdmin => identity,
        Rights::Root | Rights::Commands => Identity { uid: 0, gid: 0 },
    }
}

/// What the helper goes by, for as long as it lives.
pub fn settings(config: &Config, never_block: Vec<ipnet::IpNet>, identity: Identity) -> Settings {
    Settings {
        never_block,
        block_with: config.block_with.clone(),
        block_time: config.block_time,
        block_time_max: config.block_time_max,
        block_time_factor: config.block_time_factor,
        max_blocks: config.max_blocks,
        state_dir: config.state_dir.clone(),
        flush_on_stop: config.flush_on_stop,
        run_as: Some((identity.uid, identity.gid)),
        sandbox: config.sandbox,
        sandbox_log: config.sandbox_log,
        blocked_file: config.blocked_file.clone(),
        tripwire: traps::terms(config),
        custom: custom(config),
    }
}

/// The administrator's own texts: the helper acts on them, and the log quotes them.
pub fn custom(config: &Config) -> Custom {
    Custom {
        kill_route: config.kill_route.clone(),
        kill_run_cmd: config.kill_run_cmd.clone(),
        unblock_cmd: config.unblock_cmd.clone(),
        hosts_deny: config.kill_hosts_deny.clone(),
        hosts_deny_file: config.hosts_deny_file.clone(),
        command_timeout: config.command_timeout,
        mode: config.flags.mode.name().to_owned(),
    }
}

/// Decoys are watched ports too: who knocks there is a stranger as well.
pub fn watch(config: &Config, decoys: &BothPorts) -> Watch {
    Watch {
        tcp_ports: config.tcp_ports.union(&decoys.tcp),
        udp_ports: config.udp_ports.union(&decoys.udp),
        scan_trigger: config.scan_trigger,
        ipv6_prefix: config.ipv6_prefix,
        one_by_one: Networks::default(),
        vantage: Vantage::Host,
        walk: Walk::new(config.sensitivity),
        block_tcp: config.block_tcp,
        block_udp: config.block_udp,
    }
}

/// `-v`: the ignore file and what stands in it.
pub fn told_ignored(loaded: &Loaded) -> Option<(PathBuf, Networks)> {
    let path = loaded.config.ignore_file.clone().filter(|_| loaded.config.flags.verbose);
    path.map(|path| (path, loaded.ignored.iter().copied().collect()))
}

/// `None`, for ever, where SCORE_WINDOW is.
pub fn half_life(config: &Config) -> Option<Duration> {
    (config.score_window != FOREVER).then(|| Duration::from_secs(config.score_window.into()))
}

/// Classic text and the history file promise a line for every probe of a watched port.
pub fn tells_all(config: &Config, form: Form) -> bool {
    config.history_file.is_some() || form == Form::Classic
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Overrides, load};
    use crate::sensor::never_block;

    /// The longest file that is read, bytes.
    const LONGEST_FILE: usize = 1 << 20;

    /// `unit` over and over, between `before` and `after`, as a file of the greatest length.
    fn filled(before: &str, unit: &str, after: &str) -> String {
        let room = LONGEST_FILE - before.len() - after.len();
        let text = format!("{before}{}{after}", unit.repeat(room / unit.len()));
        format!("{text}{}", "\n".repeat(LONGEST_FILE - text.len()))
    }

    #[test]
    fn whatever_is_accepted_of_the_files_the_helper_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let (conf, ignore) = (folder.path().join("conf"), folder.path().join("ignore"));
        // Three bytes of a file become nine, `"::/128",`; one of a command two, `\\\\`.
        std::fs::write(&ignore, filled("", "::\n", "")).unwrap();
        let keys = format!("TCP_PORTS=1\nIGNORE_FILE={}\n", ignore.display());
        let networks = filled(&format!("{keys}NEVER_BLOCK=\""), "::,", "::\"");
        let command = filled(&format!("{keys}BLOCK_WITH=command\nKILL_ROUTE=\"true $TARGET$ "), "\\\\", "\"");
        for text in [networks, command] {
            std::fs::write(&conf, &text).unwrap();
            let loaded = load(&conf, &Overrides::default()).unwrap();
            let never = never_block::configured(&loaded, &[]);
            let sent = settings(&loaded.config, never, Identity { uid: 1, gid: 1 });
            let mut pipe = Vec::new();
            sent.write_to(&mut pipe).unwrap();
            assert_eq!(Settings::read_from(&mut pipe.as_slice()).unwrap(), sent);
        }
        std::fs::write(&ignore, "\n".repeat(LONGEST_FILE + 1)).unwrap();
        assert!(load(&conf, &Overrides::default()).is_err(), "longer files are read");
    }
}
