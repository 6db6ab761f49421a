//! Writes classic BPF from its end to its beginning.
//!
//! Jumps of that language only go forward, so every target is known when the jump to it is written, and a target
//! out of an 8-bit offset's reach gets a trampoline on the spot. Pure.
#![forbid(unsafe_code)]

/// One instruction, as `struct sock_filter` (linux/filter.h) has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Operation: class, size, mode.
    pub code: u16,
    /// Instructions to skip if the test holds.
    pub jump_true: u8,
    /// Instructions to skip if it does not.
    pub jump_false: u8,
    /// Operand.
    pub k: u32,
}

/// The operations in use (linux/bpf_common.h): A and X are the machine's registers, M its scratch words.
pub mod code {
    /// A = 32 bits at k.
    pub const LOAD_WORD: u16 = 0x20;
    /// A = 16 bits at k.
    pub const LOAD_HALF: u16 = 0x28;
    /// A = 8 bits at k.
    pub const LOAD_BYTE: u16 = 0x30;
    /// A = 16 bits at X + k.
    pub const LOAD_HALF_X: u16 = 0x48;
    /// A = 8 bits at X + k.
    pub const LOAD_BYTE_X: u16 = 0x50;
    /// A = M\[k\].
    pub const LOAD_MEMORY: u16 = 0x60;
    /// X = k.
    pub const X_IS: u16 = 0x01;
    /// X = M\[k\].
    pub const X_FROM_MEMORY: u16 = 0x61;
    /// X = 4 × (byte at k & 15): the length of an IPv4 header.
    pub const X_HEADER_LENGTH: u16 = 0xb1;
    /// M\[k\] = A.
    pub const STORE: u16 = 0x02;
    /// A -= X.
    pub const SUBTRACT_X: u16 = 0x1c;
    /// A &= k.
    pub const AND: u16 = 0x54;
    /// A >>= k.
    pub const SHIFT_RIGHT: u16 = 0x74;
    /// Go on k instructions later.
    pub const JUMP: u16 = 0x05;
    /// A == k?
    pub const IF_EQUAL: u16 = 0x15;
    /// A == X?
    pub const IF_EQUAL_X: u16 = 0x1d;
    /// A >= k, unsigned?
    pub const IF_AT_LEAST: u16 = 0x35;
    /// A & k, any bit?
    pub const IF_ANY: u16 = 0x45;
    /// Done: so many bytes of the packet go up.
    pub const RETURN: u16 = 0x06;
}

/// A place in the program to jump to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark(usize);

/// Beyond this a target gets a trampoline: an 8-bit offset less the trampolines that the jump itself may need.
const REACH: usize = 250;
/// In a port search the ways out are brought near again before they are out of reach, once for many jumps.
const REFRESH: usize = 200;

/// The program so far, last instruction first.
#[derive(Default)]
pub struct Assembler {
    reversed: Vec<Instruction>,
}

impl Assembler {
    /// The program in running order.
    pub fn finish(mut self) -> Vec<Instruction> {
        self.reversed.reverse();
        self.reversed
    }

    /// Ends the program with `bytes` of the packet accepted.
    pub fn accept(&mut self, bytes: u32) -> Mark {
        self.place(Instruction { code: code::RETURN, jump_true: 0, jump_false: 0, k: bytes })
    }

    /// An operation without a choice; `next` follows it.
    pub fn operation(&mut self, code: u16, k: u32, next: Mark) -> Mark {
        if self.skip(next) > 0 {
            self.jump(next);
        }
        self.place(Instruction { code, jump_true: 0, jump_false: 0, k })
    }

    /// A test of A: go on at `yes` or at `no`.
    pub fn test(&mut self, code: u16, k: u32, yes: Mark, no: Mark) -> Mark {
        let (yes, no) = (self.near(yes, REACH), self.near(no, REACH));
        let (jump_true, jump_false) = (self.short_skip(yes), self.short_skip(no));
        self.place(Instruction { code, jump_true, jump_false, k })
    }

    /// Whether A is one of `values`.
    pub fn any_of(&mut self, values: &[u32], yes: Mark, no: Mark) -> Mark {
        let rest = |this: &mut Assembler, no, &value| this.test(code::IF_EQUAL, value, yes, no);
        values.iter().rev().fold(no, |no, value| rest(self, no, value))
    }

    /// Whether A is in one of `ranges`: ascending, disjoint, both ends included. A binary search.
    pub fn in_ranges(&mut self, ranges: &[(u16, u16)], yes: Mark, no: Mark) -> Mark {
        // Membership flips at each edge: below edge 0 a value is outside, from edge 0 on inside, from edge 1 on
        // outside again.
        let edges: Vec<u32> =
            ranges.iter().flat_map(|&(first, last)| [u32::from(first), u32::from(last) + 1]).collect();
        let mut ways_out = [no, yes];
        self.search(&edges, false, &mut ways_out)
    }

    fn search(&mut self, edges: &[u32], inside: bool, ways_out: &mut [Mark; 2]) -> Mark {
        let Some((below, edge, above)) = split_in_the_middle(edges) else {
            let [no, yes] = *ways_out;
            return if inside { yes } else { no };
        };
        *ways_out = ways_out.map(|way| self.near(way, REFRESH));
        let from_edge = inside ^ (below.len() % 2 == 0);
        let above = self.search(above, from_edge, ways_out);
        let below = self.search(below, inside, ways_out);
        self.test(code::IF_AT_LEAST, edge, above, below)
    }

    /// A mark for the same place that a jump placed next can reach.
    fn near(&mut self, mark: Mark, reach: usize) -> Mark {
        if self.skip(mark) > reach { self.jump(mark) } else { mark }
    }

    fn jump(&mut self, mark: Mark) -> Mark {
        let k = self.skip(mark) as u32;
        self.place(Instruction { code: code::JUMP, jump_true: 0, jump_false: 0, k })
    }

    /// How many instructions lie between one placed next and `mark`.
    fn skip(&self, mark: Mark) -> usize {
        self.reversed.len() - mark.0
    }

    /// Fits: `near` saw to it, and at most one trampoline was placed since.
    fn short_skip(&self, mark: Mark) -> u8 {
        u8::try_from(self.skip(mark)).unwrap_or(u8::MAX)
    }

    fn place(&mut self, instruction: Instruction) -> Mark {
        self.reversed.push(instruction);
        Mark(self.reversed.len())
    }
}

fn split_in_the_middle(edges: &[u32]) -> Option<(&[u32], u32, &[u32])> {
    let (below, rest) = edges.split_at(edges.len() / 2);
    let (edge, above) = rest.split_first()?;
    Some((below, *edge, above))
}
