//! `portsentry-rs status|list|stats|block|unblock`: asks a running daemon and prints its answer.
//!
//! Run in a process of its own by an operator; holds no state and touches nothing but the socket and standard output.
#![forbid(unsafe_code)]

mod error;
mod exchange;
mod outcome;

use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use ipnet::IpNet;

pub use self::error::ClientError;
pub use self::exchange::ask;
use self::exchange::each;
use self::outcome::{BLOCK, Not, UNBLOCK, emptied, outcome};
use super::protocol::{ControlReply, ControlRequest, Done, Entry, Status};
use crate::cli::status;
use crate::event::{stderr, time::local_zone};
use crate::protocol::wording;

/// `status [--json]`. Fails where the helper does not answer: health checks go by it.
pub fn status(socket: &Path, json: bool) -> ExitCode {
    ended(asked_status(socket).and_then(|status| {
        print(&match json {
            true => status::json_line(&status)?,
            false => status::status_text(&status, now(), &local_zone()),
        })?;
        match status.helper_answers {
            true => Ok(()),
            false => Err(ClientError::HelperSilent(status.start.helper_pid)),
        }
    }))
}

/// `stats [--json]`: the `stats` object of the daemon's status.
pub fn stats(socket: &Path, json: bool) -> ExitCode {
    ended(asked_status(socket).and_then(|status| print(&status::stats(&status.stats, json)?)))
}

fn asked_status(socket: &Path) -> Result<Box<Status>, ClientError> {
    let replies = ask(socket, &ControlRequest::Status)?;
    let status = replies.into_iter().find_map(|reply| match reply {
        ControlReply::Status(status) => Some(status),
        ControlReply::Entry(_)
        | ControlReply::End { .. }
        | ControlReply::Done(_)
        | ControlReply::Error { .. } => None,
    });
    status.ok_or_else(|| ClientError::BrokenOff(socket.to_owned()))
}

/// `list [--json]`.
pub fn list(socket: &Path, json: bool) -> ExitCode {
    ended(if json { list_json(socket) } else { list_text(socket) })
}

/// `block ADDRESS [SECONDS]`; without a time the daemon's BLOCK_TIME holds.
pub fn block(socket: &Path, address: IpNet, seconds: Option<u32>) -> ExitCode {
    let request = ControlRequest::Block { address, seconds: seconds.unwrap_or(0) };
    ended(done(socket, &request, &wording::address(&address), BLOCK))
}

/// `unblock ADDRESS`.
pub fn unblock(socket: &Path, address: IpNet) -> ExitCode {
    ended(done(socket, &ControlRequest::Unblock { address }, &wording::address(&address), UNBLOCK))
}

/// `unblock all`.
pub fn unblock_all(socket: &Path) -> ExitCode {
    ended(asked(socket, &ControlRequest::UnblockAll).and_then(|done| print(&emptied(done)?)))
}

/// Line by line as they come: nothing is kept.
fn list_json(socket: &Path) -> Result<(), ClientError> {
    let mut out = BufWriter::new(io::stdout().lock());
    let printed = each_entry(socket, |entry| {
        out.write_all(status::json_line(&entry)?.as_bytes()).map_err(ClientError::Print)
    });
    enough(printed.and_then(|()| out.flush().map_err(ClientError::Print)))
}

/// A table, sorted: all entries are kept, none of its text.
fn list_text(socket: &Path) -> Result<(), ClientError> {
    let mut entries = Vec::new();
    each_entry(socket, |entry| {
        entries.push(entry);
        Ok(())
    })?;
    let mut out = BufWriter::new(io::stdout().lock());
    let printed = status::list(entries, now(), &local_zone(), &mut out).and_then(|()| out.flush());
    enough(printed.map_err(ClientError::Print))
}

/// Hands over the blocks in force. A list that the helper refuses ends in its word: it is not an empty one.
fn each_entry(
    socket: &Path,
    mut take: impl FnMut(Entry) -> Result<(), ClientError>,
) -> Result<(), ClientError> {
    each(socket, &ControlRequest::List, |reply| match reply {
        ControlReply::Entry(entry) => take(entry),
        ControlReply::Done(done) => {
            Err(ClientError::Refused(format!("nothing was listed. {}", done.error.unwrap_or_default())))
        }
        ControlReply::Status(_) | ControlReply::End { .. } | ControlReply::Error { .. } => Ok(()),
    })
}

fn done(socket: &Path, request: &ControlRequest, target: &str, not: Not) -> Result<(), ClientError> {
    print(&outcome(target, asked(socket, request)?, not)?)
}

fn asked(socket: &Path, request: &ControlRequest) -> Result<Done, ClientError> {
    match ask(socket, request)?.pop() {
        Some(ControlReply::Done(done)) => Ok(done),
        Some(_) | None => Err(ClientError::BrokenOff(socket.to_owned())),
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn print(text: &str) -> Result<(), ClientError> {
    let printed = io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush());
    enough(printed.map_err(ClientError::Print))
}

/// A reader that has seen enough (`list | head`) is no error.
fn enough(printed: Result<(), ClientError>) -> Result<(), ClientError> {
    match printed {
        Err(ClientError::Print(error)) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        printed => printed,
    }
}

fn ended(result: Result<(), ClientError>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            stderr::tell(error);
            ExitCode::FAILURE
        }
    }
}
