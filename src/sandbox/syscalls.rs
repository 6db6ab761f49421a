//! System calls by name: the numbers differ from machine to machine, the rules must not. Used by [`super::seccomp`].
//!
//! Lists what the roles' rules may name, not what they may do. Numbers are the kernel's own (arch/x86/entry/syscalls,
//! include/uapi/asm-generic/unistd.h); those of the machine that compiles this are held against libc's.
#![forbid(unsafe_code)]

/// A machine that the filters are made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machine {
    /// 64-bit calls of x86; x32 has none of its own here.
    X86_64,
    /// 64-bit ARM.
    Aarch64,
}

impl Machine {
    /// The machines there are.
    pub const ALL: [Machine; 2] = [Machine::X86_64, Machine::Aarch64];
    /// The one this was compiled for.
    #[cfg(target_arch = "x86_64")]
    pub const HERE: Machine = Machine::X86_64;
    /// The one this was compiled for.
    #[cfg(target_arch = "aarch64")]
    pub const HERE: Machine = Machine::Aarch64;
}

/// A name's number on a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Number {
    /// It has one.
    Known(i64),
    /// Only older architectures have this call.
    NotHere,
    /// Nobody has it, or it is not in the table.
    Unknown,
}

/// The number of `name` on `machine`.
pub fn number(name: &str, machine: Machine) -> Number {
    let everywhere = EVERYWHERE.iter().find(|(known, ..)| *known == name);
    let old = || OLD.iter().find(|(known, _)| *known == name);
    match (everywhere, machine) {
        (Some((_, number, _)), Machine::X86_64) | (Some((_, _, number)), Machine::Aarch64) => {
            Number::Known(*number)
        }
        (None, Machine::X86_64) => old().map_or(Number::Unknown, |(_, number)| Number::Known(*number)),
        (None, Machine::Aarch64) => old().map_or(Number::Unknown, |_| Number::NotHere),
    }
}

/// The name of the call with this number on this machine, if it is one of the table's.
pub fn name(number: i64) -> Option<&'static str> {
    let names = EVERYWHERE.iter().map(|(name, ..)| *name).chain(OLD.iter().map(|(name, _)| *name));
    names.into_iter().find(|name| self::number(name, Machine::HERE) == Number::Known(number))
}

/// Compares the numbers of the machine that compiles this with libc's, and keeps both.
macro_rules! everywhere {
    ($($name:ident = $number:ident, $x86_64:literal, $aarch64:literal;)*) => {
        /// Calls that every machine has: name, number on x86_64, on aarch64.
        const EVERYWHERE: &[(&str, i64, i64)] = &[$((stringify!($name), $x86_64, $aarch64)),*];
        #[cfg(target_arch = "x86_64")]
        const _: () = { $(assert!(libc::$number == $x86_64);)* };
        #[cfg(target_arch = "aarch64")]
        const _: () = { $(assert!(libc::$number == $aarch64);)* };
    };
}

/// Likewise.
macro_rules! old {
    ($($name:ident = $number:ident, $x86_64:literal;)*) => {
        /// Calls that newer architectures were never given; glibc still makes them where they exist.
        const OLD: &[(&str, i64)] = &[$((stringify!($name), $x86_64)),*];
        #[cfg(target_arch = "x86_64")]
        const _: () = { $(assert!(libc::$number == $x86_64);)* };
    };
}

