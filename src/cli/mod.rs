//! The command line of `portsentry-rs`: arguments in, exit code out.
#![forbid(unsafe_code)]

pub mod arguments;
pub mod check;
pub mod feasible;
pub mod progress;
pub mod replay;
pub mod run_flags;
pub mod status;
pub mod unit;
pub mod writable;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use arguments::{Arguments, Command, Control, Lifted};
use run_flags::{RunFlags, rewritten};

use crate::config::control_socket;
use crate::control::client;
use crate::sandbox::proof;
use crate::sensor::launch;

/// Does what the process's arguments say.
pub fn main() -> ExitCode {
    // Before anything else: the copy has no other argument and no surroundings.
    if std::env::args_os().nth(1).is_some_and(|argument| argument == proof::ARGUMENT) {
        return proof::copy();
    }
    let arguments = Arguments::parse_from(rewritten(std::env::args_os()));
    match arguments.command {
        None => run(&arguments.run),
        Some(Command::Check { quiet, run }) => check::check(&run, quiet),
        Some(Command::Status(control)) => client::status(&socket(&control), false),
        Some(Command::Stats { json, control }) => client::stats(&socket(&control), json),
        Some(Command::Replay(replay)) => replay::replay(&replay),
        Some(Command::List { json, control }) => client::list(&socket(&control), json),
        Some(Command::Block { target, seconds, control }) => {
            client::block(&socket(&control), target, seconds)
        }
        Some(Command::Unblock { target: Lifted::One(target), control }) => {
            client::unblock(&socket(&control), target)
        }
        Some(Command::Unblock { target: Lifted::All, control }) => client::unblock_all(&socket(&control)),
    }
}

fn run(flags: &RunFlags) -> ExitCode {
    match check::configured(flags) {
        Ok(loaded) => launch::run(&loaded),
        Err(code) => code,
    }
}

fn socket(control: &Control) -> PathBuf {
    control_socket(&control.configfile)
}
