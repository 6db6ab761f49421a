//! What takes back a KILL_ROUTE of the usual kinds, for `check` and the event of a block that failed to name.
//!
//! Pure. A guess for whoever reads it: nothing is ever run by it.
#![forbid(unsafe_code)]

use std::path::Path;

use crate::protocol::wording::{Words, words};

/// Words that put something in place, and those that take it away.
type Pairs = &'static [(&'static str, &'static str)];

const RULES: Pairs = &[("-I", "-D"), ("-A", "-D"), ("--insert", "--delete"), ("--append", "--delete")];

/// By program.
const OPPOSITES: [(&str, Pairs); 5] = [
    ("iptables", RULES),
    ("ip6tables", RULES),
    ("route", &[("add", "del")]),
    ("ip", &[("add", "del")]),
    ("ipset", &[("add", "del"), ("-A", "-D")]),
];

/// Stands for `$TARGET$`, which a shell would be asked for.
const MARK: &str = "%TARGET%";

/// The opposite of `command`, if it is one program's and that is known.
pub fn opposite(command: &str) -> Option<String> {
    let Words::Plain(plain) = words(&command.replace("$TARGET$", MARK)) else { return None };
    let name = Path::new(plain.first()?).file_name()?.to_str()?;
    let (_, pairs) = OPPOSITES.iter().find(|(program, _)| *program == name)?;
    let text = format!("{} ", plain.join(" "));
    let undone = pairs.iter().find_map(|(does, undoes)| {
        let (before, after) = text.split_once(&format!(" {does} "))?;
        let what = if name == "ipset" { entry(after) } else { without_place(does, after) };
        Some(format!("{before} {undoes} {what}"))
    })?;
    Some(undone.trim_end().replace(MARK, "$TARGET$"))
}

/// The number behind the chain of an inserted rule: a rule is deleted by what it says.
fn without_place(does: &str, after: &str) -> String {
    let mut words: Vec<&str> = after.split(' ').collect();
    let is_place = |word: &&str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
    if matches!(does, "-I" | "--insert") && words.get(1).is_some_and(is_place) {
        words.remove(1);
    }
    words.join(" ")
}

/// A set and its entry: what else is said of one that is added, as its timeout, ipset refuses where it is deleted.
fn entry(after: &str) -> String {
    let last = after.split(' ').position(|word| word.contains(MARK));
    let words = after.split(' ').take(last.map_or(usize::MAX, |last| last + 1));
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_commands_have_their_opposites_and_no_other_is_guessed() {
        for (command, undo) in [
            ("/sbin/route add -host $TARGET$ reject", "/sbin/route del -host $TARGET$ reject"),
            ("/sbin/iptables -I INPUT -s $TARGET$ -j DROP", "/sbin/iptables -D INPUT -s $TARGET$ -j DROP"),
            ("iptables -w -I INPUT 1 -s $TARGET$ -j DROP", "iptables -w -D INPUT -s $TARGET$ -j DROP"),
            ("iptables -A bad -s $TARGET$ -j DROP", "iptables -D bad -s $TARGET$ -j DROP"),
            ("ip route add blackhole $TARGET$", "ip route del blackhole $TARGET$"),
            ("ip route add unreachable $TARGET$/32", "ip route del unreachable $TARGET$/32"),
            ("ipset add bad $TARGET$", "ipset del bad $TARGET$"),
            ("ipset add bad $TARGET$ timeout 3600", "ipset del bad $TARGET$"),
            ("ipset -A -exist bad $TARGET$,tcp:22 comment scan", "ipset -D -exist bad $TARGET$,tcp:22"),
        ] {
            assert_eq!(opposite(command).as_deref(), Some(undo));
        }
        for command in [
            "/sbin/iptables -I INPUT -s $TARGET$ -j DROP && /sbin/iptables -I INPUT -s $TARGET$ -j LOG",
            "/sbin/ipchains -I input -s $TARGET$ -j DENY",
            "/usr/local/bin/add add $TARGET$",
            "nft add element inet f bad { $TARGET$ }",
            "",
        ] {
            assert_eq!(opposite(command), None, "{command}");
        }
    }
}
