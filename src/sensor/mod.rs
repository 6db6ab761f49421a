//! The sensor: rings, decoys and the event loop. Parses what strangers send and ends up with no privilege.
#![forbid(unsafe_code)]

pub mod allowance;
pub mod attention;
pub mod blocks;
pub mod clock;
pub mod confine;
pub mod conversation;
pub mod datagram;
pub mod decoy;
pub mod event_loop;
pub mod filter;
pub mod followed;
pub mod frame;
pub mod half_open;
pub mod helper_link;
pub mod host;
pub mod launch;
pub mod listener;
pub mod names;
mod network;
pub mod never_block;
pub mod notify;
pub mod operators;
pub mod parked;
pub mod ports_in_use;
pub mod ptr;
pub mod reload;
pub mod report;
pub mod responder;
pub mod ring;
pub mod seccomp;
pub mod services;
pub mod sightings;
pub mod signals;
pub mod state_dir;
pub mod trails;
pub mod watcher;
