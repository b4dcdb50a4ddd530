//! JSON values as their text, walked without building anything.
//!
//! The grammar is that of RFC 8259. A value that was handed out is valid as a whole.

use std::borrow::Cow;

/// The text of a value, without space around it.
pub type Text<'a> = &'a str;

/// Values that are nested deeper than this are not read: each level takes a step of the stack. It is ClickHouse's own limit.
const DEPTH: usize = 1_000;

/// A text that is not JSON, or not the kind of value that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken;

/// The fault of a text that [`fields`] does not walk, for people.
pub fn fault(object: Text<'_>) -> String {
    match serde_json::from_str::<serde::de::IgnoredAny>(object) {
        Err(error) => error.to_string(),
        Ok(_) => format!("it is nested deeper than {DEPTH} levels, or a name in it holds half of a surrogate pair"),
    }
}

/// The string of a JSON string; none if it is no string, or holds half of a surrogate pair.
pub fn string(value: Text<'_>) -> Option<Cow<'_, str>> {
    let inner = value.strip_prefix('"')?.strip_suffix('"')?;
    if inner.as_bytes().contains(&b'\\') {
        serde_json::from_str(value).ok().map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(inner))
    }
}

/// The elements of an array, up to the first fault; an array that is walked to its end is one.
pub const fn elements(array: Text<'_>) -> Elements<'_> {
    Elements(List { cursor: Cursor { text: array, at: 0 }, state: State::Before, brackets: (b'[', b']') })
}

/// The names and values of an object's fields, up to the first fault; an object that is walked to its end is one.
pub const fn fields(object: Text<'_>) -> Fields<'_> {
    Fields(List { cursor: Cursor { text: object, at: 0 }, state: State::Before, brackets: (b'{', b'}') })
}

/// The elements of an array.
pub struct Elements<'a>(List<'a>);

impl<'a> Iterator for Elements<'a> {
    type Item = Result<Text<'a>, Broken>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next(|cursor| cursor.whole(DEPTH))
    }
}

/// The fields of an object.
pub struct Fields<'a>(List<'a>);

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(Cow<'a, str>, Text<'a>), Broken>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next(|cursor| Ok((cursor.name()?, cursor.whole(DEPTH)?)))
    }
}

/// Items between brackets, and nothing but space outside of these.
struct List<'a> {
    cursor: Cursor<'a>,
    state: State,
    brackets: (u8, u8),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Before,
    Within,
    Behind,
}

impl<'a> List<'a> {
    fn next<T>(&mut self, item: impl FnOnce(&mut Cursor<'a>) -> Result<T, Broken>) -> Option<Result<T, Broken>> {
        let next = match self.state {
            State::Before => {
                self.cursor.space();
                self.cursor.first(self.brackets)
            }
            State::Within => self.cursor.more(self.brackets.1),
            State::Behind => return None,
        };
        let next = match next {
            Ok(true) => item(&mut self.cursor).map(Some),
            Ok(false) => self.cursor.end().map(|()| None),
            Err(broken) => Err(broken),
        };
        self.state = if let Ok(Some(_)) = next { State::Within } else { State::Behind };
        next.transpose()
    }
}

/// A place in a text.
struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn is(&mut self, byte: u8) -> bool {
        let is = self.peek() == Some(byte);
        self.at += usize::from(is);
        is
    }

    fn expect(&mut self, byte: u8) -> Result<(), Broken> {
        if self.is(byte) { Ok(()) } else { Err(Broken) }
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\t' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    fn end(&mut self) -> Result<(), Broken> {
        self.space();
        if self.at == self.text.len() { Ok(()) } else { Err(Broken) }
    }

    /// Whether there is an item behind the opening bracket.
    fn first(&mut self, (open, close): (u8, u8)) -> Result<bool, Broken> {
        self.expect(open)?;
        self.space();
        Ok(!self.is(close))
    }

    /// Whether there is another item behind this one.
    fn more(&mut self, close: u8) -> Result<bool, Broken> {
        self.space();
        if self.is(close) {
            return Ok(false);
        }
        self.expect(b',')?;
        self.space();
        Ok(true)
    }

