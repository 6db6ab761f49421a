//! The kernel itself shuts a prober out from its next packet on; who has business here notices nothing of it.
//! Forged packets cost nobody a connection, and the tripwire is never quicker to blame than the sensor.

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use support::daemon::{Daemon, PATIENCE, Setup};
use support::service::{Service, answers};
use support::slow::say;
use support::{Host, Lab, eventually, inside, ip};

const CONFIG: &str = r#"
TCP_PORTS="1,7,11,23,79,111,1080"
UDP_PORTS="7,69,161,5353,40000"
DECOY_TCP_PORTS="23"
BLOCK_TCP="1"
BLOCK_UDP="1"
"#;
const SERVICE: u16 = 80;
const SHORT: Duration = Duration::from_millis(700);

/// The daemon, once the kernel has its traps.
fn armed(lab: &Lab, config: &str) -> Daemon {
    let daemon = Setup::new(lab, config).start();
    eventually("the traps are set", PATIENCE, || !traps(lab, "traps_tcp").is_empty());
    daemon
}

/// The elements of one of our sets as `nft` lists them, without their times. The set must be there.
fn traps(lab: &Lab, set: &str) -> Vec<String> {
    let output = lab.on_target(&["nft", "-n", "list", "set", "inet", "portsentry", set]);
    assert!(output.status.success(), "{set}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let Some((_, elements)) = text.split_once("elements = {") else { return Vec::new() };
    let elements = elements.split('}').next().unwrap_or_default().split(',');
    let keys = elements.map(|element| element.split_whitespace().next().unwrap_or_default().to_owned());
    let mut keys: Vec<String> = keys.collect();
    // A hash table has no order; of numbers the shorter is the smaller.
    keys.sort_by_key(|key| (key.len(), key.clone()));
    keys
}

/// One bare SYN, or another segment, to a port of the target's.
fn send(host: &Host, arguments: &[&str]) {
    host.hping3(&[&["-c", "1"], arguments, &[&host.target_v4.to_string()]].concat());
}

#[test]
fn a_probe_of_a_watched_port_is_a_trip_and_a_block_over_both_families() {
    for v6 in [false, true] {
        let lab = Lab::new(2);
        let (scanner, innocent) = (lab.peer(0), lab.peer(1));
        let _service = Service::start(&lab.target(), SERVICE);
        let mut daemon = armed(&lab, CONFIG);
        let table = lab.nft_table();
        assert!(table.contains("iifkind \"bridge\""), "{table}");
        let target = scanner.target(v6).to_string();
        let family: &[&str] = if v6 { &["-6"] } else { &[] };
        let said = scanner.nmap(&[&["-sS", "--max-retries", "0", "-p", "111", &target], family].concat());
        let block = daemon.wait_for("a block", |event| event["event_type"] == "block");
        assert_eq!(block["action"]["verdict"], "blocked", "{block}");
        assert_eq!(block["action"]["with"], serde_json::json!(["tripwire", "nftables"]), "{block}");
        assert!(said.contains("filtered"), "the very first packet is not answered: {said}");
        assert!(!answers(&scanner.netns, scanner.target(v6), SERVICE, SHORT));
        assert!(answers(&innocent.netns, innocent.target(v6), SERVICE, PATIENCE));
    }
}

#[test]
fn a_datagram_to_a_port_without_a_socket_trips_but_not_where_neighbours_or_answers_knock() {
    let lab = Lab::new(1);
    let scanner = lab.peer(0);
    let mut daemon = armed(&lab, CONFIG);
    assert_eq!(traps(&lab, "traps_udp"), ["7", "69", "161"]);
    assert_eq!(traps(&lab, "traps_tcp"), ["1", "7", "11", "79", "111", "1080"], "the decoy is none");
    scanner.nmap(&["-sU", "--max-retries", "0", "-p", "69", &scanner.target_v4.to_string()]);
    let block = daemon.wait_for("a block", |event| event["event_type"] == "block");
    assert_eq!(block["action"]["with"], serde_json::json!(["tripwire", "nftables"]), "{block}");
}

#[test]
fn who_calls_on_a_decoy_is_let_in() {
    let lab = Lab::new(1);
    let visitor = lab.peer(0);
    let mut daemon = armed(&lab, CONFIG);
    let decoy = SocketAddr::new(visitor.target(false), 23);
    let greeted = inside(&visitor.netns, || {
        let mut stream = TcpStream::connect_timeout(&decoy, PATIENCE).expect("a decoy accepts anybody");
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.read(&mut [0; 16]).unwrap()
    });
    assert!(greeted > 0);
    let block = daemon.wait_for("a block", |event| event["event_type"] == "block");
    assert_eq!(block["action"]["with"], serde_json::json!(["nftables"]), "{block}");
}

/// A SYN to a trap in the name of the innocent host, sent by the attacker.
fn forge(attacker: &Host, victim: &Host) {
    let (source, target) = (victim.v4.to_string(), victim.target_v4.to_string());
    attacker.hping3(&["-c", "1", "-S", "-p", "111", "-a", &source, &target]);
}

/// A connection from a host to an echo service on the target, and the target's end of it.
fn connection(lab: &Lab, host: &Host) -> (TcpStream, TcpStream) {
    let listener = inside(&lab.target(), || TcpListener::bind("0.0.0.0:4000").unwrap());
    let to = SocketAddr::new(host.target(false), listener.local_addr().unwrap().port());
    let client = inside(&host.netns, || TcpStream::connect_timeout(&to, PATIENCE).unwrap());
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let (server, _) = listener.accept().unwrap();
    (client, server)
}

#[test]
fn forged_packets_cut_no_connection_and_keep_nobody_out_who_has_one() {
    for tells_each_probe in [false, true] {
        forged_packets_cut_no_connection(tells_each_probe);
    }
}

fn forged_packets_cut_no_connection(tells_each_probe: bool) {
    let lab = Lab::new(2);
    let (attacker, owner) = (lab.peer(0), lab.peer(1));
    let _service = Service::start(&lab.target(), SERVICE);
    let setup = Setup::new(&lab, CONFIG);
    if tells_each_probe {
        setup.rewrite(&format!("{CONFIG}HISTORY_FILE=\"{}\"\n", setup.path("history").display()));
    }
    let mut daemon = setup.start();
    eventually("the traps are set", PATIENCE, || !traps(&lab, "traps_tcp").is_empty());
    let (mut client, mut server) = connection(&lab, owner);
    let dropped = || dropped_in_tripped(&lab);
    for round in 0..5 {
        forge(attacker, owner);
        let begin = std::time::Instant::now();
        client.write_all(b"still here").unwrap();
        let mut heard = [0; 10];
        server.set_read_timeout(Some(PATIENCE)).unwrap();
        server.read_exact(&mut heard).unwrap();
        // Faster than TCP's shortest wait before it sends again: nothing was dropped.
        assert!(begin.elapsed() < Duration::from_millis(190), "round {round}: {:?}", begin.elapsed());
    }
    daemon.catch_up();
    assert!(!daemon.seen.iter().any(|event| event["event_type"] == "block"), "{:#?}", daemon.seen);
    let spared = traps(&lab, "spared4");
    assert_eq!(spared, [owner.v4.to_string()], "the sensor has cleared the owner");
    assert!(answers(&owner.netns, owner.target(false), SERVICE, PATIENCE), "{} dropped", dropped());
}

fn dropped_in_tripped(lab: &Lab) -> String {
    let text = lab.nft_table();
    text.lines().skip_while(|line| !line.contains("chain tripped")).take(8).collect::<Vec<_>>().join("\n")
}

#[test]
fn nobody_in_the_never_set_is_tripped() {
    let lab = Lab::new(2);
    let (attacker, owner) = (lab.peer(0), lab.peer(1));
    let _service = Service::start(&lab.target(), SERVICE);
    let mut daemon = armed(&lab, &format!("{CONFIG}NEVER_BLOCK=\"{}\"", owner.v4));
    forge(attacker, owner);
    daemon.catch_up();
    assert_eq!(traps(&lab, "trip4"), Vec::<String>::new());
    assert!(answers(&owner.netns, owner.target(false), SERVICE, SHORT));
}

/// Traps have no end; to look at 65,535 of them every few seconds would cost a host more than the rest of the daemon.
#[test]
fn the_kernel_looks_often_for_what_has_ended_only_where_something_ends() {
    let lab = Lab::new(1);
    let _daemon = armed(&lab, CONFIG);
    for (set, interval) in [("traps_tcp", "1d"), ("traps_udp", "1d"), ("trip4", "10s"), ("lately6", "10s")] {
        let listed = lab.on_target(&["nft", "list", "set", "inet", "portsentry", set]);
        let text = String::from_utf8_lossy(&listed.stdout);
        assert!(text.contains(&format!("gc-interval {interval}\n")), "{set}: {text}");
    }
}

#[test]
fn what_the_sensor_does_not_believe_lapses_within_seconds() {
    let lab = Lab::new(1);
    let client = lab.peer(0);
    let _service = Service::start(&lab.target(), SERVICE);
    let mut daemon = armed(&lab, CONFIG);
    // The kernel's raw hook does not look at checksums; the sensor does.
    send(client, &["-S", "-p", "111", "--badcksum"]);
    daemon.catch_up();
    assert_eq!(traps(&lab, "trip4"), [client.v4.to_string()]);
    assert!(!answers(&client.netns, client.target(false), SERVICE, SHORT));
    eventually("the entry lapses", Duration::from_secs(10), || {
        answers(&client.netns, client.target(false), SERVICE, SHORT)
    });
    assert!(daemon.seen.iter().all(|event| event["event_type"] == "start"), "{:#?}", daemon.seen);
}

/// What the sensor says nothing about: a broken packet, and a copy of one that it has cleared.
#[test]
fn whom_the_sensor_says_nothing_about_is_not_shut_out_again_and_again() {
    for silent in [&["--badcksum"][..], &["-k", "-s", "4321", "-M", "77"]] {
        let lab = Lab::new(2);
        let (attacker, owner) = (lab.peer(0), lab.peer(1));
        let _service = Service::start(&lab.target(), SERVICE);
        let mut daemon = armed(&lab, CONFIG);
        let (source, target) = (owner.v4.to_string(), owner.target_v4.to_string());
        let (_client, _server) = connection(&lab, owner);
        let forged = [&["-S", "-p", "111", "-a", &source], silent, &[&target]].concat();
        attacker.hping3(&[&["-c", "1"], &forged[..]].concat());
        daemon.catch_up();
        // In place of the minute that it stays cleared.
        lab.on_target(&["nft", "flush", "set", "inet", "portsentry", "spared4"]);
        eventually("the entry lapses", Duration::from_secs(10), || traps(&lab, "trip4").is_empty());
        attacker.hping3(&[&["-c", "30", "-i", "u100000"], &forged[..]].concat());
        assert!(answers(&owner.netns, owner.target(false), SERVICE, SHORT), "{silent:?}");
        assert!(daemon.seen.iter().all(|event| event["event_type"] != "block"), "{:#?}", daemon.seen);
    }
}

#[test]
fn a_stray_packet_of_a_connection_trips_nobody_and_impossible_flags_do() {
    for (flags, trips, blocks) in [
        (&["-A"][..], false, false),
        (&["-R"], false, false),
        (&["-S", "-A"], false, false),
        (&["-F", "-A"], false, false),
        // Torn before its flags: no connection's, but the kernel's rules cannot read it.
        (&["-A", "-f", "-m", "8", "-d", "20"], false, true),
        (&["-F"], true, true),
        (&["-F", "-P", "-U"], true, true),
        (&["-S", "-F"], true, true),
    ] {
        let lab = Lab::new(1);
        let host = lab.peer(0);
        let mut daemon = armed(&lab, CONFIG);
        send(host, &[flags, &["-p", "111"]].concat());
        daemon.catch_up();
        assert_eq!(!traps(&lab, "trip4").is_empty(), trips, "{flags:?}");
        let block = daemon.seen.iter().find(|event| event["event_type"] == "block");
        assert_eq!(block.is_some(), blocks, "{flags:?}: it is never quicker to blame than the sensor");
    }
}

#[test]
fn a_network_that_is_blocked_beside_the_tripwire_is_shut_out_with_its_connections() {
    let lab = Lab::new(1);
    let host = lab.peer(0);
    let daemon = armed(&lab, CONFIG);
    let (mut client, mut server) = connection(&lab, host);
    let network = format!("{}/31", host.v4);
    assert!(daemon.client(&["block", &network]).status.success());
    client.write_all(b"hello").unwrap();
    server.set_read_timeout(Some(SHORT)).unwrap();
    assert!(server.read(&mut [0; 5]).is_err(), "{}", lab.nft_table());
    assert!(daemon.client(&["unblock", &network]).status.success());
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    server.read_exact(&mut [0; 5]).expect("TCP sends it again");
}

#[test]
fn a_service_that_came_a_moment_ago_is_no_trap_and_soon_leaves_the_set() {
    let lab = Lab::new(1);
    let client = lab.peer(0);
    let mut daemon = armed(&lab, CONFIG);
    let _service = Service::start(&lab.target(), 79);
    assert!(answers(&client.netns, client.target(false), 79, SHORT), "the first contact");
    eventually("the port leaves the traps", PATIENCE, || {
        assert!(answers(&client.netns, client.target(true), 79, SHORT));
        !traps(&lab, "traps_tcp").contains(&"79".to_owned())
    });
    daemon.catch_up();
    assert!(daemon.seen.iter().all(|event| event["event_type"] == "start"), "{:#?}", daemon.seen);
}

#[test]
fn a_reload_moves_the_traps_and_a_patient_configuration_has_none() {
    let lab = Lab::new(1);
    let setup = Setup::new(&lab, CONFIG);
    let path = setup.path("portsentry.conf");
    let daemon = setup.start();
    eventually("the traps are set", PATIENCE, || !traps(&lab, "traps_tcp").is_empty());
    let text = std::fs::read_to_string(&path).unwrap();
    let reload = |text: &str| {
        std::fs::write(&path, text).unwrap();
        daemon.signal(nix::sys::signal::Signal::SIGHUP);
    };
    reload(&text.replace("79,111,1080", "79,112,20000"));
    eventually("the traps follow", PATIENCE, || {
        traps(&lab, "traps_tcp") == ["1", "7", "11", "79", "112", "20000"]
    });
    reload(&format!("{text}SCAN_TRIGGER=\"2\"\n"));
    eventually("there are no traps", PATIENCE, || {
        traps(&lab, "traps_tcp").is_empty() && traps(&lab, "traps_udp").is_empty()
    });
    reload(&text);
    eventually("and there are again", PATIENCE, || traps(&lab, "traps_tcp").len() == 6);
}

#[test]
fn without_it_the_table_holds_the_blocks_alone() {
    let table = |off: &str| {
        let lab = Lab::new(1);
        let _daemon = Setup::new(&lab, &format!("{CONFIG}{off}")).start();
        lab.nft_table()
    };
    let [off, routes] = ["TRIPWIRE=\"0\"", "BLOCK_WITH=\"route\""].map(table);
    assert!(off.contains("set blocked4") && !off.contains("trip"), "{off}");
    assert!(!routes.contains("trip"), "{routes}");
}

/// Puts the target's end of the link to `peer` into a bridge, which has the addresses and a hardware address of its own.
fn bridge(lab: &Lab, peer: &Host) {
    let (target, port) = (lab.target(), peer.target_interface.as_str());
    for family in ["ip", "ip6"] {
        let set = format!("net.bridge.bridge-nf-call-{family}tables=1");
        if !lab.on_target(&["sysctl", "-qw", &set]).status.success() {
            say(
                "skipped: packets that pass through the hooks at a bridge's port already (no br_netfilter here)",
            );
        }
    }
    let on_target = |command: &str| {
        ip(&[&["-n", target.as_str()], &command.split(' ').collect::<Vec<_>>()[..]].concat());
    };
    on_target("link add br0 address 02:00:00:00:00:99 type bridge");
    on_target(&format!("address flush dev {port}"));
    on_target(&format!("link set {port} master br0"));
    on_target("link set br0 up");
    on_target(&format!("address add {}/24 dev br0", peer.target_v4));
    on_target(&format!("address add {}/64 dev br0 nodad", peer.target_v6));
}

#[test]
fn no_scan_over_a_bridge_is_dropped_before_the_sensor_has_seen_it() {
    for v6 in [false, true] {
        let lab = Lab::new(1);
        let scanner = lab.peer(0);
        bridge(&lab, scanner);
        let mut daemon = armed(&lab, CONFIG);
        let table = lab.nft_table();
        assert!(table.contains("iifkind \"bridge\""), "{table}");
        let target = scanner.target(v6).to_string();
        let family: &[&str] = if v6 { &["-6"] } else { &[] };
        scanner.nmap(&[&["-sS", "--max-retries", "0", "-p", "79,111", &target], family].concat());
        let block = daemon.wait_for("a block", |event| event["event_type"] == "block");
        assert_eq!(block["action"]["with"], serde_json::json!(["nftables"]), "{block}");
        assert!(lab.is_blocked(scanner.address(v6)));
    }
}

#[test]
fn what_nft_lists_of_the_table_it_takes_again_from_who_saved_it() {
    for interfaces in ["", "INTERFACES=\"p0\"\n"] {
        let lab = Lab::new(1);
        let scanner = lab.peer(0);
        let mut daemon = armed(&lab, &format!("{CONFIG}{interfaces}"));
        scanner.nmap(&["-sS", "--max-retries", "0", "-p", "111", &scanner.target_v4.to_string()]);
        daemon.wait_for("a block", |event| event["event_type"] == "block");
        let saved = daemon.path("saved.nft");
        let ruleset = lab.on_target(&["nft", "list", "ruleset"]).stdout;
        std::fs::write(&saved, [b"flush ruleset\n", ruleset.as_slice()].concat()).unwrap();
        let restored = lab.on_target(&["nft", "--check", "--file", saved.to_str().unwrap()]);
        assert!(restored.status.success(), "{interfaces}: {restored:?}");
    }
}

#[test]
fn the_hosts_own_rules_stay_as_they_are_and_the_tripwire_works_beside_them() {
    let lab = Lab::new(1);
    let scanner = lab.peer(0);
    let own = "table inet filter { chain input { type filter hook input priority 0; policy drop; \
               ct state established,related accept; tcp dport 22 accept; counter; }; }";
    for command in
        [vec!["nft", own], vec!["iptables", "-t", "raw", "-A", "PREROUTING", "-p", "tcp", "--dport", "9"]]
    {
        let output = lab.on_target(&command);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let rules = || {
        let tables = [["list", "table", "inet", "filter"], ["list", "table", "ip", "raw"]];
        tables.map(|table| lab.on_target(&[&["nft", "-s"], &table[..]].concat()).stdout)
    };
    let before = rules();
    let mut daemon = armed(&lab, CONFIG);
    scanner.nmap(&["-sS", "--max-retries", "0", "-p", "111", &scanner.target_v4.to_string()]);
    let block = daemon.wait_for("a block", |event| event["event_type"] == "block");
    assert_eq!(block["action"]["with"], serde_json::json!(["tripwire", "nftables"]), "{block}");
    assert_eq!(before, rules());
}

#[test]
fn a_flood_of_forged_sources_trips_no_more_than_the_sensor_would_block() {
    let lab = Lab::new(1);
    let flooder = lab.peer(0);
    let mut daemon = armed(&lab, &format!("{CONFIG}BLOCK_LIMIT=\"60\""));
    let target = flooder.target_v4.to_string();
    flooder.hping3(&["--rand-source", "-S", "-p", "111", "-i", "u100", "-c", "5000", &target]);
    let tripped = traps(&lab, "trip4").len();
    assert!((1..=32).contains(&tripped), "{tripped} sources tripped");
    daemon.catch_up();
}

/// Whoever ends the sensor may kill the helper with it: it must not come to that.
#[test]
fn a_stop_takes_the_traps_away_while_commands_still_run() {
    let lab = Lab::new(1);
    let scanner = lab.peer(0);
    let command = "KILL_RUN_CMD=\"sleep 60\"\nCOMMAND_TIMEOUT=\"60s\"";
    let mut daemon = armed(&lab, &format!("{CONFIG}{command}"));
    scanner.nmap(&["-sS", "--max-retries", "0", "-p", "111", &scanner.target_v4.to_string()]);
    eventually("the block is in place", PATIENCE, || !traps(&lab, "blocked4").is_empty());
    daemon.signal(nix::sys::signal::Signal::SIGTERM);
    eventually("the traps are gone", PATIENCE, || traps(&lab, "traps_tcp").is_empty());
    assert!(daemon.try_wait().is_none(), "it waits for the command");
}

#[test]
fn without_the_daemon_nothing_trips_and_blocks_stay() {
    for clean in [true, false] {
        let lab = Lab::new(1);
        let scanner = lab.peer(0);
        let mut daemon = armed(&lab, CONFIG);
        scanner.nmap(&["-sS", "--max-retries", "0", "-p", "111", &scanner.target_v4.to_string()]);
        daemon.wait_for("a block", |event| event["event_type"] == "block");
        if clean {
            drop(daemon.stop())
        } else {
            drop(daemon)
        }
        eventually("the traps are gone", PATIENCE, || traps(&lab, "traps_tcp").is_empty());
        assert_eq!(traps(&lab, "blocked4"), [scanner.v4.to_string()]);
    }
}

/// Twenty services on ports that only chance would find, all others traps.
const HIDDEN: [u16; 20] = [
    2049, 3128, 4369, 5060, 6123, 7777, 8081, 9100, 10250, 11211, 15672, 18080, 25565, 27017, 31337, 33060,
    44444, 50051, 61616, 64738,
];
const ALL_PORTS: &str = "TCP_PORTS=\"1-65535\"\nBLOCK_TCP=\"1\"";

/// Which of the hidden services a scanner's words name.
fn revealed(said: &str) -> Vec<u16> {
    let is_open = |port: &&u16| {
        said.lines().any(|line| {
            line.contains(&format!("port {port}/tcp"))
                || line.starts_with(&format!("{port}/tcp")) && line.contains("open")
        })
    };
    HIDDEN.iter().filter(is_open).copied().collect()
}

fn hidden_services(lab: &Lab) -> Vec<TcpListener> {
    inside(&lab.target(), || HIDDEN.map(|port| TcpListener::bind(("0.0.0.0", port)).unwrap()).into())
}

/// What masscan of every port, at most `rate` of them a second, finds from an address of its own.
fn masscan(scanner: &Host, mac: &str, seed: u8, rate: u32) -> Vec<u16> {
    let target = scanner.target_v4;
    let arguments = format!(
        "masscan -p1-65535 {target} --rate {rate} --wait 1 --seed {seed} --adapter eth0 \
         --adapter-ip 10.77.0.{} --router-mac {mac}",
        100 + seed
    );
    // masscan ends only when it is woken by a packet, and it is not answered: pings of its host's own address are.
    let command = format!("ping -q -i 0.2 {target} >/dev/null & {arguments}; kill $!");
    revealed(&String::from_utf8_lossy(&scanner.run(&["sh", "-c", &command]).stdout))
}

#[test]
fn masscan_of_every_port_reveals_no_service_after_the_first_closed_port() {
    let lab = Lab::new(1);
    let scanner = lab.peer(0);
    let _services = hidden_services(&lab);
    let mac = scanner.target_mac().replace(':', "-");
    // Not so fast that this machine's own pace decides how much.
    assert!(masscan(scanner, &mac, 0, 20_000).len() > 15, "without us it finds what there is");
    let mut daemon = armed(&lab, ALL_PORTS);
    eventually("every port but the services' is a trap", PATIENCE, || {
        traps(&lab, "traps_tcp").len() == 65_535 - HIDDEN.len()
    });
    for seed in 1..=10 {
        let found = masscan(scanner, &mac, seed, 100_000);
        println!("masscan, seed {seed}: {} of {} revealed", found.len(), HIDDEN.len());
        assert!(found.len() <= 1, "seed {seed}: {found:?}");
        let block = daemon.wait_for_new("a block", |event| event["event_type"] == "block");
        assert_eq!(block["action"]["with"], serde_json::json!(["tripwire", "nftables"]), "{block}");
    }
}

#[test]
fn nmap_at_its_fastest_reveals_nothing() {
    let lab = Lab::new(1);
    let scanner = lab.peer(0);
    let _services = hidden_services(&lab);
    let _daemon = armed(&lab, ALL_PORTS);
    let said =
        scanner.nmap(&["-sS", "-T5", "--min-rate", "5000", "-p-", "--open", &scanner.target_v4.to_string()]);
    assert_eq!(revealed(&said), Vec::<u16>::new(), "{said}");
}

/// The target as the router of a telephone: what comes back to it has no socket here.
#[test]
fn answers_to_a_host_behind_this_one_trip_nobody() {
    let lab = Lab::new(2);
    let (inner, outer) = (lab.peer(0), lab.peer(1));
    let nat = format!(
        "table ip nat {{ chain out {{ type nat hook postrouting priority 100; oifname {} masquerade; }}; }}",
        outer.target_interface
    );
    for command in [vec!["sysctl", "-w", "net.ipv4.ip_forward=1"], vec!["nft", &nat]] {
        let output = lab.on_target(&command);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let mut daemon = armed(&lab, &CONFIG.replace("69,161", "69,161,5060"));
    let [phone, exchange] = [inner, outer].map(|host| {
        let socket = inside(&host.netns, || UdpSocket::bind("0.0.0.0:5060").unwrap());
        socket.set_read_timeout(Some(SHORT)).unwrap();
        socket
    });
    let mut buffer = [0; 16];
    let mut call = || {
        phone.send_to(b"hello", (outer.v4, 5060)).unwrap();
        exchange.recv_from(&mut buffer).unwrap().1
    };
    call();
    eventually("the port is no trap", PATIENCE, || !traps(&lab, "traps_udp").contains(&"5060".to_owned()));
    let caller = call();
    exchange.send_to(b"yes", caller).unwrap();
    phone.recv(&mut [0; 16]).expect("the answer comes through");
    assert_eq!(traps(&lab, "trip4"), Vec::<String>::new());
    daemon.catch_up();
    assert!(daemon.seen.iter().all(|event| event["event_type"] == "start"), "{:#?}", daemon.seen);
}
