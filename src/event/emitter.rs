//! One [`Event`] in, its lines out to wherever the configuration says; owned by the sensor's main thread.
//!
//! Everything is opened before confinement. Never waits for a reader and never fails: lines that cannot be written
//! are counted.
#![forbid(unsafe_code)]

use std::io::{self, IsTerminal};
use std::os::fd::{AsRawFd, RawFd};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use jiff::tz::TimeZone;

use super::classic::{self, ClassicLine};
use super::history::{History, HistoryError};
use super::journald::{self, JOURNAL_SOCKET, Journald};
use super::syslog::{SYSLOG_SOCKET, Severity, Syslog, UnreachableLog};
use super::{Event, EventType, json, text, time};
use crate::config::{Flags, LogFormat, LogOutput, Mode};
use crate::line_writer::LineWriter;

/// How events are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// One JSON object a line.
    Json,
    /// PortSentry's lines.
    Classic,
}

impl Form {
    /// LOG_FORMAT; `auto` is classic where PortSentry's lines are expected, on a terminal and in syslog, and JSON elsewhere,
    /// for programs.
    pub fn chosen(format: LogFormat, expected: bool) -> Form {
        match format {
            LogFormat::Json => Form::Json,
            LogFormat::Classic => Form::Classic,
            LogFormat::Auto if expected => Form::Classic,
            LogFormat::Auto => Form::Json,
        }
    }
}

