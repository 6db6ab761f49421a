//! What holds for every sequence of probes.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::detect::probe::samples::syn;

const MINUTE: u64 = 60_000_000;
const START: u64 = 1_000 * MINUTE;

fn table(capacity: usize) -> ScoreTable {
    ScoreTable::new(capacity, &[9; 16], Some(Duration::from_secs(3600)))
}

fn source(number: u32) -> SourceKey {
    SourceKey::of(&IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + number)), 64)
}

fn probe(number: u32, port: u16, sequence: u32) -> Probe {
    Probe { source: source(number).address(), sequence, ..syn("10.0.0.0", port) }
}

fn worth(points: i32) -> Evidence {
    Evidence { new_port: Points(points), known_port: Points(points), threshold: Points(1_000) }
}

/// A probe of a port of its own, worth one point.
fn hit(table: &ScoreTable, number: u32, at: u32, now: u64) -> Standing {
    table.record(table.seat(source(number)), &probe(number, at as u16, at), worth(256), now)
}

proptest! {
    #[test]
    fn more_evidence_never_lowers_a_score(
        gaps in prop::collection::vec((0_u64..30, 32_i32..2_000), 1..40), extra in 0_usize..40,
    ) {
        let (fewer, more) = (table(7), table(7));
        let mut now = START;
        for (at, &(gap, points)) in gaps.iter().enumerate() {
            now += gap * MINUTE;
            if at == extra {
                more.record(more.seat(source(1)), &probe(1, 9_999, 9_999), worth(256), now);
            }
            let probe = probe(1, at as u16, at as u32);
            let a = fewer.record(fewer.seat(source(1)), &probe, worth(points), now);
            let b = more.record(more.seat(source(1)), &probe, worth(points), now);
            // Each step rounds to the nearest 256th, and what is rounded fades from then on.
            prop_assert!(b.score >= a.score - 2.0 / 256.0, "{} {}", a.score, b.score);
        }
    }

    #[test]
    fn the_order_of_different_sources_does_not_matter(
        hits in prop::collection::vec((0_u32..40, any::<u32>()), 1..200), seed in any::<u64>(),
    ) {
        // Far below capacity: no bucket of 1,024 meets more than seven of forty sources.
        let (one, other) = (table(7 * 1024), table(7 * 1024));
        let mut last = HashMap::new();
        for &(number, sequence) in &hits {
            last.insert(number, one.record(one.seat(source(number)), &probe(number, sequence as u16, sequence), worth(256), START));
        }
        let mut shuffled: Vec<_> = hits.iter().enumerate().collect();
        // Stable: each source keeps its own order.
        shuffled.sort_by_key(|(_, (number, _))| u64::from(*number).wrapping_mul(seed | 1));
        for (_, &(number, sequence)) in shuffled {
            other.record(other.seat(source(number)), &probe(number, sequence as u16, sequence), worth(256), START);
        }
        for (number, standing) in last {
            let there = other.standing(source(number), START);
            prop_assert_eq!(there.map(|there| (there.score, there.probes, there.distinct_ports)),
                Some((standing.score, standing.probes, standing.distinct_ports)));
        }
    }

    #[test]
    fn a_score_only_fades_when_nothing_happens(hits in 1_u32..200, minutes in prop::collection::vec(0_u64..500, 2..20)) {
        let table = table(7);
        let mut score = (0..hits).fold(None, |_, at| Some(hit(&table, 1, at, START).score));
        let mut now = START;
        for minute in minutes {
            now += minute * MINUTE;
            // As the main thread does it: no tick wraps unseen.
            table.sweep(now);
            let then = table.standing(source(1), now).map(|standing| standing.score);
            prop_assert!(then.unwrap_or(0.0) <= score.unwrap_or(0.0));
            score = then;
        }
    }

    #[test]
    fn the_highest_scorer_of_a_bucket_stays(order in prop::collection::vec((0_u32..30, 1_u64..3), 1..400)) {
        let table = table(7);
        let mut now = START;
        for (at, (number, gap)) in order.into_iter().enumerate() {
            now += gap * MINUTE / 4;
            let score = |number| table.standing(source(number), now).map_or(0.0, |standing| standing.score);
            let top = (0..30).max_by(|&one, &other| score(one).total_cmp(&score(other))).unwrap();
            let others = (0..30).filter(|&other| other != top);
            let is_alone = others.map(score).all(|other| other < score(top));
            let before = score(top);
            hit(&table, number, at as u32, now);
            // Who scores no more than the newcomer is no higher than it.
            if is_alone && top != number && before > 1.0 {
                prop_assert_eq!(score(top), before);
            }
        }
    }

    #[test]
    fn successes_forgive_but_never_flag_and_never_open_an_account(points in prop::collection::vec(-600_i32..300, 1..60)) {
        let table = table(7);
        let evidence = |points| Evidence { threshold: Points(1), ..worth(points) };
        for (at, points) in points.into_iter().enumerate() {
            let known = table.standing(source(1), START);
            let standing = table.record(table.seat(source(1)), &probe(1, at as u16, at as u32), evidence(points), START);
            prop_assert!(standing.score >= 0.0);
            if points <= 0 {
                prop_assert!(!standing.crossed);
                prop_assert!(known.is_some() || table.standing(source(1), START).is_none());
            }
        }
    }
}

