//! What `make build` makes runs on the machine it was made on, or the build fails. With a cargo and a compiler that only
//! pretend; the real ones are what `make test` itself begins with.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const FLAG: &str = "pack-relative-relocs";
/// As a program whose loader does not know its relocations.
const SEGFAULTS: &str = "kill -SEGV $$";

fn script(path: &Path, lines: &str) -> PathBuf {
    fs::write(path, format!("#!/bin/sh\n{lines}\n")).unwrap();
    fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
    path.to_owned()
}

/// `make build` where the programs that are built do `program`, and the probe with packed relocations `probe`; then which
/// flags cargo got.
fn build(program: &str, probe: &str) -> (Output, String) {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for name in ["portsentry-rs", "portsentry-rs-helper"] {
        script(&at(name), program);
    }
    let model = script(&at("model"), probe);
    let machine = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let flags = at("flags");
    let cargo = format!(
        "case $1 in -vV) echo 'host: {machine}';; *) echo \"$RUSTFLAGS\" >{};; esac",
        flags.display()
    );
    // The file after -o is what the compiler makes.
    let rustc =
        format!("while [ \"$1\" != -o ]; do shift; done\ncat >/dev/null\ncp {} \"$2\"", model.display());
    let output = Command::new("make")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["--no-print-directory", "build"])
        .arg(format!("CARGO={}", script(&at("cargo"), &cargo).display()))
        .arg(format!("RELEASE={}", folder.path().display()))
        .env("RUSTC", script(&at("rustc"), &rustc))
        .env_remove("MAKEFLAGS")
        .output()
        .expect("make is installed");
    (output, fs::read_to_string(flags).unwrap())
}

#[test]
fn relocations_are_packed_where_a_program_with_packed_ones_runs() {
    let (output, flags) = build("true", "echo 1");
    assert!(output.status.success() && flags.contains(FLAG), "{output:?} {flags}");
    assert!(flags.contains("+crt-static"), "{flags}");
}

#[test]
fn where_it_does_not_run_they_are_not_packed_and_the_build_says_so() {
    let (output, flags) = build("true", SEGFAULTS);
    assert!(output.status.success() && !flags.contains(FLAG), "{output:?} {flags}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("relocations stay unpacked"), "{output:?}");
}

#[test]
fn a_program_that_does_not_run_is_a_failure() {
    let (output, _) = build(SEGFAULTS, "echo 1");
    assert!(!output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("does not run here"), "{output:?}");
}
