//! Which ports have a live service, so that nobody is blamed for using it.
//!
//! The main thread fills them from sock_diag when somebody needs to know, never by binding (which would answer SYNs)
//! and never by the clock (an idle daemon does not wake). Ring threads only read.
#![forbid(unsafe_code)]

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::config::PortSet;
use crate::detect::SharedPorts;
use crate::detect::probe::Protocol;
use crate::netlink::sock_diag::{LocalSocket, Transport};

/// How old an answer may be before a probe of a port in use is worth a new look, milliseconds.
pub const FRESH_FOR: u64 = 1000;

/// The ports in use, by protocol.
pub struct PortsInUse {
    tcp: SharedPorts,
    udp: SharedPorts,
    sctp: SharedPorts,
    looked_at: AtomicU64,
    /// Something spoke from a port that is not among them.
    doubted: AtomicBool,
    loopback_counts: bool,
}

impl PortsInUse {
    /// Nothing known yet. `loopback_counts`: loopback traffic is watched too, so that a service bound there alone
    /// is a service; otherwise no packet that we see can reach it.
    pub fn new(loopback_counts: bool) -> PortsInUse {
        PortsInUse {
            tcp: SharedPorts::new(),
            udp: SharedPorts::new(),
            sctp: SharedPorts::new(),
            looked_at: AtomicU64::new(0),
            doubted: AtomicBool::new(false),
            loopback_counts,
        }
    }

    /// Whether a service was bound to the port at the last look, or was awaited back.
    pub fn holds(&self, protocol: Protocol, port: u16) -> bool {
        self.of(protocol).is_some_and(|ports| ports.contains(port))
    }

    /// Whether the last look is recent enough to believe that a port is still in use. `uptime` in milliseconds.
    pub fn is_fresh(&self, uptime: u64) -> bool {
        uptime.saturating_sub(self.looked_at.load(Ordering::Relaxed)) < FRESH_FOR
    }

    /// A service spoke from a port that is not in use as far as is known here.
    pub fn doubt(&self) {
        self.doubted.store(true, Ordering::Relaxed);
    }

    /// Whether [`doubt`](Self::doubt) was called since the last [`heed_doubt`](Self::heed_doubt).
    pub fn is_doubted(&self) -> bool {
        self.doubted.load(Ordering::Relaxed)
    }

    /// To be called before the kernel is asked: of a service that speaks while it answers, the answer may know nothing.
    pub fn heed_doubt(&self) {
        // No store, which may come to pass only after the question.
        self.doubted.swap(false, Ordering::AcqRel);
    }

    /// Takes `ports` for ones in use until the next look, which may find them gone.
    pub fn presume(&self, protocol: Protocol, ports: &PortSet) {
        if let Some(known) = self.of(protocol) {
            known.extend(ports);
        }
    }

    /// Takes in what sock_diag said at `uptime`; `ours` are the decoys' own sockets, which are no service. `awaited` is
    /// asked of each port that is in use no more whether it is to pass for one that is. Gives whether anything changed.
    pub fn replace(
        &self,
        sockets: &[LocalSocket],
        ours: impl Fn(Protocol, u16) -> bool,
        mut awaited: impl FnMut(Protocol, u16) -> bool,
        uptime: u64,
    ) -> bool {
        let mut changed = false;
        for transport in Transport::ALL {
            let protocol = protocol_of(transport);
            let mut ports: PortSet = sockets
                .iter()
                .filter(|socket| socket.transport == transport && self.can_be_reached(socket.local.ip()))
                .map(|socket| socket.local.port())
                .filter(|&port| !ours(protocol, port))
                .collect();
            let Some(known) = self.of(protocol) else { continue };
            for port in known.ports().without(&ports).iter() {
                if awaited(protocol, port) {
                    ports.insert(port);
                }
            }
            changed |= known.replace(&ports);
        }
        self.looked_at.store(uptime, Ordering::Relaxed);
        changed
    }

    fn can_be_reached(&self, bound_to: IpAddr) -> bool {
        self.loopback_counts || !bound_to.to_canonical().is_loopback()
    }

    fn of(&self, protocol: Protocol) -> Option<&SharedPorts> {
        match protocol {
            Protocol::Tcp => Some(&self.tcp),
            Protocol::Udp => Some(&self.udp),
            Protocol::Sctp => Some(&self.sctp),
            Protocol::Icmp | Protocol::Ip => None,
        }
    }
}

