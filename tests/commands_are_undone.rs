//! What commands did is undone, however they and their block come to an end; and nothing is claimed that they did not do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::time::{SystemTime, UNIX_EPOCH};

use support::daemon::{Daemon, PATIENCE, Setup};
use support::offence::{PORTS, block_of, blocked_in_kernel, scan};
use support::{Lab, eventually, processes};

/// A list of who is shut out, kept by the commands: one line a block, as a rule of a firewall would be.
struct Rules {
    path: std::path::PathBuf,
}

impl Rules {
    /// The keys that keep it; `after`: what KILL_ROUTE does besides.
    fn kept_by(setup: &Setup, after: &str) -> (Rules, String) {
        let rules = Rules { path: setup.path("rules") };
        let path = rules.path.display();
        let lines = format!(
            "KILL_ROUTE=\"echo $TARGET$ >> {path}; {after}\"\n\
             UNBLOCK_CMD=\"grep -qx $TARGET$ {path} && sed -i -e '0,/^$TARGET$/{{/^$TARGET$/d}}' {path}\""
        );
        (rules, lines)
    }

    fn count(&self) -> usize {
        std::fs::read_to_string(&self.path).unwrap_or_default().lines().count()
    }
}

#[test]
fn what_a_command_did_before_it_was_given_up_or_killed_is_undone() {
    for (limit, lifts) in [("60s", true), ("5s", false)] {
        let lab = Lab::new(1);
        let setup = Setup::new(&lab, "");
        let (rules, lines) = Rules::kept_by(&setup, "sleep 30");
        setup.rewrite(&format!("{PORTS}\n{lines}\nCOMMAND_TIMEOUT=\"{limit}\""));
        let mut daemon = setup.start();
        scan(&lab, 0);
        eventually("the rule stands", PATIENCE, || rules.count() == 1);
        if lifts {
            let output = daemon.client(&["unblock", "10.77.0.2"]);
            assert!(String::from_utf8_lossy(&output.stderr).contains("is not blocked"), "{output:?}");
        }
        let block = block_of(&lab, &mut daemon, 0);
        assert_eq!(block["action"]["verdict"], "failed", "{block}");
        eventually("the rule is gone", PATIENCE, || rules.count() == 0);
    }
}

#[test]
fn what_was_done_before_a_later_command_is_given_up_is_undone_too() {
    let lab = Lab::new(1);
    let setup = Setup::new(&lab, "");
    let (rules, lines) = Rules::kept_by(&setup, "true");
    let deny = setup.path("hosts.deny");
    setup.rewrite(&format!(
        "{PORTS}\nBLOCK_WITH=\"nftables,hosts_deny,command\"\nHOSTS_DENY_FILE=\"{}\"\n{lines}\n\
         KILL_RUN_CMD=\"sleep 30\"\nCOMMAND_TIMEOUT=\"60s\"",
        deny.display()
    ));
    let daemon = setup.start();
    scan(&lab, 0);
    eventually("the rule stands", PATIENCE, || rules.count() == 1);
    assert!(daemon.client(&["unblock", "10.77.0.2"]).status.success());
    eventually("rule and line are gone", PATIENCE, || {
        rules.count() == 0 && std::fs::read_to_string(&deny).unwrap().is_empty()
    });
}

#[test]
fn a_command_runs_once_for_a_block_that_is_asked_for_twice() {
    let lab = Lab::new(1);
    let setup = Setup::new(&lab, "");
    let (rules, lines) = Rules::kept_by(&setup, "sleep 1");
    setup.rewrite(&format!("{PORTS}\n{lines}"));
    let mut daemon = setup.start();
    scan(&lab, 0);
    eventually("the rule stands", PATIENCE, || rules.count() == 1);
    let again = daemon.client(&["block", "10.77.0.2", "700"]);
    assert!(again.status.success(), "{again:?}");
    block_of(&lab, &mut daemon, 0);
    assert_eq!(rules.count(), 1, "once is enough");
    assert!(daemon.client(&["unblock", "10.77.0.2"]).status.success());
    assert_eq!(rules.count(), 0);
}

