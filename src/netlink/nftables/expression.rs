//! The expressions that rules are made of. Each works on one register, as `nft` writes them.
//!
//! Pure; the helper builds its rules of them. A rule reads: load something, compare or look it up, decide.
#![forbid(unsafe_code)]

use std::time::Duration;

use super::element;
use crate::netlink::message::Encoder;

/// `NFT_REG_1`: 16 bytes, wide enough for an IPv6 address.
const REGISTER: u32 = 1;
/// `NFT_REG_VERDICT`.
const VERDICT_REGISTER: u32 = 0;
/// `NFT_PAYLOAD_NETWORK_HEADER`.
const NETWORK_HEADER: u32 = 1;
/// `NFT_PAYLOAD_TRANSPORT_HEADER`. Not there in a later fragment: the rule ends.
const TRANSPORT_HEADER: u32 = 2;
/// `NFTA_FIB_F_DADDR`.
const FIB_DESTINATION: u32 = 1 << 1;
/// `NFT_FIB_RESULT_ADDRTYPE`.
const FIB_ADDRESS_TYPE: u32 = 3;
/// `NFT_SOCKET_TRANSPARENT`.
const SOCKET_TRANSPARENT: u32 = 0;
/// `NFT_LIMIT_F_INV`: the rule goes on once the limit is exceeded.
const LIMIT_EXCEEDED: u32 = 1;
/// `NFT_LOOKUP_F_INV`.
const LOOKUP_INVERTED: u32 = 1;

/// One step of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expression {
    /// Load what the kernel knows about the packet: an `NFT_META_*` key.
    Meta(u32),
    /// Load bytes of the network header.
    Network {
        /// Where they begin.
        offset: u32,
        /// How many, at most 16.
        length: u32,
    },
    /// Load bytes of the transport header.
    Transport {
        /// Where they begin.
        offset: u32,
        /// How many, at most 16.
        length: u32,
    },
    /// Load how the host routes the destination: an `RTN_*` number, 4 bytes in host order. Needs `CONFIG_NFT_FIB_INET`.
    DestinationType,
    /// Load whether the local socket that takes the packet in may have foreign addresses, one byte, 0 or 1; told of every
    /// socket, half-open and closing ones too; without one the rule ends. Needs `CONFIG_NFT_SOCKET` (Linux 4.18).
    SocketIsTransparent,
    /// Keep the bits of this mask.
    Mask(Vec<u8>),
    /// Go on only if the loaded bytes compare so with these.
    Compare(Comparison, Vec<u8>),
    /// Go on only if the loaded key is in this set.
    Lookup(String),
    /// Go on only if it is not.
    LookupNot(String),
    /// Go on only if more packets come this way than so many a minute, and as many at once.
    OverLimit {
        /// Packets a minute.
        per_minute: u32,
    },
    /// Put the loaded key into this set for so long, unless it is there; if the set is full, the rule ends.
    Remember(String, Duration),
    /// Count packets and bytes that come this far.
    Counter,
    /// Decide.
    Verdict(Verdict),
}

/// How loaded bytes must compare: `NFT_CMP_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Comparison {
    /// They are these.
    Equal = 0,
    /// They are others.
    Other = 1,
    /// As a number in network order they are at most this.
    AtMost = 3,
    /// As a number in network order they are at least this.
    AtLeast = 5,
}

/// What becomes of the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is gone.
    Drop,
    /// No rule of this base chain, and of those it jumped to, looks at it further.
    Accept,
    /// Back to the chain we came from; from a base chain: its policy, accept.
    Return,
    /// On to a chain, and back here if that returns.
    Jump(&'static str),
}

/// `NFT_META_NFPROTO`: [`libc::NFPROTO_IPV4`] or [`libc::NFPROTO_IPV6`], one byte.
pub const META_PROTOCOL: u32 = libc::NFT_META_NFPROTO as u32;
/// `NFT_META_IIF`: the input interface's index, 4 bytes in host order.
pub const META_INPUT: u32 = libc::NFT_META_IIF as u32;
/// `NFT_META_IIFNAME`: the input interface's name, 16 bytes filled up with zeros.
pub const META_INPUT_NAME: u32 = libc::NFT_META_IIFNAME as u32;
/// `NFT_META_IIFKIND` (Linux 4.20; the libc crate has none): what kind of link the input interface is, 16 bytes filled up
/// with zeros. Of hardware the rule ends.
pub const META_INPUT_KIND: u32 = 26;
/// `NFT_META_L4PROTO`: the transport protocol, one byte; IPv6 extension headers are skipped.
pub const META_TRANSPORT: u32 = libc::NFT_META_L4PROTO as u32;

impl Expression {
    /// Go on only if the loaded bytes are these.
    pub fn equals(bytes: &[u8]) -> Expression {
        Expression::Compare(Comparison::Equal, bytes.to_vec())
    }

    /// Appends the expression to a rule's list.
    pub fn encode(&self, list: &mut Encoder) {
        list.nest(1, |expression| {
            expression.text(1, self.name());
            expression.nest(2, |fields| self.encode_fields(fields));
        });
    }

