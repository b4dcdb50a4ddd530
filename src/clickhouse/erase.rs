//! Erasing rows: their positions are recorded durably in `erased`, and only rows at recorded positions are deleted.

use super::condition::Condition;
use super::questions::quoted;
use super::{ClickHouse, failure, rows};
use clickhouse::query::Query;
use flows::{Failure, Table};
use std::collections::BTreeMap;

/// The columns of `erased`.
pub const COLUMNS: [rows::Column; 5] = [
    rows::POSITION[0],
    rows::POSITION[1],
    rows::POSITION[2],
    ("reason", "LowCardinality(String)"),
    ("erased_at", "DateTime64(3, 'UTC')"),
];

/// Settings of all statements that work on a whole table, or name a person.
const SETTINGS: [(&str, &str); 4] = [
    // A condition could have an alias that is called like a column of ours, and then other rows would be recorded.
    ("prefer_column_name_to_alias", "1"),
    ("max_execution_time", "0"), // it takes what it takes
    ("log_queries", "0"),        // the log of queries would keep what is to be forgotten
    ("async_insert", "0"),       // an answer means that it is stored
];

/// Patterns of a user in a rejected message that is not one JSON object: cut short, nested, or several in one message.
const USER_IDS: &str = r#""user_id"\s*:\s*("(?:[^"\\]|\\.)*"|-?[0-9][0-9.eE+-]*)"#;

/// The values of a rejected message's headers.
const HEADER_VALUES: &str = "arrayMap(header -> ifNull(header.2, ''), headers)";

/// Which rows are to be erased.
#[derive(Clone, Debug)]
pub enum Erasure {
    /// All of these users.
    Users(Vec<String>),
    /// Those of `events` that meet a condition.
    Where(Condition),
    /// Those at positions that are recorded already.
    Recorded,
}

/// Rows of one source, which is one topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rows {
    pub events: u64,
    pub rejects: u64,
}

/// Mutations that are not done.
#[derive(Clone, Debug)]
pub struct Mutations {
    pub first: String,
    pub parts: u64,
    /// Why the last try failed; empty if it did not.
    pub failure: String,
}

impl Erasure {
    /// The tables in which there may be such rows.
    pub const fn tables(&self) -> &'static [Table] {
        match self {
            Self::Where(_) => &[Table::Events],
            Self::Users(_) | Self::Recorded => &[Table::Events, Table::Rejected],
        }
    }
}

impl ClickHouse {
    /// The server's time: milliseconds since the Unix epoch.
    pub async fn server_time_ms(&self) -> Result<i64, Failure> {
        let (now_ms,) = self.one("SELECT toUnixTimestamp64Milli(now64(3))").await?;
        Ok(now_ms)
    }

    /// The rows that are meant, by their source.
    pub async fn to_erase(&self, erasure: &Erasure) -> Result<BTreeMap<String, Rows>, Failure> {
        let mut found: BTreeMap<String, Rows> = BTreeMap::new();
        for &table in erasure.tables() {
            let (name, condition) = (self.table(table.name()), self.meant_by(erasure, table));
            let sql = format!("SELECT toString(_source), count() FROM {name} WHERE {condition} GROUP BY _source");
            for (source, rows) in self.wait_for_all::<(String, u64)>(self.about(erasure, &sql)).await? {
                let of = found.entry(source).or_default();
                match table {
                    Table::Events => of.events = rows,
                    Table::Rejected => of.rejects = rows,
                }
            }
        }
        Ok(found)
    }

    /// Records the positions of these rows as erased at `at_ms`. When this returns, they are durable.
    pub async fn record_erased(&self, erasure: &Erasure, reason: &str, at_ms: i64) -> Result<(), Failure> {
        for &table in erasure.tables() {
            let sql = format!(
                "INSERT INTO {} (_source, _partition, _offset, reason, erased_at) SELECT _source, _partition, _offset, \
                 {{reason:String}}, fromUnixTimestamp64Milli({at_ms}, 'UTC') FROM {} WHERE {}",
                self.table("erased"),
                self.table(table.name()),
                self.meant_by(erasure, table)
            );
            self.wait_for(self.about(erasure, &sql).param("reason", reason)).await?;
        }
        Ok(())
    }

    /// Rows of a table that stand at positions that were recorded at `since_ms` or later.
    pub async fn erased_rows(&self, table: Table, since_ms: i64) -> Result<u64, Failure> {
        let sql = format!("SELECT count() FROM {} WHERE {}", self.table(table.name()), self.is_recorded(since_ms));
        let (rows,) = self.wait_for_one(self.long(&sql)).await?;
        Ok(rows)
    }

