//! The table of the user's own: the options of the commands that write or compare its rows.

use super::ClickHouseArgs;
use super::values::{identifier, not_empty};
use crate::clickhouse::ClickHouseConfig;
use clap::Args;
use std::fmt;

/// The table that takes good rows.
#[derive(Args, Clone, Debug)]
pub struct TableArgs {
    /// A table of your own for the rows: each column is filled from the JSON field of its name [default: the shop's `events`]
    #[arg(long, env = "CLICKSTREAM_TABLE", value_name = "[DATABASE.]TABLE", value_parser = table_name)]
    pub table: Option<TableName>,
}

/// The column that says when an event happened.
#[derive(Args, Clone, Debug)]
pub struct TimeArgs {
    /// The column with the event's time, by which latencies are measured [default: `timestamp`, else Kafka's own timestamp]
    #[arg(long, env = "CLICKSTREAM_TIME", value_name = "COLUMN", value_parser = not_empty, requires = "table")]
    pub time: Option<String>,
}

/// A table, and its database if that was named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableName {
    database: Option<String>,
    table: String,
}

impl TableArgs {
    /// The configuration of the adapter for this table. A database before its name is the one of all tables.
    pub fn config(&self, clickhouse: &ClickHouseArgs) -> ClickHouseConfig {
        let mut config = clickhouse.config();
        if let Some(TableName { database, table }) = &self.table {
            config.table = Some(table.clone());
            config.database = database.clone().unwrap_or(config.database);
        }
        config
    }
}

impl TableName {
    /// A table named after a topic.
    pub fn of_topic(topic: &str) -> Self {
        let table = topic.replace(|letter: char| !letter.is_ascii_alphanumeric(), "_");
        let is_free = identifier(&table).is_ok() && !OURS.contains(&table.as_str());
        Self { database: None, table: if is_free { table } else { format!("topic_{table}") } }
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.database.iter().try_for_each(|database| write!(f, "{database}."))?;
        f.write_str(&self.table)
    }
}

/// The tables that the program has for itself.
const OURS: [&str; 5] = ["events", "rejected", "erased", "leases", "events_once"];

pub fn table_name(text: &str) -> Result<TableName, String> {
    let (database, table) = match text.split_once('.') {
        Some((database, table)) => (Some(identifier(database)?), table),
        None => (None, text),
    };
    let table = identifier(table)?;
    if OURS.contains(&table.as_str()) {
        return Err(format!(
            "{table} is a table of clickstream itself: leave --table out for the shop's events, or name another one"
        ));
    }
    Ok(TableName { database, table })
}

#[cfg(test)]
mod tests {
    use super::table_name as table;
    use super::*;

    #[test]
    fn a_topics_table_has_its_name_as_far_as_sql_allows() {
        for (topic, expected) in
            [("web", "web"), ("web.clicks-2", "web_clicks_2"), ("2nd", "topic_2nd"), ("events", "topic_events")]
        {
            let named = TableName::of_topic(topic).to_string();
            assert_eq!(named, expected);
            assert!(table(&named).is_ok(), "{named}");
        }
    }

    #[test]
    fn a_table_is_named_with_its_database_or_without() {
        let named =
            |database: Option<&str>, table: &str| TableName { database: database.map(Into::into), table: table.into() };
        assert_eq!(table("web"), Ok(named(None, "web")));
        assert_eq!(table("shop.web"), Ok(named(Some("shop"), "web")));
        for wrong in ["", ".", "a.b.c", "a.", ".b", "we b", "shop.events", "leases"] {
            assert!(table(wrong).is_err(), "{wrong}");
        }
    }
}
