#![forbid(unsafe_code)]

use super::*;
use crate::detect::peers::Hearing;
use crate::detect::probe::{Protocol, samples};
use crate::detect::table::Ledger;
use crate::detect::{Peers, ScoreTable, Verdict, Watch, policy};
use crate::packet::{Packet, TcpFlags, Transport};

const SECOND: u64 = 1_000_000;
const START: u64 = 100_000 * SECOND;

/// A host that watches port 1 alone, and serves 80.
struct Site {
    watch: Watch,
    table: ScoreTable,
    peers: Peers,
    now: u64,
}

impl Site {
    fn new(sensitivity: Sensitivity) -> Site {
        let tcp_ports = [1].into_iter().collect();
        let watch = Watch { tcp_ports, scan_trigger: 3, ..policy::samples::watch(sensitivity) };
        let table = ScoreTable::new(512, &[1; 16], Some(weights::HALF_LIFE));
        Site { watch, table, peers: Peers::new(&[2; 16], Hearing::of_this_host(false, 0)), now: START }
    }

    fn see(&mut self, probe: Probe) -> Verdict {
        let in_use = |_, port| port == 80;
        self.watch.judge(&probe, &self.table, &self.peers, in_use, self.now)
    }

    fn send(&mut self, transport: Transport) {
        let (source, destination) = ("192.0.2.1".parse().unwrap(), "198.51.100.9".parse().unwrap());
        let packet = Packet { source, destination, ip_options: None, transport };
        self.watch.note_sent(&packet, &self.table, &self.peers, self.now);
    }

    fn answer_syn(&mut self, source_port: u16, port: u16) {
        let flags = TcpFlags(0x12);
        self.send(Transport::Tcp { source_port, port, flags, sequence: 0, payload: 0 });
    }

    /// A segment from the client that [`Site::send`] sends to.
    fn come(&mut self, source_port: u16, port: u16, flags: u8, payload: u16) -> Option<Verdict> {
        let (source, destination) = ("198.51.100.9".parse().unwrap(), "192.0.2.1".parse().unwrap());
        let (flags, sequence) = (TcpFlags(flags), 4);
        let transport = Transport::Tcp { source_port, port, flags, sequence, payload };
        let packet = Packet { source, destination, ip_options: None, transport };
        let probe = self.watch.note_received(&packet, &self.table, &self.peers, self.now)?;
        Some(self.watch.judge(&probe, &self.table, &self.peers, |_, _| true, self.now))
    }

    /// At which of these, `gap` microseconds apart, the source is flagged (the first is 1).
    fn flags_at(&mut self, gap: u64, probes: impl IntoIterator<Item = Probe>) -> Option<usize> {
        let flagged = probes.into_iter().position(|probe| {
            self.now += gap;
            matches!(self.see(probe), Verdict::Scan(_))
        });
        flagged.map(|at| at + 1)
    }
}

fn of(scan_type: ScanType, port: u16) -> Probe {
    let protocol = match scan_type {
        ScanType::Udp => Protocol::Udp,
        ScanType::SctpInit | ScanType::SctpCookieEcho => Protocol::Sctp,
        ScanType::IpProtocol => Protocol::Ip,
        _ => Protocol::Tcp,
    };
    let (flags, sequence) = (TcpFlags(0), u32::from(port) * 7);
    Probe { protocol, scan_type, flags, sequence, ip_options: None, ..samples::syn("198.51.100.9", port) }
}

fn scan(scan_type: ScanType, first: u16) -> impl Iterator<Item = Probe> {
    (first..first + 200).map(move |port| of(scan_type, port))
}

const TYPES: [ScanType; 11] = [
    ScanType::Syn,
    ScanType::Null,
    ScanType::Fin,
    ScanType::Xmas,
    ScanType::Maimon,
    ScanType::Ack,
    ScanType::OtherFlags,
    ScanType::Udp,
    ScanType::SctpInit,
    ScanType::SctpCookieEcho,
    ScanType::IpProtocol,
];

#[test]
fn every_kind_is_flagged_at_the_ninth_port_also_15_seconds_and_five_minutes_apart() {
    for scan_type in TYPES {
        for gap in [1_000, 15 * SECOND, 300 * SECOND] {
            let at = Site::new(Sensitivity::Medium).flags_at(gap, scan(scan_type, 3));
            assert!(at.is_some_and(|at| (9..=10).contains(&at)), "{scan_type:?} {gap}: {at:?}");
        }
    }
    assert_eq!(Site::new(Sensitivity::High).flags_at(1, scan(ScanType::Syn, 3)), Some(4));
    assert_eq!(Site::new(Sensitivity::Low).flags_at(1, scan(ScanType::Syn, 3)), Some(14));
    assert_eq!(Site::new(Sensitivity::Off).flags_at(1, scan(ScanType::Syn, 3)), None);
}

