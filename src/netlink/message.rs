//! Netlink messages and attributes to bytes and back (`linux/netlink.h`; netlink(7)).
//!
//! Pure; both roles. Writing cannot fail half-way: what does not fit its 16-bit length marks the encoder as
//! oversized. Reading is total: any bytes yield messages, attributes or an end, never a panic.
#![forbid(unsafe_code)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Length of `struct nlmsghdr`, bytes.
pub const HEADER_LENGTH: usize = 16;
const ATTRIBUTE_HEADER_LENGTH: usize = 4;
const NESTED: u16 = libc::NLA_F_NESTED as u16;
/// What is left of an attribute's type without its NESTED and NET_BYTEORDER bits.
const KIND_MASK: u16 = 0x3fff;

/// Writes messages one behind the other, as one datagram holds them.
#[derive(Debug, Default)]
pub struct Encoder {
    bytes: Vec<u8>,
    oversized: bool,
}

impl Encoder {
    /// Appends a message; `fill` writes its family header and attributes.
    pub fn message(&mut self, kind: u16, flags: u16, sequence: u32, fill: impl FnOnce(&mut Encoder)) {
        let start = self.bytes.len();
        // struct nlmsghdr: length, type (2), flags (2), sequence, sender (0: the kernel fills it in).
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&flags.to_ne_bytes());
        self.bytes.extend_from_slice(&sequence.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        fill(self);
        let length = u32::try_from(self.bytes.len().saturating_sub(start));
        self.oversized |= length.is_err();
        self.overwrite(start, &length.unwrap_or(u32::MAX).to_ne_bytes());
    }

    /// Appends raw bytes, padded to four: a family header.
    pub fn put(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    /// Appends an attribute with this payload.
    pub fn attribute(&mut self, kind: u16, payload: &[u8]) {
        self.framed(kind, |encoder| encoder.bytes.extend_from_slice(payload));
    }

    /// Appends an attribute holding a 32-bit number in network order, as nf_tables wants every number.
    pub fn be32(&mut self, kind: u16, value: u32) {
        self.attribute(kind, &value.to_be_bytes());
    }

    /// Appends an attribute holding a 64-bit number in network order.
    pub fn be64(&mut self, kind: u16, value: u64) {
        self.attribute(kind, &value.to_be_bytes());
    }

    /// Appends an attribute holding a zero-terminated string.
    pub fn text(&mut self, kind: u16, value: &str) {
        self.framed(kind, |encoder| {
            encoder.bytes.extend_from_slice(value.as_bytes());
            encoder.bytes.push(0);
        });
    }

    /// Appends an attribute that holds the attributes that `fill` writes.
    pub fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Encoder)) {
        self.framed(kind | NESTED, fill);
    }

    /// What was written, or `None` if an attribute or message outgrew its length field.
    pub fn finish(self) -> Option<Vec<u8>> {
        (!self.oversized).then_some(self.bytes)
    }

    fn framed(&mut self, kind: u16, fill: impl FnOnce(&mut Encoder)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        fill(self);
        let length = u16::try_from(self.bytes.len().saturating_sub(start));
        self.oversized |= length.is_err();
        self.overwrite(start, &length.unwrap_or(u16::MAX).to_ne_bytes());
        self.put(&[]);
    }

    fn overwrite(&mut self, at: usize, bytes: &[u8]) {
        let old = self.bytes.iter_mut().skip(at);
        old.zip(bytes).for_each(|(old, new)| *old = *new);
    }
}

/// A message as it was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// `nlmsg_type`.
    pub kind: u16,
    /// `nlmsg_flags`.
    pub flags: u16,
    /// `nlmsg_seq`: the request's number; 0 for notifications.
    pub sequence: u32,
    /// Family header and attributes.
    pub payload: &'a [u8],
}

impl<'a> Message<'a> {
    /// The first `N` bytes of the payload (the family header) and the attributes behind them.
    pub fn split<const N: usize>(&self) -> Option<(&'a [u8; N], Attributes<'a>)> {
        let (header, _) = self.payload.split_first_chunk::<N>()?;
        let attributes = self.payload.get(N.next_multiple_of(4)..).unwrap_or_default();
        Some((header, Attributes(attributes)))
    }

