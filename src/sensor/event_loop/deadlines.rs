//! What is due: when the loop must wake though nothing happens, and what it does then.
//!
//! Main thread. Must never poll: but for the sweep and the watchdog's beat, a deadline stands only while something waits
//! for it.
#![forbid(unsafe_code)]

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nix::sys::epoll::EpollTimeout;

use super::EventLoop;
use crate::event::{Event, EventType};
use crate::protocol::Request;
use crate::sensor::clock::Now;
use crate::sensor::flood::Costs;
use crate::sensor::half_open::Knock;
use crate::sensor::turn::Turn;

impl EventLoop {
    /// Until the next deadline.
    pub(super) fn timeout(&self) -> EpollTimeout {
        let now = self.shared.clock.now();
        let deadlines = [
            self.decoys.next_deadline(),
            self.half_open.next_deadline(),
            self.control.next_deadline(),
            self.pulse.next_deadline(),
            self.notifier.next_beat(),
            self.host.next_try(),
        ];
        let nearest = deadlines.into_iter().flatten().fold(self.sweep_at, Instant::min);
        let wait = nearest.saturating_duration_since(now.instant);
        let block =
            self.responder.blocks.next_end().map(|end| Duration::from_millis(end.saturating_sub(now.uptime)));
        let quiet = self.followed.next_quiet(&self.shared.trails);
        let quiet = quiet.map(|quiet| Duration::from_micros(quiet.saturating_sub(now.micros())));
        let told = self.reporter.wants_flush(now.instant);
        let flood = self.floods.next_look();
        let soonest = block.into_iter().chain(quiet).chain(told).chain(flood).fold(wait, Duration::min);
        // A millisecond more, as epoll counts whole ones and must not come too early.
        EpollTimeout::try_from(soonest + Duration::from_millis(1)).unwrap_or(EpollTimeout::MAX)
    }

    pub(super) fn on_time(&mut self, now: Now) {
        let mut turn = Turn::at(now);
        self.host.begin_turn();
        let left_open: Vec<Knock> = self.half_open.expired(now.instant).collect();
        for (probe, interface) in left_open {
            self.judge(probe, interface, &mut turn);
        }
        self.decoys.on_deadline(now.instant, &self.epoll);
        self.control.sweep(&self.epoll, now.instant);
        let waited = self.pulse.missed(now.instant);
        self.answer_status(waited, false, now);
        self.responder.on_time(&mut turn);
        self.leave_the_quiet(&mut turn);
        self.look_for_floods(&mut turn);
        if self.host.next_try().is_some_and(|next| next <= now.instant) {
            self.on_routes(now);
        }
        if self.traps.are_behind() {
            self.set_traps();
        }
        self.reporter.flush();
        self.reporter.on_names(now);
        self.tell(turn);
        if self.notifier.next_beat().is_some_and(|due| due <= now.instant) {
            self.notifier.beat(now.instant, &self.in_short(now));
            // A full queue needs no question: its requests will be answered, or the helper stands still.
            let _ = self.responder.requests.send(|id| Request::Ping { id });
        }
        if self.sweep_at <= now.instant {
            self.shared.table.sweep(now.micros());
            self.sweep_at = now.instant + self.sweep_every;
        }
    }

    fn leave_the_quiet(&mut self, turn: &mut Turn) {
        for quiet in self.followed.leave_quiet(&self.shared.trails, turn.now.micros()) {
            turn.add(self.responder.summary(&quiet, turn.now), quiet.case.interface);
        }
    }

    fn look_for_floods(&mut self, turn: &mut Turn) {
        let costs = || Costs {
            drops: self.host.packets_and_drops().1,
            held_back: self.shared.gate.turned_away.blocks.load(Ordering::Relaxed),
        };
        if let Some(flood) = self.floods.look(&self.shared.gauge, turn.now, costs) {
            turn.add(Event { flood: Some(flood), ..turn.event(EventType::Flood) }, 0);
        }
    }
}
