//! From a verdict to a request, and from its effect to an event: the sensor's decisions, all on the main thread.
//!
//! Pure but for the score table, whose quiet marks it sets: requests are queued, events returned, time passed in.
//! Says "blocked" only after the helper did.
#![forbid(unsafe_code)]

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use ipnet::IpNet;

use super::blocks::{Block, Blocks, Ending};
use super::clock::Now;
use super::followed::Quiet;
use super::gate::{Gate, weight};
use crate::config::BlockMode;
use crate::control::protocol::outcome_reason;
use crate::detect::Probe;
use crate::detect::policy::Watch;
use crate::detect::table::{Ledger, ScoreTable, SourceKey, Standing};
use crate::event::{Action, ActionVerdict, Deed, Event, EventType, Flow, Scan, Summary};
use crate::networks::Networks;
use crate::protocol::channel::RequestWriter;
use crate::protocol::settings::Custom;
use crate::protocol::wording::{self, Filling};
use crate::protocol::{Note, Outcome, Request, Response, Responses};

/// How long nothing more is said of a source that was reported and not blocked, microseconds.
const TOLD: u64 = 600_000_000;

/// Ends of blocks that are told in one turn: a million that were lifted at once must not become a million events in memory.
const ENDS_A_TURN: usize = 512;
/// How long a source is left alone after its block failed, microseconds.
const RETRY: u64 = 10_000_000;

/// How long nothing more is said of a source that was spared for its connection, microseconds; then it is judged again.
const SPARED: u64 = 60_000_000;

/// The same for one whose block BLOCK_LIMIT held back. Shorter than any scan worth the name: with more ports to its name
/// it comes before others.
const HELD: u64 = 1_000_000;

const CONNECTED: &str =
    "it has an open connection to this host, and its probes may be forged (PROTECT_ESTABLISHED)";
const HELD_BACK: &str = "too many sources that may be forged earned a block this minute (BLOCK_LIMIT)";
const LIMITED: &str = "more sources than BLOCK_LIMIT allows a minute earned a block on evidence that may be forged; \
     those beyond it are counted and not blocked, and proven ones still are; raise BLOCK_LIMIT if no flood is the cause";

/// Sources that are remembered as told of. Each holds its place for as long as its probes may still be in the queue.
const LATELY_TOLD: usize = 64;

/// What took effect first, where the kernel did not wait for us.
const TRIPWIRE: &str = "tripwire";

/// Probes of one source whose lines wait for its block; more than these are not told one by one.
const WAITING: usize = 64;

/// A probe that counted, and what its source has done so far.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// The probe.
    pub probe: Probe,
    /// Its source's standing after it.
    pub standing: Standing,
    /// Index of the interface it came in by; 0 where that is not known.
    pub interface: u32,
    /// Its source has an open connection to this host, and PROTECT_ESTABLISHED says that this counts.
    pub connected: bool,
}

/// What this turn brought.
#[derive(Default)]
pub struct Turn {
    /// Events to tell, with the interface's index where a packet is behind them.
    pub events: Vec<(Event, u32)>,
}

/// Asked of the helper, and not answered yet.
struct Asked {
    target: IpNet,
    cases: Vec<Case>,
}

/// Everything the decisions go by.
pub struct Responder {
    /// What is watched, and how it is answered.
    pub watch: Arc<Watch>,
    /// Who is never blocked. The helper has its own set and decides again.
    pub never: Networks,
    /// Blocks in force.
    pub blocks: Blocks,
    /// Requests on their way to the helper.
    pub requests: RequestWriter,
    table: Arc<ScoreTable>,
    /// The responses in their order, and the administrator's texts, which the log quotes.
    order: Vec<Response>,
    custom: Custom,
    /// Every probe is told, not only crossings: classic text and the history file promise a line each.
    tell_all: bool,
    /// The allowances, which the ring threads ask before they ask us.
    gate: Arc<Gate>,
    /// `-v`: the ignore file and what stands in it.
    verbose_ignore: Option<(PathBuf, Networks)>,
    /// Whom was told of last, and until when that is enough (microseconds): the table's own mark can be lost to a race.
    told: VecDeque<(SourceKey, u64)>,
    asked: HashMap<u64, Asked>,
    asked_about: HashMap<IpNet, u64>,
    /// Sources that crossed the trigger, since the start.
    pub scans: u64,
    /// Blocks carried out, since the start.
    pub blocked: u64,
    /// Probes that counted and were told of, since the start.
    pub probes: u64,
}

