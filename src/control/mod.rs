//! The control socket: status, list, block, unblock.
#![forbid(unsafe_code)]
