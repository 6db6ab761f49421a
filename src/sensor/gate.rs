//! What the main thread is asked about: decided in the ring threads, so that no flood of forged sources reaches it.
//!
//! Atomics only. What is turned away here has been scored all the same: the score table keeps the evidence, and only the
//! block, the line or the wait for a handshake that there is no allowance for is left out, and counted.
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::allowance::Allowance;
use super::clock::Now;
use crate::detect::table::Standing;

/// Lines of single probes a minute: a scan of all ports a minute would write 10 MB an hour at most, not 500.
const LINES_A_MINUTE: u32 = 1_000;

/// That blocks are held back is said once in so long, milliseconds.
const SAME_LIMIT: u64 = 60_000;

/// SYNs to decoys a minute that wait for their handshake: as many as the table of half-open ones has room for.
const KNOCKS_A_MINUTE: u32 = 20_480;

/// Failures with UDP ports that the kernel is asked about before there are enough of them, a minute. A source has one for
/// each port that is new to it on the second half of its way to an alarm: a handful. A flood of forged sources that get as
/// far shall not have it asked for each, and leaves a part to those who have met more ports than they.
const DOUBTS_A_MINUTE: u32 = 1_200;

/// The gate.
#[derive(Debug)]
pub struct Gate {
    /// BLOCK_LIMIT.
    pub blocks: Allowance,
    /// Lines that no block comes of.
    pub lines: Allowance,
    /// Half-open handshakes with decoys.
    pub knocks: Allowance,
    /// Failures that a service may have taken in without a word.
    pub doubts: Allowance,
    /// Of sources whose probes were turned away.
    pub turned_away: TurnedAway,
}

/// Counts since the start.
#[derive(Debug, Default)]
pub struct TurnedAway {
    /// Probes that counted.
    pub probes: AtomicU64,
    /// Sources that crossed the trigger.
    pub scans: AtomicU64,
    /// Blocks that BLOCK_LIMIT held back.
    pub blocks: AtomicU64,
    /// Lines that were not written for their number.
    pub lines: AtomicU64,
    /// When it was last said that blocks are held back, milliseconds of uptime and one; 0: never.
    told: AtomicU64,
    /// And how many it were by then.
    known: AtomicU64,
}

/// One thread's counts of a round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Probes.
    pub probes: u64,
    /// Crossings.
    pub scans: u64,
    /// Blocks.
    pub blocks: u64,
    /// Lines.
    pub lines: u64,
}

/// What would come of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Worth {
    /// A block is sought for its source.
    Block,
    /// The same, and where there is none, a line.
    BlockOrLine,
    /// A line at most.
    Line,
}

impl Gate {
    /// Every allowance full.
    pub fn new(block_limit: u32) -> Gate {
        Gate::with_lines(block_limit, LINES_A_MINUTE)
    }

    /// One that turns nobody away: a capture's flood is over, and whoever replays it wants to know all.
    pub fn open() -> Gate {
        Gate::with_lines(u32::MAX, u32::MAX)
    }

    fn with_lines(block_limit: u32, lines: u32) -> Gate {
        Gate {
            blocks: Allowance::new(block_limit),
            lines: Allowance::new(lines),
            knocks: Allowance::new(KNOCKS_A_MINUTE),
            doubts: Allowance::new(DOUBTS_A_MINUTE),
            turned_away: TurnedAway::default(),
        }
    }

    /// Whether the main thread is to hear of a probe that is `worth` so much. Pays nothing: the main thread does, for
    /// what it makes of it.
    pub fn admits(&self, standing: &Standing, worth: Worth, now: Now, tally: &mut Tally) -> bool {
        let ports = weight(standing);
        let seeks_block = worth != Worth::Line;
        if standing.verified || seeks_block && self.blocks.affords(ports, now.uptime) {
            return true;
        }
        // A source that probed several ports is told of even where it cannot be blocked.
        let may_be_told = worth != Worth::Block || standing.distinct_ports > 1;
        if may_be_told && self.lines.affords(ports, now.uptime) {
            return true;
        }
        tally.probes += 1;
        tally.scans += u64::from(standing.crossed);
        tally.blocks += u64::from(seeks_block);
        tally.lines += u64::from(may_be_told);
        false
    }