/// What a [`Responder`] is made of.
pub struct Setup {
    /// See [`Responder::watch`].
    pub watch: Arc<Watch>,
    /// See [`Responder::never`].
    pub never: Networks,
    /// The table that ring threads score in.
    pub table: Arc<ScoreTable>,
    /// The responses in their order.
    pub order: Vec<Response>,
    /// The administrator's texts.
    pub custom: Custom,
    /// Whether every probe is told.
    pub tell_all: bool,
    /// `-v`: the ignore file and what stands in it.
    pub verbose_ignore: Option<(PathBuf, Networks)>,
    /// Requests that may wait for the helper.
    pub queue: usize,
    /// The allowances.
    pub gate: Arc<Gate>,
}

impl Responder {
    /// Nothing seen, nothing blocked.
    pub fn new(setup: Setup) -> Responder {
        Responder {
            watch: setup.watch,
            never: setup.never,
            blocks: Blocks::default(),
            requests: RequestWriter::new(setup.queue),
            table: setup.table,
            order: setup.order,
            custom: setup.custom,
            tell_all: setup.tell_all,
            gate: setup.gate,
            verbose_ignore: setup.verbose_ignore,
            told: VecDeque::with_capacity(LATELY_TOLD),
            asked: HashMap::new(),
            asked_about: HashMap::new(),
            scans: 0,
            blocked: 0,
            probes: 0,
        }
    }

    /// A probe counted: tell of it, and ask for a block where its source has earned one.
    pub fn on_case(&mut self, case: Case, now: Now, turn: &mut Turn) {
        let Standing { triggered, crossed, quiet, ledger, .. } = case.standing;
        // A failed contact is no event until there are enough of them.
        let is_event = if triggered {
            crossed || !self.was_told_meanwhile(&case, now)
        } else {
            ledger == Ledger::Watched
        };
        if !is_event {
            return;
        }
        self.probes += 1;
        self.scans += u64::from(crossed);
        let ignored = self.never.contains(case.probe.source);
        let is_logged = self.watch.block_mode(case.probe.protocol) == BlockMode::Log;
        let seeks_block = triggered && !ignored && !is_logged;
        if (!seeks_block || quiet) && !self.has_a_line(&case, now) {
            return;
        }
        let told = if crossed { EventType::Scan } else { EventType::Probe };
        match (triggered, ignored) {
            (false, _) => {
                let action = ignored.then(|| Action::new(ActionVerdict::Ignored));
                self.tell(EventType::Probe, &case, action, now, turn);
            }
            (true, true) => self.tell_once(told, &case, ActionVerdict::Ignored, now, turn),
            (true, false) if is_logged => self.tell_once(told, &case, ActionVerdict::Logged, now, turn),
            (true, false) => self.seek_block(told, case, now, turn),
        }
    }

    /// Pays for a line, or counts it as left out.
    fn has_a_line(&self, case: &Case, now: Now) -> bool {
        let pays = self.gate.lines.spend(weight(&case.standing), now.uptime);
        self.gate.turned_away.lines.fetch_add(u64::from(!pays), Relaxed);
        pays
    }

    /// A quick scanner's probes wait in the queue while its alarm is told: they are not worth an event each.
    fn was_told_meanwhile(&self, case: &Case, now: Now) -> bool {
        let account = self.watch.account(&case.probe).in_ledger(case.standing.ledger);
        let is_quiet = || self.table.standing(account, micros(now)).is_some_and(|standing| standing.quiet);
        let source = self.watch.source_key(case.probe.source);
        let is_told = || self.told.iter().any(|&(told, until)| told == source && micros(now) < until);
        !self.tell_all && (is_told() || is_quiet())
    }

    /// Whether anybody wants to hear of one more probe of a source that is over the trigger.
    pub fn is_worth_telling(&self, standing: Standing) -> bool {
        self.tell_all || !standing.quiet
    }

    /// Whether a block is about to be asked for on evidence that may be forged: then it matters who is connected to us.
    /// What BLOCK_LIMIT holds back anyhow need not be known, or a flood would have the kernel searched for each packet.
    /// Whether the source is quiet does not matter: where each probe is told, one that was spared is judged again.
    pub fn may_blame_an_innocent(&self, probe: &Probe, standing: &Standing, now: Now) -> bool {
        let target = self.watch.target(probe.source);
        standing.triggered
            && !standing.verified
            && self.blocks.get(&target).is_none_or(|block| block.run_only)
            && !self.never.contains(probe.source)
            && self.watch.block_mode(probe.protocol) != BlockMode::Log
            && !self.asked_about.contains_key(&target)
            && self.gate.blocks.affords(standing.distinct_ports, now.uptime)
    }

