//! What became of a request, and how a block ends: mirrored, and told.
#![forbid(unsafe_code)]

use ipnet::IpNet;

use super::effect::{Effect, reasons, verdict_of};
use super::retries::Errand;
use super::{RETRY, Responder, TOLD, Turn};
use crate::config::opposite;
use crate::event::{Action, ActionVerdict, Deed, Event, EventType, Flow};
use crate::protocol::wording::{self, Filling};
use crate::protocol::{Note, Outcome, Response, Responses};
use crate::sensor::blocks::{Block, Ending};
use crate::sensor::clock::Now;

/// What took effect first, where the kernel did not wait for us.
const TRIPWIRE: &str = "tripwire";

const LIMITED: &str = "more sources than BLOCK_LIMIT allows a minute earned a block on evidence that may be forged; \
     those beyond it are counted and not blocked, and proven ones still are; raise BLOCK_LIMIT if no flood is the cause";

const FOR_EVER: &str =
    "What KILL_ROUTE did to shut it out stays, as UNBLOCK_CMD is not set: take it back by hand.";

/// What programs say of a route or a rule that is there (EEXIST, errno(3)).
const THERE_ALREADY: &str = "File exists";
const STANDS: &str =
    "What KILL_ROUTE did for an earlier block seems to stand still: set UNBLOCK_CMD to what takes it back";

const UNKNOWN: &str = "What KILL_RUN_CMD did stays: where it shuts out, take that back by hand.";

/// Ends of blocks that are told in one turn: a million that were lifted at once must not become a million events in memory.
const ENDS_A_TURN: usize = 512;

/// How much later than the helper the sensor may see a block end, milliseconds.
const ROUNDING: u64 = 2_000;

impl Responder {
    /// The helper answered a block request.
    pub fn on_done(&mut self, id: u64, done: &Effect, turn: &mut Turn) {
        let Some(asked) = self.asked.remove(&id) else { return };
        let Errand { target, run_only } = asked.errand;
        self.asked_about.remove(&target);
        self.take_effect(target, done, turn);
        let retry =
            self.retries.note(asked.errand, done, run_only || self.runs_programs(), turn.now.micros());
        let may_still_be_blocked =
            self.modes_differ() && (done.with.is_run_only() || run_only && retry.is_some());
        let quiet_until = retry.unwrap_or_else(|| self.quiet_until(done, turn.now));
        let port = asked.cases.first().map_or(0, |case| case.probe.port);
        let action = self.action_of(target, port, done);
        let mut cases = asked.cases.iter();
        if let Some(first) = cases.next() {
            if !may_still_be_blocked {
                self.table.quiet(self.watch.account(&first.probe), quiet_until);
            }
            self.tell(EventType::Block, first, Some(action.clone()), turn);
        }
        let blocked = action.verdict == ActionVerdict::Blocked;
        let verdict = if blocked { ActionVerdict::AlreadyBlocked } else { action.verdict };
        for case in cases {
            let action = Action { verdict, deeds: Vec::new(), with: Vec::new(), ..action.clone() };
            self.tell(EventType::Probe, case, Some(action), turn);
        }
    }

    /// A block is in force (an operator's, or one from before the start): mirror it.
    pub fn on_block(&mut self, target: IpNet, seconds: u32, offence: u16, with: Responses, now: Now) {
        let until = now.uptime.saturating_add(u64::from(seconds) * 1000);
        self.blocks.insert(target, Block { until, offence, with });
        if !with.is_run_only() {
            self.retries.forget(target);
            self.table.quiet(self.watch.source_key(target.addr()), until.saturating_mul(1000));
        }
    }

    /// Whether each block has programs of the administrator's run.
    fn runs_programs(&self) -> bool {
        self.order.contains(&Response::Command) || self.custom.kill_run_cmd.is_some()
    }

    /// An operator blocked a source: mirror it and tell of it.
    pub fn on_operator_block(&mut self, target: IpNet, effect: &Effect, turn: &mut Turn) {
        self.take_effect(target, effect, turn);
        tell_of_block(EventType::Block, target, self.action_of(target, 0, effect), turn);
    }

