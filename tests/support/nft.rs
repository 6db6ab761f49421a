//! What our table holds in the network namespace of the calling thread, as `nft` tells it: it shares no code with what
//! filled the table.

use std::net::IpAddr;
use std::process::Command;
use std::time::Duration;

use ipnet::IpNet;
use serde_json::Value;

/// Who is blocked, in the order of targets, and for how long still, in whole seconds.
pub fn blocked() -> Vec<(IpNet, Duration)> {
    let sets = table().into_iter().filter_map(|mut object| Some(object.get_mut("set")?.take()));
    let mut blocked: Vec<(IpNet, Duration)> = sets.flat_map(|set| blocks_of(&set)).collect();
    blocked.sort_unstable();
    blocked
}

/// Packets and bytes of the blocked that were dropped.
pub fn dropped() -> [u64; 2] {
    let rules = table();
    let expressions = rules.iter().filter_map(|object| object["rule"]["expr"].as_array()).flatten();
    let counter = expressions.filter_map(|it| it.get("counter")).next().expect("a rule that counts");
    ["packets", "bytes"].map(|unit| counter[unit].as_u64().expect("a number"))
}

/// Nothing where there is none.
fn table() -> Vec<Value> {
    let listed =
        Command::new("nft").args(["-j", "list", "table", "inet", "portsentry"]).output().expect("nft");
    let said = String::from_utf8_lossy(&listed.stderr);
    if said.contains("No such file or directory") {
        return Vec::new();
    }
    let mut all: Value = serde_json::from_slice(&listed.stdout).unwrap_or_else(|_| panic!("nft: {said}"));
    serde_json::from_value(all["nftables"].take()).expect("a list")
}

/// Of `blocked6_64` networks of that length, of `blocked6` addresses, of any other set nothing.
fn blocks_of(set: &Value) -> Vec<(IpNet, Duration)> {
    let name = set["name"].as_str().expect("a name");
    let Some(length) = name.strip_prefix("blocked").map(|rest| rest.split_once('_').map(|(_, it)| it)) else {
        return Vec::new();
    };
    let elements = set["elem"].as_array().into_iter().flatten();
    let of = |element: &Value| {
        let [key, left] = ["val", "expires"].map(|field| &element["elem"][field]);
        let key: IpAddr = key.as_str().and_then(|key| key.parse().ok()).expect("an address");
        let length = length.map_or(IpNet::from(key).prefix_len(), |it| it.parse().expect("a length"));
        (IpNet::new(key, length).expect("a prefix"), Duration::from_secs(left.as_u64().expect("a time")))
    };
    elements.map(of).collect()
}
