//! Lists in a value: the items between separators, each with its place.
#![forbid(unsafe_code)]

/// The items of `text` between `separators`, without blanks round them, each with its offset in bytes. Empty items
/// are left out, as PortSentry does.
pub fn items<'a>(text: &'a str, separators: &'a [char]) -> impl Iterator<Item = (usize, &'a str)> {
    let mut next = 0;
    text.split(separators).filter_map(move |piece| {
        let begin = next;
        // Every separator in use is one byte long.
        next += piece.len() + 1;
        let item = piece.trim();
        let blanks = piece.len() - piece.trim_start().len();
        (!item.is_empty()).then_some((begin + blanks, item))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_carry_their_offsets_and_empty_ones_are_left_out() {
        let found: Vec<_> = items(" a,,b c ,", &[',']).collect();
        assert_eq!(found, [(1, "a"), (4, "b c")]);
        assert_eq!(items("  ", &[',', ' ']).count(), 0);
    }
}
