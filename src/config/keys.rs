//! THE table of keys: name, kind and range, default, origin, help and place in [`Config`]. Everything else (reading,
//! `check`, the nearest key, documentation) is derived from it.
//!
//! Pure. A key that is not here does not exist.
#![forbid(unsafe_code)]

use std::path::{Path as FilePath, PathBuf};

use super::Config;
use super::kind::Kind;
use crate::protocol::settings::BLOCKS_A_MINUTE;

/// One key of `portsentry.conf`.
#[derive(Clone, Debug)]
pub struct Key {
    /// As written in the file.
    pub name: &'static str,
    /// What its value may be, and where it goes.
    pub kind: Kind,
    /// Text that is in force when the key is not set; empty means unset.
    pub default: &'static str,
    /// Who brought it.
    pub since: Since,
    /// One line.
    pub help: &'static str,
}

/// Which program brought a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// PortSentry 1.2; 2.x has it too.
    Classic,
    /// PortSentry 1.2 alone.
    OnlyPortSentry1,
    /// portsentry-rs.
    Ours,
}

/// The key called exactly `name`.
pub fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// The key that somebody who wrote `name` most likely meant, if any is near: at most a third of the letters wrong.
pub fn nearest(name: &str) -> Option<&'static Key> {
    // Far longer than any key: not worth comparing, and comparing costs length times length.
    if name.len() > 64 {
        return None;
    }
    let name = name.to_ascii_uppercase().replace(['-', '.'], "_");
    let distance = |key: &&Key| strsim::damerau_levenshtein(&name, key.name);
    // Of two as near the one that ends alike: BLOCK_FILE is no time.
    let ends = |key: &&Key| key.name.rsplit('_').next() != name.rsplit('_').next();
    KEYS.iter()
        .min_by_key(|key| (distance(key), ends(key)))
        .filter(|key| distance(key) <= (key.name.len() / 3).max(1))
}

/// `/dev/null` is how 1.2, which wanted every file named, was told to keep none.
fn kept(path: PathBuf) -> Option<PathBuf> {
    (path != FilePath::new("/dev/null")).then_some(path)
}

/// What PortSentry, which takes any, can read: a C int.
const ANY_INT: u32 = i32::MAX as u32;

const fn key(name: &'static str, since: Since, kind: Kind, default: &'static str, help: &'static str) -> Key {
    Key { name, kind, default, since, help }
}

use Kind::{
    Confinement, Duration, Format, Interfaces, Mode, Networks, Number, Path, Ports, Responses, Sensitivity,
    Socket, Switch, Target, Text, User,
};
use Since::{Classic, OnlyPortSentry1, Ours};

