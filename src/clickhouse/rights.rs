//! Which rights this user lacks, by ClickHouse's own word.

use super::ClickHouse;
use super::own_table::backquoted;
use super::tables::{ERASED, LEASES};
use super::{leases, rows};
use flows::{Failure, Table};

impl ClickHouse {
    /// Whether this user has a right, like `SELECT(a, b) ON clickstream.events`.
    ///
    /// # Errors
    /// When ClickHouse does not answer.
    pub async fn has_right(&self, right: &str) -> Result<bool, Failure> {
        let (has,): (u8,) = self.one(&format!("CHECK GRANT {right}")).await?;
        Ok(has != 0)
    }

    /// The statements that give this user what it lacks to ingest.
    ///
    /// # Errors
    /// When ClickHouse does not answer.
    pub async fn missing_grants(&self) -> Result<Vec<String>, Failure> {
        let names = |columns: &[rows::Column]| columns.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        let (events, rejected) = (Table::Events.name(), Table::Rejected.name());
        let (position, lease) = (names(&rows::POSITION), names(&leases::COLUMNS));
        let event = self.own_table().map_or_else(|| names(rows::columns(Table::Events)), |own| own.selection().0);
        let reject = names(rows::columns(Table::Rejected));
        let mut grants = Vec::new();
        for (right, columns, table) in [
            ("SELECT", &position, events),
            ("INSERT", &event, events),
            ("SELECT", &position, rejected),
            ("INSERT", &reject, rejected),
            ("SELECT", &position, ERASED),
            ("SELECT", &lease, LEASES),
            ("INSERT", &lease, LEASES),
        ] {
            let table = self.table(table);
            if !self.has_right(&format!("{right}({columns}) ON {table}")).await? {
                grants.push(format!("{right} ON {table}"));
            }
        }
        // By it, a member waits for the inserts of the owner before it.
        const RUNNING: &str = "SELECT ON system.processes";
        if !self.has_right(RUNNING).await? {
            grants.push(RUNNING.into());
        }
        let user = backquoted(self.settings.user());
        Ok(grants.into_iter().map(|right| format!("GRANT {right} TO {user}")).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::super::mock::{Mock, rows};

    #[tokio::test]
    async fn a_right_that_is_lacking_is_granted_by_a_statement_as_it_stands() {
        let mock = Mock::start().await;
        mock.always("CHECK GRANT", rows("[1]"));
        assert_eq!(mock.clickhouse().missing_grants().await.unwrap(), [""; 0]);
        mock.always("CHECK GRANT INSERT(key, payload", rows("[0]"));
        mock.always("CHECK GRANT SELECT ON system.processes", rows("[0]"));
        let grants = mock.clickhouse().missing_grants().await.unwrap();
        let expected =
            ["GRANT INSERT ON `shop`.`rejected` TO `writer`", "GRANT SELECT ON system.processes TO `writer`"];
        assert_eq!(grants, expected);
    }
}
