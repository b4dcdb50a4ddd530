//! Adding columns to the user's own table, for fields of the messages that it does not name.

use super::questions::quoted;
use super::{ClickHouse, LOOK_AGAIN, failure};
use crate::log_throttle::LogThrottle;
use flows::{ErrorKind, Evolution, Failure, NewColumn, Table};
use std::sync::Arc;
use std::time::Duration;

/// How often it is asked which columns are due.
const INTERVAL: Duration = Duration::from_secs(1);

/// The comment of an added column begins like this, by which they are counted.
const COMMENT: &str = "added by clickstream ingest --evolve";

/// So many columns with that comment may a table have: a producer whose names are values must not fill it.
const LIMIT: usize = 100;

/// ClickHouse's code ACCESS_DENIED.
const DENIED: i32 = 497;

/// The adding of columns, if that is asked for.
#[derive(Default)]
pub(super) struct Evolve {
    evolution: Option<Arc<Evolution>>,
    complaints: LogThrottle,
}

impl Evolve {
    pub fn new(is_on: bool) -> Self {
        Self { evolution: is_on.then(Arc::default), complaints: LogThrottle::default() }
    }

    /// The look at the fields without a column.
    pub fn evolution(&self) -> Option<Arc<Evolution>> {
        self.evolution.clone()
    }
}

impl ClickHouse {
    /// Adds columns while this is polled. Where that fails, ingestion goes on without them.
    pub(super) async fn keep_evolving(&self) {
        let Some(evolution) = self.evolve.evolution() else { return };
        loop {
            let wait = match self.evolve(&evolution).await {
                Ok(()) => INTERVAL,
                Err(why) => {
                    if self.evolve.complaints.now() {
                        tracing::warn!("table {}: {why}", self.shown(Table::Events.name()));
                    }
                    LOOK_AGAIN
                }
            };
            tokio::time::sleep(wait).await;
        }
    }

    /// Adds the columns that are due.
    ///
    /// # Errors
    /// Why some were not added, for people.
    async fn evolve(&self, evolution: &Evolution) -> Result<(), String> {
        let due = evolution.due();
        if due.is_empty() {
            return Ok(());
        }
        let there = self.names_and_added().await.map_err(|failure| not_added(&due, &failure.to_string()))?;
        let is_there = |column: &NewColumn| {
            let begins_as_part = |name: &str| name.strip_prefix(&column.name).is_some_and(|rest| rest.starts_with('.'));
            there.iter().any(|(name, _)| *name == column.name || begins_as_part(name))
        };
        let (known, mut missing): (Vec<_>, Vec<_>) = due.into_iter().partition(is_there);
        known.iter().for_each(|column| evolution.decide(&column.name));
        let room = LIMIT.saturating_sub(there.iter().filter(|(_, is_added)| *is_added > 0).count());
        let beyond = missing.split_off(room.min(missing.len()));
        let mut outcome = Ok(());
        if !missing.is_empty() {
            outcome = self.add(evolution, &missing).await;
            // Where this fails, the next insert does it: with other columns than those of the table, it refuses itself.
            let _ = self.check_own_table().await;
        }
        outcome?;
        if beyond.is_empty() {
            return Ok(());
        }
        Err(not_added(
            &beyond,
            &format!(
                "--evolve has added {LIMIT} columns, which is its limit; another COMMENT on one of them makes room"
            ),
        ))
    }

    /// All columns of the table, with whether they were added by this.
    async fn names_and_added(&self) -> Result<Vec<(String, u8)>, Failure> {
        let (of, added) = (self.of_own_columns(), quoted(COMMENT));
        self.all(&format!("SELECT name, startsWith(comment, {added}) FROM system.columns WHERE {of}")).await
    }

    /// Adds these columns at once; or each on its own, where ClickHouse refuses one of them.
    async fn add(&self, evolution: &Evolution, columns: &[NewColumn]) -> Result<(), String> {
        let Err(failure) = self.alter(evolution, columns).await else { return Ok(()) };
        let code = failure::code_in(&failure.message);
        if code == Some(DENIED) {
            let (table, user) = (self.shown(Table::Events.name()), self.settings.user());
            return Err(not_added(
                columns,
                &format!("user {user} may not: GRANT ALTER ADD COLUMN ON {table} TO {user}"),
            ));
        }
        if columns.len() == 1 || code.is_none() || failure.kind == ErrorKind::Transient {
            return Err(not_added(columns, &failure.to_string()));
        }
        let mut outcome = Ok(());
        for column in columns {
            if let Err(failure) = self.alter(evolution, std::slice::from_ref(column)).await {
                outcome = Err(not_added(std::slice::from_ref(column), &failure.to_string()));
            }
        }
        outcome
    }

