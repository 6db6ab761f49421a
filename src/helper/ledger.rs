//! The record on disk: what is unexpired comes back after a restart or reboot. Helper.
//!
//! `STATE_DIR/ledger` holds one JSON object a line; the last line about a target is true, offence 0 forgets it. Lines
//! are appended and synced once a batch; a file grown past twice its worth is written anew and renamed into place.
//! Never follows a link, never trusts what it reads: a foreign line is reported, a torn last one dropped.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::authorise::{WIDEST_V4, WIDEST_V6};
use super::escalation::{Block, LONGEST, MAX_OFFENDERS};
use super::record::Record;
use crate::protocol::Responses;
use crate::protocol::settings::{LEDGER, MOST_BLOCKS};

const NEW_NAME: &str = "ledger.new";
/// Longest line that is read; our longest is about 130 bytes.
const MAX_LINE: usize = 256;
/// Lines beyond twice the live ones before the file is written anew.
const SLACK: usize = 256;
/// Lines of the longest file of ours: of the blocks that there may be with any setting, as MAX_BLOCKS may have been
/// lowered since, and the offenders that are remembered.
const MOST_LINES: usize = SLACK + 2 * (MOST_BLOCKS as usize + MAX_OFFENDERS);
/// Longest file that is read, bytes. A sparse file of any size costs whoever plants it nothing, and the next start its
/// time limit.
const LONGEST_FILE: u64 = (MOST_LINES * MAX_LINE) as u64;
/// Bytes that wait to be appended before the file is rather written anew.
const MOST_PENDING: usize = 1 << 20;
/// After a failed write the next try is this much later, milliseconds.
const RETRY: u64 = 10_000;

/// Why the ledger cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The system refused.
    #[error("cannot {doing} {path:?}: {error}; STATE_DIR must be a folder that the helper may write")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// Something that we did not make lies there.
    #[error("{path:?} is {what}: move it away, it may have been planted")]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
}

/// A line of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    target: IpNet,
    since: u64,
    until: u64,
    offence: u16,
    /// Absent in ledgers of builds that knew nftables alone.
    #[serde(default, skip_serializing_if = "Responses::is_empty")]
    with: Responses,
}

/// What the file held.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// The last word on each target, not yet held against the clock.
    pub entries: BTreeMap<IpNet, Block>,
    /// Lines read.
    pub lines: usize,
    /// Lines that are not ours.
    pub foreign: usize,
    /// The last line was cut off.
    pub torn: bool,
}

/// The open ledger.
pub struct Ledger {
    folder: PathBuf,
    file: File,
    pending: Vec<u8>,
    lines: usize,
    /// The file is not known to be whole; write it anew, but not before this uptime.
    broken: Option<u64>,
}

impl Ledger {
    /// Opens or creates the ledger in `folder` and reads it.
    pub fn open(folder: &Path) -> Result<(Ledger, Loaded), LedgerError> {
        let path = folder.join(LEDGER);
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true).mode(0o600);
        // O_NONBLOCK: a planted FIFO must not hold us before it is seen for what it is.
        options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
        let file = options.open(&path).map_err(|error| opening(&path, error))?;
        check_owner(&path, &file)?;
        let input = BufReader::new((&file).take(LONGEST_FILE));
        let loaded = read(input, MOST_LINES).map_err(io_error("read", &path))?;
        // A torn or foreign line must not get ours appended to it.
        let broken = (loaded.torn || loaded.foreign > 0).then_some(0);
        let lines = loaded.lines;
        Ok((Ledger { folder: folder.to_owned(), file, pending: Vec::new(), lines, broken }, loaded))
    }

    /// Notes that `target` is blocked so.
    pub fn note(&mut self, target: IpNet, block: Block) {
        // The file is written anew, from the record, which says it.
        if self.broken.is_some() {
            return;
        }
        let Block { since, until, offence, with } = block;
        let line = Line { target, since, until, offence, with };
        if serde_json::to_writer(&mut self.pending, &line).is_ok() {
            self.pending.push(b'\n');
            self.lines = self.lines.saturating_add(1);
        }
        if self.pending.len() > MOST_PENDING {
            self.renew();
        }
    }

    /// Notes that nothing is held against `target` any more.
    pub fn forget(&mut self, target: IpNet) {
        self.note(target, Block { since: 0, until: 0, offence: 0, with: Responses::NONE });
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
    ) -> Result<(), LedgerError> {
        if self.broken.is_some_and(|retry| uptime < retry) {
            self.pending.clear();
            return Ok(());
        }
        let overgrown = !self.pending.is_empty() && self.lines > SLACK + 2 * known;
        let result = match self.broken.is_some() || overgrown {
            true => self.rewrite(entries),
            false => self.append(),
        };
        self.pending.clear();
        self.broken = result.is_err().then(|| uptime.saturating_add(RETRY));
        result
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
        let (file, lines) = write_new(&fresh, entries).map_err(io_error("write", &fresh))?;
        fs::rename(&fresh, &path).map_err(io_error("rename into place", &fresh))?;
        self.file = file;
        self.lines = lines;
        let folder = File::open(&self.folder).and_then(|folder| folder.sync_all());
        folder.map_err(io_error("sync", &self.folder))
    }
}

