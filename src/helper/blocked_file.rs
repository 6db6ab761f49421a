//! BLOCKED_FILE: who is blocked, in PortSentry's records: `sa_family_t` in host order (2 bytes) and the raw address, IPv4
//! 6 bytes, IPv6 18. The helper's; opened before it leaves root, kept open, never opened again.
//!
//! Appended on a block, rewritten on an end, and after a write that failed. A link or somebody else's file is refused:
//! it may have been planted.
#![forbid(unsafe_code)]

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::net::IpAddr;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::error::HelperError;
use super::respond::Refusal;
use crate::protocol::settings::MOST_BLOCKS;

/// The longest record, bytes: of IPv6.
const RECORD: u64 = 18;
/// As much of a file is read, bytes: a record of everybody who can be blocked at once, and a byte by which a longer one is
/// known.
const LONGEST: u64 = MOST_BLOCKS as u64 * RECORD + 1;
/// After a failed write the next try is this much later, milliseconds.
const RETRY: u64 = 10_000;

const LINK: &str = "it is a symbolic link; remove it, it may have been planted";

/// The open file.
#[derive(Debug)]
pub struct BlockedFile {
    path: PathBuf,
    file: File,
    /// A write failed, as on a full disk, and what it left is not to be gone on with: write the file anew, but not before
    /// this uptime.
    broken: Option<u64>,
}

/// What the file held.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Whom, in the file's order.
    pub addresses: Vec<IpAddr>,
    /// The last record was cut off, or something else stood there.
    pub damaged: bool,
}

impl BlockedFile {
    /// Opens or creates (0600, with parents 0755) the file and reads it. `owner` may own it besides root and us.
    pub fn open(path: &Path, owner: Option<u32>) -> Result<(BlockedFile, Loaded), HelperError> {
        let failed = |error: io::Error| refusal(path, &error.to_string(), &error);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(failed)?;
        }
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true).mode(0o600);
        // O_NONBLOCK: a planted FIFO must not hold us before it is seen for what it is.
        options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
        let mut file = options.open(path).map_err(|error| match error.raw_os_error() {
            Some(libc::ELOOP) => refusal(path, LINK, &error),
            _ => failed(error),
        })?;
        check(path, &file, owner)?;
        let mut bytes = Vec::new();
        (&mut file).take(LONGEST).read_to_end(&mut bytes).map_err(failed)?;
        Ok((BlockedFile { path: path.to_owned(), file, broken: None }, read(&bytes)))
    }

    /// Appends the record of one block, unless the file is to be written anew, which will say it. All times are
    /// milliseconds of uptime.
    pub fn add(&mut self, address: IpAddr, now: u64) -> Result<(), Refusal> {
        if self.broken.is_some() {
            return Ok(());
        }
        let written = self.file.write_all(&record(address));
        self.settle(written, now)
    }

    /// Whether the file is to be written anew, for the last write failed, and some time ago.
    pub fn is_due(&self, now: u64) -> bool {
        self.broken.is_some_and(|retry| now >= retry)
    }

    /// The uptime from which it is.
    pub fn next_try(&self) -> Option<u64> {
        self.broken
    }

    /// Makes the file say exactly this.
    pub fn rewrite(&mut self, addresses: impl Iterator<Item = IpAddr>, now: u64) -> Result<(), Refusal> {
        let bytes: Vec<u8> = addresses.flat_map(record).collect();
        // Append mode: after cutting, one write puts everything at the start.
        let written =
            self.file.set_len(0).and_then(|()| self.file.rewind()).and_then(|()| self.file.write_all(&bytes));
        self.settle(written, now)
    }

    fn settle(&mut self, written: io::Result<()>, now: u64) -> Result<(), Refusal> {
        self.broken = written.is_err().then(|| now.saturating_add(RETRY));
        written.map_err(|error| refusal(&self.path, &error.to_string(), &error))
    }
}

/// What lies at `path` that [`BlockedFile::open`] would refuse. Looks at it, and opens nothing.
pub fn obstacle(path: &Path, owner: Option<u32>) -> Option<Refusal> {
    let what = fault(&path.symlink_metadata().ok()?, owner)?;
    Some(refusal(path, what, &io::Error::from_raw_os_error(libc::EPERM)))
}

fn check(path: &Path, file: &File, owner: Option<u32>) -> Result<(), Refusal> {
    let facts = file.metadata().map_err(|error| refusal(path, &error.to_string(), &error))?;
    let foreign = |what| refusal(path, what, &io::Error::from_raw_os_error(libc::EPERM));
    fault(&facts, owner).map_or(Ok(()), |what| Err(foreign(what)))
}

fn fault(facts: &Metadata, owner: Option<u32>) -> Option<&'static str> {
    let ours = [Some(0), Some(nix::unistd::geteuid().as_raw()), owner];
    match facts.mode() & 0o022 {
        _ if facts.is_symlink() => Some(LINK),
        _ if !facts.is_file() => Some("it is no regular file; give the path of one"),
        _ if !ours.contains(&Some(facts.uid())) => {
            Some("it belongs to somebody else; remove it, it may have been planted")
        }
        0 => None,
        _ => Some("others may write it; take that right away or remove it"),
    }
}

fn refusal(path: &Path, what: &str, error: &io::Error) -> Refusal {
    Refusal::of(error, format!("BLOCKED_FILE {} cannot be used: {what}", path.display()))
}

fn record(address: IpAddr) -> Vec<u8> {
    let family = |number: i32| u16::try_from(number).unwrap_or(0).to_ne_bytes().to_vec();
    match address {
        IpAddr::V4(address) => [family(libc::AF_INET), address.octets().to_vec()].concat(),
        IpAddr::V6(address) => [family(libc::AF_INET6), address.octets().to_vec()].concat(),
    }
}

