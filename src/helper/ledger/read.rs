//! Reading a ledger back: any file gives what of it is ours, in bounded time and memory. Helper.
//!
//! Never trusts what it reads: a foreign line is counted, a torn last one dropped, and neither does harm.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};

use ipnet::IpNet;

use super::SLACK;
use super::line::{MAX_LINE, parse};
use crate::helper::escalation::{Block, MAX_OFFENDERS};
use crate::helper::record::Record;
use crate::protocol::settings::MOST_BLOCKS;

/// Lines of the longest file of ours: of the blocks that there may be with any setting, as MAX_BLOCKS may have been
/// lowered since, and the offenders that are remembered.
const MOST_LINES: usize = SLACK + 2 * (MOST_BLOCKS as usize + MAX_OFFENDERS);
/// Longest file that is read, bytes. A sparse file of any size costs whoever plants it nothing, and the next start its
/// time limit.
const LONGEST_FILE: u64 = (MOST_LINES * MAX_LINE) as u64;

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

/// What the file holds, so far as one of ours may be long.
pub(super) fn load(file: &File) -> io::Result<Loaded> {
    read(BufReader::new(file.take(LONGEST_FILE)), MOST_LINES)
}

/// Reads any bytes, and keeps at most `room` targets. Where there are more, the half whose blocks end last goes on: what
/// is in force stands among the last lines, after many whose blocks the kernel has ended without a word here.
fn read(mut input: impl BufRead, room: usize) -> io::Result<Loaded> {
    let (mut loaded, mut line) = (Loaded::default(), Vec::with_capacity(MAX_LINE));
    while let Some(ending) = next_line(&mut input, &mut line)? {
        loaded.lines = loaded.lines.saturating_add(1);
        match parse(&line).filter(|_| ending == Ending::Whole) {
            Some(known) if known.offence == 0 && known.block().to_end().is_empty() => {
                loaded.entries.remove(&known.target);
            }
            Some(known) => {
                loaded.entries.insert(known.target, known.block());
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

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;
    use crate::helper::ledger::file::write_new;
    use crate::helper::ledger::line::write;
    use crate::helper::ledger::samples::{block, record};
    use crate::protocol::settings::LEDGER;

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

    #[test]
    fn a_last_line_without_its_end_is_torn_however_whole_it_looks() {
        let line = "{\"target\":\"192.0.2.1/32\",\"since\":0,\"until\":5,\"offence\":1}";
        let loaded = read(format!("{line}\n{line}").as_bytes(), 1_000).unwrap();
        assert_eq!((loaded.entries.len(), loaded.lines, loaded.torn), (1, 2, true));
        assert!(read(line.as_bytes(), 1_000).unwrap().entries.is_empty());
    }

    #[test]
    fn what_is_forgiven_and_still_to_be_taken_back_is_read() {
        let line = |with: &str| {
            format!("{{\"target\":\"192.0.2.1/32\",\"since\":0,\"until\":5,\"offence\":0{with}}}\n")
        };
        let read = |text: String| read(text.as_bytes(), 1_000).unwrap().entries.len();
        assert_eq!([line(",\"with\":16"), line(",\"owed\":16"), line("")].map(read), [1, 1, 0]);
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
        let path = folder.path().join(LEDGER);
        write_new(&path, record(0..count)).unwrap();
        let loaded = load(&File::open(&path).unwrap()).unwrap();
        assert_eq!((loaded.entries.len(), loaded.foreign), (2 * MAX_OFFENDERS, 0));
        assert!(MOST_LINES > 2 * MOST_BLOCKS as usize);
    }

    #[test]
    fn a_line_without_end_is_not_kept_in_memory() {
        let (mut line, mut input) = (Vec::new(), BufReader::new(io::repeat(b'a').take(1 << 22)));
        assert!(next_line(&mut input, &mut line).unwrap() == Some(Ending::TooLong));
        assert!(line.capacity() <= 2 * MAX_LINE);
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
                let mut line = Vec::new();
                write(&mut line, IpNet::from(std::net::IpAddr::from([192, 0, 2, at])), block(1)).unwrap();
                line
            }).collect();
            let part = &whole[..cut.min(whole.len())];
            let loaded = read(part, 1_000).unwrap();
            prop_assert_eq!(loaded.entries.len(), part.iter().filter(|&&byte| byte == b'\n').count());
            prop_assert_eq!(loaded.foreign, 0);
        }
    }
}
