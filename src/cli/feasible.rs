//! Whether the configured responses can work on this machine: looked at by `check` and before a start, changing nothing.
#![forbid(unsafe_code)]

use std::path::Path;

use crate::config::{BlockMode, ConfigError, Loaded, opposite};
use crate::helper::command::found;
use crate::helper::hosts_deny::HostsDeny;
use crate::helper::iptables::Iptables;
use crate::helper::nftables::{Nftables, NftablesError};
use crate::helper::ruleset::SET_CAPACITY;
use crate::protocol::Response;
use crate::protocol::wording::{may_shut_out, program};
use crate::sandbox::{Capability, capabilities};

/// Responses that cannot work.
pub fn errors(loaded: &Loaded) -> Vec<ConfigError> {
    let responses = loaded.config.block_with.iter();
    let refused = responses.filter_map(|&response| refusal(response, loaded).map(|why| (response, why)));
    refused.map(|(response, why)| ConfigError::new(loaded.origin(key(response, loaded)), why)).collect()
}

fn refusal(response: Response, loaded: &Loaded) -> Option<String> {
    match response {
        Response::Nftables => against_nftables(true),
        Response::Iptables => Iptables::open().err().map(|refusal| refusal.text),
        Response::HostsDeny => {
            HostsDeny::inspect(&loaded.config.hosts_deny_file).err().map(|refusal| refusal.text)
        }
        Response::Route | Response::Command | Response::RunCommand => None,
    }
}

/// What speaks against nftables here, if it does so for a start by the very process that asks, or if it does not, as
/// `starts` has it. Who has not what it takes to start the daemon may ask for another machine, as who builds a system
/// image does: the kernel of this one decides nothing.
fn against_nftables(starts: bool) -> Option<String> {
    let error = Nftables::open(None, SET_CAPACITY).err()?;
    // Without the right to ask, as under SELinux anywhere but in the helper, only the start can tell.
    let is_told = !matches!(error.errno(), libc::EPERM | libc::EACCES);
    let may_start = capabilities::held().is_ok_and(|held| held.contains(&Capability::CAP_NET_ADMIN));
    (is_told && may_start == starts).then(|| with_a_way_out(&error))
}

/// Where the kernel itself has it not: somebody else's kernel, as a container's or a guest's is, cannot be changed.
fn with_a_way_out(error: &NftablesError) -> String {
    match error {
        NftablesError::Socket(_) | NftablesError::Unsupported { .. } => {
            format!("{error}; BLOCK_WITH=\"route\" does without, also where alarms are only told")
        }
        NftablesError::NotPermitted { .. }
        | NftablesError::TableGone { .. }
        | NftablesError::Full { .. }
        | NftablesError::Refused { .. } => error.to_string(),
    }
}

/// The key that asks for it.
fn key(response: Response, loaded: &Loaded) -> &'static str {
    match response {
        Response::HostsDeny if loaded.origin("KILL_HOSTS_DENY") != crate::config::Origin::Default => {
            "KILL_HOSTS_DENY"
        }
        Response::Nftables | Response::Iptables | Response::Route | Response::HostsDeny => "BLOCK_WITH",
        Response::Command => "KILL_ROUTE",
        Response::RunCommand => "KILL_RUN_CMD",
    }
}

/// A kernel without nftables under who could not start the daemon anyway. And commands whose program is not there, or that
/// need what they do not get: no error, for PortSentry starts without it too, it may be installed later, and each block that
/// fails for it says so.
pub fn warnings(loaded: &Loaded) -> Vec<ConfigError> {
    let config = &loaded.config;
    let commands = [
        ("KILL_ROUTE", &config.kill_route),
        ("KILL_RUN_CMD", &config.kill_run_cmd),
        ("UNBLOCK_CMD", &config.unblock_cmd),
    ];
    let set = commands.into_iter().filter_map(|(key, text)| Some((key, text.as_deref()?)));
    let told = set.flat_map(|(key, text)| {
        let faults = [missing(text), lesser()].into_iter().flatten();
        faults.map(move |fault| ConfigError::new(loaded.origin(key), format!("{key}: {fault}")))
    });
    told.chain(endless(loaded))
        .chain(endless_alarm(loaded))
        .chain(idle(loaded))
        .chain(elsewhere(loaded))
        .collect()
}

fn elsewhere(loaded: &Loaded) -> Option<ConfigError> {
    let asked = loaded.config.block_with.contains(&Response::Nftables);
    let why = asked.then(|| against_nftables(false)).flatten()?;
    let text = format!("{why}; the daemon would not start on this machine");
    Some(ConfigError::new(loaded.origin(key(Response::Nftables, loaded)), text))
}

/// A command that shuts out for ever, whatever BLOCK_TIME is.
fn endless(loaded: &Loaded) -> Option<ConfigError> {
    let config = &loaded.config;
    let runs = config.blocks() && config.block_with.contains(&Response::Command);
    let plain = config.kill_route.as_deref().and_then(opposite::opposite);
    let plain = plain.map_or_else(String::new, |undo| format!(": UNBLOCK_CMD=\"{undo}\""));
    let text = format!(
        "KILL_ROUTE: what it does outlasts its block and an unblock: set UNBLOCK_CMD to what takes it back{plain}"
    );
    (runs && config.unblock_cmd.is_none()).then(|| ConfigError::new(loaded.origin("KILL_ROUTE"), text))
}

/// Likewise, and no key takes it back. It runs where nothing is blocked too.
fn endless_alarm(loaded: &Loaded) -> Option<ConfigError> {
    let config = &loaded.config;
    let acts = [config.block_tcp, config.block_udp].iter().any(|&mode| mode != BlockMode::Log);
    let runs = acts && config.kill_run_cmd.as_deref().is_some_and(may_shut_out);
    let text = "KILL_RUN_CMD: what it does outlasts its block and an unblock, and no key takes it back: let KILL_ROUTE, with \
                UNBLOCK_CMD, or BLOCK_WITH do what shuts a source out";
    runs.then(|| ConfigError::new(loaded.origin("KILL_RUN_CMD"), text.to_owned()))
}

/// What takes back a command that is not there.
fn idle(loaded: &Loaded) -> Option<ConfigError> {
    let config = &loaded.config;
    let text = "UNBLOCK_CMD: takes back what KILL_ROUTE did, which is not set: no new block runs it";
    (config.unblock_cmd.is_some() && !config.block_with.contains(&Response::Command))
        .then(|| ConfigError::new(loaded.origin("UNBLOCK_CMD"), text.to_owned()))
}

fn missing(command: &str) -> Option<String> {
    let program = program(command).filter(|program| found(program).is_none())?;
    let what = if Path::new(&program).exists() { "cannot be executed" } else { "is not there" };
    Some(format!("{program} {what}; every response by it will fail until it is"))
}

/// Commands inherit what the daemon was started with.
fn lesser() -> Option<String> {
    let user = nix::unistd::geteuid();
    let text =
        || format!("started by uid {user} it runs as that user, not as root; what needs root will fail");
    (!user.is_root()).then(text)
}
