//! `clickstream setup`: creates a missing topic and missing tables, and checks existing ones.

use super::{ClickHouseArgs, KafkaArgs, TableArgs};
use crate::clickhouse::{ClickHouse, Tables};
use crate::kafka::admin::{self, Found};
use crate::{connect, kafka, output};
use anyhow::{Context, Result};
use clap::Args;
use std::sync::Arc;

#[derive(Args, Debug)]
pub struct SetupArgs {
    #[command(flatten)]
    pub kafka: KafkaArgs,
    #[command(flatten)]
    pub clickhouse: ClickHouseArgs,
    #[command(flatten)]
    pub table: TableArgs,

    /// Partitions of a topic that is made
    #[arg(long, env = "CLICKSTREAM_PARTITIONS", default_value_t = 3, value_parser = clap::value_parser!(i32).range(1..=10_000))]
    pub partitions: i32,
}

/// Creates the topic and the tables where they are missing. May be run again.
///
/// # Errors
/// When a service does not answer or refuses, or a table that exists has other columns.
pub async fn run(args: SetupArgs) -> Result<()> {
    let config = kafka::client_config(&args.kafka.config(), &[])?;
    let client = Arc::new(admin::client(&config)?);
    let tables_config = args.table.config(&args.clickhouse);
    let clickhouse = ClickHouse::new(&tables_config)?;
    let topic = &args.kafka.topic;
    match connect::kafka(&client, topic, args.kafka.connect_timeout).await? {
        Found::Partitions(partitions) => {
            output::line(format_args!("topic {topic}: there, {} partitions", partitions.len()))?;
        }
        Found::Missing => {
            admin::create(&config, client, topic, args.partitions, &[]).await?;
            output::line(format_args!("topic {topic}: created, {} partitions", args.partitions))?;
        }
    }
    connect::clickhouse(&clickhouse, args.kafka.connect_timeout).await?;
    let patience = args.kafka.connect_timeout;
    connect::checked(&clickhouse, patience, async || clickhouse.may_insert().await).await?;
    let tables = connect::checked(&clickhouse, patience, async || clickhouse.apply_schema().await).await;
    let tables = tables.context("cannot set up the tables")?;
    let word = if tables == Tables::Made { "created" } else { "there" };
    output::line(format_args!("database {}: tables {word}, columns as expected", tables_config.database))
}
