//! A table's columns, and a message's way into a row of them.
//!
//! *The table is the schema.* Each column is filled from the JSON field of its name, straight from the payload into the bytes of the insert.
//! Some names stand for parts of the record instead, as those of ClickHouse's Kafka engine do; `_unknown` takes the fields that the table
//! does not name.

mod decode;
mod draft;
mod evolve;
mod fill;
mod headers;
mod json;
mod kind;
mod number;
mod record;
mod time;
mod tree;

pub use decode::TableDecoder;
pub use draft::{Draft, Sample};
pub use evolve::{Evolution, NewColumn};
pub use headers::Headers;
pub(crate) use headers::append as append_headers;
use kind::Kind;
pub use kind::{Unfillable, is_dynamic};

use crate::Consumed;
use fill::Misfit;
use json::Text;
use record::Content;
use std::borrow::Cow;
use tree::Tree;

/// A column of a table, as `system.columns` has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnDefinition {
    /// Its name.
    pub name: String,
    /// The name of its type.
    pub kind: String,
    /// Whether the server has a value for it where a message has none.
    pub has_default: bool,
}

/// The columns of a table that a message fills, in their order.
#[derive(Debug)]
pub struct Columns {
    columns: Vec<Column>,
    fields: Tree,
    /// The column with the event's time.
    time: Option<usize>,
}

#[derive(Debug)]
struct Column {
    name: String,
    kind: Kind,
    has_default: bool,
    content: Content,
}

/// Why a table cannot be filled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnfillableColumn {
    /// No JSON value is brought into its type.
    #[error("column {0}: {1}")]
    Type(String, Unfillable),
    /// A column of this name holds a part of the record, and its type does not.
    #[error("column {0} is {1}, and holds {2}")]
    Meta(String, String, &'static str),
    /// The column that is to have the event's time.
    #[error("column {0} is no time of the event: name one of the type DateTime or DateTime64")]
    Time(String),
}

/// A message that is a row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filled {
    /// When the event happened, in milliseconds since the Unix epoch, if the column with its time was filled.
    pub time_ms: Option<i64>,
}

/// Why a message cannot become a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoRow {
    /// The payload is not one JSON object.
    NotJson(String),
    /// A field stands twice.
    Twice(String),
    /// A field is missing whose column has no default.
    Missing(String, String),
    /// A value does not fit: the column, and why.
    Misfit(String, Box<Misfit>),
}

/// Fields that a payload had and the table does not.
pub type Unknown<'a> = dyn FnMut(&str) + 'a;

impl Columns {
    /// The columns that are filled, with the one that has the event's time.
    ///
    /// # Errors
    /// [`UnfillableColumn`], the first one.
    pub fn new(definitions: &[ColumnDefinition], time: Option<&str>) -> Result<Self, UnfillableColumn> {
        let columns = definitions.iter().map(Column::new).collect::<Result<Vec<_>, _>>()?;
        let is_field = |column: &Column| matches!(column.content, Content::Field);
        let fields = columns.iter().enumerate().filter(|(_, column)| is_field(column));
        let fields = Tree::new(fields.map(|(at, column)| (at, column.name.as_str())));
        let is_time = |column: &Column| matches!(column.kind.not_null(), Kind::DateTime(_) | Kind::DateTime64(..));
        let time = match time {
            None => None,
            Some(name) => {
                let at = columns.iter().position(|column| column.name == name && is_time(column));
                Some(at.ok_or_else(|| UnfillableColumn::Time(name.into()))?)
            }
        };
        Ok(Self { columns, fields, time })
    }

    /// Their names, and whether a byte stands before each value that says whether there is one.
    pub fn layout(&self) -> impl Iterator<Item = (&str, bool)> {
        self.columns.iter().map(|column| (column.name.as_str(), column.has_default))
    }