    const fn name(&self) -> &'static str {
        match self {
            Expression::Meta(_) => "meta",
            Expression::Network { .. } | Expression::Transport { .. } => "payload",
            Expression::DestinationType => "fib",
            Expression::SocketIsTransparent => "socket",
            Expression::Mask(_) => "bitwise",
            Expression::Compare(..) => "cmp",
            Expression::Lookup(_) | Expression::LookupNot(_) => "lookup",
            Expression::OverLimit { .. } => "limit",
            Expression::Remember(..) => "dynset",
            Expression::Counter => "counter",
            Expression::Verdict(_) => "immediate",
        }
    }

    fn encode_fields(&self, fields: &mut Encoder) {
        match self {
            Expression::Meta(key) => numbers(fields, &[(1, REGISTER), (2, *key)]),
            Expression::Network { offset, length } => {
                numbers(fields, &[(1, REGISTER), (2, NETWORK_HEADER), (3, *offset), (4, *length)]);
            }
            Expression::Transport { offset, length } => {
                numbers(fields, &[(1, REGISTER), (2, TRANSPORT_HEADER), (3, *offset), (4, *length)]);
            }
            Expression::DestinationType => {
                numbers(fields, &[(1, REGISTER), (2, FIB_ADDRESS_TYPE), (3, FIB_DESTINATION)]);
            }
            Expression::SocketIsTransparent => numbers(fields, &[(1, SOCKET_TRANSPARENT), (2, REGISTER)]),
            Expression::Mask(mask) => encode_mask(fields, mask),
            Expression::Compare(comparison, bytes) => {
                numbers(fields, &[(1, REGISTER), (2, *comparison as u32)]);
                value(fields, 3, bytes);
            }
            Expression::Lookup(set) => encode_lookup(fields, set, 0),
            Expression::LookupNot(set) => encode_lookup(fields, set, LOOKUP_INVERTED),
            Expression::OverLimit { per_minute } => encode_limit(fields, *per_minute),
            Expression::Remember(set, time) => {
                fields.text(1, set);
                numbers(fields, &[(3, libc::NFT_DYNSET_OP_ADD as u32), (4, REGISTER)]);
                fields.be64(6, element::milliseconds(*time));
            }
            Expression::Counter => {}
            Expression::Verdict(verdict) => encode_verdict(fields, *verdict),
        }
    }
}

fn numbers(fields: &mut Encoder, pairs: &[(u16, u32)]) {
    pairs.iter().for_each(|(kind, number)| fields.be32(*kind, *number));
}

/// `NFTA_DATA_VALUE` in a nest of its own.
fn value(fields: &mut Encoder, kind: u16, bytes: &[u8]) {
    fields.nest(kind, |data| data.attribute(1, bytes));
}

fn encode_lookup(fields: &mut Encoder, set: &str, flags: u32) {
    fields.text(1, set);
    numbers(fields, &[(2, REGISTER), (5, flags)]);
}

/// A bucket of a minute's worth, counted in packets (`NFT_LIMIT_PKTS`).
fn encode_limit(fields: &mut Encoder, per_minute: u32) {
    fields.be64(1, per_minute.into());
    fields.be64(2, 60);
    numbers(fields, &[(3, per_minute), (4, libc::NFT_LIMIT_PKTS as u32), (5, LIMIT_EXCEEDED)]);
}

/// `register = register & mask ^ 0`: the kernel has no plain "and".
fn encode_mask(fields: &mut Encoder, mask: &[u8]) {
    let length = u32::try_from(mask.len()).unwrap_or(u32::MAX);
    numbers(fields, &[(1, REGISTER), (2, REGISTER), (3, length)]);
    value(fields, 4, mask);
    value(fields, 5, &vec![0; mask.len()]);
}

fn encode_verdict(fields: &mut Encoder, verdict: Verdict) {
    let (code, chain) = match verdict {
        Verdict::Drop => (libc::NF_DROP, None),
        Verdict::Accept => (libc::NF_ACCEPT, None),
        Verdict::Return => (libc::NFT_RETURN, None),
        Verdict::Jump(chain) => (libc::NFT_JUMP, Some(chain)),
    };
    fields.be32(1, VERDICT_REGISTER);
    fields.nest(2, |data| {
        data.nest(2, |verdict| {
            verdict.attribute(1, &code.to_be_bytes());
            if let Some(chain) = chain {
                verdict.text(2, chain);
            }
        });
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::message::Attributes;

    fn fields(expression: &Expression) -> (String, Vec<u8>) {
        let mut encoder = Encoder::default();
        expression.encode(&mut encoder);
        let bytes = encoder.finish().unwrap();
        let inner = Attributes(&bytes).next().unwrap().nested();
        (inner.find(1).unwrap().text(), inner.find(2).unwrap().payload.to_vec())
    }

    #[test]
    fn a_lookup_names_its_set_and_source_register() {
        let (name, bytes) = fields(&Expression::Lookup("blocked4".to_owned()));
        assert_eq!(name, "lookup");
        assert_eq!(Attributes(&bytes).find(1).unwrap().text(), "blocked4");
        assert_eq!(Attributes(&bytes).find(2).unwrap().be32(), Some(1));
    }

    #[test]
    fn a_jump_carries_its_code_and_chain() {
        let (name, bytes) = fields(&Expression::Verdict(Verdict::Jump("prefixes")));
        let verdict = Attributes(&bytes).find(2).unwrap().nested().find(2).unwrap().nested();
        assert_eq!(name, "immediate");
        assert_eq!(verdict.find(1).unwrap().be32(), Some(-3_i32 as u32));
        assert_eq!(verdict.find(2).unwrap().text(), "prefixes");
    }

    #[test]
    fn a_mask_changes_only_the_bits_it_clears() {
        let (_, bytes) = fields(&Expression::Mask(vec![0xff, 0xff, 0, 0]));
        let data = |kind| Attributes(&bytes).find(kind).unwrap().nested().find(1).unwrap().payload.to_vec();
        assert_eq!((data(4), data(5)), (vec![0xff, 0xff, 0, 0], vec![0; 4]));
    }
}
