//! Columns that hold parts of the record, and those that take what the table does not name.

use super::fill::{self, Misfit, put_length, put_text};
use super::json::Text;
use super::kind::Kind;
use crate::Consumed;
use std::borrow::Cow;

/// Where a column's value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// A field of the payload.
    Field,
    /// A part of the record.
    Meta(Meta),
    /// All fields that the table does not name.
    Unknown,
}

/// A part of a record. The names of their columns are those of ClickHouse's Kafka engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meta {
    /// `_topic`
    Topic,
    /// `_timestamp`, in seconds or as precise as the column is
    Timestamp,
    /// `_timestamp_ms`
    TimestampMs,
    /// `_key`
    Key,
    /// `_headers`
    Headers,
    /// `_raw_message`
    RawMessage,
}

impl Content {
    /// The content of a column of this name.
    ///
    /// # Errors
    /// The part that the column is to hold, if its type cannot.
    pub fn of(name: &str, kind: &Kind) -> Result<Self, &'static str> {
        let (meta, holds, fits) = match name {
            "_topic" => (Meta::Topic, "the topic's name: give it the type LowCardinality(String)", is_text(kind)),
            "_timestamp" => {
                (Meta::Timestamp, "Kafka's timestamp: give it the type DateTime or DateTime64", is_time(kind))
            }
            "_timestamp_ms" => (Meta::TimestampMs, "Kafka's timestamp: give it the type DateTime64(3)", is_time(kind)),
            "_key" => (Meta::Key, "the key's bytes: give it the type String", is_text(kind)),
            "_headers" => (Meta::Headers, "the headers: give it the type Map(String, String)", is_headers(kind)),
            "_raw_message" => (Meta::RawMessage, "the payload's bytes: give it the type String", is_text(kind)),
            "_unknown" => {
                let fits =
                    is_text(kind) || is_headers(kind) && matches!(kind, Kind::Map(..)) || matches!(kind, Kind::Json);
                let holds =
                    "the fields that the table does not name: give it the type JSON, Map(String, String) or String";
                return if fits { Ok(Self::Unknown) } else { Err(holds) };
            }
            _ => return Ok(Self::Field),
        };
        if fits { Ok(Self::Meta(meta)) } else { Err(holds) }
    }
}

fn is_text(kind: &Kind) -> bool {
    matches!(kind.not_null(), Kind::String)
}

fn is_time(kind: &Kind) -> bool {
    matches!(kind.not_null(), Kind::DateTime(_) | Kind::DateTime64(..))
}

fn is_headers(kind: &Kind) -> bool {
    match kind {
        Kind::Map(name, value) => **name == Kind::String && is_text(value),
        Kind::Array(pair) => {
            matches!(&**pair, Kind::Tuple(pair) if pair.len() == 2 && pair[0].1 == Kind::String && is_text(&pair[1].1))
        }
        _ => false,
    }
}

impl Meta {
    /// Appends this part of the message, to a column whose type holds it.
    pub fn fill(self, kind: &Kind, topic: &str, message: &Consumed<'_>, out: &mut Vec<u8>) {
        match self {
            Self::Topic => put(kind, Some(topic.as_bytes()), out),
            Self::Key => put(kind, message.key, out),
            Self::RawMessage => put(kind, message.payload, out),
            Self::Timestamp | Self::TimestampMs => put_time(kind, message.timestamp_ms, out),
            Self::Headers => {
                put_length(message.headers.len(), out);
                let value = match kind {
                    Kind::Map(_, value) => value,
                    Kind::Array(pair) => match &**pair {
                        Kind::Tuple(pair) => &pair[1].1,
                        _ => return,
                    },
                    _ => return,
                };
                for (name, header) in message.headers {
                    put_text(name.as_bytes(), out);
                    put(value, *header, out);
                }
            }
        }
    }
}

/// Bytes, or null where there are none, or an empty text where the column takes no null.
fn put(kind: &Kind, bytes: Option<&[u8]>, out: &mut Vec<u8>) {
    if matches!(kind, Kind::Nullable(_)) {
        out.push(u8::from(bytes.is_none()));
        if bytes.is_none() {
            return;
        }
    }
    put_text(bytes.unwrap_or_default(), out);
}

/// A time outside the column's years counts as its zero.
fn put_time(kind: &Kind, ms: Option<i64>, out: &mut Vec<u8>) {
    match kind {
        Kind::Nullable(inner) => {
            out.push(u8::from(ms.is_none()));
            if ms.is_some() {
                put_time(inner, ms, out);
            }
        }
        Kind::DateTime(_) => {
            let seconds = ms.unwrap_or(0).div_euclid(1_000);
            out.extend_from_slice(&u32::try_from(seconds).unwrap_or(0).to_le_bytes());
        }
        Kind::DateTime64(digits, _) => {
            let ticks = i128::from(ms.unwrap_or(0)) * 10i128.pow(*digits);
            out.extend_from_slice(&i64::try_from(ticks.div_euclid(1_000)).unwrap_or(0).to_le_bytes());
        }
        _ => {}
    }
}

/// Appends the fields that the table does not name, as one object or as a map.
///
/// # Errors
/// [`Misfit`], where a string among them is no Unicode.
pub fn fill_unknown(kind: &Kind, fields: &[(Cow<'_, str>, Text<'_>)], out: &mut Vec<u8>) -> Result<(), Box<Misfit>> {
    if let Kind::Map(_, value) = kind {
        put_length(fields.len(), out);
        for (name, text) in fields {
            put_text(name.as_bytes(), out);
            fill::fill(
                value,
                if *text == "null" && !matches!(**value, Kind::Nullable(_)) { "\"\"" } else { text },
                out,
            )?;
        }
        return Ok(());
    }
    let mut object = String::from("{");
    for (name, text) in fields {
        if object.len() > 1 {
            object.push(',');
        }
        object.push_str(&serde_json::to_string(name).unwrap_or_default());
        object.push(':');
        object.push_str(text);
    }
    object.push('}');
    if matches!(kind, Kind::Nullable(_)) {
        out.push(0);
    }
    put_text(object.as_bytes(), out);
    Ok(())
}
