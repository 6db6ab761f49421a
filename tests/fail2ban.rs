//! Real fail2ban, with the filter and the jail that we ship, bans the scanner and not an ignored host.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use support::daemon::Setup;
use support::{Lab, eventually};

const FILTER: &str = include_str!("../config/fail2ban/filter.d/portsentry-rs.conf");
const JAIL: &str = include_str!("../config/fail2ban/jail.d/portsentry-rs.conf");

/// A fail2ban of our own: its configuration, socket and bans lie in our folder.
struct Fail2ban(Child);

impl Fail2ban {
    fn start(folder: &Path, history: &Path) -> Fail2ban {
        let etc = folder.join("fail2ban");
        let copied = Command::new("cp").args(["-r", "/etc/fail2ban"]).arg(&etc).status().unwrap();
        assert!(copied.success());
        std::fs::write(etc.join("filter.d/portsentry-rs.conf"), FILTER).unwrap();
        let jail = JAIL.replace("/var/log/portsentry-rs/history", &history.display().to_string());
        // Other jails watch logs that this machine need not have.
        let _ = std::fs::remove_file(etc.join("jail.d/defaults-debian.conf"));
        std::fs::write(etc.join("jail.d/portsentry-rs.conf"), format!("{jail}action = write\n")).unwrap();
        let bans = folder.join("bans").display().to_string();
        let action = format!("[Definition]\nactionban = echo <ip> >> {bans}\nactionunban = true\n");
        std::fs::write(etc.join("action.d/write.conf"), action).unwrap();
        let local =
            format!("[Definition]\ndbfile = None\nlogtarget = {}\n", folder.join("fail2ban.log").display());
        std::fs::write(etc.join("fail2ban.local"), local).unwrap();
        let (socket, pid) = (folder.join("fail2ban.sock"), folder.join("fail2ban.pid"));
        let server = Command::new("fail2ban-server")
            .args(["-f", "-c"])
            .arg(&etc)
            .arg("-s")
            .arg(&socket)
            .arg("-p")
            .arg(&pid)
            .arg("start")
            .stdout(Stdio::null())
            .spawn()
            .expect("fail2ban is installed");
        Fail2ban(server)
    }
}

impl Drop for Fail2ban {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn scan(lab: &Lab, peer: usize) {
    let host = lab.peer(peer);
    host.nmap(&["-sS", "-p", "111,119", &host.target_v4.to_string()]);
    host.nmap(&["-6", "-sS", "-p", "111,119", &host.target_v6.to_string()]);
}

#[test]
fn fail2ban_bans_the_scanner_and_not_the_ignored_host() {
    let lab = Lab::new(2);
    let setup = Setup::new(&lab, "");
    let history = setup.path("history");
    setup.rewrite(&format!(
        "TCP_PORTS=\"111,119\"\nNEVER_BLOCK=\"10.77.1.2, fd77:1::/32\"\nHISTORY_FILE=\"{}\"",
        history.display()
    ));
    let daemon = setup.start();
    let folder = daemon.path("");
    let _fail2ban = Fail2ban::start(&folder, &history);
    let log = || std::fs::read_to_string(folder.join("fail2ban.log")).unwrap_or_default();
    eventually("the jail is up", Duration::from_secs(30), || log().contains("Jail 'portsentry-rs' started"));
    // The ignored host first: when the scanner is banned, its lines have been read.
    scan(&lab, 1);
    scan(&lab, 0);
    let bans = || std::fs::read_to_string(folder.join("bans")).unwrap_or_default();
    eventually("both addresses of the scanner are banned", Duration::from_secs(30), || {
        bans().lines().count() >= 2
    });
    let mut banned: Vec<String> = bans().lines().map(str::to_owned).collect();
    banned.sort();
    assert_eq!(banned, ["10.77.0.2", "fd77::2"], "{}", log());
    assert!(std::fs::read_to_string(&history).unwrap().contains("Scan from: [10.77.1.2]"));
}

#[test]
fn the_filter_finds_scanners_in_syslog_and_journal_lines_too() {
    let folder = tempfile::tempdir().unwrap();
    let filter = folder.path().join("portsentry-rs.conf");
    // Next to the files it includes.
    std::fs::write(&filter, FILTER).unwrap();
    std::fs::copy("/etc/fail2ban/filter.d/common.conf", folder.path().join("common.conf")).unwrap();
    let scan = |ignored, triggered| {
        format!(
            "Scan from: [192.0.2.7] (a.b) protocol: [TCP] port: [23] type: [TCP SYN/Normal scan] IP opts: [not set] \
             ignored: [{ignored}] triggered: [{triggered}] noblock: [unset] blocked: [unset]"
        )
    };
    let json = r#"{"timestamp":"2026-11-22T00:38:01.758123+0000","event_type":"scan","src_ip":"192.0.2.7","dest_port":23}"#;
    let ignored = json.replace('}', r#","action":{"verdict":"ignored"}}"#);
    for (line, found) in [
        (format!("Nov 22 00:38:01 host portsentry[12]: {}", scan("false", "true")), true),
        (format!("2026-11-22T00:38:01.758+0000 {}", scan("false", "true")), true),
        (format!("2026-11-22T00:38:01.758+0000 {}", scan("false", "false")), false),
        (format!("2026-11-22T00:38:01.758+0000 {}", scan("true", "unset")), false),
        (format!("Nov 22 00:38:01 host portsentry[12]: {json}"), true),
        (format!("Nov 22 00:38:01 host portsentry[12]: {ignored}"), false),
    ] {
        let output =
            Command::new("fail2ban-regex").arg(&line).arg(&filter).output().expect("fail2ban is installed");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let hits = if found { "1 matched" } else { "0 matched" };
        assert!(text.contains(hits), "{line}\n{text}");
    }
}
