//! What NixOS would make of `nix/`: every file is Nix, README's example evaluates to the shipped unit with a
//! configuration that `check` takes, and a wrong setting fails with the name of its option.
//!
//! Evaluation needs nixpkgs' `lib` (the repository nix-community/nixpkgs.lib), whose folder NIXPKGS_LIB names.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use support::readme;
use support::slow::say;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const PROGRAM: &str = env!("CARGO_BIN_EXE_portsentry-rs");
/// Exposure that `systemd-analyze security` may find, in tenths.
const EXPOSURE: &str = "--threshold=18";
/// What the module sets itself, and why it cannot be the shipped text: programs and configuration lie in the store.
const OF_THE_STORE: [&str; 3] = ["ExecStartPre", "ExecStart", "ExecReload"];

fn nix_files() -> Vec<PathBuf> {
    let folder = fs::read_dir(Path::new(ROOT).join("nix")).unwrap();
    let files = folder
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|it| it == "nix"));
    files.chain([Path::new(ROOT).join("flake.nix")]).collect()
}

fn nix_instantiate(arguments: &[&str]) -> Output {
    let mut command = Command::new("nix-instantiate");
    // Nothing is built: no store is needed, and none is made.
    command.args(arguments).env("NIX_REMOTE", "dummy://").env("HOME", "/nonexistent");
    command.output().expect("nix-instantiate is installed (Debian: nix-bin)")
}

fn nixpkgs_lib() -> Option<String> {
    let folder = std::env::var("NIXPKGS_LIB").ok();
    if folder.is_none() {
        say(
            "skipped: the NixOS module is not evaluated, for NIXPKGS_LIB names no copy of nix-community/nixpkgs.lib",
        );
    }
    folder
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A folder in which the package's programs seem to be installed.
fn package(folder: &Path) -> String {
    fs::create_dir(folder.join("bin")).unwrap();
    std::os::unix::fs::symlink(PROGRAM, folder.join("bin/portsentry-rs")).unwrap();
    folder.display().to_string()
}

/// What the module text evaluates to with the `lib` in `lib`, or what Nix says against it.
fn evaluate(lib: &str, package: &str, module: &str) -> Result<Value, String> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("module.nix");
    fs::write(&file, module).unwrap();
    // A reader's own, which README's flake names.
    fs::write(folder.path().join("configuration.nix"), "{ }").unwrap();
    let entry = format!("{ROOT}/nix/eval-test.nix");
    let lib = format!("import {lib}/lib");
    let output = nix_instantiate(&[
        "--eval",
        "--strict",
        "--json",
        &entry,
        "--arg",
        "lib",
        &lib,
        "--arg",
        "module",
        &file.display().to_string(),
        "--argstr",
        "package",
        package,
    ]);
    match output.status.success() {
        true => Ok(serde_json::from_slice(&output.stdout).unwrap()),
        false => Err(text(&output.stderr)),
    }
}

/// The module of the flake that README's section shows.
fn example() -> String {
    let (_, block) = readme::text_of("NixOS").split_once("```nix\n").expect("with an example");
    let flake = block.split("```").next().unwrap();
    format!(
        "{{ portsentry-rs, ... }}: {{
            imports = (({flake}).outputs {{ inherit portsentry-rs; nixpkgs.lib.nixosSystem = it: it; }})
              .nixosConfigurations.HOST.modules; }}"
    )
}

/// A module that says no more than `settings` about the service.
fn with(settings: &str) -> String {
    format!(
        "{{ portsentry-rs, ... }}: {{ imports = [ portsentry-rs.nixosModules.default ];
            services.portsentry-rs = {{ enable = true; ignore = [ \"192.0.2.1\" ]; }};
            {settings} }}"
    )
}

type Directives = BTreeMap<String, Vec<String>>;

/// `Section.Key` → values in order.
fn directives(unit: &str) -> Directives {
    let mut section = String::new();
    let mut found = Directives::new();
    for line in unit.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        match line.split_once('=') {
            Some((key, value)) => found.entry(format!("{section}.{key}")).or_default().push(value.to_owned()),
            None => section = line.trim_matches(['[', ']']).to_owned(),
        }
    }
    found
}

