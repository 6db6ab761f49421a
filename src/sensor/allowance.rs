//! How much of something a minute: blocks on evidence that may be forged (BLOCK_LIMIT), lines, half-open handshakes.
//!
//! Pure; the time is passed in. One word for all threads: a ring thread asks in mid-flood, the main thread pays. The
//! helper has a budget of its own.
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What one costs; each millisecond earns as much as are allowed a minute.
const PRICE: u64 = 60_000;

/// A minute's worth at most. A source that probed `n` ports may use all but an `n + 1`th of it: one half is beyond
/// single packets, a third beyond two, and to keep out a scanner of a hundred ports a flood must forge a hundred packets
/// for each of its sources.
#[derive(Debug)]
pub struct Allowance {
    per_minute: u64,
    /// What was ever earned, less what is left: it never falls behind what a full allowance would have left.
    spent: AtomicU64,
}

impl Allowance {
    /// A full one; the clock begins at 0, milliseconds.
    pub fn new(per_minute: u32) -> Allowance {
        Allowance { per_minute: per_minute.into(), spent: AtomicU64::new(0) }
    }

    /// Whether one more can be paid for, on behalf of a source that probed so many different ports.
    pub fn affords(&self, distinct_ports: u32, now: u64) -> bool {
        self.after(self.spent.load(Relaxed), distinct_ports, now).is_some()
    }

    /// Pays for it, if it can be paid for.
    pub fn spend(&self, distinct_ports: u32, now: u64) -> bool {
        self.spent.fetch_update(Relaxed, Relaxed, |spent| self.after(spent, distinct_ports, now)).is_ok()
    }

    /// What will have been spent.
    fn after(&self, spent: u64, distinct_ports: u32, now: u64) -> Option<u64> {
        let earned = now.saturating_mul(self.per_minute);
        let most = self.per_minute.saturating_mul(PRICE);
        let share = u64::from(distinct_ports.max(1)).saturating_add(1);
        let kept = self.per_minute.checked_div(share).unwrap_or(0).saturating_mul(PRICE);
        let after = spent.max(earned).saturating_add(PRICE);
        (after.saturating_sub(earned).saturating_add(kept) <= most).then_some(after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_probes_use_up_one_half_two_a_third_of_the_rest_and_many_go_on() {
        let allowance = Allowance::new(60);
        let spent = |ports, now| (0..1000).filter(|_| allowance.spend(ports, now)).count();
        assert_eq!([1, 2, 5, 100, u32::MAX].map(|ports| spent(ports, 5)), [30, 10, 10, 10, 0]);
        assert!(!allowance.spend(100, 500) && allowance.spend(100, 1_005) && !allowance.spend(1, 1_005));
        assert_eq!(spent(60, 3_600_000), 60);
    }

    #[test]
    fn the_smallest_allowance_is_of_use() {
        assert!(Allowance::new(1).spend(1, 0));
    }

    #[test]
    fn asking_costs_nothing_and_four_threads_together_spend_no_more_than_there_is() {
        let allowance = Allowance::new(600);
        assert!((0..1000).all(|_| allowance.affords(1, 7)));
        let paid = std::thread::scope(|scope| {
            let spenders =
                [(); 4].map(|()| scope.spawn(|| (0..1000).filter(|_| allowance.spend(u32::MAX, 7)).count()));
            spenders.map(|spender| spender.join().unwrap()).iter().sum::<usize>()
        });
        assert_eq!((paid, allowance.affords(9, 7)), (600, false));
    }
}