#[test]
fn an_unblock_that_fails_in_part_says_so_claims_nothing_and_can_be_asked_for_again() {
    let lab = Lab::new(1);
    let setup = Setup::new(&lab, "");
    let mended = setup.path("mended");
    setup.rewrite(&format!(
        "{PORTS}\nBLOCK_WITH=\"nftables,command\"\nTRIPWIRE=\"0\"\nKILL_ROUTE=\"true $TARGET$\"\n\
         UNBLOCK_CMD=\"test -e {} # $TARGET$\"",
        mended.display()
    ));
    let mut daemon = setup.start();
    scan(&lab, 0);
    block_of(&lab, &mut daemon, 0);
    let output = daemon.client(&["unblock", "10.77.0.2"]);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(
        told.contains("10.77.0.2 is not listed as blocked any more") && told.contains("exit status 1"),
        "{told}"
    );
    assert!(!blocked_in_kernel(&lab, 0));
    assert!(!String::from_utf8_lossy(&daemon.client(&["list"]).stdout).contains("10.77.0.2"));
    let told = daemon.wait_for("the failure", |event| event["event_type"] == "unblock");
    assert_eq!(told["action"]["error"], "command: exit status 1", "{told}");
    // Nothing is claimed: who comes again is blocked again.
    scan(&lab, 0);
    daemon.wait_for_new("the next block", |event| {
        event["event_type"] == "block" && event["action"]["verdict"] == "blocked"
    });
    assert!(blocked_in_kernel(&lab, 0));
    assert!(!daemon.client(&["unblock", "10.77.0.2"]).status.success());
    std::fs::write(mended, "").unwrap();
    let output = daemon.client(&["unblock", "10.77.0.2"]);
    assert!(output.status.success(), "{output:?}");
    assert!(!daemon.client(&["unblock", "10.77.0.2"]).status.success(), "there is nothing left of it");
}

/// A file a block, as the route to a black hole would be: it cannot be made where it stands already, nor removed before
/// `mended` is there.
struct Route {
    path: std::path::PathBuf,
    mended: std::path::PathBuf,
}

impl Route {
    /// The keys that make and remove it, of blocks that nftables holds too; `after`: what KILL_ROUTE does besides.
    fn made_by(setup: &Setup, after: &str) -> (Route, String) {
        let route = Route { path: setup.path("route-10.77.0.2"), mended: setup.path("mended") };
        let (path, mended) = (setup.path("route-$TARGET$"), route.mended.display());
        let path = path.display();
        let lines = format!(
            "{PORTS}\nBLOCK_WITH=\"nftables,command\"\nTRIPWIRE=\"0\"\n\
             KILL_ROUTE=\"mkdir {path} && {after}\"\nUNBLOCK_CMD=\"test -e {mended} && rmdir {path}\""
        );
        (route, lines)
    }

    fn stands(&self) -> bool {
        self.path.exists()
    }

    /// From now on it can be removed.
    fn mend(&self) {
        std::fs::write(&self.mended, "").unwrap();
    }
}

/// As some supervisors leave it, and perl.
#[test]
fn the_end_of_a_command_is_seen_also_where_the_starter_ignores_ends() {
    let lab = Lab::new(1);
    let setup = Setup::new(&lab, "");
    let (rules, lines) = Rules::kept_by(&setup, "true");
    setup.rewrite(&format!("{PORTS}\nBLOCK_WITH=\"nftables,command\"\nTRIPWIRE=\"0\"\n{lines}"));
    let mut daemon = setup.start_through("env", &["--ignore-signal=CHLD".to_owned()]);
    let told = block(&mut daemon, "600");
    assert_eq!((told["action"]["verdict"].as_str(), rules.count()), (Some("blocked"), 1), "{told}");
    assert!(daemon.client(&["unblock", "10.77.0.2"]).status.success());
    assert_eq!(rules.count(), 0);
    assert!(daemon.stop().0.success());
}

fn is_listed(daemon: &Daemon) -> bool {
    String::from_utf8_lossy(&daemon.client(&["list"]).stdout).contains("10.77.0.2")
}

