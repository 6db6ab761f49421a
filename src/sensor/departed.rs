//! Sockets that were here a moment ago: their ports pass for ones in use a while longer, for whoever calls while a service
//! starts again, and for whoever has not noticed yet that a stream of datagrams is over.
//!
//! Main thread, pure. Knows of no port but those that it is asked about: as many as had a socket at the last look.
#![forbid(unsafe_code)]

use std::collections::HashMap;

use crate::detect::probe::Protocol;

/// How long, milliseconds, after the look that found a service gone, which is at the first refused call as a rule: daemons
/// start again within seconds, those that read a database first or are upgraded within a minute.
pub const AWAITED: u64 = 60_000;

/// For how long a machine's services may still be on their way up when the daemon is, milliseconds after the boot.
pub const BOOT: u64 = 120_000;

/// What is gone, and since when.
#[derive(Debug, Default)]
pub struct Departed(HashMap<(Protocol, u16), u64>);

impl Departed {
    /// For one look at `uptime` milliseconds: tells of each port that was in use at the last one and is not any more
    /// whether it is to pass for one all the same. A port that it is not asked about has its service, and begins anew.
    pub fn look(&mut self, uptime: u64) -> impl FnMut(Protocol, u16) -> bool + '_ {
        let before = std::mem::take(&mut self.0);
        move |protocol, port| {
            let since = before.get(&(protocol, port)).copied().unwrap_or(uptime);
            let is_awaited = uptime.saturating_sub(since) < AWAITED;
            if is_awaited {
                self.0.insert((protocol, port), since);
            }
            is_awaited
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LDAP: (Protocol, u16) = (Protocol::Tcp, 389);

    #[test]
    fn a_service_is_awaited_for_a_minute_from_the_look_that_found_it_gone() {
        let mut departed = Departed::default();
        let mut is_awaited = |uptime| departed.look(uptime)(LDAP.0, LDAP.1);
        assert_eq!([5_000, 30_000, 64_999, 65_000].map(&mut is_awaited), [true, true, true, false]);
        assert!(departed.0.is_empty());
    }

    #[test]
    fn one_that_came_back_has_a_minute_again_when_it_goes() {
        let mut departed = Departed::default();
        assert!(departed.look(5_000)(LDAP.0, LDAP.1));
        drop(departed.look(10_000));
        assert!(departed.look(3_600_000)(LDAP.0, LDAP.1));
    }
}
