//! Netlink: message codec (pure) and one socket, shared by nftables, route and sock_diag.
//!
//! Both roles use it. Bytes that come from the kernel are parsed totally: whatever they are, there is no panic.
#![forbid(unsafe_code)]

pub mod blackhole;
pub mod message;
pub mod nftables;
pub mod retry;
pub mod route;
pub mod sock_diag;
pub mod socket;
pub mod surroundings;

pub use message::{Encoder, Message};
pub use retry::Retry;
pub use socket::Socket;
pub use surroundings::Surroundings;
