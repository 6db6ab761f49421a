//! The SELinux policy: it compiles, breaks none of the policy's own neverallow rules, and gives each domain no more than
//! its work takes; and in a guest where SELinux is enforcing the daemon does its work in these domains unrefused, while
//! a shell in the sensor's can do nothing. README's section is what is followed.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use support::machine::release;
use support::readme;
use support::slow::{SlowLab, say};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const HEADERS: &str = "/usr/share/selinux/devel/Makefile";
const POLICY: &str = "/var/lib/selinux/default";

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn run(program: &str, arguments: &[&str]) -> Output {
    Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{program}: {error}"))
}

fn succeeds(program: &str, arguments: &[&str]) -> String {
    let output = run(program, arguments);
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}

/// README's four commands: compile, install, restart, show. Whoever runs them here is root already.
fn commands() -> Vec<String> {
    readme::commands("SELinux").iter().map(|line| line.trim_start_matches("sudo ").to_owned()).collect()
}

/// A copy of this machine's policy with our module in it, or what speaks against it.
struct Store(tempfile::TempDir);

impl Store {
    fn new() -> Store {
        let folder = tempfile::tempdir().unwrap();
        for (from, to) in [(POLICY, "var/lib/selinux"), ("/etc/selinux/default", "etc/selinux")] {
            let to = folder.path().join(to);
            fs::create_dir_all(&to).unwrap();
            succeeds("cp", &["-a", from, &to.display().to_string()]);
        }
        // Neverallow rules are part of it only where that is asked for.
        fs::write(
            folder.path().join("etc/selinux/semanage.conf"),
            "module-store = direct\nexpand-check = 1\n",
        )
        .unwrap();
        Store(folder)
    }

    fn link(&self, module: &Path) -> Result<(), String> {
        let root = self.0.path().display().to_string();
        let output =
            run("semodule", &["-p", &root, "-s", "default", "-n", "-i", &module.display().to_string()]);
        if output.status.success() { Ok(()) } else { Err(text(&output.stderr)) }
    }

    /// What `sesearch` finds in the linked policy.
    fn search(&self, arguments: &[&str]) -> String {
        let folder = self.0.path().join("etc/selinux/default/policy");
        let policy = fs::read_dir(folder).unwrap().next().unwrap().unwrap().path().display().to_string();
        succeeds("sesearch", &[arguments, &[policy.as_str()]].concat())
    }
}

/// The module as README's first command makes it, from a copy so that tests do not meet in one folder.
fn compiled(folder: &Path, append: &str) -> PathBuf {
    let (command, policy) = (&commands()[0], folder.join("selinux"));
    assert_eq!(command, "make -C selinux");
    succeeds("cp", &["-r", &format!("{ROOT}/selinux"), &policy.display().to_string()]);
    let te = policy.join("portsentry_rs.te");
    fs::write(&te, fs::read_to_string(&te).unwrap() + append).unwrap();
    succeeds("make", &["--no-print-directory", "-B", "-C", &policy.display().to_string()]);
    policy.join("portsentry_rs.pp")
}

fn tools_are_there() -> bool {
    let are_there = Path::new(HEADERS).exists() && Path::new(POLICY).exists();
    if !are_there {
        say(
            "skipped: no SELinux policy here to link with (Debian: selinux-policy-dev, selinux-policy-default)",
        );
    }
    are_there
}

#[test]
fn the_module_links_with_the_policy_and_gives_each_domain_only_its_work() {
    if !tools_are_there() {
        return;
    }
    let (store, folder) = (Store::new(), tempfile::tempdir().unwrap());
    store.link(&compiled(folder.path(), "")).unwrap_or_else(|error| panic!("{error}"));

    // Whatever may be opened, the sensor that looks at packets cannot: of the kernel's sockets only local ones.
    let sensor = store.search(&["-A", "-s", "portsentry_rs_sensor_t", "-p", "create,bind,connect"]);
    let opened = sensor.lines().filter(|rule| !rule.contains(":unix_") && rule.contains("socket"));
    assert_eq!(opened.collect::<Vec<_>>(), [""; 0]);
    for (domain, capabilities) in [
        ("portsentry_rs_t", "{ dac_override net_bind_service net_raw }"),
        ("portsentry_rs_helper_t", "net_admin"),
    ] {
        let rules = store.search(&["-A", "-s", domain, "-c", "capability"]);
        assert_eq!(rules.trim(), format!("allow {domain} {domain}:capability {capabilities};"));
    }
    for nothing in [
        ["-s", "portsentry_rs_sensor_t", "-c", "capability"],
        ["-s", "portsentry_rs_sensor_t", "-p", "execute_no_trans"],
        ["-s", "portsentry_rs_sensor_t", "-p", "transition"],
        ["-s", "portsentry_rs_sensor_t", "-p", "dyntransition"],
        ["-s", "portsentry_rs_helper_t", "-p", "dyntransition"],
        ["-s", "portsentry_rs_helper_t", "-c", "packet_socket"],
        ["-s", "portsentry_rs_t", "-c", "netlink_netfilter_socket"],
    ] {
        let found = store.search(&[&["-A"], nothing.as_slice()].concat());
        // Every daemon may use what it inherits from init.
        let own = found.lines().filter(|rule| !rule.is_empty() && !rule.starts_with("allow daemon init_t:"));
        assert_eq!(own.collect::<Vec<_>>(), [""; 0], "{nothing:?}");
    }
    let back = store.search(&["-A", "-t", "portsentry_rs_t", "-p", "dyntransition"]);
    assert!(!back.contains("portsentry_rs_sensor_t"), "{back}");
}

