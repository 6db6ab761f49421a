//! What of the surroundings must be read again, and when.
//!
//! Pure, time is an argument; both roles. On a host whose links or addresses come and go all the time reading them all anew
//! for each would be all that its processors do: the first change is read at once, those after it together.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use crate::netlink::route::News;

/// What is learnt one by one, as gateways, before the routes are read again: those that went are let go of then.
const LEARNT: usize = 1024;

/// Least time between two readings: what is made of one may take as long as the reading itself.
const LEAST: Duration = Duration::from_millis(250);
/// So many times as long as a reading took is none begun: readings of up to a tenth of a second ([`MOST`]) take a
/// twentieth of our time at most, longer ones more.
const SHARE: u32 = 20;
/// Most time between two readings, however long one takes: what went must be let go of.
const MOST: Duration = Duration::from_secs(2);

/// Which lists must be read again.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Stale {
    pub(super) addresses: bool,
    pub(super) links: bool,
    pub(super) routes: bool,
    /// What was learnt since the routes were read.
    pub(super) learnt: usize,
}

impl Stale {
    pub(super) const ALL: Stale = Stale { addresses: true, links: true, routes: true, learnt: 0 };

    pub(super) fn is_any(self) -> bool {
        self.addresses || self.links || self.routes
    }

    /// Of the routes to somewhere a router may have a million that change all the time, too many to read: one that comes
    /// names its gateways, which are known from now on; of those that go, theirs are let go of with the next reading.
    /// `learnt` is how much of `news` was not known.
    pub(super) fn note(&mut self, news: &News, learnt: usize) {
        match news {
            News::Address { .. } => self.addresses = true,
            News::Link { .. } => self.links = true,
            News::Route(route) => self.routes |= route.is_default,
            News::Local { .. } => self.routes = true,
        }
        self.learnt += learnt;
        // A link that goes down takes its routes along without a word for each (IPv4), and so may an address.
        self.routes |= self.links || self.addresses || self.learnt > LEARNT;
    }
}

/// Until when no list is read again.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rest(Option<Instant>);

impl Rest {
    /// After a reading.
    pub(super) fn after(begun: Instant, ended: Instant) -> Rest {
        let took = ended.saturating_duration_since(begun);
        Rest(Some(ended + took.saturating_mul(SHARE).clamp(LEAST, MOST)))
    }

    /// `None`: nothing was read yet.
    pub(super) fn until(self) -> Option<Instant> {
        self.0
    }

    pub(super) fn is_over(self, now: Instant) -> bool {
        self.0.is_none_or(|until| until <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::route::Route;

    #[test]
    fn the_routes_are_read_for_a_default_route_and_not_for_others_until_very_many_gateways_came() {
        let route = |is_default| News::Route(Route { is_there: true, is_default, gateways: Vec::new() });
        let mut stale = Stale::default();
        stale.note(&route(true), 0);
        assert!(stale.routes);

        // Whoever changes its gateways all the time does not have them pile up.
        let mut stale = Stale::default();
        (0..10 * LEARNT).for_each(|_| stale.note(&route(false), 0));
        (0..LEARNT).for_each(|_| stale.note(&route(false), 1));
        assert!(!stale.is_any());
        stale.note(&route(false), 1);
        assert!(stale.routes);
    }

    #[test]
    fn what_comes_to_be_the_hosts_own_or_is_so_no_more_has_the_routes_read() {
        for is_there in [true, false] {
            let mut stale = Stale::default();
            stale.note(&News::Local { is_there, network: "198.51.100.7/32".parse().unwrap() }, 0);
            assert!(stale.routes && !stale.addresses && !stale.links);
        }
    }

    #[test]
    fn the_longer_a_reading_took_the_later_is_the_next() {
        let begun = Instant::now();
        let rest = |took| Rest::after(begun, begun + took).until().unwrap() - (begun + took);
        let took = [1, 50, 100_000].map(Duration::from_millis);
        assert_eq!(took.map(rest), [LEAST, Duration::from_secs(1), MOST]);
        assert!(Rest::default().is_over(begun));
        let rest = Rest::after(begun, begun);
        assert!(!rest.is_over(begun + LEAST - Duration::from_nanos(1)) && rest.is_over(begun + LEAST));
    }
}
