//! The command line of `portsentry-rs`: arguments in, exit code out.
#![forbid(unsafe_code)]

pub mod arguments;
pub mod check;
pub mod feasible;
pub mod obstacles;
pub mod progress;
pub mod replay;
pub mod run_flags;
pub mod status;
pub mod taken;
pub mod unit;
pub mod writable;

use std::path::Path;
use std::process::ExitCode;

use clap::Parser;

use arguments::{Arguments, Command, Control, Lifted};
use run_flags::{DEFAULT_CONFIG, RunFlags, rewritten};

use crate::config::{Config, control_socket};
use crate::control::client;
use crate::event::stderr;
use crate::sandbox::proof;
use crate::sensor::launch;
use crate::sys;

/// Does what the process's arguments say.
pub fn main() -> ExitCode {
    // Before anything else: the copy has no other argument and no surroundings.
    if std::env::args_os().nth(1).is_some_and(|argument| argument == proof::ARGUMENT) {
        return proof::copy();
    }
    sys::keep_ends_of_children();
    let arguments = Arguments::parse_from(rewritten(std::env::args_os()));
    match arguments.command {
        None => run(&arguments.run),
        Some(Command::Check { quiet, run }) => check::check(&run, quiet),
        Some(Command::Status { json, control }) => asked(&control, |socket| client::status(socket, json)),
        Some(Command::Stats { json, control }) => asked(&control, |socket| client::stats(socket, json)),
        Some(Command::Replay(replay)) => replay::replay(&replay),
        Some(Command::List { json, control }) => asked(&control, |socket| client::list(socket, json)),
        Some(Command::Block { target, seconds, control }) => {
            asked(&control, |socket| client::block(socket, target, seconds))
        }
        Some(Command::Unblock { target: Lifted::One(target), control }) => {
            asked(&control, |socket| client::unblock(socket, target))
        }
        Some(Command::Unblock { target: Lifted::All, control }) => asked(&control, client::unblock_all),
    }
}

fn run(flags: &RunFlags) -> ExitCode {
    match check::configured(flags) {
        Ok(loaded) => launch::run(&loaded),
        Err(code) => code,
    }
}

/// Asks the daemon whose file was named, or nobody: with a name that is mistyped another daemon would be asked. Where
/// none was named it is the usual one, which may have no file that can be read here.
fn asked(control: &Control, ask: impl FnOnce(&Path) -> ExitCode) -> ExitCode {
    let Some(path) = &control.configfile else {
        let usual = control_socket(Path::new(DEFAULT_CONFIG));
        return ask(&usual.unwrap_or_else(|_| Config::default().control_socket));
    };
    match control_socket(path) {
        Ok(socket) => ask(&socket),
        Err(error) => {
            let path = path.display();
            stderr::tell(format_args!(
                "cannot read {path}: {error}; name the configuration file of the daemon that is meant, or leave -c out"
            ));
            ExitCode::FAILURE
        }
    }
}