#[test]
fn two_hundred_thousand_one_hit_sources_put_out_nobody_with_two_points() {
    let table = table(4_096);
    let memory = table.memory_bytes();
    for number in 0..200 {
        hit(&table, number, 1, START);
        hit(&table, number, 2, START);
    }
    for number in 1_000..201_000 {
        hit(&table, number, 1, START + u64::from(number));
    }
    let kept = (0..200).filter(|&number| {
        table
            .standing(source(number), START)
            .is_some_and(|standing| standing.score == 2.0 && standing.probes == 2)
    });
    assert_eq!(kept.count(), 200);
    let occupancy = table.occupancy();
    assert_eq!((occupancy.occupied, table.memory_bytes()), (occupancy.capacity, memory));
    assert!(occupancy.evicted > 190_000 && occupancy.capacity >= 4_096, "{occupancy:?}");
}

#[test]
fn a_flood_of_two_packets_a_source_keeps_newcomers_out_for_minutes_not_hours() {
    let table = table(4_096);
    for number in 1_000..101_000 {
        hit(&table, number, 1, START);
        hit(&table, number, 2, START);
    }
    let comes_in = |number, now| {
        hit(&table, number, 1, now);
        table.standing(source(number), now).is_some()
    };
    let share = |now| (0..100).filter(|&number| comes_in(number, now)).count();
    // Nine, though the half-life is of an hour here.
    assert!(share(START) < 5 && share(START + 8 * MINUTE) < 5);
    assert_eq!(share(START + 10 * MINUTE), 100);
}

#[test]
fn of_equals_the_one_claimed_longest_ago_goes() {
    let table = table(7);
    (0..20).for_each(|number| _ = hit(&table, number, 1, START));
    let held: Vec<u32> = (0..20).filter(|&number| table.standing(source(number), START).is_some()).collect();
    assert_eq!(held, (13..20).collect::<Vec<_>>());
}

#[test]
fn who_finds_no_room_is_judged_on_this_probe_alone() {
    let table = table(7);
    (0..7).for_each(|number| (0..3).for_each(|at| _ = hit(&table, number, at, START)));
    let first = Evidence { threshold: Points(128), ..worth(256) };
    let standing = table.record(table.seat(source(99)), &probe(99, 1, 1), first, START);
    assert!(standing.crossed && standing.triggered && standing.probes == 1);
    assert!(table.standing(source(99), START).is_none());
    assert_eq!(table.occupancy().refused, 1);
}

