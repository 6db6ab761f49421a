//! Promise: on a kernel that lacks a layer of the cage the daemon does not start, and says which one; with
//! SANDBOX="best-effort" it starts, and its `start` event says what is missing. On one without nfnetlink it does not start
//! either, and `check` says so as an error to who could start it and as a warning to who could not. Needs root.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::process::Command;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};
use support::Lab;
use support::daemon::Setup;

/// What the launcher takes away: a system call's number.
const WITHOUT: &str = "LAUNCHER_WITHOUT";

/// A layer, the call that its kernel support begins with, and what an error is told by.
const LAYERS: [(&str, i64, &str); 2] = [
    ("Landlock", libc::SYS_landlock_create_ruleset, "Landlock: "),
    ("seccomp", libc::SYS_seccomp, "seccomp: "),
];

#[test]
#[ignore = "run by the other tests, as a process of its own"]
fn the_launcher() {
    let call: i64 = std::env::var(WITHOUT).unwrap().parse().unwrap();
    // What a kernel has not at all, and what it has not of netlink.
    let (errno, rules) = match call {
        libc::SYS_socket => (libc::EPROTONOSUPPORT, vec![netfilter_socket()]),
        _ => (libc::ENOSYS, Vec::new()),
    };
    let machine = TargetArch::try_from(std::env::consts::ARCH).unwrap();
    let (rules, missing) = (BTreeMap::from([(call, rules)]), SeccompAction::Errno(errno as u32));
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, missing, machine).unwrap();
    seccompiler::apply_filter(&BpfProgram::try_from(filter).unwrap()).unwrap();
    let mut words = std::env::args().skip_while(|word| word != "--").skip(1);
    panic!("{}", Command::new(words.next().unwrap()).args(words).exec());
}

fn netfilter_socket() -> SeccompRule {
    let is = |argument, value: i32| {
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value as u64).unwrap()
    };
    SeccompRule::new(vec![is(0, libc::AF_NETLINK), is(2, libc::NETLINK_NETFILTER)]).unwrap()
}

/// Program and flags for [`Setup::start_through`]: becomes the daemon on a kernel without `call`.
fn without(call: i64) -> (&'static str, Vec<String>) {
    let this = std::env::current_exe().unwrap().display().to_string();
    let variable = format!("{WITHOUT}={call}");
    let words = [&variable, &this, "--exact", "the_launcher", "--ignored", "--nocapture", "--"];
    ("env", words.map(str::to_owned).into())
}

#[test]
fn the_strict_cage_is_whole_or_nothing_is_started() {
    for (layer, call, told) in LAYERS {
        let lab = Lab::new(1);
        let setup = Setup::new(&lab, "TCP_PORTS=\"1\"");
        let (program, flags) = without(call);
        let output = setup.fail_through(program, &flags);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{layer}: {output:?}");
        assert!(said.contains(told) && said.contains("SANDBOX=\"best-effort\""), "{layer}: {said}");
        assert!(!lab.has_nft_table(), "{layer}: a table is left");
    }
}

#[test]
fn best_effort_starts_with_what_there_is_and_says_what_is_missing() {
    for (layer, call, _) in LAYERS {
        let lab = Lab::new(1);
        let (program, flags) = without(call);
        let setup = Setup::new(&lab, "TCP_PORTS=\"1\"\nSANDBOX=\"best-effort\"");
        let mut daemon = setup.start_through(program, &flags);
        let start = daemon.wait_for("the start event", |event| event["event_type"] == "start");
        let missing = start["start"]["confinement"]["missing"].to_string();
        for role in ["sensor", "helper"] {
            assert!(missing.contains(&format!("{role}: {layer}")), "{start}");
        }
        // What there is holds all the same.
        let in_force = start["start"]["confinement"]["in_force"].to_string();
        let other = if layer == "Landlock" { ", seccomp" } else { ", Landlock ABI" };
        assert_eq!(in_force.matches(other).count(), 2, "{start}");
    }
}

/// As in a container with a /dev of its own: what Landlock must refuse is not there to be tried.
#[test]
fn what_landlock_cannot_be_proved_by_ends_a_strict_start_and_is_not_claimed_by_best_effort() {
    let script = "mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3 && exec \"$@\"";
    let flags = ["-c", script, "sh"].map(str::to_owned);
    let told =
        "writing /dev/zero was to prove that the confinement holds, and could not be tried: No such file";
    let lab = Lab::new(1);
    let output = Setup::new(&lab, "TCP_PORTS=\"1\"").fail_through("sh", &flags);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains(told) && said.contains("SANDBOX=\"best-effort\""), "{said}");
    assert_eq!((output.status.code(), lab.has_nft_table()), (Some(1), false));

    let setup = Setup::new(&lab, "TCP_PORTS=\"1\"\nSANDBOX=\"best-effort\"");
    let log = setup.path("log");
    let to_log = format!("exec 2> {}; {script}", log.display());
    let mut daemon = setup.start_through("sh", &["-c".to_owned(), to_log, "sh".to_owned()]);
    let start = daemon.wait_for("the start event", |event| event["event_type"] == "start");
    let confinement = &start["start"]["confinement"];
    assert_eq!(
        confinement["missing"],
        serde_json::json!(["sensor: Landlock", "helper: Landlock"]),
        "{start}"
    );
    assert!(!confinement["in_force"].to_string().contains("Landlock"), "{start}");
    assert_eq!(std::fs::read_to_string(log).unwrap().matches(told).count(), 2, "each says why");
}

#[test]
fn without_nfnetlink_the_daemon_does_not_start_and_check_leaves_it_to_who_could_start_it() {
    let lab = Lab::new(0);
    let setup = Setup::new(&lab, "TCP_PORTS=\"1\"\nBLOCK_TCP=\"1\"");
    let (program, flags) = without(libc::SYS_socket);
    let told = "the kernel needs CONFIG_NETFILTER_NETLINK; BLOCK_WITH=\"route\" does without";
    let output = setup.fail_through(program, &flags);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains(told), "{output:?}");

    let builder = ["setpriv", "--inh-caps=-net_admin", "--bounding-set=-net_admin"];
    for (through, code, is_warning) in [(&[][..], 1, false), (&builder[..], 0, true)] {
        let mut command = Command::new(program);
        command.args(&flags).args(through).arg(env!("CARGO_BIN_EXE_portsentry-rs"));
        let output = command.args(["check", "-c"]).arg(setup.path("portsentry.conf")).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{through:?}: {output:?}");
        let line = said.lines().find(|line| line.contains(told)).unwrap_or_default();
        assert!(!line.is_empty() && line.starts_with("warning: ") == is_warning, "{through:?}: {said}");
    }
}

/// Nor is there any need of it where alarms are only told; an operator can block by hand all the same.
#[test]
fn the_way_out_that_is_named_where_there_is_no_nfnetlink_leads_out() {
    let lab = Lab::new(0);
    let setup = Setup::new(&lab, "TCP_PORTS=\"1\"\nBLOCK_WITH=\"route\"");
    let (program, flags) = without(libc::SYS_socket);
    let daemon = setup.start_through(program, &flags);
    assert!(daemon.client(&["block", "198.51.100.1"]).status.success());
    let routes = lab.on_target(&["ip", "route", "show", "proto", "113"]);
    assert!(String::from_utf8_lossy(&routes.stdout).contains("198.51.100.1"), "{routes:?}");
}
