//! A walk through the record, some blocks at a time, once round from wherever the last one ended. Pure; helper.
#![forbid(unsafe_code)]

use ipnet::IpNet;

use crate::helper::respond::{InForce, Walk};

/// Where the walk is, and what is still before it.
#[derive(Debug, Default)]
pub(super) struct Round {
    at: Option<IpNet>,
    left: Left,
}

#[derive(Debug, Default)]
enum Left {
    #[default]
    Nothing,
    /// To the end, and from the beginning to here.
    Whole(Option<IpNet>),
    UpTo(IpNet),
}

impl Round {
    /// Goes round once, from where it is: what was seen before may have changed since.
    pub(super) fn begin(&mut self) {
        self.left = Left::Whole(self.at);
    }

    /// The next block of this round.
    pub(super) fn next(&mut self, record: &Walk<'_>) -> Option<(IpNet, InForce)> {
        loop {
            let (next, then) = match self.left {
                Left::Nothing => return None,
                Left::Whole(start) => (record(self.at), start.map_or(Left::Nothing, Left::UpTo)),
                Left::UpTo(start) => (record(self.at).filter(|(it, _)| *it <= start), Left::Nothing),
            };
            self.at = next.map(|(target, _)| target);
            match next {
                Some(next) => return Some(next),
                None => self.left = then,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use super::*;
    use crate::protocol::Responses;

    fn walk(record: &[u8]) -> impl Fn(Option<IpNet>) -> Option<(IpNet, InForce)> {
        let in_force = InForce { with: Responses::NONE, left: Duration::ZERO };
        move |last| {
            let mut targets =
                record.iter().map(|&it| IpNet::from(std::net::IpAddr::from(Ipv4Addr::from(u32::from(it)))));
            targets.find(|target| Some(*target) > last).map(|target| (target, in_force))
        }
    }

    fn take(round: &mut Round, record: &[u8], most: usize) -> usize {
        std::iter::from_fn(|| round.next(&walk(record))).take(most).count()
    }

    #[test]
    fn each_block_is_met_once_a_round_wherever_it_begins() {
        let record: Vec<u8> = (1..=9).collect();
        let mut round = Round::default();
        assert_eq!(take(&mut round, &record, 99), 0);
        for stops in 0..9 {
            round.begin();
            take(&mut round, &record, stops);
            round.begin();
            assert_eq!(take(&mut round, &record, 99), 9, "after {stops}");
            assert_eq!(take(&mut round, &record, 99), 0);
        }
    }

    #[test]
    fn a_record_that_changes_meanwhile_is_walked_to_its_end() {
        let mut round = Round::default();
        round.begin();
        assert_eq!(take(&mut round, &[1, 3, 5, 7], 2), 2);
        round.begin();
        assert_eq!(take(&mut round, &[1, 2, 7, 8, 9], 99), 5);
        round.begin();
        assert_eq!(take(&mut round, &[], 99), 0);
    }
}
