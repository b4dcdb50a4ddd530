//! A table of the user's own: its columns as they were read, and the insert that fills them.
//!
//! A column with a DEFAULT comes as two: a byte that says whether the message had a value, and the value. Where it had none, the insert
//! evaluates the DEFAULT's expression, which may use the other columns, as the server itself does for a column that an insert leaves out.
//! Columns that the server computes (MATERIALIZED, ALIAS) stand before the SELECT for that, by their expressions.

use super::ClickHouse;
use super::questions::quoted;
use super::rows::POSITION;
use super::tables::misfit;
use flows::{ColumnDefinition, Columns, Evolution, Failure, Table, TableDecoder, UnfillableColumn, is_dynamic};
use std::sync::{Arc, MutexGuard, PoisonError};

/// The columns that the program itself fills, or leaves to their default.
const OURS: [&str; 4] = [POSITION[0].0, POSITION[1].0, POSITION[2].0, "ingested_at"];

/// Settings of the insert's statement: a table that is there may have any type; and values of JSON columns are texts, and not in ClickHouse's
/// own binary form.
pub const SETTINGS: &str = "SETTINGS allow_suspicious_low_cardinality_types = 1, allow_suspicious_fixed_string_types = 1, \
    input_format_binary_read_json_as_string = 1 ";

/// A column that is filled, as `system.columns` has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnColumn {
    name: String,
    kind: String,
    default: Option<String>,
    is_ephemeral: bool,
}

impl OwnColumn {
    /// The type of its value in the input: that of a dynamic column is a text.
    fn input(&self) -> &str {
        if is_dynamic(&self.kind) { "String" } else { &self.kind }
    }
}

/// The columns that are filled, and the decoder of messages for them.
pub struct OwnTable {
    columns: Vec<OwnColumn>,
    computed: Vec<Computed>,
    fingerprint: u64,
    topic: String,
    time: Option<String>,
    pub decoder: Arc<TableDecoder>,
}

/// The columns as they are at one moment.
struct Definition {
    columns: Vec<OwnColumn>,
    computed: Vec<Computed>,
    fingerprint: u64,
}

/// A column that the server computes: its name, and its expression.
type Computed = (String, String);

/// A row of `system.columns`: name, type, kind of default, its expression.
type Described = (String, String, String, String);

/// A number that differs where the columns of a table differ, whatever their order.
const FINGERPRINT: &str = "groupBitXor(cityHash64(name, type, default_kind, default_expression))";

impl Definition {
    /// The table for messages of this topic; without `time`, a column `timestamp` has the event's time if it is one.
    fn table(self, topic: &str, time: Option<&str>, evolution: Option<Arc<Evolution>>) -> Result<OwnTable, String> {
        let Self { columns, computed, fingerprint } = self;
        let definition = |column: &OwnColumn| ColumnDefinition {
            name: column.name.clone(),
            kind: column.kind.clone(),
            has_default: column.default.is_some(),
        };
        let definitions: Vec<_> = columns.iter().map(definition).collect();
        let named = time.or_else(|| columns.iter().any(|column| column.name == "timestamp").then_some("timestamp"));
        let (filled, named) = match Columns::new(&definitions, named) {
            // A column of this name that is no time is none that was asked for.
            Err(UnfillableColumn::Time(_)) if time.is_none() => (Columns::new(&definitions, None), None),
            filled => (filled, named),
        };
        let filled = filled.map_err(|why| why.to_string())?;
        if columns.is_empty() {
            return Err("it has no column that a message could fill".into());
        }
        let (topic, time) = (topic.to_owned(), named.map(ToOwned::to_owned));
        let decoder = Arc::new(TableDecoder::new(filled, &topic).evolving(evolution));
        Ok(OwnTable { columns, computed, fingerprint, topic, time, decoder })
    }
}

impl OwnTable {
    /// The column with the event's time.
    pub fn time(&self) -> Option<&str> {
        self.time.as_deref()
    }

    /// The number of columns that a message fills.
    pub const fn filled(&self) -> usize {
        self.columns.len()
    }

