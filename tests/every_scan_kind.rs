//! Every kind of scan is seen without a watched port in its way: flagged by the tenth distinct probe at the latest, under its name.

mod support;

use serde_json::Value;
use support::daemon::{Daemon, Setup};
use support::service::Service;
use support::{Host, Lab, capture, inside};

/// No scan here goes to port 1, unless nobody sees where it goes.
const CONFIG: &str = "TCP_PORTS=\"1\"\nUDP_PORTS=\"1\"\nSCAN_TRIGGER=\"3\"\nBLOCK_TCP=\"1\"\nBLOCK_UDP=\"1\"";
const PORTS: &str = "2000-2049";

/// nmap's words, what the source must be called, and whether nmap can do it over IPv6.
const KINDS: &[(&[&str], &str, bool)] = &[
    (&["-sS"], "syn", true),
    // Where nothing listens connect(2) sends but a SYN.
    (&["-sT"], "syn", true),
    (&["-sU", "--max-rtt-timeout", "100ms"], "udp", true),
    (&["-sN"], "null", true),
    (&["-sF"], "fin", true),
    (&["-sX"], "xmas", true),
    (&["-sM"], "maimon", true),
    (&["-sA"], "ack", true),
    (&["-sW"], "ack", true),
    (&["-sY"], "sctp_init", true),
    (&["-sZ"], "sctp_cookie_echo", true),
    (&["-sS", "-f"], "syn", false),
    (&["-sN", "-f"], "null", false),
    (&["-sX", "-f"], "xmas", false),
    (&["-sA", "-f"], "other_flags", false),
    (&["-sS", "--mtu", "16"], "syn", false),
    (&["-sF", "--mtu", "16"], "fin", false),
    (&["-sS", "-g", "53"], "syn", true),
    (&["-sU", "-g", "53", "--max-rtt-timeout", "100ms"], "udp", true),
    (&["-sV"], "syn", true),
    (&["-sS", "-O"], "syn", true),
    (&["-sS", "--scanflags", "SYNFIN"], "other_flags", true),
    (&["-sS", "--scanflags", "PSH"], "other_flags", true),
];

/// The alarm of `source`, which must have come by its tenth distinct port.
fn alarm(daemon: &mut Daemon, source: &str, name: &str, what: &str) -> Value {
    let scan = daemon.wait_for(what, |event| event["event_type"] == "scan" && event["src_ip"] == *source);
    assert_eq!(scan["scan"]["type"], name, "{what}: {scan}");
    assert!(scan["scan"]["distinct_ports"].as_u64().is_some_and(|ports| ports <= 10), "{what}: {scan}");
    daemon.wait_for("the block", |event| {
        event["event_type"] == "block" && event["action"]["verdict"] == "blocked"
    });
    daemon.catch_up();
    assert_eq!(daemon.events_of("scan", source).count(), 1, "{what}: {:#?}", daemon.seen);
    scan
}

/// A scan by peer 0 of a fresh lab.
fn is_flagged(v6: bool, what: &str, name: &str, scan: impl FnOnce(&Host, &str)) {
    let lab = Lab::new(1);
    let scanner = lab.peer(0);
    let mut daemon = Setup::new(&lab, CONFIG).start();
    scan(scanner, &scanner.target(v6).to_string());
    alarm(&mut daemon, &scanner.address(v6).to_string(), name, what);
}

/// Whole IPv6 packets, a millisecond apart.
fn send(host: &Host, packets: impl IntoIterator<Item = Vec<u8>>) {
    send_over(true, host, packets);
}

