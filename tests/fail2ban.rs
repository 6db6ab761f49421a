//! Real fail2ban, with the filter and the jail that we ship, bans the scanner, from all ports, and neither an ignored host
//! nor one that is connected.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use support::daemon::{Daemon, PATIENCE, Setup};
use support::service::{Service, answers};
use support::{Host, Lab, eventually, inside};

const FILTER: &str = include_str!("../config/fail2ban/filter.d/portsentry-rs.conf");

/// A fail2ban of our own: its configuration, socket and bans lie in our folder.
struct Fail2ban(Child);

impl Fail2ban {
    /// Begins to read `history` in the lab's target; `local` is what its administrator sets besides.
    fn start(lab: &Lab, folder: &Path, history: &Path, local: &str) -> Fail2ban {
        let etc = configured(folder, history, local);
        let at = |name: &str| folder.join(name).display().to_string();
        let server = Command::new("ip")
            .args(["netns", "exec", &lab.target(), "fail2ban-server", "-f", "-c"])
            .args([&etc, "-s", &at("fail2ban.sock"), "-p", &at("fail2ban.pid"), "start"])
            .stdout(Stdio::null())
            .spawn()
            .expect("fail2ban is installed");
        let server = Fail2ban(server);
        let log = || said(folder);
        eventually("the jail is up", Duration::from_secs(30), || {
            log().contains("Jail 'portsentry-rs' started")
        });
        server
    }
}

fn said(folder: &Path) -> String {
    std::fs::read_to_string(folder.join("fail2ban.log")).unwrap_or_default()
}

/// What docs/migrating.md tells to type, with another folder in the place of /etc/fail2ban.
fn install(etc: &Path) {
    let typed = support::readme::typed(include_str!("../docs/migrating.md"));
    let copy = typed.iter().find(|line| line.contains("config/fail2ban")).unwrap();
    let copy = copy.replace("sudo ", "").replace("/etc/fail2ban", &etc.display().to_string());
    let copied = Command::new("sh").args(["-ec", &copy]).current_dir(env!("CARGO_MANIFEST_DIR")).status();
    assert!(copied.unwrap().success(), "{copy}");
}

