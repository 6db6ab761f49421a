//! Promise: as a systemd service the daemon does all it does by hand, and is watched over. A real systemd as the first
//! process of a container, a real nmap outside of it. Slow lab.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use support::daemon::kill;
use support::machine::{Machine, first_process_below};
use support::slow::SlowLab;
use support::{eventually, readme};

/// For a start, a restart with its pause, or an entry in the journal.
const SOON: Duration = Duration::from_secs(60);

const LINES: &str =
    "TCP_PORTS=\"1-99\"\nBLOCK_TCP=\"1\"\nIGNORE_FILE=\"/etc/portsentry/portsentry.ignore\"\n";

/// A machine on which the service runs with `lines` as its configuration and `drop_in` for its unit.
fn installed(peers: u8, lines: &str, drop_in: &str) -> Machine {
    let machine = Machine::boot(peers);
    machine.run("make install");
    configure(&machine, lines);
    machine.run(&format!(
        "mkdir -p /etc/systemd/system/portsentry-rs.service.d && \
         printf '[Service]\n{drop_in}\n' > /etc/systemd/system/portsentry-rs.service.d/test.conf && \
         systemctl daemon-reload"
    ));
    machine
}

fn configure(machine: &Machine, lines: &str) {
    machine.run(&format!("printf '%s' '{lines}' > /etc/portsentry/portsentry.conf"));
}

fn scan(machine: &Machine, peer: usize, port: u16) {
    let host = machine.lab.peer(peer);
    host.nmap(&["-sS", "--max-retries", "0", "-p", &port.to_string(), &host.target_v4.to_string()]);
}

/// The first entry of the journal that `matches`, as journalctl prints it, once there is one.
fn entry(machine: &Machine, matches: &str) -> Value {
    let command = format!("journalctl --boot -o json {matches}");
    eventually(&command, SOON, || machine.says(&command).contains('{'));
    serde_json::from_str(machine.run(&command).lines().next().unwrap()).unwrap()
}

fn property(machine: &Machine, name: &str) -> String {
    machine.run(&format!("systemctl show --property={name} --value portsentry-rs")).trim().to_owned()
}

fn is_blocked(machine: &Machine, peer: usize) -> bool {
    machine.lab.is_blocked(machine.lab.peer(peer).v4)
}

/// Whatever could be left of a daemon: processes, sockets, the folder of its control socket.
fn nothing_runs(machine: &Machine) {
    assert_eq!(machine.says("pgrep --list-full --full sbin/portsentry-rs"), "");
    let sockets = machine
        .says("ss --no-header --tcp --udp --packet --all; ss --no-header --unix --all | grep portsentry");
    assert_eq!(sockets, "");
    assert_eq!(machine.says("ls -d /run/portsentry-rs 2>/dev/null"), "");
}

#[test]
fn the_readmes_lines_install_run_reload_and_remove_the_service() {
    let Some(_lab) = SlowLab::begin("the README's way into systemd") else { return };
    let machine = Machine::boot(2);
    for command in readme::commands("systemd") {
        match command.as_str() {
            "sudo make install" => drop(machine.run(&command)),
            "sudoedit /etc/portsentry/portsentry.conf" => {
                machine.run(&command);
                configure(&machine, &format!("{LINES}BLOCK_WITH=\"nftables,route\"\n"));
            }
            "sudo systemctl enable --now portsentry-rs" => starts(&machine, &command),
            "sudo journalctl PORTSENTRY_EVENT=block -o json" => blocks_and_tells(&machine, &command),
            "sudo systemctl reload portsentry-rs" => reloads(&machine, &command),
            "sudo make uninstall" => leaves_nothing(&machine, &command),
            unknown => panic!("README has a command that no test follows: {unknown}"),
        }
    }
}

