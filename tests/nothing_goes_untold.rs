//! Nothing goes untold: the end of every block at a stop, a helper that keeps a stop waiting, stands still or
//! dies, and who is blocked when the daemon is ready.

mod support;

use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::Duration;

use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use support::daemon::{Daemon, PATIENCE, Setup, alive, kill, suspend};
use support::{Lab, eventually, ip, ledger};

const PORTS: &str = "TCP_PORTS=\"111\"\nBLOCK_TCP=\"1\"";
/// The first of the blocks that a ledger has: 198.51.100.0.
const FIRST: u32 = 0xc633_6400;

#[test]
fn blocks_that_a_stop_lifts_or_that_were_lifted_right_before_it_have_their_ends_told() {
    for flush_on_stop in [true, false] {
        let lab = Lab::new(1);
        let setup = Setup::new(&lab, &format!("{PORTS}\nFLUSH_ON_STOP=\"{}\"", u8::from(flush_on_stop)));
        // More than one turn tells.
        ledger::write(&setup.path("state"), FIRST, 2000);
        let mut daemon = setup.start();
        if !flush_on_stop {
            assert!(daemon.client(&["unblock", "all"]).status.success());
        }
        daemon.signal(Signal::SIGTERM);
        let stop = daemon.wait_for("the stop", |event| event["event_type"] == "stop");
        assert_eq!(stop["stats"]["blocks_in_force"], 0, "{stop}");
        let lifted = |event: &&serde_json::Value| {
            event["event_type"] == "unblock" && event["action"]["verdict"] == "lifted"
        };
        assert_eq!(daemon.seen.iter().filter(lifted).count(), 2000, "{flush_on_stop}");
        assert_eq!(daemon.wait().code(), Some(0));
    }
}

#[test]
fn a_bridges_port_that_is_watched_in_place_of_the_bridge_is_told_of_at_the_start_and_by_check() {
    let lab = Lab::new(1);
    let (target, port) = (lab.target(), lab.peer(0).target_interface.clone());
    ip(&["-n", &target, "link", "add", "br0", "type", "bridge"]);
    ip(&["-n", &target, "link", "set", &port, "master", "br0"]);
    let told = format!("INTERFACES names {port}, a port of br0");
    for (named, is_told) in [(port.clone(), true), ("br0".to_owned(), false), (format!("{port},br0"), false)]
    {
        let setup = Setup::new(&lab, &format!("{PORTS}\nINTERFACES=\"{named}\""));
        let check = setup.run(&["check", "--quiet"]);
        let warned = String::from_utf8_lossy(&check.stderr).contains(&told);
        let mut daemon = setup.start();
        daemon.wait_for("the start", |event| event["event_type"] == "start");
        let errors = daemon.seen.iter().filter_map(|event| event["error"].as_str());
        let errors = errors.filter(|error| error.contains(&told)).count();
        assert_eq!((warned, errors), (is_told, usize::from(is_told)), "{named}: {check:?}");
    }
}

/// In full each of the lists would be 190 KiB, and more than 256 KiB are in no line.
#[test]
fn the_start_is_told_however_many_ports_stand_alone() {
    let lab = Lab::new(1);
    let odd: Vec<String> = (1..=u16::MAX).step_by(2).map(|port| port.to_string()).collect();
    let odd = odd.join(",");
    let setup = Setup::new(&lab, &format!("TCP_PORTS=\"{odd}\"\nUDP_PORTS=\"{odd}\""));
    let mut daemon = setup.start();
    let start = daemon.wait_for("the start", |event| event["event_type"] == "start");
    for ports in ["tcp_ports", "udp_ports"] {
        let told = start["start"][ports].as_str().unwrap();
        assert!(told.starts_with("1,3,5,") && told.ends_with(",511 and 32512 more"), "{told}");
    }
}

/// The service manager hears of what was put back, and so does whoever reads of its end.
#[test]
fn who_is_blocked_is_known_when_the_daemon_is_ready() {
    let lab = Lab::new(1);
    let setup = Setup::new(&lab, PORTS);
    // More than one page of the helper's list, in which the last comes late.
    let (blocks, last) = (10_000, FIRST + 9_999);
    ledger::write(&setup.path("state"), FIRST, blocks);
    let socket = setup.path("notify");
    let manager = UnixDatagram::bind(&socket).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut daemon = setup.start_through("env", &[format!("NOTIFY_SOCKET={}", socket.display())]);
    assert!(daemon.client(&["unblock", &Ipv4Addr::from(last).to_string()]).status.success());
    let target = format!("{}/32", Ipv4Addr::from(last));
    let end = daemon.wait_for("its end", |event| event["action"]["target"] == target.as_str());
    assert_eq!(end["event_type"], "unblock", "{end}");
    let mut told = [0; 512];
    let length = manager.recv(&mut told).unwrap();
    let told = String::from_utf8_lossy(&told[..length]).into_owned();
    assert!(told.starts_with("READY=1") && told.contains(&format!(", {blocks} in force")), "{told}");
}