#[test]
fn every_file_is_nix() {
    for file in nix_files() {
        let output = nix_instantiate(&["--parse", &file.display().to_string()]);
        assert!(output.status.success(), "{}: {}", file.display(), text(&output.stderr));
    }
}

#[test]
fn no_file_has_dead_code_or_a_format_of_its_own() {
    for tool in [["deadnix", "--fail"], ["nixpkgs-fmt", "--check"]] {
        match Command::new(tool[0]).arg(tool[1]).args(nix_files()).output() {
            Ok(output) => assert!(output.status.success(), "{}: {}", tool[0], text(&output.stdout)),
            Err(_) => say(&format!("skipped: {0} is not installed (cargo install {0} --locked)", tool[0])),
        }
    }
}

#[test]
fn the_example_of_the_readme_is_the_shipped_unit_with_a_configuration_that_check_takes() {
    let Some(lib) = nixpkgs_lib() else { return };
    let folder = tempfile::tempdir().unwrap();
    let package = package(folder.path());
    let result = evaluate(&lib, &package, &example()).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(result["warnings"].as_array().map(Vec::len), Some(0), "{}", result["warnings"]);
    assert_eq!(result["firewall"]["allowedTCPPorts"].to_string(), "[23]");
    for module in ["nf_tables", "nft_fib_inet", "nft_socket", "nft_limit", "tcp_diag"] {
        let modules = result["kernelModules"].as_array().unwrap();
        assert!(modules.iter().any(|it| it == module), "{module} is missing in {modules:?}");
    }

    let configuration = build(&result["configuration"], folder.path());
    for line in [
        "TCP_PORTS=\"1,7,20-25,111\"",
        "DECOY_TCP_PORTS=\"23\"",
        "BLOCK_TCP=\"1\"",
        "BLOCK_WITH=\"nftables\"",
    ] {
        assert!(configuration.lines().any(|it| it == line), "{line} is missing in:\n{configuration}");
    }
    assert_eq!(fs::read_to_string(folder.path().join("out/portsentry.ignore")).unwrap(), "192.0.2.10\n");

    unit_is_shipped(result["unit"].as_str().unwrap(), &package);
    unit_is_sound(result["unit"].as_str().unwrap(), folder.path());
}

/// Runs what `runCommand` would run, and returns portsentry.conf.
fn build(derivation: &Value, folder: &Path) -> String {
    let of = |name: &str| derivation[name].as_str().unwrap();
    let mut shell = Command::new("sh");
    shell.args(["-euc", of("script")]).env("out", folder.join("out"));
    for name in ["configuration", "ignored"] {
        fs::write(folder.join(name), of(name)).unwrap();
        shell.env(format!("{name}Path"), folder.join(name));
    }
    let output = shell.output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    fs::read_to_string(folder.join("out/portsentry.conf")).unwrap()
}

/// Directive by directive the same, but for what lies in the store.
fn unit_is_shipped(unit: &str, package: &str) {
    let shipped = fs::read_to_string(Path::new(ROOT).join("config/portsentry-rs.service")).unwrap();
    let without = |unit: &str| {
        let mut found = directives(unit);
        OF_THE_STORE.iter().for_each(|key| drop(found.remove(&format!("Service.{key}"))));
        found
    };
    assert_eq!(without(unit), without(&shipped));
    assert!(without(unit).len() > 40, "hardening is missing:\n{unit}");
    let file = "-c /nix/store/portsentry-rs-configuration/portsentry.conf";
    let (check, start) = (
        format!("{package}/bin/portsentry-rs check --quiet {file}"),
        format!("{package}/bin/portsentry-rs {file}"),
    );
    let ours = directives(unit);
    assert_eq!(
        (&ours["Service.ExecStartPre"], &ours["Service.ExecStart"]),
        (&vec![check.clone()], &vec![start])
    );
    assert_eq!(ours["Service.ExecReload"], [check, "/nix/store/coreutils/bin/kill -HUP $MAINPID".to_owned()]);
}

