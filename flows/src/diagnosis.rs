//! Why a payload is not an event: the field, the value found, the value expected. This runs for bad messages only, and
//! reads them a second time, so that it costs good ones nothing.
//!
//! A reject is kept for long and read by many people. So its sentence holds as little personal data as possible:
//! nothing of the user or the product, 40 characters of other values, and the first few bytes of a payload that is not
//! JSON. The payload beside it has the rest.

use crate::contract::{EVENT_ID, EVENT_TYPE, Field, MAX_TEXT_BYTES, PRICE, Scan, TIMESTAMP, Wrong};
use crate::{Reason, formats};
use serde::de::IgnoredAny;
use serde_json::error::Category;
use std::fmt::Write as _;

/// Why a payload is not an event.
#[derive(Debug, PartialEq)]
pub struct Diagnosis {
    pub reason: Reason,
    /// The field that is to blame, where it is one.
    pub field: Option<&'static str>,
    pub detail: String,
}

/// The length of a quoted value, in characters.
const QUOTED: usize = 40;
/// The number of shown bytes of a payload that is not JSON. Of text it shows fewer, since that may be personal.
const SHOWN_BYTES: usize = 8;
const SHOWN_TEXT: usize = 4;

/// A tombstone.
pub fn no_payload() -> Diagnosis {
    Diagnosis { reason: Reason::NullPayload, field: None, detail: "the message has no payload (a tombstone)".into() }
}

pub fn bad_uuid(found: &str) -> Diagnosis {
    found_in(&EVENT_ID, Reason::BadUuid, &string(found))
}

pub fn unknown_type(found: &str) -> Diagnosis {
    found_in(&EVENT_TYPE, Reason::UnknownType, &string(found))
}

pub fn bad_price(found: f64) -> Diagnosis {
    // A large one would be written with up to 309 digits.
    let found = if found.abs() < 1e15 { found.to_string() } else { format!("{found:e}") };
    found_in(&PRICE, Reason::BadPrice, &format!("a number, {found}"))
}

pub fn bad_timestamp(found: &str) -> Diagnosis {
    found_in(&TIMESTAMP, Reason::BadTimestamp, &(string(found) + epoch(found)))
}

pub fn too_long(field: &Field, bytes: usize) -> Diagnosis {
    let name = field.name;
    let detail = format!("{name}: found a string of {bytes} bytes, expected {MAX_TEXT_BYTES} at most");
    Diagnosis { reason: Reason::TooLong, field: Some(name), detail }
}

/// For a payload that does not begin as an object.
pub fn no_object(key: &[u8], payload: &[u8]) -> Diagnosis {
    let text = payload.trim_ascii();
    let found = match formats::recognise(payload) {
        _ if payload.is_empty() => "nothing (a payload of 0 bytes)".into(),
        _ if text.is_empty() => format!("{} bytes of white space", payload.len()),
        Some(format) => format!("{format}; {}", first_bytes(key, payload)),
        None => format!("something that is not JSON; {}", first_bytes(key, payload)),
    };
    not_json(None, format!("expected one JSON object, found {found}"))
}

/// For a payload that begins as an object, and that could not be read because of this.
pub fn bad_object(key: &[u8], payload: &[u8], error: &serde_json::Error) -> Diagnosis {
    let (scan, said) = (Scan::of(payload), error.to_string());
    match error.classify() {
        Category::Data => bad_fields(&scan),
        // A number that no double holds is good JSON.
        _ if said.starts_with("number out of range") => bad_fields(&scan),
        Category::Eof => {
            let place = place(&scan);
            not_json(field(&scan), format!("the JSON object breaks off after {} bytes{place}", payload.len()))
        }
        _ => broken(key, payload, offset(payload, error), &said, &scan),
    }
}

/// An object that is good JSON, and not the contract's.
fn bad_fields(scan: &Scan<'_>) -> Diagnosis {
    if let Some((field, wrong)) = &scan.wrong {
        return match wrong {
            Wrong::Twice => {
                let detail = format!("{}: found twice, expected once", field.name);
                Diagnosis { reason: Reason::WrongType, field: Some(field.name), detail }
            }
            Wrong::Type(value) => {
                let is_number = value.get().starts_with(|c: char| c == '-' || c.is_ascii_digit());
                let reason = if **field == PRICE && is_number { Reason::BadPrice } else { Reason::WrongType };
                found_in(field, reason, &described(field, value.get()))
            }
        };
    }
    let missing: Vec<_> = scan.missing().collect();
    let Some(&(first, _)) = missing.first() else {
        // Only bytes inside of a wrong value that are no text can hide it from the second reading.
        let detail = format!("a value has the wrong type{}", place(scan));
        return Diagnosis { reason: Reason::WrongType, field: field(scan), detail };
    };
    let names: Vec<_> = missing.iter().map(|(field, _)| field.name).collect();
    let mut detail = format!("{}: missing", names.join(", "));
    for (_, alike) in &missing {
        if let Some(alike) = alike {
            let _ = write!(detail, "; found {}", quoted(alike));
        }
    }
    if let Some(envelope) = scan.envelope.filter(|_| missing.len() == 6) {
        let _ = write!(detail, "; all six are inside of the field {envelope}");
    }
    Diagnosis { reason: Reason::MissingField, field: Some(first.name), detail }
}

