//! The daemon's answers as people read them (`status`, `list`, `stats`) and as programs do (`--json`).
//!
//! Pure: the clock and the time zone are arguments. Never prints a character that a terminal would obey.
#![forbid(unsafe_code)]

use std::io::{self, Write};

use jiff::tz::TimeZone;
use serde::Serialize;

use crate::control::protocol::{Entry, Status};
use crate::event::{Confinement, Network, Stats, text, time};
use crate::protocol::wording::address;

/// The counters: one JSON object, or `name value` lines, which scripts can read as well.
pub fn stats(stats: &Stats, json: bool) -> Result<String, serde_json::Error> {
    if json {
        return json_line(stats);
    }
    // Field by field as in the JSON, so that neither form can lack what the other has.
    let serde_json::Value::Object(mut fields) = serde_json::to_value(stats)? else {
        return Ok(String::new());
    };
    let counters = fields.remove("counters").and_then(|counters| counters.as_object().cloned());
    let rows = fields.into_iter().chain(counters.unwrap_or_default());
    Ok(rows.map(|(name, value)| format!("{:<24}{value}\n", text::escaped(&name))).collect())
}

/// `45s`, `3m 20s`, `2h 5m`, `3d 4h`.
pub fn duration(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{minutes}m {}s", seconds % 60),
        3600..86_400 => format!("{hours}h {}m", minutes % 60),
        _ => format!("{days}d {}h", hours % 24),
    }
}

/// One object.
pub fn json_line(object: &impl Serialize) -> Result<String, serde_json::Error> {
    Ok(text::ascii_safe_json(serde_json::to_string(object)?) + "\n")
}

/// The answer to `status` as text; `now` in seconds since 1970 UTC.
pub fn status_text(status: &Status, now: u64, zone: &TimeZone) -> String {
    let (start, stats) = (&status.start, &status.stats);
    let mode = start.mode.name();
    let since = format!("{} ({})", local(status.since, zone), duration(now.saturating_sub(status.since)));
    let silent = if status.helper_answers { "" } else { ", which does not answer" };
    let rows = [
        ("running since", since),
        ("version", format!("{}, {mode} mode", start.version)),
        ("processes", format!("sensor {}, helper {}{silent}", start.pid, start.helper_pid)),
        ("interfaces", format!("{}{}", listed(&start.interfaces), network(start.network))),
        ("watched ports", ports(&start.tcp_ports, &start.udp_ports)),
        ("decoys", ports(&start.decoy_tcp_ports, &start.decoy_udp_ports)),
        ("packets", format!("{} seen, {} dropped", stats.packets, stats.drops)),
        ("sources tracked", stats.sources.to_string()),
        ("probes", format!("{}, {} scans", stats.probes, stats.scans)),
        ("blocks in force", format!("{} ({} since the start)", stats.blocks_in_force, stats.blocks)),
        ("lost log lines", stats.lost_lines.to_string()),
        ("confinement", confinement(&start.confinement)),
    ];
    rows.iter().map(|(name, value)| format!("{name:<17}{}\n", text::escaped(value))).collect()
}

fn network(network: Network) -> &'static str {
    match network {
        Network::Host => " of the host",
        Network::Own => " of a network namespace that is not the host's",
        Network::Unknown => "",
    }
}

fn ports(tcp: &str, udp: &str) -> String {
    match (tcp, udp) {
        ("", "") => "none".to_owned(),
        (tcp, "") => format!("tcp {tcp}"),
        ("", udp) => format!("udp {udp}"),
        (tcp, udp) => format!("tcp {tcp}; udp {udp}"),
    }
}

