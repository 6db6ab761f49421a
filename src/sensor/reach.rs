//! Whether the user that the daemon becomes can reach what a reload will need: tried, as that user.
//!
//! Run by the sensor once root is left, and by `check`, which leaves root for it. Opens and closes, and changes nothing.
#![forbid(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::unistd::{AccessFlags, eaccess, geteuid};

use super::confine;
use crate::config::{ConfigError, Loaded, Origin};
use crate::sandbox::identity::Identity;
use crate::sandbox::{SandboxError, capabilities};

/// What `check` can tell as root: it becomes the daemon's user for good. Elsewhere, and where that cannot be done, only
/// the start can tell.
///
/// # Errors
/// RUN_AS names nobody that the daemon could become.
pub fn as_daemon(loaded: &Loaded) -> Result<Vec<ConfigError>, SandboxError> {
    if !geteuid().is_root() {
        return Ok(Vec::new());
    }
    let identity = Identity::resolve(loaded.config.run_as.as_deref())?;
    let lost = |path: &Path| unfound_once_rotated(path).or_else(|| not_made_anew(path));
    let told = |_| out_of_reach(loaded, lost);
    Ok(capabilities::become_user(&identity, &[]).map_or_else(|_| Vec::new(), told))
}

/// Files that are in use, but that the calling process may not open again whoever makes them anew.
pub fn at_start(loaded: &Loaded) -> Vec<ConfigError> {
    out_of_reach(loaded, unfound_once_rotated)
}

fn out_of_reach(loaded: &Loaded, lost: impl Fn(&Path) -> Option<String>) -> Vec<ConfigError> {
    let configuration = (Origin::WholeFile(loaded.name.clone()), Path::new(&loaded.name));
    let ignore = loaded.config.ignore_file.as_deref().map(|path| (loaded.origin("IGNORE_FILE"), path));
    let read = [Some(configuration), ignore].into_iter().flatten();
    let unread = read.filter(|(_, path)| is_forbidden(&opened(path))).map(|(origin, path)| {
        let what = format!("cannot read {}, and a reload (SIGHUP) will fail", path.display());
        ConfigError::new(origin, told(&what, &format!("chmod g+r and chgrp {} it, {PASS}", group())))
    });
    let lost = loaded.config.history_file.as_deref().and_then(lost);
    unread.chain(lost.map(|text| ConfigError::new(loaded.origin("HISTORY_FILE"), text))).collect()
}

/// The start gives the file itself to that user: only its folders can be in the way, and of what is made anew there the
/// start knows nothing.
fn unfound_once_rotated(path: &Path) -> Option<String> {
    let name = path.display();
    if is_forbidden(&path.symlink_metadata()) {
        let what =
            format!("cannot reach HISTORY_FILE {name}, and will not find it again once it was rotated");
        return Some(told(&what, PASS));
    }
    if confine::own_folder(path).is_some() {
        return None;
    }
    let what =
        format!("will not find HISTORY_FILE {name} again once it was rotated, for its folder is everybody's");
    Some(told(&what, "name a folder further down, as /var/log/portsentry-rs"))
}

/// Said by `check` alone: logrotate may make it, which the start cannot see and must not call an error. A SIGHUP that comes
/// upon none says so itself.
fn not_made_anew(path: &Path) -> Option<String> {
    let (name, folder) = (path.display(), confine::own_folder(path)?);
    if !matches!(eaccess(folder, AccessFlags::W_OK | AccessFlags::X_OK), Err(Errno::EACCES | Errno::EROFS)) {
        return None;
    }
    let what = format!("may not make HISTORY_FILE {name} anew once it was rotated");
    let mend = format!(
        "let logrotate create it for that user, as share/portsentry-rs/config/logrotate does, or name a folder that uid {} owns",
        geteuid()
    );
    Some(told(&what, &mend))
}

const PASS: &str = "let it pass (chmod o+x) every folder above";

fn told(what: &str, mend: &str) -> String {
    let user = geteuid();
    format!(
        "a daemon that runs as uid {user} (by RUN_AS, or by User= of a systemd unit) {what}: {mend}, and restart"
    )
}

fn group() -> u32 {
    nix::unistd::getegid().as_raw()
}

fn opened(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)
}

fn is_forbidden<T>(tried: &io::Result<T>) -> bool {
    tried.as_ref().is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
}
