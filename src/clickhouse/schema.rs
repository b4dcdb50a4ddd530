//! The tables: applying `schema.sql`, and checking that those that exist are the ones of it.

use super::questions::quoted;
use super::{ClickHouse, rows};
use flows::{Class, Failure, Table};
use std::collections::HashMap;

/// The schema that is built in.
const SCHEMA: &str = include_str!("../../schema.sql");

/// What [`ClickHouse::apply_schema`] found and left behind.
#[derive(Debug, PartialEq, Eq)]
pub enum Tables {
    /// All were there before.
    Kept,
    /// At least one was made.
    Made,
}

impl ClickHouse {
    /// Applies `schema.sql` to the database; what exists is left as it is, and checked.
    ///
    /// # Errors
    /// When ClickHouse refuses, or a table that exists does not fit.
    pub async fn apply_schema(&self) -> Result<Tables, Failure> {
        let before = self.table_names().await?;
        for statement in statements(SCHEMA, &self.database) {
            self.run(&statement).await?;
        }
        self.check_tables().await?;
        let made = self.table_names().await? != before;
        Ok(if made { Tables::Made } else { Tables::Kept })
    }

    /// Checks that both tables exist and have the columns that inserts bring, with their types.
    ///
    /// # Errors
    /// The first thing that does not fit, with what was expected and what was found.
    pub async fn check_tables(&self) -> Result<(), Failure> {
        for table in [Table::Events, Table::Rejected] {
            let name = rows::name(table);
            let sql = format!(
                "SELECT name, type FROM system.columns WHERE database = {} AND table = {}",
                quoted(&self.database),
                quoted(name)
            );
            let found: HashMap<String, String> = self.all::<(String, String)>(&sql).await?.into_iter().collect();
            if found.is_empty() {
                return Err(misfit(format!(
                    "table {}.{name} is missing at {}: create it with `clickstream setup`",
                    self.database,
                    self.address()
                )));
            }
            for (column, expected) in rows::columns(table) {
                match found.get(*column) {
                    Some(kind) if kind == expected => {}
                    Some(kind) => {
                        return Err(misfit(format!(
                            "table {}.{name}: column {column} is {kind}, expected {expected}: alter it, or use another \
                             --database",
                            self.database
                        )));
                    }
                    None => {
                        return Err(misfit(format!(
                            "table {}.{name}: column {column} ({expected}) is missing: add it, or use another --database",
                            self.database
                        )));
                    }
                }
            }
        }
        Ok(())
    }

    async fn table_names(&self) -> Result<Vec<String>, Failure> {
        self.all(&format!("SELECT name FROM system.tables WHERE database = {} ORDER BY name", quoted(&self.database)))
            .await
    }
}

fn misfit(message: String) -> Failure {
    Failure { class: Class::Permanent, ended: true, message }
}

/// The statements of a script, for a database of another name than the one written in it. Comments are `--` to the end of a
/// line; none of the script's strings holds a semicolon.
fn statements(script: &str, database: &str) -> Vec<String> {
    let code: Vec<_> = script.lines().map(|line| line.split("--").next().unwrap_or_default()).collect();
    code.join("\n")
        .replace("clickstream.", &format!("`{database}`."))
        .replace("EXISTS clickstream", &format!("EXISTS `{database}`"))
        .split(';')
        .map(str::trim)
        .filter(|statement| !statement.is_empty())
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_is_applied_to_the_database_that_was_asked_for() {
        let statements = statements(SCHEMA, "other");
        assert_eq!(statements.len(), 4);
        assert!(statements.iter().all(|statement| statement.starts_with("CREATE ")));
        assert!(statements.iter().all(|statement| !statement.contains("clickstream")), "{statements:#?}");
    }
}
