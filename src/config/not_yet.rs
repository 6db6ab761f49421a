//! What is read but not done by this version, in one place: asked for, it is refused (or, where nobody is protected
//! less without it, warned of), because a block that is silently not made is worse than no daemon.
//!
//! Pure. Each line goes when the thing is built; the file goes with the last one.
#![forbid(unsafe_code)]

use super::{Config, ConfigError, Flags, Loaded, Origin};

type Asked<T> = fn(&T) -> bool;

const REFUSED_KEYS: &[(&str, Asked<Config>, &str)] = &[];

const WARNED_KEYS: &[(&str, Asked<Config>, &str)] = &[(
    "RESOLVE_HOST",
    |c| c.resolve_host,
    "has no effect yet in this version; sources are shown by address",
)];

const REFUSED_FLAGS: &[(&str, Asked<Flags>)] =
    &[("-D", |f| f.daemonize), ("-d", |f| f.debug), ("-v", |f| f.verbose)];

/// What `loaded` asks for and this version would not do.
pub(super) fn refusals(loaded: &Loaded) -> Vec<ConfigError> {
    let flags = REFUSED_FLAGS.iter().filter(|(_, asked)| asked(&loaded.config.flags)).map(|(flag, _)| {
        ConfigError::new(Origin::CommandLine(flag), "not supported yet by this version; leave it out")
    });
    named(loaded, REFUSED_KEYS).chain(flags).collect()
}

/// What `loaded` asks for and this version leaves out without harm.
pub(super) fn warnings(loaded: &Loaded) -> Vec<ConfigError> {
    named(loaded, WARNED_KEYS).collect()
}

fn named(
    loaded: &Loaded,
    table: &'static [(&str, Asked<Config>, &str)],
) -> impl Iterator<Item = ConfigError> {
    let asked = table.iter().filter(|(_, asked, _)| asked(&loaded.config));
    asked.map(|(key, _, why)| ConfigError::new(loaded.origin(key), format!("{key} {why}")))
}