/// Why there is nowhere to write to.
#[derive(Debug, thiserror::Error)]
pub enum EmitterError {
    /// Standard output is closed.
    #[error("Standard output cannot be written to: {0}; give it a reader or use -l syslog")]
    Stdout(#[from] io::Error),
    /// No log daemon.
    #[error(transparent)]
    Log(#[from] UnreachableLog),
    /// No history file.
    #[error(transparent)]
    History(#[from] HistoryError),
}

/// An opened output.
#[derive(Debug)]
pub enum Sink {
    /// Standard output or another descriptor.
    Stdout(LineWriter),
    /// The syslog daemon.
    Syslog(Syslog),
    /// The journal.
    Journald(Journald),
}

/// The open outputs.
#[derive(Debug)]
pub struct Emitter {
    form: Form,
    mode: Mode,
    sink: Sink,
    /// PortSentry's lines once more, whatever the form of `sink`.
    copy: Option<Syslog>,
    history: Option<History>,
    zone: TimeZone,
}

impl Emitter {
    /// Opens the output that `-l` names at its usual place, in the form that LOG_FORMAT asks for; what the lines say
    /// depends on the mode.
    pub fn open(flags: Flags, format: LogFormat, history: Option<History>) -> Result<Emitter, EmitterError> {
        let (output, mode) = (flags.log_output, flags.mode);
        let syslog = || Syslog::open(Path::new(SYSLOG_SOCKET));
        let sink = match output {
            LogOutput::Stdout | LogOutput::StdoutAndSyslog => standard_output(format)?,
            LogOutput::Syslog => Sink::Syslog(syslog()?),
            LogOutput::Journald => Sink::Journald(Journald::open(Path::new(JOURNAL_SOCKET))?),
        };
        // What reads PortSentry's syslog lines expects PortSentry's lines.
        let form = Form::chosen(format, output == LogOutput::Syslog || io::stdout().is_terminal());
        let copy = (output == LogOutput::StdoutAndSyslog).then(syslog).transpose()?;
        Ok(Emitter { copy, ..Emitter::new(form, mode, sink, history, time::local_zone()) })
    }

    /// Writes to `sink`, and `Scan from:` lines to `history` too.
    pub fn new(form: Form, mode: Mode, sink: Sink, history: Option<History>, zone: TimeZone) -> Emitter {
        Emitter { form, mode, sink, copy: None, history, zone }
    }

    /// Tells the outside of `event`.
    pub fn emit(&mut self, event: &Event) {
        let is_json = self.form == Form::Json || matches!(self.sink, Sink::Journald(_));
        // Classic text costs as much as JSON: it is made only where somebody reads it.
        let wanted = !is_json || self.history.is_some() || self.copy.is_some();
        let lines = if wanted { classic::lines(event, self.mode) } else { Vec::new() };
        match (&self.sink, self.form) {
            (Sink::Journald(_), _) | (_, Form::Json) => self.write(event, &json::line(event, &self.zone)),
            (_, Form::Classic) => lines.iter().for_each(|line| self.write(event, line.text())),
        }
        lines.iter().for_each(|line| self.write_copy(event, line.text()));
        self.remember(event.timestamp, &lines);
    }

    /// A line that only PortSentry's text has (version, `-v` and `-d`); in JSON it is left out.
    pub fn note(&mut self, note: &str) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let event = Event::new(u64::try_from(now.as_micros()).unwrap_or(u64::MAX), EventType::Stats);
        let line = text::escaped(note);
        if self.form == Form::Classic && !matches!(self.sink, Sink::Journald(_)) {
            self.write(&event, &line);
        }
        self.write_copy(&event, &line);
    }

    /// Whether [`flush`](Self::flush) has something to do.
    pub fn has_pending(&self) -> bool {
        matches!(&self.sink, Sink::Stdout(writer) if writer.has_pending())
    }

    /// The form in which events are written; classic where one of two outputs is.
    pub fn form(&self) -> Form {
        if self.copy.is_some() { Form::Classic } else { self.form }
    }

    /// Writes what a slow reader left pending; for the main loop's timer.
    pub fn flush(&mut self) {
        if let Sink::Stdout(writer) = &mut self.sink {
            writer.flush();
        }
    }

    /// SIGHUP: opens the history file anew. On failure the old one stays in use.
    pub fn reopen(&mut self) -> Result<(), HistoryError> {
        self.history.as_mut().map_or(Ok(()), History::reopen)
    }

    /// The one socket that is not always connected to whom it sends to: the syslog daemon's or the journal's.
    pub fn log_socket(&self) -> Option<RawFd> {
        match (&self.sink, &self.copy) {
            (Sink::Stdout(_), None) => None,
            (Sink::Journald(journald), _) => Some(journald.as_raw_fd()),
            (Sink::Syslog(syslog), _) | (Sink::Stdout(_), Some(syslog)) => Some(syslog.as_raw_fd()),
        }
    }

    /// Lines that could not be written, everywhere together.
    pub fn lost_lines(&self) -> u64 {
        let sink = match &self.sink {
            Sink::Stdout(writer) => writer.lost(),
            Sink::Syslog(syslog) => syslog.lost(),
            Sink::Journald(journald) => journald.lost(),
        };
        sink + self.copy.as_ref().map_or(0, Syslog::lost) + self.history.as_ref().map_or(0, History::lost)
    }

    fn write_copy(&mut self, event: &Event, line: &str) {
        if let Some(copy) = &mut self.copy {
            copy.push(severity_of(event), &time::syslog(event.timestamp, &self.zone), line);
        }
    }

    fn write(&mut self, event: &Event, line: &str) {
        match &mut self.sink {
            Sink::Stdout(writer) => writer.push(line),
            Sink::Syslog(syslog) => {
                syslog.push(severity_of(event), &time::syslog(event.timestamp, &self.zone), line);
            }
            Sink::Journald(journald) => journald.push(event, line),
        }
    }

    fn remember(&mut self, timestamp: u64, lines: &[ClassicLine]) {
        let Some(history) = &mut self.history else { return };
        for line in lines {
            match line {
                ClassicLine::Scan(text) => history.push(&time::history(timestamp, &self.zone), text),
                ClassicLine::Note(_) => {}
            }
        }
    }
}

fn severity_of(event: &Event) -> Severity {
    if event.event_type == EventType::Error { Severity::Error } else { Severity::Notice }
}

/// Where standard output is the journal, events go there whole, with fields; but who asked for classic text gets lines,
/// as does who cannot reach the journal's socket.
fn standard_output(format: LogFormat) -> Result<Sink, EmitterError> {
    let told = std::env::var_os("JOURNAL_STREAM");
    let wanted = format != LogFormat::Classic && journald::is_journal(io::stdout(), told.as_deref());
    match wanted.then(|| Journald::open(Path::new(JOURNAL_SOCKET))) {
        Some(Ok(journal)) => Ok(Sink::Journald(journal)),
        Some(Err(_)) | None => Ok(Sink::Stdout(LineWriter::stdout()?)),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::{BufRead, BufReader, PipeReader};
    use std::os::fd::OwnedFd;

    use super::*;
    use crate::detect::probe::samples::syn;
    use crate::event::{Action, ActionVerdict, Flow};

    const MOMENT: u64 = 1_795_307_881_758_123;

    fn blocked() -> Event {
        let probe = syn("10.0.0.1", 23);
        let action = Action {
            with: vec!["nftables".into()],
            deeds: vec![crate::event::Deed::Shut("nftables")],
            seconds: Some(60),
            ..Action::new(ActionVerdict::Blocked)
        };
        Event {
            flow: Some(Flow::from(&probe)),
            action: Some(action),
            probe: Some(probe),
            ..Event::new(MOMENT, EventType::Block)
        }
    }

    fn piped(form: Form, history: Option<History>) -> (Emitter, impl Iterator<Item = String>) {
        let (reader, writer) = io::pipe().unwrap();
        let sink = Sink::Stdout(LineWriter::new(OwnedFd::from(writer)).unwrap());
        let lines = |reader: PipeReader| BufReader::new(reader).lines().map(Result::unwrap);
        (Emitter::new(form, Mode::Stealth, sink, history, TimeZone::UTC), lines(reader))
    }

    #[test]
    fn classic_output_and_the_history_file_tell_the_same_scan() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("history");
        let (mut emitter, mut lines) = piped(Form::Classic, Some(History::open(&path, None).unwrap()));
        emitter.note("portsentry-rs\n1");
        emitter.emit(&Event::new(MOMENT, EventType::Start));
        emitter.emit(&blocked());
        assert_eq!(lines.next().unwrap(), "portsentry-rs\\x0a1");
        assert_eq!(lines.next().unwrap(), classic::READY);
        assert!(lines.next().unwrap().starts_with("attackalert: Host 10.0.0.1 has been blocked"));
        let scan = lines.next().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("2026-11-22T00:38:01.758+0000 {scan}\n"));
    }

    #[test]
    fn json_output_is_one_line_and_history_stays_classic() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("history");
        let (mut emitter, mut lines) = piped(Form::Json, Some(History::open(&path, None).unwrap()));
        emitter.note("only in classic text");
        emitter.emit(&blocked());
        assert_eq!(lines.next().unwrap(), json::line(&blocked(), &TimeZone::UTC));
        assert!(fs::read_to_string(&path).unwrap().contains("+0000 Scan from: [10.0.0.1]"));
        assert_eq!(emitter.lost_lines(), 0);
    }

    #[test]
    fn a_copy_has_portsentrys_lines_beside_json() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let daemon = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
        let (emitter, mut lines) = piped(Form::Json, None);
        let mut emitter = Emitter { copy: Some(Syslog::open(&path).unwrap()), ..emitter };
        emitter.emit(&blocked());
        assert_eq!(lines.next().unwrap(), json::line(&blocked(), &TimeZone::UTC));
        for part in ["attackalert: Host 10.0.0.1 has been blocked", "Scan from: [10.0.0.1]"] {
            let mut datagram = [0; 500];
            let length = daemon.recv(&mut datagram).unwrap();
            assert!(String::from_utf8_lossy(&datagram[..length]).contains(part), "{part}");
        }
        assert_eq!(emitter.form(), Form::Classic);
    }

    #[test]
    fn auto_is_classic_on_a_terminal_only() {
        assert_eq!(Form::chosen(LogFormat::Auto, true), Form::Classic);
        assert_eq!(Form::chosen(LogFormat::Auto, false), Form::Json);
        assert_eq!(Form::chosen(LogFormat::Json, true), Form::Json);
        assert_eq!(Form::chosen(LogFormat::Classic, false), Form::Classic);
    }
}