    /// An operator let a source in, whether or not it was shut out: a block of it that failed is tried at once again.
    pub fn on_let_in(&mut self, target: IpNet, now: Now) {
        if self.retries.forget(target) && self.blocks.get(&target, now.uptime).is_none() {
            self.table.forgive(self.watch.source_key(target.addr()));
        }
    }

    /// A block was lifted: its source begins anew.
    pub fn on_lifted(&mut self, target: IpNet, turn: &mut Turn) {
        if let Some(block) = self.blocks.remove(&target) {
            self.end_block(target, block, Ending::Lifted, turn);
        }
    }

    /// What failed. A command that finds there what it was to put there has mostly done it for an earlier block of the same
    /// source, and nobody took it back.
    pub fn reason(&self, done: &Effect) -> Option<String> {
        let reason = done.reason()?;
        // Of the command alone: other responses may find there what is not ours.
        let by_command = |note: &&Note| note.response == Response::Command;
        let said: Vec<Note> = done.notes.iter().filter(by_command).copied().collect();
        let stands = reasons(&said).is_some_and(|said| said.contains(THERE_ALREADY));
        Some(match stands && self.custom.unblock_cmd.is_none() {
            true => format!("{reason}. {STANDS}{}", self.undo()),
            false => reason,
        })
    }

    fn undo(&self) -> String {
        let undo = self.custom.kill_route.as_deref().and_then(opposite::opposite);
        undo.map_or_else(String::new, |undo| format!(": UNBLOCK_CMD=\"{undo}\""))
    }

    /// What nobody takes back when an operator lifts a block.
    pub fn left_by_lifting(&self, outcome: Outcome) -> Option<String> {
        self.stays(self.order.iter().copied().collect()).filter(|_| outcome == Outcome::Lifted)
    }

    /// What nobody takes back of a block that these responses made.
    fn stays(&self, with: Responses) -> Option<String> {
        let of_route = with.contains(Response::Command) && self.custom.unblock_cmd.is_none();
        let alarm = self.custom.kill_run_cmd.as_deref().filter(|_| with.contains(Response::RunCommand));
        let of_alarm = alarm.is_some_and(wording::may_shut_out);
        let told = [of_route.then_some(FOR_EVER), of_alarm.then_some(UNKNOWN)];
        let told = told.into_iter().flatten().collect::<Vec<_>>().join(" ");
        (!told.is_empty()).then_some(told)
    }

    /// A block is over, and nobody asked for that.
    pub fn on_over(&mut self, target: IpNet, notes: &[Note], turn: &mut Turn) {
        if !notes.is_empty() {
            self.on_remains(target, notes, turn);
        } else if let Some(block) = self.blocks.remove(&target) {
            self.end_block(target, block, Ending::Spared, turn);
        }
    }

    /// Likewise, and something of it could not be taken back, or could not be had any more.
    fn on_remains(&mut self, target: IpNet, notes: &[Note], turn: &mut Turn) {
        // Lifted with all others and not told of yet: this is what is told of it.
        let lifted = self.blocks.take_lifted(&target);
        // One whose time is over here in a moment, as seconds are whole, is told of then.
        let known = self.blocks.get(&target, turn.now.uptime.saturating_add(ROUNDING)).copied();
        let block = lifted.map(|(block, _)| block).or(known);
        if block.is_some() {
            self.blocks.remove(&target);
            self.table.forgive(self.watch.source_key(target.addr()));
        }
        let stays = block.and_then(|block| self.stays(block.with));
        let told: Vec<String> = reasons(notes).into_iter().chain(stays).collect();
        let error = (!told.is_empty()).then(|| told.join(". "));
        let action = Action { error, ..Action::new(ActionVerdict::Failed) };
        tell_of_block(EventType::Unblock, target, action, turn);
    }

    /// Likewise of one that an operator lifted; of what was no block there is nothing to tell.
    pub fn on_part_lifted(&mut self, target: IpNet, effect: &Effect, turn: &mut Turn) {
        if self.blocks.get(&target, turn.now.uptime).is_some() {
            self.on_remains(target, &effect.notes, turn);
        }
    }

