//! Lengths of time as fail2ban's users write them: `30`, `10m`, `1h30m`, `7d`, `2w`, and `-1` for ever.
#![forbid(unsafe_code)]

use super::error::Fault;

/// "For ever" in seconds: the longest time that a frame can carry, 136 years. Sums and products with it must saturate.
pub const FOREVER: u32 = u32::MAX;

const UNITS: [(&str, u32); 5] = [("s", 1), ("m", 60), ("h", 3_600), ("d", 86_400), ("w", 604_800)];

/// Seconds in `text`: numbers with units `s m h d w`, seconds without one; several add up (`1d 12h`). `-1` and
/// `forever` are [`FOREVER`]. 0 is refused: whether it means "never" or "for ever" is anybody's guess.
pub fn parse_duration(text: &str) -> Result<u32, Fault> {
    if matches!(text.trim(), "-1" | "forever") {
        return Ok(FOREVER);
    }
    let (mut seconds, mut rest) = (0_u32, text.trim());
    let mut offset = text.len() - text.trim_start().len();
    while !rest.is_empty() {
        let (part, used) = leading_part(rest).map_err(|fault| fault.shifted(offset))?;
        seconds = seconds.checked_add(part).ok_or_else(too_long).map_err(|fault| fault.shifted(offset))?;
        offset += used;
        rest = rest.get(used..).unwrap_or("");
    }
    match seconds {
        0 => Err(Fault::new(0, "0 is no length of time; write a time like 1h, or -1 for ever")),
        seconds => Ok(seconds),
    }
}

/// One number with its unit at the head of `text`: seconds, and bytes used together with the blanks after it.
fn leading_part(text: &str) -> Result<(u32, usize), Fault> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, after) = text.split_at(digits);
    let letters = after.find(|c: char| !c.is_alphabetic()).unwrap_or(after.len());
    let (unit, rest) = after.split_at(letters);
    let Some(factor) = unit_seconds(unit) else {
        return Err(Fault::new(digits, format!("unknown unit `{unit}`; units are s, m, h, d and w")));
    };
    if number.is_empty() {
        return Err(Fault::new(0, "expected a time like 30s, 10m, 1h or 7d, or -1 for ever"));
    }
    let seconds =
        number.parse().ok().and_then(|number: u32| number.checked_mul(factor)).ok_or_else(too_long)?;
    Ok((seconds, text.len() - rest.trim_start().len()))
}

fn unit_seconds(unit: &str) -> Option<u32> {
    match unit {
        "" => Some(1),
        unit => UNITS.iter().find(|(name, _)| *name == unit).map(|(_, seconds)| *seconds),
    }
}

fn too_long() -> Fault {
    Fault::new(0, "this time is longer than 136 years; write -1 for ever")
}

/// `seconds` in the form that [`parse_duration`] reads.
pub fn show_duration(seconds: u32) -> String {
    if seconds == FOREVER {
        return "forever".into();
    }
    // Weeks are read but not shown: somebody who wrote 7d shall find 7d.
    let whole = UNITS.iter().rev().skip(1).find(|(_, unit)| seconds.is_multiple_of(*unit));
    whole.map_or_else(|| format!("{seconds}s"), |(name, unit)| format!("{}{name}", seconds / unit))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_are_read_as_fail2bans_users_write_them() {
        for (text, seconds) in [
            ("30", 30),
            ("30s", 30),
            ("10m", 600),
            (" 1h ", 3_600),
            ("7d", 604_800),
            ("2w", 1_209_600),
            ("1d 12h", 129_600),
            ("1h30m", 5_400),
            ("-1", FOREVER),
            ("forever", FOREVER),
        ] {
            assert_eq!(parse_duration(text), Ok(seconds), "{text}");
        }
    }

    #[test]
    fn a_wrong_time_is_refused_where_it_goes_wrong() {
        for (text, offset) in [
            ("", 0),
            ("0", 0),
            ("0h", 0),
            ("5x", 1),
            ("1h 5y", 4),
            ("h", 0),
            ("-5", 0),
            ("1h,2m", 2),
            ("9999999w", 0),
            ("7000w 7000w", 6),
        ] {
            assert_eq!(parse_duration(text).unwrap_err().offset, offset, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back_the_same(seconds in 1u32..) {
            prop_assert_eq!(parse_duration(&show_duration(seconds)), Ok(seconds));
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,20}|[0-9smhdw -]{0,20}") {
            let _ = parse_duration(&text);
        }
    }
}