/// A block of the lab's attacker for so many seconds. Returns what is told of it.
fn block(daemon: &mut Daemon, seconds: &str) -> serde_json::Value {
    let output = daemon.client(&["block", "10.77.0.2", seconds]);
    assert!(output.status.success(), "{output:?}");
    daemon.wait_for_new("the block", |event| event["event_type"] == "block")
}

#[test]
fn what_an_earlier_block_left_behind_is_taken_back_with_the_next_one_that_is_not_its_work() {
    for lifts in [true, false] {
        let lab = Lab::new(1);
        let setup = Setup::new(&lab, "");
        let (route, lines) = Route::made_by(&setup, "true");
        setup.rewrite(&lines);
        let mut daemon = setup.start();
        block(&mut daemon, "1");
        let told = daemon.wait_for("the failure", |event| {
            event["event_type"] == "unblock" && event["action"]["verdict"] == "failed"
        });
        assert_eq!(told["action"]["error"], "command: exit status 1", "{told}");
        let again = block(&mut daemon, if lifts { "600" } else { "5" });
        assert_eq!(again["action"]["with"], serde_json::json!(["nftables"]), "{again}");
        assert!(blocked_in_kernel(&lab, 0) && route.stands());
        if lifts {
            // Nor does a restart forget it, whose own try of the command fails again.
            let (_, setup) = daemon.stop();
            daemon = setup.start();
            daemon.catch_up();
            assert!(blocked_in_kernel(&lab, 0) && route.stands());
        }
        route.mend();
        if lifts {
            assert!(daemon.client(&["unblock", "10.77.0.2"]).status.success());
            assert!(!route.stands(), "an unblock that is answered has taken it back");
        }
        eventually("nothing is left", PATIENCE, || !route.stands() && !is_listed(&daemon));
        assert!(!daemon.client(&["unblock", "10.77.0.2"]).status.success());
    }
}

#[test]
fn what_a_killed_command_did_and_could_not_be_undone_is_taken_back_when_its_block_ends() {
    for lifts in [true, false] {
        let lab = Lab::new(1);
        let setup = Setup::new(&lab, "");
        let (route, lines) = Route::made_by(&setup, "sleep 30");
        setup.rewrite(&format!("{lines}\nCOMMAND_TIMEOUT=\"1s\""));
        let mut daemon = setup.start();
        let told = block(&mut daemon, if lifts { "600" } else { "5" });
        assert_eq!(told["action"]["with"], serde_json::json!(["nftables"]), "{told}");
        assert!(blocked_in_kernel(&lab, 0) && route.stands());
        route.mend();
        if lifts {
            assert!(daemon.client(&["unblock", "10.77.0.2"]).status.success());
            assert!(!route.stands(), "an unblock that is answered has taken it back");
        }
        eventually("nothing is left", PATIENCE, || !route.stands() && !is_listed(&daemon));
    }
}

#[test]
fn an_unblock_of_a_block_under_way_undoes_what_that_could_not_or_says_so() {
    for mends in [false, true] {
        let lab = Lab::new(1);
        let setup = Setup::new(&lab, "");
        let (route, lines) = Route::made_by(&setup, "sleep 30");
        let [told, blocked] = ["told", "blocked"].map(|name| setup.path(name));
        setup.rewrite(&format!(
            "{lines}\nCOMMAND_TIMEOUT=\"4s\"\nKILL_RUN_CMD=\"touch {}; sleep 30 # $TARGET$\"\n\
             BLOCKED_FILE=\"{}\"",
            told.display(),
            blocked.display()
        ));
        let daemon = setup.start();
        scan(&lab, 0);
        eventually("the next command runs", PATIENCE, || told.exists());
        assert!(route.stands() && blocked_in_kernel(&lab, 0));
        if mends {
            route.mend();
        }
        let output = daemon.client(&["unblock", "10.77.0.2"]);
        assert_eq!((output.status.success(), route.stands()), (mends, !mends), "{output:?}");
        assert!(!is_listed(&daemon) && !blocked_in_kernel(&lab, 0), "{mends}");
        assert_eq!(std::fs::read(&blocked).unwrap(), b"");
    }
}

