//! Event → PortSentry's lines, word for word: scripts and log watchers of twenty years read them.
//!
//! Pure. A line never holds a character that could end it, nor a name that could forge its fields.
//!
//! | event | verdict | lines before | ignored | triggered | noblock | blocked |
//! |---|---|---|---|---|---|---|
//! | `probe` | – | | false | false | unset | unset |
//! | `scan` | – | no line yet: the `block` event of this probe brings it | | | | |
//! | any of the three | `ignored` | | true | unset | unset | unset |
//! | | `logged` | | false | true | true | false |
//! | | `blocked` | `has been blocked via …`, one for each response | false | true | false | true |
//! | | `already_blocked` | `is already blocked Ignoring` | false | true | false | true |
//! | | `suppressed`, `failed` | `Error during target dispose …` | false | true | false | false |
//!
//! The `Scan from:` line needs the event's probe: a block that an operator asked for has none, and gets only the lines
//! before it. `expired` and `lifted` belong to `unblock`; elsewhere they say nothing.
#![forbid(unsafe_code)]

use super::{Action, ActionVerdict, Deed, Event, EventType, Flood, FloodEnd, Flow, Mode, text};
use crate::detect::probe::{Probe, Protocol, ScanType};
use crate::packet::TcpFlags;

/// The line that says the daemon watches.
pub const READY: &str = "Portsentry is now active and listening.";

/// The line that says it ends.
pub const STOPPING: &str = "Portsentry is shutting down";

/// One line, without time and newline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClassicLine {
    /// `Scan from: …`: the only kind that goes to the history file.
    Scan(String),
    /// Anything else.
    Note(String),
}

impl ClassicLine {
    /// Its text.
    pub fn text(&self) -> &str {
        match self {
            ClassicLine::Scan(text) | ClassicLine::Note(text) => text,
        }
    }
}

/// The lines that tell of `event`, in order; none where PortSentry says nothing. `mode` is the daemon's.
pub fn lines(event: &Event, mode: Mode) -> Vec<ClassicLine> {
    match event.event_type {
        EventType::Start => vec![ClassicLine::Note(READY.to_owned())],
        EventType::Stop => vec![ClassicLine::Note(STOPPING.to_owned())],
        EventType::Probe | EventType::Scan | EventType::Block => source_lines(event, mode),
        EventType::Unblock => unblock_line(event).into_iter().collect(),
        EventType::Error => event.error.iter().map(|error| ClassicLine::Note(text::escaped(error))).collect(),
        EventType::Flood => event.flood.iter().map(|flood| ClassicLine::Note(flood_line(flood))).collect(),
        EventType::Stats => Vec::new(),
    }
}

/// PortSentry has no word for it.
fn flood_line(flood: &Flood) -> String {
    let ports = if flood.ports.is_empty() { "many ports".to_owned() } else { flood.ports.join(", ") };
    match &flood.ended {
        None => format!("A flood of forged sources began: {} new ones a second, to {ports}", flood.rate),
        Some(FloodEnd { seconds, sources, drops, blocks_held_back }) => format!(
            "The flood of forged sources ended after {seconds} s: {sources} of them, to {ports}; {drops} packets \
             dropped, {blocks_held_back} blocks held back"
        ),
    }
}

fn source_lines(event: &Event, mode: Mode) -> Vec<ClassicLine> {
    let Some(flow) = &event.flow else { return Vec::new() };
    let mut lines: Vec<ClassicLine> =
        event.remark.iter().map(|remark| ClassicLine::Note(text::escaped(remark))).collect();
    lines.extend(event.action.as_ref().map_or_else(Vec::new, |action| alerts(flow, action)));
    if let (Some(probe), Some(states)) = (&event.probe, States::of(event)) {
        lines.push(ClassicLine::Scan(scan_line(flow, probe, mode, states)));
    }
    lines
}

/// The four states at the end of a `Scan from:` line; `None` is `unset`.
#[derive(Clone, Copy)]
struct States {
    ignored: Option<bool>,
    triggered: Option<bool>,
    noblock: Option<bool>,
    blocked: Option<bool>,
}

