//! What a start would come upon where it makes its files, and among the interfaces: told by `check`, which looks as the
//! start does, and changes nothing.
//!
//! Warnings only: this machine as it is now is what is looked at, and a daemon that runs may well be told to read its
//! configuration again.
#![forbid(unsafe_code)]

use std::fmt::Display;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::unistd::geteuid;

use super::unit;
use crate::config::{Config, ConfigError, Loaded, Mode};
use crate::control::server;
use crate::event::history;
use crate::helper::blocked_file;
use crate::sandbox::identity::Identity;
use crate::sensor::{ring, state_dir};

/// What a start here would end at.
pub fn warnings(loaded: &Loaded) -> Vec<ConfigError> {
    let by_unit = geteuid().is_root() && unit::may_start_it();
    let told = found(&loaded.config, by_unit).into_iter();
    told.filter_map(|(key, text)| Some(ConfigError::new(loaded.origin(key), text?))).collect()
}

fn found(config: &Config, by_unit: bool) -> [(&'static str, Option<String>); 5] {
    let owner = Identity::resolve(config.run_as.as_deref()).ok().map(|it| it.uid);
    let history_file = config.history_file.as_deref();
    [
        ("HISTORY_FILE", history_file.and_then(history::obstacle).map(ends_a_start)),
        ("BLOCKED_FILE", config.blocked_file.as_deref().and_then(|path| unusable(path, owner, by_unit))),
        ("CONTROL_SOCKET", server::obstacle(&config.control_socket).map(ends_a_start)),
        ("STATE_DIR", state_dir::obstacle(&config.state_dir).map(ends_a_start)),
        ("INTERFACES", unknown_interface(config).map(ends_a_start)),
    ]
}

fn ends_a_start(why: impl Display) -> String {
    format!("{why}; as things are the daemon would not start here")
}

/// BLOCKED_FILE at `path`. A unit's daemon is its User= from the start, whom root cannot tell here, and RUN_AS, which
/// `owner` is, counts for nothing: the file may well be that user's, and what it holds is wanted.
fn unusable(path: &Path, owner: Option<u32>, by_unit: bool) -> Option<String> {
    let theirs = path.symlink_metadata().ok()?.uid();
    if let Some(refused) = blocked_file::obstacle(path, if by_unit { Some(theirs) } else { owner }) {
        return Some(ends_a_start(refused.text));
    }
    blocked_file::obstacle(path, owner).map(|_| {
        format!(
            "BLOCKED_FILE {} belongs to uid {theirs}: right where the systemd unit has that one as its User=; elsewhere it may have \
             been planted, and the daemon would not start with it",
            path.display()
        )
    })
}

/// `--connect` opens no ring, and so asks for none.
fn unknown_interface(config: &Config) -> Option<String> {
    let watches = config.flags.mode == Mode::Stealth;
    watches.then(|| ring::resolve(&config.interfaces).err())?.map(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_the_blocked_file_must_be_under_a_unit_is_left_to_the_unit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("blocked");
        std::fs::write(&path, "").unwrap();
        std::os::unix::fs::chown(&path, Some(120), None).expect("these tests need root: sudo make test");
        let told = |by_unit| unusable(&path, Some(65534), by_unit).unwrap();
        assert!(told(false).contains("belongs to somebody else; remove it"), "{}", told(false));
        assert!(told(true).contains("belongs to uid 120: right where"), "{}", told(true));
        assert!(!told(true).contains("remove"), "{}", told(true));
        assert_eq!(unusable(&path, Some(120), false), None);
        // What no daemon takes is told as ever.
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
        assert!(told(true).contains("others may write it"), "{}", told(true));
    }
}