    /// The differences to the columns of now, for people.
    ///
    /// # Errors
    /// The first column that is gone: nothing of its field would be stored any more.
    fn changes(&self, now: &Definition) -> Result<Vec<String>, String> {
        let mut changes = Vec::new();
        for column in &self.columns {
            match now.columns.iter().find(|other| other.name == column.name) {
                Some(same) if same == column => {}
                Some(other) if other.kind != column.kind => {
                    changes.push(format!("column {} is {} now", column.name, other.kind));
                }
                Some(_) => changes.push(format!("column {} has another DEFAULT now", column.name)),
                None => {
                    return Err(format!(
                        "column {} is gone, or can no longer be filled. Nothing is lost. Name it as before, or add it again; or start \
                         `ingest` again, which leaves out its field from then on, and needs a field or a DEFAULT for each column with another \
                         name",
                        column.name
                    ));
                }
            }
        }
        let is_new = |column: &&OwnColumn| !self.columns.iter().any(|other| other.name == column.name);
        changes.extend(now.columns.iter().filter(is_new).map(|column| format!("column {} is new", column.name)));
        Ok(changes)
    }

    /// The columns of the insert's input: their names and types.
    pub fn input(&self) -> Vec<(String, String)> {
        let prefix = self.prefix();
        let both = |(nth, column): (usize, &OwnColumn)| {
            let given = column.default.as_ref().map(|_| (format!("{prefix}given_{nth}"), "Bool".to_owned()));
            given.into_iter().chain([(format!("{prefix}value_{nth}"), column.input().to_owned())])
        };
        let position = POSITION.map(|(name, kind)| (name.to_owned(), kind.to_owned()));
        self.columns.iter().enumerate().flat_map(both).chain(position).collect()
    }

    /// The columns of the table that an insert brings, and what it selects for them.
    pub fn selection(&self) -> (String, String) {
        let prefix = self.prefix();
        let names = self.columns.iter().map(|column| backquoted(&column.name));
        let value = |nth: usize, column: &OwnColumn| match is_dynamic(&column.kind) {
            true => format!("JSONExtract({prefix}value_{nth}, 'v', {})", quoted(&column.kind)),
            false => format!("{prefix}value_{nth}"),
        };
        let selected = self.columns.iter().enumerate().map(|(nth, column)| match &column.default {
            // Without the cast, the value would take on the default's type.
            Some(default) => format!(
                "if({prefix}given_{nth}, {}, CAST({default}, {})) AS {}",
                value(nth, column),
                quoted(&column.kind),
                backquoted(&column.name)
            ),
            None => format!("{} AS {}", value(nth, column), backquoted(&column.name)),
        });
        let position = || POSITION.iter().map(|(name, _)| (*name).to_owned());
        let all = |parts: Vec<String>| parts.join(", ");
        (all(names.chain(position()).collect()), all(selected.chain(position()).collect()))
    }

    /// The definitions that the selected expressions may use.
    pub fn with(&self) -> String {
        let is_needed = self.columns.iter().any(|column| column.default.is_some());
        let each = self.computed.iter().map(|(name, expression)| format!("{expression} AS {}", backquoted(name)));
        let all: Vec<_> = each.filter(|_| is_needed).collect();
        if all.is_empty() { String::new() } else { format!("WITH {} ", all.join(", ")) }
    }

    /// The columns that keep what came from a message's payload.
    pub fn stored_names(&self) -> String {
        let is_kept = |column: &&OwnColumn| !column.is_ephemeral && !column.name.starts_with('_');
        self.columns.iter().filter(is_kept).map(|column| backquoted(&column.name)).collect::<Vec<_>>().join(", ")
    }

    /// The beginning of the input's names, so that none of them is a column's: an alias would hide it.
    fn prefix(&self) -> String {
        let names = || self.columns.iter().map(|column| &column.name).chain(self.computed.iter().map(|(name, _)| name));
        let is_free = |prefix: &String| {
            let of_input = ["value_", "given_"].map(|kind| format!("{prefix}{kind}"));
            !names().any(|name| of_input.iter().any(|begin| name.starts_with(begin)))
        };
        (0..).map(|length| "_".repeat(length)).find(is_free).unwrap_or_default()
    }
}

