//! RESOLVE_HOST shows the names of sources, whoever chose them, and a resolver that is silent delays no block.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use support::daemon::{PATIENCE, Setup};
use support::{Lab, eventually, inside};

/// A resolver at 127.0.0.1 of the target that calls every address `name`; or hears and says nothing.
struct Resolver {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Resolver {
    fn start(lab: &Lab, name: Option<&'static [u8]>) -> Resolver {
        lab.ask(&["127.0.0.1"]);
        let socket = inside(&lab.target(), || UdpSocket::bind("127.0.0.1:53").unwrap());
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut question = [0; 512];
            while !stopped.load(Ordering::Acquire) {
                let Ok((length, from)) = socket.recv_from(&mut question) else { continue };
                let Some(name) = name else { continue };
                let mut answer = question[..length].to_vec();
                answer[2..4].copy_from_slice(&[0x81, 0x80]);
                answer[7] = 1;
                answer.extend([
                    0xc0,
                    12,
                    0,
                    12,
                    0,
                    1,
                    0,
                    0,
                    0,
                    60,
                    0,
                    name.len() as u8 + 2,
                    name.len() as u8,
                ]);
                answer.extend(name);
                answer.push(0);
                socket.send_to(&answer, from).unwrap();
            }
        });
        Resolver { stop, thread: Some(thread) }
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        let _ = self.thread.take().unwrap().join();
    }
}

const CONFIG: &str = "TCP_PORTS=\"111\"\nBLOCK_TCP=\"1\"\nRESOLVE_HOST=\"1\"";

fn scan(lab: &Lab) {
    let host = lab.peer(0);
    host.nmap(&["-sS", "--max-retries", "0", "-p", "111", &host.target_v4.to_string()]);
}

#[test]
fn a_source_is_shown_by_its_name_and_the_name_can_forge_nothing() {
    let lab = Lab::new(1);
    let _resolver = Resolver::start(&lab, Some(b"evil) blocked: [true]\n\x1b[2J"));
    let setup = Setup::new(&lab, "");
    let history = setup.path("history");
    setup.rewrite(&format!("{CONFIG}\nHISTORY_FILE=\"{}\"", history.display()));
    let mut daemon = setup.start();
    scan(&lab);
    let block = daemon.wait_for("the block", |event| event["event_type"] == "block");
    assert_eq!(block["src_host"], "evil??blocked???true????2J", "{block}");
    let line = std::fs::read_to_string(&history).unwrap();
    assert!(line.contains("Scan from: [10.77.0.2] (evil??blocked???true????2J) protocol: [TCP]"), "{line}");
    assert_eq!(line.lines().count(), 1);
}

#[test]
fn a_resolver_that_says_nothing_delays_the_event_a_little_and_the_block_not_at_all() {
    let lab = Lab::new(1);
    let _resolver = Resolver::start(&lab, None);
    let mut daemon = Setup::new(&lab, CONFIG).start();
    let begun = Instant::now();
    scan(&lab);
    eventually("the kernel has the block", Duration::from_secs(1), || lab.is_blocked(lab.peer(0).v4));
    let block = daemon.wait_for("the block", |event| event["event_type"] == "block");
    assert!(block.get("src_host").is_none(), "{block}");
    assert!(begun.elapsed() < PATIENCE / 2);
}
