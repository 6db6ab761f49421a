//! HISTORY_FILE: PortSentry's `Scan from:` lines with their time, appended; run by the sensor's main thread.
//!
//! Opened before confinement and again at SIGHUP. Never follows a link at its own name, never truncates.
#![forbid(unsafe_code)]

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

/// Why the history file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// It cannot be opened.
    #[error("HISTORY_FILE {path} cannot be opened for appending: {source}; give a writable path, not a link")]
    Open {
        /// The configured path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It would be given away under another name, too.
    #[error(
        "HISTORY_FILE {path} has a second name, and would be given to the daemon's user: move it away, it may have been planted"
    )]
    Planted {
        /// The configured path.
        path: PathBuf,
    },
    /// It is a device, a pipe or a folder.
    #[error("HISTORY_FILE {path} is not a regular file; give the path of one, or leave the key out")]
    NotAFile {
        /// The configured path.
        path: PathBuf,
    },
}

/// O_NONBLOCK: a pipe planted at the path must not hold up the start.
const GUARDED: i32 = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
/// open(2)'s flags for it as they reach the kernel.
pub const OPEN_FLAGS: i32 = GUARDED | libc::O_WRONLY | libc::O_APPEND | libc::O_CLOEXEC;
/// Likewise where it is not there.
pub const CREATE_FLAGS: i32 = OPEN_FLAGS | libc::O_CREAT | libc::O_EXCL;

/// The open history file.
#[derive(Debug)]
pub struct History {
    path: PathBuf,
    file: File,
    torn: bool,
    lost: u64,
}

impl History {
    /// Opens `path` for appending; missing parents (0755) and the file (0640) are created. The file is given to the
    /// user id `owner` where one is named, so that the sensor can open it again when it is that user.
    pub fn open(path: &Path, owner: Option<u32>) -> Result<History, HistoryError> {
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            let made = DirBuilder::new().recursive(true).mode(0o755).create(parent);
            made.map_err(unopened(path))?;
        }
        let file = opened(path)?;
        if let Some(owner) = owner.filter(|_| nix::unistd::geteuid().is_root()) {
            has_one_name(path, &file)?;
            fchown(&file, Some(owner), None).map_err(unopened(path))?;
        }
        Ok(History { path: path.to_owned(), file, torn: false, lost: 0 })
    }

    /// Opens the path anew, after log rotation; it is not given away then, for the sensor owns what it makes. On failure
    /// the old file stays in use.
    pub fn reopen(&mut self) -> Result<(), HistoryError> {
        self.file = opened(&self.path)?;
        self.torn = false;
        Ok(())
    }

    /// Appends `time`, a blank, `line` and a newline in one write.
    pub fn push(&mut self, time: &str, line: &str) {
        let start = if self.torn { "\n" } else { "" };
        let record = format!("{start}{time} {line}\n");
        match self.file.write(record.as_bytes()) {
            Ok(written) if written == record.len() => self.torn = false,
            Ok(written) => {
                // The disk filled up within the record: the next one must not continue its line.
                self.torn = written > 0 || self.torn;
                self.lost += 1;
            }
            Err(_) => self.lost += 1,
        }
    }

    /// Lines that could not be written whole.
    pub fn lost(&self) -> u64 {
        self.lost
    }
}

/// What lies at `path` that [`History::open`] would refuse. Looks at it, and opens nothing.
pub fn obstacle(path: &Path) -> Option<HistoryError> {
    let (facts, path) = (path.symlink_metadata().ok()?, path.to_owned());
    match facts.nlink() {
        _ if facts.is_symlink() => {
            let source = io::Error::from_raw_os_error(libc::ELOOP);
            Some(HistoryError::Open { path, source })
        }
        _ if !facts.is_file() => Some(HistoryError::NotAFile { path }),
        names if names > 1 && nix::unistd::geteuid().is_root() => Some(HistoryError::Planted { path }),
        _ => None,
    }
}

/// What was opened is what is given away: a name that is planted later is not.
fn has_one_name(path: &Path, file: &File) -> Result<(), HistoryError> {
    let facts = file.metadata().map_err(unopened(path))?;
    if facts.nlink() == 1 { Ok(()) } else { Err(HistoryError::Planted { path: path.to_owned() }) }
}

/// Created only where it is not there: in a folder like /tmp O_CREAT keeps even root from a file that is somebody else's,
/// as ours is the daemon's user's from the first start on (fs.protected_regular, proc_sys_fs(5)).
fn opened(path: &Path) -> Result<File, HistoryError> {
    let mut options = OpenOptions::new();
    options.append(true).mode(0o640).custom_flags(GUARDED);
    let file = match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => options.create_new(true).open(path),
        opened => opened,
    };
    let file = file.map_err(unopened(path))?;
    if !file.metadata().map_err(unopened(path))?.is_file() {
        return Err(HistoryError::NotAFile { path: path.to_owned() });
    }
    Ok(file)
}

fn unopened(path: &Path) -> impl FnOnce(io::Error) -> HistoryError {
    let path = path.to_owned();
    |source| HistoryError::Open { path, source }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn lines_are_appended_and_parents_are_made() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log/deep/history");
        History::open(&path, None).unwrap().push("T1", "Scan from: a");
        History::open(&path, None).unwrap().push("T2", "Scan from: b");
        assert_eq!(fs::read_to_string(&path).unwrap(), "T1 Scan from: a\nT2 Scan from: b\n");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o137, 0);
    }

    #[test]
    fn after_rotation_lines_go_to_the_new_file() {
        let folder = tempfile::tempdir().unwrap();
        let (path, old) = (folder.path().join("history"), folder.path().join("history.1"));
        let mut history = History::open(&path, None).unwrap();
        history.push("T1", "a");
        fs::rename(&path, &old).unwrap();
        history.push("T2", "b");
        history.reopen().unwrap();
        history.push("T3", "c");
        assert_eq!(fs::read_to_string(&old).unwrap(), "T1 a\nT2 b\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "T3 c\n");
    }

    /// Proves most where fs.protected_regular is on, as it is on nearly every distribution.
    #[test]
    fn in_a_folder_like_tmp_it_is_opened_again_once_it_is_the_daemons_users() {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o1777)).unwrap();
        let path = folder.path().join("history");
        for _ in 0..2 {
            History::open(&path, Some(65534)).unwrap();
        }
    }

    #[test]
    fn a_file_with_a_second_name_is_not_given_away() {
        let folder = tempfile::tempdir().unwrap();
        let (precious, path) = (folder.path().join("precious"), folder.path().join("history"));
        fs::write(&precious, "").unwrap();
        fs::hard_link(&precious, &path).unwrap();
        if nix::unistd::geteuid().is_root() {
            assert!(matches!(History::open(&path, Some(65534)), Err(HistoryError::Planted { .. })));
            assert_eq!(fs::metadata(&precious).unwrap().uid(), 0);
        }
    }

    #[test]
    fn links_folders_and_pipes_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (target, link, pipe) =
            (folder.path().join("target"), folder.path().join("link"), folder.path().join("pipe"));
        symlink(&target, &link).unwrap();
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(matches!(History::open(&link, None), Err(HistoryError::Open { .. })));
        assert!(!target.exists());
        assert!(matches!(History::open(folder.path(), None), Err(HistoryError::Open { .. })));
        assert!(History::open(&pipe, None).is_err());
        let reader = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&pipe).unwrap();
        assert!(matches!(History::open(&pipe, None), Err(HistoryError::NotAFile { .. })));
        drop(reader);
    }
}