    /// Has ClickHouse begin to rewrite the parts of a table that hold rows at positions that were recorded at `since_ms` or later,
    /// without these rows. Not a lightweight DELETE: that only hides them, until some merge.
    pub async fn delete_erased(&self, table: Table, since_ms: i64) -> Result<(), Failure> {
        let sql = format!(
            "ALTER TABLE {} DELETE WHERE {} SETTINGS mutations_sync = 0",
            self.table(table.name()),
            self.is_recorded(since_ms)
        );
        self.wait_for(self.long(&sql)).await
    }

    /// The mutations of a table by which erased rows are deleted, and which are not done.
    pub async fn erasing(&self, table: Table) -> Result<Option<Mutations>, Failure> {
        let sql = format!(
            "SELECT count(), min(mutation_id), toUInt64(max(parts_to_do)), max(latest_fail_reason) FROM system.mutations \
             WHERE database = {} AND table = {} AND NOT is_done AND position(command, 'erased_at') > 0",
            quoted(&self.database),
            quoted(self.name_of(table.name()))
        );
        let (count, first, parts, failure): (u64, String, u64, String) = self.one(&sql).await?;
        Ok((count > 0).then_some(Mutations { first, parts, failure: failure::first_line(&failure) }))
    }

    /// Where parts of a table lie that were replaced and are still on the disk.
    pub async fn old_parts(&self, table: Table) -> Result<Vec<String>, Failure> {
        let sql = format!(
            "SELECT path FROM system.parts WHERE NOT active AND rows > 0 AND database = {} AND table = {}",
            quoted(&self.database),
            quoted(self.name_of(table.name()))
        );
        Ok(self.all(&sql).await?.into_iter().map(|(path,)| path).collect())
    }

    /// The first right to erase that this user lacks, like `ALTER DELETE ON clickstream.events`.
    pub async fn lacks_to_erase(&self, erasure: &Erasure) -> Result<Option<String>, Failure> {
        let on = |right: &str, table: &str| format!("{right} ON {}", self.table(table));
        let mut rights: Vec<_> = ["SELECT", "INSERT"].map(|right| on(right, "erased")).into();
        for &table in erasure.tables() {
            rights.extend(["SELECT", "ALTER DELETE"].map(|right| on(right, table.name())));
        }
        rights.extend(["SELECT ON system.mutations", "SELECT ON system.parts"].map(String::from));
        for right in rights {
            if !self.has_right(&right).await? {
                return Ok(Some(right.replace('`', "")));
            }
        }
        Ok(None)
    }

    /// The condition for a row to be meant.
    fn meant_by(&self, erasure: &Erasure, table: Table) -> String {
        match (erasure, table) {
            (Erasure::Recorded, _) => self.is_recorded(0),
            (Erasure::Where(condition), _) => condition.sql(),
            (Erasure::Users(_), Table::Events) => "user_id IN {users:Array(String)}".into(),
            (Erasure::Users(_), Table::Rejected) => {
                let holds_user = |text: &str| {
                    format!(
                        "JSONExtractString({text}, 'user_id') IN {{users:Array(String)}} OR \
                         arrayExists(id -> JSONExtractString(id) IN {{users:Array(String)}}, extractAll({text}, {}))",
                        quoted(USER_IDS)
                    )
                };
                format!(
                    "key IN {{users:Array(String)}} OR {} OR arrayExists(text -> text IN {{users:Array(String)}} OR {}, {HEADER_VALUES})",
                    holds_user("payload"),
                    holds_user("text")
                )
            }
        }
    }

    /// The condition for a row to stand at a position that was recorded at `since_ms` or later.
    fn is_recorded(&self, since_ms: i64) -> String {
        format!(
            "(_source, _partition, _offset) IN (SELECT _source, _partition, _offset FROM {} \
             WHERE erased_at >= fromUnixTimestamp64Milli({since_ms}, 'UTC'))",
            self.table("erased")
        )
    }

    /// A statement about the rows that are meant.
    fn about(&self, erasure: &Erasure, sql: &str) -> Query {
        match erasure {
            Erasure::Users(users) => self.long(sql).param("users", users),
            _ => self.long(sql),
        }
    }

    /// A statement that may take long.
    pub(super) fn long(&self, sql: &str) -> Query {
        // Those of inserts, too: a record that a profile drops would have its row come back.
        let settings = self.settings.inserts().into_iter().chain(SETTINGS);
        settings.fold(self.query(sql), |query, (name, value)| query.with_setting(name, value))
    }
}

#[cfg(test)]
mod tests {
    use super::super::mock::{Answer, Mock, exception, rows};
    use super::*;

    fn users() -> Erasure {
        Erasure::Users(vec!["u1".into(), "it's' OR 1 --".into()])
    }

