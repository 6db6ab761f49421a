//! Promise: what the sandbox says it took away is gone. Each attempt runs in a process of its own, because there is
//! no way back. Needs root.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom};
use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Uid, getppid, setresuid};
use portsentry::sandbox::capabilities::{self, Bounding, User};
use portsentry::sandbox::identity::Identity;
use portsentry::sandbox::in_force::Witness;
use portsentry::sandbox::landlock::{FLOOR, Rules, restrict};
use portsentry::sandbox::proof::name_refused_calls;
use portsentry::sandbox::seccomp::{Filter, OnMismatch, Rule, exactly, pin, rule, without};
use portsentry::sandbox::selfcheck::{Expectations, prove};
use portsentry::sandbox::{Capability, Sandbox, SandboxError};
use socket2::{Domain, Socket, Type};

const ACT: &str = "SANDBOX_ACT";
/// Printed once the allowed calls have worked: who dies before dies of something else than what the test is about.
const INSIDE: &str = "every allowed call worked";
const NET_ADMIN: Capability = Capability::CAP_NET_ADMIN;

/// Runs one act of [`the_acts`] in a new process.
fn act(name: &str) -> Output {
    assert!(Uid::effective().is_root(), "run this test as root: it gives rights up");
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "the_acts", "--ignored", "--nocapture"]).env(ACT, name).output().unwrap()
}

fn succeeds(name: &str) {
    let output = act(name);
    assert!(output.status.success(), "{name}: {output:?}");
}

