//! The command line of `erase`.

use super::ClickHouseArgs;
use super::values::{duration, not_empty, short_text};
use crate::clickhouse::Condition;
use clap::Args;
use std::time::Duration;

#[derive(Args, Debug)]
#[command(
    after_help = "Kafka keeps its copy of the messages until retention deletes them. docs/erasure.md says what else is left."
)]
pub struct EraseArgs {
    #[command(flatten)]
    pub clickhouse: ClickHouseArgs,

    #[command(flatten)]
    pub what: EraseWhat,

    /// Why, in a few words, to be kept with the positions: a case number, say, and never the name of the person
    #[arg(long, default_value = "", hide_default_value = true, value_parser = short_text, value_name = "TEXT")]
    pub reason: String,

    /// Only count what would be erased
    #[arg(long)]
    pub dry_run: bool,

    /// Also wait until ClickHouse has removed the old parts from its disk (`old_parts_lifetime`, 8 minutes by default)
    #[arg(long)]
    pub wait: bool,

    /// How long to wait for a ClickHouse that does not answer at the start
    #[arg(long, env = "CLICKSTREAM_CONNECT_TIMEOUT", default_value = "30s", value_parser = duration, value_name = "TIME")]
    pub connect_timeout: Duration,
}

/// Whose rows, or which: exactly one of these.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub struct EraseWhat {
    /// All rows of this user, in `events` and `rejected`; may be repeated, which is cheaper than to run it again
    #[arg(long, value_parser = not_empty, value_name = "ID")]
    pub user: Vec<String>,

    /// The rows of `events` that meet this condition: SQL that ClickHouse is given as it is, one expression, in brackets
    #[arg(long = "where", value_name = "CONDITION")]
    pub condition: Option<Condition>,

    /// The rows that stand again at positions that were erased before: after a backup was restored, or an erasure cut short
    #[arg(long)]
    pub recorded: bool,
}
