//! The sensor: rings, decoys and the event loop. Parses what strangers send and ends up with no privilege.
#![forbid(unsafe_code)]

pub mod conversation;
pub mod datagram;
pub mod decoy;
pub mod filter;
pub mod frame;
pub mod half_open;
pub mod listener;
pub mod ring;
pub mod services;