/// An object that is not good JSON at this offset, or is followed by something.
fn broken(key: &[u8], payload: &[u8], offset: usize, said: &str, scan: &Scan<'_>) -> Diagnosis {
    let rest = &payload[offset..];
    if let Some(wide) = formats::wide_text(payload) {
        return not_json(None, format!("expected JSON in UTF-8, found {wide}; {}", first_bytes(key, payload)));
    }
    if said.starts_with("trailing characters") {
        let found = match objects(payload) {
            0 | 1 => format!("{} bytes behind it; {}", rest.len(), first_bytes(key, rest)),
            count => format!("{count} in one message"),
        };
        return not_json(None, format!("expected one JSON object, found {found}"));
    }
    if rest.starts_with(b"'") {
        return not_json(None, "expected double quotes, found single ones, as Python prints them".into());
    }
    let words = ["NaN", "-Infinity", "Infinity"];
    // An error stands at the first letter or behind it.
    let near = &payload[offset.saturating_sub(2)..];
    if field(scan) == Some(PRICE.name)
        && let Some(word) =
            words.into_iter().find(|word| near.windows(word.len()).take(3).any(|at| at == word.as_bytes()))
    {
        return not_json(
            Some(PRICE.name),
            format!("price: found {word}, which is not JSON, expected {}", PRICE.expected),
        );
    }
    let why = said.split(" at line ").next().unwrap_or(said);
    not_json(field(scan), format!("the JSON is broken near byte {}{}: {why}", offset + 1, place(scan)))
}

fn not_json(field: Option<&'static str>, detail: String) -> Diagnosis {
    Diagnosis { reason: Reason::NotJson, field, detail }
}

fn found_in(field: &Field, reason: Reason, found: &str) -> Diagnosis {
    let Field { name, expected, .. } = field;
    Diagnosis { reason, field: Some(field.name), detail: format!("{name}: found {found}, expected {expected}") }
}

fn field(scan: &Scan<'_>) -> Option<&'static str> {
    scan.broken_at().flatten().map(|field| field.name)
}

fn place(scan: &Scan<'_>) -> String {
    match scan.broken_at() {
        Some(Some(field)) => format!(", in or behind {}", field.name),
        Some(None) => ", in or behind a field that is none of the six".into(),
        None => String::new(),
    }
}

/// A JSON value of the wrong type: its type, and where that is allowed some of it.
fn described(field: &Field, json: &str) -> String {
    let (kind, is_short) = match json.as_bytes().first() {
        Some(b'"') => ("a string", true),
        Some(b'{') => ("an object", false),
        Some(b'[') => ("an array", false),
        Some(b'n') => return "null".into(),
        Some(b't' | b'f') => ("a boolean", true),
        _ => ("a number", true),
    };
    match json.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        _ if !field.is_quoted || !is_short => kind.into(),
        Some(text) => string(text),
        None => format!("{kind}, {}{}", clip(json), epoch(json)),
    }
}

fn string(text: &str) -> String {
    format!("the string {}", quoted(text))
}

/// In quotes and clipped, harmless to a terminal.
fn quoted(text: &str) -> String {
    let (head, more) = (clip(text), if text.len() > clip(text).len() { "…" } else { "" });
    format!("{head:?}{more}")
}

fn clip(text: &str) -> &str {
    text.char_indices().nth(QUOTED).map_or(text, |(end, _)| &text[..end])
}

/// A guess at the unit of a number in place of a time.
fn epoch(text: &str) -> &'static str {
    match text.len() {
        _ if !text.bytes().all(|byte| byte.is_ascii_digit()) => "",
        10 => " (seconds since 1970?)",
        13 => " (milliseconds since 1970?)",
        16 => " (microseconds since 1970?)",
        19 => " (nanoseconds since 1970?)",
        _ => "",
    }
}

/// The number of objects in a row at the beginning of the payload.
fn objects(payload: &[u8]) -> usize {
    let values = serde_json::Deserializer::from_slice(payload).into_iter::<IgnoredAny>();
    values.take_while(Result::is_ok).count()
}

/// Where serde stopped: it counts lines and columns, both from 1.
fn offset(payload: &[u8], error: &serde_json::Error) -> usize {
    let line = payload.split_inclusive(|byte| *byte == b'\n').take(error.line().saturating_sub(1));
    let offset = line.map(<[u8]>::len).sum::<usize>() + error.column().saturating_sub(1);
    offset.min(payload.len())
}

/// The first bytes, as numbers and as text; nothing of the message's key, which is the user.
fn first_bytes(key: &[u8], payload: &[u8]) -> String {
    let head = &payload[..payload.len().min(SHOWN_BYTES)];
    let is_text = head.iter().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace());
    let shown = if is_text { SHOWN_TEXT } else { SHOWN_BYTES }.min(payload.len());
    let reach = &payload[..payload.len().min(shown + key.len())];
    let user = (!key.is_empty()).then(|| reach.windows(key.len()).position(|part| part == key)).flatten();
    let head = &payload[..shown.min(user.unwrap_or(shown))];
    if head.is_empty() {
        return "it begins with the message's key".into();
    }
    let mut text = String::from("first bytes");
    for byte in head {
        // Writing to a String cannot fail.
        let _ = write!(text, " {byte:02x}");
    }
    let printable = |byte: &u8| if byte.is_ascii_graphic() || *byte == b' ' { char::from(*byte) } else { '.' };
    text + " " + &format!("{:?}", head.iter().map(printable).collect::<String>())
}
