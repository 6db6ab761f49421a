//! What becomes of a request, and of what a ledger held. Tests.
#![forbid(unsafe_code)]

use super::super::escalation::Terms;
use super::*;

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

/// Nothing is on its way.
const IDLE: Underway<'_> = Underway { granted: 0, is_ending: &|_, _| false };

fn core() -> Core {
    let terms = Terms { first: 60_000, longest: 600_000, factor: 2 };
    let authority = Authority::new(vec![net("10.0.0.0/8")], 32_768, 0);
    Core { authority, escalation: Escalation::new(terms) }
}

fn at(seconds: u64) -> Now {
    Now { utc: 1_000_000 + seconds * 1000, uptime: seconds * 1000 }
}

fn ask(target: &str, seconds: u32) -> Request {
    let (target, protocol) = (net(target), Protocol::Tcp);
    Request::Block { id: 1, target, seconds, port: 22, protocol, verified: true, run_only: false }
}

/// Decides and, like the kernel that takes everything, enters what was granted.
fn block(core: &mut Core, target: &str, seconds: u32, now: Now) -> Result<Grant, Outcome> {
    match core.decide(&ask(target, seconds), &IDLE, now) {
        Action::Block(grant) => {
            core.escalation.enter(grant.target, grant.block);
            Ok(grant)
        }
        Action::Answer(Reply::Done { outcome, .. }) => Err(outcome),
        other @ (Action::Answer(_)
        | Action::Unblock { .. }
        | Action::List { .. }
        | Action::Flush { .. }
        | Action::Protect { .. }
        | Action::Traps { .. }
        | Action::Spare { .. }
        | Action::Pong { .. }
        | Action::Stop { .. }) => panic!("{other:?}"),
    }
}

#[test]
fn a_source_is_blocked_once_and_a_repeat_is_told_what_is_left() {
    let mut core = core();
    let grant = block(&mut core, "192.0.2.1/32", 0, at(0)).unwrap();
    assert_eq!(grant.block.until - grant.block.since, 60_000);
    let again = core.decide(&ask("192.0.2.1/32", 0), &IDLE, at(20));
    let reply = Reply::Done {
        id: 1,
        outcome: Outcome::AlreadyBlocked,
        seconds: 40,
        offence: 1,
        micros: 0,
        with: Responses::NONE,
        tripped: false,
    };
    assert_eq!(again, Action::Answer(reply));
    assert_eq!(block(&mut core, "192.0.2.1/32", 0, at(60)).unwrap().block.offence, 2);
}

#[test]
fn a_block_that_is_being_lifted_covers_nobody_and_one_around_it_still_does() {
    let mut core = core();
    block(&mut core, "2001:db8::1/128", 0, at(0)).unwrap();
    let lifting = |target: &IpNet, _: &Block| *target == net("2001:db8::1/128");
    let underway = Underway { granted: 0, is_ending: &lifting };
    let again = ask("2001:db8::1/128", 0);
    assert!(matches!(core.decide(&again, &underway, at(1)), Action::Block(_)));
    block(&mut core, "2001:db8::/64", 0, at(1)).unwrap();
    let Action::Answer(Reply::Done { outcome, .. }) = core.decide(&again, &underway, at(2)) else {
        panic!("no answer")
    };
    assert_eq!(outcome, Outcome::AlreadyBlocked);
}

#[test]
fn whom_a_command_was_told_of_alone_is_shut_out_when_that_is_asked_for() {
    let mut core = core();
    let told = block(&mut core, "192.0.2.1/32", 0, at(0)).unwrap();
    let run_command = Responses::from(crate::protocol::Response::RunCommand);
    core.escalation.enter(told.target, Block { with: run_command, ..told.block });
    assert!(matches!(core.decide(&ask("192.0.2.1/32", 0), &IDLE, at(1)), Action::Block(_)));
    let Request::Block { id, target, seconds, port, protocol, verified, .. } = ask("192.0.2.1/32", 0) else {
        panic!("no block")
    };
    let run_only = Request::Block { id, target, seconds, port, protocol, verified, run_only: true };
    let again = core.decide(&run_only, &IDLE, at(1));
    assert!(matches!(again, Action::Answer(Reply::Done { outcome: Outcome::AlreadyBlocked, .. })));
}

#[test]
fn grants_that_the_kernel_does_not_have_yet_take_room_and_claims_leave_some_for_proof() {
    let mut core = core();
    core.authority = Authority::new(Vec::new(), 8, 0);
    let outcome = |core: &mut Core, verified: bool, granted: usize| {
        let Request::Block { id, target, seconds, port, protocol, run_only, .. } = ask("192.0.2.1/32", 0)
        else {
            panic!("no block")
        };
        let request = Request::Block { id, target, seconds, port, protocol, verified, run_only };
        let underway = Underway { granted, is_ending: &|_, _| false };
        match core.decide(&request, &underway, at(0)) == Action::Answer(done(1, Outcome::RefusedFull)) {
            true => Err(Outcome::RefusedFull),
            false => Ok(()),
        }
    };
    assert_eq!([6, 7].map(|granted| outcome(&mut core, false, granted)), [Ok(()), Err(Outcome::RefusedFull)]);
    assert_eq!([7, 8].map(|granted| outcome(&mut core, true, granted)), [Ok(()), Err(Outcome::RefusedFull)]);
}

