//! `clickstream erase`: deletes rows, and sees to it that they do not come back.

use super::ClickHouseArgs;
use super::values::{duration, not_empty, short_text};
use crate::audit::patiently;
use crate::clickhouse::Condition;
use crate::clickhouse::{ClickHouse, Erasure, Rows};
use crate::numbers::grouped;
use crate::{connect, output};
use anyhow::{Result, anyhow, bail};
use clap::Args;
use flows::{Failure, Table};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// The interval between questions about ClickHouse's progress, and between log lines about it.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
const SAY_AGAIN: Duration = Duration::from_secs(10);
/// How long a mutation may fail, which ClickHouse tries again and again, before this gives up.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is not erased, for those who answer for it.
const LEFT: &str = "not erased: messages that are still to be ingested (run this again when the group's lag is 0); Kafka's copy \
                    of all of them, which retention deletes (or kafka-delete-records, or a tombstone in a compacted topic); \
                    backups, detached and frozen parts, and other servers: see docs/erasure.md";

#[derive(Args, Debug)]
#[command(
    after_help = "Kafka keeps its copy of the messages until retention deletes them. docs/erasure.md lists other remaining copies."
)]
pub struct EraseArgs {
    #[command(flatten)]
    pub clickhouse: ClickHouseArgs,

    #[command(flatten)]
    pub what: EraseWhat,

    /// A short reason that is kept with the positions: a case number, for example, and never the person's name
    #[arg(long, default_value = "", hide_default_value = true, value_parser = short_text, value_name = "TEXT")]
    pub reason: String,

    /// Only count the rows
    #[arg(long)]
    pub dry_run: bool,

    /// Also wait until ClickHouse has removed the old parts from its disk (`old_parts_lifetime`, 8 minutes by default)
    #[arg(long)]
    pub wait: bool,

    /// Time to wait for a ClickHouse that does not answer at the start
    #[arg(long, env = "CLICKSTREAM_CONNECT_TIMEOUT", default_value = "30s", value_parser = duration, value_name = "TIME")]
    pub connect_timeout: Duration,
}

/// Whose rows, or which: exactly one of these.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub struct EraseWhat {
    /// Erase all rows of this user, in `events` and `rejected`; may be repeated, which is cheaper than several runs
    #[arg(long, value_parser = not_empty, value_name = "ID")]
    pub user: Vec<String>,

    /// Erase the rows of `events` that meet this condition: one SQL expression, which ClickHouse gets unchanged, in brackets
    #[arg(long = "where", value_name = "CONDITION")]
    pub condition: Option<Condition>,

    /// Erase rows that are stored again at erased positions, after a restored backup or an unfinished erasure
    #[arg(long)]
    pub recorded: bool,
}

/// Records the positions, deletes the rows, and waits until ClickHouse has rewritten what held them.
///
/// # Errors
/// When a right is missing, ClickHouse does not answer or refuses, or rows are left. Running it again finishes what was begun.
pub async fn run(args: EraseArgs) -> Result<()> {
    let clickhouse = ClickHouse::new(&args.clickhouse.config())?;
    connect::clickhouse(&clickhouse, args.connect_timeout).await?;
    let patience = args.connect_timeout;
    connect::checked(&clickhouse, patience, async || clickhouse.check_tables().await).await?;
    let (wait, dry_run, reason) = (args.wait, args.dry_run, args.reason);
    let user = args.clickhouse.clickhouse_user;
    let erasure = match args.what.condition {
        Some(condition) => Erasure::Where(condition),
        None if args.what.recorded => Erasure::Recorded,
        None => Erasure::Users(args.what.user),
    };
    let eraser = Eraser { clickhouse, erasure };
    if !dry_run && let Some(right) = eraser.clickhouse.lacks_to_erase(&eraser.erasure).await.map_err(asked)? {
        bail!(
            "nothing was erased: {user} may not {right}: GRANT {right} TO {user}, or use the account `eraser` \
             (--clickhouse-user, docs/erasure.md)"
        );
    }
    connect::checked(&eraser.clickhouse, patience, async || eraser.clickhouse.check().await).await?;
    let found = eraser.count().await?;
    for (source, rows) in &found {
        output::line(format_args!("topic id {source}: {}", eraser.describe(*rows)))?;
    }
    let all = sum(&found);
    if dry_run {
        return output::line(format_args!("{} would be erased: nothing was changed", eraser.describe(all)));
    }
    eraser.erase(&reason, all).await?;
    if all == Rows::default() {
        output::line("nothing was found that is to be erased: is it spelled as in the table?")?;
    } else {
        let erased = eraser.describe(all);
        output::line(format_args!("{erased} erased: recorded, deleted, and the parts that held them rewritten"))?;
    }
    // Also of a run that was cut short, whose rows are deleted by now.
    if wait || all != Rows::default() {
        eraser.old_parts(wait).await?;
    }
    output::line(LEFT)?;
    let left = sum(&eraser.count().await?);
    if left != Rows::default() {
        bail!("{} came while this was at work: run it again", eraser.describe(left));
    }
    Ok(())
}

