//! Netlink: message codec (pure) and one socket, shared by nftables, route and sock_diag.
#![forbid(unsafe_code)]
