//! Promise: whoever holds the sensor's end of the pipe can do no more than ask. Raw bytes to the real helper, the real
//! kernel behind it. Needs root; every test runs in a network namespace of its own that ends with its thread.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::wildcard_enum_match_arm)]

#[path = "support/nft.rs"]
#[allow(dead_code)]
mod nft;

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ipnet::IpNet;
use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use portsentry::detect::probe::Protocol;
use portsentry::helper::nftables::Nftables;
use portsentry::helper::ruleset::SET_CAPACITY;
use portsentry::protocol::settings::{Custom, Response, Sandbox};
use portsentry::protocol::{
    Datagrams, FRAME_LENGTH, Frame, LIST_PAGE, Outcome, Page, Reply, Request, Settings, Terms,
};
use tempfile::TempDir;

const HELPER: &str = env!("CARGO_BIN_EXE_portsentry-rs-helper");
/// docs/threat-model.md: either process gone, the other ends within a second. The rest is for a busy machine.
const SOON: Duration = Duration::from_secs(3);
/// Where no promise says how soon: far beyond what anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// A namespace, a state folder, and the sensor's side of a running helper.
struct Lab {
    state: TempDir,
    settings: Settings,
    child: Child,
    requests: Option<ChildStdin>,
    replies: ChildStdout,
    last_id: u64,
    /// Blocks whose end was told though nobody had asked for it.
    over: Vec<IpNet>,
}

