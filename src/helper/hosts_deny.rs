//! The response hosts.deny: a line a source for the TCP wrappers (hosts_access(5)). The helper's; needs the file's folder.
//!
//! The file is replaced whole by rename, with its mode and owner: a reader never sees half of it. A link, or a file
//! that everybody may write, is refused. Lines that are not ours are kept byte for byte.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use super::respond::Refusal;

/// Longest file that is rewritten, bytes.
const LONGEST: u64 = 16 << 20;

/// The file.
#[derive(Debug)]
pub struct HostsDeny {
    path: PathBuf,
}

impl HostsDeny {
    /// Makes sure that the file can be kept: it is there, and its folder takes a new file.
    pub fn open(path: &Path) -> Result<HostsDeny, Refusal> {
        let file = HostsDeny { path: path.to_owned() };
        file.be_there().and_then(|()| file.read()).and_then(|_| file.probe()).map(|()| file)
    }

    /// Whether the file can be kept at `path`, as far as looking tells.
    pub fn inspect(path: &Path) -> Result<(), Refusal> {
        let file = HostsDeny { path: path.to_owned() };
        match std::fs::symlink_metadata(path) {
            Ok(_) => file.read().map(drop),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(file.refusal("examine", &error)),
        }
    }

    /// Adds the lines that are missing and takes out those of `gone`, in one replacement; none if nothing changes.
    /// Returns which of them, `added` before `gone`, stood there: one to be added that is not known to be ours is somebody
    /// else's; one of ours that did not was made otherwise, or somebody took it out.
    pub fn edit(&self, added: &[String], gone: &[String]) -> Result<Vec<bool>, Refusal> {
        let (old, facts) = match self.read() {
            // Whoever takes the file away, to let everybody in, has taken every line out.
            Err(refusal) if refusal.errno == libc::ENOENT && added.is_empty() => {
                return Ok(vec![false; gone.len()]);
            }
            Err(refusal) if refusal.errno == libc::ENOENT => self.be_there().and_then(|()| self.read())?,
            found => found?,
        };
        let (new, stood) = edited(&old, added, gone);
        // What we have made so long we could not read again, and no line would ever be taken out.
        if new.len() > old.len() && new.len() as u64 > LONGEST {
            return Err(self.too_long());
        }
        if new != old {
            self.replace(&new, &facts).map_err(|error| self.refusal("replace", &error))?;
        }
        Ok(stood)
    }

    /// Where the file is missing it is made, for everybody to read whatever our umask: whom it protects are no programs of
    /// root's alone.
    fn be_there(&self) -> Result<(), Refusal> {
        let made = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&self.path);
        match made.and_then(|file| file.set_permissions(Permissions::from_mode(0o644))) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(self.refusal("create", &error)),
            _ => Ok(()),
        }
    }

    fn read(&self) -> Result<(Vec<u8>, fs::Metadata), Refusal> {
        let failed = |error: io::Error| self.refusal("read", &error);
        let mut options = OpenOptions::new();
        // O_NONBLOCK: a planted FIFO must not hold us before it is seen for what it is.
        options.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
        let file = options.open(&self.path).map_err(failed)?;
        let facts = file.metadata().map_err(failed)?;
        if !facts.is_file() || facts.mode() & 0o002 != 0 || facts.len() > LONGEST {
            let path = self.path.display();
            return Err(Refusal::new(
                libc::EPERM,
                format!(
                    "{path} is not a regular file of at most 16 MiB that only its owner and group may write; mend that first"
                ),
            ));
        }
        let mut bytes = Vec::new();
        file.take(LONGEST).read_to_end(&mut bytes).map_err(failed)?;
        Ok((bytes, facts))
    }

    fn too_long(&self) -> Refusal {
        let path = self.path.display();
        let text = format!(
            "{path} would be longer than 16 MiB; take lines out that need not be there, or hosts_deny out of BLOCK_WITH"
        );
        Refusal::new(libc::EFBIG, text)
    }

    fn fresh(&self) -> PathBuf {
        let mut name = self.path.as_os_str().to_owned();
        name.push(".portsentry-new");
        PathBuf::from(name)
    }

    /// What could not be done later is an error now.
    fn probe(&self) -> Result<(), Refusal> {
        let fresh = self.fresh();
        let made = create(&fresh).and_then(|_| fs::remove_file(&fresh));
        made.map_err(|error| self.refusal("make a file beside", &error))
    }

    fn replace(&self, bytes: &[u8], facts: &fs::Metadata) -> io::Result<()> {
        let fresh = self.fresh();
        let replaced = make(&fresh, bytes, facts).and_then(|()| fs::rename(&fresh, &self.path));
        if replaced.is_err() {
            // What there is of it would keep the little room of a full disk, and lie beside the file for ever.
            let _ = fs::remove_file(&fresh);
        }
        replaced
    }

    fn refusal(&self, step: &'static str, error: &io::Error) -> Refusal {
        let advice = match error.raw_os_error() {
            Some(libc::ELOOP) => "; it is a symbolic link: put the file itself there",
            Some(libc::EACCES | libc::EPERM | libc::EROFS) => "; the helper must be able to write its folder",
            _ => "",
        };
        Refusal::of(error, format!("cannot {step} {}: {error}{advice}", self.path.display()))
    }
}

