//! Lines to the local syslog daemon as PortSentry sends them: ident `portsentry`, facility daemon; run by the sensor's
//! main thread.
//!
//! Connected before confinement. Never waits, and needs no further connect(2): once the daemon was restarted,
//! datagrams are addressed to its path.
#![forbid(unsafe_code)]

use std::io::{self, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use syslog::{Facility, LogFormat, Logger};

/// Where local syslog daemons listen.
pub const SYSLOG_SOCKET: &str = "/dev/log";

/// How grave a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Something failed.
    Error,
    /// Everything else.
    Notice,
}

/// Syslog cannot be reached.
#[derive(Debug, thiserror::Error)]
#[error(
    "The log socket {path} cannot be reached: {source}; start the log service or choose another output with -l"
)]
pub struct UnreachableLog {
    /// The socket's path.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

/// A line and the time that it is told under, in the form of [`super::time::syslog`].
struct Line<'a> {
    time: &'a str,
    text: &'a str,
}

/// RFC 3164 as the C library writes it: the crate's own formatter has the time in UTC, which the reader takes for local.
#[derive(Debug)]
struct LocalTime {
    pid: u32,
}

impl LogFormat<Line<'_>> for LocalTime {
    /// One write, for each is a datagram.
    fn format<W: Write>(&self, to: &mut W, severity: syslog::Severity, line: Line<'_>) -> syslog::Result<()> {
        let priority = Facility::LOG_DAEMON as u8 | severity as u8;
        let datagram = format!("<{priority}>{} portsentry[{}]: {}", line.time, self.pid, line.text);
        Ok(to.write_all(datagram.as_bytes())?)
    }
}

/// The way to the syslog daemon.
pub struct Syslog {
    logger: Logger<LogSocket, LocalTime>,
}

impl std::fmt::Debug for Syslog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Syslog").field(&self.logger.backend).finish()
    }
}

impl Syslog {
    /// Connects to the daemon at `path`, usually [`SYSLOG_SOCKET`].
    pub fn open(path: &Path) -> Result<Syslog, UnreachableLog> {
        let format = LocalTime { pid: std::process::id() };
        Ok(Syslog { logger: Logger::new(LogSocket::open(path)?, format) })
    }

    /// Sends one line; `time` is [`super::time::syslog`]'s.
    pub fn push(&mut self, severity: Severity, time: &str, text: &str) {
        let line = Line { time, text };
        // The socket counts what is lost.
        let _ = match severity {
            Severity::Error => self.logger.err(line),
            Severity::Notice => self.logger.notice(line),
        };
    }

    /// Lines that could not be delivered.
    pub fn lost(&self) -> u64 {
        self.logger.backend.lost()
    }
}

impl AsRawFd for Syslog {
    fn as_raw_fd(&self) -> RawFd {
        self.logger.backend.as_raw_fd()
    }
}

/// Each write is a datagram, sent or counted as lost.
impl Write for LogSocket {
    fn write(&mut self, datagram: &[u8]) -> io::Result<usize> {
        self.send(datagram);
        Ok(datagram.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A datagram socket to a local daemon that may be restarted at any time.
#[derive(Debug)]
pub struct LogSocket {
    socket: UnixDatagram,
    path: PathBuf,
    lost: u64,
}

impl LogSocket {
    /// Connects to the socket at `path`.
    pub fn open(path: &Path) -> Result<LogSocket, UnreachableLog> {
        let failed = |source| UnreachableLog { path: path.to_owned(), source };
        let socket = UnixDatagram::unbound().map_err(failed)?;
        socket.set_nonblocking(true).map_err(failed)?;
        socket.connect(path).map_err(failed)?;
        Ok(LogSocket { socket, path: path.to_owned(), lost: 0 })
    }

    /// Sends one datagram, or counts it as lost.
    pub fn send(&mut self, datagram: &[u8]) {
        let sent = match self.socket.send(datagram) {
            // Linux takes the dead peer off the socket (unix(7)), and the path may hold a new one by now.
            Err(error) if is_gone(&error) => self.socket.send_to(datagram, &self.path),
            other => other,
        };
        self.lost += u64::from(sent.is_err());
    }

    /// Datagrams that could not be delivered.
    pub fn lost(&self) -> u64 {
        self.lost
    }
}

impl AsRawFd for LogSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ECONNREFUSED | libc::ENOTCONN | libc::ECONNRESET | libc::EDESTADDRREQ)
    )
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn received(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 2048];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    #[test]
    fn a_line_has_the_form_that_the_c_library_gives_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let daemon = UnixDatagram::bind(&path).unwrap();
        let mut syslog = Syslog::open(&path).unwrap();
        let pid = std::process::id();
        syslog.push(Severity::Notice, "Nov  2 00:38:01", "Scan from: x");
        assert_eq!(received(&daemon), format!("<29>Nov  2 00:38:01 portsentry[{pid}]: Scan from: x"));
        syslog.push(Severity::Error, "Nov  2 00:38:01", "no");
        assert!(received(&daemon).starts_with("<27>"));
    }

    #[test]
    fn lines_reach_a_restarted_daemon_and_those_between_are_counted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let daemon = UnixDatagram::bind(&path).unwrap();
        let mut syslog = Syslog::open(&path).unwrap();
        drop(daemon);
        syslog.push(Severity::Notice, "T", "while dead");
        fs::remove_file(&path).unwrap();
        syslog.push(Severity::Notice, "T", "while absent");
        assert_eq!(syslog.lost(), 2);
        for round in 0..2 {
            let daemon = UnixDatagram::bind(&path).unwrap();
            for line in ["first", "second"] {
                syslog.push(Severity::Notice, "T", line);
                assert!(received(&daemon).ends_with(line), "{round}");
            }
            fs::remove_file(&path).unwrap();
        }
        assert_eq!(syslog.lost(), 2);
    }

    #[test]
    fn a_daemon_that_does_not_read_holds_up_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let _daemon = UnixDatagram::bind(&path).unwrap();
        let mut syslog = Syslog::open(&path).unwrap();
        (0..10_000).for_each(|_| syslog.push(Severity::Notice, "T", "x"));
        assert!(syslog.lost() > 0);
    }

    #[test]
    fn no_daemon_is_an_error_that_says_what_to_do() {
        let error = Syslog::open(Path::new("/nonexistent/log")).unwrap_err().to_string();
        assert!(error.contains("/nonexistent/log") && error.contains("-l"), "{error}");
    }
}