    /// Of two members that add a column of one name, the server takes the type of the first.
    async fn alter(&self, evolution: &Evolution, columns: &[NewColumn]) -> Result<(), Failure> {
        let adds: Vec<_> = columns.iter().map(added).collect();
        self.run(&format!("ALTER TABLE {} {}", self.table(Table::Events.name()), adds.join(", "))).await?;
        columns.iter().for_each(|column| evolution.decide(&column.name));
        let shown: Vec<_> = columns.iter().map(|column| format!("{} {}", column.name, column.kind)).collect();
        tracing::info!(
            "table {}: --evolve asked for these columns, and one that is there already stays: {}",
            self.shown(Table::Events.name()),
            shown.join(", ")
        );
        Ok(())
    }
}

fn added(NewColumn { name, kind, default, seen }: &NewColumn) -> String {
    let default = default.map_or_else(String::new, |default| format!(" DEFAULT {default}"));
    let comment = quoted(&format!("{COMMENT}, drafted from {seen} messages"));
    format!("ADD COLUMN IF NOT EXISTS {name} {kind}{default} COMMENT {comment}")
}

fn not_added(columns: &[NewColumn], why: &str) -> String {
    let names: Vec<_> = columns.iter().map(|column| column.name.as_str()).collect();
    format!("no column was added for {}: {why}. Ingestion goes on as before", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::super::mock::{Mock, exception, rows};
    use super::*;
    use flows::{ColumnDefinition, Columns, Consumed, Decode, TableDecoder};

    /// The fields `a` and `b` have been in enough messages.
    fn evolution() -> Arc<Evolution> {
        let id = ColumnDefinition { name: "id".into(), kind: "UInt8".into(), has_default: false };
        let (columns, evolution) = (Columns::new(&[id], None).unwrap(), Arc::<Evolution>::default());
        let decoder = TableDecoder::new(columns, "web").evolving(Some(evolution.clone()));
        let payload = Some(&br#"{"id":1,"a":1,"b":{}}"#[..]);
        for _ in 0..100 {
            decoder.decode(&Consumed { payload, ..Consumed::default() });
        }
        evolution
    }

    fn names(evolution: &Evolution) -> Vec<String> {
        evolution.due().into_iter().map(|column| column.name).collect()
    }

    #[tokio::test]
    async fn columns_are_added_together_and_only_where_there_is_none_of_the_name() {
        let (mock, evolution) = (Mock::start().await, evolution());
        mock.expect("FROM system.columns", rows("[\"id\",0]"));
        mock.expect("ALTER TABLE `shop`.`events` ADD COLUMN IF NOT EXISTS a Nullable(Int64) COMMENT", rows(""));
        mock.clickhouse().evolve(&evolution).await.unwrap();
        let both = ", ADD COLUMN IF NOT EXISTS b JSON DEFAULT '{}'::JSON COMMENT 'added by clickstream ingest --evolve, drafted from 100 messages'";
        assert!(mock.last().sql.ends_with(both), "{}", mock.last().sql);
        assert_eq!(names(&evolution), [""; 0]);
    }

    /// Such as an ALIAS of that name, or the parts of an object.
    #[tokio::test]
    async fn a_field_whose_name_the_table_has_in_another_way_is_left_alone() {
        let (mock, evolution) = (Mock::start().await, evolution());
        mock.expect("FROM system.columns", rows("[\"a\",0]\n[\"b.c\",0]"));
        mock.clickhouse().evolve(&evolution).await.unwrap();
        assert_eq!(names(&evolution), [""; 0]);
    }

    #[tokio::test]
    async fn a_column_that_clickhouse_refuses_keeps_out_no_other() {
        let (mock, evolution) = (Mock::start().await, evolution());
        mock.expect("FROM system.columns", rows("[\"id\",0]"));
        for (words, answer) in [
            ("a Nullable(Int64)", exception(44, "no JSON here")),
            ("a Nullable(Int64)", rows("")),
            ("b JSON", exception(44, "no JSON here")),
        ] {
            mock.expect(words, answer);
        }
        let why = mock.clickhouse().evolve(&evolution).await.unwrap_err();
        assert!(why.starts_with("no column was added for b: ") && why.contains("no JSON here"), "{why}");
        assert_eq!(names(&evolution), ["b"], "it is tried again");
    }

    #[tokio::test]
    async fn a_user_without_the_right_is_told_which_one() {
        let (mock, evolution) = (Mock::start().await, evolution());
        mock.expect("FROM system.columns", rows("[\"id\",0]"));
        mock.expect("ALTER TABLE", exception(497, "writer: Not enough privileges. (ACCESS_DENIED)"));
        let why = mock.clickhouse().evolve(&evolution).await.unwrap_err();
        let words =
            "no column was added for a, b: user writer may not: GRANT ALTER ADD COLUMN ON shop.events TO writer";
        assert!(why.starts_with(words), "{why}");
    }
}
