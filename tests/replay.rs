//! `replay` tells from a capture what the daemon would have told from the wire, whatever kind of capture it is, and
//! survives any bytes.

mod support;

use std::io::Write;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use portsentry::capture::Capture;
use portsentry::config::{Overrides, parse};
use portsentry::replay::{Replay, View};
use proptest::prelude::*;
use serde_json::Value;
use support::capture::{
    Classic, Ng, RAW, RST_ACK, START, SYN, SYN_ACK, ipv4, ipv6, link_header, scan, segment6, shown, tcp,
    torn4, udp,
};
use support::daemon::{PATIENCE, Setup};
use support::service::{Service, answers};
use support::{Host, Lab, eventually};

const SCANNER: [u8; 4] = [203, 0, 113, 9];
const TARGET: [u8; 4] = [198, 51, 100, 7];
const CONFIG: &str = "TCP_PORTS=\"1-1024\"\nUDP_PORTS=\"1-1024\"\nSCAN_TRIGGER=\"5\"\n";

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Folder {
        let folder = Folder(tempfile::tempdir().unwrap());
        folder.write("portsentry.conf", CONFIG.as_bytes());
        folder
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_portsentry-rs"));
        command.args(["replay", "-c"]).arg(self.0.path().join("portsentry.conf"));
        command
    }

    fn replay(&self, arguments: &[&str], captures: &[&Path]) -> Output {
        self.command().args(arguments).args(captures).output().unwrap()
    }

    /// The events of a capture that is read to its end.
    fn events(&self, arguments: &[&str], capture: &[u8]) -> Vec<Value> {
        let path = self.write("capture", capture);
        let output = self.replay(arguments, &[&path]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        events(&output)
    }

    /// The sources of `scan` events in a capture.
    fn scanners(&self, arguments: &[&str], capture: &[u8]) -> Vec<String> {
        scanners(&self.events(arguments, capture))
    }
}

