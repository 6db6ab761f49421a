//! The command line of `portsentry-rs`: arguments in, exit code out.
#![forbid(unsafe_code)]

pub mod arguments;
pub mod check;
pub mod run_flags;
pub mod status;

use std::process::ExitCode;

use clap::Parser;

use arguments::{Arguments, Command};
use run_flags::rewritten;

/// Does what the process's arguments say.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse_from(rewritten(std::env::args_os()));
    match arguments.command {
        None => not_wired("run"),
        Some(Command::Check(run)) => check::check(&run),
        Some(Command::Status(_)) => not_wired("status"),
        Some(Command::List { .. }) => not_wired("list"),
        Some(Command::Block { .. }) => not_wired("block"),
        Some(Command::Unblock { .. }) => not_wired("unblock"),
    }
}

fn not_wired(command: &str) -> ExitCode {
    eprintln!("portsentry-rs: {command} is not wired yet");
    ExitCode::FAILURE
}
