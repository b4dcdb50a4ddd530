//! Erasing rows so that they do not come back: their positions are recorded first, then the rows are deleted.

use crate::clickhouse::{ClickHouse, Erasure, Rows, patiently};
use crate::numbers::grouped;
use anyhow::{Result, anyhow, bail};
use flows::{Failure, Table};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// The interval between questions about ClickHouse's progress, and between log lines about it.
const POLL_INTERVAL: Duration = Duration::from_millis(200);
const LOG_INTERVAL: Duration = Duration::from_secs(10);
/// How long a mutation may fail, which ClickHouse tries again and again, before this gives up.
const MUTATION_TIMEOUT: Duration = Duration::from_secs(60);

/// Erases the rows of one erasure.
pub struct Eraser {
    pub clickhouse: ClickHouse,
    pub erasure: Erasure,
}

impl Eraser {
    /// The rows that would be erased, for each source.
    ///
    /// # Errors
    /// When ClickHouse does not answer or refuses.
    pub async fn count(&self) -> Result<BTreeMap<String, Rows>> {
        self.clickhouse.to_erase(&self.erasure).await.map_err(asked)
    }

    /// Records the positions, deletes the rows, and waits until ClickHouse has rewritten their parts.
    ///
    /// # Errors
    /// When a right is missing, ClickHouse does not answer or refuses, or rows are left. The same command finishes the
    /// job.
    pub async fn erase(&self, reason: &str, found: Rows) -> Result<()> {
        let Self { clickhouse, erasure } = self;
        let since_ms = match erasure {
            Erasure::Recorded => 0,
            _ => {
                let now_ms = clickhouse.server_time_ms().await.map_err(asked)?;
                clickhouse
                    .record_erased(erasure, reason, now_ms)
                    .await
                    .map_err(|failure| anyhow!("ClickHouse: {failure}: nothing was deleted, run this again"))?;
                self.is_recorded(now_ms, found.events + found.rejects).await?;
                now_ms
            }
        };
        for &table in erasure.tables() {
            self.delete(table, since_ms).await.map_err(|error| {
                error.context(
                    "not all was deleted; what is recorded as erased stays that, and running this again goes on",
                )
            })?;
        }
        Ok(())
    }

    /// An answer alone does not show that the positions are recorded: something before ClickHouse may have given it.
    async fn is_recorded(&self, since_ms: i64, found: u64) -> Result<()> {
        let mut recorded = 0;
        for &table in self.erasure.tables() {
            recorded += self.clickhouse.erased_rows(table, since_ms).await.map_err(asked)?;
        }
        if recorded < found {
            bail!(
                "ClickHouse has confirmed that positions are recorded, and shows {} of {} rows at such positions: nothing was \
                 deleted, run this again",
                grouped(recorded),
                grouped(found)
            );
        }
        Ok(())
    }

    async fn delete(&self, table: Table, since_ms: i64) -> Result<()> {
        let Self { clickhouse, .. } = self;
        // One that was begun before may delete the same rows.
        self.mutated(table).await?;
        if clickhouse.erased_rows(table, since_ms).await.map_err(asked)? == 0 {
            return Ok(());
        }
        clickhouse.delete_erased(table, since_ms).await.map_err(asked)?;
        self.mutated(table).await?;
        match clickhouse.erased_rows(table, since_ms).await.map_err(asked)? {
            0 => Ok(()),
            left => bail!(
                "{} rows of {} are there still: mutations run with the settings of the server's own profile, where limit, filters \
                 or an overflow mode may leave rows out",
                grouped(left),
                table.name()
            ),
        }
    }

    /// Returns when ClickHouse has done what deletes erased rows of a table.
    async fn mutated(&self, table: Table) -> Result<()> {
        let (mut said, mut failing) = (Instant::now(), None);
        while let Some(mutations) = patiently(async || self.clickhouse.erasing(table).await).await? {
            if said.elapsed() > LOG_INTERVAL {
                tracing::info!("{}: ClickHouse has {} parts to rewrite", table.name(), grouped(mutations.parts));
                said = Instant::now();
            }
            // Tried again with success, it has fewer parts left.
            failing = match (mutations.failure.is_empty(), failing) {
                (false, Some((since, parts))) if parts == mutations.parts => Some((since, parts)),
                (false, _) => Some((Instant::now(), mutations.parts)),
                (true, _) => None,
            };
            if failing.is_some_and(|(since, _): (Instant, u64)| since.elapsed() > MUTATION_TIMEOUT) {
                bail!(
                    "ClickHouse cannot rewrite parts of {}: {} (KILL MUTATION WHERE mutation_id = '{}' ends it)",
                    table.name(),
                    mutations.failure,
                    mutations.first
                );
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        Ok(())
    }

    /// Waits until the parts that hold erased rows are gone from this server's disk, or only looks; the number of those left.
    ///
    /// # Errors
    /// When ClickHouse does not answer or refuses.
    pub async fn old_parts(&self, wait: bool) -> Result<usize> {
        let mut held: Option<BTreeSet<String>> = None;
        let mut said = Instant::now();
        loop {
            let mut there = BTreeSet::new();
            for &table in self.erasure.tables() {
                there.extend(patiently(async || self.clickhouse.old_parts(table).await).await?);
            }
            // Merges go on, and leave other ones.
            let held = held.get_or_insert_with(|| there.clone());
            held.retain(|part| there.contains(part));
            if held.is_empty() || !wait {
                return Ok(held.len());
            }
            if said.elapsed() > LOG_INTERVAL {
                tracing::info!("old parts that are still on the disk: {}", grouped(held.len() as u64));
                said = Instant::now();
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }
}

fn asked(failure: Failure) -> anyhow::Error {
    anyhow!("ClickHouse: {failure}")
}
