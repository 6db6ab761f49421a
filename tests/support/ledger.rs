//! A ledger such as the helper writes, with as many blocks as a test wants.

use std::fs::{File, Permissions, create_dir_all, set_permissions};
use std::io::{BufWriter, Write};
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Writes a ledger of so many addresses from `first` on into the state folder `folder`: blocked for a day and, in no
/// order, some minutes more.
pub fn write(folder: &Path, first: u32, blocks: u32) {
    create_dir_all(folder).unwrap();
    let path = folder.join("ledger");
    let mut out = BufWriter::new(File::create(&path).unwrap());
    let now = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap();
    for number in 0..blocks {
        let target = Ipv4Addr::from(first + number);
        let until = now + 86_400_000 + u64::from(scattered(number)) % 600_000;
        writeln!(out, r#"{{"target":"{target}/32","since":{now},"until":{until},"offence":1,"with":1}}"#)
            .unwrap();
    }
    out.flush().unwrap();
    // Or the first blocks would wait for it.
    out.get_ref().sync_all().unwrap();
    set_permissions(path, Permissions::from_mode(0o600)).unwrap();
}

/// A number of its own for each number, in no order.
pub fn scattered(number: u32) -> u32 {
    number.wrapping_mul(0x9e37_79b1).rotate_left(15).wrapping_mul(0x85eb_ca6b)
}