    /// `NLMSG_ERROR`'s number as a positive errno, 0 for an acknowledgement; `None` for other messages.
    /// `NLMSG_DONE` may carry one too.
    pub fn errno(&self) -> Option<i32> {
        match i32::from(self.kind) {
            libc::NLMSG_ERROR => {
                // A truncated error is an error all the same.
                Some(
                    self.payload
                        .first_chunk()
                        .map_or(libc::EPROTO, |raw| i32::from_ne_bytes(*raw).saturating_neg()),
                )
            }
            libc::NLMSG_DONE => {
                Some(self.payload.first_chunk().map_or(0, |raw| i32::from_ne_bytes(*raw).saturating_neg()))
            }
            _ => None,
        }
    }
}

/// A length field that does not fit what was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the kernel sent a malformed netlink message")]
pub struct Malformed;

/// The messages of one received datagram; ends after the first malformed one.
#[derive(Clone, Debug)]
pub struct Messages<'a>(pub &'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Result<Message<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let Some((message, rest)) = first_message(self.0) else {
            self.0 = &[];
            return Some(Err(Malformed));
        };
        self.0 = rest;
        Some(Ok(message))
    }
}

fn first_message(bytes: &[u8]) -> Option<(Message<'_>, &[u8])> {
    let length = usize::try_from(u32::from_ne_bytes(*bytes.first_chunk()?)).ok()?;
    let message = Message {
        kind: u16::from_ne_bytes(*bytes.get(4..)?.first_chunk()?),
        flags: u16::from_ne_bytes(*bytes.get(6..)?.first_chunk()?),
        sequence: u32::from_ne_bytes(*bytes.get(8..)?.first_chunk()?),
        payload: bytes.get(HEADER_LENGTH..length)?,
    };
    Some((message, after(bytes, length)))
}

/// What follows an item of `length` bytes and its padding; the last one's padding may be missing.
fn after(bytes: &[u8], length: usize) -> &[u8] {
    length.checked_next_multiple_of(4).and_then(|padded| bytes.get(padded..)).unwrap_or_default()
}

/// One attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attribute<'a> {
    /// Its type, without the two flag bits.
    pub kind: u16,
    /// Its content.
    pub payload: &'a [u8],
}

impl<'a> Attribute<'a> {
    /// The first byte.
    pub fn byte(&self) -> Option<u8> {
        self.payload.first().copied()
    }

    /// A 32-bit number in host order.
    pub fn ne32(&self) -> Option<u32> {
        self.payload.first_chunk().map(|raw| u32::from_ne_bytes(*raw))
    }

    /// A 32-bit number in network order.
    pub fn be32(&self) -> Option<u32> {
        self.payload.first_chunk().map(|raw| u32::from_be_bytes(*raw))
    }

    /// A 64-bit number in network order.
    pub fn be64(&self) -> Option<u64> {
        self.payload.first_chunk().map(|raw| u64::from_be_bytes(*raw))
    }

    /// A string, up to its first zero byte; what is not UTF-8 is replaced.
    pub fn text(&self) -> String {
        let text = self.payload.split(|byte| *byte == 0).next().unwrap_or_default();
        String::from_utf8_lossy(text).into_owned()
    }

    /// An address of 4 or 16 bytes.
    pub fn address(&self) -> Option<IpAddr> {
        address(self.payload)
    }

    /// The attributes inside.
    pub fn nested(&self) -> Attributes<'a> {
        Attributes(self.payload)
    }
}

/// An address of exactly 4 or 16 bytes in network order.
pub fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(|raw| IpAddr::V4(Ipv4Addr::from(raw)));
    let v6 = <[u8; 16]>::try_from(bytes).map(|raw| IpAddr::V6(Ipv6Addr::from(raw)));
    v4.or(v6).ok()
}

/// A row of attributes; ends at the first that does not fit.
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'a>(pub &'a [u8]);

impl<'a> Attributes<'a> {
    /// The first attribute of this kind.
    pub fn find(mut self, kind: u16) -> Option<Attribute<'a>> {
        Iterator::find(&mut self, |attribute| attribute.kind == kind)
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Attribute<'a>;