    #[tokio::test]
    async fn a_person_is_named_in_parameters_only_and_in_no_log_of_queries() {
        let mock = Mock::start().await;
        mock.expect("`events`", rows("[\"topic\",3]")).expect("`rejected`", rows("[\"topic\",1]\n[\"old\",2]"));
        let found = mock.clickhouse().to_erase(&users()).await.unwrap();
        let of = |events, rejects| Rows { events, rejects };
        assert_eq!(found.into_iter().collect::<Vec<_>>(), [("old".into(), of(0, 2)), ("topic".into(), of(3, 1))]);
        mock.expect("INSERT INTO `shop`.`erased`", rows("")).expect("INSERT INTO `shop`.`erased`", rows(""));
        mock.clickhouse().record_erased(&users(), "a 'letter'", 7).await.unwrap();
        for asked in mock.asked() {
            assert!(!asked.sql.contains("u1") && !asked.sql.contains("letter"), "{}", asked.sql);
            assert_eq!(asked.parameter("users"), r"['u1','it\'s\' OR 1 --']");
            assert_eq!((asked.setting("log_queries"), asked.setting("max_execution_time")), ("0", "0"));
        }
    }

    /// Whatever is recorded for `events` and not for `rejected` is half an erasure: the next step does not begin.
    #[tokio::test]
    async fn what_is_not_recorded_is_said() {
        let mock = Mock::start().await;
        mock.expect("FROM `shop`.`events`", rows("")).expect("FROM `shop`.`rejected`", exception(241, "Memory limit"));
        assert!(mock.clickhouse().record_erased(&users(), "", 7).await.is_err());
        mock.expect("FROM `shop`.`events`", Answer::HangUp);
        let failure = mock.clickhouse().record_erased(&users(), "", 7).await.unwrap_err();
        assert!(!failure.ended, "it may have been recorded: {failure}");
    }

    #[tokio::test]
    async fn a_condition_is_about_events_and_stands_in_brackets() {
        let mock = Mock::start().await;
        let erasure = Erasure::Where("1 OR 1".parse().unwrap());
        mock.expect("WHERE (1 OR 1)", rows(""));
        mock.clickhouse().record_erased(&erasure, "", 7).await.unwrap();
        assert!(mock.last().sql.contains("FROM `shop`.`events`"));
    }

    #[tokio::test]
    async fn only_rows_that_are_recorded_are_deleted_and_for_good() {
        let mock = Mock::start().await;
        mock.expect("ALTER TABLE `shop`.`events` DELETE WHERE", rows(""));
        mock.clickhouse().delete_erased(Table::Events, 42).await.unwrap();
        let sql = mock.last().sql;
        let recorded = "(_source, _partition, _offset) IN (SELECT _source, _partition, _offset FROM `shop`.`erased` \
                        WHERE erased_at >= fromUnixTimestamp64Milli(42, 'UTC'))";
        assert!(sql.contains(&format!("DELETE WHERE {recorded} SETTINGS mutations_sync = 0")), "{sql}");
    }

    #[tokio::test]
    async fn mutations_that_are_not_done_are_found_with_why_the_last_try_failed() {
        let mock = Mock::start().await;
        mock.expect("system.mutations", rows("[0,\"\",0,\"\"]"));
        assert!(mock.clickhouse().erasing(Table::Events).await.unwrap().is_none());
        mock.expect("system.mutations", rows(r#"[2,"mutation_7.txt",5,"Code: 243. DB::Exception: No space\nStack"]"#));
        let Mutations { first, parts, failure } = mock.clickhouse().erasing(Table::Events).await.unwrap().unwrap();
        assert_eq!((&*first, parts, &*failure), ("mutation_7.txt", 5, "Code: 243. DB::Exception: No space"));
    }

    #[tokio::test]
    async fn the_first_right_that_is_lacking_is_named() {
        let mock = Mock::start().await;
        mock.always("CHECK GRANT", rows("[1]"));
        let clickhouse = mock.clickhouse();
        assert_eq!(clickhouse.lacks_to_erase(&users()).await.unwrap(), None);
        let all = mock.asked().len();
        mock.always("CHECK GRANT ALTER DELETE ON `shop`.`rejected`", rows("[0]"));
        let lacking = clickhouse.lacks_to_erase(&users()).await.unwrap();
        assert_eq!(lacking.as_deref(), Some("ALTER DELETE ON shop.rejected"));
        let by_condition = Erasure::Where("1".parse().unwrap());
        assert_eq!(clickhouse.lacks_to_erase(&by_condition).await.unwrap(), None, "it is about events only");
        assert_eq!(all, 8);
    }
}
