//! What holds however threads interleave: run under loom, two ways a bucket, one bucket, every schedule of up to two
//! pre-emptions.
#![forbid(unsafe_code)]

use std::net::{IpAddr, Ipv4Addr};

use loom::sync::Arc;
use loom::thread;

use super::*;
use crate::detect::probe::samples::syn;

const START: u64 = 1 << 40;

fn check(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.max_branches = 10_000;
    builder.check(model);
}

fn table() -> Arc<ScoreTable> {
    Arc::new(ScoreTable::new(1, &[9; 16], None))
}

fn source(number: u32) -> SourceKey {
    SourceKey::of(&IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + number)), 64)
}

/// One point, over the threshold at `threshold` 256ths.
fn hit(table: &ScoreTable, number: u32, port: u16, threshold: i32) -> Standing {
    hit_in(Ledger::Watched, table, number, port, threshold)
}

fn hit_in(ledger: Ledger, table: &ScoreTable, number: u32, port: u16, threshold: i32) -> Standing {
    let probe = Probe { source: source(number).address(), sequence: 0, ..syn("10.0.0.0", port) };
    let one = Points::ONE;
    table.record(
        table.seat(source(number)).in_ledger(ledger),
        &probe,
        Evidence { new_port: one, known_port: one, threshold: Points(threshold) },
        START,
    )
}

fn score(table: &ScoreTable, number: u32) -> f32 {
    table.standing(source(number), START).map_or(0.0, |standing| standing.score)
}

/// Both threads hit the same source, which has `before` points; gives how many crossings were told.
fn both_hit(before: u16, threshold: i32) -> u32 {
    let table = table();
    (0..before).for_each(|port| _ = hit(&table, 1, port, threshold));
    let other = {
        let table = table.clone();
        thread::spawn(move || hit(&table, 1, 100, threshold).crossed)
    };
    let mine = hit(&table, 1, 200, threshold).crossed;
    let crossings = u32::from(mine) + u32::from(other.join().unwrap());
    assert_eq!(score(&table, 1), f32::from(before) + 2.0);
    assert_eq!(table.occupancy().occupied, 1);
    crossings
}

#[test]
fn two_threads_on_one_known_source_lose_no_point_and_one_crosses() {
    check(|| assert_eq!(both_hit(1, 640), 1));
}

#[test]
fn two_threads_that_meet_a_new_source_open_one_account_and_lose_no_point() {
    check(|| assert_eq!(both_hit(0, 384), 1));
}

#[test]
fn two_threads_whose_first_probe_triggers_tell_one_crossing() {
    check(|| assert_eq!(both_hit(0, 128), 1));
}

#[test]
fn two_sources_that_claim_one_way_never_get_each_others_points() {
    check(|| {
        let table = table();
        // One way is taken for good: the two newcomers meet at the other one.
        (0..3).for_each(|port| _ = hit(&table, 1, port, 9_999));
        let other = {
            let table = table.clone();
            thread::spawn(move || hit(&table, 2, 1, 9_999))
        };
        let mine = hit(&table, 3, 1, 9_999);
        assert_eq!((mine.score, other.join().unwrap().score), (1.0, 1.0));
        assert_eq!((score(&table, 1), score(&table, 2) + score(&table, 3)), (3.0, 1.0));
    });
}

#[test]
fn a_point_that_races_an_eviction_never_lands_on_the_new_tenant() {
    check(|| {
        let table = table();
        (0..3).for_each(|port| _ = hit(&table, 1, port, 9_999));
        hit(&table, 2, 1, 9_999);
        let other = {
            let table = table.clone();
            thread::spawn(move || hit(&table, 2, 2, 9_999))
        };
        let newcomer = hit(&table, 3, 1, 9_999);
        let tenant = other.join().unwrap();
        assert_eq!(newcomer.score, 1.0);
        assert!(newcomer.probes <= 1 && !newcomer.crossed);
        // The tenant got its second point and stays, or was put out before and began again.
        assert!(tenant.score == 2.0 || tenant.score == 1.0);
        assert!([0.0, 1.0].contains(&score(&table, 3)));
        assert_eq!(score(&table, 1), 3.0);
    });
}

#[test]
fn forgiveness_beside_a_probe_leaves_at_most_that_probe() {
    check(|| {
        let table = table();
        (0..2).for_each(|port| _ = hit(&table, 1, port, 9_999));
        let other = {
            let table = table.clone();
            thread::spawn(move || hit(&table, 1, 9, 9_999))
        };
        table.forgive(source(1));
        other.join().unwrap();
        assert!(score(&table, 1) <= 1.0);
    });
}

#[test]
fn a_source_that_crosses_in_both_ledgers_at_once_is_told_of() {
    check(|| {
        let table = table();
        let other = {
            let table = table.clone();
            thread::spawn(move || hit_in(Ledger::Walk, &table, 1, 9, 128).crossed)
        };
        let mine = hit(&table, 1, 10, 128).crossed;
        assert!(mine | other.join().unwrap());
        assert_eq!(table.occupancy().occupied, 2);
    });
}
