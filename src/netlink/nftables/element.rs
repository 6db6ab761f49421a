//! Elements of sets: what is blocked and for how long, what is never blocked.
//!
//! Pure; the helper sends and reads them. Times on the wire are milliseconds, 64 bits in network order.
#![forbid(unsafe_code)]

use std::net::IpAddr;
use std::time::Duration;

use crate::netlink::message::{self, Attributes, Encoder, Message};

/// So many elements fit one message: the list's length field has 16 bits, and an element takes 48 bytes at most.
pub const ELEMENTS_PER_MESSAGE: usize = 512;
/// `NFT_SET_ELEM_INTERVAL_END`.
const INTERVAL_END: u32 = libc::NFT_SET_ELEM_INTERVAL_END as u32;
/// The longest time we ask for (136 years): the kernel's own limit is further off, and fits its tick counter.
const LONGEST: Duration = Duration::from_secs(u32::MAX as u64);

/// One element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    /// A key in a timed set; `None`: for ever.
    Timed(IpAddr, Option<Duration>),
    /// The first address of a range.
    RangeFirst(IpAddr),
    /// The first address behind a range.
    RangeEnd(IpAddr),
    /// A port.
    Port(u16),
    /// An interface's name, filled up with zeros.
    Interface([u8; 16]),
}

/// `NFT_MSG_NEWSETELEM`, `DELSETELEM`: these elements of a set; deleting none of them deletes all.
pub fn elements(message: &mut Encoder, table: &str, set: &str, elements: &[Element]) {
    super::table(message, table);
    message.text(2, set);
    if !elements.is_empty() {
        message.nest(3, |list| elements.iter().for_each(|element| element.encode(list)));
    }
}

impl Element {
    fn encode(&self, list: &mut Encoder) {
        list.nest(1, |element| match *self {
            Element::Timed(key, time) => {
                encode_key(element, key);
                if let Some(time) = time {
                    element.be64(4, milliseconds(time));
                }
            }
            Element::RangeFirst(key) => encode_key(element, key),
            Element::RangeEnd(key) => {
                element.be32(3, INTERVAL_END);
                encode_key(element, key);
            }
            Element::Port(port) => encode_bytes(element, &port.to_be_bytes()),
            Element::Interface(name) => encode_bytes(element, &name),
        });
    }
}

fn encode_key(element: &mut Encoder, key: IpAddr) {
    match key {
        IpAddr::V4(key) => encode_bytes(element, &key.octets()),
        IpAddr::V6(key) => encode_bytes(element, &key.octets()),
    }
}

fn encode_bytes(element: &mut Encoder, key: &[u8]) {
    element.nest(1, |data| data.attribute(1, key));
}

/// As the kernel takes a time. Never 0, which would mean "for ever".
pub(super) fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.min(LONGEST).as_millis()).unwrap_or(u64::MAX).max(1)
}

/// The keys of a received list and how long each still has.
pub fn decode(message: &Message<'_>) -> impl Iterator<Item = (IpAddr, Option<Duration>)> {
    let list = super::attributes(message).and_then(|attributes| attributes.find(3));
    let list = list.map_or(Attributes(&[]), |list| list.nested());
    list.filter_map(|element| decode_one(element.nested()))
}

fn decode_one(element: Attributes<'_>) -> Option<(IpAddr, Option<Duration>)> {
    let key = message::address(element.find(1)?.nested().find(1)?.payload)?;
    let expiration = element.find(5).and_then(|attribute| attribute.be64());
    Some((key, expiration.map(Duration::from_millis)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::message::Messages;
    use proptest::prelude::*;

    fn encoded(list: &[Element]) -> Vec<u8> {
        let mut encoder = Encoder::default();
        encoder.message(0, 0, 1, |message| elements(message, "portsentry", "blocked6_127", list));
        encoder.finish().unwrap()
    }

    #[test]
    fn the_largest_elements_fit_one_message() {
        let longest = Element::Timed("ffff::1".parse().unwrap(), Some(Duration::MAX));
        let bytes = encoded(&[longest; ELEMENTS_PER_MESSAGE]);
        assert_eq!(decode(&Messages(&bytes).next().unwrap().unwrap()).count(), ELEMENTS_PER_MESSAGE);
    }

    #[test]
    fn a_time_is_never_rounded_to_for_ever() {
        assert_eq!(milliseconds(Duration::ZERO), 1);
        assert_eq!(milliseconds(Duration::from_micros(999)), 1);
        assert_eq!(milliseconds(Duration::from_secs(2)), 2000);
        assert_eq!(milliseconds(Duration::MAX), u64::from(u32::MAX) * 1000);
    }

    proptest! {
        #[test]
        fn any_list_of_elements_is_read_without_a_panic(payload in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode(&Message { kind: 0, flags: 0, sequence: 0, payload: &payload }).count();
        }
    }
}
