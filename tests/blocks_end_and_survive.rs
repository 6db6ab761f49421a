//! Blocks end on time, grow for repeat offenders, and outlive the daemon.

mod support;

use std::fs::File;
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use support::daemon::{Daemon, PATIENCE, Setup, alive, kill};
use support::service::{Service, answers};
use support::{Lab, eventually};

const SHORT: Duration = Duration::from_millis(300);

fn config(seconds: &str) -> String {
    format!("TCP_PORTS=\"111\"\nBLOCK_TCP=\"1\"\nBLOCK_TIME=\"{seconds}\"\nBLOCK_TIME_FACTOR=\"3\"")
}

fn offend(lab: &Lab, daemon: &mut Daemon) -> Value {
    let scanner = lab.peer(0);
    scanner.nmap(&["-sS", "--max-retries", "0", "-p", "111", &scanner.target_v4.to_string()]);
    daemon.wait_for_new("the block", |event| event["event_type"] == "block")
}

fn listed(daemon: &Daemon) -> String {
    let output = daemon.client(&["list"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_block_ends_by_itself_and_the_second_offence_lasts_longer() {
    let lab = Lab::new(1);
    let scanner = lab.peer(0);
    let _service = Service::start(&lab.target(), 80);
    let mut daemon = Setup::new(&lab, &config("5s")).start();

    let first = offend(&lab, &mut daemon);
    assert_eq!(
        (first["action"]["seconds"].as_u64(), first["action"]["offence"].as_u64()),
        (Some(5), Some(1)),
        "{first}"
    );
    assert!(!answers(&scanner.netns, scanner.target(false), 80, SHORT));
    daemon.wait_for_new("the unblock", |event| event["event_type"] == "unblock");
    eventually("the service answers again", PATIENCE, || {
        answers(&scanner.netns, scanner.target(false), 80, SHORT)
    });
    assert!(!listed(&daemon).contains("10.77.0.2"));

    let second = offend(&lab, &mut daemon);
    assert_eq!(
        (second["action"]["seconds"].as_u64(), second["action"]["offence"].as_u64()),
        (Some(15), Some(2)),
        "{second}"
    );
}

#[test]
fn blocks_outlive_kill_9_of_both_processes() {
    let lab = Lab::new(1);
    let scanner = lab.peer(0);
    let _service = Service::start(&lab.target(), 80);
    let mut daemon = Setup::new(&lab, &config("10m")).start();
    offend(&lab, &mut daemon);
    let helper = daemon.helper_pid();
    kill(helper, Signal::SIGKILL);
    daemon.signal(Signal::SIGKILL);
    daemon.wait();
    eventually("the helper is gone", Duration::from_secs(1), || !alive(helper));
    assert!(lab.is_blocked(lab.peer(0).v4), "the kernel keeps the block meanwhile");

    // A reboot: the kernel has forgotten everything, the ledger has not.
    assert!(lab.on_target(&["nft", "delete", "table", "inet", "portsentry"]).status.success());
    let daemon = daemon.into_setup().start();
    assert!(lab.is_blocked(lab.peer(0).v4), "restored: {}", lab.nft_table());
    assert!(listed(&daemon).contains("10.77.0.2"));
    assert!(!answers(&scanner.netns, scanner.target(false), 80, SHORT));
    assert!(daemon.client(&["unblock", "10.77.0.2"]).status.success());
    assert!(answers(&scanner.netns, scanner.target(false), 80, PATIENCE));
    assert!(!listed(&daemon).contains("10.77.0.2"));
}

#[test]
fn a_clean_stop_leaves_blocks_in_force_and_no_process() {
    let lab = Lab::new(1);
    let mut daemon = Setup::new(&lab, &config("10m")).start();
    offend(&lab, &mut daemon);
    let helper = daemon.helper_pid();
    let (status, _setup) = daemon.stop();
    assert_eq!(status.code(), Some(0));
    eventually("the helper is gone", Duration::from_secs(1), || !alive(helper));
    assert!(lab.is_blocked(lab.peer(0).v4));
}

#[test]
fn the_helper_dying_ends_the_sensor_with_code_70_within_a_second() {
    let lab = Lab::new(1);
    let mut daemon = Setup::new(&lab, &config("10m")).start();
    kill(daemon.helper_pid(), Signal::SIGKILL);
    assert_eq!(daemon.wait_at_most(Duration::from_secs(1)).code(), Some(70));
}

#[test]
fn that_nobody_can_be_told_of_it_changes_nothing_about_how_the_sensor_ends() {
    let lab = Lab::new(1);
    let flags = ["-c", "exec \"$@\" 2>/dev/full", "sh"].map(str::to_owned);
    let mut daemon = Setup::new(&lab, &config("10m")).start_through("sh", &flags);
    kill(daemon.helper_pid(), Signal::SIGKILL);
    assert_eq!(daemon.wait_at_most(Duration::from_secs(1)).code(), Some(70));
}

/// As where a terminal was stopped, or the log of a container is stuck: both processes have something to say.
#[test]
fn a_standard_error_that_nobody_reads_keeps_neither_process_from_its_work_nor_from_its_end() {
    let lab = Lab::new(0);
    let setup = Setup::new(&lab, &config("10m"));
    let pipe = setup.path("stuck");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mut full = File::options().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(&pipe).unwrap();
    while full.write(&[b'x'; 4096]).is_ok() {}
    let flags = ["-c".to_owned(), format!("exec \"$@\" 2>{}", pipe.display()), "sh".to_owned()];
    let mut daemon = setup.start_through("sh", &flags);
    let config = daemon.path("portsentry.conf").display().to_string();
    let asked = |what: &[&str]| {
        let client = ["timeout", "20", env!("CARGO_BIN_EXE_portsentry-rs")];
        lab.on_target(&[&client, what, &["-c", &config]].concat()).status.success()
    };

    assert!(asked(&["block", "192.0.2.7"]));
    // The helper tells its log of this.
    assert!(lab.on_target(&["nft", "delete", "table", "inet", "portsentry"]).status.success());
    assert!(asked(&["block", "192.0.2.8"]), "the helper waits for a reader");
    assert!(lab.nft_table().contains("192.0.2.7"));
    assert!(asked(&["unblock", "192.0.2.8"]));
    // And the sensor of this.
    kill(daemon.helper_pid(), Signal::SIGKILL);
    assert_eq!(daemon.wait_at_most(Duration::from_secs(1)).code(), Some(70));
    assert!(full.write(&[0]).is_err(), "it was full all the time");
}

/// With which code it ends `tests/helper_pipe.rs` shows: here it is nobody's child any more.
#[test]
fn the_sensor_dying_ends_the_helper_within_a_second() {
    let lab = Lab::new(1);
    let daemon = Setup::new(&lab, &config("10m")).start();
    let helper = daemon.helper_pid();
    daemon.signal(Signal::SIGKILL);
    eventually("the helper is gone", Duration::from_secs(1), || !alive(helper));
}

#[test]
fn an_operator_can_block_and_unblock_everything() {
    let lab = Lab::new(1);
    let daemon = Setup::new(&lab, &config("10m")).start();
    for target in ["192.0.2.7", "2001:db8::7", "2001:db8:1::/64"] {
        let output = daemon.client(&["block", target, "600"]);
        assert!(output.status.success(), "{target}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(listed(&daemon).contains(target));
    }
    let json = daemon.client(&["list", "--json"]);
    let entries: Vec<Value> = String::from_utf8(json.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(entries.len(), 3, "{entries:#?}");
    assert!(daemon.client(&["unblock", "all"]).status.success());
    assert!(!lab.nft_table().contains("192.0.2.7"));
    let again = daemon.client(&["unblock", "all"]);
    assert!(again.status.success(), "as wanted: {again:?}");
    assert_eq!(String::from_utf8_lossy(&again.stdout), "nobody is blocked\n");
    assert!(!daemon.client(&["unblock", "192.0.2.7"]).status.success(), "a name that may be mistyped");
    let refused = daemon.client(&["block", "192.0.2.0/8"]);
    assert!(!refused.status.success());
}

#[test]
fn who_asks_for_an_address_within_a_blocked_network_is_told_what_to_lift() {
    let lab = Lab::new(1);
    let daemon = Setup::new(&lab, &config("1h")).start();
    for (wide, narrow) in [("2001:db8:1:2::/64", "2001:db8:1:2::7"), ("198.51.100.0/24", "198.51.100.9")] {
        assert!(daemon.client(&["block", wide]).status.success());
        for blocked_too in [false, true] {
            if blocked_too {
                let _ = daemon.client(&["block", narrow]);
            }
            let answer = daemon.client(&["unblock", narrow]);
            let said = String::from_utf8_lossy(&answer.stderr).into_owned();
            assert!(!answer.status.success() && said.contains(narrow), "{said}");
            assert!(said.contains(&format!("portsentry-rs unblock {wide}")), "{said}");
        }
        assert!(daemon.client(&["unblock", wide]).status.success());
    }
}

#[test]
fn rules_that_somebody_takes_out_are_put_back_with_the_blocks() {
    let lab = Lab::new(1);
    let daemon = Setup::new(&lab, &config("1h")).start();
    for blocked in ["198.51.100.9", "2001:db8:1:2::/64"] {
        assert!(daemon.client(&["block", blocked]).status.success());
    }
    let verdicts = |table: &str| ["jump ", " accept", " drop"].map(|word| table.matches(word).count());
    let rules = || verdicts(&lab.nft_table()).iter().sum::<usize>();
    let whole = rules();
    for what in [
        "flush chain inet portsentry probe",
        "flush chain inet portsentry never",
        "flush chain inet portsentry blocked",
        "delete table inet portsentry",
    ] {
        daemon.unseen_by_the_helper(|| {
            assert!(lab.on_target(&["nft", what]).status.success());
            assert!(rules() < whole, "{what}");
        });
        eventually("the rules are back", PATIENCE, || rules() == whole);
        let table = lab.nft_table();
        assert!(
            table.contains("198.51.100.9 timeout") && table.contains("2001:db8:1:2:: timeout"),
            "{table}"
        );
    }
}

#[test]
fn a_block_that_somebody_takes_out_of_its_set_is_put_back() {
    let lab = Lab::new(1);
    let daemon = Setup::new(&lab, &config("1h")).start();
    let blocked = ["198.51.100.9", "198.51.100.10", "2001:db8:1:2::"];
    for target in ["198.51.100.9", "198.51.100.10", "2001:db8:1:2::/64"] {
        assert!(daemon.client(&["block", target]).status.success());
    }
    let is_whole = || {
        let table = lab.nft_table();
        blocked.iter().all(|it| table.contains(&format!("{it} timeout")))
            && !table.contains("timeout 9s")
            && !table.contains("dormant")
    };
    assert!(is_whole());
    for what in [
        "delete element inet portsentry blocked4 { 198.51.100.9 }",
        "flush set inet portsentry blocked4",
        "flush set inet portsentry blocked6_64",
        "delete element inet portsentry blocked4 { 198.51.100.10 }; \
         add element inet portsentry blocked4 { 198.51.100.10 timeout 9s }",
        "add table inet portsentry { flags dormant; }",
    ] {
        daemon.unseen_by_the_helper(|| {
            assert!(lab.on_target(&["nft", what]).status.success(), "{what}");
            assert!(!is_whole(), "{what}");
        });
        eventually("it is put back", PATIENCE, is_whole);
    }
}

#[test]
fn a_ruleset_that_somebody_restores_brings_back_no_lifted_block_and_costs_none() {
    let lab = Lab::new(1);
    let daemon = Setup::new(&lab, &config("1h")).start();
    assert!(daemon.client(&["block", "198.51.100.9"]).status.success());
    let saved = daemon.path("saved");
    let save = format!("(echo flush ruleset; nft list ruleset) > {}", saved.display());
    assert!(lab.on_target(&["sh", "-c", &save]).status.success());
    assert!(daemon.client(&["unblock", "198.51.100.9"]).status.success());
    assert!(daemon.client(&["block", "198.51.100.10"]).status.success());
    let kernel = || ["198.51.100.9", "198.51.100.10"].map(|it| lab.nft_table().contains(it));
    daemon.unseen_by_the_helper(|| {
        assert!(lab.on_target(&["nft", "-f", saved.to_str().unwrap()]).status.success());
        assert_eq!(kernel(), [true, false]);
    });
    eventually("the kernel has what the list says", PATIENCE, || kernel() == [false, true]);
    assert!(listed(&daemon).contains("198.51.100.10") && !listed(&daemon).contains("198.51.100.9 "));
}

/// Where the kernel lacks one of the sets it refuses all that is asked of the others with it.
#[test]
fn unblock_lets_in_whom_a_table_in_the_place_of_ours_holds() {
    let lab = Lab::new(1);
    let setup = Setup::new(&lab, &config("1h"));
    let log = setup.path("log");
    let to_log = format!("exec 2> {}; exec \"$@\"", log.display());
    let daemon = setup.start_through("sh", &["-c", &to_log, "sh"].map(str::to_owned));
    let said = || std::fs::read_to_string(&log).unwrap().matches("they are installed again").count();
    let table = "flush ruleset; table inet portsentry { set blocked4 { type ipv4_addr; flags timeout; \
                 elements = { 198.51.100.9 timeout 1h, 198.51.100.10 timeout 1h }; }; }";
    let held = || ["198.51.100.9", "198.51.100.10"].map(|it| lab.is_blocked(it.parse::<IpAddr>().unwrap()));
    for target in ["198.51.100.9", "198.51.100.10"] {
        assert!(daemon.client(&["block", target]).status.success());
    }
    for (target, left) in [("198.51.100.9", [false, true]), ("all", [false, false])] {
        daemon.unseen_by_the_helper(|| {
            assert!(lab.on_target(&["nft", table]).status.success());
            assert_eq!(held(), [true, true]);
        });
        let output = daemon.client(&["unblock", target]);
        assert!(output.status.success() && held() == left, "{output:?}: {}", lab.nft_table());
        assert!(lab.nft_table().contains("never4"), "and it is our table");
    }
    assert!(said() >= 2, "each time the log says so");
}

/// Without a tripwire either: nothing else is to be looked at.
#[test]
fn a_ruleset_that_somebody_restores_shuts_out_nobody_who_was_let_in_where_nobody_is_blocked() {
    let lab = Lab::new(1);
    let lines = format!("{}\nTRIPWIRE=\"0\"", config("1h"));
    let daemon = Setup::new(&lab, &lines).start();
    let owner = lab.peer(0).v4.to_string();
    assert!(daemon.client(&["block", &owner]).status.success());
    let saved = daemon.path("saved");
    let save = format!("(echo flush ruleset; nft list ruleset) > {}", saved.display());
    assert!(lab.on_target(&["sh", "-c", &save]).status.success());
    assert!(daemon.client(&["unblock", &owner]).status.success());
    let path = daemon.path("portsentry.conf");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("{text}NEVER_BLOCK=\"{owner}\"\n")).unwrap();
    daemon.signal(Signal::SIGHUP);
    eventually("he is protected", PATIENCE, || lab.nft_table().contains(&owner));
    assert!(!lab.is_blocked(lab.peer(0).v4));
    daemon.unseen_by_the_helper(|| {
        assert!(lab.on_target(&["nft", "-f", saved.to_str().unwrap()]).status.success());
        assert!(lab.is_blocked(lab.peer(0).v4));
    });
    eventually("he is let in", PATIENCE, || !lab.is_blocked(lab.peer(0).v4));
    assert!(lab.nft_table().contains(&owner), "and is protected");
}

#[test]
fn the_tripwire_is_put_back_also_where_nobody_is_blocked() {
    let lab = Lab::new(1);
    let daemon = Setup::new(&lab, &config("1h")).start();
    daemon.unseen_by_the_helper(|| {
        assert!(lab.on_target(&["nft", "delete", "table", "inet", "portsentry"]).status.success());
    });
    eventually("the table is back", PATIENCE, || lab.nft_table().contains("traps_tcp"));
}
