//! Blocks and ends of blocks that take several steps: what is in force before one of them, and when they end. Tests.
#![forbid(unsafe_code)]

use super::*;
use crate::detect::probe::Protocol;
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

#[test]
fn a_set_clock_leaves_a_block_on_its_way_the_time_that_is_left() {
    let (mut jobs, target) = (Jobs::default(), "192.0.2.7/32".parse().unwrap());
    let block = |since, until| Block { since, until, offence: 1, with: Responses::NONE };
    let grant = Grant {
        id: 1,
        target,
        block: block(1_000, 5_000),
        port: 22,
        protocol: Protocol::Tcp,
        tripped: false,
        run_only: false,
    };
    jobs.push(Job::new(Purpose::Block(grant), target, VecDeque::new()));
    jobs.shift(-900);
    assert_eq!(jobs.abandon(|_| true).first().map(|grant| grant.block), Some(block(100, 4_100)));
}
