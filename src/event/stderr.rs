//! A line on standard error in the name of the program that the operator knows. The sensor and the command line.
#![forbid(unsafe_code)]

use std::fmt::Display;

use super::text::escaped;
use crate::stderr;

/// Says `text` after the program's name, in one piece; one line, whatever it quotes.
pub fn tell(text: impl Display) {
    stderr::say("portsentry-rs", &escaped(&text.to_string()));
}
