//! The record on disk: what is unexpired comes back after a restart or reboot. Helper.
//!
//! `STATE_DIR/ledger` holds one JSON object a line; the last line about a target is true, offence 0 with nothing to take
//! back forgets it. Lines are appended and synced once a batch; a file grown past twice its worth is written anew and
//! renamed into place. Never follows a link, never trusts what it reads: a foreign line is reported, a torn last one
//! dropped.
#![forbid(unsafe_code)]

mod error;
mod file;
mod line;
mod read;
#[cfg(test)]
mod samples;

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use ipnet::IpNet;

pub use error::LedgerError;
pub use read::Loaded;

use self::error::io_error;
use super::escalation::Block;
use crate::protocol::settings::LEDGER;

const NEW_NAME: &str = "ledger.new";
/// Lines beyond twice the live ones before the file is written anew.
const SLACK: usize = 256;
/// Bytes that wait to be appended before the file is rather written anew.
const MOST_PENDING: usize = 1 << 20;
/// After a failed write the next try is this much later, milliseconds.
const RETRY: u64 = 10_000;

/// The open ledger.
pub struct Ledger {
    folder: PathBuf,
    file: File,
    pending: Vec<u8>,
    lines: usize,
    /// The file is not known to be whole; write it anew, but not before this uptime.
    broken: Option<u64>,
    /// The last write failed.
    failed: bool,
}

/// What became of a write that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// All that was noted is on disk, or is not yet due again after a failure.
    AsEver,
    /// It is, and was not: the write before had failed.
    Again,
}

impl Ledger {
    /// Opens or creates the ledger in `folder` and reads it.
    pub fn open(folder: &Path) -> Result<(Ledger, Loaded), LedgerError> {
        let path = folder.join(LEDGER);
        let file = file::open(&path)?;
        let loaded = read::load(&file).map_err(io_error("read", &path))?;
        // A torn or foreign line must not get ours appended to it.
        let broken = (loaded.torn || loaded.foreign > 0).then_some(0);
        let lines = loaded.lines;
        Ok((
            Ledger { folder: folder.to_owned(), file, pending: Vec::new(), lines, broken, failed: false },
            loaded,
        ))
    }

    /// Notes that `target` is blocked so.
    pub fn note(&mut self, target: IpNet, block: Block) {
        // The file is written anew, from the record, which says it.
        if self.broken.is_some() {
            return;
        }
        if line::write(&mut self.pending, target, block).is_ok() {
            self.lines = self.lines.saturating_add(1);
        }
        if self.pending.len() > MOST_PENDING {
            self.renew();
        }
    }

    /// Notes that nothing is held against `target` any more.
    pub fn forget(&mut self, target: IpNet) {
        self.note(target, Block::nothing(0));
    }

    /// Drops what was noted; the next commit writes everything anew.
    pub fn renew(&mut self) {
        self.pending = Vec::new();
        self.broken = self.broken.or(Some(0));
    }

    /// Makes what was noted last: appends and syncs it, or writes `entries`, all `known` ones, anew if that is due.
    /// After an error the record is whole in memory only, until a later commit.
    pub fn commit(
        &mut self,
        entries: impl Iterator<Item = (IpNet, Block)>,
        known: usize,
        uptime: u64,
    ) -> Result<Written, LedgerError> {
        if self.broken.is_some_and(|retry| uptime < retry) {
            self.pending.clear();
            return Ok(Written::AsEver);
        }
        let overgrown = !self.pending.is_empty() && self.lines > SLACK + 2 * known;
        let result = match self.broken.is_some() || overgrown {
            true => self.rewrite(entries),
            false => self.append(),
        };
        self.pending.clear();
        self.broken = result.is_err().then(|| uptime.saturating_add(RETRY));
        let had_failed = std::mem::replace(&mut self.failed, result.is_err());
        result.map(|()| if had_failed { Written::Again } else { Written::AsEver })
    }

    /// The uptime of the next try, after a write that failed.
    pub fn next_try(&self) -> Option<u64> {
        self.broken
    }

