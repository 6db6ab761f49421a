//! Escaping: whatever bytes a peer, a kernel or a name server chose, a line stays one line and shows what it holds.
#![forbid(unsafe_code)]

/// Whether `character` could break a line, move the cursor or turn the reading direction round.
///
/// Control characters (C0, DEL, C1), the Unicode line and paragraph separators, and the invisible formatting
/// characters of UAX #9. All of them are in the basic multilingual plane.
pub fn is_unprintable(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Text for a classic line: unprintable characters as `\x1b` or `\u{2028}`, a backslash doubled so that neither is
/// ever ambiguous.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\\' => out.push_str("\\\\"),
            plain if !is_unprintable(plain) => out.push(plain),
            low if u32::from(low) <= 0xff => out.push_str(&format!("\\x{:02x}", u32::from(low))),
            high => out.push_str(&format!("\\u{{{:x}}}", u32::from(high))),
        }
    }
    out
}

/// JSON text with its unprintable characters written as `\u2028`. In valid JSON they stand only inside strings.
pub fn ascii_safe_json(json: String) -> String {
    if !json.chars().any(is_unprintable) {
        return json;
    }
    let mut out = String::with_capacity(json.len() + 16);
    for character in json.chars() {
        match is_unprintable(character) {
            true => out.push_str(&format!("\\u{:04x}", u32::from(character))),
            false => out.push(character),
        }
    }
    out
}

/// A host name for a classic line: letters, digits, `.`, `-`, `_` and `:`; anything else becomes `?`, so that a name
/// cannot close the brackets round it and forge the fields that follow. RFC 1035 ends names at 253 characters.
pub fn host_name(name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
    name.chars().take(253).map(|c| if plain(c) { c } else { '?' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unprintable_characters_are_shown_and_never_written() {
        assert_eq!(
            escaped("a\nb\x1b[2Jc\u{7f}\u{85}\u{2028}\\n"),
            "a\\x0ab\\x1b[2Jc\\x7f\\x85\\u{2028}\\\\n"
        );
        assert_eq!(escaped("grüße 日本"), "grüße 日本");
    }

    #[test]
    fn a_host_name_cannot_forge_fields() {
        assert_eq!(host_name("a.b) protocol: [TCP]"), "a.b??protocol:??TCP?");
        assert_eq!(host_name(&"x".repeat(400)).len(), 253);
    }
}
