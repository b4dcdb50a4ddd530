//! The command line of `audit`.

use super::values::{instant, not_empty};
use super::{ClickHouseArgs, KafkaArgs};
use clap::{Args, ValueEnum};

#[derive(Args, Debug)]
pub struct AuditArgs {
    #[command(flatten)]
    pub kafka: KafkaArgs,
    #[command(flatten)]
    pub clickhouse: ClickHouseArgs,

    /// The consumer group whose committed offsets say up to where everything must be stored
    #[arg(long, env = "CLICKSTREAM_GROUP", default_value = "clickstream", value_parser = not_empty)]
    pub group: String,

    /// Compare only messages that Kafka got since then: a time like 2026-01-31T14:00:00Z, or so long ago, like 2h
    #[arg(long, value_parser = instant, value_name = "TIME")]
    pub since: Option<i64>,

    /// Put back what is committed and not stored: read it again from the topic, then audit once more
    #[arg(long)]
    pub heal: bool,

    /// How to print what was found
    #[arg(long, value_enum, default_value = "text")]
    pub format: Format,
}

/// For people, or for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Text,
    Json,
}
