//! From a verdict to a request, and from its effect to an event: the sensor's decisions, all on the main thread.
//!
//! Pure but for the score table, whose quiet marks it sets: requests are queued, events returned, time passed in.
//! Says "blocked" only after the helper did.
#![forbid(unsafe_code)]

mod effect;
mod outcome;
mod retries;
mod telling;

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use ipnet::IpNet;

pub use self::effect::Effect;
pub use self::outcome::on_left_behind;

use self::retries::{Errand, Retries};
use self::telling::suppressed;

use super::blocks::Blocks;
use super::clock::Now;
use super::gate::{Gate, weight};
use super::turn::Turn;
use crate::config::BlockMode;
use crate::detect::Probe;
use crate::detect::policy::Watch;
use crate::detect::table::{Ledger, ScoreTable, SourceKey, Standing};
use crate::event::{Action, ActionVerdict, EventType};
use crate::networks::Networks;
use crate::protocol::channel::RequestWriter;
use crate::protocol::settings::Custom;
use crate::protocol::{Request, Response};

/// How long nothing more is said of a source that was reported and not blocked, microseconds.
const TOLD: u64 = 600_000_000;

/// How long a source is left alone at least after its block failed, microseconds.
const RETRY: u64 = 10_000_000;

/// How long nothing more is said of a source that was spared for its connection, microseconds; then it is judged again.
const SPARED: u64 = 60_000_000;

/// The same for one whose block BLOCK_LIMIT held back. Shorter than any scan worth the name: with more ports to its name
/// it comes before others.
const HELD: u64 = 1_000_000;

const CONNECTED: &str =
    "it has an open connection to this host, and its probes may be forged (PROTECT_ESTABLISHED)";
const FAILED_LATELY: &str = "its block has failed, and is tried again later";
const HELD_BACK: &str = "too many sources that may be forged earned a block this minute (BLOCK_LIMIT)";
/// Sources that are remembered as told of. Each holds its place for as long as its probes may still be in the queue.
const LATELY_TOLD: usize = 64;

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