    /// Whether one more probe by `source` is an alarm: PORT_BANNER is for whom it is.
    pub fn would_trigger(&self, source: IpAddr, table: &ScoreTable, now: u64) -> bool {
        let before = table.standing(self.watch.source_key(source), now);
        let alarm = before
            .is_some_and(|it| it.triggered || it.score + 1.0 >= self.watch.threshold(Ledger::Watched) - 0.5);
        !self.never.contains(source) && (self.watch.scan_trigger <= 1 || alarm)
    }

    /// The helper answered a block request.
    pub fn on_done(&mut self, id: u64, done: &Effect, now: Now, turn: &mut Turn) {
        let Some(asked) = self.asked.remove(&id) else { return };
        self.asked_about.remove(&asked.target);
        self.take_effect(asked.target, done, now);
        let quiet_until = self.quiet_until(done, now);
        let port = asked.cases.first().map_or(0, |case| case.probe.port);
        let action = self.action_of(asked.target, port, done);
        let mut cases = asked.cases.iter();
        if let Some(first) = cases.next() {
            if !self.may_still_be_blocked(done) {
                self.table.quiet(self.watch.account(&first.probe), quiet_until);
            }
            self.tell(EventType::Block, first, Some(action.clone()), now, turn);
        }
        let blocked = action.verdict == ActionVerdict::Blocked;
        let verdict = if blocked { ActionVerdict::AlreadyBlocked } else { action.verdict };
        for case in cases {
            let action = Action { verdict, deeds: Vec::new(), with: Vec::new(), ..action.clone() };
            self.tell(EventType::Probe, case, Some(action), now, turn);
        }
    }

    /// A block is in force (an operator's, or one from before the start): mirror it.
    pub fn on_block(&mut self, target: IpNet, seconds: u32, offence: u16, with: Responses, now: Now) {
        let until = now.uptime.saturating_add(u64::from(seconds) * 1000);
        let run_only = with.is_run_only();
        self.blocks.insert(target, Block { until, offence, run_only });
        if !run_only {
            self.table.quiet(self.watch.source_key(target.addr()), until.saturating_mul(1000));
        }
    }

    /// Where BLOCK_TCP=2 and BLOCK_UDP=1, say, a source that a command has told of may yet earn a block.
    fn may_still_be_blocked(&self, done: &Effect) -> bool {
        done.with.is_run_only() && self.watch.block_tcp != self.watch.block_udp
    }

    /// An operator blocked a source: mirror it and tell of it.
    pub fn on_operator_block(&mut self, target: IpNet, effect: &Effect, now: Now, turn: &mut Turn) {
        self.take_effect(target, effect, now);
        let mut event = Event::new(now.wall, EventType::Block);
        event.flow = Some(Flow::from_source(target.addr()));
        event.action = Some(self.action_of(target, 0, effect));
        turn.events.push((event, 0));
    }

    /// A block was lifted: its source begins anew.
    pub fn on_lifted(&mut self, target: IpNet, now: Now, turn: &mut Turn) {
        if let Some(block) = self.blocks.remove(&target) {
            self.end_block(target, block, ActionVerdict::Lifted, now, turn);
        }
    }

    /// A block is over, and something of it could not be taken back.
    pub fn on_remains(&mut self, target: IpNet, notes: &[Note], now: Now, turn: &mut Turn) {
        let mut event = Event::new(now.wall, EventType::Unblock);
        event.flow = Some(Flow::from_source(target.addr()));
        let error = reasons(notes);
        event.action = Some(Action { target: Some(target), error, ..Action::new(ActionVerdict::Failed) });
        turn.events.push((event, 0));
    }

    /// Who has become protected is no longer blocked: the helper lifts it of its own accord, by the same rule.
    pub fn on_protected(&mut self, now: Now, turn: &mut Turn) {
        let spared: Vec<IpNet> = self.blocks.targets().filter(|target| self.never.overlaps(target)).collect();
        spared.into_iter().for_each(|target| self.on_lifted(target, now, turn));
    }

    /// Blocks whose time is over end here too. Says now and then that some are held back.
    pub fn on_time(&mut self, now: Now, turn: &mut Turn) {
        if self.gate.has_news(now) {
            self.gate.told(now);
            let mut event = Event::new(now.wall, EventType::Error);
            event.error = Some(LIMITED.to_owned());
            turn.events.push((event, 0));
        }
        for _ in 0..ENDS_A_TURN {
            let Some((target, block, ending)) = self.blocks.take_ended(now.uptime) else { break };
            let verdict = match ending {
                Ending::Expired => ActionVerdict::Expired,
                Ending::Lifted => ActionVerdict::Lifted,
            };
            self.end_block(target, block, verdict, now, turn);
        }
    }

