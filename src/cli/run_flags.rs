//! The flags that run the daemon: PortSentry 2.x's, and 1.2's single-dash words, which are rewritten for clap first.
//!
//! Pure.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::config::{Flags, LogOutput, Mode, Origin, Override, Overrides, WatchedPorts};

/// Where PortSentry's own configuration lies.
pub const DEFAULT_CONFIG: &str = "/etc/portsentry/portsentry.conf";

/// Wins over the key LOG_FORMAT.
pub const LOG_FORMAT_VARIABLE: &str = "PORTSENTRY_LOG_FORMAT";

/// PortSentry's run flags.
#[derive(Clone, Debug, Args)]
pub struct RunFlags {
    /// Watch packets; bind only the decoys (the default)
    #[arg(long, conflicts_with = "connect")]
    pub stealth: bool,
    /// Bind the watched ports and wait for connections
    #[arg(long)]
    pub connect: bool,
    /// Interface to watch, or ALL, ALL_NLO (all but loopback), any; may be repeated [default: INTERFACES]
    #[arg(short, long, value_name = "IF")]
    pub interface: Vec<String>,
    /// Where events go; stdout and syslog may be given together [default: stdout; syslog with -D]
    #[arg(short, long, value_name = "OUTPUT", value_enum)]
    pub logoutput: Vec<Output>,
    /// Configuration file
    #[arg(short, long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    pub configfile: PathBuf,
    /// How packets are read; both names are accepted and mean our packet ring
    #[arg(short, long, value_enum, default_value_t = Method::Raw)]
    pub method: Method,
    /// Count packets whose source address is their destination
    #[arg(short = 'L', long)]
    pub disable_local_check: bool,
    /// Count probes of ports on which a service listens
    #[arg(short = 'S', long)]
    pub disable_service_check: bool,
    /// Run in the background: change to /, log to syslog unless -l says journald
    #[arg(short = 'D', long)]
    pub daemon: bool,
    /// Say why packets are skipped (classic text alone)
    #[arg(short, long)]
    pub debug: bool,
    /// Say more of what is ignored (classic text alone)
    #[arg(short, long)]
    pub verbose: bool,
    /// What 1.2's flags say.
    #[command(flatten)]
    pub classic: ClassicFlags,
}

/// 1.2's flags, after [`rewritten`].
#[derive(Clone, Copy, Debug, Args)]
pub struct ClassicFlags {
    /// 1.2's -tcp
    #[arg(long, hide = true, conflicts_with_all = ["stealth", "stcp", "sudp", "atcp", "audp"])]
    tcp: bool,
    /// 1.2's -udp
    #[arg(long, hide = true, conflicts_with_all = ["stealth", "stcp", "sudp", "atcp", "audp"])]
    udp: bool,
    /// 1.2's -stcp
    #[arg(long, hide = true, conflicts_with_all = ["connect", "atcp"])]
    stcp: bool,
    /// 1.2's -sudp
    #[arg(long, hide = true, conflicts_with_all = ["connect", "audp"])]
    sudp: bool,
    /// 1.2's -atcp
    #[arg(long, hide = true, conflicts_with = "connect")]
    atcp: bool,
    /// 1.2's -audp
    #[arg(long, hide = true, conflicts_with = "connect")]
    audp: bool,
}

/// `-l`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Standard output
    Stdout,
    /// The system log
    Syslog,
    /// The journal, with native fields
    Journald,
}

/// `-m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Method {
    /// Accepted for PortSentry's sake
    Pcap,
    /// Likewise
    Raw,
}

impl RunFlags {
    /// These flags, and `log_format` from the environment, as the configuration wants them.
    pub fn overrides(&self, log_format: Option<String>) -> Overrides {
        let mut settings = Vec::new();
        if !self.interface.is_empty() {
            let origin = Origin::CommandLine("-i");
            settings.push(Override { key: "INTERFACES", text: self.interface.join(","), origin });
        }
        if let Some(text) = log_format {
            let origin = Origin::Environment(LOG_FORMAT_VARIABLE);
            settings.push(Override { key: "LOG_FORMAT", text, origin });
        }
        Overrides { settings, flags: self.flags() }
    }

    fn flags(&self) -> Flags {
        let (tcp, udp) = self.classic.watch();
        let connect = self.connect || self.classic.tcp || self.classic.udp;
        Flags {
            mode: if connect { Mode::Connect } else { Mode::Stealth },
            tcp,
            udp,
            log_output: self.log_output(),
            disable_local_check: self.disable_local_check,
            disable_service_check: self.disable_service_check,
            daemonize: self.daemon,
            debug: self.debug,
            verbose: self.verbose,
        }
    }
}