#[test]
fn a_dead_port_tried_again_and_a_month_of_daily_hits_are_no_scan() {
    let again = (0..500).map(|sequence| Probe { sequence, ..of(ScanType::Syn, 8443) });
    assert_eq!(Site::new(Sensitivity::Medium).flags_at(SECOND, again), None);
    let daily = scan(ScanType::Syn, 100).take(30);
    assert_eq!(Site::new(Sensitivity::Medium).flags_at(86_400 * SECOND, daily), None);
}

#[test]
fn impossible_flags_count_on_a_service_and_each_time() {
    let nulls = (0..20).map(|sequence| Probe { sequence, ..of(ScanType::Null, 80) });
    assert_eq!(Site::new(Sensitivity::Medium).flags_at(1_000, nulls), Some(9));
    let syns = (0..200).map(|sequence| Probe { sequence, ..of(ScanType::Syn, 80) });
    assert_eq!(Site::new(Sensitivity::Medium).flags_at(1_000, syns), None);
}

#[test]
fn a_port_that_answers_after_all_is_no_failure() {
    let mut site = Site::new(Sensitivity::Medium);
    // Passive FTP: a new port for each transfer, which no look at the sockets may have caught.
    for port in 30_000..30_100 {
        assert!(matches!(site.see(of(ScanType::Syn, port)), Verdict::Probe(_)));
        site.answer_syn(port, 40_000);
    }
    // The same answer once more takes back nothing more.
    assert!(matches!(site.see(of(ScanType::Syn, 9)), Verdict::Probe(_)));
    (0..5).for_each(|_| site.answer_syn(30_099, 40_000));
    let account = site.watch.account(&of(ScanType::Syn, 9)).in_ledger(Ledger::Walk);
    assert_eq!(site.table.standing(account, site.now).map(|standing| standing.score), Some(1.0));
}

#[test]
fn a_completed_exchange_forgives_one_failure_once_a_port_and_never_below_zero() {
    let mut site = Site::new(Sensitivity::Medium);
    let score = |site: &Site| {
        let account = site.watch.account(&of(ScanType::Syn, 9)).in_ledger(Ledger::Walk);
        site.table.standing(account, site.now).map_or(0.0, |standing| standing.score)
    };
    (10..13).for_each(|port| _ = site.see(of(ScanType::Syn, port)));
    assert_eq!(score(&site), 3.0);
    for source_port in 50_000..50_004 {
        site.answer_syn(80, source_port);
        // A handshake alone forgives nothing.
        assert_eq!(site.come(source_port, 80, 0x10, 0), Some(Verdict::ServiceInUse));
        assert_eq!(score(&site), if source_port == 50_000 { 3.0 } else { 2.0 });
        assert_eq!(site.come(source_port, 80, 0x18, 100), Some(Verdict::Answer));
        assert_eq!(score(&site), 2.0);
    }
}

#[test]
fn a_scan_of_services_is_flagged_by_how_it_leaves_them() {
    let open_ports = |leave: fn(&mut Site, u16) -> Option<Verdict>| {
        let mut site = Site::new(Sensitivity::Medium);
        let flagged = (100..300).position(|port| {
            assert_eq!(site.come(40_000, port, 0x02, 0), Some(Verdict::ServiceInUse));
            site.answer_syn(port, 40_000);
            matches!(leave(&mut site, port), Some(Verdict::Scan(_)))
        });
        flagged.map(|at| at + 1)
    };
    let half_open = open_ports(|site, port| site.come(40_000, port, 0x04, 0));
    let abandoned = open_ports(|site, port| {
        site.come(40_000, port, 0x10, 0);
        site.come(40_000, port, 0x14, 0)
    });
    // HAProxy's check: no ACK of its own before the end.
    let checked = open_ports(|site, port| site.come(40_000, port, 0x14, 0));
    let looked = open_ports(|site, port| {
        site.come(40_000, port, 0x10, 0);
        site.come(40_000, port, 0x11, 0)
    });
    assert_eq!((half_open, abandoned, checked, looked), (Some(9), Some(17), Some(17), None));
}

#[test]
fn a_balancer_that_resets_every_look_at_its_services_is_no_scanner() {
    for (services, reset) in [(8, 0x04), (12, 0x14)] {
        let mut site = Site::new(Sensitivity::Medium);
        for look in 0..1_000 {
            let (source_port, port) = (40_000 + look, 80 + look % services);
            site.answer_syn(port, source_port);
            assert!(!matches!(site.come(source_port, port, reset, 0), Some(Verdict::Scan(_))), "{port}");
        }
    }
}

