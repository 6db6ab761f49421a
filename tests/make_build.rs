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

/// A compiler that makes a copy of `model`: the file after -o is what is to be made.
fn compiler(path: &Path, model: &Path, then: &str) -> PathBuf {
    let model = model.display();
    script(
        path,
        &format!("while [ \"$1\" != -o ]; do shift; done\ncat >/dev/null\ncp {model} \"$2\" || exit\n{then}"),
    )
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
    let rustc = compiler(&at("rustc"), &model, "");
    let output = Command::new("make")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["--no-print-directory", "build"])
        .arg(format!("CARGO={}", script(&at("cargo"), &cargo).display()))
        .arg(format!("RELEASE={}", folder.path().display()))
        .env("RUSTC", rustc)
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

#[test]
fn builds_at_a_time_leave_each_others_probe_alone() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (runs, does_not) = (script(&at("runs"), "echo 1"), script(&at("does_not"), SEGFAULTS));
    let packs = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/packs.sh");
    let (packs, target) = (packs.display(), at("target"));
    let other = compiler(&at("other"), &does_not, "");
    // Between this one's compiler and its probe another build begins and ends.
    let meanwhile = format!("RUSTC={} {packs} here {}", other.display(), target.display());
    let one = compiler(&at("one"), &runs, &format!("{meanwhile} >/dev/null"));
    let output = Command::new(packs.to_string())
        .arg("here")
        .arg(&target)
        .env("RUSTC", one)
        .output()
        .expect("a shell is there");
    let flag = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(flag.contains(FLAG), "{output:?}");
    assert_eq!(fs::read_dir(target).unwrap().count(), 0, "and none is left behind");
}
