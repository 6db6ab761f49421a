//! Configuration text → assignments `KEY = value`, each with its exact place.
//!
//! Pure and total: any bytes yield assignments and faults, never a panic. Knows no key and no meaning of a value.
//!
//! A line is empty, a comment (`#` first), or `KEY="value"` with the key in the first column and blanks allowed round
//! `=`. The value goes to the next `"`; what stands after it is skipped, and noted unless it is a comment. PortSentry
//! 1.2's files also hold values in single quotes or in none; a value without quotes goes to a blank and `#`, or to the
//! end of the line.
#![forbid(unsafe_code)]

use super::error::{Fault, Position};

/// One `KEY = value` as written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Assignment<'a> {
    /// The key.
    pub key: &'a str,
    /// Where the key begins.
    pub key_at: Position,
    /// The value without its quotes.
    pub value: &'a str,
    /// Where the value begins, inside its quotes.
    pub value_at: Position,
    /// Where text follows that PortSentry skips: neither value nor comment.
    pub skipped_at: Option<Position>,
}

/// A line that cannot be read: where and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// Where.
    pub at: Position,
    /// One sentence.
    pub message: String,
}

/// Every assignment of `bytes` in order, and every line that is none.
pub fn assignments(bytes: &[u8]) -> (Vec<Assignment<'_>>, Vec<Unreadable>) {
    let (mut found, mut unreadable) = (Vec::new(), Vec::new());
    for (at, line) in lines(bytes) {
        match readable(line).and_then(|line| assignment(line, at)) {
            Ok(None) => {}
            Ok(Some(assignment)) => found.push(assignment),
            Err(fault) => {
                let shown = String::from_utf8_lossy(line.get(..fault.offset).unwrap_or(line));
                let at = at.advanced(&shown, shown.len());
                unreadable.push(Unreadable { at, message: fault.message });
            }
        }
    }
    (found, unreadable)
}

/// The lines of `bytes` without their ends (LF or CRLF) and without a byte order mark, with the place of each.
pub(super) fn lines(bytes: &[u8]) -> impl Iterator<Item = (Position, &[u8])> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let lines = bytes.split(|&byte| byte == b'\n').enumerate();
    lines.map(|(at, line)| (Position { line: at + 1, column: 1 }, line.strip_suffix(b"\r").unwrap_or(line)))
}

/// The line as text; comments may hold any bytes (1.2's files carry Latin-1 in theirs) and read as empty.
pub(super) fn readable(line: &[u8]) -> Result<&str, Fault> {
    if line.trim_ascii_start().first() == Some(&b'#') {
        return Ok("");
    }
    let text = std::str::from_utf8(line).map_err(|error| {
        Fault::new(error.valid_up_to(), "this byte is not UTF-8 text; save the file as UTF-8")
    })?;
    match text.char_indices().find(|&(_, c)| c.is_control() && c != '\t') {
        Some((at, c)) => Err(Fault::new(at, format!("control character {c:?}; delete it"))),
        None => Ok(text),
    }
}

fn assignment(line: &str, start: Position) -> Result<Option<Assignment<'_>>, Fault> {
    if line.trim_start_matches(BLANKS).is_empty() {
        return Ok(None);
    }
    let (key, rest) = line.split_at(line.find(|c: char| !is_key_character(c)).unwrap_or(line.len()));
    if key.is_empty() {
        return Err(Fault::new(0, "expected KEY=\"value\" beginning in the first column, or a # comment"));
    }
    let equals = line.len() - rest.trim_start_matches(BLANKS).len();
    let Some(after) = line.get(equals..).and_then(|text| text.strip_prefix('=')) else {
        return Err(Fault::new(equals, format!("expected = after {key}")));
    };
    let begin = line.len() - after.trim_start_matches(BLANKS).len();
    let value = line.get(begin..).unwrap_or("");
    let Found { offset, value, skipped } = unquoted(value).map_err(|fault| fault.shifted(begin))?;
    let value_at = start.advanced(line, begin + offset);
    let skipped_at = skipped.map(|offset| start.advanced(line, begin + offset));
    Ok(Some(Assignment { key, key_at: start, value, value_at, skipped_at }))
}

const BLANKS: [char; 2] = [' ', '\t'];

/// Wider than a right key, so that a wrong one is read whole and can be answered with the nearest right one.
fn is_key_character(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.')
}

/// A value and how many bytes in it begins; likewise text after it, if there is any.
struct Found<'a> {
    offset: usize,
    value: &'a str,
    skipped: Option<usize>,
}

fn unquoted(text: &str) -> Result<Found<'_>, Fault> {
    match text.chars().next() {
        Some(quote @ ('"' | '\'')) => quoted(text, quote),
        _ => Ok(Found { offset: 0, value: bare(text)?, skipped: None }),
    }
}

/// With a third quote nobody knows where the value was meant to end, and half a command is worse than none.
fn quoted(text: &str, quote: char) -> Result<Found<'_>, Fault> {
    let Some((value, after)) = text.get(1..).and_then(|inner| inner.split_once(quote)) else {
        return Err(Fault::new(0, format!("this quote is not closed; end the value with {quote}")));
    };
    let trailing = after.trim_start_matches(BLANKS);
    let at = text.len() - trailing.len();
    let is_comment = trailing.is_empty() || trailing.starts_with('#');
    if is_comment || !trailing.contains(quote) {
        return Ok(Found { offset: 1, value, skipped: (!is_comment).then_some(at) });
    }
    let message = format!(
        "text after the closing quote; a value ends at the first {quote}, so use the other kind of quote inside it"
    );
    Err(Fault::new(at, message))
}