    /// A field's name, up to the first byte of its value.
    fn name(&mut self) -> Result<Cow<'a, str>, Broken> {
        let begin = self.at;
        let has_escapes = self.string()?;
        let name = &self.text[begin..self.at];
        let name = if has_escapes {
            Cow::Owned(serde_json::from_str(name).map_err(|_| Broken)?)
        } else {
            Cow::Borrowed(&name[1..name.len() - 1])
        };
        self.space();
        self.expect(b':')?;
        self.space();
        Ok(name)
    }

    /// A value's whole text.
    fn whole(&mut self, depth: usize) -> Result<Text<'a>, Broken> {
        let begin = self.at;
        self.value(depth)?;
        Ok(&self.text[begin..self.at])
    }

    fn value(&mut self, depth: usize) -> Result<(), Broken> {
        let within = depth.checked_sub(1).ok_or(Broken)?;
        match self.peek().ok_or(Broken)? {
            b'"' => self.string().map(|_| ()),
            b'{' => {
                let mut has_more = self.first((b'{', b'}'))?;
                while has_more {
                    self.string()?;
                    self.space();
                    self.expect(b':')?;
                    self.space();
                    self.value(within)?;
                    has_more = self.more(b'}')?;
                }
                Ok(())
            }
            b'[' => {
                let mut has_more = self.first((b'[', b']'))?;
                while has_more {
                    self.value(within)?;
                    has_more = self.more(b']')?;
                }
                Ok(())
            }
            b't' => self.word("true"),
            b'f' => self.word("false"),
            b'n' => self.word("null"),
            _ => self.number(),
        }
    }

    fn word(&mut self, word: &str) -> Result<(), Broken> {
        let is = self.text.as_bytes()[self.at..].starts_with(word.as_bytes());
        self.at += word.len();
        if is { Ok(()) } else { Err(Broken) }
    }

    fn number(&mut self) -> Result<(), Broken> {
        self.is(b'-');
        if !self.is(b'0') {
            self.digits()?;
        }
        if self.is(b'.') {
            self.digits()?;
        }
        if self.is(b'e') || self.is(b'E') {
            let _ = self.is(b'+') || self.is(b'-');
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), Broken> {
        let begin = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        if self.at == begin { Err(Broken) } else { Ok(()) }
    }

    /// A string, up to behind its last quote; whether there are escapes in it.
    fn string(&mut self) -> Result<bool, Broken> {
        self.expect(b'"')?;
        let bytes = self.text.as_bytes();
        let mut has_escapes = false;
        loop {
            self.at += plain(&bytes[self.at..]);
            match self.peek().ok_or(Broken)? {
                b'"' => {
                    self.at += 1;
                    return Ok(has_escapes);
                }
                b'\\' => {
                    has_escapes = true;
                    self.escape()?;
                }
                _ => return Err(Broken),
            }
        }
    }

    fn escape(&mut self) -> Result<(), Broken> {
        let escape = self.text.as_bytes().get(self.at + 1).ok_or(Broken)?;
        self.at += 2;
        match escape {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Ok(()),
            b'u' => {
                let digits = self.text.as_bytes().get(self.at..self.at + 4).ok_or(Broken)?;
                self.at += 4;
                if digits.iter().all(u8::is_ascii_hexdigit) { Ok(()) } else { Err(Broken) }
            }
            _ => Err(Broken),
        }
    }
}

