//! Where the tripwire lies: the watched ports on which one packet is an alarm and nobody is at home.
//!
//! Main thread; requests are queued. The helper is told no more than what changes, a page of ports at a time.
#![forbid(unsafe_code)]

use super::ports_in_use::PortsInUse;
use super::ring;
use crate::config::{BlockMode, BothPorts, Config, Interfaces, Mode, PortSet};
use crate::detect::policy::Watch;
use crate::detect::probe::Protocol;
use crate::detect::weights::{FIRST_EPHEMERAL_PORT, NEIGHBOURLY_UDP};
use crate::detect::{Peers, Probe};
use crate::protocol::channel::RequestWriter;
use crate::protocol::{Datagrams, Page, Request, Response, Terms};

/// The kernel has no tripwire for us.
pub const LACKING: &str = "TRIPWIRE: not set up, for this kernel lacks what it takes (nf_tables with fib, socket, limit \
     and dynamic sets); scanners are blocked as soon as they are seen";

/// What the helper was told.
pub struct Traps {
    is_there: bool,
    ports: BothPorts,
    /// Pages found no room in the queue.
    is_behind: bool,
}

/// TRIPWIRE as the helper is told at the start: a reload may set traps later where there are none yet.
pub fn terms(config: &Config) -> Option<Terms> {
    let may_be = config.tripwire
        && config.flags.mode == Mode::Stealth
        && config.block_with.contains(&Response::Nftables);
    let interfaces = match &config.interfaces {
        Interfaces::All | Interfaces::AllButLoopback => Vec::new(),
        // Rules know an interface by the first of its names alone.
        Interfaces::Named(names) => names.iter().map(|name| ring::first_name(name)).collect(),
    };
    // Half of BLOCK_LIMIT is for sources of a single packet that may be forged; the tripwire knows no other.
    may_be.then(|| Terms { interfaces, per_minute: (config.block_limit / 2).max(1) })
}

/// The ports on which a single packet would have us block its source. None of UDP that anything was ever asked from: what
/// comes there may be an answer to a closed socket, or to a host behind this one, which has none here.
pub fn wanted(watch: &Watch, decoys: &BothPorts, in_use: &PortsInUse, peers: &Peers) -> BothPorts {
    let watched = BothPorts { tcp: watch.tcp_ports.clone(), udp: watch.udp_ports.clone() };
    // Neighbours knock there of their own accord, and what they are answered may come back to a closed socket.
    let is_asked_from = |port: u16| {
        NEIGHBOURLY_UDP.contains(&port)
            || port >= FIRST_EPHEMERAL_PORT
            || peers.asks_from(Protocol::Udp, port)
    };
    let is_trap = |&(protocol, port): &(Protocol, u16)| {
        watch.scan_trigger <= 1
            && watch.block_mode(protocol) == BlockMode::Block
            && !decoys.contains(protocol, port)
            && !in_use.holds(protocol, port)
            && (protocol != Protocol::Udp || !is_asked_from(port))
    };
    watched.iter().filter(is_trap).collect()
}

impl Traps {
    /// None yet. `is_there`: the helper has a tripwire to set them on.
    pub fn new(is_there: bool) -> Traps {
        Traps { is_there, ports: BothPorts::default(), is_behind: false }
    }

    /// Tells the helper what has changed. Pages that find no room in the queue are told the next time.
    pub fn become_these(&mut self, wanted: &BothPorts, requests: &mut RequestWriter) {
        if self.is_there {
            self.is_behind = !(turn(&mut self.ports.tcp, &wanted.tcp, Datagrams::No, requests)
                && turn(&mut self.ports.udp, &wanted.udp, Datagrams::Yes, requests));
        }
    }

    /// Whether the next time should be soon: a port that is no trap any more still trips who asks there.
    pub fn are_behind(&self) -> bool {
        self.is_behind
    }

    /// Whether one of them has become a port that something was asked from.
    pub fn await_answers(&self, peers: &Peers) -> bool {
        self.ports.udp.iter().any(|port| peers.asks_from(Protocol::Udp, port))
    }

    /// Has the tripwire leave alone whose probe was none after all. Segments that may belong to a connection trip nobody:
    /// a flood of them must not fill the queue that blocks are asked through.
    pub fn spare(&self, probe: &Probe, requests: &mut RequestWriter) {
        let may_have_tripped =
            !probe.scan_type.may_be_stray() && self.ports.contains(probe.protocol, probe.port);
        if may_have_tripped {
            // Where the queue is full the entry lapses by itself.
            let _ = requests.send(|id| Request::Spare { id, address: probe.source });
        }
    }
}