#[test]
fn answers_never_count_and_source_port_53_hides_nothing() {
    let mut site = Site::new(Sensitivity::Medium);
    for source_port in 30_000..40_000 {
        site.send(Transport::Udp { source_port, port: 53, payload: 30 });
    }
    site.now += 20 * SECOND;
    let late = (30_000..40_000).map(|port| Probe { source_port: 53, ..of(ScanType::Udp, port) });
    assert_eq!(site.flags_at(1_000, late), None);
    let account = site.watch.account(&of(ScanType::Udp, 9)).in_ledger(Ledger::Walk);
    assert_eq!(site.table.standing(account, site.now), None);
    let hidden = scan(ScanType::Udp, 2_000).map(|probe| Probe { source_port: 53, ..probe });
    assert_eq!(site.flags_at(1_000, hidden), Some(9));
}

#[test]
fn what_the_filter_lets_up_for_its_wrapping_alone_is_no_failure() {
    let from_server =
        |scan_type, first| scan(scan_type, first).map(|probe| Probe { source_port: 53, ..probe });
    for scan_type in [ScanType::Udp, ScanType::Ack, ScanType::Maimon] {
        let mut site = Site::new(Sensitivity::Medium);
        assert_eq!(site.flags_at(1_000, from_server(scan_type, 32_768)), None, "{scan_type:?}");
        assert_eq!(site.flags_at(1_000, from_server(scan_type, 32_000)), Some(9), "{scan_type:?}");
    }
    assert_eq!(Site::new(Sensitivity::Medium).flags_at(1_000, scan(ScanType::Udp, 32_768)), Some(9));
    let mut site = Site::new(Sensitivity::Medium);
    assert_eq!(site.flags_at(1_000, from_server(ScanType::Syn, 32_768)), Some(9));
}

#[test]
fn nor_does_it_count_at_a_watched_port() {
    // Of the classic list of ports, those that a host asks from.
    const CLASSIC: [u16; 7] = [32_771, 32_772, 32_773, 32_774, 40_421, 49_724, 54_320];
    let site = || {
        let mut site = Site::new(Sensitivity::Medium);
        site.watch.tcp_ports = CLASSIC.into_iter().chain([32_767]).collect();
        site.watch.udp_ports = CLASSIC.into_iter().collect();
        site
    };
    let downloads = |scan_type| CLASSIC.map(|port| Probe { source_port: 443, ..of(scan_type, port) });
    for scan_type in [ScanType::Ack, ScanType::Maimon] {
        for probe in downloads(scan_type) {
            assert_eq!(site().see(probe), Verdict::Answer, "{scan_type:?} to {}", probe.port);
        }
        assert!(matches!(site().see(of(scan_type, 32_767)), Verdict::Probe(_)), "{scan_type:?}");
    }
    // What goes up by itself counts there as anywhere.
    for scan_type in [ScanType::Syn, ScanType::Fin, ScanType::Connect, ScanType::Udp] {
        assert_eq!(site().flags_at(1_000, downloads(scan_type)), Some(3), "{scan_type:?}");
    }
}

#[test]
fn answers_in_half_a_capture_prove_nothing_but_requests_do() {
    let mut half =
        Site { peers: Peers::new(&[2; 16], Hearing::of_senders()), ..Site::new(Sensitivity::Medium) };
    let answers = |scan_type| scan(scan_type, 1_025).map(|probe| Probe { source_port: 443, ..probe });
    assert_eq!(half.flags_at(1_000, answers(ScanType::Udp)), None);
    assert_eq!(half.flags_at(1_000, answers(ScanType::Ack)), None);
    assert_eq!(half.flags_at(1_000, answers(ScanType::Syn)), Some(9));
}

#[test]
fn answers_to_questions_that_were_lost_prove_nothing_and_scans_of_servers_ports_do() {
    let mut site = Site::new(Sensitivity::Medium);
    site.watch.udp_ports = [5_000].into_iter().collect();
    site.peers.lost(site.now);
    for scan_type in [ScanType::Udp, ScanType::Ack, ScanType::Maimon] {
        for source_port in [53, 1_812] {
            let answers = scan(scan_type, 1_025).map(|probe| Probe { source_port, ..probe });
            assert_eq!(site.flags_at(100, answers), None, "{scan_type:?} from {source_port}");
        }
    }
    let watched = Probe { source_port: 53, ..of(ScanType::Udp, 5_000) };
    assert_eq!(site.see(watched), Verdict::Answer);
    assert!(matches!(
        site.see(Probe { source_port: 1_812, ..watched }),
        Verdict::Probe(_) | Verdict::Scan(_)
    ));
    site.now += 3_600 * SECOND;
    assert_eq!(site.flags_at(1_000, scan(ScanType::Udp, 2_000)), Some(9));
    let mut site = Site::new(Sensitivity::Medium);
    site.peers.lost(site.now);
    assert_eq!(site.flags_at(1_000, scan(ScanType::Udp, 300)), Some(9));
}