/// A ledger with one block by a command, from and until so many seconds from now.
fn ledger(setup: &Setup, since: i64, until: i64) {
    ledger_of(setup, &["10.77.0.2"], since, until);
}

fn ledger_of(setup: &Setup, sources: &[&str], since: i64, until: i64) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let at = |seconds: i64| now.saturating_add_signed(seconds) * 1000;
    let (since, until) = (at(since), at(until));
    let line = |source: &&str| {
        format!(
            "{{\"target\":\"{source}/32\",\"since\":{since},\"until\":{until},\"offence\":1,\"with\":16}}\n"
        )
    };
    std::fs::create_dir(setup.path("state")).unwrap();
    std::fs::write(setup.path("state").join("ledger"), sources.iter().map(line).collect::<String>()).unwrap();
}

/// Seconds since long before the machine was started.
fn long_ago() -> i64 {
    let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
    -100_000 - uptime.split('.').next().unwrap().parse::<i64>().unwrap()
}

#[test]
fn a_block_whose_command_fails_after_a_reboot_is_none_and_that_is_told() {
    for (command, words) in [
        ("echo out of order >&2; exit 3 # $TARGET$", "command: exit status 3: out of order"),
        ("/nonexistent/block $TARGET$", "command: No such file or directory"),
    ] {
        let lab = Lab::new(1);
        let setup = Setup::new(&lab, "");
        setup.rewrite(&format!("{PORTS}\nKILL_ROUTE=\"{command}\""));
        ledger(&setup, long_ago(), 3600);
        let mut daemon = setup.start();
        let told = daemon.wait_for("the failure", |event| event["event_type"] == "unblock");
        assert!(told["action"]["error"].as_str().unwrap().starts_with(words), "{told}");
        assert!(!String::from_utf8_lossy(&daemon.client(&["list"]).stdout).contains("10.77.0.2"));
        scan(&lab, 0);
        assert_eq!(block_of(&lab, &mut daemon, 0)["action"]["verdict"], "failed");
    }
}

/// A ledger with a block of which only what an earlier one's command did is left.
fn ledger_that_owes(setup: &Setup) {
    ledger(setup, -60, 3600);
    let path = setup.path("state").join("ledger");
    let line = std::fs::read_to_string(&path).unwrap().replace("\"with\":16", "\"owed\":16");
    std::fs::write(path, line).unwrap();
}

#[test]
fn what_an_earlier_block_left_behind_is_undone_where_the_command_fails_that_would_have_renewed_it() {
    let lab = Lab::new(1);
    let setup = Setup::new(&lab, "");
    let rules = setup.path("rules");
    std::fs::write(&rules, "10.77.0.2\n").unwrap();
    setup.rewrite(&format!(
        "{PORTS}\nKILL_ROUTE=\"exit 3 # $TARGET$\"\nUNBLOCK_CMD=\"rm {} # $TARGET$\"",
        rules.display()
    ));
    ledger_that_owes(&setup);
    let mut daemon = setup.start();
    daemon.wait_for("the failure", |event| event["event_type"] == "unblock");
    eventually("what was left behind is gone", PATIENCE, || !rules.exists());
}

#[test]
fn commands_are_run_again_after_a_reboot_also_where_the_clock_came_up_behind() {
    for (since, until) in [(long_ago(), 3600), (7200, 9000)] {
        let lab = Lab::new(1);
        let setup = Setup::new(&lab, "");
        let (rules, lines) = Rules::kept_by(&setup, "true");
        setup.rewrite(&format!("{PORTS}\n{lines}"));
        ledger(&setup, since, until);
        let daemon = setup.start();
        eventually("the rule stands", PATIENCE, || rules.count() == 1);
        // Once: the next start is none of the machine's.
        let (_, setup) = daemon.stop();
        let mut daemon = setup.start();
        daemon.catch_up();
        assert_eq!(rules.count(), 1);
        assert!(String::from_utf8_lossy(&daemon.client(&["list"]).stdout).contains("10.77.0.2"));
        assert!(daemon.client(&["unblock", "10.77.0.2"]).status.success());
        assert_eq!(rules.count(), 0);
    }
}