    /// Blocks whose time is over end here too. Says now and then that some are held back.
    pub fn on_time(&mut self, turn: &mut Turn) {
        if self.gate.has_news(turn.now) {
            self.gate.told(turn.now);
            turn.error(LIMITED);
        }
        for _ in 0..ENDS_A_TURN {
            let Some((target, block, ending)) = self.blocks.take_ended(turn.now.uptime) else { break };
            self.end_block(target, block, ending, turn);
        }
    }

    fn take_effect(&mut self, target: IpNet, done: &Effect, turn: &mut Turn) {
        // What was blocked already is mirrored already, unless a wider block covers it; that one may be lifted alone.
        if done.outcome == Outcome::Blocked {
            self.blocked += 1;
            if let Some((block, ending)) = self.blocks.take_end_of(&target, turn.now.uptime) {
                self.end_block(target, block, ending, turn);
            }
            self.on_block(target, done.seconds, done.offence, done.with, turn.now);
        }
    }

    fn quiet_until(&self, done: &Effect, now: Now) -> u64 {
        let wait = match done.outcome {
            Outcome::Blocked => u64::from(done.seconds) * 1_000_000,
            Outcome::RefusedNeverBlock | Outcome::RefusedPrefix => TOLD,
            Outcome::AlreadyBlocked
            | Outcome::RefusedRate
            | Outcome::RefusedFull
            | Outcome::Failed(_)
            | Outcome::Lifted
            | Outcome::NotBlocked => RETRY,
        };
        now.micros().saturating_add(wait)
    }

    fn action_of(&self, target: IpNet, port: u16, done: &Effect) -> Action {
        let holds = matches!(done.outcome, Outcome::Blocked | Outcome::AlreadyBlocked);
        let new = done.outcome == Outcome::Blocked;
        let took = self.order.iter().filter(|&&response| new && done.with.contains(response));
        let tripwire = (new && done.tripped).then(|| TRIPWIRE.to_owned());
        let filling = Filling { target, port, mode: &self.custom.mode };
        Action {
            target: Some(target),
            with: tripwire.into_iter().chain(took.clone().map(|it| it.name().to_owned())).collect(),
            deeds: took.map(|&response| self.deed(response, &filling)).collect(),
            seconds: holds.then_some(done.seconds),
            offence: holds.then_some(done.offence),
            micros: new.then_some(done.micros),
            error: self.reason(done),
            ..Action::new(verdict_of(done.outcome))
        }
    }

    /// The same words as the helper used.
    fn deed(&self, response: Response, filling: &Filling<'_>) -> Deed {
        let command = |text: &Option<String>| wording::command(text.as_deref().unwrap_or_default(), filling);
        match response {
            Response::Nftables | Response::Iptables | Response::Route => Deed::Shut(response.name()),
            Response::HostsDeny => {
                let line = self.custom.hosts_deny.as_deref().unwrap_or_default();
                Deed::Wrappers(wording::hosts_deny(line, filling.target, filling.mode))
            }
            Response::Command => Deed::Route(command(&self.custom.kill_route)),
            Response::RunCommand => Deed::Ran(command(&self.custom.kill_run_cmd)),
        }
    }

    fn end_block(&self, target: IpNet, block: Block, ending: Ending, turn: &mut Turn) {
        self.table.forgive(self.watch.source_key(target.addr()));
        let action = Action {
            offence: Some(block.offence),
            spared: ending == Ending::Spared,
            error: self.stays(block.with),
            ..Action::new(verdict_of_end(ending))
        };
        tell_of_block(EventType::Unblock, target, action, turn);
    }
}

/// By its target alone: no packet is behind it.
fn tell_of_block(told: EventType, target: IpNet, action: Action, turn: &mut Turn) {
    let flow = Some(Flow::from_source(target.addr()));
    let action = Some(Action { target: Some(target), ..action });
    turn.add(Event { flow, action, ..turn.event(told) }, 0);
}

/// What an earlier configuration has left is no block's end: whoever mirrors blocks by their events keeps those that it was
/// left for.
pub fn on_left_behind(notes: &[Note], turn: &mut Turn) {
    if let Some(reasons) = reasons(notes) {
        turn.error(reasons);
    }
}

fn verdict_of_end(ending: Ending) -> ActionVerdict {
    match ending {
        Ending::Expired => ActionVerdict::Expired,
        Ending::Lifted | Ending::Spared => ActionVerdict::Lifted,
    }
}
