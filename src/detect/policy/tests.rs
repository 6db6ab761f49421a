#![forbid(unsafe_code)]

use super::*;
use crate::detect::probe::samples::syn as probe;
use crate::detect::weights::Sensitivity;

const NOBODY: fn(Protocol, u16) -> bool = |_, _| false;
const HOUR: u64 = 3_600_000_000;

fn watch(scan_trigger: u32) -> Watch {
    let (tcp_ports, udp_ports) = ((1..=1024).collect(), [7, 9].into_iter().collect());
    Watch { tcp_ports, udp_ports, scan_trigger, ..samples::watch(Sensitivity::Off) }
}

fn peers() -> Peers {
    Peers::new(&[5; 16], crate::detect::peers::Hearing::of_this_host(false, 0))
}

fn table() -> ScoreTable {
    ScoreTable::new(64, &[7; 16], Some(weights::HALF_LIFE))
}

/// At which of `probes`, `gap` apart, the trigger fires (the first is 1).
fn fires_at(trigger: u32, gap: u64, probes: impl IntoIterator<Item = Probe>) -> Option<usize> {
    let (watch, table, peers) = (watch(trigger), table(), peers());
    let scans = |(at, probe): (usize, Probe)| {
        matches!(watch.judge(&probe, &table, &peers, NOBODY, HOUR + at as u64 * gap), Verdict::Scan(_))
    };
    probes.into_iter().enumerate().map(scans).position(|fired| fired).map(|at| at + 1)
}

#[test]
fn a_call_to_everybody_from_a_watched_port_makes_nobodys_probe_of_it_an_answer() {
    let (watch, table, peers) = (watch(0), table(), peers());
    let probe = Probe {
        protocol: Protocol::Udp,
        scan_type: ScanType::Udp,
        source_port: 50_000,
        ..probe("198.51.100.7", 9)
    };
    for (port, is_answer) in [(9, false), (4_000, true)] {
        let transport = Transport::Udp { source_port: port, port: 1_900, payload: 9 };
        let destination = "239.255.255.250".parse().unwrap();
        let call = Packet { source: probe.destination, destination, ip_options: None, transport };
        watch.note_sent(&call, &table, &peers, HOUR);
        assert_eq!(peers.expect(&Probe { port, ..probe }, HOUR), is_answer, "{port}");
    }
}

#[test]
fn whoever_buries_the_port_is_judged_as_if_it_were_a_watched_one_unless_the_walk_is_quicker() {
    let [source, destination] = ["2001:db8::9", "2001:db8::1"].map(|text| text.parse().unwrap());
    let buried = Packet { source, destination, ip_options: None, transport: Transport::Buried };
    for (sensitivity, trigger, expected, ledger) in [
        (Sensitivity::Off, 0, 1, Ledger::Watched),
        (Sensitivity::Off, 3, 3, Ledger::Watched),
        (Sensitivity::Off, 100, 100, Ledger::Watched),
        (Sensitivity::Medium, 3, 3, Ledger::Watched),
        (Sensitivity::Medium, 8, 8, Ledger::Watched),
        (Sensitivity::Medium, 100, 9, Ledger::Walk),
    ] {
        let (table, peers) = (table(), peers());
        let watch = Watch { walk: Walk::new(sensitivity), ..watch(trigger) };
        let scans = |at: u64| {
            let probe = watch.note_received(&buried, &table, &peers, HOUR + at).unwrap();
            match watch.judge(&probe, &table, &peers, NOBODY, HOUR + at) {
                Verdict::Scan(standing) => standing.crossed && standing.ledger == ledger,
                Verdict::Probe(_) => false,
                other => panic!("{other:?}"),
            }
        };
        let fired = (1..=200).find(|&at| scans(at));
        assert_eq!(fired, Some(expected), "{sensitivity:?}, {trigger}");
    }
    // Not so a protocol that has a number.
    let number = Packet { transport: Transport::Other { protocol: 0 }, ..buried };
    let (table, peers, watch) = (table(), peers(), watch(0));
    let probe = watch.note_received(&number, &table, &peers, HOUR).unwrap();
    assert_eq!(watch.judge(&probe, &table, &peers, NOBODY, HOUR), Verdict::NotWatched);
}

#[test]
fn a_quick_scan_triggers_at_exactly_the_nth_probe() {
    for (trigger, expected) in [(0, 1), (1, 1), (2, 2), (3, 3), (10, 10), (500, 500)] {
        let probes = (1..=600).map(|port| probe("10.0.0.1", port));
        assert_eq!(fires_at(trigger, 1_000, probes), Some(expected), "{trigger}");
    }
}

