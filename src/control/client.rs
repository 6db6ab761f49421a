//! `portsentry-rs status|list|stats|block|unblock`: asks a running daemon and prints its answer.
//!
//! Run in a process of its own by an operator; holds no state and touches nothing but the socket and standard output.
#![forbid(unsafe_code)]

use std::io::{self, BufRead, BufReader, BufWriter, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ipnet::IpNet;

use super::protocol::{ControlReply, ControlRequest, Done, DoneVerdict, Entry, Status};
use crate::cli::status;
use crate::event::{stderr, time::local_zone};
use crate::protocol::wording;

/// Longest wait for the next line of an answer: longer than the daemon gives us. Work may take longer: then we say that we
/// wait.
const ANSWER_TIME: Duration = Duration::from_secs(12);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("No daemon runs at {0}; start portsentry-rs, or name its configuration file with -c")]
    NoDaemon(PathBuf),
    /// Not ours to use.
    #[error("{0} may be used by root only; try sudo")]
    NotAllowed(PathBuf),
    /// The socket failed.
    #[error("The daemon at {path} did not answer: {source}; look into its log")]
    Socket {
        /// The socket's path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The answer broke off.
    #[error(
        "The daemon at {0} broke off its answer: nobody read on for ten seconds, or it ended; look into its log"
    )]
    BrokenOff(PathBuf),
    /// The answer makes no sense to us.
    #[error("The answer was not understood ({0}); the daemon is of another version, restart it")]
    Unreadable(#[from] serde_json::Error),
    /// The sensor answers, the helper does not.
    #[error(
        "the helper (process {0}) has not answered for six seconds: until it does nobody is blocked or let in; look into the log, and restart the daemon if it stays so"
    )]
    HelperSilent(u32),
    /// The daemon would not.
    #[error("{0}")]
    Refused(String),
    /// Standard output failed.
    #[error("The answer cannot be printed: {0}")]
    Print(io::Error),
}

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

/// Sends `request` and reads the whole answer.
pub fn ask(path: &Path, request: &ControlRequest) -> Result<Vec<ControlReply>, ClientError> {
    let mut replies = Vec::new();
    each(path, request, |reply| {
        replies.push(reply);
        Ok(())
    })?;
    Ok(replies)
}

/// Sends `request` and hands over the answer line by line.
fn each(
    path: &Path,
    request: &ControlRequest,
    mut take: impl FnMut(ControlReply) -> Result<(), ClientError>,
) -> Result<(), ClientError> {
    let failed = |source: io::Error| socket_error(path, source);
    let mut stream = UnixStream::connect(path).map_err(failed)?;
    stream.set_read_timeout(Some(ANSWER_TIME)).map_err(failed)?;
    stream.set_write_timeout(Some(ANSWER_TIME)).map_err(failed)?;
    // Where the daemon refuses us it hangs up at once, but its reason can be read still.
    let sent = stream.write_all(format!("{}\n", serde_json::to_string(request)?).as_bytes());
    let lines = Lines { path, stream: BufReader::new(stream), waits: request.is_work(), told: false };
    answer(lines, &mut take).map_err(|error| match (sent, error) {
        (Err(source), ClientError::BrokenOff(_)) => failed(source),
        (_, error) => error,
    })
}

/// The daemon's words, line by line.
struct Lines<'a> {
    path: &'a Path,
    stream: BufReader<UnixStream>,
    /// However long it takes.
    waits: bool,
    told: bool,
}

impl Lines<'_> {
    /// The next line; none where the daemon hung up.
    fn next(&mut self) -> Result<Option<Vec<u8>>, ClientError> {
        let mut line = Vec::new();
        loop {
            match self.stream.read_until(b'\n', &mut line) {
                Ok(_) => return Ok((!line.is_empty()).then_some(line)),
                Err(error) if self.waits && error.kind() == ErrorKind::WouldBlock => self.tell(),
                Err(source) => return Err(socket_error(self.path, source)),
            }
        }
    }

    fn tell(&mut self) {
        if !std::mem::replace(&mut self.told, true) {
            stderr::tell(
                "the daemon is still at work on it, and this waits; portsentry-rs list shows what is blocked",
            );
        }
    }
}

fn answer(
    mut lines: Lines<'_>,
    take: &mut impl FnMut(ControlReply) -> Result<(), ClientError>,
) -> Result<(), ClientError> {
    while let Some(line) = lines.next()? {
        let reply = serde_json::from_slice(&line)?;
        if let ControlReply::Error { message } = reply {
            return Err(ClientError::Refused(message));
        }
        let last = ControlReply::is_last(&reply);
        take(reply)?;
        if last {
            return Ok(());
        }
    }
    Err(ClientError::BrokenOff(lines.path.to_owned()))
}

