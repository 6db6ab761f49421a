//! The nf_tables messages we need, as `nft` would send them (`linux/netfilter/nf_tables.h`).
//!
//! Pure; the helper sends them. Numbers are in network order. Which table, sets and rules there are is not decided here.
#![forbid(unsafe_code)]

pub mod batch;
pub mod element;
pub mod expression;

use std::net::IpAddr;
use std::time::Duration;

use super::message::{Attributes, Encoder, Message};
pub use batch::Command;
pub use element::Element;
pub use expression::{Comparison, Expression, Verdict};

const SUBSYSTEM: u16 = libc::NFNL_SUBSYS_NFTABLES as u16;
/// `NFNL_MSG_BATCH_BEGIN` and `NFNL_MSG_BATCH_END`: all between them comes true at once or not at all.
pub const BATCH_BEGIN: u16 = libc::NFNL_MSG_BATCH_BEGIN as u16;
/// See [`BATCH_BEGIN`].
pub const BATCH_END: u16 = libc::NFNL_MSG_BATCH_END as u16;
/// `NFPROTO_INET`: IPv4 and IPv6 in one table.
pub const FAMILY_INET: u8 = libc::NFPROTO_INET as u8;
/// Length of `struct nfgenmsg`.
const FAMILY_HEADER_LENGTH: usize = 4;

/// What a message is about: `NFT_MSG_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[expect(missing_docs, reason = "the kernel's names")]
pub enum Kind {
    NewTable = 0,
    GetTable = 1,
    DeleteTable = 2,
    NewChain = 3,
    GetChain = 4,
    NewRule = 6,
    GetRule = 7,
    DeleteRule = 8,
    NewSet = 9,
    NewElements = 12,
    GetElements = 13,
    DeleteElements = 14,
    GetGeneration = 16,
}

impl Kind {
    /// `nlmsg_type`.
    pub const fn number(self) -> u16 {
        SUBSYSTEM << 8 | self as u16
    }

    /// `nlmsg_flags` besides NLM_F_REQUEST: what makes, makes what is missing.
    pub const fn flags(self) -> u16 {
        match self {
            Kind::NewTable | Kind::NewChain | Kind::NewRule | Kind::NewSet | Kind::NewElements => {
                libc::NLM_F_CREATE as u16
            }
            Kind::GetTable | Kind::DeleteTable | Kind::GetChain | Kind::GetRule | Kind::DeleteRule => 0,
            Kind::GetElements | Kind::DeleteElements | Kind::GetGeneration => 0,
        }
    }
}

/// Writes the `struct nfgenmsg` of a table message.
pub fn family_header(message: &mut Encoder) {
    message.put(&[FAMILY_INET, 0, 0, 0]);
}

/// Writes the `struct nfgenmsg` of [`BATCH_BEGIN`] and [`BATCH_END`].
pub fn batch_header(message: &mut Encoder) {
    let [high, low] = SUBSYSTEM.to_be_bytes();
    message.put(&[0, 0, high, low]);
}

/// The attributes of a received table message.
pub fn attributes<'a>(message: &Message<'a>) -> Option<Attributes<'a>> {
    message.split::<FAMILY_HEADER_LENGTH>().map(|(_, attributes)| attributes)
}

/// `NFT_MSG_NEWTABLE`, `DELTABLE` (`NFTA_TABLE_NAME`), and `GETRULE`: all rules of a table (`NFTA_RULE_TABLE`).
pub fn table(message: &mut Encoder, table: &str) {
    family_header(message);
    message.text(1, table);
}

/// Where a base chain sits: `NF_INET_PRE_ROUTING`.
pub const HOOK_PREROUTING: u32 = 0;
/// `NF_IP_PRI_RAW`: before connection tracking, so that a dropped packet costs none.
pub const PRIORITY_RAW: i32 = -300;

/// `NFT_MSG_NEWCHAIN`: a chain that other chains jump to, or with `hook` (number, priority) a base filter chain whose
/// policy is accept.
pub fn chain(message: &mut Encoder, table: &str, name: &str, hook: Option<(u32, i32)>) {
    self::table(message, table);
    message.text(3, name);
    if let Some((number, priority)) = hook {
        message.nest(4, |hook| {
            hook.be32(1, number);
            hook.attribute(2, &priority.to_be_bytes());
        });
        message.be32(5, libc::NF_ACCEPT as u32);
        message.text(7, "filter");
    }
}

