//! Decoys talk to real clients, and whoever talks to one is a verified source.

mod support;

use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::process::{Command, Output};

use serde_json::Value;
use support::daemon::{Daemon, PATIENCE, Setup};
use support::service::Service;
use support::{Lab, inside};

const DECOYS: &str = "DECOY_TCP_PORTS=\"21,23,143\"\n";

/// A visit with a real client; what the client printed is the proof that it understood the greeting.
struct Client {
    port: u16,
    command: &'static [&'static str],
    understood: &'static str,
}

const CLIENTS: &[Client] = &[
    Client {
        port: 21,
        command: &[
            "python3",
            "-c",
            "import ftplib, sys; print(ftplib.FTP(sys.argv[1], timeout=5).getwelcome())",
        ],
        understood: "220 ",
    },
    Client { port: 23, command: &["nc", "-w", "2", "TARGET", "23"], understood: "login" },
    Client {
        port: 143,
        command: &[
            "python3",
            "-c",
            "import imaplib, sys; print(imaplib.IMAP4(sys.argv[1], timeout=5).welcome)",
        ],
        understood: "* OK",
    },
];

fn visit(lab: &Lab, client: &Client, v6: bool) -> String {
    let peer = lab.peer(0);
    let target = peer.target(v6).to_string();
    let mut command: Vec<&str> =
        client.command.iter().map(|word| if *word == "TARGET" { &*target } else { word }).collect();
    if command[0] == "python3" {
        command.push(&target);
    }
    let Output { stdout, stderr, .. } = peer.run(&command);
    String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr)
}

fn scan_of(daemon: &mut Daemon, source: &str, port: u16) -> Value {
    let scan =
        daemon.wait_for("the visit", |event| event["event_type"] == "scan" && event["src_ip"] == *source);
    assert_eq!(
        (scan["dest_port"].as_u64(), scan["scan"]["verified"].as_bool()),
        (Some(port.into()), Some(true)),
        "{scan}"
    );
    assert_eq!(scan["scan"]["type"], "connect", "{scan}");
    scan
}

/// What is told of the visitor once nothing of his visit waits for anything any more: the type of each event.
fn told_of(daemon: &mut Daemon, lab: &Lab, source: &str) -> Vec<Value> {
    daemon.outlast_handshakes(lab.peer(1), 23);
    daemon.seen.iter().filter(|event| event["src_ip"] == *source).cloned().collect()
}

fn types(events: &[Value]) -> Vec<&str> {
    events.iter().filter_map(|event| event["event_type"].as_str()).collect()
}

/// Its own decoys are no services.
#[test]
fn a_daemon_that_runs_keeps_check_from_warning_of_no_port_but_a_services() {
    let lab = Lab::new(1);
    let _service = Service::start(&lab.target(), 143);
    let setup = || Setup::new(&lab, "TCP_PORTS=\"1\"\nDECOY_TCP_PORTS=\"21,143\"\nDECOY_UDP_PORTS=\"161\"");
    let warned = |daemon: &Daemon| {
        let said = String::from_utf8(daemon.client(&["check"]).stderr).unwrap();
        assert!(said.contains("a service has TCP port 143 now"), "{said}");
        assert_eq!(said.matches("a service has").count(), 1, "{said}");
    };
    // A link by PortSentry's name.
    let old = setup();
    let link = old.path("portsentry");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_portsentry-rs"), &link).unwrap();
    warned(&old.start_program(&link, &[]));
    let daemon = setup().start();
    warned(&daemon);
    // As ExecReload= of the unit with its drop-in for root, without and with its ProtectProc=, which hides nothing from
    // group 0: whose the sockets are is not told, so nothing is.
    let hidden = "mount -t proc -o hidepid=invisible proc /proc && exec \"$@\"";
    for script in ["exec \"$@\"", hidden] {
        let output = Command::new("ip")
            .args(["netns", "exec", &lab.target(), "sh", "-c", script, "sh"])
            .args(["setpriv", "--regid=65534", "--clear-groups", "--bounding-set=-sys_ptrace"])
            .args([env!("CARGO_BIN_EXE_portsentry-rs"), "check", "-c"])
            .arg(daemon.path("portsentry.conf"))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && !said.contains("a service has"), "{said}");
    }
}

#[test]
fn real_clients_get_a_plausible_greeting_and_are_verified_sources() {
    for (client, v6) in CLIENTS.iter().flat_map(|client| [(client, false), (client, true)]) {
        let lab = Lab::new(2);
        let mut daemon = Setup::new(&lab, &format!("{DECOYS}BLOCK_TCP=\"0\"")).start();
        let heard = visit(&lab, client, v6);
        assert!(heard.contains(client.understood), "port {}: {heard}", client.port);
        let source = lab.peer(0).address(v6).to_string();
        scan_of(&mut daemon, &source, client.port);
        let events = told_of(&mut daemon, &lab, &source);
        assert_eq!(types(&events), ["scan"], "port {}: {events:#?}", client.port);
    }
}

