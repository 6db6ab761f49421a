//! The systemd unit keeps its hardening: an exposure of 1.8 at most, and no directive that systemd does not know.
//! So does the drop-in of docs/migrating.md. Needs systemd-analyze (Debian's package systemd).
#![allow(clippy::expect_used)]

use std::fs;
use std::process::{Command, Output};

const UNIT: &str = "config/portsentry-rs.service";
const SHIPPED: &str = include_str!("../config/portsentry-rs.service");

fn analyze(arguments: &[&str]) -> Output {
    let mut command = Command::new("systemd-analyze");
    let output = command.current_dir(env!("CARGO_MANIFEST_DIR")).args(arguments).output();
    output.expect("systemd-analyze is installed: make test sees to it")
}

#[test]
fn the_units_exposure_is_at_most_1_8() {
    let output = analyze(&["security", "--no-pager", "--offline=true", "--threshold=18", UNIT]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn systemd_understands_every_line_of_the_unit() {
    let complaints = complaints(&analyze(&["verify", "--man=no", UNIT]));
    assert!(complaints.is_empty(), "{complaints:#?}");
}

fn complaints(output: &Output) -> Vec<String> {
    let said = String::from_utf8_lossy(&output.stderr);
    // The program need not be installed here.
    said.lines().filter(|line| !line.contains("is not executable")).map(str::to_owned).collect()
}

/// What docs/migrating.md gives to those whose mode stands in Debian's /etc/default/portsentry.
#[test]
fn the_drop_in_for_the_advanced_modes_gives_every_command_of_the_unit_their_flags() {
    const FLAGS: &str = " -atcp -audp";
    let page = include_str!("../docs/migrating.md");
    let drop_in = page.split("```ini\n").nth(1).and_then(|rest| rest.split("```").next());
    let drop_in = drop_in.expect("the page shows a drop-in");
    let mut expected = vec!["[Service]".to_owned()];
    for directive in ["ExecStartPre=", "ExecStart=", "ExecReload="] {
        expected.push(directive.to_owned());
        let commands = SHIPPED.lines().filter(|line| line.starts_with(directive));
        expected.extend(commands.map(|line| match line.contains("portsentry-rs") {
            true => format!("{line}{FLAGS}"),
            false => line.to_owned(),
        }));
    }
    assert_eq!(drop_in.lines().collect::<Vec<_>>(), expected);

    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("portsentry-rs.service.d")).expect("the folder is ours");
    for (name, text) in [
        ("portsentry-rs.service", SHIPPED),
        ("portsentry-rs.service.d/mode.conf", drop_in),
        // A file of Debian's need not name a port.
        ("portsentry.conf", "ADVANCED_EXCLUDE_TCP=\"113,139\"\n"),
    ] {
        fs::write(at(name), text).expect("the folder is ours");
    }
    let complaints =
        complaints(&analyze(&["verify", "--man=no", &at("portsentry-rs.service").display().to_string()]));
    assert!(complaints.is_empty(), "{complaints:#?}");
    let output = Command::new(env!("CARGO_BIN_EXE_portsentry-rs"))
        .arg("check")
        .args(FLAGS.split_whitespace())
        .arg("-c")
        .arg(at("portsentry.conf"))
        .output()
        .expect("it is built");
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        told.contains("1021 ports: 1-112,114-138,140-1023") && told.contains("1023 ports: 1-1023"),
        "{output:?}"
    );
}
