//! What the rings are to see: said by the sensor's main thread, at start and whenever it turns its attention.
//!
//! Pure data. Says what is wanted, never how a filter would ask for it.
#![forbid(unsafe_code)]

use crate::config::PortSet;

/// What is wanted. Ports of live services should be in none of the sets: their traffic is no probe.
///
/// What this host itself sends to open a flow, or from a port that is wanted, goes up too: without it an answer could
/// not be told from a probe. See [`Writer::sent`](super::Writer::sent).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interest {
    /// Where packets come in. What is sent counts by whichever interface it leaves: its answer may come by another.
    pub interfaces: Watched,
    /// TCP ports whose opening segments (SYN alone) go up. Impossible flags go up on any port.
    pub tcp: PortSet,
    /// TCP ports where an ACK without payload goes up (ACK, window and Maimon scans). Ports that this host itself
    /// connects from must not be here, or each of its downloads' peers wakes us.
    pub tcp_acks: PortSet,
    /// UDP ports.
    pub udp: PortSet,
    /// UDP ports that this host asks from: only what comes from no system port (below 1024) goes up, or each answer of
    /// a resolver, time server or web server would wake us.
    pub udp_clients: PortSet,
    /// ICMP queries other than pings: timestamp and address mask.
    pub icmp: bool,
    /// IP protocols other than TCP, UDP, SCTP, ICMP, and those of routers and tunnels.
    pub other_protocols: bool,
}

/// The interfaces of an [`Interest`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Watched {
    /// Every one, loopback too, also those that come later.
    All,
    /// The same without loopback.
    #[default]
    AllButLoopback,
    /// These, by index.
    Indexes(Vec<u32>),
}

impl Watched {
    /// Whether what came in by this interface is wanted; of all but loopback the filter knows which that is.
    pub fn takes(&self, interface: u32) -> bool {
        match self {
            Watched::All | Watched::AllButLoopback => true,
            Watched::Indexes(indexes) => indexes.contains(&interface),
        }
    }
}
