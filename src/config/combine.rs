//! What follows from several keys together, and what contradicts itself.
//!
//! Pure; works on values that are right one by one.
#![forbid(unsafe_code)]

use super::duration::show_duration;
use super::error::{ConfigError, Origin, few};
use super::networks::doubts;
use super::{BlockMode, Config, Loaded, PortSet, WatchedPorts};
use crate::detect::weights::TRIGGER_MAX;
use crate::protocol::settings::Response;

/// Completes `loaded.config`; `faults` are those of single values.
pub(super) fn finish(loaded: &mut Loaded, faults: &[ConfigError]) -> Vec<ConfigError> {
    let mut errors = Vec::new();
    watched_protocols(&mut loaded.config);
    errors.extend(route_missing(loaded));
    complete_responses(&mut loaded.config);
    errors.extend(longest_block(loaded));
    errors.extend(among_the_ledger(loaded));
    // With a fault among the values "nothing is set" may be untrue.
    if faults.is_empty() {
        errors.extend(nothing_to_watch(loaded));
    }
    errors.extend(command_missing(loaded));
    let beyond = trigger_out_of_reach(loaded);
    loaded.warnings.extend(beyond);
    loaded.warnings.extend(line_with_port(loaded));
    loaded.warnings.extend(doubtful_networks(loaded));
    errors
}

/// Native nftables unless something else was chosen; then what the KILL_ keys imply, in PortSentry's order: KILL_RUN_CMD if
/// it comes first, hosts.deny, KILL_ROUTE, KILL_RUN_CMD otherwise.
pub(super) fn complete_responses(config: &mut Config) {
    let mut responses = std::mem::take(&mut config.block_with);
    if responses.is_empty() && config.kill_route.is_none() && config.kill_hosts_deny.is_none() {
        responses.push(Response::Nftables);
    }
    let implied = [
        (Response::HostsDeny, config.kill_hosts_deny.is_some()),
        (Response::Command, config.kill_route.is_some()),
    ];
    let missing = implied.into_iter().filter(|(response, set)| *set && !responses.contains(response));
    responses.extend(missing.map(|(response, _)| response).collect::<Vec<_>>());
    if responses.contains(&Response::HostsDeny) {
        config.kill_hosts_deny.get_or_insert_with(|| "ALL: $TARGET$".to_owned());
    }
    if config.kill_run_cmd.is_some() {
        let place = if config.kill_run_cmd_first { 0 } else { responses.len() };
        responses.insert(place, Response::RunCommand);
    }
    config.block_with = responses;
}

fn route_missing(loaded: &Loaded) -> Option<ConfigError> {
    let config = &loaded.config;
    let asked = config.block_with.contains(&Response::Command) && config.kill_route.is_none();
    let message = "BLOCK_WITH: command needs KILL_ROUTE; set it or take command out";
    asked.then(|| ConfigError::new(loaded.origin("BLOCK_WITH"), message))
}

/// `-tcp`, `-audp` and their like.
fn watched_protocols(config: &mut Config) {
    let tcp_advanced = PortSet::below(config.advanced_ports_tcp).without(&config.advanced_exclude_tcp);
    let udp_advanced = PortSet::below(config.advanced_ports_udp).without(&config.advanced_exclude_udp);
    watched(config.flags.tcp, &mut config.tcp_ports, &mut config.decoy_tcp_ports, tcp_advanced);
    watched(config.flags.udp, &mut config.udp_ports, &mut config.decoy_udp_ports, udp_advanced);
}

fn watched(watch: WatchedPorts, ports: &mut PortSet, decoys: &mut PortSet, advanced: PortSet) {
    match watch {
        WatchedPorts::Listed => {}
        WatchedPorts::Advanced => *ports = advanced,
        WatchedPorts::Nothing => (*ports, *decoys) = (PortSet::new(), PortSet::new()),
    }
}

