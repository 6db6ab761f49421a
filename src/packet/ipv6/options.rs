//! Which options no host takes or answers, of a chain too long to be followed.
//!
//! Pure. Says no only to what Linux drops for certain, without a word: what it answers tells a scanner something.
#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

/// RFC 8200 §4.2.
const PAD1: u8 = 0;
const PADN: u8 = 1;

/// The two high bits of an unknown option for which a packet is dropped; above are those for which it is also answered
/// (RFC 8200 §4.2).
const DROPPED: u8 = 1;

/// Padding in a row that aligns something (RFC 4942 §2.1.9.5).
const MOST_PADDING: usize = 7;

/// Whether a header of `length` bytes, which begins with `seen`, has options for which Linux drops its packet
/// (`ip6_parse_tlv`): more padding than aligns anything, padding that is not zero, one that reaches beyond the header, an
/// unknown one that says so.
#[cold]
pub(super) fn are_refused(seen: &[u8], length: usize) -> bool {
    let (mut rest, mut left) = (seen.get(2..).unwrap_or_default(), length.saturating_sub(2));
    let mut padding = 0_usize;
    while left > 0 {
        let [kind, tail @ ..] = rest else { return false };
        let size = match (*kind, tail.first()) {
            (PAD1, _) => 1,
            (_, Some(data)) => usize::from(*data).saturating_add(2),
            (_, None) => return left < 2,
        };
        if size > left {
            return true;
        }
        padding = match *kind {
            PAD1 | PADN => padding.saturating_add(size),
            other if other >> 6 == DROPPED => return true,
            _ => 0,
        };
        let data = rest.iter().take(size).skip(2);
        if padding > MOST_PADDING || padding > 0 && data.into_iter().any(|byte| *byte != 0) {
            return true;
        }
        (rest, left) = (rest.get(size..).unwrap_or_default(), left.saturating_sub(size));
    }
    false
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects)]
mod tests {
    use super::are_refused;

    fn refused(options: &[u8]) -> bool {
        are_refused(&[&[6, 0][..], options].concat(), options.len() + 2)
    }

    #[test]
    fn what_a_host_skips_or_knows_and_what_aligns_it_is_taken() {
        let skipped = [&[0x1e, 200][..], &[9; 200]].concat();
        for taken in [&skipped[..], &[0x3e, 0, 1, 5, 0, 0, 0, 0, 0], &[0; 7], &[1, 3, 0, 0, 0, 0, 0]] {
            assert!(!refused(taken), "{taken:?}");
        }
        for known_or_answered in [0xc2, 0xc9, 0x9e, 0xde] {
            assert!(!refused(&[known_or_answered, 4, 0, 1, 0, 0]));
        }
        // Each row of padding is measured by itself.
        assert!(!refused(&[1, 5, 0, 0, 0, 0, 0, 5, 0, 1, 5, 0, 0, 0, 0, 0]));
    }

    #[test]
    fn what_linux_drops_a_packet_for_is_refused() {
        for refused_one in [
            &[0; 8][..],
            &[1, 6, 0, 0, 0, 0, 0, 0],
            &[1, 4, 0, 0, 0, 0, 0, 0],
            &[1, 2, 0, 1],
            &[0x5e, 0],
            &[0x1e, 1],
            &[0x1e, 0, 0x1e],
        ] {
            assert!(refused(refused_one), "{refused_one:?}");
        }
    }

    #[test]
    fn of_a_header_that_was_cut_only_what_was_seen_is_held_against_it() {
        assert!(!are_refused(&[6, 20, 0x1e], 168) && !are_refused(&[6, 20, 0x1e, 164, 1, 2], 168));
        assert!(!are_refused(&[6], 168) && !are_refused(&[], 168));
        assert!(are_refused(&[4, 255, 1, 255, 0, 0], 2048) && are_refused(&[6, 20, 0x1e, 165], 168));
    }
}
