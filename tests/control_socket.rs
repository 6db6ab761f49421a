//! The control socket answers those who may ask, and nobody else can make it do anything or stall it.
#![forbid(unsafe_code)]
// The helpers of a test are tests too; clippy knows only functions marked as such.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollTimeout};
use nix::unistd::geteuid;
use portsentry::control::client::{self, ClientError};
use portsentry::control::protocol::{Done, DoneVerdict, Entry};
use portsentry::control::server::{CLIENT_TIME, CLIENTS, ControlServer, Incoming, REPLY_LIMIT, Reader};
use portsentry::control::{ControlReply, ControlRequest};
use portsentry::protocol::Outcome;

const ENTRIES: u32 = 3_000;

/// A user id that is neither root nor anyone's.
const STRANGER: u32 = 65_534;

/// A daemon's event loop, reduced to its control socket. Its clock runs `skew` fast once told to.
struct Daemon {
    folder: tempfile::TempDir,
    stop: Arc<AtomicBool>,
    late: Arc<AtomicBool>,
    loop_thread: Option<JoinHandle<()>>,
}

impl Daemon {
    fn start(admitted: u32) -> Daemon {
        let folder = tempfile::tempdir().unwrap();
        let mut server = ControlServer::bind(&folder.path().join("control"), admitted).unwrap();
        let (stop, late) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (stopped, is_late) = (stop.clone(), late.clone());
        let loop_thread = Some(thread::spawn(move || serve(&mut server, &stopped, &is_late)));
        Daemon { folder, stop, late, loop_thread }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("control")
    }

    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.path()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        stream
    }

    fn answers(&self) -> bool {
        let list = client::ask(&self.path(), &ControlRequest::List).unwrap();
        list.len() == ENTRIES as usize + 1
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.loop_thread.take().map(JoinHandle::join);
        assert!(thread::panicking() || matches!(ended, Some(Ok(()))));
    }
}

fn serve(server: &mut ControlServer, stop: &AtomicBool, late: &AtomicBool) {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
    server.register(&epoll, 40).unwrap();
    let mut idle_wakeups = 0;
    while !stop.load(Ordering::Relaxed) {
        let mut events = [EpollEvent::empty(); 8];
        let count = epoll.wait(&mut events, EpollTimeout::from(10u8)).unwrap();
        let now = Instant::now() + if late.load(Ordering::Relaxed) { CLIENT_TIME } else { Duration::ZERO };
        for event in &events[..count] {
            assert!(server.owns(event.data()));
            let incoming = server.on_ready(&epoll, event.data(), now);
            idle_wakeups = if incoming.is_empty() { idle_wakeups + 1 } else { 0 };
            incoming.into_iter().for_each(|incoming| answer(server, &epoll, incoming, now));
        }
        idle_wakeups = if count == 0 { 0 } else { idle_wakeups };
        assert!(idle_wakeups < 10_000, "the event loop spins");
        server.sweep(&epoll, now);
    }
}

fn answer(server: &mut ControlServer, epoll: &Epoll, incoming: Incoming, now: Instant) {
    let mut reply = |reply: ControlReply| server.reply(epoll, incoming.client, &reply, now);
    match incoming.request {
        ControlRequest::List => {
            (0..ENTRIES).for_each(|number| reply(ControlReply::Entry(entry(number))));
            reply(ControlReply::End { count: ENTRIES.into() });
        }
        ControlRequest::Block { seconds, .. } => {
            reply(ControlReply::Done(Done::new(Outcome::Blocked, seconds, 1)));
        }
        // A list longer than is kept for anybody.
        ControlRequest::UnblockAll => {
            let line = serde_json::to_string(&ControlReply::Entry(entry(0))).unwrap().len();
            (0..3 * REPLY_LIMIT / line).for_each(|_| reply(ControlReply::Entry(entry(0))));
        }
        // Never answered: as if the helper were slow.
        ControlRequest::Unblock { .. } => {}
        ControlRequest::Status => reply(ControlReply::Error { message: "No status in this test.".into() }),
    }
}