    /// Whether blocks were held back and nothing was said of it lately.
    pub fn has_news(&self, now: Now) -> bool {
        let told = self.turned_away.told.load(Relaxed);
        let due = told == 0 || now.uptime.saturating_sub(told) >= SAME_LIMIT;
        due && self.turned_away.blocks.load(Relaxed) > self.turned_away.known.load(Relaxed)
    }

    /// It has been said.
    pub fn told(&self, now: Now) {
        self.turned_away.known.store(self.turned_away.blocks.load(Relaxed), Relaxed);
        self.turned_away.told.store(now.uptime.saturating_add(1), Relaxed);
    }

    /// Adds up a round.
    pub fn add(&self, tally: Tally) {
        let TurnedAway { probes, scans, blocks, lines, .. } = &self.turned_away;
        let pairs =
            [(probes, tally.probes), (scans, tally.scans), (blocks, tally.blocks), (lines, tally.lines)];
        for (sum, count) in pairs.into_iter().filter(|&(_, count)| count > 0) {
            sum.fetch_add(count, Relaxed);
        }
    }
}

/// How much of an allowance a source may use: proof counts like all ports.
pub fn weight(standing: &Standing) -> u32 {
    if standing.verified { u32::MAX } else { standing.distinct_ports }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::table::Ledger;
    use crate::sensor::clock::Clock;

    fn standing(distinct_ports: u32, verified: bool) -> Standing {
        Standing {
            score: 1.0,
            distinct_ports,
            probes: distinct_ports,
            first_seen: 0,
            verified,
            proven: verified,
            crossed: true,
            triggered: true,
            retransmission: false,
            new_port: true,
            quiet: false,
            ledger: Ledger::Watched,
        }
    }

    /// How many of a thousand are let in and have their block paid for.
    fn paid(gate: &Gate, of: Standing, now: Now, tally: &mut Tally) -> usize {
        let pays =
            || gate.admits(&of, Worth::Block, now, tally) && gate.blocks.spend(weight(&of), now.uptime);
        std::iter::repeat_with(pays).take(1_000).filter(|&paid| paid).count()
    }

    #[test]
    fn a_flood_of_single_probes_leaves_half_of_the_blocks_to_scanners_and_is_counted() {
        let (gate, now, mut tally) = (Gate::new(240), Clock::start().now(), Tally::default());
        assert_eq!(paid(&gate, standing(1, false), now, &mut tally), 120);
        assert_eq!(tally, Tally { probes: 880, scans: 880, blocks: 880, lines: 0 });
        assert_eq!(paid(&gate, standing(240, false), now, &mut tally), 120);
        assert!(gate.admits(&standing(1, true), Worth::Block, now, &mut tally));
        gate.add(tally);
        assert!(gate.has_news(now));
        gate.told(now);
        assert!(!gate.has_news(now));
    }

    #[test]
    fn who_probed_several_ports_has_its_line_where_there_is_no_block_left() {
        let (gate, now, mut tally) = (Gate::new(2), Clock::start().now(), Tally::default());
        while gate.blocks.spend(9, now.uptime) {}
        assert!(!gate.admits(&standing(1, false), Worth::Block, now, &mut tally));
        assert!(gate.admits(&standing(2, false), Worth::Block, now, &mut tally));
        assert!(gate.admits(&standing(1, false), Worth::BlockOrLine, now, &mut tally));
        while gate.lines.spend(1, now.uptime) {}
        assert!(!gate.admits(&standing(1, false), Worth::Line, now, &mut tally));
        assert!(gate.admits(&standing(2, false), Worth::Line, now, &mut tally));
        assert_eq!(tally, Tally { probes: 2, scans: 2, blocks: 1, lines: 1 });
    }
}