/// With one block, which the stop is to lift.
fn stopping_while_the_helper_stands_still(lab: &Lab) -> (Daemon, u32) {
    let daemon = Setup::new(lab, &format!("{PORTS}\nFLUSH_ON_STOP=\"1\"")).start();
    assert!(daemon.client(&["block", "198.51.100.9"]).status.success());
    let helper = daemon.helper_pid();
    suspend(helper);
    daemon.signal(Signal::SIGTERM);
    (daemon, helper)
}

#[test]
fn a_stop_waits_for_a_helper_that_is_held_up_and_lifts_its_blocks() {
    let lab = Lab::new(1);
    let (mut daemon, helper) = stopping_while_the_helper_stands_still(&lab);
    // As long as another program may well hold the lock of iptables.
    std::thread::sleep(Duration::from_secs(3));
    kill(helper, Signal::SIGCONT);
    assert_eq!(daemon.wait().code(), Some(0));
    daemon.wait_for("the stop", |event| event["event_type"] == "stop");
    let seen = |kind: &str| daemon.seen.iter().filter(|event| event["event_type"] == kind).count();
    assert_eq!((seen("unblock"), seen("error")), (1, 0), "{:#?}", daemon.seen);
    assert!(!lab.nft_table().contains("198.51.100.9"));
}

#[test]
fn a_stop_that_the_helper_does_not_answer_says_so_and_no_block_is_told_to_have_ended() {
    let lab = Lab::new(1);
    let (mut daemon, helper) = stopping_while_the_helper_stands_still(&lab);
    let told = daemon.wait_for("that there is no answer", |event| event["event_type"] == "error");
    let said = told["error"].as_str().unwrap_or_default();
    assert!(said.starts_with("the helper has not answered within 8 s"), "{told}");
    let stop = daemon.wait_for("the stop", |event| event["event_type"] == "stop");
    assert_eq!(stop["stats"]["blocks_in_force"], 1, "{stop}");
    assert!(!daemon.seen.iter().any(|event| event["event_type"] == "unblock"), "{:#?}", daemon.seen);
    assert_eq!(daemon.wait().code(), Some(70));
    kill(helper, Signal::SIGCONT);
    eventually("the helper ends", PATIENCE, || !alive(helper));
}

/// The programs of a daemon that runs must not go, however its helper is.
#[test]
fn uninstall_knows_a_daemon_whose_helper_stands_still() {
    let lab = Lab::new(1);
    let daemon = Setup::new(&lab, PORTS).start();
    let (prefix, config) = (daemon.path("prefix"), daemon.path("portsentry.conf"));
    let program = prefix.join("sbin/portsentry-rs");
    std::fs::create_dir_all(prefix.join("sbin")).unwrap();
    let client = env!("CARGO_BIN_EXE_portsentry-rs");
    std::fs::write(&program, format!("#!/bin/sh\nexec {client} \"$@\" -c {}\n", config.display())).unwrap();
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    let helper = daemon.helper_pid();
    // It has begun by then: before, it waits for the helper, and answers nobody.
    daemon.stats();
    suspend(helper);
    // In the lab, whose blocks it would take back.
    let output = Command::new("ip")
        .args(["netns", "exec", &lab.target(), "make", "--no-print-directory", "uninstall"])
        .arg(format!("PREFIX={}", prefix.display()))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env_remove("MAKEFLAGS")
        .env_remove("DESTDIR")
        .output()
        .expect("make is installed");
    kill(helper, Signal::SIGCONT);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("the daemon runs: lift its blocks"), "{output:?}");
    assert!(program.exists() && lab.has_nft_table());
}

#[test]
fn status_fails_while_the_helper_stands_still_and_says_so() {
    let lab = Lab::new(1);
    let daemon = Setup::new(&lab, PORTS).start();
    let status = |arguments: &[&str]| {
        let output = daemon.client(arguments);
        let [said, error] =
            [&output.stdout, &output.stderr].map(|it| String::from_utf8_lossy(it).into_owned());
        (output.status.code(), said, error)
    };
    let answers =
        |said: &str| serde_json::from_str::<serde_json::Value>(said).unwrap()["helper_answers"].clone();
    let helper = daemon.helper_pid();
    for stands_still in [false, true, false] {
        match stands_still {
            true => suspend(helper),
            false => kill(helper, Signal::SIGCONT),
        }
        let (code, said, error) = status(&["status", "--json"]);
        assert_eq!(answers(&said), !stands_still, "{said}");
        assert_eq!(code, Some(i32::from(stands_still)));
        assert_eq!(error.contains(&format!("the helper (process {helper}) has not answered")), stands_still);
        let (code, said, _) = status(&["status"]);
        assert_eq!(code, Some(i32::from(stands_still)));
        assert_eq!(said.contains("which does not answer"), stands_still, "{said}");
        assert_eq!(status(&["stats"]).0, Some(0), "the counts are the sensor's");
    }
    // As long as somebody may hold the lock of iptables, for which the helper waits by design.
    suspend(helper);
    std::thread::scope(|threads| {
        threads.spawn(move || {
            std::thread::sleep(Duration::from_secs(4));
            kill(helper, Signal::SIGCONT);
        });
        let (code, _, error) = status(&["status"]);
        assert_eq!(code, Some(0), "{error}");
    });
}