impl Lab {
    /// A host 192.0.2.1 and 2001:db8::1 with the gateways 192.0.2.254 and fe80::fe; 198.51.100.0/24 is ignored.
    fn new() -> Lab {
        Lab::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut Settings)) -> Lab {
        Lab::logging_to(Stdio::inherit(), change)
    }

    fn logging_to(log: Stdio, change: impl FnOnce(&mut Settings)) -> Lab {
        unshare(CloneFlags::CLONE_NEWNET).expect("these tests need root: sudo make test");
        ip("link set lo up");
        ip("link add port0 type veth peer name wire0");
        ip("link set port0 up");
        ip("link set wire0 up");
        ip("address add 192.0.2.1/24 dev port0");
        ip("address add 2001:db8::1/64 dev port0 nodad");
        ip("route add default via 192.0.2.254");
        ip("-6 route add default via fe80::fe dev port0");
        let state = tempfile::tempdir().unwrap();
        let mut settings = Settings {
            never_block: vec![net("198.51.100.0/24"), net("2001:db8:f::/48")],
            block_with: vec![Response::Nftables],
            block_time: 600,
            block_time_max: 86_400,
            block_time_factor: 2,
            max_blocks: 32_768,
            state_dir: state.path().to_owned(),
            flush_on_stop: false,
            run_as: None,
            sandbox: Sandbox::Strict,
            sandbox_log: false,
            blocked_file: None,
            tripwire: None,
            custom: Custom::default(),
        };
        change(&mut settings);
        let (child, requests, replies) = spawn(&settings, log);
        let mut lab =
            Lab { state, settings, child, requests: Some(requests), replies, last_id: 0, over: Vec::new() };
        assert!(matches!(lab.reply(), Reply::Ready { restored: 0, .. }));
        lab
    }

    fn raw(&mut self, bytes: &[u8]) {
        self.requests.as_mut().unwrap().write_all(bytes).unwrap();
    }

    /// Sends the request that `make` makes of the next number.
    fn send(&mut self, make: impl FnOnce(u64) -> Request) {
        self.last_id += 1;
        let frame = make(self.last_id).encode();
        self.raw(&frame);
    }

    fn reply(&mut self) -> Reply {
        let mut frame: Frame = [0; FRAME_LENGTH];
        for byte in 0..FRAME_LENGTH {
            assert!(is_readable(&self.replies), "no reply in time");
            self.replies.read_exact(&mut frame[byte..=byte]).expect("the helper is still there");
        }
        Reply::decode(&frame).unwrap()
    }

    fn ask(&mut self, make: impl FnOnce(u64) -> Request) -> Outcome {
        self.send(make);
        loop {
            match self.reply() {
                Reply::Done { id, outcome, .. } if id == self.last_id => return outcome,
                Reply::Over { target } => self.over.push(target),
                other => panic!("{other:?}"),
            }
        }
    }

    fn block(&mut self, target: &str, seconds: u32) -> Outcome {
        let target = net(target);
        self.ask(|id| block(id, target, seconds))
    }

    /// The next last word on a request, past all that is told besides.
    fn last_word(&mut self) -> (u64, Outcome) {
        loop {
            match self.reply() {
                Reply::Done { id, outcome, .. } => return (id, outcome),
                Reply::Note { .. } | Reply::Over { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }

    fn list(&mut self) -> Vec<IpNet> {
        let mut targets = Vec::new();
        loop {
            let page = self.page(targets.last().copied());
            targets.extend(&page);
            if page.len() < LIST_PAGE {
                return targets;
            }
        }
    }

    fn page(&mut self, after: Option<IpNet>) -> Vec<IpNet> {
        self.send(|id| Request::List { id, after });
        let mut targets = Vec::new();
        loop {
            match self.reply() {
                Reply::Entry { target, .. } => targets.push(target),
                Reply::End { .. } => return targets,
                other => panic!("{other:?}"),
            }
        }
    }

    fn ping(&mut self) {
        self.send(|id| Request::Ping { id });
        assert_eq!(self.reply(), Reply::Pong { id: self.last_id });
    }

    /// Closes the request pipe and waits for the end.
    fn hang_up(&mut self) -> Option<i32> {
        self.requests = None;
        self.end()
    }

    fn end(&mut self) -> Option<i32> {
        ended(&mut self.child, SOON).expect("the helper ends in time").code()
    }

    /// A new helper on the same state; returns how many blocks it restored.
    fn restart(&mut self) -> u32 {
        let (child, requests, replies) = spawn(&self.settings, Stdio::inherit());
        (self.child, self.requests, self.replies, self.last_id) = (child, Some(requests), replies, 0);
        match self.reply() {
            Reply::Ready { restored, .. } => restored,
            other => panic!("{other:?}"),
        }
    }
}

/// Of its own accord if it can: it ends the commands that it runs, which after a test that failed may wait for ever.
impl Drop for Lab {
    fn drop(&mut self) {
        self.requests = None;
        if ended(&mut self.child, SOON).is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn block(id: u64, target: IpNet, seconds: u32) -> Request {
    Request::Block { id, target, seconds, port: 22, protocol: Protocol::Tcp, verified: true, run_only: false }
}

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().expect("ip of iproute2 is installed");
    assert!(status.success(), "ip {arguments}");
}

fn start(stdin: Stdio, stdout: Stdio, log: Stdio) -> Child {
    Command::new(HELPER).stdin(stdin).stdout(stdout).stderr(log).env_clear().spawn().unwrap()
}

fn spawn(settings: &Settings, log: Stdio) -> (Child, ChildStdin, ChildStdout) {
    let mut child = start(Stdio::piped(), Stdio::piped(), log);
    let (mut requests, replies) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    settings.write_to(&mut requests).unwrap();
    (child, requests, replies)
}

fn is_readable(pipe: &impl AsFd) -> bool {
    let mut fds = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::try_from(PATIENCE).unwrap()).unwrap() == 1
}

fn ended(child: &mut Child, within: Duration) -> Option<ExitStatus> {
    until(within, || child.try_wait().unwrap())
}

/// The first answer of `look`, which is asked again and again.
fn until<T>(within: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let begun = Instant::now();
    loop {
        match look() {
            None if begun.elapsed() < within => std::thread::sleep(Duration::from_millis(5)),
            found => return found,
        }
    }
}

/// What the kernel itself says is blocked.
fn kernel() -> Vec<IpNet> {
    nft::blocked().into_iter().map(|(target, _)| target).collect()
}

#[test]
fn a_list_goes_on_after_the_target_that_the_last_page_ended_with() {
    let mut lab = Lab::new();
    let targets = ["203.0.113.1/32", "203.0.113.2/32", "2001:db8:5::/64"];
    assert!(targets.iter().all(|target| lab.block(target, 60) == Outcome::Blocked));
    let all = targets.map(net);
    assert_eq!(lab.list(), all);
    assert_eq!(lab.page(Some(all[0])), all[1..]);
    assert_eq!(lab.page(Some(all[2])), []);
}

#[test]
fn a_block_is_in_the_kernel_when_the_reply_says_so_and_gone_when_lifted() {
    let mut lab = Lab::new();
    assert_eq!(lab.block("203.0.113.7/32", 0), Outcome::Blocked);
    assert_eq!(lab.block("2001:db8:1::/64", 0), Outcome::Blocked);
    assert_eq!(kernel(), [net("203.0.113.7/32"), net("2001:db8:1::/64")]);
    assert_eq!(lab.list(), kernel());
    assert_eq!(lab.block("203.0.113.7/32", 0), Outcome::AlreadyBlocked);
    assert_eq!(lab.ask(|id| Request::Unblock { id, target: net("203.0.113.7/32") }), Outcome::Lifted);
    assert_eq!(lab.ask(|id| Request::Unblock { id, target: net("203.0.113.7/32") }), Outcome::NotBlocked);
    assert_eq!(kernel(), [net("2001:db8:1::/64")]);
    assert_eq!(lab.ask(|id| Request::Flush { id }), Outcome::Lifted);
    assert_eq!((kernel(), lab.list()), (vec![], vec![]));
}

#[test]
fn the_helper_itself_refuses_the_never_block_set_and_wide_prefixes() {
    let mut lab = Lab::new();
    for (target, outcome) in [
        ("192.0.2.1/32", Outcome::RefusedNeverBlock),
        ("2001:db8::1/128", Outcome::RefusedNeverBlock),
        ("192.0.2.254/32", Outcome::RefusedNeverBlock),
        ("fe80::fe/128", Outcome::RefusedNeverBlock),
        ("192.0.2.255/32", Outcome::RefusedNeverBlock),
        ("198.51.100.99/32", Outcome::RefusedNeverBlock),
        ("2001:db8:f:1::/64", Outcome::RefusedNeverBlock),
        ("127.0.0.1/32", Outcome::RefusedNeverBlock),
        ("::1/128", Outcome::RefusedNeverBlock),
        ("::ffff:203.0.113.1/128", Outcome::RefusedNeverBlock),
        ("224.0.0.1/32", Outcome::RefusedNeverBlock),
        ("255.255.255.255/32", Outcome::RefusedNeverBlock),
        ("0.0.0.0/0", Outcome::RefusedNeverBlock),
        ("::/0", Outcome::RefusedNeverBlock),
        ("203.0.112.0/23", Outcome::RefusedPrefix),
        ("2001:db8:8000::/47", Outcome::RefusedPrefix),
    ] {
        assert_eq!(lab.block(target, 0), outcome, "{target}");
        assert_eq!(lab.block(target, 60), outcome, "{target}");
    }
    assert_eq!(kernel(), []);
}

#[test]
fn what_becomes_protected_is_let_go_and_refused_from_then_on() {
    let mut lab = Lab::new();
    for target in ["192.0.2.77/32", "203.0.113.5/32", "203.0.113.6/32"] {
        assert_eq!(lab.block(target, 0), Outcome::Blocked);
    }
    ip("route replace default via 192.0.2.77");
    assert_eq!(lab.block("192.0.2.77/32", 60), Outcome::RefusedNeverBlock);
    assert_eq!(lab.ask(|id| Request::Protect { id, network: net("203.0.113.5/32") }), Outcome::Lifted);
    assert_eq!(lab.block("203.0.113.5/32", 60), Outcome::RefusedNeverBlock);
    ip("address add 203.0.113.6/32 dev port0");
    assert_eq!(lab.block("203.0.113.6/32", 60), Outcome::RefusedNeverBlock);
    assert_eq!((kernel(), lab.list()), (vec![], vec![]));
    assert_eq!(lab.over, ["192.0.2.77/32", "203.0.113.5/32", "203.0.113.6/32"].map(net));
}

/// Whom KILL_ROUTE has shut out and UNBLOCK_CMD has not let in again.
fn shut_out(folder: &std::path::Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn a_block_under_way_is_given_up_when_its_target_becomes_protected() {
    let folder = tempfile::tempdir().unwrap();
    let mut lab = Lab::with(|settings| {
        settings.block_with = vec![Response::Command];
        let path = folder.path().display();
        settings.custom.kill_route = Some(format!("touch {path}/$TARGET$; sleep 60"));
        settings.custom.unblock_cmd = Some(format!("rm -f {path}/$TARGET$"));
        settings.custom.command_timeout = 60;
    });
    let is_refused = |lab: &mut Lab, id: u64| {
        let reply = lab.reply();
        let refused = Outcome::RefusedNeverBlock;
        assert!(
            matches!(reply, Reply::Done { id: of, outcome, .. } if of == id && outcome == refused),
            "{reply:?}"
        );
    };
    let protect = |id| Request::Protect { id, network: net("203.0.113.0/29") };
    // Before its command has done anything, both being read at once.
    lab.last_id += 2;
    let both = [block(1, net("203.0.113.5/32"), 60).encode(), protect(2).encode()].concat();
    lab.raw(&both);
    is_refused(&mut lab, 1);
    assert!(matches!(lab.reply(), Reply::Done { id: 2, outcome: Outcome::Lifted, .. }));
    // In the midst of it.
    lab.send(|id| block(id, net("203.0.113.9/32"), 60));
    let id = lab.last_id;
    until(SOON, || (shut_out(folder.path()) == ["203.0.113.9"]).then_some(())).expect("the command runs");
    ip("address add 203.0.113.9/32 dev port0");
    is_refused(&mut lab, id);
    until(SOON, || shut_out(folder.path()).is_empty().then_some(())).expect("what it did is undone");
    assert_eq!(lab.list(), []);
}

#[test]
fn a_block_that_is_asked_for_while_the_last_one_is_being_lifted_comes_after_it() {
    for with in [vec![Response::Command], vec![Response::Nftables, Response::Command]] {
        let folder = tempfile::tempdir().unwrap();
        let at_once = with.contains(&Response::Nftables);
        let mut lab = Lab::with(|settings| {
            settings.block_with = with;
            let path = folder.path().display();
            settings.custom.kill_route = Some(format!("touch {path}/$TARGET$"));
            settings.custom.unblock_cmd = Some(format!(
                "mv {path}/$TARGET$ {path}/lifting; until rm {path}/goes-on; do sleep 0.05; done"
            ));
            settings.custom.command_timeout = 60;
        });
        let target = net("203.0.113.7/32");
        assert_eq!(lab.block("203.0.113.7/32", 0), Outcome::Blocked);
        lab.send(|id| Request::Unblock { id, target });
        until(SOON, || (shut_out(folder.path()) == ["lifting"]).then_some(())).expect("it is being lifted");
        lab.send(|id| block(id, target, 0));
        lab.send(|id| Request::Ping { id });
        assert_eq!(lab.reply(), Reply::Pong { id: 4 }, "the block waits");
        assert_eq!(kernel().is_empty(), !at_once, "what the kernel does needs not wait");
        std::fs::write(folder.path().join("goes-on"), "").unwrap();
        for (id, expected) in [(2, Outcome::Lifted), (3, Outcome::Blocked)] {
            let reply = lab.reply();
            assert!(
                matches!(reply, Reply::Done { id: of, outcome, .. } if of == id && outcome == expected),
                "{reply:?}"
            );
        }
        assert!(shut_out(folder.path()).contains(&"203.0.113.7".to_owned()));
        assert_eq!(lab.list(), [target]);
    }
}

/// Blocks by nftables and a command that makes a file of the target's name, and then does this. What undoes it makes the
/// file `lifting`, and waits for `goes-on`; it fails where there is a file `fails`.
fn with_a_file_for_each(folder: &std::path::Path, after: &str) -> Lab {
    Lab::with(|settings| {
        settings.block_with = vec![Response::Nftables, Response::Command];
        let path = folder.display();
        settings.custom.kill_route = Some(format!("touch {path}/$TARGET$; {after}"));
        settings.custom.unblock_cmd = Some(format!(
            "echo >> {path}/lifting; until rm {path}/goes-on; do sleep 0.05; done; test ! -e {path}/fails && rm {path}/$TARGET$"
        ));
        settings.custom.command_timeout = 60;
    })
}

#[test]
fn an_unblock_that_overtakes_a_command_is_answered_when_what_that_did_is_undone() {
    let folder = tempfile::tempdir().unwrap();
    let mut lab = with_a_file_for_each(folder.path(), "sleep 60");
    let [rule, lifting, goes_on, fails] =
        ["203.0.113.7", "lifting", "goes-on", "fails"].map(|name| folder.path().join(name));
    let target = net("203.0.113.7/32");
    lab.send(|id| block(id, target, 0));
    until(SOON, || rule.exists().then_some(())).expect("the rule stands");
    lab.send(|id| Request::Unblock { id, target });
    assert!(matches!(lab.last_word(), (1, Outcome::Failed(_))));
    until(SOON, || lifting.exists().then_some(())).expect("it is being undone");
    lab.ping();
    assert!(rule.exists(), "the unblock waits");
    let ledger = std::fs::read_to_string(lab.state.path().join("ledger")).unwrap();
    let last = ledger.lines().last().unwrap();
    assert!(
        last.contains("203.0.113.7") && last.contains("\"with\":16"),
        "a crash would not leave it: {ledger}"
    );

    std::fs::write(&fails, "").unwrap();
    std::fs::write(&goes_on, "").unwrap();
    assert!(matches!(lab.last_word(), (2, Outcome::Failed(_))));
    while !matches!(lab.reply(), Reply::Over { target: of } if of == target) {}
    assert!(rule.exists() && lab.list().is_empty() && kernel().is_empty());
    std::fs::remove_file(&fails).unwrap();
    std::fs::write(&goes_on, "").unwrap();
    lab.send(|id| Request::Unblock { id, target });
    assert_eq!(lab.last_word(), (lab.last_id, Outcome::Lifted));
    assert!(!rule.exists());
    assert_eq!(lab.ask(|id| Request::Unblock { id, target }), Outcome::NotBlocked);
}

#[test]
fn what_an_unblock_is_undoing_when_the_block_ends_is_undone_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut lab = with_a_file_for_each(folder.path(), "true");
    let [rule, lifting, goes_on] = ["203.0.113.7", "lifting", "goes-on"].map(|name| folder.path().join(name));
    let target = net("203.0.113.7/32");
    assert_eq!(lab.block("203.0.113.7/32", 10), Outcome::Blocked);
    lab.send(|id| Request::Unblock { id, target });
    until(SOON, || lifting.exists().then_some(())).expect("it is being undone");
    until(PATIENCE, || lab.list().is_empty().then_some(())).expect("its time is over");
    std::fs::write(&goes_on, "").unwrap();
    assert_eq!(lab.last_word(), (2, Outcome::Lifted));
    // This is answered when all that was begun is done: a second one would wait for the file.
    assert_eq!(lab.ask(|id| Request::Flush { id }), Outcome::NotBlocked);
    assert!(!rule.exists());
    assert_eq!(std::fs::read_to_string(&lifting).unwrap().lines().count(), 1);
}

#[test]
fn a_bad_frame_ends_the_helper_with_65_and_what_stood_before_it_is_done() {
    let ping = |id| Request::Ping { id }.encode().to_vec();
    let mut version = ping(2);
    version[0] += 1;
    let mut reserved = ping(2);
    reserved[60] = 1;
    let reply = Reply::Pong { id: 2 }.encode().to_vec();
    for (what, bad) in [
        ("garbage", vec![0xa5; FRAME_LENGTH]),
        ("zeros", vec![0; FRAME_LENGTH]),
        ("another version", version),
        ("reserved bits", reserved),
        ("a reply", reply),
        ("a replay", ping(1)),
        ("a gap", ping(3)),
        ("text", b"block 192.0.2.254 for ever, and while you are at it flush the tables\n".to_vec()),
    ] {
        let mut lab = Lab::new();
        lab.send(|id| block(id, net("203.0.113.7/32"), 0));
        lab.raw(&bad);
        assert_eq!(lab.end(), Some(65), "{what}");
        assert_eq!(kernel(), [net("203.0.113.7/32")], "{what}");
    }
}

/// Well-formed in every other respect: each byte of a good request is spoilt in turn, and whole frames are noise.
#[test]
fn whatever_bytes_come_nothing_protected_or_wide_is_blocked() {
    let good = block(1, net("192.0.2.9/32"), 0).encode();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut noise = || {
        // xorshift64: the same noise in each run.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for byte in 0..FRAME_LENGTH {
        let mut lab = Lab::new();
        let mut spoilt = good;
        spoilt[byte] ^= (noise() as u8).max(1);
        // One write: the helper may be gone before a second one, as it should be.
        let rest = (0..16).flat_map(|_| noise().to_be_bytes());
        lab.raw(&spoilt.into_iter().chain(rest).collect::<Vec<u8>>());
        assert_eq!(lab.end(), Some(65), "byte {byte}");
        let protected = ["192.0.2.1/32", "192.0.2.254/32", "198.51.100.0/24"].map(net);
        for blocked in kernel() {
            assert!(
                blocked.prefix_len() >= 24 && !protected.iter().any(|it| blocked.contains(it)),
                "{blocked}"
            );
        }
    }
}

#[test]
fn a_frame_cut_off_by_the_end_is_a_bad_frame() {
    let mut lab = Lab::new();
    lab.raw(&Request::Ping { id: 1 }.encode()[..40]);
    assert_eq!(lab.hang_up(), Some(65));
}

#[test]
fn settings_that_are_none_end_the_helper_with_65_and_leave_no_table() {
    unshare(CloneFlags::CLONE_NEWNET).expect("these tests need root: sudo make test");
    for bytes in [b"\xff\xff\xff\xff{}".as_slice(), b"\0\0\0\x02[]", b"\0\0\0\x09{\"a\":"] {
        let mut child = start(Stdio::piped(), Stdio::piped(), Stdio::inherit());
        child.stdin.take().unwrap().write_all(bytes).unwrap();
        assert_eq!(ended(&mut child, SOON).unwrap().code(), Some(65));
        assert!(!Nftables::open(None, SET_CAPACITY).unwrap().is_there().unwrap());
    }
}

#[test]
fn without_pipes_the_helper_explains_itself_and_exits_with_2() {
    let mut child = start(Stdio::null(), Stdio::piped(), Stdio::inherit());
    assert_eq!(ended(&mut child, SOON).unwrap().code(), Some(2));
}

#[test]
fn the_end_of_the_sensor_ends_the_helper_with_70_and_blocks_stay() {
    let mut lab = Lab::with(|settings| settings.flush_on_stop = true);
    assert_eq!(lab.block("203.0.113.7/32", 0), Outcome::Blocked);
    assert_eq!(lab.hang_up(), Some(70));
    assert_eq!(kernel(), [net("203.0.113.7/32")]);
}

#[test]
fn a_sensor_that_closes_only_the_replies_is_gone_too() {
    let mut lab = Lab::new();
    let (reader, _) = std::io::pipe().unwrap();
    lab.replies = ChildStdout::from(std::os::fd::OwnedFd::from(reader));
    assert_eq!(lab.end(), Some(70));
}

#[test]
fn a_stop_ends_the_helper_with_0_and_lifts_blocks_only_if_asked_to() {
    for flush in [false, true] {
        let mut lab = Lab::with(|settings| settings.flush_on_stop = flush);
        assert_eq!(lab.block("203.0.113.7/32", 0), Outcome::Blocked);
        let outcome = lab.ask(|id| Request::Stop { id });
        assert_eq!(outcome, if flush { Outcome::Lifted } else { Outcome::NotBlocked });
        assert_eq!(lab.end(), Some(0));
        assert_eq!(kernel().is_empty(), flush);
    }
}

#[test]
fn signals_for_the_whole_group_do_not_end_the_helper() {
    let mut lab = Lab::new();
    let pid = Pid::from_raw(i32::try_from(lab.child.id()).unwrap());
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        kill(pid, signal).unwrap();
        lab.ping();
    }
}

#[test]
fn unexpired_blocks_and_offences_come_back_after_a_kill() {
    let mut lab = Lab::new();
    assert_eq!(lab.block("203.0.113.7/32", 0), Outcome::Blocked);
    assert_eq!(lab.block("203.0.113.8/32", 3), Outcome::Blocked);
    lab.ping();
    lab.child.kill().unwrap();
    lab.child.wait().unwrap();
    assert_eq!(kernel().len(), 2);
    let ledger = std::fs::read_to_string(lab.state.path().join("ledger")).unwrap();
    assert_eq!(ledger.lines().count(), 2, "{ledger}");
    until(PATIENCE, || (kernel().len() == 1).then_some(())).expect("the kernel lets the short one go");
    assert_eq!(lab.restart(), 1);
    assert_eq!((kernel(), lab.list()), (vec![net("203.0.113.7/32")], vec![net("203.0.113.7/32")]));
    lab.send(|id| block(id, net("203.0.113.8/32"), 0));
    let Reply::Done { outcome, seconds, offence, .. } = lab.reply() else { panic!("no answer") };
    assert_eq!((outcome, seconds, offence), (Outcome::Blocked, 1200, 2));
}

#[test]
fn who_was_let_in_stays_so_after_a_kill_one_by_one_and_all_at_once() {
    let mut lab = Lab::new();
    for target in ["203.0.113.7/32", "203.0.113.8/32"] {
        assert_eq!(lab.block(target, 600), Outcome::Blocked);
    }
    let killed = |lab: &mut Lab| {
        lab.ping();
        lab.child.kill().unwrap();
        lab.child.wait().unwrap();
        (lab.restart(), kernel())
    };
    assert_eq!(lab.ask(|id| Request::Unblock { id, target: net("203.0.113.7/32") }), Outcome::Lifted);
    assert_eq!(killed(&mut lab), (1, vec![net("203.0.113.8/32")]));
    assert_eq!(lab.ask(|id| Request::Flush { id }), Outcome::Lifted);
    assert_eq!(killed(&mut lab), (0, vec![]));
}

#[test]
fn a_block_leaves_kernel_and_list_when_its_time_is_over() {
    let mut lab = Lab::new();
    assert_eq!(lab.block("203.0.113.7/32", 3), Outcome::Blocked);
    assert_eq!(lab.list().len(), 1);
    until(PATIENCE, || lab.list().is_empty().then_some(())).expect("the list lets it go");
    until(PATIENCE, || kernel().is_empty().then_some(())).expect("the kernel lets it go");
}

/// Nothing else wakes it: there is nothing in a firewall to look at.
#[test]
fn what_a_full_disk_kept_from_the_ledger_is_written_when_there_is_room_though_nobody_asks() {
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (state, lines) = (folder.path().join("state"), folder.path().join("hosts.deny"));
    std::fs::create_dir(&state).unwrap();
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
    mount(Some("none"), &state, Some("tmpfs"), MsFlags::empty(), Some("size=4096")).unwrap();
    std::fs::write(state.join("filler"), [0; 4096]).unwrap();
    let log = folder.path().join("log");
    let mut lab = Lab::logging_to(std::fs::File::create(&log).unwrap().into(), |settings| {
        settings.block_with = vec![Response::HostsDeny];
        settings.state_dir = state.clone();
        settings.custom.hosts_deny = Some("ALL: $TARGET$".into());
        settings.custom.hosts_deny_file = lines.clone();
    });
    assert_eq!(lab.block("203.0.113.7/32", 600), Outcome::Blocked);
    let ledger = || std::fs::read_to_string(state.join("ledger")).unwrap();
    // The ledger comes after the reply, and before the next one.
    assert_eq!(lab.list(), [net("203.0.113.7/32")]);
    assert_eq!(ledger(), "");
    // A try makes a new file in the folder, and takes it away.
    let tried = || std::fs::metadata(&state).unwrap().modified().unwrap();
    for _ in 0..2 {
        let last = tried();
        until(PATIENCE, || (tried() > last + Duration::from_secs(5)).then_some(()))
            .expect("it is tried again");
    }
    std::fs::remove_file(state.join("filler")).unwrap();
    until(PATIENCE, || ledger().contains("203.0.113.7").then_some(())).expect("it is tried again");
    assert_eq!(lab.list(), [net("203.0.113.7/32")]);
    let said = std::fs::read_to_string(&log).unwrap();
    let said: Vec<&str> = said.lines().filter(|line| line.contains("ledger: ")).collect();
    assert_eq!(said.len(), 2, "when it begins and when it ends: {said:?}");
    assert!(said[0].contains("No space left") && said[1].contains("it is written again"), "{said:?}");
}

#[test]
fn what_a_full_disk_did_not_take_whole_is_not_left_there() {
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (state, none) = (folder.path().join("state"), None::<&str>);
    std::fs::create_dir(&state).unwrap();
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
    mount(Some("none"), &state, Some("tmpfs"), MsFlags::empty(), Some("size=8192")).unwrap();
    // A page each: neither has room for its next version. That of the ledger is due at once, for the line that is none.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    let offence =
        format!("{{\"target\":\"203.0.113.9/32\",\"since\":{},\"until\":{now},\"offence\":1}}\n?\n", now - 9);
    std::fs::write(state.join("ledger"), offence).unwrap();
    std::fs::write(state.join("hosts.deny"), "# mine").unwrap();
    let mut lab = Lab::with(|settings| {
        settings.block_with = vec![Response::HostsDeny];
        settings.state_dir = state.clone();
        settings.custom.hosts_deny = Some("ALL: $TARGET$".into());
        settings.custom.hosts_deny_file = state.join("hosts.deny");
    });
    lab.send(|id| block(id, net("203.0.113.7/32"), 600));
    assert_eq!(lab.last_word().1, Outcome::Failed(libc::ENOSPC));
    let files = std::fs::read_dir(&state).unwrap().map(|file| file.unwrap().file_name());
    let mut files: Vec<String> = files.map(|name| name.into_string().unwrap()).collect();
    files.sort();
    assert_eq!(files, ["hosts.deny", "ledger", "ledger.lock"]);
    assert_eq!(std::fs::read_to_string(state.join("hosts.deny")).unwrap(), "# mine");
}

#[test]
fn a_table_deleted_by_somebody_is_installed_again_with_its_blocks_and_that_is_said_whoever_finds_it_gone() {
    let log = tempfile::NamedTempFile::new().unwrap();
    let mut lab = Lab::logging_to(log.reopen().unwrap().into(), |settings| {
        settings.tripwire = Some(Terms { interfaces: Vec::new(), per_minute: 120 });
    });
    let said = || std::fs::read_to_string(&log).unwrap().matches("they are installed again").count();
    assert_eq!(lab.block("203.0.113.7/32", 0), Outcome::Blocked);
    let traps = Page::of(0, |port| port == 23);
    let requests: [&dyn Fn(u64) -> Request; 4] = [
        &|id| Request::Traps { id, datagrams: Datagrams::No, page: traps },
        &|id| Request::Protect { id, network: net("203.0.113.5/32") },
        &|id| Request::Unblock { id, target: net("203.0.113.9/32") },
        &|id| Request::Flush { id },
    ];
    for (number, request) in requests.into_iter().enumerate() {
        Nftables::open(None, SET_CAPACITY).unwrap().remove_table().unwrap();
        lab.ask(request);
        let left = if number == 3 { vec![] } else { vec![net("203.0.113.7/32")] };
        assert_eq!((said(), kernel()), (number + 1, left));
    }
    Nftables::open(None, SET_CAPACITY).unwrap().remove_table().unwrap();
    assert_eq!(lab.block("203.0.113.8/32", 0), Outcome::Blocked);
    assert_eq!((said(), kernel()), (5, vec![net("203.0.113.8/32")]));
}

/// In our table's place while it is held: the kernel takes nothing of ours.
struct Owner(Child);

impl Owner {
    fn take_the_table() -> Owner {
        let nft = Command::new("nft").arg("-i").stdin(Stdio::piped()).stdout(Stdio::null()).spawn();
        let mut child = nft.expect("nft of nftables is installed");
        let lines = b"delete table inet portsentry\nadd table inet portsentry { flags owner ; }\n";
        child.stdin.as_mut().unwrap().write_all(lines).unwrap();
        let listed = || Command::new("nft").args(["list", "ruleset"]).output().unwrap().stdout;
        let is_owned = || String::from_utf8_lossy(&listed()).contains("flags owner").then_some(());
        until(PATIENCE, is_owned).expect("the table is another's");
        Owner(child)
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// The table goes while the block's command runs, and cannot be made again.
#[test]
fn a_block_that_does_not_outlast_its_command_is_told_once_and_is_no_offence_and_one_before_it_ends() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().display();
    let mut lab = Lab::with(|settings| {
        settings.block_with = vec![Response::Nftables, Response::Command];
        let command = "touch P/runs; until rm P/goes-on; do sleep 0.05; done; exit 1 # $TARGET$";
        settings.custom.kill_route = Some(command.replace("P/", &format!("{path}/")));
        settings.custom.command_timeout = 60;
    });
    let [runs, goes_on] = ["runs", "goes-on"].map(|name| folder.path().join(name));
    let target = net("203.0.113.7/32");
    let fails = |lab: &mut Lab, seconds: u32| {
        lab.send(|id| block(id, target, seconds));
        until(PATIENCE, || std::fs::remove_file(&runs).ok()).expect("its command runs");
        assert_eq!(kernel(), [target]);
        let owner = Owner::take_the_table();
        std::fs::write(&goes_on, "").unwrap();
        assert!(matches!(lab.last_word(), (_, Outcome::Failed(_))));
        owner
    };
    for _ in 0..2 {
        let _owner = fails(&mut lab, 0);
        assert!(lab.list().is_empty(), "and nothing was told after it");
    }
    std::fs::write(&goes_on, "").unwrap();
    lab.send(|id| block(id, target, 0));
    let told = until(PATIENCE, || match lab.reply() {
        Reply::Done { outcome, offence, .. } => Some((outcome, offence)),
        _ => None,
    });
    assert_eq!(told, Some((Outcome::Blocked, 1)));
    std::fs::remove_file(&runs).unwrap();
    let _owner = fails(&mut lab, 3_600);
    // After the notes that say why.
    while !matches!(lab.reply(), Reply::Over { target: of } if of == target) {}
    assert!(lab.list().is_empty());
}

/// However many strangers have it run.
#[test]
fn a_command_that_fails_for_everybody_is_in_the_log_once_and_in_each_answer() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let mut lab = Lab::logging_to(std::fs::File::create(&log).unwrap().into(), |settings| {
        settings.block_with = vec![Response::Nftables, Response::Command];
        settings.custom.kill_route = Some("echo no such chain >&2; exit 3 # $TARGET$".to_owned());
        settings.custom.command_timeout = 60;
    });
    for host in 1..=30 {
        lab.send(|id| block(id, net(&format!("203.0.113.{host}/32")), 0));
        let mut told = String::new();
        loop {
            match lab.reply() {
                Reply::Note { note, .. } => told += &note.text(),
                Reply::Done { outcome, .. } => break assert_eq!(outcome, Outcome::Blocked),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(told, "no such chain");
    }
    let said = std::fs::read_to_string(&log).unwrap();
    assert_eq!(said.matches("command: exit status 3: no such chain").count(), 1, "{said}");
}

#[test]
fn a_flood_of_requests_gets_no_more_than_its_budget_and_costs_no_memory() {
    const FLOOD: u32 = 1_000_000;
    // In the record, by target and by end, in nodes of trees that are half full.
    const BYTES_A_BLOCK: u64 = 135;
    let mut lab = Lab::new();
    let before = resident(&lab.child);
    let begun = Instant::now();
    let mut requests = lab.requests.take().unwrap();
    let writer = std::thread::spawn(move || {
        for at in 0..FLOOD {
            let target = IpNet::from(std::net::IpAddr::from((0x0b00_0000 + at).to_be_bytes()));
            requests.write_all(&block(u64::from(at) + 1, target, 0).encode()).unwrap();
        }
        requests
    });
    let mut blocked = 0;
    for id in 1..=u64::from(FLOOD) {
        match lab.reply_in_bulk() {
            Reply::Done { outcome: Outcome::Blocked, .. } => blocked += 1,
            Reply::Done { outcome: Outcome::RefusedRate, .. } => {}
            other => panic!("{id}: {other:?}"),
        }
    }
    let allowed = 2_600 + (begun.elapsed().as_secs_f64() * 50.0).ceil() as usize;
    assert!(blocked <= allowed, "{blocked} of {allowed}");
    assert_eq!(kernel().len(), blocked);
    lab.requests = Some(writer.join().unwrap());
    lab.last_id = FLOOD.into();
    assert_eq!(lab.list().len(), blocked);
    let grown = resident(&lab.child).saturating_sub(before);
    // Its queues, and the blocks themselves: the slower the machine, the more of them are granted meanwhile.
    let blocks = blocked as u64 * BYTES_A_BLOCK / 1024;
    assert!(grown < 512 + blocks, "{grown} KiB, {blocks} of them blocks");
}

impl Lab {
    fn reply_in_bulk(&mut self) -> Reply {
        assert!(is_readable(&self.replies), "no reply in time");
        let mut frame: Frame = [0; FRAME_LENGTH];
        self.replies.read_exact(&mut frame).unwrap();
        Reply::decode(&frame).unwrap()
    }
}

/// Resident memory, KiB.
fn resident(child: &Child) -> u64 {
    said_of(child, "VmRSS:").parse().unwrap()
}

/// The first word of a line of /proc/PID/status.
fn said_of(child: &Child, name: &str) -> String {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().to_owned()
}

/// A ledger of so many blocks by nftables, the first at 11.0.0.0, begun a minute ago.
fn ledger(folder: &std::path::Path, blocks: u32, seconds: u64) {
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64;
    let (since, until) = (now - 60_000, now - 60_000 + seconds * 1000);
    let line = |at: u32| {
        let target = std::net::Ipv4Addr::from(0x0b00_0000 + at);
        format!(r#"{{"target":"{target}/32","since":{since},"until":{until},"offence":1,"with":1}}"#) + "\n"
    };
    std::fs::write(folder.join("ledger"), (0..blocks).map(line).collect::<String>()).unwrap();
}

#[test]
fn a_block_is_answered_that_ends_while_a_long_list_waits_to_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let gate = folder.path().join("gate");
    nix::unistd::mkfifo(&gate, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mut lab = Lab::with(|settings| {
        settings.block_with.push(Response::RunCommand);
        settings.custom.kill_run_cmd = Some(format!("/bin/cat {}", gate.display()));
        settings.custom.command_timeout = 60;
    });
    lab.hang_up();
    ledger(lab.state.path(), 5_000, 3_600);
    assert_eq!(lab.restart(), 5_000);
    lab.send(|id| block(id, net("203.0.113.7/32"), 0));
    // Opens when the program has.
    let gate = std::fs::OpenOptions::new().write(true).open(gate).unwrap();
    lab.send(|id| Request::List { id, after: None });
    assert!(is_readable(&lab.replies));
    until(PATIENCE, || (said_of(&lab.child, "State:") == "S").then_some(()))
        .expect("pipe and queue are full");
    drop(gate);
    let noted =
        || std::fs::read_to_string(lab.state.path().join("ledger")).unwrap().matches("203.0.113.7").count();
    until(PATIENCE, || (noted() == 2).then_some(())).expect("the helper takes in that the program has ended");
    let replies: Vec<Reply> = (0..LIST_PAGE + 2).map(|_| lab.reply_in_bulk()).collect();
    assert!(
        replies.iter().any(|reply| matches!(reply, Reply::Done { id: 1, outcome: Outcome::Blocked, .. }))
    );
    assert!(replies.iter().any(|reply| matches!(reply, Reply::End { id: 2 })));
    lab.ping();
}

#[test]
fn what_the_kernel_has_ended_meanwhile_costs_the_next_start_little_memory() {
    const ENDED: u32 = 100_000;
    let mut lab = Lab::new();
    let before: u64 = said_of(&lab.child, "VmHWM:").parse().unwrap();
    lab.hang_up();
    ledger(lab.state.path(), ENDED, 30);
    assert_eq!(lab.restart(), 0);
    let peak: u64 = said_of(&lab.child, "VmHWM:").parse().unwrap();
    // Reading them takes about 230 bytes each; with a job and a line for each it took 810.
    let each = (peak - before) * 1024 / u64::from(ENDED);
    assert!(each < 400, "{each} bytes for each block that has ended");
}

#[test]
fn a_lower_max_blocks_lets_go_those_that_end_first_and_the_helper_starts() {
    let mut lab = Lab::with(|settings| settings.block_with.push(Response::Route));
    for (at, seconds) in [(1, 300), (2, 100), (3, 200)] {
        assert_eq!(lab.block(&format!("203.0.113.{at}/32"), seconds), Outcome::Blocked);
    }
    lab.hang_up();
    lab.settings.max_blocks = 2;
    assert_eq!(lab.restart(), 2);
    assert_eq!(lab.list(), [net("203.0.113.1/32"), net("203.0.113.3/32")]);
    assert_eq!(kernel(), lab.list());
    assert_eq!(lab.block("203.0.113.9/32", 0), Outcome::RefusedFull);
    // For good: what was told as let go does not come back.
    lab.hang_up();
    lab.settings.max_blocks = 3;
    assert_eq!(lab.restart(), 2);
}

#[test]
fn a_helper_whose_answers_all_wait_for_slow_commands_waits_for_them_at_rest() {
    let mut lab = Lab::with(|settings| {
        settings.block_with = vec![Response::Command];
        settings.custom.kill_route = Some("true $TARGET$".to_owned());
        settings.custom.unblock_cmd = Some("sleep 3".to_owned());
        settings.custom.command_timeout = 60;
    });
    let targets: Vec<IpNet> = (1..=200).map(|host| net(&format!("203.0.113.{host}/32"))).collect();
    for &target in &targets {
        assert_eq!(lab.ask(|id| block(id, target, 600)), Outcome::Blocked);
    }
    let spent = |lab: &Lab| {
        let text = std::fs::read_to_string(format!("/proc/{}/schedstat", lab.child.id())).unwrap();
        Duration::from_nanos(text.split_whitespace().next().unwrap().parse().unwrap())
    };
    let before = spent(&lab);
    let requests = targets.iter().zip(lab.last_id + 1..);
    let frames: Vec<u8> =
        requests.flat_map(|(&target, id)| Request::Unblock { id, target }.encode()).collect();
    let begun = Instant::now();
    lab.requests.as_mut().unwrap().write_all(&frames).unwrap();
    assert!(is_readable(&lab.replies), "the first eight commands end");
    let (spent, waited) = (spent(&lab) - before, begun.elapsed());
    assert!(waited > Duration::from_secs(2) && spent < waited / 4, "{spent:?} of {waited:?}");
}

#[test]
fn a_sensor_that_reads_no_reply_is_given_up_after_a_while() {
    let mut lab = Lab::new();
    let mut requests = lab.requests.take().unwrap();
    let writer = std::thread::spawn(move || {
        (1..).take_while(|&id| requests.write_all(&Request::Ping { id }.encode()).is_ok()).count()
    });
    let status = ended(&mut lab.child, PATIENCE).expect("the helper gives up");
    assert_eq!(status.code(), Some(70));
    let taken = writer.join().unwrap();
    assert!(taken < 10_000, "the helper took {taken} requests without an answer being read");
}