#[test]
fn a_module_that_reads_passwords_does_not_link() {
    if !tools_are_there() {
        return;
    }
    let (store, folder) = (Store::new(), tempfile::tempdir().unwrap());
    let module =
        compiled(folder.path(), "gen_require(`type shadow_t;')\nallow portsentry_rs_t shadow_t:file read;\n");
    let error = store.link(&module).expect_err("neverallow rules are checked");
    assert!(error.contains("neverallow check failed"), "{error}");
}

/// Fedora's headers: a fork of long ago, which `make` would fail on with a syntax error in a line that nobody wrote.
#[test]
fn headers_of_another_policy_are_refused_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let headers = folder.path().join("include/kernel");
    fs::create_dir_all(&headers).unwrap();
    fs::write(headers.join("files.if"), "interface(`files_pid_file',`\n')\n").unwrap();
    fs::write(folder.path().join("Makefile"), "").unwrap();
    let devel = format!("DEVEL={}", folder.path().join("Makefile").display());
    let output = run("make", &["-B", "-C", &format!("{ROOT}/selinux"), &devel]);
    let said = text(&output.stderr);
    assert!(!output.status.success() && said.contains("is not of the reference policy"), "{said}");
}

/// What the guest found: `FACT name=value`.
fn facts(said: &str) -> BTreeMap<&str, &str> {
    let facts = said.lines().filter_map(|line| line.trim_end().strip_prefix("FACT ")?.split_once('='));
    facts.map(|(name, value)| (name, value.trim())).collect()
}

#[test]
fn in_an_enforcing_guest_the_daemon_works_unrefused_and_a_shell_in_its_domain_can_do_nothing() {
    let Some(_lab) = SlowLab::begin("a guest with SELinux enforcing") else { return };
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("labs/selinux");
    let guest = format!("{ROOT}/tests/support/selinux/guest.sh");
    let output = Command::new(&guest).arg(release()).arg(folder).args(commands()).output().unwrap();
    let said = text(&output.stdout);
    let all = format!("{said}{}", text(&output.stderr));
    assert!(output.status.success(), "{all}");

    let facts = facts(&said);
    for (name, value) in [
        ("enforcing", "Enforcing"),
        ("active", "active"),
        (
            "shown",
            "system_u:system_r:portsentry_rs_sensor_t:s0 portsentry-rs system_u:system_r:portsentry_rs_helper_t:s0 portsentry-rs-h",
        ),
        ("blocked", "10.77.0.2"),
        // Written by a block, and cut by its end.
        ("filed", "02 00 0a 4d 00 02"),
        ("emptied", "0"),
        ("listed", "10.77.0.2"),
        ("decoy", "4"),
        ("reloaded", "active"),
        ("restarted", "active"),
        ("stopped", "inactive"),
        // Refusals do reach the journal: that it has none of the daemon's means something.
        ("recorded", "comm=\"cat\""),
        // The same attempts from outside all work: it is the domain that stops them.
        ("anybody", "shadow raw_socket packet_socket netfilter_socket nftables configuration local_socket"),
        ("within", "configuration local_socket"),
        ("done", "yes"),
    ] {
        assert_eq!(facts.get(name), Some(&value), "{name}:\n{all}");
    }
    let lines: u32 = facts.get("history").and_then(|lines| lines.parse().ok()).unwrap_or(0);
    assert!(lines >= 1, "the history file has no line:\n{all}");
    let refused: Vec<&str> = said.lines().filter(|line| line.starts_with("DENIED ")).collect();
    assert_eq!(refused, [""; 0]);
}
