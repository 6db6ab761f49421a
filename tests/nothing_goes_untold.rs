//! Nothing goes untold: the end of every block at a stop.

mod support;

use nix::sys::signal::Signal;
use support::daemon::Setup;
use support::{Lab, ledger};

const PORTS: &str = "TCP_PORTS=\"111\"\nBLOCK_TCP=\"1\"";
/// The first of the blocks that a ledger has: 198.51.100.0.
const FIRST: u32 = 0xc633_6400;

#[test]
fn blocks_that_a_stop_lifts_or_that_were_lifted_right_before_it_have_their_ends_told() {
    for flush_on_stop in [true, false] {
        let lab = Lab::new(1);
        let setup = Setup::new(&lab, &format!("{PORTS}\nFLUSH_ON_STOP=\"{}\"", u8::from(flush_on_stop)));
        // More than one turn tells.
        ledger::write(&setup.path("state"), FIRST, 2000);
        let mut daemon = setup.start();
        if !flush_on_stop {
            assert!(daemon.client(&["unblock", "all"]).status.success());
        }
        daemon.signal(Signal::SIGTERM);
        let stop = daemon.wait_for("the stop", |event| event["event_type"] == "stop");
        assert_eq!(stop["stats"]["blocks_in_force"], 0, "{stop}");
        let lifted = |event: &&serde_json::Value| {
            event["event_type"] == "unblock" && event["action"]["verdict"] == "lifted"
        };
        assert_eq!(daemon.seen.iter().filter(lifted).count(), 2000, "{flush_on_stop}");
        assert_eq!(daemon.wait().code(), Some(0));
    }
}