/// `NFT_MSG_GETCHAIN`: this one.
pub fn one_chain(message: &mut Encoder, table: &str, name: &str) {
    self::table(message, table);
    message.text(3, name);
}

/// `NFT_MSG_NEWRULE`.
pub fn rule(message: &mut Encoder, table: &str, chain: &str, expressions: &[Expression]) {
    self::table(message, table);
    message.text(2, chain);
    message.nest(4, |list| expressions.iter().for_each(|expression| expression.encode(list)));
}

/// `NFT_MSG_DELRULE`: all rules of a chain.
pub fn rules_of(message: &mut Encoder, table: &str, chain: &str) {
    self::table(message, table);
    message.text(2, chain);
}

/// What the kernel numbers: the table in its network namespace, all else within the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A table.
    Table {
        /// `NFTA_TABLE_FLAGS`.
        flags: u32,
    },
    /// A chain, by its name.
    Chain(String),
    /// A rule.
    Rule {
        /// Of which chain.
        chain: String,
    },
}

/// The number of what a received message is about, if that is this table or in it (NFTA_*_HANDLE).
pub fn listed(message: &Message<'_>, table: &str) -> Option<(u64, Item)> {
    let attributes = attributes(message)?;
    let text = |kind| attributes.find(kind).map(|attribute| attribute.text());
    (text(1)? == table).then_some(())?;
    let (number, item) = match message.kind {
        kind if kind == Kind::NewTable.number() => {
            let flags = attributes.find(2).and_then(|flags| flags.be32()).unwrap_or(0);
            (4, Item::Table { flags })
        }
        kind if kind == Kind::NewChain.number() => (2, Item::Chain(text(3)?)),
        kind if kind == Kind::NewRule.number() => (3, Item::Rule { chain: text(2)? }),
        _ => return None,
    };
    Some((attributes.find(number)?.be64()?, item))
}

/// The number of the last change, whoever made it and of whichever table (NFTA_GEN_ID).
pub fn generation(message: &Message<'_>) -> Option<u32> {
    attributes(message)?.find(1)?.be32()
}

/// The number after it.
pub fn next_generation(generation: u32) -> u32 {
    // net/netfilter/nf_tables_api.c: "while (++base_seq == 0);".
    generation.checked_add(1).unwrap_or(1)
}

/// A kind of address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// `ipv4_addr`.
    Ipv4,
    /// `ipv6_addr`.
    Ipv6,
}

/// What a set holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// Addresses.
    Address(Family),
    /// `inet_service`.
    Port,
    /// `ifname`.
    Interface,
}

impl Family {
    /// Either.
    pub const BOTH: [Family; 2] = [Family::Ipv4, Family::Ipv6];

    /// That of `address`.
    pub const fn of(address: IpAddr) -> Family {
        if address.is_ipv6() { Family::Ipv6 } else { Family::Ipv4 }
    }

    /// Bytes of an address.
    pub const fn length(self) -> u8 {
        match self {
            Family::Ipv4 => 4,
            Family::Ipv6 => 16,
        }
    }
}

impl Key {
    /// Bytes of one key.
    pub const fn length(self) -> u8 {
        match self {
            Key::Address(family) => family.length(),
            Key::Port => 2,
            Key::Interface => 16,
        }
    }

    /// The number by which `nft` knows how to print it (`enum datatypes` in nftables' datatype.h); the kernel keeps it only.
    const fn datatype(self) -> u32 {
        match self {
            Key::Address(Family::Ipv4) => 7,
            Key::Address(Family::Ipv6) => 8,
            Key::Port => 13,
            Key::Interface => 41,
        }
    }
}

/// A set to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// Its name.
    pub name: String,
    /// What it holds.
    pub key: Key,
    /// What its elements are.
    pub elements: Elements,
}

/// What a set's elements are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Elements {
    /// Single keys that may expire, at most `capacity` of them: a hash table.
    Timed {
        /// The kernel refuses more with ENFILE.
        capacity: u32,
    },
    /// Likewise, and rules may add some themselves ([`Expression::Remember`]).
    Learnt {
        /// As above.
        capacity: u32,
    },
    /// Single keys that stay, at most `capacity` of them: a hash table, however short the key.
    Hashed {
        /// As above.
        capacity: u32,
    },
    /// Single keys that stay, in what the kernel finds best.
    Fixed,
    /// Ranges that stay: a tree.
    Ranges,
}

