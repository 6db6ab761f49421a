//! A line in which each item waits until a few more have come, so that what it needs can be fetched meanwhile.
//!
//! Pure; a ring thread has one of packets that were read and not yet judged. Never loses or reorders one.
#![forbid(unsafe_code)]

/// How many items wait: memory that is called takes about as long as two packets' judging to answer.
const BEHIND: usize = 4;

/// The line.
#[derive(Debug)]
pub struct DelayLine<T> {
    waiting: [Option<T>; BEHIND],
    /// Whose turn is next.
    at: usize,
}

impl<T> DelayLine<T> {
    /// An empty one.
    pub fn new() -> DelayLine<T> {
        DelayLine { waiting: [const { None }; BEHIND], at: 0 }
    }

    /// Takes `item` in, and gives the one whose turn that makes it.
    #[inline]
    pub fn push(&mut self, item: T) -> Option<T> {
        self.step(Some(item))
    }

    /// Whoever waits, in order, where nothing more comes: to be asked until it says `None`.
    pub fn pop(&mut self) -> Option<T> {
        (0..BEHIND).find_map(|_| self.step(None))
    }

    #[inline]
    fn step(&mut self, next: Option<T>) -> Option<T> {
        let place = self.waiting.get_mut(self.at % BEHIND)?;
        self.at = (self.at + 1) % BEHIND;
        std::mem::replace(place, next)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_item_comes_out_when_four_more_have_come() {
        let mut line = DelayLine::new();
        let out: Vec<_> = (0..6).map(|item| line.push(item)).collect();
        assert_eq!(out, [None, None, None, None, Some(0), Some(1)]);
    }

    proptest! {
        #[test]
        fn all_come_out_in_order_however_often_the_line_is_emptied(rounds in prop::collection::vec(0_usize..12, 0..12)) {
            let (mut line, mut sent, mut seen) = (DelayLine::new(), 0, Vec::new());
            for count in rounds {
                seen.extend((sent..sent + count).filter_map(|item| line.push(item)));
                sent += count;
                seen.extend(std::iter::from_fn(|| line.pop()));
                prop_assert_eq!(seen.len(), sent);
            }
            prop_assert!(seen.into_iter().eq(0..sent));
        }
    }
}
