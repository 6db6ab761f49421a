//! RUN_AS → user and group numbers, without NSS: a static program has no `getpwnam`. Run by the sensor, at start.
//!
//! Never yields uid 0 or gid 0, nor the number that setresuid(2) takes for "leave it".
#![forbid(unsafe_code)]

use std::fs;
use std::io::ErrorKind;

use nix::unistd::{getegid, geteuid};

use super::SandboxError;
use super::capabilities::is_any_root;

const PASSWD: &str = "/etc/passwd";
/// The kernel's overflow uid (Documentation/admin-guide/sysctl/fs.rst), `nobody` where there is no /etc/passwd.
const OVERFLOW: Identity = Identity { uid: 65534, gid: 65534 };

/// An unprivileged user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// User number.
    pub uid: u32,
    /// Group number; supplementary groups are given up.
    pub gid: u32,
}

impl Identity {
    /// Whom a daemon becomes that the calling process starts: whom RUN_AS means where that is root. Anybody else has nothing
    /// to leave, and stays who they are.
    ///
    /// # Errors
    /// As [`resolve`](Self::resolve), for root.
    pub fn of_daemon(run_as: Option<&str>) -> Result<Identity, SandboxError> {
        match is_any_root()? {
            true => Identity::resolve(run_as),
            false => Ok(Identity { uid: geteuid().as_raw(), gid: getegid().as_raw() }),
        }
    }

    /// Whom RUN_AS means: a name of /etc/passwd, `uid`, or `uid:gid`. Without it: `portsentry` if that user exists,
    /// else `nobody`, else 65534.
    ///
    /// # Errors
    /// An unknown name, user or group 0, or an unreadable /etc/passwd. A missing one only means that there are no names.
    pub fn resolve(run_as: Option<&str>) -> Result<Identity, SandboxError> {
        let passwd = match fs::read(PASSWD) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            Err(source) => return Err(SandboxError::File { path: PASSWD.into(), source }),
        };
        // Somebody's full name may be in any encoding.
        resolve_in(&String::from_utf8_lossy(&passwd), run_as)
    }
}

fn resolve_in(passwd: &str, run_as: Option<&str>) -> Result<Identity, SandboxError> {
    let Some(name) = run_as else {
        let default = ["portsentry", "nobody"].iter().find_map(|name| by_name(passwd, name));
        return checked("nobody", Some(default.unwrap_or(OVERFLOW)));
    };
    let numbers = match name.split_once(':') {
        Some((uid, gid)) => uid.parse().ok().zip(gid.parse().ok()).map(|(uid, gid)| Identity { uid, gid }),
        None => name.parse().ok().map(|uid| by_uid(passwd, uid).unwrap_or(Identity { uid, gid: uid })),
    };
    checked(name, numbers.or_else(|| by_name(passwd, name)))
}

fn checked(name: &str, found: Option<Identity>) -> Result<Identity, SandboxError> {
    let wrong = |reason| Err(SandboxError::RunAs { name: name.to_owned(), reason });
    match found {
        None => wrong("no such user"),
        Some(Identity { uid: 0, .. }) => wrong("uid 0 is what it is there to leave"),
        Some(Identity { gid: 0, .. }) => wrong("group 0 is what it is there to leave"),
        Some(Identity { uid: u32::MAX, .. } | Identity { gid: u32::MAX, .. }) => wrong("no valid number"),
        Some(identity) => Ok(identity),
    }
}

fn by_name(passwd: &str, name: &str) -> Option<Identity> {
    entries(passwd).find(|(entry, _)| *entry == name).map(|(_, identity)| identity)
}

fn by_uid(passwd: &str, uid: u32) -> Option<Identity> {
    entries(passwd).find(|(_, identity)| identity.uid == uid).map(|(_, identity)| identity)
}

/// passwd(5): `name:password:uid:gid:…`. Lines of any other form are not ours to mend.
fn entries(passwd: &str) -> impl Iterator<Item = (&str, Identity)> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let (name, _) = (fields.next()?, fields.next()?);
        Some((name, Identity { uid: fields.next()?.parse().ok()?, gid: fields.next()?.parse().ok()? }))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: &str = "root:x:0:0::/:\n+nis\nnobody:x:65534:65533::/:\nwatch:x:120:130::/:\nsly:x:0:5::/:\n";

    fn numbers(passwd: &str, run_as: Option<&str>) -> Option<(u32, u32)> {
        resolve_in(passwd, run_as).ok().map(|identity| (identity.uid, identity.gid))
    }

    #[test]
    fn names_and_numbers_are_both_understood() {
        assert_eq!(numbers(HERE, Some("watch")), Some((120, 130)));
        assert_eq!(numbers(HERE, Some("120")), Some((120, 130)));
        assert_eq!(numbers(HERE, Some("7000")), Some((7000, 7000)));
        assert_eq!(numbers(HERE, Some("7000:7001")), Some((7000, 7001)));
    }

    #[test]
    fn the_default_is_portsentry_then_nobody_then_65534() {
        assert_eq!(numbers("portsentry:x:9:8:\nnobody:x:7:6:\n", None), Some((9, 8)));
        assert_eq!(numbers(HERE, None), Some((65534, 65533)));
        assert_eq!(numbers("", None), Some((65534, 65534)));
    }

    #[test]
    fn root_in_any_guise_and_nonsense_are_refused() {
        for name in
            ["root", "0", "0:5", "5:0", "sly", "4294967295", "7:4294967295", "", "ghost", "-1", "watch:130"]
        {
            assert_eq!(numbers(HERE, Some(name)), None, "{name}");
        }
        // What RUN_AS may be, and no lone number, which it may not.
        let told = resolve_in(HERE, Some("ghost")).unwrap_err().to_string();
        assert_eq!(told, "RUN_AS=\"ghost\": no such user; give a user of /etc/passwd or uid:gid");
    }
}
