//! System calls by name: the numbers differ from machine to machine, the rules must not. Used by [`super::seccomp`].
//!
//! Lists what the roles' rules may name, not what they may do.
#![forbid(unsafe_code)]

/// A name's number on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Number {
    /// It has one.
    Known(i64),
    /// Only older architectures have this call.
    NotHere,
    /// Nobody has it, or it is not in the table.
    Unknown,
}

/// The number of `name` on the machine this was compiled for.
pub fn number(name: &str) -> Number {
    if let Some(&(_, number)) = EVERYWHERE.iter().chain(OLD).find(|(known, _)| *known == name) {
        return Number::Known(number);
    }
    if OLD_NAMES.contains(&name) { Number::NotHere } else { Number::Unknown }
}

/// The name of the call with this number, if it is one of the table's.
pub fn name(number: i64) -> Option<&'static str> {
    EVERYWHERE.iter().chain(OLD).find(|(_, known)| *known == number).map(|(name, _)| *name)
}

macro_rules! table {
    ($($name:ident = $number:ident),* $(,)?) => { &[$((stringify!($name), libc::$number)),*] };
}

/// Calls that x86_64 and aarch64 both have.
const EVERYWHERE: &[(&str, i64)] = table![
    accept = SYS_accept,
    accept4 = SYS_accept4,
    bind = SYS_bind,
    bpf = SYS_bpf,
    brk = SYS_brk,
    capget = SYS_capget,
    capset = SYS_capset,
    clock_gettime = SYS_clock_gettime,
    clock_nanosleep = SYS_clock_nanosleep,
    clone = SYS_clone,
    clone3 = SYS_clone3,
    close = SYS_close,
    close_range = SYS_close_range,
    connect = SYS_connect,
    dup = SYS_dup,
    dup3 = SYS_dup3,
    epoll_create1 = SYS_epoll_create1,
    epoll_ctl = SYS_epoll_ctl,
    epoll_pwait = SYS_epoll_pwait,
    eventfd2 = SYS_eventfd2,
    execve = SYS_execve,
    execveat = SYS_execveat,
    exit = SYS_exit,
    exit_group = SYS_exit_group,
    faccessat = SYS_faccessat,
    faccessat2 = SYS_faccessat2,
    fallocate = SYS_fallocate,
    fchmod = SYS_fchmod,
    fchmodat = SYS_fchmodat,
    fchown = SYS_fchown,
    fcntl = SYS_fcntl,
    fdatasync = SYS_fdatasync,
    flock = SYS_flock,
    fstat = SYS_fstat,
    fstatfs = SYS_fstatfs,
    fsync = SYS_fsync,
    ftruncate = SYS_ftruncate,
    futex = SYS_futex,
    getcwd = SYS_getcwd,
    getdents64 = SYS_getdents64,
    getegid = SYS_getegid,
    geteuid = SYS_geteuid,
    getgid = SYS_getgid,
    getpeername = SYS_getpeername,
    getpid = SYS_getpid,
    getppid = SYS_getppid,
    getrandom = SYS_getrandom,
    getresuid = SYS_getresuid,
    getsockname = SYS_getsockname,
    getsockopt = SYS_getsockopt,
    gettid = SYS_gettid,
    gettimeofday = SYS_gettimeofday,
    getuid = SYS_getuid,
    io_uring_setup = SYS_io_uring_setup,
    ioctl = SYS_ioctl,
    kill = SYS_kill,
    listen = SYS_listen,
    lseek = SYS_lseek,
    madvise = SYS_madvise,
    membarrier = SYS_membarrier,
    memfd_create = SYS_memfd_create,
    mkdirat = SYS_mkdirat,
    mmap = SYS_mmap,
    mount = SYS_mount,
    mprotect = SYS_mprotect,
    mremap = SYS_mremap,
    munmap = SYS_munmap,
    nanosleep = SYS_nanosleep,
    newfstatat = SYS_newfstatat,
    openat = SYS_openat,
    openat2 = SYS_openat2,
    pidfd_open = SYS_pidfd_open,
    pidfd_send_signal = SYS_pidfd_send_signal,
    pipe2 = SYS_pipe2,
    ppoll = SYS_ppoll,
    prctl = SYS_prctl,
    pread64 = SYS_pread64,
    prlimit64 = SYS_prlimit64,
    ptrace = SYS_ptrace,
    pwrite64 = SYS_pwrite64,
    read = SYS_read,
    readlinkat = SYS_readlinkat,
    readv = SYS_readv,
    recvfrom = SYS_recvfrom,
    recvmmsg = SYS_recvmmsg,
    recvmsg = SYS_recvmsg,
    renameat = SYS_renameat,
    renameat2 = SYS_renameat2,
    restart_syscall = SYS_restart_syscall,
    rseq = SYS_rseq,
    rt_sigaction = SYS_rt_sigaction,
    rt_sigprocmask = SYS_rt_sigprocmask,
    rt_sigreturn = SYS_rt_sigreturn,
    sched_getaffinity = SYS_sched_getaffinity,
    sched_yield = SYS_sched_yield,
    seccomp = SYS_seccomp,
    sendmmsg = SYS_sendmmsg,
    sendmsg = SYS_sendmsg,
    sendto = SYS_sendto,
    set_robust_list = SYS_set_robust_list,
    set_tid_address = SYS_set_tid_address,
    setresgid = SYS_setresgid,
    setresuid = SYS_setresuid,
    setsockopt = SYS_setsockopt,
    shutdown = SYS_shutdown,
    sigaltstack = SYS_sigaltstack,
    signalfd4 = SYS_signalfd4,
    socket = SYS_socket,
    socketpair = SYS_socketpair,
    statx = SYS_statx,
    sysinfo = SYS_sysinfo,
    tgkill = SYS_tgkill,
    timerfd_create = SYS_timerfd_create,
    timerfd_settime = SYS_timerfd_settime,
    umask = SYS_umask,
    uname = SYS_uname,
    unlinkat = SYS_unlinkat,
    userfaultfd = SYS_userfaultfd,
    wait4 = SYS_wait4,
    waitid = SYS_waitid,
    write = SYS_write,
    writev = SYS_writev,
];

