//! `$TARGET$`, `$PORT$` and `$MODE$`: the administrator's texts with what they stand for put in. Pure; both roles, so that
//! the helper does exactly what the sensor's log says.
//!
//! What is put in is made here from numbers and one of two words: no byte of it comes from the network.
#![forbid(unsafe_code)]

use ipnet::IpNet;

/// What an administrator's text is filled with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filling<'a> {
    /// `$TARGET$`: one address, or a prefix where one was blocked in its place.
    pub target: IpNet,
    /// `$PORT$`: the probed port, 0 where an operator asked.
    pub port: u16,
    /// `$MODE$`: `stealth` or `connect`.
    pub mode: &'a str,
}

/// A command of the administrator's, ready to be run.
pub fn command(template: &str, filling: &Filling<'_>) -> String {
    filled(template, &address(&filling.target), filling)
}

/// A line of hosts.deny (hosts_access(5)): IPv6 in brackets, IPv4 networks with their mask. Without blanks at its end: a line
/// is found again whatever blanks or CR the file has there. `$PORT$` is 0 in it: nobody knows the port any more when the
/// line is to be taken out.
pub fn hosts_deny(template: &str, target: IpNet, mode: &str) -> String {
    let pattern = match target {
        IpNet::V4(net) if is_address(&target) => net.addr().to_string(),
        IpNet::V4(net) => format!("{}/{}", net.addr(), net.netmask()),
        IpNet::V6(net) if is_address(&target) => format!("[{}]", net.addr()),
        IpNet::V6(net) => format!("[{}]/{}", net.addr(), net.prefix_len()),
    };
    // Whoever knew that brackets are due has written them already: they are the mark's, for no network stands in them,
    // nor IPv4.
    let line =
        filled(&template.replace("[$TARGET$]", "$TARGET$"), &pattern, &Filling { target, port: 0, mode });
    line.trim_ascii_end().to_owned()
}

fn filled(template: &str, target: &str, filling: &Filling<'_>) -> String {
    let text = template.replace("$TARGET$", target).replace("$PORT$", &filling.port.to_string());
    text.replace("$MODE$", filling.mode)
}

/// `192.0.2.7`, `2001:db8::7`, or `2001:db8::/64` where a prefix was blocked.
pub fn address(target: &IpNet) -> String {
    if is_address(target) { target.addr().to_string() } else { target.to_string() }
}

/// Whether `target` is one address and no wider prefix.
pub fn is_address(target: &IpNet) -> bool {
    target.prefix_len() == target.max_prefix_len()
}

/// How a command's text is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Words {
    /// Program and arguments, without any shell.
    Plain(Vec<String>),
    /// `/bin/sh -c` this text.
    Shell(String),
}

/// Splits a filled text at blanks. A shell is asked only where the text uses what only a shell knows.
pub fn words(text: &str) -> Words {
    let plain: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
    let is_shells = |first: &String| first.contains('=') || BUILT_IN.contains(&first.as_str());
    match plain.first().is_some_and(is_shells) || text.contains(needs_shell) {
        true => Words::Shell(text.to_owned()),
        false => Words::Plain(plain),
    }
}

/// POSIX.1-2017, Shell Command Language §2.14 and §2.9.1.1: what a shell is told to do itself, and no program of that name
/// need be there for.
const BUILT_IN: [&str; 29] = [
    ".", ":", "alias", "bg", "break", "cd", "command", "continue", "eval", "exec", "exit", "export", "fc",
    "fg", "hash", "jobs", "read", "readonly", "return", "set", "shift", "times", "trap", "type", "ulimit",
    "umask", "unalias", "unset", "wait",
];

/// POSIX.1-2017, Shell Command Language §2.2: characters that mean something to a shell. `:`, `/`, `.` and `-`, which
/// addresses and options are made of, do not.
fn needs_shell(character: char) -> bool {
    "|&;<>()$`\\\"'*?[]#~{}!\n".contains(character)
}

/// The program that `template` runs; `None` where a shell finds it.
pub fn program(template: &str) -> Option<String> {
    let filling = Filling { target: IpNet::default(), port: 0, mode: "stealth" };
    match words(&command(template, &filling)) {
        Words::Plain(words) => words.into_iter().next(),
        Words::Shell(_) => None,
    }
}