fn events(output: &Output) -> Vec<Value> {
    String::from_utf8_lossy(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn scanners(events: &[Value]) -> Vec<String> {
    let scans = events.iter().filter(|event| event["event_type"] == "scan");
    scans.map(|event| event["src_ip"].as_str().unwrap().to_owned()).collect()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_scan_is_told_with_the_captures_own_times_and_then_the_counts() {
    let events = Folder::new().events(&[], &RAW.file(&scan(SCANNER, TARGET, 7)));
    let kinds: Vec<&str> = events.iter().map(|event| event["event_type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["probe", "probe", "probe", "probe", "scan", "stats", "stats"]);
    let summary = serde_json::json!({"probes": 3, "distinct_ports": 3, "ports": "5-7", "seconds": 0});
    assert_eq!((&events[5]["summary"], &events[5]["src_ip"]), (&summary, &shown(SCANNER).into()));
    let scan = &events[4];
    assert!(scan["timestamp"].as_str().unwrap().contains(":01.005000"), "{scan}");
    assert!(scan["scan"]["first_seen"].as_str().unwrap().contains(":01.001000"), "{scan}");
    assert_eq!(
        (scan["dest_port"].as_u64(), scan["scan"]["type"].as_str(), scan["action"]["verdict"].as_str()),
        (Some(5), Some("syn"), Some("logged"))
    );
    let stats = &events[6]["stats"];
    assert_eq!((stats["packets"].as_u64(), stats["scans"].as_u64()), (Some(7), Some(1)), "{stats}");
}

/// In a place of its own, so that nothing of the machine's configuration is there.
#[test]
fn without_any_configuration_the_shipped_one_judges() {
    let folder = Folder::new();
    // Its first watched ports, 1 and 7: each is an alarm by itself, and one source has one.
    let capture = folder.write("capture", &RAW.file(&scan(SCANNER, TARGET, 7)));
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", "mount -t tmpfs none /etc && exec \"$@\"", "sh"])
        .args([env!("CARGO_BIN_EXE_portsentry-rs"), "replay"])
        .arg(&capture)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let told = stderr(&output);
    assert!(
        told.starts_with("note: /etc/portsentry/portsentry.conf: it is not there, so the configuration"),
        "{told}"
    );
    let events = events(&output);
    assert_eq!(
        (scanners(&events), &events[0]["dest_port"]),
        (vec![shown(SCANNER)], &1.into()),
        "{events:#?}"
    );
}

/// A second, in microseconds.
const SECOND: u64 = 1_000_000;

#[test]
fn a_scanner_that_falls_quiet_is_summed_up_a_minute_later_whatever_comes_then() {
    let mut frames = scan(SCANNER, TARGET, 100);
    frames.push((START + 30 * SECOND, tcp(SCANNER, 40_000, TARGET, 300, SYN)));
    frames.push((START + 4000 * SECOND, udp([192, 0, 2, 80], 53, TARGET, 50_000)));
    let events = Folder::new().events(&[], &RAW.file(&frames));
    let told: Vec<_> = events.iter().filter(|event| !event["summary"].is_null()).collect();
    let [told] = told[..] else { panic!("{events:#?}") };
    assert!(told["timestamp"].as_str().unwrap().contains(":39:31.000000"), "{told}");
    let summary =
        serde_json::json!({"probes": 97, "distinct_ports": 97, "ports": "5-100,300", "seconds": 29});
    assert_eq!(told["summary"], summary);
}

#[test]
fn a_visit_to_a_decoy_is_a_proven_connect_and_a_half_open_one_a_syn() {
    const ACK: u8 = 0x10;
    let folder = Folder::new();
    folder.write("portsentry.conf", b"TCP_PORTS=\"1\"\nDECOY_TCP_PORTS=\"21,22\"\nSCAN_TRIGGER=\"2\"\n");
    let visit = |at: u64, source, port| {
        let (hour, knock) = (START + at * SECOND, 40_000 + port);
        [
            (hour, tcp(source, knock, TARGET, port, SYN)),
            (hour + 100, tcp(TARGET, port, source, knock, SYN_ACK)),
            (hour + 200, tcp(source, knock, TARGET, port, ACK)),
            (hour + 300, tcp(TARGET, port, source, knock, 0x18)),
            (hour + 400, tcp(source, knock, TARGET, port, 0x11)),
        ]
    };
    let half = |at, port| {
        let [syn, answer, (time, _), ..] = visit(at, SCANNER, port);
        [syn, answer, (time, tcp(SCANNER, 40_000 + port, TARGET, port, 4))]
    };
    let kinds = |frames: Vec<(u64, Vec<u8>)>| {
        let events = folder.events(&[], &RAW.file(&frames));
        let scans = events.into_iter().filter(|event| !event["scan"].is_null() && event["summary"].is_null());
        scans
            .map(|event| (event["scan"]["type"].clone(), event["scan"]["verified"] == true))
            .collect::<Vec<_>>()
    };
    let visits = [visit(1, SCANNER, 21), visit(2, SCANNER, 22)].concat();
    assert_eq!(kinds(visits), [("connect".into(), true), ("connect".into(), true)]);
    let halves = [half(1, 21), half(2, 22)].concat();
    assert_eq!(kinds(halves), [("syn".into(), false), ("syn".into(), false)]);
}

#[test]
fn neighbours_on_the_protected_hosts_own_link_are_judged_one_by_one() {
    let folder = Folder::new();
    let target = "2001:db8:1::7";
    let sweep = |prefix: &str| -> Vec<u8> {
        let frames = (1..=30_u16).map(|port| {
            let (from, to) = (format!("{prefix}::{port:x}00").parse().unwrap(), target.parse().unwrap());
            let segment = segment6(from, to, 5_000 + port, SYN);
            (START + u64::from(port) * 1_000, ipv6(from, to, 6, &segment))
        });
        RAW.file(&frames.collect::<Vec<_>>())
    };
    for arguments in [&[][..], &["--host", target], &["--network"]] {
        assert!(folder.scanners(arguments, &sweep("2001:db8:1:0")).is_empty(), "{arguments:?}");
        assert_eq!(folder.scanners(arguments, &sweep("2001:db8:2:0")).len(), 1, "{arguments:?}");
    }
}

#[test]
fn every_link_type_byte_order_and_resolution_says_the_same() {
    let folder = Folder::new();
    let frames = scan(SCANNER, TARGET, 7);
    let expected = folder.events(&[], &RAW.file(&frames));
    for link in [0, 1, 12, 14, 101, 108, 113, 228, 276] {
        for (big_endian, nanoseconds) in [(false, false), (false, true), (true, false), (true, true)] {
            let written = Classic { big_endian, nanoseconds, link };
            assert_eq!(folder.events(&[], &written.file(&frames)), expected, "{written:?}");
        }
    }
}

#[test]
fn a_pcapng_file_of_several_interfaces_and_sections_is_read_and_names_them() {
    for big_endian in [false, true] {
        let mut file = Ng::new(big_endian);
        file.interface(101, "tun0", 6);
        file.interface(1, "eth0", 9);
        // Neither a name block nor one of an unknown kind is a packet.
        file.block(4, &[0; 8]);
        file.block(0x0bad_cafe, &[1, 2, 3, 4]);
        for (time, datagram) in scan(SCANNER, TARGET, 3) {
            file.packet(0, time, &datagram);
        }
        for (time, datagram) in scan(SCANNER, TARGET, 5).split_off(3) {
            file.packet(1, time * 1000, &[link_header(1, &datagram), datagram].concat());
        }
        let mut second = Ng::new(!big_endian);
        second.interface(276, "any", 0x80 | 20);
        let datagram = tcp(SCANNER, 40_000, TARGET, 6, SYN);
        let ticks = (u128::from(START + 9_000_000) << 20) / 1_000_000;
        second.packet(0, ticks as u64, &[link_header(276, &datagram), datagram].concat());
        file.bytes.extend(second.bytes);

        let events = Folder::new().events(&[], &file.bytes);
        let told: Vec<(&str, &str)> = events
            .iter()
            .filter_map(|event| Some((event["event_type"].as_str()?, event["in_iface"].as_str()?)))
            .collect();
        assert_eq!(
            told,
            [
                ("probe", "tun0"),
                ("probe", "tun0"),
                ("probe", "tun0"),
                ("probe", "eth0"),
                ("scan", "eth0"),
                ("stats", "eth0")
            ]
        );
        let last = &events[6];
        assert_eq!(
            (last["stats"]["packets"].as_u64(), last["stats"]["uptime"].as_u64()),
            (Some(6), Some(8)),
            "{last}"
        );
    }
}

#[test]
fn several_captures_and_standard_input_are_one_story() {
    let folder = Folder::new();
    let frames = scan(SCANNER, TARGET, 6);
    let first = folder.write("first", &RAW.file(&frames[..3]));
    let second = folder.write("second", &RAW.file(&frames[3..]));
    let both = folder.replay(&[], &[&first, &second]);
    assert_eq!(scanners(&events(&both)), [shown(SCANNER)]);
    // The other way round the second is older than the first: its clock goes on nevertheless.
    assert_eq!(scanners(&events(&folder.replay(&[], &[&second, &first]))), [shown(SCANNER)]);
    for alone in [&first, &second] {
        assert!(scanners(&events(&folder.replay(&[], &[alone]))).is_empty());
    }
    let mut child =
        folder.command().arg(&first).arg("-").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&RAW.file(&frames[3..])).unwrap();
    assert_eq!(events(&child.wait_with_output().unwrap()), events(&both));
}

#[test]
fn a_damaged_capture_yields_its_events_and_an_error_with_the_byte() {
    let folder = Folder::new();
    let file = RAW.file(&scan(SCANNER, TARGET, 7));
    let record = 16 + 40;
    let mut lying = file.clone();
    lying[24 + 5 * record + 8..][..4].fill(0xff);
    for (bytes, words) in [
        (&file[..file.len() - record - 7], "cut off in the middle of a frame"),
        (&lying[..], "claims 4294967295 bytes"),
    ] {
        let path = folder.write("damaged", bytes);
        let output = folder.replay(&[], &[&path]);
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(scanners(&events(&output)), [shown(SCANNER)]);
        let expected = format!("{words}, at byte {}", 24 + 5 * record);
        assert!(stderr(&output).contains(&expected), "{expected}: {}", stderr(&output));
        // What comes after it is played still.
        let good = folder.write("good", &RAW.file(&scan([192, 0, 2, 1], TARGET, 7)));
        let output = folder.replay(&[], &[&path, &good]);
        assert_eq!(scanners(&events(&output)), [shown(SCANNER), "192.0.2.1".to_owned()]);
        assert_eq!(output.status.code(), Some(1));
    }
}

#[test]
fn what_cannot_be_read_is_named_and_an_empty_capture_is_fine() {
    let folder = Folder::new();
    assert_eq!(folder.events(&[], &RAW.file(&[])).len(), 1);
    assert_eq!(folder.events(&[], &Ng::new(true).bytes).len(), 1);
    let mut odd = Ng::new(false);
    odd.interface(189, "usbmon0", 6);
    assert_eq!(folder.events(&[], &odd.bytes).len(), 1, "an interface without packets harms nobody");
    odd.packet(0, START, &[0; 64]);
    let wifi = Classic { link: 105, ..RAW }.file(&[]);
    let cases: [(&[u8], &str); 6] = [
        (&wifi, "link type 105"),
        (&odd.bytes, "link type 189"),
        (b"", "cut off in the middle of its first four bytes, at byte 0"),
        (b"root:x:0:0:root", "neither pcap nor pcapng, at byte 0"),
        (b"\x1f\x8b\x08\0\0\0", "zcat"),
        (&Ng::new(false).bytes[..20], "cut off in the middle of a block, at byte 0"),
    ];
    for (bytes, words) in cases {
        let path = folder.write("odd", bytes);
        let output = folder.replay(&[], &[&path]);
        assert_eq!(output.status.code(), Some(1), "{words}");
        assert!(stderr(&output).contains(words), "{words}: {}", stderr(&output));
    }
    let output = folder.replay(&[], &[&folder.0.path().join("missing")]);
    assert_eq!((output.status.code(), events(&output).len()), (Some(1), 1));
    assert!(stderr(&output).contains("/missing: it cannot be opened"), "{}", stderr(&output));
}

#[test]
fn each_destination_is_a_host_of_its_own_unless_told_otherwise() {
    let folder = Folder::new();
    // A sweep: one port of each of twelve hosts.
    let sweep: Vec<_> = (1..=12)
        .map(|host| (START + u64::from(host) * 1_000, tcp(SCANNER, 40_000, [10, 0, 0, host], 445, SYN)))
        .collect();
    let sweep = RAW.file(&sweep);
    assert!(folder.scanners(&[], &sweep).is_empty());
    let seen = folder.events(&["--network"], &sweep);
    assert_eq!(scanners(&seen), [shown(SCANNER)]);
    let scan = seen.iter().find(|event| event["event_type"] == "scan").unwrap();
    assert_eq!(scan["scan"]["distinct_ports"], 5, "{scan}");

    let mut both = scan_of(TARGET);
    both.extend(scan_of([10, 0, 0, 1]));
    both.sort_by_key(|(time, _)| *time);
    let both = RAW.file(&both);
    assert_eq!(folder.scanners(&[], &both).len(), 2);
    let one = folder.events(&["--host", &shown(TARGET)], &both);
    assert_eq!(scanners(&one).len(), 1);
    assert!(one.iter().all(|event| event["dest_ip"].is_null() || event["dest_ip"] == *shown(TARGET)));
    assert!(folder.scanners(&["--host", "10.9.9.9"], &both).is_empty());
}

fn scan_of(target: [u8; 4]) -> Vec<(u64, Vec<u8>)> {
    scan(SCANNER, target, 7)
}

#[test]
fn services_are_known_by_their_answers_though_these_come_later() {
    let folder = Folder::new();
    let client = [192, 0, 2, 1];
    let mut frames: Vec<Vec<u8>> = Vec::new();
    for port in 1..=20 {
        frames.push(tcp(client, 40_000 + port, TARGET, port, SYN));
        frames.push(tcp(TARGET, port, client, 40_000 + port, SYN_ACK));
        frames.push(udp(client, 50_000, TARGET, 20 + port));
        frames.push(udp(TARGET, 20 + port, client, 50_000));
    }
    let timed = |frames: Vec<Vec<u8>>| -> Vec<(u64, Vec<u8>)> {
        frames.into_iter().enumerate().map(|(at, frame)| (START + at as u64, frame)).collect()
    };
    assert_eq!(folder.events(&[], &RAW.file(&timed(frames.clone()))).len(), 1);
    // A refusal is no service's.
    for port in 1..=20 {
        frames.push(tcp(SCANNER, 41_000, TARGET, 100 + port, SYN));
        frames.push(tcp(TARGET, 100 + port, SCANNER, 41_000, RST_ACK));
    }
    assert_eq!(folder.scanners(&[], &RAW.file(&timed(frames))), [shown(SCANNER)]);
}

#[test]
fn who_pings_a_network_is_a_scanner_where_nobody_answers() {
    let folder = Folder::new();
    let monitor = [192, 0, 2, 1];
    let frames = |answered: bool| -> Vec<(u64, Vec<u8>)> {
        let ping = |from, to, kind: u8| {
            let sum = [0xff - kind, 0xff];
            ipv4(from, to, 1, &[&[kind, 0][..], &sum, &[0; 4]].concat())
        };
        let exchange = |host: u8| {
            let host = [198, 51, 100, host];
            [ping(monitor, host, 8)].into_iter().chain(answered.then(|| ping(host, monitor, 0)))
        };
        (1..=20).flat_map(exchange).zip(START..).map(|(frame, time)| (time, frame)).collect()
    };
    assert!(folder.scanners(&["--network"], &RAW.file(&frames(true))).is_empty());
    assert_eq!(folder.scanners(&["--network"], &RAW.file(&frames(false))), [shown(monitor)]);
}

#[test]
fn a_scan_in_torn_headers_is_seen_however_long_their_halves_are_apart_and_in_whatever_order() {
    let folder = Folder::new();
    let kind_of = |pause: u64, order: [usize; 2]| {
        let mut frames: Vec<(u64, Vec<u8>)> = Vec::new();
        for (time, datagram) in scan(SCANNER, TARGET, 60) {
            let pieces = torn4(&datagram, frames.len() as u8);
            frames.extend(
                order
                    .map(|piece| pieces[piece].clone())
                    .into_iter()
                    .zip([0, pause])
                    .map(|(piece, later)| (time + later * SECOND, piece)),
            );
        }
        frames.sort_by_key(|&(time, _)| time);
        let events = folder.events(&[], &RAW.file(&frames));
        let alarm = events.into_iter().find(|event| event["event_type"] == "scan").expect("an alarm");
        (alarm["scan"]["type"].as_str().unwrap().to_owned(), alarm["scan"]["distinct_ports"].clone())
    };
    for (pause, order, kind) in
        [(0, [0, 1], "syn"), (0, [1, 0], "syn"), (6, [0, 1], "other_flags"), (6, [1, 0], "other_flags")]
    {
        assert_eq!(kind_of(pause, order), (kind.to_owned(), 5.into()), "{pause} s, {order:?}");
    }
}

#[test]
fn broadcasts_are_to_no_host() {
    let folder = Folder::new();
    let mut frames = Vec::new();
    for port in 1..=20_u16 {
        for destination in [[255, 255, 255, 255], [224, 0, 0, 251]] {
            frames.push((START, udp(SCANNER, 40_000, destination, port)));
        }
    }
    assert_eq!(folder.events(&[], &RAW.file(&frames)).len(), 1);
    assert_eq!(folder.events(&["--network"], &RAW.file(&frames)).len(), 1);
}

/// `probe` of twenty ports, in frames to everybody.
fn to_everybody(probe: impl Fn(u16) -> Vec<u8>) -> Vec<u8> {
    let frames: Vec<_> = (1..=20).map(|port| (START, probe(port))).collect();
    let mut file = Classic { link: 1, ..RAW }.file(&frames);
    // The beginning of each frame's link header, after the file's header and its own.
    let size = (file.len() - 24) / frames.len();
    file[24..].chunks_mut(size).for_each(|record| record[16..22].fill(0xff));
    file
}

/// A host of which it is known takes a datagram from a frame to everybody, but no segment.
#[test]
fn the_one_host_hears_datagrams_in_frames_to_everybody() {
    let folder = Folder::new();
    let alarms =
        |probe: fn(u16) -> Vec<u8>| folder.scanners(&["--host", &shown(TARGET)], &to_everybody(probe)).len();
    assert_eq!(alarms(|port| udp(SCANNER, 40_000, TARGET, port)), 1);
    assert_eq!(alarms(|port| tcp(SCANNER, 40_000, TARGET, port, SYN)), 0);
}

/// As in a capture that no card ever sent: its writer asked for nobody's link address.
#[test]
fn what_can_only_be_for_one_host_counts_though_its_frame_is_to_everybody() {
    let folder = Folder::new();
    for view in [&[][..], &["--network"]] {
        let alarms = |probe: &dyn Fn(u16) -> Vec<u8>| folder.scanners(view, &to_everybody(probe)).len();
        // The last of eight addresses may be theirs together, the first is no more; no segment is for all of them.
        let [last, first] = [TARGET, [198, 51, 100, 0]];
        for host in [last, first, [198, 51, 100, 6]] {
            assert_eq!(alarms(&|port| tcp(SCANNER, 40_000, host, port, SYN)), 1, "{view:?} {host:?}");
        }
        for (host, count) in [(last, 0), (first, 1), ([198, 51, 100, 6], 1), ([198, 51, 100, 5], 1)] {
            assert_eq!(alarms(&|port| udp(SCANNER, 40_000, host, port)), count, "{view:?} {host:?}");
        }
    }
}

#[test]
fn who_scans_his_own_host_is_seen_by_who_looks_on_but_not_by_that_host() {
    let folder = Folder::new();
    for host in [TARGET, [127, 0, 0, 1]] {
        let own = RAW.file(&scan(host, host, 7));
        for (view, alarms) in [(&[][..], 1), (&["--network"], 1), (&["--host", &shown(host)], 0)] {
            assert_eq!(folder.scanners(view, &own).len(), alarms, "{view:?}");
        }
    }
}

/// tcpdump on the target, listening before this returns.
struct Tcpdump {
    child: Child,
    path: PathBuf,
}

impl Tcpdump {
    fn start(lab: &Lab, path: PathBuf, arguments: &[&str]) -> Tcpdump {
        let child = Command::new("ip")
            .args(["netns", "exec", &lab.target(), "tcpdump", "-Z", "root", "-U", "--immediate-mode", "-w"])
            .arg(&path)
            .args(arguments)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // The file's header is written once the socket listens.
        eventually("tcpdump listens", PATIENCE, || {
            std::fs::metadata(&path).is_ok_and(|file| file.len() >= 24)
        });
        Tcpdump { child, path }
    }

    /// Ends it once a last datagram from `host` is in the file: everything before it is too.
    fn stop(mut self, host: &Host) -> PathBuf {
        let end = b"the end of the capture";
        let to = (host.target(false), 40_000);
        support::inside(&host.netns, || {
            UdpSocket::bind("0.0.0.0:0").unwrap().send_to(end, to).unwrap();
        });
        let holds_end = || std::fs::read(&self.path).unwrap().windows(end.len()).any(|bytes| bytes == end);
        eventually("the capture is whole", PATIENCE, holds_end);
        support::daemon::kill(self.child.id(), nix::sys::signal::Signal::SIGINT);
        self.child.wait().unwrap();
        self.path.clone()
    }
}

/// What an event says that must be the same live and replayed.
fn gist(event: &Value) -> Option<String> {
    let told = ["event_type", "src_ip", "dest_ip", "src_port", "dest_port", "proto"]
        .map(|key| event[key].to_string());
    let scan =
        ["type", "score", "distinct_ports", "probes", "verified"].map(|key| event["scan"][key].to_string());
    matches!(event["event_type"].as_str(), Some("probe" | "scan"))
        .then(|| format!("{} {} {}", told.join(" "), scan.join(" "), event["action"]["verdict"]))
}

fn live_and_replayed(tcpdump: &[&str], v6: bool) {
    let lab = Lab::new(2);
    let (scanner, client) = (lab.peer(0), lab.peer(1));
    let _service = Service::start(&lab.target(), 80);
    // One ring: of two each is read by a thread of its own, in whatever order these have their turns.
    let config = "WORKERS=\"1\"\nTCP_PORTS=\"1-1024\"\nUDP_PORTS=\"7,9,69,161\"\nSCAN_TRIGGER=\"4\"\nBLOCK_TCP=\"0\"\nBLOCK_UDP=\"0\"";
    let mut daemon = Setup::new(&lab, config).start();
    let capture = Tcpdump::start(&lab, daemon.path("live.pcap"), tcpdump);

    assert!(answers(&client.netns, client.target(v6), 80, PATIENCE));
    let target = scanner.target(v6).to_string();
    let family: &[&str] = if v6 { &["-6"] } else { &[] };
    for arguments in [
        &["-sT", "-p", "21,23,80"][..],
        &["-sU", "-p", "7,69"],
        &["-sS", "-p", "22,80,111"],
        &["-sX", "-p", "25"],
        &["-sS", "--badsum", "-p", "26,27"],
    ] {
        // Packets a moment apart may change places between two processors.
        scanner.nmap(&[family, arguments, &["--scan-delay", "50ms", &target]].concat());
    }
    let path = capture.stop(scanner);
    daemon.catch_up();
    let live: Vec<String> = daemon.seen.iter().filter_map(gist).collect();
    let counted = daemon.stats();

    let host = if v6 { scanner.target_v6.to_string() } else { scanner.target_v4.to_string() };
    let output = Command::new(env!("CARGO_BIN_EXE_portsentry-rs"))
        .args(["replay", "--host", &host, "-c"])
        .arg(daemon.path("portsentry.conf"))
        .arg(&path)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let replayed: Vec<String> = events(&output).iter().filter_map(gist).collect();
    assert!(live.iter().any(|event| event.starts_with("\"scan\"")), "{live:#?}");
    let stats = &events(&output).pop().unwrap()["stats"];
    assert_eq!((&counted["scans"], &counted["probes"]), (&stats["scans"], &stats["probes"]));
    assert_eq!(live, replayed, "live and replayed; {:?}", events(&output).last());
}

#[test]
fn a_real_scan_yields_the_same_events_live_and_from_a_capture_of_one_interface() {
    live_and_replayed(&["-i", "p0"], false);
}

#[test]
fn a_real_scan_over_ipv6_does_so_too_from_a_cooked_capture_of_all_interfaces() {
    live_and_replayed(&["-i", "any"], true);
    live_and_replayed(&["-i", "any", "-y", "LINUX_SLL", "-s", "96"], false);
}

fn both_formats() -> [Vec<u8>; 4] {
    let frames = scan(SCANNER, TARGET, 7);
    let mut sections = [Ng::new(false), Ng::new(true)];
    for file in &mut sections {
        file.interface(1, "eth0", 9);
        for (time, datagram) in &frames {
            file.packet(0, time * 1000, &[link_header(1, datagram), datagram.clone()].concat());
        }
    }
    let [little, big] = sections;
    let classic = Classic { big_endian: true, nanoseconds: true, link: 276 };
    [RAW.file(&frames), classic.file(&frames), little.bytes, big.bytes]
}

/// Plays `bytes` to the end or the damage; gives how many frames came.
fn survive(bytes: &[u8]) -> u64 {
    let loaded =
        parse("test", format!("{CONFIG}TABLE_SIZE=\"256\"").as_bytes(), &Overrides::default()).unwrap();
    let mut replay = Replay::new(&loaded, View::EachHost);
    if let Ok(mut capture) = Capture::open(bytes) {
        while let Ok(Some(frame)) = capture.next_frame() {
            assert!(frame.wire_length >= frame.bytes.len());
            replay.on_frame(&frame);
        }
        assert!(capture.offset() <= bytes.len() as u64);
    }
    while replay.judge_next().is_some() {}
    replay.stats().stats.unwrap().packets
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_bytes_are_too_strange(
        which in 0_usize..4,
        changes in prop::collection::vec((0_usize..800, prop_oneof![any::<u8>(), Just(0), Just(0xff)]), 0..8),
        cut in prop::option::weighted(0.3, 0_usize..800),
    ) {
        let mut bytes = both_formats()[which].clone();
        for &(at, value) in &changes {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        bytes.truncate(cut.unwrap_or(usize::MAX));
        let frames = survive(&bytes);
        prop_assert!(frames == 7 || !changes.is_empty() || cut.is_some());
    }

    #[test]
    fn nor_is_noise_behind_a_magic_number(noise in prop::collection::vec(any::<u8>(), 0..200), which in 0_usize..4) {
        let start = &both_formats()[which][..28];
        survive(&[start, &noise].concat());
        survive(&noise);
    }
}
