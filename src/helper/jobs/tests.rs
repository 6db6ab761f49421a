//! Blocks and ends of blocks that take several steps: what is in force before one of them, and when they end. Tests.
#![forbid(unsafe_code)]

use super::*;
use crate::detect::probe::Protocol;
use crate::helper::escalation::{Block, Terms};
use crate::helper::steps::tests::{that_fill_a_set, that_run};

fn grant(target: IpNet, since: u64, until: u64) -> Grant {
    let block = Block { since, until, offence: 1, with: Responses::NONE, owed: Responses::NONE };
    Grant { id: 1, target, block, port: 22, protocol: Protocol::Tcp, tripped: false, run_only: false }
}

#[test]
fn a_line_that_outlasted_its_block_is_ours_and_a_command_that_did_is_run_anew() {
    let mut record = Escalation::new(Terms { first: 1_000, longest: 1_000, factor: 1 });
    let target: IpNet = "192.0.2.7/32".parse().unwrap();
    let with = Responses::from(Response::HostsDeny).and(Response::Command);
    record.remember(target, Block { since: 0, until: 5, offence: 1, with, owed: Responses::NONE }, 5);
    let job = Job::new(Purpose::Renew, target, VecDeque::new());
    let in_force = |response: Response| job.before(Step::Do(response), &record, 9).contains(response);
    assert!(in_force(Response::HostsDeny) && !in_force(Response::Command));
}

#[test]
fn a_set_clock_leaves_a_block_on_its_way_the_time_that_is_left() {
    let (mut jobs, target) = (Jobs::default(), "192.0.2.7/32".parse().unwrap());
    jobs.push(Job::new(Purpose::Block(grant(target, 1_000, 5_000)), target, VecDeque::new()));
    jobs.shift(-900);
    assert_eq!(
        jobs.abandon(|_| true).first().map(|grant| grant.block),
        Some(grant(target, 100, 4_100).block)
    );
}

#[test]
fn an_unblock_waits_for_the_block_that_it_overtook_and_fails_where_that_cannot_be_undone() {
    let record = Escalation::new(Terms { first: 1_000, longest: 1_000, factor: 1 });
    let [target, other] = ["192.0.2.7/32", "192.0.2.8/32"].map(|it| it.parse::<IpNet>().unwrap());
    for (unblock_cmd, fails) in [("exit 3 # $TARGET$", true), ("true $TARGET$", false)] {
        let (mut jobs, mut steps) = (Jobs::default(), that_run("sleep 60 # $TARGET$", unblock_cmd));
        jobs.push(Job::new(Purpose::Block(grant(target, 0, 5_000)), target, steps.to_block(false)));
        assert!(jobs.advance(&mut steps, &record, 0).is_empty());
        assert_eq!(jobs.abandon(|_| true).len(), 1);
        for target in [target, other] {
            jobs.push(Job::new(Purpose::Lift(Some(Asked { id: 2, found: true })), target, VecDeque::new()));
        }
        let mut done = Vec::new();
        while !jobs.is_empty() {
            done.extend(jobs.advance(&mut steps, &record, 0));
        }
        let what = |job: &Job| (job.purpose == Purpose::Abandoned, job.target, job.failed());
        let failed = if fails { Responses::from(Response::Command) } else { Responses::NONE };
        let expected = [(false, other, Responses::NONE), (true, target, failed), (false, target, failed)];
        assert_eq!(done.iter().map(what).collect::<Vec<_>>(), expected);
    }
}

#[test]
fn a_block_that_is_given_up_undoes_what_it_could_not_undo_before_or_fails_anew() {
    let record = Escalation::new(Terms { first: 1_000, longest: 1_000, factor: 1 });
    let (folder, target) = (tempfile::tempdir().unwrap(), "192.0.2.7/32".parse().unwrap());
    let mended = folder.path().join("mended");
    let mut steps = that_run("true", &format!("test -e {} # $TARGET$", mended.display()));
    let command = Responses::from(Response::Command);
    for mends in [false, true] {
        let left = [Step::Undo(Response::Command), Step::Do(Response::RunCommand)];
        let mut job = Job::new(Purpose::Block(grant(target, 0, 5_000)), target, left.into());
        let mut go_on = |job: &mut Job| {
            job.go_on(&mut steps, &record, 0, true);
            job.look(&mut steps, Instant::now());
        };
        while job.kept.is_empty() {
            go_on(&mut job);
        }
        go_on(&mut job);
        assert!(job.is_unsettled() && job.failed() == command);
        job.give_up();
        if mends {
            std::fs::write(&mended, "").unwrap();
        }
        while !job.is_done() {
            go_on(&mut job);
        }
        let (undone, kept) = if mends { (command, Responses::NONE) } else { (Responses::NONE, command) };
        assert_eq!((job.undone, job.kept, job.failed()), (undone, kept, kept));
    }
}