/// How many bytes stand before the first one that ends the plain part of a string: a quote, a backslash or a control character.
///
/// Eight bytes at a time, with the test for a zero byte in a word of Anderson's *Bit Twiddling Hacks*
/// (<https://graphics.stanford.edu/~seander/bithacks.html#ZeroInWord>): its lowest bit that is set is always right.
fn plain(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::MAX / 0xff;
    const HIGHS: u64 = ONES << 7;
    let is_below = |word: u64, limit: u8| word.wrapping_sub(ONES * u64::from(limit)) & !word & HIGHS;
    let (words, rest) = bytes.as_chunks::<8>();
    for (nth, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let quote = is_below(word ^ (ONES * u64::from(b'"')), 1);
        let backslash = is_below(word ^ (ONES * u64::from(b'\\')), 1);
        let found = quote | backslash | is_below(word, b' ');
        if found != 0 {
            return nth * 8 + found.trailing_zeros() as usize / 8;
        }
    }
    let ends = |byte: &u8| matches!(byte, b'"' | b'\\' | ..b' ');
    bytes.len() - rest.len() + rest.iter().position(ends).unwrap_or(rest.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde::de::IgnoredAny;

    fn walk(object: &str) -> Option<Vec<(String, String)>> {
        let field = |field: Result<(Cow<'_, str>, Text<'_>), Broken>| {
            field.map(|(name, value)| (name.into_owned(), value.to_owned()))
        };
        fields(object).map(field).collect::<Result<_, _>>().ok()
    }

    #[test]
    fn an_object_is_walked_field_by_field() {
        let walked = walk(" { \"a\" : 1 , \"\\u0062\":[ {} , \"]\" ],\"c\":\"\\\"\" } ").unwrap();
        assert_eq!(walked, [("a", "1"), ("b", "[ {} , \"]\" ]"), ("c", r#""\"""#)].map(|(a, b)| (a.into(), b.into())));
        assert_eq!(elements("[1,[2],oops").collect::<Vec<_>>(), [Ok("1"), Ok("[2]"), Err(Broken)]);
    }

    #[test]
    fn what_is_nested_too_deep_is_refused_before_the_stack_ends() {
        let nested = |levels: usize| format!("{{\"a\":{}{}}}", "[".repeat(levels), "]".repeat(levels));
        assert!(walk(&nested(DEPTH)).is_some());
        assert!(walk(&nested(DEPTH + 1)).is_none());
        assert!(walk(&format!("{{\"a\":{}", "[".repeat(1_000_000))).is_none());
    }

    /// Texts that are JSON, or nearly.
    fn nearly() -> impl Strategy<Value = String> {
        let token = prop_oneof![
            Just("{"),
            Just("}"),
            Just("["),
            Just("]"),
            Just(","),
            Just(":"),
            Just("\"a\""),
            Just("\"a\":"),
            Just("null"),
            Just("true"),
            Just("false"),
            Just("nul"),
            Just("0"),
            Just("-"),
            Just("01"),
            Just("-1.5e+3"),
            Just("1."),
            Just(".5"),
            Just("1E"),
            Just("\""),
            Just("\\"),
            Just("\"\\u00e9\\n\""),
            Just("\"\\ud800\""),
            Just("\"\\x\""),
            Just("\"\\u12\""),
            Just(" "),
            Just("\t\r\n"),
            Just("\u{a0}"),
            Just("\u{1}"),
            Just("\"abcdefg\u{1f}\""),
            Just("\"é12345678\""),
            Just("\"\u{7f}\""),
        ];
        let tokens = proptest::collection::vec(token, 0..8).prop_map(|tokens| tokens.concat());
        (tokens, any::<bool>()).prop_map(|(text, is_field)| if is_field { format!("{{\"a\":{text}}}") } else { text })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]

        #[test]
        fn what_serde_json_takes_for_an_object_is_one(text in nearly()) {
            let is_object = text.trim_ascii_start().starts_with('{') && serde_json::from_str::<IgnoredAny>(&text).is_ok();
            // A name with half of a surrogate pair is a text to the one, and no name to the other.
            prop_assume!(!text.contains("\\ud800\":"));
            prop_assert_eq!(walk(&text).is_some(), is_object);
        }

        #[test]
        fn the_plain_part_of_a_string_ends_where_a_look_at_each_byte_says(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let ends = |byte: &u8| *byte < b' ' || *byte == b'"' || *byte == b'\\';
            prop_assert_eq!(plain(&bytes), bytes.iter().position(ends).unwrap_or(bytes.len()));
        }
    }
}
