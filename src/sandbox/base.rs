//! The system calls that both roles need whatever is configured: memory, waiting, what is open, the end.
//!
//! Data only. A rule that neither role needs any more goes; one that only a C library needs is given with that alone.
#![forbid(unsafe_code)]

use super::seccomp::{Rule, exactly, pin, rule, without};

/// PROT_EXEC, in the width of its argument.
pub const EXEC: u64 = libc::PROT_EXEC as u64;

const NO_ADDRESS: u64 = 0;

/// Opening a path with these flags and no others. musl adds O_LARGEFILE, which elsewhere is nothing.
pub const fn opens_at<const FLAGS: i32>(reason: &'static str) -> Rule {
    let at =
        rule("openat", reason).with(const { &[pin(0, libc::AT_FDCWD), pin(2, FLAGS | libc::O_LARGEFILE)] });
    if cfg!(target_env = "musl") { at.instead_of("open") } else { at }
}

/// Likewise as musl does it where there is the older call.
#[cfg(target_env = "musl")]
pub const fn opens<const FLAGS: i32>(reason: &'static str) -> Rule {
    rule("open", reason).with(const { &[pin(1, FLAGS | libc::O_LARGEFILE)] })
}

/// What every rule list begins with.
pub const BASE: &[Rule] = &[
    rule("read", "pipes, descriptors that were opened before"),
    rule("write", "pipes, log lines"),
    rule("close", "whatever ends"),
    rule("recvmsg", "netlink answers and news"),
    // The kernel asks for CAP_NET_RAW when a packet socket is made, not when it sends: with an address of the caller's
    // choice each ring would send anything by any interface, past the firewall.
    rule("sendto", "netlink requests, lines to whom a socket is connected to")
        .with(&[exactly(4, NO_ADDRESS), pin(5, 0)]),
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
    #[cfg(target_env = "musl")]
    rule("fcntl", "musl: what was opened is closed by execve, said once more")
        .with(&[pin(1, libc::F_SETFD), pin(2, libc::FD_CLOEXEC)]),
    #[cfg(target_env = "musl")]
    rule("mprotect", "musl: the allocator's own records, never code").with(&[without(2, EXEC)]),
    // The standard library's own assertion on closing a descriptor.
    #[cfg(debug_assertions)]
    rule("fcntl", "debug builds alone: is this descriptor open?").with(&[pin(1, libc::F_GETFD)]),
];
