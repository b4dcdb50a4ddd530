//! A table of the user's own: its columns as they were read, and the insert that fills them.
//!
//! A column with a DEFAULT comes as two: a byte that says whether the message had a value, and the value. Where it had none, the insert
//! evaluates the DEFAULT's expression, which may use the other columns, as the server itself does for a column that an insert leaves out.

use super::ClickHouse;
use super::questions::quoted;
use super::rows::POSITION;
use super::tables::misfit;
use flows::{ColumnDefinition, Columns, Failure, TableDecoder};
use std::sync::Arc;

/// The columns that the program itself fills, or leaves to their default.
const OURS: [&str; 4] = [POSITION[0].0, POSITION[1].0, POSITION[2].0, "ingested_at"];

/// A setting that an insert with a JSON column needs: its values are texts, and not in ClickHouse's own binary form.
const JSON_AS_TEXT: &str = "SETTINGS input_format_binary_read_json_as_string = 1 ";

/// What `system.columns` says about a column that is filled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnColumn {
    name: String,
    kind: String,
    default: Option<String>,
}

/// The columns that are filled, and the decoder of messages for them.
pub struct OwnTable {
    columns: Vec<OwnColumn>,
    pub decoder: Arc<TableDecoder>,
}

impl OwnTable {
    /// The columns of the insert's input: their names and types.
    pub fn input(&self) -> Vec<(String, String)> {
        let both = |(nth, column): (usize, &OwnColumn)| {
            let given = column.default.as_ref().map(|_| (format!("given_{nth}"), "Bool".to_owned()));
            given.into_iter().chain([(format!("value_{nth}"), column.kind.clone())])
        };
        let position = POSITION.map(|(name, kind)| (name.to_owned(), kind.to_owned()));
        self.columns.iter().enumerate().flat_map(both).chain(position).collect()
    }

    /// The columns of the table that an insert brings, and what it selects for them.
    pub fn selection(&self) -> (String, String) {
        let names = self.columns.iter().map(|column| backquoted(&column.name));
        let selected = self.columns.iter().enumerate().map(|(nth, column)| match &column.default {
            Some(default) => format!("if(given_{nth}, value_{nth}, {default}) AS {}", backquoted(&column.name)),
            None => format!("value_{nth} AS {}", backquoted(&column.name)),
        });
        let position = || POSITION.iter().map(|(name, _)| (*name).to_owned());
        let all = |parts: Vec<String>| parts.join(", ");
        (all(names.chain(position()).collect()), all(selected.chain(position()).collect()))
    }

    /// The settings of the insert's statement.
    pub fn settings(&self) -> &'static str {
        if self.columns.iter().any(|column| column.kind.contains("JSON")) { JSON_AS_TEXT } else { "" }
    }
}

impl ClickHouse {
    /// Reads the columns of the user's own table, for messages of this topic.
    ///
    /// # Errors
    /// When ClickHouse cannot be asked; when a column cannot be filled, with its name.
    pub async fn read_own_table(&self, topic: &str, time: Option<&str>) -> Result<OwnTable, Failure> {
        let columns = self.own_columns().await?;
        let definition = |column: &OwnColumn| ColumnDefinition {
            name: column.name.clone(),
            kind: column.kind.clone(),
            has_default: column.default.is_some(),
        };
        let definitions: Vec<_> = columns.iter().map(definition).collect();
        let named = time.or_else(|| columns.iter().any(|column| column.name == "timestamp").then_some("timestamp"));
        let filled = match Columns::new(&definitions, named) {
            // A column of this name that is no time is none that was asked for.
            Err(flows::UnfillableColumn::Time(_)) if time.is_none() => Columns::new(&definitions, None),
            filled => filled,
        };
        let unfit = |why: String| misfit(format!("table {}: {why}", self.own_name()));
        let filled = filled.map_err(|why| unfit(why.to_string()))?;
        if columns.is_empty() {
            return Err(unfit("it has no column that a message could fill".into()));
        }
        Ok(OwnTable { columns, decoder: Arc::new(TableDecoder::new(filled, topic)) })
    }

    /// Checks that the columns are those of `table`, which was read before. Others may have come.
    ///
    /// # Errors
    /// When ClickHouse cannot be asked; when a column that is filled has changed, or is gone.
    pub async fn check_own_table(&self, table: &OwnTable) -> Result<(), Failure> {
        let now = self.own_columns().await?;
        for column in &table.columns {
            let change = match now.iter().find(|other| other.name == column.name) {
                Some(same) if same == column => continue,
                Some(other) if other.kind != column.kind => format!("is {} now, and was {}", other.kind, column.kind),
                Some(_) => "has another DEFAULT now".into(),
                None => "is gone, or can no longer be filled".into(),
            };
            return Err(misfit(format!(
                "table {}: column {} {change}. Nothing is lost: start `ingest` again, which reads the columns again and goes on where it stopped",
                self.own_name(),
                column.name
            )));
        }
        for column in now.iter().filter(|other| !table.columns.iter().any(|column| column.name == other.name)) {
            self.warned_of_column(&column.name);
        }
        Ok(())
    }

    async fn own_columns(&self) -> Result<Vec<OwnColumn>, Failure> {
        let sql = format!(
            "SELECT name, type, default_kind, default_expression FROM system.columns WHERE database = {} AND table = {} \
             ORDER BY position",
            quoted(&self.database),
            quoted(&self.events)
        );
        let found: Vec<(String, String, String, String)> = self.all(&sql).await?;
        let is_filled = |(name, _, default, _): &(String, String, String, String)| {
            !OURS.contains(&name.as_str()) && !["MATERIALIZED", "ALIAS"].contains(&default.as_str())
        };
        let column = |(name, kind, default, expression): (String, String, String, String)| {
            // An EPHEMERAL column without an expression has its type's default.
            let default = match default.as_str() {
                "" => None,
                _ if expression.is_empty() => Some(format!("defaultValueOfTypeName({})", quoted(&kind))),
                _ => Some(expression),
            };
            OwnColumn { name, kind, default }
        };
        Ok(found.into_iter().filter(is_filled).map(column).collect())
    }

    /// `database.table`, for people.
    fn own_name(&self) -> String {
        format!("{}.{}", self.database, self.events)
    }
}

fn backquoted(name: &str) -> String {
    format!("`{}`", name.replace('\\', "\\\\").replace('`', "\\`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(columns: &[(&str, &str, Option<&str>)]) -> OwnTable {
        let columns: Vec<_> = columns
            .iter()
            .map(|&(name, kind, default)| OwnColumn {
                name: name.into(),
                kind: kind.into(),
                default: default.map(Into::into),
            })
            .collect();
        let filled = Columns::new(&[], None).unwrap();
        OwnTable { columns, decoder: Arc::new(TableDecoder::new(filled, "web")) }
    }

    #[test]
    fn a_column_with_a_default_comes_with_a_byte_that_says_whether_it_is_given() {
        let table = table(&[("a", "UInt8", None), ("b`c", "String", Some("toString(a)"))]);
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
            "value_0 AS `a`, if(given_1, value_1, toString(a)) AS `b\\`c`, _source, _partition, _offset"
        );
    }
}