impl States {
    fn of(event: &Event) -> Option<States> {
        let below = States { ignored: Some(false), triggered: Some(false), noblock: None, blocked: None };
        match &event.action {
            Some(action) => States::after(action.verdict),
            None => (event.event_type == EventType::Probe).then_some(below),
        }
    }

    fn after(verdict: ActionVerdict) -> Option<States> {
        let triggered = |noblock, blocked| States {
            ignored: Some(false),
            triggered: Some(true),
            noblock: Some(noblock),
            blocked: Some(blocked),
        };
        match verdict {
            ActionVerdict::Ignored => {
                Some(States { ignored: Some(true), triggered: None, noblock: None, blocked: None })
            }
            ActionVerdict::Logged => Some(triggered(true, false)),
            ActionVerdict::Blocked | ActionVerdict::AlreadyBlocked => Some(triggered(false, true)),
            ActionVerdict::Suppressed | ActionVerdict::Failed => Some(triggered(false, false)),
            ActionVerdict::Expired | ActionVerdict::Lifted => None,
        }
    }
}

fn scan_line(flow: &Flow, probe: &Probe, mode: Mode, states: States) -> String {
    format!(
        "Scan from: [{}] ({}) protocol: [{}] port: [{}] type: [{}] IP opts: [{}] \
         ignored: [{}] triggered: [{}] noblock: [{}] blocked: [{}]",
        flow.src_ip,
        host(flow),
        protocol_name(probe.protocol),
        probe.port,
        type_name(probe, mode),
        probe.ip_options.map_or("unknown", |set| if set { "set" } else { "not set" }),
        shown(states.ignored),
        shown(states.triggered),
        shown(states.noblock),
        shown(states.blocked),
    )
}

fn shown(state: Option<bool>) -> &'static str {
    state.map_or("unset", |state| if state { "true" } else { "false" })
}

fn host(flow: &Flow) -> String {
    flow.src_host.as_deref().map_or_else(|| flow.src_ip.to_string(), text::host_name)
}

fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
        Protocol::Sctp => "SCTP",
        Protocol::Icmp => "ICMP",
        Protocol::Ip => "IP",
    }
}

/// PortSentry's names; where it has none, those of the `scan.type` field. In connect mode it has but one, for UDP too.
fn type_name(probe: &Probe, mode: Mode) -> String {
    match mode {
        Mode::Connect => "Connect".to_owned(),
        Mode::Stealth => kind_name(probe),
    }
}

fn kind_name(probe: &Probe) -> String {
    let name = match probe.scan_type {
        ScanType::Connect => "Connect",
        ScanType::Syn | ScanType::Null | ScanType::Fin | ScanType::Xmas | ScanType::OtherFlags => {
            return flags_name(probe.flags);
        }
        ScanType::Udp => "UDP",
        ScanType::Maimon => "maimon",
        ScanType::Ack => "ack",
        ScanType::SctpInit => "sctp_init",
        ScanType::SctpCookieEcho => "sctp_cookie_echo",
        ScanType::IpProtocol => "ip_protocol",
        ScanType::Icmp => "icmp",
    };
    name.to_owned()
}

/// PortSentry goes by the flags alone: what is a SYN to the score (with PSH, say) may have another name here, no flag at
/// all means none of the eight, and FIN with PSH and URG is XMAS whatever else is set.
fn flags_name(flags: TcpFlags) -> String {
    const XMAS: u8 = TcpFlags::FIN | TcpFlags::PSH | TcpFlags::URG;
    let name = match (flags.0, flags.classic()) {
        (0, _) => "TCP NULL scan",
        _ if flags.has(XMAS) => "TCP XMAS scan",
        (_, TcpFlags::FIN) => "TCP FIN scan",
        (_, TcpFlags::SYN) => "TCP SYN/Normal scan",
        _ => return unknown_type(flags),
    };
    name.to_owned()
}

