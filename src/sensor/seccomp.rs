//! The sensor's system calls: what watching takes once everything is open and every thread runs.
//!
//! Data only, beside [`BASE`]. No new socket, no program, no thread: ring threads are started before the filter, which
//! reaches them too (TSYNC). Started under it they would need nine calls more, `clone3` among them, whose flags lie in
//! memory where no pin can see them.
#![forbid(unsafe_code)]

use std::os::fd::RawFd;

use crate::config::{self, Config};
use crate::event::history;
#[cfg(target_env = "musl")]
use crate::sandbox::base::opens;
use crate::sandbox::base::{BASE, opens_at};
use crate::sandbox::seccomp::{Pin, Rule, between, pin, rule};

/// The ring threads'; the helper has none.
const THREADS: &[Rule] = &[
    rule("futex", "threads, the allocator's lock"),
    rule("sched_yield", "a ring thread that waits for another one's place in the queue to the main thread"),
];

const LOOP: &[Rule] = &[
    #[cfg(not(target_env = "musl"))]
    rule("epoll_wait", "the main loop"),
    #[cfg(not(target_env = "musl"))]
    rule("epoll_pwait", "the main loop").instead_of("epoll_wait"),
    #[cfg(target_env = "musl")]
    rule("epoll_pwait", "the main loop"),
    rule("epoll_ctl", "visitors and clients come and go"),
    rule("recvfrom", "what visitors and clients say"),
    rule("getpid", "the start event names us"),
    rule("pread64", "the kernel's account of what is in force, and of connections opened"),
    rule("wait4", "how the helper ended"),
    rule("setsockopt", "a packet filter for changed ports or interfaces")
        .with(&[pin(1, libc::SOL_SOCKET), pin(2, libc::SO_ATTACH_FILTER)]),
    rule("getsockopt", "packets dropped so far")
        .with(&[pin(1, libc::SOL_PACKET), pin(2, libc::PACKET_STATISTICS)]),
    rule("getsockopt", "why a ring woke its thread")
        .with(&[pin(1, libc::SOL_SOCKET), pin(2, libc::SO_ERROR)]),
];

/// The control socket.
const CONTROL: &[Rule] = &[
    rule("accept4", "a client, or a decoy's visitor").with(&[pin(3, libc::SOCK_CLOEXEC)]),
    rule("getsockopt", "which user a client is").with(&[pin(1, libc::SOL_SOCKET), pin(2, libc::SO_PEERCRED)]),
    rule("ioctl", "a client must not make us wait").with(&[pin(1, libc::FIONBIO as i32)]),
];

/// SIGHUP: the configuration and the ignore file are read again.
const RELOAD: &[Rule] = &[
    #[cfg(target_env = "musl")]
    opens::<{ config::OPEN_FLAGS }>("reading only"),
    opens_at::<{ config::OPEN_FLAGS }>("reading only"),
    #[cfg(target_env = "musl")]
    rule("fstat", "what was opened is a regular file; the history file's too"),
    #[cfg(not(target_env = "musl"))]
    rule("statx", "what was opened is a regular file; the history file's too")
        .with(&[pin(2, libc::AT_EMPTY_PATH)]),
];

/// With HISTORY_FILE.
const HISTORY: &[Rule] = &[
    #[cfg(target_env = "musl")]
    opens::<{ history::OPEN_FLAGS }>("the history file after its rotation"),
    opens_at::<{ history::OPEN_FLAGS }>("the history file after its rotation"),
    #[cfg(target_env = "musl")]
    opens::<{ history::CREATE_FLAGS }>("likewise, where it was only moved away"),
    opens_at::<{ history::CREATE_FLAGS }>("likewise, where it was only moved away"),
];

/// With decoys.
const DECOYS: &[Rule] = &[
    rule("getsockname", "which of our addresses a visitor came to"),
    rule("shutdown", "goodbye to a visitor").with(&[pin(1, libc::SHUT_WR)]),
];