/// As systemd-nspawn has, before it has made the machine, and once it has: `make install` beside the former would change
/// the machine that the tests run on.
#[test]
fn a_child_that_still_lives_in_this_machine_is_no_machine_to_install_on() {
    for (program, arguments, begins_a_machine) in
        [("timeout", &["60"][..], false), ("unshare", &["--pid", "--fork"], true)]
    {
        let mut parent = Command::new(program)
            .args(arguments)
            .args(["sleep", "60"])
            .stderr(Stdio::null())
            .spawn()
            .expect("it is installed");
        let children = || {
            let children = format!("/proc/{0}/task/{0}/children", parent.id());
            std::fs::read_to_string(children).unwrap().trim().to_owned()
        };
        eventually("there is a child", SOON, || !children().is_empty());
        let (child, found) = (children(), first_process_below(parent.id()));
        kill(child.parse().unwrap(), Signal::SIGKILL);
        parent.wait().unwrap();
        assert_eq!(found, begins_a_machine.then_some(child), "{program}");
    }
}

/// `enable --now` returns once READY=1 was said.
fn starts(machine: &Machine, command: &str) {
    machine.run(command);
    assert_eq!(
        (property(machine, "ActiveState"), property(machine, "Type")),
        ("active".into(), "notify".into())
    );
    eventually("the counts are told", SOON, || {
        property(machine, "StatusText").starts_with("watching: 0 probes")
    });
    let start = entry(machine, "PORTSENTRY_EVENT=start");
    assert_eq!(
        (start["PRIORITY"].as_str(), start["_SYSTEMD_UNIT"].as_str()),
        (Some("6"), Some("portsentry-rs.service"))
    );
    let told: Value = serde_json::from_str(start["MESSAGE"].as_str().unwrap()).unwrap();
    assert_eq!(told["start"]["confinement"]["missing"], serde_json::json!([]), "{told}");
}

fn blocks_and_tells(machine: &Machine, command: &str) {
    scan(machine, 0, 23);
    eventually("an entry", SOON, || machine.says(command).contains('{'));
    let block: Value = serde_json::from_str(machine.run(command).lines().next().unwrap()).unwrap();
    for (field, expected) in [
        ("MESSAGE_ID", "d29999a28cfc4a0b8e9c8dfe3b6afd37"),
        ("PRIORITY", "5"),
        ("SYSLOG_IDENTIFIER", "portsentry-rs"),
        ("PORTSENTRY_SRC_IP", "10.77.0.2"),
        ("PORTSENTRY_DEST_PORT", "23"),
        ("PORTSENTRY_PROTO", "TCP"),
        ("PORTSENTRY_SCAN_TYPE", "syn"),
        ("PORTSENTRY_VERDICT", "blocked"),
        ("PORTSENTRY_TARGET", "10.77.0.2/32"),
    ] {
        assert_eq!(block[field], expected, "{field} in {block:#}");
    }
    let event: Value = serde_json::from_str(block["MESSAGE"].as_str().unwrap()).unwrap();
    assert_eq!(event["action"]["verdict"], "blocked");
    assert!(is_blocked(machine, 0));
    let explained = machine.run("journalctl -x --no-pager PORTSENTRY_EVENT=block");
    assert!(explained.contains("Subject: Block of 10.77.0.2/32: blocked"), "{explained}");
}

fn reloads(machine: &Machine, command: &str) {
    machine.run("echo 10.77.1.2 >> /etc/portsentry/portsentry.ignore");
    machine.run(command);
    assert_eq!(property(machine, "ActiveState"), "active");
    scan(machine, 1, 24);
    let ignored = entry(machine, "PORTSENTRY_DEST_PORT=24");
    assert_eq!(ignored["PORTSENTRY_VERDICT"], "ignored", "{ignored:#}");
    assert!(!is_blocked(machine, 1));

    machine.run("echo mistyped >> /etc/portsentry/portsentry.ignore");
    assert!(!machine.shell(command).status.success(), "whoever asks for it is told");
    entry(machine, "-u portsentry-rs --grep portsentry.ignore:.*mistyped");
    assert_eq!(
        (property(machine, "ActiveState"), property(machine, "NRestarts")),
        ("active".into(), "0".into())
    );
    machine.run("sed -i /mistyped/d /etc/portsentry/portsentry.ignore");
    machine.run(command);
    is_reached_by_logrotate(machine);
}