fn bare(text: &str) -> Result<&str, Fault> {
    let comment = text.char_indices().find(|&(at, c)| {
        c == '#' && text.get(..at).is_none_or(|before| before.is_empty() || before.ends_with(BLANKS))
    });
    let value = comment.and_then(|(at, _)| text.get(..at)).unwrap_or(text).trim_end_matches(BLANKS);
    match value.find('"') {
        Some(at) => Err(Fault::new(at, "stray quote; put the whole value in quotes")),
        None => Ok(value),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn one(text: &str) -> (String, String, usize) {
        let (found, unreadable) = assignments(text.as_bytes());
        assert_eq!((found.len(), unreadable.len()), (1, 0), "{text:?} {unreadable:?}");
        (found[0].key.into(), found[0].value.into(), found[0].value_at.column)
    }

    fn fault(bytes: &[u8]) -> (usize, usize, String) {
        let (found, unreadable) = assignments(bytes);
        assert_eq!((found.len(), unreadable.len()), (0, 1), "{found:?}");
        (unreadable[0].at.line, unreadable[0].at.column, unreadable[0].message.clone())
    }

    #[test]
    fn every_way_to_write_an_assignment_is_read() {
        for (text, value, column) in [
            ("K=\"a b\"", "a b", 4),
            ("K = \"a b\"  \t", "a b", 6),
            ("K\t=\t\"a#b\"# comment", "a#b", 6),
            ("K=\"a\" # \"comment\"\r\n", "a", 4),
            ("\u{feff}K=\"a\"", "a", 4),
            ("K=a b", "a b", 3),
            ("K=a#b # comment", "a#b", 3),
            ("K= a\t", "a", 4),
            ("K='say \"hi\"'", "say \"hi\"", 4),
            ("K=\"\"", "", 4),
            ("K=", "", 3),
            ("K= # nothing", "", 4),
            ("\n\n# comment\n  # comment\n\t\nK=\"ä\"\n", "ä", 4),
            ("# Latin-1 \u{e9}\nK=\"a\"", "a", 4),
        ] {
            assert_eq!(one(text), ("K".into(), value.into(), column), "{text:?}");
        }
    }

    #[test]
    fn what_stands_after_the_closing_quote_is_skipped_and_noted_unless_it_is_a_comment() {
        for (line, skipped) in [
            ("K=\"v\";", Some(6)),
            ("K=\"v\" x", Some(7)),
            ("K='v' \"x\"", Some(7)),
            ("K=\"v\" # \"x\"", None),
        ] {
            let (found, unreadable) = assignments(line.as_bytes());
            assert!(unreadable.is_empty(), "{line}");
            assert_eq!((found[0].value, found[0].skipped_at.map(|at| at.column)), ("v", skipped), "{line}");
        }
    }

    #[test]
    fn a_line_that_is_no_assignment_is_refused_where_it_goes_wrong() {
        for (bytes, line, column, words) in [
            (&b"\nK\n"[..], 2, 2, "expected ="),
            (b"K \"x\"", 1, 3, "expected ="),
            (b" K=\"x\"", 1, 1, "first column"),
            (b"=\"x\"", 1, 1, "first column"),
            (b"K=\"x", 1, 3, "not closed"),
            (b"K=\"\xc3\xa4\" \"y\"", 1, 7, "after the closing quote"),
            (b"K=1,2\"", 1, 6, "stray quote"),
            (b"K=\"\xc3\xa4\xff\"", 1, 5, "not UTF-8"),
            (b"K=\"a\0b\"", 1, 5, "control character"),
            (b"K=\"a\"\rL=\"b\"", 1, 6, "control character"),
        ] {
            let (l, c, message) = fault(bytes);
            assert_eq!((l, c), (line, column), "{message}");
            assert!(message.contains(words), "{message}");
        }
    }

    #[test]
    fn comments_may_hold_any_bytes() {
        assert_eq!(assignments(b"# \xe9\xff\0\n"), (vec![], vec![]));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_and_every_place_exists(bytes: Vec<u8>) {
            let (found, unreadable) = assignments(&bytes);
            let lines = bytes.split(|&byte| byte == b'\n').count();
            prop_assert!(found.iter().all(|a| a.value_at.line <= lines && !a.key.is_empty()));
            prop_assert!(unreadable.iter().all(|u| u.at.line >= 1 && u.at.line <= lines && u.at.column >= 1));
        }

        #[test]
        fn config_like_text_never_makes_it_panic(text in "([A-Z_=\"' #\t\r\n]|ä){0,60}") {
            assignments(text.as_bytes());
        }

        #[test]
        fn a_quoted_value_comes_back_whole(value in "[^\"\\p{Cc}]*") {
            prop_assert_eq!(one(&format!("KEY=\"{value}\"")).1, value);
        }
    }
}
