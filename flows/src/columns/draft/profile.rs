//! The values of one field, summed up in memory of a fixed size.

use super::super::json::{self, Text};
use super::names;
use super::object::is_for_json;
use super::scalar::{Fits, Scalar, is_naive_time};
use crate::numbers::grouped;
use std::collections::hash_map::DefaultHasher;
use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};

/// Of more values than this, it is not counted how many are distinct. A dictionary of more is slow, too.
const DISTINCT: usize = 1_000;

/// A dictionary is worth it if each of its texts is used that often.
const USES: u64 = 10;

/// If only one value of so many does not fit a type, that is said.
const FAULTY: u64 = 20;

/// Longer texts are not names of anything.
const DICTIONARY_BYTES: usize = 255;

/// Objects and arrays are looked into that deep.
const DEPTH: usize = 3;

/// An object with more fields than this has names that are values.
const FIELDS: usize = 30;

/// The message that a value is from, and how many more profiles there may be.
#[derive(Debug)]
pub struct Walk {
    pub message: u64,
    pub room: usize,
}

/// The values of a field.
#[derive(Debug, Default)]
pub struct Profile {
    /// The number of messages that have the field; in an array, the number of elements.
    pub seen: u64,
    pub nulls: u64,
    /// The number of messages that have it more than once.
    pub twice: u64,
    /// The last message that had it.
    last: u64,
    booleans: u64,
    numbers: u64,
    texts: u64,
    arrays: u64,
    objects: u64,
    /// Strings that are not Unicode.
    pub unreadable: u64,
    /// Texts that are times without a zone.
    naive_times: u64,
    longest: usize,
    fits: Fits,
    distinct: HashSet<u64>,
    has_more: bool,
    not_for_json: u64,
    elements: Option<Box<Profile>>,
    /// Whether its values are elements of arrays: then the names of their fields are of no use.
    is_element: bool,
    pub fields: Fields,
}

/// Fields by their names, in the order in which they came.
#[derive(Debug, Default)]
pub struct Fields {
    by_name: HashMap<String, usize>,
    pub all: Vec<(String, Profile)>,
    /// Whether there were others, which are not counted.
    pub has_more: bool,
}

/// The type of a column, before it is known whether that takes null.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    Scalar(&'static str),
    /// A text out of few.
    Dictionary,
    /// Texts as they are, and anything else as its JSON.
    Text,
    Array(Box<Shape>, bool),
    Json,
}

impl Fields {
    /// The profile of a name; none where there are too many.
    pub fn entry(&mut self, name: &str, most: usize, walk: &mut Walk) -> Option<&mut Profile> {
        let at = match self.by_name.get(name) {
            Some(&at) => at,
            None if self.all.len() >= most || walk.room == 0 => {
                self.has_more = true;
                return None;
            }
            None => {
                walk.room -= 1;
                self.by_name.insert(name.to_owned(), self.all.len());
                self.all.push((name.to_owned(), Profile::default()));
                self.all.len() - 1
            }
        };
        Some(&mut self.all[at].1)
    }
}

impl Profile {
    /// Notes a value of a message.
    pub fn note(&mut self, value: Text<'_>, walk: &mut Walk) {
        if std::mem::replace(&mut self.last, walk.message) == walk.message {
            self.twice += 1;
        } else {
            self.seen += 1;
        }
        self.look(value, 0, walk);
    }

    fn look(&mut self, value: Text<'_>, depth: usize, walk: &mut Walk) {
        match value.as_bytes().first() {
            Some(b'n') => {
                self.nulls += 1;
                return;
            }
            Some(b't' | b'f') => {
                self.booleans += 1;
                self.fits.note(value, &Scalar::Boolean);
            }
            Some(b'"') => self.look_at_text(value),
            Some(b'[') => self.look_at_array(value, depth, walk),
            Some(b'{') => self.look_at_object(value, depth, walk),
            _ => {
                self.numbers += 1;
                self.fits.note(value, &Scalar::Number(value));
            }
        }
        self.has_more |= self.distinct.len() > DISTINCT;
        if !self.has_more {
            let mut hasher = DefaultHasher::new();
            value.hash(&mut hasher);
            self.distinct.insert(hasher.finish());
        }
    }

    fn look_at_text(&mut self, value: Text<'_>) {
        self.texts += 1;
        let Some(text) = json::string(value) else {
            self.unreadable += 1;
            return;
        };
        self.longest = self.longest.max(text.len());
        self.naive_times += u64::from(is_naive_time(&text));
        self.fits.note(value, &Scalar::Text(text));
    }

    fn look_at_array(&mut self, value: Text<'_>, depth: usize, walk: &mut Walk) {
        self.arrays += 1;
        let is_new = self.elements.is_none();
        if depth >= DEPTH || is_new && walk.room == 0 {
            return;
        }
        walk.room -= usize::from(is_new);
        let elements = self.elements.get_or_insert_default();
        elements.is_element = true;
        // The walk fails only on what is not an array.
        for element in json::elements(value).flatten() {
            elements.seen += 1;
            elements.look(element, depth + 1, walk);
        }
    }

    fn look_at_object(&mut self, value: Text<'_>, depth: usize, walk: &mut Walk) {
        self.objects += 1;
        self.not_for_json += u64::from(!is_for_json(value));
        if depth >= DEPTH || self.is_element || self.fields.has_more || self.not_for_json > 0 {
            return;
        }
        let fields = &mut self.fields;
        for (name, value) in json::fields(value).flatten() {
            if let Some(field) = fields.entry(&name, FIELDS, walk) {
                field.seen += 1;
                field.look(value, depth + 1, walk);
            }
        }
    }

