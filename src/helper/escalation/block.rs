//! One block: its time, which offence it answers, and what responses it has. Pure; helper.
//!
//! What its end is to take back never gets lost with it: whoever forgets a block looks at what [remains](Block::remains).
#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};

use crate::protocol::{Response, Responses};

/// A block: in force while `since <= now < until`. It is also a line of the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// When it began.
    pub since: u64,
    /// When it ends.
    pub until: u64,
    /// Which offence of this source it answers, from 1.
    pub offence: u16,
    /// What is in force, or was and has not been taken back yet.
    #[serde(default, skip_serializing_if = "Responses::is_empty")]
    pub with: Responses,
    /// What an earlier block, or a failed attempt of this one, may have left behind: nobody claims that it is in force,
    /// but this one's end, by time or by hand, takes it back. Nothing that `with` has.
    #[serde(default, skip_serializing_if = "Responses::is_empty")]
    pub owed: Responses,
}

impl Block {
    /// Nobody's offence, over at `now`.
    pub fn nothing(now: u64) -> Block {
        Block { since: now, until: now, offence: 0, with: Responses::NONE, owed: Responses::NONE }
    }

    /// Milliseconds left at `now`.
    pub fn left(&self, now: u64) -> u64 {
        self.until.saturating_sub(now)
    }

    /// Moves its times by `step` milliseconds.
    pub fn shift(&mut self, step: i64) {
        self.since = self.since.saturating_add_signed(step);
        self.until = self.until.saturating_add_signed(step);
    }

    /// Whether nothing but KILL_RUN_CMD answered (BLOCK_*=2): it is told as blocked, and shut out of nothing.
    pub fn is_run_only(&self) -> bool {
        self.with.is_run_only()
    }

    /// What its end is to take back.
    pub fn to_end(&self) -> Responses {
        self.with.and(self.owed)
    }

    /// What outlasts the block, and this program too, until it is taken back.
    pub fn remains(&self) -> Responses {
        self.to_end().among(Responses::from(Response::HostsDeny).and(Response::Command))
    }

    /// What is remembered once it is over at `now`.
    pub(super) fn over(self, now: u64) -> Block {
        let (since, until) = (self.since.min(now), self.until.min(now));
        Block { since, until, with: self.remains(), owed: Responses::NONE, ..self }
    }
}
