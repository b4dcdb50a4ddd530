//! Recognises a payload that is not a JSON object by its first bytes, as `file` does.

use serde::de::{Deserializer as _, IgnoredAny, SeqAccess, Visitor};
use std::fmt;

/// The first bytes of formats that a producer may have sent instead of JSON.
const MAGIC: &[(&[u8], &str)] = &[
    (&[0x1f, 0x8b], "gzip"),
    (&[0x28, 0xb5, 0x2f, 0xfd], "zstd"),
    (&[0x04, 0x22, 0x4d, 0x18], "lz4"),
    (b"\xff\x06\x00\x00sNaPpY", "snappy"),
    (b"\x82SNAPPY\x00", "snappy"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"PK\x03\x04", "a zip file"),
    (&[0x78, 0x01], "zlib"),
    (&[0x78, 0x5e], "zlib"),
    (&[0x78, 0x9c], "zlib"),
    (&[0x78, 0xda], "zlib"),
    (&[0xff, 0xfe, 0x00, 0x00], "UTF-32"),
    (&[0x00, 0x00, 0xfe, 0xff], "UTF-32"),
    (&[0xff, 0xfe], "UTF-16"),
    (&[0xfe, 0xff], "UTF-16"),
    (b"Obj\x01", "an Avro file"),
    (&[0xc3, 0x01], "Avro (a single object)"),
    (b"PAR1", "Parquet"),
    (&[0xac, 0xed, 0x00, 0x05], "a serialized Java object"),
    (&[0x80, 0x03], "a Python pickle"),
    (&[0x80, 0x04], "a Python pickle"),
    (&[0x80, 0x05], "a Python pickle"),
    (b"eyJ", "JSON in base64"),
    (b"<", "XML or HTML"),
];

/// A JSON value with its six fields as MessagePack and CBOR begin it.
const MAP_OF_SIX: &[(u8, &str)] = &[(0x86, "MessagePack"), (0xa6, "CBOR"), (0xbf, "CBOR")];

/// The format of these bytes; none if they resemble no known one. They are not empty, nor the beginning of a JSON
/// object.
pub fn recognise(payload: &[u8]) -> Option<String> {
    if let Some(wide) = wide_text(payload) {
        return Some(wide.into());
    }
    if let Some((_, name)) = MAGIC.iter().find(|(magic, _)| payload.starts_with(magic)) {
        return Some((*name).into());
    }
    registry(payload)
        .or_else(|| json(payload))
        .or_else(|| map(payload).map(Into::into))
        .or_else(|| length_first(payload).map(Into::into))
}

/// A brace and the next character in two or four bytes each, without a byte order mark.
pub fn wide_text(payload: &[u8]) -> Option<&'static str> {
    match payload {
        [b'{', 0, 0, 0, ..] | [0, 0, 0, b'{', ..] => Some("UTF-32"),
        [b'{', 0, _, 0, ..] | [0, b'{', 0, _, ..] => Some("UTF-16"),
        _ => None,
    }
}

/// The prefixes of the serializers of schema registries.
fn registry(payload: &[u8]) -> Option<String> {
    let behind = |rest: &[u8]| if rest.first() == Some(&b'{') { "JSON" } else { "Avro or Protobuf" };
    match payload {
        // Apicurio's older ids have eight bytes.
        [0, 0, 0, 0, 0, a, b, c, d, b'{', ..] => {
            let id = u32::from_be_bytes([*a, *b, *c, *d]);
            Some(format!("a schema registry's prefix (8 bytes, schema id {id}) before JSON"))
        }
        [0, a, b, c, d, rest @ ..] if !rest.is_empty() => {
            let id = u32::from_be_bytes([*a, *b, *c, *d]);
            Some(format!("a schema registry's prefix (schema id {id}) before {}", behind(rest)))
        }
        [3, 0 | 5, rest @ ..] if rest.len() > 16 => {
            Some(format!("an AWS Glue schema registry's prefix before {}", behind(&rest[16..])))
        }
        _ => None,
    }
}

/// JSON of another kind.
fn json(payload: &[u8]) -> Option<String> {
    let text = payload.trim_ascii_start();
    Some(match text.first()? {
        b'[' => match elements(text) {
            Some(1) => "a JSON array of 1 value".into(),
            Some(count) => format!("a JSON array of {count} values"),
            None => "a JSON array that is broken or cut short".into(),
        },
        b'"' => match text[1..].trim_ascii_start() {
            [b'{', ..] => "a JSON string that holds JSON, so it was encoded twice".into(),
            [b'e', b'y', b'J', ..] => "a JSON string that holds JSON in base64".into(),
            _ => "a JSON string".into(),
        },
        _ if serde_json::from_slice::<f64>(text).is_ok() => "a JSON number".into(),
        _ => match text.trim_ascii_end() {
            b"null" => "a JSON null".into(),
            b"true" | b"false" => "a JSON boolean".into(),
            _ => return None,
        },
    })
}

/// How many values a JSON array has.
fn elements(array: &[u8]) -> Option<usize> {
    struct Count;
    impl<'de> Visitor<'de> for Count {
        type Value = usize;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an array")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<usize, A::Error> {
            let mut count = 0;
            while array.next_element::<IgnoredAny>()?.is_some() {
                count += 1;
            }
            Ok(count)
        }
    }
    let mut json = serde_json::Deserializer::from_slice(array);
    let count = json.deserialize_seq(Count).ok()?;
    json.end().ok().map(|()| count)
}

