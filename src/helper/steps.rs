//! The responses that take a file or a program, as steps in the order in which PortSentry takes them. Helper.
//!
//! Decides which steps a block and its end take; `jobs` takes them one by one. What the kernel does at once is `respond`'s.
#![forbid(unsafe_code)]

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use ipnet::IpNet;

use super::escalation::Block;
use super::hosts_deny::HostsDeny;
use super::iptables::{self, Iptables};
use super::respond::{Refusal, Timed};
use crate::protocol::settings::{Custom, Rights};
use crate::protocol::wording::{Filling, Words, command, hosts_deny, words};
use crate::protocol::{Response, Responses, Settings};

/// One thing to do. What it takes is found out when its turn comes: what was done before it counts then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Bring a response about.
    Do(Response),
    /// Take it back.
    Undo(Response),
}

impl Step {
    /// Of which response.
    pub fn response(self) -> Response {
        let (Step::Do(response) | Step::Undo(response)) = self;
        response
    }
}

/// What a step takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    /// Nothing: there is nothing that it could change.
    Nothing,
    /// Nothing: it is in force already.
    InForce,
    /// Add a line to hosts.deny.
    Line {
        /// The line.
        line: String,
        /// Where it stands there already it is one of ours.
        ours: bool,
    },
    /// Take this line out of it.
    NoLine(String),
    /// Run this program, within this time.
    Run {
        /// Program and arguments.
        words: Words,
        /// Time limit.
        limit: Duration,
    },
}

/// Whom a step is about.
#[derive(Clone, Copy, Debug)]
pub struct About {
    /// What is blocked or lifted.
    pub target: IpNet,
    /// The port that was probed; 0 where none is known.
    pub port: u16,
    /// How long the block lasts from now.
    pub left: Duration,
}

/// What the responses of this kind go by.
#[derive(Debug)]
pub struct Steps {
    order: Vec<Response>,
    custom: Custom,
    hosts_deny: Option<HostsDeny>,
    iptables: Option<Iptables>,
}

impl Steps {
    /// Opens what the configured responses take. A response that cannot work is an error here.
    pub fn open(settings: &Settings) -> Result<Steps, Refusal> {
        let asked = |response| settings.block_with.contains(&response);
        let mut custom = settings.custom.clone();
        // Alone it gives nobody the rights of commands: the cage knows no call that would start it.
        custom.unblock_cmd = custom.unblock_cmd.filter(|_| settings.rights() == Rights::Commands);
        Ok(Steps {
            order: settings.block_with.clone(),
            hosts_deny: asked(Response::HostsDeny)
                .then(|| HostsDeny::open(&custom.hosts_deny_file))
                .transpose()?,
            iptables: asked(Response::Iptables).then(Iptables::open).transpose()?,
            custom,
        })
    }

    /// Puts these blocks in place, and takes out the lines of what has `ended`. Commands are not run: see
    /// [`must_renew`](Self::must_renew). Returns whose lines stood in hosts.deny before, of both.
    pub fn install(&mut self, blocks: &[Timed], ended: &[IpNet]) -> Result<BTreeSet<IpNet>, Refusal> {
        let mut stood = BTreeSet::new();
        if let Some(file) = &self.hosts_deny {
            let added: Vec<String> = blocks.iter().map(|(target, _)| self.line(target)).collect();
            let gone: Vec<String> = ended.iter().map(|target| self.line(target)).collect();
            let targets = blocks.iter().map(|(target, _)| target).chain(ended);
            let there = targets.zip(file.edit(&added, &gone)?).filter(|(_, there)| *there);
            stood = there.map(|(target, _)| *target).collect();
        }
        self.install_again(blocks)?;
        Ok(stood)
    }

    /// What [`install`](Self::install) puts in place.
    pub fn installed(&self) -> Responses {
        let files = self.hosts_deny.iter().map(|_| Response::HostsDeny);
        files.chain(self.iptables.iter().map(|_| Response::Iptables)).collect()
    }

    /// Of which responses this configuration looks after what an earlier one left: it brings them about itself, or can
    /// take them back.
    pub fn looked_after(&self) -> Responses {
        match self.order.contains(&Response::Command) || self.custom.unblock_cmd.is_some() {
            true => self.installed().and(Response::Command),
            false => self.installed(),
        }
    }

    /// Whether what programs put in place for blocks like these is still there, or `with_blocks`, still shuts them out;
    /// true where there is nothing to look at.
    pub fn stand(&self, targets: &[IpNet], with_blocks: bool) -> Result<bool, Refusal> {
        self.iptables.as_ref().map_or(Ok(true), |iptables| iptables.stands(targets, with_blocks))
    }

    /// Puts the programs' part of [`install`](Self::install) in place again.
    pub fn install_again(&mut self, blocks: &[Timed]) -> Result<(), Refusal> {
        self.iptables.as_mut().map_or(Ok(()), |iptables| iptables.install(blocks))
    }

