//! The files: the configuration and the ignore file it names, read whole and once.
//!
//! Runs in the sensor and the command line. Must never wait for whoever might write into one, nor read on for ever.
#![forbid(unsafe_code)]

use std::fs::OpenOptions;
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use ipnet::IpNet;

use super::{Loaded, Overrides, build, outcome};
use crate::config::error::{ConfigError, Origin};
use crate::config::ignore::{doubts_of_ignore, parse_ignore};

/// open(2)'s flags for both files as they reach the kernel.
pub const OPEN_FLAGS: i32 = libc::O_RDONLY | libc::O_NONBLOCK | libc::O_CLOEXEC;

/// Longest file that is read, bytes: far above any real one, far below what would hurt.
const LONGEST_FILE: u64 = 1 << 20;

/// What lets a reader in who may not read a file: whoever asks by hand, or the service.
const BY_HAND: &str = "try sudo, or let the user that runs this read it (a service's: chgrp, chmod g+r, and chmod o+x every folder above)";
/// Likewise where it was read at the start: by its mode, or by Landlock, which says the same.
const IN_A_RELOAD: &str = "let the user that the daemon runs as read it (chgrp, chmod g+r) and pass every folder above (chmod o+x), and restart: \
     while it runs it may open nothing outside the folders in which it found its configuration and ignore file";

/// Reads the configuration file at `path` and the ignore file it names. Every error of both is returned at once.
pub fn load(path: &Path, overrides: &Overrides) -> Result<Loaded, Vec<ConfigError>> {
    load_for(path, overrides, BY_HAND)
}

/// Likewise for a daemon that runs.
pub(super) fn load_again(path: &Path, overrides: &Overrides) -> Result<Loaded, Vec<ConfigError>> {
    load_for(path, overrides, IN_A_RELOAD)
}

fn load_for(path: &Path, overrides: &Overrides, if_refused: &str) -> Result<Loaded, Vec<ConfigError>> {
    // A reload must find it again from wherever the daemon is then: `-D` goes to `/`.
    let path = &std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let name = path.display().to_string();
    let bytes = read(path).map_err(|error| {
        let mend = mend(&error, if_refused, "name another file with -c FILE");
        let message = format!("cannot read the configuration: {error}; {mend}");
        vec![ConfigError::new(Origin::WholeFile(name.clone()), message)]
    })?;
    let (mut loaded, mut errors) = build(&name, &bytes, overrides);
    match ignore_file(&loaded, if_refused) {
        Ok((networks, doubts)) => {
            loaded.ignored = networks;
            loaded.warnings.extend(doubts);
        }
        Err(more) => errors.extend(more),
    }
    outcome(loaded, errors)
}

/// CONTROL_SOCKET of the file at `path`, whatever else is wrong with it: an operator who must lift a block now is not
/// told to mend the file first. The default where the key is not set, or cannot be read.
///
/// # Errors
/// The file cannot be read: which daemon was meant nobody knows.
pub fn control_socket(path: &Path) -> io::Result<PathBuf> {
    let bytes = read(path)?;
    Ok(build(&path.display().to_string(), &bytes, &Overrides::default()).0.config.control_socket)
}