/// Whether all of it found room.
fn turn(told: &mut PortSet, wanted: &PortSet, datagrams: Datagrams, requests: &mut RequestWriter) -> bool {
    let changed: Vec<Page> = Page::all(|port| wanted.contains(port))
        .filter(|page| page.ports().any(|port| told.contains(port) != page.contains(port)))
        .collect();
    for page in changed {
        if requests.send(|id| Request::Traps { id, datagrams, page }).is_err() {
            return false;
        }
        for port in page.ports() {
            if page.contains(port) { told.insert(port) } else { told.remove(port) }
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::policy;
    use crate::detect::probe::{ScanType, samples};
    use crate::detect::weights::Sensitivity;
    use crate::netlink::sock_diag::{LocalSocket, Transport};

    fn watch() -> Watch {
        Watch {
            tcp_ports: [23, 80, 111, 60_000].into_iter().collect(),
            udp_ports: [69, 161, 5353].into_iter().collect(),
            ..policy::samples::watch(Sensitivity::Off)
        }
    }

    fn decoys() -> BothPorts {
        [(Protocol::Tcp, 23), (Protocol::Udp, 161)].into_iter().collect()
    }

    fn peers() -> Peers {
        Peers::new(&[5; 16], crate::detect::peers::Hearing::of_this_host(false, 0))
    }

    fn in_use() -> PortsInUse {
        let local = "0.0.0.0:80".parse().unwrap();
        let transport = Transport::Tcp;
        let web =
            LocalSocket { transport, local, remote: None, only_v6: false, interface: 0, inode: 0, uid: 0 };
        let ports = PortsInUse::new(false);
        ports.replace(&[web], |_, _| false, |_, _| false, 1);
        ports
    }

    fn ports(both: BothPorts) -> (Vec<u16>, Vec<u16>) {
        (both.tcp.iter().collect(), both.udp.iter().collect())
    }

    #[test]
    fn traps_are_watched_ports_without_decoys_services_and_neighbourly_ports() {
        assert_eq!(ports(wanted(&watch(), &decoys(), &in_use(), &peers())), (vec![111, 60_000], vec![69]));
    }

    #[test]
    fn udp_ports_that_this_host_asks_from_or_may_are_no_traps() {
        let watch = Watch { udp_ports: [69, 700, 60_000].into_iter().collect(), ..watch() };
        let udp = |peers: &Peers| ports(wanted(&watch, &decoys(), &in_use(), peers)).1;
        let peers = peers();
        assert_eq!(udp(&peers), [69, 700]);
        let (source, destination) = ("192.0.2.1".parse().unwrap(), "198.51.100.7".parse().unwrap());
        let transport = crate::packet::Transport::Udp { source_port: 700, port: 53, payload: 9 };
        peers.note_sent(&crate::packet::Packet { source, destination, ip_options: None, transport }, 1);
        assert_eq!(udp(&peers), [69]);
    }

    #[test]
    fn where_one_packet_blocks_nobody_there_is_no_trap() {
        let patient = Watch { scan_trigger: 2, ..watch() };
        assert_eq!(ports(wanted(&patient, &decoys(), &in_use(), &peers())), (vec![], vec![]));
        let log_only = Watch { block_tcp: BlockMode::Log, block_udp: BlockMode::RunCommand, ..watch() };
        assert_eq!(ports(wanted(&log_only, &decoys(), &in_use(), &peers())), (vec![], vec![]));
    }

    #[test]
    fn only_pages_that_change_are_told_and_none_where_there_is_no_tripwire() {
        let told = |traps: &mut Traps, watch: &Watch| {
            let mut requests = RequestWriter::new(8);
            traps.become_these(&wanted(watch, &decoys(), &in_use(), &peers()), &mut requests);
            8 - requests.frames().room()
        };
        let mut traps = Traps::new(true);
        assert_eq!([told(&mut traps, &watch()), told(&mut traps, &watch())], [3, 0]);
        assert_eq!(told(&mut traps, &Watch { scan_trigger: 2, ..watch() }), 3);
        assert_eq!(told(&mut Traps::new(false), &watch()), 0);
    }

    #[test]
    fn what_finds_no_room_is_told_as_soon_as_there_is_some() {
        let mut traps = Traps::new(true);
        let mut turns = std::iter::repeat_with(|| {
            traps.become_these(&wanted(&watch(), &decoys(), &in_use(), &peers()), &mut RequestWriter::new(1));
            traps.are_behind()
        });
        assert_eq!(turns.by_ref().take(4).collect::<Vec<_>>(), [true, true, false, false]);
    }

    #[test]
    fn only_what_trips_is_spared() {
        let mut traps = Traps::new(true);
        traps.become_these(&wanted(&watch(), &decoys(), &in_use(), &peers()), &mut RequestWriter::new(8));
        let spares = |scan_type, port| {
            let probe = Probe { scan_type, ..samples::syn("192.0.2.1", port) };
            let mut requests = RequestWriter::new(8);
            traps.spare(&probe, &mut requests);
            requests.frames().room() < 8
        };
        assert_eq!([spares(ScanType::Syn, 111), spares(ScanType::Syn, 80)], [true, false]);
        assert_eq!([ScanType::Ack, ScanType::Maimon].map(|stray| spares(stray, 111)), [false, false]);
    }
}
