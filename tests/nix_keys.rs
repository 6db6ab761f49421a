//! `nix/keys.json`, from which the NixOS module takes the types of its settings, says what the table of keys says.
//! `UPDATE=1 cargo test --test nix_keys` writes it anew.

use portsentry::config::keys::{KEYS, Key};
use portsentry::config::kind::Kind;
use portsentry::config::{Overrides, parse};
use portsentry::protocol::Response;
use serde_json::{Value, json};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/nix/keys.json");

/// What a type is made of: its kind, and the bounds or the words of those kinds that have some.
fn kind(kind: &Kind) -> Value {
    let words = |words: &[&str]| json!({ "kind": "words", "words": words });
    match kind {
        Kind::Ports(_) => json!({ "kind": "ports" }),
        Kind::Path(_) => json!({ "kind": "path", "longest": 4095 }),
        Kind::Socket(_) => json!({ "kind": "path", "longest": 107 }),
        Kind::Switch(_) => json!({ "kind": "switch" }),
        Kind::Mode(_) => json!({ "kind": "number", "least": 0, "most": 2 }),
        Kind::Number(range, _) => json!({ "kind": "number", "least": range.start(), "most": range.end() }),
        Kind::Duration(_) => json!({ "kind": "duration" }),
        Kind::Text(_) => json!({ "kind": "text", "with": "" }),
        Kind::Target(_) => json!({ "kind": "text", "with": "$TARGET$" }),
        Kind::Interfaces(_) => json!({ "kind": "list", "words": null }),
        Kind::Responses(_) => json!({ "kind": "list", "words": responses() }),
        Kind::Networks(_) => json!({ "kind": "list", "words": null }),
        Kind::Sensitivity(_) => words(&["off", "low", "medium", "high"]),
        Kind::Format(_) => words(&["auto", "json", "classic"]),
        Kind::User(_) => json!({ "kind": "text", "with": "" }),
        Kind::Confinement(_) => words(&["strict", "best-effort", "off"]),
    }
}

fn responses() -> Vec<&'static str> {
    Response::ALL.into_iter().filter(|response| response.blocks()).map(Response::name).collect()
}

fn entry(key: &Key) -> Value {
    let mut entry = kind(&key.kind);
    entry["name"] = key.name.into();
    entry["default"] = key.default.into();
    entry["allowed"] = key.kind.allowed().into();
    entry["help"] = key.help.into();
    entry
}

fn table() -> Value {
    json!({ "version": portsentry::VERSION, "keys": KEYS.iter().map(entry).collect::<Vec<_>>() })
}

/// What the daemon has against `value`.
fn faults(key: &str, value: &str) -> Vec<String> {
    let text =
        format!("TCP_PORTS=\"1\"\nKILL_ROUTE=\"/sbin/x $TARGET$\"\nKILL_RUN_CMD=\"x\"\n{key}=\"{value}\"\n");
    let errors = parse("conf", text.as_bytes(), &Overrides::default()).err().unwrap_or_default();
    errors.iter().map(ToString::to_string).collect()
}

#[test]
fn the_module_knows_the_keys_of_the_table() {
    let written = || std::fs::read_to_string(FILE).unwrap_or_default();
    let text = format!("{:#}\n", table());
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(FILE, &text).unwrap();
    }
    assert!(written() == text, "nix/keys.json is stale: UPDATE=1 cargo test --test nix_keys");
}

#[test]
fn what_the_types_allow_the_daemon_takes_and_what_they_refuse_it_refuses() {
    for entry in table()["keys"].as_array().unwrap() {
        let name = entry["name"].as_str().unwrap();
        let words: Vec<&str> =
            entry["words"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        words.iter().for_each(|word| assert_eq!(faults(name, word), [""; 0], "{name}={word}"));
        if !words.is_empty() {
            assert_ne!(faults(name, "no-such-word"), [""; 0], "{name}");
        }
        if let (Some(least), Some(most)) = (entry["least"].as_u64(), entry["most"].as_u64()) {
            [least, most]
                .iter()
                .for_each(|number| assert_eq!(faults(name, &number.to_string()), [""; 0], "{name}"));
            assert_ne!(faults(name, &(most + 1).to_string()), [""; 0], "{name}");
        }
        if let Some(longest) = entry["longest"].as_u64().map(|longest| usize::try_from(longest).unwrap()) {
            assert_eq!(faults(name, &format!("/{}", "x".repeat(longest - 1))), [""; 0], "{name}");
            assert_ne!(faults(name, &format!("/{}", "x".repeat(longest))), [""; 0], "{name}");
            assert_ne!(faults(name, "x"), [""; 0], "{name}");
        }
    }
}
