//! What stands in the chains and sets, as the programs list it, against what we put there. Helper.
//!
//! Somebody else may restore what was saved while others were blocked, and then nobody's end lifts it. Reads no more than
//! what is ours would take: whatever is longer is not as we made it.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Instant;

use ipnet::IpNet;

use super::{Family, Iptables, LIMIT, LOOK_WAIT, SOON, V4, V6, asks_the_set, check, looked_at};
use crate::helper::command::{run_and_read, run_to_end};
use crate::helper::error::log;
use crate::helper::respond::{Refusal, Timed};

/// Of the time, what [`Iptables::is_as_made`] takes at most, but for the first: many rules take a program long.
const SHARE: u32 = 20;
/// Longer than a line that is ours, bytes.
const LINE: usize = 96;
/// Lines besides the blocks, and some to spare.
const LINES: usize = 16;
/// What is said where no list can be compared.
const UNREADABLE: &str = "what was put in place a moment ago iptables or ipset does not list as expected (another \
     version?, or somebody changed it at once): whom others bring back there no look notices, only whether a block still \
     stands; update these programs, or block with nftables";

impl Iptables {
    /// Whether the chains, and the sets that they ask, hold what these commands have put there, once, and nobody else,
    /// whatever they hold of those who are `unsettled`. Listed the less often the longer that takes, and not at all where what
    /// they list is not [to be read](Self::prove_list).
    pub fn is_as_made(&mut self, unsettled: &BTreeSet<IpNet>) -> Result<bool, Refusal> {
        let begun = Instant::now();
        if !self.is_readable || begun < self.next_list {
            return Ok(true);
        }
        for family in [V4, V6] {
            if !self.holds_ours(family, unsettled)? {
                return Ok(false);
            }
        }
        self.next_list = begun + begun.elapsed() * SHARE;
        Ok(true)
    }

    /// Looks whether what was put in place a moment ago is listed as we read it: else each look would take it for somebody
    /// else's change and put it in place anew, for ever. Where that cannot be looked at all stays as it was.
    pub(super) fn prove_list(&mut self, blocks: &[Timed]) {
        let Ok(is_readable) = self.lists(blocks) else { return };
        if self.is_readable && !is_readable {
            log(UNREADABLE);
        }
        self.is_readable = is_readable;
    }

    /// Others may be among them: what a program is at work on.
    fn lists(&self, blocks: &[Timed]) -> Result<bool, Refusal> {
        for family in [V4, V6] {
            let Some(listed) = self.listed(family, 0)? else { return Ok(false) };
            let of_family = blocks.iter().filter(|(target, _)| family.has(target));
            let mut lasting = of_family.filter(|(_, left)| *left > SOON);
            if !lasting.all(|(target, _)| listed.binary_search(target).is_ok()) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn holds_ours(&self, family: Family, unsettled: &BTreeSet<IpNet>) -> Result<bool, Refusal> {
        if looked_at(run_to_end(&check(family, LOOK_WAIT, &["INPUT", "-j", "PORTSENTRY"]), "", LIMIT))?
            .is_none()
        {
            return Ok(false);
        }
        let blocks = self.listed(family, unsettled.len())?;
        let ours = self.present.iter().filter(|target| family.has(target));
        let settled = |target: &&IpNet| !unsettled.contains(*target);
        Ok(blocks.is_some_and(|blocks| blocks.iter().filter(settled).eq(ours.filter(settled))))
    }

    /// Whom chain or set drop, in order; none where they are not as we make them.
    fn listed(&self, family: Family, more: usize) -> Result<Option<Vec<IpNet>>, Refusal> {
        let chain = [&[family.program], &LOOK_WAIT[..], &["-S", "PORTSENTRY"]].concat();
        let chain = self.list(&chain, more)?;
        let Some(drops) = chain.as_deref().and_then(|chain| drops(chain, family)) else { return Ok(None) };
        match self.ipset {
            false => Ok(entries(drops.into_iter(), rule_of)),
            true if drops != [asks_the_set(family)] => Ok(None),
            true => {
                let set = self.list(&["ipset", "save", family.set], more)?;
                Ok(set.and_then(|set| entries(content(&set), |line| entry_of(line, family))))
            }
        }
    }

    /// None where there is no such thing, or much more than what is ours and so many `more`.
    fn list(&self, words: &[&str], more: usize) -> Result<Option<String>, Refusal> {
        let most = LINE.saturating_mul(self.present.len() + more + LINES);
        let listed = run_and_read(words, LIMIT, most);
        Ok(looked_at(listed)?.flatten())
    }
}

/// Whom these lines are about, in order; none where one of them is not ours.
fn entries<'a>(
    lines: impl Iterator<Item = &'a str>,
    of: impl Fn(&'a str) -> Option<IpNet>,
) -> Option<Vec<IpNet>> {
    let mut targets = lines.map(of).collect::<Option<Vec<IpNet>>>()?;
    targets.sort_unstable();
    Some(targets)
}

/// What makes chain or set, and remarks, are not what they hold.
fn content(text: &str) -> impl Iterator<Item = &str> {
    let around = ["-N ", "create ", "#"];
    text.lines().filter(move |line| !line.is_empty() && !around.iter().any(|it| line.starts_with(it)))
}

/// The rules after those that let link messages by; none where these are not all there, and first.
fn drops(chain: &str, family: Family) -> Option<Vec<&str>> {
    let mut rules = content(chain);
    let mut kinds = family.link_messages().iter();
    // The protocol has another name where /etc/protocols gives it one, or is not there.
    let lets_by = |kind: &u8, rule: &str| {
        rule.starts_with("-A PORTSENTRY -p ") && rule.ends_with(&format!(" --icmpv6-type {kind} -j RETURN"))
    };
    kinds.all(|kind| rules.next().is_some_and(|rule| lets_by(kind, rule))).then(|| rules.collect())
}

fn rule_of(line: &str) -> Option<IpNet> {
    network(line.strip_prefix("-A PORTSENTRY -s ")?.strip_suffix(" -j DROP")?)
}

fn entry_of(line: &str, family: Family) -> Option<IpNet> {
    let mut words = line.split(' ');
    let is_ours = words.next() == Some("add") && words.next() == Some(family.set);
    words.next().filter(|_| is_ours).and_then(network)
}

fn network(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| Some(text.parse::<IpAddr>().ok()?.into()))
}

#[cfg(test)]
mod tests {
    use super::super::LINK_MESSAGES;
    use super::*;

