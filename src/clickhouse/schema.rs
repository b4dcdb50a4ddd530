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
    /// At least one was made.
    Made,
}

impl ClickHouse {
    /// Creates missing tables of `schema.sql` in the database, and checks existing ones, which stay as they are. So if
    /// no table is missing, a user who may only insert can run this, too.
    ///
    /// # Errors
    /// When ClickHouse refuses, or an existing table is unsuitable.
    pub async fn apply_schema(&self) -> Result<Tables, Failure> {
        let tables = self.create_tables().await?;
        self.check_tables().await?;
        self.check_leases().await?;
        Ok(tables)
    }

    /// Creates missing tables of `schema.sql` in the database.
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
            if there.iter().any(|name| statement.makes(name)) || shops.iter().any(|name| statement.makes(name)) {
                continue;
            }
            self.run(&statement.0).await.map_err(may_not)?;
            tables = Tables::Made;
        }
        Ok(tables)
    }

    /// The database and its objects, as [`Statement`]s name them.
    async fn names(&self) -> Result<Vec<String>, Failure> {
        let database = quoted(&self.database);
        let sql = format!(
            "SELECT concat('`', name, '`') FROM system.databases WHERE name = {database} UNION ALL \
             SELECT concat('`', database, '`.', name) FROM system.tables WHERE database = {database}"
        );
        Ok(self.all(&sql).await?.into_iter().map(|(name,)| name).collect())
    }
}

/// The action for a user who may not create tables.
pub(super) fn may_not(failure: Failure) -> Failure {
    if !failure.message.contains("ACCESS_DENIED") {
        return failure;
    }
    Failure { message: format!("{failure}: let a user who may make them run `clickstream setup`"), ..failure }
}

/// `CREATE … IF NOT EXISTS NAME …`
struct Statement(String);

impl Statement {
    fn makes(&self, name: &str) -> bool {
        self.0.split_once(" IF NOT EXISTS ").and_then(|(_, rest)| rest.split_whitespace().next()) == Some(name)
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

    const ALL: [&str; 6] = [
        "[\"`shop`\"]",
        "[\"`shop`.events\"]",
        "[\"`shop`.rejected\"]",
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
        mock.has_tables().always("FROM system.databases", rows(&[&ALL[..3], &ALL[5..]].concat().join("\n")));
        mock.expect("CREATE TABLE IF NOT EXISTS `shop`.erased", rows(""));
        mock.expect("CREATE TABLE IF NOT EXISTS `shop`.leases", rows(""));
        assert_eq!(mock.clickhouse().apply_schema().await.unwrap(), Tables::Made);
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
        assert_eq!(statements.len(), 6);
        assert!(statements.iter().all(|Statement(text)| text.starts_with("CREATE ") && !text.contains("clickstream")));
        let names = [
            "`other`",
            "`other`.events",
            "`other`.rejected",
            "`other`.erased",
            "`other`.leases",
            "`other`.events_once",
        ];
        for (statement, name) in statements.iter().zip(names) {
            assert!(statement.makes(name), "{name}: {}", statement.0);
        }
    }
}
