//! One line of the ledger: a target and what is held against it, as a JSON object. Pure; the helper's.
//!
//! Total: any bytes are a line or none, and one that blocks wider or longer than the helper itself would is none.
#![forbid(unsafe_code)]

use std::io::{self, Write};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::helper::authorise::widest;
use crate::helper::escalation::{Block, LONGEST};
use crate::protocol::Responses;

/// Longest line that is read; our longest is about 130 bytes.
pub(super) const MAX_LINE: usize = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Line {
    pub(super) target: IpNet,
    since: u64,
    until: u64,
    pub(super) offence: u16,
    /// Absent in ledgers of builds that knew nftables alone.
    #[serde(default, skip_serializing_if = "Responses::is_empty")]
    with: Responses,
    /// Absent in ledgers of builds that forgot it.
    #[serde(default, skip_serializing_if = "Responses::is_empty")]
    owed: Responses,
}

impl Line {
    pub(super) fn block(self) -> Block {
        let Line { target: _, since, until, offence, with, owed } = self;
        Block { since, until, offence, with, owed }
    }
}

/// With its end.
pub(super) fn write(out: &mut impl Write, target: IpNet, block: Block) -> io::Result<()> {
    let Block { since, until, offence, with, owed } = block;
    serde_json::to_writer(&mut *out, &Line { target, since, until, offence, with, owed })?;
    out.write_all(b"\n")
}

/// Without its end.
pub(super) fn parse(line: &[u8]) -> Option<Line> {
    let line: Line = serde_json::from_slice(line).ok()?;
    let length = line.until.checked_sub(line.since)?;
    let sound = line.target == line.target.trunc()
        && line.target.prefix_len() >= widest(&line.target)
        && length <= LONGEST;
    sound.then_some(line)
}
