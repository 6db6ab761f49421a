//! The system calls that both roles need whatever is configured: memory, waiting, what is open, the end.
//!
//! Data only. A rule that neither role needs any more goes.
#![forbid(unsafe_code)]

use super::seccomp::{Rule, pin, rule, without};

/// PROT_EXEC, in the width of its argument.
pub const EXEC: u64 = libc::PROT_EXEC as u64;

/// What every rule list begins with.
pub const BASE: &[Rule] = &[
    rule("read", "pipes, descriptors that were opened before"),
    rule("write", "pipes, log lines"),
    rule("close", "whatever ends"),
    rule("recvmsg", "netlink answers and news"),
    rule("sendto", "netlink requests, the log socket"),
    // Not poll(2): after SIGSTOP or suspend it goes on by another call, restart_syscall.
    rule("ppoll", "waiting for a few descriptors"),
    rule("brk", "memory"),
    rule("mmap", "memory that is never code").with(&[without(2, EXEC)]),
    rule("mremap", "memory that grows"),
    rule("munmap", "memory given back"),
    rule("clock_gettime", "the time, where the vDSO has none").with(&[pin(0, libc::CLOCK_REALTIME)]),
    rule("clock_gettime", "likewise").with(&[pin(0, libc::CLOCK_MONOTONIC)]),
    rule("sigaltstack", "the end: the standard library gives its own stack back"),
    rule("exit_group", "the end"),
    // The standard library's own assertion on closing a descriptor.
    #[cfg(debug_assertions)]
    rule("fcntl", "debug builds alone: is this descriptor open?").with(&[pin(1, libc::F_GETFD)]),
];