#[test]
fn a_renewal_that_fails_leaves_in_the_set_what_was_there_and_another_block_nothing() {
    let record = Escalation::new(Terms { first: 1_000, longest: 1_000, factor: 1 });
    let [there, new] = ["192.0.2.7/32", "192.0.2.8/32"].map(|it| it.parse::<IpNet>().unwrap());
    let mut steps = that_fill_a_set();
    steps.took(Response::Iptables, there, true);
    for (target, is_there) in [(there, true), (new, false)] {
        for fault in [Fault::Busy, Fault::Exit(1), Fault::Hung(10)] {
            let step = Step::Do(Response::Iptables);
            let mut job = Job::new(Purpose::Block(grant(target, 0, 5_000)), target, [step].into());
            job.without_programs = fault == Fault::Busy;
            match job.without_programs {
                true => job.go_on(&mut steps, &record, 0, true),
                false => {
                    job.is_new = steps.took(Response::Iptables, target, true);
                    job.steps.clear();
                    job.settle(step, Err(Failure { fault, text: String::new() }), &mut steps);
                }
            }
            assert!(job.failed().contains(Response::Iptables));
            // Of a new one that was cut short nobody knows how far it came.
            let undoes = fault == Fault::Hung(10) && !is_there;
            assert_eq!(job.steps.contains(&Step::Undo(Response::Iptables)), undoes, "{target} {fault}");
            let has = !steps.to_lift(&target, Responses::NONE, false).is_empty();
            assert_eq!(has, is_there || undoes, "{target} {fault}");
        }
    }
}

#[test]
fn the_end_of_a_block_takes_nothing_from_one_that_was_renewed_before_its_turn() {
    let target = "192.0.2.7/32".parse().unwrap();
    let [iptables, command] = [Response::Iptables, Response::Command].map(Responses::from);
    for (with, mut steps) in [(iptables, that_fill_a_set()), (command, that_run("true", "exit 3 # $TARGET$"))]
    {
        for (renewed, asked) in [(true, None), (false, None), (true, Some(Asked { id: 2, found: true }))] {
            let mut record = Escalation::new(Terms { first: 1_000, longest: 1_000, factor: 1 });
            let old = Block { since: 0, until: 14, offence: 1, with, owed: Responses::NONE };
            record.enter(target, old);
            assert_eq!(record.expire(14).len(), 1);
            let undo = with.iter().map(Step::Undo).collect();
            let mut job = Job::new(Purpose::Lift(asked), target, undo);
            if renewed {
                record.enter(target, Block { since: 14, until: 600, ..old });
            }
            job.go_on(&mut steps, &record, 16, true);
            let stays = renewed && asked.is_none();
            let ran = job.running.is_some() || !job.failures.is_empty();
            assert_eq!((ran, job.undone), (!stays, Responses::NONE), "{with:?} {renewed} {asked:?}");
        }
    }
}

