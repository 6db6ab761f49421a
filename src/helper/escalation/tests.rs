//! What is blocked until when: lengths, offences, ends, and what stays on record. Tests.
#![forbid(unsafe_code)]

use std::net::{IpAddr, Ipv4Addr};

use proptest::prelude::*;

use super::*;

const TERMS: Terms = Terms { first: 1_000, longest: 10_000, factor: 3 };

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn offend(record: &mut Escalation, target: &str, seconds: u32, now: u64) -> Block {
    let block = record.sentence(&net(target), seconds, now);
    record.enter(net(target), block);
    block
}

#[test]
fn each_offence_lasts_longer_up_to_the_longest() {
    let lengths: Vec<_> = (1..=5).chain([u16::MAX]).map(|offence| TERMS.length(offence)).collect();
    assert_eq!(lengths, [1_000, 3_000, 9_000, 10_000, 10_000, 10_000]);
    assert_eq!(Terms { longest: 5, ..TERMS }.length(9), 1_000);
    assert_eq!(Terms { first: u64::MAX, longest: u64::MAX, factor: 1 }.length(1), LONGEST);
}

#[test]
fn a_second_offence_after_expiry_counts_and_one_after_a_week_does_not() {
    let mut record = Escalation::new(TERMS);
    assert_eq!(
        offend(&mut record, "192.0.2.1/32", 0, 0),
        Block { since: 0, until: 1_000, offence: 1, with: Responses::NONE, owed: Responses::NONE }
    );
    assert_eq!(record.next_end(), Some(1_000));
    assert_eq!(record.expire(999).len(), 0);
    assert_eq!(record.expire(1_000).len(), 1);
    assert!(record.is_empty());
    let second = offend(&mut record, "192.0.2.1/32", 0, 5_000);
    assert_eq!(
        second,
        Block { since: 5_000, until: 8_000, offence: 2, with: Responses::NONE, owed: Responses::NONE }
    );
    assert_eq!(record.sentence(&net("192.0.2.1/32"), 0, 8_000 + MEMORY).offence, 1);
}

#[test]
fn a_block_that_never_held_counts_for_no_offence() {
    let mut record = Escalation::new(TERMS);
    let target = net("192.0.2.1/32");
    for earlier in [0, 1] {
        assert_eq!(offend(&mut record, "192.0.2.1/32", 0, 0).offence, earlier + 1);
        record.end(&target, 10);
        record.withdraw(&target);
        assert_eq!(record.known_of(&target).map_or(0, |block| block.offence), earlier);
        assert_eq!(offend(&mut record, "192.0.2.1/32", 0, 20).offence, earlier + 1);
        record.expire(u64::MAX);
    }
    record.withdraw(&net("192.0.2.2/32"));
    assert_eq!(record.known(), 1);
}

#[test]
fn an_operators_length_overrides_counts_once_and_renews_without_counting() {
    let mut record = Escalation::new(TERMS);
    assert_eq!(
        offend(&mut record, "192.0.2.1/32", 60, 0),
        Block { since: 0, until: 60_000, offence: 1, with: Responses::NONE, owed: Responses::NONE }
    );
    assert_eq!(
        offend(&mut record, "192.0.2.1/32", 90, 10),
        Block { since: 10, until: 90_010, offence: 1, with: Responses::NONE, owed: Responses::NONE }
    );
    assert_eq!(record.sentence(&net("192.0.2.1/32"), u32::MAX, 20).until, LONGEST + 20);
}

#[test]
fn lifting_forgives_and_ending_remembers() {
    let mut record = Escalation::new(TERMS);
    offend(&mut record, "192.0.2.1/32", 0, 0);
    assert!(record.lift(&net("192.0.2.1/32"), 5).is_some() && record.lift(&net("192.0.2.1/32"), 5).is_none());
    assert_eq!(offend(&mut record, "192.0.2.1/32", 0, 10).offence, 1);
    assert_eq!(record.end_all(20).len(), 1);
    assert_eq!(record.sentence(&net("192.0.2.1/32"), 0, 30).offence, 2);
    assert_eq!(record.lift_all(30).len(), 0);
    assert_eq!(record.sentence(&net("192.0.2.1/32"), 0, 30).offence, 1);
}

#[test]
fn a_block_covers_itself_and_what_lies_inside_until_it_ends() {
    let mut record = Escalation::new(TERMS);
    for target in ["2001:db8::/64", "2001:db8:0:1::1/128", "192.0.2.0/32"] {
        offend(&mut record, target, 0, 0);
    }
    let covered = |text: &str, now: u64| record.covering(&net(text), now).next().is_some();
    assert!(covered("2001:db8::7/128", 999) && covered("2001:db8::/64", 999) && covered("192.0.2.0/32", 0));
    assert!(
        !covered("2001:db8::7/128", 1_000) && !covered("2001:db8::/48", 0) && !covered("192.0.2.0/24", 0)
    );
}

