//! Promise: both roles' filters are right for every machine, whichever this is: they compile, check the architecture
//! first, and allow the calls that this machine's C library makes.
#![allow(clippy::unwrap_used)]

mod support;

use portsentry::sandbox::seccomp::{Filter, OnMismatch};
use portsentry::sandbox::syscalls::Machine;
use support::roles;

/// linux/audit.h: EM_X86_64 and EM_AARCH64, little-endian, 64 bits.
const ARCHITECTURES: [(Machine, u32); 2] = [(Machine::X86_64, 0xc000_003e), (Machine::Aarch64, 0xc000_00b7)];
/// Calls that asm-generic/unistd.h does not have, and what stands there in their place.
const SUCCESSORS: [(&str, &str); 4] =
    [ONE_LIBRARYS, ("dup2", "dup3"), ("unlink", "unlinkat"), ("rename", "renameat")];
/// What of these either C library alone makes: glibc opens by `openat` everywhere, musl waits by `epoll_pwait`.
const ONE_LIBRARYS: (&str, &str) =
    if cfg!(target_env = "musl") { ("open", "openat") } else { ("epoll_wait", "epoll_pwait") };

fn names(machine: Machine) -> Vec<&'static str> {
    let rules = roles::all().into_iter().flat_map(|(_, lists)| lists.into_iter().flatten());
    rules.filter(|rule| rule.number(machine).unwrap().is_some()).map(|rule| rule.syscall).collect()
}

#[test]
fn each_roles_filter_compiles_for_each_machine_and_asks_which_it_is_first() {
    for (machine, architecture) in ARCHITECTURES {
        for (role, lists) in roles::all() {
            let bytes = Filter::compile_for(machine, &lists, OnMismatch::Kill).unwrap().to_bytes();
            let words: Vec<u64> =
                bytes.as_chunks::<8>().0.iter().map(|word| u64::from_be_bytes(*word)).collect();
            // BPF_LD | BPF_W | BPF_ABS of seccomp_data.arch, then BPF_JMP | BPF_JEQ with it (linux/bpf_common.h).
            assert_eq!((words[0] >> 48, words[0] as u32), (0x20, 4), "{role} {machine:?}");
            assert_eq!((words[1] >> 48, words[1] as u32), (0x15, architecture), "{role} {machine:?}");
        }
    }
}

#[test]
fn an_older_call_and_its_successor_are_never_allowed_both() {
    let (x86, arm) = (names(Machine::X86_64), names(Machine::Aarch64));
    for (older, successor) in SUCCESSORS {
        assert!(x86.contains(&older) && !x86.contains(&successor), "{older}");
        assert!(arm.contains(&successor) && !arm.contains(&older), "{older}");
    }
    let without = |names: &[&'static str]| -> Vec<&str> {
        let old =
            |name: &&str| SUCCESSORS.iter().any(|(older, successor)| name == older || name == successor);
        names.iter().copied().filter(|name| !old(name)).collect()
    };
    assert_eq!(without(&x86), without(&arm), "but for those the machines differ in nothing");
}
