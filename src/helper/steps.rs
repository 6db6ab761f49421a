//! The responses that take a file or a program, as steps in the order in which PortSentry takes them. Helper.
//!
//! Decides which steps a block and its end take; `jobs` takes them one by one. What the kernel does at once is `respond`'s.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::time::Duration;

use ipnet::IpNet;

use super::decide::Grant;
use super::escalation::Block;
use super::hosts_deny::HostsDeny;
use super::iptables::{self, Iptables};
use super::respond::{Refusal, Timed};
use crate::protocol::settings::Custom;
use crate::protocol::wording::{Filling, Words, command, hosts_deny, words};
use crate::protocol::{Response, Responses, Settings};

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Add this line to hosts.deny.
    Line(String),
    /// Run this program, within this time.
    Run {
        /// For which response.
        response: Response,
        /// Program and arguments.
        words: Words,
        /// Time limit.
        limit: Duration,
    },
    /// Nothing is left to do: it is in force already.
    InForce(Response),
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
        let custom = settings.custom.clone();
        Ok(Steps {
            order: settings.block_with.clone(),
            hosts_deny: asked(Response::HostsDeny)
                .then(|| HostsDeny::open(&custom.hosts_deny_file))
                .transpose()?,
            iptables: asked(Response::Iptables).then(Iptables::open).transpose()?,
            custom,
        })
    }

    /// Puts these blocks, and no others of ours, in place. Commands are not run: see [`to_renew`](Self::to_renew).
    pub fn install(&mut self, blocks: &[Timed], ended: &[IpNet]) -> Result<(), Refusal> {
        if let Some(file) = &self.hosts_deny {
            let lines = |targets: &mut dyn Iterator<Item = IpNet>| {
                targets.map(|target| self.line(&target, 0)).collect()
            };
            let added: Vec<String> = lines(&mut blocks.iter().map(|(target, _)| *target));
            let gone: Vec<String> = lines(&mut ended.iter().copied());
            file.edit(&added, &gone)?;
        }
        self.iptables.as_mut().map_or(Ok(()), |iptables| iptables.install(blocks))
    }

    /// What [`install`](Self::install) puts in place.
    pub fn installed(&self) -> Responses {
        let files = self.hosts_deny.iter().map(|_| Response::HostsDeny);
        files.chain(self.iptables.iter().map(|_| Response::Iptables)).collect()
    }

    /// The steps that make a block, `left` before its end.
    pub fn to_block(&self, grant: &Grant, left: Duration) -> VecDeque<Step> {
        let step = |response: &Response| self.block_step(*response, grant, left);
        self.order
            .iter()
            .filter(|&&response| !grant.run_only || response == Response::RunCommand)
            .filter_map(step)
            .collect()
    }

    fn block_step(&self, response: Response, grant: &Grant, left: Duration) -> Option<Step> {
        // A renewed block runs no command again.
        let before = grant.block.with.contains(response);
        match response {
            Response::Nftables | Response::Route => None,
            Response::HostsDeny => Some(Step::Line(self.line(&grant.target, grant.port))),
            Response::Iptables => self.iptables.as_ref().map(|iptables| {
                let words = iptables.block(&(grant.target, Some(left)));
                words.map_or(Step::InForce(response), |words| Step::Run {
                    response,
                    words,
                    limit: iptables::LIMIT,
                })
            }),
            Response::Command | Response::RunCommand if before => Some(Step::InForce(response)),
            Response::Command => {
                self.run(response, self.custom.kill_route.as_deref(), &grant.target, grant.port)
            }
            Response::RunCommand => {
                self.run(response, self.custom.kill_run_cmd.as_deref(), &grant.target, grant.port)
            }
        }
    }

    /// The steps that put a command's block in force again after the kernel has forgotten it.
    pub fn to_renew(&self, target: &IpNet) -> VecDeque<Step> {
        let asked = self.order.contains(&Response::Command);
        let text = self.custom.kill_route.as_deref().filter(|_| asked);
        self.run(Response::Command, text, target, 0).into_iter().collect()
    }

    /// The steps that end what is in force `with` these responses. Lines are [`take_lines`](Self::take_lines)'.
    pub fn to_lift(&self, target: &IpNet, with: Responses) -> VecDeque<Step> {
        let mut steps = VecDeque::new();
        if let Some(words) = self.iptables.as_ref().and_then(|iptables| iptables.lift(target)) {
            steps.push_back(Step::Run { response: Response::Iptables, words, limit: iptables::LIMIT });
        }
        let text = self.custom.unblock_cmd.as_deref().filter(|_| with.contains(Response::Command));
        steps.extend(self.run(Response::Command, text, target, 0));
        steps
    }

    /// Adds a line to hosts.deny.
    pub fn write_line(&self, line: &str) -> Result<(), Refusal> {
        self.hosts_deny.as_ref().map_or(Ok(()), |file| file.edit(&[line.to_owned()], &[]))
    }

    /// Takes the lines of these targets out of hosts.deny, all at once.
    pub fn take_lines(&self, targets: impl Iterator<Item = IpNet>) -> Result<(), Refusal> {
        let Some(file) = &self.hosts_deny else { return Ok(()) };
        let lines: Vec<String> = targets.map(|target| self.line(&target, 0)).collect();
        if lines.is_empty() { Ok(()) } else { file.edit(&[], &lines) }
    }

    /// A step for `response` did its work.
    pub fn took(&mut self, response: Response, target: IpNet, blocked: bool) {
        if let Some(iptables) = self.iptables.as_mut().filter(|_| response == Response::Iptables) {
            iptables.took(target, blocked);
        }
    }

    /// Whether a command must be run again for a block restored at start: it never was, or the machine was started since.
    pub fn must_renew(&self, block: &Block, boot: u64) -> bool {
        let asked = self.order.contains(&Response::Command) && !block.is_run_only();
        asked && (!block.with.contains(Response::Command) || block.since < boot)
    }

    fn line(&self, target: &IpNet, port: u16) -> String {
        let filling = Filling { target: *target, port, mode: &self.custom.mode };
        hosts_deny(self.custom.hosts_deny.as_deref().unwrap_or_default(), &filling)
    }

    fn run(&self, response: Response, text: Option<&str>, target: &IpNet, port: u16) -> Option<Step> {
        let filling = Filling { target: *target, port, mode: &self.custom.mode };
        let limit = Duration::from_secs(self.custom.command_timeout.max(1).into());
        text.map(|text| Step::Run { response, words: words(&command(text, &filling)), limit })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    fn grant(with: Responses, run_only: bool) -> Grant {
        let block = Block { since: 5, until: 10, offence: 1, with };
        Grant {
            id: 1,
            target: "2001:db8::7/128".parse().unwrap(),
            block,
            port: 23,
            protocol: crate::detect::probe::Protocol::Tcp,
            tripped: false,
            run_only,
        }
    }

    fn run(response: Response, text: &str) -> Step {
        let words = Words::Plain(text.split(' ').map(str::to_owned).collect());
        Step::Run { response, words, limit: Duration::from_secs(3) }
    }

    use Response::{Command, HostsDeny, Nftables, RunCommand};

    #[test]
    fn steps_come_in_the_configured_order_with_the_marks_filled_in() {
        let steps = steps(&[RunCommand, Nftables, HostsDeny, Command]);
        let made = steps.to_block(&grant(Responses::NONE, false), Duration::ZERO);
        let tell = run(RunCommand, "/tell 2001:db8::7 23 stealth");
        assert_eq!(
            made,
            [tell.clone(), Step::Line("ALL: [2001:db8::7]".into()), run(Command, "/block 2001:db8::7")]
        );
        assert_eq!(steps.to_block(&grant(Responses::NONE, true), Duration::ZERO), [tell]);
    }

    #[test]
    fn a_renewed_block_runs_no_command_again_and_only_what_ran_is_undone() {
        let steps = steps(&[Command, RunCommand]);
        let before = Responses::NONE.and(Command).and(RunCommand);
        let made = steps.to_block(&grant(before, false), Duration::ZERO);
        assert_eq!(made, [Step::InForce(Command), Step::InForce(RunCommand)]);
        let target = "192.0.2.7/32".parse().unwrap();
        assert_eq!(steps.to_lift(&target, before), [run(Command, "/lift 192.0.2.7")]);
        assert!(steps.to_lift(&target, Responses::NONE.and(RunCommand)).is_empty());
    }

    #[test]
    fn after_a_reboot_commands_are_run_again_and_else_only_if_they_never_were() {
        let steps = steps(&[Command]);
        let ran = Block { since: 5, until: 10, offence: 1, with: Responses::NONE.and(Command) };
        assert!(!steps.must_renew(&ran, 4) && steps.must_renew(&ran, 6));
        assert!(steps.must_renew(&Block { with: Responses::NONE, ..ran }, 4));
        assert!(!steps.must_renew(&Block { with: Responses::NONE.and(RunCommand), ..ran }, 6));
    }
}