impl ClickHouse {
    /// Reads the columns of the user's own table, if there is one. From then on, messages of this topic are decoded for it, and `time` is the
    /// column with an event's time.
    ///
    /// # Errors
    /// When ClickHouse cannot be asked; when a column cannot be filled, with its name.
    pub async fn learn_table(&self, topic: &str, time: Option<&str>) -> Result<(), Failure> {
        if self.is_own(Table::Events.name()) {
            self.check_own_engine().await?;
            let definition = self.own_definition().await?;
            let table = definition.table(topic, time, self.evolve.evolution()).map_err(|why| self.unfit(&why))?;
            *self.own() = Some(Arc::new(table));
        }
        Ok(())
    }

    /// Whether good rows go into a table of the user's own.
    pub fn has_own_table(&self) -> bool {
        self.own_table().is_some()
    }

    /// The user's own table as it was last read, if there is one.
    pub fn own_table(&self) -> Option<Arc<OwnTable>> {
        self.own().clone()
    }

    /// Reads the columns again. Where they have changed, rows are filled accordingly from the next lease on.
    ///
    /// # Errors
    /// When ClickHouse cannot be asked; when a column that was filled is gone, or one that came cannot be filled.
    pub(super) async fn check_own_table(&self) -> Result<(), Failure> {
        let Some(table) = self.own_table() else { return Ok(()) };
        let now = self.own_definition().await?;
        if now.fingerprint == table.fingerprint {
            return Ok(());
        }
        let changes = table.changes(&now).map_err(|why| self.unfit(&why))?;
        let evolution = self.evolve.evolution();
        let changed = now.table(&table.topic, table.time.as_deref(), evolution).map_err(|why| self.unfit(&why))?;
        *self.own() = Some(Arc::new(changed));
        if !changes.is_empty() {
            tracing::info!(
                "table {}: {}; rows are filled accordingly",
                self.shown(Table::Events.name()),
                changes.join(", ")
            );
        }
        Ok(())
    }

    /// A condition that holds while the columns are those of `table`.
    pub(super) fn is_unchanged(&self, table: &OwnTable) -> String {
        let of = self.of_own_columns();
        format!("(SELECT {FINGERPRINT} FROM system.columns WHERE {of}) = {}", table.fingerprint)
    }

    async fn own_definition(&self) -> Result<Definition, Failure> {
        let sql = format!(
            "SELECT groupArray((name, type, default_kind, default_expression)), {FINGERPRINT} FROM \
             (SELECT name, type, default_kind, default_expression FROM system.columns WHERE {} ORDER BY position)",
            self.of_own_columns()
        );
        let found: Vec<(Vec<Described>, u64)> = self.all(&sql).await?;
        let (columns, fingerprint) = found.into_iter().next().unwrap_or_default();
        let is_filled = |(name, _, default, _): &Described| {
            !OURS.contains(&name.as_str()) && !["MATERIALIZED", "ALIAS"].contains(&default.as_str())
        };
        let positions = POSITION.map(|(name, _)| name);
        let is_computed = |described: &&Described| !is_filled(described) && !positions.contains(&described.0.as_str());
        let computed = columns.iter().filter(is_computed).filter(|(.., expression)| !expression.is_empty());
        let computed =
            computed.map(|(name, kind, _, expression)| (name.clone(), format!("CAST({expression}, {})", quoted(kind))));
        let computed = computed.collect();
        let column = |(name, kind, default, expression): Described| {
            let is_ephemeral = default == "EPHEMERAL";
            // An EPHEMERAL column without an expression has its type's default.
            let default = match default.as_str() {
                "" => None,
                _ if expression.is_empty() => Some(format!("defaultValueOfTypeName({})", quoted(&kind))),
                _ => Some(expression),
            };
            OwnColumn { name, kind, default, is_ephemeral }
        };
        Ok(Definition { columns: columns.into_iter().filter(is_filled).map(column).collect(), computed, fingerprint })
    }