everywhere! {
    accept = SYS_accept, 43, 202;
    accept4 = SYS_accept4, 288, 242;
    bind = SYS_bind, 49, 200;
    bpf = SYS_bpf, 321, 280;
    brk = SYS_brk, 12, 214;
    capget = SYS_capget, 125, 90;
    capset = SYS_capset, 126, 91;
    clock_gettime = SYS_clock_gettime, 228, 113;
    clock_nanosleep = SYS_clock_nanosleep, 230, 115;
    clone = SYS_clone, 56, 220;
    clone3 = SYS_clone3, 435, 435;
    close = SYS_close, 3, 57;
    close_range = SYS_close_range, 436, 436;
    connect = SYS_connect, 42, 203;
    dup = SYS_dup, 32, 23;
    dup3 = SYS_dup3, 292, 24;
    epoll_create1 = SYS_epoll_create1, 291, 20;
    epoll_ctl = SYS_epoll_ctl, 233, 21;
    epoll_pwait = SYS_epoll_pwait, 281, 22;
    eventfd2 = SYS_eventfd2, 290, 19;
    execve = SYS_execve, 59, 221;
    execveat = SYS_execveat, 322, 281;
    exit = SYS_exit, 60, 93;
    exit_group = SYS_exit_group, 231, 94;
    faccessat = SYS_faccessat, 269, 48;
    faccessat2 = SYS_faccessat2, 439, 439;
    fallocate = SYS_fallocate, 285, 47;
    fchmod = SYS_fchmod, 91, 52;
    fchmodat = SYS_fchmodat, 268, 53;
    fchown = SYS_fchown, 93, 55;
    fcntl = SYS_fcntl, 72, 25;
    fdatasync = SYS_fdatasync, 75, 83;
    flock = SYS_flock, 73, 32;
    fstat = SYS_fstat, 5, 80;
    fstatfs = SYS_fstatfs, 138, 44;
    fsync = SYS_fsync, 74, 82;
    ftruncate = SYS_ftruncate, 77, 46;
    futex = SYS_futex, 202, 98;
    getcwd = SYS_getcwd, 79, 17;
    getdents64 = SYS_getdents64, 217, 61;
    getegid = SYS_getegid, 108, 177;
    geteuid = SYS_geteuid, 107, 175;
    getgid = SYS_getgid, 104, 176;
    getpeername = SYS_getpeername, 52, 205;
    getpid = SYS_getpid, 39, 172;
    getppid = SYS_getppid, 110, 173;
    getrandom = SYS_getrandom, 318, 278;
    getresuid = SYS_getresuid, 118, 148;
    getsockname = SYS_getsockname, 51, 204;
    getsockopt = SYS_getsockopt, 55, 209;
    gettid = SYS_gettid, 186, 178;
    gettimeofday = SYS_gettimeofday, 96, 169;
    getuid = SYS_getuid, 102, 174;
    io_uring_setup = SYS_io_uring_setup, 425, 425;
    ioctl = SYS_ioctl, 16, 29;
    kill = SYS_kill, 62, 129;
    listen = SYS_listen, 50, 201;
    lseek = SYS_lseek, 8, 62;
    madvise = SYS_madvise, 28, 233;
    membarrier = SYS_membarrier, 324, 283;
    memfd_create = SYS_memfd_create, 319, 279;
    mkdirat = SYS_mkdirat, 258, 34;
    mmap = SYS_mmap, 9, 222;
    mount = SYS_mount, 165, 40;
    mprotect = SYS_mprotect, 10, 226;
    mremap = SYS_mremap, 25, 216;
    munmap = SYS_munmap, 11, 215;
    nanosleep = SYS_nanosleep, 35, 101;
    newfstatat = SYS_newfstatat, 262, 79;
    openat = SYS_openat, 257, 56;
    openat2 = SYS_openat2, 437, 437;
    pidfd_open = SYS_pidfd_open, 434, 434;
    pidfd_send_signal = SYS_pidfd_send_signal, 424, 424;
    pipe2 = SYS_pipe2, 293, 59;
    ppoll = SYS_ppoll, 271, 73;
    prctl = SYS_prctl, 157, 167;
    pread64 = SYS_pread64, 17, 67;
    prlimit64 = SYS_prlimit64, 302, 261;
    ptrace = SYS_ptrace, 101, 117;
    pwrite64 = SYS_pwrite64, 18, 68;
    read = SYS_read, 0, 63;
    readlinkat = SYS_readlinkat, 267, 78;
    readv = SYS_readv, 19, 65;
    recvfrom = SYS_recvfrom, 45, 207;
    recvmmsg = SYS_recvmmsg, 299, 243;
    recvmsg = SYS_recvmsg, 47, 212;
    renameat = SYS_renameat, 264, 38;
    renameat2 = SYS_renameat2, 316, 276;
    restart_syscall = SYS_restart_syscall, 219, 128;
    rseq = SYS_rseq, 334, 293;
    rt_sigaction = SYS_rt_sigaction, 13, 134;
    rt_sigprocmask = SYS_rt_sigprocmask, 14, 135;
    rt_sigreturn = SYS_rt_sigreturn, 15, 139;
    sched_getaffinity = SYS_sched_getaffinity, 204, 123;
    sched_yield = SYS_sched_yield, 24, 124;
    seccomp = SYS_seccomp, 317, 277;
    sendmmsg = SYS_sendmmsg, 307, 269;
    sendmsg = SYS_sendmsg, 46, 211;
    sendto = SYS_sendto, 44, 206;
    set_robust_list = SYS_set_robust_list, 273, 99;
    set_tid_address = SYS_set_tid_address, 218, 96;
    setresgid = SYS_setresgid, 119, 149;
    setresuid = SYS_setresuid, 117, 147;
    setsockopt = SYS_setsockopt, 54, 208;
    shutdown = SYS_shutdown, 48, 210;
    sigaltstack = SYS_sigaltstack, 131, 132;
    signalfd4 = SYS_signalfd4, 289, 74;
    socket = SYS_socket, 41, 198;
    socketpair = SYS_socketpair, 53, 199;
    statx = SYS_statx, 332, 291;
    sysinfo = SYS_sysinfo, 99, 179;
    tgkill = SYS_tgkill, 234, 131;
    timerfd_create = SYS_timerfd_create, 283, 85;
    timerfd_settime = SYS_timerfd_settime, 286, 86;
    umask = SYS_umask, 95, 166;
    uname = SYS_uname, 63, 160;
    unlinkat = SYS_unlinkat, 263, 35;
    userfaultfd = SYS_userfaultfd, 323, 282;
    wait4 = SYS_wait4, 61, 260;
    waitid = SYS_waitid, 247, 95;
    write = SYS_write, 1, 64;
    writev = SYS_writev, 20, 66;
}