#[test]
fn an_operator_renews_a_block_and_outlasts_a_wider_one() {
    let mut core = core();
    block(&mut core, "2001:db8::/64", 0, at(0)).unwrap();
    assert_eq!(block(&mut core, "2001:db8::/64", 5, at(1)).unwrap().block.until, at(6).utc);
    assert_eq!(block(&mut core, "2001:db8::1/128", 0, at(2)), Err(Outcome::AlreadyBlocked));
    assert_eq!(block(&mut core, "2001:db8::1/128", 900, at(2)).unwrap().block.until, at(902).utc);
}

#[test]
fn the_never_block_set_holds_whatever_the_sensor_claims() {
    let mut core = core();
    for target in ["10.0.0.1/32", "127.0.0.1/32", "0.0.0.0/0", "::/0"] {
        assert_eq!(block(&mut core, target, 3600, at(0)), Err(Outcome::RefusedNeverBlock));
    }
    let protect = Request::Protect { id: 1, network: net("192.0.2.0/24") };
    assert_eq!(core.decide(&protect, &IDLE, at(0)), Action::Protect { id: 1 });
    assert_eq!(block(&mut core, "192.0.2.9/32", 0, at(0)), Err(Outcome::RefusedNeverBlock));
}

#[test]
fn a_flood_of_blocks_leaves_the_operator_a_way_in() {
    let mut core = core();
    let refused = (0..100_000u32).filter(|at_number| {
        let target = IpNet::from(std::net::IpAddr::from((0xc000_0000 + at_number).to_be_bytes()));
        block(&mut core, &target.to_string(), 0, at(0)) == Err(Outcome::RefusedRate)
    });
    assert!(refused.count() > 90_000);
    let list = Request::List { id: 2, after: None };
    assert_eq!(core.decide(&list, &IDLE, at(0)), Action::List { id: 2, after: None });
    assert_eq!(core.decide(&Request::Flush { id: 3 }, &IDLE, at(0)), Action::Flush { id: 3 });
}

#[test]
fn a_restored_block_never_outlasts_its_grant() {
    let granted = Block {
        since: at(0).utc,
        until: at(60).utc,
        offence: 3,
        with: Responses::NONE,
        owed: Responses::NONE,
    };
    let entries = BTreeMap::from([(net("192.0.2.1/32"), granted), (net("10.1.1.1/32"), granted)]);
    let left = |now: Now| {
        let mut core = core();
        assert_eq!(core.restore(entries.clone(), now).dropped, 1);
        core.escalation.after(None, now.utc).map(|(_, block)| block.left(now.utc))
    };
    assert_eq!(left(at(20)), Some(40_000));
    assert_eq!(left(Now { utc: 5, uptime: 0 }), Some(60_000));
    assert_eq!(left(at(61)), None);
    // It began no later than now, or the ledger would not believe it the next time.
    let mut behind = core();
    behind.restore(entries.clone(), Now { utc: 5, uptime: 0 });
    assert_eq!(behind.escalation.get(&net("192.0.2.1/32")).map(|block| block.since), Some(5));
}

#[test]
fn of_more_restored_blocks_than_there_may_be_those_that_end_first_are_over() {
    let mut core = core();
    core.authority = Authority::new(Vec::new(), 2, 0);
    let with = Responses::from(crate::protocol::Response::HostsDeny);
    let granted =
        |end: u64| Block { since: at(0).utc, until: at(end).utc, offence: 1, with, owed: Responses::NONE };
    let ends = [("192.0.2.1/32", 90), ("192.0.2.2/32", 60), ("192.0.2.3/32", 80), ("192.0.2.4/32", 70)];
    let left = core.restore(ends.map(|(target, end)| (net(target), granted(end))).into(), at(20));
    let over = |target: &str| (net(target), granted(20));
    let ended = vec![over("192.0.2.2/32"), over("192.0.2.4/32")];
    assert_eq!(left, Leftovers { dropped: 0, let_go: 2, ended, ahead: BTreeSet::new() });
    assert_eq!((core.escalation.len(), core.escalation.known()), (2, 4));
    assert!(core.escalation.get(&net("192.0.2.1/32")).is_some_and(|block| block.until == at(90).utc));
    assert!(core.escalation.entries().skip(2).all(|(_, past)| past.until == at(20).utc && past.with == with));
}

#[test]
fn what_was_lifted_and_is_still_to_be_taken_back_is_in_force_on_no_clock() {
    let with = Responses::from(crate::protocol::Response::Command);
    let (target, lifted) = (
        net("192.0.2.1/32"),
        Block { since: at(0).utc, until: at(60).utc, offence: 0, with, owed: Responses::NONE },
    );
    for now in [at(20), at(61), Now { utc: 5, uptime: 0 }] {
        let mut core = core();
        let left = core.restore(BTreeMap::from([(target, lifted)]), now);
        assert!(left.ended.iter().map(|(target, _)| target).eq([&target]) && left.ahead.is_empty());
        assert!(core.escalation.is_empty() && core.escalation.remains(&target) == with);
    }
}

#[test]
fn a_restored_offender_is_remembered() {
    let mut core = core();
    let past = Block {
        since: at(0).utc,
        until: at(60).utc,
        offence: 3,
        with: Responses::NONE,
        owed: Responses::NONE,
    };
    core.restore(BTreeMap::from([(net("192.0.2.1/32"), past)]), at(3600));
    assert!(core.escalation.is_empty(), "what has ended is no block");
    assert_eq!(block(&mut core, "192.0.2.1/32", 0, at(3601)).unwrap().block.offence, 4);
}
