//! The threshold random walk over everything that is not a watched port: which contact failed, and how much that says.
//!
//! Pure, for the ring threads. Never decides about watched ports: those are SCAN_TRIGGER's.
#![forbid(unsafe_code)]

use std::net::IpAddr;

use super::peers::{Course, Heard};
use super::probe::{Probe, Protocol, ScanType};
use super::table::{Evidence, Vantage};
use super::weights::{self, Points, Sensitivity};

/// IANA 2: IGMP queries come from every router.
const IGMP: u16 = 2;
/// ICMP and ICMPv6 echo requests.
const ECHO: [u32; 2] = [8, 128];

/// How contacts with unwatched ports are judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Walk {
    threshold: Option<Points>,
}

/// What is known of the place that a probe came to.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// A service runs there.
    pub in_use: bool,
    /// Whether what its host sends is seen, so that an answer to nothing is no answer.
    pub heard: Heard,
    /// Who is watching.
    pub vantage: Vantage,
}

impl Walk {
    /// A walk as SENSITIVITY says.
    pub fn new(sensitivity: Sensitivity) -> Walk {
        Walk { threshold: sensitivity.threshold() }
    }

    /// Whether there is one at all.
    pub fn is_on(&self) -> bool {
        self.threshold.is_some()
    }

    /// The score at which it ends, in points.
    pub fn threshold(&self) -> f32 {
        self.threshold.unwrap_or(Points::NONE).as_f32()
    }

    /// Whether it ends before a score of `threshold` is reached.
    pub fn is_quicker_than(&self, threshold: Points) -> bool {
        self.threshold.is_some_and(|own| own < threshold)
    }

    /// What `probe` is worth there; `None`: nothing.
    pub fn evidence(&self, probe: &Probe, place: Place) -> Option<Evidence> {
        let threshold = self.threshold?;
        if is_for_everybody(probe.destination, place.vantage) {
            return None;
        }
        if probe.scan_type.is_impossible() {
            let points = weights::IMPOSSIBLE;
            return Some(Evidence { new_port: points, known_port: points, threshold });
        }
        let new_port = if place.in_use { Points::NONE } else { failure(probe, place) };
        (new_port > Points::NONE).then_some(Evidence { new_port, known_port: Points::NONE, threshold })
    }

    /// What a failed contact is worth, once a port.
    pub fn failure(&self) -> Option<Evidence> {
        Some(Evidence { new_port: weights::FAILURE, known_port: Points::NONE, threshold: self.threshold? })
    }

    /// What it is worth, once a port, that a client made this of a connection to a service.
    pub fn course(&self, course: Course) -> Option<Evidence> {
        let new_port = match course {
            Course::Exchanged => weights::SUCCESS,
            Course::HalfOpen => weights::HALF_OPEN,
            Course::Abandoned => weights::ABANDONED,
        };
        Some(Evidence { new_port, known_port: Points::NONE, threshold: self.threshold? })
    }
}

/// What a first contact with a port that nobody uses is worth.
fn failure(probe: &Probe, place: Place) -> Points {
    match probe.scan_type {
        _ if answers_what_is_not_listened_for(probe) => Points::NONE,
        ScanType::Syn | ScanType::Connect | ScanType::SctpInit | ScanType::SctpCookieEcho => weights::FAILURE,
        ScanType::Maimon | ScanType::Ack => unless_an_answer(probe, place),
        ScanType::Udp if is_traced(probe.port) => Points::NONE,
        ScanType::Udp if is_neighbourly(probe.port) && is_neighbourly(probe.source_port) => Points::NONE,
        ScanType::Udp if is_neighbourly(probe.port) => weights::NEIGHBOURLY,
        ScanType::Udp => unless_an_answer(probe, place),
        ScanType::IpProtocol if probe.port == IGMP => Points::NONE,
        ScanType::IpProtocol => weights::FAILURE,
        // A host is pinged by whoever wants; whoever pings hosts that do not answer is looking for some.
        ScanType::Icmp if ECHO.contains(&probe.sequence) && place.vantage != Vantage::Network => Points::NONE,
        ScanType::Icmp => weights::FAILURE,
        ScanType::Null | ScanType::Fin | ScanType::Xmas | ScanType::OtherFlags => weights::IMPOSSIBLE,
    }
}

/// Whether `probe` is of the kind that the rings' filter keeps below (`sensor::attention`), and with it the question:
/// fragments, and what stands behind extension headers, go up whatever they hold.
fn answers_what_is_not_listened_for(probe: &Probe) -> bool {
    let from_server = probe.protocol == Protocol::Udp && probe.source_port < weights::FIRST_CLIENT_PORT;
    answers_an_unheard_call(probe) || from_server && probe.port >= weights::FIRST_EPHEMERAL_PORT
}

/// Of these, what is kept below at watched ports too: TCP alone. All of what comes to a watched UDP port goes up.
fn answers_an_unheard_call(probe: &Probe) -> bool {
    probe.scan_type.may_be_stray() && probe.port >= weights::FIRST_EPHEMERAL_PORT
}

/// Where the question may have been missed, what comes to a client's port proves nothing; where none is ever seen, what
/// comes there from a server's.
fn unless_an_answer(probe: &Probe, place: Place) -> Points {
    let is_unheard = place.heard == Heard::Nothing && is_from_server_to_client(probe);
    let may_be_one = is_unheard || may_be_late(place.heard, probe.port);
    if may_be_one { weights::ANSWER_OF_UNHEARD } else { weights::FAILURE }
}

/// Whether `probe` of a watched port may be the answer to a question that never goes up, or was missed a moment ago.
pub fn may_be_an_answer(probe: &Probe, heard: Heard) -> bool {
    let is_of_that_kind = matches!(probe.scan_type, ScanType::Udp | ScanType::Maimon | ScanType::Ack);
    let is_late = may_be_late(heard, probe.port) && is_of_that_kind && is_from_server_to_client(probe);
    is_late || answers_an_unheard_call(probe)
}

/// Whether the question may have been missed a moment ago that is answered at `port`. Before the start it was this host's
/// own, from an ephemeral port.
fn may_be_late(heard: Heard, port: u16) -> bool {
    match heard {
        Heard::All | Heard::Nothing => false,
        Heard::NotAllOfLate => port >= weights::FIRST_CLIENT_PORT,
        Heard::SinceTheStart => port >= weights::FIRST_EPHEMERAL_PORT,
    }
}

fn is_from_server_to_client(probe: &Probe) -> bool {
    probe.source_port < weights::FIRST_CLIENT_PORT && probe.port >= weights::FIRST_CLIENT_PORT
}

fn is_traced(port: u16) -> bool {
    weights::TRACED_UDP.iter().any(|ports| ports.contains(&port))
}

fn is_neighbourly(port: u16) -> bool {
    weights::NEIGHBOURLY_UDP.contains(&port)
}

/// Multicast and broadcast look for no one. A network's own broadcast address is not known as such in a capture: there
/// 255 at the end of an IPv4 address is taken for one. The live rings bring none.
fn is_for_everybody(destination: IpAddr, vantage: Vantage) -> bool {
    match destination {
        IpAddr::V4(address) => {
            let ends_in_ones = address.octets().last() == Some(&255);
            address.is_multicast() || address.is_broadcast() || ends_in_ones && vantage != Vantage::Host
        }
        IpAddr::V6(address) => address.is_multicast(),
    }
}

#[cfg(test)]
#[cfg(not(loom))]
#[allow(clippy::wildcard_enum_match_arm)]
mod tests;
