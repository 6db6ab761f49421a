//! PortSentry's own configurations run unchanged, and what is written is PortSentry's, line for line: the example that
//! Debian's portsentry 1.2 ships, and a 2.x file as people have it, in stealth and in connect mode.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::time::Duration;

use support::classic::{Classic, IGNORED, SOON, debians_package, read_lines};
use support::service::{Service, answers};
use support::{Lab, eventually, inside};

/// A 2.x file as people have it.
const PEOPLE: &str = r#"
TCP_PORTS="1,7,9,11,13,15,17,19,20,21,70,79,111,113,119,389,512-515,540,543-544,873,989,990,992,1080"
UDP_PORTS="7,9,13,19,111,389,513,517-518"
IGNORE_FILE="/etc/portsentry/portsentry.ignore"
HISTORY_FILE="/var/log/portsentry.log"
BLOCKED_FILE="/tmp/portsentry.blocked"
BLOCK_TCP="1"
BLOCK_UDP="1"
KILL_ROUTE="/sbin/iptables -I INPUT -s $TARGET$ -j DROP"
KILL_HOSTS_DENY="ALL: $TARGET$"
"#;

const PEOPLES_HISTORY: &str = "/var/log/portsentry.log";
const DEBIANS_HISTORY: &str = "/var/lib/portsentry/portsentry.history";

/// portsentry.conf and portsentry.ignore.static as Debian's package has them; the second with one host of ours.
fn debians_files() -> Option<(Vec<u8>, Vec<u8>)> {
    let folder = debians_package()?.join("etc/portsentry");
    let read = |name| std::fs::read(folder.join(name)).unwrap();
    Some((read("portsentry.conf"), [&read("portsentry.ignore.static")[..], b"10.77.1.2\n"].concat()))
}

