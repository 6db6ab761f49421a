//! Promise: the daemon takes exactly the rights it needs, from whoever starts it; the one that is missing is named, and
//! nothing is left behind. Needs root, to start daemons with less.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use support::daemon::{Setup, alive};
use support::{Lab, eventually};

/// An unprivileged user.
const USER: &str = "4242";
const LINES: &str = "TCP_PORTS=\"1,7\"\nDECOY_TCP_PORTS=\"23\"\nBLOCK_TCP=\"1\"";

/// setpriv's flags for a process that holds `capabilities` and no other, as a service manager or container gives them.
fn ambient(capabilities: &str) -> Vec<String> {
    let flags = ["--reuid", USER, "--regid", USER, "--clear-groups"].map(str::to_owned).into_iter();
    let sets = ["--inh-caps", "--ambient-caps", "--bounding-set"].into_iter();
    flags.chain(sets.map(|set| format!("{set}=-all,{capabilities}"))).collect()
}

/// Root without one capability, as a container with `--cap-drop` has it.
fn root_without(capability: &str) -> Vec<String> {
    ["--inh-caps", "--bounding-set"].map(|set| format!("{set}=-{capability}")).into()
}

/// State and control socket where an unprivileged daemon may make them.
fn owned(setup: &Setup) {
    let folder = setup.path("");
    std::os::unix::fs::chown(&folder, Some(USER.parse().unwrap()), Some(USER.parse().unwrap())).unwrap();
}

/// The kernel's account of a process, field by field.
fn field(pid: u32, name: &str) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
    line.split_whitespace().next().unwrap().to_owned()
}

/// CAP_NET_ADMIN is bit 12 (linux/capability.h).
const NET_ADMIN: &str = "0000000000001000";
const NONE: &str = "0000000000000000";

#[test]
fn started_as_root_the_sensor_ends_with_nothing_and_the_helper_with_one_capability() {
    let lab = Lab::new(1);
    let mut daemon = Setup::new(&lab, LINES).start();
    let (sensor, helper) = (daemon.pid(), daemon.helper_pid());
    for set in ["CapPrm", "CapEff", "CapInh", "CapAmb", "CapBnd"] {
        assert_eq!(field(sensor, set), NONE, "{set}");
    }
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        assert_eq!(field(helper, set), NET_ADMIN, "{set}");
    }
    // What it may run (an operator's command) inherits no capability.
    for set in ["CapInh", "CapAmb"] {
        assert_eq!(field(helper, set), NONE, "{set}");
    }
    for process in [sensor, helper] {
        assert_ne!(field(process, "Uid"), "0");
        assert_eq!((field(process, "NoNewPrivs").as_str(), field(process, "Seccomp").as_str()), ("1", "2"));
    }
    every_thread_is_confined(sensor);
    let start = daemon.wait_for("the start event", |event| event["event_type"] == "start");
    let told = start["start"]["confinement"].to_string();
    for (role, rights) in [("sensor", "no capabilities"), ("helper", "cap_net_admin")] {
        assert!(told.contains(&format!("{role}: uid {}, {rights}", field(sensor, "Uid"))), "{told}");
    }
    assert_eq!(told.matches("no new privileges, Landlock ABI").count(), 2, "{told}");
    assert!(start["start"]["confinement"]["missing"].as_array().unwrap().is_empty(), "{told}");
}

/// Ring threads are made before the filter and must have it too.
fn every_thread_is_confined(pid: u32) {
    let tasks: Vec<_> = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().collect();
    assert!(tasks.len() > 1);
    for task in tasks {
        let status = std::fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        for line in ["Seccomp:\t2", "NoNewPrivs:\t1", "CapEff:\t0000000000000000"] {
            assert!(status.contains(line), "{line} not in {status}");
        }
    }
}

