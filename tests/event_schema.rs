//! Every event that is written fits `config/event.schema.json`, and `docs/events.md` shows what is really written.
#![forbid(unsafe_code)]
// The helpers of a test are tests too; clippy knows only functions marked as such.
#![allow(clippy::unwrap_used, clippy::panic)]

use jiff::tz::TimeZone;
use portsentry::config::Mode;
use portsentry::detect::probe::{Probe, Protocol, ScanType};
use portsentry::event::{
    Action, ActionVerdict, Confinement, Event, EventType, Flood, FloodEnd, FloodState, Flow, Network, Scan,
    Start, Stats, json,
};
use portsentry::packet::TcpFlags;
use serde::Serialize;
use serde_json::{Value, json};

const SCHEMA: &str = include_str!("../config/event.schema.json");
const DOCS: &str = include_str!("../docs/events.md");
const MOMENT: u64 = 1_795_307_881_758_123;

/// As much of JSON Schema as ours uses; a keyword that it does not know is an error, so none goes unchecked.
fn fault(schema: &Value, value: &Value) -> Option<String> {
    for (keyword, rule) in schema.as_object().unwrap() {
        let fault = match keyword.as_str() {
            "$schema" | "$defs" | "title" | "description" => None,
            "$ref" => fault(&definition(rule), value),
            "type" => (!has_type(rule, value)).then(|| format!("{value} is no {rule}")),
            "enum" => {
                (!rule.as_array().unwrap().contains(value)).then(|| format!("{value} is not in {rule}"))
            }
            "const" => (rule != value).then(|| format!("{value} is not {rule}")),
            "required" => missing(rule, value),
            "properties" => within(rule, value),
            "additionalProperties" => beyond(schema, rule, value),
            "items" => value.as_array().unwrap().iter().find_map(|item| fault(rule, item)),
            "minimum" => (value.as_f64() < rule.as_f64()).then(|| format!("{value} is below {rule}")),
            "maximum" => (value.as_f64() > rule.as_f64()).then(|| format!("{value} is above {rule}")),
            "pattern" => (!is_timestamp(value)).then(|| format!("{value} is no timestamp")),
            "allOf" => rule.as_array().unwrap().iter().find_map(|part| fault(part, value)),
            "anyOf" => rule.as_array().unwrap().iter().map(|part| fault(part, value)).min().flatten(),
            "if" => fault(rule, value).is_none().then(|| fault(&schema["then"], value)).flatten(),
            "then" => None,
            unknown => Some(format!("the test does not know the keyword {unknown}")),
        };
        if fault.is_some() {
            return fault;
        }
    }
    None
}

fn schema() -> Value {
    serde_json::from_str(SCHEMA).unwrap()
}

fn definition(reference: &Value) -> Value {
    let name = reference.as_str().unwrap().strip_prefix("#/$defs/").unwrap();
    schema()["$defs"].get(name).unwrap().clone()
}

fn has_type(rule: &Value, value: &Value) -> bool {
    match rule.as_str().unwrap() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        unknown => panic!("the test does not know the type {unknown}"),
    }
}

fn missing(rule: &Value, value: &Value) -> Option<String> {
    let absent = |name: &&Value| value.get(name.as_str().unwrap()).is_none();
    rule.as_array().unwrap().iter().find(absent).map(|name| format!("{name} is missing"))
}

fn within(rule: &Value, value: &Value) -> Option<String> {
    let properties = rule.as_object().unwrap();
    properties.iter().find_map(|(name, rule)| value.get(name).and_then(|value| fault(rule, value)))
}

fn beyond(schema: &Value, rule: &Value, value: &Value) -> Option<String> {
    let named = |name: &str| schema["properties"].get(name).is_some();
    let refused = |name: &str, value| match rule == &Value::Bool(false) {
        true => Some(format!("{name} is not known")),
        false => fault(rule, value),
    };
    value
        .as_object()
        .unwrap()
        .iter()
        .filter(|(name, _)| !named(name))
        .find_map(|(name, value)| refused(name, value))
}

/// The one pattern of the schema.
fn is_timestamp(value: &Value) -> bool {
    let shape: String =
        value.as_str().unwrap().chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    shape.replace('-', "+") == "0000+00+00T00:00:00.000000+0000"
}

fn probe() -> Probe {
    Probe {
        source: "192.0.2.7".parse().unwrap(),
        destination: "198.51.100.1".parse().unwrap(),
        source_port: 40_312,
        port: 23,
        protocol: Protocol::Tcp,
        scan_type: ScanType::Syn,
        flags: TcpFlags(TcpFlags::SYN),
        sequence: 1,
        ip_options: Some(false),
        verified: false,
    }
}

fn scan(score: f32, probes: u32) -> Scan {
    Scan {
        scan_type: ScanType::Syn,
        score,
        threshold: 3.0,
        distinct_ports: probes,
        probes,
        verified: false,
        first_seen: MOMENT - 1_500_000,
    }
}

fn flow() -> Flow {
    Flow { in_iface: Some("eth0".into()), ..Flow::from(&probe()) }
}

fn blocked() -> Action {
    Action {
        target: "192.0.2.7/32".parse().ok(),
        with: vec!["nftables".into()],
        seconds: Some(3600),
        offence: Some(1),
        micros: Some(87),
        ..Action::new(ActionVerdict::Blocked)
    }
}

