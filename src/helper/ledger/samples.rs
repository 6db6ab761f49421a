//! Targets and blocks for the tests of this room.
#![forbid(unsafe_code)]

use std::net::IpAddr;
use std::ops::Range;

use ipnet::IpNet;

use crate::helper::escalation::Block;
use crate::protocol::Responses;

pub(super) fn block(offence: u16) -> Block {
    Block {
        since: 1_700_000_000_000,
        until: 1_700_000_060_000,
        offence,
        with: Responses::NONE,
        owed: Responses::NONE,
    }
}

/// Targets by number, each with a block that ends later than those before.
pub(super) fn record(targets: Range<u32>) -> impl Iterator<Item = (IpNet, Block)> {
    let of = |at: u32| IpNet::from(IpAddr::from((0x0b00_0000 + at).to_be_bytes()));
    targets.map(move |at| (of(at), Block { until: block(1).until + u64::from(at), ..block(1) }))
}
