//! Events to systemd's journal as fields of their own (systemd's `JOURNAL_NATIVE_PROTOCOL`); run by the sensor's main
//! thread.
//!
//! The socket is connected before confinement. Never waits, and no value can forge a field.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::syslog::{LogSocket, UnreachableLog};
use super::{ActionVerdict, Event, EventType, text};

/// Where the journal listens.
pub const JOURNAL_SOCKET: &str = "/run/systemd/journal/socket";

/// Whether what is written to `stream` goes to the journal: `told`, the value of JOURNAL_STREAM, names that very file by
/// device and inode (systemd.exec(5)). A child's output that was led elsewhere is none of the journal's.
pub fn is_journal(stream: impl AsFd, told: Option<&OsStr>) -> bool {
    let told = told.and_then(OsStr::to_str).and_then(|told| told.split_once(':'));
    let facts = stream.as_fd().try_clone_to_owned().and_then(|stream| File::from(stream).metadata());
    facts.is_ok_and(|is| told == Some((is.dev().to_string().as_str(), is.ino().to_string().as_str())))
}

/// A socket to the journal.
#[derive(Debug)]
pub struct Journald {
    socket: LogSocket,
}

impl Journald {
    /// Connects to the journal at `path`, usually [`JOURNAL_SOCKET`].
    pub fn open(path: &Path) -> Result<Journald, UnreachableLog> {
        Ok(Journald { socket: LogSocket::open(path)? })
    }

    /// Sends `event`, with `message` (its JSON line) as MESSAGE.
    pub fn push(&mut self, event: &Event, message: &str) {
        self.socket.send(&entry(event, message));
    }

    /// Events that could not be delivered.
    pub fn lost(&self) -> u64 {
        self.socket.lost()
    }
}

impl AsRawFd for Journald {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// The datagram for `event`.
pub fn entry(event: &Event, message: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len() + 512);
    field(&mut out, "MESSAGE", message);
    field(&mut out, "MESSAGE_ID", message_id(event.event_type));
    field(&mut out, "PRIORITY", priority(event));
    field(&mut out, "SYSLOG_IDENTIFIER", "portsentry-rs");
    field(&mut out, "PORTSENTRY_EVENT", &name(&event.event_type));
    let (flow, action) = (event.flow.as_ref(), event.action.as_ref());
    let error = event.error.as_ref().or_else(|| action?.error.as_ref());
    let optional = [
        ("PORTSENTRY_SRC_IP", flow.map(|flow| flow.src_ip.to_string())),
        ("PORTSENTRY_DEST_PORT", flow.and_then(|flow| flow.dest_port).map(|port| port.to_string())),
        ("PORTSENTRY_PROTO", flow.and_then(|flow| flow.proto).map(|proto| name(&proto))),
        ("PORTSENTRY_SCAN_TYPE", event.scan.map(|scan| name(&scan.scan_type))),
        ("PORTSENTRY_VERDICT", action.map(|action| name(&action.verdict))),
        ("PORTSENTRY_TARGET", action.and_then(|action| action.target).map(|target| target.to_string())),
        ("PORTSENTRY_SECONDS", action.and_then(|action| action.seconds).map(|seconds| seconds.to_string())),
        ("PORTSENTRY_ERROR", error.map(|error| text::escaped(error))),
    ];
    for (key, value) in optional {
        value.iter().for_each(|value| field(&mut out, key, value));
    }
    out
}

/// `KEY=value`, or where the value holds a newline `KEY`, its length as 64 bits little-endian, and the value.
fn field(out: &mut Vec<u8>, key: &str, value: &str) {
    out.extend(key.as_bytes());
    match value.contains('\n') {
        true => {
            out.push(b'\n');
            out.extend((value.len() as u64).to_le_bytes());
        }
        false => out.push(b'='),
    }
    out.extend(value.as_bytes());
    out.push(b'\n');
}

/// A unit variant under its JSON name.
fn name(value: &impl serde::Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

/// Made once with a random generator, never to change: `journalctl MESSAGE_ID=…` finds all events of a kind.
fn message_id(kind: EventType) -> &'static str {
    match kind {
        EventType::Start => "c2339c18a3604ff8a9078978a68a47eb",
        EventType::Reload => "3db5ed09fa014352bf6392e115b3daa4",
        EventType::Probe => "808f54ea43d041ba8f89e99e0de69722",
        EventType::Scan => "5bf0835ee97e4ddb9aae9496d53640b2",
        EventType::Block => "d29999a28cfc4a0b8e9c8dfe3b6afd37",
        EventType::Unblock => "cdb34c233874473ba50ab713fe323836",
        EventType::Stats => "485081ab98454238b56813ccfc756241",
        EventType::Flood => "5c748e267269b7361249b1c69daa7400",
        EventType::Error => "ae55d5b3459341b096c1fc735c1d4a7d",
        EventType::Stop => "946c379b69ea407a9d53c857c42fc434",
    }
}