/// After the first thing that is no record nothing can be trusted to be one.
fn read(mut bytes: &[u8]) -> Loaded {
    let mut loaded = Loaded::default();
    while let Some((address, rest)) = first(bytes) {
        loaded.addresses.push(address);
        bytes = rest;
    }
    loaded.damaged = !bytes.is_empty();
    loaded
}

fn first(bytes: &[u8]) -> Option<(IpAddr, &[u8])> {
    let (family, rest) = bytes.split_first_chunk::<2>()?;
    match i32::from(u16::from_ne_bytes(*family)) {
        libc::AF_INET => rest.split_first_chunk::<4>().map(|(address, rest)| (IpAddr::from(*address), rest)),
        libc::AF_INET6 => {
            rest.split_first_chunk::<16>().map(|(address, rest)| (IpAddr::from(*address), rest))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn records_are_portsentrys_byte_for_byte() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/blocked");
        let (mut file, loaded) = BlockedFile::open(&path, None).unwrap();
        assert_eq!(loaded, Loaded::default());
        file.add("10.77.0.1".parse().unwrap(), 0).unwrap();
        if cfg!(target_endian = "little") {
            assert_eq!(std::fs::read(&path).unwrap(), [2, 0, 10, 77, 0, 1]);
        }
        file.add("2001:db8::7".parse().unwrap(), 0).unwrap();
        assert_eq!(std::fs::read(&path).unwrap().len(), 24);
        file.rewrite(["2001:db8::7".parse().unwrap()].into_iter(), 0).unwrap();
        file.add("10.77.0.2".parse().unwrap(), 0).unwrap();
        let (_, loaded) = BlockedFile::open(&path, None).unwrap();
        let expected = ["2001:db8::7".parse().unwrap(), "10.77.0.2".parse().unwrap()];
        assert_eq!(loaded, Loaded { addresses: expected.to_vec(), damaged: false });
    }

    /// A page is all that this disk holds: what comes after 682 records is cut off in the midst.
    #[test]
    fn what_a_full_disk_has_spoilt_is_written_anew_and_not_gone_on_with() {
        use nix::mount::{MsFlags, mount};
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)
            .expect("these tests need root: sudo make test");
        let folder = tempfile::tempdir().unwrap();
        let disk =
            |flags, size| mount(Some("none"), folder.path(), Some("tmpfs"), flags, Some(size)).unwrap();
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
        disk(MsFlags::empty(), "size=4096");
        let path = folder.path().join("blocked");
        let (mut file, _) = BlockedFile::open(&path, None).unwrap();
        let address = |number: u32| IpAddr::from(std::net::Ipv4Addr::from(0x0a00_0000 + number));
        (0..682).for_each(|number| file.add(address(number), 0).unwrap());
        assert!(file.add(address(682), 0).unwrap_err().text.contains("No space left"));
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 4096, "a part of it");
        assert!(!file.is_due(RETRY - 1) && file.is_due(RETRY));
        file.add(address(683), 0).unwrap();
        assert!(file.rewrite((0..684).map(address), RETRY).is_err());
        assert!(!file.is_due(RETRY) && file.is_due(2 * RETRY), "and again");
        disk(MsFlags::MS_REMOUNT, "size=8192");
        file.rewrite((0..684).map(address), 2 * RETRY).unwrap();
        file.add(address(684), 2 * RETRY).unwrap();
        assert!(!file.is_due(u64::MAX));
        let (_, loaded) = BlockedFile::open(&path, None).unwrap();
        assert_eq!(loaded, Loaded { addresses: (0..685).map(address).collect(), damaged: false });
        drop(file);
        nix::mount::umount(folder.path()).unwrap();
    }

    #[test]
    fn planted_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (path, real) = (folder.path().join("blocked"), folder.path().join("real"));
        std::fs::write(&real, "").unwrap();
        symlink(&real, &path).unwrap();
        assert!(BlockedFile::open(&path, None).unwrap_err().to_string().contains("symbolic link"));
        std::fs::remove_file(&path).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        // The umask takes what would make it a file of others: only its kind tells.
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        assert!(BlockedFile::open(&path, None).unwrap_err().to_string().contains("regular file"));
    }

    #[test]
    fn a_torn_or_foreign_record_ends_what_is_believed() {
        let whole = [record("10.0.0.1".parse().unwrap()), record("10.0.0.2".parse().unwrap())].concat();
        assert_eq!(read(&whole[..11]).addresses.len(), 1);
        assert!(read(&whole[..11]).damaged && !read(&whole).damaged);
        assert!(read(b"\xff\xff1234").damaged);
    }

    #[test]
    fn a_file_of_everybody_who_can_be_blocked_is_read_to_its_end_and_what_is_longer_is_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("blocked");
        let (mut file, _) = BlockedFile::open(&path, None).unwrap();
        let address = |number: u32| IpAddr::from(std::net::Ipv6Addr::from_bits(number.into()));
        file.rewrite((0..MOST_BLOCKS).map(address), 0).unwrap();
        let read = || BlockedFile::open(&path, None).unwrap().1;
        assert!(read().addresses.len() == MOST_BLOCKS as usize && !read().damaged);
        file.add(address(MOST_BLOCKS), 0).unwrap();
        assert!(read().addresses.len() == MOST_BLOCKS as usize && read().damaged);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let loaded = read(&bytes);
            let again: Vec<u8> = loaded.addresses.iter().copied().flat_map(record).collect();
            prop_assert!(bytes.starts_with(&again));
        }
    }
}
