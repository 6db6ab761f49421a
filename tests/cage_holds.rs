//! Promise: from within its cage each role can do nothing but its work. The real processes try to break out, first in
//! the whole cage, then with one layer at a time, which shows what holds each attempt, and at last with none, which
//! shows that the attempt would work. Needs root; built with the feature `escape-attempts`, which no release has.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fmt;
use std::process::{Child, Command, Output};

use portsentry::sandbox::escape::{OUTSIDE, VARIABLE};
use tempfile::TempDir;

const ALL: &str = "rights,landlock,seccomp";

/// What holds an attempt: rights (uid and capabilities), Landlock, seccomp.
type Holds = [bool; 3];

/// Attempt, what holds it. An unprivileged process may ask for io_uring and open internet sockets: seccomp alone
/// refuses that, and so do files that everybody may read or write to leave it to Landlock.
const EXPECTED: &[(&str, Holds)] = &[
    ("shadow", [true, true, false]),
    ("write", [false, true, true]),
    ("execve", [false, true, true]),
    ("ptrace", [true, true, true]),
    ("packet", [true, false, true]),
    ("inet", [false, false, true]),
    ("tcp", [false, true, true]),
    ("udp", [false, false, true]),
    ("setuid", [true, false, true]),
    ("capability", [true, false, true]),
    ("signal", [true, true, true]),
    ("mount", [true, true, true]),
    ("bpf", [true, false, true]),
    ("userfaultfd", [true, false, true]),
    ("io_uring", [false, false, true]),
    #[cfg(target_arch = "x86_64")]
    ("x32", [false, false, true]),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Worked,
    Refused,
    Killed,
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Fate::Worked => "-",
            Fate::Refused => "refuses",
            Fate::Killed => "kills",
        })
    }
}

/// A process of root's that the roles have no business with, and a place for the daemon.
struct Lab {
    outsider: Child,
    folder: TempDir,
}

impl Lab {
    fn new() -> Lab {
        Lab::with("")
    }

    /// With more lines of configuration.
    fn with(lines: &str) -> Lab {
        assert!(nix::unistd::geteuid().is_root(), "this test needs root: sudo make test");
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let path = folder.path().display();
        let text = format!(
            "TCP_PORTS=\"1,7\"\nDECOY_TCP_PORTS=\"23\"\nBLOCK_TCP=\"1\"\nINTERFACES=\"ALL\"\n\
             STATE_DIR=\"{path}/state\"\nCONTROL_SOCKET=\"{path}/run/control.sock\"\nHISTORY_FILE=\"{path}/log/history\"\n{lines}\n"
        );
        std::fs::write(folder.path().join("portsentry.conf"), text).unwrap();
        Lab { outsider: Command::new("sleep").arg("600").spawn().unwrap(), folder }
    }

    /// Starts a daemon in namespaces of its own, whose `role` attempts `what` under `layers`.
    fn attempt(&self, role: &str, what: &str, layers: &str) -> Fate {
        let output = self.output(role, what, layers);
        fate(&output, what).unwrap_or_else(|| panic!("{role} {what} under {layers:?}: {output:?}"))
    }

    fn output(&self, role: &str, what: &str, layers: &str) -> Output {
        let _ = std::fs::remove_file(OUTSIDE);
        // Whose it is depends on who ran last: a daemon that is still root would not touch it.
        let _ = std::fs::remove_dir_all(self.folder.path().join("state"));
        Command::new("unshare")
            .args(["--net", "--mount", env!("CARGO_BIN_EXE_portsentry-rs"), "-c"])
            .arg(self.folder.path().join("portsentry.conf"))
            .env(VARIABLE, format!("{role} {what} {layers} {}", self.outsider.id()))
            .output()
            .unwrap()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = self.outsider.kill();
        let _ = self.outsider.wait();
        let _ = std::fs::remove_file(OUTSIDE);
    }
}

fn fate(output: &Output, what: &str) -> Option<Fate> {
    use std::os::unix::process::ExitStatusExt;
    let said = String::from_utf8_lossy(&output.stderr);
    if said.contains("ESCAPE refused") {
        return Some(Fate::Refused);
    }
    if output.status.signal() == Some(libc::SIGSYS) || said.contains("died of SIGSYS") {
        return Some(Fate::Killed);
    }
    // The program that took the role's place ends well and says nothing.
    let replaced = what == "execve" && (output.status.success() || said.contains("(exit status: 0)"));
    (replaced || said.contains("ESCAPE worked")).then_some(Fate::Worked)
}

#[test]
fn every_escape_is_held_by_the_layers_that_are_said_to_hold_it() {
    let lab = Lab::new();
    let mut wrong = Vec::new();
    println!("{:7} {:12} {:9} {:9} {:9} whole cage", "role", "attempt", "rights", "landlock", "seccomp");
    for (role, (what, expected)) in
        ["sensor", "helper"].iter().flat_map(|role| EXPECTED.iter().map(move |it| (role, it)))
    {
        let alone = ["rights", "landlock", "seccomp"].map(|layer| lab.attempt(role, what, layer));
        let whole = lab.attempt(role, what, ALL);
        println!("{role:7} {what:12} {:9} {:9} {:9} {whole}", alone[0], alone[1], alone[2]);
        if whole == Fate::Worked || alone.map(|fate| fate != Fate::Worked) != *expected {
            wrong.push(format!("{role} {what}: expected {expected:?}"));
        }
        if lab.attempt(role, what, "none") != Fate::Worked {
            wrong.push(format!("{role} {what} fails without a cage, too: it proves nothing"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The kernel asks for CAP_NET_RAW when a packet socket is made, not when it sends; the sensor has some open. With the
/// configuration that has it send most freely. The helper has none.
#[test]
fn no_packet_is_sent_by_an_open_ring() {
    let lab = Lab::with("DECOY_UDP_PORTS=\"53,69\"\nPORT_BANNER=\"go away\"");
    for what in ["ring", "ring_message"] {
        let fates = [ALL, "seccomp", "rights,landlock", "none"].map(|on| lab.attempt("sensor", what, on));
        assert!(fates == [Fate::Killed, Fate::Killed, Fate::Worked, Fate::Worked], "{what}: {}", fates[0]);
    }
    // Without an address the call is allowed, and a ring that is bound to no interface has nowhere to send to.
    let fates = [ALL, "none"].map(|on| lab.attempt("sensor", "ring_bare", on));
    assert!(fates == [Fate::Refused; 2], "ring_bare: {}", fates[0]);
}

/// The helper's end is told by the sensor, whose child it is, with the exit code of a dead peer; the sensor's own by
/// the signal that its service manager sees.
#[test]
fn a_death_of_sigsys_is_told_with_the_role_and_if_asked_for_the_call() {
    use std::os::unix::process::ExitStatusExt;
    for (lines, named) in [("", false), ("SANDBOX_LOG=\"1\"", true)] {
        let lab = Lab::with(lines);
        for role in ["sensor", "helper"] {
            let output = lab.output(role, "inet", ALL);
            let said = String::from_utf8_lossy(&output.stderr);
            let call = format!("portsentry-rs {role}: system call {} (socket) is outside", libc::SYS_socket);
            assert_eq!(said.contains(&call), named, "{role}: {said}");
            match role {
                "sensor" => assert_eq!(output.status.signal(), Some(libc::SIGSYS), "{output:?}"),
                _ => {
                    assert!(matches!(output.status.code(), Some(1 | 70)), "{output:?}");
                    assert!(said.contains("the helper died of SIGSYS"), "{said}");
                }
            }
        }
    }
}
