//! Text from outside, made harmless: what is printed or logged of it cannot move a cursor, hide, or look like another line.

use std::borrow::Cow;

/// The text with control characters (C0, C1) and characters that change the direction of text escaped; borrowed where there are
/// none.
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_harmful) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            _ if c.is_control() => out.extend(c.escape_debug()),
            _ if is_harmful(c) => out.extend(c.escape_unicode()),
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
    fn nothing_that_moves_or_hides_is_left() {
        assert_eq!(printable("\u{1b}[2J\r\n\0\u{7}"), r"\u{1b}[2J\r\n\0\u{7}");
        assert_eq!(printable("a\u{202e}b\u{9b}é\u{2066}"), r"a\u{202e}b\u{9b}é\u{2066}");
        assert!(matches!(printable("plain: 'quotes' \\ and é"), Cow::Borrowed(_)));
    }
}
