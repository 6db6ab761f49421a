//! Promise: no role may make a system call that it has no need of. Real daemons are followed through all they can be
//! asked to do, and a rule that none of their calls needed fails the test. Prints the table. Needs root.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::collections::BTreeSet;
use std::os::fd::RawFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;
use portsentry::sandbox::syscalls::Machine;
use portsentry::sensor::seccomp::Addressing;
use serde_json::Value;
use support::daemon::{Daemon, PATIENCE, Setup, kill};
#[cfg(target_env = "musl")]
use support::roles::HELPER;
use support::roles::{self, SENSOR};
use support::tracer::{Call, Tracer};
use support::{Lab, eventually, ip};

/// A daemon of which everything is asked, under the eyes of a tracer.
struct Life<'a> {
    lab: &'a Lab,
    daemon: Daemon,
    tracer: Tracer,
}

impl<'a> Life<'a> {
    /// `lines` with FOLDER in it; `before` prepares that.
    fn begin(
        lab: &'a Lab,
        (program, vdso): (&Path, bool),
        lines: &str,
        flags: &[&str],
        before: impl FnOnce(&Setup),
    ) -> Life<'a> {
        let setup = Setup::new(lab, "");
        let folder = setup.path("").display().to_string();
        setup.rewrite(&lines.replace("FOLDER", folder.trim_end_matches('/')));
        before(&setup);
        let tracer = Tracer::new(vdso);
        let daemon = setup.start_program_through(tracer.through(), program, flags);
        Life { lab, daemon, tracer }
    }

    fn client(&self, arguments: &[&str]) {
        let output = self.daemon.client(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn scan(&mut self, peer: usize, port: &str) {
        let host = self.lab.peer(peer);
        host.nmap(&["-sS", "--max-retries", "0", "-p", port, &host.target_v4.to_string()]);
        let source = host.v4.to_string();
        self.daemon.wait_for("the scan", |event| {
            event["event_type"] == "scan" && event["src_ip"] == source.as_str()
        });
    }

    fn end(self) -> BTreeSet<Call> {
        let (status, _setup) = self.daemon.stop();
        assert_eq!(status.code(), Some(0), "{status}");
        self.tracer.finish()
    }
}

/// A ledger large enough that reading it takes the helper every kind of memory, and what a rewrite left over.
fn large_ledger(setup: &Setup) {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    let (since, until) = (now - 1_000, now + 3_600_000);
    let line = |at: u32| {
        let target = std::net::Ipv4Addr::from(0xcb00_0000 + at);
        format!("{{\"target\":\"{target}/32\",\"since\":{since},\"until\":{until},\"offence\":1}}\n")
    };
    std::fs::create_dir(setup.path("state")).unwrap();
    std::fs::write(setup.path("state/ledger"), (0..10_000).map(line).collect::<String>()).unwrap();
    std::fs::write(setup.path("state/ledger.new"), "").unwrap();
}

/// logrotate's `create` mode: the folder is the daemon's own.
fn log_folder(setup: &Setup) {
    std::fs::create_dir(setup.path("log")).unwrap();
    std::os::unix::fs::chown(setup.path("log"), Some(65534), Some(65534)).unwrap();
    std::fs::write(setup.path("ignore"), "").unwrap();
}

const WATCH: &str = "WORKERS=\"2\"\nTCP_PORTS=\"1,7\"\nDECOY_TCP_PORTS=\"23\"\nDECOY_UDP_PORTS=\"53\"\nPORT_BANNER=\"go away\"\nBLOCK_TCP=\"1\"\n\
    BLOCK_TIME=\"1s\"\nBLOCK_TIME_FACTOR=\"1\"\nHISTORY_FILE=\"FOLDER/log/history\"\nIGNORE_FILE=\"FOLDER/ignore\"\nRESOLVE_HOST=\"1\"\n\
    BLOCK_WITH=\"nftables route\"\nBLOCKED_FILE=\"FOLDER/blocked\"\n";

/// Everything that a daemon with packet rings and kernel responses is asked to do.
fn watching(how: (&Path, bool)) -> BTreeSet<Call> {
    let lab = Lab::new(4);
    let mut life = Life::begin(&lab, how, WATCH, &[], |setup| {
        log_folder(setup);
        large_ledger(setup);
    });
    visit_decoys(&lab);
    life.scan(1, "1");
    life.client(&["block", "198.51.100.1", "600"]);
    for what in ["list", "status", "stats"] {
        life.client(&[what]);
    }
    life.client(&["unblock", "198.51.100.1"]);
    life.client(&["unblock", "all"]);
    reload(&life);
    ip(&["-n", &lab.target(), "link", "set", "p3", "down"]);
    ip(&["-n", &lab.target(), "link", "set", "p3", "up"]);
    life.scan(2, "9");
    life.daemon.wait_for("an end", |event| event["event_type"] == "unblock");
    flood(&lab);
    life.daemon.catch_up();
    life.end()
}

/// Other ports, an ignore file too long for one piece of memory, and a history file that was moved away.
fn reload(life: &Life<'_>) {
    let config = life.daemon.path("portsentry.conf");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("TCP_PORTS=\"1,7\"", "TCP_PORTS=\"1,9\"")).unwrap();
    std::fs::write(life.daemon.path("ignore"), "# nobody in particular\n".repeat(20_000)).unwrap();
    let history = life.daemon.path("log/history");
    std::fs::rename(&history, life.daemon.path("log/history.1")).unwrap();
    life.daemon.signal(Signal::SIGHUP);
    eventually("the history file is made anew", PATIENCE, || history.exists());
}