#[test]
fn started_as_a_user_with_ambient_capabilities_it_works_and_blocks() {
    let lab = Lab::new(1);
    // Whom root would become: nobody asks, for there is no root to leave.
    let setup = Setup::new(&lab, &format!("{LINES}\nRUN_AS=\"nobody-of-that-name\""));
    owned(&setup);
    let flags = ambient("+net_admin,+net_raw,+net_bind_service");
    let mut daemon = setup.start_through("setpriv", &flags);
    assert_eq!((field(daemon.pid(), "Uid").as_str(), field(daemon.pid(), "CapEff").as_str()), (USER, NONE));
    assert_eq!(
        (field(daemon.pid(), "CapAmb").as_str(), field(daemon.pid(), "Seccomp").as_str()),
        (NONE, "2")
    );
    let helper = daemon.helper_pid();
    assert_eq!((field(helper, "CapEff").as_str(), field(helper, "CapAmb").as_str()), (NET_ADMIN, NONE));
    lab.peer(0).nmap(&["-sS", "-p1", "10.77.0.1"]);
    let block = daemon.wait_for("a block", |event| event["event_type"] == "block");
    assert_eq!(block["action"]["verdict"], "blocked");
}

/// As docker starts an ordinary user: the capabilities that were added are in the bounding set and nowhere else.
fn bounded(capabilities: &str) -> Vec<String> {
    let flags = ["--reuid", USER, "--regid", USER, "--clear-groups"].map(str::to_owned).into_iter();
    let none = ["--inh-caps", "--ambient-caps"].map(|set| format!("{set}=-all")).into_iter();
    flags.chain(none).chain([format!("--bounding-set=-all,{capabilities}")]).collect()
}

/// The programs in the setup's folder, with the file capabilities that the Containerfile gives them.
fn with_file_capabilities(setup: &Setup) -> std::path::PathBuf {
    let sensor = Path::new(env!("CARGO_BIN_EXE_portsentry-rs"));
    let containerfile = include_str!("../Containerfile");
    for (name, program) in [
        ("portsentry-rs", sensor),
        ("portsentry-rs-helper", Path::new(env!("CARGO_BIN_EXE_portsentry-rs-helper"))),
    ] {
        std::fs::copy(program, setup.path(name)).unwrap();
        let line = containerfile.lines().find(|line| {
            line.ends_with(&format!("/sbin/{name}")) || line.ends_with(&format!("/sbin/{name} \\"))
        });
        let capabilities = line.unwrap().split_whitespace().find(|word| word.starts_with("cap_")).unwrap();
        assert!(Command::new("setcap").arg(capabilities).arg(setup.path(name)).status().unwrap().success());
    }
    setup.path("portsentry-rs")
}

#[test]
fn with_the_containers_file_capabilities_it_works_whether_or_not_it_inherits_any() {
    let all = "+net_admin,+net_raw,+net_bind_service";
    for flags in [bounded(all), ambient(all), [vec!["--no-new-privs".to_owned()], ambient(all)].concat()] {
        let lab = Lab::new(1);
        let setup = Setup::new(&lab, LINES);
        owned(&setup);
        let copy = with_file_capabilities(&setup);
        let mut daemon = setup.start_program_through(("setpriv", flags), &copy, &[]);
        assert_eq!(field(daemon.pid(), "CapPrm"), NONE);
        assert_eq!(field(daemon.helper_pid(), "CapPrm"), NET_ADMIN);
        lab.peer(0).nmap(&["-sS", "-p1", "10.77.0.1"]);
        let block = daemon.wait_for("a block", |event| event["event_type"] == "block");
        assert_eq!(block["action"]["verdict"], "blocked");
    }
}

#[test]
fn each_missing_capability_is_named_and_nothing_is_left_behind() {
    let without = [
        ("CAP_NET_ADMIN", "+net_raw,+net_bind_service"),
        ("CAP_NET_RAW", "+net_admin,+net_bind_service"),
        ("CAP_NET_BIND_SERVICE", "+net_admin,+net_raw"),
    ];
    for (missing, rest) in without {
        refused(&ambient(rest), missing, true);
    }
    for (missing, flag) in [
        ("CAP_NET_ADMIN", "net_admin"),
        ("CAP_NET_RAW", "net_raw"),
        ("CAP_NET_BIND_SERVICE", "net_bind_service"),
        ("CAP_SETUID", "setuid"),
        ("CAP_SETGID", "setgid"),
    ] {
        refused(&root_without(flag), missing, false);
    }
}