#[test]
fn probes_of_the_same_port_count_like_those_of_another_and_tcp_with_udp() {
    let same = (1..9).map(|sequence| Probe { sequence, ..probe("10.0.0.1", 7) });
    assert_eq!(fires_at(3, 1_000, same), Some(3));
    let udp =
        Probe { protocol: Protocol::Udp, scan_type: ScanType::Udp, sequence: 0, ..probe("10.0.0.1", 7) };
    assert_eq!(fires_at(2, 1_000, [probe("10.0.0.1", 7), udp]), Some(2));
}

#[test]
fn two_probes_count_as_two_within_a_half_life_and_a_weekly_stray_never_does() {
    let two = || [probe("10.0.0.1", 1), probe("10.0.0.1", 2)];
    assert_eq!(fires_at(2, 3 * HOUR, two()), Some(2));
    assert_eq!(fires_at(2, 7 * HOUR, two()), None);
    let weekly = (1..500).map(|port| probe("10.0.0.1", port));
    assert_eq!(fires_at(2, 7 * 24 * HOUR, weekly), None);
}

#[test]
fn one_probe_crosses_and_every_later_one_stays_triggered_until_forgiven() {
    let (watch, table, peers) = (watch(2), table(), peers());
    let source = SourceKey::of(&"10.0.0.1".parse().unwrap(), 64);
    let mut crossings = 0;
    for port in 1..50 {
        match watch.judge(&probe("10.0.0.1", port), &table, &peers, NOBODY, u64::from(port) * HOUR / 10) {
            Verdict::Scan(standing) => crossings += u32::from(standing.crossed),
            Verdict::Probe(_) => assert_eq!(port, 1),
            other => panic!("{port}: {other:?}"),
        }
    }
    assert_eq!(crossings, 1);
    assert!(table.forgive(source) && !table.forgive(source));
    let after = watch.judge(&probe("10.0.0.1", 60), &table, &peers, NOBODY, 5 * HOUR);
    let Verdict::Probe(standing) = after else { panic!("{after:?}") };
    assert_eq!((standing.probes, standing.distinct_ports, standing.first_seen), (1, 1, 5 * HOUR));
}

#[test]
fn an_alarm_is_proven_where_it_needs_no_probe_that_another_may_have_forged() {
    let forged = |port| probe("10.0.0.1", port);
    let visit = |source_port| Probe {
        source_port,
        scan_type: ScanType::Connect,
        verified: true,
        ..probe("10.0.0.1", 21)
    };
    let proven = |trigger, probes: &[Probe]| {
        let (watch, table, peers) = (watch(trigger), table(), peers());
        let judge = |probe| watch.judge(probe, &table, &peers, NOBODY, HOUR);
        match probes.iter().map(judge).last() {
            Some(Verdict::Scan(standing)) => standing.proven,
            other => panic!("{other:?}"),
        }
    };
    assert!(proven(0, &[visit(1)]) && proven(1, &[visit(1)]));
    assert!(proven(3, &[visit(1), visit(2), visit(3)]));
    assert!(proven(3, &[visit(1), forged(1), visit(2), forged(2), visit(3)]));
    assert!(!proven(2, &[visit(1), forged(1)]), "forged later");
    assert!(!proven(2, &[forged(1), visit(1)]), "forged before");
    assert!(!proven(2, &[visit(1), visit(2), forged(1)]), "forged when all was over");
}

#[test]
fn a_retransmission_is_the_same_probe_but_not_ten_minutes_later() {
    let (watch, table, peers, once) = (watch(2), table(), peers(), probe("10.0.0.1", 7));
    assert!(matches!(watch.judge(&once, &table, &peers, NOBODY, HOUR), Verdict::Probe(_)));
    for second in [1, 3, 7, 15, 31, 63, 127] {
        let again = watch.judge(&once, &table, &peers, NOBODY, HOUR + second * 1_000_000);
        assert_eq!(again, Verdict::Retransmission, "{second}");
    }
    assert!(matches!(watch.judge(&once, &table, &peers, NOBODY, HOUR + HOUR / 6), Verdict::Scan(_)));
}

#[test]
fn what_is_not_watched_or_in_use_or_martian_never_counts() {
    let (watch, table) = (watch(0), table());
    let judge = |probe: Probe, in_use| watch.judge(&probe, &table, &peers(), |_, _| in_use, HOUR);
    assert_eq!(judge(probe("10.0.0.1", 1025), false), Verdict::NotWatched);
    assert_eq!(judge(Probe { protocol: Protocol::Sctp, ..probe("10.0.0.1", 7) }, false), Verdict::NotWatched);
    assert_eq!(judge(probe("10.0.0.1", 7), true), Verdict::ServiceInUse);
    for martian in
        ["0.0.0.0", "127.0.0.1", "224.0.0.1", "239.1.1.1", "255.255.255.255", "::", "::1", "ff02::1"]
    {
        assert_eq!(judge(probe(martian, 7), false), Verdict::Martian, "{martian}");
    }
    assert_eq!(table.occupancy().occupied, 0);
    let loopback = Probe { destination: "127.0.0.1".parse().unwrap(), ..probe("127.0.0.1", 7) };
    for somebody in [loopback, probe("0.1.2.3", 7)] {
        assert!(matches!(judge(somebody, false), Verdict::Scan(_)), "{somebody:?}");
    }
}