fn entry(number: u32) -> Entry {
    let target = IpNet::from(std::net::IpAddr::from(number.to_be_bytes()));
    Entry { target, since: 1, until: 2, offence: 1 }
}

fn block(seconds: u32) -> ControlRequest {
    ControlRequest::Block { address: "10.0.0.1/32".parse().unwrap(), seconds }
}

/// What the daemon says until it hangs up.
fn rest(stream: UnixStream) -> String {
    let mut text = Vec::new();
    // A reset after the last line is how a hang-up looks to somebody who sent more than was read.
    let _ = BufReader::new(stream).read_to_end(&mut text);
    String::from_utf8(text).unwrap()
}

/// Whether the daemon hung up without a word.
fn is_dropped(mut stream: UnixStream) -> bool {
    matches!(stream.read(&mut [0; 1]), Ok(0))
}

#[test]
fn a_client_gets_the_answer_to_what_it_asked() {
    let daemon = Daemon::start(geteuid().as_raw());
    let reply = client::ask(&daemon.path(), &block(60)).unwrap();
    let expected = Done { verdict: DoneVerdict::Blocked, seconds: 60, offence: 1, error: None };
    assert_eq!(reply, [ControlReply::Done(expected)]);
    let list = client::ask(&daemon.path(), &ControlRequest::List).unwrap();
    assert_eq!(list.len(), ENTRIES as usize + 1);
    assert_eq!(list[7], ControlReply::Entry(entry(7)));
    let error = client::ask(&daemon.path(), &ControlRequest::Status).unwrap_err();
    assert!(matches!(error, ClientError::Refused(message) if message == "No status in this test."));
}

/// The helper answers later: whoever asked may be gone by then, and somebody else in his place.
#[test]
fn an_answer_that_comes_after_its_client_has_gone_is_told_to_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("control");
    let (mut server, now) = (ControlServer::bind(&path, geteuid().as_raw()).unwrap(), Instant::now());
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
    server.register(&epoll, 0).unwrap();
    let asked_by = |server: &mut ControlServer, stream: &mut UnixStream| {
        stream.write_all(format!("{}\n", serde_json::to_string(&block(60)).unwrap()).as_bytes()).unwrap();
        loop {
            if let Some(Incoming { client, .. }) = turn(server, &epoll, now).pop() {
                return client;
            }
        }
    };
    let mut first = UnixStream::connect(&path).unwrap();
    let gone = asked_by(&mut server, &mut first);
    drop(first);
    while server.is_waiting(gone) {
        turn(&mut server, &epoll, now);
    }
    let mut second = UnixStream::connect(&path).unwrap();
    let here = asked_by(&mut server, &mut second);
    for (client, seconds) in [(gone, 7), (here, 60)] {
        let done = Done { verdict: DoneVerdict::Blocked, seconds, offence: 1, error: None };
        server.reply(&epoll, client, &ControlReply::Done(done), now);
    }
    let text = rest(second);
    assert!(text.lines().count() == 1 && text.contains("\"seconds\":60"), "{text}");
}

fn turn(server: &mut ControlServer, epoll: &Epoll, now: Instant) -> Vec<Incoming> {
    let mut ready = [EpollEvent::empty(); 16];
    let count = epoll.wait(&mut ready, EpollTimeout::from(20_u8)).unwrap();
    ready.iter().take(count).flat_map(|event| server.on_ready(epoll, event.data(), now)).collect()
}

#[test]
fn a_request_may_come_in_pieces_and_half_close_its_end() {
    let daemon = Daemon::start(geteuid().as_raw());
    let mut stream = daemon.connect();
    for byte in b"{\"block\":{\"address\":\"10.0.0.1\"}}\n" {
        stream.write_all(&[*byte]).unwrap();
    }
    stream.shutdown(Shutdown::Write).unwrap();
    assert!(rest(stream).contains("\"blocked\""));
}