    /// Takes back the programs' part of every block at once, and whatever somebody else has put there. Where no block of
    /// ours stands that is looked for at its own pace alone, as five programs are waited for else however often it is asked.
    pub fn empty(&mut self) -> Result<(), Refusal> {
        let is_empty = self.iptables.as_ref().is_none_or(Iptables::is_empty);
        match is_empty && self.is_as_made(&BTreeSet::new()).unwrap_or(true) {
            true => Ok(()),
            false => self.install_again(&[]),
        }
    }

    /// Whether it is all there and nothing else, whatever is there of those who are `unsettled`.
    pub fn is_as_made(&mut self, unsettled: &BTreeSet<IpNet>) -> Result<bool, Refusal> {
        self.iptables.as_mut().map_or(Ok(true), |iptables| iptables.is_as_made(unsettled))
    }

    /// The steps that make a block.
    pub fn to_block(&self, run_only: bool) -> VecDeque<Step> {
        let takes_a_step = |response: &Response| match response {
            Response::Nftables | Response::Route => false,
            Response::RunCommand => true,
            Response::HostsDeny | Response::Iptables | Response::Command => !run_only,
        };
        self.order.iter().copied().filter(takes_a_step).map(Step::Do).collect()
    }

    /// The steps that end what is in force `with` these responses. Lines are [`take_lines`](Self::take_lines)'. Where
    /// somebody `asked` for it a rule is taken out that we know nothing of, too.
    pub fn to_lift(&self, target: &IpNet, with: Responses, asked: bool) -> VecDeque<Step> {
        let rule = self.iptables.as_ref().filter(|iptables| asked || iptables.has(target));
        let rule = rule.map(|_| Response::Iptables);
        let can_undo = self.custom.unblock_cmd.is_some() && with.contains(Response::Command);
        rule.into_iter().chain(can_undo.then_some(Response::Command)).map(Step::Undo).collect()
    }

    /// What `step` takes, where these responses are in force `before` it.
    pub fn work(&self, step: Step, about: &About, before: Responses) -> Work {
        let custom = &self.custom;
        match step {
            Step::Do(Response::Nftables | Response::Route)
            | Step::Undo(Response::Nftables | Response::Route | Response::RunCommand) => Work::Nothing,
            Step::Undo(response) if !before.contains(response) => Work::Nothing,
            Step::Do(Response::HostsDeny) => {
                let ours = before.contains(Response::HostsDeny);
                Work::Line { line: self.line(&about.target), ours }
            }
            Step::Undo(Response::HostsDeny) => Work::NoLine(self.line(&about.target)),
            Step::Do(Response::Iptables) => {
                let words = self.iptables.as_ref().and_then(|it| it.block(&(about.target, about.left)));
                words.map_or(Work::InForce, |words| Work::Run { words, limit: iptables::LIMIT })
            }
            Step::Undo(Response::Iptables) => {
                let words = self.iptables.as_ref().map(|it| it.lift(&about.target));
                words.map_or(Work::Nothing, |words| Work::Run { words, limit: iptables::LIMIT })
            }
            // A renewed block runs no command again.
            Step::Do(response @ (Response::Command | Response::RunCommand)) if before.contains(response) => {
                Work::InForce
            }
            Step::Do(Response::Command) => self.run(custom.kill_route.as_deref(), about),
            Step::Do(Response::RunCommand) => self.run(custom.kill_run_cmd.as_deref(), about),
            Step::Undo(Response::Command) => self.run(custom.unblock_cmd.as_deref(), about),
        }
    }

    /// Adds a line to hosts.deny. One that is there already and not `ours` is somebody else's: it is not to be taken out
    /// when the block ends, so it is no response of ours.
    pub fn write_line(&self, line: &str, ours: bool) -> Result<(), Refusal> {
        let Some(file) = &self.hosts_deny else { return Ok(()) };
        match file.edit(&[line.to_owned()], &[])?.contains(&true) && !ours {
            true => Err(Refusal::new(libc::EEXIST, "the line is there already and is not ours; it stays")),
            false => Ok(()),
        }
    }

    /// Takes the lines of these targets out of hosts.deny, all at once.
    pub fn take_lines(&self, targets: impl Iterator<Item = IpNet>) -> Result<(), Refusal> {
        let Some(file) = &self.hosts_deny else { return Ok(()) };
        let lines: Vec<String> = targets.map(|target| self.line(&target)).collect();
        if lines.is_empty() { Ok(()) } else { file.edit(&[], &lines).map(drop) }
    }

    /// Takes a line out of it.
    pub fn take_line(&self, line: &str) -> Result<(), Refusal> {
        self.hosts_deny.as_ref().map_or(Ok(()), |file| file.edit(&[], &[line.to_owned()]).map(drop))
    }

    /// A step for `response` did its work, or may have. Returns whether that is news to what it goes by.
    pub fn took(&mut self, response: Response, target: IpNet, blocked: bool) -> bool {
        let iptables = self.iptables.as_mut().filter(|_| response == Response::Iptables);
        iptables.is_some_and(|iptables| iptables.took(target, blocked))
    }

