//! The systemd unit keeps its hardening: an exposure of 1.8 at most, and no directive that systemd does not know.
//! Needs systemd-analyze (Debian's package systemd).
#![allow(clippy::expect_used)]

use std::process::{Command, Output};

const UNIT: &str = "config/portsentry-rs.service";

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
    let output = analyze(&["verify", "--man=no", UNIT]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    // The program need not be installed here.
    let complaints: Vec<&str> = said.lines().filter(|line| !line.contains("is not executable")).collect();
    assert!(complaints.is_empty(), "{said}");
}
