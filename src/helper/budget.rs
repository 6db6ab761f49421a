//! A token bucket: how many requests a captured sensor can have carried out. Pure, the time is passed in; helper.
#![forbid(unsafe_code)]

/// Credit that one request costs; each millisecond earns as much as requests a minute are allowed.
const PRICE: u64 = 60_000;

/// An allowance of requests a minute, of which some may come at once.
#[derive(Debug)]
pub struct Budget {
    per_minute: u64,
    most: u64,
    credit: u64,
    at: u64,
}

impl Budget {
    /// A full bucket at `now` (milliseconds of a clock that never goes back).
    pub fn new(per_minute: u32, burst: u32, now: u64) -> Budget {
        let most = u64::from(burst) * PRICE;
        Budget { per_minute: per_minute.into(), most, credit: most, at: now }
    }

    /// Pays for one request, if there is credit left.
    pub fn spend(&mut self, now: u64) -> bool {
        let earned = now.saturating_sub(self.at).saturating_mul(self.per_minute);
        self.credit = self.credit.saturating_add(earned).min(self.most);
        self.at = self.at.max(now);
        match self.credit.checked_sub(PRICE) {
            Some(rest) => self.credit = rest,
            None => return false,
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_burst_is_served_and_then_the_rate_holds() {
        let mut budget = Budget::new(60, 10, 5_000);
        assert_eq!((0..100).filter(|_| budget.spend(5_000)).count(), 10);
        assert!(!budget.spend(5_999));
        assert!(budget.spend(6_000));
        assert!(!budget.spend(6_000));
    }

    #[test]
    fn who_asks_nothing_for_a_week_saves_nothing_up() {
        let mut budget = Budget::new(60, 10, 0);
        assert_eq!((0..100).filter(|_| budget.spend(7 * 24 * 3_600_000)).count(), 10);
    }

    proptest! {
        #[test]
        fn no_pattern_of_requests_gets_more_than_burst_and_rate(steps in prop::collection::vec(0u64..3_000, 1..500)) {
            let (mut budget, mut now, mut served) = (Budget::new(120, 7, 0), 0, 0);
            for step in steps {
                now += step;
                served += u64::from(budget.spend(now));
            }
            prop_assert!(served <= 7 + now * 120 / 60_000);
        }
    }
}
