//! `clickstream audit`: the proof, offset by offset, that the tables hold what the topic held.

use crate::cli::AuditArgs;
use crate::clickhouse::ClickHouse;
use crate::kafka::admin::{self, Found};
use crate::kafka::topic_id;
use crate::table::grouped;
use crate::{connect, kafka};
use anyhow::{Context, Result, anyhow, bail};
use flows::{Islands, Span};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

const ANSWER: Duration = Duration::from_secs(10);
/// Offsets asked about at a time: bounds the memory, here and in ClickHouse.
const WINDOW: i64 = 1_000_000;
/// Gaps and duplicates printed for a partition; the rest is only counted.
const SHOWN: usize = 20;

/// What was found in a partition.
#[derive(Default)]
struct Findings {
    stored: u64,
    /// Offsets that hold no record: transaction markers, or compacted away.
    empty: u64,
    gaps: Vec<Span>,
    duplicates: Vec<Span>,
}

/// Prints gaps and duplicates, partition by partition.
///
/// # Errors
/// When there are any, or when it cannot be told.
pub async fn run(args: AuditArgs) -> Result<()> {
    let mut config = kafka::config(&args.kafka, &[("enable.auto.commit", "false"), ("enable.partition.eof", "true")])?;
    config.set("group.id", &args.group);
    let client = Arc::new(admin::client(&config)?);
    let topic = args.kafka.topic.as_str();
    let found = connect::kafka(&client, &args.kafka.brokers, topic, args.kafka.connect_timeout).await?;
    let Found::Partitions(partitions) = found else {
        bail!("topic {topic} is missing at {}: see --topic", args.kafka.brokers)
    };
    let clickhouse = ClickHouse::new(&args.clickhouse)?;
    connect::clickhouse(&clickhouse, args.kafka.connect_timeout).await?;
    clickhouse.check_tables().await.map_err(|failure| anyhow!("{failure}"))?;

    let source = topic_id(client.client().native_client(), topic, ANSWER)
        .map_err(|error| anyhow!("topic {topic}: {error}"))?
        .unwrap_or_else(|| topic.to_owned());
    let ends = admin::watermarks(&client, topic, &partitions)?;
    let committed = committed(&client, topic, &partitions)?;
    if committed.is_empty() && ends.values().any(|(low, high)| low < high) {
        bail!(
            "group {} has committed nothing on topic {topic}: see --group, or let `clickstream ingest` run",
            args.group
        );
    }

    println!("topic {topic} ({source}), group {}", args.group);
    let (mut gaps, mut duplicates) = (0, 0);
    for (&partition, &(low, high)) in &ends {
        let mark = committed.get(&partition).copied().unwrap_or(low);
        let findings = inspect(&clickhouse, &config, topic, &source, partition, Span::new(low, mark.max(low))).await?;
        println!(
            "partition {partition}: offsets {low} to {mark}: {} stored, {} gaps, {} duplicates, {} empty, {} waiting",
            grouped(findings.stored),
            grouped(total(&findings.gaps)),
            grouped(total(&findings.duplicates)),
            grouped(findings.empty),
            grouped(u64::try_from(high - mark).unwrap_or(0)),
        );
        show("missing", &findings.gaps);
        show("more than once", &findings.duplicates);
        gaps += total(&findings.gaps);
        duplicates += total(&findings.duplicates);
    }
    if gaps + duplicates > 0 {
        bail!("{} committed messages are missing, {} stand there more than once", grouped(gaps), grouped(duplicates));
    }
    println!("every committed message is stored exactly once");
    Ok(())
}

/// Compares one partition with its rows, window by window.
async fn inspect(
    clickhouse: &ClickHouse,
    config: &ClientConfig,
    topic: &str,
    source: &str,
    partition: i32,
    whole: Span,
) -> Result<Findings> {
    let mut findings = Findings::default();
    let mut holes = Vec::new();
    for first in (whole.first..whole.next).step_by(WINDOW as usize) {
        let window = Span::new(first, (first + WINDOW).min(whole.next));
        let stored =
            clickhouse.stored(source, partition, window).await.map_err(|failure| anyhow!("ClickHouse: {failure}"))?;
        findings.stored += stored.spans().iter().map(Span::len).sum::<u64>();
        holes.extend(stored.gaps(window));
        let doubled =
            clickhouse.doubled(source, partition, window).await.map_err(|failure| anyhow!("ClickHouse: {failure}"))?;
        findings.duplicates.extend(doubled.spans());
    }
    // What Kafka has no record for either is no gap.
    let holes = Islands::new(holes);
    let (config, name) = (config.clone(), topic.to_owned());
    let missing = tokio::task::spawn_blocking(move || records_in(&config, &name, partition, holes.spans())).await??;
    let open: u64 = whole.len() - findings.stored;
    findings.gaps = missing.spans().to_vec();
    findings.empty = open - total(&findings.gaps);
    Ok(findings)
}

/// Which offsets of these spans hold a record that a consumer is given.
fn records_in(config: &ClientConfig, topic: &str, partition: i32, spans: &[Span]) -> Result<Islands> {
    let consumer: BaseConsumer = config.create().context("cannot set up the Kafka client")?;
    let mut found = Vec::new();
    for span in spans {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Offset(span.first)).context("an offset to read from")?;
        consumer.assign(&list).context("cannot read from the topic")?;
        let mut deadline = Instant::now() + ANSWER;
        loop {
            match consumer.poll(Duration::from_millis(100)) {
                Some(Ok(message)) if message.offset() < span.next => {
                    found.push(Span::new(message.offset(), message.offset() + 1));
                    deadline = Instant::now() + ANSWER;
                }
                Some(Ok(_)) | Some(Err(KafkaError::PartitionEOF(_))) => break,
                Some(Err(error)) => bail!("cannot read partition {partition} from offset {}: {error}", span.first),
                None if Instant::now() > deadline => {
                    bail!("Kafka did not give partition {partition} from offset {} within 10 s", span.first)
                }
                None => {}
            }
        }
    }
    Ok(Islands::new(found))
}

/// The committed offsets of the group; partitions without one are left out.
fn committed(client: &BaseConsumer, topic: &str, partitions: &[i32]) -> Result<BTreeMap<i32, i64>> {
    let mut list = TopicPartitionList::new();
    for &partition in partitions {
        list.add_partition(topic, partition);
    }
    let committed = client.committed_offsets(list, ANSWER).context("cannot ask for the group's committed offsets")?;
    Ok(committed
        .elements()
        .iter()
        .filter_map(|place| match place.offset() {
            Offset::Offset(mark) => Some((place.partition(), mark)),
            _ => None,
        })
        .collect())
}

fn total(spans: &[Span]) -> u64 {
    spans.iter().map(Span::len).sum()
}

fn show(what: &str, spans: &[Span]) {
    for span in spans.iter().take(SHOWN) {
        println!("  {what}: {span}");
    }
    if spans.len() > SHOWN {
        println!("  {what}: {} more ranges", spans.len() - SHOWN);
    }
}