#[test]
fn garbage_and_endless_lines_are_answered_with_an_error_and_do_no_harm() {
    let daemon = Daemon::start(geteuid().as_raw());
    for garbage in
        [&b"\xff\xfe\0\n"[..], b"\n", b"{\"block\":{\"address\":\"all\"}}\n", &[b'['; 4000], &[b'x'; 100_000]]
    {
        let mut stream = daemon.connect();
        let _ = stream.write_all(garbage);
        if garbage.len() == 4000 {
            let _ = stream.write_all(&[b'['; 200]);
        }
        let text = rest(stream);
        assert!(text.starts_with("{\"error\":{\"message\":\"The request "), "{text:?}");
        assert_eq!(text.lines().count(), 1);
    }
    assert!(daemon.answers());
}

#[test]
fn clients_that_hang_up_at_any_moment_do_no_harm() {
    let daemon = Daemon::start(geteuid().as_raw());
    for said in ["", "\"li", "\"list\"\n", "{\"unblock\":{\"address\":\"10.0.0.1\"}}\n"] {
        for _ in 0..2 * CLIENTS {
            daemon.connect().write_all(said.as_bytes()).unwrap();
        }
    }
    assert!(daemon.answers());
}

#[test]
fn silent_clients_hold_all_places_only_until_their_time_is_over() {
    let daemon = Daemon::start(geteuid().as_raw());
    let mut silent: Vec<UnixStream> = (0..CLIENTS).map(|_| daemon.connect()).collect();
    // One of them is not silent: it waits for the helper, which may take its time.
    let mut waiting = silent.remove(0);
    waiting.write_all(b"{\"unblock\":{\"address\":\"10.0.0.1\"}}\n").unwrap();
    let mut ninth = daemon.connect();
    ninth.write_all(b"\"list\"\n").unwrap();
    ninth.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    assert!(ninth.read(&mut [0; 1]).is_err(), "nine clients are served at once");
    daemon.late.store(true, Ordering::Relaxed);
    silent.into_iter().for_each(|stream| assert!(is_dropped(stream)));
    waiting.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    assert_eq!(waiting.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::WouldBlock);
    // The clock no longer jumps; the ninth was accepted by then or is now, and asks anew if it was late too.
    daemon.late.store(false, Ordering::Relaxed);
    assert!(daemon.answers());
}

#[test]
fn two_rounds_of_silent_clients_keep_nobody_waiting_for_their_whole_time() {
    let daemon = Daemon::start(geteuid().as_raw());
    let begun = Instant::now();
    let silent: Vec<UnixStream> = (0..=2 * CLIENTS).map(|_| daemon.connect()).collect();
    assert!(daemon.answers());
    assert!(begun.elapsed() < CLIENT_TIME, "{:?}", begun.elapsed());
    drop(silent);
}

#[test]
fn a_client_that_does_not_read_is_dropped_when_its_share_is_full() {
    let daemon = Daemon::start(geteuid().as_raw());
    let mut stream = daemon.connect();
    stream.write_all(b"\"unblock_all\"\n").unwrap();
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next().unwrap().unwrap();
    assert!(daemon.answers());
    let length = first.len() + 1;
    assert!(lines.count() * length < REPLY_LIMIT, "all of it was kept");
}

/// A server without a loop of its own, and a client that has asked it for the list.
fn asked() -> (ControlServer, Epoll, Incoming, UnixStream, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("control");
    let mut server = ControlServer::bind(&path, geteuid().as_raw()).unwrap();
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
    server.register(&epoll, 0).unwrap();
    let mut stream = UnixStream::connect(&path).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream.write_all(b"\"list\"\n").unwrap();
    server.on_ready(&epoll, 0, Instant::now());
    let incoming = server.on_ready(&epoll, 1, Instant::now()).pop().unwrap();
    (server, epoll, incoming, stream, folder)
}

