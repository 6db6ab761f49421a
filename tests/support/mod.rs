//! The namespace lab: real hosts on this machine, and a real daemon on one of them.
//!
//! Every host is a network namespace with a veth pair to the target, IPv4 and IPv6, named with the process id and
//! removed on drop with all that runs in it, also after a panic. Needs root. Waits for conditions, not for time to pass; that a daemon rests has no
//! other sign than that nothing happens for a while (see `catch_up`).
#![allow(dead_code, reason = "each test file uses its own part of the lab")]

pub mod capture;
pub mod classic;
pub mod daemon;
pub mod ledger;
pub mod machine;
pub mod offence;
pub mod plot;
pub mod readme;
pub mod roles;
pub mod service;
pub mod silence;
pub mod slow;
pub mod tracer;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::time::{ClockId, clock_gettime};
use portsentry::sensor::departed::BOOT;

static NEXT_LAB: AtomicU32 = AtomicU32::new(0);

/// Resident memory of a process, KiB.
pub fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process lives");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a process has memory");
    line.split_whitespace().next().and_then(|word| word.parse().ok()).expect("a number")
}

/// Waits until the machine is so long up that no daemon takes the ports of a lab for those of services still on their way.
fn await_boot() {
    let up = Duration::from(clock_gettime(ClockId::CLOCK_BOOTTIME).expect("a clock"));
    let left = Duration::from_millis(BOOT).saturating_sub(up);
    if !left.is_zero() {
        eprintln!("the machine has just booted: waiting for {left:?}");
        std::thread::sleep(left);
    }
}

/// A target and some peers, each peer on a network of its own with the target.
pub struct Lab {
    name: String,
    peers: Vec<Host>,
}

/// One namespace and its addresses on the link between it and the target.
#[derive(Clone, Debug)]
pub struct Host {
    /// Namespace name, as `ip netns` knows it.
    pub netns: String,
    /// The peer's own addresses.
    pub v4: Ipv4Addr,
    pub v6: Ipv6Addr,
    /// The target's addresses on the same link.
    pub target_v4: Ipv4Addr,
    pub target_v6: Ipv6Addr,
    /// The target's interface on that link.
    pub target_interface: String,
}

impl Host {
    /// The peer's address of the family of `like`.
    pub fn address(&self, v6: bool) -> IpAddr {
        if v6 { self.v6.into() } else { self.v4.into() }
    }

    /// The target's address on the peer's link.
    pub fn target(&self, v6: bool) -> IpAddr {
        if v6 { self.target_v6.into() } else { self.target_v4.into() }
    }

    /// Runs a program on this host and returns what it printed; panics if it fails.
    pub fn run(&self, command: &[&str]) -> Output {
        succeeds(command, netns_run(&self.netns, command))
    }

    /// Runs hping3 on this host until it has sent what it was asked to; nobody needs to answer, though hping3 calls
    /// that a failure.
    pub fn hping3(&self, arguments: &[&str]) {
        let output = netns_run(&self.netns, &[&["hping3", "-q"], arguments].concat());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("packets transmitted"), "hping3 {}: {said}", arguments.join(" "));
    }

    /// The hardware address of the target's end of the link: raw scanners build their frames themselves.
    pub fn target_mac(&self) -> String {
        self.run(&["ping", "-c", "1", "-W", "2", &self.target_v4.to_string()]);
        let output = self.run(&["ip", "neighbour", "show", &self.target_v4.to_string()]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut words = text.split_whitespace().skip_while(|&word| word != "lladdr");
        words.nth(1).expect("the neighbour is known").to_owned()
    }

    /// Runs nmap against the target with the arguments every test shares.
    pub fn nmap(&self, arguments: &[&str]) -> String {
        let mut command = vec!["nmap", "-n", "-Pn", "--disable-arp-ping", "--max-retries", "1"];
        command.extend_from_slice(arguments);
        String::from_utf8_lossy(&self.run(&command).stdout).into_owned()
    }
}

impl Lab {
    /// A target with `peers` peers; peer 0 is the scanner by convention, peer 1 the innocent third host.
    pub fn new(peers: u8) -> Lab {
        assert!(nix::unistd::geteuid().is_root(), "these tests make network namespaces: run them with sudo");
        await_boot();
        let name = format!("ps{}x{}", std::process::id(), NEXT_LAB.fetch_add(1, Ordering::Relaxed));
        let mut lab = Lab { name, peers: Vec::new() };
        ip(&["netns", "add", &lab.target()]);
        ip(&["-n", &lab.target(), "link", "set", "lo", "up"]);
        // A stub that the machine asks would be told of. Where there is no such file nothing can be put in its place.
        if Path::new("/etc/resolv.conf").exists() {
            lab.ask(&["198.18.53.53"]);
        }
        (0..peers).for_each(|index| lab.add_peer(index));
        lab
    }

    /// Whom the target asks for names, whoever the machine asks: `ip netns exec` puts this in the place of /etc/resolv.conf.
    pub fn ask(&self, resolvers: &[&str]) {
        let lines: String = resolvers.iter().map(|resolver| format!("nameserver {resolver}\n")).collect();
        std::fs::create_dir_all(self.etc()).expect("/etc can be written");
        std::fs::write(self.etc().join("resolv.conf"), lines).expect("/etc can be written");
    }

    /// What is the target's own of /etc.
    fn etc(&self) -> PathBuf {
        PathBuf::from("/etc/netns").join(self.target())
    }

