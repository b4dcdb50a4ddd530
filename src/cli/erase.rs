//! `clickstream erase`: deletes rows, and sees to it that they do not come back.

use super::values::{duration, not_empty, short_text};
use super::{ClickHouseArgs, TableArgs};
use crate::clickhouse::{ClickHouse, Condition, Erasure, Rows};
use crate::erase::Eraser;
use crate::numbers::grouped;
use crate::printable::name;
use crate::{connect, output};
use anyhow::{Result, anyhow, bail};
use clap::Args;
use flows::Failure;
use std::collections::BTreeMap;
use std::time::Duration;

/// The remaining copies, for the person in charge.
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
    pub table: TableArgs,

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

/// Records the positions, deletes the rows, and waits until ClickHouse has rewritten their parts.
///
/// # Errors
/// When a right is missing, ClickHouse does not answer or refuses, or rows are left. The same command finishes the job.
pub async fn run(args: EraseArgs) -> Result<()> {
    let clickhouse = ClickHouse::new(&args.table.config(&args.clickhouse))?;
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
        output::line(format_args!("topic id {}: {}", name(source), describe(&eraser.erasure, *rows)))?;
    }
    let all = sum(&found);
    if dry_run {
        return output::line(format_args!("{} would be erased: nothing was changed", describe(&eraser.erasure, all)));
    }
    eraser.erase(&reason, all).await?;
    if all == Rows::default() {
        output::line("nothing was found that is to be erased: is it spelled as in the table?")?;
    } else {
        let erased = describe(&eraser.erasure, all);
        output::line(format_args!("{erased} erased: recorded, deleted, and the parts that held them rewritten"))?;
    }
    // Also of a run that was cut short, whose rows are deleted by now.
    if wait || all != Rows::default() {
        say_old_parts(eraser.old_parts(wait).await?)?;
    }
    output::line(LEFT)?;
    let left = sum(&eraser.count().await?);
    if left != Rows::default() {
        bail!("{} came while this was at work: run it again", describe(&eraser.erasure, left));
    }
    Ok(())
}

fn say_old_parts(parts: usize) -> Result<()> {
    match parts {
        0 => output::line("no old part is on this server's disk"),
        parts => output::line(format_args!(
            "old parts that are still on this server's disk: {}; ClickHouse removes them within 8 minutes, unless \
             old_parts_lifetime says otherwise; --wait waits for that",
            grouped(parts as u64)
        )),
    }
}

fn describe(erasure: &Erasure, Rows { events, rejects }: Rows) -> String {
    match erasure {
        Erasure::Where(_) => format!("{} events (--where looks at no rejects)", grouped(events)),
        _ => format!("{} events and {} rejects", grouped(events), grouped(rejects)),
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