/// Starts a daemon through setpriv with `flags`: it ends with 1, names `missing` and no other, and leaves nothing.
fn refused(flags: &[String], missing: &str, unprivileged: bool) {
    let lab = Lab::new(1);
    let setup = Setup::new(&lab, LINES);
    if unprivileged {
        owned(&setup);
    }
    let output = setup.fail_through("setpriv", flags);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{missing}: {output:?}");
    assert!(said.contains(missing) && said.matches("CAP_").count() == 1, "{missing}: {said}");
    nothing_is_left(&lab, &setup, &output);
}

fn nothing_is_left(lab: &Lab, setup: &Setup, output: &Output) {
    assert_eq!(lab.nft_table(), "", "a table: {output:?}");
    let sockets = lab.on_target(&["ss", "-Htuanp"]);
    assert_eq!(String::from_utf8_lossy(&sockets.stdout), "", "a socket: {output:?}");
    eventually("no process is left in the namespace", support::daemon::PATIENCE, || {
        let pids = Command::new("ip").args(["netns", "pids", &lab.target()]).output().unwrap();
        String::from_utf8_lossy(&pids.stdout).split_whitespace().all(|pid| !alive(pid.parse().unwrap()))
    });
    // The next start clears a left-over socket; nobody may listen on it.
    assert!(std::os::unix::net::UnixStream::connect(setup.path("run/control.sock")).is_err());
    assert!(Path::new(&setup.path("portsentry.conf")).exists());
}

#[test]
fn without_cap_setpcap_the_bounding_set_stays_and_all_else_holds() {
    let lab = Lab::new(1);
    let daemon = Setup::new(&lab, LINES).start_through("setpriv", &root_without("setpcap"));
    assert_eq!(
        (field(daemon.pid(), "CapEff").as_str(), field(daemon.pid(), "Seccomp").as_str()),
        (NONE, "2")
    );
    assert_eq!(field(daemon.helper_pid(), "CapEff"), NET_ADMIN);
}

#[test]
fn sandbox_off_gives_up_every_right_all_the_same_and_says_what_is_missing() {
    let lab = Lab::new(1);
    let mut daemon = Setup::new(&lab, &format!("{LINES}\nSANDBOX=\"off\"")).start();
    assert_eq!(
        ["CapEff", "Seccomp", "NoNewPrivs"].map(|name| field(daemon.pid(), name)),
        [NONE, "0", "1"].map(str::to_owned)
    );
    let start = daemon.wait_for("the start event", |event| event["event_type"] == "start");
    let missing = start["start"]["confinement"]["missing"].to_string();
    for layer in ["sensor: Landlock", "sensor: seccomp", "helper: Landlock", "helper: seccomp"] {
        assert!(missing.contains(layer), "{missing}");
    }
}

