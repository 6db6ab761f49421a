//! Which errors were told of a moment ago, so that one that comes back again and again does not fill the log.
//!
//! Pure, both roles; the time is passed in. Remembers a handful: must neither grow nor keep a new error back.
#![forbid(unsafe_code)]

use std::collections::VecDeque;

/// The same error is told again only after this long, milliseconds.
const AGAIN_AFTER: u64 = 60_000;

/// So many different ones are remembered, the latest.
const REMEMBERED: usize = 8;

/// What was told, and when (milliseconds of uptime), oldest first.
#[derive(Debug, Default)]
pub struct Repeats(VecDeque<(String, u64)>);

impl Repeats {
    /// Whether `error` is to be told at `now`; if so, it counts as told.
    pub fn are_over(&mut self, error: &str, now: u64) -> bool {
        self.0.retain(|(_, told)| now.saturating_sub(*told) < AGAIN_AFTER);
        if self.0.iter().any(|(text, _)| text == error) {
            return false;
        }
        if self.0.len() == REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back((error.to_owned(), now));
        true
    }

    /// What begins so is over: should it come again, that is news.
    pub fn forget(&mut self, beginning: &str) {
        self.0.retain(|(text, _)| !text.starts_with(beginning));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_that_take_turns_are_told_once_a_minute_each() {
        let mut repeats = Repeats::default();
        let mut told = Vec::new();
        for now in (0..180_000).step_by(100) {
            for error in ["one", "another"] {
                if repeats.are_over(error, now) {
                    told.push((error, now));
                }
            }
        }
        let each_minute = [0, 60_000, 120_000].map(|now| [("one", now), ("another", now)]);
        assert_eq!(told, each_minute.concat());
    }

    #[test]
    fn what_was_over_is_told_when_it_begins_again() {
        let mut repeats = Repeats::default();
        let mut are_over = |error: &str, forgotten: &str| {
            repeats.forget(forgotten);
            repeats.are_over(error, 1)
        };
        let told = [are_over("disk full", "-"), are_over("disk full", "-"), are_over("disk full", "disk")];
        assert_eq!(told, [true, false, true]);
        assert!(!are_over("disk full", "another"));
    }

    #[test]
    fn a_new_error_is_always_told_and_no_more_are_remembered_than_a_handful() {
        let mut repeats = Repeats::default();
        for number in 0..1_000 {
            assert!(repeats.are_over(&number.to_string(), 0));
            assert!(!repeats.are_over(&number.to_string(), AGAIN_AFTER - 1));
        }
        assert_eq!(repeats.0.len(), REMEMBERED);
    }
}
