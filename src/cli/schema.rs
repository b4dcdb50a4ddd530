//! `clickstream schema`: drafts a table for the messages of a topic.

use super::KafkaArgs;
use super::own_table::{TableName, table_name};
use crate::kafka::admin::{self, Found};
use crate::kafka::newest;
use crate::kafka::ranges::{self, Ranges};
use crate::numbers::grouped;
use crate::printable::printable;
use crate::{connect, kafka, output};
use anyhow::{Context, Result, bail};
use clap::Args;
use flows::{Draft, Sample};
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::task::block_in_place;

/// A consumer needs a name of a group. It joins none, and commits nothing.
const GROUP: &str = "clickstream-schema";

#[derive(Args, Debug)]
#[command(mut_arg("topic", |arg| arg.long("from-topic").alias("topic").help("The topic whose messages are sampled")))]
pub struct SchemaArgs {
    #[command(flatten)]
    pub kafka: KafkaArgs,

    /// The number of messages to read: the newest ones, about as many of each partition
    #[arg(long, default_value_t = 10_000, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub sample: u64,

    /// The name of the table [default: the topic's name]
    #[arg(long, env = "CLICKSTREAM_TABLE", value_name = "[DATABASE.]TABLE", value_parser = table_name)]
    pub table: Option<TableName>,

    /// Write the draft to this file, which must not exist yet [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// Reads a sample of the topic, and prints a `CREATE TABLE` that takes all of it.
///
/// # Errors
/// When Kafka does not answer, when no message is a JSON object, or when the file cannot be written.
pub async fn run(args: SchemaArgs) -> Result<()> {
    if let Some(file) = args.output.as_deref().filter(|file| file.exists()) {
        bail!("{} exists already: name another file with --output, or remove it", file.display());
    }
    let topic = args.kafka.topic();
    let mut config = kafka::client_config(&args.kafka.config(), ranges::DEFAULTS)?;
    config.set("group.id", GROUP);
    let client = Arc::new(admin::client(&config)?);
    let patience = args.kafka.connect_timeout;
    let Found::Partitions(partitions) = connect::kafka(&client, topic, patience).await? else {
        bail!("topic {topic} is missing at {}: see --from-topic", args.kafka.brokers)
    };
    let ends = connect::leaders(&client, topic, &partitions, patience).await?;
    let mut sample = Sample::default();
    let mut ranges = Ranges::new(&config, topic)?;
    block_in_place(|| newest::read(&mut ranges, &ends, args.sample, |_, record| sample.add(record.payload)))?;
    if sample.messages() == sample.no_objects() {
        let messages = grouped(sample.messages());
        bail!(
            "none of the {messages} messages that were read of topic {topic} is a JSON object: a table is drafted from those only"
        );
    }
    let draft = sample.draft();
    let table = args.table.unwrap_or_else(|| TableName::of_topic(topic));
    let read = read_line(topic, &sample, partitions.len());
    let next = next_steps(topic, &table, &draft, args.output.as_deref());
    let sql = format!("-- {read}\n{next}{}", draft.create_table(&table.to_string()));
    match &args.output {
        None => output::bytes(sql.as_bytes()),
        Some(file) => {
            write(file, &sql)?;
            output::line(format_args!("{}: a table of {} columns. {read}", file.display(), draft.columns()))
        }
    }
}

/// A line about the messages that were read, and those of them that are not a row of any table.
fn read_line(topic: &str, sample: &Sample, partitions: usize) -> String {
    let messages = grouped(sample.messages());
    let read =
        format!("Drafted from the newest messages of topic {topic}: {messages} of {partitions} partitions were read");
    match sample.no_objects() {
        0 => format!("{read}, all of them JSON objects."),
        bad => format!("{read}. {} are not a JSON object: `ingest` stores them as rejects.", grouped(bad)),
    }
}

/// The commands that follow, as comments.
fn next_steps(topic: &str, table: &TableName, draft: &Draft, file: Option<&Path>) -> String {
    let file = file.map_or_else(|| "FILE".into(), |file| printable(&file.display().to_string()).into_owned());
    let time = draft.time().filter(|time| *time != "timestamp");
    let time = time.map_or_else(String::new, |time| format!(" --time '{}'", time.replace('\'', r"'\''")));
    format!(
        "-- Change what you know better, and then:\n\
         --   clickstream setup --topic {topic} --table {table} --schema {file}\n\
         --   clickstream ingest --topic {topic} --table {table}{time}\n\
         -- Columns of these names hold parts of the message: _topic LowCardinality(String), _key String, _timestamp_ms DateTime64(3, 'UTC'),\n\
         -- _headers Map(String, String), _raw_message String.\n"
    )
}

fn write(file: &Path, sql: &str) -> Result<()> {
    let written =
        File::create_new(file).and_then(|mut file| file.write_all(sql.as_bytes()).and_then(|()| file.sync_all()));
    written.with_context(|| format!("cannot write the draft to {}", file.display()))
}
