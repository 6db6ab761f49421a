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

mod alerts;
mod scan_line;
mod type_name;

use self::alerts::{alerts, unblock_line};
use self::scan_line::{States, scan_line};
use super::{Event, EventType, Flood, FloodEnd, Flow, text};
use crate::config::Mode;

/// The line that says the daemon watches.
pub const READY: &str = "Portsentry is now active and listening.";

/// The line that says it has read its configuration again; PortSentry, which does not, has no word for it.
pub const RELOADED: &str = "The configuration was read again";

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
        EventType::Reload => vec![ClassicLine::Note(RELOADED.to_owned())],
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

fn host(flow: &Flow) -> String {
    flow.src_host.as_deref().map_or_else(|| flow.src_ip.to_string(), text::host_name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::detect::probe::samples::syn;
    use crate::detect::probe::{Probe, ScanType};
    use crate::event::{Action, ActionVerdict};
    use crate::packet::TcpFlags;

    pub(super) fn probe(scan_type: ScanType, flags: u8) -> Probe {
        Probe { scan_type, flags: TcpFlags(flags), ..syn("10.0.0.1", 23) }
    }

    pub(super) fn event(event_type: EventType, action: Option<Action>) -> Event {
        let probe = probe(ScanType::Syn, TcpFlags::SYN);
        Event { flow: Some(Flow::from(&probe)), action, probe: Some(probe), ..Event::new(0, event_type) }
    }

    pub(super) fn texts(event: &Event) -> Vec<String> {
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

    proptest! {
        #[test]
        fn no_event_breaks_a_line(event in super::super::json::tests::any_event()) {
            for line in lines(&event, Mode::Stealth) {
                prop_assert!(!line.text().chars().any(text::is_unprintable), "{line:?}");
            }
        }
    }
}
