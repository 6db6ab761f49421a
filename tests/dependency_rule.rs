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
    (
        "line_writer.rs",
        &["sys", "sensor", "helper", "netlink", "control", "cli", "event", "sandbox", "config", "detect"],
    ),
    (
        "stderr.rs",
        &["sys", "sensor", "helper", "netlink", "control", "cli", "event", "sandbox", "config", "detect"],
    ),
    (
        "repeats.rs",
        &["sys", "sensor", "helper", "netlink", "control", "cli", "event", "sandbox", "config", "detect"],
    ),
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

/// The rooms that a text names by a path from the root of the crate, of which it is `depth` modules deep: every first
/// name after `crate::` or as many `super::`, each of them where there is a list in braces.
fn rooms_named(text: &str, depth: usize) -> Vec<String> {
    let text: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let roots = ["crate::".to_owned(), "super::".repeat(depth)];
    let paths = roots.iter().flat_map(|root| text.split(root.as_str()).skip(1));
    paths.flat_map(first_names).collect()
}

fn first_names(path: &str) -> Vec<String> {
    let name = |text: &str| text.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    // From a module within the source one more leads to the root.
    let path = path.trim_start_matches("super::");
    let Some(list) = path.strip_prefix('{') else { return vec![name(path)] };
    let mut open = 0;
    let is_between = move |c: char| {
        open += i32::from(c == '{') - i32::from(c == '}');
        c == ',' && open == 0
    };
    let end = end_of_list(list);
    list[..end].split(is_between).map(name).collect()
}

/// Where the brace that was open before `list` closes.
fn end_of_list(list: &str) -> usize {
    let mut open = 1;
    let closes = |c: char| {
        open += i32::from(c == '{') - i32::from(c == '}');
        open == 0
    };
    list.find(closes).expect("the braces of a source are balanced")
}

/// How many modules deep below the root of the crate the items of a source are.
fn depth(path: &Path) -> usize {
    let below = path.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap();
    let names = below.with_extension("");
    names.components().count() - usize::from(names.ends_with("mod"))
}

#[test]
fn every_way_to_name_a_room_is_understood() {
    assert_eq!(rooms_named("use crate::sys;", 2), ["sys"]);
    assert_eq!(rooms_named("crate::sys::open(crate::config::A)", 2), ["sys", "config"]);
    assert_eq!(
        rooms_named("use crate::{packet::{self, Packet}, sys,\n    event::Event};", 1),
        ["packet", "sys", "event"]
    );
    assert_eq!(rooms_named("use super::super::{sys, config};", 2), ["sys", "config"]);
    assert_eq!(rooms_named("use super::half_open::HalfOpen;", 2), Vec::<String>::new());
    assert_eq!(rooms_named("use super::sys;", 1), ["sys"]);
    assert_eq!(rooms_named("use super::super::super::sys;", 2), ["sys"]);
}

#[test]
fn no_room_imports_what_it_must_not_know() {
    let mut wrong = Vec::new();
    for (room, forbidden) in FORBIDDEN {
        for file in all(room) {
            let named = rooms_named(&code(&file).join("\n"), depth(&file));
            let others = named.iter().filter(|other| forbidden.contains(&other.as_str()));
            wrong.extend(others.map(|other| format!("{}: {room} must not know {other}", file.display())));
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