/// Every key, in the order in which they are shown.
#[rustfmt::skip]
pub static KEYS: &[Key] = &[
    key("TCP_PORTS", Classic, Ports(|c: &mut Config, v| c.tcp_ports = v), "",
        "TCP ports that nobody has any business with: a probe of one counts toward the alarm"),
    key("UDP_PORTS", Classic, Ports(|c, v| c.udp_ports = v), "",
        "UDP ports, likewise"),
    key("DECOY_TCP_PORTS", Ours, Ports(|c, v| c.decoy_tcp_ports = v), "",
        "TCP ports on which we ourselves answer where no service does, to learn who is real"),
    key("DECOY_UDP_PORTS", Ours, Ports(|c, v| c.decoy_udp_ports = v), "",
        "UDP ports, likewise"),
    key("ADVANCED_PORTS_TCP", OnlyPortSentry1, Number(1..=65536, |c, v| c.advanced_ports_tcp = v), "1024",
        "with -atcp: every TCP port below this number is watched"),
    key("ADVANCED_PORTS_UDP", OnlyPortSentry1, Number(1..=65536, |c, v| c.advanced_ports_udp = v), "1024",
        "with -audp: every UDP port below this number is watched"),
    key("ADVANCED_EXCLUDE_TCP", OnlyPortSentry1, Ports(|c, v| c.advanced_exclude_tcp = v), "",
        "with -atcp: ports that are left out"),
    key("ADVANCED_EXCLUDE_UDP", OnlyPortSentry1, Ports(|c, v| c.advanced_exclude_udp = v), "",
        "with -audp: ports that are left out"),
    key("INTERFACES", Ours, Interfaces(|c, v| c.interfaces = v), "ALL_NLO",
        "interfaces to watch, a card with its VLANs; ALL_NLO is all but loopback, ALL or any is all; -i goes before it. Visits to decoys at other interfaces' addresses are let be"),
    key("SCAN_TRIGGER", Classic, Number(0..=ANY_INT, |c, v| c.scan_trigger = v), "0",
        "probes of watched ports before the alarm; 0 and 1 both mean the first, above 1000 acts as 1000"),
    key("SENSITIVITY", Ours, Sensitivity(|c, v| c.sensitivity = v), "medium",
        "alarm after so many failed contacts with different ports that are not watched: low 14, medium 9, high 4, off never. Flags that no honest stack sends count each time, at a service's port too"),
    key("SCORE_WINDOW", Ours, Duration(|c, v| c.score_window = v), "6h",
        "half-life of what a source has done: after so long it counts half"),
    key("IPV6_PREFIX", Ours, Number(48..=128, |c, v| c.ipv6_prefix = v as u8), "64",
        "IPv6 sources that share so many bits are one, unless they are our neighbours on a link"),
    key("PORT_BANNER", Classic, Text(|c, v| c.port_banner = Some(v)), "",
        "what decoys say, in place of the greeting of the service they stand for"),
    key("BLOCK_TCP", Classic, Mode(|c, v| c.block_tcp = v), "0",
        "on a TCP alarm: 0 log only, 1 block the source, 2 run KILL_RUN_CMD only"),
    key("BLOCK_UDP", Classic, Mode(|c, v| c.block_udp = v), "0",
        "on a UDP alarm, likewise"),
    key("BLOCK_WITH", Ours, Responses(|c, v| c.block_with = v), "",
        "ways to block, in order; unset: nftables, unless a KILL_ key says otherwise"),
    key("BLOCK_TIME", Ours, Duration(|c, v| c.block_time = v), "1h",
        "length of a first block; none is longer than 365 days"),
    key("BLOCK_TIME_MAX", Ours, Duration(|c, v| c.block_time_max = v), "7d",
        "longest block of a repeat offender"),
    key("BLOCK_TIME_FACTOR", Ours, Number(1..=1000, |c, v| c.block_time_factor = v), "2",
        "each further offence makes the block this many times longer; 1 keeps it the same"),
    key("BLOCK_LIMIT", Ours, Number(1..=BLOCKS_A_MINUTE, |c, v| c.block_limit = v), "240",
        "blocks a minute of sources that may be forged; proven ones do not count"),
    key("MAX_BLOCKS", Ours, Number(256..=1_048_576, |c, v| c.max_blocks = v), "32768",
        "blocks in force at once; the last eighth is kept for proven sources and operators"),
    key("PROTECT_ESTABLISHED", Ours, Switch(|c, v| c.protect_established = v), "1",
        "1 blocks nobody with an open connection to this host on evidence that somebody else may have forged"),
    key("TRIPWIRE", Ours, Switch(|c, v| c.tripwire = v), "1",
        "1 lets the kernel itself shut out, at once and for seconds, who probes a watched port where nobody listens; only where SCAN_TRIGGER is 0 or 1 and nftables blocks"),
    key("NEVER_BLOCK", Ours, Networks(|c, v| c.never_block = v), "",
        "addresses and networks that are never blocked, besides those in IGNORE_FILE and this host's own surroundings"),
    key("IGNORE_FILE", Classic, Path(|c, v| c.ignore_file = Some(v)), "",
        "file with one address or network a line that is never blocked"),
    key("KILL_ROUTE", Classic, Target(|c, v| c.kill_route = Some(v)), "",
        "command that blocks $TARGET$"),
    key("KILL_HOSTS_DENY", Classic, Target(|c, v| c.kill_hosts_deny = Some(v)), "",
        "line for /etc/hosts.deny that blocks $TARGET$; $PORT$ in it is 0"),
    key("HOSTS_DENY_FILE", Ours, Path(|c, v| c.hosts_deny_file = v), "/etc/hosts.deny",
        "file that KILL_HOSTS_DENY writes to"),
    key("UNBLOCK_CMD", Ours, Target(|c, v| c.unblock_cmd = Some(v)), "",
        "command that lifts the block of $TARGET$ which KILL_ROUTE made, or may have made before it was killed"),
    key("KILL_RUN_CMD", Classic, Text(|c, v| c.kill_run_cmd = Some(v)), "",
        "command to run on an alarm; knows $TARGET$, $PORT$ and $MODE$"),
    key("KILL_RUN_CMD_FIRST", Classic, Switch(|c, v| c.kill_run_cmd_first = v), "0",
        "1 runs KILL_RUN_CMD before the other responses, 0 after them"),
    key("COMMAND_TIMEOUT", Ours, Duration(|c, v| c.command_timeout = v), "10s",
        "time that KILL_ROUTE, KILL_RUN_CMD and UNBLOCK_CMD each have before they are killed"),
    key("RESOLVE_HOST", Classic, Switch(|c, v| c.resolve_host = v), "0",
        "1 shows the names of sources; a block never waits for one"),
    key("HISTORY_FILE", Classic, Path(|c, v| c.history_file = kept(v)), "",
        "file to which every probe of a watched port and every alarm is appended, in PortSentry's classic text"),
    key("BLOCKED_FILE", Classic, Path(|c, v| c.blocked_file = kept(v)), "",
        "file with the addresses that are blocked, in PortSentry's format"),
    key("LOG_FORMAT", Ours, Format(|c, v| c.log_format = v), "auto",
        "json, classic, or auto: classic on a terminal and to syslog (-l syslog, -D), else json; PORTSENTRY_LOG_FORMAT goes before it"),
    key("STATE_DIR", Ours, Path(|c, v| c.state_dir = v), "/var/lib/portsentry-rs",
        "folder in which blocks are remembered over a restart"),
    key("CONTROL_SOCKET", Ours, Socket(|c, v| c.control_socket = v), "/run/portsentry-rs/control.sock",
        "socket by which status, list, block and unblock reach the daemon"),
    key("RUN_AS", Ours, User(|c, v| c.run_as = Some(v)), "",
        "user to become where root starts it; unset: portsentry if there is one, else nobody"),
    key("WORKERS", Ours, Number(1..=64, |c, v| c.workers = Some(v as usize)), "",
        "threads that read packets; unset: one for each two cores, at most 4"),
    key("TABLE_SIZE", Ours, Number(256..=4_194_304, |c, v| c.table_size = v as usize), "16384",
        "sources that are remembered at once; memory is fixed by it"),
    key("FLUSH_ON_STOP", Ours, Switch(|c, v| c.flush_on_stop = v), "0",
        "1 lifts every block when the daemon stops, 0 leaves them; nftables ends its own in time, ipset those of less than 24 days, the next start all others"),
    key("SANDBOX", Ours, Confinement(|c, v| c.sandbox = v), "strict",
        "strict: no start where the kernel cannot confine both processes; best-effort: as far as it can; off: neither Landlock nor seccomp"),
    key("SANDBOX_LOG", Ours, Switch(|c, v| c.sandbox_log = v), "0",
        "1 names the system call that a process dies of, for a report"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_written_as_the_grammar_wants() {
        for (at, key) in KEYS.iter().enumerate() {
            let fits = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
            assert!(key.name.bytes().all(fits), "{}", key.name);
            assert!(!KEYS[..at].iter().any(|other| other.name == key.name), "{} twice", key.name);
            assert!(!key.help.is_empty() && !key.help.contains('\n'), "{}", key.name);
        }
    }

    #[test]
    fn every_default_is_an_allowed_value() {
        for key in KEYS.iter().filter(|key| !key.default.is_empty()) {
            assert_eq!(key.kind.set(&mut Config::blank(), key.default), Ok(()), "{}", key.name);
        }
    }

    #[test]
    fn the_nearest_key_of_a_typo_is_the_one_meant() {
        for (typo, meant) in [
            ("TCP_PORT", "TCP_PORTS"),
            ("tcp_ports", "TCP_PORTS"),
            ("TPC_PORTS", "TCP_PORTS"),
            ("UPD_PORTS", "UDP_PORTS"),
            ("BLOCKTCP", "BLOCK_TCP"),
            ("IGNOREFILE", "IGNORE_FILE"),
            ("HISTROY_FILE", "HISTORY_FILE"),
            ("KILL_ROUTES", "KILL_ROUTE"),
            ("NEVERBLOCK", "NEVER_BLOCK"),
            ("BLOCK-TIME", "BLOCK_TIME"),
        ] {
            assert_eq!(nearest(typo).map(|key| key.name), Some(meant), "{typo}");
        }
        for far in ["", "X", "COLOUR", "LISTEN_ADDRESS", &"A".repeat(100_000)] {
            assert!(nearest(far).is_none(), "{far:.20}");
        }
    }
}
