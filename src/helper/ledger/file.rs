//! The ledger's files: opened and made so that nobody else can plant one, or write ours. Helper.
//!
//! Never follows a link, and never waits for a file that is none.
#![forbid(unsafe_code)]

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use ipnet::IpNet;

use super::error::{LedgerError, io_error};
use super::line;
use crate::helper::escalation::Block;

/// For reading and appending; made if it is not there.
pub(super) fn open(path: &Path) -> Result<File, LedgerError> {
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true).mode(0o600);
    // O_NONBLOCK: a planted FIFO must not hold us before it is seen for what it is.
    options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    let file = options.open(path).map_err(|error| opening(path, error))?;
    check_owner(path, &file)?;
    Ok(file)
}

fn opening(path: &Path, error: io::Error) -> LedgerError {
    match error.raw_os_error() {
        Some(libc::ELOOP) => LedgerError::Foreign { path: path.to_owned(), what: "a symbolic link" },
        _ => io_error("open", path)(error),
    }
}

/// A ledger that others could write would let them choose who is blocked.
fn check_owner(path: &Path, file: &File) -> Result<(), LedgerError> {
    let facts = file.metadata().map_err(io_error("examine", path))?;
    let own = nix::unistd::geteuid().as_raw();
    let what = match facts.mode() & 0o022 {
        _ if !facts.is_file() => "not a regular file",
        _ if facts.uid() != own && facts.uid() != 0 => "owned by another user",
        0 => return Ok(()),
        _ => "writable for others",
    };
    Err(LedgerError::Foreign { path: path.to_owned(), what })
}

/// For appending, in the place of whatever is there: written, synced, and how many lines it has.
pub(super) fn write_new(
    path: &Path,
    entries: impl Iterator<Item = (IpNet, Block)>,
) -> io::Result<(File, usize)> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    // create_new: O_EXCL follows no link either.
    options.append(true).create_new(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    let mut out = BufWriter::new(options.open(path)?);
    let mut lines = 0;
    for (target, block) in entries {
        line::write(&mut out, target, block)?;
        lines += 1;
    }
    let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.sync_all()?;
    Ok((file, lines))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::helper::ledger::Ledger;
    use crate::protocol::settings::LEDGER;

    #[test]
    fn links_pipes_and_files_of_others_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(LEDGER);
        let refused = |what: &str| {
            let error = Ledger::open(folder.path()).err().unwrap().to_string();
            assert!(error.contains(what), "{error}");
            fs::remove_file(&path).unwrap();
        };
        std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
        refused("symbolic link");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        refused("not a regular file");
        for mode in [0o666, 0o620, 0o602] {
            fs::write(&path, "").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            refused("writable for others");
        }
        // Whoever owns it may write it whenever he likes. Only root can give a file away.
        fs::write(&path, "").unwrap();
        if std::os::unix::fs::chown(&path, Some(65_534), None).is_ok() {
            refused("owned by another user");
        }
    }
}
