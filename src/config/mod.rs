//! `portsentry.conf` and the ignore file → one typed [`Config`].
//!
//! Pure: text in, values or a list of errors out; reading files is the caller's. `keys` is THE table: name, type,
//! default and range of every key stand there and nowhere else.
#![forbid(unsafe_code)]

pub mod ports;

use std::path::PathBuf;

use ipnet::IpNet;

pub use ports::PortSet;

use crate::protocol::settings::Response;

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
    /// SCAN_TRIGGER: probes of watched ports before the alarm; 0 and 1 both mean the first.
    pub scan_trigger: u32,
    /// PORT_BANNER: what decoys say instead of their service's greeting.
    pub port_banner: Option<String>,
    /// INTERFACES.
    pub interfaces: Interfaces,
    /// BLOCK_WITH, in order of application.
    pub block_with: Vec<Response>,
    /// BLOCK_TIME, seconds.
    pub block_time: u32,
    /// BLOCK_TIME_MAX, seconds.
    pub block_time_max: u32,
    /// BLOCK_TIME_FACTOR.
    pub block_time_factor: u32,
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
    /// WORKERS: ring threads; `None` means the number of cores, at most 4.
    pub workers: Option<usize>,
    /// TABLE_SIZE: sources that the score table has room for.
    pub table_size: usize,
    /// FLUSH_ON_STOP.
    pub flush_on_stop: bool,
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
    /// Classic text if stdout is a terminal, else JSON.
    Auto,
    /// One JSON object a line.
    Json,
    /// PortSentry's lines.
    Classic,
}
