//! `portsentry-rs check`: what the configuration would do, or everything that is wrong with it. Starts nothing.
#![forbid(unsafe_code)]

use std::io::Write;
use std::process::ExitCode;

use super::run_flags::{LOG_FORMAT_VARIABLE, RunFlags};
use super::{feasible, obstacles, taken, unit, writable};
use crate::config::effective::render_effective;
use crate::config::{ConfigError, Loaded, load};
use crate::netlink::surroundings::Surroundings;
use crate::sensor::{bridge_ports, never_block, reach};

/// Loads the configuration that `run` names, with everything the daemon itself would load it with. On errors all of
/// them are on stderr already, one a line, and the exit code is given.
pub fn configured(run: &RunFlags) -> Result<Loaded, ExitCode> {
    let log_format = std::env::var_os(LOG_FORMAT_VARIABLE).map(|text| text.to_string_lossy().into_owned());
    let loaded = load(&run.configfile, &run.overrides(log_format)).map_err(|errors| {
        complain("", &errors);
        ExitCode::FAILURE
    })?;
    complain("warning: ", &loaded.warnings);
    complain("warning: ", &feasible::warnings(&loaded));
    complain("warning: ", &writable::warnings(&loaded));
    match feasible::errors(&loaded) {
        errors if errors.is_empty() => Ok(loaded),
        errors => {
            complain("", &errors);
            Err(ExitCode::FAILURE)
        }
    }
}

/// Shows what is in force and what would be done, unless `quiet`: exit code 0; or what is wrong: 1.
pub fn check(run: &RunFlags, quiet: bool) -> ExitCode {
    match configured(run).and_then(|loaded| tried(&loaded).map(|()| loaded)) {
        Ok(loaded) => {
            if !quiet {
                complain("note: ", &unit::notes(&loaded));
                // A reader that hangs up early (`| head`) has seen what it wanted.
                let _ = std::io::stdout().write_all(render_effective(&loaded).as_bytes());
            }
            ExitCode::SUCCESS
        }
        Err(failure) => failure,
    }
}

/// Resolvers that the daemon will not know for what they are.
fn unprotected(loaded: &Loaded) -> Vec<ConfigError> {
    let (resolvers, mut untold) = never_block::resolvers();
    // Also to whoever has listed somebody: it may be somebody else.
    untold.extend(never_block::only_a_stub(&loaded.config, &resolvers).map(str::to_owned));
    untold.into_iter().map(|text| ConfigError::new(loaded.origin("NEVER_BLOCK"), text)).collect()
}

/// Where something is watched that does not see all of what it seems to.
fn overlooked(loaded: &Loaded) -> Vec<ConfigError> {
    // Where the links cannot be read the start will say so.
    let told = Surroundings::open().map(|here| bridge_ports::told(&loaded.config.interfaces, &here));
    let texts = told.unwrap_or_default().into_iter();
    texts.map(|text| ConfigError::new(loaded.origin("INTERFACES"), text)).collect()
}

/// What a start would come upon, and what only the daemon's user can tell, which root becomes here.
fn tried(loaded: &Loaded) -> Result<(), ExitCode> {
    complain("warning: ", &obstacles::warnings(loaded));
    complain("warning: ", &taken::warnings(loaded));
    complain("warning: ", &unprotected(loaded));
    complain("warning: ", &overlooked(loaded));
    let warnings = reach::as_daemon(loaded).map_err(|error| {
        complain("", &[ConfigError::new(loaded.origin("RUN_AS"), error.to_string())]);
        ExitCode::FAILURE
    })?;
    complain("warning: ", &warnings);
    Ok(())
}

/// More than anybody mends in one go; only a file that is no configuration at all has as many.
const MOST_SHOWN: usize = 200;

/// Shows errors on stderr, one a line, each after `kind`.
pub fn complain(kind: &str, errors: &[ConfigError]) {
    let mut stderr = std::io::stderr().lock();
    for error in errors.iter().take(MOST_SHOWN) {
        let _ = writeln!(stderr, "{kind}{error}");
    }
    if let Some(more) = errors.len().checked_sub(MOST_SHOWN).filter(|&more| more > 0) {
        let _ = writeln!(stderr, "{kind}and {more} more; is this a configuration file?");
    }
}