    fn nets(texts: &[&str]) -> Option<Vec<IpNet>> {
        Some(texts.iter().map(|text| text.parse().unwrap()).collect())
    }

    fn rules(chain: &str, family: Family) -> Option<Vec<IpNet>> {
        entries(drops(chain, family)?.into_iter(), rule_of)
    }

    #[test]
    fn rules_are_read_as_iptables_lists_them_and_any_other_is_not_ours() {
        let chain = "-N PORTSENTRY\n-A PORTSENTRY -s 198.51.100.9/32 -j DROP\n-A PORTSENTRY -s 192.0.2.0/24 -j DROP\n";
        assert_eq!(rules(chain, V4), nets(&["192.0.2.0/24", "198.51.100.9/32"]));
        assert_eq!(rules("# a remark\n-N PORTSENTRY\n", V4), nets(&[]));
        let others =
            ["-A PORTSENTRY -j DROP", "-A PORTSENTRY -s 192.0.2.7/32 -p tcp -j DROP", "-A INPUT -j DROP"];
        for other in others {
            assert_eq!(rules(&format!("{chain}{other}\n"), V4), None, "{other}");
        }
    }

    #[test]
    fn link_messages_are_let_by_first_or_it_is_not_our_chain() {
        let by = |kind: &u8| format!("-A PORTSENTRY -p ipv6-icmp -m icmp6 --icmpv6-type {kind} -j RETURN\n");
        let [by, fewer]: [String; 2] =
            [&LINK_MESSAGES[..], &LINK_MESSAGES[1..]].map(|it| it.iter().map(by).collect());
        let drop = "-A PORTSENTRY -s 2001:db8::7/128 -j DROP\n";
        for name in ["ipv6-icmp", "icmpv6", "58"] {
            let by = by.replace("ipv6-icmp", name);
            assert_eq!(
                rules(&format!("-N PORTSENTRY\n{by}{drop}"), V6),
                nets(&["2001:db8::7/128"]),
                "{name}"
            );
        }
        for other in [format!("{drop}{by}"), format!("{fewer}{drop}"), drop.to_owned()] {
            assert_eq!(rules(&other, V6), None, "{other}");
        }
    }

    #[test]
    fn entries_are_read_as_ipset_saves_them() {
        let set = "create portsentry6 hash:net family inet6 hashsize 1024 maxelem 131072 timeout 0\n\
                   add portsentry6 2001:db8::/64 timeout 0\nadd portsentry6 2001:db8::7 timeout 599\n";
        let read = |family| entries(content(set), |line| entry_of(line, family));
        assert_eq!(read(V6), nets(&["2001:db8::/64", "2001:db8::7/128"]));
        assert_eq!(read(V4), None);
    }
}