fn start() -> Start {
    Start {
        version: "0.1.0".into(),
        pid: 812,
        helper_pid: 813,
        mode: Mode::Stealth,
        network: Network::Host,
        interfaces: vec!["eth0".into()],
        tcp_ports: "1,7,512-515".into(),
        udp_ports: "7,9".into(),
        decoy_tcp_ports: "21,23".into(),
        decoy_udp_ports: String::new(),
        restored: 2,
        confinement: Confinement {
            in_force: vec!["no capabilities".into(), "landlock".into(), "seccomp".into()],
            missing: vec![],
        },
    }
}

fn stats() -> Stats {
    Stats {
        uptime: 3600,
        packets: 51_234,
        drops: 0,
        probes: 18,
        scans: 2,
        blocks: 1,
        blocks_in_force: 3,
        sources: 11,
        lost_lines: 0,
        counters: [("rejected_tcp_checksum".to_owned(), 4)].into(),
    }
}

fn flood(state: FloodState, rate: u64, ended: Option<FloodEnd>) -> Flood {
    Flood { state, rate, ports: vec!["23/tcp".into(), "2323/tcp".into()], ended }
}

/// One event of each type, as the documentation shows them.
fn examples() -> Vec<Event> {
    let event = |kind| Event::new(MOMENT, kind);
    let lifted = Action { target: blocked().target, ..Action::new(ActionVerdict::Expired) };
    let end = FloodEnd { seconds: 12, sources: 2_184_900, drops: 0, blocks_held_back: 2_184_760 };
    let error = "The ring of eth0 cannot be opened: Operation not permitted; give CAP_NET_RAW".to_owned();
    vec![
        Event { start: Some(start()), ..event(EventType::Start) },
        Event { start: Some(start()), ..event(EventType::Reload) },
        Event { flow: Some(flow()), scan: Some(scan(1.0, 1)), ..event(EventType::Probe) },
        Event { flow: Some(flow()), scan: Some(scan(3.25, 3)), ..event(EventType::Scan) },
        Event {
            flow: Some(flow()),
            scan: Some(scan(3.25, 3)),
            action: Some(blocked()),
            probe: Some(probe()),
            ..event(EventType::Block)
        },
        Event {
            flow: Some(Flow::from_source(probe().source)),
            action: Some(lifted),
            ..event(EventType::Unblock)
        },
        Event { stats: Some(stats()), ..event(EventType::Stats) },
        Event { flood: Some(flood(FloodState::Began, 41_250, None)), ..event(EventType::Flood) },
        Event { flood: Some(flood(FloodState::Ended, 182_075, Some(end))), ..event(EventType::Flood) },
        Event { error: Some(error), ..event(EventType::Error) },
        Event { stats: Some(stats()), ..event(EventType::Stop) },
    ]
}

fn names(values: &impl Serialize) -> Value {
    serde_json::to_value(values).unwrap()
}

fn written(event: &Event) -> String {
    json::line(event, &TimeZone::UTC)
}

fn read(event: &Event) -> Value {
    serde_json::from_str(&written(event)).unwrap()
}

#[test]
fn an_event_of_each_type_fits_the_schema() {
    let schema = schema();
    let mut kinds = schema["properties"]["event_type"]["enum"].as_array().unwrap().clone();
    for event in examples() {
        let value = read(&event);
        assert_eq!(fault(&schema, &value), None, "{value}");
        kinds.retain(|kind| *kind != value["event_type"]);
    }
    assert_eq!(kinds, [""; 0], "types without an example");
}

#[test]
fn the_schema_knows_every_name_that_can_be_written() {
    let schema = schema();
    let all = |path: &[&str]| path.iter().fold(&schema["properties"], |value, name| &value[*name]).clone();
    use ActionVerdict::*;
    let verdicts = [Logged, Blocked, AlreadyBlocked, Ignored, Suppressed, Failed, Expired, Lifted];
    let types = [
        ScanType::Syn,
        ScanType::Connect,
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
        ScanType::Icmp,
    ];
    let protocols = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp, Protocol::Icmp, Protocol::Ip];
    assert_eq!(all(&["action", "properties", "verdict", "enum"]), names(&verdicts));
    assert_eq!(all(&["scan", "properties", "type", "enum"]), names(&types));
    assert_eq!(all(&["proto", "enum"]), names(&protocols));
}

#[test]
fn what_does_not_fit_is_noticed() {
    let schema = schema();
    let block = examples().iter().map(read).find(|event| event["event_type"] == "block").unwrap();
    let with = |path: &str, value: Value| {
        let mut changed = block.clone();
        *changed.pointer_mut(path).unwrap() = value;
        changed
    };
    let mut extra = block.clone();
    extra["surprise"] = json!(1);
    let mut bare = block.clone();
    bare.as_object_mut().unwrap().remove("action");
    for wrong in [
        extra,
        bare,
        with("/action/verdict", json!("maybe")),
        with("/dest_port", json!(65_536)),
        with("/timestamp", json!("2026-11-22 00:38:01")),
        with("/scan", json!({})),
    ] {
        assert!(fault(&schema, &wrong).is_some(), "{wrong}");
    }
}

#[test]
fn the_documentation_shows_what_is_written_and_every_field() {
    for event in examples() {
        let line = written(&event);
        assert!(DOCS.contains(&format!("```json\n{line}\n```")), "docs/events.md lacks:\n{line}");
    }
    let schema = schema();
    let mut objects = vec![(String::new(), &schema)];
    while let Some((object, rule)) = objects.pop() {
        for (name, rule) in rule["properties"].as_object().into_iter().flatten() {
            assert!(
                DOCS.contains(&format!("| `{object}{name}` |")),
                "docs/events.md has no row for {object}{name}"
            );
            objects.push((format!("{object}{name}."), rule));
        }
    }
}
