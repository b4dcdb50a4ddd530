//! The six fields of an event, and a second reading of an object that is not one: which of its fields are to blame.

use serde::de::{Deserializer as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// A field of the contract.
#[derive(Debug, PartialEq)]
pub struct Field {
    pub name: &'static str,
    pub expected: &'static str,
    is_number: bool,
    /// Whether a sentence may quote its value: it says nothing about a person.
    pub is_quoted: bool,
}

pub static EVENT_ID: Field = text("event_id", "a UUID in a string", true);
pub static EVENT_TYPE: Field = text("event_type", "the string page_view, add_to_cart or purchase", true);
pub static USER_ID: Field = text("user_id", "a string", false);
pub static PRODUCT_ID: Field = text("product_id", "a string", false);
pub static PRICE: Field =
    Field { name: "price", expected: "a number from 0 to 99999999.99", is_number: true, is_quoted: true };
pub static TIMESTAMP: Field =
    text("timestamp", "a string in RFC 3339, of the years 1900 to 2299: \"2024-01-15T14:30:00Z\"", true);

/// In the order in which the contract names them.
static FIELDS: [&Field; 6] = [&EVENT_ID, &EVENT_TYPE, &USER_ID, &PRODUCT_ID, &PRICE, &TIMESTAMP];

/// The longest text of a field, in bytes of UTF-8. Users and products are names that tables and pages show in lists.
pub const MAX_TEXT_BYTES: usize = 1_024;

/// Fields in which other programs wrap a record.
const ENVELOPES: [&str; 8] = ["payload", "data", "value", "after", "event", "message", "body", "record"];

const fn text(name: &'static str, expected: &'static str, is_quoted: bool) -> Field {
    Field { name, expected, is_number: false, is_quoted }
}

/// The fault of a field that is present.
#[derive(Debug)]
pub enum Wrong<'a> {
    Twice,
    /// Another JSON type than the contract has, or a number that no double holds.
    Type(&'a RawValue),
}

/// An object, field by field, up to where it breaks.
#[derive(Debug, Default)]
pub struct Scan<'a> {
    /// The first field that is wrong, in the order of the payload.
    pub wrong: Option<(&'static Field, Wrong<'a>)>,
    /// The known fields that are present.
    present: Vec<&'static Field>,
    /// The first string that is terminated and cannot be decoded, such as half of a surrogate pair.
    unreadable: Option<&'static Field>,
    /// Names that resemble one of the six.
    alike: Vec<(&'static Field, String)>,
    /// Where all six stand one level deeper.
    pub envelope: Option<&'static str>,
    /// Where the reading ended: behind no field, one of the six, or another one.
    last: Option<Option<&'static Field>>,
}

impl<'a> Scan<'a> {
    /// Reads a payload that begins as an object.
    pub fn of(payload: &'a [u8]) -> Self {
        let mut scan = Self::default();
        // Where it breaks is known already, from the first reading.
        let _ = serde_json::Deserializer::from_slice(payload).deserialize_map(&mut scan);
        scan
    }

    /// The missing fields, and for each the name of the field that is probably meant for it.
    pub fn missing(&self) -> impl Iterator<Item = (&'static Field, Option<&str>)> {
        FIELDS.into_iter().filter(|field| !self.present.contains(field)).map(|field| {
            let alike = self.alike.iter().find(|(resembled, _)| *resembled == field);
            (field, alike.map(|(_, name)| name.as_str()))
        })
    }

    /// The field at which it broke, where it is one of the six; none inside where it is another one.
    pub fn broken_at(&self) -> Option<Option<&'static Field>> {
        self.unreadable.map(Some).or(self.last)
    }

    fn note(&mut self, field: &'static Field, value: &'a RawValue) {
        let is_twice = self.present.contains(&field);
        if !is_twice {
            self.present.push(field);
        }
        let wrong = match is_twice {
            true => Some(Wrong::Twice),
            false if field.takes(value) => None,
            false => Some(Wrong::Type(value)),
        };
        self.wrong = self.wrong.take().or(wrong.map(|wrong| (field, wrong)));
        let text = serde_json::from_str::<Cow<'_, str>>(value.get());
        if text.is_err_and(|error| error.is_syntax()) && value.get().starts_with('"') {
            self.unreadable = self.unreadable.or(Some(field));
        }
    }
}

impl Field {
    fn takes(&self, value: &RawValue) -> bool {
        match self.is_number {
            true => value.get().parse().is_ok_and(f64::is_finite),
            false => value.get().starts_with('"'),
        }
    }

    /// `eventId`, `event-id` and `EVENT_ID` resemble `event_id`.
    fn resembles(&self, name: &str) -> bool {
        let letters = |text: &'static str| text.bytes().filter(u8::is_ascii_alphanumeric);
        let found = name.bytes().filter(u8::is_ascii_alphanumeric).map(|byte| byte.to_ascii_lowercase());
        letters(self.name).eq(found)
    }
}

impl<'a> Visitor<'a> for &mut Scan<'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut object: A) -> Result<(), A::Error> {
        while let Some(name) = object.next_key::<Cow<'a, str>>()? {
            let known = FIELDS.into_iter().find(|field| field.name == name);
            self.last = Some(known);
            if let Some(field) = known {
                self.note(field, object.next_value()?);
                continue;
            }
            if let Some(field) = FIELDS.into_iter().find(|field| field.resembles(&name)) {
                self.alike.push((field, name.into_owned()));
            } else if let Some(envelope) = ENVELOPES.into_iter().find(|envelope| *envelope == name) {
                let inside: &RawValue = object.next_value()?;
                let holds = |field: &&Field| inside.get().contains(&format!("\"{}\"", field.name));
                if inside.get().starts_with('{') && FIELDS.iter().all(holds) {
                    self.envelope = Some(envelope);
                }
                continue;
            }
            object.next_value::<IgnoredAny>()?;
        }
        Ok(())
    }
}
