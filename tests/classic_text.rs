//! PortSentry's own configurations run unchanged, and what is written is PortSentry's, line for line: the example that
//! Debian's portsentry 1.2 ships, and a 2.x file as people have it, in stealth and in connect mode.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use support::service::{Service, answers};
use support::{Lab, eventually, inside};

const SOON: Duration = Duration::from_secs(15);

/// The keys of Debian's /etc/portsentry/portsentry.conf (portsentry 1.2-14), its paths moved to `@`.
const DEBIAN: &str = r#"
TCP_PORTS="1,11,15,79,111,119,143,540,635,1080,1524,2000,5742,6667,12345,12346,20034,27665,31337,32771,32772,32773,32774,40421,49724,54320"
UDP_PORTS="1,7,9,69,161,162,513,635,640,641,700,37444,34555,31335,32770,32771,32772,32773,32774,31337,54321"
ADVANCED_PORTS_TCP="1024"
ADVANCED_PORTS_UDP="1024"
ADVANCED_EXCLUDE_TCP="113,139"
ADVANCED_EXCLUDE_UDP="520,138,137,67"
IGNORE_FILE="@/portsentry.ignore"
HISTORY_FILE="@/portsentry.history"
BLOCKED_FILE="@/portsentry.blocked"
RESOLVE_HOST = "0"
BLOCK_UDP="0"
BLOCK_TCP="0"
KILL_ROUTE="/sbin/route add -host $TARGET$ reject"
KILL_HOSTS_DENY="ALL: $TARGET$ : DENY"
SCAN_TRIGGER="0"
"#;

/// A 2.x file as people have it.
const PEOPLE: &str = r#"
TCP_PORTS="1,7,9,11,13,15,17,19,20,21,70,79,111,113,119,389,512-515,540,543-544,873,989,990,992,1080"
UDP_PORTS="7,9,13,19,111,389,513,517-518"
IGNORE_FILE="@/portsentry.ignore"
HISTORY_FILE="@/portsentry.history"
BLOCKED_FILE="@/portsentry.blocked"
BLOCK_TCP="1"
BLOCK_UDP="1"
KILL_ROUTE="/sbin/iptables -I INPUT -s $TARGET$ -j DROP"
KILL_HOSTS_DENY="ALL: $TARGET$"
"#;

/// A daemon in classic text, and every line it wrote.
struct Classic {
    child: Child,
    folder: tempfile::TempDir,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl Classic {
    fn start(lab: &Lab, config: &str, flags: &[&str]) -> Classic {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let at = folder.path().display().to_string();
        // Where ours differ from PortSentry's: state, control, and a hosts.deny that is not this machine's own.
        let ours = format!(
            "\nSTATE_DIR=\"{at}/state\"\nCONTROL_SOCKET=\"{at}/run/c.sock\"\nHOSTS_DENY_FILE=\"{at}/hosts.deny\"\n"
        );
        std::fs::write(folder.path().join("portsentry.conf"), config.replace('@', &at) + &ours).unwrap();
        std::fs::write(folder.path().join("portsentry.ignore"), "127.0.0.1/32\n0.0.0.0\n10.77.1.2\n")
            .unwrap();
        let mut child = Command::new("ip")
            .args(["netns", "exec", &lab.target(), env!("CARGO_BIN_EXE_portsentry-rs"), "-c"])
            .arg(folder.path().join("portsentry.conf"))
            .args(flags)
            .env("PORTSENTRY_LOG_FORMAT", "classic")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            stdout.lines().map_while(Result::ok).for_each(|line| drop(sender.send(line)))
        });
        let mut daemon = Classic { child, folder, lines, seen: Vec::new() };
        daemon.wait_for("Portsentry is now active and listening.");
        daemon
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Waits for a line that begins so, and returns the lines since the last one that was waited for, it included.
    fn wait_for(&mut self, beginning: &str) -> Vec<String> {
        let (deadline, from) = (Instant::now() + SOON, self.seen.len());
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else {
                panic!("no {beginning:?} in {:#?}", self.seen)
            };
            self.seen.push(line.clone());
            if line.starts_with(beginning) {
                return self.seen[from..].to_vec();
            }
        }
    }

    fn history(&self) -> Vec<String> {
        read_lines(&self.path("portsentry.history"))
    }
}