fn mend<'a>(error: &io::Error, if_refused: &'a str, otherwise: &'a str) -> &'a str {
    if error.kind() == ErrorKind::PermissionDenied { if_refused } else { otherwise }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    // Whoever writes into it may never come, and a reload must not wait.
    if file.metadata().is_ok_and(|facts| facts.file_type().is_fifo()) {
        return Err(io::Error::other("it is a pipe"));
    }
    file.take(LONGEST_FILE + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > LONGEST_FILE {
        true => Err(io::Error::other(format!("it is longer than {LONGEST_FILE} bytes"))),
        false => Ok(bytes),
    }
}

/// Its networks, and what is doubtful about them.
fn ignore_file(
    loaded: &Loaded,
    if_refused: &str,
) -> Result<(Vec<IpNet>, Vec<ConfigError>), Vec<ConfigError>> {
    let Some(path) = &loaded.config.ignore_file else {
        return Ok(Default::default());
    };
    let bytes = read(path).map_err(|error| {
        let otherwise = match error.kind() == ErrorKind::NotFound {
            true => "create it (it may be empty), or take the key out",
            false => "name a plain file, or take the key out",
        };
        let mend = mend(&error, if_refused, otherwise);
        let message = format!("cannot read IGNORE_FILE {}: {error}; {mend}", path.display());
        vec![ConfigError::new(loaded.origin("IGNORE_FILE"), message)]
    })?;
    let name = path.display().to_string();
    Ok((parse_ignore(&name, &bytes)?, doubts_of_ignore(&name, &bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn an_ignore_file_that_cannot_be_read_is_an_error_that_says_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let (conf, ignore) = (folder.path().join("conf"), folder.path().join("ignore"));
        std::fs::write(&conf, format!("TCP_PORTS=1\nIGNORE_FILE={}", ignore.display())).unwrap();
        let errors = load(&conf, &Overrides::default()).unwrap_err();
        assert!(errors[0].to_string().contains(":2:13: cannot read IGNORE_FILE"), "{}", errors[0]);
        assert!(errors[0].message.contains("create it"));
        std::fs::create_dir(&ignore).unwrap();
        let message = &load(&conf, &Overrides::default()).unwrap_err()[0].message;
        assert!(message.ends_with("; name a plain file, or take the key out"), "{message}");
        std::fs::remove_dir(&ignore).unwrap();
        std::fs::write(&ignore, "10.0.0.1/8\n::1 # me").unwrap();
        assert_eq!(load(&conf, &Overrides::default()).unwrap().ignored.len(), 2);
        std::fs::write(&ignore, "10.0.0.1/8\nme").unwrap();
        assert!(load(&conf, &Overrides::default()).unwrap_err()[0].to_string().contains("ignore:2:1: "));
        assert!(load(&ignore.join("x"), &Overrides::default()).unwrap_err()[0].message.contains("-c FILE"));
    }

    #[test]
    fn a_file_that_is_too_long_is_refused_and_not_cut() {
        let folder = tempfile::tempdir().unwrap();
        let conf = folder.path().join("conf");
        for (more, is_read) in [(0, true), (1, false)] {
            let text = "TCP_PORTS=1\n#";
            std::fs::write(&conf, text.to_owned() + &"x".repeat(LONGEST_FILE as usize - text.len() + more))
                .unwrap();
            assert_eq!(load(&conf, &Overrides::default()).is_ok(), is_read);
        }
    }

    #[test]
    fn a_file_is_named_so_that_it_is_found_again_from_anywhere() {
        let here = std::env::current_dir().unwrap();
        let loaded = load(Path::new("config/../config/portsentry.conf"), &Overrides::default());
        let name = match &loaded {
            Ok(loaded) => loaded.name.clone(),
            // The ignore file that it names need not be here.
            Err(errors) => errors[0].origin.to_string(),
        };
        assert!(name.starts_with(here.join("config").to_str().unwrap()), "{name}");
    }

    #[test]
    fn the_control_socket_is_found_in_a_file_full_of_mistakes() {
        let folder = tempfile::tempdir().unwrap();
        let conf = folder.path().join("conf");
        std::fs::write(&conf, "TCP_PORTS=0\nCONTROL_SOCKET=/run/x\nK").unwrap();
        assert_eq!(control_socket(&conf).unwrap(), Path::new("/run/x"));
        std::fs::write(&conf, "TCP_PORTS=0\nCONTROL_SOCKET=x").unwrap();
        assert_eq!(control_socket(&conf).unwrap(), Config::default().control_socket);
        assert!(control_socket(&folder.path().join("none")).is_err());
    }
}