/// More than run at a time: some of the blocks end while their command runs, the others while it waits for its turn.
#[test]
fn a_block_that_ends_before_its_command_was_run_again_leaves_nothing_behind() {
    let lab = Lab::new(1);
    let setup = Setup::new(&lab, "");
    let [rules, ran] = ["rules", "ran"].map(|name| setup.path(name));
    std::fs::create_dir(&rules).unwrap();
    let (folder, log) = (rules.display(), ran.display());
    setup.rewrite(&format!(
        "{PORTS}\nBLOCK_WITH=\"nftables,command\"\nCOMMAND_TIMEOUT=\"60s\"\n\
         KILL_ROUTE=\"touch {folder}/$TARGET$; echo $TARGET$ >> {log}; sleep 60\"\nUNBLOCK_CMD=\"rm {folder}/$TARGET$\""
    ));
    let sources: Vec<String> = (1..=12).map(|host| format!("198.51.100.{host}")).collect();
    let sources: Vec<&str> = sources.iter().map(String::as_str).collect();
    ledger_of(&setup, &sources, long_ago(), 15);
    let daemon = setup.start();
    let stand = || std::fs::read_dir(&rules).unwrap().count();
    eventually("as many rules stand as commands run", PATIENCE, || stand() == 8);
    eventually("no rule is left", 2 * PATIENCE, || stand() == 0);
    assert_eq!(String::from_utf8_lossy(&daemon.client(&["unblock", "all"]).stdout), "nobody is blocked\n");
    assert_eq!(std::fs::read_to_string(&ran).unwrap().lines().count(), 8, "the others were never run");
}

/// A daemon that lifts its blocks when it stops, and takes `pause` seconds for each; the rule of one block stands, and
/// KILL_ROUTE does this `after` that.
fn flushing(lab: &Lab, after: &str, pause: &str) -> (Daemon, Rules) {
    let setup = Setup::new(lab, "");
    let (rules, lines) = Rules::kept_by(&setup, after);
    let lines = lines.replace("UNBLOCK_CMD=\"", &format!("UNBLOCK_CMD=\"sleep {pause}; "));
    setup.rewrite(&format!("{PORTS}\nFLUSH_ON_STOP=\"1\"\nCOMMAND_TIMEOUT=\"100s\"\n{lines}"));
    let mut daemon = setup.start();
    scan(lab, 0);
    eventually("the rule stands", PATIENCE, || rules.count() == 1);
    if after == "true" {
        block_of(lab, &mut daemon, 0);
    }
    (daemon, rules)
}

#[test]
fn a_stop_waits_for_the_commands_that_undo_its_blocks() {
    let lab = Lab::new(1);
    let (mut daemon, rules) = flushing(&lab, "true", "3");
    daemon.signal(nix::sys::signal::Signal::SIGTERM);
    let stop = daemon.wait_for("the stop", |event| event["event_type"] == "stop");
    assert_eq!((rules.count(), &stop["stats"]["blocks_in_force"]), (0, &0.into()), "{stop}");
    assert_eq!(daemon.wait().code(), Some(0));
}

#[test]
fn a_stop_waits_for_a_command_under_way_and_tells_of_its_block() {
    let lab = Lab::new(1);
    let setup = Setup::new(&lab, "");
    let (rules, lines) = Rules::kept_by(&setup, "sleep 3");
    setup.rewrite(&format!("{PORTS}\n{lines}"));
    let mut daemon = setup.start();
    scan(&lab, 0);
    eventually("the rule stands", PATIENCE, || rules.count() == 1);
    daemon.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(block_of(&lab, &mut daemon, 0)["action"]["verdict"], "blocked");
    assert_eq!(daemon.wait().code(), Some(0));
    let daemon = daemon.into_setup().start();
    assert!(String::from_utf8_lossy(&daemon.client(&["list"]).stdout).contains("10.77.0.2"));
    assert!(daemon.client(&["unblock", "10.77.0.2"]).status.success());
    assert_eq!(rules.count(), 0);
}