const SET_INTERVAL: u32 = libc::NFT_SET_INTERVAL as u32;
const SET_TIMEOUT: u32 = libc::NFT_SET_TIMEOUT as u32;
const SET_EVAL: u32 = libc::NFT_SET_EVAL as u32;
/// How often the kernel takes what has ended out of a set. It looks at every element for it (0.12 s of a processor for a
/// million), and would each second. What has ended is found by nobody in any case, but keeps its room until then.
pub const SWEEP_INTERVAL: Duration = Duration::from_secs(10);
/// Likewise where nothing ever ends.
const NO_SWEEP: Duration = Duration::from_secs(24 * 3600);

/// `NFT_MSG_NEWSET`. `id` tells the new sets of one batch apart.
pub fn set(message: &mut Encoder, table: &str, set: &Set, id: u32) {
    self::table(message, table);
    message.text(2, &set.name);
    let (flags, hash) = match set.elements {
        Elements::Timed { capacity } => (SET_TIMEOUT, Some((capacity, SWEEP_INTERVAL))),
        Elements::Learnt { capacity } => (SET_TIMEOUT | SET_EVAL, Some((capacity, SWEEP_INTERVAL))),
        // The kernel keeps short keys in a bitmap with a list, which it walks to its end for each element that is added,
        // unless they may have times.
        Elements::Hashed { capacity } => (SET_TIMEOUT, Some((capacity, NO_SWEEP))),
        Elements::Fixed => (0, None),
        Elements::Ranges => (SET_INTERVAL, None),
    };
    message.be32(3, flags);
    message.be32(4, set.key.datatype());
    message.be32(5, u32::from(set.key.length()));
    message.be32(10, id);
    if let Some((capacity, sweep_interval)) = hash {
        message.nest(9, |description| description.be32(1, capacity));
        message.be32(12, u32::try_from(sweep_interval.as_millis()).unwrap_or(u32::MAX));
    }
    if set.key == Key::Interface {
        message.attribute(13, &user_data_of_names());
    }
}

/// What `nft` notes of a set whose keys are in host order (`NFTNL_UDATA_SET_KEYBYTEORDER`, `BYTEORDER_HOST_ENDIAN`; the
/// kernel keeps it only). Without it `nft` prints every name as "", which it takes from nobody who restores a ruleset.
fn user_data_of_names() -> [u8; 6] {
    let [a, b, c, d] = 1_u32.to_ne_bytes();
    [0, 4, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::message::Messages;

    fn encoded(kind: Kind, fill: impl FnOnce(&mut Encoder)) -> Vec<u8> {
        let mut encoder = Encoder::default();
        encoder.message(kind.number(), kind.flags(), 1, fill);
        encoder.finish().unwrap()
    }

    #[test]
    fn a_set_is_encoded_as_the_kernel_reads_it() {
        let capacity = 100;
        for (elements, flags, size, sweep) in [
            (Elements::Timed { capacity }, 0x10, Some(capacity), Some(10_000)),
            (Elements::Learnt { capacity }, 0x30, Some(capacity), Some(10_000)),
            (Elements::Hashed { capacity }, 0x10, Some(capacity), Some(86_400_000)),
            (Elements::Fixed, 0, None, None),
            (Elements::Ranges, 4, None, None),
        ] {
            let blocked = Set { name: "blocked6".to_owned(), key: Key::Address(Family::Ipv6), elements };
            let bytes = encoded(Kind::NewSet, |message| set(message, "t", &blocked, 3));
            let message = Messages(&bytes).next().unwrap().unwrap();
            assert_eq!(message.kind, 0x0a09);
            let attributes = attributes(&message).unwrap();
            assert_eq!(attributes.find(2).unwrap().text(), "blocked6");
            let number = |kind| attributes.find(kind).and_then(|attribute| attribute.be32());
            assert_eq!(
                [number(3), number(4), number(5), number(10)],
                [Some(flags), Some(8), Some(16), Some(3)]
            );
            let description = attributes.find(9).map(|description| description.nested());
            assert_eq!(description.and_then(|it| it.find(1)?.be32()), size);
            assert_eq!(number(12), sweep);
        }
    }
}
