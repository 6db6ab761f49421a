//! What became of a block or unblock, as a sentence for whoever asked. Pure; the command line's process.
//!
//! Never says that somebody is let in or shut out of whom the daemon does not say so.
#![forbid(unsafe_code)]

use super::ClientError;
use crate::cli::status;
use crate::control::protocol::{Done, DoneVerdict};

/// What did not come of a request, in words that follow the target's name.
#[derive(Clone, Copy)]
pub(super) struct Not {
    refused: &'static str,
    /// Where it is still blocked, for how long.
    failed: fn(Option<String>) -> String,
}

pub(super) const BLOCK: Not = Not { refused: "was not blocked", failed: not_blocked };
pub(super) const UNBLOCK: Not = Not { refused: "was not unblocked, and is as it was", failed: not_undone };
const UNBLOCK_ALL: Not = Not { refused: "that was blocked is so still", failed: not_flushed };

fn not_blocked(_: Option<String>) -> String {
    "was not blocked".to_owned()
}

fn not_undone(left: Option<String>) -> String {
    match left {
        Some(time) => format!("could not be let in and is still blocked, for {time}"),
        None => {
            "is not listed as blocked any more, but something of its block could not be taken back and may \
             still shut it out; unblock can be asked again"
                .to_owned()
        }
    }
}

fn not_flushed(left: Option<String>) -> String {
    match left {
        Some(_) => "that was blocked is still taken for blocked: the kernel would not lift them all",
        None => {
            "is listed as blocked no more, but something of a block could not be taken back and may still shut its source \
             out; unblock all can be asked again"
        }
    }
    .to_owned()
}

/// That nobody was blocked is what was wanted; of one address it may be a mistyped name.
pub(super) fn emptied(done: Done) -> Result<String, ClientError> {
    match done.verdict == DoneVerdict::NotBlocked {
        true => Ok("nobody is blocked\n".to_owned()),
        false => outcome("Every source", done, UNBLOCK_ALL),
    }
}

pub(super) fn outcome(target: &str, done: Done, not: Not) -> Result<String, ClientError> {
    let time = status::duration(u64::from(done.seconds));
    let why = done.error.unwrap_or_default();
    match done.verdict {
        DoneVerdict::Blocked => Ok(format!("{target} is blocked for {time}\n")),
        DoneVerdict::AlreadyBlocked => Ok(format!("{target} was blocked already\n")),
        DoneVerdict::Lifted if why.is_empty() => Ok(format!("{target} is no longer blocked\n")),
        DoneVerdict::Lifted => Ok(format!("{target} is no longer blocked by portsentry-rs. {why}\n")),
        DoneVerdict::NotBlocked if !why.is_empty() => {
            Err(ClientError::Refused(format!("{target} is not blocked by itself. {why}")))
        }
        DoneVerdict::NotBlocked => {
            Err(ClientError::Refused(format!("{target} is not blocked; see portsentry-rs list")))
        }
        DoneVerdict::Refused => Err(ClientError::Refused(format!("{target} {}. {why}", not.refused))),
        DoneVerdict::Failed => {
            let left = (done.seconds > 0).then_some(time);
            Err(ClientError::Refused(format!("{target} {}. {why}", (not.failed)(left))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Outcome;

    #[test]
    fn outcomes_read_as_sentences() {
        let text = |outcome, seconds| outcome_text(Done::new(outcome, seconds, 1));
        fn outcome_text(done: Done) -> String {
            outcome("10.0.0.1", done, UNBLOCK).unwrap_or_else(|error| error.to_string())
        }
        assert_eq!(text(Outcome::Blocked, 3600), "10.0.0.1 is blocked for 1h 0m\n");
        assert_eq!(text(Outcome::Lifted, 0), "10.0.0.1 is no longer blocked\n");
        assert_eq!(
            text(Outcome::Failed(13), 3600),
            "10.0.0.1 could not be let in and is still blocked, for 1h 0m. The system refused: Permission denied (os error 13)"
        );
        assert!(text(Outcome::Failed(13), 0).starts_with("10.0.0.1 is not listed as blocked any more, but "));
        let refused =
            |target, refusal, not| outcome(target, Done::new(refusal, 0, 0), not).unwrap_err().to_string();
        assert_eq!(
            refused("10.0.0.1", Outcome::RefusedNeverBlock, BLOCK),
            "10.0.0.1 was not blocked. It overlaps the never-block set."
        );
        let rate = "Too much was asked for in this minute; try again later.";
        assert_eq!(
            refused("10.0.0.1", Outcome::RefusedRate, UNBLOCK),
            format!("10.0.0.1 was not unblocked, and is as it was. {rate}")
        );
        assert_eq!(
            refused("Every source", Outcome::RefusedRate, UNBLOCK_ALL),
            format!("Every source that was blocked is so still. {rate}")
        );
    }
}