/// syslog(3): 3 error, 4 warning, 5 notice, 6 informational.
fn priority(event: &Event) -> &'static str {
    let failed = event.action.as_ref().is_some_and(|action| action.verdict == ActionVerdict::Failed);
    match event.event_type {
        EventType::Error => "3",
        EventType::Scan | EventType::Flood => "4",
        EventType::Block | EventType::Unblock if failed => "4",
        EventType::Block | EventType::Unblock => "5",
        EventType::Start | EventType::Reload | EventType::Stop => "6",
        EventType::Stats | EventType::Probe => "6",
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;
    use crate::detect::probe::{Protocol, ScanType};
    use crate::event::{Action, Flow, Scan};

    /// What journald would read; `None` where it would refuse.
    fn parsed(mut bytes: &[u8]) -> Option<Vec<(String, String)>> {
        let mut fields = Vec::new();
        while !bytes.is_empty() {
            let end = bytes.iter().position(|&byte| byte == b'\n')?;
            let (line, rest) = (std::str::from_utf8(&bytes[..end]).ok()?, &bytes[end + 1..]);
            if let Some((key, value)) = line.split_once('=') {
                fields.push((key.to_owned(), value.to_owned()));
                bytes = rest;
            } else {
                let length = u64::from_le_bytes(rest.get(..8)?.try_into().ok()?) as usize;
                fields.push((line.to_owned(), String::from_utf8(rest.get(8..8 + length)?.to_vec()).ok()?));
                assert_eq!(rest.get(8 + length), Some(&b'\n'));
                bytes = &rest[9 + length..];
            }
        }
        Some(fields)
    }

    fn blocked() -> Event {
        let mut flow = Flow::from_source("2001:db8::7".parse().unwrap());
        (flow.dest_port, flow.proto) = (Some(23), Some(Protocol::Tcp));
        let action = Action {
            target: Some("2001:db8::/64".parse().unwrap()),
            seconds: Some(60),
            error: Some("why\nnot".into()),
            ..Action::new(ActionVerdict::AlreadyBlocked)
        };
        Event {
            flow: Some(flow),
            scan: Some(Scan {
                scan_type: ScanType::OtherFlags,
                score: 1.0,
                threshold: 1.0,
                distinct_ports: 1,
                probes: 1,
                verified: false,
                first_seen: 0,
            }),
            action: Some(action),
            ..Event::new(0, EventType::Block)
        }
    }

    #[test]
    fn the_journal_gets_every_field_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let journal = UnixDatagram::bind(&path).unwrap();
        Journald::open(&path).unwrap().push(&blocked(), "{\"a\":\"b=c\"}");
        let mut buffer = [0; 4096];
        let length = journal.recv(&mut buffer).unwrap();
        let fields = parsed(&buffer[..length]).unwrap();
        let expected = [
            ("MESSAGE", "{\"a\":\"b=c\"}"),
            ("MESSAGE_ID", "d29999a28cfc4a0b8e9c8dfe3b6afd37"),
            ("PRIORITY", "5"),
            ("SYSLOG_IDENTIFIER", "portsentry-rs"),
            ("PORTSENTRY_EVENT", "block"),
            ("PORTSENTRY_SRC_IP", "2001:db8::7"),
            ("PORTSENTRY_DEST_PORT", "23"),
            ("PORTSENTRY_PROTO", "TCP"),
            ("PORTSENTRY_SCAN_TYPE", "other_flags"),
            ("PORTSENTRY_VERDICT", "already_blocked"),
            ("PORTSENTRY_TARGET", "2001:db8::/64"),
            ("PORTSENTRY_SECONDS", "60"),
            ("PORTSENTRY_ERROR", "why\\x0anot"),
        ];
        assert_eq!(fields, expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
    }

    #[test]
    fn only_the_very_stream_that_was_named_is_the_journals() {
        let (ours, other) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        let facts = ours.metadata().unwrap();
        let told = format!("{}:{}", facts.dev(), facts.ino());
        assert!(is_journal(&ours, Some(OsStr::new(&told))));
        assert!(!is_journal(&other, Some(OsStr::new(&told))));
        for told in [None, Some(""), Some("1"), Some("x:y"), Some(":")] {
            assert!(!is_journal(&ours, told.map(OsStr::new)), "{told:?}");
        }
    }

    /// `journalctl -x` explains an entry by its MESSAGE_ID.
    #[test]
    fn the_catalogue_explains_every_event_and_names_only_fields_that_there_are() {
        let catalogue = include_str!("../../config/portsentry-rs.catalog");
        let explained: Vec<&str> = catalogue.lines().filter_map(|line| line.strip_prefix("-- ")).collect();
        assert_eq!(explained, EventType::ALL.map(message_id));
        let source = include_str!("journald.rs");
        let fields = catalogue.split('@').skip(1).step_by(2);
        fields.for_each(|field| assert!(source.contains(&format!("\"{field}\"")), "{field}"));
        // An end that failed is none that lets the source in: the subject, which all ends share, must not say so.
        let ends = catalogue.split("-- ").find(|it| it.starts_with(message_id(EventType::Unblock))).unwrap();
        for verdict in ["expired", "lifted", "failed"] {
            assert!(ends.contains(&format!("\"{verdict}\"")), "{verdict}: {ends}");
        }
        assert!(!ends.contains("no longer"), "{ends}");
    }

    #[test]
    fn a_value_with_newlines_cannot_forge_a_field() {
        let forged = "x\nPRIORITY=0\nMESSAGE=all is well";
        let fields = parsed(&entry(&blocked(), forged)).unwrap();
        assert_eq!(fields[0], ("MESSAGE".to_owned(), forged.to_owned()));
        assert_eq!(fields.iter().filter(|(key, _)| key == "PRIORITY").count(), 1);
    }
}