#[test]
fn stray_acks_of_one_forgotten_connection_never_trigger_but_an_ack_scan_does() {
    let ack = |port, sequence| Probe { scan_type: ScanType::Ack, sequence, ..probe("10.0.0.1", port) };
    assert_eq!(fires_at(0, 1_000_000, (0..1_000).map(|sequence| ack(7, sequence))), None);
    assert_eq!(fires_at(0, 1_000, (1..9).map(|port| ack(port, 1))), Some(2));
}

#[test]
fn each_host_has_accounts_of_its_own_and_a_network_counts_hosts_and_ports() {
    let sweep =
        || (1..=9_u8).map(|host| Probe { destination: [192, 0, 2, host].into(), ..probe("10.0.0.1", 445) });
    let outcome = |vantage| {
        let (watch, table) = (Watch { vantage, ..watch(9) }, table());
        let verdicts: Vec<Verdict> =
            sweep().map(|probe| watch.judge(&probe, &table, &peers(), NOBODY, HOUR)).collect();
        match verdicts.last() {
            Some(Verdict::Scan(standing)) => (standing.distinct_ports, standing.probes, true),
            Some(Verdict::Probe(standing)) => (standing.distinct_ports, standing.probes, false),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(outcome(Vantage::Host), (1, 9, true));
    assert_eq!(outcome(Vantage::EachHost), (1, 1, false));
    assert_eq!(outcome(Vantage::Network), (9, 9, true));
}

#[test]
fn a_slash_64_is_one_source_and_two_are_two() {
    let from = |prefix: &str| {
        let source = prefix.to_owned();
        (1..=3_u16).map(move |host| probe(&format!("{source}::{host}"), host))
    };
    assert_eq!(fires_at(3, 1_000, from("2001:db8:0:1")), Some(3));
    let two = from("2001:db8:0:1").take(2).chain(from("2001:db8:0:2").take(2));
    assert_eq!(fires_at(3, 1_000, two), None);
    let mapped = [probe("10.0.0.1", 1), probe("::ffff:10.0.0.1", 2)];
    assert_eq!(fires_at(2, 1_000, mapped), Some(2));
}

#[test]
fn where_sources_are_judged_one_by_one_nobody_pays_for_a_neighbour() {
    let one_by_one: Networks = ["2001:db8:9::/64".parse().unwrap()].into_iter().collect();
    let watch = Watch { one_by_one, ..watch(0) };
    let target = |source: &str| watch.target(source.parse().unwrap()).to_string();
    assert_eq!(target("2001:db8:9::1"), "2001:db8:9::1/128");
    assert_eq!(target("2001:db8:8::1"), "2001:db8:8::/64");
    let account = |source: &str| watch.account(&probe(source, 1));
    assert!(account("2001:db8:9::1") != account("2001:db8:9::2"));
    assert!(account("2001:db8:8::1") == account("2001:db8:8::2"));
}

#[test]
fn a_service_takes_back_all_that_was_counted_for_its_port_and_nothing_else() {
    let (watch, peers) = (watch(3), peers());
    // Of probes from ports of their own: what the next one of another port comes to.
    let next = |ports: &[u16], served: u16| {
        let table = table();
        let judge = |at: usize, port| {
            let source_port = 50_000 + at as u16;
            let probe = Probe { source_port, protocol: Protocol::Udp, ..probe("198.51.100.7", port) };
            (probe, watch.judge(&probe, &table, &peers, NOBODY, HOUR))
        };
        let probes: Vec<_> = ports.iter().enumerate().map(|(at, &port)| judge(at, port).0).collect();
        for probe in probes.iter().filter(|probe| probe.port == served) {
            watch.take_back(&Served::of(probe), &table, HOUR);
        }
        match judge(ports.len(), 7).1 {
            Verdict::Probe(standing) => (standing.score, false),
            Verdict::Scan(standing) => (standing.score, standing.crossed),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(next(&[9, 9, 9], 9), (1.0, false), "all three were for the service");
    assert_eq!(next(&[9], 9), (1.0, false));
    assert_eq!(next(&[7, 7, 9], 9), (3.0, true), "another port's repeats stand");
    assert_eq!(next(&[9, 9, 9], 7), (4.0, false), "an alarm that no service answers stands");
}