    /// What a scanner did from its alarm on, now that it is quiet.
    pub fn on_quiet(&self, quiet: &Quiet, now: Now, turn: &mut Turn) {
        let Quiet { case, trail, alarm } = quiet;
        let account = self.watch.account(&case.probe).in_ledger(case.standing.ledger);
        let latest = self.table.standing(account, micros(now));
        let case = Case { standing: latest.unwrap_or(case.standing), ..*case };
        self.tell(EventType::Stats, &case, None, now, turn);
        if let Some((event, _)) = turn.events.last_mut() {
            event.summary = Some(Summary {
                probes: trail.probes,
                distinct_ports: trail.ports.len() as u64,
                ports: first_ranges(&trail.ports.to_string()),
                seconds: trail.latest.saturating_sub(*alarm) / 1_000_000,
            });
        }
    }

    fn seek_block(&mut self, told: EventType, case: Case, now: Now, turn: &mut Turn) {
        let key = self.watch.account(&case.probe);
        let target = self.watch.target(case.probe.source);
        let run_only = self.watch.block_mode(case.probe.protocol) == BlockMode::RunCommand;
        if let Some(block) = self.blocks.get(&target).filter(|block| run_only || !block.run_only) {
            let until = block.until.saturating_mul(1000);
            if !block.run_only || self.watch.block_tcp == self.watch.block_udp {
                self.table.quiet(key, until);
            }
            let action = Action { target: Some(target), ..Action::new(ActionVerdict::AlreadyBlocked) };
            return self.tell(told, &case, Some(action), now, turn);
        }
        // Rings run side by side: a later probe may have asked before the one that crossed got here.
        if told == EventType::Scan && self.asked_about.contains_key(&target) {
            return self.tell(told, &case, None, now, turn);
        }
        if let Some(asked) = self.asked_about.get(&target).and_then(|id| self.asked.get_mut(id)) {
            if self.tell_all && asked.cases.len() < WAITING {
                asked.cases.push(case);
            }
            return;
        }
        if case.connected {
            return self.spare(told, &case, (CONNECTED, SPARED), now, turn);
        }
        if !case.standing.verified && !self.gate.blocks.spend(case.standing.distinct_ports, now.uptime) {
            return self.hold_back(told, &case, now, turn);
        }
        if told == EventType::Scan {
            self.tell(told, &case, None, now, turn);
        }
        self.ask(target, case, now, turn);
    }

    /// Not blocked, why, and for how long nothing more is said.
    fn spare(&self, told: EventType, case: &Case, (why, quiet): (&str, u64), now: Now, turn: &mut Turn) {
        self.table.quiet(self.watch.account(&case.probe), micros(now).saturating_add(quiet));
        let action = Action { error: Some(why.to_owned()), ..Action::new(ActionVerdict::Suppressed) };
        self.tell(told, case, Some(action), now, turn);
    }

    /// In a flood of single probes from everywhere none of them is an event: [`Responder::on_time`] tells that it is one.
    fn hold_back(&mut self, told: EventType, case: &Case, now: Now, turn: &mut Turn) {
        self.gate.turned_away.blocks.fetch_add(1, Relaxed);
        let is_one_of_many = case.standing.distinct_ports <= 1 && !self.tell_all;
        if !is_one_of_many && self.has_a_line(case, now) {
            self.spare(told, case, (HELD_BACK, HELD), now, turn);
        }
    }

    fn ask(&mut self, target: IpNet, case: Case, now: Now, turn: &mut Turn) {
        let (Probe { port, protocol, .. }, verified) = (case.probe, case.standing.verified);
        let request = |id| Request::Block { id, target, seconds: 0, port, protocol, verified };
        match self.requests.send(request) {
            Ok(id) => {
                self.asked_about.insert(target, id);
                self.asked.insert(id, Asked { target, cases: vec![case] });
            }
            Err(full) => {
                self.table.quiet(self.watch.account(&case.probe), micros(now).saturating_add(RETRY));
                let action =
                    Action { error: Some(full.to_string()), ..Action::new(ActionVerdict::Suppressed) };
                self.tell(EventType::Block, &case, Some(action), now, turn);
            }
        }
    }