    /// The type for a column of this name; none if none takes all values.
    pub fn shape(&self, name: &str) -> Option<Shape> {
        // The name of the object that contains the field says little about its values.
        let name = name.rsplit('.').next().unwrap_or_default();
        let values = self.values();
        if values == 0 {
            return Some(Shape::Text);
        }
        if let Some((kind, _)) = self.fits.preferred(name, values) {
            return Some(Shape::Scalar(kind));
        }
        if self.unreadable > 0 {
            return None;
        }
        let is_dictionary = !self.has_more && self.texts >= USES * self.distinct.len() as u64;
        Some(match values {
            _ if values == self.texts && is_dictionary && self.longest <= DICTIONARY_BYTES => Shape::Dictionary,
            _ if values == self.objects && self.not_for_json == 0 => Shape::Json,
            _ if values == self.arrays => {
                self.elements.as_ref().and_then(|all| all.as_array(name)).unwrap_or(Shape::Text)
            }
            _ => Shape::Text,
        })
    }

    /// The type of an array with these elements; none if they have different types.
    fn as_array(&self, name: &str) -> Option<Shape> {
        let shape = self.shape(name)?;
        let (has_nulls, varies) = (self.nulls > 0, shape == Shape::Text && self.texts < self.values());
        let takes_null = !matches!(shape, Shape::Array(..) | Shape::Json);
        (!varies && (takes_null || !has_nulls)).then(|| Shape::Array(Box::new(shape), has_nulls))
    }

    /// Values that are not null.
    pub fn values(&self) -> u64 {
        self.booleans + self.numbers + self.texts + self.arrays + self.objects
    }

    /// Whether its values are objects whose fields are columns: all have about the same fields, and each of those is of one simple type.
    pub fn is_stable(&self) -> bool {
        let is_stable = |(name, field): &(String, Profile)| {
            let is_plain = match field.shape(name) {
                Some(Shape::Scalar(_) | Shape::Dictionary) => true,
                Some(Shape::Text) => field.texts == field.values(),
                Some(Shape::Json) => field.is_stable(),
                Some(Shape::Array(..)) | None => false,
            };
            is_plain && field.seen * 2 >= self.objects && names::unfit(name).is_none() && !name.contains('.')
        };
        let fields = &self.fields;
        self.objects > 0
            && self.objects == self.values()
            && self.not_for_json == 0
            && !fields.has_more
            && !fields.all.is_empty()
            && fields.all.iter().all(is_stable)
    }

    /// Remarks about the values, for the column's comment.
    pub fn remarks(&self, name: &str, shape: &Shape) -> Vec<String> {
        let mut remarks = Vec::new();
        let values = self.values();
        match shape {
            _ if values == 0 => remarks.push("never a value".to_owned()),
            Shape::Scalar(_) | Shape::Dictionary | Shape::Text if self.has_more => {
                remarks.push(format!("over {} distinct values", grouped(DISTINCT as u64)));
            }
            Shape::Scalar(_) | Shape::Dictionary | Shape::Text => {
                let count = self.distinct.len() as u64;
                remarks.push(format!("{} distinct value{}", grouped(count), if count == 1 { "" } else { "s" }));
            }
            Shape::Array(..) | Shape::Json => {}
        }
        if self.nulls > 0 {
            remarks.push(format!("{} null", super::share(self.nulls, self.seen)));
        }
        let kinds = [
            (self.booleans, "booleans"),
            (self.numbers, "numbers"),
            (self.texts, "strings"),
            (self.arrays, "arrays"),
            (self.objects, "objects"),
        ];
        let kinds: Vec<_> = kinds.iter().filter(|(count, _)| *count > 0).map(|(_, name)| *name).collect();
        if *shape == Shape::Text && (kinds.len() > 1 || self.texts < values) {
            remarks.push(format!("{}: what is not a string is its JSON", kinds.join(", ")));
        }
        let name = name.rsplit('.').next().unwrap_or_default();
        let is_text = matches!(shape, Shape::Text | Shape::Dictionary);
        if let Some((kind, taken)) = self.fits.preferred(name, values - values / FAULTY).filter(|_| is_text) {
            remarks.push(format!("{kind} would take all but {}", grouped(values - taken)));
        }
        if values > 0 && self.naive_times == values {
            remarks.push("times without a zone: DateTime64(3, 'UTC') would take them as UTC".to_owned());
        }
        remarks
    }
}

impl Shape {
    /// The type, and the DEFAULT for messages without a value if the type has no null.
    pub fn sql(&self, is_nullable: bool) -> (String, Option<&'static str>) {
        let plain = |kind: &str| if is_nullable { format!("Nullable({kind})") } else { kind.to_owned() };
        match self {
            Self::Scalar(kind) => (plain(kind), None),
            Self::Text => (plain("String"), None),
            Self::Dictionary => (format!("LowCardinality({})", plain("String")), None),
            Self::Array(element, has_nulls) => {
                (format!("Array({})", element.sql(*has_nulls).0), is_nullable.then_some("[]"))
            }
            Self::Json => ("JSON".to_owned(), is_nullable.then_some("'{}'::JSON")),
        }
    }
}
