//! A line on standard error, for whoever started the program: both roles and the command line.
//!
//! Must never end the process, as `eprintln!` does where nobody reads: within the cage that would even be the wrong end.
//! And must not have a daemon wait for whoever reads: a terminal that was stopped, a log that is stuck.
#![forbid(unsafe_code)]

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::{Mutex, OnceLock, PoisonError};

use crate::line_writer::LineWriter;

/// A daemon's; the command line has none, and waits until it is heard.
static DAEMONS: OnceLock<Mutex<Unread>> = OnceLock::new();

/// Lines that wait for a reader.
struct Unread {
    lines: LineWriter,
    /// How many lines were said to be lost.
    told: u64,
}

/// From now on no line waits for its reader: what is not read is kept up to a bound, and follows with the next line; what
/// is beyond it is counted. Must be called before confinement, and where standard error stays what it is.
pub fn never_wait() {
    // Of a descriptor of which nothing can be known, which Linux does not have, lines go on as they did.
    let own = io::stderr().as_fd().try_clone_to_owned().and_then(LineWriter::new);
    if let Ok(lines) = own {
        let _ = DAEMONS.set(Mutex::new(Unread { lines, told: 0 }));
    }
}

/// Says `line`, which holds no newline, after the name of the `program`.
pub fn say(program: &str, line: &str) {
    match DAEMONS.get() {
        Some(unread) => unread.lock().unwrap_or_else(PoisonError::into_inner).say(program, line),
        None => drop(io::stderr().write_all(format!("{program}: {line}\n").as_bytes())),
    }
}

impl Unread {
    fn say(&mut self, program: &str, line: &str) {
        self.lines.flush();
        let lost = self.lines.lost();
        if lost > self.told && !self.lines.has_pending() {
            self.lines
                .push(&format!("{program}: {} lines were lost here: nobody read them", lost - self.told));
            self.told = lost;
        }
        self.lines.push(&format!("{program}: {line}"));
    }
}

#[cfg(test)]
mod tests {
    use std::io::{PipeReader, Read};
    use std::os::fd::OwnedFd;

    use super::*;
    use crate::line_writer::PENDING_LIMIT;

    fn all(mut reader: PipeReader) -> String {
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn whoever_reads_again_is_told_how_much_was_lost() {
        let (mut reader, writer) = io::pipe().unwrap();
        let mut unread = Unread { lines: LineWriter::new(OwnedFd::from(writer)).unwrap(), told: 0 };
        let said = (0..).take_while(|number| {
            unread.say("us", &format!("line {number} {}", "x".repeat(1000)));
            unread.lines.lost() < 3
        });
        let said = said.count() + 1;
        assert!(said * 1000 > PENDING_LIMIT);
        let mut gulp = vec![0; 64 * 1024];
        let mut heard = String::new();
        while unread.lines.has_pending() {
            let length = reader.read(&mut gulp).unwrap();
            heard.push_str(std::str::from_utf8(&gulp[..length]).unwrap());
            unread.lines.flush();
        }
        unread.say("us", "again");
        drop(unread);
        heard.push_str(&all(reader));
        let (before, after) = heard.split_once("us: 3 lines were lost here: nobody read them\n").unwrap();
        assert_eq!((before.lines().count() + 3, after), (said, "us: again\n"));
    }
}
