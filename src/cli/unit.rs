//! What a configuration asks for that the systemd unit, as it is shipped, does not give: told by `check`, which is run by
//! hand and sees nothing of the unit's confinement.
//!
//! Changes nothing. What the unit's user may not read `check` tells anyhow. The unit, `config/portsentry-rs.service`, is the truth; tests/systemd_unit.rs
//! runs it.
#![forbid(unsafe_code)]

use std::path::Path;

use crate::config::{ConfigError, Loaded};
use crate::protocol::Response;

/// Where systemd is the first process (sd_booted(3)).
const SYSTEMD: &str = "/run/systemd/system";
/// Where the unit may write: its LogsDirectory, StateDirectory and RuntimeDirectory.
const WRITABLE: [&str; 3] = ["/var/log/portsentry-rs", "/var/lib/portsentry-rs", "/run/portsentry-rs"];
/// What PrivateTmp makes the unit's own.
const PRIVATE: [&str; 2] = ["/tmp", "/var/tmp"];

const HOW: &str = "share/portsentry-rs/docs/migrating.md, Under systemd";

/// What stands against a start by the unit on this machine; nothing where systemd does not run it.
pub fn notes(loaded: &Loaded) -> Vec<ConfigError> {
    if may_start_it() { all(loaded) } else { Vec::new() }
}

/// Whether there is a systemd whose unit may start the daemon, as the unit's User= and not as RUN_AS.
pub fn may_start_it() -> bool {
    Path::new(SYSTEMD).exists()
}

fn all(loaded: &Loaded) -> Vec<ConfigError> {
    let root_only = root_only(loaded);
    // With root, which these take, RUN_AS does what it says.
    let ignored = if root_only.is_empty() { without_root(loaded) } else { Vec::new() };
    [unwritten(loaded), root_only, ignored].concat()
}

fn unwritten(loaded: &Loaded) -> Vec<ConfigError> {
    let config = &loaded.config;
    let files = [
        ("HISTORY_FILE", config.history_file.as_deref()),
        ("BLOCKED_FILE", config.blocked_file.as_deref()),
        ("STATE_DIR", Some(&*config.state_dir)),
        ("CONTROL_SOCKET", Some(&*config.control_socket)),
    ];
    let files = files.into_iter().filter_map(|(key, path)| Some((key, path?)));
    let outside = files.filter(|(_, path)| !WRITABLE.iter().any(|folder| path.starts_with(folder)));
    let told = outside.map(|(key, path)| {
        let (text, path) = (why(path), path.display());
        ConfigError::new(loaded.origin(key), format!("{key}: {path} {text} ({HOW})"))
    });
    told.collect()
}

fn why(path: &Path) -> &'static str {
    if PRIVATE.iter().any(|folder| path.starts_with(folder)) {
        "lies in a folder of which the systemd unit has one of its own, that ends with it: move it to /var/log/portsentry-rs"
    } else {
        "is nothing that the systemd unit may write: move it to /var/log/portsentry-rs, or name its folder in ReadWritePaths= of a drop-in"
    }
}

fn root_only(loaded: &Loaded) -> Vec<ConfigError> {
    let config = &loaded.config;
    let uses = |response| config.block_with.contains(&response);
    let keys = [
        ("BLOCK_WITH", uses(Response::Iptables)),
        ("KILL_HOSTS_DENY", uses(Response::HostsDeny)),
        ("KILL_ROUTE", config.kill_route.is_some()),
        // Without KILL_ROUTE no new block runs it, and by itself it is given no root to run as.
        ("UNBLOCK_CMD", config.unblock_cmd.is_some() && uses(Response::Command)),
        ("KILL_RUN_CMD", config.kill_run_cmd.is_some()),
    ];
    let asked = keys.into_iter().filter(|(_, asked)| *asked).map(|(key, _)| {
        let text = format!(
            "{key}: needs root, which the systemd unit has only with the drop-in that its head shows ({HOW})"
        );
        ConfigError::new(loaded.origin(key), text)
    });
    asked.collect()
}

/// Who starts as an ordinary user stays that one.
fn without_root(loaded: &Loaded) -> Vec<ConfigError> {
    let text = format!(
        "RUN_AS: does nothing under the systemd unit, which starts the daemon as its User=; set User= and Group= in a drop-in ({HOW})"
    );
    let asked = loaded.config.run_as.as_ref();
    asked.map(|_| ConfigError::new(loaded.origin("RUN_AS"), text)).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Overrides, load};

    fn noted(lines: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("portsentry.conf");
        std::fs::write(&path, lines).unwrap();
        let loaded = load(&path, &Overrides::default()).unwrap();
        all(&loaded).iter().map(|note| format!("{note}\n")).collect()
    }

    #[test]
    fn what_the_unit_gives_is_not_mentioned() {
        let lines = "TCP_PORTS=\"1\"\nBLOCK_TCP=\"1\"\nBLOCK_WITH=\"nftables,route\"\nHISTORY_FILE=\"/var/log/portsentry-rs/history\"\n\
                     BLOCKED_FILE=\"/var/log/portsentry-rs/blocked\"\n";
        assert_eq!(noted(lines), "");
    }

    #[test]
    fn what_undoes_a_command_takes_root_only_beside_it() {
        let noted = |more: &str| {
            let route = format!("TCP_PORTS=\"1\"\nUNBLOCK_CMD=\"/bin/true $TARGET$\"\n{more}");
            noted(&route).contains("UNBLOCK_CMD: needs root")
        };
        assert!(!noted("") && noted("KILL_ROUTE=\"/bin/true $TARGET$\"\n"));
    }

    #[test]
    fn what_it_does_not_give_is_named_with_its_key() {
        let lines = "TCP_PORTS=\"1\"\nHISTORY_FILE=\"/var/log/portsentry.log\"\nBLOCKED_FILE=\"/tmp/portsentry.blocked\"\n\
                     KILL_ROUTE=\"/sbin/route add -host $TARGET$ reject\"\nKILL_HOSTS_DENY=\"ALL: $TARGET$\"\nRUN_AS=\"watch\"\n";
        let told = noted(lines);
        for words in [
            "HISTORY_FILE: /var/log/portsentry.log is nothing that the systemd unit may write",
            "BLOCKED_FILE: /tmp/portsentry.blocked lies in a folder of which",
            "KILL_ROUTE: needs root",
            "KILL_HOSTS_DENY: needs root",
        ] {
            assert!(told.contains(words), "{words:?} in {told}");
        }
        assert_eq!(told.lines().count(), 4, "{told}");
    }

    #[test]
    fn run_as_is_named_only_where_nothing_takes_root() {
        let named = |more: &str| {
            noted(&format!("TCP_PORTS=\"1\"\nRUN_AS=\"watch\"\n{more}"))
                .contains("RUN_AS: does nothing under the systemd unit")
        };
        assert!(named("") && !named("KILL_ROUTE=\"/sbin/route add -host $TARGET$ reject\"\n"));
    }
}
