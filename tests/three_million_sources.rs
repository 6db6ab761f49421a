//! Three million forged sources as fast as one core sends them: the same memory, every packet seen or counted as dropped,
//! answers to `status` all along, and a real scan in their midst is blocked. Alone in its file: it leaves no processor
//! to a neighbour. How fast all that goes is the bench's to tell (`make bench`, part `flood`). Takes half a minute or, on a busy
//! machine, minutes.

#[path = "../benches/system/sender.rs"]
#[allow(dead_code, reason = "the benches use all of it")]
mod sender;
mod support;

use std::time::{Duration, Instant};

use support::daemon::{Daemon, Setup};
use support::slow::{SlowLab, say};
use support::{Lab, inside};

const FLOOD: u32 = 3_000_000;

/// Packets the kernel threw away before any socket could have them: the second column of softnet_stat, hexadecimal.
fn lost_before_any_socket() -> u64 {
    let text = std::fs::read_to_string("/proc/net/softnet_stat").unwrap();
    let column = |line: &str| u64::from_str_radix(line.split_whitespace().nth(1).unwrap(), 16).unwrap();
    text.lines().map(column).sum()
}

/// "12 seen, 3 dropped", as `status` prints it.
fn seen_and_dropped(daemon: &Daemon) -> (u64, u64) {
    let output = daemon.client(&["status"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find(|line| line.contains(" seen, ")).unwrap_or_else(|| panic!("{output:?}"));
    let mut numbers = line.split_whitespace().filter_map(|word| word.parse().ok());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

#[test]
fn three_million_forged_sources_at_full_speed_are_all_accounted_for_and_hide_no_scanner() {
    let Some(_slow) = SlowLab::begin("a flood of three million sources") else { return };
    let lab = Lab::new(2);
    let config = "TCP_PORTS=\"111,2000-2014\"\nUDP_PORTS=\"1\"\nBLOCK_TCP=\"1\"\nWORKERS=\"2\"";
    let mut daemon = Setup::new(&lab, config).start();
    let (before, lost) = (daemon.memory(), lost_before_any_socket());
    let (scanner, flooder) = (lab.peer(0), lab.peer(1));
    let (mut slowest, mut answers) = (Duration::ZERO, 0);
    std::thread::scope(|scope| {
        let flood =
            scope.spawn(|| inside(&flooder.netns, || sender::flood(flooder.target_v4, 111, FLOOD, None)));
        daemon.wait_for("the flood", |event| event["flood"]["state"] == "began");
        scope.spawn(|| scanner.nmap(&["-sS", "-p", "2000-2014", &scanner.target_v4.to_string()]));
        let source = scanner.v4.to_string();
        let block = daemon.wait_for("the scanner's block", |event| {
            event["event_type"] == "block" && event["src_ip"] == *source
        });
        assert_eq!(block["action"]["verdict"], "blocked", "{block}");
        assert!(!flood.is_finished(), "the scan was to be found in the flood's midst");
        while !flood.is_finished() {
            let asked = Instant::now();
            seen_and_dropped(&daemon);
            (slowest, answers) = (slowest.max(asked.elapsed()), answers + 1);
            // Each time a program starts, which takes from both sides.
            std::thread::sleep(Duration::from_millis(100));
        }
        let sending = flood.join().unwrap();
        say(&format!("sent in {sending:?}; slowest of {answers} answers to `status`: {slowest:?}"));
    });
    daemon.catch_up();
    let after = daemon.memory();
    let (seen, dropped) = seen_and_dropped(&daemon);
    let lost = lost_before_any_socket() - lost;
    say(&format!(
        "{seen} seen, {dropped} dropped, {lost} lost before; memory {before} KiB before, {after} KiB after"
    ));
    assert!(seen + dropped + lost >= u64::from(FLOOD) && answers > 0);
    assert!(after <= before + 1024, "{before} {after}");
    let ended = daemon.wait_for("its end", |event| event["flood"]["state"] == "ended");
    assert!(ended["flood"]["drops"].as_u64().unwrap() <= dropped, "{ended}");
    assert!(ended["flood"]["blocks_held_back"].as_u64().unwrap() > seen / 2, "{ended}");
    // Blocks and lines have their allowance a minute, and a busy machine takes some.
    assert!(daemon.seen.len() < FLOOD as usize / 1_000, "{} events", daemon.seen.len());
}