    /// Whether a command must be run again for a block restored at start: it never was, or the machine was started since,
    /// or may have been: the block began `ahead` of the clock, as after a start with a clock that stands behind.
    pub fn must_renew(&self, block: &Block, boot: u64, ahead: bool) -> bool {
        let asked = self.order.contains(&Response::Command) && !block.is_run_only();
        asked && (!block.with.contains(Response::Command) || block.since < boot || ahead)
    }

    fn line(&self, target: &IpNet) -> String {
        hosts_deny(self.custom.hosts_deny.as_deref().unwrap_or_default(), *target, &self.custom.mode)
    }

    fn run(&self, text: Option<&str>, about: &About) -> Work {
        let filling = Filling { target: about.target, port: about.port, mode: &self.custom.mode };
        let limit = Duration::from_secs(self.custom.command_timeout.max(1).into());
        text.map_or(Work::Nothing, |text| Work::Run { words: words(&command(text, &filling)), limit })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Steps of commands alone.
    pub(in crate::helper) fn that_run(kill_route: &str, unblock_cmd: &str) -> Steps {
        let Steps { custom, .. } = steps(&[]);
        let (kill_route, unblock_cmd) = (Some(kill_route.to_owned()), Some(unblock_cmd.to_owned()));
        let kill_run_cmd = Some("sleep 60 # $TARGET$".to_owned());
        let custom = Custom { kill_route, kill_run_cmd, unblock_cmd, command_timeout: 60, ..custom };
        Steps { custom, ..steps(&[Command]) }
    }

    /// Steps that add to a set.
    pub(in crate::helper) fn that_fill_a_set() -> Steps {
        Steps { iptables: Some(Iptables::new(true)), ..steps(&[Response::Iptables]) }
    }

    fn steps(order: &[Response]) -> Steps {
        let custom = Custom {
            kill_route: Some("/block $TARGET$".into()),
            kill_run_cmd: Some("/tell $TARGET$ $PORT$ $MODE$".into()),
            unblock_cmd: Some("/lift $TARGET$".into()),
            hosts_deny: Some("ALL: $TARGET$".into()),
            mode: "stealth".into(),
            command_timeout: 3,
            ..Custom::default()
        };
        Steps { order: order.to_vec(), custom, hosts_deny: None, iptables: None }
    }

    fn about(target: &str) -> About {
        About { target: target.parse().unwrap(), port: 23, left: Duration::from_secs(5) }
    }

    fn run(text: &str) -> Work {
        let words = Words::Plain(text.split(' ').map(str::to_owned).collect());
        Work::Run { words, limit: Duration::from_secs(3) }
    }

    use Response::{Command, HostsDeny, Nftables, RunCommand};

    #[test]
    fn steps_come_in_the_configured_order_with_the_marks_filled_in() {
        let steps = steps(&[RunCommand, Nftables, HostsDeny, Command]);
        let made = steps.to_block(false);
        assert_eq!(made, [RunCommand, HostsDeny, Command].map(Step::Do));
        assert_eq!(steps.to_block(true), [Step::Do(RunCommand)]);
        let about = about("2001:db8::7/128");
        let work: Vec<Work> =
            made.into_iter().map(|step| steps.work(step, &about, Responses::NONE)).collect();
        let tell = run("/tell 2001:db8::7 23 stealth");
        let line = Work::Line { line: "ALL: [2001:db8::7]".into(), ours: false };
        assert_eq!(work, [tell, line, run("/block 2001:db8::7")]);
    }

    #[test]
    fn what_is_in_force_when_its_turn_comes_runs_no_command_again_and_only_what_ran_is_undone() {
        let steps = steps(&[Command, RunCommand]);
        let (before, about) = (Responses::from(Command).and(RunCommand), about("192.0.2.7/32"));
        for response in [Command, RunCommand] {
            assert_eq!(steps.work(Step::Do(response), &about, before), Work::InForce);
        }
        assert_eq!(steps.to_lift(&about.target, before, false), [Step::Undo(Command)]);
        assert_eq!(steps.work(Step::Undo(Command), &about, before), run("/lift 192.0.2.7"));
        assert!(steps.to_lift(&about.target, Responses::from(RunCommand), true).is_empty());
    }

    #[test]
    fn after_a_reboot_commands_are_run_again_and_else_only_if_they_never_were() {
        let steps = steps(&[Command]);
        let ran =
            Block { since: 5, until: 10, offence: 1, with: Responses::from(Command), owed: Responses::NONE };
        assert!(!steps.must_renew(&ran, 4, false) && steps.must_renew(&ran, 6, false));
        assert!(steps.must_renew(&ran, 4, true), "a clock that came up behind knows no better");
        assert!(steps.must_renew(&Block { with: Responses::NONE, ..ran }, 4, false));
        assert!(!steps.must_renew(&Block { with: Responses::from(RunCommand), ..ran }, 6, false));
    }
}