fn longest_block(loaded: &mut Loaded) -> Option<ConfigError> {
    let config = &mut loaded.config;
    if config.block_time <= config.block_time_max {
        return None;
    }
    let shortest = config.block_time;
    let origin = loaded.origin("BLOCK_TIME_MAX");
    // Only BLOCK_TIME was set: the default of the other follows.
    if origin == Origin::Default {
        loaded.config.block_time_max = shortest;
        return None;
    }
    let what = format!("BLOCK_TIME_MAX is less than BLOCK_TIME ({})", show_duration(shortest));
    Some(ConfigError::new(origin, format!("{what}; raise it or lower BLOCK_TIME")))
}

/// The start gives STATE_DIR away, and so takes none with anything in it but the ledger: with a file of ours it would go
/// well once, and then never again.
fn among_the_ledger(loaded: &Loaded) -> Vec<ConfigError> {
    let config = &loaded.config;
    let files = [
        ("HISTORY_FILE", config.history_file.as_deref()),
        ("BLOCKED_FILE", config.blocked_file.as_deref()),
        ("CONTROL_SOCKET", Some(&*config.control_socket)),
    ];
    let inside =
        files.into_iter().filter(|(_, path)| path.is_some_and(|path| path.starts_with(&config.state_dir)));
    let told = inside.map(|(key, _)| {
        let folder = config.state_dir.display();
        let message = format!(
            "{key}: it lies in STATE_DIR ({folder}), which holds the ledger alone; name another folder"
        );
        let origins = [loaded.origin(key), loaded.origin("STATE_DIR")];
        let written = origins.into_iter().find(|origin| *origin != Origin::Default);
        ConfigError::new(written.unwrap_or(Origin::Default), message)
    });
    told.collect()
}

fn nothing_to_watch(loaded: &Loaded) -> Option<ConfigError> {
    let config = &loaded.config;
    let sets = [&config.tcp_ports, &config.udp_ports, &config.decoy_tcp_ports, &config.decoy_udp_ports];
    if sets.iter().any(|ports| !ports.is_empty()) {
        return None;
    }
    let which = match (config.flags.tcp, config.flags.udp) {
        (WatchedPorts::Nothing, _) => "UDP_PORTS or DECOY_UDP_PORTS",
        (_, WatchedPorts::Nothing) => "TCP_PORTS or DECOY_TCP_PORTS",
        _ => "at least one of TCP_PORTS, UDP_PORTS, DECOY_TCP_PORTS and DECOY_UDP_PORTS",
    };
    let origin = Origin::WholeFile(loaded.name.clone());
    Some(ConfigError::new(origin, format!("there is no port to watch; set {which}")))
}

/// PortSentry takes any number, and many a file has one that it never reaches. Scores do not go so far: it is the number
/// in force that everybody is told from here on.
fn trigger_out_of_reach(loaded: &mut Loaded) -> Option<ConfigError> {
    let asked = loaded.config.scan_trigger;
    loaded.config.scan_trigger = asked.min(TRIGGER_MAX);
    let message = format!(
        "SCAN_TRIGGER: {asked} acts as {TRIGGER_MAX}, the most probes that are counted; BLOCK_TCP=0 and BLOCK_UDP=0 \
         only tell"
    );
    (asked > TRIGGER_MAX).then(|| ConfigError::new(loaded.origin("SCAN_TRIGGER"), message))
}

/// A line is found again by what stands in it when the block ends, and the port is not kept so long.
fn line_with_port(loaded: &Loaded) -> Option<ConfigError> {
    let has_port = loaded.config.kill_hosts_deny.as_deref().is_some_and(|line| line.contains("$PORT$"));
    let message = "KILL_HOSTS_DENY: $PORT$ is always 0 in a line that is taken out again when the block ends; KILL_RUN_CMD \
                   knows the port";
    has_port.then(|| ConfigError::new(loaded.origin("KILL_HOSTS_DENY"), message))
}

fn doubtful_networks(loaded: &Loaded) -> Vec<ConfigError> {
    let setting = loaded.settings.iter().find(|setting| setting.key.name == "NEVER_BLOCK");
    let told = setting.into_iter().flat_map(|setting| {
        let place = |at| setting.origin.advanced(&setting.text, at);
        doubts(&setting.text)
            .map(move |(at, doubt)| ConfigError::new(place(at), format!("NEVER_BLOCK: {doubt}")))
    });
    few(told)
}

