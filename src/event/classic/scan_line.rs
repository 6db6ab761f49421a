//! `Scan from: …`: one probe in one line, with the four states that say what became of it.
//!
//! Pure. No field may ever hold what could pass for another.
#![forbid(unsafe_code)]

use super::{host, type_name};
use crate::config::Mode;
use crate::detect::probe::Probe;
use crate::event::{ActionVerdict, Event, EventType, Flow};

/// The four states at the end of a `Scan from:` line; `None` is `unset`.
#[derive(Clone, Copy)]
pub(super) struct States {
    ignored: Option<bool>,
    triggered: Option<bool>,
    noblock: Option<bool>,
    blocked: Option<bool>,
}

impl States {
    pub(super) fn of(event: &Event) -> Option<States> {
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

pub(super) fn scan_line(flow: &Flow, probe: &Probe, mode: Mode, states: States) -> String {
    format!(
        "Scan from: [{}] ({}) protocol: [{}] port: [{}] type: [{}] IP opts: [{}] \
         ignored: [{}] triggered: [{}] noblock: [{}] blocked: [{}]",
        flow.src_ip,
        host(flow),
        probe.protocol,
        probe.port,
        type_name::of(probe, mode),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::classic::tests::{event, texts};

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
}
