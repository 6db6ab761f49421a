//! What `check` shows: every key with its value and origin, then what the daemon would do with them.
//!
//! Pure.
#![forbid(unsafe_code)]

use std::fmt::Write;

use super::duration::show_duration;
use super::{BlockMode, Config, Interfaces, Loaded, Mode, PortSet, Setting};
use crate::protocol::Response;
use crate::protocol::settings::LONGEST_BLOCK;

/// The whole report, ending in a newline.
pub fn render_effective(loaded: &Loaded) -> String {
    let mut out = format!("configuration {}\n\n", loaded.name);
    let width = loaded.settings.iter().map(|setting| setting.key.name.len()).max().unwrap_or(0);
    for setting in &loaded.settings {
        let _ =
            writeln!(out, "{:width$}  {:<40}  {}", setting.key.name, value(setting), setting.origin.brief());
    }
    out.push_str("\nwould\n");
    for (what, how) in intentions(loaded) {
        let _ = writeln!(out, "  {what:12}  {how}");
    }
    out
}

fn value(setting: &Setting) -> String {
    match setting.text.is_empty() {
        true => "(not set)".into(),
        false => format!("\"{}\"", setting.text),
    }
}

fn intentions(loaded: &Loaded) -> Vec<(&'static str, String)> {
    let config = &loaded.config;
    vec![
        ("mode", mode(config.flags.mode).into()),
        ("listen on", interfaces(&config.interfaces)),
        ("watch TCP", ports(&config.tcp_ports)),
        ("watch UDP", ports(&config.udp_ports)),
        ("decoys TCP", ports(&config.decoy_tcp_ports)),
        ("decoys UDP", ports(&config.decoy_udp_ports)),
        ("alarm", alarm(config.scan_trigger)),
        ("other ports", other_ports(config)),
        ("tripwire", config.why_no_tripwire().map_or_else(|| "on".into(), |why| format!("off: {why}"))),
        ("TCP alarm", response(config.block_tcp, config)),
        ("UDP alarm", response(config.block_udp, config)),
        ("never block", protected(loaded)),
    ]
}

fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Stealth => "stealth: watch packets, bind decoys alone",
        Mode::Connect => "connect: bind the watched ports, watch no packets",
    }
}

fn interfaces(interfaces: &Interfaces) -> String {
    match interfaces {
        Interfaces::All => "every interface, loopback too".into(),
        Interfaces::AllButLoopback => "every interface but loopback".into(),
        Interfaces::Named(names) => names.join(", "),
    }
}

fn ports(ports: &PortSet) -> String {
    match ports.len() {
        0 => "none".into(),
        1 => format!("1 port: {ports}"),
        count => format!("{count} ports: {ports}"),
    }
}

fn alarm(trigger: u32) -> String {
    match trigger {
        0 | 1 => "at the first probe of a watched port".into(),
        count => format!("after {count} probes of watched ports by one source"),
    }
}

/// Without packets nobody is seen to ask for a port that is not bound.
fn other_ports(config: &Config) -> String {
    let level = config.sensitivity;
    match (config.flags.mode, level.failures()) {
        (Mode::Connect, _) => "not watched (--connect)".into(),
        (Mode::Stealth, None) => format!("not watched (SENSITIVITY {})", level.name()),
        (Mode::Stealth, Some(count)) => {
            format!("alarm after {count} failed contacts with different ports (SENSITIVITY {})", level.name())
        }
    }
}

fn response(mode: BlockMode, config: &Config) -> String {
    match mode {
        BlockMode::Log => "log only".into(),
        BlockMode::RunCommand => "run KILL_RUN_CMD".into(),
        BlockMode::Block => format!("block with {}{}", with(config), length(config)),
    }
}

fn with(config: &Config) -> String {
    let name = |response: &Response| match response {
        Response::Nftables | Response::Iptables | Response::Route => response.name().to_owned(),
        Response::HostsDeny => format!("a line in {}", config.hosts_deny_file.display()),
        Response::Command => "KILL_ROUTE".to_owned(),
        Response::RunCommand => "KILL_RUN_CMD".to_owned(),
    };
    config.block_with.iter().map(name).collect::<Vec<String>>().join(", ")
}

fn length(config: &Config) -> String {
    let shown = |seconds: u32| show_duration(seconds.min(LONGEST_BLOCK));
    let first = format!(" for {}", shown(config.block_time));
    match config.block_time_factor {
        0 | 1 => first,
        factor => format!("{first}, {factor} times longer each time, up to {}", shown(config.block_time_max)),
    }
}

