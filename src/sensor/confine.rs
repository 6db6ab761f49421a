//! The sensor gives up every right before it looks at a packet, and proves that it did: rights and files before it has
//! a thread, system calls once all its threads wait.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use super::helper_link::Ready;
use super::reach;
use super::seccomp::{self, Addressing};
use crate::config::{Config, ConfigError, Loaded, LogOutput};
use crate::event;
use crate::event::journald::JOURNAL_SOCKET;
use crate::event::syslog::SYSLOG_SOCKET;
use crate::protocol::Settings;
use crate::protocol::settings::Rights;
use crate::sandbox::cage::Cage;
use crate::sandbox::identity::Identity;
use crate::sandbox::in_force::{Confinement, Witness};
use crate::sandbox::landlock::{self, LandlockInForce, Rules};
use crate::sandbox::selfcheck::{self, Expectations, prove};
use crate::sandbox::selinux;
use crate::sandbox::{Capability, Sandbox, SandboxError, capabilities};

/// The filter to enter at last, once all sockets are open; its proof begins now, while a program may still be run.
///
/// # Errors
/// The filter cannot be made.
pub fn cage(config: &Config, addressing: &Addressing) -> Result<Option<Cage>, SandboxError> {
    let lists = seccomp::rules(config, addressing);
    Cage::prepare(&lists, config.sandbox, config.sandbox_log.then_some("sensor"))
}

/// A sensor without rights and files that still may make any system call.
pub struct Confined {
    witness: Witness,
    helper: Witness,
    landlock: LandlockInForce,
    /// Seccomp filters that whoever started us brought.
    outside: u32,
    /// Files that a reload would need and cannot have.
    pub out_of_reach: Vec<ConfigError>,
}

impl Confined {
    /// Leaves every right and every file but the configuration's. The helper, `helper` by process, has confined itself
    /// before it was ready.
    ///
    /// # Errors
    /// A step failed, or something that must not work any more worked.
    pub fn enter(loaded: &Loaded, identity: Identity, helper: u32) -> Result<Confined, SandboxError> {
        let (witness, helper) = (Witness::open()?, Witness::of_process(helper)?);
        let outside = witness.in_force()?.filters;
        rights(identity)?;
        // Before Landlock, so that what stands in the way is the file's own mode.
        let out_of_reach = reach::at_start(loaded);
        selinux::leave_start()?;
        let landlock = landlock::restrict(&rules(loaded), loaded.config.sandbox, landlock::FLOOR)?;
        let (landlock, untried) = selfcheck::proven(landlock, loaded.config.sandbox)?;
        untried.iter().for_each(event::stderr::tell);
        Ok(Confined { witness, helper, landlock, outside, out_of_reach })
    }

    /// Leaves every system call but those of the rules, with all threads there are. Returns how both processes are
    /// confined, in the kernel's own words.
    ///
    /// # Errors
    /// The filter does not hold.
    pub fn seal(
        self,
        cage: Option<Cage>,
        settings: &Settings,
        ready: Ready,
    ) -> Result<event::Confinement, SandboxError> {
        if let Some(cage) = cage {
            cage.enter()?;
        }
        let [sensor, helper] =
            [self.witness.in_force()?, self.helper.in_force()?].map(|it| it.beyond(self.outside));
        let why = why_less(settings, helper.uid);
        let roles =
            [("sensor", sensor, self.landlock.abi, ""), ("helper", helper, i32::from(ready.landlock), &*why)];
        Ok(event::Confinement {
            in_force: roles.iter().map(|(role, it, landlock, _)| describe(role, it, *landlock)).collect(),
            missing: roles
                .iter()
                .flat_map(|(role, it, landlock, why)| missing(role, it, *landlock, why))
                .collect(),
        })
    }
}