fn listed(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

fn confinement(confinement: &Confinement) -> String {
    match confinement.missing.is_empty() {
        true => listed(&confinement.in_force),
        false => format!("{}; MISSING: {}", listed(&confinement.in_force), listed(&confinement.missing)),
    }
}

/// The answer to `list` as a table, sorted by what ends first.
pub fn list(mut entries: Vec<Entry>, now: u64, zone: &TimeZone, out: &mut impl Write) -> io::Result<()> {
    entries.sort_unstable_by_key(|entry| (entry.until, entry.target));
    let widths = entries.iter().map(|entry| address(&entry.target).len());
    let width = widths.max().unwrap_or(0).max("ADDRESS".len());
    writeln!(out, "{:<width$}  {:<30}  OFFENCE", "ADDRESS", "UNTIL")?;
    for entry in entries {
        let left = duration(entry.until.saturating_sub(now));
        let until = format!("{} ({left})", local(entry.until, zone));
        writeln!(out, "{:<width$}  {until:<30}  {}", address(&entry.target), entry.offence)?;
    }
    Ok(())
}

fn local(seconds: u64, zone: &TimeZone) -> String {
    time::plain(seconds.saturating_mul(1_000_000), zone)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Mode;
    use crate::event::Start;

    const NOW: u64 = 1_795_307_881;

    fn status() -> Status {
        Status {
            since: NOW - 3_700,
            helper_answers: false,
            start: Start {
                version: "0.1.0".into(),
                pid: 10,
                helper_pid: 11,
                mode: Mode::Stealth,
                network: Network::Own,
                interfaces: vec!["eth0".into(), "odd\x1b[2J".into()],
                tcp_ports: "1,7,512-515".into(),
                udp_ports: String::new(),
                decoy_tcp_ports: String::new(),
                decoy_udp_ports: String::new(),
                restored: 2,
                confinement: Confinement {
                    in_force: vec!["seccomp".into()],
                    missing: vec!["landlock".into()],
                },
            },
            stats: Stats { packets: 12, drops: 1, blocks_in_force: 3, ..Stats::default() },
        }
    }

    fn entry(target: &str, until: u64) -> Entry {
        Entry { target: target.parse().unwrap(), since: NOW, until, offence: 2 }
    }

    #[test]
    fn status_is_aligned_and_obeys_no_interface_name() {
        let text = status_text(&status(), NOW, &TimeZone::UTC);
        assert!(text.contains("running since    2026-11-21 23:36:21 (1h 1m)\n"), "{text}");
        assert!(
            text.contains(
                "interfaces       eth0, odd\\x1b[2J of a network namespace that is not the host's\n"
            ),
            "{text}"
        );
        assert!(text.contains("processes        sensor 10, helper 11, which does not answer\n"), "{text}");
        assert!(text.contains("watched ports    tcp 1,7,512-515\n"), "{text}");
        assert!(text.contains("packets          12 seen, 1 dropped\n"), "{text}");
        assert!(text.contains("confinement      seccomp; MISSING: landlock\n"), "{text}");
    }

    #[test]
    fn the_list_is_a_table_sorted_by_what_ends_first() {
        let entries = vec![entry("10.0.0.1/32", NOW + 90), entry("2001:db8::/64", NOW + 5)];
        let mut text = Vec::new();
        list(entries, NOW, &TimeZone::UTC, &mut text).unwrap();
        let expected = "\
ADDRESS        UNTIL                           OFFENCE
2001:db8::/64  2026-11-22 00:38:06 (5s)        2
10.0.0.1       2026-11-22 00:39:31 (1m 30s)    2
";
        assert_eq!(String::from_utf8(text).unwrap(), expected);
    }

    #[test]
    fn stats_are_one_object_or_a_line_each() {
        let counted = Stats {
            packets: 12,
            probes: 3,
            counters: [("rejected_tcp_checksum".to_owned(), 4)].into(),
            ..Stats::default()
        };
        let text = stats(&counted, false).unwrap();
        for line in
            ["packets                 12\n", "probes                  3\n", "rejected_tcp_checksum   4\n"]
        {
            assert!(text.contains(line), "{text}");
        }
        let json = stats(&counted, true).unwrap();
        assert_eq!((json.lines().count(), serde_json::from_str::<Stats>(&json).unwrap()), (1, counted));
    }

    #[test]
    fn json_is_one_object_for_each_block() {
        let expected = format!(r#"{{"target":"10.0.0.1","since":{NOW},"until":{},"offence":2}}"#, NOW + 90);
        assert_eq!(json_line(&entry("10.0.0.1/32", NOW + 90)).unwrap(), expected + "\n");
    }

    #[test]
    fn durations_read_naturally() {
        let texts = [0, 59, 60, 3_599, 3_600, 86_400, 90_000].map(duration);
        assert_eq!(texts, ["0s", "59s", "1m 0s", "59m 59s", "1h 0m", "1d 0h", "1d 1h"]);
    }
}
