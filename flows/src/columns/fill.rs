//! One JSON value into one column, as ClickHouse's `RowBinary` has it.
//!
//! Format: <https://clickhouse.com/docs/interfaces/formats/RowBinary>. Values have the forms that ClickHouse's `JSONEachRow` takes; where this is
//! stricter, a value is refused that would be changed otherwise: integers that wrap, texts that are cut.

use super::json::{self, Text};
use super::kind::{Kind, NO_VARIANT};
use super::number::{self, NotANumber};
use super::time::{self, Moment, NotATime};
use std::borrow::Cow;
use uuid::Uuid;

/// A value that does not fit its column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misfit {
    /// Where it is below the field, outermost last: `.price`, `[3]`.
    path: Vec<String>,
    /// The expected value, for people.
    pub expected: String,
    /// The fault.
    pub fault: Fault,
    /// The type of the JSON value.
    pub found: &'static str,
}

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The value is null, and the column takes none.
    Null,
    /// The value has another JSON type, or is a text of another form.
    Type,
    /// The value is outside the column's range, or too long.
    Range,
    /// A time and its column have no zone, or one without firm rules then.
    NoZone,
    /// The size of a number does not say which unit of time it counts.
    NoUnit,
    /// An element is missing.
    Missing,
    /// A name stands twice in an object.
    Twice,
    /// A string that is no Unicode.
    Unreadable,
}

impl Misfit {
    #[cold]
    fn new(kind: &Kind, fault: Fault, value: Text<'_>) -> Box<Self> {
        Box::new(Self { path: Vec::new(), expected: kind.expected(), fault, found: json_type(value) })
    }

    fn within(mut self: Box<Self>, step: String) -> Box<Self> {
        self.path.push(step);
        self
    }

    /// The path from the field to the value: `items[3].price`.
    pub fn path(&self, field: &str) -> String {
        self.path.iter().rev().fold(field.to_owned(), |path, step| path + step)
    }
}

