//! `portsentry-rs check` shows what is in force, or everything that is wrong at once, with line and column.

#![allow(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

use std::path::PathBuf;
use std::process::{Command, Output};

use portsentry::protocol::settings::BLOCKS_A_MINUTE;
use tempfile::TempDir;

struct Lab {
    folder: TempDir,
}

impl Lab {
    fn with(conf: &str) -> Lab {
        let lab = Lab { folder: tempfile::tempdir().unwrap() };
        // The daemon's user must be able to pass.
        std::fs::set_permissions(lab.folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .unwrap();
        std::fs::write(lab.conf(), conf).unwrap();
        lab
    }

    fn conf(&self) -> PathBuf {
        self.folder.path().join("portsentry.conf")
    }

    fn check(&self, more: &[&str]) -> (Option<i32>, String, String) {
        self.check_in(more, &[])
    }

    fn check_in(&self, more: &[&str], environment: &[(&str, &str)]) -> (Option<i32>, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_portsentry-rs"));
        command.env_remove("PORTSENTRY_LOG_FORMAT").envs(environment.iter().copied());
        let Output { status, stdout, stderr } =
            command.arg("check").arg("-c").arg(self.conf()).args(more).output().unwrap();
        (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
    }

    /// `stderr` lines without the file's name: `line:column: message`.
    fn places(&self, stderr: &str) -> Vec<String> {
        let name = format!("{}:", self.conf().display());
        stderr.lines().map(|line| line.strip_prefix(&name).unwrap_or(line).to_string()).collect()
    }
}

/// What is more the helper would refuse, and the sensor not know.
#[test]
fn a_block_limit_beyond_what_the_helper_grants_a_minute_is_refused() {
    let conf = |limit: u32| format!("TCP_PORTS=\"1\"\nBLOCK_LIMIT=\"{limit}\"\n");
    assert_eq!(Lab::with(&conf(BLOCKS_A_MINUTE)).check(&[]).0, Some(0));
    let (code, _, stderr) = Lab::with(&conf(BLOCKS_A_MINUTE + 1)).check(&[]);
    assert!(code == Some(1) && stderr.contains("1 to 2400"), "{stderr}");
}

#[test]
fn five_different_errors_are_all_listed_with_line_and_column() {
    let lab = Lab::with(concat!(
        "# five errors, each of another kind\n",
        "TCP_PORTS=\"1,7,70000\"\n",
        "UPD_PORTS=\"7,9\"\n",
        "BLOCK_TCP = \"yes\"\n",
        "HISTORY_FILE=\"/var/log/x\n",
        "IGNORE_FILE=\"/nonexistent/portsentry.ignore\"\n",
    ));
    let (code, stdout, stderr) = lab.check(&[]);
    let places = lab.places(&stderr);
    assert_eq!((code, stdout.as_str()), (Some(1), ""), "{stderr}");
    for (line, (start, words)) in places.iter().zip([
        ("2:16: ", "70000"),
        ("3:1: ", "did you mean UDP_PORTS?"),
        ("4:14: ", "`yes`"),
        ("5:14: ", "not closed"),
        ("6:14: ", "cannot read IGNORE_FILE /nonexistent/portsentry.ignore"),
    ]) {
        assert!(line.starts_with(start) && line.contains(words), "{line}\nexpected {start}{words}");
    }
    assert_eq!(places.len(), 5, "{stderr}");
}

#[test]
fn a_misspelt_key_is_answered_with_the_right_one() {
    for (typo, right) in
        [("TCP_PROTS", "TCP_PORTS"), ("ignore_file", "IGNORE_FILE"), ("BLOCK_TIMEMAX", "BLOCK_TIME_MAX")]
    {
        let (code, _, stderr) = Lab::with(&format!("UDP_PORTS=\"7\"\n{typo}=\"1\"\n")).check(&[]);
        assert_eq!(code, Some(1));
        assert!(stderr.contains(&format!(":2:1: unknown key {typo}; did you mean {right}?")), "{stderr}");
    }
}

#[test]
fn a_right_file_is_shown_with_origins_and_intentions() {
    let lab = Lab::with("TCP_PORTS=\"1,7,20-25\"\nBLOCK_TCP=\"1\"\nLOG_FORMAT=\"auto\"\n");
    let (code, stdout, stderr) = lab.check_in(&["-i", "lo"], &[("PORTSENTRY_LOG_FORMAT", "json")]);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    let line = |key: &str| stdout.lines().find(|line| line.starts_with(key)).unwrap_or_default().to_string();
    assert!(line("TCP_PORTS ").ends_with("line 1"), "{stdout}");
    assert!(line("INTERFACES ").contains("\"lo\"") && line("INTERFACES ").ends_with("command line -i"));
    assert!(line("LOG_FORMAT ").contains("\"json\"") && line("LOG_FORMAT ").contains("environment"));
    assert!(
        stdout.contains("8 ports: 1,7,20-25") && stdout.contains("block with nftables for 1h"),
        "{stdout}"
    );
}

#[test]
fn no_block_is_said_to_last_longer_than_the_longest() {
    for time in ["-1", "99w"] {
        let lab = Lab::with(&format!(
            "TCP_PORTS=\"1\"\nBLOCK_TCP=\"1\"\nBLOCK_TIME=\"{time}\"\nBLOCK_TIME_FACTOR=\"1\"\n"
        ));
        let (_, stdout, stderr) = lab.check(&[]);
        assert!(stdout.contains("block with nftables for 365d"), "{stdout}{stderr}");
    }
}

#[test]
fn a_command_that_is_not_there_is_warned_of_with_its_place() {
    let lab = Lab::with("TCP_PORTS=\"1\"\nBLOCK_TCP=\"1\"\nKILL_ROUTE=\"/nonexistent/block $TARGET$\"\n");
    let (code, stdout, stderr) = lab.check(&[]);
    assert_eq!(code, Some(0));
    assert!(stderr.contains(":3:13: KILL_ROUTE: /nonexistent/block is not there"), "{stderr}");
    assert!(stdout.contains("block with KILL_ROUTE for 1h"), "{stdout}");
}

#[test]
fn a_command_that_nothing_takes_back_is_warned_of_with_its_place() {
    let line = "TCP_PORTS=\"1\"\nBLOCK_TCP=\"1\"\nKILL_ROUTE=\"/bin/true $TARGET$\"\n";
    for (more, warned) in
        [("", true), ("UNBLOCK_CMD=\"/bin/true $TARGET$\"\n", false), ("BLOCK_TCP=\"0\"\n", false)]
    {
        let lab = Lab::with(&format!("{line}{more}"));
        let (code, _, stderr) = lab.check(&[]);
        assert_eq!(code, Some(0), "{stderr}");
        let said = stderr.contains(":3:13: KILL_ROUTE: what it does outlasts its block");
        assert_eq!(said, warned, "{more}: {stderr}");
    }
}

#[test]
fn what_takes_back_a_usual_command_is_named_and_an_alarm_that_shuts_out_is_warned_of() {
    let conf = "TCP_PORTS=\"1\"\nBLOCK_TCP=\"1\"\nKILL_ROUTE=\"/sbin/route add -host $TARGET$ reject\"\n\
                KILL_RUN_CMD=\"/sbin/iptables -I INPUT -s $TARGET$ -j DROP && exit 0\"\n";
    let stderr = Lab::with(conf).check(&[]).2;
    let undo = "to what takes it back: UNBLOCK_CMD=\"/sbin/route del -host $TARGET$ reject\"";
    assert!(stderr.contains(undo), "{stderr}");
    assert!(
        stderr.contains(":4:15: KILL_RUN_CMD: what it does outlasts its block and an unblock"),
        "{stderr}"
    );
    for (mode, warned) in [("BLOCK_TCP=\"0\"", false), ("BLOCK_TCP=\"2\"", true), ("BLOCK_UDP=\"2\"", true)] {
        let stderr = Lab::with(&conf.replace("BLOCK_TCP=\"1\"", mode)).check(&[]).2;
        assert_eq!(stderr.contains("KILL_RUN_CMD: what it does outlasts"), warned, "{mode}: {stderr}");
    }
}

/// Each of these a start refuses, whoever starts it; that a daemon which runs may read its file again is none of that.
#[test]
fn what_lies_in_the_way_of_a_start_is_warned_of_with_its_place() {
    let lab = Lab::with("");
    let at = |name: &str| lab.folder.path().join(name);
    std::fs::create_dir_all(at("folder/lost+found")).unwrap();
    std::os::unix::fs::symlink(at("elsewhere"), at("link")).unwrap();
    std::fs::write(at("open"), "").unwrap();
    std::fs::set_permissions(at("open"), std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    for (line, words) in [
        ("HISTORY_FILE=\"FOLDER/link\"", "give a writable path, not a link"),
        ("HISTORY_FILE=\"FOLDER/folder\"", "is not a regular file"),
        ("BLOCKED_FILE=\"FOLDER/link\"", "it is a symbolic link"),
        ("BLOCKED_FILE=\"FOLDER/folder\"", "it is no regular file"),
        ("BLOCKED_FILE=\"FOLDER/open\"", "others may write it"),
        ("CONTROL_SOCKET=\"FOLDER/open\"", "exists and is not a socket"),
        ("STATE_DIR=\"FOLDER/folder\"", "holds lost+found, which is not ours"),
        ("INTERFACES=\"all\"", "there is no interface \"all\" here"),
    ] {
        let line = line.replace("FOLDER", &lab.folder.path().display().to_string());
        std::fs::write(lab.conf(), format!("TCP_PORTS=\"1\"\n{line}\n")).unwrap();
        let (code, _, stderr) = lab.check(&[]);
        assert_eq!(code, Some(0), "{line}: {stderr}");
        let place = format!("warning: {}:2:", lab.conf().display());
        let told = stderr.lines().any(|told| told.starts_with(&place) && told.contains(words));
        assert!(told, "{line}: {words:?} in {stderr}");
    }
    assert_eq!(lab.check(&["--connect"]).2, "", "who watches no packets needs no interface");
}

#[test]
fn a_decoy_port_that_a_service_has_is_warned_of_with_its_place() {
    let service = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = service.local_addr().unwrap().port();
    let lab = Lab::with(&format!("TCP_PORTS=\"1\"\nDECOY_TCP_PORTS=\"{port}\"\n"));
    let warned = |stderr: &str| stderr.contains(&format!(":2:18: a service has TCP port {port} now"));
    let (code, _, stderr) = lab.check(&[]);
    assert!(code == Some(0) && warned(&stderr), "{stderr}");
    drop(service);
    assert_eq!(lab.check(&[]).2, "");
}

#[test]
fn an_address_that_looks_like_a_network_is_warned_of_with_its_place() {
    let lab = Lab::with("");
    let ignore = lab.folder.path().join("ignore");
    std::fs::write(&ignore, "192.0.2.7 # me\n 198.51.100.0\n").unwrap();
    let lines = format!("NEVER_BLOCK=\"192.0.2.1, 203.0.113.0\"\nIGNORE_FILE=\"{}\"", ignore.display());
    std::fs::write(lab.conf(), format!("TCP_PORTS=\"1\"\n{lines}\n")).unwrap();
    let (code, _, stderr) = lab.check(&[]);
    assert_eq!((code, stderr.lines().count()), (Some(0), 2), "{stderr}");
    assert!(
        stderr.contains("portsentry.conf:2:25: NEVER_BLOCK: `203.0.113.0` is a single address"),
        "{stderr}"
    );
    assert!(stderr.contains("ignore:2:2: `198.51.100.0` is a single address"), "{stderr}");
}

#[test]
fn of_a_long_list_with_one_fault_the_first_are_warned_of_and_where_the_rest_is() {
    let lab = Lab::with("");
    let ignore = lab.folder.path().join("ignore");
    std::fs::write(
        &ignore,
        (0..10_000).map(|at| format!("10.{}.{}.0\n", at / 250, at % 250)).collect::<String>(),
    )
    .unwrap();
    let listed = (1..=100).map(|at| format!("192.0.{at}.0")).collect::<Vec<_>>().join(" ");
    let lines =
        format!("NEVER_BLOCK=\"{listed}\"\nIGNORE_FILE=\"{}\"\nSCAN_TRIGGER=\"9999\"", ignore.display());
    std::fs::write(lab.conf(), format!("TCP_PORTS=\"1\"\n{lines}\n")).unwrap();
    let (code, _, stderr) = lab.check(&[]);
    assert_eq!((code, stderr.lines().count()), (Some(0), 6 + 6 + 1), "{stderr}");
    assert!(
        stderr.contains("portsentry.conf:2:64: and 95 more like these from here on, the last in line 2"),
        "{stderr}"
    );
    assert!(
        stderr.contains("ignore:6:1: and 9995 more like these from here on, the last in line 10000"),
        "{stderr}"
    );
    assert!(stderr.contains("SCAN_TRIGGER: 9999 acts as"), "another kind is told: {stderr}");
}

#[test]
fn what_takes_back_a_command_that_is_not_there_is_warned_of_with_its_place() {
    let line = "TCP_PORTS=\"1\"\nBLOCK_TCP=\"1\"\nUNBLOCK_CMD=\"/bin/true $TARGET$\"\n";
    for (more, warned) in [("", true), ("KILL_ROUTE=\"/bin/true $TARGET$\"\n", false)] {
        let lab = Lab::with(&format!("{line}{more}"));
        let (code, _, stderr) = lab.check(&[]);
        assert_eq!(code, Some(0), "{stderr}");
        let said = stderr.contains(":3:14: UNBLOCK_CMD: takes back what KILL_ROUTE did, which is not set");
        assert_eq!(said, warned, "{more}: {stderr}");
    }
}

#[test]
fn wrong_usage_leaves_with_2_and_a_missing_file_with_1() {
    let lab = Lab::with("TCP_PORTS=1");
    assert_eq!(lab.check(&["--no-such-flag"]).0, Some(2));
    std::fs::remove_file(lab.conf()).unwrap();
    let (code, _, stderr) = lab.check(&[]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("cannot read the configuration: No such file"), "{stderr}");
}

#[test]
fn who_may_not_read_a_file_is_told_to_ask_as_root() {
    let lab = Lab::with("TCP_PORTS=\"1\"\n");
    std::fs::set_permissions(lab.conf(), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let mut command = Command::new("setpriv");
    command.args([
        "--reuid",
        "4242",
        "--regid",
        "4242",
        "--clear-groups",
        env!("CARGO_BIN_EXE_portsentry-rs"),
    ]);
    let output = command.args(["check", "-c"]).arg(lab.conf()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("Permission denied") && said.contains("try sudo"), "{said}");
    assert!(!said.contains("while it runs"), "{said}");
}

/// Nobody writes into them: a check, and a reload, would wait for ever.
#[test]
fn pipes_in_the_place_of_files_are_refused_at_once() {
    let pipe = |path: PathBuf| nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let lab = Lab::with("TCP_PORTS=1\n");
    std::fs::write(
        lab.conf(),
        format!("TCP_PORTS=\"1\"\nIGNORE_FILE=\"{}/ignore\"\n", lab.folder.path().display()),
    )
    .unwrap();
    pipe(lab.folder.path().join("ignore"));
    let (code, _, stderr) = lab.check(&[]);
    assert!(code == Some(1) && stderr.contains("ignore: it is a pipe"), "{stderr}");
    std::fs::remove_file(lab.conf()).unwrap();
    pipe(lab.conf());
    let (code, _, stderr) = lab.check(&[]);
    assert!(code == Some(1) && stderr.contains("cannot read the configuration: it is a pipe"), "{stderr}");
}

#[test]
fn quiet_leaves_only_what_is_wrong() {
    let right = Lab::with("TCP_PORTS=\"1\"\n");
    assert_eq!(right.check(&["--quiet"]), (Some(0), String::new(), String::new()));
    let wrong = Lab::with("TCP_PORTS=\"70000\"\n");
    assert_eq!(wrong.check(&["--quiet"]), wrong.check(&[]));
}
