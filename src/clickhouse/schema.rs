//! The tables: applying `schema.sql`.

use super::ClickHouse;
use super::questions::quoted;
use flows::Failure;

/// The schema that is built in.
const SCHEMA: &str = include_str!("../../schema.sql");

/// The result of [`ClickHouse::apply_schema`].
#[derive(Debug, PartialEq, Eq)]
pub enum Tables {
    /// All were there before.
    Kept,
    /// All were there before, and at least one lacked a column.
    Altered,
    /// At least one was made.
    Made,
}

impl ClickHouse {
    /// Creates missing tables of `schema.sql` in the database, adds columns that tables of an earlier version lack, and checks all
    /// tables. So if nothing is missing, a user who may only insert can run this, too.
    ///
    /// # Errors
    /// When ClickHouse refuses, or an existing table is unsuitable.
    pub async fn apply_schema(&self) -> Result<Tables, Failure> {
        let tables = self.create_tables().await?;
        self.check_tables().await?;
        self.check_leases().await?;
        Ok(tables)
    }

    /// Creates missing tables of `schema.sql` in the database, and columns that tables of an earlier version lack.
    ///
    /// # Errors
    /// When ClickHouse refuses.
    pub async fn create_tables(&self) -> Result<Tables, Failure> {
        let there = self.names().await?;
        let mut tables = Tables::Kept;
        // Beside a table of the user's own, those of the shop's events are not needed.
        let shops = if self.is_own("events") {
            ["events", "events_once"].map(|name| format!("`{}`.{name}", self.database)).into()
        } else {
            Vec::new()
        };
        for statement in statements(SCHEMA, &self.database) {
            let made = statement.made();
            // A table that is made here has all columns.
            let is_whole = statement.altered().is_some_and(|table| !there.iter().any(|name| name == table));
            if is_whole || there.contains(&made) || shops.contains(&made) {
                continue;
            }
            self.run(&statement.0).await.map_err(may_not)?;
            tables = match (tables, statement.altered()) {
                (Tables::Kept | Tables::Altered, Some(_)) => Tables::Altered,
                _ => Tables::Made,
            };
        }
        Ok(tables)
    }

    /// The database, its objects, and the columns of our tables, as [`Statement`]s name them.
    async fn names(&self) -> Result<Vec<String>, Failure> {
        let database = quoted(&self.database);
        let sql = format!(
            "SELECT concat('`', name, '`') FROM system.databases WHERE name = {database} UNION ALL \
             SELECT concat('`', database, '`.', name) FROM system.tables WHERE database = {database} UNION ALL \
             SELECT concat('`', database, '`.', table, '.', name) FROM system.columns WHERE database = {database} AND table = 'rejected'"
        );
        Ok(self.all(&sql).await?.into_iter().map(|(name,)| name).collect())
    }
}

/// The action for a user who may not create or alter tables.
pub(super) fn may_not(failure: Failure) -> Failure {
    if !failure.message.contains("ACCESS_DENIED") {
        return failure;
    }
    Failure { message: format!("{failure}: let a user who may make them run `clickstream setup`"), ..failure }
}

/// `CREATE … IF NOT EXISTS NAME …`, or `ALTER TABLE TABLE ADD COLUMN IF NOT EXISTS NAME …`
struct Statement(String);

impl Statement {
    /// The object that it makes; a column stands behind its table.
    fn made(&self) -> String {
        let (_, rest) = self.0.split_once(" IF NOT EXISTS ").unwrap_or_default();
        let name = rest.split_whitespace().next().unwrap_or_default();
        self.altered().map_or_else(|| name.to_owned(), |table| format!("{table}.{name}"))
    }

    /// The table to which it adds a column.
    fn altered(&self) -> Option<&str> {
        self.0.strip_prefix("ALTER TABLE ")?.split_whitespace().next()
    }
}

