//! What of the surroundings must be read again, and when.
//!
//! Pure, time is an argument; both roles. On a host whose links or addresses come and go all the time reading them all anew
//! for each would be all that its processors do: the first change is read at once, those after it together.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::Routes;
use crate::netlink::route::{Link, News, Route};

/// Gateways that are learnt one by one before the routes are read again: those that went are let go of then.
const LEARNT: usize = 1024;

/// Least time between two readings: what is made of one may take as long as the reading itself.
const LEAST: Duration = Duration::from_millis(250);
/// So many times as long as a reading took is none begun: readings of up to a tenth of a second ([`MOST`]) take a twentieth of our time
/// at most, longer ones more.
const SHARE: u32 = 20;
/// Most time between two readings, however long one takes: what went must be let go of.
const MOST: Duration = Duration::from_secs(2);

/// Which lists must be read again.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Stale {
    pub(super) addresses: bool,
    pub(super) links: bool,
    pub(super) routes: bool,
    /// Gateways and local networks that came since the routes were read.
    pub(super) learnt: usize,
}

impl Stale {
    pub(super) const ALL: Stale = Stale { addresses: true, links: true, routes: true, learnt: 0 };

    pub(super) fn is_any(self) -> bool {
        self.addresses || self.links || self.routes
    }

    /// Of the routes to somewhere a router may have a million that change all the time, too many to read: one that comes
    /// names its gateways, which are `known` from now on; of those that go, theirs are let go of with the next reading. Likewise
    /// what is the host's own, with whose every address a local route comes, and `links`, which may be watched by name: one that
    /// comes or takes another name is known at once. All else of a link, as that it is up, changes often and comes with the reading.
    /// True if there is anything new.
    pub(super) fn note(&mut self, news: News, known: &mut Routes, links: &mut BTreeMap<u32, Link>) -> bool {
        let mut is_new = false;
        let before = known.gateways.len() + known.local.len();
        match news {
            News::Address(_) => self.addresses = true,
            News::Link { is_there, link } => {
                self.links = true;
                is_new = is_there && !links.get(&link.index).is_some_and(|known| known.has_names_of(&link));
                if is_new {
                    links.insert(link.index, link);
                }
            }
            News::Route(Route { is_there, is_default, gateways }) => {
                self.routes |= is_default;
                known.gateways.extend(gateways.into_iter().filter(|_| is_there));
            }
            News::Local { is_there, network } => {
                self.routes = true;
                known.local.extend(is_there.then_some(network));
            }
        }
        let learnt = known.gateways.len() + known.local.len() - before;
        self.learnt += learnt;
        // A link that goes down takes its routes along without a word for each (IPv4), and so may an address.
        self.routes |= self.links || self.addresses || self.learnt > LEARNT;
        is_new || learnt > 0
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
    use std::collections::BTreeSet;
    use std::net::IpAddr;

    use super::*;

    #[test]
    fn a_gateway_that_comes_is_known_and_the_routes_are_not_read_for_it() {
        let (mut stale, mut known) = (Stale::default(), Routes::default());
        let [first, second]: [IpAddr; 2] = ["192.0.2.1", "fe80::1"].map(|text| text.parse().unwrap());
        let route = |is_there, is_default, gateways: &[IpAddr]| {
            News::Route(Route { is_there, is_default, gateways: gateways.to_vec() })
        };
        assert!(stale.note(route(true, false, &[first, second]), &mut known, &mut BTreeMap::new()), "news");
        assert_eq!(known.gateways, BTreeSet::from([first, second]));
        assert!(!stale.note(route(true, false, &[first]), &mut known, &mut BTreeMap::new()), "none");
        known.gateways.remove(&second);
        assert!(
            !stale.note(route(false, false, &[first, second]), &mut known, &mut BTreeMap::new()),
            "what goes is not added"
        );
        assert_eq!(known.gateways, BTreeSet::from([first]), "and not removed: another route may lead by it");
        assert!(!stale.routes);
        assert!(!stale.note(route(false, true, &[second]), &mut known, &mut BTreeMap::new()) && stale.routes);

        // Whoever changes its gateways all the time does not have them pile up.
        let (mut stale, mut known) = (Stale::default(), Routes::default());
        let mut numbers = 0..;
        while !stale.routes {
            let gateway = std::net::Ipv4Addr::from(numbers.next().unwrap()).into();
            stale.note(route(true, false, &[gateway]), &mut known, &mut BTreeMap::new());
        }
        assert_eq!(known.gateways.len(), LEARNT + 1);
    }

    #[test]
    fn what_comes_to_be_the_hosts_own_is_known_before_any_list_is_read() {
        let (mut stale, mut known) = (Stale::default(), Routes::default());
        let own = |is_there| News::Local { is_there, network: "198.51.100.7/32".parse().unwrap() };
        assert!(!stale.note(own(false), &mut known, &mut BTreeMap::new()) && stale.routes);
        assert!(
            stale.note(own(true), &mut known, &mut BTreeMap::new())
                && !stale.note(own(true), &mut known, &mut BTreeMap::new())
        );
        assert_eq!(known.local.len(), 1);
        assert!(!stale.note(own(false), &mut known, &mut BTreeMap::new()));
        assert_eq!(known.local.len(), 1, "two interfaces may have it");
    }

    #[test]
    fn a_link_that_comes_or_takes_a_name_is_known_at_once_and_all_else_of_it_when_they_are_read() {
        let (mut stale, mut known) = (Stale::default(), BTreeMap::new());
        let link = |name: &str, alternatives: &[&str], flags| Link {
            index: 7,
            name: name.to_owned(),
            alternatives: alternatives.iter().map(|&name| name.to_owned()).collect(),
            hardware: 1,
            flags,
            forwards: false,
            bridge: None,
        };
        let mut note = |is_there, link: &Link| {
            let news = News::Link { is_there, link: link.clone() };
            (stale.note(news, &mut Routes::default(), &mut known), known.get(&7).cloned())
        };
        let [wire, cable, both] = [link("wire", &[], 0), link("cable", &[], 0), link("cable", &["wire"], 0)];
        assert_eq!(note(true, &wire), (true, Some(wire.clone())));
        assert_eq!(note(true, &wire), (false, Some(wire.clone())));
        assert_eq!(note(true, &link("wire", &[], 1)), (false, Some(wire)), "the reading has it");
        assert_eq!(note(true, &cable), (true, Some(cable)));
        assert_eq!(note(true, &both), (true, Some(both.clone())));
        assert_eq!(note(false, &both), (false, Some(both)));
        assert!(stale.links);
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