fn command_missing(loaded: &Loaded) -> Option<ConfigError> {
    let config = &loaded.config;
    let modes = [("BLOCK_TCP", config.block_tcp), ("BLOCK_UDP", config.block_udp)];
    let asks = modes.iter().find(|(_, mode)| *mode == BlockMode::RunCommand);
    let (key, _) = asks.filter(|_| config.kill_run_cmd.is_none())?;
    Some(ConfigError::new(
        loaded.origin(key),
        format!("{key}=2 needs KILL_RUN_CMD; set it, or {key} to 0 or 1"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::build::tests::{bad, good};
    use crate::config::effective::render_effective;
    use crate::config::{FOREVER, Flags, Overrides, parse};

    fn with_flags(text: &str, tcp: WatchedPorts, udp: WatchedPorts) -> Result<Loaded, Vec<ConfigError>> {
        let flags = Flags { tcp, udp, ..Flags::default() };
        parse("conf", text.as_bytes(), &Overrides { flags, ..Overrides::default() })
    }

    #[test]
    fn a_line_of_hosts_deny_that_names_the_port_is_taken_and_warned_of() {
        let loaded = good("TCP_PORTS=1\nKILL_HOSTS_DENY=\"ALL: $TARGET$ : spawn log $PORT$\"");
        let warned = loaded.warnings[0].to_string();
        assert!(warned.starts_with("conf:2:18: KILL_HOSTS_DENY: $PORT$ is always 0"), "{warned}");
    }

    #[test]
    fn a_trigger_that_no_score_reaches_is_taken_and_the_one_in_force_is_told() {
        assert!(good("TCP_PORTS=1\nSCAN_TRIGGER=1000").warnings.is_empty());
        for asked in ["1001", "100000", "2147483647"] {
            let loaded = good(&format!("TCP_PORTS=1\nSCAN_TRIGGER={asked}"));
            let warned = loaded.warnings[0].to_string();
            assert!(
                warned.starts_with(&format!("conf:2:14: SCAN_TRIGGER: {asked} acts as 1000")),
                "{warned}"
            );
            assert_eq!(loaded.config.scan_trigger, 1000);
            let report = render_effective(&loaded);
            assert!(report.contains("after 1000 probes of watched ports"), "{report}");
        }
    }

    #[test]
    fn something_must_be_watched() {
        assert_eq!(bad("").len(), 1);
        assert!(bad("TCP_PORTS=\"\"")[0].starts_with("conf: there is no port to watch"));
        assert!(bad("TCP_PORTS=\",\"")[0].contains("no port to watch"));
        assert_eq!(bad("TCP_PORTS=\"x\"").len(), 1, "a list with a mistake is not an empty list");
        good("DECOY_UDP_PORTS=53");
    }

    #[test]
    fn classic_keys_imply_their_responses_in_portsentrys_order() {
        use Response::{Command, HostsDeny, Iptables, Nftables, RunCommand};
        let all = "TCP_PORTS=1\nKILL_ROUTE=\"/sbin/x $TARGET$\"\nKILL_HOSTS_DENY=\"ALL: $TARGET$\"\nKILL_RUN_CMD=\"x\"\n";
        let order = |more: &str| good(&format!("{all}{more}")).config.block_with;
        assert_eq!(order(""), [HostsDeny, Command, RunCommand]);
        assert_eq!(order("KILL_RUN_CMD_FIRST=1"), [RunCommand, HostsDeny, Command]);
        assert_eq!(order("BLOCK_WITH=nftables,command"), [Nftables, Command, HostsDeny, RunCommand]);
        assert_eq!(good("TCP_PORTS=1\nKILL_RUN_CMD=x").config.block_with, [Nftables, RunCommand]);
        let loaded = good("TCP_PORTS=1\nBLOCK_WITH=\"hosts_deny iptables\"");
        assert_eq!(loaded.config.block_with, [HostsDeny, Iptables]);
        assert_eq!(loaded.config.kill_hosts_deny.as_deref(), Some("ALL: $TARGET$"));
    }

    #[test]
    fn a_block_that_could_not_be_made_is_refused() {
        assert!(bad("TCP_PORTS=1\nKILL_ROUTE=\"/sbin/x\"")[0].contains("$TARGET$ is missing"));
        assert!(
            bad("TCP_PORTS=1\nBLOCK_WITH=command")[0]
                .starts_with("conf:2:12: BLOCK_WITH: command needs KILL_ROUTE")
        );
        assert!(bad("TCP_PORTS=1\nBLOCK_WITH=run_command")[0].contains("not allowed here"));
        assert!(bad("TCP_PORTS=1\nBLOCK_UDP=2")[0].starts_with("conf:2:11: BLOCK_UDP=2 needs KILL_RUN_CMD"));
    }

    #[test]
    fn nothing_else_lies_in_the_folder_of_the_ledger() {
        let ours = "TCP_PORTS=1\nHISTORY_FILE=/var/lib/portsentry-rs/history\nBLOCKED_FILE=/var/lib/portsentry-rs/a/b\n";
        let errors = bad(&format!("{ours}CONTROL_SOCKET=/var/lib/portsentry-rs/sock"));
        for (error, start) in errors.iter().zip([
            "conf:2:14: HISTORY_FILE: it lies in STATE_DIR (/var/lib/portsentry-rs), which holds the ledger alone",
            "conf:3:14: BLOCKED_FILE: it lies in",
            "conf:4:16: CONTROL_SOCKET: it lies in",
        ]) {
            assert!(error.starts_with(start), "{error} should begin with {start}");
        }
        assert_eq!(errors.len(), 3, "{errors:#?}");
        good(&format!("{ours}STATE_DIR=/var/lib/other"));
        let around_the_default = bad("TCP_PORTS=1\nSTATE_DIR=/run");
        assert!(around_the_default[0].starts_with("conf:2:11: CONTROL_SOCKET: it lies in STATE_DIR (/run)"));
    }

    #[test]
    fn the_longest_block_follows_the_first_unless_both_are_set() {
        assert_eq!(good("TCP_PORTS=1\nBLOCK_TIME=-1").config.block_time_max, FOREVER);
        assert_eq!(good("TCP_PORTS=1\nBLOCK_TIME=2w").config.block_time_max, 1_209_600);
        assert!(
            bad("TCP_PORTS=1\nBLOCK_TIME=2h\nBLOCK_TIME_MAX=1h")[0]
                .starts_with("conf:3:16: BLOCK_TIME_MAX is less")
        );
    }

    #[test]
    fn a_flag_of_1_2_watches_its_protocol_alone() {
        let text =
            "TCP_PORTS=1\nUDP_PORTS=2\nDECOY_UDP_PORTS=3\nADVANCED_PORTS_TCP=10\nADVANCED_EXCLUDE_TCP=2-8";
        let loaded = with_flags(text, WatchedPorts::Advanced, WatchedPorts::Nothing).unwrap();
        assert_eq!(loaded.config.tcp_ports.to_string(), "1,9");
        assert!(loaded.config.udp_ports.is_empty() && loaded.config.decoy_udp_ports.is_empty());
        let loaded = with_flags("UDP_PORTS=2", WatchedPorts::Nothing, WatchedPorts::Advanced).unwrap();
        assert_eq!(loaded.config.udp_ports.to_string(), "1-1023");
        let text = "ADVANCED_EXCLUDE_TCP=5\nADVANCED_EXCLUDE_UDP=7";
        let loaded = with_flags(text, WatchedPorts::Advanced, WatchedPorts::Advanced).unwrap();
        let ports = [&loaded.config.tcp_ports, &loaded.config.udp_ports].map(ToString::to_string);
        assert_eq!(ports, ["1-4,6-1023", "1-6,8-1023"]);
        let errors = with_flags("UDP_PORTS=2", WatchedPorts::Listed, WatchedPorts::Nothing).unwrap_err();
        assert!(errors[0].to_string().contains("set TCP_PORTS or DECOY_TCP_PORTS"));
    }
}