/// Root may read what the daemon's user may not: it starts, and says what a reload will lack, and how to mend it.
#[test]
fn what_a_reload_will_not_be_able_to_read_is_told_at_the_start_and_by_check() {
    let mode =
        |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    let lab = Lab::new(1);
    let setup = Setup::new(&lab, LINES);
    let (conf, private) = (setup.path("portsentry.conf"), setup.path("private"));
    assert!(!String::from_utf8_lossy(&setup.run(&["check"]).stderr).contains("warning"));
    let said = |setup: &Setup| {
        let checked = setup.run(&["check"]);
        assert_eq!(checked.status.code(), Some(0), "{checked:?}");
        String::from_utf8(checked.stderr).unwrap()
    };
    let names_the_user = |said: &str| {
        // Under a unit it is its User=, which `check` cannot know: nothing is said of any other daemon.
        assert!(said.contains("a daemon that runs as uid ") && said.contains(") cannot read "), "{said}");
        assert!(said.contains("chmod g+r and chgrp ") && said.contains("restart"), "{said}");
    };
    let refused = |event: &serde_json::Value, words: &str| {
        event["event_type"] == "error" && event["error"].as_str().is_some_and(|text| text.contains(words))
    };

    // Neither the file nor its folder; the history beside it is out of reach too.
    std::fs::create_dir(&private).unwrap();
    mode(&private, 0o700);
    setup.rewrite(&format!("{LINES}\nHISTORY_FILE=\"{}\"", private.join("history").display()));
    std::fs::rename(&conf, private.join("portsentry.conf")).unwrap();
    std::os::unix::fs::symlink(private.join("portsentry.conf"), &conf).unwrap();
    names_the_user(&said(&setup));
    let mut daemon = setup.start();
    let told = daemon.wait_for("the word of it", |event| refused(event, "a reload (SIGHUP) will fail"));
    names_the_user(told["error"].as_str().unwrap());
    daemon.wait_for("the other word", |event| refused(event, "cannot reach HISTORY_FILE"));
    daemon.signal(nix::sys::signal::Signal::SIGHUP);
    daemon.wait_for("the refusal", |event| refused(event, "let the user that the daemon runs as read it"));
    let (_, setup) = daemon.stop();

    // The folder, but not the file, whose mode is mended in time.
    std::fs::remove_file(&conf).unwrap();
    std::fs::rename(private.join("portsentry.conf"), &conf).unwrap();
    mode(&conf, 0o600);
    names_the_user(&said(&setup));
    let mut daemon = setup.start();
    daemon.wait_for("the word of it", |event| refused(event, "a reload (SIGHUP) will fail"));
    mode(&conf, 0o644);
    std::fs::write(&conf, format!("{}\nWORKERS=\"2\"\n", std::fs::read_to_string(&conf).unwrap())).unwrap();
    daemon.signal(nix::sys::signal::Signal::SIGHUP);
    daemon.wait_for("a reload", |event| refused(event, "in force only after a restart: WORKERS"));
}

/// Commands get what the daemon was started with; nobody is told that it were root's.
#[test]
fn commands_of_a_daemon_that_root_did_not_start_run_without_roots_rights_and_it_says_so() {
    let lab = Lab::new(1);
    let setup = Setup::new(&lab, "");
    setup.rewrite(&format!(
        "{LINES}\nKILL_ROUTE=\"true $TARGET$\"\nHISTORY_FILE=\"/etc/portsentry-rs-{}/history\"",
        std::process::id()
    ));
    owned(&setup);
    let flags = ambient("+net_admin,+net_raw,+net_bind_service");
    let check = Command::new("setpriv")
        .args(&flags)
        .args([env!("CARGO_BIN_EXE_portsentry-rs"), "check", "-c"])
        .arg(setup.path("portsentry.conf"))
        .output()
        .unwrap();
    let warned = String::from_utf8_lossy(&check.stderr).into_owned();
    for words in
        ["HISTORY_FILE: /etc/portsentry-rs-", "cannot be written here by uid 4242: Permission denied"]
    {
        assert!(warned.contains(words), "{warned}");
    }
    assert!(warned.contains("KILL_ROUTE: started by uid 4242 it runs as that user, not as root"), "{warned}");

    setup.rewrite(&format!("{LINES}\nKILL_ROUTE=\"true $TARGET$\""));
    let mut daemon = setup.start_through("setpriv", &flags);
    let start = daemon.wait_for("the start event", |event| event["event_type"] == "start");
    let missing = start["start"]["confinement"]["missing"].to_string();
    assert!(missing.contains("the configured commands run as uid 4242"), "{start}");
    assert_eq!(field(daemon.helper_pid(), "Uid"), USER);
}

/// A helper that is no longer root must find its way to the ledger, whatever the umask of who started the daemon.
#[test]
fn a_state_folder_is_made_with_all_that_is_above_it_so_that_the_helper_reaches_it() {
    let lab = Lab::new(1);
    let setup = Setup::new(&lab, LINES);
    let state = setup.path("deep/er/state");
    setup.rewrite(&format!("{LINES}\nSTATE_DIR=\"{}\"", state.display()));
    let flags = ["-c", "umask 077; exec \"$@\"", "sh"].map(str::to_owned);
    let daemon = setup.start_through("sh", &flags);
    assert!(state.join("ledger").exists());
    assert!(daemon.client(&["block", "198.51.100.1"]).status.success());
}