fn dies_of_sigsys(name: &str) {
    let output = act(name);
    assert_eq!(output.status.signal(), Some(Signal::SIGSYS as i32), "{name}: {output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains(INSIDE), "{name}: {output:?}");
}

#[test]
#[ignore = "the other tests run it, one act in one process"]
fn the_acts() {
    match std::env::var(ACT).unwrap().as_str() {
        "keep one capability" => keep_one_capability(),
        "give up all" => give_up_all(),
        "without setpcap" => without_setpcap(),
        "become nobody" => become_nobody(),
        "ordinary user" => ordinary_user(),
        "no setuid" => no_setuid(),
        "landlock" => landlock_rules(),
        "landlock off" => landlock_off(),
        "open cage" => open_cage(),
        "seccomp inside" => seccomp(OnMismatch::Kill, || {}),
        "seccomp outside" => seccomp(OnMismatch::Kill, outside),
        "seccomp outside, named" => seccomp_named(),
        "seccomp wrong pin" => seccomp(OnMismatch::Kill, wrong_pin),
        "seccomp wrong bits" => seccomp(OnMismatch::Kill, wrong_bits),
        "seccomp wrong value" => seccomp(OnMismatch::Kill, wrong_value),
        "seccomp in a thread" => seccomp_reaches_older_threads(),
        other => panic!("no act {other}"),
    }
    // Without libtest's own ending, which makes calls that the filters know nothing of.
    std::process::exit(0);
}

#[test]
fn one_capability_can_be_kept_in_every_set_and_nothing_else() {
    succeeds("keep one capability");
}

fn keep_one_capability() {
    let witness = Witness::open().unwrap();
    assert_eq!(capabilities::keep_only(&[NET_ADMIN]).unwrap(), Bounding::Trimmed);
    let now = witness.in_force().unwrap();
    for set in [now.permitted, now.effective, now.bounding] {
        assert_eq!(set, ["cap_net_admin"]);
    }
    assert!(now.inheritable.is_empty() && now.ambient.is_empty());
    prove(&Expectations {
        lost: vec![Capability::CAP_NET_RAW, Capability::CAP_SETPCAP],
        no_packet_socket: true,
        ..Default::default()
    })
    .unwrap();
}

#[test]
fn all_capabilities_can_be_given_up_and_what_is_missing_is_named() {
    succeeds("give up all");
}

fn give_up_all() {
    let witness = Witness::open().unwrap();
    capabilities::require(&[NET_ADMIN, Capability::CAP_NET_RAW]).unwrap();
    capabilities::drop_all().unwrap();
    capabilities::no_new_privs().unwrap();
    let now = witness.in_force().unwrap();
    let sets = [now.permitted, now.effective, now.bounding, now.inheritable, now.ambient];
    assert!(sets.iter().all(Vec::is_empty), "{sets:?}");
    assert!(now.no_new_privs);
    let missing = capabilities::require(&[NET_ADMIN, Capability::CAP_NET_RAW]).unwrap_err().to_string();
    assert!(missing.contains("CAP_NET_ADMIN (to change the firewall), CAP_NET_RAW (to open"), "{missing}");
}

#[test]
fn without_cap_setpcap_the_bounding_set_is_left_alone_and_that_is_reported() {
    succeeds("without setpcap");
}

fn without_setpcap() {
    let witness = Witness::open().unwrap();
    caps::drop(None, caps::CapSet::Effective, Capability::CAP_SETPCAP).unwrap();
    caps::drop(None, caps::CapSet::Permitted, Capability::CAP_SETPCAP).unwrap();
    assert_eq!(capabilities::keep_only(&[NET_ADMIN]).unwrap(), Bounding::LeftAlone);
    let now = witness.in_force().unwrap();
    assert_eq!(now.effective, ["cap_net_admin"]);
    assert!(now.bounding.len() > 10);
}

#[test]
fn uid_0_can_be_left_for_good_with_a_capability_in_hand() {
    succeeds("become nobody");
}

fn become_nobody() {
    let witness = Witness::open().unwrap();
    let nobody = Identity { uid: 65534, gid: 65533 };
    nix::unistd::setgroups(&[nix::unistd::Gid::from_raw(0), nix::unistd::Gid::from_raw(4)]).unwrap();
    let left = capabilities::become_user(&nobody, &[NET_ADMIN]).unwrap();
    assert_eq!(left, (User::Changed, Bounding::Trimmed));
    let now = witness.in_force().unwrap();
    assert_eq!((now.uid, now.gid), (65534, 65533));
    for set in [now.permitted, now.effective, now.bounding] {
        assert_eq!(set, ["cap_net_admin"]);
    }
    assert!(nix::unistd::getgroups().unwrap().iter().all(|group| group.as_raw() == 65533));
    prove(&Expectations {
        unreadable: vec!["/etc/shadow".into()],
        unwritable: vec!["/etc/passwd".into()],
        lost: vec![Capability::CAP_SETUID, Capability::CAP_NET_RAW],
        no_root: true,
        no_packet_socket: true,
        ..Default::default()
    })
    .unwrap();
}

#[test]
fn an_ordinary_user_stays_who_he_is() {
    succeeds("ordinary user");
}

fn ordinary_user() {
    let user = Uid::from_raw(4242);
    setresuid(user, user, user).unwrap();
    let nobody = Identity { uid: 65534, gid: 65534 };
    assert_eq!(capabilities::become_user(&nobody, &[]).unwrap(), (User::Kept, Bounding::LeftAlone));
    assert_eq!(Witness::open().unwrap().in_force().unwrap().uid, 4242);
}

#[test]
fn root_without_cap_setuid_is_told_so() {
    succeeds("no setuid");
}

fn no_setuid() {
    capabilities::keep_only(&[NET_ADMIN, Capability::CAP_SETGID]).unwrap();
    let nobody = Identity { uid: 65534, gid: 65534 };
    let error = capabilities::become_user(&nobody, &[NET_ADMIN]).unwrap_err().to_string();
    assert!(error.contains("CAP_SETUID (to leave uid 0") && !error.contains("CAP_SETGID"), "{error}");
}

#[test]
fn landlock_leaves_the_listed_files_and_nothing_else() {
    succeeds("landlock");
}

fn landlock_rules() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("own")).unwrap();
    for name in ["read", "log", "other"] {
        fs::write(at(name), "before").unwrap();
    }
    let rules = Rules {
        read: vec![at("read"), at("absent")],
        append: vec![at("log")],
        own: vec![at("own")],
        connect: vec![at("read")],
        ..Default::default()
    };
    let in_force = restrict(&rules, Sandbox::Strict, FLOOR).unwrap();
    assert_eq!(in_force.missing, [at("absent")]);
    assert!(in_force.abi >= 1);

    assert_eq!(fs::read(at("read")).unwrap(), b"before");
    for refused in ["log", "other"] {
        assert!(denied(File::open(at(refused))), "{refused}");
    }
    assert!(denied(File::create_new(at("new"))));
    assert!(denied(OpenOptions::new().append(true).open(at("read"))));
    OpenOptions::new().append(true).open(at("log")).unwrap();
    works_on_its_own_folder(&at("own"));
    assert!(denied(Command::new("/bin/true").status()));
    if in_force.abi >= 3 {
        assert!(denied(OpenOptions::new().write(true).truncate(true).open(at("log"))));
    }
    if in_force.abi >= 4 {
        assert!(denied(TcpListener::bind("127.0.0.1:0")));
    }
    if in_force.abi >= 6 {
        assert_eq!(kill(getppid(), None), Err(nix::Error::EPERM));
    }
    let (unreadable, unwritable) = (vec!["/".into(), at("other")], vec![at("other")]);
    let no_tcp = in_force.abi >= 4;
    prove(&Expectations { unreadable, unwritable, no_tcp, ..Default::default() }).unwrap();
}