/// What logrotate runs once it has moved the history away: a signal, which no mistake in the configuration stops.
fn is_reached_by_logrotate(machine: &Machine) {
    let lines = include_str!("../config/logrotate").lines().map(str::trim);
    let script: Vec<&str> = lines
        .skip_while(|line| *line != "postrotate")
        .skip(1)
        .take_while(|line| *line != "endscript")
        .collect();
    let reloads = || machine.says("journalctl --boot -o cat PORTSENTRY_EVENT=reload").lines().count();
    let before = reloads();
    machine.run(&format!("sh -c '{}'", script.join("\n").replace('\'', "'\\''")));
    eventually("it has heard logrotate", SOON, || reloads() > before);
}

fn leaves_nothing(machine: &Machine, command: &str) {
    assert!(machine.run("ip route show proto 113").contains("10.77.0.2"));
    let said = machine.run(command);
    assert!(said.contains("kept: /etc/portsentry"), "{said}");
    nothing_runs(machine);
    assert!(!machine.lab.has_nft_table());
    assert_eq!(machine.run("ip route show proto 113"), "");
    let files = machine.says("find / -xdev -name '*portsentry*' -not -path '/proc/*' -not -path '/source/*'");
    let files: Vec<&str> = files.lines().filter(|file| !file.starts_with("/release")).collect();
    let kept = ["/etc/portsentry", "/etc/systemd", "/var/lib/portsentry-rs", "/var/log/portsentry-rs"];
    assert!(files.iter().all(|file| kept.iter().any(|kept| file.starts_with(kept))), "{files:?}");
}

#[test]
fn whichever_process_stands_still_the_watchdog_starts_both_anew() {
    let Some(_lab) = SlowLab::begin("the watchdog") else { return };
    let machine = installed(1, LINES, "WatchdogSec=6\nRestartSec=100ms");
    machine.run("systemctl start portsentry-rs");
    scan(&machine, 0, 23);
    entry(&machine, "PORTSENTRY_EVENT=block");
    for (round, process) in ["portsentry-rs", "portsentry-rs-helper"].into_iter().enumerate() {
        outlives_a_watchdogs_patience(&machine);
        machine.run(&format!("pkill --signal STOP --full '^/usr/local/sbin/{process}$'"));
        let restarts = (round + 1).to_string();
        eventually(&format!("{process} is started anew"), SOON, || {
            property(&machine, "NRestarts") == restarts && property(&machine, "ActiveState") == "active"
        });
        assert!(is_blocked(&machine, 0));
    }
    let timeouts = machine.run("journalctl --boot --no-pager UNIT=portsentry-rs.service");
    assert_eq!(timeouts.matches("Watchdog timeout").count(), 2, "{timeouts}");
}

/// systemd notes each sign of life; a daemon that does nothing gives some too.
fn outlives_a_watchdogs_patience(machine: &Machine) {
    let seen = || property(machine, "WatchdogTimestampMonotonic").parse::<u64>().unwrap();
    let first = seen();
    eventually("signs of life for longer than the watchdog waits", SOON, || seen() > first + 7_000_000);
}

