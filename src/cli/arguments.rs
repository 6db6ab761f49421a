//! The command line: PortSentry 2.x's flags, PortSentry 1.2's single-dash forms, and our subcommands.
//!
//! Pure but for clap's own way out (`--help`, `--version`, usage errors: exit code 2).
#![forbid(unsafe_code)]

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use ipnet::IpNet;

use super::run_flags::RunFlags;
use crate::config::duration::parse_duration;
use crate::config::networks::without_zone;
use crate::control::protocol::parse_target;

const AFTER_HELP: &str = "\
PortSentry 1.2's flags are understood as they are: -tcp -udp -stcp -sudp
-atcp -audp. Each watches its protocol alone; two of one mode may be given
together (-stcp -sudp). -atcp and -audp watch every port below
ADVANCED_PORTS_TCP and ADVANCED_PORTS_UDP.

Examples:
  portsentry-rs                       run as the configuration says
  portsentry-rs -i eth0 -i eth1       run on two interfaces
  portsentry-rs check -c my.conf      show what my.conf would do, or all
                                      that is wrong with it
  portsentry-rs list                  who is blocked, and until when
  portsentry-rs replay scan.pcap      what the daemon would have said to it
  portsentry-rs block 192.0.2.7 2h    block somebody by hand
  portsentry-rs unblock all           lift every block

Exit codes:
  0   fine
  1   anything else that went wrong: configuration, start, no daemon;
      status: the helper does not answer
  2   wrong usage
  70  the other of the two processes died, or did not answer
      that it is to end";

/// See scans, block scanners.
#[derive(Debug, Parser)]
#[command(
    name = "portsentry-rs",
    version,
    about = "Watches for port scans and blocks those who make them",
    long_about = None,
    after_help = AFTER_HELP,
    args_conflicts_with_subcommands = true,
    // As getopt_long has it: a flag may come twice, and a long one be cut short.
    args_override_self = true,
    infer_long_args = true,
    disable_help_subcommand = true
)]
pub struct Arguments {
    /// What to do; without one, run the daemon.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// How to run the daemon.
    #[command(flatten)]
    pub run: RunFlags,
}

/// Everything but running.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show what the configuration would do, or everything that is wrong with it
    Check {
        /// Only what is wrong
        #[arg(short, long)]
        quiet: bool,
        /// How the daemon would be run.
        #[command(flatten)]
        run: Box<RunFlags>,
    },
    /// Show how the running daemon fares
    Status {
        /// One JSON object
        #[arg(long)]
        json: bool,
        /// Which daemon.
        #[command(flatten)]
        control: Control,
    },
    /// Show what the running daemon has counted
    Stats {
        /// One JSON object
        #[arg(long)]
        json: bool,
        /// Which daemon.
        #[command(flatten)]
        control: Control,
    },
    /// Judge captures (pcap, pcapng) as the daemon would have; prints its events and blocks nobody
    Replay(Replay),
    /// Show who is blocked
    List {
        /// One JSON object a line
        #[arg(long)]
        json: bool,
        /// Which daemon.
        #[command(flatten)]
        control: Control,
    },
    /// Block an address by hand
    Block {
        /// Address or network
        #[arg(value_name = "ADDR", value_parser = network)]
        target: IpNet,
        /// How long, in seconds or like 10m, 2h, 7d; without it, as for a scanner
        #[arg(value_parser = seconds, allow_hyphen_values = true)]
        seconds: Option<u32>,
        /// Which daemon.
        #[command(flatten)]
        control: Control,
    },
    /// Lift a block
    Unblock {
        /// Address or network as blocked, or `all`
        #[arg(value_name = "ADDR|all", value_parser = lifted)]
        target: Lifted,
        /// Which daemon.
        #[command(flatten)]
        control: Control,
    },
}

/// What is replayed, and as whom.
#[derive(Clone, Debug, Args)]
pub struct Replay {
    /// Configuration file to judge by [default: /etc/portsentry/portsentry.conf; where there is none, the shipped one]
    #[arg(short, long, value_name = "FILE")]
    pub configfile: Option<PathBuf>,
    /// Protect this address alone; without it every destination is a protected host of its own
    #[arg(long, value_name = "IP", conflicts_with = "network", value_parser = address)]
    pub host: Option<IpAddr>,
    /// Protect all destinations as one site, which sees sweeps
    #[arg(long)]
    pub network: bool,
    /// Captures, played one after the other; - is standard input
    #[arg(value_name = "CAPTURE", required = true)]
    pub captures: Vec<PathBuf>,
}