    /// Appends a message as a row; `payload` is its payload without a byte order mark. After an error, a part of one may have been appended.
    ///
    /// # Errors
    /// [`NoRow`].
    pub(crate) fn fill<'a>(
        &self,
        topic: &str,
        message: &Consumed<'a>,
        payload: &'a [u8],
        unknown: &mut Unknown<'_>,
        out: &mut Vec<u8>,
    ) -> Result<Filled, NoRow> {
        let mut found: Vec<Option<Cow<'a, str>>> = vec![None; self.columns.len()];
        let mut left: Vec<(Cow<'a, str>, Text<'a>)> = Vec::new();
        let collects = self.columns.iter().any(|column| matches!(column.content, Content::Unknown));
        let mut previous = None;
        // Once for the whole payload is cheaper than once for each string in it.
        let payload = std::str::from_utf8(payload).map_err(|error| {
            NoRow::NotJson(format!("byte {} and those behind it are not UTF-8", error.valid_up_to()))
        })?;
        for field in json::fields(payload) {
            let (name, value) = field.map_err(|_| NoRow::NotJson(json::fault(payload)))?;
            let known = self.fields.find(previous, &name);
            previous = known.or(previous);
            let mut leave = |name: Cow<'a, str>, value: Option<Text<'a>>| {
                // A field whose value is kept with the one around it is told all the same.
                unknown(&name);
                if collects {
                    left.extend(value.map(|value| (name, value)));
                }
            };
            match known {
                Some(node) => node
                    .collect(name, value, &mut found, &mut leave)
                    .map_err(|at| NoRow::Twice(self.columns[at].name.clone()))?,
                None => leave(name, Some(value)),
            }
        }
        let mut filled = Filled::default();
        for (at, (column, value)) in self.columns.iter().zip(found).enumerate() {
            match column.content {
                Content::Field => {
                    let was_filled = column.fill(value.as_deref(), out)?;
                    if was_filled && self.time == Some(at) {
                        filled.time_ms = column.kind.read_ms(out);
                    }
                }
                Content::Meta(meta) => meta.fill(&column.kind, topic, message, out),
                Content::Unknown => {
                    record::fill_unknown(&column.kind, &left, out).map_err(|misfit| column.misfit(misfit))?;
                }
            }
        }
        Ok(filled)
    }
}

impl Column {
    fn new(definition: &ColumnDefinition) -> Result<Self, UnfillableColumn> {
        let ColumnDefinition { name, kind, has_default } = definition;
        let parsed = Kind::of_column(kind).map_err(|why| UnfillableColumn::Type(name.clone(), why))?;
        let content =
            Content::of(name, &parsed).map_err(|holds| UnfillableColumn::Meta(name.clone(), kind.clone(), holds))?;
        let has_default = *has_default && matches!(content, Content::Field);
        Ok(Self { name: name.clone(), kind: parsed, has_default, content })
    }

    /// Appends the value of its field; false if there is none, so that the server's default or null stands there.
    fn fill(&self, value: Option<Text<'_>>, out: &mut Vec<u8>) -> Result<bool, NoRow> {
        let is_null = value == Some("null") && !self.kind.takes_null();
        match value {
            Some(value) if !(self.has_default && is_null) => {
                out.extend(self.has_default.then_some(1));
                fill::fill(&self.kind, value, out).map_err(|misfit| self.misfit(misfit))?;
                Ok(value != "null")
            }
            _ if self.has_default => {
                out.push(0);
                self.kind.put_any(out);
                Ok(false)
            }
            _ if fill::fill_absent(&self.kind, out) => Ok(false),
            _ => Err(NoRow::Missing(self.name.clone(), self.kind.expected())),
        }
    }

    fn misfit(&self, misfit: Box<Misfit>) -> NoRow {
        NoRow::Misfit(self.name.clone(), misfit)
    }
}

#[cfg(test)]
mod tests {
    use super::fill::Fault;
    use super::*;

    fn columns(of: &[(&str, &str)]) -> Columns {
        let definition = |&(name, kind): &(&str, &str)| {
            let (kind, has_default) = kind.strip_suffix(" DEFAULT").map_or((kind, false), |kind| (kind, true));
            ColumnDefinition { name: name.into(), kind: kind.into(), has_default }
        };
        Columns::new(&of.iter().map(definition).collect::<Vec<_>>(), None).unwrap()
    }