    fn append(&mut self) -> Result<(), LedgerError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let written = self.file.write_all(&self.pending).and_then(|()| self.file.sync_data());
        written.map_err(io_error("append to", &self.folder.join(LEDGER)))
    }

    fn rewrite(&mut self, entries: impl Iterator<Item = (IpNet, Block)>) -> Result<(), LedgerError> {
        let (path, fresh) = (self.folder.join(LEDGER), self.folder.join(NEW_NAME));
        let written = file::write_new(&fresh, entries).map_err(io_error("write", &fresh));
        let placed = written.and_then(|written| {
            fs::rename(&fresh, &path).map(|()| written).map_err(io_error("rename into place", &fresh))
        });
        if placed.is_err() {
            // What there is of it would keep the little room of a full disk, from whatever is written there next too.
            let _ = fs::remove_file(&fresh);
        }
        (self.file, self.lines) = placed?;
        let folder = File::open(&self.folder).and_then(|folder| folder.sync_all());
        folder.map_err(io_error("sync", &self.folder))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs::OpenOptions;
    use std::os::unix::fs::PermissionsExt;

    use super::samples::{block, record};
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn reread(folder: &Path) -> Loaded {
        Ledger::open(folder).unwrap().1
    }

    /// Commits with a record that is said to be large enough to let the file be.
    fn append(ledger: &mut Ledger) {
        ledger.commit(std::iter::empty(), 1_000, 0).unwrap();
    }

    #[test]
    fn what_was_noted_comes_back_and_the_last_word_counts() {
        let folder = tempfile::tempdir().unwrap();
        let (mut ledger, loaded) = Ledger::open(folder.path()).unwrap();
        assert_eq!(loaded, Loaded::default());
        ledger.note(net("192.0.2.1/32"), block(1));
        ledger.note(net("2001:db8::/64"), block(1));
        append(&mut ledger);
        ledger.note(net("192.0.2.1/32"), block(2));
        ledger.forget(net("2001:db8::/64"));
        append(&mut ledger);
        let loaded = reread(folder.path());
        assert_eq!(loaded.entries, BTreeMap::from([(net("192.0.2.1/32"), block(2))]));
        assert_eq!((loaded.lines, loaded.foreign, loaded.torn), (4, 0, false));
        let mode = fs::metadata(folder.path().join(LEDGER)).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
    }

    #[test]
    fn a_torn_last_line_is_dropped_and_never_joined_by_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let (mut ledger, _) = Ledger::open(folder.path()).unwrap();
        ledger.note(net("192.0.2.1/32"), block(1));
        ledger.note(net("192.0.2.2/32"), block(1));
        append(&mut ledger);
        let path = folder.path().join(LEDGER);
        let length = fs::metadata(&path).unwrap().len();
        OpenOptions::new().write(true).open(&path).unwrap().set_len(length - 9).unwrap();
        let (mut ledger, loaded) = Ledger::open(folder.path()).unwrap();
        assert!(loaded.torn && loaded.foreign == 0 && loaded.entries.len() == 1);
        ledger.note(net("192.0.2.3/32"), block(1));
        let record = [(net("192.0.2.1/32"), block(1)), (net("192.0.2.3/32"), block(1))];
        ledger.commit(record.into_iter(), record.len(), 0).unwrap();
        let loaded = reread(folder.path());
        assert_eq!(loaded.entries, BTreeMap::from(record));
        assert_eq!((loaded.lines, loaded.torn), (2, false));
    }

    #[test]
    fn however_much_is_noted_at_once_little_waits_and_the_record_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let (mut ledger, _) = Ledger::open(folder.path()).unwrap();
        for (target, block) in record(0..30_000) {
            ledger.note(target, block);
            assert!(ledger.pending.capacity() <= 2 * MOST_PENDING);
        }
        ledger.commit(record(0..30_000), 30_000, 0).unwrap();
        assert_eq!(reread(folder.path()).entries, record(0..30_000).collect());
    }

    #[test]
    fn a_file_of_any_size_is_read_in_no_time_and_written_anew() {
        let folder = tempfile::tempdir().unwrap();
        let (mut ledger, _) = Ledger::open(folder.path()).unwrap();
        ledger.note(net("192.0.2.1/32"), block(1));
        append(&mut ledger);
        let path = folder.path().join(LEDGER);
        // Would be read for hours.
        OpenOptions::new().write(true).open(&path).unwrap().set_len(8 << 40).unwrap();
        let (mut ledger, loaded) = Ledger::open(folder.path()).unwrap();
        assert_eq!((loaded.entries.len(), loaded.foreign), (1, 1));
        ledger.commit(loaded.entries.into_iter(), 1, 0).unwrap();
        assert!(fs::metadata(&path).unwrap().len() < 1000);
    }

    #[test]
    fn the_file_is_written_anew_when_it_has_outgrown_the_record() {
        let folder = tempfile::tempdir().unwrap();
        let (mut ledger, _) = Ledger::open(folder.path()).unwrap();
        let record = [(net("192.0.2.1/32"), block(7))];
        for _ in 0..SLACK * 3 {
            ledger.note(record[0].0, record[0].1);
            ledger.commit(record.into_iter(), record.len(), 0).unwrap();
        }
        let loaded = reread(folder.path());
        assert!(loaded.lines <= SLACK + 2, "{}", loaded.lines);
        assert_eq!(loaded.entries, BTreeMap::from(record));
        assert!(!folder.path().join(NEW_NAME).exists());
        ledger.renew();
        ledger.commit(record.into_iter(), record.len(), 0).unwrap();
        ledger.note(net("192.0.2.2/32"), block(1));
        append(&mut ledger);
        assert_eq!(reread(folder.path()).entries.len(), 2, "what comes after goes to the new file");
    }

    #[test]
    fn a_planted_temporary_link_is_replaced_and_its_target_untouched() {
        let folder = tempfile::tempdir().unwrap();
        let victim = folder.path().join("victim");
        fs::write(&victim, "precious").unwrap();
        std::os::unix::fs::symlink(&victim, folder.path().join(NEW_NAME)).unwrap();
        let (mut ledger, _) = Ledger::open(folder.path()).unwrap();
        ledger.renew();
        ledger.commit([(net("192.0.2.1/32"), block(1))].into_iter(), 1, 0).unwrap();
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
        assert_eq!(reread(folder.path()).entries.len(), 1);
    }

    #[test]
    fn after_a_failed_write_nothing_is_lost_and_the_next_try_waits() {
        let folder = tempfile::tempdir().unwrap();
        let (mut ledger, _) = Ledger::open(folder.path()).unwrap();
        ledger.file = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let record = [(net("192.0.2.1/32"), block(1))];
        ledger.note(record[0].0, record[0].1);
        assert!(ledger.commit(record.into_iter(), record.len(), 5).is_err());
        let mut commit = |uptime| ledger.commit(record.into_iter(), record.len(), uptime).unwrap();
        assert_eq!(commit(6), Written::AsEver);
        assert_eq!(reread(folder.path()).entries.len(), 0);
        assert_eq!((commit(5 + RETRY), commit(5 + RETRY)), (Written::Again, Written::AsEver));
        assert_eq!(reread(folder.path()).entries.len(), 1);
    }
}
