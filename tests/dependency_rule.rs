//! Rooms import only what the dependency rule of `src/lib.rs` lets them.

use std::fs;
use std::path::{Path, PathBuf};

/// Room, and the rooms it must never name.
const FORBIDDEN: &[(&str, &[&str])] = &[
    ("sensor", &["helper"]),
    ("helper", &["sensor", "packet", "config", "cli", "control", "event"]),
    (
        "packet",
        &["sys", "sensor", "helper", "config", "detect", "netlink", "control", "cli", "event", "sandbox"],
    ),
    (
        "capture",
        &["sys", "sensor", "helper", "config", "detect", "netlink", "control", "cli", "event", "sandbox"],
    ),
    ("replay", &["sys", "helper", "netlink", "control", "cli", "sandbox"]),
    ("detect", &["sys", "sensor", "helper", "netlink", "control", "cli", "event", "sandbox"]),
    ("config", &["sys", "sensor", "helper", "netlink", "control", "cli", "event", "sandbox", "packet"]),
    ("protocol", &["sys", "sensor", "helper", "netlink", "control", "cli", "event", "sandbox", "config"]),
    ("networks.rs", &["sys", "sensor", "helper", "netlink", "control", "cli", "event", "sandbox", "config"]),
    ("sys.rs", &["sensor", "helper", "netlink", "control", "cli", "event", "sandbox", "config", "detect"]),
];

fn sources(path: &Path, out: &mut Vec<PathBuf>) {
    if path.is_dir() {
        fs::read_dir(path).unwrap().for_each(|entry| sources(&entry.unwrap().path(), out));
    } else if path.extension().is_some_and(|extension| extension == "rs") {
        out.push(path.to_owned());
    }
}

/// Lines of code, without comments: prose may name any room.
fn code(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).map(str::to_owned).collect()
}

fn all(path: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(path), &mut files);
    assert!(!files.is_empty(), "no source in {path}");
    files
}

#[test]
fn no_room_imports_what_it_must_not_know() {
    let mut wrong = Vec::new();
    for (room, forbidden) in FORBIDDEN {
        for file in all(room) {
            for line in code(&file) {
                let named = |other: &&&str| {
                    line.contains(&format!("crate::{other}::"))
                        || line.contains(&format!("crate::{other};"))
                        || line.contains(&format!("crate::{{{other}"))
                };
                if let Some(other) = forbidden.iter().find(named) {
                    wrong.push(format!("{}: {room} must not know {other}: {}", file.display(), line.trim()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn unsafe_code_stands_in_sys_alone() {
    for file in all(".") {
        let is_sys = file.ends_with("src/sys.rs") || file.ends_with("src/lib.rs");
        let text = code(&file).join("\n");
        assert!(is_sys || !text.contains("unsafe {"), "{} has an unsafe block", file.display());
        let forbids = text.contains("#![forbid(unsafe_code)]");
        assert!(is_sys || forbids, "{} lacks #![forbid(unsafe_code)]", file.display());
    }
}
