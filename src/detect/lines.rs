//! Lines of words that threads share, two cache lines each, in memory that is taken when it is first written.
//!
//! Ring threads (and `replay`) write and read them. What a word means is the caller's.
#![forbid(unsafe_code)]

use std::sync::atomic::AtomicU64;

/// Words of a line. With eight, one of a resolver's 10,000 open questions was pushed out now and then; with sixteen, one
/// in a hundred million.
pub const WAYS: usize = 16;
/// Bytes of a cache line, and its words.
const CACHE_LINE: usize = 64;
const CACHE_WORDS: usize = CACHE_LINE / size_of::<AtomicU64>();

/// So many lines.
#[derive(Debug)]
pub struct Lines<const COUNT: usize> {
    words: Box<[AtomicU64]>,
    /// Words before the first that begins a cache line.
    before: usize,
}

impl<const COUNT: usize> Lines<COUNT> {
    /// Zeros.
    pub fn new() -> Self {
        // The allocator's zeros are the kernel's, which nobody has touched. What is collected into elements of the same
        // size stays where it is, and so an optimised build writes nothing here.
        let zeros = vec![0_u64; COUNT * WAYS + CACHE_WORDS];
        let words: Box<[AtomicU64]> = zeros.into_iter().map(AtomicU64::new).collect();
        let before = words.as_ptr().align_offset(CACHE_LINE).min(CACHE_WORDS);
        Lines { words, before }
    }

    /// The line that `hash` chooses.
    pub fn of(&self, hash: u64) -> Option<&[AtomicU64; WAYS]> {
        let at = self.before + hash as usize % COUNT * WAYS;
        self.words.get(at..)?.first_chunk()
    }

    /// Bytes held, touched or not.
    pub fn memory_bytes(&self) -> usize {
        size_of_val::<[AtomicU64]>(&self.words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_begins_at_a_cache_line_and_shares_no_word_with_another() {
        let lines = Lines::<64>::new();
        let starts: Vec<usize> = (0..64).map(|at| lines.of(at).unwrap().as_ptr().addr()).collect();
        assert!(starts.iter().all(|start| start.is_multiple_of(CACHE_LINE)));
        assert!(starts.windows(2).all(|pair| pair[1] - pair[0] == WAYS * size_of::<AtomicU64>()));
        assert_eq!(lines.of(64).unwrap().as_ptr().addr(), starts[0]);
    }
}