fn socket_error(path: &Path, source: io::Error) -> ClientError {
    let path = path.to_owned();
    let is = |kinds: &[ErrorKind]| kinds.contains(&source.kind());
    if is(&[ErrorKind::NotFound, ErrorKind::ConnectionRefused]) {
        ClientError::NoDaemon(path)
    } else if is(&[ErrorKind::PermissionDenied]) {
        ClientError::NotAllowed(path)
    } else if is(&[ErrorKind::ConnectionReset]) {
        ClientError::BrokenOff(path)
    } else {
        ClientError::Socket { path, source }
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// What did not come of a request, in words that follow the target's name.
#[derive(Clone, Copy)]
struct Not {
    refused: &'static str,
    /// Where it is still blocked, for how long.
    failed: fn(Option<String>) -> String,
}

const BLOCK: Not = Not { refused: "was not blocked", failed: not_blocked };
const UNBLOCK: Not = Not { refused: "was not unblocked, and is as it was", failed: not_undone };
const UNBLOCK_ALL: Not = Not { refused: "that was blocked is so still", failed: not_flushed };

fn not_blocked(_: Option<String>) -> String {
    "was not blocked".to_owned()
}

fn not_undone(left: Option<String>) -> String {
    match left {
        Some(time) => format!("could not be let in and is still blocked, for {time}"),
        None => {
            "is not listed as blocked any more, but something of its block could not be taken back and may \
             still shut it out; unblock can be asked again"
                .to_owned()
        }
    }
}

fn not_flushed(left: Option<String>) -> String {
    match left {
        Some(_) => "that was blocked is still taken for blocked: the kernel would not lift them all",
        None => {
            "is listed as blocked no more, but something of a block could not be taken back and may still shut its source \
             out; unblock all can be asked again"
        }
    }
    .to_owned()
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

/// That nobody was blocked is what was wanted; of one address it may be a mistyped name.
fn emptied(done: Done) -> Result<String, ClientError> {
    match done.verdict == DoneVerdict::NotBlocked {
        true => Ok("nobody is blocked\n".to_owned()),
        false => outcome("Every source", done, UNBLOCK_ALL),
    }
}

fn outcome(target: &str, done: Done, not: Not) -> Result<String, ClientError> {
    let time = status::duration(u64::from(done.seconds));
    let why = done.error.unwrap_or_default();
    match done.verdict {
        DoneVerdict::Blocked => Ok(format!("{target} is blocked for {time}\n")),
        DoneVerdict::AlreadyBlocked => Ok(format!("{target} was blocked already\n")),
        DoneVerdict::Lifted if why.is_empty() => Ok(format!("{target} is no longer blocked\n")),
        DoneVerdict::Lifted => Ok(format!("{target} is no longer blocked by portsentry-rs. {why}\n")),
        DoneVerdict::NotBlocked if !why.is_empty() => {
            Err(ClientError::Refused(format!("{target} is not blocked by itself. {why}")))
        }
        DoneVerdict::NotBlocked => {
            Err(ClientError::Refused(format!("{target} is not blocked; see portsentry-rs list")))
        }
        DoneVerdict::Refused => Err(ClientError::Refused(format!("{target} {}. {why}", not.refused))),
        DoneVerdict::Failed => {
            let left = (done.seconds > 0).then_some(time);
            Err(ClientError::Refused(format!("{target} {}. {why}", (not.failed)(left))))
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Outcome;

    #[test]
    fn a_missing_daemon_and_a_dead_one_are_told_alike() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control");
        let error = ask(&path, &ControlRequest::Status).unwrap_err();
        assert!(matches!(error, ClientError::NoDaemon(_)), "{error}");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let error = ask(&path, &ControlRequest::Status).unwrap_err().to_string();
        assert!(error.starts_with(&format!("No daemon runs at {}", path.display())), "{error}");
    }

    #[test]
    fn outcomes_read_as_sentences() {
        let text = |outcome, seconds| outcome_text(Done::new(outcome, seconds, 1));
        fn outcome_text(done: Done) -> String {
            outcome("10.0.0.1", done, UNBLOCK).unwrap_or_else(|error| error.to_string())
        }
        assert_eq!(text(Outcome::Blocked, 3600), "10.0.0.1 is blocked for 1h 0m\n");
        assert_eq!(text(Outcome::Lifted, 0), "10.0.0.1 is no longer blocked\n");
        assert_eq!(
            text(Outcome::Failed(13), 3600),
            "10.0.0.1 could not be let in and is still blocked, for 1h 0m. The system refused: Permission denied (os error 13)"
        );
        assert!(text(Outcome::Failed(13), 0).starts_with("10.0.0.1 is not listed as blocked any more, but "));
        let refused =
            |target, refusal, not| outcome(target, Done::new(refusal, 0, 0), not).unwrap_err().to_string();
        assert_eq!(
            refused("10.0.0.1", Outcome::RefusedNeverBlock, BLOCK),
            "10.0.0.1 was not blocked. It overlaps the never-block set."
        );
        let rate = "Too much was asked for in this minute; try again later.";
        assert_eq!(
            refused("10.0.0.1", Outcome::RefusedRate, UNBLOCK),
            format!("10.0.0.1 was not unblocked, and is as it was. {rate}")
        );
        assert_eq!(
            refused("Every source", Outcome::RefusedRate, UNBLOCK_ALL),
            format!("Every source that was blocked is so still. {rate}")
        );
    }
}