#[test]
fn a_command_that_an_ended_block_ran_is_not_run_again_by_the_renewal_that_waited_nor_undone_behind_it() {
    let target = "192.0.2.7/32".parse().unwrap();
    let command = Responses::from(Response::Command);
    // What nobody claimed is none that could be taken over: it is run, and what is left behind goes with it.
    for (was_in_force, fault) in [(command, None), (Responses::NONE, Some(Fault::Exit(3)))] {
        let mut record = Escalation::new(Terms { first: 1_000, longest: 1_000, factor: 1 });
        record.remember(target, Block { with: command, ..grant(target, 0, 14).block }, 14);
        let (mut jobs, mut steps) = (Jobs::default(), that_run("exit 3 # $TARGET$", "sleep 60 # $TARGET$"));
        let renewal = Job::new(Purpose::Block(grant(target, 10, 600)), target, steps.to_block(false));
        let mut end = Job::new(Purpose::Lift(None), target, [Step::Undo(Response::Command)].into());
        end.with = was_in_force;
        jobs.push(renewal);
        jobs.push(end);
        let mut done = Vec::new();
        while done.is_empty() {
            done = jobs.advance(&mut steps, &record, 16);
        }
        let [renewed] = &done[..] else { panic!("{done:?}") };
        assert_eq!((renewed.with, renewed.failures.first().map(|it| it.1.fault)), (was_in_force, fault));
        if fault.is_none() {
            record.enter(target, Block { with: renewed.with, ..grant(target, 10, 600).block });
            assert_eq!(jobs.advance(&mut steps, &record, 16).len(), 1);
            assert!(jobs.is_empty() && record.in_force(&target, 16) == command);
        }
    }
}

#[test]
fn what_a_block_that_is_given_up_has_undone_the_end_of_an_earlier_one_does_not_undo_again() {
    let record = Escalation::new(Terms { first: 1_000, longest: 1_000, factor: 1 });
    let (folder, target) = (tempfile::tempdir().unwrap(), "192.0.2.7/32".parse().unwrap());
    for has_begun in [true, false] {
        let undone = folder.path().join(format!("undone-{has_begun}"));
        let unblock_cmd = format!("echo $TARGET$ >> {}", undone.display());
        let (mut jobs, mut steps) = (Jobs::default(), that_run("sleep 60 # $TARGET$", &unblock_cmd));
        jobs.push(Job::new(Purpose::Block(grant(target, 0, 5_000)), target, steps.to_block(false)));
        if has_begun {
            assert!(jobs.advance(&mut steps, &record, 0).is_empty());
        }
        jobs.abandon(|_| true);
        jobs.push(Job::new(Purpose::Lift(None), target, [Step::Undo(Response::Command)].into()));
        while !jobs.is_empty() {
            jobs.advance(&mut steps, &record, 0);
        }
        assert_eq!(std::fs::read_to_string(undone).unwrap().lines().count(), 1, "begun: {has_begun}");
    }
}

#[test]
fn a_stop_leaves_to_the_next_start_the_renewals_that_wait_and_ends_those_that_run() {
    let mut record = Escalation::new(Terms { first: 9_000, longest: 9_000, factor: 1 });
    let (mut jobs, mut steps) = (Jobs::default(), that_run("true # $TARGET$", "true $TARGET$"));
    for host in 0..200_u8 {
        let target = IpNet::from(std::net::IpAddr::from([192, 0, 2, host]));
        let with = Responses::from(Response::Nftables);
        record.enter(target, Block { with, ..grant(target, 0, 9_000).block });
        jobs.push(Job::new(Purpose::Renew, target, [Step::Do(Response::Command)].into()));
    }
    assert!(jobs.advance(&mut steps, &record, 1).is_empty());
    jobs.drop_renewals();
    let mut done = 0;
    while !jobs.is_empty() {
        done += jobs.advance(&mut steps, &record, 1).len();
    }
    assert_eq!(done, AT_ONCE);
}

#[test]
fn of_more_blocks_than_may_wait_the_last_runs_no_program_and_says_so() {
    let record = Escalation::new(Terms { first: 9_000, longest: 9_000, factor: 1 });
    let (mut jobs, mut steps) = (Jobs::default(), that_run("sleep 60 # $TARGET$", "true $TARGET$"));
    let target = |host: usize| IpNet::from(std::net::IpAddr::from([192, 0, 2, host as u8]));
    for host in 0..=WAITING {
        let purpose = Purpose::Block(grant(target(host), 0, 9_000));
        jobs.push(Job::new(purpose, target(host), steps.to_block(false)));
    }
    let done = jobs.advance(&mut steps, &record, 0);
    let busy = |job: &Job| (job.target, job.failures.iter().map(|it| it.1.fault).collect::<Vec<_>>());
    assert_eq!(done.iter().map(busy).collect::<Vec<_>>(), [(target(WAITING), vec![Fault::Busy])]);
    jobs.push(Job::new(Purpose::Lift(None), target(200), [Step::Undo(Response::Command)].into()));
    assert!(jobs.is_ending(&target(200)) && !jobs.is_ending(&target(0)));
}