#[test]
fn daily_life_is_no_failure() {
    let mut site = Site::new(Sensitivity::High);
    let neighbours =
        weights::NEIGHBOURLY_UDP.map(|port| Probe { source_port: port, ..of(ScanType::Udp, port) });
    let traced = weights::TRACED_UDP.into_iter().flatten().map(|port| of(ScanType::Udp, port));
    assert_eq!(site.flags_at(1_000, neighbours.into_iter().chain(traced)), None);
    let from_any_port = weights::NEIGHBOURLY_UDP.map(|port| of(ScanType::Udp, port));
    assert_eq!(Site::new(Sensitivity::Medium).flags_at(1_000, from_any_port), None);
    let pings = (0..50).map(|_| Probe { protocol: Protocol::Icmp, sequence: 8, ..of(ScanType::Icmp, 0) });
    assert_eq!(site.flags_at(1_000, pings), None);
    let to = |destination: &str| {
        let destination: IpAddr = destination.parse().unwrap();
        scan(ScanType::Udp, 2_000).map(move |probe| Probe { destination, ..probe })
    };
    for everybody in ["224.0.0.251", "255.255.255.255", "ff02::fb"] {
        assert_eq!(site.flags_at(1_000, to(everybody)), None);
    }
}

#[test]
fn a_scan_of_the_ten_most_usual_udp_ports_is_one() {
    // nmap-services' most frequent, by `nmap -sU --top-ports 10`.
    let ports = [631, 161, 137, 123, 138, 1434, 445, 135, 67, 53].map(|port| of(ScanType::Udp, port));
    assert!(Site::new(Sensitivity::Medium).flags_at(1_000, ports).is_some());
}

#[test]
fn a_watched_port_that_answers_after_all_is_a_service_elsewhere() {
    let mut site = Site::new(Sensitivity::Medium);
    // Forwarded to another host: no socket of ours, and yet it answers.
    for source_port in 50_000..50_050 {
        let knock = Probe { source_port, ..of(ScanType::Syn, 1) };
        assert!(matches!(site.see(knock), Verdict::Probe(standing) if standing.score == 1.0));
        site.answer_syn(1, source_port);
    }
}

#[test]
fn watched_ports_keep_their_own_count_and_a_source_crosses_once() {
    let mut site = Site::new(Sensitivity::Medium);
    site.flags_at(1_000, scan(ScanType::Syn, 100).take(5));
    let watched = |sequence| Probe { sequence, ..of(ScanType::Syn, 1) };
    for sequence in 0..2 {
        assert!(
            matches!(site.see(watched(sequence)), Verdict::Probe(standing) if standing.ledger == Ledger::Watched)
        );
    }
    assert!(matches!(site.see(watched(2)), Verdict::Scan(standing) if standing.crossed));
    let later: Vec<Verdict> = scan(ScanType::Syn, 300).take(20).map(|probe| site.see(probe)).collect();
    assert!(later.iter().any(|verdict| matches!(verdict, Verdict::Scan(_))));
    assert!(!later.iter().any(|verdict| matches!(verdict, Verdict::Scan(standing) if standing.crossed)));
}

#[test]
fn who_asks_for_groups_or_pings_counts_nowhere_but_for_pings_of_a_whole_network() {
    let walk = Walk::new(Sensitivity::Medium);
    let place = |vantage| Place { in_use: false, heard: Heard::All, vantage };
    let other = |port| Probe {
        protocol: Protocol::Ip,
        scan_type: ScanType::IpProtocol,
        port,
        ..samples::syn("198.51.100.7", 1)
    };
    assert_eq!([2, 3].map(|port| walk.evidence(&other(port), place(Vantage::Host)).is_some()), [false, true]);
    let echo = Probe { protocol: Protocol::Icmp, scan_type: ScanType::Icmp, sequence: 8, ..other(0) };
    let counts = |vantage| walk.evidence(&echo, place(vantage)).is_some();
    assert_eq!([Vantage::Host, Vantage::Network].map(counts), [false, true]);
}

#[test]
fn a_host_whose_address_ends_in_255_is_scanned_like_any_other() {
    let walk = Walk::new(Sensitivity::Medium);
    let probe = Probe { destination: "192.0.2.255".parse().unwrap(), ..samples::syn("198.51.100.7", 9) };
    let counts =
        |vantage| walk.evidence(&probe, Place { in_use: false, heard: Heard::All, vantage }).is_some();
    assert_eq!([Vantage::Host, Vantage::Network].map(counts), [true, false]);
}
