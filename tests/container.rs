//! Promise: the container image holds two programs and a configuration, and run by README's very line it detects, blocks
//! and ends as the daemon does by hand. A real build without a network, a real podman in a namespace. Slow lab.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::Value;
use support::slow::SlowLab;
use support::{Lab, eventually, readme};

const SOON: Duration = Duration::from_secs(60);

/// What stands in for the build stage's base: a Debian with a linker, and this machine's own toolchain.
const BASE: &str = "docker.io/library/rust:1-bookworm";
const BASE_PACKAGES: &str = "gcc,libc6-dev,ca-certificates,make,libcap2-bin";

/// What of systemd-resolved's a container must be given to know the resolvers behind its stub.
const RESOLVERS: &str = "/run/systemd/resolve/resolv.conf";

const NO_CONTAINERS: &str = "podman rm --all --force --volumes";

/// podman with a store of its own below target/ (which is kept: what it built is not built again), on the target of a lab: its `--network=host` is the target's network.
struct Podman {
    lab: Lab,
    folder: PathBuf,
}

impl Podman {
    fn new() -> Podman {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("labs/podman");
        std::fs::create_dir_all(&folder).unwrap();
        let limits = "default_ulimits=[\"nofile=1024:1024\",\"nproc=4096:4096\"]";
        let engine = "runtime=\"runc\"\ncgroup_manager=\"cgroupfs\"\nevents_logger=\"file\"";
        std::fs::write(
            folder.join("containers.conf"),
            format!("[containers]\n{limits}\n[engine]\n{engine}\n"),
        )
        .unwrap();
        let podman = Podman { lab: Lab::new(2), folder };
        podman.forget_the_last_run();
        podman
    }

    /// What a run left that was killed would be in the way of this one's containers, which have the same names.
    fn forget_the_last_run(&self) {
        if !self.shell(NO_CONTAINERS).status.success() {
            // podman 5 refuses what stems from before the machine's last start, and says to delete it.
            let _ = std::fs::remove_dir_all(self.folder.join("run"));
            self.says(NO_CONTAINERS);
        }
    }

    /// Runs a line as a reader of README would; `build` finds what the network would bring on this machine.
    fn shell(&self, line: &str) -> Output {
        let folder = self.folder.display();
        let sysroot = Command::new("rustc").args(["--print", "sysroot"]).output().unwrap().stdout;
        let sysroot = String::from_utf8(sysroot).unwrap();
        let registry = std::env::var("CARGO_HOME")
            .unwrap_or_else(|_| format!("{}/.cargo", std::env::var("HOME").unwrap()));
        let prelude = format!(
            "podman() {{ local verb=$1; shift; [ $verb != build ] || set -- --pull=never --network=none \
             --env CARGO_NET_OFFLINE=true --volume {}:/usr/local/rust:ro \
             --volume {registry}/registry:/usr/local/cargo/registry:O \"$@\"; \
             command podman --root {folder}/store --runroot {folder}/run $verb \"$@\"; }}",
            sysroot.trim()
        );
        Command::new("nsenter")
            .arg(format!("--net=/run/netns/{}", self.lab.target()))
            .args(["bash", "-c", &format!("{prelude}; {line}")])
            .env("CONTAINERS_CONF", self.folder.join("containers.conf"))
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .expect("nsenter and bash are here")
    }

    /// What a line that succeeds prints.
    fn says(&self, line: &str) -> String {
        let output = self.shell(line);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{line}: {}{}", text(&output.stdout), text(&output.stderr));
        text(&output.stdout)
    }

