//! A line in which each item waits until a few more have come, so that what it needs can be fetched meanwhile.
//!
//! Pure; a ring thread has one of packets that were read and not yet judged. Never loses or reorders one, and never moves
//! one either: to copy a packet costs a tenth of judging it.
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

impl<T> Default for DelayLine<T> {
    fn default() -> DelayLine<T> {
        DelayLine { waiting: [const { None }; BEHIND], at: 0 }
    }
}

impl<T> DelayLine<T> {
    /// Takes an item in, after `act` had the one whose turn that makes it. What the item is made of may be read that
    /// late: stores of a moment ago are slow to read back in other widths than they were made in.
    #[inline]
    pub fn push(&mut self, item: impl FnOnce() -> T, act: impl FnOnce(&T)) {
        self.step(|| Some(item()), act);
    }

    /// `act` has whoever waits, in order, where nothing more comes.
    pub fn empty(&mut self, mut act: impl FnMut(&T)) {
        (0..BEHIND).for_each(|_| self.step(|| None, &mut act));
    }

    #[inline]
    fn step(&mut self, next: impl FnOnce() -> Option<T>, act: impl FnOnce(&T)) {
        if let Some(place) = self.waiting.get_mut(self.at) {
            if let Some(due) = place.as_ref() {
                act(due);
            }
            *place = next();
        }
        self.at = (self.at + 1) % BEHIND;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_item_has_its_turn_when_four_more_have_come() {
        let (mut line, mut seen) = (DelayLine::default(), Vec::new());
        (0..6).for_each(|item| line.push(|| item, |&due| seen.push(due)));
        assert_eq!(seen, [0, 1]);
    }

    proptest! {
        #[test]
        fn all_have_theirs_in_order_however_often_the_line_is_emptied(rounds in prop::collection::vec(0_usize..12, 0..12)) {
            let (mut line, mut sent, mut seen) = (DelayLine::default(), 0, Vec::new());
            for count in rounds {
                (sent..sent + count).for_each(|item| line.push(|| item, |&due| seen.push(due)));
                sent += count;
                line.empty(|&due| seen.push(due));
                prop_assert_eq!(seen.len(), sent);
            }
            prop_assert!(seen.into_iter().eq(0..sent));
        }
    }
}
