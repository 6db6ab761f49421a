//! `portsentry.conf` and the ignore file → one typed [`Config`].
//!
//! Pure but for [`load`], which reads the two files: text in, values or a list of errors out. `keys` is THE table:
//! name, type, default and range of every key stand there and nowhere else.
#![forbid(unsafe_code)]

pub mod both_ports;
pub mod build;
mod combine;
pub mod duration;
pub mod effective;
pub mod error;
pub mod ignore;
pub mod keys;
pub mod kind;
mod list;
pub mod networks;
pub mod opposite;
pub mod parse;
pub mod ports;

use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use both_ports::BothPorts;
pub use build::{Loaded, OPEN_FLAGS, Override, Overrides, Setting, control_socket, load, parse};
pub use duration::FOREVER;
pub use error::{ConfigError, Origin, Position, few};
pub use ports::PortSet;

use crate::detect::weights::Sensitivity;
use crate::protocol::settings::{Response, Sandbox};

/// Everything the daemon was told, by file and command line, checked and typed.
#[derive(Clone, Debug)]
pub struct Config {
    /// TCP_PORTS: any probe of one of these is a probe of a watched port.
    pub tcp_ports: PortSet,
    /// UDP_PORTS, likewise.
    pub udp_ports: PortSet,
    /// DECOY_TCP_PORTS: bound by us where free.
    pub decoy_tcp_ports: PortSet,
    /// DECOY_UDP_PORTS, likewise.
    pub decoy_udp_ports: PortSet,
    /// IGNORE_FILE.
    pub ignore_file: Option<PathBuf>,
    /// HISTORY_FILE.
    pub history_file: Option<PathBuf>,
    /// BLOCK_TCP.
    pub block_tcp: BlockMode,
    /// BLOCK_UDP.
    pub block_udp: BlockMode,
    /// SCAN_TRIGGER: probes of watched ports before the alarm; 0 and 1 both mean the first. 1000 at most.
    pub scan_trigger: u32,
    /// SENSITIVITY: how contacts with ports that are not watched are judged.
    pub sensitivity: Sensitivity,
    /// SCORE_WINDOW: half-life of scores, seconds.
    pub score_window: u32,
    /// IPV6_PREFIX: IPv6 sources off-link are scored and blocked by this prefix, bits.
    pub ipv6_prefix: u8,
    /// BLOCK_LIMIT: blocks a minute on evidence that may be forged.
    pub block_limit: u32,
    /// PROTECT_ESTABLISHED: such evidence blocks nobody who has a connection to us.
    pub protect_established: bool,
    /// TRIPWIRE; see [`Config::why_no_tripwire`].
    pub tripwire: bool,
    /// PORT_BANNER: what decoys say instead of their service's greeting.
    pub port_banner: Option<String>,
    /// INTERFACES.
    pub interfaces: Interfaces,
    /// BLOCK_WITH and what the KILL_ keys imply, in order of application.
    pub block_with: Vec<Response>,
    /// BLOCK_TIME, seconds.
    pub block_time: u32,
    /// BLOCK_TIME_MAX, seconds.
    pub block_time_max: u32,
    /// BLOCK_TIME_FACTOR.
    pub block_time_factor: u32,
    /// MAX_BLOCKS.
    pub max_blocks: u32,
    /// NEVER_BLOCK.
    pub never_block: Vec<IpNet>,
    /// STATE_DIR.
    pub state_dir: PathBuf,
    /// CONTROL_SOCKET.
    pub control_socket: PathBuf,
    /// LOG_FORMAT.
    pub log_format: LogFormat,
    /// RUN_AS: a user's name or `uid:gid`; `None` means `portsentry` if it exists, else `nobody`.
    pub run_as: Option<String>,
    /// WORKERS: ring threads; `None` means one for each two cores, at most 4.
    pub workers: Option<usize>,
    /// TABLE_SIZE: sources that the score table has room for.
    pub table_size: usize,
    /// FLUSH_ON_STOP.
    pub flush_on_stop: bool,
    /// SANDBOX.
    pub sandbox: Sandbox,
    /// SANDBOX_LOG.
    pub sandbox_log: bool,
    /// BLOCKED_FILE.
    pub blocked_file: Option<PathBuf>,
    /// RESOLVE_HOST.
    pub resolve_host: bool,
    /// KILL_ROUTE, `$TARGET$` not yet replaced.
    pub kill_route: Option<String>,
    /// KILL_HOSTS_DENY, likewise.
    pub kill_hosts_deny: Option<String>,
    /// HOSTS_DENY_FILE.
    pub hosts_deny_file: PathBuf,
    /// UNBLOCK_CMD, likewise.
    pub unblock_cmd: Option<String>,
    /// COMMAND_TIMEOUT, seconds.
    pub command_timeout: u32,
    /// KILL_RUN_CMD, `$TARGET$`, `$PORT$` and `$MODE$` not yet replaced.
    pub kill_run_cmd: Option<String>,
    /// KILL_RUN_CMD_FIRST.
    pub kill_run_cmd_first: bool,
    /// ADVANCED_PORTS_TCP: `-atcp` watches every port below; already in `tcp_ports` then.
    pub advanced_ports_tcp: u32,
    /// ADVANCED_PORTS_UDP, likewise.
    pub advanced_ports_udp: u32,
    /// ADVANCED_EXCLUDE_TCP: left out by `-atcp`.
    pub advanced_exclude_tcp: PortSet,
    /// ADVANCED_EXCLUDE_UDP, likewise.
    pub advanced_exclude_udp: PortSet,
    /// What only the command line says.
    pub flags: Flags,
}