    /// What stands in the log of a container: standard output, standard error.
    fn log(&self, container: &str) -> (String, String) {
        let Output { stdout, stderr, .. } = self.shell(&format!("podman logs {container}"));
        (String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
    }

    /// The latest event of a kind in the log, once there is one.
    fn event(&self, kind: &str) -> Value {
        let find = || {
            let (stdout, _) = self.log("portsentry-rs");
            let mut events =
                stdout.lines().map(|line| serde_json::from_str::<Value>(line).expect("every line is JSON"));
            events.rfind(|event| event["event_type"] == kind)
        };
        eventually(&format!("a {kind} event"), SOON, || find().is_some());
        find().unwrap()
    }

    /// The base image of the build, made once of Debian's packages.
    fn base(&self) {
        if self.shell(&format!("podman image exists {BASE}")).status.success() {
            return;
        }
        let archive = self.folder.join("base.tar");
        let made = Command::new("mmdebstrap")
            .args(["--quiet", "--variant=minbase", &format!("--include={BASE_PACKAGES}"), "bookworm"])
            .arg(&archive)
            .output()
            .expect("mmdebstrap is installed");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let path = "PATH=/usr/local/rust/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        let import =
            format!("podman import --change 'ENV {path}' --change 'ENV CARGO_HOME=/usr/local/cargo'");
        self.says(&format!("{import} {} {BASE}", archive.display()));
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        let _ = self.shell(NO_CONTAINERS);
    }
}

#[test]
fn the_readmes_lines_build_run_and_stop_the_container() {
    let Some(_lab) = SlowLab::begin("the README's way into a container") else { return };
    let podman = Podman::new();
    podman.base();
    // Whoever runs them here is root already.
    let commands: Vec<String> = readme::commands("Container")
        .iter()
        .map(|line| line.trim_start_matches("sudo ").to_owned())
        .collect();
    for command in &commands {
        match command.split(' ').take(2).collect::<Vec<_>>()[..] {
            ["${EDITOR:-vi}", file] => assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join(file).exists()),
            ["podman", "build"] => builds(&podman, command),
            ["podman", "run"] => runs(&podman, command),
            ["podman", "logs"] => detects_and_blocks(&podman, command),
            ["podman", "exec"] => answers(&podman, command),
            ["podman", "stop"] => stops(&podman, command),
            _ => panic!("README has a command that no test follows: {command}"),
        }
    }
    let run = commands.iter().find(|command| command.starts_with("podman run")).unwrap();
    names_the_missing_capability(&podman, run);
}

fn builds(podman: &Podman, command: &str) {
    podman.says(command);
    let size = podman.says("podman image inspect --format '{{.Size}}' portsentry-rs");
    let packed = podman.says("podman save portsentry-rs | gzip | wc --bytes");
    println!("image: {} bytes, {} compressed", size.trim(), packed.trim());
    let files = podman
        .says("podman create --name looked-at portsentry-rs >&2 && podman export looked-at | tar --list");
    let mut files: Vec<&str> = files.lines().filter(|file| !file.ends_with('/')).collect();
    files.sort_unstable();
    let ours = [
        "etc/portsentry/portsentry.conf",
        "etc/portsentry/portsentry.ignore",
        "usr/sbin/portsentry-rs",
        "usr/sbin/portsentry-rs-helper",
    ];
    let ours_alone = files.iter().filter(|file| file.contains("portsentry")).eq(ours.iter());
    assert!(ours_alone, "{files:?}");
}

