//! portsentry-rs: sees port scans and blocks their sources.
//!
//! Two programs are made of this library. The **sensor** (`portsentry-rs`) watches packets and decoys and ends up
//! with no privilege at all; the **helper** (`portsentry-rs-helper`) changes the firewall and never sees a packet.
//! Data flows one way: packet → probe → verdict → request → effect → event.
//!
//! | room | role | job |
//! |---|---|---|
//! | [`packet`] | pure | frame bytes → [`packet::Packet`] or [`packet::Reject`] |
//! | [`detect`] | pure | packet → [`detect::Probe`] → score → [`detect::Verdict`] |
//! | [`capture`] | pure | capture files → frames |
//! | [`replay`] | pure | captures through the sensor's own judgement, with the captures' clock |
//! | [`config`] | pure, sensor | `portsentry.conf` and the ignore file → [`config::Config`] |
//! | [`networks`] | pure | sets of addresses, looked up by address |
//! | [`protocol`] | pure, both | what crosses the privilege boundary |
//! | [`event`] | pure + sinks, sensor | what the outside reads |
//! | [`netlink`] | pure codec + socket, both | nftables, route and sock_diag messages |
//! | [`sandbox`] | both | how to give rights up; who gives up what stands in the role |
//! | [`sensor`] | sensor | rings, decoys, the event loop |
//! | [`helper`] | helper | authorise a request, apply it, remember it |
//! | [`control`], [`cli`] | sensor | the control socket and the command line |
//! | [`line_writer`], [`stderr`] | both | lines out that wait for no reader |
//! | [`repeats`] | pure, both | which errors were told of a moment ago |
//! | [`sys`] | both | the only unsafe code |
//!
//! **The dependency rule**, held by `tests/dependency_rule.rs`: `sensor` and `helper` never import each other; pure
//! rooms import neither `sys` nor a role, but for `replay`, which is made of the sensor's pure parts; `detect` knows no
//! socket and `packet` knows no config.

// No packet, frame, file or socket can reach a panic; tests may.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic))]
// println and eprintln panic where nobody reads, which in the cage is a death by SIGSYS: write to the handle instead.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub mod capture;
pub mod cli;
pub mod config;
pub mod control;
pub mod detect;
pub mod event;
pub mod helper;
pub mod line_writer;
pub mod netlink;
pub mod networks;
pub mod packet;
pub mod protocol;
pub mod repeats;
pub mod replay;
pub mod sandbox;
pub mod sensor;
pub mod stderr;
pub mod sys;

/// This build's version, as `-V`, the `start` event and the first line of classic text show it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