/// What a ledger does: write a new file beside the old one, rename it, remove it.
fn works_on_its_own_folder(own: &Path) {
    fs::write(own.join("new"), "1").unwrap();
    fs::rename(own.join("new"), own.join("ledger")).unwrap();
    fs::write(own.join("ledger"), "").unwrap();
    assert_eq!(fs::read_dir(own).unwrap().count(), 1);
    fs::remove_file(own.join("ledger")).unwrap();
    assert!(denied(std::os::unix::fs::symlink("/etc/shadow", own.join("link"))));
}

fn denied<T>(attempt: std::io::Result<T>) -> bool {
    attempt.is_err_and(|error| matches!(error.raw_os_error(), Some(libc::EACCES | libc::EPERM)))
}

#[test]
fn sandbox_off_restricts_nothing_and_says_so() {
    succeeds("landlock off");
}

fn landlock_off() {
    let in_force = restrict(&Rules::default(), Sandbox::Off, FLOOR).unwrap();
    assert_eq!((in_force.abi, in_force.complete), (0, false));
    File::open("/").unwrap();
}

#[test]
fn the_self_check_fails_in_an_open_cage_for_every_single_expectation() {
    succeeds("open cage");
}

fn open_cage() {
    let none = Expectations::default;
    prove(&none()).unwrap();
    let expectations = [
        Expectations { unreadable: vec!["/".into()], ..none() },
        Expectations { unwritable: vec!["/dev/null".into()], ..none() },
        Expectations { lost: vec![NET_ADMIN], ..none() },
        Expectations { no_packet_socket: true, ..none() },
        Expectations { no_tcp: true, ..none() },
        Expectations { no_root: true, ..none() },
    ];
    let said: HashSet<String> = expectations
        .iter()
        .map(|expectation| match prove(expectation) {
            Err(SandboxError::Escaped(what)) => what,
            other => panic!("{expectation:?}: {other:?}"),
        })
        .collect();
    assert_eq!(said.len(), expectations.len());
    let missing = Expectations { unreadable: vec!["/no/such/file".into()], ..none() };
    assert!(matches!(prove(&missing), Err(SandboxError::Untried { .. })), "it proves nothing");
}

