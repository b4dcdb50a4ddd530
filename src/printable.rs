//! Makes text from outside harmless: when it is printed or logged, it cannot move a cursor, hide, or look like another
//! line.
//!
//! All output to a terminal or a log goes through this: results and errors in [`output`](crate::output), and each part
//! of a log line in [`cli`](crate::cli).

use std::borrow::Cow;
use std::fmt::Write;

/// The longest name that is printed whole: Kafka's topics have 249 characters at most.
const NAME_BYTES: usize = 255;

/// The length limit of one part of a log line, and of a command's last line. Texts of a table, a broker or a proxy may be longer, by
/// mistake or on purpose.
pub const LINE_BYTES: usize = 8 * 1024;

/// One line: the text with control characters (C0, C1) and characters that change the direction of text escaped as JSON escapes
/// them; borrowed where there are none.
pub fn printable(text: &str) -> Cow<'_, str> {
    escaped(text, is_harmful)
}

/// Makes a text of several lines harmless, and keeps its lines. JSON stays the same JSON.
pub fn printable_lines(text: &str) -> Cow<'_, str> {
    escaped(text, |c| c != '\n' && is_harmful(c))
}

/// A name that somebody else has chosen: of a group, a cluster, a topic's id in a table. It is escaped, and cut off where it is longer
/// than names are. One that is not a plain word stands in quotes, so an empty one can be seen.
pub fn name(text: &str) -> Cow<'_, str> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-+/:=".contains(c);
    if !text.is_empty() && text.len() <= NAME_BYTES && text.chars().all(is_plain) {
        return Cow::Borrowed(text);
    }
    let clipped = bounded(text, NAME_BYTES);
    Cow::Owned(format!("'{}'", printable(&clipped.replace('\'', "\\'"))))
}

/// The text, cut off behind so many bytes where it is longer; it says how much is left out.
pub fn bounded(text: &str, bytes: usize) -> Cow<'_, str> {
    if text.len() <= bytes {
        return Cow::Borrowed(text);
    }
    let head = &text[..text.floor_char_boundary(bytes)];
    Cow::Owned(format!("{head}… ({} bytes more)", text.len() - head.len()))
}

fn escaped(text: &str, is_harmful: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&is_harmful) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '\n' | '\r' | '\t' if is_harmful(c) => out.extend(c.escape_debug()),
            // All of them have four digits at most. Writing to a String cannot fail.
            _ if is_harmful(c) => drop(write!(out, "\\u{:04x}", u32::from(c))),
            _ => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// Controls, marks and overrides of direction (Unicode's Bidi_Control), and the line and paragraph separators.
fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_stays_what_it_was() {
        let value = serde_json::json!({"d\u{85}": "\u{9b}31m \u{202e} \u{7f} \u{2028} \n \t \\ \""});
        let text = serde_json::to_string_pretty(&value).unwrap();
        let shown = printable_lines(&text);
        assert!(shown.chars().all(|c| c == '\n' || !is_harmful(c)), "{shown}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
    }

    #[test]
    fn a_name_is_seen_bounded_and_cannot_look_like_the_rest_of_its_line() {
        for (text, shown) in [
            ("clicks-2.old", "clicks-2.old"),
            ("Xz9hvwy5+o/jQVYvwoGRQw", "Xz9hvwy5+o/jQVYvwoGRQw"),
            ("", "''"),
            ("my group", "'my group'"),
            ("x; exit 'now'", r"'x; exit \'now\''"),
            ("a\n\u{202e}b", r"'a\n\u202eb'"),
        ] {
            assert_eq!(name(text), shown);
        }
        for long in ["x".repeat(1_000_000), "\u{9b}".repeat(500_000), "é".repeat(500_000)] {
            let shown = name(&long);
            assert!(shown.len() < 2_000 && shown.contains("bytes more") && shown.ends_with('\''), "{shown}");
        }
        assert_eq!(bounded("é", 1), "… (2 bytes more)");
    }

    #[test]
    fn nothing_that_moves_or_hides_is_left() {
        assert_eq!(printable("\u{1b}[2J\r\n\0\u{7}"), r"\u001b[2J\r\n\u0000\u0007");
        assert_eq!(printable("a\u{202e}b\u{9b}é\u{2066}"), r"a\u202eb\u009bé\u2066");
        assert_eq!(printable_lines("a\nb\r\u{9b}\n"), "a\nb\\r\\u009b\n");
        assert!(matches!(printable("plain: 'quotes' \\ and é"), Cow::Borrowed(_)));
    }
}