fn map(payload: &[u8]) -> Option<&'static str> {
    let (first, rest) = payload.split_first()?;
    let (_, name) = MAP_OF_SIX.iter().find(|(map, _)| map == first)?;
    // A key follows. A short string's first byte has its type and its length.
    rest.first().is_some_and(|key| matches!(key, 0x60..=0x77 | 0xa0..=0xbf)).then_some(*name)
}

/// A string of a UUID's length in front, as the binary formats without magic write one.
fn length_first(payload: &[u8]) -> Option<&'static str> {
    const UUID: usize = 36;
    let text = |at: usize| payload.get(at..at + UUID).is_some_and(|text| text.iter().all(u8::is_ascii_graphic));
    match payload {
        // The length, doubled: integers have their sign in the lowest bit.
        [72, ..] if text(1) => Some("Avro without a schema"),
        // Field 1, of bytes, and the length.
        [0x0a, 36, ..] if text(2) => Some("Protobuf"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &[u8] = b"5b0e4d5e-8f63-4b3f-9b39-6f4f1f2b7a10";

    fn utf16(text: &str, to_bytes: impl Fn(u16) -> [u8; 2]) -> Vec<u8> {
        text.encode_utf16().flat_map(to_bytes).collect()
    }

    #[test]
    fn usual_formats_in_place_of_json_are_recognised() {
        for (payload, expected) in [
            (b"\0\0\0\0\x07{\"a\":1}".to_vec(), "a schema registry's prefix (schema id 7) before JSON"),
            (
                b"\0\0\x01\x86\xa0H5b0e".to_vec(),
                "a schema registry's prefix (schema id 100000) before Avro or Protobuf",
            ),
            (
                b"\0\0\0\0\0\0\0\x01\x02{\"a\":1}".to_vec(),
                "a schema registry's prefix (8 bytes, schema id 258) before JSON",
            ),
            ([&[3, 0][..], &[9; 16], b"{}"].concat(), "an AWS Glue schema registry's prefix before JSON"),
            (vec![0x1f, 0x8b, 8, 0], "gzip"),
            (vec![0x28, 0xb5, 0x2f, 0xfd, 4], "zstd"),
            (vec![0x04, 0x22, 0x4d, 0x18, 0x64], "lz4"),
            (b"\xff\x06\x00\x00sNaPpY\x01".to_vec(), "snappy"),
            (b"\x82SNAPPY\x00\0\0\0\x01".to_vec(), "snappy"),
            (vec![0x78, 0x9c, 1], "zlib"),
            (utf16("\u{feff}{\"a\":1}", u16::to_le_bytes), "UTF-16"),
            (utf16("\u{feff}{\"a\":1}", u16::to_be_bytes), "UTF-16"),
            (utf16("{\"a\":1}", u16::to_le_bytes), "UTF-16"),
            (utf16("{\"a\":1}", u16::to_be_bytes), "UTF-16"),
            ("{\"a".chars().flat_map(|c| u32::from(c).to_be_bytes()).collect(), "UTF-32"),
            (b" [{\"a\":1},{\"a\":2}]\n".to_vec(), "a JSON array of 2 values"),
            (b"[1]".to_vec(), "a JSON array of 1 value"),
            (b"[{\"a\":".to_vec(), "a JSON array that is broken or cut short"),
            (br#""{\"event_id\":\"x\"}""#.to_vec(), "a JSON string that holds JSON, so it was encoded twice"),
            (br#""eyJldmVudF9pZCI6MX0=""#.to_vec(), "a JSON string that holds JSON in base64"),
            (b"eyJldmVudF9pZCI6MX0=".to_vec(), "JSON in base64"),
            (br#""user_0042""#.to_vec(), "a JSON string"),
            (b"-1.5e3 ".to_vec(), "a JSON number"),
            (b"null".to_vec(), "a JSON null"),
            (b"true\n".to_vec(), "a JSON boolean"),
            (b"Obj\x01\x04".to_vec(), "an Avro file"),
            (b"\xc3\x01\x01\x02\x03".to_vec(), "Avro (a single object)"),
            ([&[72][..], ID, b"\x12page_view"].concat(), "Avro without a schema"),
            ([&[0x0a, 36][..], ID, b"\x12\x09page_view"].concat(), "Protobuf"),
            (b"\x86\xa8event_id".to_vec(), "MessagePack"),
            (b"\xa6\x68event_id".to_vec(), "CBOR"),
            (vec![0xac, 0xed, 0, 5, 0x73], "a serialized Java object"),
            (b"<event/>".to_vec(), "XML or HTML"),
        ] {
            assert_eq!(recognise(&payload).as_deref(), Some(expected), "{payload:?}");
        }
    }

    #[test]
    fn unknown_formats_get_no_name() {
        for payload in
            [&b"hello"[..], b"\x07\x08", b"tru", b"user_0042,page_view", b"\0", b"\0\0\0\0\x01", b"\x86", b"Hello"]
        {
            assert_eq!(recognise(payload), None, "{payload:?}");
        }
    }
}
