//! What the helper says became of a request, and what the outside reads of it.
#![forbid(unsafe_code)]

use crate::control::protocol::outcome_reason;
use crate::event::ActionVerdict;
use crate::protocol::{Note, Outcome, Responses};

/// What the helper says became of a request; see [`crate::protocol::Reply::Done`].
#[derive(Clone, Debug)]
pub struct Effect {
    /// What happened.
    pub outcome: Outcome,
    /// How long the block lasts from now, seconds.
    pub seconds: u32,
    /// Which offence.
    pub offence: u16,
    /// Time it took, microseconds.
    pub micros: u32,
    /// Which responses took effect.
    pub with: Responses,
    /// The kernel's tripwire had shut the source out before.
    pub tripped: bool,
    /// Which did not, and why.
    pub notes: Vec<Note>,
}

impl Effect {
    /// What failed, in one line; where no response says so itself, why the whole did.
    pub fn reason(&self) -> Option<String> {
        reasons(&self.notes).or_else(|| outcome_reason(self.outcome))
    }
}

/// What failed, in one line.
pub fn reasons(notes: &[Note]) -> Option<String> {
    let mut reason = String::new();
    let mut last = None;
    for note in notes {
        let text = note.text();
        match last.replace((note.response, note.fault)) == Some((note.response, note.fault)) {
            true => reason.push_str(&text),
            false => {
                let between = if reason.is_empty() { "" } else { "; " };
                let colon = if text.is_empty() { "" } else { ": " };
                reason.push_str(&format!("{between}{}: {}{colon}{text}", note.response.name(), note.fault));
            }
        }
    }
    (!reason.is_empty()).then_some(reason)
}

/// The verdict that the outside reads.
pub fn verdict_of(outcome: Outcome) -> ActionVerdict {
    match outcome {
        Outcome::Blocked => ActionVerdict::Blocked,
        Outcome::AlreadyBlocked => ActionVerdict::AlreadyBlocked,
        Outcome::RefusedNeverBlock => ActionVerdict::Ignored,
        Outcome::RefusedRate | Outcome::RefusedFull => ActionVerdict::Suppressed,
        Outcome::RefusedPrefix | Outcome::Failed(_) | Outcome::NotBlocked => ActionVerdict::Failed,
        Outcome::Lifted => ActionVerdict::Lifted,
    }
}
