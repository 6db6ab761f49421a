//! Promise: a call that no rule allows ends the process, and so does a wrong value of any pinned argument; with the right
//! ones it lives. Every rule of both roles, each call in a copy of the real program that has entered the real filter.
//! Built with the feature `escape-attempts`, which no release has.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use portsentry::sandbox::escape::CALL;
use portsentry::sandbox::proof::ARGUMENT;
use portsentry::sandbox::seccomp::{Filter, OnMismatch, Pin, Rule};
use portsentry::sandbox::syscalls::Machine;
use support::roles::{self, Lists, SENSOR};

/// Arguments that no call can do anything with: a descriptor, an address, a length that there is not.
const USELESS: [u64; 6] = [u64::MAX; 6];
/// Above every number of either machine (Linux 6.18 ends at 470), below those of x32.
const NUMBERS: i64 = 512;

/// uretprobe(2) and uprobe(2) of x86: the kernel shows them to no filter (kernel/seccomp.c), and does nothing for whoever
/// makes them anywhere but in its own page.
const PAST_EVERY_FILTER: [i64; 2] = [335, 336];

#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Lives,
    Dies,
}

/// What becomes of `role`'s program, in a filter of `lists`, when it makes a call.
fn fate(role: &str, lists: &Lists, number: i64, arguments: [u64; 6]) -> Fate {
    let filter = Filter::compile(lists, OnMismatch::Kill).unwrap();
    let program = if role == SENSOR {
        env!("CARGO_BIN_EXE_portsentry-rs")
    } else {
        env!("CARGO_BIN_EXE_portsentry-rs-helper")
    };
    let arguments_asked_for = arguments.map(|argument| argument.to_string()).join(" ");
    let mut copy = Command::new(program)
        .arg(ARGUMENT)
        .env(CALL, format!("{number} {arguments_asked_for}"))
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    copy.stdin.take().unwrap().write_all(&filter.to_bytes()).unwrap();
    let status = copy.wait().unwrap();
    match (status.signal(), status.code()) {
        (Some(libc::SIGSYS), _) => Fate::Dies,
        (None, Some(0)) => Fate::Lives,
        _ => panic!("{role}: call {number} with {arguments:?}: {status}"),
    }
}

fn rules(lists: &Lists) -> impl Iterator<Item = (&'static Rule, i64)> {
    let here = |rule: &'static Rule| rule.number(Machine::HERE).unwrap().map(|number| (rule, number));
    lists.clone().into_iter().flatten().filter_map(here)
}

/// Useless arguments but for those that are pinned.
fn right(rule: &Rule) -> [u64; 6] {
    rule.pins.iter().fold(USELESS, |arguments, pin| with(arguments, pin, pin.value))
}

/// The same arguments, but for what this pin looks at.
fn with(mut arguments: [u64; 6], pin: &Pin, value: u64) -> [u64; 6] {
    let argument = &mut arguments[usize::from(pin.argument)];
    *argument = *argument & !pin.mask | value;
    arguments
}

/// As near to the right arguments as can be, but for `pin`: one bit of it differs, so that no rule of the call allows it.
fn wrong(lists: &Lists, number: i64, rule: &Rule, pin: &Pin) -> [u64; 6] {
    let counts = (0..64).map(|bit| 1_u64 << bit).filter(|bit| pin.mask & bit != 0);
    let spoilt = counts.map(|bit| {
        let mut arguments = right(rule);
        arguments[usize::from(pin.argument)] ^= bit;
        arguments
    });
    spoilt.into_iter().find(|it| !is_allowed(lists, number, it)).expect("a pin leaves something out")
}

fn is_allowed(lists: &Lists, number: i64, arguments: &[u64; 6]) -> bool {
    rules(lists).any(|(rule, its)| its == number && rule.allows(arguments))
}

/// Calls of a rule and what must become of each: the right one, a wrong one for each pin, and where a pin allows a range
/// the last of that and the first beyond.
fn calls(lists: &Lists, number: i64, rule: &Rule) -> Vec<([u64; 6], Fate)> {
    let mut calls = vec![(right(rule), Fate::Lives)];
    for pin in rule.pins {
        calls.push((wrong(lists, number, rule, pin), Fate::Dies));
        if pin.most > pin.value {
            let [last, beyond] = [pin.most, pin.most + 1].map(|value| with(right(rule), pin, value));
            assert!(!is_allowed(lists, number, &beyond), "{}: ranges that meet are one", rule.syscall);
            calls.extend([(last, Fate::Lives), (beyond, Fate::Dies)]);
        }
    }
    calls
}

#[test]
fn each_pinned_argument_must_be_right() {
    let mut failures = Vec::new();
    let mut ranges = 0;
    println!("{:21} {:14} {:8} reason", "role", "system call", "pins");
    for (role, lists) in roles::all() {
        for (rule, number) in rules(&lists).filter(|(rule, _)| !rule.pins.is_empty()) {
            println!("{role:21} {:14} {:<8} {}", rule.syscall, rule.pins.len(), rule.reason);
            ranges += rule.pins.iter().filter(|pin| pin.most > pin.value).count();
            for (arguments, right) in calls(&lists, number, rule) {
                let fate = fate(role, &lists, number, arguments);
                if fate != right {
                    let call = format!("{role} {} ({})", rule.syscall, rule.reason);
                    failures.push(format!("{call}: {fate:?} with {arguments:x?}"));
                }
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert_ne!(ranges, 0, "no rule allows a range any more");
}

/// The queue from the rings to the main thread does so while another thread is halfway in, which takes it to be kept from
/// the processor just there: no test brings that about.
#[test]
fn a_ring_thread_that_waits_for_another_one_may_let_it_run() {
    let [(sensor, lists), (helper, none)] = roles::all();
    let yields = |role, lists| fate(role, lists, libc::SYS_sched_yield, USELESS);
    assert_eq!([yields(sensor, &lists), yields(helper, &none)], [Fate::Lives, Fate::Dies]);
}

#[test]
fn every_call_without_a_rule_is_deadly() {
    for (role, lists) in roles::all() {
        let allowed: Vec<i64> = rules(&lists).map(|(_, number)| number).collect();
        let others =
            (0..NUMBERS).filter(|number| !allowed.contains(number) && !PAST_EVERY_FILTER.contains(number));
        let others: Vec<i64> = others.collect();
        let alive: Vec<&i64> =
            others.iter().filter(|&&number| fate(role, &lists, number, USELESS) == Fate::Lives).collect();
        assert!(alive.is_empty(), "{role}: {alive:?}");
        println!(
            "{role}: {} calls are allowed, {} are deadly",
            NUMBERS as usize - others.len(),
            others.len()
        );
    }
}