/// The JSON type of a value.
pub fn json_type(value: Text<'_>) -> &'static str {
    match value.as_bytes().first() {
        Some(b'"') => "a string",
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ => "a number",
    }
}

/// Appends `value` to the row, as a value of `kind`.
///
/// # Errors
/// [`Misfit`]; then a part of it may have been appended.
pub fn fill(kind: &Kind, value: Text<'_>, out: &mut Vec<u8>) -> Result<(), Box<Misfit>> {
    let misfit = |fault| Misfit::new(kind, fault, value);
    let typed = |fits: Option<()>| fits.ok_or_else(|| misfit(Fault::Type));
    match kind {
        Kind::Nullable(_) if value == "null" => out.push(1),
        Kind::Nullable(inner) => {
            out.push(0);
            fill(inner, value, out)?;
        }
        Kind::Variant(_) if value == "null" => out.push(NO_VARIANT),
        Kind::Variant(variants) => {
            let begin = out.len();
            let fits = variants.iter().any(|(number, kind)| {
                out.truncate(begin);
                out.push(*number);
                fill(kind, value, out).is_ok()
            });
            typed(fits.then_some(()))?;
        }
        Kind::Dynamic => {
            put_length(value.len() + 6, out);
            out.extend_from_slice(b"{\"v\":");
            out.extend_from_slice(value.as_bytes());
            out.push(b'}');
        }
        _ if value == "null" => return Err(misfit(Fault::Null)),
        Kind::String => {
            let text = if value.starts_with('"') { string(kind, value)? } else { Cow::Borrowed(value) };
            put_text(text.as_bytes(), out);
        }
        Kind::FixedString(bytes) => {
            let text = string(kind, value)?;
            let padding = bytes.checked_sub(text.len()).ok_or_else(|| misfit(Fault::Range))?;
            out.extend_from_slice(text.as_bytes());
            out.extend(std::iter::repeat_n(0, padding));
        }
        Kind::Bool => out.push(u8::from(boolean(value).ok_or_else(|| misfit(Fault::Type))?)),
        &Kind::Integer { bytes, .. } if let Some(is_true) = truth(value) => {
            out.push(u8::from(is_true));
            out.extend(std::iter::repeat_n(0, bytes - 1));
        }
        Kind::Float32 if let Some(is_true) = truth(value) => out.extend_from_slice(&f32::from(is_true).to_le_bytes()),
        Kind::Float64 if let Some(is_true) = truth(value) => out.extend_from_slice(&f64::from(is_true).to_le_bytes()),
        &Kind::Integer { bytes, is_signed } => {
            number::integer(&number(kind, value)?, bytes, is_signed, out).map_err(|why| misfit(why.into()))?;
        }
        Kind::Float32 => {
            // Never through a float of 64 bits, which would round twice.
            let text = number(kind, value)?;
            let number: f32 = text.parse().map_err(|_| misfit(Fault::Type))?;
            if number.is_infinite() && has_digits(&text) {
                return Err(misfit(Fault::Range));
            }
            out.extend_from_slice(&number.to_le_bytes());
        }
        Kind::Float64 => {
            let text = number(kind, value)?;
            let number: f64 = text.parse().map_err(|_| misfit(Fault::Type))?;
            if number.is_infinite() && has_digits(&text) {
                return Err(misfit(Fault::Range));
            }
            out.extend_from_slice(&number.to_le_bytes());
        }
        &Kind::Decimal { bytes, precision, scale } => {
            number::decimal(&number(kind, value)?, bytes, precision, scale, out).map_err(|why| misfit(why.into()))?;
        }
        Kind::Date => {
            let days = time::days(&string(kind, value)?).ok_or_else(|| misfit(Fault::Type))?;
            out.extend_from_slice(&u16::try_from(days).map_err(|_| misfit(Fault::Range))?.to_le_bytes());
        }
        Kind::Date32 => {
            out.extend_from_slice(&time::days(&string(kind, value)?).ok_or_else(|| misfit(Fault::Type))?.to_le_bytes());
        }
        Kind::DateTime(zone) => {
            let moment = moment(kind, value, *zone)?;
            out.extend_from_slice(&moment.seconds().ok_or_else(|| misfit(Fault::Range))?.to_le_bytes());
        }
        Kind::DateTime64(digits, zone) => {
            let moment = moment(kind, value, *zone)?;
            out.extend_from_slice(&moment.ticks(*digits).ok_or_else(|| misfit(Fault::Range))?.to_le_bytes());
        }
        Kind::Uuid => {
            let text = string(kind, value)?;
            // With hyphens or without: no braces, no `urn:uuid:`.
            let uuid = Uuid::try_parse(&text).ok().filter(|_| [32, 36].contains(&text.len()));
            let (high, low) = uuid.ok_or_else(|| misfit(Fault::Type))?.as_u64_pair();
            out.extend_from_slice(&high.to_le_bytes());
            out.extend_from_slice(&low.to_le_bytes());
        }
        Kind::Ipv4 => {
            let address: std::net::Ipv4Addr = string(kind, value)?.parse().map_err(|_| misfit(Fault::Type))?;
            out.extend_from_slice(&u32::from(address).to_le_bytes());
        }
        Kind::Ipv6 => {
            let address: std::net::IpAddr = string(kind, value)?.parse().map_err(|_| misfit(Fault::Type))?;
            let address = match address {
                std::net::IpAddr::V4(address) => address.to_ipv6_mapped(),
                std::net::IpAddr::V6(address) => address,
            };
            out.extend_from_slice(&address.octets());
        }
        Kind::Enum { bytes, values } => {
            let found = match json::string(value) {
                Some(name) => values.iter().find(|(known, _)| *known == name),
                None => value.parse::<i16>().ok().and_then(|number| values.iter().find(|(_, known)| *known == number)),
            };
            let (_, number) =
                found.ok_or_else(|| misfit(if value.starts_with('"') { Fault::Range } else { Fault::Type }))?;
            out.extend_from_slice(&number.to_le_bytes()[..*bytes]);
        }
        Kind::Array(inner) => {
            let mut count = 0;
            counted(out, |out| {
                for element in json::elements(value) {
                    let element = element.map_err(|_| misfit(Fault::Type))?;
                    fill(inner, element, out).map_err(|misfit| misfit.within(format!("[{count}]")))?;
                    count += 1;
                }
                Ok(count)
            })?;
        }
        Kind::Map(key, inner) => {
            let mut count = 0;
            counted(out, |out| {
                for field in json::fields(value) {
                    let (name, element) = field.map_err(|_| misfit(Fault::Type))?;
                    let within = |misfit: Box<Misfit>| misfit.within(format!(".{name}"));
                    fill_from_text(key, &name, out).map_err(within)?;
                    fill(inner, element, out).map_err(within)?;
                    count += 1;
                }
                Ok(count)
            })?;
        }
        Kind::Tuple(elements) => tuple(kind, elements, value, out)?,
        Kind::Json => {
            typed(value.starts_with('{').then_some(()))?;
            put_text(value.as_bytes(), out);
        }
    }
    Ok(())
}

/// Appends a text that is no JSON: the name of a map's field, or a part of a record.
pub fn fill_from_text(kind: &Kind, text: &str, out: &mut Vec<u8>) -> Result<(), Box<Misfit>> {
    if matches!(kind, Kind::String) {
        put_text(text.as_bytes(), out);
        return Ok(());
    }
    fill(kind, &serde_json::to_string(text).unwrap_or_default(), out)
}

/// Appends the value of an absent field, if the type itself has one: null.
pub fn fill_absent(kind: &Kind, out: &mut Vec<u8>) -> bool {
    // Null cannot fail where it is taken.
    kind.takes_null() && fill(kind, "null", out).is_ok()
}

fn tuple(
    kind: &Kind,
    elements: &[(Option<String>, Kind)],
    value: Text<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Box<Misfit>> {
    let misfit = |fault| Misfit::new(kind, fault, value);
    if !value.starts_with('{') {
        let mut nth = 0;
        for element in json::elements(value) {
            let element = element.map_err(|_| misfit(Fault::Type))?;
            let (_, kind) = elements.get(nth).ok_or_else(|| misfit(Fault::Range))?;
            fill(kind, element, out).map_err(|misfit| misfit.within(format!("[{nth}]")))?;
            nth += 1;
        }
        return if nth == elements.len() { Ok(()) } else { Err(misfit(Fault::Missing)) };
    }
    let mut found: Vec<Option<Text<'_>>> = vec![None; elements.len()];
    for field in json::fields(value) {
        let (name, element) = field.map_err(|_| misfit(Fault::Type))?;
        let Some(at) = elements.iter().position(|(known, _)| known.as_deref() == Some(&*name)) else { continue };
        if found[at].replace(element).is_some() {
            return Err(misfit(Fault::Twice).within(format!(".{name}")));
        }
    }
    for ((name, kind), element) in elements.iter().zip(found) {
        let within = |misfit: Box<Misfit>| misfit.within(format!(".{}", name.as_deref().unwrap_or("?")));
        match element {
            Some(element) => fill(kind, element, out).map_err(within)?,
            None if fill_absent(kind, out) => {}
            None => return Err(within(Misfit::new(kind, Fault::Missing, "null"))),
        }
    }
    Ok(())
}

impl From<NotANumber> for Fault {
    fn from(why: NotANumber) -> Self {
        match why {
            NotANumber::Text => Self::Type,
            NotANumber::Range => Self::Range,
        }
    }
}

impl From<NotATime> for Fault {
    fn from(why: NotATime) -> Self {
        match why {
            NotATime::Text => Self::Type,
            NotATime::NoZone => Self::NoZone,
            NotATime::NoUnit => Self::NoUnit,
        }
    }
}

fn moment(kind: &Kind, value: Text<'_>, zone: Option<chrono_tz::Tz>) -> Result<Moment, Box<Misfit>> {
    let read = match value.as_bytes().first() {
        Some(b'"') => Moment::of_text(&string(kind, value)?, zone),
        Some(b'-' | b'0'..=b'9') => Moment::of_number(value),
        _ => Err(NotATime::Text),
    };
    read.map_err(|why| Misfit::new(kind, why.into(), value))
}

fn string<'a>(kind: &Kind, value: Text<'a>) -> Result<Cow<'a, str>, Box<Misfit>> {
    let fault = if value.starts_with('"') { Fault::Unreadable } else { Fault::Type };
    json::string(value).ok_or_else(|| Misfit::new(kind, fault, value))
}