fn unit_is_sound(unit: &str, folder: &Path) {
    let file = folder.join("portsentry-rs.service");
    // The one program that this machine has elsewhere.
    fs::write(&file, unit.replace("/nix/store/coreutils/bin/kill", "/bin/kill")).unwrap();
    let analyze = |arguments: &[&str]| {
        let output = Command::new("systemd-analyze").args(arguments).arg(&file).output();
        let output = output.expect("systemd is installed");
        assert!(output.status.success(), "{arguments:?}: {}{}", text(&output.stdout), text(&output.stderr));
        text(&output.stderr)
    };
    assert_eq!(analyze(&["verify", "--man=no"]), "");
    analyze(&["security", "--offline=true", EXPOSURE]);
}

#[test]
fn a_wrong_setting_fails_evaluation_with_the_name_of_its_option() {
    let Some(lib) = nixpkgs_lib() else { return };
    let here = "services.portsentry-rs";
    let one = "services.portsentry-rs.settings.TCP_PORTS = 1;";
    for (settings, option, why) in [
        ("services.portsentry-rs.settings.TCP_PORTS = 70000;", "settings.TCP_PORTS", "TCP_PORTS"),
        ("services.portsentry-rs.settings.TCP_PORTS = \"a,b\";", "settings.TCP_PORTS", "TCP_PORTS"),
        ("services.portsentry-rs.settings.BLOCK_TCP = 3;", "settings.BLOCK_TCP", "between 0 and 2"),
        ("services.portsentry-rs.settings.IPV6_PREFIX = 47;", "settings.IPV6_PREFIX", "between 48 and 128"),
        ("services.portsentry-rs.settings.SENSITIVITY = \"highest\";", "settings.SENSITIVITY", "\"medium\""),
        ("services.portsentry-rs.settings.BLOCK_TIME = \"an hour\";", "settings.BLOCK_TIME", "BLOCK_TIME"),
        ("services.portsentry-rs.settings.KILL_ROUTE = \"/bin/x\";", "settings.KILL_ROUTE", "$TARGET$"),
        (
            "services.portsentry-rs.settings.PORT_BANNER = \"two\\nlines\";",
            "settings.PORT_BANNER",
            "one line",
        ),
        ("services.portsentry-rs.blockWith = [ \"ipfw\" ];", "blockWith", "\"nftables\""),
        ("services.portsentry-rs.ignore = [ \"my office\" ];", "ignore", "ignore"),
        ("services.portsentry-rs.decoys.tcp = [ \"22-\" ];", "decoys.tcp", "decoys.tcp"),
        // Right one by one, wrong together or here.
        ("", "settings.TCP_PORTS", "no port to watch"),
        (
            &format!("{one} services.portsentry-rs.settings.TPC_PORTS = \"1\";"),
            "settings: TPC_PORTS",
            "did you mean TCP_PORTS?",
        ),
        (
            &format!("{one} services.portsentry-rs.blockWith = [ \"iptables\" ];"),
            "blockWith",
            "networking.firewall",
        ),
        (&format!("{one} services.portsentry-rs.blockWith = [ \"hosts_deny\" ];"), "blockWith", "read-only"),
        (
            &format!("{one} services.portsentry-rs.blockWith = [ \"command\" ];"),
            "blockWith",
            "settings.KILL_ROUTE",
        ),
        (
            &format!("{one} services.portsentry-rs.settings.BLOCK_WITH = \"route\";"),
            "settings.BLOCK_WITH",
            "set blockWith alone",
        ),
        (
            &format!("{one} services.portsentry-rs.settings.BLOCK_WITH = null;"),
            "settings.BLOCK_WITH",
            "set blockWith alone",
        ),
        (
            &format!(
                "{one} services.portsentry-rs.blockWith = [ ]; services.portsentry-rs.settings.BLOCK_UDP = 1;"
            ),
            "settings.BLOCK_UDP",
            "alarms are only reported",
        ),
        (
            &format!(
                "{one} services.portsentry-rs.settings.HISTORY_FILE = \"/var/log/portsentry-rs.history\";"
            ),
            "settings.HISTORY_FILE",
            "nothing that the unit may write",
        ),
        (
            &format!("{one} services.portsentry-rs.settings.BLOCKED_FILE = \"/srv/blocked\";"),
            "settings.BLOCKED_FILE",
            "ReadWritePaths",
        ),
        (
            &format!(
                "{one} services.portsentry-rs.settings.BLOCKED_FILE = \"/var/lib/portsentry-rs/blocked\";"
            ),
            "settings.BLOCKED_FILE",
            "beside its ledger",
        ),
        (
            &format!("{one} services.portsentry-rs.settings.IGNORE_FILE = \"/etc/x\";"),
            "settings.IGNORE_FILE",
            "services.portsentry-rs.ignore",
        ),
        (
            &format!("{one} services.portsentry-rs.settings.STATE_DIR = \"/srv\";"),
            "settings.STATE_DIR",
            "StateDirectory",
        ),
        (
            &format!("{one} services.portsentry-rs.openFirewall = true;"),
            "openFirewall",
            "services.portsentry-rs.decoys",
        ),
    ] {
        let error = evaluate(&lib, "/nix/store/x", &with(settings)).expect_err(settings);
        assert!(error.contains(&format!("{here}.{option}")), "{settings} should name {option}:\n{error}");
        assert!(error.contains(why), "{settings} should say {why}:\n{error}");
    }
}