static BASE: &[Rule] = &[
    rule("exit_group", "the end"),
    rule("futex", "libtest's main thread waits for us"),
    rule("mmap", "allocation").with(&[without(2, libc::PROT_EXEC as u64)]),
    rule("munmap", "allocation"),
    rule("madvise", "a thread's stack is given back"),
    rule("brk", "allocation"),
    rule("sigaltstack", "a thread ends"),
    rule("rt_sigprocmask", "a thread ends"),
    rule("write", "libtest prints"),
    rule("ppoll", "whether standard error has room for the name of a refused call"),
];
static ROLE: &[Rule] = &[
    rule("close", "files"),
    rule("fcntl", "std makes sure of a descriptor in builds with debug assertions")
        .with(&[pin(1, libc::F_GETFD)]),
    rule("epoll_wait", "x86_64 alone has it; the next rule is for the others"),
    rule("epoll_pwait", "main loop"),
    rule("socket", "syslog").with(&[pin(0, libc::AF_UNIX)]),
    rule("socket", "firewall").with(&[pin(0, libc::AF_NETLINK), pin(2, libc::NETLINK_NETFILTER)]),
    rule("openat", "reading only")
        .with(&[without(2, (libc::O_WRONLY | libc::O_RDWR | libc::O_CREAT) as u64)]),
    #[cfg(target_env = "musl")]
    rule("open", "musl: reading only")
        .with(&[without(1, (libc::O_WRONLY | libc::O_RDWR | libc::O_CREAT) as u64)]),
    #[cfg(target_env = "musl")]
    rule("fcntl", "musl: what was opened is closed by execve").with(&[pin(1, libc::F_SETFD)]),
    rule("lseek", "one record").with(&[exactly(1, 16)]),
];

fn seccomp(mismatch: OnMismatch, attempt: fn()) {
    let filter = Filter::compile(&[BASE, ROLE], mismatch).unwrap();
    assert!(filter.instructions() < 4096);
    let witness = Witness::open().unwrap();
    assert!(!witness.in_force().unwrap().seccomp);
    filter.apply().unwrap();
    inside();
    attempt();
}

#[test]
fn what_the_rules_allow_works_under_the_filter() {
    succeeds("seccomp inside");
}

fn inside() {
    Socket::new(Domain::UNIX, Type::DGRAM, None).unwrap();
    Socket::new(Domain::from(libc::AF_NETLINK), Type::RAW, Some(libc::NETLINK_NETFILTER.into())).unwrap();
    File::open("/etc/passwd").unwrap();
    File::open("/dev/null").unwrap().seek(SeekFrom::Start(16)).unwrap();
    drop(vec![1_u8; 1 << 20]);
    println!("{INSIDE}");
}

#[test]
fn a_call_outside_the_rules_dies_of_sigsys() {
    dies_of_sigsys("seccomp outside");
}

#[test]
fn a_call_outside_the_rules_is_named_before_the_process_dies_of_it() {
    dies_of_sigsys("seccomp outside, named");
    let said = String::from_utf8(act("seccomp outside, named").stderr).unwrap();
    assert!(
        said.contains("portsentry-rs actor: system call")
            && said.contains("(uname) is outside the seccomp rules"),
        "{said}"
    );
}

fn seccomp_named() {
    name_refused_calls("actor").unwrap();
    seccomp(OnMismatch::Name, outside);
}

fn outside() {
    assert!(nix::sys::utsname::uname().is_ok());
}

#[test]
fn a_wrong_pinned_argument_dies_of_sigsys() {
    dies_of_sigsys("seccomp wrong pin");
    dies_of_sigsys("seccomp wrong bits");
    dies_of_sigsys("seccomp wrong value");
}

/// Each argument alone is one that a rule allows; both together are none.
fn wrong_pin() {
    let _ = Socket::new(Domain::from(libc::AF_NETLINK), Type::RAW, Some(libc::NETLINK_ROUTE.into()));
}

fn wrong_bits() {
    let _ = OpenOptions::new().write(true).open("/dev/null");
}

fn wrong_value() {
    let _ = File::open("/dev/null").map(|mut file| file.seek(SeekFrom::Start(17)));
}

#[test]
fn the_filter_reaches_threads_that_run_already() {
    dies_of_sigsys("seccomp in a thread");
}

fn seccomp_reaches_older_threads() {
    let (go, wait) = std::sync::mpsc::channel();
    let (tell, running) = std::sync::mpsc::channel();
    let older = std::thread::spawn(move || {
        // A thread that only starts under the filter would die of its own start.
        tell.send(()).unwrap();
        wait.recv().unwrap();
        outside();
    });
    running.recv().unwrap();
    seccomp(OnMismatch::Kill, || {});
    go.send(()).unwrap();
    let _ = older.join();
}
