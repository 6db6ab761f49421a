//! The question "what is the name of this address?" to a resolver, and the answer (RFC 1035, PTR). Pure; the sensor's.
//!
//! Reading is total, and every name comes out as letters, digits, `-`, `_` and dots: its owner, who may be an attacker,
//! chose it.
#![forbid(unsafe_code)]

use std::net::IpAddr;

/// RFC 1035 §3.2.2.
const PTR: u16 = 12;
/// RFC 1035 §3.2.4: the Internet.
const IN: u16 = 1;
/// RFC 1035 §4.1.1: a standard query that asks for recursion.
const RECURSION_DESIRED: u16 = 0x0100;
const HEADER: usize = 12;
/// Jumps that a compressed name may take: each must go back, and none of ours needs more.
const JUMPS: usize = 16;
/// RFC 1035 §2.3.4.
const LONGEST_NAME: usize = 253;

/// The datagram that asks for the name of `address` under the number `id`.
pub fn question(id: u16, address: IpAddr) -> Vec<u8> {
    let header = [id, RECURSION_DESIRED, 1, 0, 0, 0];
    let mut bytes: Vec<u8> = header.iter().flat_map(|field| field.to_be_bytes()).collect();
    for label in reverse(address).split('.') {
        bytes.push(u8::try_from(label.len()).unwrap_or(0));
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.push(0);
    bytes.extend([PTR, IN].iter().flat_map(|field| field.to_be_bytes()));
    bytes
}

/// The number of the question that `bytes` answer, and the name, if the resolver knew one. `None` if it is no answer.
pub fn answer(bytes: &[u8]) -> Option<(u16, Option<String>)> {
    let (id, flags, questions, answers) =
        (word(bytes, 0)?, word(bytes, 2)?, word(bytes, 4)?, word(bytes, 6)?);
    // QR set, opcode 0, one question.
    (flags & 0xf800 == 0x8000 && questions == 1).then_some(())?;
    let first = skip_name(bytes, HEADER)?.checked_add(4)?;
    let known = flags & 0x000f == 0;
    Some((id, known.then(|| first_pointer(bytes, first, answers)).flatten()))
}

/// Whether `bytes`, an answer, repeat the question for `address`: one that does not was meant for somebody else.
pub fn is_about(bytes: &[u8], address: IpAddr) -> bool {
    let asked = question(0, address);
    let same = |(at, byte): (usize, &u8)| bytes.get(at).is_some_and(|other| other.eq_ignore_ascii_case(byte));
    asked.iter().enumerate().skip(HEADER).all(same)
}

/// RFC 1035 §3.5 and RFC 3596 §2.5.
fn reverse(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(address) => {
            let nibbles = address.octets().into_iter().rev().flat_map(|octet| [octet & 15, octet >> 4]);
            let mut text: String = nibbles.map(|nibble| format!("{nibble:x}.")).collect();
            text.push_str("ip6.arpa");
            text
        }
    }
}

/// Other records (a CNAME of RFC 2317, a signature) are passed over.
fn first_pointer(bytes: &[u8], mut at: usize, answers: u16) -> Option<String> {
    for _ in 0..answers.min(32) {
        let fixed = skip_name(bytes, at)?;
        let (kind, class) = (word(bytes, fixed)?, word(bytes, fixed.checked_add(2)?)?);
        let data = fixed.checked_add(10)?;
        if (kind, class) == (PTR, IN) {
            return name(bytes, data).filter(|name| !name.is_empty());
        }
        at = data.checked_add(word(bytes, fixed.checked_add(8)?)?.into())?;
    }
    None
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn skip_name(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *bytes.get(at)? {
            0 => return at.checked_add(1),
            length if length < 0x40 => at = at.checked_add(usize::from(length) + 1)?,
            pointer if pointer >= 0xc0 => return at.checked_add(2),
            _ => return None,
        }
    }
}

fn name(bytes: &[u8], mut at: usize) -> Option<String> {
    let (mut text, mut jumps) = (String::new(), 0);
    loop {
        match *bytes.get(at)? {
            0 => return Some(text),
            length if length < 0x40 => {
                let begin = at.checked_add(1)?;
                at = begin.checked_add(length.into())?;
                let label = bytes.get(begin..at)?;
                (text.len() + label.len() < LONGEST_NAME).then_some(())?;
                if !text.is_empty() {
                    text.push('.');
                }
                text.extend(label.iter().map(|&byte| plain(byte)));
            }
            pointer if pointer >= 0xc0 => {
                jumps += 1;
                (jumps <= JUMPS).then_some(())?;
                at = usize::from(word(bytes, at)? & 0x3fff);
            }
            _ => return None,
        }
    }
}

fn plain(byte: u8) -> char {
    if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') { char::from(byte) } else { '?' }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn answered(id: u16, address: &str, labels: &[&[u8]]) -> Vec<u8> {
        let mut bytes = question(id, address.parse().unwrap());
        bytes[2..4].copy_from_slice(&[0x81, 0x80]);
        bytes[7] = 1;
        bytes.extend([0xc0, 12, 0, 12, 0, 1, 0, 0, 0, 60]);
        let data: Vec<u8> =
            labels.iter().flat_map(|label| [&[label.len() as u8], *label].concat()).chain([0]).collect();
        bytes.extend((data.len() as u16).to_be_bytes());
        bytes.extend(data);
        bytes
    }

    #[test]
    fn a_question_reads_the_address_backwards() {
        let text = |address: &str| reverse(address.parse().unwrap());
        assert_eq!(text("192.0.2.7"), "7.2.0.192.in-addr.arpa");
        assert!(
            text("2001:db8::7").starts_with("7.0.0.0.")
                && text("2001:db8::7").ends_with("8.b.d.0.1.0.0.2.ip6.arpa")
        );
    }

    #[test]
    fn the_name_in_an_answer_is_found_and_cleaned() {
        let bytes = answered(7, "192.0.2.7", &[b"scan", b"example", b"org"]);
        assert_eq!(answer(&bytes), Some((7, Some("scan.example.org".into()))));
        assert!(is_about(&bytes, "192.0.2.7".parse().unwrap()));
        assert!(!is_about(&bytes, "192.0.2.8".parse().unwrap()));
        let evil = answered(7, "192.0.2.7", &[b"x) blocked: [true]\n", b"\xff"]);
        assert_eq!(answer(&evil), Some((7, Some("x??blocked???true??.?".into()))));
        let mut unknown = bytes.clone();
        unknown[3] |= 3;
        assert_eq!(answer(&unknown), Some((7, None)));
        assert_eq!(answer(&question(7, "192.0.2.7".parse().unwrap())), None, "a question is no answer");
    }

    #[test]
    fn a_name_that_points_at_itself_ends() {
        let mut bytes = answered(7, "192.0.2.7", &[b"a"]);
        let at = bytes.len() - 3;
        bytes[at..at + 2].copy_from_slice(&[0xc0, at as u8]);
        assert_eq!(answer(&bytes), Some((7, None)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            if let Some((_, Some(name))) = answer(&bytes) {
                prop_assert!(name.len() <= LONGEST_NAME && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.?".contains(c)));
            }
            let _ = is_about(&bytes, "192.0.2.7".parse().unwrap());
        }
    }
}
