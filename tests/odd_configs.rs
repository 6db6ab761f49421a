//! A thousand odd configuration files: no panic, and every refusal says where. Needs no root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use portsentry::config::keys::KEYS;
use portsentry::config::{Overrides, parse};

/// Values by kind of oddity; every key gets each of them.
fn values() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("empty", Vec::new()),
        ("good number", b"1".to_vec()),
        ("good ports", b"1,7,20-25".to_vec()),
        ("good path", b"/var/lib/x".to_vec()),
        ("good text", b"/bin/x $TARGET$".to_vec()),
        ("huge number", b"99999999999999999999999999".to_vec()),
        ("huge text", vec![b'A'; 100_000]),
        ("negative", b"-7".to_vec()),
        ("wrong type", b"maybe".to_vec()),
        ("floating", b"1.5e3".to_vec()),
        ("list of nothing", b",,,".to_vec()),
        ("backwards range", b"90-10".to_vec()),
        ("binary", vec![0, 1, 2, 0xff, 0xfe, 0x80]),
        ("control characters", b"a\x1b[2Jb\x07".to_vec()),
        ("not ASCII", "grüße 日本 \u{202e}".as_bytes().to_vec()),
        ("blanks", b"   \t  ".to_vec()),
        ("marks", b"$TARGET$ $PORT$ $MODE$ $$ %s %n".to_vec()),
        ("deep list", b"10.0.0.0/8,::/0,fe80::1,".repeat(500)),
    ]
}

/// The ways in which a file of one line more is put together.
fn files(key: &str, value: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let line = |before: &[u8], after: &[u8]| [key.as_bytes(), b"=", before, value, after].concat();
    let good: &[u8] = b"TCP_PORTS=\"1\"\n";
    vec![
        ("quoted", [good, &line(b"\"", b"\"\n")].concat()),
        ("no newline", [good, &line(b"\"", b"\"")].concat()),
        ("CRLF", [b"TCP_PORTS=\"1\"\r\n", &line(b"\"", b"\"\r\n")[..]].concat()),
        ("byte order mark", [b"\xef\xbb\xbf", good, &line(b"\"", b"\"\n")].concat()),
        ("open quote", [good, &line(b"\"", b"\n")].concat()),
        ("bare", [good, &line(b"", b"\n")].concat()),
    ]
}

#[test]
fn a_thousand_odd_files_are_read_or_refused_with_line_and_column() {
    let mut count = 0;
    for key in KEYS {
        for (value_kind, value) in values() {
            for (form, file) in files(key.name, &value) {
                count += 1;
                let errors = parse("conf", &file, &Overrides::default()).err().unwrap_or_default();
                for error in errors {
                    let told = error.to_string();
                    let place = told.strip_prefix("conf:").and_then(|rest| {
                        let (line, rest) = rest.split_once(':')?;
                        let (column, message) = rest.split_once(": ")?;
                        Some((line.parse::<usize>().ok()?, column.parse::<usize>().ok()?, message))
                    });
                    let case = format!("{} {value_kind} {form}: {told:.300}", key.name);
                    // That nothing is watched is the fault of no line.
                    let of_the_whole = told.starts_with("conf: there is no port to watch");
                    let placed = place.is_some_and(|(line, column, message)| {
                        line >= 1 && column >= 1 && !message.is_empty() && !message.contains('\n')
                    });
                    assert!(placed || of_the_whole, "{case}");
                    assert!(!told.contains('\x1b'), "{case}");
                }
            }
        }
    }
    assert!(count >= 1_000, "{count}");
}