/// The statements of a script, for a database of another name than the one written in it. Comments are `--` to the end of a
/// line; none of the script's strings holds a semicolon.
fn statements(script: &str, database: &str) -> Vec<Statement> {
    let code: Vec<_> = script.lines().map(|line| line.split("--").next().unwrap_or_default()).collect();
    code.join("\n")
        .replace("clickstream.", &format!("`{database}`."))
        .replace("EXISTS clickstream", &format!("EXISTS `{database}`"))
        .split(';')
        .map(str::trim)
        .filter(|statement| !statement.is_empty())
        .map(|statement| Statement(statement.to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::mock::{Mock, exception, rows};
    use super::*;

    const ALL: [&str; 9] = [
        "[\"`shop`\"]",
        "[\"`shop`.events\"]",
        "[\"`shop`.rejected\"]",
        "[\"`shop`.rejected.headers\"]",
        "[\"`shop`.rejected.timestamp\"]",
        "[\"`shop`.rejected.topic\"]",
        "[\"`shop`.erased\"]",
        "[\"`shop`.leases\"]",
        "[\"`shop`.events_once\"]",
    ];

    #[tokio::test]
    async fn a_user_who_may_only_insert_can_run_it_where_nothing_is_missing() {
        let mock = Mock::start().await;
        mock.has_tables().always("FROM system.databases", rows(&ALL.join("\n")));
        assert_eq!(mock.clickhouse().apply_schema().await.unwrap(), Tables::Kept);
        assert!(mock.asked().iter().all(|asked| asked.sql.starts_with("SELECT ")), "it only asks");
    }

    #[tokio::test]
    async fn what_is_missing_is_made_and_nothing_else() {
        let mock = Mock::start().await;
        mock.has_tables().always("FROM system.databases", rows(&[&ALL[..2], &ALL[8..]].concat().join("\n")));
        mock.expect("CREATE TABLE IF NOT EXISTS `shop`.rejected", rows(""));
        mock.expect("CREATE TABLE IF NOT EXISTS `shop`.erased", rows(""));
        mock.expect("CREATE TABLE IF NOT EXISTS `shop`.leases", rows(""));
        assert_eq!(mock.clickhouse().apply_schema().await.unwrap(), Tables::Made, "a new table has its columns");
    }

    #[tokio::test]
    async fn a_table_of_an_earlier_version_gets_the_columns_that_it_lacks() {
        let mock = Mock::start().await;
        mock.has_tables().always("FROM system.databases", rows(&[&ALL[..4], &ALL[6..]].concat().join("\n")));
        mock.expect("ALTER TABLE `shop`.rejected ADD COLUMN IF NOT EXISTS timestamp", rows(""));
        mock.expect("ALTER TABLE `shop`.rejected ADD COLUMN IF NOT EXISTS topic", rows(""));
        assert_eq!(mock.clickhouse().apply_schema().await.unwrap(), Tables::Altered);
    }

    #[tokio::test]
    async fn a_user_who_may_not_make_tables_is_told_who_does() {
        let mock = Mock::start().await;
        mock.always("FROM system.databases", rows(""));
        mock.expect("CREATE DATABASE", exception(497, "writer: Not enough privileges. (ACCESS_DENIED)"));
        let failure = mock.clickhouse().apply_schema().await.unwrap_err();
        assert!(failure.message.ends_with("let a user who may make them run `clickstream setup`"), "{failure}");
    }

    #[test]
    fn the_schema_is_applied_to_the_database_that_was_asked_for() {
        let statements = statements(SCHEMA, "other");
        assert_eq!(statements.len(), 9);
        assert!(statements.iter().all(|Statement(text)| !text.contains("clickstream")));
        let names = [
            "`other`",
            "`other`.events",
            "`other`.rejected",
            "`other`.rejected.headers",
            "`other`.rejected.timestamp",
            "`other`.rejected.topic",
            "`other`.erased",
            "`other`.leases",
            "`other`.events_once",
        ];
        for (statement, name) in statements.iter().zip(names) {
            assert_eq!(statement.made(), name, "{}", statement.0);
        }
    }
}
