//! SIGHUP: what the configuration says now is done by both processes, and what is not done is said.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use serde_json::{Value, json};
use support::Lab;
use support::daemon::{Daemon, Setup};

/// A daemon and its configuration, which can be changed while it runs.
struct Running {
    daemon: Daemon,
    config: std::path::PathBuf,
    first: String,
}

impl Running {
    fn start(lab: &Lab, lines: &str) -> Running {
        let setup = Setup::new(lab, lines);
        let config = setup.path("portsentry.conf");
        let first = std::fs::read_to_string(&config).unwrap();
        Running { daemon: setup.start(), config, first }
    }

    /// Has it read these lines in the place of `lines`, whole ones of the first configuration.
    fn reload(&self, lines: &str, instead: &str) {
        let text = self.first.replacen(lines, instead, 1);
        assert!(lines == instead || text != self.first, "{lines} are not there");
        std::fs::write(&self.config, text).unwrap();
        self.daemon.signal(nix::sys::signal::Signal::SIGHUP);
    }

    /// One probe of a peer, and what came of it. The same port again would be the same packet again.
    fn probe(&mut self, lab: &Lab, peer: usize, port: u16) -> Value {
        let host = lab.peer(peer);
        let source = host.v4.to_string();
        host.hping3(&["-c", "1", "-S", "-p", &port.to_string(), &host.target_v4.to_string()]);
        self.daemon.wait_for_new("what came of the probe", |event| {
            event["src_ip"] == *source && event["action"].is_object()
        })
    }
}

const RUN_ONLY: &str = "TCP_PORTS=\"111,119\"\nBLOCK_TCP=\"2\"\nBLOCK_UDP=\"2\"\nKILL_RUN_CMD=\"/bin/true\"\nSENSITIVITY=\"off\"";

#[test]
fn blocks_are_what_block_tcp_says_after_a_reload_for_whoever_was_told_of_before_too() {
    let lab = Lab::new(2);
    let mut running = Running::start(&lab, RUN_ONLY);
    let ran = running.probe(&lab, 0, 111);
    assert_eq!(ran["action"]["with"], json!(["run_command"]), "{ran}");
    assert!(!lab.is_blocked(lab.peer(0).v4), "{}", lab.nft_table());

    running.reload("BLOCK_TCP=\"2\"\nBLOCK_UDP=\"2\"", "BLOCK_TCP=\"1\"\nBLOCK_UDP=\"1\"");
    running.daemon.catch_up();
    for peer in [0, 1] {
        let blocked = running.probe(&lab, peer, 119);
        assert_eq!(blocked["action"]["verdict"], "blocked", "{blocked}");
        assert!(blocked["action"]["with"].as_array().unwrap().contains(&json!("nftables")), "{blocked}");
        assert!(lab.is_blocked(lab.peer(peer).v4), "{blocked}: {}", lab.nft_table());
    }
}

#[test]
fn nobody_is_shut_out_any_more_where_a_reload_asks_for_the_command_alone() {
    let lab = Lab::new(1);
    let mut running = Running::start(&lab, &RUN_ONLY.replace("=\"2\"", "=\"0\""));
    assert_eq!(running.probe(&lab, 0, 111)["action"]["verdict"], "logged");
    running.reload("BLOCK_TCP=\"0\"", "BLOCK_TCP=\"2\"");
    running.daemon.catch_up();
    let ran = running.probe(&lab, 0, 119);
    assert_eq!(ran["action"]["with"], json!(["run_command"]), "{ran}");
    assert!(!lab.is_blocked(lab.peer(0).v4), "{}", lab.nft_table());
}