/// Calls that newer architectures were never given; glibc still makes them where they exist.
#[cfg(target_arch = "x86_64")]
const OLD: &[(&str, i64)] = table![
    access = SYS_access,
    arch_prctl = SYS_arch_prctl,
    chmod = SYS_chmod,
    dup2 = SYS_dup2,
    epoll_wait = SYS_epoll_wait,
    fork = SYS_fork,
    link = SYS_link,
    lstat = SYS_lstat,
    mkdir = SYS_mkdir,
    open = SYS_open,
    pipe = SYS_pipe,
    poll = SYS_poll,
    readlink = SYS_readlink,
    rename = SYS_rename,
    rmdir = SYS_rmdir,
    stat = SYS_stat,
    symlink = SYS_symlink,
    time = SYS_time,
    unlink = SYS_unlink,
    vfork = SYS_vfork,
];
#[cfg(not(target_arch = "x86_64"))]
const OLD: &[(&str, i64)] = &[];

/// The names of [`OLD`] on any machine.
const OLD_NAMES: &[&str] = &[
    "access",
    "arch_prctl",
    "chmod",
    "dup2",
    "epoll_wait",
    "fork",
    "link",
    "lstat",
    "mkdir",
    "open",
    "pipe",
    "poll",
    "readlink",
    "rename",
    "rmdir",
    "stat",
    "symlink",
    "time",
    "unlink",
    "vfork",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_in_one_table_only_and_in_order() {
        let names: Vec<&str> = EVERYWHERE.iter().map(|(name, _)| *name).collect();
        assert!(names.is_sorted() && OLD_NAMES.is_sorted());
        assert!(OLD_NAMES.iter().all(|name| !names.contains(name)));
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn the_old_names_are_those_of_the_old_table() {
        assert!(OLD.iter().map(|(name, _)| *name).eq(OLD_NAMES.iter().copied()));
        assert_eq!((number("epoll_wait"), number("nonsense")), (Number::Known(232), Number::Unknown));
    }
}
