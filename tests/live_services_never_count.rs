//! A port with a live service is no trap, whenever the service came; when it goes, the port is watched again.

mod support;

use std::time::{Duration, Instant};

use support::Lab;
use support::daemon::{PATIENCE, Setup};
use support::service::{Service, answers};

const CONFIG: &str = "TCP_PORTS=\"80,443,111\"\nUDP_PORTS=\"69\"\nBLOCK_TCP=\"1\"\nBLOCK_UDP=\"1\"";

#[test]
fn a_service_older_than_the_daemon_never_counts() {
    let lab = Lab::new(1);
    let client = lab.peer(0);
    let _service = Service::start(&lab.target(), 80);
    let mut daemon = Setup::new(&lab, CONFIG).start();
    for v6 in [false, true] {
        (0..5).for_each(|_| assert!(answers(&client.netns, client.target(v6), 80, PATIENCE)));
    }
    daemon.catch_up();
    assert!(daemon.seen.iter().all(|event| event["event_type"] == "start"), "{:#?}", daemon.seen);
}

#[test]
fn a_service_that_starts_later_does_not_count_and_its_port_is_watched_again_when_it_stops() {
    let lab = Lab::new(1);
    let client = lab.peer(0);
    let mut daemon = Setup::new(&lab, CONFIG).start();
    let service = Service::start(&lab.target(), 443);
    // The very first contact after it began to listen.
    assert!(answers(&client.netns, client.target(false), 443, PATIENCE));
    assert!(answers(&client.netns, client.target(true), 443, PATIENCE));
    daemon.catch_up();
    assert!(daemon.seen.iter().all(|event| event["event_type"] == "start"), "{:#?}", daemon.seen);

    drop(service);
    let stopped = Instant::now();
    while !daemon.seen.iter().any(|event| event["event_type"] == "block") {
        assert!(
            stopped.elapsed() < Duration::from_secs(4),
            "no block after the service stopped: {:#?}",
            daemon.seen
        );
        client.nmap(&["-sS", "-p", "443", &client.target_v4.to_string()]);
        daemon.catch_up();
    }
    let scan = daemon.wait_for("the scan", |event| event["event_type"] == "scan");
    assert_eq!(scan["dest_port"], 443, "{scan}");
}

#[test]
fn one_syn_two_seconds_after_the_service_stopped_is_enough() {
    let lab = Lab::new(1);
    let client = lab.peer(0);
    let mut daemon = Setup::new(&lab, CONFIG).start();
    drop(Service::start(&lab.target(), 443));
    // The promise is about time: the port may still count as in use for two seconds, and no longer.
    std::thread::sleep(Duration::from_secs(2));
    client.nmap(&["-sS", "--max-retries", "0", "-p", "443", &client.target_v4.to_string()]);
    daemon.wait_for("the block", |event| event["event_type"] == "block");
}

#[test]
fn a_bound_udp_socket_is_a_service() {
    let lab = Lab::new(1);
    let client = lab.peer(0);
    let mut daemon = Setup::new(&lab, CONFIG).start();
    let socket = support::inside(&lab.target(), || std::net::UdpSocket::bind("0.0.0.0:69").unwrap());
    client.nmap(&["-sU", "-p", "69", &client.target_v4.to_string()]);
    daemon.catch_up();
    assert!(daemon.seen.iter().all(|event| event["event_type"] == "start"), "{:#?}", daemon.seen);
    drop(socket);
}
