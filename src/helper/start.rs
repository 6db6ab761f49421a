//! The helper's start, from its pipes to its loop. Helper; reads no file but the ledger, BLOCKED_FILE and hosts.deny, no
//! environment, and no argument but the one that makes it a proof of its own filter.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::process::ExitCode;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::stat::{SFlag, fstat};

use super::blocked_file::BlockedFile;
use super::confine;
use super::error::{HelperError, log};
use super::ledger::Ledger;
use super::only_one::{self, Alone};
use super::respond::System;
use super::run::Loop;
use super::service::{Opened, Service};
use super::steps::Steps;
use crate::protocol::Settings;
use crate::sandbox::proof;
use crate::stderr;
use crate::sys;

/// Serves the sensor on standard input (requests) and output (replies); standard error is the log.
pub fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|argument| argument == proof::ARGUMENT) {
        return proof::copy();
    }
    sys::keep_ends_of_children();
    stderr::never_wait();
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log(&error.to_string());
            ExitCode::from(error.exit_code())
        }
    }
}

fn serve() -> Result<(), HelperError> {
    let (mut requests, replies) = (pipe(io::stdin())?, pipe(io::stdout())?);
    ignore_signals()?;
    let settings = Settings::read_from(&mut requests)?;
    let cage = confine::cage(&settings)?;
    let _alone = Alone::in_this_network()?;
    // Before root is left: its folder is not the helper's user's.
    let owner = settings.run_as.map(|(uid, _)| uid);
    let blocked_file =
        settings.blocked_file.as_deref().map(|path| BlockedFile::open(path, owner)).transpose()?;
    confine::rights(settings.rights(), settings.run_as)?;
    let responses = System::open(&settings)?;
    let landlock = confine::files(&settings)?;
    let _lock = only_one::on_state(&settings.state_dir)?;
    let steps = Steps::open(&settings)?;
    let ledger = Ledger::open(&settings.state_dir)?;
    let opened = Opened { responses, steps, ledger, blocked_file, landlock };
    let mut pipes =
        Loop::new(requests, replies).map_err(|error| HelperError::System("use the pipes", error))?;
    if let Some(cage) = cage {
        cage.enter()?;
    }
    let mut service = Service::start(settings, opened)?;
    #[cfg(feature = "escape-attempts")]
    crate::sandbox::escape::attempt("helper");
    let end = pipes.run(&mut service);
    service.disarm();
    end
}

/// Our own hold of a standard stream that must be a pipe. Past the buffers of std, which would take bytes ahead.
fn pipe(stream: impl AsFd) -> Result<File, HelperError> {
    let facts = fstat(&stream).map_err(|_| HelperError::NotSpawned)?;
    match SFlag::from_bits_truncate(facts.st_mode) & SFlag::S_IFMT == SFlag::S_IFIFO {
        true => stream.as_fd().try_clone_to_owned().map(File::from).map_err(|_| HelperError::NotSpawned),
        false => Err(HelperError::NotSpawned),
    }
}

/// The end comes with the sensor's: what a service manager or a terminal sends to the whole group is for the sensor. And a
/// file that may not grow further (LimitFSIZE=) is an error of the write to it, which is tried again, and no end at all.
fn ignore_signals() -> Result<(), HelperError> {
    let signals = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGXFSZ]);
    // Blocked and never taken: no handler, hence no unsafe code. There is no other thread.
    signals.thread_block().map_err(|errno| HelperError::System("ignore signals", errno.into()))
}
