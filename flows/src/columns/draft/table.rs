//! The drafted table, as a statement to be read, changed and applied.

use super::super::NewColumn;
use super::profile::{Profile, Shape};
use super::{Sample, names, share};
use crate::numbers::grouped;
use std::cmp::Reverse;
use std::collections::HashSet;
use std::fmt::Write as _;

/// Of more fields than this, the rarest are left to `_unknown`.
const FIELDS: usize = 200;

/// With more columns than this, objects are columns of their own as a whole.
const COLUMNS: usize = 500;

/// Of further fields that are left to `_unknown`, so many are named.
const NAMED: usize = 20;

/// The type of times.
const TIME: &str = "DateTime64";

/// The columns that each table needs, and what keeps the promises.
const POSITION: &str = "    -- The position of the row's message: the topic's id (or its name, if the broker has no ids), partition and offset.
    _source LowCardinality(String),
    _partition Int32,
    _offset Int64,
    -- The time of the insert: one value for all its rows.
    ingested_at DateTime64(3, 'UTC') DEFAULT nowInBlock64(3, 'UTC')";

/// The end of the statement.
const ENGINE: &str = ")
ENGINE = ReplacingMergeTree
-- By the time of ingestion, never by the event's own: so an insert is always one part, which makes it atomic. A TTL uses ingested_at, too, and
-- has to outlast the topic's retention. The second term is always 0; it keeps the range of offsets of each part in memory.
PARTITION BY toYYYYMM(ingested_at) + (_offset < 0)
-- By position: each insert asks whether its first row is stored, and ClickHouse reads one granule for that. With other columns
-- before these, it reads more. Without the three, merges would make one row of several.
ORDER BY (_source, _partition, _offset)
-- An acknowledged part survives a power cut.
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;
";

/// A drafted table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    columns: Vec<Column>,
    left: Vec<Left>,
    /// The type of `_unknown`.
    unknown: &'static str,
    time: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Column {
    name: String,
    kind: String,
    default: Option<&'static str>,
    comment: String,
}

impl Column {
    fn declaration(&self) -> String {
        let default = self.default.map_or_else(String::new, |default| format!(" DEFAULT {default}"));
        format!("{} {}{default},", names::quoted(&self.name), self.kind)
    }
}

/// A field without a column, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Left {
    name: String,
    why: String,
}

impl Sample {
    /// The table for such messages.
    pub fn draft(&self) -> Draft {
        let draft = self.draft_with(true);
        if draft.columns.len() > COLUMNS { self.draft_with(false) } else { draft }
    }

    /// Columns for the fields that had a value in so many messages, and never two. An object is a column as a whole.
    pub(in super::super) fn new_columns(&self, least: u64) -> Vec<NewColumn> {
        let fields = self.fields.all.iter();
        let fit = fields.filter(|(name, field)| field.values() >= least && self.unfit(name, field).is_none());
        let column = |(name, field): &(String, Profile)| {
            let (kind, default) = field.shape(name)?.sql(true);
            Some(NewColumn { name: name.clone(), kind, default, seen: field.values() })
        };
        fit.filter_map(column).collect()
    }

    fn draft_with(&self, opens: bool) -> Draft {
        let mut draft = Draft { columns: Vec::new(), left: Vec::new(), unknown: "Map(String, String)", time: None };
        let fields = &self.fields.all;
        let rare = self.rare();
        let mut is_unreadable = self.is_unreadable;
        for (at, (name, field)) in fields.iter().enumerate() {
            let why = match self.unfit(name, field) {
                None if rare.contains(&at) => {
                    Some(format!("rare: in {} of the messages", share(field.seen, self.objects())))
                }
                why => why,
            };
            match why {
                Some(why) => {
                    is_unreadable |= field.unreadable > 0;
                    draft.left.push(Left { name: name.clone(), why });
                }
                // A column's dots are the objects around a field: a field whose own name has one cannot be opened.
                None => {
                    let opens = opens && !name.contains('.') && !self.is_prefix(name);
                    self.add_columns(name, field, opens, &mut draft.columns);
                }
            }
        }
        if is_unreadable {
            draft.unknown = "String";
        }
        let always = |column: &&Column| column.kind.starts_with(TIME);
        let named = draft.columns.iter().filter(always).find(|column| column.name == "timestamp");
        draft.time = named.or_else(|| draft.columns.iter().find(always)).map(|column| column.name.clone());
        draft
    }

