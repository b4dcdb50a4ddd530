//! JSON values as their text, walked without building anything.

use serde::de::{DeserializeSeed, Deserializer as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

/// The text of a value, without space around it.
pub type Text<'a> = &'a str;

/// The string of a JSON string; none if it is no string, or holds half of a surrogate pair.
pub fn string(value: Text<'_>) -> Option<Cow<'_, str>> {
    let inner = value.strip_prefix('"')?.strip_suffix('"')?;
    if inner.as_bytes().contains(&b'\\') {
        serde_json::from_str(value).ok().map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(inner))
    }
}

/// Calls `each` with the elements of an array, until one fails.
///
/// # Errors
/// The outer one if the text is no array; the inner one is of `each`.
pub fn elements<'a, E>(
    array: Text<'a>,
    each: impl FnMut(Text<'a>) -> Result<(), E>,
) -> Result<Result<(), E>, serde_json::Error> {
    let mut walk = Walk { each, failed: Ok(()), value: PhantomData::<&'a str> };
    let read = serde_json::Deserializer::from_str(array).deserialize_seq(Elements(&mut walk));
    finish(walk.failed, read)
}

/// Calls `each` with the names and values of an object's fields, until one fails.
///
/// # Errors
/// The outer one if the text is no object; the inner one is of `each`.
pub fn fields<'a, E>(
    object: Text<'a>,
    each: impl FnMut((Cow<'a, str>, Text<'a>)) -> Result<(), E>,
) -> Result<Result<(), E>, serde_json::Error> {
    let mut walk = Walk { each, failed: Ok(()), value: PhantomData::<&'a str> };
    let mut json = serde_json::Deserializer::from_str(object);
    let read = json.deserialize_map(Fields(&mut walk)).and_then(|()| json.end());
    finish(walk.failed, read)
}

fn finish<E>(failed: Result<(), E>, read: Result<(), serde_json::Error>) -> Result<Result<(), E>, serde_json::Error> {
    match failed {
        Ok(()) => read.map(Ok),
        failed => Ok(failed),
    }
}

struct Walk<V, F, E> {
    each: F,
    failed: Result<(), E>,
    value: PhantomData<V>,
}

struct Elements<'w, V, F, E>(&'w mut Walk<V, F, E>);
struct Fields<'w, V, F, E>(&'w mut Walk<V, F, E>);

impl<'a, F: FnMut(Text<'a>) -> Result<(), E>, E> Visitor<'a> for Elements<'_, &'a str, F, E> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut array: A) -> Result<(), A::Error> {
        while let Some(value) = array.next_element::<&'a RawValue>()? {
            if self.0.failed.is_ok() {
                self.0.failed = (self.0.each)(value.get());
            }
        }
        Ok(())
    }
}

impl<'a, F: FnMut((Cow<'a, str>, Text<'a>)) -> Result<(), E>, E> Visitor<'a> for Fields<'_, &'a str, F, E> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut object: A) -> Result<(), A::Error> {
        while let Some(name) = object.next_key_seed(Name)? {
            let value = object.next_value::<&'a RawValue>()?;
            if self.0.failed.is_ok() {
                self.0.failed = (self.0.each)((name, value.get()));
            }
        }
        Ok(())
    }
}

/// A field's name, borrowed from the text where it has no escapes.
struct Name;

impl<'a> DeserializeSeed<'a> for Name {
    type Value = Cow<'a, str>;

    fn deserialize<D: serde::Deserializer<'a>>(self, name: D) -> Result<Self::Value, D::Error> {
        name.deserialize_str(self)
    }
}

impl<'a> Visitor<'a> for Name {
    type Value = Cow<'a, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_borrowed_str<E>(self, name: &'a str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(name))
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(name.to_owned()))
    }
}