fn protocol_of(transport: Transport) -> Protocol {
    match transport {
        Transport::Tcp => Protocol::Tcp,
        Transport::Udp => Protocol::Udp,
        Transport::Sctp => Protocol::Sctp,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE_AWAITED: fn(Protocol, u16) -> bool = |_, _| false;

    fn listener(transport: Transport, local: &str) -> LocalSocket {
        let local = local.parse().unwrap();
        LocalSocket { transport, local, remote: None, only_v6: false, interface: 0, inode: 0, uid: 0 }
    }

    #[test]
    fn a_listener_makes_its_port_in_use_until_it_is_gone() {
        let ports = PortsInUse::new(false);
        ports.replace(
            &[listener(Transport::Tcp, "[::]:443"), listener(Transport::Udp, "10.0.0.1:65535")],
            |_, _| false,
            NONE_AWAITED,
            5000,
        );
        assert!(ports.holds(Protocol::Tcp, 443) && ports.holds(Protocol::Udp, 65535));
        assert!(!ports.holds(Protocol::Udp, 443) && !ports.holds(Protocol::Icmp, 443));
        ports.replace(&[], |_, _| false, NONE_AWAITED, 6000);
        assert!(!ports.holds(Protocol::Tcp, 443));
    }

    #[test]
    fn of_ports_without_their_service_those_that_are_awaited_pass_for_ports_in_use() {
        let ports = PortsInUse::new(false);
        let listeners =
            ["0.0.0.0:63", "0.0.0.0:64", "0.0.0.0:80"].map(|local| listener(Transport::Tcp, local));
        ports.replace(&listeners, |_, _| false, NONE_AWAITED, 5000);
        let mut asked = Vec::new();
        let await_64 = |protocol, port| {
            asked.push((protocol, port));
            port == 64
        };
        assert!(ports.replace(&listeners[2..], |_, _| false, await_64, 6000));
        assert_eq!(asked, [(Protocol::Tcp, 63), (Protocol::Tcp, 64)]);
        assert_eq!([63, 64, 80].map(|port| ports.holds(Protocol::Tcp, port)), [false, true, true]);
    }

    #[test]
    fn what_is_presumed_is_in_use_until_a_look_that_does_not_find_it() {
        let ports = PortsInUse::new(false);
        ports.presume(Protocol::Tcp, &[389, 636].into_iter().collect());
        assert!(ports.holds(Protocol::Tcp, 389) && !ports.holds(Protocol::Udp, 389));
        let mut asked = Vec::new();
        let await_389 = |_, port| {
            asked.push(port);
            port == 389
        };
        ports.replace(&[], |_, _| false, await_389, 5000);
        assert_eq!(asked, [389, 636]);
        assert_eq!([389, 636].map(|port| ports.holds(Protocol::Tcp, port)), [true, false]);
    }

    #[test]
    fn loopback_services_and_our_own_decoys_do_not_count() {
        let ports = PortsInUse::new(false);
        let listeners = [
            listener(Transport::Tcp, "127.0.0.1:631"),
            listener(Transport::Tcp, "[::]:21"),
            listener(Transport::Tcp, "[::1]:25"),
        ];
        ports.replace(&listeners, |_, port| port == 21, NONE_AWAITED, 5000);
        assert!([631, 21, 25].iter().all(|&port| !ports.holds(Protocol::Tcp, port)));
        let with_loopback = PortsInUse::new(true);
        with_loopback.replace(&listeners, |_, _| false, NONE_AWAITED, 5000);
        assert!([631, 21, 25].iter().all(|&port| with_loopback.holds(Protocol::Tcp, port)));
    }

    #[test]
    fn a_doubt_that_comes_while_the_kernel_is_asked_outlives_its_answer() {
        let ports = PortsInUse::new(false);
        ports.doubt();
        ports.heed_doubt();
        assert!(!ports.is_doubted());
        ports.doubt();
        ports.replace(&[], |_, _| false, NONE_AWAITED, 5000);
        assert!(ports.is_doubted());
    }

    #[test]
    fn knowledge_ages() {
        let ports = PortsInUse::new(false);
        assert!(!ports.is_fresh(FRESH_FOR));
        ports.replace(&[], |_, _| false, NONE_AWAITED, 5000);
        assert!(ports.is_fresh(5999) && !ports.is_fresh(6000));
    }
}