#[test]
fn offenders_are_bounded_and_the_oldest_are_forgotten() {
    let mut record = Escalation::new(TERMS);
    let target = |at: u32| IpNet::from(IpAddr::V4(Ipv4Addr::from(at)));
    let count = u32::try_from(MAX_OFFENDERS).unwrap() + 10;
    for at in 0..count {
        record.remember(
            target(at),
            Block {
                since: 0,
                until: u64::from(at),
                offence: 1,
                with: Responses::NONE,
                owed: Responses::NONE,
            },
            u64::MAX,
        );
    }
    assert!(record.offenders.len() <= MAX_OFFENDERS);
    assert!(record.offenders.get(&target(0)).is_none());
    assert!(record.offenders.get(&target(count - 1)).is_some());
}

#[test]
fn what_is_still_to_be_taken_back_is_forgotten_last() {
    let mut record = Escalation::new(TERMS);
    let target = |at: u32| IpNet::from(IpAddr::V4(Ipv4Addr::from(at)));
    let over = |at: u32, with| Block { with, until: at.into(), ..Block::nothing(0) };
    let line = Responses::from(Response::HostsDeny);
    let many = u32::try_from(MAX_OFFENDERS).unwrap();
    (0..100).for_each(|at| record.remember(target(at), over(at, line), u64::MAX));
    (100..3 * many).for_each(|at| record.remember(target(at), over(at, Responses::NONE), u64::MAX));
    assert_eq!(record.over_with(Response::HostsDeny).count(), 100);
    assert!(record.known() <= MAX_OFFENDERS);
    (3 * many..6 * many).for_each(|at| record.remember(target(at), over(at, line), u64::MAX));
    assert!(record.known() <= MAX_OFFENDERS && record.known_of(&target(0)).is_none(), "bounded all the same");
    assert!(record.known_of(&target(6 * many - 1)).is_some());
}

#[test]
fn a_set_clock_leaves_the_time_that_is_left() {
    let mut record = Escalation::new(TERMS);
    let block = offend(&mut record, "192.0.2.1/32", 0, 1_000_000);
    record.shift(-900_000);
    let (_, shifted) = record.after(None, 100_000).unwrap();
    assert_eq!(shifted.left(100_000), block.left(1_000_000));
    assert_eq!(record.next_end(), Some(101_000));
    record.expire(101_000);
    record.shift(500_000);
    assert_eq!(record.known_of(&net("192.0.2.1/32")).map(|past| past.until), Some(601_000));
}

#[test]
fn a_network_is_let_in_where_a_single_address_of_it_becomes_protected() {
    let mut record = Escalation::new(TERMS);
    for target in ["192.0.2.0/24", "198.51.100.0/24", "2001:db8::/64"] {
        offend(&mut record, target, 0, 0);
    }
    let never = Networks::new([net("192.0.2.200/32"), net("2001:db8::7/128")]);
    assert_eq!(record.covered_by(&never), [net("192.0.2.0/24"), net("2001:db8::/64")]);
}

#[test]
fn who_has_offended_is_known_after_the_block_and_so_is_who_lies_within() {
    let mut record = Escalation::new(TERMS);
    offend(&mut record, "2001:db8::/64", 0, 0);
    record.expire(1_000);
    assert!(record.knows(&net("2001:db8::7/128")) && !record.knows(&net("2001:db8:0:1::7/128")));
}

proptest! {
    #[test]
    fn the_list_walks_every_block_in_force_once(ends in prop::collection::btree_map(any::<u32>(), 0u64..100, 0..50), now in 0u64..100) {
        let mut record = Escalation::new(TERMS);
        for (address, until) in &ends {
            record.enter(IpNet::from(IpAddr::V4(Ipv4Addr::from(*address))), Block { since: 0, until: *until, offence: 1, with: Responses::NONE, owed: Responses::NONE });
        }
        let (mut last, mut seen) = (None, 0);
        while let Some((target, block)) = record.after(last, now) {
            prop_assert!(block.until > now && last < Some(target));
            (last, seen) = (Some(target), seen + 1);
        }
        prop_assert_eq!(seen, ends.values().filter(|&&until| until > now).count());
        prop_assert_eq!(record.expire(now).len() + seen, ends.len());
    }
}