fn runs(podman: &Podman, command: &str) {
    podman.says(command);
    let start = podman.event("start");
    assert_eq!(start["start"]["pid"], 1, "{start}");
    assert_eq!(start["start"]["confinement"]["missing"], serde_json::json!([]), "{start}");
    // The lab's target is a namespace of its own, as a container without --network=host has.
    assert_eq!(start["start"]["network"], "own");
    let (_, stderr) = podman.log("portsentry-rs");
    assert!(stderr.contains("this network namespace is not the host's"), "{stderr}");
    let pid = podman.says("podman inspect --format '{{.State.Pid}}' portsentry-rs");
    let written = std::fs::write(format!("/proc/{}/root/etc/portsentry/new", pid.trim()), "");
    assert_eq!(written.unwrap_err().kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    let status = std::fs::read_to_string(format!("/proc/{}/status", pid.trim())).unwrap();
    for line in ["Uid:\t65532", "CapEff:\t0000000000000000", "Seccomp:\t2"] {
        assert!(status.contains(line), "{status}");
    }
}

fn detects_and_blocks(podman: &Podman, command: &str) {
    let scanner = podman.lab.peer(0);
    scanner.nmap(&["-sS", "-p", "1,7,9", &scanner.target_v4.to_string()]);
    let block = podman.event("block");
    assert_eq!(
        (block["src_ip"].as_str(), block["action"]["verdict"].as_str()),
        (Some("10.77.0.2"), Some("blocked"))
    );
    assert!(podman.says(command).contains("\"event_type\":\"block\""));
    assert!(podman.lab.is_blocked(scanner.v4), "{}", podman.lab.nft_table());
}

fn answers(podman: &Podman, command: &str) {
    assert!(podman.says(command).contains("blocks in force  1"));
    podman.says("podman healthcheck run portsentry-rs");
}

fn stops(podman: &Podman, command: &str) {
    let begun = Instant::now();
    podman.says(command);
    let took = begun.elapsed();
    // After ten podman kills; on an idle machine it takes a tenth of one.
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert_eq!(podman.says("podman inspect --format '{{.State.ExitCode}}' portsentry-rs").trim(), "0");
    podman.event("stop");
    podman.says("podman start portsentry-rs");
    eventually("it starts on its own volumes", SOON, || podman.event("start")["start"]["restored"] == 1);
    podman.says("podman rm --force portsentry-rs");
}

/// README's line without one of its capabilities, with a decoy that needs the third.
fn names_the_missing_capability(podman: &Podman, run: &str) {
    let config = podman.folder.join("decoy.conf");
    std::fs::write(&config, "TCP_PORTS=\"1\"\nDECOY_TCP_PORTS=\"23\"\n").unwrap();
    let volume = format!(" --volume={}:/etc/portsentry/portsentry.conf:ro portsentry-rs", config.display());
    for capability in ["NET_ADMIN", "NET_RAW", "NET_BIND_SERVICE"] {
        let line = run.replace(&format!("--cap-add={capability} "), "").replace("--detach ", "--rm ");
        assert!(line.len() < run.len() - "--detach ".len(), "README adds {capability}: {run}");
        let line = line.strip_suffix(" portsentry-rs").expect("the image comes last").to_owned() + &volume;
        let output = podman.shell(&line);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{line}: {output:?}");
        assert!(said.contains(&format!("CAP_{capability}")) && said.matches("CAP_").count() == 1, "{said}");
    }
}

#[test]
fn compose_and_kubernetes_ask_for_what_the_readmes_line_asks_for() {
    // Whoever runs them here is root already.
    let commands: Vec<String> = readme::commands("Container")
        .iter()
        .map(|line| line.trim_start_matches("sudo ").to_owned())
        .collect();
    let run = commands.iter().find(|command| command.starts_with("podman run")).unwrap();
    let added: Vec<&str> = run.split(' ').filter_map(|word| word.strip_prefix("--cap-add=")).collect();
    let added = format!("[{}]", added.join(", "));
    let compose = include_str!("../config/compose.yaml");
    let kubernetes = include_str!("../config/kubernetes-daemonset.yaml");
    for (file, lines) in [
        (compose, ["network_mode: host", "read_only: true", "cap_drop: [ALL]", &format!("cap_add: {added}")]),
        (
            kubernetes,
            ["hostNetwork: true", "readOnlyRootFilesystem: true", "drop: [ALL]", &format!("add: {added}")],
        ),
    ] {
        lines.iter().for_each(|line| assert!(file.contains(line), "{line}"));
        assert!(file.contains(RESOLVERS), "how its resolvers are protected");
    }
    assert!(readme::text_of("Container").contains(RESOLVERS));
    assert!(kubernetes.contains("\n      dnsPolicy: Default\n"), "the node's resolvers, not the cluster's");
}
