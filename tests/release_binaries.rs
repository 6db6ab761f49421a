//! What is shipped is static, small, and light in memory. Needs `make build` first (PORTSENTRY_RELEASE names its folder).

mod support;

use std::path::PathBuf;
use std::process::Command;

use support::daemon::{Daemon, Setup};
use support::{Lab, resident};

const BINARIES: [&str; 2] = ["portsentry-rs", "portsentry-rs-helper"];

fn release() -> PathBuf {
    let folder = std::env::var_os("PORTSENTRY_RELEASE")
        .expect("PORTSENTRY_RELEASE names the folder of the release build: run `make test`");
    PathBuf::from(folder)
}

#[test]
fn both_binaries_are_static_and_together_at_most_5_mb() {
    let mut size = 0;
    for name in BINARIES {
        let path = release().join(name);
        let said = Command::new("ldd").arg(&path).output().unwrap();
        let said =
            String::from_utf8_lossy(&said.stdout).into_owned() + &String::from_utf8_lossy(&said.stderr);
        assert!(
            said.contains("statically linked") || said.contains("not a dynamic executable"),
            "{name}: {said}"
        );
        size += path.metadata().unwrap().len();
    }
    println!("both binaries: {size} bytes");
    assert!(size <= 5_000_000, "{size} bytes");
}

#[test]
fn both_processes_together_take_little_memory() {
    let lab = Lab::new(1);
    let mut daemon: Daemon =
        Setup::new(&lab, "TCP_PORTS=\"1-1024\"\nUDP_PORTS=\"1-1024\"\nBLOCK_TCP=\"1\"\nBLOCK_UDP=\"1\"")
            .start_program(&release().join(BINARIES[0]), &[]);
    let peer = lab.peer(0);
    peer.nmap(&["-sS", "-p", "1-40", &peer.target_v4.to_string()]);
    daemon.wait_for("the block", |event| event["event_type"] == "block");
    let (sensor, helper) = (resident(daemon.pid()), resident(daemon.helper_pid()));
    println!("resident: sensor {sensor} KiB, helper {helper} KiB");
    assert!(sensor + helper <= 8 * 1024, "sensor {sensor} KiB, helper {helper} KiB");
}