impl Drop for Classic {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_lines(path: &Path) -> Vec<String> {
    std::fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

fn nmap(lab: &Lab, peer: usize, arguments: &[&str]) {
    let host = lab.peer(peer);
    let fixed = ["nmap", "-n", "-Pn", "--disable-arp-ping", "--max-retries", "0", "--host-timeout", "10s"];
    let target = host.target(arguments.contains(&"-6")).to_string();
    host.run(&[&fixed[..], arguments, &[&target]].concat());
}

fn scan_line(source: &str, port: u16, kind: &str, options: &str, states: [&str; 4]) -> String {
    let [ignored, triggered, noblock, blocked] = states;
    let protocol = if kind == "UDP" { "UDP" } else { "TCP" };
    format!(
        "Scan from: [{source}] ({source}) protocol: [{protocol}] port: [{port}] type: [{kind}] IP opts: [{options}] \
         ignored: [{ignored}] triggered: [{triggered}] noblock: [{noblock}] blocked: [{blocked}]"
    )
}

const LOGGED: [&str; 4] = ["false", "true", "true", "false"];
const BLOCKED: [&str; 4] = ["false", "true", "false", "true"];
const IGNORED: [&str; 4] = ["true", "unset", "unset", "unset"];
const SYN: &str = "TCP SYN/Normal scan";

/// A socket address as the blocked file has it: family in this machine's order, address.
fn record_of_the_scanner() -> Vec<u8> {
    [&2_u16.to_ne_bytes()[..], &[10, 77, 0, 2]].concat()
}

/// The history holds these scans and their times, in order, and no more; nobody is blocked.
fn assert_logged_only(lab: &Lab, daemon: &Classic, count: usize) {
    eventually("every scan is in the history", SOON, || daemon.history().len() >= count);
    let history = daemon.history();
    assert_eq!(history.len(), count);
    for (line, seen) in history.iter().zip(daemon.seen.iter().filter(|line| line.starts_with("Scan"))) {
        let (time, rest) = line.split_once(' ').unwrap();
        assert_eq!(rest, seen);
        let form = |c: char| {
            if c.is_ascii_digit() {
                '0'
            } else if c == '-' {
                '+'
            } else {
                c
            }
        };
        assert_eq!(time.chars().map(form).collect::<String>(), "0000+00+00T00:00:00.000+0000");
    }
    assert_eq!(std::fs::read(daemon.path("portsentry.blocked")).unwrap(), b"");
    assert!(!lab.has_nft_table());
}

#[test]
fn debians_1_2_file_only_logs_and_every_kind_of_scan_has_its_name() {
    let lab = Lab::new(2);
    let mut daemon = Classic::start(&lab, DEBIAN, &["--stealth"]);
    for (flag, kind) in
        [("-sS", SYN), ("-sN", "TCP NULL scan"), ("-sF", "TCP FIN scan"), ("-sX", "TCP XMAS scan")]
    {
        nmap(&lab, 0, &[flag, "-p", "111"]);
        assert_eq!(daemon.wait_for("Scan from:"), [scan_line("10.77.0.2", 111, kind, "not set", LOGGED)]);
    }
    nmap(&lab, 0, &["-sU", "-p", "161"]);
    assert_eq!(daemon.wait_for("Scan from:"), [scan_line("10.77.0.2", 161, "UDP", "not set", LOGGED)]);
    nmap(&lab, 0, &["-6", "-sS", "-p", "111"]);
    assert_eq!(daemon.wait_for("Scan from:"), [scan_line("fd77::2", 111, SYN, "unknown", LOGGED)]);
    nmap(&lab, 0, &["-sS", "--scanflags", "SYNFINURG", "-p", "111"]);
    let odd = "Unknown Type: TCP Packet Flags: SYN: 1 FIN: 1 ACK: 0 PSH: 0 URG: 1 RST: 0";
    assert_eq!(daemon.wait_for("Scan from:"), [scan_line("10.77.0.2", 111, odd, "not set", LOGGED)]);
    nmap(&lab, 1, &["-sS", "-p", "111"]);
    assert_eq!(daemon.wait_for("Scan from:"), [scan_line("10.77.1.2", 111, SYN, "not set", IGNORED)]);
    assert_logged_only(&lab, &daemon, 8);
}

#[test]
fn debians_1_2_file_in_connect_mode_only_logs_and_every_visit_is_called_connect() {
    let lab = Lab::new(2);
    let mut daemon = Classic::start(&lab, DEBIAN, &["--connect"]);
    let visit = |source: &str, port, states| scan_line(source, port, "Connect", "unknown", states);
    for port in ["111", "54320"] {
        nmap(&lab, 0, &["-sT", "-p", port]);
        let expected = [visit("10.77.0.2", port.parse().unwrap(), LOGGED)];
        assert_eq!(daemon.wait_for("Scan from:"), expected);
    }
    nmap(&lab, 0, &["-6", "-sT", "-p", "111"]);
    assert_eq!(daemon.wait_for("Scan from:"), [visit("fd77::2", 111, LOGGED)]);
    nmap(&lab, 0, &["-sU", "-p", "161"]);
    let udp = visit("10.77.0.2", 161, LOGGED).replace("[TCP]", "[UDP]");
    assert_eq!(daemon.wait_for("Scan from:"), [udp]);
    // Neither a handshake that is never finished nor a port that nobody listens on is a visit.
    nmap(&lab, 0, &["-sS", "-p", "111"]);
    nmap(&lab, 0, &["-sT", "-p", "112"]);
    nmap(&lab, 1, &["-sT", "-p", "111"]);
    assert_eq!(daemon.wait_for("Scan from:"), [visit("10.77.1.2", 111, IGNORED)]);
    assert_logged_only(&lab, &daemon, 5);
}

#[test]
fn a_2_x_file_blocks_by_its_own_words_and_in_their_order() {
    let lab = Lab::new(2);
    let mut daemon = Classic::start(&lab, PEOPLE, &["--stealth", "-m", "raw"]);
    nmap(&lab, 0, &["-sS", "-p", "111"]);
    let expected = [
        "attackalert: Host 10.77.0.2 has been blocked via wrappers with string: \"ALL: 10.77.0.2\""
            .to_owned(),
        "attackalert: Host 10.77.0.2 has been blocked via dropped route using command: \
         \"/sbin/iptables -I INPUT -s 10.77.0.2 -j DROP\""
            .to_owned(),
        scan_line("10.77.0.2", 111, SYN, "not set", BLOCKED),
    ];
    assert_eq!(daemon.wait_for("Scan from:"), expected);
    nmap(&lab, 0, &["-sS", "-p", "119"]);
    let again = [
        "attackalert: Host: 10.77.0.2/10.77.0.2 is already blocked Ignoring".to_owned(),
        scan_line("10.77.0.2", 119, SYN, "not set", BLOCKED),
    ];
    assert_eq!(daemon.wait_for("Scan from:"), again);
    nmap(&lab, 1, &["-sS", "-p", "111"]);
    assert_eq!(daemon.wait_for("Scan from:"), [scan_line("10.77.1.2", 111, SYN, "not set", IGNORED)]);
    assert_eq!(daemon.history().len(), 3);
    assert_eq!(read_lines(&daemon.path("hosts.deny")), ["ALL: 10.77.0.2"]);
    assert_eq!(std::fs::read(daemon.path("portsentry.blocked")).unwrap(), record_of_the_scanner());
    let rules = String::from_utf8(lab.on_target(&["iptables", "-S", "INPUT"]).stdout).unwrap();
    assert_eq!(rules.matches("-A INPUT -s 10.77.0.2/32 -j DROP").count(), 1, "{rules}");
}

#[test]
fn connect_mode_says_what_portsentry_says() {
    let lab = Lab::new(2);
    let config = format!(
        "{PEOPLE}SCAN_TRIGGER=\"2\"\nPORT_BANNER=\"go away\"\nKILL_RUN_CMD=\"true $TARGET$ $PORT$ $MODE$\"\nKILL_RUN_CMD_FIRST=\"1\"\n"
    );
    let mut daemon = Classic::start(&lab, &config, &["--connect"]);
    let said = |port: u16| {
        let target = lab.peer(0).target(false);
        inside(&lab.peer(0).netns, move || {
            let mut stream = std::net::TcpStream::connect_timeout(&(target, port).into(), SOON).unwrap();
            stream.set_read_timeout(Some(SOON)).unwrap();
            let mut said = String::new();
            let _ = std::io::Read::read_to_string(&mut stream, &mut said);
            said
        })
    };
    assert_eq!(said(111), "", "the banner is for whom the alarm is");
    let below = ["false", "false", "unset", "unset"];
    assert_eq!(daemon.wait_for("Scan from:"), [scan_line("10.77.0.2", 111, "Connect", "unknown", below)]);
    assert_eq!(said(119), "go away");
    let expected = [
        "attackalert: External command run for host: 10.77.0.2 using command: \"true 10.77.0.2 119 connect\""
            .to_owned(),
        "attackalert: Host 10.77.0.2 has been blocked via wrappers with string: \"ALL: 10.77.0.2\""
            .to_owned(),
        "attackalert: Host 10.77.0.2 has been blocked via dropped route using command: \
         \"/sbin/iptables -I INPUT -s 10.77.0.2 -j DROP\""
            .to_owned(),
        scan_line("10.77.0.2", 119, "Connect", "unknown", BLOCKED),
    ];
    assert_eq!(daemon.wait_for("Scan from:"), expected);
    eventually("both visits are in the history", SOON, || daemon.history().len() == 2);
    assert_eq!(read_lines(&daemon.path("hosts.deny")), ["ALL: 10.77.0.2"]);
    assert_eq!(std::fs::read(daemon.path("portsentry.blocked")).unwrap(), record_of_the_scanner());
}

#[test]
fn verbose_and_debug_lines_and_a_service_are_told_of() {
    let lab = Lab::new(2);
    let _service = Service::start(&lab.target(), 1080);
    let mut daemon = Classic::start(&lab, DEBIAN, &["-v", "-d", "-i", "ALL"]);
    nmap(&lab, 1, &["-sS", "-p", "111"]);
    let ignore = daemon.path("portsentry.ignore");
    let expected = [
        format!("Host: 10.77.1.2 found in ignore file {} aborting actions", ignore.display()),
        scan_line("10.77.1.2", 111, SYN, "not set", IGNORED),
    ];
    assert_eq!(daemon.wait_for("Scan from:"), expected);
    nmap(&lab, 0, &["-sS", "-p", "1080"]);
    let served = "Ignoring packet from 10.77.0.2 to destination port 1080, a service is running";
    assert_eq!(daemon.wait_for("Ignoring")[0], served);
    let own = lab.peer(0).target_v4;
    inside(&lab.target(), move || {
        let _ = std::net::TcpStream::connect_timeout(&(own, 111).into(), Duration::from_secs(1));
    });
    daemon.wait_for("debug: Source address 10.77.0.1 same as destination address 10.77.0.1, skipping");
}

#[test]
fn a_web_server_on_watched_ports_keeps_serving_while_the_scanner_is_shut_out() {
    let lab = Lab::new(2);
    let (_http, _https) = (Service::start(&lab.target(), 80), Service::start(&lab.target(), 443));
    let config = r#"TCP_PORTS="1,11,13,15,23,80,443,5000"
UDP_PORTS="1,7,9,69,111,161,162"
BLOCK_UDP="1"
BLOCK_TCP="1"
KILL_ROUTE="/sbin/iptables -A INPUT -s $TARGET$ -j DROP"
"#;
    let mut daemon = Classic::start(&lab, config, &[]);
    for port in [80, 443] {
        assert!(answers(&lab.peer(1).netns, lab.peer(1).target(false), port, SOON));
        assert!(answers(&lab.peer(0).netns, lab.peer(0).target(false), port, SOON));
    }
    nmap(&lab, 0, &["-sS", "-p", "1-100"]);
    daemon.wait_for("Scan from: [10.77.0.2]");
    eventually("the scanner is shut out", SOON, || {
        !answers(&lab.peer(0).netns, lab.peer(0).target(false), 80, Duration::from_millis(300))
    });
    for port in [80, 443] {
        assert!(answers(&lab.peer(1).netns, lab.peer(1).target(false), port, SOON));
    }
    let rules = String::from_utf8(lab.on_target(&["iptables", "-S"]).stdout).unwrap();
    assert_eq!(rules.matches("-s 10.77.0.2/32 -j DROP").count(), 1, "{rules}");
}