/// Programs that shut a source out, whatever their arguments.
const SHUTS_OUT: [&str; 9] =
    ["iptables", "ip6tables", "nft", "ipset", "route", "ufw", "firewall-cmd", "csf", "hosts.deny"];

/// Whether `template` names one of them: a script of the administrator's that runs one has a name of its own.
pub fn may_shut_out(template: &str) -> bool {
    let is_between = |c: char| !c.is_ascii_alphanumeric() && !matches!(c, '-' | '_' | '.');
    template.split(is_between).any(|word| SHUTS_OUT.contains(&word))
}

/// Where programs without a path are looked for, and what commands get as their PATH.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

#[cfg(test)]
mod tests {
    use super::*;

    fn at(target: &str) -> Filling<'static> {
        Filling { target: target.parse().unwrap(), port: 23, mode: "stealth" }
    }

    #[test]
    fn every_mark_is_replaced_wherever_it_stands() {
        let text = command("/x $TARGET$ $PORT$ $MODE$ $TARGET$", &at("192.0.2.7/32"));
        assert_eq!(text, "/x 192.0.2.7 23 stealth 192.0.2.7");
        assert_eq!(command("/x $TARGET$", &at("2001:db8::/64")), "/x 2001:db8::/64");
    }

    #[test]
    fn hosts_deny_has_brackets_for_ipv6_and_masks_for_networks() {
        let hosts_deny =
            |template: &str, target: &str| hosts_deny(template, target.parse().unwrap(), "stealth");
        for (target, line) in [
            ("192.0.2.7/32", "ALL: 192.0.2.7"),
            ("192.0.2.0/24", "ALL: 192.0.2.0/255.255.255.0"),
            ("2001:db8::7/128", "ALL: [2001:db8::7]"),
            ("2001:db8::/64", "ALL: [2001:db8::]/64"),
        ] {
            assert_eq!(hosts_deny("ALL: $TARGET$", target), line);
            assert_eq!(hosts_deny("ALL: [$TARGET$] : DENY", target), format!("{line} : DENY"));
            assert_eq!(hosts_deny("ALL: $TARGET$ \t\r ", target), line);
            assert_eq!(hosts_deny("ALL: $TARGET$ : $PORT$ $MODE$", target), format!("{line} : 0 stealth"));
        }
    }

    #[test]
    fn a_command_that_shuts_out_is_known_by_the_programs_it_names() {
        for text in [
            "/sbin/iptables -I INPUT -s $TARGET$ -j DROP && /sbin/iptables -I INPUT -s $TARGET$ -j LOG",
            "/sbin/route add -host $TARGET$ reject; /etc/portsentry/tell.sh $TARGET$",
            "ip route add blackhole $TARGET$",
            "echo ALL: $TARGET$ >>/etc/hosts.deny",
        ] {
            assert!(may_shut_out(text), "{text}");
        }
        for text in ["/usr/local/bin/alarm $TARGET$ $PORT$", "mail -s 'no-route $TARGET$' root", ""] {
            assert!(!may_shut_out(text), "{text}");
        }
    }

    #[test]
    fn plain_words_need_no_shell_and_everything_else_gets_one() {
        let plain = words("/sbin/iptables -I INPUT  -s 2001:db8::7/64 -j DROP --x=y,z");
        let expected = ["/sbin/iptables", "-I", "INPUT", "-s", "2001:db8::7/64", "-j", "DROP", "--x=y,z"];
        assert_eq!(plain, Words::Plain(expected.map(str::to_owned).to_vec()));
        for text in ["a | b", "a; b", "a 'b c'", "A=1 b", "a > /tmp/x", "a $HOME", "a && b", "a *"] {
            assert_eq!(words(text), Words::Shell(text.to_owned()));
        }
        assert_eq!(program("/sbin/route add -host $TARGET$ reject").as_deref(), Some("/sbin/route"));
        assert_eq!(program("a $TARGET$ | b"), None);
        for text in ["exec /sbin/alarm 192.0.2.7", " . /etc/alarm", "cd /tmp", "eval x", "ulimit -n 9"] {
            assert_eq!(words(text), Words::Shell(text.to_owned()));
        }
        assert_eq!(program("/usr/bin/exec $TARGET$").as_deref(), Some("/usr/bin/exec"));
    }
}