#[test]
fn blocks_outlive_stop_crash_and_upgrade_and_a_stop_leaves_nothing_else() {
    let Some(_lab) = SlowLab::begin("stop, crash and upgrade under systemd") else { return };
    let machine = installed(1, LINES, "RestartSec=100ms");
    machine.run("systemctl start portsentry-rs");
    scan(&machine, 0, 23);
    entry(&machine, "PORTSENTRY_EVENT=block");
    machine.run("systemctl stop portsentry-rs");
    nothing_runs(&machine);
    assert!(is_blocked(&machine, 0), "{}", machine.lab.nft_table());

    machine.run("nft delete table inet portsentry; systemctl start portsentry-rs");
    assert!(
        is_blocked(&machine, 0),
        "the ledger brings it back, as after a boot: {}",
        machine.lab.nft_table()
    );

    let said = machine.run("make install");
    assert!(said.contains("systemctl restart portsentry-rs"), "{said}");
    assert_eq!(property(&machine, "NRestarts"), "0", "new programs do not disturb the old");
    machine.run("systemctl restart portsentry-rs");
    assert!(is_blocked(&machine, 0));

    machine.run("pkill --signal SEGV --full '^/usr/local/sbin/portsentry-rs$'");
    eventually("it is started anew", SOON, || {
        property(&machine, "NRestarts") == "1" && property(&machine, "ActiveState") == "active"
    });
    assert!(is_blocked(&machine, 0));
}

#[test]
fn a_journal_that_was_replaced_gets_every_later_event() {
    let Some(_lab) = SlowLab::begin("a journal that was replaced") else { return };
    let machine = installed(2, LINES, "");
    machine.run("systemctl start portsentry-rs");
    machine.run("systemctl restart systemd-journald");
    scan(&machine, 0, 23);
    assert_eq!(entry(&machine, "PORTSENTRY_EVENT=block")["PORTSENTRY_DEST_PORT"], "23");
    // Other sockets of the same names.
    let units = "systemd-journald.service systemd-journald.socket systemd-journald-dev-log.socket";
    machine.run(&format!("systemctl stop {units}; systemctl start {units}"));
    scan(&machine, 1, 24);
    assert_eq!(
        entry(&machine, "PORTSENTRY_EVENT=block PORTSENTRY_SRC_IP=10.77.1.2")["PORTSENTRY_DEST_PORT"],
        "24"
    );
}

#[test]
fn an_interface_that_comes_late_is_waited_for_however_long() {
    let Some(_lab) = SlowLab::begin("an interface that comes late") else { return };
    let machine = installed(1, &format!("{LINES}INTERFACES=\"late\"\n"), "RestartSec=50ms");
    machine.says("systemctl start portsentry-rs");
    // systemd's own limit is five starts in ten seconds.
    eventually("it tries again and again", SOON, || {
        property(&machine, "NRestarts").parse::<u32>().unwrap() > 7
    });
    machine.run("ip link add late type veth peer name other && ip link set late up");
    eventually("it watches", SOON, || property(&machine, "ActiveState") == "active");
    configure(&machine, "TCP_PORTS=\"oops\"\n");
    let refused = machine.shell("systemctl restart portsentry-rs");
    assert!(!refused.status.success());
    let why = entry(&machine, "-u portsentry-rs --grep portsentry.conf:1:");
    assert!(why["MESSAGE"].as_str().unwrap().contains("oops"), "{why:#}");
}

