//! A case in the words of an event.
#![forbid(unsafe_code)]

use super::{Case, FAILED_LATELY, LATELY_TOLD, Responder, TOLD, Turn};
use crate::event::{Action, ActionVerdict, Event, EventType, Flow, Scan, Summary};
use crate::sensor::clock::Now;
use crate::sensor::followed::Quiet;

impl Responder {
    /// Where probes over the other protocol earn it something else it is not quiet meanwhile: what is said is paid for here.
    pub(super) fn tell_of_wait(
        &mut self,
        told: EventType,
        case: &Case,
        (run_only, until): (bool, u64),
        turn: &mut Turn,
    ) {
        let quiet = until.saturating_sub(turn.now.micros());
        if !run_only || !self.modes_differ() {
            self.spare(told, case, (FAILED_LATELY, quiet), turn);
        } else if case.standing.quiet || self.has_a_line(case, turn.now) {
            self.tell(told, case, Some(suppressed(FAILED_LATELY)), turn);
        }
    }

    /// Not to be blocked, why, and for how long nothing more is said.
    pub(super) fn spare(&self, told: EventType, case: &Case, (why, quiet): (&str, u64), turn: &mut Turn) {
        self.table.quiet(self.watch.account(&case.probe), turn.now.micros().saturating_add(quiet));
        self.tell(told, case, Some(suppressed(why)), turn);
    }

    /// What a scanner did from its alarm on, now that it is quiet.
    pub fn summary(&self, quiet: &Quiet, now: Now) -> Event {
        let Quiet { case, trail, alarm } = quiet;
        let account = self.watch.account(&case.probe).in_ledger(case.standing.ledger);
        let latest = self.table.standing(account, now.micros());
        let case = Case { standing: latest.unwrap_or(case.standing), ..*case };
        let summary = Summary {
            probes: trail.probes,
            distinct_ports: trail.ports.len() as u64,
            ports: first_ranges(&trail.ports.to_string()),
            seconds: trail.latest.saturating_sub(*alarm) / 1_000_000,
        };
        Event { summary: Some(summary), ..self.event_of(EventType::Stats, &case, None, now) }
    }

    pub(super) fn tell_once(
        &mut self,
        told: EventType,
        case: &Case,
        verdict: ActionVerdict,
        turn: &mut Turn,
    ) {
        if !self.tell_all {
            let until = turn.now.micros().saturating_add(TOLD);
            self.table.quiet(self.watch.account(&case.probe), until);
            if self.told.len() >= LATELY_TOLD {
                self.told.pop_front();
            }
            self.told.push_back((self.watch.source_key(case.probe.source), until));
        }
        self.tell(told, case, Some(Action::new(verdict)), turn);
    }

    pub(super) fn tell(&self, told: EventType, case: &Case, action: Option<Action>, turn: &mut Turn) {
        turn.add(self.event_of(told, case, action, turn.now), case.interface);
    }

    fn event_of(&self, told: EventType, case: &Case, action: Option<Action>, now: Now) -> Event {
        let (flow, scan) = (Some(Flow::from(&case.probe)), Some(self.scan_of(case, now)));
        let probe = Some(case.probe);
        let event = Event { flow, scan, action, probe, ..Event::new(now.wall, told) };
        Event { remark: self.remark(&event), ..event }
    }

    /// `-v`: why an ignored source is ignored, if it is for the ignore file.
    fn remark(&self, event: &Event) -> Option<String> {
        let (file, ignored) = self.verbose_ignore.as_ref()?;
        let source = event.flow.as_ref()?.src_ip;
        let is_ignored = event.action.as_ref()?.verdict == ActionVerdict::Ignored && ignored.contains(source);
        is_ignored.then(|| format!("Host: {source} found in ignore file {} aborting actions", file.display()))
    }

    fn scan_of(&self, case: &Case, now: Now) -> Scan {
        let standing = &case.standing;
        Scan {
            scan_type: case.probe.scan_type,
            score: standing.score,
            threshold: self.watch.threshold(standing.ledger),
            distinct_ports: standing.distinct_ports,
            probes: standing.probes,
            verified: standing.verified,
            // The table counts in uptime; the outside reads the wall clock.
            first_seen: now.wall.saturating_sub(now.micros().saturating_sub(standing.first_seen)),
        }
    }
}

/// As many whole ranges as fit a line.
fn first_ranges(ports: &str) -> String {
    const MOST: usize = 512;
    let Some(head) = ports.get(..MOST).filter(|_| ports.len() > MOST) else { return ports.to_owned() };
    let (whole, _) = head.rsplit_once(',').unwrap_or((head, ""));
    format!("{whole},…")
}

/// Nothing comes of it, and why.
pub(super) fn suppressed(why: &str) -> Action {
    Action { error: Some(why.to_owned()), ..Action::new(ActionVerdict::Suppressed) }
}
