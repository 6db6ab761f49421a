//! The helper's own judgement of a request: it believes nothing that the sensor has concluded. Pure; helper.
//!
//! Never protected here: link-local sources. They are neighbours that can scan like any other, and the routers among
//! them are known as gateways.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::budget::Budget;
use crate::networks::Networks;
use crate::protocol::Outcome;
use crate::protocol::settings::BLOCKS_A_MINUTE;

/// Networks that `Protect` may add to those of the start.
pub const MAX_PROTECTED: usize = 65_536;

/// New blocks at once, beside [`BLOCKS_A_MINUTE`] over time. BLOCK_LIMIT is no higher than that, and a minute's worth of it
/// may come at once; this budget is for a captured sensor.
const BLOCKS_AT_ONCE: u32 = BLOCKS_A_MINUTE;
/// As many more, and this part of MAX_BLOCKS, are for those that no flood of forged sources can ask for.
const RESERVED_A_MINUTE: u32 = 600;
const RESERVED_AT_ONCE: u32 = 200;
const RESERVED_PART: usize = 8;
/// The operator's requests have a budget of their own, so that a flood cannot lock the operator out.
const OTHERS_A_MINUTE: u32 = 6_000;
const OTHERS_AT_ONCE: u32 = 2_000;

/// This host, loopback, multicast, broadcast; unspecified, loopback, IPv4-mapped, multicast (RFC 6890, RFC 4291). None of
/// them can be a scanner's real address; of 0.0.0.0/8 all others can, of a neighbour.
const NEVER: [&str; 8] = [
    "0.0.0.0/32",
    "127.0.0.0/8",
    "224.0.0.0/4",
    "255.255.255.255/32",
    "::/128",
    "::1/128",
    "::ffff:0:0/96",
    "ff00::/8",
];

/// The length of the widest prefix that may be blocked, of the family of `target`: of IPv6 what a site is given (RFC 6177).
pub fn widest(target: &IpNet) -> u8 {
    match target {
        IpNet::V4(_) => 24,
        IpNet::V6(_) => 48,
    }
}

/// Who may not be blocked, and how much may be asked.
pub struct Authority {
    configured: Vec<IpNet>,
    surroundings: Vec<IpNet>,
    protected: BTreeSet<IpNet>,
    never: Networks,
    max_blocks: usize,
    blocks: Budget,
    reserve: Budget,
    others: Budget,
}

/// What stands behind a request for a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Packets that anybody could have sent in this source's name.
    Claimed,
    /// A handshake with the source, or an operator.
    Proved,
}

impl Authority {
    /// Judges by the `configured` never-block set and MAX_BLOCKS; `uptime` in milliseconds.
    pub fn new(configured: Vec<IpNet>, max_blocks: u32, uptime: u64) -> Authority {
        let mut authority = Authority {
            configured,
            surroundings: Vec::new(),
            protected: BTreeSet::new(),
            never: Networks::default(),
            max_blocks: max_blocks as usize,
            blocks: Budget::new(BLOCKS_A_MINUTE, BLOCKS_AT_ONCE, uptime),
            reserve: Budget::new(RESERVED_A_MINUTE, RESERVED_AT_ONCE, uptime),
            others: Budget::new(OTHERS_A_MINUTE, OTHERS_AT_ONCE, uptime),
        };
        authority.join();
        authority
    }

    /// Puts the host's present own addresses, gateways and broadcasts in place of the former. True if the set changed.
    pub fn surround(&mut self, networks: Vec<IpNet>) -> bool {
        self.surroundings = networks;
        self.join()
    }

    /// Adds `network` for good. Costs nothing of the operator's budget: there can be [`MAX_PROTECTED`] of them, at any rate.
    pub fn protect(&mut self, network: IpNet) -> Result<(), Outcome> {
        if self.protected.len() >= MAX_PROTECTED && !self.protected.contains(&network) {
            return Err(Outcome::RefusedFull);
        }
        self.protected.insert(network);
        self.never.insert(&network);
        Ok(())
    }