struct Eraser {
    clickhouse: ClickHouse,
    erasure: Erasure,
}

impl Eraser {
    async fn count(&self) -> Result<BTreeMap<String, Rows>> {
        self.clickhouse.to_erase(&self.erasure).await.map_err(asked)
    }

    /// The order is what a crash at any moment hangs on: what is deleted was recorded before, and what is recorded is found by the
    /// next run, as it still meets the same condition.
    async fn erase(&self, reason: &str, found: Rows) -> Result<()> {
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
            if said.elapsed() > SAY_AGAIN {
                tracing::info!("{}: ClickHouse has {} parts to rewrite", table.name(), grouped(mutations.parts));
                said = Instant::now();
            }
            // Tried again with success, it has fewer parts left.
            failing = match (mutations.failure.is_empty(), failing) {
                (false, Some((since, parts))) if parts == mutations.parts => Some((since, parts)),
                (false, _) => Some((Instant::now(), mutations.parts)),
                (true, _) => None,
            };
            if failing.is_some_and(|(since, _): (Instant, u64)| since.elapsed() > PATIENCE) {
                bail!(
                    "ClickHouse cannot rewrite parts of {}: {} (KILL MUTATION WHERE mutation_id = '{}' ends it)",
                    table.name(),
                    mutations.failure,
                    mutations.first
                );
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }

    /// Says what is still on the disk of parts that were replaced, or waits until it is gone.
    async fn old_parts(&self, wait: bool) -> Result<()> {
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
            match (held.len(), wait) {
                (0, _) => return output::line("no old part is on this server's disk"),
                (parts, false) => {
                    return output::line(format_args!(
                        "old parts that are still on this server's disk: {}; ClickHouse removes them within 8 minutes, \
                         unless old_parts_lifetime says otherwise; --wait waits for that",
                        grouped(parts as u64)
                    ));
                }
                (parts, true) => {
                    if said.elapsed() > SAY_AGAIN {
                        tracing::info!("old parts that are still on the disk: {}", grouped(parts as u64));
                        said = Instant::now();
                    }
                    tokio::time::sleep(LOOK_AGAIN).await;
                }
            }
        }
    }

    fn describe(&self, Rows { events, rejects }: Rows) -> String {
        match &self.erasure {
            Erasure::Where(_) => format!("{} events (--where looks at no rejects)", grouped(events)),
            _ => format!("{} events and {} rejects", grouped(events), grouped(rejects)),
        }
    }
}

fn sum(found: &BTreeMap<String, Rows>) -> Rows {
    found.values().fold(Rows::default(), |sum, rows| Rows {
        events: sum.events + rows.events,
        rejects: sum.rejects + rows.rejects,
    })
}

fn asked(failure: Failure) -> anyhow::Error {
    anyhow!("ClickHouse: {failure}")
}