fn send_over(v6: bool, host: &Host, packets: impl IntoIterator<Item = Vec<u8>>) {
    let domain = if v6 { socket2::Domain::IPV6 } else { socket2::Domain::IPV4 };
    // IPPROTO_RAW: the header is ours to write.
    let raw = || socket2::Socket::new(domain, socket2::Type::RAW, Some(255.into())).unwrap();
    let socket = inside(&host.netns, raw);
    let to = std::net::SocketAddr::new(host.target(v6), 0).into();
    for packet in packets {
        socket.send_to(&packet, &to).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

/// IP packets that the sender's own kernel would not let out, in frames to the target or `to` many.
fn send_past_the_kernel(host: &Host, to: Option<&str>, packets: impl Iterator<Item = Vec<u8>>) {
    let script = "import socket, sys\nwire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)\nwire.bind(('eth0', 0))\n\
                  for frame in sys.argv[1:]: wire.send(bytes.fromhex(frame))";
    let to = to.map_or_else(|| host.target_mac(), str::to_owned).replace(':', "");
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let ethertype = |packet: &[u8]| if packet[0] >> 4 == 6 { "86dd" } else { "0800" };
    let frames: Vec<String> =
        packets.map(|packet| format!("{to}020000000001{}{}", ethertype(&packet), hex(&packet))).collect();
    let words = ["python3", "-c", script].into_iter().chain(frames.iter().map(String::as_str));
    host.run(&words.collect::<Vec<_>>());
}

/// What hears the segments that come to this host.
fn ear(v6: bool, host: &Host) -> socket2::Socket {
    let domain = if v6 { socket2::Domain::IPV6 } else { socket2::Domain::IPV4 };
    let raw = || socket2::Socket::new(domain, socket2::Type::RAW, Some(socket2::Protocol::TCP)).unwrap();
    let ear = inside(&host.netns, raw);
    ear.set_read_timeout(Some(support::daemon::PATIENCE)).unwrap();
    ear
}

/// Waits until the target has said that `port` is closed: then it took the probe in.
fn is_answered(v6: bool, mut ear: socket2::Socket, port: u16) {
    let header = if v6 { 0 } else { 20 };
    let mut segment = [0; 100];
    loop {
        let length = std::io::Read::read(&mut ear, &mut segment)
            .unwrap_or_else(|error| panic!("the target does not answer, v6 {v6}: {error}"));
        let Some([high, low, .., flags]) = segment[..length].get(header..header + 14) else { continue };
        if u16::from_be_bytes([*high, *low]) == port {
            return assert_eq!(*flags, capture::RST_ACK);
        }
    }
}

fn nmap(v6: bool, kind: &[&str], ports: &str, name: &str) {
    is_flagged(v6, &format!("{} v6 {v6}", kind.join(" ")), name, |scanner, target| {
        let mut arguments = kind.to_vec();
        arguments.extend(["-p", ports, target]);
        arguments.extend(v6.then_some("-6"));
        scanner.nmap(&arguments);
    });
}

#[test]
fn every_kind_of_nmap_over_ipv4() {
    KINDS.iter().for_each(|(kind, name, _)| nmap(false, kind, PORTS, name));
}

#[test]
fn every_kind_of_nmap_over_ipv6() {
    KINDS.iter().filter(|kind| kind.2).for_each(|(kind, name, _)| nmap(true, kind, PORTS, name));
}

#[test]
fn a_scan_of_ip_protocols() {
    nmap(false, &["-sO"], "90-131", "ip_protocol");
    nmap(true, &["-sO"], "90-131", "ip_protocol");
}

#[test]
fn a_slow_scan_with_15_seconds_between_probes() {
    // -T1 is a gap of 15 s (nmap(1)): twelve probes take three minutes.
    nmap(false, &["-sS", "-T1", "--max-retries", "0"], "3000-3011", "syn");
}

#[test]
fn a_scanner_among_decoys() {
    nmap(false, &["-sS", "-D", "RND:5"], PORTS, "syn");
}

#[test]
fn masscan() {
    is_flagged(false, "masscan", "syn", |scanner, target| {
        let mac = scanner.target_mac();
        scanner.run(&[
            "masscan",
            "--interface",
            "eth0",
            "--router-mac",
            &mac,
            "--source-ip",
            &scanner.v4.to_string(),
            "--rate",
            "200",
            "--wait",
            "0",
            "-p",
            PORTS,
            target,
        ]);
    });
}

#[test]
fn zmap_once_for_each_port() {
    is_flagged(false, "zmap", "syn", |scanner, target| {
        let mac = scanner.target_mac();
        for port in 2000..2012 {
            scanner.run(&[
                "zmap",
                "-q",
                "-B",
                "1M",
                "-c",
                "0",
                "-i",
                "eth0",
                "-G",
                &mac,
                "-p",
                &port.to_string(),
                "-o",
                "-",
                "--blacklist-file=/dev/null",
                target,
            ]);
        }
    });
}

#[test]
fn hping3() {
    is_flagged(false, "hping3", "syn", |scanner, target| {
        scanner.hping3(&["-i", "u5000", "-c", "30", "-S", "-p", "++2000", target]);
    });
    is_flagged(false, "hping3 --udp", "udp", |scanner, target| {
        scanner.hping3(&["--udp", "-i", "u5000", "-c", "30", "-p", "++2000", target]);
    });
}

#[test]
fn impossible_flags_count_at_a_live_service_too() {
    let lab = Lab::new(1);
    let (scanner, _service) = (lab.peer(0), Service::start(&lab.target(), 80));
    let mut daemon = Setup::new(&lab, CONFIG).start();
    scanner.hping3(&["-F", "-i", "u5000", "-c", "30", "-p", "80", &scanner.target_v4.to_string()]);
    alarm(&mut daemon, &scanner.v4.to_string(), "fin", "hping3 -F at a service");
}

#[test]
fn torn_headers_over_ipv6() {
    // nmap has no -f and no --mtu for IPv6: these are its fragments.
    for (flags, name) in [(capture::SYN, "syn"), (0, "null"), (0x29, "xmas")] {
        for tear in [8, 16] {
            is_flagged(true, &format!("{name} torn at {tear}"), name, |scanner, _| {
                let (from, to) = (scanner.v6, scanner.target_v6);
                send(
                    scanner,
                    (2000..2030_u16).flat_map(|port| {
                        let segment = capture::segment6(from, to, port, flags);
                        let pieces = capture::torn6(6, &segment, tear, port as u8);
                        pieces.map(|piece| capture::ipv6(from, to, 44, &piece))
                    }),
                );
            });
        }
    }
}

/// The host that has the first halves takes the others for half a minute: nobody can tell from when on it has them.
#[test]
fn torn_headers_whose_other_half_keeps_us_waiting() {
    is_flagged(true, "first halves over IPv6", "other_flags", |scanner, _| {
        let (from, to) = (scanner.v6, scanner.target_v6);
        let first = |port| {
            let segment = capture::segment6(from, to, port, capture::SYN);
            let [first, _] = capture::torn6(6, &segment, 8, port as u8);
            capture::ipv6(from, to, 44, &first)
        };
        send(scanner, (2000..2030).map(first));
    });
    is_flagged(false, "first halves over IPv4", "other_flags", |scanner, _| {
        let (from, to) = (scanner.v4.octets(), scanner.target_v4.octets());
        let first = |port| {
            let [first, _] = capture::torn4(&capture::tcp(from, 40_000, to, port, capture::SYN), port as u8);
            first
        };
        send_over(false, scanner, (2000..2030).map(first));
    });
}

/// The host keeps the first of the second halves that come, and answers a SYN. Who goes by another reads a RST.
#[test]
fn torn_headers_among_false_other_halves() {
    is_flagged(false, "64 false halves after the true one", "syn", |scanner, _| {
        let (from, to) = (scanner.v4.octets(), scanner.target_v4.octets());
        let torn = |port: u16, flags| {
            let segment = capture::segment(&from, &to, port, flags);
            capture::torn4(&capture::ipv4(from, to, 6, &segment), port as u8)
        };
        let pieces = |port| {
            let ([head, tail], [_, reset]) = (torn(port, capture::SYN), torn(port, 4));
            std::iter::once(tail).chain(vec![reset; 64]).chain([head])
        };
        let ear = ear(false, scanner);
        send_over(false, scanner, pieces(2000));
        is_answered(false, ear, 2000);
        send_over(false, scanner, (2001..2012).flat_map(pieces));
    });
}

/// One that the host refuses for its options, before the true one.
#[test]
fn torn_headers_after_a_false_other_half() {
    is_flagged(false, "a false half with a broken option", "other_flags", |scanner, _| {
        let (from, to) = (scanner.v4.octets(), scanner.target_v4.octets());
        let pieces = |port: u16| {
            let segment = capture::segment(&from, &to, port, capture::SYN);
            let [head, tail] = capture::torn4(&capture::ipv4(from, to, 6, &segment), port as u8);
            let mut reset = [&tail[..20], &[7, 1, 0, 0], &tail[20..]].concat();
            (reset[0], reset[3], reset[29]) = (0x46, 36, 4);
            [head, reset, tail]
        };
        let ear = ear(false, scanner);
        send_over(false, scanner, pieces(2000));
        is_answered(false, ear, 2000);
        send_over(false, scanner, (2001..2012).flat_map(pieces));
    });
}

#[test]
fn torn_sctp_headers_over_ipv4() {
    // nmap tears TCP headers alone.
    for (chunk, name) in [(1, "sctp_init"), (10, "sctp_cookie_echo")] {
        is_flagged(false, &format!("{name} torn"), name, |scanner, _| {
            let (from, to) = (scanner.v4.octets(), scanner.target_v4.octets());
            let torn = |port: u16| {
                let ports = [40_000, port].map(u16::to_be_bytes).concat();
                let packet = [&ports[..], &[0; 8], &[chunk, 0, 0, 20], &[0; 16]].concat();
                capture::torn4(&capture::ipv4(from, to, 132, &packet), port as u8)
            };
            send_over(false, scanner, (2000..2030).flat_map(torn));
        });
    }
}

/// A SYN behind destination options: 168 bytes of an option that is to be skipped.
fn buried(from: &Host, port: u16) -> Vec<u8> {
    behind_options(from, port, 0x1e)
}

fn behind_options(from: &Host, port: u16, option: u8) -> Vec<u8> {
    let segment = capture::segment6(from.v6, from.target_v6, port, capture::SYN);
    let options = [&[6, 20, option, 164][..], &[0; 164], &segment].concat();
    capture::ipv6(from.v6, from.target_v6, 60, &options)
}

#[test]
fn a_header_that_is_buried_under_extension_headers() {
    is_flagged(true, "a long chain", "other_flags", |scanner, _| {
        send(scanner, (2000..2030).map(|port| buried(scanner, port)));
    });
}

/// Where watched ports alone count, and one probe of them is enough: whether this one was of such a port nobody saw.
#[test]
fn one_probe_of_a_watched_port_that_is_buried_under_extension_headers() {
    let lab = Lab::new(1);
    let scanner = lab.peer(0);
    let mut daemon = Setup::new(&lab, "TCP_PORTS=\"111\"\nBLOCK_TCP=\"1\"\nSENSITIVITY=\"off\"").start();
    let ear = ear(true, scanner);
    send(scanner, [buried(scanner, 111)]);
    is_answered(true, ear, 111);
    alarm(&mut daemon, &scanner.v6.to_string(), "other_flags", "one buried SYN");
}

/// Padding longer than any is, and an option that is not to be skipped: the target's kernel drops what comes with them.
#[test]
fn what_hides_behind_options_that_no_host_takes_is_no_probe() {
    let lab = Lab::new(2);
    let (refused, taken) = (lab.peer(0), lab.peer(1));
    let lines = "TCP_PORTS=\"111\"\nBLOCK_TCP=\"1\"\nSENSITIVITY=\"off\"\nTRIPWIRE=\"0\"";
    let mut daemon = Setup::new(&lab, lines).start();
    let mut ear = ear(true, refused);
    send(refused, [1, 0x5e].map(|option| behind_options(refused, 111, option)));
    // A header before the one that hides.
    let segment = capture::segment6(refused.v6, refused.target_v6, 111, capture::SYN);
    let chain = [&[60, 0, 1, 4, 9, 9, 9, 9, 6, 20, 0x1e, 164][..], &[0; 164], &segment].concat();
    send(refused, [capture::ipv6(refused.v6, refused.target_v6, 60, &chain)]);
    let plain = capture::segment6(refused.v6, refused.target_v6, 112, capture::SYN);
    send(refused, [capture::ipv6(refused.v6, refused.target_v6, 6, &plain)]);
    let mut answered = [0; 2];
    std::io::Read::read_exact(&mut ear, &mut answered).unwrap();
    assert_eq!(u16::from_be_bytes(answered), 112, "the first that is answered");
    send(taken, [buried(taken, 111)]);
    alarm(&mut daemon, &taken.v6.to_string(), "other_flags", "one buried SYN");
    assert_eq!(daemon.events_of("scan", &refused.v6.to_string()).count(), 0, "{:#?}", daemon.seen);
}

/// Linux asks for a whole transport header in a first fragment only where the chain before it ends there too.
#[test]
fn fragments_torn_among_extension_headers() {
    // Bytes of the chain's first header, of which the first fragment has the first 8 or all, and so many of the next.
    for (length, tear) in [(8, 8), (16, 8), (16, 16), (24, 16)] {
        is_flagged(true, &format!("{length} bytes torn at {tear}"), "other_flags", |scanner, _| {
            let (from, to) = (scanner.v6, scanner.target_v6);
            let options = |next: u8, length: u8| {
                let head = [next, length / 8 - 1, 0x1e, length - 4];
                [&head[..], &vec![0; usize::from(length) - 4]].concat()
            };
            let pieces = |port: u16| {
                let segment = capture::segment6(from, to, port, capture::SYN);
                let chain = [options(60, length), options(6, 8), segment].concat();
                let pieces = capture::torn6(60, &chain, tear, port as u8);
                pieces.map(|piece| capture::ipv6(from, to, 44, &piece))
            };
            let ear = ear(true, scanner);
            send(scanner, pieces(2000));
            is_answered(true, ear, 2000);
            send(scanner, (2001..2012).flat_map(pieces));
        });
    }
}

/// RFC 2675 leaves a jumbogram's length to an option. Linux takes a packet without the option too, as long as it came.
#[test]
fn a_length_that_is_left_out_before_hop_by_hop_options() {
    is_flagged(true, "no payload length", "syn", |scanner, _| {
        let (from, to) = (scanner.v6, scanner.target_v6);
        let ear = ear(true, scanner);
        let without_length = |port| {
            let pad = [6, 0, 1, 4, 0, 0, 0, 0];
            let segment = capture::segment6(from, to, port, capture::SYN);
            let mut packet = capture::ipv6(from, to, 0, &[&pad[..], &segment].concat());
            packet[4..6].fill(0);
            packet
        };
        send_past_the_kernel(scanner, None, std::iter::once(without_length(2000)));
        is_answered(true, ear, 2000);
        send_past_the_kernel(scanner, None, (2001..2030).map(without_length));
    });
}

/// Linux hands on a datagram to its host whatever the frame was to, unless drop_unicast_in_l2_multicast is set.
#[test]
fn datagrams_to_the_host_in_frames_to_many() {
    const OPEN: u16 = 3000;
    for (v6, to) in [
        (false, "ff:ff:ff:ff:ff:ff"),
        (false, "01:00:5e:00:00:01"),
        (true, "ff:ff:ff:ff:ff:ff"),
        (true, "33:33:00:00:00:01"),
    ] {
        let lab = Lab::new(1);
        let scanner = lab.peer(0);
        let service =
            inside(&lab.target(), || std::net::UdpSocket::bind((scanner.target(v6), OPEN)).unwrap());
        service.set_read_timeout(Some(support::daemon::PATIENCE)).unwrap();
        let mut daemon = Setup::new(&lab, CONFIG).start();
        let knock = |port| match v6 {
            false => {
                let (from, to) = (scanner.v4.octets(), scanner.target_v4.octets());
                let mut packet = capture::ipv4(from, to, 17, &capture::datagram(&from, &to, port));
                let sum = capture::checksum(&packet[..20]);
                packet[10..12].copy_from_slice(&sum);
                packet
            }
            true => {
                let (from, to) = (scanner.v6, scanner.target_v6);
                let datagram = capture::datagram(&from.octets(), &to.octets(), port);
                capture::ipv6(from, to, 17, &datagram)
            }
        };
        send_past_the_kernel(scanner, Some(to), [OPEN].into_iter().chain(2000..2012).map(knock));
        service.recv(&mut [0; 1]).expect("an open port hears it");
        alarm(&mut daemon, &scanner.address(v6).to_string(), "udp", to);
    }
}

/// Linux has taken all of 0.0.0.0/8 but the first for addresses like others since 5.3.
#[test]
fn a_neighbour_whose_address_begins_with_0() {
    let lab = Lab::new(1);
    let scanner = lab.peer(0);
    let mut daemon = Setup::new(&lab, CONFIG).start();
    let (from, to) = ([0, 1, 2, 3], scanner.target_v4.octets());
    let syn = |port| {
        let mut packet = capture::ipv4(from, to, 6, &capture::segment(&from, &to, port, capture::SYN));
        let sum = capture::checksum(&packet[..20]);
        packet[10..12].copy_from_slice(&sum);
        packet
    };
    send_past_the_kernel(scanner, None, (2000..2012).map(syn));
    alarm(&mut daemon, "0.1.2.3", "syn", "an address that begins with 0");
}

/// The first address of each of its IPv6 networks is a router's too (RFC 4291 §2.6.1).
#[test]
fn a_router_by_the_address_that_it_shares_with_all_routers_of_a_network() {
    let lab = Lab::new(1);
    lab.on_target(&["sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/all/forwarding"]);
    let scanner = lab.peer(0);
    let mut daemon = Setup::new(&lab, CONFIG).start();
    let mut shared = scanner.target_v6.octets();
    shared[8..].fill(0);
    let datagram = |port| {
        let datagram = capture::datagram(&scanner.v6.octets(), &shared, port);
        capture::ipv6(scanner.v6, shared.into(), 17, &datagram)
    };
    // Ports that no client has: what a router began for others before the daemon was there nobody knows.
    send_past_the_kernel(scanner, None, (200..212).map(datagram));
    alarm(&mut daemon, &scanner.v6.to_string(), "udp", "the routers' anycast address");
}

#[test]
fn an_ipv4_mapped_source_is_nobodys() {
    let lab = Lab::new(1);
    let scanner = lab.peer(0);
    let mut daemon = Setup::new(&lab, CONFIG).start();
    let (from, to) = (scanner.v4.to_ipv6_mapped(), scanner.target_v6);
    let segment = |port| capture::segment6(from, to, port, capture::SYN);
    send_past_the_kernel(scanner, None, (2000..2040).map(|port| capture::ipv6(from, to, 6, &segment(port))));
    daemon.catch_up();
    assert_eq!(daemon.stats()["counters"]["rejected_mapped_address"], 40, "all of them came");
    assert!(daemon.seen.iter().all(|event| event["event_type"] == "start"), "{:#?}", daemon.seen);
}
