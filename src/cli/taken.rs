//! Decoy ports that have a service now: told by `check`, for after a boot whichever of the two starts first has the port.
//!
//! Asks the kernel and binds nothing. What holds a port of a daemon that runs already is no service.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

use caps::Capability;

use crate::config::{ConfigError, Loaded, PortSet, few};
use crate::netlink::sock_diag::{LocalSocket, SocketTables, Transport};
use crate::sandbox::capabilities;

/// The daemon's names, as /proc/PID/comm has them: 15 bytes at most. The other is the link that keeps scripts of
/// PortSentry's going; PortSentry itself goes when the daemon comes, so what it holds is no service's either.
const DAEMONS: [&str; 2] = ["portsentry-rs", "portsentry"];

/// One warning a port, of a great many the first. None where the kernel does not tell, or not whose a socket is.
pub fn warnings(loaded: &Loaded) -> Vec<ConfigError> {
    let sockets = SocketTables::open().and_then(|mut tables| tables.read()).unwrap_or_default();
    let Ok(ours) = sockets_of_daemons(Path::new("/proc")) else { return Vec::new() };
    let services: Vec<&LocalSocket> = sockets.iter().filter(|socket| !ours.contains(&socket.inode)).collect();
    let bound = loaded.config.bound_ports();
    let both = [(Transport::Tcp, "TCP", bound.tcp), (Transport::Udp, "UDP", bound.udp)];
    let told = both.iter().flat_map(|(transport, name, ports)| {
        let taken = taken(&services, *transport, ports).into_iter();
        few(taken.map(|port| ConfigError::new(loaded.origin(key(name, port, loaded)), why(name, port))))
    });
    told.collect()
}

fn taken(services: &[&LocalSocket], transport: Transport, ports: &PortSet) -> BTreeSet<u16> {
    let of_transport = services.iter().filter(|socket| socket.transport == transport);
    of_transport.map(|socket| socket.local.port()).filter(|port| ports.contains(*port)).collect()
}

/// `--connect` binds the watched ports too.
fn key(transport: &str, port: u16, loaded: &Loaded) -> &'static str {
    let config = &loaded.config;
    match transport {
        "TCP" if config.decoy_tcp_ports.contains(port) => "DECOY_TCP_PORTS",
        "TCP" => "TCP_PORTS",
        _ if config.decoy_udp_ports.contains(port) => "DECOY_UDP_PORTS",
        _ => "UDP_PORTS",
    }
}

fn why(transport: &str, port: u16) -> String {
    format!(
        "a service has {transport} port {port} now; after a boot or an upgrade the decoy may start first and keep it from the service: take the port out of the list"
    )
}

/// The sockets that a daemon's sensor holds, by inode.
///
/// # Errors
/// There may be a daemon that is not seen, or whose sockets are not: whose one is cannot be told then.
fn sockets_of_daemons(proc: &Path) -> io::Result<BTreeSet<u32>> {
    let mounts = fs::read(proc.join("self/mounts"))?;
    if hides_processes(&String::from_utf8_lossy(&mounts), proc) && !may_see_all() {
        return Err(ErrorKind::PermissionDenied.into());
    }
    let processes = fs::read_dir(proc)?.filter_map(|entry| Some(entry.ok()?.path()));
    let is_daemon = |path: &std::path::PathBuf| {
        fs::read_to_string(path.join("comm")).is_ok_and(|comm| DAEMONS.contains(&comm.trim_end()))
    };
    let mut inodes = BTreeSet::new();
    for process in processes.filter(is_daemon) {
        for entry in fs::read_dir(process.join("fd"))? {
            match fs::read_link(entry?.path()) {
                Ok(target) => inodes.extend(target.to_str().and_then(inode)),
                // Closed since.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                // Root without CAP_SYS_PTRACE may list a confined daemon's, and not read them.
                Err(error) => return Err(error),
            }
        }
    }
    Ok(inodes)
}

/// Whether /proc keeps processes of other users to itself, as ProtectProc= of a unit has it: `hidepid` of proc(5), which
/// proc_pid_mounts(5) shows unless it is off. Of mounts at one place the last counts.
fn hides_processes(mounts: &str, proc: &Path) -> bool {
    let mut fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let here = fields.rfind(|fields| fields.get(1).is_some_and(|at| Path::new(at) == proc));
    here.is_some_and(|fields| {
        fields.get(3).is_some_and(|options| options.split(',').any(|it| it.starts_with("hidepid=")))
    })
}

fn may_see_all() -> bool {
    capabilities::held().is_ok_and(|held| held.contains(&Capability::CAP_SYS_PTRACE))
}

/// `socket:[123]` (proc_pid_fd(5)).
fn inode(link: &str) -> Option<u32> {
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_are_hidden_where_the_last_mount_of_proc_says_so() {
        let hidden = |mounts: &str| hides_processes(mounts, Path::new("/proc"));
        let open = "proc /proc proc rw,nosuid,nodev,noexec,relatime 0 0\n";
        let closed = "proc /proc proc rw,relatime,hidepid=invisible,subset=pid 0 0\n";
        let elsewhere = "proc /srv/proc proc rw,hidepid=2 0 0\nproc /proc/sys proc ro,hidepid=2 0 0\n";
        assert!(hidden(closed) && hidden(&format!("{open}{closed}{elsewhere}")));
        assert!(
            !hidden(open) && !hidden(&format!("{closed}{open}{elsewhere}")) && !hidden("") && !hidden("x")
        );
    }
}
