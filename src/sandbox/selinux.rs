//! Under the policy in `selinux/` the sensor leaves the domain of its start, which may open rings, decoys and netlink,
//! for one that may open nothing but its configuration. Run by the sensor alone, before it has a thread.
//!
//! Under any other policy, and without SELinux, nothing is done: nobody else knows these domains.
#![forbid(unsafe_code)]

use std::fs;
use std::io;
use std::path::Path;

use super::SandboxError;

/// proc_pid_attr(5), of the calling thread.
const CURRENT: &str = "/proc/thread-self/attr/current";
/// The domains of selinux/portsentry_rs.te.
const START: &str = "portsentry_rs_t";
const SENSOR: &str = "portsentry_rs_sensor_t";

/// Leaves the domain of the start, if this is it.
///
/// # Errors
/// The policy has the domain of the start but no way from there.
pub fn leave_start() -> Result<(), SandboxError> {
    leave(Path::new(CURRENT))
}

fn leave(current: &Path) -> Result<(), SandboxError> {
    let failed = |source| SandboxError::Domain { domain: SENSOR, source };
    // Without a security module there is nothing to read.
    let context = fs::read(current).unwrap_or_default();
    let Some(next) = successor(&String::from_utf8_lossy(&context)) else { return Ok(()) };
    fs::write(current, &next).map_err(failed)?;
    let now = fs::read(current).map_err(failed)?;
    match String::from_utf8_lossy(&now).trim_end_matches(ENDS) == next {
        true => Ok(()),
        false => Err(failed(io::ErrorKind::PermissionDenied.into())),
    }
}

const ENDS: [char; 2] = ['\0', '\n'];

/// `user:role:type` or `user:role:type:range`; a range holds colons too.
fn successor(context: &str) -> Option<String> {
    let mut fields: Vec<&str> = context.trim_end_matches(ENDS).split(':').collect();
    let domain = fields.get_mut(2).filter(|domain| **domain == START)?;
    *domain = SENSOR;
    Some(fields.join(":"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_start_is_left() {
        let left = |context| successor(context);
        assert_eq!(
            left("system_u:system_r:portsentry_rs_t:s0-s0:c0.c1023\0").as_deref(),
            Some("system_u:system_r:portsentry_rs_sensor_t:s0-s0:c0.c1023")
        );
        assert_eq!(left("u:r:portsentry_rs_t").as_deref(), Some("u:r:portsentry_rs_sensor_t"));
        for other in
            ["unconfined\n", "", "kernel", "u:r:portsentry_rs_helper_t:s0", "portsentry_rs_t:r:t", "::x"]
        {
            assert_eq!(left(other), None, "{other}");
        }
    }

    #[test]
    fn the_file_is_written_only_from_our_own_start() {
        let folder = tempfile::tempdir().unwrap();
        let current = folder.path().join("current");
        assert!(leave(&current).is_ok() && !current.exists(), "no security module");
        for (before, after) in
            [("unconfined\n", "unconfined\n"), ("u:r:portsentry_rs_t:s0\0", "u:r:portsentry_rs_sensor_t:s0")]
        {
            fs::write(&current, before).unwrap();
            assert!(leave(&current).is_ok(), "{before}");
            assert_eq!(fs::read_to_string(&current).unwrap(), after);
        }
    }
}
