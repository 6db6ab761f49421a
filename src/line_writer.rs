//! Lines to a descriptor that somebody else reads, each at once; both roles, for standard output and standard error.
//!
//! Never waits: what a slow reader leaves is kept up to a bound, whole lines beyond it are dropped and counted. The
//! non-blocking flag is never set on the descriptor that a shell or a parent shares with us.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};

use nix::poll::{PollFd, PollFlags};
use nix::sys::time::TimeSpec;
use socket2::Socket;

/// Bytes kept for a reader that is slow.
pub const PENDING_LIMIT: usize = 256 * 1024;

/// A pipe that polls as writable has room for this much (PIPE_BUF, pipe(7)).
const CHUNK: usize = 4096;

/// Whole lines to one descriptor.
#[derive(Debug)]
pub struct LineWriter {
    target: Target,
    pending: VecDeque<u8>,
    /// The last byte written was not a newline.
    torn: bool,
    lost: u64,
}

#[derive(Debug)]
enum Target {
    /// The flag for not waiting goes with each call.
    Socket(Socket),
    /// A description of our own, opened non-blocking; or a regular file.
    File(File),
    /// A shared description: asked whether it has room before each write.
    Shared(File),
}

impl LineWriter {
    /// Writes to standard output. Must be called before confinement: it opens `/proc/self/fd`.
    pub fn stdout() -> io::Result<LineWriter> {
        LineWriter::new(io::stdout().as_fd().try_clone_to_owned()?)
    }

    /// Writes to `descriptor`. Before confinement, likewise.
    pub fn new(descriptor: OwnedFd) -> io::Result<LineWriter> {
        Ok(LineWriter { target: Target::new(descriptor)?, pending: VecDeque::new(), torn: false, lost: 0 })
    }

    /// Writes `line` and a newline, or as much as there is room for; the rest follows with the next call.
    pub fn push(&mut self, line: &str) {
        self.flush();
        if self.pending.len() + line.len() + 1 > PENDING_LIMIT {
            self.lost += 1;
            return;
        }
        if self.pending.is_empty() && self.torn {
            // A line that was given up stands there in part: this one must not continue it.
            self.pending.push_back(b'\n');
        }
        self.pending.extend(line.as_bytes());
        self.pending.push_back(b'\n');
        self.flush();
    }

    /// Writes what is pending, as far as there is room.
    pub fn flush(&mut self) {
        while !self.pending.is_empty() {
            let (head, _) = self.pending.as_slices();
            match self.target.write(head.get(..CHUNK).unwrap_or(head)) {
                Ok(written) if written > 0 => self.taken(written),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Ok(_) | Err(_) => return self.give_up(),
            }
        }
    }

    /// Whether [`LineWriter::flush`] has something to do.
    pub fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Lines that were dropped.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    fn taken(&mut self, written: usize) {
        if let Some(&last) = self.pending.get(written.saturating_sub(1)) {
            self.torn = last != b'\n';
        }
        self.pending.drain(..written.min(self.pending.len()));
    }

    /// The reader is gone or the disk is full: later lines are tried again, and start on a line of their own.
    fn give_up(&mut self) {
        let ends = self.pending.iter().filter(|&&byte| byte == b'\n').count() as u64;
        // The end of what was written already is no line: the next one brings it.
        let bare = u64::from(self.torn && self.pending.front() == Some(&b'\n'));
        self.lost += ends.saturating_sub(bare);
        self.pending.clear();
    }
}

impl Target {
    fn new(descriptor: OwnedFd) -> io::Result<Target> {
        let file = File::from(descriptor);
        let kind = file.metadata()?.file_type();
        if kind.is_socket() {
            return Ok(Target::Socket(Socket::from(OwnedFd::from(file))));
        }
        if kind.is_file() {
            return Ok(Target::File(file));
        }
        let own = OpenOptions::new()
            .write(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(format!("/proc/self/fd/{}", file.as_raw_fd()));
        Ok(own.map_or(Target::Shared(file), Target::File))
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Target::Socket(socket) => socket.send_with_flags(bytes, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL),
            Target::File(file) => file.write(bytes),
            Target::Shared(file) if has_room(&*file)? => file.write(bytes),
            Target::Shared(_) => Err(ErrorKind::WouldBlock.into()),
        }
    }
}