impl RunFlags {
    /// In the background there is no standard output; the journal has room for everything.
    fn log_output(&self) -> LogOutput {
        let asked = |output| self.logoutput.contains(&output);
        match (asked(Output::Journald), asked(Output::Syslog), asked(Output::Stdout)) {
            (true, ..) => LogOutput::Journald,
            (false, true, true) if !self.daemon => LogOutput::StdoutAndSyslog,
            (false, true, _) => LogOutput::Syslog,
            (false, false, _) if self.daemon => LogOutput::Syslog,
            (false, false, _) => LogOutput::Stdout,
        }
    }
}

impl ClassicFlags {
    /// What is watched of TCP and of UDP. A flag for one protocol leaves the other alone, as 1.2 did.
    fn watch(self) -> (WatchedPorts, WatchedPorts) {
        let any = self.tcp || self.udp || self.stcp || self.sudp || self.atcp || self.audp;
        let one = |listed: bool, advanced: bool| match (advanced, listed || !any) {
            (true, _) => WatchedPorts::Advanced,
            (false, true) => WatchedPorts::Listed,
            (false, false) => WatchedPorts::Nothing,
        };
        (one(self.tcp || self.stcp, self.atcp), one(self.udp || self.sudp, self.audp))
    }
}

/// `arguments` with 1.2's single-dash words (`-stcp`) in the form that clap reads (`--stcp`). Nothing else is touched,
/// not even such a word behind `--`; no flag of 2.x can be mistaken for one.
pub fn rewritten(arguments: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    const CLASSIC: [&str; 6] = ["-tcp", "-udp", "-stcp", "-sudp", "-atcp", "-audp"];
    let mut literal = false;
    let rewrite = |argument: OsString| {
        literal |= argument == "--";
        match argument.to_str().filter(|word| !literal && CLASSIC.contains(word)) {
            Some(word) => OsString::from(format!("-{word}")),
            None => argument,
        }
    };
    arguments.into_iter().map(rewrite).collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::arguments::Arguments;

    fn parsed(line: &str) -> RunFlags {
        let words = format!("portsentry-rs {line}");
        Arguments::try_parse_from(rewritten(words.split(' ').map(OsString::from))).unwrap().run
    }

    #[test]
    fn every_run_flag_of_portsentry_2_is_understood() {
        let line = "--stealth -i eth0 --interface ALL_NLO -l syslog -c /x.conf -m pcap -L -S -D -d -v";
        let run = parsed(line);
        assert_eq!(
            (run.interface.join("+"), run.configfile.as_os_str()),
            ("eth0+ALL_NLO".into(), "/x.conf".as_ref())
        );
        let flags = run.flags();
        assert_eq!((flags.mode, flags.log_output), (Mode::Stealth, LogOutput::Syslog));
        assert!(flags.disable_local_check && flags.disable_service_check && flags.daemonize);
        assert!(flags.debug && flags.verbose);
        assert_eq!(parsed("--connect --logoutput journald").flags().mode, Mode::Connect);
        for (line, output) in [
            ("-l stdout -l syslog", LogOutput::StdoutAndSyslog),
            ("-l syslog -l syslog", LogOutput::Syslog),
            ("-D -l stdout", LogOutput::Syslog),
            ("-v -v -d -d -L -L --disable-serv", LogOutput::Stdout),
        ] {
            assert_eq!(parsed(line).flags().log_output, output, "{line}");
        }
        for line in ["--method raw --disable-local-check --disable-service-check --daemon", "--configfile /y"]
        {
            assert_eq!(parsed(line).flags().mode, Mode::Stealth, "{line}");
        }
    }

    #[test]
    fn the_flags_of_1_2_mean_what_they_meant() {
        use WatchedPorts::{Advanced, Listed, Nothing};
        for (line, mode, tcp, udp) in [
            ("-tcp", Mode::Connect, Listed, Nothing),
            ("-udp", Mode::Connect, Nothing, Listed),
            ("-stcp", Mode::Stealth, Listed, Nothing),
            ("-sudp", Mode::Stealth, Nothing, Listed),
            ("-atcp", Mode::Stealth, Advanced, Nothing),
            ("-audp", Mode::Stealth, Nothing, Advanced),
            ("-tcp -udp", Mode::Connect, Listed, Listed),
            ("-atcp -sudp", Mode::Stealth, Advanced, Listed),
            ("--stealth", Mode::Stealth, Listed, Listed),
        ] {
            let flags = parsed(line).flags();
            assert_eq!((flags.mode, flags.tcp, flags.udp), (mode, tcp, udp), "{line}");
        }
    }

    #[test]
    fn words_behind_a_double_dash_stay_as_they_are() {
        let words = ["x", "-tcp", "--", "-tcp"].map(OsString::from);
        assert_eq!(rewritten(words), ["x", "--tcp", "--", "-tcp"].map(OsString::from));
    }
}