/// A visit to the decoy of each protocol, with a word.
fn visit_decoys(lab: &Lab) {
    let host = lab.peer(0);
    let address = host.target_v4.to_string();
    for visit in [format!("-u -w1 -p 5353 {address} 53"), format!("-w1 {address} 23")] {
        host.run(&["sh", "-c", &format!("echo a long enough word | timeout 3 nc {visit} || true")]);
    }
}

fn flood(lab: &Lab) {
    let host = lab.peer(3);
    let address = host.target_v4.to_string();
    host.hping3(&["-S", "-p", "1", "--rand-source", "-i", "u20", "-c", "5000", &address]);
}

const FILES: &str = "TCP_PORTS=\"1\"\nBLOCK_TCP=\"1\"\nBLOCK_TIME=\"1s\"\nBLOCK_WITH=\"hosts_deny\"\nHOSTS_DENY_FILE=\"FOLDER/hosts/hosts.deny\"\n";

/// hosts.deny, written and taken back.
fn with_files(how: (&Path, bool)) -> BTreeSet<Call> {
    let lab = Lab::new(1);
    let mut life = Life::begin(&lab, how, FILES, &[], |setup| {
        std::fs::create_dir(setup.path("hosts")).unwrap();
        std::fs::write(setup.path("hosts/hosts.deny"), "").unwrap();
        std::os::unix::fs::chown(setup.path("hosts/hosts.deny"), Some(4242), Some(4242)).unwrap();
    });
    life.scan(0, "1");
    life.daemon.wait_for("an end", |event| event["event_type"] == "unblock");
    life.end()
}

/// `-D`: nobody's child, and heard in the journal alone, which is ours here.
fn in_the_background((program, vdso): (&Path, bool)) -> BTreeSet<Call> {
    let lab = Lab::new(0);
    let setup = Setup::new(&lab, "TCP_PORTS=\"1\"");
    let at = setup.path("journal");
    let journal = listen(&at);
    let tracer = Tracer::new(vdso);
    let (shell, flags) = tracer.through();
    let own_run = format!(
        "mount -t tmpfs none /run && mkdir -p /run/systemd/journal && ln -s {} /run/systemd/journal/socket && exec \"$@\"",
        at.display()
    );
    let mut command = Command::new("ip");
    command
        .args(["netns", "exec", &lab.target(), "sh", "-c", &own_run, "sh", shell])
        .args(flags)
        .arg(program);
    command.args(["-D", "-l", "journald", "-c"]).arg(setup.path("portsentry.conf"));
    assert!(command.status().unwrap().success(), "whoever started it is let go");
    let started = heard(&journal, "start");
    // The journal is restarted: nobody is connected to the new one, which is sent to by its path.
    std::fs::remove_file(&at).unwrap();
    drop(journal);
    let journal = listen(&at);
    kill(started["start"]["pid"].as_u64().unwrap().try_into().unwrap(), Signal::SIGTERM);
    heard(&journal, "stop");
    tracer.finish()
}