/// This machine's fail2ban configuration with our two files, and what it lies in.
fn configured(folder: &Path, history: &Path, local: &str) -> String {
    let etc = folder.join("fail2ban");
    let copied = Command::new("cp").args(["-r", "/etc/fail2ban"]).arg(&etc).status().unwrap();
    assert!(copied.success());
    install(&etc);
    let path = etc.join("jail.d/portsentry-rs.conf");
    let jail = std::fs::read_to_string(&path).unwrap();
    let jail = jail.replace("/var/log/portsentry-rs/history", &history.display().to_string());
    // Other jails watch logs that this machine need not have.
    let _ = std::fs::remove_file(etc.join("jail.d/defaults-debian.conf"));
    std::fs::write(path, jail).unwrap();
    let write = "[Definition]\nactionban = echo <ip> >> <to>\nactionunban = true\n";
    std::fs::write(etc.join("action.d/write.conf"), write).unwrap();
    std::fs::write(etc.join("jail.local"), local).unwrap();
    let log = folder.join("fail2ban.log").display().to_string();
    std::fs::write(etc.join("fail2ban.local"), format!("[Definition]\ndbfile = None\nlogtarget = {log}\n"))
        .unwrap();
    etc.display().to_string()
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

/// A daemon that only tells, its history file, and a fail2ban that bans by it.
fn told_and_banned(lab: &Lab, lines: &str, local: &str) -> (Daemon, Fail2ban) {
    let setup = Setup::new(lab, "");
    let history = setup.path("history");
    setup.rewrite(&format!("{lines}\nHISTORY_FILE=\"{}\"", history.display()));
    let daemon = setup.start();
    let fail2ban = Fail2ban::start(lab, &daemon.path(""), &history, local);
    (daemon, fail2ban)
}

/// A ping-pong of one datagram each; a REJECT ends the wait at once.
fn udp_answers(lab: &Lab, host: &Host, v6: bool) -> bool {
    let server = inside(&lab.target(), || UdpSocket::bind("[::]:0").unwrap());
    let to = SocketAddr::new(host.target(v6), server.local_addr().unwrap().port());
    let client = inside(&host.netns, || UdpSocket::bind("[::]:0").unwrap());
    let mapped = match to {
        SocketAddr::V4(to) => SocketAddr::new(to.ip().to_ipv6_mapped().into(), to.port()),
        SocketAddr::V6(_) => to,
    };
    server.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    client.send_to(b"ping", mapped).is_ok() && server.recv(&mut [0; 8]).is_ok()
}

#[test]
fn fail2ban_bans_the_scanner_from_all_ports_and_not_the_ignored_host() {
    // Debian 12's default, and Debian 13's.
    for ban in ["iptables-allports", "nftables[type=allports]"] {
        let lab = Lab::new(2);
        let _service = Service::start(&lab.target(), 80);
        let (daemon, _fail2ban) = told_and_banned(
            &lab,
            "TCP_PORTS=\"111,119\"\nNEVER_BLOCK=\"10.77.1.2, fd77:1::/32\"",
            &format!("[DEFAULT]\nbanaction_allports = {ban}\n"),
        );
        let (scanner, ignored) = (lab.peer(0), lab.peer(1));
        for v6 in [false, true] {
            assert!(udp_answers(&lab, scanner, v6), "{ban}");
        }
        // The ignored host first: when the scanner is banned, its lines have been read.
        scan(&lab, 1);
        scan(&lab, 0);
        for v6 in [false, true] {
            eventually("the scanner is banned from TCP and UDP", Duration::from_secs(30), || {
                !answers(&scanner.netns, scanner.target(v6), 80, Duration::from_millis(500))
                    && !udp_answers(&lab, scanner, v6)
            });
            assert!(answers(&ignored.netns, ignored.target(v6), 80, PATIENCE), "{}", said(&daemon.path("")));
            assert!(udp_answers(&lab, ignored, v6), "{}", said(&daemon.path("")));
        }
        let history = std::fs::read_to_string(daemon.path("history")).unwrap();
        assert!(history.contains("Scan from: [10.77.1.2]"), "{history}");
    }
}

/// Where we only tell, whoever bans by what we tell has no other way to know.
#[test]
fn a_packet_forged_in_the_name_of_whoever_is_connected_bans_nobody() {
    let lab = Lab::new(3);
    let (attacker, owner, nobody) = (lab.peer(0), lab.peer(1), lab.peer(2));
    let write = |folder: &str| format!("[DEFAULT]\nbanaction_allports = write[to={folder}]\n");
    let bans = tempfile::NamedTempFile::new().unwrap();
    let (mut daemon, _fail2ban) =
        told_and_banned(&lab, "TCP_PORTS=\"111\"", &write(&bans.path().display().to_string()));
    let listener = inside(&lab.target(), || TcpListener::bind("0.0.0.0:0").unwrap());
    let to = SocketAddr::new(owner.target(false), listener.local_addr().unwrap().port());
    let _open =
        (inside(&owner.netns, || TcpStream::connect_timeout(&to, PATIENCE).unwrap()), listener.accept());
    for (host, verdict) in [(owner, "suppressed"), (nobody, "logged")] {
        let source = host.v4.to_string();
        attacker.hping3(&["-c", "1", "-S", "-p", "111", "-a", &source, &host.target_v4.to_string()]);
        let told = daemon.wait_for_new("the verdict", |event| event["src_ip"] == *source);
        assert_eq!(
            (&told["event_type"], &told["action"]["verdict"]),
            (&"scan".into(), &verdict.into()),
            "{told}"
        );
    }
    let banned = || std::fs::read_to_string(bans.path()).unwrap();
    eventually("whoever has no connection is banned", Duration::from_secs(30), || {
        banned().contains("10.77.2.2")
    });
    assert!(!banned().contains("10.77.1.2"), "{}", banned());
}

#[test]
fn the_jail_bans_from_all_ports_by_tcp_and_udp() {
    let folder = tempfile::tempdir().unwrap();
    let etc = configured(folder.path(), &folder.path().join("history"), "");
    std::fs::write(folder.path().join("history"), "").unwrap();
    let output = Command::new("fail2ban-client").args(["-c", &etc, "-d"]).output().unwrap();
    let dump = String::from_utf8_lossy(&output.stdout).into_owned();
    let actions: Vec<&str> = dump.lines().filter(|line| line.contains("'addaction'")).collect();
    assert_eq!(actions.len(), 2, "{dump}");
    for protocol in ["tcp", "udp"] {
        let is_set = |line: &&str| {
            line.contains(&format!("portsentry-rs-{protocol}'")) && line.contains("'multi-set'")
        };
        let action = dump.lines().find(is_set).unwrap_or_default();
        assert!(action.contains(&format!("['protocol', '{protocol}']")), "{dump}");
        assert!(!action.contains("dport"), "{action}");
    }
}

#[test]
fn the_filter_finds_scanners_in_syslog_and_journal_lines_too() {
    let folder = tempfile::tempdir().unwrap();
    let filter = folder.path().join("portsentry-rs.conf");
    // Next to the files it includes.
    std::fs::write(&filter, FILTER).unwrap();
    std::fs::copy("/etc/fail2ban/filter.d/common.conf", folder.path().join("common.conf")).unwrap();
    let scan = |states: &str| {
        let [ignored, triggered, noblock, blocked] = *states.split(' ').collect::<Vec<_>>() else {
            panic!("{states}")
        };
        format!(
            "Scan from: [192.0.2.7] (a.b) protocol: [TCP] port: [23] type: [TCP SYN/Normal scan] IP opts: [not set] \
             ignored: [{ignored}] triggered: [{triggered}] noblock: [{noblock}] blocked: [{blocked}]"
        )
    };
    let json = |event: &str, action: &str| {
        format!(
            r#"{{"timestamp":"2026-11-22T00:38:01.758123+0000","event_type":"{event}","src_ip":"192.0.2.7","dest_port":23,"src_host":"\",\"scan\":{{}},\"action\":{{\"verdict\":\"logged\"","scan":{{"type":"syn"}}{action}}}"#
        )
    };
    let verdict = |verdict: &str| format!(r#","action":{{"verdict":"{verdict}"}}"#);
    // The states are those of docs/events.md.
    for (line, found) in [
        (format!("Nov 22 00:38:01 host portsentry[12]: {}", scan("false true true false")), true),
        (format!("2026-11-22T00:38:01.758+0000 {}", scan("false true true false")), true),
        (format!("2026-11-22T00:38:01.758+0000 {}", scan("false true false true")), true),
        (format!("2026-11-22T00:38:01.758+0000 {}", scan("false true false false")), false),
        (format!("2026-11-22T00:38:01.758+0000 {}", scan("false false unset unset")), false),
        (format!("2026-11-22T00:38:01.758+0000 {}", scan("true unset unset unset")), false),
        (format!("Nov 22 00:38:01 host portsentry[12]: {}", json("scan", &verdict("logged"))), true),
        (json("block", &verdict("blocked")), true),
        (json("scan", &verdict("suppressed")), false),
        (json("block", &verdict("failed")), false),
        (json("scan", ""), false),
        (format!("Nov 22 00:38:01 host portsentry[12]: {}", json("scan", &verdict("ignored"))), false),
    ] {
        let output =
            Command::new("fail2ban-regex").arg(&line).arg(&filter).output().expect("fail2ban is installed");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let hits = if found { "1 matched" } else { "0 matched" };
        assert!(text.contains(hits), "{line}\n{text}");
    }
}
