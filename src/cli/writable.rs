//! Whether what the configuration has written can be: tried as the calling process, changing nothing.
//!
//! Warnings only. An ordinary user may look at a file that the daemon will write, and the start itself fails where it cannot.
#![forbid(unsafe_code)]

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::unistd::{AccessFlags, eaccess, geteuid};

use crate::config::{ConfigError, Loaded};
use crate::protocol::Response;

/// What cannot be written as things are.
pub fn warnings(loaded: &Loaded) -> Vec<ConfigError> {
    let config = &loaded.config;
    let hosts_deny = config.block_with.contains(&Response::HostsDeny).then_some(&*config.hosts_deny_file);
    let files = [
        ("HISTORY_FILE", config.history_file.as_deref()),
        ("BLOCKED_FILE", config.blocked_file.as_deref()),
        // Replaced by another file of its name: what counts is the folder.
        ("HOSTS_DENY_FILE", hosts_deny.and_then(Path::parent)),
    ];
    let refused = files.into_iter().filter_map(|(key, path)| Some((key, path?, refusal(path?)?)));
    let told = refused.map(|(key, path, error)| {
        let (path, user) = (path.display(), geteuid());
        let text = format!(
            "{key}: {path} cannot be written here by uid {user}: {error}; the daemon must be able to"
        );
        ConfigError::new(loaded.origin(key), text)
    });
    told.collect()
}

/// Files are opened as the daemon will, to append: a right to write, which nobody needs, may be withheld (SELinux does).
/// Missing folders are made at the start: then what counts is the nearest that is there.
fn refusal(path: &Path) -> Option<io::Error> {
    if path.symlink_metadata().is_ok_and(|it| it.is_file()) {
        let mut options = OpenOptions::new();
        options.append(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
        return options.open(path).err();
    }
    let there = path.ancestors().find(|path| path.symlink_metadata().is_ok())?;
    eaccess(there, AccessFlags::W_OK).err().map(io::Error::from)
}
