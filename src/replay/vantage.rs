//! Whose eyes a capture is seen with.
#![forbid(unsafe_code)]

use std::net::IpAddr;

use ipnet::IpNet;

use crate::detect::Probe;
use crate::detect::table::Vantage;
use crate::packet::Packet;

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

    /// Whether `packet` may be for one host alone. `to_many`: the frame that it came in is to a group.
    ///
    /// A host of which it is known takes datagrams out of such a frame, but no segment. Of a capture it is known neither
    /// which addresses are hosts' nor that its link headers are true: programs that write packets down without asking for
    /// anybody's address have them to everybody. So only what may be for many is taken to be.
    pub(super) fn is_for_one(self, packet: &Packet, to_many: bool) -> bool {
        let may_come_to_many = packet.transport.may_come_to_many();
        match self {
            _ if !to_many => true,
            View::Host(_) => may_come_to_many,
            // A segment is for nobody but one (RFC 1122 §4.2.3.10).
            View::EachHost | View::Network => !(may_come_to_many && may_be_everybodys(packet.destination)),
        }
    }

    /// Whether `probe` is judged. What a host says to itself it does not hear, as the daemon does not unless told otherwise;
    /// who looks at others' hosts does.
    pub(super) fn judges(self, probe: &Probe) -> bool {
        match self {
            View::EachHost | View::Network => is_one_host(probe.destination),
            View::Host(host) => host.to_canonical() == probe.destination && probe.source != probe.destination,
        }
    }
}

/// Whether an address can be one host's: not a group's, not everybody's, not nobody's.
fn is_one_host(address: IpAddr) -> bool {
    let everybody = matches!(address, IpAddr::V4(address) if address.is_broadcast());
    !(everybody || address.is_multicast() || address.is_unspecified())
}

/// Whether a network may have `address` for all its hosts: one whose last bits are all ones (RFC 919 §7), two at least, for
/// no smaller network has such an address (RFC 3021). The zeros that 4.2BSD had for it are long obsolete (RFC 1812 §4.2.3.1).
fn may_be_everybodys(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.to_bits() & 3 == 3,
        IpAddr::V6(address) => address.is_multicast(),
    }
}