/// Leaves root, every capability, and every way to get one back. What is open stays open; nothing else can be had.
fn rights(identity: Identity) -> Result<(), SandboxError> {
    #[cfg(feature = "escape-attempts")]
    if crate::sandbox::escape::is_off(crate::sandbox::escape::Layer::Rights) {
        return Ok(());
    }
    capabilities::become_user(&identity, &[])?;
    capabilities::no_new_privs()?;
    prove(&Expectations {
        lost: vec![Capability::CAP_NET_ADMIN, Capability::CAP_NET_RAW, Capability::CAP_DAC_OVERRIDE],
        no_packet_socket: true,
        no_root: true,
        ..Expectations::default()
    })
}

/// What a reload must reach: the configuration, the ignore file, and where the history file is made anew.
fn rules(loaded: &Loaded) -> Rules {
    let read = [Some(Path::new(&loaded.name)), loaded.config.ignore_file.as_deref()];
    Rules {
        read: read.into_iter().flatten().flat_map(with_folder).collect(),
        append: loaded.config.history_file.iter().flat_map(|path| with_folder(path)).collect(),
        connect: vec![log_folder(loaded.config.flags.log_output)],
        ..Rules::default()
    }
}

/// A log daemon that was restarted listens on another socket of the same name, which only its folder can grant.
fn log_folder(output: LogOutput) -> PathBuf {
    let socket = match output {
        LogOutput::Syslog | LogOutput::StdoutAndSyslog => SYSLOG_SOCKET,
        // Standard output may be the journal too.
        LogOutput::Stdout | LogOutput::Journald => JOURNAL_SOCKET,
    };
    let real = std::fs::canonicalize(socket).unwrap_or_else(|_| socket.into());
    real.parent().map_or_else(PathBuf::new, Path::to_owned)
}

/// A file and its folder: what replaces the file is another file.
fn with_folder(path: &Path) -> Vec<PathBuf> {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let folder = own_folder(&path).map(Path::to_owned);
    [Some(path), folder].into_iter().flatten().collect()
}

/// The folder that stays open with a file. One at the top, as `/etc`, is everybody's and is left out: a file replaced
/// there is found after a restart only.
pub(super) fn own_folder(path: &Path) -> Option<&Path> {
    path.parent().filter(|folder| folder.components().count() > 2)
}

fn describe(role: &str, confinement: &Confinement, landlock: i32) -> String {
    let rights = match confinement.permitted.as_slice() {
        [] => "no capabilities".to_owned(),
        some => some.join(" "),
    };
    let privileges = if confinement.no_new_privs { ", no new privileges" } else { "" };
    let files = if landlock > 0 { format!(", Landlock ABI {landlock}") } else { String::new() };
    let seccomp = if confinement.seccomp { ", seccomp" } else { "" };
    format!("{role}: uid {}, {rights}{privileges}{files}{seccomp}", confinement.uid)
}

/// Why the helper keeps more than it could: what it runs inherits its confinement.
fn why_less(settings: &Settings, uid: u32) -> String {
    match (settings.sandbox, settings.rights()) {
        (Sandbox::Off, _) => String::new(),
        (_, Rights::Commands) => {
            format!(", for the configured commands run as uid {uid} and would inherit it")
        }
        (_, Rights::Root) if settings.runs_programs() => {
            ", for the iptables programs would inherit it".to_owned()
        }
        (_, Rights::Root | Rights::NetAdmin) => String::new(),
    }
}

fn missing(role: &str, confinement: &Confinement, landlock: i32, why: &str) -> Vec<String> {
    let layers = [(landlock > 0, "Landlock"), (confinement.seccomp, "seccomp")];
    layers.iter().filter(|(holds, _)| !holds).map(|(_, layer)| format!("{role}: {layer}{why}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(path: &str) -> Vec<String> {
        with_folder(Path::new(path)).iter().map(|path| path.display().to_string()).collect()
    }

    #[test]
    fn a_file_is_reached_with_its_folder_unless_that_is_everybodys() {
        assert_eq!(
            paths("/etc/portsentry/portsentry.conf"),
            ["/etc/portsentry/portsentry.conf", "/etc/portsentry"]
        );
        assert_eq!(paths("/etc/portsentry.conf"), ["/etc/portsentry.conf"]);
        assert_eq!(paths("/history"), ["/history"]);
    }
}
