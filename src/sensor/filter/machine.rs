//! A classic BPF machine for the tests: the judge of what the generated programs do.
#![forbid(unsafe_code)]

use super::Instruction;
use super::assembler::code::*;

/// What a program sees: the packet from its network header on, and what the kernel knows about it.
#[derive(Clone, Debug, Default)]
pub struct Sight {
    pub bytes: Vec<u8>,
    pub ethertype: u16,
    pub packet_type: u8,
    pub interface: u32,
    pub hardware: u16,
}

/// Runs `program`; like the kernel it answers 0 when a load leaves the packet.
pub fn run(program: &[Instruction], sight: &Sight) -> u32 {
    step(program, sight).unwrap_or(0)
}

fn step(program: &[Instruction], sight: &Sight) -> Option<u32> {
    let (mut a, mut x, mut memory, mut at) = (0u32, 0u32, [0u32; 16], 0usize);
    loop {
        let Instruction { code, jump_true, jump_false, k } = program[at];
        at += 1;
        let mut branch = |holds: bool| at += usize::from(if holds { jump_true } else { jump_false });
        match code {
            LOAD_WORD => a = ancillary(sight, k)?,
            LOAD_HALF => a = load(sight, k as usize, 2)?,
            LOAD_BYTE => a = load(sight, k as usize, 1)?,
            LOAD_HALF_X => a = load(sight, x as usize + k as usize, 2)?,
            LOAD_BYTE_X => a = load(sight, x as usize + k as usize, 1)?,
            LOAD_MEMORY => a = memory[k as usize],
            X_IS => x = k,
            X_FROM_MEMORY => x = memory[k as usize],
            X_HEADER_LENGTH => x = 4 * (load(sight, k as usize, 1)? & 15),
            STORE => memory[k as usize] = a,
            SUBTRACT_X => a = a.wrapping_sub(x),
            AND => a &= k,
            SHIFT_RIGHT => a >>= k,
            JUMP => at += k as usize,
            IF_EQUAL => branch(a == k),
            IF_EQUAL_X => branch(a == x),
            IF_AT_LEAST => branch(a >= k),
            IF_ANY => branch(a & k != 0),
            RETURN => return Some(k),
            _ => panic!("no such operation: {code:#x}"),
        }
    }
}

fn load(sight: &Sight, at: usize, size: usize) -> Option<u32> {
    let bytes = sight.bytes.get(at..at + size)?;
    Some(bytes.iter().fold(0, |number, &byte| number << 8 | u32::from(byte)))
}

fn ancillary(sight: &Sight, k: u32) -> Option<u32> {
    match (k as i32) - libc::SKF_AD_OFF {
        libc::SKF_AD_PROTOCOL => Some(sight.ethertype.into()),
        libc::SKF_AD_PKTTYPE => Some(sight.packet_type.into()),
        libc::SKF_AD_IFINDEX => Some(sight.interface),
        libc::SKF_AD_HATYPE => Some(sight.hardware.into()),
        other => panic!("no such ancillary load: {other}"),
    }
}

/// What the kernel demands before it takes a program (bpf_check_classic): jumps inside, a RETURN at the end.
pub fn check(program: &[Instruction]) {
    assert!((1..=4096).contains(&program.len()), "{} instructions", program.len());
    assert_eq!(program.last().map(|last| last.code), Some(RETURN));
    for (at, instruction) in program.iter().enumerate() {
        let farthest = match instruction.code {
            JUMP => instruction.k as usize,
            _ => usize::from(instruction.jump_true.max(instruction.jump_false)),
        };
        let runs_on = usize::from(instruction.code != RETURN);
        assert!(at + farthest + runs_on < program.len(), "jump out of the program at {at}");
    }
}
