//! Seccomp filters from rules that are data: a system call, its pinned arguments, and the reason it is allowed.
//!
//! Both roles; each keeps its own list. An allow-list, and nothing else: a call that no rule allows, an argument that
//! no pin allows, another architecture's or an x32 number ends the process.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fmt::Display;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, sock_filter,
};

use super::SandboxError;
use super::syscalls::{Machine, Number, number};

/// One allowed system call.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// Its name, as in syscalls(2).
    pub syscall: &'static str,
    /// What the role needs it for.
    pub reason: &'static str,
    /// What its arguments must be; all of them. Several rules for a call are alternatives.
    pub pins: &'static [Pin],
    /// The older call that this one is made in place of, on machines that do not have it.
    pub instead_of: Option<&'static str>,
}

/// A condition on one argument.
#[derive(Clone, Copy, Debug)]
pub struct Pin {
    /// Which argument, from 0.
    pub argument: u8,
    /// All 64 bits count, not the lower 32 alone.
    pub wide: bool,
    /// Which bits count.
    pub mask: u64,
    /// What they must be, at least.
    pub value: u64,
    /// And at most; where it is above `value` all bits count.
    pub most: u64,
}

/// Allows `syscall` with any arguments.
pub const fn rule(syscall: &'static str, reason: &'static str) -> Rule {
    Rule { syscall, reason, pins: &[], instead_of: None }
}

impl Rule {
    /// The same, with arguments pinned.
    pub const fn with(self, pins: &'static [Pin]) -> Rule {
        Rule { pins, ..self }
    }

    /// The same, only on machines that do not have `older`.
    pub const fn instead_of(self, older: &'static str) -> Rule {
        Rule { instead_of: Some(older), ..self }
    }

    /// The call's number on `machine`, where the rule means something there.
    ///
    /// # Errors
    /// The name, or that of the older call, is not known.
    pub fn number(&self, machine: Machine) -> Result<Option<i64>, SandboxError> {
        let unknown = || wrong(self, "no such system call is known");
        let older = self.instead_of.map_or(Number::NotHere, |older| number(older, machine));
        match (number(self.syscall, machine), older) {
            (Number::Unknown, _) | (_, Number::Unknown) => Err(unknown()),
            (Number::Known(number), Number::NotHere) => Ok(Some(number)),
            (Number::Known(_), Number::Known(_)) | (Number::NotHere, _) => Ok(None),
        }
    }

    /// Whether it allows these arguments of its call; an argument that is not given is 0.
    pub fn allows(&self, arguments: &[u64]) -> bool {
        let given = |pin: &Pin| arguments.get(usize::from(pin.argument)).copied().unwrap_or(0);
        self.pins.iter().all(|pin| (pin.value..=pin.most).contains(&(given(pin) & pin.mask)))
    }
}

/// Argument number `argument` (from 0), an `int`, must be `value`. The kernel ignores its upper half, and so does the pin.
pub const fn pin(argument: u8, value: i32) -> Pin {
    between(argument, value, value)
}

/// Argument number `argument`, likewise, must be one of `least` to `most`: descriptors.
pub const fn between(argument: u8, least: i32, most: i32) -> Pin {
    let (value, most) = (least as u32 as u64, most as u32 as u64);
    Pin { argument, wide: false, mask: u32::MAX as u64, value, most }
}

/// Argument number `argument`, of full width, must have none of the bits of `mask`: `mmap` without PROT_EXEC.
pub const fn without(argument: u8, mask: u64) -> Pin {
    Pin { argument, wide: true, mask, value: 0, most: 0 }
}

/// Argument number `argument`, of full width, must be exactly `value`.
pub const fn exactly(argument: u8, value: u64) -> Pin {
    Pin { argument, wide: true, mask: u64::MAX, value, most: value }
}

/// What a call outside the list leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnMismatch {
    /// The process dies of SIGSYS.
    Kill,
    /// The same, and the process names the call first ([`proof::name_refused_calls`](super::proof::name_refused_calls)).
    Name,
}

/// A compiled filter.
#[derive(Debug)]
pub struct Filter(BpfProgram);

impl Filter {
    /// Compiles lists of rules into one filter for the machine this was compiled for.
    ///
    /// # Errors
    /// An unknown name, a rule without reason, or a pinned call that another rule allows unpinned: the pin would be moot.
    pub fn compile(lists: &[&[Rule]], mismatch: OnMismatch) -> Result<Filter, SandboxError> {
        Filter::compile_for(Machine::HERE, lists, mismatch)
    }

    /// Likewise for any machine.
    ///
    /// # Errors
    /// Likewise.
    pub fn compile_for(
        machine: Machine,
        lists: &[&[Rule]],
        mismatch: OnMismatch,
    ) -> Result<Filter, SandboxError> {
        let mut chains: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
        for rule in lists.iter().flat_map(|list| list.iter()) {
            if rule.reason.is_empty() {
                return Err(wrong(rule, "it gives no reason"));
            }
            if let Some(number) = rule.number(machine)? {
                add(&mut chains, number, rule)?;
            }
        }
        let action = match mismatch {
            OnMismatch::Kill => SeccompAction::KillProcess,
            OnMismatch::Name => SeccompAction::Trap,
        };
        let architecture = match machine {
            Machine::X86_64 => TargetArch::x86_64,
            Machine::Aarch64 => TargetArch::aarch64,
        };
        let filter =
            SeccompFilter::new(chains, action, SeccompAction::Allow, architecture).map_err(failed)?;
        BpfProgram::try_from(filter).map(Filter).map_err(failed)
    }