    /// Everything that may not be blocked.
    pub fn never(&self) -> &Networks {
        &self.never
    }

    /// Whether `target` may be blocked at all, now and whoever asks.
    pub fn check_target(&self, target: &IpNet) -> Result<(), Outcome> {
        // The set first: 0.0.0.0/0 holds us, and that is the graver reason.
        if self.never.overlaps(target) {
            return Err(Outcome::RefusedNeverBlock);
        }
        if target.prefix_len() < widest(target) { Err(Outcome::RefusedPrefix) } else { Ok(()) }
    }

    /// MAX_BLOCKS.
    pub fn max_blocks(&self) -> usize {
        self.max_blocks
    }

    /// Whether there is room for one more block of this standing beside the `held` ones.
    pub fn has_room(&self, held: usize, standing: Standing) -> bool {
        match standing {
            Standing::Claimed => held < self.max_blocks - self.max_blocks / RESERVED_PART,
            Standing::Proved => held < self.max_blocks,
        }
    }

    /// Whether there is room and budget for one more block beside the `held` ones; pays for it.
    pub fn grant(&mut self, held: usize, standing: Standing, uptime: u64) -> Result<(), Outcome> {
        if !self.has_room(held, standing) {
            return Err(Outcome::RefusedFull);
        }
        let is_paid = match standing {
            Standing::Claimed => self.blocks.spend(uptime),
            Standing::Proved => self.blocks.spend(uptime) || self.reserve.spend(uptime),
        };
        if is_paid { Ok(()) } else { Err(Outcome::RefusedRate) }
    }

    /// Whether there is budget for a request that blocks nothing; pays for it.
    pub fn permit(&mut self, uptime: u64) -> Result<(), Outcome> {
        if self.others.spend(uptime) { Ok(()) } else { Err(Outcome::RefusedRate) }
    }