/// With RESOLVE_HOST; its socket is open already.
const NAMES: &[Rule] = &[rule("getrandom", "the number of a question, so that an answer cannot be guessed")];

/// With -D: the standard streams are left last, so that whatever fails at the start is still heard.
const BACKGROUND: &[Rule] = &[
    rule("dup2", "standard input leaves the terminal").with(&[pin(1, libc::STDIN_FILENO)]),
    rule("dup2", "likewise standard output").with(&[pin(1, libc::STDOUT_FILENO)]),
    rule("dup2", "likewise standard error").with(&[pin(1, libc::STDERR_FILENO)]),
    rule("dup3", "standard input leaves the terminal")
        .with(&[pin(1, libc::STDIN_FILENO), pin(2, 0)])
        .instead_of("dup2"),
    rule("dup3", "likewise standard output")
        .with(&[pin(1, libc::STDOUT_FILENO), pin(2, 0)])
        .instead_of("dup2"),
    rule("dup3", "likewise standard error")
        .with(&[pin(1, libc::STDERR_FILENO), pin(2, 0)])
        .instead_of("dup2"),
];

/// The open sockets that send to an address of the sensor's choice, by their numbers. No rule makes another socket, or
/// gives one of these numbers to a ring.
#[derive(Debug, Default)]
pub struct Addressing {
    /// To the log's daemon, by its path: once it was restarted nobody is connected any more.
    pub log: Option<RawFd>,
    /// UDP decoys that have a PORT_BANNER to say, in any order.
    pub decoys: Vec<RawFd>,
}

impl Addressing {
    /// A rule for each run of numbers, for a filter has no room for thousands of them.
    fn rules(&self) -> &'static [Rule] {
        let log = rule("sendto", "a log daemon that was restarted");
        let answer = rule("sendmsg", "a datagram answered from the address it came to");
        let rules: Vec<Rule> = (runs(self.log.as_slice()).into_iter().map(|run| log.with(kept(run))))
            .chain(runs(&self.decoys).into_iter().map(|run| answer.with(kept(run))))
            .collect();
        rules.leak()
    }
}

/// Pins live as long as the process, whether it was compiled with them or found them out at its one start.
fn kept((least, most): (RawFd, RawFd)) -> &'static [Pin] {
    vec![between(0, least, most)].leak()
}

/// The first and the last of numbers that follow one another.
fn runs(numbers: &[RawFd]) -> Vec<(RawFd, RawFd)> {
    let mut numbers = numbers.to_vec();
    numbers.sort_unstable();
    let mut runs: Vec<(RawFd, RawFd)> = Vec::new();
    for number in numbers {
        match runs.last_mut() {
            Some((_, most)) if number == most.saturating_add(1) => *most = number,
            _ => runs.push((number, number)),
        }
    }
    runs
}

/// The lists in force under `config` with these sockets.
pub fn rules(config: &Config, addressing: &Addressing) -> Vec<&'static [Rule]> {
    let mut lists = vec![BASE, THREADS, LOOP, CONTROL, RELOAD, addressing.rules()];
    if config.history_file.is_some() {
        lists.push(HISTORY);
    }
    if config.has_decoys() {
        lists.push(DECOYS);
    }
    if config.resolve_host {
        lists.push(NAMES);
    }
    if config.flags.daemonize {
        lists.push(BACKGROUND);
    }
    lists
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_these_sockets_may_be_given_an_address_each_for_its_own_call() {
        let rules = Addressing { log: Some(7), decoys: vec![12, 10, 11, 20] }.rules();
        let allowed = |call: &str| -> Vec<u64> {
            let may = |number: &u64| rules.iter().any(|rule| rule.syscall == call && rule.allows(&[*number]));
            (0..64).filter(may).collect()
        };
        assert_eq!(allowed("sendto"), [7]);
        assert_eq!(allowed("sendmsg"), [10, 11, 12, 20]);
        assert!(rules.len() == 3 && Addressing::default().rules().is_empty());
    }
}
