//! Where IPv6 sources are judged one by one, not by their prefix: a neighbour must not pay for a scanner beside it.
//!
//! Pure; for the sensor's main thread and for replays. Must not ask the host: its networks are given.
#![forbid(unsafe_code)]

use std::net::Ipv6Addr;

use ipnet::{IpNet, Ipv6Net};

use crate::networks::Networks;

/// Where IPv4 hosts appear as IPv6 ones (RFC 6052 §2.1, RFC 8215): neighbours there have nothing to do with each other.
const TRANSLATED: [IpNet; 2] = [
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96)),
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, 0, 0), 48)),
];

/// Where IPv6 sources are judged one by one: on our own links, behind translators, around who is protected.
pub(crate) fn one_by_one(
    on_link: impl IntoIterator<Item = IpNet>,
    protected: impl IntoIterator<Item = IpNet>,
    prefix: u8,
) -> Networks {
    let around = protected.into_iter().filter_map(|network| around(network, prefix));
    on_link.into_iter().chain(TRANSLATED).chain(around).collect()
}

/// The prefix that a source beside this protected network would be judged by: it must not shield its neighbours.
fn around(network: IpNet, prefix: u8) -> Option<IpNet> {
    match network {
        IpNet::V6(v6) if v6.prefix_len() > prefix => {
            IpNet::new(v6.network().into(), prefix).ok().map(|wide| wide.trunc())
        }
        IpNet::V6(_) | IpNet::V4(_) => None,
    }
}