/// Whether the ring threads have something for the main thread: the bell of their queue rings (proc_pid_fdinfo(5)).
fn bell_rings(pid: u32) -> bool {
    let files = std::fs::read_dir(format!("/proc/{pid}/fdinfo")).unwrap();
    let mut texts = files.filter_map(|file| std::fs::read_to_string(file.ok()?.path()).ok());
    texts.any(|text| {
        let count = text.lines().find_map(|line| line.strip_prefix("eventfd-count:"));
        count.is_some_and(|count| count.trim() != "0")
    })
}

/// Whether every thread but the held main one sleeps (proc_pid_stat(5)): a packet wakes its ring thread as it arrives, so whoever
/// sleeps again has judged all that came. The bell alone may ring for somebody else's packet.
fn others_sleep(pid: u32) -> bool {
    let stat = |entry: std::fs::DirEntry| std::fs::read_to_string(entry.path().join("stat")).unwrap();
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().map(|entry| entry.unwrap());
    let mut others = threads.filter(|entry| entry.file_name() != *pid.to_string());
    others.all(|entry| stat(entry).rsplit(") ").next().is_some_and(|rest| rest.starts_with('S')))
}

/// The main thread alone is held, so that it finds what the rings saw before the helper's end, and writes to nobody.
#[test]
fn a_helper_that_dies_during_a_scan_is_told_to_have_died_and_the_scan_is_told_of() {
    let lab = Lab::new(1);
    let setup = Setup::new(&lab, &format!("{PORTS}\nTRIPWIRE=\"0\""));
    let errors = setup.path("errors");
    let flags = ["-c".to_owned(), format!("exec \"$@\" 2>{}", errors.display()), "sh".to_owned()];
    let mut daemon = setup.start_through("sh", &flags);
    assert!(daemon.client(&["status"]).status.success(), "it has begun");
    let (helper, main) = (daemon.helper_pid(), Pid::from_raw(i32::try_from(daemon.pid()).unwrap()));
    ptrace::seize(main, ptrace::Options::empty()).expect("root may trace");
    ptrace::interrupt(main).unwrap();
    let held = waitpid(main, Some(WaitPidFlag::__WALL)).unwrap();
    assert!(matches!(held, WaitStatus::PtraceEvent(..)), "{held:?}");
    let scanner = lab.peer(0);
    scanner.nmap(&["-sS", "--max-retries", "0", "-p", "111", &scanner.target_v4.to_string()]);
    eventually("the rings have judged it", PATIENCE, || {
        others_sleep(daemon.pid()) && bell_rings(daemon.pid())
    });
    kill(helper, Signal::SIGSYS);
    eventually("the helper is dead", PATIENCE, || !alive(helper));
    ptrace::detach(main, None).unwrap();

    daemon.wait_for("the scan", |event| event["event_type"] == "scan" && event["src_ip"] == "10.77.0.2");
    assert_eq!(daemon.wait().code(), Some(70));
    let said = std::fs::read_to_string(errors).unwrap();
    assert!(said.lines().last().is_some_and(|line| line.contains("the helper died of SIGSYS")), "{said}");
}

/// Where a file may not grow further a write is answered with a signal that ends who does not expect it.
#[test]
fn a_limit_of_the_size_of_files_costs_lines_and_no_daemon() {
    let lab = Lab::new(2);
    let setup = Setup::new(&lab, PORTS);
    let history = setup.path("history");
    setup.rewrite(&format!("{PORTS}\nHISTORY_FILE=\"{}\"", history.display()));
    // Less than a line of the history, or of the ledger.
    let mut daemon = setup.start_through("prlimit", &["--fsize=32".to_owned()]);
    for peer in [0, 1] {
        let scanner = lab.peer(peer);
        scanner.nmap(&["-sS", "-p", "111", &scanner.target_v4.to_string()]);
        let source = scanner.v4.to_string();
        daemon.wait_for("the block", |event| event["event_type"] == "block" && event["src_ip"] == *source);
        assert!(lab.is_blocked(scanner.v4));
    }
    assert_ne!(daemon.stats()["lost_lines"], 0);
    assert_eq!(daemon.stop().0.code(), Some(0));
}
