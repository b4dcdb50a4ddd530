//! Makes text from outside harmless: when it is printed or logged, it cannot move a cursor, hide, or look like another
//! line.
//!
//! All output to a terminal or a log goes through this: results and errors in [`output`](crate::output), and each part
//! of a log line in [`cli`](crate::cli).

use std::borrow::Cow;
use std::fmt::Write;

/// One line: the text with control characters (C0, C1) and characters that change the direction of text escaped as JSON escapes
/// them; borrowed where there are none.
pub fn printable(text: &str) -> Cow<'_, str> {
    escaped(text, is_harmful)
}

/// Makes a text of several lines harmless, and keeps its lines. JSON stays the same JSON.
pub fn printable_lines(text: &str) -> Cow<'_, str> {
    escaped(text, |c| c != '\n' && is_harmful(c))
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
    fn nothing_that_moves_or_hides_is_left() {
        assert_eq!(printable("\u{1b}[2J\r\n\0\u{7}"), r"\u001b[2J\r\n\u0000\u0007");
        assert_eq!(printable("a\u{202e}b\u{9b}é\u{2066}"), r"a\u202eb\u009bé\u2066");
        assert_eq!(printable_lines("a\nb\r\u{9b}\n"), "a\nb\\r\\u009b\n");
        assert!(matches!(printable("plain: 'quotes' \\ and é"), Cow::Borrowed(_)));
    }
}
