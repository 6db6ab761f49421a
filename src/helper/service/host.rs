//! What changes about the host: its addresses, its traps, and a firewall that others change too. Helper.
//!
//! A table that somebody deleted is installed again: blocks that are told of must be there.
#![forbid(unsafe_code)]

use std::net::IpAddr;
use std::time::{Duration, Instant};

use ipnet::IpNet;

use super::Service;
use super::tell::timed_reply;
use crate::helper::decide::done;
use crate::helper::error::{HelperError, log};
use crate::helper::respond::{InForce, Refusal, Respond};
use crate::protocol::{Datagrams, Outcome, Page, Reply};

/// How often the firewall is looked at, milliseconds.
const LOOK: u64 = 10_000;
/// A look that is due within this time goes along with a sign of life: a watchdog's question wakes us anyway, and the
/// unit's comes every 7.5 seconds. Milliseconds.
const ALONG: u64 = LOOK / 2;
impl<R: Respond> Service<R> {
    /// Gives the kernel the never-block set, grown by all that was asked for since.
    pub(super) fn finish_protecting(&mut self) {
        let (begun, ids) = (Instant::now(), std::mem::take(&mut self.protecting));
        if ids.is_empty() {
            return;
        }
        let applied = self.apply_never();
        if let Err(refusal) = &applied {
            log(&refusal.text);
        }
        ids.into_iter().for_each(|id| self.answer_effect(id, applied.clone(), begun));
    }

    pub(super) fn do_traps(&mut self, id: u64, datagrams: Datagrams, page: Page) {
        let begun = Instant::now();
        // Somebody changed our table: what is put in its place has the new traps.
        let set = self.responses.set_traps(datagrams, page).or_else(|_| self.install_again());
        self.answer_effect(id, set, begun);
        // What could not be installed again ends, and programs may have their part in that.
        self.advance();
    }

    pub(super) fn do_spare(&mut self, id: u64, address: IpAddr) {
        let begun = Instant::now();
        let spared = self.responses.spare(address);
        self.answer_effect(id, spared, begun);
    }

    pub(super) fn do_pong(&mut self, id: u64) {
        self.answer(Reply::Pong { id });
        self.roused = true;
    }

    fn answer_effect(&mut self, id: u64, effect: Result<(), Refusal>, begun: Instant) {
        let outcome = effect.map_or_else(|refusal| Outcome::Failed(refusal.errno), |()| Outcome::Lifted);
        self.answer(timed_reply(id, outcome, begun));
    }

    /// Takes in that addresses or routes of the host changed. What cannot be read, or the kernel does not take, is tried
    /// again at [`next_try`](Self::next_try): blocks stay what they are meanwhile.
    ///
    /// # Errors
    /// It failed for some time: without it no block is safe.
    pub fn learn(&mut self) -> Result<(), HelperError> {
        let has_news = self.responses.learn().map_err(HelperError::Surroundings)?;
        let has_changed = has_news && self.core.authority.surround(self.responses.surroundings());
        let is_due = self.never_retry.next().is_some() && !self.never_retry.is_waiting(Instant::now());
        if !has_changed && !is_due {
            return Ok(());
        }
        let applied = self.apply_never();
        if let Err(refusal) = &applied {
            self.say(&refusal.text);
        }
        Ok(self.never_retry.settle(applied, Instant::now())?)
    }

    /// When to [`learn`](Self::learn) though nothing is known to have changed.
    pub fn next_try(&self) -> Option<Instant> {
        self.responses.next_try().into_iter().chain(self.never_retry.next()).min()
    }

    /// Whether or not the kernel takes the set: whoever is in it is let in, and what would yet block them is given up. That
    /// first: what it has left on record by now is lifted with the rest.
    fn apply_never(&mut self) -> Result<(), Refusal> {
        let applied = match self.responses.set_never(self.core.authority.never()) {
            Err(refusal) if refusal.table_gone => self.install_again(),
            applied => applied,
        };
        let never = self.core.authority.never();
        for grant in self.jobs.abandon(|target| never.overlaps(target)) {
            self.answer(done(grant.id, Outcome::RefusedNeverBlock));
        }
        let covered = self.core.escalation.covered_by(self.core.authority.never());
        if let Some(first) = covered.first() {
            log(&format!(
                "{} blocks lifted, {first} first: they are now in the never-block set",
                covered.len()
            ));
        }
        self.lift(&covered);
        applied
    }

    /// Milliseconds until the firewall is looked at again, whoever is blocked: somebody may restore a ruleset that was
    /// saved while others were. `None` where we have nothing in it, and what is over is not in anything else either.
    pub(super) fn next_look(&self) -> Option<u64> {
        let due = self.looked.saturating_add(LOOK).saturating_sub(self.now.uptime);
        let is_needed = !self.in_firewall().is_empty() || !self.overdue.is_empty();
        is_needed.then_some(due)
    }

    /// Whether a look goes along with the sign of life that was asked for, once that is on its way.
    pub fn is_looking(&self) -> bool {
        self.roused && self.next_look().is_some_and(|due| due <= ALONG)
    }

    /// A reload of somebody else's ruleset may flush ours with it, or put an old one in its place: blocks that are told
    /// of must be there.
    pub(super) fn look(&mut self) {
        self.looked = self.now.uptime;
        let looked = [self.look_at_kernel(), self.look_at_programs(), self.look_at_lines()];
        let refused: Vec<String> = looked.into_iter().filter_map(|it| Some(it.err()?.text)).collect();
        let refused = refused.join("; ");
        if !refused.is_empty() {
            self.say(&refused);
        }
    }

    fn look_at_kernel(&mut self) -> Result<(), Refusal> {
        let (record, now) = (&self.core.escalation, self.now.utc);
        let walk = |last: Option<IpNet>| {
            let (target, block) = record.after(last, now)?;
            Some((target, InForce { with: block.with, left: Duration::from_millis(block.left(now)) }))
        };
        match self.responses.is_in_place(&walk)? && self.overdue.among(self.at_once).is_empty() {
            true => Ok(()),
            false => self.install_again(),
        }
    }

    /// The sensor is gone or about to go, and with it whoever confirms or clears those whom the tripwire trips. Blocks stay.
    pub fn disarm(&mut self) {
        // A table that is gone has no traps either.
        let _ = self.responses.disarm();
    }
}