    fn message(payload: &str) -> Consumed<'_> {
        Consumed {
            key: Some(b"k"),
            payload: Some(payload.as_bytes()),
            timestamp_ms: Some(1_500),
            headers: &[("h", Some(b"v")), ("h", None)],
        }
    }

    fn row(columns: &Columns, payload: &str) -> Result<Vec<u8>, NoRow> {
        let mut out = Vec::new();
        columns.fill("web", &message(payload), payload.as_bytes(), &mut |_| (), &mut out)?;
        Ok(out)
    }

    fn at(columns: &Columns, payload: &str) -> (String, Fault) {
        match row(columns, payload) {
            Err(NoRow::Misfit(column, misfit)) => (misfit.path(&column), misfit.fault),
            other => panic!("{payload}: {other:?}"),
        }
    }

    #[test]
    fn each_column_is_filled_from_the_field_of_its_name_in_any_order() {
        let table = columns(&[("a", "UInt8"), ("b", "String"), ("c", "Nullable(Int16)")]);
        let expected = Ok(vec![7, 1, b'x', 1]);
        assert_eq!(row(&table, r#"{"a":7,"b":"x","c":null}"#), expected);
        assert_eq!(row(&table, r#" { "d":[{}], "b" : "\u0078" , "a" : "7" } "#), expected);
        assert_eq!(row(&table, r#"{"a":7,"b":"x","a":7}"#), Err(NoRow::Twice("a".into())));
        assert!(matches!(row(&table, r#"{"b":"x"}"#), Err(NoRow::Missing(name, _)) if name == "a"));
        for broken in ["", "[]", "null", "{", r#"{"a":7,"b":"x"}}"#, r#"{"a":7,"b":"x",}"#, r#"{"a":7,"b":"x"} {}"#] {
            assert!(matches!(row(&table, broken), Err(NoRow::NotJson(_))), "{broken}");
        }
    }

    #[test]
    fn a_variant_takes_the_first_type_that_fits_and_a_dynamic_column_any_value() {
        let table = columns(&[("v", "Variant(String, UInt8, Array(UInt8))"), ("d", "Dynamic(max_types=8)")]);
        let dynamic = |text: &str| [&[text.len() as u8 + 6][..], b"{\"v\":", text.as_bytes(), b"}"].concat();
        for (value, encoded) in [
            ("7", &[2, 7][..]),
            ("\"x\"", &[1, 1, b'x']),
            ("[1,2]", &[0, 2, 1, 2]),
            ("[1,256]", b"\x01\x07[1,256]"),
            ("null", &[255]),
        ] {
            let expected = [encoded, &dynamic(value)].concat();
            assert_eq!(row(&table, &format!(r#"{{"v":{value},"d":{value}}}"#)), Ok(expected), "{value}");
        }
        assert_eq!(row(&table, "{}"), Ok([&[255][..], &dynamic("null")].concat()));
        let strict = columns(&[("v", "Variant(UInt8, Bool)")]);
        assert_eq!(at(&strict, r#"{"v":"x"}"#), ("v".into(), Fault::Type));
    }

    #[test]
    fn the_server_fills_a_column_with_a_default_where_the_message_does_not() {
        let table = columns(&[("a", "UInt8 DEFAULT"), ("b", "Nullable(UInt8) DEFAULT")]);
        assert_eq!(row(&table, r#"{"a":7,"b":8}"#), Ok(vec![1, 7, 1, 0, 8]));
        assert_eq!(row(&table, r#"{}"#), Ok(vec![0, 0, 0, 1]));
        assert_eq!(
            row(&table, r#"{"a":null,"b":null}"#),
            Ok(vec![0, 0, 1, 1]),
            "null is a value only where the column takes it"
        );
    }

    #[test]
    fn a_dotted_name_is_a_field_of_an_object_or_of_each_object_in_an_array() {
        let table = columns(&[
            ("geo.country", "String"),
            ("items.n", "Array(Nullable(UInt8))"),
            ("items.p.x", "Array(Nullable(UInt8))"),
        ]);
        let expected = Ok(vec![2, b'd', b'e', 2, 0, 1, 1, 2, 0, 5, 1]);
        assert_eq!(row(&table, r#"{"geo":{"country":"de","city":1},"items":[{"n":1,"p":{"x":5}},{"m":0}]}"#), expected);
        assert_eq!(row(&table, r#"{"geo.country":"de","items.n":[1,null],"items":{"p":{"x":[5,null]}}}"#), expected);
        assert_eq!(
            row(&table, r#"{"geo.country":"de","geo":{"country":"de"},"items":[]}"#),
            Err(NoRow::Twice("geo.country".into()))
        );
    }

    #[test]
    fn a_value_that_does_not_fit_is_named_by_its_path() {
        let table =
            columns(&[("a", "Array(Tuple(n UInt8, s Map(String, Int8)))"), ("e", "Enum8('x' = 1)"), ("t", "DateTime")]);
        let payload = |a: &str, e: &str, t: &str| format!(r#"{{"a":{a},"e":{e},"t":{t}}}"#);
        for (a, path, fault) in [
            ("7", "a", Fault::Type),
            ("[7]", "a[0]", Fault::Type),
            ("[[1,{}],[1]]", "a[1]", Fault::Missing),
            (r#"[{"n":1,"s":{}},{"n":256,"s":{}}]"#, "a[1].n", Fault::Range),
            (r#"[{"n":1,"s":{"k":-129}}]"#, "a[0].s.k", Fault::Range),
            (r#"[{"n":1}]"#, "a[0].s", Fault::Missing),
            (r#"[{"n":1,"n":1,"s":{}}]"#, "a[0].n", Fault::Twice),
            (r#"[{"n":null,"s":{}}]"#, "a[0].n", Fault::Null),
        ] {
            assert_eq!(at(&table, &payload(a, "\"x\"", "1705329000")), (path.into(), fault), "{a}");
        }
        assert_eq!(at(&table, &payload("[]", "\"y\"", "1705329000")), ("e".into(), Fault::Range));
        assert_eq!(at(&table, &payload("[]", "1", "\"2024-01-15 14:30:00\"")), ("t".into(), Fault::NoZone));
        assert_eq!(at(&table, &payload("[]", "1", "5")), ("t".into(), Fault::NoUnit));
    }

    #[test]
    fn columns_of_these_names_hold_parts_of_the_record() {
        let table = columns(&[
            ("_topic", "LowCardinality(String)"),
            ("_key", "Nullable(String)"),
            ("_timestamp", "DateTime"),
            ("_timestamp_ms", "Nullable(DateTime64(3))"),
            ("_headers", "Map(String, String)"),
            ("_raw_message", "String"),
            ("_unknown", "String"),
        ]);
        let expected = [
            &b"\x03web\x00\x01k\x01\x00\x00\x00\x00"[..],
            &1_500i64.to_le_bytes(),
            b"\x02\x01h\x01v\x01h\x00\x0e{\"a\": [1 , 2]}\x0d{\"a\":[1 , 2]}",
        ];
        assert_eq!(row(&table, r#"{"a": [1 , 2]}"#), Ok(expected.concat()));
        for (name, kind) in
            [("_topic", "UInt8"), ("_headers", "String"), ("_unknown", "Array(String)"), ("_timestamp", "Int64")]
        {
            let definition = ColumnDefinition { name: name.into(), kind: kind.into(), has_default: false };
            assert!(matches!(Columns::new(&[definition], None), Err(UnfillableColumn::Meta(..))), "{name}");
        }
    }

    #[test]
    fn fields_that_the_table_does_not_name_are_told() {
        let table = columns(&[("a", "UInt8"), ("_unknown", "Map(String, String)")]);
        let (mut unknown, mut out) = (Vec::new(), Vec::new());
        let payload = r#"{"x":"\n","a":1,"y":{"z":[]},"n":null}"#;
        table
            .fill("web", &message(payload), payload.as_bytes(), &mut |name| unknown.push(name.to_owned()), &mut out)
            .unwrap();
        assert_eq!(unknown, ["x", "y", "n"]);
        assert_eq!(out, b"\x01\x03\x01x\x01\n\x01y\x08{\"z\":[]}\x01n\x00");
    }

    #[test]
    fn a_field_below_that_no_column_names_is_told_and_kept_by_its_whole_name() {
        let table = columns(&[
            ("geo.country", "Nullable(String)"),
            ("items.n", "Array(Nullable(UInt8))"),
            ("all", "String"),
            ("all.x", "Nullable(UInt8)"),
            ("_unknown", "String"),
        ]);
        let (mut unknown, mut out) = (Vec::new(), Vec::new());
        let payload = r#"{"geo":{"country":null,"city":"x"},"items":[{"n":1,"m":2}],"all":{"x":1,"y":2}}"#;
        let mut note = |name: &str| unknown.push(name.to_owned());
        table.fill("web", &message(payload), payload.as_bytes(), &mut note, &mut out).unwrap();
        let kept = r#"{"geo.city":"x","items":[{"n":1,"m":2}]}"#;
        assert!(out.ends_with(kept.as_bytes()), "{}", String::from_utf8_lossy(&out));
        // Another form than the one that the dotted columns expect is not passed over either.
        let payload = r#"{"geo":"de","items":[],"all":{}}"#;
        out.clear();
        table.fill("web", &message(payload), payload.as_bytes(), &mut note, &mut out).unwrap();
        assert!(out.ends_with(br#"{"geo":"de"}"#), "{}", String::from_utf8_lossy(&out));
        assert_eq!(unknown, ["geo.city", "items.m", "items", "geo"]);
    }

    #[test]
    fn the_events_time_is_that_of_the_named_column() {
        let of = |kind: &str| ColumnDefinition { name: "at".into(), kind: kind.into(), has_default: true };
        for (kind, expected) in [
            ("DateTime64(6)", 1_705_329_000_123),
            ("DateTime", 1_705_329_000_000),
            ("Nullable(DateTime64(3))", 1_705_329_000_123),
        ] {
            let table = Columns::new(&[of(kind)], Some("at")).unwrap();
            let time = |payload: &str| {
                table.fill("web", &message(payload), payload.as_bytes(), &mut |_| (), &mut Vec::new()).unwrap().time_ms
            };
            assert_eq!(time(r#"{"at":"2024-01-15T14:30:00.1239Z"}"#), Some(expected), "{kind}");
            assert_eq!(time("{}"), None);
        }
        assert!(matches!(Columns::new(&[of("String")], Some("at")), Err(UnfillableColumn::Time(_))));
        assert!(matches!(Columns::new(&[of("Date")], Some("when")), Err(UnfillableColumn::Time(_))));
    }
}
