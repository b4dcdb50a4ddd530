//! `clickstream setup`: creates a missing topic and missing tables, and checks existing ones.

use super::kafka::several;
use super::{ClickHouseArgs, KafkaArgs, TableArgs};
use crate::clickhouse::{ClickHouse, Tables, statements};
use crate::kafka::admin::{self, Found};
use crate::{connect, kafka, output};
use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

#[derive(Args, Debug)]
#[command(mut_arg("topic", several))]
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

    /// Run the statements of this SQL file, which create your own table: see `clickstream schema`
    #[arg(long, value_name = "FILE", requires = "table")]
    pub schema: Option<PathBuf>,
}

/// Creates the topic and the tables where they are missing. May be run again.
///
/// # Errors
/// When a service does not answer or refuses, or a table that exists has other columns.
pub async fn run(args: SetupArgs) -> Result<()> {
    // Before anything is created: the file may be another one than was meant.
    let script = args.schema.as_deref().map(|file| read(file).map(|script| (file, script))).transpose()?;
    let config = kafka::client_config(&args.kafka.config(), &[])?;
    let client = Arc::new(admin::client(&config)?);
    let tables_config = args.table.config(&args.clickhouse);
    let clickhouse = ClickHouse::new(&tables_config)?;
    for topic in args.kafka.topics() {
        match connect::kafka(&client, topic, args.kafka.connect_timeout).await? {
            Found::Partitions(partitions) => {
                output::line(format_args!("topic {topic}: there, {} partitions", partitions.len()))?;
            }
            Found::Missing => {
                admin::create(&config, client.clone(), topic, args.partitions, &[]).await?;
                output::line(format_args!("topic {topic}: created, {} partitions", args.partitions))?;
            }
        }
    }
    connect::clickhouse(&clickhouse, args.kafka.connect_timeout).await?;
    let patience = args.kafka.connect_timeout;
    connect::checked(&clickhouse, patience, async || clickhouse.may_insert().await).await?;
    if let Some((file, script)) = &script {
        connect::checked(&clickhouse, patience, async || clickhouse.create_tables().await)
            .await
            .context("cannot set up the tables")?;
        apply(&clickhouse, file, script, patience).await?;
    }
    let tables = connect::checked(&clickhouse, patience, async || clickhouse.apply_schema().await).await;
    let tables = tables.context("cannot set up the tables")?;
    // Only now it is known that there is a table.
    if args.table.table.is_some() {
        connect::checked(&clickhouse, patience, async || clickhouse.learn_table(args.kafka.topic(), None).await)
            .await?;
    }
    let words = match tables {
        Tables::Kept => "tables there, columns as expected",
        Tables::Altered => "tables there, missing columns added",
        Tables::Made => "tables created, columns as expected",
    };
    output::line(format_args!("database {}: {words}", tables_config.database))
}

fn read(file: &Path) -> Result<String> {
    let script = std::fs::read_to_string(file).with_context(|| format!("cannot read --schema {}", file.display()))?;
    if statements(&script).is_empty() {
        bail!("--schema {} has no statement: `clickstream schema --from-topic TOPIC` drafts one", file.display());
    }
    Ok(script)
}

/// Runs the statements of the user's file, in their order.
async fn apply(clickhouse: &ClickHouse, file: &Path, script: &str, patience: Duration) -> Result<()> {
    let statements = statements(script);
    for (nth, statement) in statements.iter().enumerate() {
        let applied = connect::checked(clickhouse, patience, async || clickhouse.apply(statement).await).await;
        applied.map_err(|why| {
            let (nth, count, line) = (nth + 1, statements.len(), statement.line);
            let (file, beginning) = (file.display(), statement.beginning());
            anyhow!(
                "statement {nth} of {count} in {file} failed, at line {line} ({beginning}): {why}. Those before it were applied; correct this one \
                 and run `clickstream setup` again"
            )
        })?;
    }
    let count = statements.len();
    let word = if count == 1 { "statement" } else { "statements" };
    output::line(format_args!("{}: {count} {word} applied", file.display()))
}