#[test]
fn a_source_that_triggered_in_one_ledger_crosses_in_no_other_whether_it_finds_room_or_not() {
    let first = Evidence { threshold: Points(128), ..worth(256) };
    for [one, other] in [[Ledger::Walk, Ledger::Watched], [Ledger::Watched, Ledger::Walk]] {
        for strangers in [0, 6] {
            let table = table(7);
            let seat = table.seat(source(99));
            assert!(table.record(seat.in_ledger(one), &probe(99, 1, 1), first, START).crossed);
            (1..3).for_each(|at| _ = table.record(seat.in_ledger(one), &probe(99, 1, 1 + at), first, START));
            (0..strangers).for_each(|number| (0..3).for_each(|at| _ = hit(&table, number, at, START)));
            let again = table.record(seat.in_ledger(other), &probe(99, 2, 9), first, START);
            assert!(again.triggered && !again.crossed, "{one:?}, {strangers} others: {again:?}");
            assert_eq!(table.occupancy().refused, u64::from(strangers > 0));
        }
    }
}

#[test]
fn ports_are_counted_once_while_among_the_last_twelve() {
    let table = table(7);
    for round in 0..5_u16 {
        for port in 0..12_u16 {
            let sequence = u32::from(round * 100 + port);
            let once = Evidence { known_port: Points::NONE, ..worth(256) };
            let standing = table.record(table.seat(source(1)), &probe(1, port, sequence), once, START);
            assert_eq!(standing.distinct_ports, if round == 0 { u32::from(port) + 1 } else { 12 });
        }
    }
    assert_eq!(
        table.standing(source(1), START).map(|standing| (standing.score, standing.probes)),
        Some((12.0, 60))
    );
}

#[test]
fn quiet_lasts_until_its_time_and_ends_with_forgiveness() {
    let table = table(7);
    assert!(!table.quiet(source(1), START + MINUTE));
    hit(&table, 1, 1, START);
    assert!(table.quiet(source(1), START + MINUTE));
    assert!(hit(&table, 1, 2, START + MINUTE / 2).quiet);
    assert!(!hit(&table, 1, 3, START + MINUTE).quiet);
    table.end_silences();
    assert!(!table.standing(source(1), START).unwrap().quiet);
    table.quiet(source(1), START + 9 * MINUTE);
    table.forgive(source(1));
    assert!(!hit(&table, 1, 4, START + MINUTE).quiet);
}

#[test]
fn what_has_faded_is_swept_and_an_account_begins_anew() {
    let table = table(70);
    (0..9).for_each(|number| _ = hit(&table, number, 1, START));
    assert_eq!(table.sweep(START + MINUTE), 9);
    let later = START + 700 * MINUTE;
    let standing = hit(&table, 0, 2, later);
    assert_eq!((standing.score, standing.probes), (1.0, 1));
    assert!(later - standing.first_seen < 16);
    assert_eq!((table.sweep(later), table.occupancy().occupied), (1, 1));
}

/// What loom proves of a few steps, by the hundred thousand on this machine; what a thread sanitizer is shown.
#[test]
fn four_threads_on_the_same_sources_lose_no_point_and_one_is_told_of_each_crossing() {
    const SOURCES: u32 = 50;
    const PROBES: u32 = 200;
    let table = table(7 * 1024);
    let evidence = Evidence { threshold: Points(100 * 256), ..worth(256) };
    let first: u32 =
        (0..SOURCES).map(|number| u32::from(!hit(&table, number, 0, START).retransmission)).sum();
    let visit = |thread: u32| {
        let probes =
            (1..=PROBES).flat_map(|at| (0..SOURCES).map(move |number| (number, thread * PROBES + at)));
        let standings = probes.map(|(number, at)| {
            table.record(table.seat(source(number)), &probe(number, at as u16, at), evidence, START)
        });
        standings.fold((0, 0), |(counted, crossed), standing| {
            (counted + u32::from(!standing.retransmission), crossed + u32::from(standing.crossed))
        })
    };
    let visits = std::thread::scope(|scope| {
        let threads = [0, 1, 2, 3].map(|thread| scope.spawn(move || visit(thread)));
        threads.map(|thread| thread.join().unwrap())
    });
    let counted: u32 = visits.iter().map(|(counted, _)| counted).sum();
    let scores = (0..SOURCES).map(|number| table.standing(source(number), START).map_or(0.0, |it| it.score));
    assert_eq!(scores.sum::<f32>(), (first + counted) as f32);
    assert_eq!(visits.iter().map(|(_, crossed)| crossed).sum::<u32>(), SOURCES);
}
