//! How much each kind of evidence counts, with the source of every number.
//!
//! Pure constants; the ring threads read them through the policy. No other file may hold a weight.
#![forbid(unsafe_code)]

use std::time::Duration;

/// Evidence in 256ths of a point. One point is one failed first contact of the threshold random walk (Jung, Paxson,
/// Berger, Balakrishnan, IEEE S&P 2004): its ln 4 for θ0 = 0.8, θ1 = 0.2, divided by itself. Negative forgives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Points(pub i32);

impl Points {
    /// Nothing.
    pub const NONE: Points = Points(0);
    /// One whole point.
    pub const ONE: Points = Points(256);

    /// In whole points, as events show it.
    pub fn as_f32(self) -> f32 {
        self.0 as f32 / 256.0
    }
}

/// A probe of a watched port where no service is: PortSentry's unit, a whole point, for the same port as for another.
pub const WATCHED_PORT: Points = Points::ONE;

/// A bare ACK or FIN+ACK to a watched port: a connection forgotten in a restart sends the same, to its one port. So it
/// counts once a port, and less than [`HALF_POINT`]: one port alone never triggers, two do under the strictest setting.
pub const STRAY: Points = Points(96);

/// What may be missing of a whole score at the trigger: see [`trigger_threshold`].
pub const HALF_POINT: Points = Points(128);

/// SCAN_TRIGGER values above this act as this, and `config` says so: scores saturate at 1,023 points.
pub const TRIGGER_MAX: u32 = 1_000;

/// After this long a point is worth half, unless SCORE_WINDOW says otherwise. A night's pause between two halves of a
/// scan is 6 hours, nmap's slowest timing (-T0) 5 minutes: ten of its probes lose half a point, while the weekly stray
/// of an innocent is gone by the next.
/// PortSentry never forgets a probe, whereby any host that errs twice in a year is a scanner under SCAN_TRIGGER=2.
pub const HALF_LIFE: Duration = Duration::from_secs(6 * 3600);

/// The score at which SCAN_TRIGGER=`trigger` is reached: 0 and 1 mean the first probe.
///
/// Half a point below the count, because points decay: two probes count as two while the first is at most one
/// [`HALF_LIFE`] old, and a quick scan triggers at exactly its n-th probe whatever n is.
pub fn trigger_threshold(trigger: u32) -> Points {
    let whole = i32::try_from(trigger.clamp(1, TRIGGER_MAX)).unwrap_or(1);
    Points(whole * Points::ONE.0 - HALF_POINT.0)
}

/// The walk: a first contact that fails, with a port of this host that nobody uses.
pub const FAILURE: Points = Points::ONE;

/// The walk: a first contact that succeeds, something said to a real service. What a failure adds it takes away, for
/// θ1 = 1 − θ0. A handshake alone is no success: every scan that connects has one at each open port.
pub const SUCCESS: Points = Points(-Points::ONE.0);

/// The walk: a client that answers a service's SYN+ACK with a bare RST. So does a kernel that knows of no such connection
/// (RFC 9293 §3.10.7.1): the SYN was a raw packet (`nmap -sS`, masscan, zmap), or another's in its name, like any
/// failure. A port that is open has failed the scanner no less than a closed one: nothing was wanted of it.
pub const HALF_OPEN: Points = FAILURE;

/// The walk: a client that resets a connection of its own without a word: after the handshake (`nmap -sT`), or with RST
/// and ACK in place of its last segment (HAProxy's health checks). Balancers do both, each at the few ports it balances:
/// half a failure, so that it takes 17 services of one host.
pub const ABANDONED: Points = Points(128);

/// The walk: flags that no honest stack sends (see [`super::ScanType::is_impossible`]). A whole point for each packet,
/// whatever its port, in use or not: there is no honest reason to repeat it either.
pub const IMPOSSIBLE: Points = Points::ONE;

/// The walk, where what the host itself sends is not seen (half a capture) or may have been missed (a ring that was full):
/// something that looks like the answer to a client of ours. It may be one, so it proves nothing: one server's answers
/// met 10,561 local ports in a real capture.
pub const ANSWER_OF_UNHEARD: Points = Points::NONE;

/// Ports below are servers' (RFC 6335 §6: the system ports).
pub const FIRST_CLIENT_PORT: u16 = 1024;

