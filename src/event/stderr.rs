//! A line on standard error, for whoever started the program. Both the daemon and the command line.
//!
//! Must never end the process, as `eprintln!` does where nobody reads: within the cage that would even be the wrong end.
#![forbid(unsafe_code)]

use std::fmt::Display;
use std::io::{self, Write};

use super::text::escaped;

/// Says `text` after the program's name, in one piece; one line, whatever it quotes.
pub fn tell(text: impl Display) {
    let line = format!("portsentry-rs: {}\n", escaped(&text.to_string()));
    let _ = io::stderr().write_all(line.as_bytes());
}
