//! Whoever is not blocked any more is let in, whatever refuses to let go of him at first; and nobody is told so before.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::process::Output;

use support::daemon::{Daemon, PATIENCE, Setup};
use support::tracer::{self, Tracer};
use support::{Lab, eventually};

const PORTS: &str = "TCP_PORTS=\"111\"\nBLOCK_TCP=\"1\"\nTRIPWIRE=\"0\"";
const SOURCE: &str = "198.51.100.9";

/// Not a test: the process that follows the daemon's calls.
#[test]
#[ignore = "the tracer's own process"]
fn the_tracer() {
    tracer::follow();
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn lists(daemon: &Daemon) -> bool {
    String::from_utf8_lossy(&daemon.client(&["list"]).stdout).contains(SOURCE)
}

fn has_route(lab: &Lab) -> bool {
    let routes = lab.on_target(&["ip", "route", "show", "type", "blackhole"]);
    String::from_utf8_lossy(&routes.stdout).contains(SOURCE)
}

fn in_the_set(lab: &Lab) -> bool {
    lab.nft_table().contains(SOURCE)
}

#[test]
fn a_route_that_stays_is_a_block_and_one_that_outstays_its_block_goes_by_itself() {
    let lab = Lab::new(1);
    let lines = format!("{PORTS}\nBLOCK_WITH=\"nftables,route\"");
    let (setup, tracer) = (Setup::new(&lab, &lines), Tracer::new(true));
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_portsentry-rs"));
    let mut daemon = setup.start_program_through(tracer.through(), program, &[]);
    let block = |daemon: &Daemon, seconds: &str| {
        let output = daemon.client(&["block", SOURCE, seconds]);
        assert!(output.status.success() && has_route(&lab) && in_the_set(&lab), "{}", said(&output));
    };

    // An operator is told, and can ask again.
    block(&daemon, "600");
    tracer.refuse_route_deletions(true);
    let output = daemon.client(&["unblock", SOURCE]);
    let told = said(&output);
    assert!(!output.status.success(), "{output:?}");
    assert!(told.contains("is still blocked") && told.contains("route: "), "{told}");
    assert!(has_route(&lab) && !in_the_set(&lab) && lists(&daemon));
    tracer.refuse_route_deletions(false);
    assert!(daemon.client(&["unblock", SOURCE]).status.success());
    assert!(!has_route(&lab) && !lists(&daemon));

    // Nobody asks: its time is over, or the source is protected from now on.
    for ends_by_time in [true, false] {
        block(&daemon, if ends_by_time { "2" } else { "600" });
        tracer.refuse_route_deletions(true);
        if !ends_by_time {
            let config = daemon.path("portsentry.conf");
            let text = std::fs::read_to_string(&config).unwrap();
            std::fs::write(&config, format!("{text}NEVER_BLOCK=\"{SOURCE}\"\n")).unwrap();
            daemon.signal(nix::sys::signal::Signal::SIGHUP);
        }
        let told = daemon.wait_for_new("what stays", |event| {
            event["event_type"] == "unblock" && event["action"]["verdict"] == "failed"
        });
        assert!(told["action"]["error"].as_str().unwrap().starts_with("route: "), "{told}");
        assert!(has_route(&lab) && !lists(&daemon));
        tracer.refuse_route_deletions(false);
        eventually("a look takes it away", PATIENCE, || !has_route(&lab));
    }
}
