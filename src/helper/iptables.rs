//! The response iptables: rules in a chain of our own, `PORTSENTRY`, in iptables and ip6tables, by those programs; one
//! set lookup instead where `ipset` works. The helper's; for hosts whose firewall is managed that way.
//!
//! Touches nothing but that chain, the jump to it from INPUT, and the sets `portsentry4` and `portsentry6`.
#![forbid(unsafe_code)]

mod listed;

use std::collections::BTreeSet;
use std::fmt::Write;
use std::time::{Duration, Instant};

use ipnet::IpNet;

use super::command::{Failure, found, run_to_end};
use super::error::log;
use super::respond::{Refusal, Timed};
use crate::protocol::Fault;
use crate::protocol::settings::MOST_BLOCKS;
use crate::protocol::wording::Words;

/// How long one of the programs may take; `-w` waits so many seconds for another that holds the lock.
pub const LIMIT: Duration = Duration::from_secs(10);
const WAIT: [&str; 2] = ["-w", "5"];
/// Whatever looks only waits no longer: the helper answers nobody meanwhile, and there is a look every ten seconds at least.
const LOOK_WAIT: [&str; 2] = ["-w", "1"];
/// What ends by itself within this time may end between a look at the clock and one at what stands: a look waits for
/// programs.
pub const SOON: Duration = Duration::from_secs(60);
/// Longest time an ipset entry can have, seconds (linux/netfilter/ipset/ip_set_timeout.h, IPSET_MAX_TIMEOUT).
const LONGEST: u64 = 2_147_483;
/// Entries that a set may have: of whatever MAX_BLOCKS, for a set that stands cannot be made again with another number. It
/// is a limit alone: the kernel makes a set as large as it is.
const MOST_ENTRIES: u32 = MOST_BLOCKS + MOST_BLOCKS / 8;
/// An entry that stays until it is deleted.
const NO_END: u64 = 0;

/// ICMPv6 messages by which neighbours find each other's hardware addresses, and switches learn who listens: as the table
/// of nftables lets them through. The kernel looks at their hop limits itself.
const LINK_MESSAGES: [u8; 6] = [130, 133, 134, 135, 136, 137];

/// A family and its programs.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Family {
    program: &'static str,
    restore: &'static str,
    set: &'static str,
    inet: &'static str,
}

const V4: Family =
    Family { program: "iptables", restore: "iptables-restore", set: "portsentry4", inet: "inet" };
const V6: Family =
    Family { program: "ip6tables", restore: "ip6tables-restore", set: "portsentry6", inet: "inet6" };

impl Family {
    fn has(self, target: &IpNet) -> bool {
        family_of(target) == self
    }

    fn link_messages(self) -> &'static [u8] {
        if self == V6 { &LINK_MESSAGES } else { &[] }
    }
}

/// The programs, and what stands in the chain.
#[derive(Debug)]
pub struct Iptables {
    ipset: bool,
    /// Everything was in place once. Whether the chain asks a set is settled from then on: what blocks and lifts goes by it.
    settled: bool,
    present: BTreeSet<IpNet>,
    /// When all that stands there may be listed again.
    next_list: Instant,
    /// What was put in place last was listed as we read it, or nobody has looked.
    is_readable: bool,
}

impl Iptables {
    /// Makes sure of the programs. Changes nothing.
    pub fn open() -> Result<Iptables, Refusal> {
        let programs = [V4.program, V4.restore, V6.program, V6.restore];
        match programs.into_iter().find(|name| found(name).is_none()) {
            None => Ok(Iptables::new(found("ipset").is_some())),
            Some(name) => Err(Refusal::new(
                libc::ENOENT,
                format!("{name} is not installed; install iptables or take it out of BLOCK_WITH"),
            )),
        }
    }

    pub(super) fn new(ipset: bool) -> Iptables {
        let (present, next_list) = (BTreeSet::new(), Instant::now());
        Iptables { ipset, settled: false, present, next_list, is_readable: true }
    }

    /// Makes the chain, empty but for these blocks, and the jump to it. An ipset that fails the first time is done without;
    /// later that is a refusal: the kernel's chain asks the sets still, and the next look tries again.
    pub fn install(&mut self, blocks: &[Timed]) -> Result<(), Refusal> {
        if self.ipset
            && let Err(failure) = fill_sets(blocks)
        {
            if self.settled {
                return Err(refusal("set up", failure));
            }
            log(&format!(
                "ipset cannot be used: {}: {}; iptables gets a rule a block",
                failure.fault, failure.text
            ));
            self.ipset = false;
        }
        let made = [V4, V6].into_iter().try_for_each(|family| self.make_chain(family, blocks));
        made.map_err(|failure| refusal("set up", failure))?;
        self.settled = true;
        self.present = blocks.iter().map(|(target, _)| *target).collect();
        self.prove_list(blocks);
        Ok(())
    }

