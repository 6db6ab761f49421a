//! How many sources a minute may be blocked on evidence that somebody else may have forged (BLOCK_LIMIT).
//!
//! Pure, main thread; the time is passed in. Proven sources never come here. The helper has a budget of its own.
#![forbid(unsafe_code)]

/// Credit that one block costs; each millisecond earns as much as blocks a minute are allowed.
const PRICE: u64 = 60_000;

/// A minute's worth of blocks at most, the last half of it for sources that probed several ports: to forge those takes
/// a flood so many times larger, while a flood of single packets from everywhere is what anybody can send.
#[derive(Debug)]
pub struct Allowance {
    per_minute: u64,
    credit: u64,
    at: u64,
}

impl Allowance {
    /// A full one; the clock begins at 0, milliseconds.
    pub fn new(per_minute: u32) -> Allowance {
        let per_minute = u64::from(per_minute);
        Allowance { per_minute, credit: per_minute.saturating_mul(PRICE), at: 0 }
    }

    /// Whether the block of a source that probed so many different ports can be paid for.
    pub fn affords(&mut self, distinct_ports: u32, now: u64) -> bool {
        let most = self.per_minute.saturating_mul(PRICE);
        let earned = now.saturating_sub(self.at).saturating_mul(self.per_minute);
        self.credit = self.credit.saturating_add(earned).min(most);
        self.at = self.at.max(now);
        let kept = if distinct_ports > 1 { 0 } else { most / 2 };
        self.credit >= kept.saturating_add(PRICE)
    }

    /// Pays for it, if it can be paid for.
    pub fn spend(&mut self, distinct_ports: u32, now: u64) -> bool {
        let pays = self.affords(distinct_ports, now);
        self.credit = self.credit.saturating_sub(if pays { PRICE } else { 0 });
        pays
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_probes_use_up_one_half_and_several_go_on() {
        let mut allowance = Allowance::new(60);
        assert_eq!((0..1000).filter(|_| allowance.spend(1, 5)).count(), 30);
        assert_eq!((0..1000).filter(|_| allowance.spend(2, 5)).count(), 30);
        assert!(!allowance.spend(9, 500) && allowance.spend(9, 1_005) && !allowance.spend(1, 1_005));
        assert_eq!((0..1000).filter(|_| allowance.spend(2, 3_600_000)).count(), 60);
    }
}
