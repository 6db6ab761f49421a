//! A set of ports for each of the two protocols whose ports are configured: TCP and UDP.
//!
//! Pure. No port of any other protocol is ever in one.
#![forbid(unsafe_code)]

use super::PortSet;
use crate::detect::probe::Protocol;

/// Ports of TCP and ports of UDP.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BothPorts {
    /// Of TCP.
    pub tcp: PortSet,
    /// Of UDP.
    pub udp: PortSet,
}

impl BothPorts {
    /// Whether `port` of `protocol` is among them.
    #[inline]
    pub fn contains(&self, protocol: Protocol, port: u16) -> bool {
        match protocol {
            Protocol::Tcp => self.tcp.contains(port),
            Protocol::Udp => self.udp.contains(port),
            Protocol::Sctp | Protocol::Icmp | Protocol::Ip => false,
        }
    }

    /// All of them, those of TCP first, in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = (Protocol, u16)> + '_ {
        let tcp = self.tcp.iter().map(|port| (Protocol::Tcp, port));
        tcp.chain(self.udp.iter().map(|port| (Protocol::Udp, port)))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.tcp.is_empty() && self.udp.is_empty()
    }
}

impl FromIterator<(Protocol, u16)> for BothPorts {
    /// Those of other protocols are left out.
    fn from_iter<I: IntoIterator<Item = (Protocol, u16)>>(ports: I) -> BothPorts {
        let mut out = BothPorts::default();
        for (protocol, port) in ports {
            match protocol {
                Protocol::Tcp => out.tcp.insert(port),
                Protocol::Udp => out.udp.insert(port),
                Protocol::Sctp | Protocol::Icmp | Protocol::Ip => {}
            }
        }
        out
    }
}
