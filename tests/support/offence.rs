//! One probe of a watched port, and what came of it.

use serde_json::Value;

use super::Lab;
use super::daemon::Daemon;

/// A configuration's part that makes a block of each.
pub const PORTS: &str = "TCP_PORTS=\"111,119\"\nBLOCK_TCP=\"1\"";

/// One, by a peer.
pub fn scan(lab: &Lab, peer: usize) {
    let host = lab.peer(peer);
    let target = host.target(false).to_string();
    host.run(&["nmap", "-n", "-Pn", "--disable-arp-ping", "-sS", "--max-retries", "0", "-p", "111", &target]);
}

/// Waits for the event of its block.
pub fn block_of(lab: &Lab, daemon: &mut Daemon, peer: usize) -> Value {
    let source = lab.peer(peer).v4.to_string();
    daemon.wait_for("the block", |event| event["event_type"] == "block" && event["src_ip"] == source.as_str())
}

/// Whether the kernel shuts it out.
pub fn blocked_in_kernel(lab: &Lab, peer: usize) -> bool {
    lab.is_blocked(lab.peer(peer).v4)
}
