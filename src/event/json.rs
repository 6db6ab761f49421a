//! Event → one JSON line, `timestamp` first, under Suricata EVE's names.
//!
//! Pure: the time zone is an argument. Never emits a second line, whatever the strings hold.
#![forbid(unsafe_code)]

use jiff::tz::TimeZone;
use serde::{Serialize, Serializer};

use super::{Action, Event, EventType, Flood, Flow, Scan, Start, Stats, Summary, text, time};
use crate::detect::probe::ScanType;

/// `event` as one line of JSON, without the newline.
pub fn line(event: &Event, zone: &TimeZone) -> String {
    // Every map key of an event is a string, so this cannot fail; if it ever did, the reader is told.
    let json =
        serde_json::to_string(&EventLine::new(event, zone)).unwrap_or_else(|_| unwritable(event, zone));
    text::ascii_safe_json(json)
}

fn unwritable(event: &Event, zone: &TimeZone) -> String {
    let timestamp = time::eve(event.timestamp, zone);
    format!(
        r#"{{"timestamp":"{timestamp}","event_type":"error","error":"An event could not be written as JSON; please report it."}}"#
    )
}

#[derive(Serialize)]
struct EventLine<'a> {
    timestamp: String,
    event_type: EventType,
    #[serde(flatten)]
    flow: Option<&'a Flow>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scan: Option<ScanObject>,
    #[serde(skip_serializing_if = "Option::is_none")]
    action: Option<&'a Action>,
    #[serde(skip_serializing_if = "Option::is_none")]
    start: Option<&'a Start>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stats: Option<&'a Stats>,
    #[serde(skip_serializing_if = "Option::is_none")]
    summary: Option<&'a Summary>,
    #[serde(skip_serializing_if = "Option::is_none")]
    flood: Option<&'a Flood>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

#[derive(Serialize)]
struct ScanObject {
    #[serde(rename = "type")]
    scan_type: ScanType,
    #[serde(serialize_with = "points")]
    score: f32,
    #[serde(serialize_with = "points")]
    threshold: f32,
    distinct_ports: u32,
    probes: u32,
    verified: bool,
    first_seen: String,
}

impl<'a> EventLine<'a> {
    fn new(event: &'a Event, zone: &TimeZone) -> EventLine<'a> {
        EventLine {
            timestamp: time::eve(event.timestamp, zone),
            event_type: event.event_type,
            flow: event.flow.as_ref(),
            scan: event.scan.as_ref().map(|scan| ScanObject::new(scan, zone)),
            action: event.action.as_ref(),
            start: event.start.as_ref(),
            stats: event.stats.as_ref(),
            summary: event.summary.as_ref(),
            flood: event.flood.as_ref(),
            error: event.error.as_deref(),
        }
    }
}

impl ScanObject {
    fn new(scan: &Scan, zone: &TimeZone) -> ScanObject {
        ScanObject {
            scan_type: scan.scan_type,
            score: scan.score,
            threshold: scan.threshold,
            distinct_ports: scan.distinct_ports,
            probes: scan.probes,
            verified: scan.verified,
            first_seen: time::eve(scan.first_seen, zone),
        }
    }
}

/// Points with at most two decimals and none where there is nothing behind the point. JSON knows no infinity, so
/// scores end at a billion; a NaN is written as 0.
fn points<S: Serializer>(value: &f32, serializer: S) -> Result<S::Ok, S::Error> {
    let value = if value.is_nan() { 0.0 } else { f64::from(*value).clamp(-1e9, 1e9) };
    let rounded = (value * 100.0).round() / 100.0;
    match rounded.fract() == 0.0 {
        true => serializer.serialize_i64(rounded as i64),
        false => serializer.serialize_f64(rounded),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::net::{IpAddr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;
    use crate::config::Mode;
    use crate::detect::probe::Protocol;
    use crate::event::{ActionVerdict, Confinement, Network};

    fn nasty() -> impl Strategy<Value = String> {
        prop_oneof![
            any::<String>(),
            "[\\x00-\\x1f\\x7f-\\x9f\"\\\\{}\u{2028}\u{2029}\u{202e}\u{feff}\u{85}a]{0,24}",
        ]
    }

    fn any_start(text: String) -> Start {
        Start {
            version: text.clone(),
            pid: 1,
            helper_pid: 2,
            mode: Mode::Stealth,
            network: Network::Own,
            interfaces: vec![text.clone()],
            tcp_ports: text.clone(),
            udp_ports: String::new(),
            decoy_tcp_ports: String::new(),
            decoy_udp_ports: String::new(),
            restored: 0,
            confinement: Confinement { in_force: vec![text.clone()], missing: vec![text] },
        }
    }

    prop_compose! {
        /// Any event, with hostile text in every string.
        pub(crate) fn any_event()(
            timestamp in any::<u64>(),
            kind in prop::sample::select(EventType::ALL.to_vec()),
            address in any::<u128>(),
            score in any::<f32>(),
            interface in prop::option::of(nasty()),
            host in prop::option::of(nasty()),
            with in prop::collection::vec(nasty(), 0..3),
            reason in prop::option::of(nasty()),
            error in prop::option::of(nasty()),
            start in prop::option::of(nasty()),
            name in nasty(),
        ) -> Event {
            let mut flow = Flow::from_source(IpAddr::V6(Ipv6Addr::from(address)));
            (flow.in_iface, flow.src_host, flow.proto) = (interface, host, Some(Protocol::Tcp));
            let scan = Scan { scan_type: ScanType::Syn, score, threshold: 1.0, distinct_ports: 1, probes: 1,
                verified: false, first_seen: timestamp };
            Event {
                flow: Some(flow),
                scan: Some(scan),
                action: Some(Action { with, error: reason, ..Action::new(ActionVerdict::Failed) }),
                start: start.map(any_start),
                stats: Some(Stats { counters: [(name, u64::MAX)].into(), ..Stats::default() }),
                error,
                ..Event::new(timestamp, kind)
            }
        }
    }

    proptest! {
        #[test]
        fn any_event_is_one_printable_line_that_reads_back(event in any_event()) {
            let line = line(&event, &TimeZone::UTC);
            prop_assert!(!line.chars().any(text::is_unprintable), "{line:?}");
            let read: serde_json::Value = serde_json::from_str(&line).unwrap();
            prop_assert!(line.find("timestamp") == Some(2), "{line}");
            let (flow, action) = (event.flow.unwrap(), event.action.unwrap());
            prop_assert_eq!(read["in_iface"].as_str(), flow.in_iface.as_deref());
            prop_assert_eq!(read["error"].as_str(), event.error.as_deref());
            prop_assert_eq!(read["action"]["error"].as_str(), action.error.as_deref());
            prop_assert!(read["scan"]["score"].is_number());
        }
    }

    #[test]
    fn scores_are_written_as_people_would() {
        let written = |score| {
            let scan = Scan {
                scan_type: ScanType::Syn,
                score,
                threshold: 1.0,
                distinct_ports: 1,
                probes: 1,
                verified: false,
                first_seen: 0,
            };
            let event = Event { scan: Some(scan), ..Event::new(0, EventType::Scan) };
            let read: serde_json::Value = serde_json::from_str(&line(&event, &TimeZone::UTC)).unwrap();
            read["scan"]["score"].to_string()
        };
        for (score, text) in
            [(1.0, "1"), (2.5, "2.5"), (2.500_000_2, "2.5"), (0.1 + 0.2, "0.3"), (f32::NAN, "0")]
        {
            assert_eq!(written(score), text);
        }
        assert_eq!(written(f32::INFINITY), "1000000000");
    }
}
