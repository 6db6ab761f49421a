//! One request to a running daemon, and its answer line by line. The command line's process.
//!
//! Never waits without an end for a daemon that says nothing, but where it is at work: then it says that it waits.
#![forbid(unsafe_code)]

use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::ClientError;
use crate::control::{ControlReply, ControlRequest};
use crate::event::stderr;

/// Longest wait for the next line of an answer: longer than the daemon gives us. Work may take longer: then we say that we
/// wait.
const ANSWER_TIME: Duration = Duration::from_secs(12);

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
pub(super) fn each(
    path: &Path,
    request: &ControlRequest,
    mut take: impl FnMut(ControlReply) -> Result<(), ClientError>,
) -> Result<(), ClientError> {
    let failed = |source: io::Error| ClientError::socket(path, source);
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
                Err(source) => return Err(ClientError::socket(self.path, source)),
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