    pub(super) fn of_own_columns(&self) -> String {
        format!("database = {} AND table = {}", quoted(&self.database), quoted(&self.events))
    }

    fn own(&self) -> MutexGuard<'_, Option<Arc<OwnTable>>> {
        // One value that is replaced in one step.
        self.own_table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unfit(&self, why: &str) -> Failure {
        misfit(format!("table {}: {why}", self.shown(Table::Events.name())))
    }
}

/// A name of a table or a column, as it may stand in a statement.
pub fn backquoted(name: &str) -> String {
    format!("`{}`", name.replace('\\', "\\\\").replace('`', "\\`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(columns: &[(&str, &str, Option<&str>)]) -> Definition {
        let column = |&(name, kind, default): &(&str, &str, Option<&str>)| OwnColumn {
            name: name.into(),
            kind: kind.into(),
            default: default.map(Into::into),
            is_ephemeral: false,
        };
        Definition { columns: columns.iter().map(column).collect(), computed: Vec::new(), fingerprint: 0 }
    }

    #[test]
    fn a_column_with_a_default_comes_with_a_byte_that_says_whether_it_is_given() {
        let columns = [("a", "UInt8", None), ("b`c", "String", Some("toString(a)"))];
        let table = definition(&columns).table("web", None, None).unwrap();
        let input =
            table.input().into_iter().map(|(name, kind)| format!("{name} {kind}")).collect::<Vec<_>>().join(", ");
        assert_eq!(
            input,
            "value_0 UInt8, given_1 Bool, value_1 String, _source LowCardinality(String), _partition Int32, _offset Int64"
        );
        let (names, selected) = table.selection();
        assert_eq!(names, "`a`, `b\\`c`, _source, _partition, _offset");
        assert_eq!(
            selected,
            "value_0 AS `a`, if(given_1, value_1, CAST(toString(a), 'String')) AS `b\\`c`, _source, _partition, _offset"
        );
    }

    #[test]
    fn a_column_that_comes_or_changes_is_told_and_one_that_goes_is_refused() {
        let table = definition(&[("a", "UInt8", None), ("b", "String", None)]).table("web", None, None).unwrap();
        let changes = |columns: &[(&str, &str, Option<&str>)]| table.changes(&definition(columns));
        let now = [("c", "Date", None), ("a", "UInt16", None), ("b", "String", Some("'x'"))];
        let told = ["column a is UInt16 now", "column b has another DEFAULT now", "column c is new"];
        assert_eq!(changes(&now).unwrap(), told);
        assert!(changes(&[("a", "UInt8", None)]).unwrap_err().starts_with("column b is gone"));
    }

    #[test]
    fn the_events_time_is_the_named_column_or_one_with_the_name_timestamp_if_that_is_a_time() {
        let time = |kind: &str, named: Option<&str>| {
            let columns = [("timestamp", kind, None), ("at", "DateTime", None)];
            definition(&columns).table("web", named, None).map(|table| table.time)
        };
        assert_eq!(time("DateTime64(3)", None), Ok(Some("timestamp".into())));
        assert_eq!(time("DateTime64(3)", Some("at")), Ok(Some("at".into())));
        assert_eq!(time("Int64", None), Ok(None));
        assert!(time("Int64", Some("timestamp")).unwrap_err().contains("timestamp"));
    }

    #[test]
    fn the_inputs_names_are_never_those_of_a_column() {
        let columns = [("value_1", "UInt8", None), ("_given_0", "UInt8", None), ("temperature", "Float64", None)];
        let table = definition(&columns).table("web", None, None).unwrap();
        assert_eq!(table.input()[0].0, "__value_0");
        assert!(table.selection().1.starts_with("__value_0 AS `value_1`, __value_1 AS `_given_0`, __value_2"));
    }
}