    fn take_effect(&mut self, target: IpNet, done: &Effect, now: Now) {
        // What was blocked already is mirrored already, unless a wider block covers it; that one may be lifted alone.
        if done.outcome == Outcome::Blocked {
            self.blocked += 1;
            self.on_block(target, done.seconds, done.offence, done.with, now);
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
        micros(now).saturating_add(wait)
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
            error: done.reason(),
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
                Deed::Wrappers(wording::hosts_deny(line, filling))
            }
            Response::Command => Deed::Route(command(&self.custom.kill_route)),
            Response::RunCommand => Deed::Ran(command(&self.custom.kill_run_cmd)),
        }
    }

    fn tell_once(&mut self, told: EventType, case: &Case, verdict: ActionVerdict, now: Now, turn: &mut Turn) {
        if !self.tell_all {
            let until = micros(now).saturating_add(TOLD);
            self.table.quiet(self.watch.account(&case.probe), until);
            if self.told.len() >= LATELY_TOLD {
                self.told.pop_front();
            }
            self.told.push_back((self.watch.source_key(case.probe.source), until));
        }
        self.tell(told, case, Some(Action::new(verdict)), now, turn);
    }

    fn tell(&self, told: EventType, case: &Case, action: Option<Action>, now: Now, turn: &mut Turn) {
        let mut event = Event::new(now.wall, told);
        event.flow = Some(Flow::from(&case.probe));
        event.scan = Some(self.scan_of(case, now));
        event.action = action;
        event.probe = Some(case.probe);
        event.remark = self.remark(&event);
        turn.events.push((event, case.interface));
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
            first_seen: now.wall.saturating_sub(micros(now).saturating_sub(standing.first_seen)),
        }
    }

    fn end_block(&self, target: IpNet, block: Block, verdict: ActionVerdict, now: Now, turn: &mut Turn) {
        self.table.forgive(self.watch.source_key(target.addr()));
        let mut event = Event::new(now.wall, EventType::Unblock);
        event.flow = Some(Flow::from_source(target.addr()));
        event.action =
            Some(Action { target: Some(target), offence: Some(block.offence), ..Action::new(verdict) });
        turn.events.push((event, 0));
    }
}

/// What the helper says became of a request; see [`crate::protocol::Reply::Done`].
#[derive(Clone, Debug)]
pub struct Effect {
    /// What happened.
    pub outcome: Outcome,
    /// How long the block lasts from now, seconds.
    pub seconds: u32,
    /// Which offence.
    pub offence: u16,
    /// Time it took, microseconds.
    pub micros: u32,
    /// Which responses took effect.
    pub with: Responses,
    /// The kernel's tripwire had shut the source out before.
    pub tripped: bool,
    /// Which did not, and why.
    pub notes: Vec<Note>,
}

impl Effect {
    /// What failed, in one line; where no response says so itself, why the whole did.
    pub fn reason(&self) -> Option<String> {
        reasons(&self.notes).or_else(|| outcome_reason(self.outcome))
    }
}

/// What failed, in one line.
fn reasons(notes: &[Note]) -> Option<String> {
    let mut reason = String::new();
    let mut last = None;
    for note in notes {
        let text = note.text();
        match last.replace((note.response, note.fault)) == Some((note.response, note.fault)) {
            true => reason.push_str(&text),
            false => {
                let between = if reason.is_empty() { "" } else { "; " };
                let colon = if text.is_empty() { "" } else { ": " };
                reason.push_str(&format!("{between}{}: {}{colon}{text}", note.response.name(), note.fault));
            }
        }
    }
    (!reason.is_empty()).then_some(reason)
}

/// The verdict that the outside reads.
fn verdict_of(outcome: Outcome) -> ActionVerdict {
    match outcome {
        Outcome::Blocked => ActionVerdict::Blocked,
        Outcome::AlreadyBlocked => ActionVerdict::AlreadyBlocked,
        Outcome::RefusedNeverBlock => ActionVerdict::Ignored,
        Outcome::RefusedRate | Outcome::RefusedFull => ActionVerdict::Suppressed,
        Outcome::RefusedPrefix | Outcome::Failed(_) | Outcome::NotBlocked => ActionVerdict::Failed,
        Outcome::Lifted => ActionVerdict::Lifted,
    }
}

/// As many whole ranges as fit a line.
fn first_ranges(ports: &str) -> String {
    const MOST: usize = 512;
    let Some(head) = ports.get(..MOST).filter(|_| ports.len() > MOST) else { return ports.to_owned() };
    let (whole, _) = head.rsplit_once(',').unwrap_or((head, ""));
    format!("{whole},…")
}

/// Microseconds of uptime: the score table's clock.
pub fn micros(now: Now) -> u64 {
    now.uptime.saturating_mul(1000)
}