#[test]
fn what_may_surprise_is_warned_of() {
    let Some(lib) = nixpkgs_lib() else { return };
    let one = "services.portsentry-rs.settings.TCP_PORTS = 1;";
    for (settings, warning) in [
        ("services.portsentry-rs.decoys.udp = [ 161 ];", "the firewall lets nobody through to 161"),
        (
            "networking.nftables = { enable = true; flushRuleset = true; };",
            "networking.nftables.flushRuleset deletes",
        ),
    ] {
        let result = evaluate(&lib, "/nix/store/x", &with(&format!("{one} {settings}"))).unwrap();
        assert!(result["warnings"].to_string().contains(warning), "{settings}: {}", result["warnings"]);
    }
}

#[test]
fn values_reach_the_configuration_as_the_daemon_writes_them() {
    let Some(lib) = nixpkgs_lib() else { return };
    let folder = tempfile::tempdir().unwrap();
    let settings = "services.portsentry-rs = {
        blockWith = [ \"route\" \"nftables\" ];
        decoys = { tcp = [ 21 \"6000-6010\" ]; udp = [ 161 ]; };
        openFirewall = true;
        settings = {
          UDP_PORTS = \"7, 9, 13-19\"; RESOLVE_HOST = true; FLUSH_ON_STOP = 0; BLOCK_TIME = \"1h 30m\"; BLOCK_TIME_MAX = -1;
          NEVER_BLOCK = [ \"192.0.2.9\" \"2001:db8::/32\" ]; PORT_BANNER = \"say \\\"hello\\\"\"; INTERFACES = \"eth0\"; WORKERS = 2;
          KILL_RUN_CMD = \"/bin/true $TARGET$\";
        };
      };";
    let result =
        evaluate(&lib, &package(folder.path()), &with(settings)).unwrap_or_else(|error| panic!("{error}"));
    let configuration = build(&result["configuration"], folder.path());
    for line in [
        "BLOCK_WITH=\"route,nftables\"",
        "DECOY_TCP_PORTS=\"21,6000-6010\"",
        "DECOY_UDP_PORTS=\"161\"",
        "UDP_PORTS=\"7, 9, 13-19\"",
        "RESOLVE_HOST=\"1\"",
        "FLUSH_ON_STOP=\"0\"",
        "BLOCK_TIME=\"1h 30m\"",
        "BLOCK_TIME_MAX=\"-1\"",
        "NEVER_BLOCK=\"192.0.2.9,2001:db8::/32\"",
        "PORT_BANNER='say \"hello\"'",
        "INTERFACES=\"eth0\"",
        "WORKERS=\"2\"",
    ] {
        assert!(configuration.lines().any(|it| it == line), "{line} is missing in:\n{configuration}");
    }
    let firewall = &result["firewall"];
    assert_eq!(firewall["allowedTCPPortRanges"].to_string(), "[{\"from\":6000,\"to\":6010}]");
    assert_eq!(
        (firewall["allowedTCPPorts"].to_string(), firewall["allowedUDPPorts"].to_string()),
        ("[21]".into(), "[161]".into())
    );
}

#[test]
fn of_what_the_module_sets_itself_the_manual_shows_no_default_of_the_daemon() {
    let Some(lib) = nixpkgs_lib() else { return };
    let settings =
        "services.portsentry-rs = { decoys = { tcp = [ 23 ]; udp = [ 161 ]; }; openFirewall = true; };";
    let result = evaluate(&lib, "/nix/store/x", &with(settings)).unwrap_or_else(|error| panic!("{error}"));
    let configuration = result["configuration"]["configuration"].as_str().unwrap();
    let set: Vec<&str> = configuration.lines().filter_map(|line| line.split('=').next()).collect();
    assert_eq!(set, ["BLOCK_TCP", "BLOCK_UDP", "BLOCK_WITH", "DECOY_TCP_PORTS", "DECOY_UDP_PORTS"]);
    for key in set {
        let shown = result["defaults"][key].as_str().unwrap();
        assert!(shown.contains("services.portsentry-rs."), "{key}: {shown}");
    }
    assert_eq!(result["defaults"]["BLOCK_TIME"], "1h");
}

#[test]
fn files_lie_wherever_the_unit_may_write() {
    let Some(lib) = nixpkgs_lib() else { return };
    let settings = "services.portsentry-rs = {
        blockWith = [ ];
        settings = {
          TCP_PORTS = 1; BLOCK_WITH = null;
          HISTORY_FILE = \"/var/log/portsentry-rs/history\"; BLOCKED_FILE = \"/srv/blocks/now\";
        };
      };
      systemd.services.portsentry-rs.serviceConfig.ReadWritePaths = \"/opt -/srv\";";
    let result = evaluate(&lib, "/nix/store/x", &with(settings)).unwrap_or_else(|error| panic!("{error}"));
    let configuration = result["configuration"]["configuration"].as_str().unwrap();
    for line in ["HISTORY_FILE=\"/var/log/portsentry-rs/history\"", "BLOCKED_FILE=\"/srv/blocks/now\""] {
        assert!(configuration.lines().any(|it| it == line), "{line} is missing in:\n{configuration}");
    }
    assert!(!configuration.contains("BLOCK_WITH"), "{configuration}");
    // An operator may block by hand.
    assert!(result["kernelModules"].to_string().contains("\"nf_tables\""), "{}", result["kernelModules"]);
}

#[test]
fn the_flake_exposes_package_module_checks_shell_and_overlay() {
    let Some(lib) = nixpkgs_lib() else { return };
    let names = format!(
        "let lib = import {lib}/lib;
             outputs = (import {ROOT}/flake.nix).outputs {{ self = {ROOT}; nixpkgs = {{ inherit lib; legacyPackages = lib.genAttrs [ \"x86_64-linux\" \"aarch64-linux\" ] (_: {{ }}); }}; }};
             of = name: lib.attrNames outputs.${{name}}.x86_64-linux;
         in {{ all = lib.attrNames outputs; packages = of \"packages\"; checks = of \"checks\"; shells = of \"devShells\"; }}"
    );
    let output = nix_instantiate(&["--eval", "--strict", "--json", "--expr", &names]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        found.to_string(),
        r#"{"all":["checks","devShells","formatter","nixosModules","overlays","packages"],"checks":["format","module","package","vm"],"packages":["default","musl"],"shells":["default"]}"#
    );
}