    /// The target's namespace.
    pub fn target(&self) -> String {
        format!("{}t", self.name)
    }

    /// A peer by number.
    pub fn peer(&self, index: usize) -> &Host {
        &self.peers[index]
    }

    /// Runs a program on the target.
    pub fn on_target(&self, command: &[&str]) -> Output {
        netns_run(&self.target(), command)
    }

    /// What `nft` shows of our table on the target; empty if there is none.
    pub fn nft_table(&self) -> String {
        let list = ["nft", "list", "table", "inet", "portsentry"];
        let listed = self.on_target(&list);
        // Asked in one breath: somebody may take it away between two.
        if String::from_utf8_lossy(&listed.stderr).contains("No such file or directory") {
            return String::new();
        }
        String::from_utf8_lossy(&succeeds(&list, listed).stdout).into_owned()
    }

    /// Whether the kernel has a block of this very address; panics if there is no table that could hold one. Other sets
    /// too know it: of those who were tripped or cleared.
    pub fn is_blocked(&self, source: impl Into<IpAddr>) -> bool {
        let source = source.into();
        let set = if source.is_ipv6() { "blocked6" } else { "blocked4" };
        let listed = self.nft(&["list", "set", "inet", "portsentry", set]);
        let source = source.to_string();
        listed.split([' ', ',', '\n', '\t']).any(|word| word == source)
    }

    fn nft(&self, arguments: &[&str]) -> String {
        let command = [&["nft"], arguments].concat();
        String::from_utf8_lossy(&succeeds(&command, self.on_target(&command)).stdout).into_owned()
    }

    /// Whether there is a table of ours on the target at all.
    pub fn has_nft_table(&self) -> bool {
        let tables = ["nft", "list", "tables"];
        let listed = succeeds(&tables, self.on_target(&tables));
        String::from_utf8_lossy(&listed.stdout).contains("table inet portsentry")
    }

    fn add_peer(&mut self, index: u8) {
        let host = Host {
            netns: format!("{}p{index}", self.name),
            v4: Ipv4Addr::new(10, 77, index, 2),
            v6: Ipv6Addr::new(0xfd77, u16::from(index), 0, 0, 0, 0, 0, 2),
            target_v4: Ipv4Addr::new(10, 77, index, 1),
            target_v6: Ipv6Addr::new(0xfd77, u16::from(index), 0, 0, 0, 0, 0, 1),
            target_interface: format!("p{index}"),
        };
        // Recorded before anything can fail, so that drop removes what there is.
        self.peers.push(host.clone());
        ip(&["netns", "add", &host.netns]);
        ip(&["-n", &host.netns, "link", "set", "lo", "up"]);
        self.connect(&host);
    }

    /// Makes the link between the target and a peer that has none: with addresses, and routes out of the peer.
    pub fn connect(&self, host: &Host) {
        let (target, peer, interface) = (self.target(), &host.netns, &host.target_interface);
        ip(&["-n", &target, "link", "add", interface, "type", "veth", "peer", "name", "eth0", "netns", peer]);
        for (netns, device, v4, v6) in
            [(&target, interface.as_str(), host.target_v4, host.target_v6), (peer, "eth0", host.v4, host.v6)]
        {
            ip(&["-n", netns, "address", "add", &format!("{v4}/24"), "dev", device]);
            ip(&["-n", netns, "address", "add", &format!("{v6}/64"), "dev", device, "nodad"]);
            ip(&["-n", netns, "link", "set", device, "up"]);
        }
        ip(&["-n", peer, "route", "add", "default", "via", &host.target_v4.to_string()]);
        ip(&["-n", peer, "-6", "route", "add", "default", "via", &host.target_v6.to_string()]);
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for netns in self.peers.iter().map(|peer| peer.netns.clone()).chain([self.target()]) {
            // Whatever a panic left running there: nobody else would end it.
            processes(&netns).into_iter().for_each(|pid| daemon::kill(pid, Signal::SIGKILL));
            let _ = Command::new("ip").args(["netns", "delete", &netns]).output();
        }
        let _ = std::fs::remove_dir_all(self.etc());
    }
}

/// Runs `ip` and panics with its words if it fails.
pub fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output().expect("iproute2 is installed");
    succeeds(arguments, output);
}

/// What a program printed; panics with its words if it failed.
fn succeeds(command: &[&str], output: Output) -> Output {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{}: {}: {}{}",
        command.join(" "),
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    );
    output
}

/// Runs a program in a namespace.
pub fn netns_run(netns: &str, command: &[&str]) -> Output {
    Command::new("ip")
        .args(["netns", "exec", netns])
        .args(command)
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}", command.join(" ")))
}

/// Every process in a namespace.
pub fn processes(netns: &str) -> Vec<u32> {
    let listed = Command::new("ip").args(["netns", "pids", netns]).output().expect("iproute2 is installed");
    String::from_utf8_lossy(&listed.stdout).lines().filter_map(|line| line.trim().parse().ok()).collect()
}

/// Runs `action` on a thread of its own inside a namespace; sockets it returns stay there.
pub fn inside<T: Send>(netns: &str, action: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        scope
            .spawn(|| {
                let handle =
                    std::fs::File::open(format!("/run/netns/{netns}")).expect("the namespace exists");
                nix::sched::setns(handle.as_fd(), nix::sched::CloneFlags::CLONE_NEWNET)
                    .expect("root may enter it");
                action()
            })
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Waits until `condition` holds, looking every 5 ms; panics with `what` after `limit`.
pub fn eventually(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
