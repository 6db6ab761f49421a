//! Whether the user that the daemon becomes can reach what a reload will need: tried, as that user.
//!
//! Run by the sensor once root is left, and by `check`, which leaves root for it. Opens and closes, and changes nothing.
#![forbid(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::config::{ConfigError, Loaded, Origin};
use crate::sandbox::identity::Identity;
use crate::sandbox::{SandboxError, capabilities};

/// What `check` can tell as root: it becomes the daemon's user for good. Elsewhere, and where that cannot be done, only
/// the start can tell.
///
/// # Errors
/// RUN_AS names nobody that the daemon could become.
pub fn as_daemon(loaded: &Loaded) -> Result<Vec<ConfigError>, SandboxError> {
    if !nix::unistd::geteuid().is_root() {
        return Ok(Vec::new());
    }
    let identity = Identity::resolve(loaded.config.run_as.as_deref())?;
    Ok(capabilities::become_user(&identity, &[]).map_or_else(|_| Vec::new(), |_| out_of_reach(loaded)))
}

/// Files that are in use, but that the calling process may not open again.
pub fn out_of_reach(loaded: &Loaded) -> Vec<ConfigError> {
    let configuration = (Origin::WholeFile(loaded.name.clone()), Path::new(&loaded.name));
    let ignore = loaded.config.ignore_file.as_deref().map(|path| (loaded.origin("IGNORE_FILE"), path));
    let read = [Some(configuration), ignore].into_iter().flatten();
    let unread = read.filter(|(_, path)| is_forbidden(&opened(path))).map(|(origin, path)| {
        let what = format!("cannot read {}, and a reload (SIGHUP) will fail", path.display());
        ConfigError::new(origin, told(&what, &format!("chmod g+r and chgrp {} it, ", group())))
    });
    // The start gives the file itself to that user: only its folders can be in the way.
    let history = loaded.config.history_file.as_deref();
    let lost = history.filter(|path| is_forbidden(&path.symlink_metadata())).map(|path| {
        let what = format!(
            "cannot reach HISTORY_FILE {}, and will not find it again once it was rotated",
            path.display()
        );
        ConfigError::new(loaded.origin("HISTORY_FILE"), told(&what, ""))
    });
    unread.chain(lost).collect()
}

fn told(what: &str, mend: &str) -> String {
    let user = nix::unistd::geteuid();
    format!(
        "the user that the daemon runs as (RUN_AS, uid {user}) {what}: {mend}let it pass (chmod o+x) every folder above, and restart"
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
