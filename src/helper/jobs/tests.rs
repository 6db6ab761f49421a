//! Blocks and ends of blocks that take several steps: what is in force before one of them. Tests.
#![forbid(unsafe_code)]

use super::*;
use crate::helper::escalation::{Block, Terms};

#[test]
fn a_line_that_outlasted_its_block_is_ours_and_a_command_that_did_is_run_anew() {
    let mut record = Escalation::new(Terms { first: 1_000, longest: 1_000, factor: 1 });
    let target: IpNet = "192.0.2.7/32".parse().unwrap();
    let with = Responses::NONE.and(Response::HostsDeny).and(Response::Command);
    record.remember(target, Block { since: 0, until: 5, offence: 1, with }, 5);
    let job = Job::new(Purpose::Renew, target, VecDeque::new());
    let in_force = |response: Response| job.before(Step::Do(response), &record, 9).contains(response);
    assert!(in_force(Response::HostsDeny) && !in_force(Response::Command));
}