    fn join(&mut self) -> bool {
        let always = NEVER.iter().filter_map(|text| text.parse().ok());
        let parts = self.configured.iter().chain(&self.surroundings).chain(&self.protected);
        let never = Networks::new(parts.copied().chain(always));
        let changed = never != self.never;
        self.never = never;
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX_BLOCKS: u32 = 32_768;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn authority() -> Authority {
        let mut authority = Authority::new(vec![net("10.0.0.0/8"), net("2001:db8:1::/48")], MAX_BLOCKS, 0);
        authority.surround(vec![net("192.0.2.1/32"), net("fe80::1/128")]);
        authority
    }

    #[test]
    fn every_builtin_network_is_understood() {
        assert!(NEVER.iter().all(|text| text.parse::<IpNet>().is_ok_and(|net| net == net.trunc())));
    }

    #[test]
    fn nothing_that_touches_the_never_block_set_may_be_blocked() {
        for target in [
            "10.1.2.3/32",
            "192.0.2.1/32",
            "192.0.2.0/24",
            "0.0.0.0/0",
            "::/0",
            "0.0.0.0/32",
            "127.0.0.1/32",
            "224.0.0.1/32",
            "255.255.255.255/32",
            "::/128",
            "::1/128",
            "::ffff:198.51.100.1/128",
            "ff02::1/128",
            "fe80::1/128",
            "2001:db8:1:2::/64",
        ] {
            assert_eq!(authority().check_target(&net(target)), Err(Outcome::RefusedNeverBlock), "{target}");
        }
    }

    #[test]
    fn wide_prefixes_are_refused_and_the_widest_allowed_is_not() {
        for target in ["198.51.100.0/23", "2001:db8:8000::/47"] {
            assert_eq!(authority().check_target(&net(target)), Err(Outcome::RefusedPrefix), "{target}");
        }
        for target in
            ["198.51.100.0/24", "198.51.100.1/32", "0.1.2.3/32", "2001:db8:8000::/48", "fe80::2/128"]
        {
            assert_eq!(authority().check_target(&net(target)), Ok(()), "{target}");
        }
    }

    #[test]
    fn a_full_table_refuses_without_charging() {
        let mut authority = authority();
        for _ in 0..BLOCKS_AT_ONCE * 2 {
            assert_eq!(authority.grant(MAX_BLOCKS as usize, Standing::Proved, 0), Err(Outcome::RefusedFull));
        }
        assert_eq!(authority.grant(MAX_BLOCKS as usize - 1, Standing::Proved, 0), Ok(()));
    }

    #[test]
    fn a_million_requests_in_a_minute_get_the_minutes_allowance() {
        let granted = |standing| {
            let mut authority = authority();
            let asked =
                (0..1_000_000).filter(|at| authority.grant(0, standing, at * 60_000 / 1_000_000).is_ok());
            let granted = asked.count();
            assert_eq!(authority.permit(60_000), Ok(()));
            granted
        };
        assert_eq!(granted(Standing::Claimed), (BLOCKS_AT_ONCE + BLOCKS_A_MINUTE) as usize - 1);
        let all = BLOCKS_AT_ONCE + BLOCKS_A_MINUTE + RESERVED_AT_ONCE + RESERVED_A_MINUTE;
        // A full reserve earns nothing while the others' is not used up.
        assert_eq!(granted(Standing::Proved), all as usize - 3);
    }

    #[test]
    fn what_blocks_nobody_has_its_budget_too() {
        let mut authority = authority();
        let permitted = (0..2 * OTHERS_AT_ONCE).filter(|_| authority.permit(0).is_ok());
        assert_eq!(permitted.count(), OTHERS_AT_ONCE as usize);
    }

    #[test]
    fn who_keeps_to_the_highest_block_limit_is_refused_nothing_however_long() {
        let (mut authority, limit) = (authority(), u64::from(BLOCKS_A_MINUTE));
        let at_once = (0..limit).map(|_| 0);
        let mut times = at_once.chain((1..30 * limit).map(|at| at * 60_000 / limit));
        assert!(times.all(|now| authority.grant(0, Standing::Claimed, now).is_ok()));
    }

    #[test]
    fn a_flood_of_claims_keeps_no_proved_scanner_and_no_operator_out() {
        let mut authority = authority();
        let held = (0..).find(|&held| !authority.has_room(held, Standing::Claimed)).unwrap();
        while authority.grant(0, Standing::Claimed, 0).is_ok() {}
        assert_eq!(authority.grant(held, Standing::Claimed, 60_000), Err(Outcome::RefusedFull));
        for _ in 0..RESERVED_AT_ONCE {
            assert_eq!(authority.grant(held, Standing::Proved, 0), Ok(()));
        }
        assert_eq!(authority.grant(held, Standing::Proved, 0), Err(Outcome::RefusedRate));
    }

    #[test]
    fn protection_is_added_bounded_and_never_lost_with_the_surroundings() {
        let mut authority = authority();
        assert_eq!(authority.protect(net("198.51.100.7/32")), Ok(()));
        assert!(authority.surround(Vec::new()));
        assert!(!authority.surround(Vec::new()));
        assert!(authority.never().contains("198.51.100.7".parse().unwrap()));
        assert!(!authority.never().contains("192.0.2.1".parse().unwrap()));
        let network =
            |at: usize| IpNet::from(std::net::IpAddr::from((0xc612_0000 + at as u32).to_be_bytes()));
        let added = (1..).find(|&at| authority.protect(network(at)).is_err());
        assert_eq!(added, Some(MAX_PROTECTED));
        assert_eq!(authority.protect(network(1)), Ok(()), "it is there already");
        assert!(!authority.surround(Vec::new()), "what was added one by one is what all make together");
        assert_eq!(authority.permit(0), Ok(()), "an operator has his budget whole");
    }
}