#[test]
fn the_visitor_sees_the_greeting_even_if_the_visit_blocks_him() {
    let lab = Lab::new(2);
    let mut daemon = Setup::new(&lab, &format!("{DECOYS}BLOCK_TCP=\"1\"")).start();
    let telnet = &CLIENTS[1];
    let heard = visit(&lab, telnet, false);
    assert!(heard.contains(telnet.understood), "{heard}");
    let source = lab.peer(0).v4.to_string();
    scan_of(&mut daemon, &source, telnet.port);
    let block = daemon.wait_for("the block", |event| event["event_type"] == "block");
    assert_eq!(block["action"]["verdict"], "blocked", "{block}");
    assert!(lab.nft_table().contains(&source));
    let events = told_of(&mut daemon, &lab, &source);
    assert_eq!(types(&events), ["scan", "block"], "{events:#?}");
}

#[test]
fn one_visit_is_one_probe() {
    for (client, v6) in CLIENTS.iter().flat_map(|client| [(client, false), (client, true)]) {
        let lab = Lab::new(2);
        let config = format!("{DECOYS}BLOCK_TCP=\"1\"\nSCAN_TRIGGER=\"5\"");
        let mut daemon = Setup::new(&lab, &config).start();
        let heard = visit(&lab, client, v6);
        assert!(heard.contains(client.understood), "port {}: {heard}", client.port);
        let events = told_of(&mut daemon, &lab, &lab.peer(0).address(v6).to_string());
        assert_eq!(types(&events), ["probe"], "port {}: {events:#?}", client.port);
        assert_eq!(events[0]["scan"]["score"].as_f64(), Some(1.0), "{}", events[0]);
    }
}

/// Decoys are open everywhere; who comes where nobody is to be watched is answered and let be, also by UDP and IPv6.
#[test]
fn who_visits_at_an_interface_that_is_not_watched_is_answered_and_let_be() {
    let lab = Lab::new(2);
    let (watched, other) = (lab.peer(0), lab.peer(1));
    let config = format!(
        "{DECOYS}DECOY_UDP_PORTS=\"53\"\nINTERFACES=\"{}\"\nBLOCK_TCP=\"1\"\nBLOCK_UDP=\"1\"",
        watched.target_interface
    );
    let mut daemon = Setup::new(&lab, &config).start();
    let visits = |host: &support::Host| {
        for v6 in [false, true] {
            let target = host.target(v6).to_string();
            let datagram = format!("echo a word | timeout 2 nc -u -w1 {target} 53 || true");
            host.run(&["sh", "-c", &datagram]);
            let heard = host.run(&["nc", "-w", "2", &target, "23"]);
            assert!(String::from_utf8_lossy(&heard.stdout).contains("login"), "{heard:?}");
        }
    };
    visits(other);
    daemon.catch_up();
    let told: Vec<_> = daemon.seen.iter().filter(|event| event["src_ip"].is_string()).collect();
    assert!(told.is_empty(), "{told:#?}");
    let target = watched.target_v4.to_string();
    watched.run(&["sh", "-c", &format!("echo a word | timeout 2 nc -u -w1 {target} 53 || true")]);
    let source = watched.v4.to_string();
    daemon.wait_for("the block", |event| event["event_type"] == "block" && event["src_ip"] == *source);
    let source = watched.v6.to_string();
    watched.run(&["sh", "-c", &format!("nc -w 2 {} 23 || true", watched.target_v6)]);
    daemon.wait_for("the block", |event| event["event_type"] == "block" && event["src_ip"] == *source);
}

/// Anycast, a load balancer's address: on loopback, and so on no link that INTERFACES could name.
#[test]
fn an_address_that_no_link_has_is_watched_by_whichever_it_is_reached() {
    let lab = Lab::new(1);
    let peer = lab.peer(0);
    lab.on_target(&["ip", "addr", "add", "192.0.2.80/32", "dev", "lo"]);
    peer.run(&["ip", "route", "add", "192.0.2.80", "via", &peer.target_v4.to_string()]);
    let config = format!("TCP_PORTS=\"23\"\nINTERFACES=\"{}\"\nBLOCK_TCP=\"1\"", peer.target_interface);
    let mut daemon = Setup::new(&lab, &config).start_with(&["--connect"]);
    peer.run(&["sh", "-c", "nc -w 2 192.0.2.80 23 || true"]);
    daemon.wait_for("the block", |event| event["event_type"] == "block");
}

#[test]
fn a_decoy_never_takes_a_port_that_a_service_has() {
    let lab = Lab::new(1);
    let _service = support::service::Service::start(&lab.target(), 143);
    let mut daemon = Setup::new(&lab, &format!("{DECOYS}BLOCK_TCP=\"1\"")).start();
    let error = daemon.seen.iter().find(|event| event["event_type"] == "error").expect("it is said");
    assert!(error["error"].as_str().unwrap().contains("143"), "{error}");
    let peer = lab.peer(0);
    assert!(support::service::answers(&peer.netns, peer.target(false), 143, support::daemon::PATIENCE));
    daemon.catch_up();
    assert!(!daemon.seen.iter().any(|event| event["event_type"] == "scan"), "{:#?}", daemon.seen);
}