    /// Enters the filter, with every thread of the process, for good. Sets no_new_privs.
    pub fn apply(&self) -> Result<(), SandboxError> {
        seccompiler::apply_filter_all_threads(&self.0).map_err(failed)
    }

    /// BPF instructions; the kernel takes 4096 at most.
    pub fn instructions(&self) -> usize {
        self.0.len()
    }

    /// The program as the kernel has it (`struct sock_filter`, linux/filter.h), each instruction 8 bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let word = |one: &sock_filter| {
            u64::from(one.code) << 48 | u64::from(one.jt) << 40 | u64::from(one.jf) << 32 | u64::from(one.k)
        };
        self.0.iter().flat_map(|one| word(one).to_be_bytes()).collect()
    }

    /// What [`to_bytes`](Self::to_bytes) wrote. The kernel judges whether it is a program.
    pub fn from_bytes(bytes: &[u8]) -> Filter {
        let (words, _) = bytes.as_chunks::<8>();
        let instruction = |word: &[u8; 8]| {
            let [a, b, jt, jf, k @ ..] = *word;
            sock_filter { code: u16::from_be_bytes([a, b]), jt, jf, k: u32::from_be_bytes(k) }
        };
        Filter(words.iter().map(instruction).collect())
    }
}

/// An empty chain means "any arguments" to the compiler, so an unpinned rule and a pinned one must not meet.
fn add(chains: &mut BTreeMap<i64, Vec<SeccompRule>>, number: i64, rule: &Rule) -> Result<(), SandboxError> {
    let known = chains.contains_key(&number);
    let chain = chains.entry(number).or_default();
    match rule.pins {
        [] if !chain.is_empty() => Err(wrong(rule, "another rule pins arguments of the same call")),
        [] => Ok(()),
        _ if known && chain.is_empty() => Err(wrong(rule, "another rule allows the same call unpinned")),
        pins => {
            let conditions = pins.iter().flat_map(conditions).collect::<Result<_, _>>()?;
            chain.push(SeccompRule::new(conditions).map_err(failed)?);
            Ok(())
        }
    }
}

fn conditions(pin: &Pin) -> Vec<Result<SeccompCondition, SandboxError>> {
    let width = if pin.wide { SeccompCmpArgLen::Qword } else { SeccompCmpArgLen::Dword };
    let whole = pin.mask == u64::MAX || !pin.wide;
    let tests = match (pin.value == pin.most, whole) {
        (true, true) => vec![(SeccompCmpOp::Eq, pin.value)],
        (true, false) => vec![(SeccompCmpOp::MaskedEq(pin.mask), pin.value)],
        (false, _) => vec![(SeccompCmpOp::Ge, pin.value), (SeccompCmpOp::Le, pin.most)],
    };
    let one = |(test, value)| SeccompCondition::new(pin.argument, width.clone(), test, value).map_err(failed);
    tests.into_iter().map(one).collect()
}

fn wrong(rule: &Rule, reason: &'static str) -> SandboxError {
    SandboxError::Rule { syscall: rule.syscall, reason }
}

fn failed(error: impl Display) -> SandboxError {
    SandboxError::Seccomp(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compiled(rules: &[Rule]) -> Result<Filter, SandboxError> {
        Filter::compile(&[rules], OnMismatch::Kill)
    }

    #[test]
    fn a_rule_without_a_reason_or_with_an_unknown_name_does_not_compile() {
        assert!(compiled(&[rule("read", "")]).is_err());
        assert!(compiled(&[rule("raed", "main loop")]).is_err());
        assert!(compiled(&[rule("read", "main loop")]).is_ok());
    }

    #[test]
    fn a_rule_means_something_where_its_call_or_none_older_exists() {
        let on = |rule: Rule| Machine::ALL.map(|machine| rule.number(machine).unwrap());
        assert_eq!(on(rule("dup3", "any")), [Some(292), Some(24)]);
        assert_eq!(on(rule("dup2", "any")), [Some(33), None]);
        assert_eq!(on(rule("dup3", "any").instead_of("dup2")), [None, Some(24)]);
        assert!(rule("dup3", "any").instead_of("dup1").number(Machine::HERE).is_err());
    }

    #[test]
    fn a_rule_allows_what_all_its_pins_allow() {
        const BOTH: Rule = rule("socket", "any").with(&[pin(0, 16), without(1, 0b10)]);
        assert!(BOTH.allows(&[16, 0b101]) && BOTH.allows(&[1 << 32 | 16]));
        assert!(!BOTH.allows(&[17, 0]) && !BOTH.allows(&[16, 0b110]));
        const RUN: Rule = rule("sendmsg", "any").with(&[between(0, 5, 7)]);
        assert_eq!([4, 5, 7, 8, u64::MAX].map(|it| RUN.allows(&[it])), [false, true, true, false, false]);
    }

    #[test]
    fn a_pin_that_another_rule_makes_moot_does_not_compile() {
        const OPEN: Rule = rule("socket", "any");
        const UNIX: Rule = rule("socket", "unix only").with(&[pin(0, libc::AF_UNIX)]);
        const NETLINK: Rule = rule("socket", "netlink only").with(&[pin(0, libc::AF_NETLINK)]);
        assert!(compiled(&[OPEN, UNIX]).is_err());
        assert!(compiled(&[UNIX, OPEN]).is_err());
        assert!(compiled(&[UNIX, NETLINK]).is_ok());
        assert!(compiled(&[OPEN, OPEN]).is_ok());
    }
}