#[test]
fn what_is_to_be_taken_back_stays_on_record_until_it_is() {
    let (mut record, target) = (Escalation::new(TERMS), net("192.0.2.1/32"));
    let with = Responses::from(Response::Nftables).and(Response::Command);
    let command = Responses::from(Response::Command);
    let block = Block { with, ..record.sentence(&target, 0, 0) };
    assert_eq!(record.enter(target, block).with, with);
    assert_eq!((record.in_force(&target, 999), record.in_force(&target, 1_000)), (with, Responses::NONE));
    assert!(record.lift(&target, 5).is_some() && record.get(&target).is_none());
    assert_eq!(
        record.known_of(&target),
        Some(Block { since: 0, until: 5, offence: 0, with: command, owed: Responses::NONE })
    );
    assert!(record.take_back(&target, with) && !record.take_back(&target, with));
    assert_eq!(record.known_of(&target), None, "it is forgiven");
    record.enter(target, block);
    assert_eq!(record.expire(1_000).len(), 1);
    assert_eq!(record.remains(&target), command);
    assert!(record.take_back(&target, command));
    assert!(record.known_of(&target).is_some_and(|past| past.offence == 1 && past.with.is_empty()));
}

#[test]
fn what_could_not_be_taken_back_is_the_next_blocks_and_what_a_command_did_is_no_claim_of_its() {
    let (mut record, target) = (Escalation::new(TERMS), net("192.0.2.1/32"));
    let (line, kernel) = (Responses::from(Response::HostsDeny), Responses::from(Response::Nftables));
    let command = Responses::from(Response::Command);
    record.enter(target, Block { with: line.and(command), ..record.sentence(&target, 0, 0) });
    assert!(record.expire(1_000).len() == 1 && record.remains(&target) == line.and(command));
    let again = Block { with: kernel, ..record.sentence(&target, 0, 2_000) };
    let entered = Block { with: kernel.and(line), owed: command, ..again };
    assert_eq!(record.enter(target, again), entered);
    assert_eq!(record.in_force(&target, 2_001), kernel.and(line), "the command is to run again");
    assert_eq!(record.remains(&target), kernel.and(line).and(command), "and is undone if it fails");
    assert_eq!(record.enter(target, again), entered, "a renewal changes nothing");
    let both = kernel.and(line).and(command);
    assert_eq!(record.enter(target, Block { with: command, ..again }).to_end(), both);
    assert_eq!(record.get(&target), Some(Block { with: both, ..again }), "it did its work");
    assert!(record.take_back(&target, command) && record.leave(&target, command, 2_002));
    assert_eq!(record.get(&target), Some(entered));
    assert_eq!(record.expire(again.until), [(target, entered)]);
    assert_eq!(record.remains(&target), line.and(command));
}

#[test]
fn after_a_week_an_offence_is_forgotten_and_a_line_that_could_not_be_taken_out_is_not() {
    let mut record = Escalation::new(TERMS);
    let line = Responses::from(Response::HostsDeny);
    for (target, with) in
        [("192.0.2.1/32", line.and(Response::Command)), ("192.0.2.2/32", Responses::from(Response::Command))]
    {
        let block = record.sentence(&net(target), 0, 0);
        record.enter(net(target), Block { with, ..block });
    }
    for weeks in 1..=3 {
        record.expire(1_000 + weeks * MEMORY);
    }
    assert_eq!(record.over_with(Response::HostsDeny).collect::<Vec<_>>(), [net("192.0.2.1/32")]);
    assert_eq!((record.known(), record.remains(&net("192.0.2.1/32"))), (1, line));
    assert_eq!(record.sentence(&net("192.0.2.1/32"), 0, 4 * MEMORY).offence, 1);
    assert!(record.take_back(&net("192.0.2.1/32"), line) && record.known() == 0);
}

#[test]
fn what_is_left_to_take_back_is_remembered_whether_or_not_a_block_is_in_force() {
    let mut record = Escalation::new(Terms { first: 80, longest: 80, factor: 1 });
    let [unknown, over, leaving, blocked] =
        [1, 2, 3, 4].map(|host: u8| format!("192.0.2.{host}/32").parse::<IpNet>().unwrap());
    let (nftables, command) = (Responses::from(Response::Nftables), Responses::from(Response::Command));
    let block = Block { since: 0, until: 90, offence: 2, with: nftables, owed: Responses::NONE };
    record.remember(over, Block { until: 10, ..block }, 10);
    record.enter(leaving, block);
    record.take_back(&leaving, nftables);
    record.enter(blocked, block);
    for target in [unknown, over, leaving, blocked] {
        assert!(record.leave(&target, command, 20), "{target}");
        assert!(!record.leave(&target, command, 20), "{target} for the second time");
    }
    assert_eq!(
        [unknown, over, leaving, blocked].map(|it| record.remains(&it)),
        [command, command, command, nftables.and(command)]
    );
    assert_eq!(record.in_force(&blocked, 20), nftables);
    assert!(record.take_back(&blocked, command) && record.remains(&blocked) == nftables, "once is enough");
    record.lift(&leaving, 30);
    assert_eq!(
        record.known_of(&leaving),
        Some(Block { since: 0, until: 30, offence: 0, with: command, owed: Responses::NONE })
    );
}
