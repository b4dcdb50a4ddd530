//! Questions about the user's profile: which of our settings it takes.

use super::ClickHouse;
use super::pins::YOUNG;
use super::questions::quoted;
use super::settings::with;
use flows::{ErrorKind, Failure};

impl ClickHouse {
    /// Finds out which of the newer settings the server knows.
    ///
    /// # Errors
    /// When ClickHouse does not answer, or the user's profile forbids a setting that questions carry.
    pub async fn learn_settings(&self) -> Result<(), Failure> {
        let young = YOUNG.iter().copied().map(quoted).collect::<Vec<_>>().join(", ");
        let sql =
            format!("SELECT arrayStringConcat(groupArray(name), ',') FROM system.settings WHERE name IN ({young})");
        let (names,): (String,) = self.one(&sql).await?;
        self.settings.learn(&names);
        Ok(())
    }

    /// Makes sure that the user's profile lets inserts bring what they must, and lets them be. Nothing is inserted.
    ///
    /// # Errors
    /// When it does not: with the setting's name, and what to do.
    pub async fn may_insert(&self) -> Result<(), Failure> {
        self.learn_settings().await?;
        // It is a question, so it brings their settings too; where both have one, that of inserts counts.
        let client = with(&with(&self.client, &self.settings.questions()), &self.settings.inserts());
        let sql = "SELECT toUInt64(getSetting('readonly'))";
        let (readonly,): (u64,) = self.fetch_one(client.query_raw(sql)).await?;
        if readonly == 0 {
            return Ok(());
        }
        Err(Failure {
            kind: ErrorKind::Permanent,
            ended: true,
            message: format!(
                "the profile of user {} has readonly = {readonly}, so nothing can be inserted: take that out of it, or use \
                 another --clickhouse-user",
                self.settings.user()
            ),
        })
    }
}