/// The run flags that have no key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// `--stealth`, `--connect`.
    pub mode: Mode,
    /// What `-tcp -udp -stcp -sudp -atcp -audp` make of TCP.
    pub tcp: WatchedPorts,
    /// And of UDP.
    pub udp: WatchedPorts,
    /// `-l`.
    pub log_output: LogOutput,
    /// `-L`: packets whose source is their destination count too.
    pub disable_local_check: bool,
    /// `-S`: ports with a service count too.
    pub disable_service_check: bool,
    /// `-D`.
    pub daemonize: bool,
    /// `-d`.
    pub debug: bool,
    /// `-v`.
    pub verbose: bool,
}

/// How probes are met; in events under these names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Packet rings watch the ports; only DECOY_* ports are bound.
    #[default]
    Stealth,
    /// The watched ports themselves are bound, and nothing is sniffed.
    Connect,
}

impl Mode {
    /// As events and KILL_RUN_CMD's `$MODE$` name it.
    pub const fn name(self) -> &'static str {
        match self {
            Mode::Stealth => "stealth",
            Mode::Connect => "connect",
        }
    }
}

/// Which ports of one protocol are watched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WatchedPorts {
    /// TCP_PORTS or UDP_PORTS, and the decoys.
    #[default]
    Listed,
    /// Every port below ADVANCED_PORTS_* less ADVANCED_EXCLUDE_*, and the decoys.
    Advanced,
    /// None: a flag of 1.2 asked for the other protocol alone.
    Nothing,
}

/// `-l`: where events go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogOutput {
    /// Standard output, in the form that LOG_FORMAT says.
    #[default]
    Stdout,
    /// The system log, in the same form.
    Syslog,
    /// Standard output in that form, and PortSentry's lines to the system log.
    StdoutAndSyslog,
    /// The journal, always JSON with native fields.
    Journald,
}