old! {
    access = SYS_access, 21;
    arch_prctl = SYS_arch_prctl, 158;
    chmod = SYS_chmod, 90;
    dup2 = SYS_dup2, 33;
    epoll_wait = SYS_epoll_wait, 232;
    fork = SYS_fork, 57;
    link = SYS_link, 86;
    lstat = SYS_lstat, 6;
    mkdir = SYS_mkdir, 83;
    open = SYS_open, 2;
    pipe = SYS_pipe, 22;
    poll = SYS_poll, 7;
    readlink = SYS_readlink, 89;
    rename = SYS_rename, 82;
    rmdir = SYS_rmdir, 84;
    stat = SYS_stat, 4;
    symlink = SYS_symlink, 88;
    time = SYS_time, 201;
    unlink = SYS_unlink, 87;
    vfork = SYS_vfork, 58;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_in_one_table_only_and_in_order() {
        let names: Vec<&str> = EVERYWHERE.iter().map(|(name, ..)| *name).collect();
        let old: Vec<&str> = OLD.iter().map(|(name, _)| *name).collect();
        assert!(names.is_sorted() && old.is_sorted());
        assert!(old.iter().all(|name| !names.contains(name)));
    }

    #[test]
    fn a_name_has_each_machines_own_number() {
        let on = |name| Machine::ALL.map(|machine| number(name, machine));
        assert_eq!(on("epoll_wait"), [Number::Known(232), Number::NotHere]);
        assert_eq!(on("epoll_pwait"), [Number::Known(281), Number::Known(22)]);
        assert_eq!(on("nonsense"), [Number::Unknown; 2]);
    }

    #[test]
    fn a_number_has_a_name() {
        assert_eq!(name(libc::SYS_uname), Some("uname"));
        assert_eq!(name(-1), None);
    }
}
