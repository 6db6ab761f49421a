//! Taking the control socket's place in the file system: over what a dead daemon left, over nothing else. Sensor.
//!
//! Run before confinement, with the rights of the start. Never takes the place of a living daemon or of a file that is
//! no socket, and nobody can connect before mode and owner are set.
#![forbid(unsafe_code)]

use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::geteuid;
use socket2::{Domain, SockAddr, Socket, Type};

use super::CLIENTS;

/// Why the control socket cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// A daemon answers there.
    #[error("Another daemon, process {1}, answers on {0}; stop it, or give this one its own CONTROL_SOCKET")]
    Occupied(PathBuf, String),
    /// A file of another kind is there.
    #[error("{0} exists and is not a socket; remove it, or give another CONTROL_SOCKET")]
    NotASocket(PathBuf),
    /// The system refused.
    #[error(
        "The control socket {path} cannot be made: {source}; check CONTROL_SOCKET and the rights of its folder"
    )]
    System {
        /// The configured path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A listener at `path`, of mode 0600 and, if we may give it away, `owner`'s.
pub(super) fn bound(path: &Path, owner: u32) -> Result<UnixListener, BindError> {
    clear(path)?;
    listening(path, owner).map_err(|source| BindError::System { path: path.to_owned(), source })
}

/// Leaves nothing at `path`, unless a daemon listens there or it is no socket.
fn clear(path: &Path) -> Result<(), BindError> {
    let failed = |source| BindError::System { path: path.to_owned(), source };
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        DirBuilder::new().recursive(true).mode(0o755).create(parent).map_err(failed)?;
    }
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
        Ok(_) => obstacle(path).map_or(Ok(()), Err)?,
    }
    let process = match connected(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            return fs::remove_file(path).map_err(failed);
        }
        Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(failed(error)),
        // A full queue (EAGAIN) is a daemon's too, if a busy one's.
        Err(_) => None,
        Ok(asking) => getsockopt(&asking, sockopt::PeerCredentials).ok().map(|daemon| daemon.pid()),
    };
    Err(BindError::Occupied(path.to_owned(), process.map_or_else(|| "unknown".into(), |pid| pid.to_string())))
}

/// What lies at `path` that a socket never takes the place of. Looks at it, and asks nobody who may listen there.
pub fn obstacle(path: &Path) -> Option<BindError> {
    let is_socket = fs::symlink_metadata(path).ok()?.file_type().is_socket();
    (!is_socket).then(|| BindError::NotASocket(path.to_owned()))
}

fn connected(path: &Path) -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.connect(&SockAddr::unix(path)?)?;
    Ok(socket)
}

/// Nobody can connect before `listen`, and by then mode and owner are set.
fn listening(path: &Path, owner: u32) -> io::Result<UnixListener> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::unix(path)?)?;
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    if geteuid().is_root() {
        chown(path, Some(owner), None)?;
    }
    socket.listen(CLIENTS as i32)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/control");
        let first = bound(&path, 0).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(bound(&path, 0), Err(BindError::Occupied(..))));
        drop(first);
        assert!(path.exists());
        bound(&path, 0).unwrap();
    }

    #[test]
    fn what_is_not_a_socket_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control");
        fs::write(&path, "precious").unwrap();
        assert!(matches!(bound(&path, 0), Err(BindError::NotASocket(_))));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[test]
    fn a_path_too_long_for_a_socket_is_an_error_that_names_the_key() {
        let folder = tempfile::tempdir().unwrap();
        let error = bound(&folder.path().join("x".repeat(200)), 0).unwrap_err();
        assert!(error.to_string().contains("CONTROL_SOCKET"), "{error}");
    }
}
