//! What can be wrong with a configuration, and where: each error is one line, `file:line:column: message`.
//!
//! Pure. Nothing here decides what is wrong.
#![forbid(unsafe_code)]

use std::fmt;

/// A place in a text. Both count from 1; columns count characters, not bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Line, from 1.
    pub line: usize,
    /// Character in the line, from 1.
    pub column: usize,
}

impl Position {
    /// The place `offset` bytes into `text`, which itself begins here and holds no line end.
    pub fn advanced(self, text: &str, offset: usize) -> Position {
        let before = text.char_indices().take_while(|&(at, _)| at < offset).count();
        Position { line: self.line, column: self.column.saturating_add(before) }
    }
}

/// Something wrong inside a value: how many bytes into it, and what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Bytes from the start of the value.
    pub offset: usize,
    /// One sentence: what is wrong and what would be right.
    pub message: String,
}

impl Fault {
    /// A fault `offset` bytes into the value.
    pub fn new(offset: usize, message: impl Into<String>) -> Fault {
        Fault { offset, message: message.into() }
    }

    /// The same fault seen from a text in which the value begins `by` bytes in.
    pub fn shifted(self, by: usize) -> Fault {
        Fault { offset: self.offset.saturating_add(by), message: self.message }
    }
}

/// Where a setting, or an error, comes from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// A place in a file.
    File(String, Position),
    /// A file as a whole.
    WholeFile(String),
    /// A flag, as given on the command line.
    CommandLine(&'static str),
    /// An environment variable.
    Environment(&'static str),
    /// The table of keys.
    Default,
}

impl Origin {
    /// The place `offset` bytes into `text`, which begins here; what is no place in a file stays as it is.
    pub fn advanced(&self, text: &str, offset: usize) -> Origin {
        match self {
            Origin::File(name, at) => Origin::File(name.clone(), at.advanced(text, offset)),
            Origin::WholeFile(_) | Origin::CommandLine(_) | Origin::Environment(_) | Origin::Default => {
                self.clone()
            }
        }
    }

    /// In few words, for somebody who knows the file: `line 7`.
    pub fn brief(&self) -> String {
        match self {
            Origin::File(_, at) => format!("line {}", at.line),
            Origin::WholeFile(_) | Origin::CommandLine(_) | Origin::Environment(_) | Origin::Default => {
                self.to_string()
            }
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::File(name, at) => write!(f, "{name}:{}:{}", at.line, at.column),
            Origin::WholeFile(name) => f.write_str(name),
            Origin::CommandLine(flag) => write!(f, "command line {flag}"),
            Origin::Environment(name) => write!(f, "environment {name}"),
            Origin::Default => f.write_str("default"),
        }
    }
}

/// One thing wrong with the configuration. A load reports all of them at once, in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[error("{origin}: {message}")]
pub struct ConfigError {
    /// Where.
    pub origin: Origin,
    /// One sentence: what is wrong and what to do.
    pub message: String,
}

impl ConfigError {
    /// An error at `origin`.
    pub fn new(origin: Origin, message: impl Into<String>) -> ConfigError {
        ConfigError { origin, message: message.into() }
    }
}

/// Of one kind, more than that are counted: they are mended alike, and would hide all others.
const MOST_OF_A_KIND: usize = 5;

/// The first of them, `told` being all of one kind, and where the rest is: never more than one beyond
/// [`MOST_OF_A_KIND`], however many there are.
pub fn few(told: impl IntoIterator<Item = ConfigError>) -> Vec<ConfigError> {
    let mut told = told.into_iter();
    let mut few: Vec<ConfigError> = told.by_ref().take(MOST_OF_A_KIND).collect();
    let Some(next) = told.next() else { return few };
    let (count, last) = told.fold((1_usize, None), |(count, _), it| (count + 1, Some(it)));
    few.push(match last {
        None => next,
        Some(last) => {
            let message =
                format!("and {count} more like these from here on, the last in {}", last.origin.brief());
            ConfigError::new(next.origin, message)
        }
    });
    few
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_of_one_kind_the_first_are_shown_and_where_the_rest_is() {
        let told = |count| {
            let at = |line| Origin::File("f".into(), Position { line, column: 1 });
            let few = few((1..=count).map(|line| ConfigError::new(at(line), "doubtful")));
            few.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!((told(0).len(), told(5).len()), (0, 5));
        assert_eq!(told(6)[5], "f:6:1: doubtful");
        for count in [7, 100_000] {
            assert_eq!(told(count)[..5], told(5));
            let more =
                format!("f:6:1: and {} more like these from here on, the last in line {count}", count - 5);
            assert_eq!(told(count)[5..], [more]);
        }
    }

    #[test]
    fn columns_count_characters_not_bytes() {
        let start = Position { line: 3, column: 5 };
        assert_eq!(start.advanced("äöü,x", "äöü,".len()), Position { line: 3, column: 9 });
        assert_eq!(start.advanced("ab", 99), Position { line: 3, column: 7 });
    }
}