fn unknown_type(flags: TcpFlags) -> String {
    let bit = |bit| u8::from(flags.has(bit));
    format!(
        "Unknown Type: TCP Packet Flags: SYN: {} FIN: {} ACK: {} PSH: {} URG: {} RST: {}",
        bit(TcpFlags::SYN),
        bit(TcpFlags::FIN),
        bit(TcpFlags::ACK),
        bit(TcpFlags::PSH),
        bit(TcpFlags::URG),
        bit(TcpFlags::RST),
    )
}

fn alerts(flow: &Flow, action: &Action) -> Vec<ClassicLine> {
    match action.verdict {
        ActionVerdict::Blocked => block_lines(flow, action),
        ActionVerdict::AlreadyBlocked => vec![ClassicLine::Note(format!(
            "attackalert: Host: {}/{} is already blocked Ignoring",
            host(flow),
            flow.src_ip
        ))],
        ActionVerdict::Suppressed | ActionVerdict::Failed => vec![failure_line(flow, action)],
        ActionVerdict::Logged | ActionVerdict::Ignored => Vec::new(),
        ActionVerdict::Expired | ActionVerdict::Lifted => Vec::new(),
    }
}

fn block_lines(flow: &Flow, action: &Action) -> Vec<ClassicLine> {
    let time = action.seconds.map_or_else(String::new, |seconds| format!(" for {seconds} seconds"));
    let host = target(flow, action);
    let line = |deed: &Deed| match deed {
        Deed::Shut(with) => format!("attackalert: Host {host} has been blocked via {with}{time}"),
        Deed::Wrappers(line) => {
            format!(
                "attackalert: Host {host} has been blocked via wrappers with string: \"{}\"",
                printable(line)
            )
        }
        Deed::Route(command) => format!(
            "attackalert: Host {host} has been blocked via dropped route using command: \"{}\"",
            printable(command)
        ),
        Deed::Ran(command) => {
            format!(
                "attackalert: External command run for host: {host} using command: \"{}\"",
                printable(command)
            )
        }
    };
    let mut lines: Vec<ClassicLine> = action.deeds.iter().map(|deed| ClassicLine::Note(line(deed))).collect();
    // Blocked, but not by all that was asked to.
    lines.extend(action.error.is_some().then(|| failure_line(flow, action)));
    lines
}

/// The administrator's own text, byte for byte; the configuration lets no control character through.
fn printable(text: &str) -> String {
    text.chars().map(|c| if text::is_unprintable(c) { '?' } else { c }).collect()
}

fn failure_line(flow: &Flow, action: &Action) -> ClassicLine {
    let reason =
        action.error.as_deref().map_or_else(String::new, |error| format!(" {}", text::escaped(error)));
    ClassicLine::Note(format!(
        "attackalert: Error during target dispose {}/{}!{reason}",
        host(flow),
        flow.src_ip
    ))
}

fn unblock_line(event: &Event) -> Option<ClassicLine> {
    let (flow, action) = (event.flow.as_ref()?, event.action.as_ref()?);
    let why = match action.verdict {
        ActionVerdict::Expired => "its time is over",
        ActionVerdict::Lifted => "lifted by an operator",
        ActionVerdict::Failed => return Some(failure_line(flow, action)),
        ActionVerdict::Logged | ActionVerdict::Blocked | ActionVerdict::AlreadyBlocked => return None,
        ActionVerdict::Ignored | ActionVerdict::Suppressed => return None,
    };
    Some(ClassicLine::Note(format!("attackalert: Host {} has been unblocked: {why}", target(flow, action))))
}