/// Whom `unblock` frees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifted {
    /// Everybody.
    All,
    /// This address or network.
    One(IpNet),
}

/// How to find the running daemon.
#[derive(Clone, Debug, Args)]
pub struct Control {
    /// Configuration file of the daemon, for its CONTROL_SOCKET [default: /etc/portsentry/portsentry.conf]
    #[arg(short, long, value_name = "FILE")]
    pub configfile: Option<PathBuf>,
}

fn network(text: &str) -> Result<IpNet, String> {
    parse_target(text).map_err(|error| error.to_string())
}

/// A capture's packets name no interface.
fn address(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|error| without_zone(text).unwrap_or_else(|| format!("{error}")))
}

fn seconds(text: &str) -> Result<u32, String> {
    parse_duration(text).map_err(|fault| fault.message)
}

fn lifted(text: &str) -> Result<Lifted, String> {
    match text {
        "all" => Ok(Lifted::All),
        _ => network(text)
            .map(Lifted::One)
            .map_err(|error| format!("{error}; every block is lifted by the word `all`")),
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use clap::CommandFactory;

    use super::*;
    use crate::cli::run_flags::rewritten;

    fn parsed(line: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(rewritten(format!("portsentry-rs {line}").split(' ').map(OsString::from)))
    }

    #[test]
    fn the_definition_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn contradictions_and_unknown_words_are_usage_errors() {
        for line in [
            "--stealth --connect",
            "-tcp -sudp",
            "-stcp -atcp",
            "-stcp --connect",
            "-xtcp",
            "-l file",
            "-m bpf",
            "block",
            "block nobody",
            "replay",
            "replay --host nobody x.pcap",
            "replay --host 192.0.2.1 --network x.pcap",
            "block 192.0.2.1 soon",
            "unblock",
            "-i eth0 status",
            "frobnicate",
        ] {
            assert_eq!(parsed(line).unwrap_err().exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn subcommands_take_what_they_need() {
        let command = |line| parsed(line).unwrap().command.unwrap();
        assert!(
            matches!(command("check -c /x -i lo"), Command::Check { run, quiet: false } if run.interface == ["lo"])
        );
        assert!(matches!(command("list --json"), Command::List { json: true, .. }));
        assert!(matches!(command("stats --json"), Command::Stats { json: true, .. }));
        assert!(
            matches!(command("replay --network a -"), Command::Replay(replay) if replay.network && replay.captures.len() == 2)
        );
        assert!(matches!(command("block 2001:DB8::1 2h"), Command::Block { seconds: Some(7200), .. }));
        assert!(matches!(command("block 192.0.2.1 -1"), Command::Block { seconds: Some(u32::MAX), .. }));
        assert!(matches!(command("unblock all"), Command::Unblock { target: Lifted::All, .. }));
        let one = Lifted::One("192.0.2.1/32".parse().unwrap());
        assert!(matches!(command("unblock 192.0.2.1"), Command::Unblock { target, .. } if target == one));
        assert!(
            matches!(command("status -c /x --json"), Command::Status { json: true, control } if control.configfile == Some("/x".into()))
        );
    }

    #[test]
    fn who_means_everybody_is_told_the_word_for_it() {
        let refused = parsed("unblock ALL").unwrap_err().to_string();
        assert!(refused.contains("every block is lifted by the word `all`"), "{refused}");
    }

    #[test]
    fn an_address_with_a_zone_is_refused_with_what_to_write() {
        for line in ["block fe80::1%eth0", "unblock fe80::1%eth0", "replay --host fe80::1%eth0 x.pcap"] {
            let refused = parsed(line).unwrap_err();
            assert_eq!(refused.exit_code(), 2, "{line}");
            assert!(refused.to_string().contains("write fe80::1 if"), "{line}: {refused}");
        }
    }

    #[test]
    fn version_and_help_leave_with_0() {
        let shown = parsed("-V").unwrap_err();
        assert_eq!(
            (shown.exit_code(), shown.to_string()),
            (0, format!("portsentry-rs {}\n", crate::VERSION))
        );
        let help = parsed("--help").unwrap_err();
        assert_eq!(help.exit_code(), 0);
        for part in ["Examples:", "Exit codes:", "-audp", "unblock all"] {
            assert!(help.to_string().contains(part), "{part}");
        }
    }
}