impl Config {
    /// A configuration in which nothing is set, not even the defaults: those stand in [`keys::KEYS`].
    fn blank() -> Config {
        Config {
            tcp_ports: PortSet::new(),
            udp_ports: PortSet::new(),
            decoy_tcp_ports: PortSet::new(),
            decoy_udp_ports: PortSet::new(),
            ignore_file: None,
            history_file: None,
            block_tcp: BlockMode::Log,
            block_udp: BlockMode::Log,
            scan_trigger: 0,
            sensitivity: Sensitivity::Off,
            score_window: 0,
            ipv6_prefix: 0,
            block_limit: 0,
            protect_established: false,
            tripwire: false,
            port_banner: None,
            interfaces: Interfaces::AllButLoopback,
            block_with: Vec::new(),
            block_time: 0,
            block_time_max: 0,
            block_time_factor: 0,
            max_blocks: 0,
            never_block: Vec::new(),
            state_dir: PathBuf::new(),
            control_socket: PathBuf::new(),
            log_format: LogFormat::Auto,
            run_as: None,
            workers: None,
            table_size: 0,
            flush_on_stop: false,
            sandbox: Sandbox::Strict,
            sandbox_log: false,
            blocked_file: None,
            resolve_host: false,
            kill_route: None,
            kill_hosts_deny: None,
            hosts_deny_file: PathBuf::new(),
            unblock_cmd: None,
            command_timeout: 0,
            kill_run_cmd: None,
            kill_run_cmd_first: false,
            advanced_ports_tcp: 0,
            advanced_ports_udp: 0,
            advanced_exclude_tcp: PortSet::new(),
            advanced_exclude_udp: PortSet::new(),
            flags: Flags::default(),
        }
    }

    /// The ports to bind. `--connect`: the watched ports themselves are decoys.
    pub fn bound_ports(&self) -> BothPorts {
        let (tcp, udp) = (&self.decoy_tcp_ports, &self.decoy_udp_ports);
        match self.flags.mode {
            Mode::Stealth => BothPorts { tcp: tcp.clone(), udp: udp.clone() },
            Mode::Connect => BothPorts { tcp: tcp.union(&self.tcp_ports), udp: udp.union(&self.udp_ports) },
        }
    }

    /// Why there is no tripwire, or can be none as long as this holds; `None` if there is one.
    pub fn why_no_tripwire(&self) -> Option<&'static str> {
        let reasons = [
            (!self.tripwire, "TRIPWIRE is 0"),
            (self.flags.mode == Mode::Connect, "--connect binds every watched port"),
            (!self.block_with.contains(&Response::Nftables), "nftables is not among the responses"),
            (self.scan_trigger > 1, "SCAN_TRIGGER is above 1, so that one probe is no alarm"),
            (!self.blocks(), "neither BLOCK_TCP nor BLOCK_UDP is 1"),
        ];
        reasons.into_iter().find(|(holds, _)| *holds).map(|(_, reason)| reason)
    }

    /// Whether anybody is blocked by a scan.
    pub fn blocks(&self) -> bool {
        [self.block_tcp, self.block_udp].contains(&BlockMode::Block)
    }

    /// Whether any port is bound.
    pub fn has_decoys(&self) -> bool {
        !self.bound_ports().is_empty()
    }
}

/// The table's defaults: nothing is watched and nothing is blocked.
impl Default for Config {
    fn default() -> Config {
        let mut config = Config::blank();
        for key in keys::KEYS.iter().filter(|key| !key.default.is_empty()) {
            // A test holds every default to be an allowed value.
            let _ = key.kind.set(&mut config, key.default);
        }
        combine::complete_responses(&mut config);
        config
    }
}

/// BLOCK_TCP and BLOCK_UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockMode {
    /// 0: log only.
    Log,
    /// 1: block.
    Block,
    /// 2: run KILL_RUN_CMD only.
    RunCommand,
}

/// Which interfaces are watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Interfaces {
    /// `ALL` or `any`: every interface, loopback too, also those that come later.
    All,
    /// `ALL_NLO`: the same without loopback.
    AllButLoopback,
    /// These, by name.
    Named(Vec<String>),
}

/// LOG_FORMAT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Classic text to syslog and if stdout is a terminal, else JSON.
    Auto,
    /// One JSON object a line.
    Json,
    /// PortSentry's lines.
    Classic,
}