/// The lines that the unit's own comment says to put into a drop-in, as one argument of printf.
fn drop_in_for_root() -> String {
    let unit = include_str!("../config/portsentry-rs.service");
    let lines = unit.lines().skip_while(|line| *line != "#   [Service]").skip(1);
    let lines = lines.map_while(|line| line.strip_prefix("#   "));
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn with_the_drop_in_that_the_unit_names_responses_that_need_root_work_too() {
    let Some(_lab) = SlowLab::begin("responses that need root under systemd") else { return };
    let lines = "KILL_HOSTS_DENY=\"ALL: $TARGET$\"\nKILL_RUN_CMD=\"/usr/bin/touch /etc/seen-$TARGET$\"\n";
    let machine = installed(1, &format!("{LINES}{lines}"), &drop_in_for_root());
    machine.run("systemctl start portsentry-rs");
    scan(&machine, 0, 23);
    entry(&machine, "PORTSENTRY_EVENT=block PORTSENTRY_VERDICT=blocked");
    assert!(machine.run("cat /etc/hosts.deny").contains("ALL: 10.77.0.2"));
    machine.run("test -e /etc/seen-10.77.0.2");
    let sensor =
        machine.run("grep -E '^(Uid|CapEff)' /proc/$(systemctl show -P MainPID portsentry-rs)/status");
    assert!(sensor.contains("CapEff:\t0000000000000000") && !sensor.contains("Uid:\t0"), "{sensor}");
}

/// As Debian's package has them, but for the blocks.
const PORTSENTRYS: &str = "TCP_PORTS=\"1,11,23\"\nUDP_PORTS=\"1,7\"\nBLOCK_TCP=\"1\"\nBLOCK_UDP=\"0\"\n\
     IGNORE_FILE=\"/etc/portsentry/portsentry.ignore\"\nHISTORY_FILE=\"/var/lib/portsentry/portsentry.history\"\n\
     BLOCKED_FILE=\"/var/lib/portsentry/portsentry.blocked\"\n\
     KILL_ROUTE=\"/sbin/route add -host $TARGET$ reject\"\nKILL_HOSTS_DENY=\"ALL: $TARGET$ : DENY\"\n";

/// The keys of PORTSENTRYS that `check` names for what the unit does not give.
fn noted(machine: &Machine) -> Vec<String> {
    let said = machine.run("portsentry-rs check 2>&1 >/dev/null");
    let notes = said.lines().filter_map(|line| line.strip_prefix("note: "));
    notes.map(|note| note.split(": ").nth(1).unwrap_or_default().to_owned()).collect()
}

#[test]
fn a_file_of_portsentrys_runs_once_the_documentations_lines_are_typed() {
    let Some(_lab) = SlowLab::begin("from PortSentry to the unit") else { return };
    let machine = installed(1, PORTSENTRYS, "RestartSec=100ms");
    machine.run("chmod 600 /etc/portsentry/*");
    let old = "[Service]\nExecStart=sleep infinity\n[Install]\nWantedBy=multi-user.target\n";
    machine
        .run(&format!("printf '{old}' > /etc/systemd/system/portsentry.service; systemctl start portsentry"));
    assert_eq!(noted(&machine), ["HISTORY_FILE", "BLOCKED_FILE", "KILL_HOSTS_DENY", "KILL_ROUTE"]);

    // Each of these alone is enough to keep it from starting.
    let refused = |why: &str| {
        assert!(!machine.shell("systemctl restart portsentry-rs").status.success(), "{why}");
        entry(&machine, &format!("-u portsentry-rs --grep '{why}'"));
        machine.run("systemctl stop portsentry-rs");
    };
    refused("portsentry.conf.*Permission denied");
    machine.run("chmod 644 /etc/portsentry/*");
    refused("HISTORY_FILE.*Read-only file system");
    machine.run("sed -i /_FILE/d /etc/portsentry/portsentry.conf");
    refused("hosts.deny.*Read-only file system");

    configure(&machine, PORTSENTRYS);
    machine.run("chmod 600 /etc/portsentry/*");
    let migrating = include_str!("../docs/migrating.md");
    let section = migrating.split("\n## ").find(|section| section.starts_with("Under systemd")).unwrap();
    for command in readme::typed(section) {
        if command.ends_with("enable --now portsentry-rs") {
            assert_eq!(noted(&machine), [""; 0]);
        }
        machine.run(&command);
    }
    assert_eq!(machine.says("systemctl is-active portsentry").trim(), "inactive");
    scan(&machine, 0, 23);
    entry(&machine, "PORTSENTRY_EVENT=block PORTSENTRY_VERDICT=blocked");
    assert!(is_blocked(&machine, 0));
    machine.run("grep '10.77.0.2' /var/log/portsentry-rs/history; test -s /var/log/portsentry-rs/blocked");
}