/// A file of these bytes, with the mode and the owner of another.
fn make(path: &Path, bytes: &[u8], facts: &fs::Metadata) -> io::Result<()> {
    let mut file = create(path)?;
    file.write_all(bytes)?;
    file.set_permissions(Permissions::from_mode(facts.mode() & 0o7777))?;
    let made = file.metadata()?;
    if (made.uid(), made.gid()) != (facts.uid(), facts.gid()) {
        fchown(&file, Some(facts.uid()), Some(facts.gid()))?;
    }
    file.sync_all()
}

/// create_new: O_EXCL follows no link. What a crash left there is ours to remove.
fn create(path: &Path) -> io::Result<File> {
    let make = || OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    match make() {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_file(path).and_then(|()| make())
        }
        made => made,
    }
}

fn edited(old: &[u8], added: &[String], gone: &[String]) -> (Vec<u8>, Vec<bool>) {
    let taken = gone.iter().map(String::as_bytes);
    let gone: BTreeSet<&[u8]> = taken.clone().collect();
    let lines: Vec<&[u8]> = old.split_inclusive(|&byte| byte == b'\n').collect();
    let kept = lines.into_iter().filter(|line| !gone.contains(line.trim_ascii_end()));
    let mut new: Vec<u8> = kept.flatten().copied().collect();
    let before: BTreeSet<&[u8]> = old.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii_end).collect();
    let stood = added.iter().map(String::as_bytes).chain(taken).map(|line| before.contains(line)).collect();
    let mut present: BTreeSet<&[u8]> = before.difference(&gone).copied().collect();
    for line in added {
        if !present.insert(line.as_bytes()) {
            continue;
        }
        if new.last().is_some_and(|&byte| byte != b'\n') {
            new.push(b'\n');
        }
        new.extend_from_slice(line.as_bytes());
        new.push(b'\n');
    }
    (new, stood)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn lines(of: &[&str]) -> Vec<String> {
        of.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn foreign_lines_mode_and_place_are_kept_and_no_line_stands_twice() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hosts.deny");
        fs::write(&path, b"# mine \xff\nALL: 192.0.2.9").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        let file = HostsDeny::open(&path).unwrap();
        let stood = file.edit(&lines(&["ALL: 192.0.2.7", "ALL: 192.0.2.9"]), &[]).unwrap();
        assert_eq!(stood, [false, true]);
        assert_eq!(file.edit(&lines(&["ALL: 192.0.2.7"]), &[]).unwrap(), [true]);
        assert_eq!(fs::read(&path).unwrap(), b"# mine \xff\nALL: 192.0.2.9\nALL: 192.0.2.7\n");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o640);
        let stood = file.edit(&[], &lines(&["ALL: 192.0.2.70", "ALL: 192.0.2"])).unwrap();
        assert_eq!(stood, [false, false], "no line goes that only begins so");
        let stood = file.edit(&[], &lines(&["ALL: 192.0.2.7", "ALL: 192.0.2.70"])).unwrap();
        assert_eq!(stood, [true, false]);
        assert_eq!(fs::read(&path).unwrap(), b"# mine \xff\nALL: 192.0.2.9\n");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        fs::remove_file(&path).unwrap();
        assert_eq!(file.edit(&[], &lines(&["ALL: 192.0.2.7"])).unwrap(), [false]);
        assert!(!path.exists(), "no file is made to take a line out of");
    }

    #[test]
    fn no_line_makes_the_file_longer_than_it_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hosts.deny");
        let ours = "ALL: 192.0.2.7\n";
        let mine = "#".repeat(LONGEST as usize - ours.len() - 1) + "\n";
        fs::write(&path, &mine).unwrap();
        let file = HostsDeny::open(&path).unwrap();
        assert_eq!(file.edit(&lines(&["ALL: 192.0.2.7"]), &[]).unwrap(), [false]);
        let refusal = file.edit(&lines(&["ALL: 192.0.2.8"]), &[]).unwrap_err();
        assert!(refusal.errno == libc::EFBIG && refusal.text.contains("longer than 16 MiB"), "{refusal:?}");
        assert!(fs::read_to_string(&path).unwrap().ends_with(ours));
        assert_eq!(file.edit(&[], &lines(&["ALL: 192.0.2.7"])).unwrap(), [true]);
        assert_eq!(fs::read_to_string(&path).unwrap(), mine);
    }

    #[test]
    fn a_link_a_pipe_and_a_file_for_everybody_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (path, real) = (folder.path().join("hosts.deny"), folder.path().join("real"));
        fs::write(&real, "").unwrap();
        symlink(&real, &path).unwrap();
        assert!(HostsDeny::open(&path).unwrap_err().text.contains("symbolic link"));
        fs::remove_file(&path).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRUSR).unwrap();
        assert!(HostsDeny::open(&path).is_err());
        fs::remove_file(&path).unwrap();
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
        assert_eq!(HostsDeny::open(&path).unwrap_err().errno, libc::EPERM);
        let elsewhere = folder.path().join("none/hosts.deny");
        assert!(HostsDeny::open(&elsewhere).is_err());
    }
}