/// The same file with lines of its own uncommented and switches set, as its administrators do.
fn debians_file_that_blocks() -> Option<(Vec<u8>, Vec<u8>)> {
    let (config, ignore) = debians_files()?;
    let mut text = String::from_utf8(config).unwrap();
    for (line, instead) in [
        ("BLOCK_UDP=\"0\"", "BLOCK_UDP=\"1\""),
        ("BLOCK_TCP=\"0\"", "BLOCK_TCP=\"1\""),
        ("KILL_ROUTE=\"/sbin/route add -host", "#"),
        (
            "# KILL_ROUTE=\"/sbin/iptables -I INPUT -s $TARGET$ -j DROP &&",
            "KILL_ROUTE=\"/sbin/iptables -I INPUT -s $TARGET$ -j DROP &&",
        ),
        ("#KILL_RUN_CMD_FIRST = \"0\"", "KILL_RUN_CMD_FIRST = \"1\""),
        ("#KILL_RUN_CMD=\"/some/path/here/script", "KILL_RUN_CMD=\"echo"),
        ("#PORT_BANNER=", "PORT_BANNER="),
    ] {
        let line = format!("\n{line}");
        assert!(text.contains(&line), "the package's file has no {line:?}");
        text = text.replacen(&line, &format!("\n{instead}"), 1);
    }
    // Today's iptables knows its levels in small letters only.
    Some((text.replace("--log-level DEBUG", "--log-level debug").into_bytes(), ignore))
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
const IGNORED_SOURCE: [&str; 4] = ["true", "unset", "unset", "unset"];
const SYN: &str = "TCP SYN/Normal scan";

/// A socket address as the blocked file has it: family in this machine's order, address.
fn record_of_the_scanner() -> Vec<u8> {
    [&2_u16.to_ne_bytes()[..], &[10, 77, 0, 2]].concat()
}

/// The history holds these scans and their times, in order, and no more; nobody is blocked.
fn assert_logged_only(lab: &Lab, daemon: &Classic, count: usize) {
    let history = || read_lines(&daemon.path(DEBIANS_HISTORY));
    eventually("every scan is in the history", SOON, || history().len() >= count);
    let history = history();
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
    assert_eq!(std::fs::read(daemon.path("/var/lib/portsentry/portsentry.blocked")).unwrap(), b"");
    assert!(!lab.has_nft_table());
}

#[test]
fn debians_1_2_file_only_logs_and_every_kind_of_scan_has_its_name() {
    let Some((config, ignore)) = debians_files() else { return };
    let lab = Lab::new(2);
    let mut daemon = Classic::start(&lab, &config, &ignore, &["--stealth"]);
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
    // PortSentry goes by the flags alone.
    nmap(&lab, 0, &["-sS", "--scanflags", "SYNFINPSHURG", "-p", "111"]);
    assert_eq!(
        daemon.wait_for("Scan from:"),
        [scan_line("10.77.0.2", 111, "TCP XMAS scan", "not set", LOGGED)]
    );
    nmap(&lab, 0, &["-sS", "--scanflags", "ECE", "-p", "111"]);
    let none_of_six = "Unknown Type: TCP Packet Flags: SYN: 0 FIN: 0 ACK: 0 PSH: 0 URG: 0 RST: 0";
    assert_eq!(daemon.wait_for("Scan from:"), [scan_line("10.77.0.2", 111, none_of_six, "not set", LOGGED)]);
    nmap(&lab, 1, &["-sS", "-p", "111"]);
    assert_eq!(daemon.wait_for("Scan from:"), [scan_line("10.77.1.2", 111, SYN, "not set", IGNORED_SOURCE)]);
    assert_logged_only(&lab, &daemon, 10);
}

#[test]
fn debians_1_2_file_in_connect_mode_only_logs_and_every_visit_is_called_connect() {
    let Some((config, ignore)) = debians_files() else { return };
    let lab = Lab::new(2);
    let mut daemon = Classic::start(&lab, &config, &ignore, &["--connect"]);
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
    assert_eq!(daemon.wait_for("Scan from:"), [visit("10.77.1.2", 111, IGNORED_SOURCE)]);
    assert_logged_only(&lab, &daemon, 5);
}

/// What a whole banner says to a visitor by UDP.
fn told_by_udp(lab: &Lab, port: u16) -> String {
    let host = lab.peer(0);
    let target = host.target(false);
    inside(&host.netns, move || {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.set_read_timeout(Some(SOON)).unwrap();
        socket.send_to(b"x", (target, port)).unwrap();
        let mut told = [0; 200];
        let length = socket.recv(&mut told).unwrap();
        String::from_utf8_lossy(&told[..length]).into_owned()
    })
}

#[test]
fn debians_1_2_file_with_its_own_lines_uncommented_blocks_as_they_say() {
    let Some((config, ignore)) = debians_file_that_blocks() else { return };
    let lab = Lab::new(2);
    let mut daemon = Classic::start(&lab, &config, &ignore, &["--connect"]);
    assert!(daemon.seen.contains(&"Listen on AF_INET6: TCP port: 54320".to_owned()), "{:#?}", daemon.seen);
    assert!(daemon.seen.contains(&"Listen on AF_INET6: UDP port: 54321".to_owned()));
    assert!(told_by_udp(&lab, 161).starts_with("** UNAUTHORIZED ACCESS PROHIBITED *** YOUR CONNECTION"));
    let command = "/sbin/iptables -I INPUT -s 10.77.0.2 -j DROP && /sbin/iptables -I INPUT -s 10.77.0.2 -m limit \
                   --limit 3/minute --limit-burst 5 -j LOG --log-level debug --log-prefix 'Portsentry: dropping: '";
    let expected = [
        "attackalert: External command run for host: 10.77.0.2 using command: \"echo 10.77.0.2 161 connect\""
            .to_owned(),
        "attackalert: Host 10.77.0.2 has been blocked via wrappers with string: \"ALL: 10.77.0.2 : DENY\""
            .to_owned(),
        format!(
            "attackalert: Host 10.77.0.2 has been blocked via dropped route using command: \"{command}\""
        ),
        scan_line("10.77.0.2", 161, "Connect", "unknown", BLOCKED).replace("[TCP]", "[UDP]"),
    ];
    assert_eq!(daemon.wait_for("Scan from:"), expected);
    assert_eq!(read_lines(&daemon.path("/etc/hosts.deny")), ["ALL: 10.77.0.2 : DENY"]);
    let blocked = std::fs::read(daemon.path("/var/lib/portsentry/portsentry.blocked")).unwrap();
    assert_eq!(blocked, record_of_the_scanner());
    let rules = String::from_utf8(lab.on_target(&["iptables", "-S", "INPUT"]).stdout).unwrap();
    assert!(rules.contains("-A INPUT -s 10.77.0.2/32 -j DROP"), "{rules}");
    assert!(rules.contains("--log-prefix \"Portsentry: dropping: \""), "{rules}");
}

#[test]
fn a_2_x_file_blocks_by_its_own_words_and_in_their_order() {
    let lab = Lab::new(2);
    let mut daemon = Classic::start(&lab, PEOPLE.as_bytes(), IGNORED.as_bytes(), &["--stealth", "-m", "raw"]);
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
    assert_eq!(daemon.wait_for("Scan from:"), [scan_line("10.77.1.2", 111, SYN, "not set", IGNORED_SOURCE)]);
    assert_eq!(read_lines(&daemon.path(PEOPLES_HISTORY)).len(), 3);
    assert_eq!(read_lines(&daemon.path("/etc/hosts.deny")), ["ALL: 10.77.0.2"]);
    assert_eq!(std::fs::read(daemon.path("/tmp/portsentry.blocked")).unwrap(), record_of_the_scanner());
    let rules = String::from_utf8(lab.on_target(&["iptables", "-S", "INPUT"]).stdout).unwrap();
    assert_eq!(rules.matches("-A INPUT -s 10.77.0.2/32 -j DROP").count(), 1, "{rules}");
}

#[test]
fn connect_mode_says_what_portsentry_says() {
    let lab = Lab::new(2);
    let config = format!(
        "{PEOPLE}SCAN_TRIGGER=\"2\"\nPORT_BANNER=\"go away\"\nKILL_RUN_CMD=\"true $TARGET$ $PORT$ $MODE$\"\nKILL_RUN_CMD_FIRST=\"1\"\n"
    );
    let mut daemon = Classic::start(&lab, config.as_bytes(), IGNORED.as_bytes(), &["--connect"]);
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
    eventually("both visits are in the history", SOON, || {
        read_lines(&daemon.path(PEOPLES_HISTORY)).len() == 2
    });
    assert_eq!(read_lines(&daemon.path("/etc/hosts.deny")), ["ALL: 10.77.0.2"]);
    assert_eq!(std::fs::read(daemon.path("/tmp/portsentry.blocked")).unwrap(), record_of_the_scanner());
}

#[test]
fn verbose_and_debug_lines_and_a_service_are_told_of() {
    let lab = Lab::new(2);
    let _service = Service::start(&lab.target(), 1080);
    let mut daemon = Classic::start(&lab, PEOPLE.as_bytes(), IGNORED.as_bytes(), &["-v", "-d", "-i", "ALL"]);
    nmap(&lab, 1, &["-sS", "-p", "111"]);
    assert!(daemon.seen.contains(&"Ignoring IP: 127.0.0.1/255.255.255.255".to_owned()));
    let expected = [
        "Host: 10.77.1.2 found in ignore file /etc/portsentry/portsentry.ignore aborting actions".to_owned(),
        scan_line("10.77.1.2", 111, SYN, "not set", IGNORED_SOURCE),
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
    // The file as it is now.
    let ignore = "/etc/portsentry/portsentry.ignore";
    std::fs::write(daemon.path(ignore), format!("{IGNORED}10.77.0.2\n")).unwrap();
    daemon.reload();
    nmap(&lab, 0, &["-sS", "-p", "119"]);
    let expected = format!("Host: 10.77.0.2 found in ignore file {ignore} aborting actions");
    assert_eq!(daemon.wait_for("Scan from:")[0], expected);
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
    let mut daemon = Classic::start(&lab, config.as_bytes(), b"", &[]);
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
    let rules = String::from_utf8(lab.on_target(&["iptables", "-w", "-S"]).stdout).unwrap();
    assert_eq!(rules.matches("-s 10.77.0.2/32 -j DROP").count(), 1, "{rules}");
}
