//! Whose eyes a capture is seen with.
#![forbid(unsafe_code)]

use std::net::IpAddr;

use ipnet::IpNet;

use super::is_one_host;
use crate::detect::table::Vantage;

/// Which destinations are protected, and whether they know of each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// Every destination is a protected host of its own.
    EachHost,
    /// This one alone.
    Host(IpAddr),
    /// All destinations are one site, which sees sweeps.
    Network,
}

impl View {
    /// How accounts are kept.
    pub(super) fn vantage(self) -> Vantage {
        match self {
            View::EachHost => Vantage::EachHost,
            View::Host(_) => Vantage::Host,
            View::Network => Vantage::Network,
        }
    }

    /// Where the one protected host's neighbours are: IPv6 hands out networks of 64 bits (RFC 7421). Where all are
    /// protected, each source is held against the host it probes.
    pub(super) fn on_link(self) -> Option<IpNet> {
        match self {
            View::Host(host @ IpAddr::V6(_)) => IpNet::new(host, 64).ok().map(|network| network.trunc()),
            View::Host(IpAddr::V4(_)) | View::EachHost | View::Network => None,
        }
    }

    /// Whether packets to `destination` are judged.
    pub(super) fn protects(self, destination: IpAddr) -> bool {
        match self {
            View::EachHost | View::Network => is_one_host(destination),
            View::Host(host) => host.to_canonical() == destination,
        }
    }
}