    fn next(&mut self) -> Option<Attribute<'a>> {
        let length = usize::from(u16::from_ne_bytes(*self.0.first_chunk()?));
        let kind = u16::from_ne_bytes(*self.0.get(2..)?.first_chunk()?) & KIND_MASK;
        let payload = self.0.get(ATTRIBUTE_HEADER_LENGTH..length)?;
        self.0 = after(self.0, length);
        Some(Attribute { kind, payload })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Touches everything that can be read.
    fn read_all(bytes: &[u8]) -> usize {
        let messages = Messages(bytes).map_while(Result::ok);
        messages.map(|message| message.errno().unwrap_or(0) as usize & 1 | read_attributes(message)).sum()
    }

    fn read_attributes(message: Message<'_>) -> usize {
        let Some((_, attributes)) = message.split::<4>() else { return 0 };
        let read = |attribute: Attribute<'_>| {
            let _ =
                (attribute.byte(), attribute.ne32(), attribute.be32(), attribute.be64(), attribute.address());
            attribute.text().len() + attribute.nested().count()
        };
        attributes.map(read).sum()
    }

    #[test]
    fn what_was_written_is_read_back_with_nesting_and_padding() {
        let mut encoder = Encoder::default();
        encoder.message(7, 5, 42, |message| {
            message.put(&[1, 2, 3, 4]);
            message.text(1, "odd!");
            message.nest(2, |list| list.be64(3, 99));
        });
        encoder.message(8, 0, 43, |message| message.put(&[0; 4]));
        let bytes = encoder.finish().unwrap();
        let messages: Vec<Message<'_>> = Messages(&bytes).collect::<Result<_, _>>().unwrap();
        assert_eq!(
            messages.iter().map(|m| (m.kind, m.flags, m.sequence)).collect::<Vec<_>>(),
            [(7, 5, 42), (8, 0, 43)]
        );
        let (header, attributes) = messages[0].split::<4>().unwrap();
        assert_eq!((header, attributes.count()), (&[1, 2, 3, 4], 2));
        assert_eq!(attributes.find(1).unwrap().text(), "odd!");
        assert_eq!(attributes.find(2).unwrap().nested().find(3).unwrap().be64(), Some(99));
    }

    #[test]
    fn an_attribute_that_outgrows_its_length_field_is_refused() {
        let mut encoder = Encoder::default();
        encoder.message(1, 0, 1, |message| message.attribute(1, &[0; 70_000]));
        assert_eq!(encoder.finish(), None);
    }

    #[test]
    fn a_length_that_lies_ends_the_datagram() {
        for length in [0_u32, 3, 15, 17, u32::MAX] {
            let mut bytes = [0_u8; 16];
            bytes[..4].copy_from_slice(&length.to_ne_bytes());
            assert_eq!(Messages(&bytes).collect::<Vec<_>>(), [Err(Malformed)], "{length}");
        }
    }

    #[test]
    fn an_error_number_is_given_positive() {
        let payload = (-libc::ENOENT).to_ne_bytes();
        let message = |kind: i32, payload| Message { kind: kind as u16, flags: 0, sequence: 1, payload };
        assert_eq!(message(libc::NLMSG_ERROR, &payload).errno(), Some(libc::ENOENT));
        assert_eq!(message(libc::NLMSG_ERROR, &[]).errno(), Some(libc::EPROTO));
        assert_eq!(message(libc::NLMSG_DONE, &[]).errno(), Some(0));
        assert_eq!(message(16, &payload).errno(), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            read_all(&bytes);
        }

        #[test]
        fn any_damage_to_a_good_message_is_read_without_a_panic(at in 0_usize..64, byte in any::<u8>(), cut in 0_usize..64) {
            let mut encoder = Encoder::default();
            encoder.message(2, 0, 1, |message| {
                message.put(&[0; 4]);
                message.nest(1, |list| { list.be32(1, 5); list.text(2, "name"); });
                message.be64(3, 7);
            });
            let mut bytes = encoder.finish().unwrap();
            if let Some(old) = bytes.get_mut(at) { *old = byte }
            bytes.truncate(bytes.len() - cut.min(bytes.len()));
            read_all(&bytes);
        }
    }
}
