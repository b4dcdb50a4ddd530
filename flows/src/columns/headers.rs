//! A message's headers in one piece of memory, as the insert takes them.

use super::fill::{put_length, put_text};
use crate::Header;

/// Headers in their order. A name may stand several times; a value may be absent, or hold any bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Box<[u8]>);

impl Headers {
    /// Copies these headers.
    pub fn new(headers: &[Header<'_>]) -> Self {
        let mut encoded = Vec::new();
        append(headers, &mut encoded);
        Self(encoded.into())
    }

    /// Headers that [`append`] wrote.
    pub(crate) fn of_encoded(encoded: &[u8]) -> Self {
        Self(encoded.into())
    }

    /// A value of the type `Array(Tuple(String, Nullable(String)))`, as the insert takes it.
    pub fn encoded(&self) -> &[u8] {
        if self.0.is_empty() { &[0] } else { &self.0 }
    }

    /// The bytes that they hold.
    pub fn weight(&self) -> usize {
        self.0.len()
    }
}

/// Appends headers; nothing where there are none.
pub(crate) fn append(headers: &[Header<'_>], out: &mut Vec<u8>) {
    if headers.is_empty() {
        return;
    }
    put_length(headers.len(), out);
    for (name, value) in headers {
        put_text(name.as_bytes(), out);
        out.push(u8::from(value.is_none()));
        if let Some(value) = value {
            put_text(value, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_keep_their_order_and_an_absent_value_is_not_an_empty_one() {
        assert_eq!(Headers::new(&[]).encoded(), [0]);
        let some = Headers::new(&[("b", Some(b"\xff\0")), ("a", None), ("b", Some(b""))]);
        assert_eq!(some.encoded(), b"\x03\x01b\0\x02\xff\0\x01a\x01\x01b\0\0");
        assert_eq!(Headers::of_encoded(some.encoded()), some);
    }
}