/// Whether 4096 bytes can be written to a pipe, or some to anything else, at once. Takes no lock and no memory.
pub fn has_room(descriptor: impl AsFd) -> io::Result<bool> {
    let mut polled = [PollFd::new(descriptor.as_fd(), PollFlags::POLLOUT)];
    Ok(nix::poll::ppoll(&mut polled, Some(TimeSpec::new(0, 0)), None)? > 0)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read};
    use std::os::unix::net::UnixStream;
    use std::thread;

    use super::*;

    const COUNT: usize = 20_000;

    fn numbered(number: usize) -> String {
        format!("line {number} {}", "x".repeat(40))
    }

    /// Fills a reader that does not read, then lets it, and proves that what came are whole lines in order.
    fn overrun(descriptor: OwnedFd, reader: impl Read + Send + 'static) {
        let mut writer = LineWriter::new(descriptor).unwrap();
        (0..COUNT).for_each(|number| writer.push(&numbered(number)));
        assert!(writer.lost() > 0 && writer.has_pending());
        let lost = writer.lost() as usize;
        let read =
            thread::spawn(move || BufReader::new(reader).lines().map(Result::unwrap).collect::<Vec<_>>());
        while writer.has_pending() {
            writer.flush();
        }
        drop(writer);
        let lines = read.join().unwrap();
        assert_eq!(lines.len() + lost, COUNT);
        let expected: Vec<String> = (0..lines.len()).map(numbered).collect();
        assert_eq!(lines, expected);
    }

    #[test]
    fn a_pipe_that_nobody_reads_stalls_nothing_and_loses_whole_lines() {
        let (reader, writer) = io::pipe().unwrap();
        overrun(OwnedFd::from(writer), reader);
    }

    #[test]
    fn a_socket_that_nobody_reads_stalls_nothing_and_loses_whole_lines() {
        let (reader, writer) = UnixStream::pair().unwrap();
        overrun(OwnedFd::from(writer), reader);
    }

    #[test]
    fn a_pipe_that_cannot_be_reopened_stalls_nothing_either() {
        let (reader, pipe) = io::pipe().unwrap();
        let target = Target::Shared(File::from(OwnedFd::from(pipe)));
        let mut writer = LineWriter { target, pending: VecDeque::new(), torn: false, lost: 0 };
        (0..COUNT).for_each(|number| writer.push(&numbered(number)));
        assert!(writer.lost() > 0);
        drop(writer);
        assert!(BufReader::new(reader).lines().next().unwrap().unwrap().starts_with("line 0 "));
    }

    #[test]
    fn a_reader_that_left_costs_lines_and_nothing_else() {
        let (reader, writer) = io::pipe().unwrap();
        let mut writer = LineWriter::new(OwnedFd::from(writer)).unwrap();
        drop(reader);
        (0..3).for_each(|number| writer.push(&numbered(number)));
        assert_eq!((writer.lost(), writer.has_pending()), (3, false));
    }

    #[test]
    fn a_full_disk_costs_lines_and_nothing_else() {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut writer = LineWriter::new(OwnedFd::from(full)).unwrap();
        writer.push("a");
        writer.push("b");
        assert_eq!(writer.lost(), 2);
    }

    /// On a disk of two pages, of which another file has one.
    #[test]
    fn a_disk_that_was_full_has_each_line_on_its_own_once_there_is_room() {
        if !nix::unistd::geteuid().is_root() {
            return eprintln!("skipped: only root can mount a small disk");
        }
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().to_owned();
        let on_small_disk = move || {
            use nix::mount::{MsFlags, mount};
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
            let none: Option<&str> = None;
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
            mount(none, &at, Some("tmpfs"), MsFlags::empty(), Some("nr_blocks=2")).unwrap();
            let (filler, log) = (at.join("filler"), at.join("log"));
            std::fs::write(&filler, "x").unwrap();
            let file = OpenOptions::new().append(true).create(true).open(&log).unwrap();
            let mut writer = LineWriter::new(OwnedFd::from(file)).unwrap();
            let mut written = 0;
            while writer.lost() == 0 {
                writer.push(&numbered(written));
                written += 1;
            }
            // Again and again in vain, each a line that is lost and no more.
            (0..3).for_each(|_| writer.push("in vain"));
            assert_eq!((writer.lost(), writer.has_pending()), (4, false));
            std::fs::remove_file(&filler).unwrap();
            ["one", "two"].iter().for_each(|line| writer.push(line));
            assert_eq!(writer.lost(), 4);
            let text = std::fs::read_to_string(&log).unwrap();
            assert!(text.ends_with("\none\ntwo\n"), "{text}");
            assert_eq!(text.lines().count(), written + 2, "{text}");
        };
        thread::spawn(on_small_disk).join().unwrap();
    }

    #[test]
    fn the_shared_descriptor_stays_blocking() {
        let (_reader, pipe) = io::pipe().unwrap();
        let writer = LineWriter::new(pipe.as_fd().try_clone_to_owned().unwrap()).unwrap();
        assert!(matches!(writer.target, Target::File(_)));
        let flags = nix::fcntl::fcntl(&pipe, nix::fcntl::FcntlArg::F_GETFL).unwrap();
        assert_eq!(flags & libc::O_NONBLOCK, 0);
    }
}