#[test]
fn port_banner_replaces_every_greeting() {
    let lab = Lab::new(1);
    let _daemon = Setup::new(&lab, &format!("{DECOYS}BLOCK_TCP=\"0\"\nPORT_BANNER=\"Go away.\"")).start();
    assert!(visit(&lab, &CLIENTS[1], false).contains("Go away."));
}

#[test]
fn connect_mode_binds_the_watched_ports_themselves_and_sniffs_nothing() {
    let lab = Lab::new(2);
    let (peer, other) = (lab.peer(0), lab.peer(1));
    let mut daemon =
        Setup::new(&lab, "TCP_PORTS=\"111\"\nUDP_PORTS=\"69\"\nBLOCK_TCP=\"1\"").start_with(&["--connect"]);
    let target = peer.target_v4.to_string();
    // Without a handshake there is nothing to see in this mode.
    peer.nmap(&["-sN", "-p", "111", &target]);
    peer.nmap(&["-sT", "-p", "111", &target]);
    let scan = daemon.wait_for("the scan", |event| event["event_type"] == "scan");
    assert_eq!(
        (scan["scan"]["type"].as_str(), scan["dest_port"].as_u64()),
        (Some("connect"), Some(111)),
        "{scan}"
    );
    daemon.wait_for("the block", |event| event["event_type"] == "block");
    other.nmap(&["-sU", "-p", "69", &other.target_v4.to_string()]);
    let datagram = daemon.wait_for("the datagram", |event| event["dest_port"] == 69);
    assert_eq!(datagram["in_iface"], other.target_interface, "{datagram}");
}

/// With these bits of the setting the kernel itself turns Fast Open on where anybody listens, and asks for no cookie.
#[test]
fn a_forged_syn_with_data_is_no_visit_where_every_listener_has_fast_open() {
    let lab = Lab::new(2);
    let (forger, nobody) = (lab.peer(0), "10.77.0.9");
    lab.on_target(&["sysctl", "-qw", &format!("net.ipv4.tcp_fastopen={}", 0x603)]);
    let target = forger.target_v4.to_string();
    let forge = |port| forger.hping3(&["-S", "-a", nobody, "-d", "8", "-c", "1", "-p", port, &target]);
    // The setting does what is said of it.
    let service = support::inside(&lab.target(), || std::net::TcpListener::bind("0.0.0.0:80").unwrap());
    service.set_nonblocking(true).unwrap();
    forge("80");
    support::eventually("a connection of one SYN", PATIENCE, || service.accept().is_ok());
    let config = format!("{DECOYS}BLOCK_TCP=\"0\"\nSCAN_TRIGGER=\"1\"");
    let mut daemon = Setup::new(&lab, &config).start();
    forge("23");
    let events = told_of(&mut daemon, &lab, nobody);
    assert!(events.iter().any(|event| event["dest_port"] == 23), "the SYN came: {events:#?}");
    for event in &events {
        assert_eq!(
            (&event["scan"]["type"], &event["scan"]["verified"]),
            (&"syn".into(), &false.into()),
            "{event}"
        );
    }
}

/// How many of them the decoy has not hung up on.
fn held(visitors: &[TcpStream]) -> usize {
    let is_held = |mut visitor: &TcpStream| {
        visitor.set_nonblocking(true).expect("it can be");
        let end =
            std::iter::repeat_with(|| visitor.read(&mut [0; 256])).find(|read| !matches!(read, Ok(1..)));
        matches!(end, Some(Err(error)) if error.kind() == ErrorKind::WouldBlock)
    };
    visitors.iter().filter(|visitor| is_held(visitor)).count()
}

#[test]
fn visitors_leave_open_files_to_whoever_asks_the_daemon() {
    let lab = Lab::new(3);
    // Eight more could be held beside what it needs itself.
    let setup = Setup::new(&lab, "DECOY_TCP_PORTS=\"2001-2036\"\nBLOCK_TCP=\"0\"");
    let mut daemon = setup.start_through("prlimit", &["--nofile=64".to_owned()]);
    let visitors: Vec<TcpStream> = (0..3)
        .flat_map(|peer| {
            let host = lab.peer(peer);
            let visit = |_| TcpStream::connect((host.target_v4, 2001)).expect("a decoy answers");
            inside(&host.netns, || (0..4).map(visit).collect::<Vec<_>>())
        })
        .collect();
    (0..3).for_each(|peer| {
        let source = lab.peer(peer).v4.to_string();
        daemon.wait_for("the visit", |event| event["src_ip"] == *source);
    });
    daemon.catch_up();
    let before = held(&visitors);
    assert!(daemon.client(&["status"]).status.success());
    assert_eq!(held(&visitors), before, "no visitor had to be let go first");
}