fn write_new(path: &Path, entries: impl Iterator<Item = (IpNet, Block)>) -> io::Result<(File, usize)> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    // create_new: O_EXCL follows no link either.
    options.append(true).create_new(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    let mut out = BufWriter::new(options.open(path)?);
    let mut lines = 0;
    for (target, Block { since, until, offence, with }) in entries {
        serde_json::to_writer(&mut out, &Line { target, since, until, offence, with })?;
        out.write_all(b"\n")?;
        lines += 1;
    }
    let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.sync_all()?;
    Ok((file, lines))
}

fn opening(path: &Path, error: io::Error) -> LedgerError {
    match error.raw_os_error() {
        Some(libc::ELOOP) => LedgerError::Foreign { path: path.to_owned(), what: "a symbolic link" },
        _ => io_error("open", path)(error),
    }
}

fn io_error<'a>(doing: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> LedgerError + use<'a> {
    move |error| LedgerError::Io { doing, path: path.to_owned(), error }
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

/// Reads any bytes, and keeps at most `room` targets. Where there are more, the half whose blocks end last goes on: what
/// is in force stands among the last lines, after many whose blocks the kernel has ended without a word here.
fn read(mut input: impl BufRead, room: usize) -> io::Result<Loaded> {
    let (mut loaded, mut line) = (Loaded::default(), Vec::with_capacity(MAX_LINE));
    while let Some(ending) = next_line(&mut input, &mut line)? {
        loaded.lines = loaded.lines.saturating_add(1);
        match parse(&line).filter(|_| ending == Ending::Whole) {
            Some(known) if known.offence == 0 => {
                loaded.entries.remove(&known.target);
            }
            Some(Line { target, since, until, offence, with }) => {
                loaded.entries.insert(target, Block { since, until, offence, with });
                if loaded.entries.len() > room {
                    loaded.entries = last(std::mem::take(&mut loaded.entries), room / 2);
                }
            }
            None if ending == Ending::Torn => loaded.torn = true,
            None => loaded.foreign = loaded.foreign.saturating_add(1),
        }
    }
    Ok(loaded)
}

/// Those that end last.
fn last(entries: BTreeMap<IpNet, Block>, room: usize) -> BTreeMap<IpNet, Block> {
    let mut record: Record = entries.into_iter().collect();
    record.keep_last(room).for_each(drop);
    record.into_blocks()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Ending {
    Whole,
    TooLong,
    Torn,
}

/// The next line, without its end; of one that is too long, the beginning.
fn next_line(input: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<Option<Ending>> {
    line.clear();
    input.by_ref().take(MAX_LINE as u64 + 1).read_until(b'\n', line)?;
    Ok(match line.pop_if(|last| *last == b'\n') {
        Some(_) => Some(Ending::Whole),
        None if line.is_empty() => None,
        None if line.len() <= MAX_LINE => Some(Ending::Torn),
        None => {
            input.skip_until(b'\n')?;
            Some(Ending::TooLong)
        }
    })
}

fn parse(line: &[u8]) -> Option<Line> {
    let line: Line = serde_json::from_slice(line).ok()?;
    let widest = if line.target.addr().is_ipv4() { WIDEST_V4 } else { WIDEST_V6 };
    let length = line.until.checked_sub(line.since)?;
    let sound = line.target == line.target.trunc() && line.target.prefix_len() >= widest && length <= LONGEST;
    sound.then_some(line)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use proptest::prelude::*;

    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn block(offence: u16) -> Block {
        Block { since: 1_700_000_000_000, until: 1_700_000_060_000, offence, with: Responses::NONE }
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
    fn foreign_lines_are_counted_and_do_no_harm() {
        let text = concat!(
            "{\"target\":\"192.0.2.1/32\",\"since\":0,\"until\":5,\"offence\":1}\n",
            "{\"target\":\"0.0.0.0/0\",\"since\":0,\"until\":5,\"offence\":1}\n",
            "{\"target\":\"192.0.2.1/24\",\"since\":0,\"until\":5,\"offence\":1}\n",
            "{\"target\":\"192.0.2.9/32\",\"since\":9,\"until\":5,\"offence\":1}\n",
            "{\"target\":\"192.0.2.9/32\",\"since\":0,\"until\":18446744073709551615,\"offence\":1}\n",
            "\n",
            "rm -rf /\n",
        );
        let loaded = read(text.as_bytes(), 1_000).unwrap();
        assert_eq!((loaded.entries.len(), loaded.foreign, loaded.torn), (1, 6, false));
    }

    /// Targets by number, each with a block that ends later than those before.
    fn record(targets: std::ops::Range<u32>) -> impl Iterator<Item = (IpNet, Block)> {
        let of = |at: u32| IpNet::from(std::net::IpAddr::from((0x0b00_0000 + at).to_be_bytes()));
        targets.map(move |at| (of(at), Block { until: block(1).until + u64::from(at), ..block(1) }))
    }

    #[test]
    fn of_more_targets_than_there_is_room_for_those_that_end_last_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        for count in [11, 70] {
            let path = folder.path().join(LEDGER);
            write_new(&path, record(0..count)).unwrap();
            let loaded = read(fs::read(&path).unwrap().as_slice(), 10).unwrap();
            let kept = u32::try_from(loaded.entries.len()).unwrap();
            assert!((5..=10).contains(&kept));
            assert_eq!(loaded.entries, record(count - kept..count).collect());
            assert_eq!((loaded.lines, loaded.foreign), (count as usize, 0));
        }
    }

    #[test]
    fn a_file_from_before_max_blocks_was_lowered_is_read_to_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let count = u32::try_from(2 * MAX_OFFENDERS).unwrap();
        write_new(&folder.path().join(LEDGER), record(0..count)).unwrap();
        let loaded = reread(folder.path());
        assert_eq!((loaded.entries.len(), loaded.foreign), (2 * MAX_OFFENDERS, 0));
        assert!(MOST_LINES > 2 * MOST_BLOCKS as usize);
    }

    #[test]
    fn however_much_is_noted_at_once_little_waits_and_the_record_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let (mut ledger, _) = Ledger::open(folder.path()).unwrap();
        for (target, block) in record(0..30_000) {
            ledger.note(target, block);
            assert!(ledger.pending.capacity() <= 4 * MOST_PENDING);
        }
        ledger.commit(record(0..30_000), 30_000, 0).unwrap();
        assert_eq!(reread(folder.path()).entries, record(0..30_000).collect());
    }

    #[test]
    fn a_line_without_end_is_not_kept_in_memory() {
        let (mut line, mut input) = (Vec::new(), BufReader::new(io::repeat(b'a').take(1 << 22)));
        assert!(next_line(&mut input, &mut line).unwrap() == Some(Ending::TooLong));
        assert!(line.capacity() <= 2 * MAX_LINE);
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
    }

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
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        refused("writable for others");
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
        assert!(ledger.commit(record.into_iter(), record.len(), 6).is_ok());
        assert_eq!(reread(folder.path()).entries.len(), 0);
        assert!(ledger.commit(record.into_iter(), record.len(), 5 + RETRY).is_ok());
        assert_eq!(reread(folder.path()).entries.len(), 1);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..2_000)) {
            let loaded = read(bytes.as_slice(), 1_000).unwrap();
            let ends = bytes.iter().filter(|&&byte| byte == b'\n').count();
            prop_assert_eq!(loaded.lines, ends + usize::from(bytes.last().is_some_and(|&byte| byte != b'\n')));
        }

        #[test]
        fn a_file_cut_anywhere_gives_a_prefix_of_its_lines(cut in 0usize..400) {
            let whole: Vec<u8> = (1u8..=4).flat_map(|at| {
                let target = IpNet::from(std::net::IpAddr::from([192, 0, 2, at]));
                let Block { since, until, offence, with } = block(1);
                let mut line = serde_json::to_vec(&Line { target, since, until, offence, with }).unwrap();
                line.push(b'\n');
                line
            }).collect();
            let part = &whole[..cut.min(whole.len())];
            let loaded = read(part, 1_000).unwrap();
            prop_assert_eq!(loaded.entries.len(), part.iter().filter(|&&byte| byte == b'\n').count());
            prop_assert_eq!(loaded.foreign, 0);
        }
    }
}
