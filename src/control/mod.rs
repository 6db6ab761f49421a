//! The control socket: status, list, block, unblock. `server` runs in the sensor's event loop, `client` in the
//! command line's process; `protocol` is what goes over the socket.
//!
//! Admits root and the daemon's own user only, and trusts neither to send sense or to read in time.
#![forbid(unsafe_code)]

pub mod client;
pub mod protocol;
pub mod server;

pub use protocol::{ControlReply, ControlRequest};
pub use server::ControlServer;