fn listen(at: &Path) -> UnixDatagram {
    let journal = UnixDatagram::bind(at).unwrap();
    journal.set_read_timeout(Some(PATIENCE)).unwrap();
    std::fs::set_permissions(at, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    journal
}

/// The next event of a kind in the journal, which has it as its first field.
fn heard(journal: &UnixDatagram, kind: &str) -> Value {
    let mut entry = [0; 65_536];
    loop {
        let length = journal.recv(&mut entry).expect("something is told in time");
        let text = String::from_utf8_lossy(&entry[..length]).into_owned();
        let message = text.lines().find_map(|line| line.strip_prefix("MESSAGE=")).unwrap();
        let event: Value = serde_json::from_str(message).unwrap();
        if event["event_type"] == kind {
            return event;
        }
    }
}

/// The daemon as cargo built it, and as it is installed where that has been built.
fn programs() -> Vec<PathBuf> {
    let debug = PathBuf::from(env!("CARGO_BIN_EXE_portsentry-rs"));
    let release = std::env::var_os("PORTSENTRY_RELEASE").map(|folder| Path::new(&folder).join(SENSOR));
    [debug].into_iter().chain(release).collect()
}

#[cfg(target_env = "musl")]
const RECORDS: &str = "musl: the allocator's own records, never code";

/// Rules that no test can be counted on to bring about, and why they must stay: role, system call, reason of the rule, why.
/// On a busy machine one of them is seen now and then.
const UNPROVOKED: &[(&str, &str, &str, &str)] = &[
    #[cfg(target_env = "musl")]
    (SENSOR, "mprotect", RECORDS, "musl: only where brk gives no more, for something lies behind it"),
    #[cfg(target_env = "musl")]
    (HELPER, "mprotect", RECORDS, "musl: only where brk gives no more, for something lies behind it"),
    (
        SENSOR,
        "sched_yield",
        "a ring thread that waits for another one's place in the queue to the main thread",
        "crossbeam: only where that other one lost its processor between taking the place and filling it",
    ),
    (
        SENSOR,
        "getsockopt",
        "why a ring woke its thread",
        "the kernel reports no error on a ring that is bound to all interfaces, as ours are; left alone, one would keep the thread awake for ever",
    ),
];

/// What glibc reserves for a thread's own heap: 64 MiB, less what is in use.
const RESERVE: u64 = 32 << 20;

/// Lengths of the mappings that nobody may touch.
fn reserved(pid: u32) -> Vec<u64> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let number = |text: &str| u64::from_str_radix(text, 16).unwrap();
    let untouched = maps.lines().filter(|line| line.contains(" ---p "));
    untouched
        .map(|line| line.split_once(' ').unwrap().0.split_once('-').unwrap())
        .map(|(start, end)| number(end) - number(start))
        .collect()
}

/// To grow and shrink heaps of their own they would make calls that no rule allows: mprotect, madvise, and the open of a
/// file of /proc.
#[test]
fn ring_threads_have_no_heap_of_their_own() {
    let lab = Lab::new(1);
    for program in programs() {
        let setup = Setup::new(&lab, "WORKERS=\"2\"\nTCP_PORTS=\"1\"");
        let daemon = setup.start_program(&program, &[]);
        let reserved = reserved(daemon.pid());
        assert!(reserved.iter().all(|&length| length < RESERVE), "{}: {reserved:?}", program.display());
    }
}

#[test]
#[ignore = "run by the other test, as a process of its own"]
fn the_tracer() {
    support::tracer::follow();
}

/// The sockets that sensors gave an address to. Each was held to the numbers of its own: they lived.
fn addressing(calls: &BTreeSet<Call>) -> Addressing {
    let made = |number: i64| calls.iter().filter(move |(role, what, _)| role == SENSOR && *what == number);
    let socket = |(_, _, with): &Call| RawFd::try_from(with[0]).unwrap();
    let to_an_address = made(libc::SYS_sendto).filter(|(_, _, with)| with[4] != 0);
    Addressing {
        log: to_an_address.map(socket).next(),
        decoys: made(libc::SYS_sendmsg).map(socket).collect(),
    }
}

#[test]
fn every_rule_is_needed_by_what_a_daemon_does() {
    let mut calls = BTreeSet::new();
    for program in programs() {
        for vdso in [true, false] {
            calls.extend(watching((&program, vdso)));
        }
        calls.extend(with_files((&program, true)));
        calls.extend(in_the_background((&program, true)));
    }
    let addressing = addressing(&calls);
    // Or their rules, which are made of what was seen, would not be among those that are looked at.
    assert!(addressing.log.is_some(), "nobody sent a line to the log's daemon by its path");
    assert!(!addressing.decoys.is_empty(), "no decoy answered a datagram");
    let mut wrong = Vec::new();
    println!("{:21} {:14} {:8} reason", "role", "system call", "use");
    for (role, rule) in roles::with(&addressing)
        .iter()
        .flat_map(|(role, lists)| lists.iter().copied().flatten().map(move |it| (role, it)))
    {
        let Some(number) = rule.number(Machine::HERE).unwrap() else { continue };
        let is_needed =
            calls.iter().any(|(who, what, with)| who == role && *what == number && rule.allows(with));
        let excused = UNPROVOKED
            .iter()
            .find(|(who, call, reason, _)| (*who, *call, *reason) == (*role, rule.syscall, rule.reason));
        let usage = match (is_needed, excused) {
            (true, _) => "needed",
            (false, Some(_)) => "excused",
            (false, None) => "WRONG",
        };
        println!("{role:21} {:14} {usage:8} {}", rule.syscall, rule.reason);
        if usage == "WRONG" {
            wrong.push(format!("{role} {} ({})", rule.syscall, rule.reason));
        }
    }
    assert!(wrong.is_empty(), "not needed:\n{}", wrong.join("\n"));
}
