//! STATE_DIR: made if it is not there, and given to the user that the helper becomes, who can pass what was made above it.
//! Sensor, at the start.
//!
//! It gives things away as root, so it takes nobody else's: no link, no folder that others use, no file with two names.
#![forbid(unsafe_code)]

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use crate::protocol::settings::{LEDGER, LEDGER_LOCK};
use crate::sandbox::identity::Identity;

/// Why there is no folder for the ledger.
#[derive(Debug, thiserror::Error)]
pub enum StateDirError {
    /// The system refused.
    #[error("STATE_DIR {path} cannot be made or given to the helper's user: {error}", path = path.display())]
    System {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// STATE_DIR="/tmp".
    #[error("STATE_DIR {path} holds {name}, which is not ours, and would be given to the daemon's user: name a folder of its own", path = path.display())]
    Shared {
        /// The folder.
        path: PathBuf,
        /// One of the files in it.
        name: String,
    },
    /// A ledger, or its lock, that is no plain file.
    #[error("{path} is a link or has a second name: move it away, it may have been planted", path = .0.display())]
    Planted(PathBuf),
}

/// Makes `path`, and gives it and the ledger in it, with its lock, to `identity` where we are root.
///
/// # Errors
/// It cannot be made, is a link, or is not ours alone.
pub fn make(path: &Path, identity: Identity) -> Result<(), StateDirError> {
    let failed = |error| StateDirError::System { path: path.to_owned(), error };
    let made = |path: &Path, mode| DirBuilder::new().recursive(true).mode(mode).create(path).map_err(failed);
    path.parent().map_or(Ok(()), |above| made(above, 0o755))?;
    made(path, 0o700)?;
    ours_alone(path)?;
    if !nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    // By descriptors from here on: what was looked at is what is given away.
    let folder = open(path, libc::O_DIRECTORY).map_err(failed)?;
    fchown(&folder, Some(identity.uid), Some(identity.gid)).map_err(failed)?;
    folder.set_permissions(Permissions::from_mode(0o700)).map_err(failed)?;
    [LEDGER, LEDGER_LOCK].iter().try_for_each(|name| give(&path.join(name), identity))
}

/// What stands against `path`, as far as the calling process may see. Makes nothing and gives nothing away.
pub fn obstacle(path: &Path) -> Option<StateDirError> {
    let is_link = path.symlink_metadata().ok()?.is_symlink();
    if is_link && nix::unistd::geteuid().is_root() {
        return Some(StateDirError::Planted(path.to_owned()));
    }
    ours_alone(path).err().filter(|error| !is_private(error))
}

/// Nobody but the daemon's user may look.
fn is_private(error: &StateDirError) -> bool {
    matches!(error, StateDirError::System { error, .. } if error.kind() == io::ErrorKind::PermissionDenied)
}

fn ours_alone(path: &Path) -> Result<(), StateDirError> {
    let entries =
        fs::read_dir(path).map_err(|error| StateDirError::System { path: path.to_owned(), error })?;
    let mut names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    match names.find(|name| !name.starts_with(LEDGER)) {
        Some(name) => Err(StateDirError::Shared { path: path.to_owned(), name }),
        None => Ok(()),
    }
}

/// RUN_AS may have been another before.
fn give(path: &Path, identity: Identity) -> Result<(), StateDirError> {
    let failed = |error| StateDirError::System { path: path.to_owned(), error };
    let file = match open(path, libc::O_NONBLOCK) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {
            return Err(StateDirError::Planted(path.to_owned()));
        }
        file => file.map_err(failed)?,
    };
    let facts = file.metadata().map_err(failed)?;
    if !facts.is_file() || facts.nlink() != 1 {
        return Err(StateDirError::Planted(path.to_owned()));
    }
    fchown(&file, Some(identity.uid), Some(identity.gid)).map_err(failed)
}

fn open(path: &Path, flags: i32) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(flags | libc::O_NOFOLLOW).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOBODY: Identity = Identity { uid: 65534, gid: 65534 };

    #[test]
    fn a_folder_that_others_use_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("precious"), "").unwrap();
        let before = fs::metadata(folder.path()).unwrap().mode();
        let error = make(folder.path(), NOBODY).unwrap_err();
        assert!(matches!(error, StateDirError::Shared { .. }), "{error}");
        assert_eq!(fs::metadata(folder.path()).unwrap().mode(), before);
    }

    #[test]
    fn links_and_files_with_a_second_name_are_never_given_away() {
        let folder = tempfile::tempdir().unwrap();
        let (target, link) = (folder.path().join("target"), folder.path().join("link"));
        fs::create_dir(&target).unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        if nix::unistd::geteuid().is_root() {
            assert!(make(&link, NOBODY).is_err());
            fs::write(folder.path().join("precious"), "").unwrap();
            fs::hard_link(folder.path().join("precious"), target.join(LEDGER)).unwrap();
            assert!(matches!(make(&target, NOBODY), Err(StateDirError::Planted(_))));
            assert_eq!(fs::metadata(folder.path().join("precious")).unwrap().uid(), 0);
        }
    }

    #[test]
    fn a_new_folder_is_made_for_the_helpers_user_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/state/portsentry");
        make(&path, NOBODY).unwrap();
        fs::write(path.join(LEDGER), "").unwrap();
        make(&path, NOBODY).unwrap();
        let facts = fs::metadata(&path).unwrap();
        assert_eq!(facts.mode() & 0o777, 0o700);
        for above in ["deep", "deep/state"] {
            assert_eq!(fs::metadata(folder.path().join(above)).unwrap().mode() & 0o777, 0o755, "{above}");
        }
        if nix::unistd::geteuid().is_root() {
            assert_eq!((facts.uid(), fs::metadata(path.join(LEDGER)).unwrap().uid()), (65534, 65534));
        }
    }
}
