//! Both roles and all the system calls that each can be allowed, whatever is configured.

use std::path::PathBuf;

use portsentry::config::{Config, Flags, Overrides};
use portsentry::protocol::settings::{Custom, Response, Sandbox, Settings};
use portsentry::sandbox::seccomp::Rule;
use portsentry::sensor::seccomp::Addressing;

/// The sensor's program.
pub const SENSOR: &str = "portsentry-rs";
/// The helper's program.
pub const HELPER: &str = "portsentry-rs-helper";

/// A role's lists of rules.
pub type Lists = Vec<&'static [Rule]>;

/// Each role with its lists.
pub fn all() -> [(&'static str, Lists); 2] {
    with(&Addressing { log: Some(11), decoys: vec![21, 22, 23, 31] })
}

/// Likewise, where a sensor has these sockets.
pub fn with(addressing: &Addressing) -> [(&'static str, Lists); 2] {
    [(SENSOR, sensor(addressing)), (HELPER, helper())]
}

/// Everything that gives the sensor a rule.
fn sensor(addressing: &Addressing) -> Lists {
    let text = "TCP_PORTS=\"1\"\nDECOY_TCP_PORTS=\"23\"\nHISTORY_FILE=\"/history\"\nRESOLVE_HOST=\"1\"\n";
    let flags = Flags { daemonize: true, ..Flags::default() };
    let overrides = Overrides { flags, ..Overrides::default() };
    let config: Config = portsentry::config::parse("here", text.as_bytes(), &overrides).unwrap().config;
    portsentry::sensor::seccomp::rules(&config, addressing)
}

/// Everything that gives the helper a rule.
fn helper() -> Lists {
    let settings = Settings {
        never_block: Vec::new(),
        block_with: vec![Response::Nftables, Response::Route, Response::HostsDeny],
        block_time: 1,
        block_time_max: 1,
        block_time_factor: 1,
        max_blocks: 1,
        state_dir: PathBuf::from("/state"),
        flush_on_stop: false,
        run_as: None,
        sandbox: Sandbox::Strict,
        sandbox_log: false,
        blocked_file: Some(PathBuf::from("/blocked")),
        tripwire: None,
        custom: Custom::default(),
    };
    portsentry::helper::seccomp::rules(&settings)
}