/// Asked of the helper, and not answered yet.
struct Asked {
    errand: Errand,
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
    pub verbose_ignore: Option<(PathBuf, Networks)>,
    /// Whom was told of last, and until when that is enough (microseconds): the table's own mark can be lost to a race.
    told: VecDeque<(SourceKey, u64)>,
    asked: HashMap<u64, Asked>,
    asked_about: HashMap<IpNet, u64>,
    retries: Retries,
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
            retries: Retries::default(),
            scans: 0,
            blocked: 0,
            probes: 0,
        }
    }

    /// A probe counted: tell of it, and ask for a block where its source has earned one.
    pub fn on_case(&mut self, case: Case, turn: &mut Turn) {
        let Standing { triggered, crossed, quiet, ledger, .. } = case.standing;
        // A failed contact is no event until there are enough of them.
        let is_event = if triggered {
            crossed || !self.was_told_meanwhile(&case, turn.now)
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
        if (!seeks_block || quiet) && !self.has_a_line(&case, turn.now) {
            return;
        }
        let told = if crossed { EventType::Scan } else { EventType::Probe };
        match (triggered, ignored) {
            (false, _) => {
                let action = ignored.then(|| Action::new(ActionVerdict::Ignored));
                self.tell(EventType::Probe, &case, action, turn);
            }
            (true, true) => self.tell_once(told, &case, ActionVerdict::Ignored, turn),
            (true, false) if is_logged && case.connected => {
                self.spare(told, &case, (CONNECTED, SPARED), turn)
            }
            (true, false) if is_logged => self.tell_once(told, &case, ActionVerdict::Logged, turn),
            (true, false) => self.seek_block(told, case, turn),
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
        let is_quiet = || self.table.standing(account, now.micros()).is_some_and(|standing| standing.quiet);
        let source = self.watch.source_key(case.probe.source);
        let is_told = || self.told.iter().any(|&(told, until)| told == source && now.micros() < until);
        !self.tell_all && (is_told() || is_quiet())
    }

    /// BLOCK_TCP or BLOCK_UDP is another one: whoever was told of, and left alone for that, is judged anew.
    pub fn end_silences(&mut self) {
        self.table.end_silences();
        self.told.clear();
    }

    /// An administrator who has mended what blocks failed for may have it tried at once.
    pub fn end_waits(&mut self) {
        for target in self.retries.forget_all() {
            self.table.quiet(self.watch.source_key(target.addr()), 0);
        }
    }

    /// Whether anybody wants to hear of one more probe of a source that is over the trigger.
    pub fn is_worth_telling(&self, standing: Standing) -> bool {
        self.tell_all || !standing.quiet
    }

    /// Whether a block is about to be asked for on evidence that may be forged: then it matters who is connected to us.
    /// Where we block nobody too: whoever blocks by our lines must hear of it.
    /// What there is no allowance for need not be known, or a flood would have the kernel searched for each packet.
    /// Whether the source is quiet does not matter: where each probe is told, one that was spared is judged again.
    pub fn may_blame_an_innocent(&self, probe: &Probe, standing: &Standing, now: Now) -> bool {
        let target = self.watch.target(probe.source);
        let mode = self.watch.block_mode(probe.protocol);
        let (allowance, is_waiting) = match mode {
            BlockMode::Log => (&self.gate.lines, false),
            BlockMode::Block | BlockMode::RunCommand => {
                let errand = Errand { target, run_only: mode == BlockMode::RunCommand };
                (&self.gate.blocks, self.retries.until(&errand, now.micros()).is_some())
            }
        };
        standing.triggered
            && !standing.proven
            && self.blocks.get(&target, now.uptime).is_none_or(|block| block.with.is_run_only())
            && !self.never.contains(probe.source)
            && !self.asked_about.contains_key(&target)
            && !is_waiting
            && allowance.affords(standing.distinct_ports, now.uptime)
    }

    /// Whether one more probe by `source` is an alarm: PORT_BANNER is for whom it is.
    pub fn would_trigger(&self, source: IpAddr, table: &ScoreTable, now: u64) -> bool {
        let before = table.standing(self.watch.source_key(source), now);
        let alarm = before
            .is_some_and(|it| it.triggered || it.score + 1.0 >= self.watch.threshold(Ledger::Watched) - 0.5);
        !self.never.contains(source) && (self.watch.scan_trigger <= 1 || alarm)
    }

    fn seek_block(&mut self, told: EventType, case: Case, turn: &mut Turn) {
        let key = self.watch.account(&case.probe);
        let target = self.watch.target(case.probe.source);
        let run_only = self.watch.block_mode(case.probe.protocol) == BlockMode::RunCommand;
        let in_force = self.blocks.get(&target, turn.now.uptime);
        if let Some(block) = in_force.filter(|block| run_only || !block.with.is_run_only()) {
            let until = block.until.saturating_mul(1000);
            if !block.with.is_run_only() || !self.modes_differ() {
                self.table.quiet(key, until);
            }
            let action = Action { target: Some(target), ..Action::new(ActionVerdict::AlreadyBlocked) };
            return self.tell(told, &case, Some(action), turn);
        }
        // Rings run side by side: a later probe may have asked before the one that crossed got here.
        if told == EventType::Scan && self.asked_about.contains_key(&target) {
            return self.tell(told, &case, None, turn);
        }
        if let Some(asked) = self.asked_about.get(&target).and_then(|id| self.asked.get_mut(id)) {
            if self.tell_all && asked.cases.len() < WAITING {
                asked.cases.push(case);
            }
            return;
        }
        if let Some(until) = self.retries.until(&Errand { target, run_only }, turn.now.micros()) {
            return self.tell_of_wait(told, &case, (run_only, until), turn);
        }
        if case.connected {
            return self.spare(told, &case, (CONNECTED, SPARED), turn);
        }
        if !case.standing.proven && !self.gate.blocks.spend(case.standing.distinct_ports, turn.now.uptime) {
            return self.hold_back(told, &case, turn);
        }
        if told == EventType::Scan {
            self.tell(told, &case, None, turn);
        }
        self.ask(target, case, turn);
    }

    /// BLOCK_TCP=2 and BLOCK_UDP=1, say: a source that a command has told of, or should have, may yet earn a block.
    fn modes_differ(&self) -> bool {
        matches!(
            (self.watch.block_tcp, self.watch.block_udp),
            (BlockMode::Block, BlockMode::RunCommand) | (BlockMode::RunCommand, BlockMode::Block)
        )
    }

    /// In a flood of single probes from everywhere none of them is an event: [`Responder::on_time`] says that some were held
    /// back.
    fn hold_back(&mut self, told: EventType, case: &Case, turn: &mut Turn) {
        self.gate.turned_away.blocks.fetch_add(1, Relaxed);
        let is_one_of_many = case.standing.distinct_ports <= 1 && !self.tell_all;
        if !is_one_of_many && self.has_a_line(case, turn.now) {
            self.spare(told, case, (HELD_BACK, HELD), turn);
        }
    }

    fn ask(&mut self, target: IpNet, case: Case, turn: &mut Turn) {
        let (Probe { port, protocol, .. }, verified) = (case.probe, case.standing.proven);
        let run_only = self.watch.block_mode(protocol) == BlockMode::RunCommand;
        let request = |id| Request::Block { id, target, seconds: 0, port, protocol, verified, run_only };
        match self.requests.send(request) {
            Ok(id) => {
                self.asked_about.insert(target, id);
                self.asked.insert(id, Asked { errand: Errand { target, run_only }, cases: vec![case] });
            }
            Err(full) => {
                self.table.quiet(self.watch.account(&case.probe), turn.now.micros().saturating_add(RETRY));
                self.tell(EventType::Block, &case, Some(suppressed(&full.to_string())), turn);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::wildcard_enum_match_arm)]
mod tests;