    fn make_chain(&self, family: Family, blocks: &[Timed]) -> Result<(), Failure> {
        let mut text = "*filter\n:PORTSENTRY - [0:0]\n".to_owned();
        for kind in family.link_messages() {
            let _ = writeln!(text, "-A PORTSENTRY -p ipv6-icmp --icmpv6-type {kind} -j RETURN");
        }
        if self.ipset {
            let _ = writeln!(text, "{}", asks_the_set(family));
        } else {
            for target in blocks.iter().map(|(target, _)| target).filter(|target| family.has(target)) {
                let _ = writeln!(text, "-A PORTSENTRY -s {target} -j DROP");
            }
        }
        text.push_str("COMMIT\n");
        run_to_end(&[&[family.restore], &WAIT[..], &["--noflush"]].concat(), &text, LIMIT)?;
        let jump = ["INPUT", "-j", "PORTSENTRY"];
        let insert = [&[family.program], &WAIT[..], &["-I"], &jump[..]].concat();
        // What could not be looked at may stand: a second jump would stay when the first is taken back.
        match found_there(run_to_end(&check(family, WAIT, &jump), "", LIMIT))? {
            Some(()) => Ok(()),
            None => run_to_end(&insert, "", LIMIT),
        }
    }

    /// Whether INPUT still asks the chain, and the chain the set, in the families of these: others flush the firewall too.
    /// `with_blocks`: and whether they are still dropped.
    pub fn stands(&self, targets: &[IpNet], with_blocks: bool) -> Result<bool, Refusal> {
        for family in [V4, V6] {
            let of_family = targets.iter().filter(|target| family.has(target));
            let blocked: Vec<String> = of_family.map(ToString::to_string).collect();
            if blocked.is_empty() {
                continue;
            }
            let asked = ["PORTSENTRY", "-m", "set", "--match-set", family.set, "src", "-j", "DROP"];
            let mut checks = vec![check(family, LOOK_WAIT, &["INPUT", "-j", "PORTSENTRY"])];
            checks.extend(self.ipset.then(|| check(family, LOOK_WAIT, &asked)));
            checks.extend(blocked.iter().filter(|_| with_blocks).map(|address| match self.ipset {
                true => vec!["ipset", "test", family.set, address],
                false => check(family, LOOK_WAIT, &["PORTSENTRY", "-s", address, "-j", "DROP"]),
            }));
            for words in checks {
                if looked_at(run_to_end(&words, "", LIMIT))?.is_none() {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// The command that blocks `target`; `None` where a rule stands already.
    pub fn block(&self, (target, left): &Timed) -> Option<Words> {
        let (family, address) = (family_of(target), target.to_string());
        if self.ipset {
            let seconds = seconds(*left).to_string();
            return Some(plain(&["ipset", "-exist", "add", family.set, &address, "timeout", &seconds]));
        }
        let missing = !self.present.contains(target);
        missing.then(|| plain(&rule(family, "-A", &address)))
    }

    /// The command that lifts the block of `target`, also where there is none: somebody else may have brought it back.
    pub fn lift(&self, target: &IpNet) -> Words {
        let (family, address) = (family_of(target), target.to_string());
        match self.ipset {
            true => plain(&["ipset", "-exist", "del", family.set, &address]),
            false => deletion(family, &address),
        }
    }

    /// Whether nobody is blocked here, as far as these commands went.
    pub fn is_empty(&self) -> bool {
        self.present.is_empty()
    }

    /// Whether `target` is blocked here, as far as these commands went.
    pub fn has(&self, target: &IpNet) -> bool {
        self.present.contains(target)
    }

    /// A command of [`block`](Self::block) (or of [`lift`](Self::lift)) did its work. Returns whether that is news.
    pub fn took(&mut self, target: IpNet, blocked: bool) -> bool {
        match blocked {
            true => self.present.insert(target),
            false => self.present.remove(&target),
        }
    }
}

/// What a look found, or that it could not look.
fn looked_at<T>(looked: Result<T, Failure>) -> Result<Option<T>, Refusal> {
    found_there(looked).map_err(|failure| refusal("looked at", failure))
}

/// None where there is no such thing. 1: there is none; 2: nor a chain to jump to, as iptables-legacy says it. Others are
/// of no account here: 4, the lock is another's.
fn found_there<T>(looked: Result<T, Failure>) -> Result<Option<T>, Failure> {
    match looked {
        Ok(found) => Ok(Some(found)),
        Err(Failure { fault: Fault::Exit(1 | 2), .. }) => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// The chain's one rule where sets hold the blocks.
fn asks_the_set(family: Family) -> String {
    format!("-A PORTSENTRY -m set --match-set {} src -j DROP", family.set)
}

fn fill_sets(blocks: &[Timed]) -> Result<(), Failure> {
    let mut text = String::new();
    for family in [V4, V6] {
        let (set, inet) = (family.set, family.inet);
        let _ = writeln!(text, "create {set} hash:net family {inet} timeout 0 maxelem {MOST_ENTRIES}");
        let _ = writeln!(text, "flush {}", family.set);
    }
    for (target, left) in blocks {
        let _ = writeln!(text, "add {} {target} timeout {}", family_of(target).set, seconds(*left));
    }
    run_to_end(&["ipset", "-exist", "restore"], &text, LIMIT)
}

fn family_of(target: &IpNet) -> Family {
    match target {
        IpNet::V4(_) => V4,
        IpNet::V6(_) => V6,
    }
}

/// Whole seconds, at least one. What ipset cannot time has no end there: the helper deletes it when its time is over, and
/// at its start whatever has ended while it was not there.
fn seconds(left: Duration) -> u64 {
    let seconds = left.as_millis().div_ceil(1000).max(1);
    u64::try_from(seconds).ok().filter(|&it| it <= LONGEST).unwrap_or(NO_END)
}

fn rule<'a>(family: Family, change: &'a str, address: &'a str) -> [&'a str; 9] {
    let [wait, seconds] = WAIT;
    [family.program, wait, seconds, change, "PORTSENTRY", "-s", address, "-j", "DROP"]
}

/// A rule that is gone already, or never came to be, is no failure: 1 is what deleting it ends with, and looking for it.
fn deletion(family: Family, address: &str) -> Words {
    let [delete, look] = ["-D", "-C"].map(|change| rule(family, change, address).join(" "));
    Words::Shell(format!("{delete}; ended=$?; [ $ended -eq 1 ] || exit $ended; {look}; [ $? -eq 1 ]"))
}

fn check<'a>(family: Family, wait: [&'a str; 2], rule: &[&'a str]) -> Vec<&'a str> {
    [&[family.program], &wait[..], &["-C"], rule].concat()
}

fn plain(words: &[&str]) -> Words {
    Words::Plain(words.iter().map(ToString::to_string).collect())
}

fn refusal(done: &'static str, failure: Failure) -> Refusal {
    let Failure { fault, text } = failure;
    Refusal::new(fault.errno(), format!("iptables cannot be {done}: {fault}: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn a_rule_is_added_once_and_removed_whoever_added_it() {
        let mut iptables = Iptables::new(false);
        let block = (net("2001:db8::7/128"), Duration::from_secs(60));
        let Some(Words::Plain(words)) = iptables.block(&block) else { panic!("a command is due") };
        assert_eq!(words.join(" "), "ip6tables -w 5 -A PORTSENTRY -s 2001:db8::7/128 -j DROP");
        let lift = iptables.lift(&block.0);
        assert!(
            matches!(&lift, Words::Shell(words) if words.starts_with("ip6tables -w 5 -D PORTSENTRY -s 2001:db8::7/128"))
        );
        iptables.took(block.0, true);
        assert_eq!(iptables.block(&block), None);
        assert_eq!(iptables.lift(&block.0), lift);
    }

    #[test]
    fn a_look_waits_for_the_lock_a_second_and_a_change_longer() {
        let jump = ["INPUT", "-j", "PORTSENTRY"];
        let looks = check(V4, LOOK_WAIT, &jump).join(" ");
        assert_eq!(looks, "iptables -w 1 -C INPUT -j PORTSENTRY");
        assert!(rule(V4, "-A", "192.0.2.7/32").join(" ").starts_with("iptables -w 5 -A "));
    }

    #[test]
    fn a_set_entry_has_its_time_and_is_never_for_ever_by_mistake() {
        let iptables = Iptables::new(true);
        let Some(Words::Plain(words)) = iptables.block(&(net("192.0.2.7/32"), Duration::ZERO)) else {
            panic!("a command is due")
        };
        assert_eq!(words.join(" "), "ipset -exist add portsentry4 192.0.2.7/32 timeout 1");
        assert_eq!(seconds(Duration::from_secs(LONGEST)), LONGEST);
    }

    #[test]
    fn what_ipset_cannot_time_has_no_end_there() {
        assert_eq!(seconds(Duration::from_secs(LONGEST + 1)), NO_END);
        assert_eq!(seconds(Duration::MAX), NO_END);
    }
}