/// Ports from here on are those that a host asks from, unless it is told otherwise (net.ipv4.ip_local_port_range).
pub const FIRST_EPHEMERAL_PORT: u16 = 32_768;

/// UDP ports at which a neighbour knocks without being asked, every day, on every network: DHCP (RFC 2131, RFC 8415),
/// NetBIOS (RFC 1001), SSDP (UPnP 1.1), WS-Discovery, mDNS (RFC 6762), LLMNR (RFC 4795).
pub const NEIGHBOURLY_UDP: [u16; 10] = [67, 68, 137, 138, 546, 547, 1900, 3702, 5353, 5355];

/// The walk: one of these asked from a port that is none of them. Neighbours ask from their service's own port (RFC 2131
/// §4.1, RFC 1002 §4.4, RFC 8415 §7.2, RFC 6762 §6) or ask everybody; but some tools do so from any port, and so this is
/// less than a failure: all ten together are no scan, while of the ten UDP ports that are scanned most four are among them.
pub const NEIGHBOURLY: Points = Points(160);

/// UDP ports of those who trace the way to us, and whose last probes are answered as a matter of course: traceroute(8)
/// begins at 33434 and takes the next one for each of 3 probes on at most 30 hops; tracepath(8) goes round in 64 from
/// 44444 on. `mtr --udp` takes the next one from 33000 on for as long as it runs: to excuse that would leave a hole.
pub const TRACED_UDP: [std::ops::RangeInclusive<u16>; 2] = [33_434..=33_534, 44_444..=44_507];

/// SENSITIVITY: the error rates of the walk's sequential test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sensitivity {
    /// Ports that are not watched never count.
    Off,
    /// α = 1e-8: one honest source in a hundred million; 14 straight failures. Snort's medium port scan counts 15.
    Low,
    /// α = 1e-5: 9 straight failures, within the 10 of Weaver, Staniford and Paxson (USENIX Security 2004).
    Medium,
    /// α = 0.01, the paper's own: 4 straight failures.
    High,
}

impl Sensitivity {
    /// Probability that the walk flags an honest source: Jung et al., §4.2.
    pub const fn alpha(self) -> Option<f64> {
        match self {
            Sensitivity::Off => None,
            Sensitivity::Low => Some(1e-8),
            Sensitivity::Medium => Some(1e-5),
            Sensitivity::High => Some(0.01),
        }
    }

    /// The score at which the walk ends: ln(β/α) in units of ln((1−θ1)/(1−θ0)), which is one failure's.
    /// Not rounded up to whole failures, so that a slow scan's points may fade a little. `None`: never.
    pub fn threshold(self) -> Option<Points> {
        let failures = (BETA / self.alpha()?).ln() / ((1.0 - THETA_SCANNER) / (1.0 - THETA_HONEST)).ln();
        Some(Points((failures * f64::from(Points::ONE.0)).round() as i32))
    }

    /// How many failures in a row that takes. `None`: no number is enough.
    pub fn failures(self) -> Option<u32> {
        self.threshold().map(|threshold| threshold.as_f32().ceil() as u32)
    }

    /// As SENSITIVITY names it.
    pub const fn name(self) -> &'static str {
        match self {
            Sensitivity::Off => "off",
            Sensitivity::Low => "low",
            Sensitivity::Medium => "medium",
            Sensitivity::High => "high",
        }
    }
}

/// Probability that the walk flags a scanner.
pub const BETA: f64 = 0.99;
/// Probability that an honest source's first contact succeeds: Jung et al. §4.1, measured at two sites.
pub const THETA_HONEST: f64 = 0.8;
/// And a scanner's.
pub const THETA_SCANNER: f64 = 0.2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_a_neighbour_may_ask_for_from_any_port_is_no_scan_and_ten_ports_of_a_scanner_are_one() {
        let medium = Sensitivity::Medium.threshold().unwrap();
        assert!(Points(NEIGHBOURLY.0 * NEIGHBOURLY_UDP.len() as i32) < medium);
        assert!(Points(NEIGHBOURLY.0 * 4 + FAILURE.0 * 6) >= medium);
    }

    #[test]
    fn each_sensitivity_takes_the_straight_failures_that_its_error_rates_say() {
        assert_eq!(
            [Sensitivity::Off, Sensitivity::Low, Sensitivity::Medium, Sensitivity::High]
                .map(Sensitivity::failures),
            [None, Some(14), Some(9), Some(4)]
        );
    }
}
