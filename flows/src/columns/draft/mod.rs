//! A table for the messages of a topic, drafted from a sample of them.
//!
//! A draft takes each message that it was drafted from. So a type is chosen only if the code that fills its column has taken all values of the
//! field. It is a draft: what a later message brings may not fit, and a person knows more about the fields than their values say.

mod names;
mod object;
mod profile;
mod scalar;
mod table;

use super::json;
pub use names::is_plain;
use profile::{Fields, Walk};
pub use table::Draft;

/// Of more names than this, further ones are left to `_unknown`: names that many are values.
const NAMES: usize = 1_000;

/// Profiles of fields, nested ones too. Each has about 20 kB at most.
const PROFILES: usize = 2_000;

/// A summary of a sample of a topic's messages, field by field.
#[derive(Debug)]
pub struct Sample {
    messages: u64,
    no_objects: u64,
    fields: Fields,
    /// Whether one of the fields that are not counted holds a string that is not Unicode.
    is_unreadable: bool,
    walk: Walk,
}

impl Default for Sample {
    fn default() -> Self {
        Self::with_room(PROFILES)
    }
}

impl Sample {
    /// A sample with at most so many profiles.
    pub(super) fn with_room(profiles: usize) -> Self {
        let walk = Walk { message: 0, room: profiles };
        Self { messages: 0, no_objects: 0, fields: Fields::default(), is_unreadable: false, walk }
    }

    /// Adds the payload of a message.
    pub fn add(&mut self, payload: Option<&[u8]>) {
        self.add_fields(payload, |_| true);
    }

    /// Adds those fields of a message's payload whose names are meant.
    pub(super) fn add_fields(&mut self, payload: Option<&[u8]>, is_meant: impl Fn(&str) -> bool) {
        self.messages += 1;
        self.walk.message = self.messages;
        // A text without Unicode is not an object either, nor is an empty one.
        let payload = payload.map(|payload| payload.strip_prefix(b"\xef\xbb\xbf").unwrap_or(payload));
        let payload = payload.and_then(|payload| str::from_utf8(payload).ok()).unwrap_or_default();
        // An object may be broken after some of its fields.
        let Ok(found) = json::fields(payload).collect::<Result<Vec<_>, _>>() else {
            self.no_objects += 1;
            return;
        };
        for (name, value) in found.into_iter().filter(|(name, _)| is_meant(name)) {
            match self.fields.entry(&name, NAMES, &mut self.walk) {
                Some(field) => field.note(value, &mut self.walk),
                None => self.is_unreadable |= value.starts_with('"') && json::string(value).is_none(),
            }
        }
    }

    /// The number of messages.
    pub const fn messages(&self) -> u64 {
        self.messages
    }

    /// The number of messages that are not a JSON object, and so are rows of no table.
    pub const fn no_objects(&self) -> u64 {
        self.no_objects
    }

    /// The number of messages that are an object.
    const fn objects(&self) -> u64 {
        self.messages - self.no_objects
    }
}

/// A part of a number, in percent: never more than it is.
fn share(part: u64, whole: u64) -> String {
    match part.saturating_mul(1_000).checked_div(whole).unwrap_or(0) {
        _ if part == whole => "100 %".to_owned(),
        0 => "< 0.1 %".to_owned(),
        tenths => format!("{}.{} %", tenths / 10, tenths % 10),
    }
}