#[test]
fn word_of_room_for_what_has_gone_out_meanwhile_is_no_hang_up() {
    let (mut server, epoll, Incoming { client, .. }, stream, _folder) = asked();
    let now = Instant::now();
    server.on_ready(&epoll, 1, now);
    assert_eq!(server.reader(client), Reader::Ready);
    server.reply(&epoll, client, &ControlReply::End { count: 0 }, now);
    assert_eq!(rest(stream), "{\"end\":{\"count\":0}}\n");
    let (mut server, epoll, Incoming { client, .. }, stream, _folder) = asked();
    drop(stream);
    server.on_ready(&epoll, 1, now);
    assert_eq!(server.reader(client), Reader::Gone);
}

#[test]
fn a_list_may_take_as_long_as_its_reader_reads_on() {
    let (mut server, epoll, Incoming { client, .. }, mut stream, _folder) = asked();
    let mut now = Instant::now();
    for number in 0..10 {
        server.reply(&epoll, client, &ControlReply::Entry(entry(number)), now);
        now += CLIENT_TIME - Duration::from_millis(1);
        server.on_ready(&epoll, 1, now);
        server.sweep(&epoll, now);
        assert_eq!(server.reader(client), Reader::Ready);
        assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
    }
    // Nothing waits for it: it is the helper that is slow.
    now += 100 * CLIENT_TIME;
    assert_eq!(server.next_deadline(), None);
    server.sweep(&epoll, now);
    while server.reader(client) == Reader::Ready {
        server.reply(&epoll, client, &ControlReply::Entry(entry(0)), now);
        server.on_ready(&epoll, 1, now);
    }
    assert_eq!(server.next_deadline(), Some(now + CLIENT_TIME));
    server.sweep(&epoll, now + CLIENT_TIME);
    assert_eq!(server.reader(client), Reader::Gone);
}

/// Where a daemon runs by the usual file, it would be that one's blocks that are lifted.
#[test]
fn nobody_is_asked_where_the_named_configuration_cannot_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let mistyped = folder.path().join("dmz.cnf");
    for command in [&["status"][..], &["stats"], &["list"], &["block", "10.0.0.1"], &["unblock", "all"]] {
        let output = Command::new(env!("CARGO_BIN_EXE_portsentry-rs"))
            .args(command)
            .arg("-c")
            .arg(&mistyped)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{command:?}: {said}");
        assert!(said.contains(&format!("cannot read {}: No such file", mistyped.display())), "{said}");
        assert!(!said.contains("control.sock"), "{said}");
    }
}

#[test]
fn a_stranger_is_told_that_he_may_not() {
    if !geteuid().is_root() {
        // Without root we are ourselves the stranger: to a daemon that runs as somebody else.
        let daemon = Daemon::start(geteuid().as_raw() + 1);
        return assert_refused(&client::ask(&daemon.path(), &block(0)).unwrap_err().to_string());
    }
    let daemon = Daemon::start(STRANGER - 1);
    let folder = daemon.folder.path();
    // The mode alone would keep him out; here the daemon must.
    fs::set_permissions(folder, Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(daemon.path(), Permissions::from_mode(0o666)).unwrap();
    assert_refused(&visit(folder, STRANGER));
    assert!(visit(folder, STRANGER - 1).contains("Blocked"));
    assert!(daemon.answers(), "root is admitted");
}

fn assert_refused(text: &str) {
    assert!(text.contains("Only root and the daemon's own user may use the control socket"), "{text}");
}

/// Runs [`visitor`] as `uid`, from a copy of this program that everybody may read.
fn visit(folder: &Path, uid: u32) -> String {
    let program = folder.join("visitor");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
    let output = Command::new(&program)
        .args(["visitor", "--exact", "--ignored", "--nocapture"])
        .env("CONTROL_SOCKET", folder.join("control"))
        .current_dir("/")
        .uid(uid)
        .gid(uid)
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
#[ignore = "the stranger's part, run by a_stranger_is_told_that_he_may_not as another user"]
fn visitor() {
    let path = PathBuf::from(std::env::var("CONTROL_SOCKET").unwrap());
    println!("{:?}", client::ask(&path, &block(0)));
}
