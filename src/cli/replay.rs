//! `portsentry-rs replay`: captures in, the events that the daemon would have printed out. Needs no right and opens no
//! socket.
#![forbid(unsafe_code)]

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use jiff::tz::TimeZone;

use super::arguments;
use super::check::complain;
use super::progress::Progress;
use super::run_flags::DEFAULT_CONFIG;
use crate::capture::{Capture, CaptureError};
use crate::config::{ConfigError, Loaded, Origin, Overrides, load, parse};
use crate::event::{Event, json, stderr, time};
use crate::replay::{Replay, View};

/// What judges where nothing else is named: a capture is looked at on machines that run no daemon.
const SHIPPED: &str = include_str!("../../config/portsentry.conf");

/// Why no more events come.
#[derive(Debug, thiserror::Error)]
enum ReplayError {
    /// One capture; the others are played still.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// It cannot be opened.
    #[error("it cannot be opened: {0}")]
    Open(io::Error),
    /// Nobody reads the events any more.
    #[error("events cannot be printed: {0}")]
    Print(io::Error),
}

/// Plays every capture; exit code 1 if one of them could not be read to its end.
pub fn replay(arguments: &arguments::Replay) -> ExitCode {
    let loaded = match configured(arguments.configfile.as_deref()) {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    let view = match (arguments.host, arguments.network) {
        (Some(host), _) => View::Host(host),
        (None, true) => View::Network,
        (None, false) => View::EachHost,
    };
    let printer = Printer { out: BufWriter::new(io::stdout().lock()), zone: time::local_zone() };
    let mut player = Player { replay: Replay::new(&loaded, view), printer };
    match player.play_all(&arguments.captures) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        // Whoever hung up (`| head`) has seen what he wanted.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            stderr::tell(ReplayError::Print(error));
            ExitCode::FAILURE
        }
    }
}

/// The named configuration, or the usual one, or the shipped one where it is certain that there is no other.
fn configured(path: Option<&Path>) -> Result<Loaded, ExitCode> {
    let (usual, overrides) = (Path::new(DEFAULT_CONFIG), Overrides::default());
    let loaded = match path {
        Some(path) => load(path, &overrides),
        None if matches!(usual.try_exists(), Ok(false)) => {
            complain("note: ", &[shipped_instead()]);
            parse("the shipped configuration", SHIPPED.as_bytes(), &overrides)
        }
        None => load(usual, &overrides),
    };
    let loaded = loaded.map_err(|errors| {
        complain("", &errors);
        ExitCode::FAILURE
    })?;
    complain("warning: ", &loaded.warnings);
    Ok(loaded)
}

fn shipped_instead() -> ConfigError {
    let message = "it is not there, so the configuration that portsentry-rs is shipped with judges; name another with -c FILE";
    ConfigError::new(Origin::WholeFile(DEFAULT_CONFIG.into()), message)
}

struct Player<W: Write> {
    replay: Replay,
    printer: Printer<W>,
}

impl<W: Write> Player<W> {
    /// Whether all could be read to their end.
    fn play_all(&mut self, captures: &[PathBuf]) -> io::Result<bool> {
        let mut well = true;
        for path in captures {
            match self.play(path) {
                Ok(()) => {}
                Err(ReplayError::Print(error)) => return Err(error),
                Err(error) => {
                    self.finish()?;
                    stderr::tell(format_args!("{}: {error}", path.display()));
                    well = false;
                }
            }
        }
        self.finish()?;
        let (last, stats) = (self.replay.end(), self.replay.stats());
        self.printer.print(&last)?;
        self.printer.print(&[stats])?;
        self.printer.out.flush()?;
        Ok(well)
    }

    fn play(&mut self, path: &Path) -> Result<(), ReplayError> {
        if path.as_os_str() == "-" {
            return self.play_from(io::stdin().lock(), None);
        }
        let file = File::open(path).map_err(ReplayError::Open)?;
        let length = file.metadata().ok().filter(fs::Metadata::is_file).map(|file| file.len());
        self.play_from(file, length)
    }

    fn play_from(&mut self, reader: impl Read, length: Option<u64>) -> Result<(), ReplayError> {
        let mut capture = Capture::open(reader)?;
        let mut progress = Progress::new(length);
        self.replay.begin_capture();
        while let Some(frame) = capture.next_frame()? {
            let events = self.replay.on_frame(&frame);
            if !events.is_empty() {
                progress.clear();
                self.printer.print(&events).map_err(ReplayError::Print)?;
            }
            progress.on_frame(capture.offset());
        }
        Ok(())
    }

    /// Everything that is held back.
    fn finish(&mut self) -> io::Result<()> {
        while let Some(events) = self.replay.judge_next() {
            self.printer.print(&events)?;
        }
        self.printer.out.flush()
    }
}

struct Printer<W: Write> {
    out: W,
    zone: TimeZone,
}

impl<W: Write> Printer<W> {
    fn print(&mut self, events: &[Event]) -> io::Result<()> {
        events.iter().try_for_each(|event| writeln!(self.out, "{}", json::line(event, &self.zone)))
    }
}
