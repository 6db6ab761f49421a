//! What a start would come upon where it makes its files, and among the interfaces: told by `check`, which looks as the
//! start does, and changes nothing.
//!
//! Warnings only: this machine as it is now is what is looked at, and a daemon that runs may well be told to read its
//! configuration again.
#![forbid(unsafe_code)]

use crate::config::{Config, ConfigError, Loaded, Mode};
use crate::control::server;
use crate::event::history;
use crate::helper::blocked_file;
use crate::sandbox::identity::Identity;
use crate::sensor::{ring, state_dir};

/// What a start here would end at.
pub fn warnings(loaded: &Loaded) -> Vec<ConfigError> {
    let told = found(&loaded.config).into_iter().filter_map(|(key, why)| {
        let text = format!("{}; as things are the daemon would not start here", why?);
        Some(ConfigError::new(loaded.origin(key), text))
    });
    told.collect()
}

fn found(config: &Config) -> [(&'static str, Option<String>); 5] {
    let owner = Identity::resolve(config.run_as.as_deref()).ok().map(|it| it.uid);
    let blocked_file = config.blocked_file.as_deref();
    [
        ("HISTORY_FILE", config.history_file.as_deref().and_then(history::obstacle).map(|it| it.to_string())),
        ("BLOCKED_FILE", blocked_file.and_then(|path| blocked_file::obstacle(path, owner)).map(|it| it.text)),
        ("CONTROL_SOCKET", server::obstacle(&config.control_socket).map(|it| it.to_string())),
        ("STATE_DIR", state_dir::obstacle(&config.state_dir).map(|it| it.to_string())),
        ("INTERFACES", unknown_interface(config)),
    ]
}

/// `--connect` opens no ring, and so asks for none.
fn unknown_interface(config: &Config) -> Option<String> {
    let watches = config.flags.mode == Mode::Stealth;
    watches.then(|| ring::resolve(&config.interfaces).err())?.map(|error| error.to_string())
}
