//! `type: […]` of a `Scan from:` line: how PortSentry calls what a probe is.
//!
//! Pure. Must never mend a name that PortSentry has: scripts compare them.
#![forbid(unsafe_code)]

use crate::config::Mode;
use crate::detect::probe::{Probe, ScanType};
use crate::packet::TcpFlags;

/// PortSentry's names; where it has none, those of the `scan.type` field. In connect mode it has but one, for UDP too.
pub(super) fn of(probe: &Probe, mode: Mode) -> String {
    match mode {
        Mode::Connect => "Connect".to_owned(),
        Mode::Stealth => kind_name(probe),
    }
}

fn kind_name(probe: &Probe) -> String {
    let name = match probe.scan_type {
        ScanType::Connect => "Connect",
        // Flags that nobody saw: of a header that was torn or buried.
        ScanType::OtherFlags if probe.flags == TcpFlags(0) => "other_flags",
        ScanType::Syn | ScanType::Null | ScanType::Fin | ScanType::Xmas | ScanType::OtherFlags => {
            return flags_name(probe.flags);
        }
        ScanType::Udp => "UDP",
        ScanType::Maimon => "maimon",
        ScanType::Ack => "ack",
        ScanType::SctpInit => "sctp_init",
        ScanType::SctpCookieEcho => "sctp_cookie_echo",
        ScanType::IpProtocol => "ip_protocol",
        ScanType::Icmp => "icmp",
    };
    name.to_owned()
}

/// PortSentry goes by the flags alone: what is a SYN to the score (with PSH, say) may have another name here, no flag at
/// all means none of the eight, and FIN with PSH and URG is XMAS whatever else is set.
fn flags_name(flags: TcpFlags) -> String {
    const XMAS: u8 = TcpFlags::FIN | TcpFlags::PSH | TcpFlags::URG;
    let name = match (flags.0, flags.classic()) {
        (0, _) => "TCP NULL scan",
        _ if flags.has(XMAS) => "TCP XMAS scan",
        (_, TcpFlags::FIN) => "TCP FIN scan",
        (_, TcpFlags::SYN) => "TCP SYN/Normal scan",
        _ => return unknown_type(flags),
    };
    name.to_owned()
}

fn unknown_type(flags: TcpFlags) -> String {
    let bit = |bit| u8::from(flags.has(bit));
    format!(
        "Unknown Type: TCP Packet Flags: SYN: {} FIN: {} ACK: {} PSH: {} URG: {} RST: {}",
        bit(TcpFlags::SYN),
        bit(TcpFlags::FIN),
        bit(TcpFlags::ACK),
        bit(TcpFlags::PSH),
        bit(TcpFlags::URG),
        bit(TcpFlags::RST),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::classic::tests::probe;

    #[test]
    fn types_have_upstreams_names() {
        let named = |scan_type, flags| of(&probe(scan_type, flags), Mode::Stealth);
        assert_eq!(named(ScanType::Connect, 0), "Connect");
        assert_eq!(named(ScanType::Udp, 0), "UDP");
        assert_eq!(of(&probe(ScanType::Udp, 0), Mode::Connect), "Connect");
        assert_eq!(named(ScanType::Null, 0), "TCP NULL scan");
        assert_eq!(named(ScanType::Xmas, 0x29), "TCP XMAS scan");
        assert_eq!(named(ScanType::Fin, 1), "TCP FIN scan");
        assert_eq!(named(ScanType::Maimon, 0x11), "maimon");
        // ECE and CWR: nothing to a SYN or a FIN, but not "no flag at all".
        assert_eq!(named(ScanType::Syn, 0xc2), "TCP SYN/Normal scan");
        assert_eq!(named(ScanType::Fin, 0x41), "TCP FIN scan");
        assert!(named(ScanType::Null, 0x40).ends_with("SYN: 0 FIN: 0 ACK: 0 PSH: 0 URG: 0 RST: 0"));
        assert!(named(ScanType::Syn, 0x0a).ends_with("SYN: 1 FIN: 0 ACK: 0 PSH: 1 URG: 0 RST: 0"));
        assert_eq!(named(ScanType::OtherFlags, 0x2b), "TCP XMAS scan");
        assert_eq!(named(ScanType::OtherFlags, 0), "other_flags");
        assert_eq!(
            named(ScanType::OtherFlags, TcpFlags::SYN | TcpFlags::FIN | TcpFlags::RST),
            "Unknown Type: TCP Packet Flags: SYN: 1 FIN: 1 ACK: 0 PSH: 0 URG: 0 RST: 1"
        );
    }
}