/// Kills every process in the lab's target.
fn kill_all(lab: &Lab) {
    for pid in processes(&lab.target()) {
        support::daemon::kill(pid, nix::sys::signal::Signal::SIGKILL);
    }
}

/// Also where the block was still under way, of which no record knows.
#[test]
fn what_a_stop_was_kept_from_undoing_is_undone_at_the_next_start() {
    for after in ["true", "sleep 60"] {
        let lab = Lab::new(1);
        let (mut daemon, rules) = flushing(&lab, after, "60");
        daemon.signal(nix::sys::signal::Signal::SIGTERM);
        let told = daemon.wait_for("that it waits no longer", |event| event["event_type"] == "error");
        assert!(told["error"].as_str().unwrap().starts_with("commands are still running"), "{told}");
        assert_eq!(daemon.wait().code(), Some(0));
        kill_all(&lab);
        assert_eq!(rules.count(), 1);
        let setup = daemon.into_setup();
        let (_, lines) = Rules::kept_by(&setup, "true");
        setup.rewrite(&format!("{PORTS}\n{lines}"));
        let _daemon = setup.start();
        eventually("the rule is gone", PATIENCE, || rules.count() == 0);
    }
}

#[test]
fn a_command_that_was_run_again_when_everything_was_killed_is_not_run_twice() {
    let lab = Lab::new(1);
    let setup = Setup::new(&lab, "");
    let (rules, lines) = Rules::kept_by(&setup, "sleep 60");
    setup.rewrite(&format!("{PORTS}\nCOMMAND_TIMEOUT=\"100s\"\n{lines}"));
    ledger(&setup, long_ago(), 3600);
    let mut daemon = setup.start();
    eventually("the rule stands", PATIENCE, || rules.count() == 1);
    let says = |daemon: &Daemon| std::fs::read_to_string(daemon.path("state/ledger")).unwrap();
    let command = |text: &str| text.lines().last().is_some_and(|line| line.contains("\"with\":16"));
    eventually("the ledger has it", PATIENCE, || command(&says(&daemon)));
    kill_all(&lab);
    daemon.wait();
    let mut daemon = daemon.into_setup().start();
    daemon.catch_up();
    assert_eq!(rules.count(), 1, "it is there already");
    assert!(daemon.client(&["unblock", "10.77.0.2"]).status.success());
    assert_eq!(rules.count(), 0);
}

#[test]
fn what_a_block_under_way_had_done_when_everything_was_killed_is_not_left_for_ever() {
    for with in ["command", "hosts_deny,command", "nftables,command"] {
        let lab = Lab::new(1);
        let setup = Setup::new(&lab, "");
        let (rules, lines) = Rules::kept_by(&setup, "sleep 30");
        let deny = setup.path("hosts.deny");
        let line = || std::fs::read_to_string(&deny).unwrap_or_default().contains("10.77.0.2");
        let file = format!("HOSTS_DENY_FILE=\"{}\"\nCOMMAND_TIMEOUT=\"60s\"", deny.display());
        setup.rewrite(&format!("{PORTS}\nTRIPWIRE=\"0\"\nBLOCK_WITH=\"{with}\"\n{file}\n{lines}"));
        let mut daemon = setup.start();
        scan(&lab, 0);
        eventually("the rule stands", PATIENCE, || rules.count() == 1);
        let noted =
            || std::fs::read_to_string(daemon.path("state/ledger")).is_ok_and(|it| it.contains("10.77.0.2"));
        eventually("the ledger has it", PATIENCE, noted);
        kill_all(&lab);
        daemon.wait();
        let daemon = daemon.into_setup().start();
        let listed = || String::from_utf8_lossy(&daemon.client(&["list"]).stdout).contains("10.77.0.2");
        assert_eq!(listed(), with != "command", "{with}");
        assert_eq!(line(), with == "hosts_deny,command");
        if listed() {
            assert!(daemon.client(&["unblock", "10.77.0.2"]).status.success(), "{with}");
        }
        eventually("the rule is gone", PATIENCE, || rules.count() == 0);
        assert!(!line(), "{with}");
    }
}