    /// The fields beyond the most common ones. Of those in less than one message in a hundred, none is more common than its equals.
    fn rare(&self) -> HashSet<usize> {
        let fields = &self.fields.all;
        let seen = |at: usize| fields[at].1.seen;
        let mut by_share: Vec<_> = (0..fields.len()).collect();
        by_share.sort_by_key(|&at| Reverse(seen(at)));
        let Some(&first) = by_share.get(FIELDS) else { return HashSet::new() };
        let are_equals_rare = seen(first) * 100 < self.objects();
        let is_rare = |&(nth, at): &(usize, usize)| nth >= FIELDS || are_equals_rare && seen(at) == seen(first);
        by_share.into_iter().enumerate().filter(is_rare).map(|(_, at)| at).collect()
    }

    /// Why a field cannot have a column, if it cannot.
    fn unfit(&self, name: &str, field: &Profile) -> Option<String> {
        let messages = |count: u64| format!("{} message{}", grouped(count), if count == 1 { "" } else { "s" });
        if let Some(why) = names::unfit(name) {
            return Some(why.into());
        }
        if name.contains('.') && (self.fields.has_more || self.is_part(name)) {
            return Some("the name could also mean a part of another field".into());
        }
        if field.twice > 0 {
            let kind = self.column(name, field).map_or_else(String::new, |column| format!(" ({})", column.kind));
            return Some(format!("twice in {}, which a column{kind} rejects", messages(field.twice)));
        }
        (field.shape(name).is_none())
            .then(|| format!("not Unicode in {}, which a column rejects", messages(field.unreadable)))
    }

    /// Whether another field is an object of which this may be a part.
    fn is_part(&self, name: &str) -> bool {
        self.fields
            .all
            .iter()
            .any(|(other, _)| name.strip_prefix(other.as_str()).is_some_and(|rest| rest.starts_with('.')))
    }

    /// Whether another field has a name that could be the one of its part.
    fn is_prefix(&self, name: &str) -> bool {
        let is_part = |other: &str| other.strip_prefix(name).is_some_and(|rest| rest.starts_with('.'));
        self.fields.has_more || self.fields.all.iter().any(|(other, _)| is_part(other))
    }

    fn add_columns(&self, name: &str, field: &Profile, opens: bool, columns: &mut Vec<Column>) {
        if opens && field.is_stable() {
            for (part, field) in &field.fields.all {
                self.add_columns(&format!("{name}.{part}"), field, opens, columns);
            }
        } else {
            columns.extend(self.column(name, field));
        }
    }

    fn column(&self, name: &str, field: &Profile) -> Option<Column> {
        let mut shape = field.shape(name)?;
        // ClickHouse takes arrays of one prefix for a Nested, whose arrays have one length.
        if name.contains('.') && matches!(shape, Shape::Array(..)) {
            shape = Shape::Text;
        }
        let (kind, default) = shape.sql(field.nulls > 0 || field.seen < self.objects());
        let share = format!("{} of {} messages", share(field.seen, self.objects()), grouped(self.objects()));
        let comment = std::iter::once(share).chain(field.remarks(name, &shape)).collect::<Vec<_>>().join(", ");
        Some(Column { name: name.to_owned(), kind, default, comment })
    }
}

impl Draft {
    /// The number of columns that are filled from fields.
    pub const fn columns(&self) -> usize {
        self.columns.len()
    }

    /// The column with the event's time: one that is in all messages, if there is one.
    pub fn time(&self) -> Option<&str> {
        self.time.as_deref()
    }

    /// The statement; `table` is its name as SQL has it.
    pub fn create_table(&self, table: &str) -> String {
        let declared: Vec<_> = self.columns.iter().map(|column| (column.declaration(), &column.comment)).collect();
        let widths = declared.iter().map(|(text, _)| text.chars().count());
        let width = widths.filter(|width| *width <= 60).max().unwrap_or(0);
        let mut sql = format!("CREATE TABLE IF NOT EXISTS {table}\n(\n");
        for (text, comment) in declared {
            // Writing to a String cannot fail.
            let _ = writeln!(sql, "    {text:width$} -- {comment}");
        }
        sql.push_str("    -- Fields without a column, also later ones, each with its text. Without this column they are ignored.\n");
        for Left { name, why } in self.left.iter().take(NAMED) {
            let _ = writeln!(sql, "    --   {}: {why}", name.escape_debug());
        }
        if self.left.len() > NAMED {
            let _ = writeln!(sql, "    --   and {} more", grouped((self.left.len() - NAMED) as u64));
        }
        let _ = writeln!(sql, "    _unknown {},", self.unknown);
        sql.push_str(POSITION);
        if let Some(time) = &self.time {
            let _ = write!(sql, ",\n    INDEX times {} TYPE minmax GRANULARITY 1", names::quoted(time));
        }
        sql.push('\n');
        sql + ENGINE
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