/// The list itself may be thousands of lines long: it is shown whole only while it is short.
fn protected(loaded: &Loaded) -> String {
    let given: Vec<String> = loaded.never_block().map(|network| network.to_string()).collect();
    let shown: Vec<&str> = given.iter().take(8).map(String::as_str).collect();
    let more = given.len().saturating_sub(shown.len());
    let counts = format!(
        "{} of NEVER_BLOCK and {} of IGNORE_FILE",
        loaded.config.never_block.len(),
        loaded.ignored.len()
    );
    let list = match (shown.is_empty(), more) {
        (true, _) => String::new(),
        (false, 0) => format!(" ({})", shown.join(", ")),
        (false, more) => format!(" ({} and {more} more)", shown.join(", ")),
    };
    format!("{counts}{list}; and this host's own addresses, gateways, resolvers, loopback, multicast")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Flags, Origin, Override, Overrides, keys::KEYS, parse};

    fn shown(text: &str, overrides: &Overrides) -> String {
        render_effective(&parse("conf", text.as_bytes(), overrides).unwrap())
    }

    #[test]
    fn every_key_is_shown_with_its_value_and_where_it_came_from() {
        let origin = Origin::CommandLine("-i");
        let overrides = Overrides {
            settings: vec![Override { key: "INTERFACES", text: "eth7".into(), origin }],
            ..Overrides::default()
        };
        let report = shown("# first\nTCP_PORTS=\"1,7,20-25\"\nBLOCK_TCP=1\n", &overrides);
        let line =
            |key: &str| report.lines().find(|line| line.split(' ').next() == Some(key)).unwrap().to_string();
        for key in KEYS {
            assert!(!line(key.name).is_empty());
        }
        assert!(line("TCP_PORTS").contains("\"1,7,20-25\"") && line("TCP_PORTS").ends_with("  line 2"));
        assert!(line("BLOCK_TIME").contains("\"1h\"") && line("BLOCK_TIME").ends_with("  default"));
        assert!(line("INTERFACES").contains("\"eth7\"") && line("INTERFACES").ends_with("  command line -i"));
        assert!(line("RUN_AS").contains("(not set)"));
    }

    #[test]
    fn what_would_be_done_is_said_in_words() {
        let text =
            "TCP_PORTS=1,7,20-25\nDECOY_TCP_PORTS=21\nBLOCK_TCP=1\nSCAN_TRIGGER=3\nNEVER_BLOCK=192.0.2.1/24";
        let report = shown(text, &Overrides::default());
        for words in [
            "8 ports: 1,7,20-25",
            "1 port: 21",
            "every interface but loopback",
            "after 3 probes of watched ports",
            "block with nftables for 1h, 2 times longer each time, up to 7d",
            "log only",
            "1 of NEVER_BLOCK and 0 of IGNORE_FILE (192.0.2.0/24); and this host's own",
        ] {
            assert!(report.contains(words), "{words}\n{report}");
        }
    }

    #[test]
    fn that_ports_which_nobody_named_are_watched_too_is_said_with_the_number_in_force() {
        for (line, mode, words) in [
            ("", Mode::Stealth, "alarm after 9 failed contacts with different ports (SENSITIVITY medium)"),
            ("SENSITIVITY=low", Mode::Stealth, "after 14 failed contacts"),
            ("SENSITIVITY=high", Mode::Stealth, "after 4 failed contacts"),
            ("SENSITIVITY=off", Mode::Stealth, "not watched (SENSITIVITY off)"),
            ("SENSITIVITY=high", Mode::Connect, "not watched (--connect)"),
        ] {
            let flags = Flags { mode, ..Flags::default() };
            let report = shown(&format!("TCP_PORTS=1\n{line}"), &Overrides { flags, ..Overrides::default() });
            let row = report.lines().find(|row| row.starts_with("  other ports ")).unwrap_or_default();
            assert!(row.contains(words), "{line}: {row}\n{report}");
        }
    }

    #[test]
    fn a_long_list_is_counted_not_poured_out() {
        let many: Vec<String> = (0..20).map(|last| format!("192.0.2.{last}")).collect();
        let report =
            shown(&format!("TCP_PORTS=1\nNEVER_BLOCK=\"{}\"", many.join(",")), &Overrides::default());
        assert!(report.contains("192.0.2.7/32 and 12 more"), "{report}");
    }
}