/// The prefix where one was blocked in the source's place, else the source.
fn target(flow: &Flow, action: &Action) -> String {
    match &action.target {
        Some(target) if target.prefix_len() < target.max_prefix_len() => target.to_string(),
        Some(target) => target.addr().to_string(),
        None => flow.src_ip.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn probe(scan_type: ScanType, flags: u8) -> Probe {
        Probe {
            source: "10.0.0.1".parse().unwrap(),
            destination: "10.0.0.2".parse().unwrap(),
            source_port: 40_000,
            port: 23,
            protocol: Protocol::Tcp,
            scan_type,
            flags: TcpFlags(flags),
            sequence: 7,
            ip_options: Some(false),
            verified: false,
        }
    }

    fn event(event_type: EventType, action: Option<Action>) -> Event {
        let probe = probe(ScanType::Syn, TcpFlags::SYN);
        Event { flow: Some(Flow::from(&probe)), action, probe: Some(probe), ..Event::new(0, event_type) }
    }

    fn texts(event: &Event) -> Vec<String> {
        lines(event, Mode::Stealth).iter().map(|line| line.text().to_owned()).collect()
    }

    const HEAD: &str = "Scan from: [10.0.0.1] (10.0.0.1) protocol: [TCP] port: [23] type: [TCP SYN/Normal scan] \
                        IP opts: [not set] ";

    #[test]
    fn each_row_of_the_state_table_is_exact() {
        let dispose = "attackalert: Error during target dispose 10.0.0.1/10.0.0.1!";
        let already = "attackalert: Host: 10.0.0.1/10.0.0.1 is already blocked Ignoring";
        let rows = [
            (
                ActionVerdict::Ignored,
                vec![],
                "ignored: [true] triggered: [unset] noblock: [unset] blocked: [unset]",
            ),
            (
                ActionVerdict::Logged,
                vec![],
                "ignored: [false] triggered: [true] noblock: [true] blocked: [false]",
            ),
            (
                ActionVerdict::Blocked,
                vec![],
                "ignored: [false] triggered: [true] noblock: [false] blocked: [true]",
            ),
            (
                ActionVerdict::AlreadyBlocked,
                vec![already],
                "ignored: [false] triggered: [true] noblock: [false] blocked: [true]",
            ),
            (
                ActionVerdict::Failed,
                vec![dispose],
                "ignored: [false] triggered: [true] noblock: [false] blocked: [false]",
            ),
            (
                ActionVerdict::Suppressed,
                vec![dispose],
                "ignored: [false] triggered: [true] noblock: [false] blocked: [false]",
            ),
        ];
        for (verdict, before, states) in rows {
            for kind in [EventType::Probe, EventType::Scan, EventType::Block] {
                let mut expected: Vec<String> = before.iter().map(|&line| line.to_owned()).collect();
                expected.push(format!("{HEAD}{states}"));
                assert_eq!(texts(&event(kind, Some(Action::new(verdict)))), expected, "{kind:?} {verdict:?}");
            }
        }
    }

    #[test]
    fn a_probe_below_the_trigger_has_its_line_and_a_scan_waits_for_its_outcome() {
        let states = "ignored: [false] triggered: [false] noblock: [unset] blocked: [unset]";
        assert_eq!(texts(&event(EventType::Probe, None)), [format!("{HEAD}{states}")]);
        assert_eq!(texts(&event(EventType::Scan, None)), [""; 0]);
    }

    #[test]
    fn every_response_says_that_it_blocked_before_the_scan_line() {
        let action = Action {
            deeds: vec![
                Deed::Shut("nftables"),
                Deed::Wrappers("ALL: 10.0.0.1".into()),
                Deed::Route("/x \\ 10.0.0.1".into()),
                Deed::Ran("/y 10.0.0.1 23 stealth".into()),
            ],
            error: Some("route: no".into()),
            seconds: Some(3600),
            ..Action::new(ActionVerdict::Blocked)
        };
        let lines = lines(&event(EventType::Block, Some(action)), Mode::Stealth);
        assert_eq!(
            lines[0].text(),
            "attackalert: Host 10.0.0.1 has been blocked via nftables for 3600 seconds"
        );
        for (line, text) in lines[1..].iter().zip([
            "attackalert: Host 10.0.0.1 has been blocked via wrappers with string: \"ALL: 10.0.0.1\"",
            "attackalert: Host 10.0.0.1 has been blocked via dropped route using command: \"/x \\ 10.0.0.1\"",
            "attackalert: External command run for host: 10.0.0.1 using command: \"/y 10.0.0.1 23 stealth\"",
            "attackalert: Error during target dispose 10.0.0.1/10.0.0.1! route: no",
        ]) {
            assert_eq!(line.text(), text);
        }
        assert!(matches!(&lines[5], ClassicLine::Scan(text) if text.ends_with("blocked: [true]")));
        assert_eq!(lines.len(), 6);
    }

    #[test]
    fn a_prefix_is_named_as_what_was_blocked_and_unblocked() {
        let flow = Flow::from_source("2001:db8::7".parse().unwrap());
        let action = |verdict, target: &str| Action { target: target.parse().ok(), ..Action::new(verdict) };
        let unblock = |action| Event {
            flow: Some(flow.clone()),
            action: Some(action),
            ..Event::new(0, EventType::Unblock)
        };
        assert_eq!(
            texts(&unblock(action(ActionVerdict::Expired, "2001:db8::/64"))),
            ["attackalert: Host 2001:db8::/64 has been unblocked: its time is over"]
        );
        assert_eq!(
            texts(&unblock(action(ActionVerdict::Lifted, "2001:db8::7/128"))),
            ["attackalert: Host 2001:db8::7 has been unblocked: lifted by an operator"]
        );
    }

    #[test]
    fn types_have_upstreams_names() {
        let named = |scan_type, flags| type_name(&probe(scan_type, flags), Mode::Stealth);
        assert_eq!(named(ScanType::Connect, 0), "Connect");
        assert_eq!(named(ScanType::Udp, 0), "UDP");
        assert_eq!(type_name(&probe(ScanType::Udp, 0), Mode::Connect), "Connect");
        assert_eq!(named(ScanType::Null, 0), "TCP NULL scan");
        assert_eq!(named(ScanType::Xmas, 0x29), "TCP XMAS scan");
        assert_eq!(named(ScanType::Fin, 1), "TCP FIN scan");
        assert_eq!(named(ScanType::Maimon, 0x11), "maimon");
        // ECE and CWR: nothing to a SYN or a FIN, but not "no flag at all".
        assert_eq!(named(ScanType::Syn, 0xc2), "TCP SYN/Normal scan");
        assert_eq!(named(ScanType::Fin, 0x41), "TCP FIN scan");
        assert!(named(ScanType::Null, 0x40).ends_with("SYN: 0 FIN: 0 ACK: 0 PSH: 0 URG: 0 RST: 0"));
        assert!(named(ScanType::Syn, 0x0a).ends_with("SYN: 1 FIN: 0 ACK: 0 PSH: 1 URG: 0 RST: 0"));
        assert_eq!(named(ScanType::OtherFlags, 0x2b), "TCP XMAS scan");
        assert_eq!(
            named(ScanType::OtherFlags, TcpFlags::SYN | TcpFlags::FIN | TcpFlags::RST),
            "Unknown Type: TCP Packet Flags: SYN: 1 FIN: 1 ACK: 0 PSH: 0 URG: 0 RST: 1"
        );
    }

    #[test]
    fn the_name_server_of_the_attacker_cannot_forge_fields() {
        let mut event = event(EventType::Probe, None);
        if let Some(flow) = &mut event.flow {
            flow.src_host = Some("x) blocked: [true]\n".into());
        }
        let line = texts(&event).remove(0);
        assert!(line.contains("(x??blocked:??true??) protocol: [TCP]"), "{line}");
    }

    #[test]
    fn options_and_their_absence_are_told_apart() {
        for (options, text) in [(Some(true), "[set]"), (Some(false), "[not set]"), (None, "[unknown]")] {
            let mut event = event(EventType::Probe, None);
            event.probe = event.probe.map(|probe| Probe { ip_options: options, ..probe });
            assert!(texts(&event)[0].contains(&format!("IP opts: {text} ignored")));
        }
    }

    proptest! {
        #[test]
        fn no_event_breaks_a_line(event in super::super::json::tests::any_event()) {
            for line in lines(&event, Mode::Stealth) {
                prop_assert!(!line.text().chars().any(text::is_unprintable), "{line:?}");
            }
        }
    }
}
