//! `attackalert: …`: what was done against a source, or could not be, and when it was undone.
//!
//! Pure. Must never say that a host has been blocked where nothing blocked it.
#![forbid(unsafe_code)]

use super::{ClassicLine, host};
use crate::event::{Action, ActionVerdict, Deed, Event, Flow, text};

pub(super) fn alerts(flow: &Flow, action: &Action) -> Vec<ClassicLine> {
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

pub(super) fn unblock_line(event: &Event) -> Option<ClassicLine> {
    let (flow, action) = (event.flow.as_ref()?, event.action.as_ref()?);
    let why = match action.verdict {
        ActionVerdict::Expired => "its time is over",
        ActionVerdict::Lifted if action.spared => "it is never blocked from now on",
        ActionVerdict::Lifted => "lifted by an operator",
        ActionVerdict::Failed => return Some(failure_line(flow, action)),
        ActionVerdict::Logged | ActionVerdict::Blocked | ActionVerdict::AlreadyBlocked => return None,
        ActionVerdict::Ignored | ActionVerdict::Suppressed => return None,
    };
    // Not all of it is gone.
    let but = action.error.as_deref().map_or_else(String::new, |error| format!(". {}", text::escaped(error)));
    let host = target(flow, action);
    Some(ClassicLine::Note(format!("attackalert: Host {host} has been unblocked: {why}{but}")))
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
    use super::*;
    use crate::config::Mode;
    use crate::event::EventType;
    use crate::event::classic::lines;
    use crate::event::classic::tests::{event, texts};

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
    fn what_a_terminal_would_obey_in_a_command_is_not_passed_on() {
        let deeds = vec![
            Deed::Wrappers("ALL:\u{202e} x".into()),
            Deed::Route("/x\u{1b}[2J".into()),
            Deed::Ran("/y\nz".into()),
        ];
        let action = Action { deeds, ..Action::new(ActionVerdict::Blocked) };
        for line in lines(&event(EventType::Block, Some(action)), Mode::Stealth) {
            assert!(!line.text().contains(text::is_unprintable), "{line:?}");
        }
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
        let error = Some("What KILL_ROUTE did stays.".to_owned());
        let in_part = Action { error, ..action(ActionVerdict::Expired, "2001:db8::7/128") };
        assert_eq!(
            texts(&unblock(in_part)),
            [
                "attackalert: Host 2001:db8::7 has been unblocked: its time is over. What KILL_ROUTE did stays."
            ]
        );
        let spared = Action { spared: true, ..action(ActionVerdict::Lifted, "2001:db8::7/128") };
        assert_eq!(
            texts(&unblock(spared)),
            ["attackalert: Host 2001:db8::7 has been unblocked: it is never blocked from now on"]
        );
    }
}