/// The text of a number, also of one in a string.
fn number<'a>(kind: &Kind, value: Text<'a>) -> Result<Cow<'a, str>, Box<Misfit>> {
    match value.as_bytes().first() {
        Some(b'"') => string(kind, value),
        Some(b'-' | b'0'..=b'9') => Ok(Cow::Borrowed(value)),
        _ => Err(Misfit::new(kind, Fault::Type, value)),
    }
}

/// Rust reads every form that ClickHouse reads: `nan`, `inf` and exponents.
/// Whether it is a number, and not the word for an infinite one.
fn has_digits(text: &str) -> bool {
    text.bytes().any(|byte| byte.is_ascii_digit())
}

fn truth(value: Text<'_>) -> Option<bool> {
    match value {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

fn boolean(value: Text<'_>) -> Option<bool> {
    match value {
        "true" | "1" => Some(true),
        "false" | "0" => Some(false),
        _ => None,
    }
}

/// A length and its bytes.
pub fn put_text(bytes: &[u8], out: &mut Vec<u8>) {
    put_length(bytes.len(), out);
    out.extend_from_slice(bytes);
}

/// LEB128: seven bits a byte, the lowest first, the top bit set on all but the last.
pub fn put_length(mut length: usize, out: &mut Vec<u8>) {
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
}

/// Appends values whose number is known behind them, and that number before them.
fn counted(
    out: &mut Vec<u8>,
    values: impl FnOnce(&mut Vec<u8>) -> Result<usize, Box<Misfit>>,
) -> Result<(), Box<Misfit>> {
    let begin = out.len();
    // Most arrays have fewer than 128 elements: their number is one byte.
    out.push(0);
    let count = values(out)?;
    let mut length = Vec::new();
    match u8::try_from(count) {
        Ok(count @ ..0x80) => out[begin] = count,
        _ => {
            put_length(count, &mut length);
            out.splice(begin..=begin, length);
        }
    }
    Ok(())
}
