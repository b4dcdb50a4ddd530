//! `clickstream check`: looks at a set-up before it is trusted.

use super::values::not_empty;
use super::{ClickHouseArgs, Format, KafkaArgs, TableArgs, TimeArgs};
use crate::check::{self, CheckConfig};
use crate::output;
use anyhow::{Result, bail};
use clap::Args;

#[derive(Args, Debug)]
// Somebody looks on, and the other checks are made meanwhile.
#[command(mut_arg("connect_timeout", |arg| arg.default_value("10s")))]
pub struct CheckArgs {
    #[command(flatten)]
    pub kafka: KafkaArgs,
    #[command(flatten)]
    pub clickhouse: ClickHouseArgs,
    #[command(flatten)]
    pub table: TableArgs,
    #[command(flatten)]
    pub time: TimeArgs,

    /// The consumer group
    #[arg(long, env = "CLICKSTREAM_GROUP", default_value = "clickstream", value_parser = not_empty)]
    pub group: String,

    /// The number of messages that are decoded and not stored: the newest ones, about as many of each partition
    #[arg(long, default_value_t = 1_000, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub sample: u64,

    /// The format of the findings
    #[arg(long, value_enum, default_value = "text")]
    pub format: Format,
}

/// Prints a line for each check.
///
/// # Errors
/// When a check has failed.
pub async fn run(args: CheckArgs) -> Result<()> {
    let config = CheckConfig {
        kafka: args.kafka.config(),
        group: args.group,
        clickhouse: args.table.config(&args.clickhouse),
        time: args.time.time,
        sample: args.sample,
        connect_timeout: args.kafka.connect_timeout,
    };
    let report = check::run(&config).await;
    match args.format {
        Format::Text => output::line(&report)?,
        Format::Json => output::line(format_args!("{:#}", serde_json::to_value(&report.findings)?))?,
    }
    let failed = report.failed();
    if !failed.is_empty() {
        bail!("{} of {} checks failed: {}", failed.len(), report.findings.len(), failed.join(", "));
    }
    Ok(())
}
