//! Promise: `-D` lets go whoever started it once the start has ended, and not before: with 0 when the daemon is there, with
//! 1 after the reason was told. So does what it says there, be it read to its end. Needs root.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::io::{PipeReader, Read, pipe};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::sync::mpsc::channel;
use std::thread;

use nix::sys::signal::Signal;
use support::daemon::{PATIENCE, Setup, client, kill};
use support::{Lab, eventually};

/// A journal of our own, and what was said by a shell on the target that started the daemon in the background with it:
/// the daemon's words and at last `code N`, out of a pipe that no process of the daemon may keep open.
fn started(lab: &Lab, setup: &Setup) -> (UnixDatagram, String) {
    let journal = setup.path("journal");
    let socket = UnixDatagram::bind(&journal).unwrap();
    std::fs::set_permissions(&journal, std::fs::Permissions::from_mode(0o666)).unwrap();
    let script = "mount -t tmpfs none /run && mkdir -p /run/systemd/journal && ln -s \"$1\" /run/systemd/journal/socket || exit
                  \"$2\" -D -l journald -c \"$3\"; echo code $?";
    let (said, words) = pipe().unwrap();
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &lab.target(), "sh", "-c", script, "sh"]).arg(&journal);
    command.arg(env!("CARGO_BIN_EXE_portsentry-rs")).arg(setup.path("portsentry.conf"));
    command.stdout(words.try_clone().unwrap()).stderr(words);
    let status = command.status().unwrap();
    drop(command);
    let said = to_its_end(said);
    assert!(status.success(), "{said}");
    (socket, said)
}

fn to_its_end(mut said: PipeReader) -> String {
    let (whole, read) = channel();
    thread::spawn(move || {
        let mut text = String::new();
        said.read_to_string(&mut text).unwrap();
        whole.send(text)
    });
    read.recv_timeout(PATIENCE).expect("the daemon lets go of the starter's standard error")
}

/// The process that the start event names.
fn sensor(journal: &UnixDatagram) -> u32 {
    let mut entry = [0; 65_536];
    journal.set_read_timeout(Some(PATIENCE)).unwrap();
    loop {
        let length = journal.recv(&mut entry).expect("the start is told");
        let text = String::from_utf8_lossy(&entry[..length]);
        let message = text.lines().find_map(|line| line.strip_prefix("MESSAGE=")).unwrap();
        let event: serde_json::Value = serde_json::from_str(message).unwrap();
        if let Some(pid) = event["start"]["pid"].as_u64() {
            return pid.try_into().unwrap();
        }
    }
}

#[test]
fn a_start_that_has_ended_well_is_0_and_the_daemon_is_there() {
    let lab = Lab::new(0);
    let setup = Setup::new(&lab, "TCP_PORTS=\"1\"");
    let (journal, said) = started(&lab, &setup);
    let status = client(&setup.path("portsentry.conf"), &lab.target(), &["status"]);
    kill(sensor(&journal), Signal::SIGTERM);
    // What it has to say of a start that goes well.
    assert!(said.contains("portsentry-rs: this network namespace is not the host's"), "{said}");
    assert!(said.ends_with("code 0\n") && status.status.success(), "{said}{status:?}");
}

#[test]
fn a_helper_that_nobody_hears_any_more_goes_on() {
    let lab = Lab::new(0);
    let setup = Setup::new(&lab, "TCP_PORTS=\"1\"");
    let (journal, _) = started(&lab, &setup);
    let block = client(&setup.path("portsentry.conf"), &lab.target(), &["block", "198.51.100.1", "600"]);
    assert!(block.status.success(), "{block:?}");
    // It says that it puts the table back.
    assert!(lab.on_target(&["nft", "delete", "table", "inet", "portsentry"]).status.success());
    eventually("the block is back", PATIENCE, || lab.nft_table().contains("198.51.100.1"));
    let status = client(&setup.path("portsentry.conf"), &lab.target(), &["status"]);
    kill(sensor(&journal), Signal::SIGTERM);
    assert!(status.status.success(), "{status:?}");
}

#[test]
fn a_start_that_fails_in_the_background_is_1_after_its_reason() {
    let lab = Lab::new(0);
    let setup = Setup::new(&lab, "");
    let (planted, real) = (setup.path("planted"), setup.path("real"));
    std::fs::write(&real, "").unwrap();
    symlink(&real, &planted).unwrap();
    setup.rewrite(&format!("TCP_PORTS=\"1\"\nBLOCKED_FILE=\"{}\"", planted.display()));
    let (_, said) = started(&lab, &setup);
    // The helper's reason, and then the sensor's.
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines.iter().any(|line| line.contains("symbolic link")), "{said}");
    let [.., reason, code] = lines[..] else { panic!("{said}") };
    assert!(reason.starts_with("portsentry-rs: ") && reason.contains("the helper"), "{said}");
    assert_eq!(code, "code 1", "{said}");
}
