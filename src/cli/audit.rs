//! `clickstream audit`: the proof, offset by offset, that the tables hold what the topic held.

use super::kafka::several;
use super::values::{instant, not_empty};
use super::{ClickHouseArgs, Format, KafkaArgs, TableArgs, TimeArgs};
use crate::audit::{Auditor, Expired, Findings, Healer, Interrupted, Marks, OtherSources, Wanted, other_sources};
use crate::clickhouse::{ClickHouse, WINDOW};
use crate::kafka::admin::{self, Client, Found};
use crate::kafka::native;
use crate::kafka::ranges::{self, Ranges};
use crate::numbers::grouped;
use crate::{connect, kafka, output};
use anyhow::{Result, anyhow, bail};
use clap::Args;
use flows::{LostMessages, Notes, OffsetRange, Origin, TopicIdentity};
use rdkafka::consumer::Consumer;
use rdkafka::{Offset, TopicPartitionList};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::block_in_place;

const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// The number of leases that others may open during a healing: in a group that rebalances all the time, no healing succeeds.
const INTERRUPTIONS: u32 = 100;

/// A running audit.
struct Audit {
    args: Arc<AuditArgs>,
    partitions: Vec<i32>,
    identity: TopicIdentity,
    auditor: Auditor,
}

#[derive(Args, Debug)]
#[command(mut_arg("topic", several))]
pub struct AuditArgs {
    #[command(flatten)]
    pub kafka: KafkaArgs,
    #[command(flatten)]
    pub clickhouse: ClickHouseArgs,
    #[command(flatten)]
    pub table: TableArgs,
    #[command(flatten)]
    pub time: TimeArgs,

    /// The consumer group whose committed messages must all be stored
    #[arg(long, env = "CLICKSTREAM_GROUP", default_value = "clickstream", value_parser = not_empty)]
    pub group: String,

    /// Compare only messages that Kafka received since then: a time (2026-01-31T14:00:00Z) or an age (2h)
    #[arg(long, value_parser = instant, value_name = "TIME")]
    pub since: Option<i64>,

    /// Restore messages that are committed and not stored: read them again from the topic, then audit once more
    #[arg(long)]
    pub heal: bool,

    /// The format of the findings
    #[arg(long, value_enum, default_value = "text")]
    pub format: Format,
}

/// Prints gaps and duplicates, partition by partition; with `--heal`, restores missing rows and audits again.
///
/// # Errors
/// When there are faults in the end, or when the comparison cannot be made.
pub async fn run(args: AuditArgs) -> Result<()> {
    let args = Arc::new(args);
    if let [topic] = args.kafka.topics() {
        return audit(&args, topic).await;
    }
    let mut faults = Vec::new();
    for topic in args.kafka.topics() {
        faults.extend(audit(&args, topic).await.err().map(|why| format!("topic {topic}: {why:#}")));
    }
    if faults.is_empty() { Ok(()) } else { bail!(faults.join("; ")) }
}

/// Audits one topic.
async fn audit(args: &Arc<AuditArgs>, topic: &str) -> Result<()> {
    let mut audit = Audit::begin(args.clone(), topic).await?;
    let (mut found, marks) = audit.inspect().await?;
    audit.print(&found)?;
    if audit.args.heal {
        found.iter().try_for_each(|findings| audit.print_expired(findings))?;
        if found.iter().any(|findings| findings.missing.offsets > 0) {
            audit.heal(&mut found, marks).await?;
            let healed = found;
            found = audit.inspect().await?.0;
            audit.print(&found)?;
            for (findings, before) in found.iter_mut().zip(healed) {
                findings.healed = before.healed;
            }
        }
    }
    let others = audit.auditor.other_sources(&found).await?;
    other_sources::lines(&others).try_for_each(|line| audit.say(&line))?;
    audit.conclude(&found, &others)?;
    audit.say(&conclusion(&found))
}

/// The sentence of a successful audit.
fn conclusion(found: &[Findings]) -> String {
    let mut proved = String::from("every committed message is stored exactly once");
    let erased: u64 = found.iter().map(|findings| findings.erased).sum();
    let expired: u64 = found.iter().map(|findings| findings.expired_by_ttl.offsets).sum();
    for (messages, how) in [(erased, "were erased"), (expired, "have expired by TTL")] {
        if messages > 0 {
            proved += &format!(", but for {} that {how}", grouped(messages));
        }
    }
    if found.iter().any(|findings| findings.expired.unclear > 0) {
        proved += ", as far as can be told: see above";
    }
    proved
}

impl Audit {
    /// Waits for both services, and reads the ranges to compare.
    async fn begin(args: Arc<AuditArgs>, topic: &str) -> Result<Self> {
        let mut config = kafka::client_config(&args.kafka.config_of(topic), ranges::DEFAULTS)?;
        config.set("group.id", &args.group);
        let client = Arc::new(admin::client(&config)?);
        let clickhouse = Arc::new(ClickHouse::new(&args.table.config(&args.clickhouse))?);
        let patience = args.kafka.connect_timeout;
        let found = connect::kafka(&client, topic, patience).await?;
        let Found::Partitions(partitions) = found else {
            bail!("topic {topic} is missing at {}: see --topic", args.kafka.brokers)
        };
        connect::leaders(&client, topic, &partitions, patience).await?;
        connect::group(&client, "DESCRIBE", topic, &partitions, patience).await?;
        connect::clickhouse(&clickhouse, patience).await?;
        let time = args.time.time.as_deref();
        connect::checked(&clickhouse, patience, async || clickhouse.learn_table(topic, time).await).await?;
        if args.heal {
            connect::checked(&clickhouse, patience, async || clickhouse.may_insert().await).await?;
            connect::checked(&clickhouse, patience, async || clickhouse.check_to_write().await).await?;
        }
        connect::checked(&clickhouse, patience, async || clickhouse.check().await).await?;
        let identity = block_in_place(|| admin::identity(&client, topic))?;
        let ranges = Ranges::new(&config, topic)?;
        let (expiry, unused) = connect::checked(&clickhouse, patience, async || clickhouse.expiry().await).await?;
        for ttl in unused {
            tracing::warn!(
                "cannot evaluate {ttl}: rows that it has deleted count as missing; --since leaves out older messages"
            );
        }
        let source = identity.source().to_owned();
        let auditor = Auditor { clickhouse, client, ranges, topic: topic.to_owned(), source, expiry };
        let audit = Self { args, partitions, identity, auditor };
        audit.say(&format!("topic {} ({}), group {}", audit.auditor.topic, audit.auditor.source, audit.args.group))?;
        Ok(audit)
    }

    /// The present findings, and the committed offsets when the audit began.
    async fn inspect(&mut self) -> Result<(Vec<Findings>, Marks)> {
        let found = self.compare().await;
        if self.auditor.is_another_topic() {
            return Err(self.auditor.another_topic());
        }
        found
    }

    async fn compare(&mut self) -> Result<(Vec<Findings>, Marks)> {
        let Self { args, partitions, identity, auditor, .. } = self;
        // First the committed offsets, then the ends: in the other order, a commit could be beyond an older end.
        let (marks, mut noted) = block_in_place(|| committed(&auditor.client, identity, partitions))?;
        let ends = block_in_place(|| admin::watermarks(&auditor.client, &auditor.topic, partitions))?;
        if marks.values().all(Option::is_none) && ends.values().any(|(low, high)| low < high) {
            bail!(
                "group {} has committed nothing on topic {}: see --group, or let `clickstream ingest` run",
                args.group,
                auditor.topic
            );
        }
        let since = match args.since {
            Some(since_ms) => {
                Some(block_in_place(|| admin::offsets_since(&auditor.client, &auditor.topic, partitions, since_ms))?)
            }
            None => None,
        };
        let mut found = Vec::with_capacity(ends.len());
        for (partition, (first, high)) in ends {
            // Without a message of that time or later there is nothing to compare.
            let low =
                since.as_ref().map_or(first, |since| since.get(&partition).map_or(high, |&at| at.clamp(first, high)));
            let from = noted.get(&partition).and_then(|notes| notes.from).filter(|from| *from > first);
            let low = from.map_or(low, |from| low.max(from.min(high)));
            let mark = marks.get(&partition).copied().flatten().unwrap_or(low);
            if mark > high {
                tracing::warn!("partition {partition}: the group has committed {mark}, beyond the topic's end {high}");
            }
            let mut findings = auditor.inspect(partition, low, mark.clamp(low, high), high).await?;
            findings.from = from;
            findings.is_cut = low > first || since.as_ref().is_some_and(|since| !since.contains_key(&partition));
            found.push(findings);
        }
        for findings in &mut found {
            let &mut Findings { partition, low, empty, .. } = findings;
            let Some(mark) = marks[&partition] else { continue };
            let notes = noted.remove(&partition).unwrap_or_default();
            let (read, has_gaps) = (notes.read_up_to(mark), notes.has_gaps || empty > 0);
            let is_meant =
                |lost: &LostMessages| args.since.is_none_or(|since_ms| lost.at.timestamp_millis() >= since_ms);
            let passed = notes.lost.filter(is_meant);
            // Offsets before the time of --since are not compared.
            if findings.is_cut {
                findings.expired = Expired { passed, ..Expired::default() };
                continue;
            }
            let (expired, doubled) = auditor.expired(&Wanted { partition, mark, read, low, passed, has_gaps }).await?;
            findings.expired = expired;
            findings.duplicates.extend(&doubled);
        }
        Ok((found, marks))
    }

    /// Restores missing rows, partition by partition.
    async fn heal(&mut self, found: &mut [Findings], marks: Marks) -> Result<()> {
        let mut healer = Healer::open(&self.auditor, &self.args.group, &marks).await?;
        let mut interruptions = 0;
        for findings in found.iter_mut().filter(|findings| findings.missing.offsets > 0) {
            let before = healer.healed();
            for window in OffsetRange::new(findings.low, findings.mark).windows(WINDOW) {
                loop {
                    // The question is repeated, since another healer may have restored rows.
                    let missing = self.auditor.missing(findings.partition, window).await?;
                    match healer.heal(&mut self.auditor.ranges, findings.partition, &missing).await {
                        Ok(()) => break,
                        Err(_) if self.auditor.is_another_topic() => return Err(self.auditor.another_topic()),
                        // A rebalance, mostly.
                        Err(error) if error.is::<Interrupted>() && interruptions < INTERRUPTIONS => interruptions += 1,
                        Err(error) => return Err(error),
                    }
                    tracing::info!(
                        "another lease was opened, or Kafka did not answer: asking again which messages are missing"
                    );
                    healer.open_again(&self.auditor, &self.args.group, &marks).await?;
                }
            }
            let healed = healer.healed();
            findings.healed.events = healed.events - before.events;
            findings.healed.rejects = healed.rejects - before.rejects;
            self.say(&format!(
                "partition {}: healed: {} events and {} rejects restored",
                findings.partition,
                grouped(findings.healed.events),
                grouped(findings.healed.rejects),
            ))?;
        }
        Ok(())
    }

    fn print(&self, found: &[Findings]) -> Result<()> {
        found.iter().try_for_each(|findings| self.say(&findings.to_string()))
    }

    /// Prints a line for each range that cannot be healed.
    fn print_expired(&self, findings: &Findings) -> Result<()> {
        let Findings { partition, expired, .. } = findings;
        for tally in [&expired.missing, &expired.unread] {
            for range in &tally.first {
                self.say(&format!(
                    "partition {partition}: cannot be healed: {range}: not stored, and retention has deleted these messages from the topic"
                ))?;
            }
            let more = tally.ranges - tally.first.len() as u64;
            if more > 0 {
                self.say(&format!("partition {partition}: cannot be healed: {} more ranges", grouped(more)))?;
            }
        }
        Ok(())
    }

    /// Prints the findings as JSON, if requested; an error if there are faults.
    fn conclude(&self, found: &[Findings], others: &OtherSources) -> Result<()> {
        if self.args.format == Format::Json {
            let Auditor { topic, source, .. } = &self.auditor;
            let whole = found.iter().all(Findings::is_whole) && others.is_empty();
            let group = &self.args.group;
            let document = json!({
                "topic": topic, "source": source, "group": group, "whole": whole, "other_sources": others, "partitions": found,
            });
            output::line(format_args!("{document:#}"))?;
        }
        let sum = |of: fn(&Findings) -> u64| found.iter().map(of).sum::<u64>();
        let missing = sum(|findings| findings.missing.offsets);
        let duplicates = sum(|findings| findings.duplicates.offsets);
        let beyond = sum(|findings| findings.beyond.offsets);
        let returned = sum(|findings| findings.returned.offsets);
        let lost = sum(|findings| findings.expired.lost());
        let twice: u64 = others.values().sum();
        if missing + duplicates + beyond + returned + lost + twice == 0 {
            return Ok(());
        }
        let mut found = format!(
            "{} committed messages are missing, {} are stored more than once",
            grouped(missing),
            grouped(duplicates)
        );
        if beyond > 0 {
            found += &format!(", {} rows are beyond the topic's end", grouped(beyond));
        }
        if returned > 0 {
            found += &format!(", {} that were erased are stored again", grouped(returned));
        }
        if lost > 0 {
            found += &format!(", {} are lost: the topic deleted them, and they are not stored", grouped(lost));
        }
        if twice > 0 {
            found += &format!(", {} of a sample are stored under another _source, too", grouped(twice));
        }
        let mut help = Vec::new();
        if missing > 0 {
            help.push("--heal restores messages that the topic still has");
        }
        if duplicates > 0 {
            help.push("FINAL hides duplicates, OPTIMIZE TABLE … FINAL removes them");
        }
        if beyond > 0 {
            help.push("another program wrote the rows beyond the end, or the topic has lost messages");
        }
        if returned > 0 {
            help.push(
                "unless an erasure is running, `clickstream erase --recorded` deletes erased rows that are stored",
            );
        }
        if lost > 0 {
            help.push("deleted messages cannot be restored; docs/operations.md says how to set the topic's retention");
        }
        if twice > 0 {
            help.push(
                "these events were read under two topic ids, so each is there twice: the view events_once counts them once, and \
                 docs/audit.md says how to delete one of the two",
            );
        }
        bail!("{found}: {}", help.join("; "))
    }

    /// Prints a line for people.
    fn say(&self, line: &str) -> Result<()> {
        if self.args.format == Format::Text { output::line(line) } else { Ok(()) }
    }
}

/// The group's committed offsets, and its members' notes about this topic beside them.
fn committed(client: &Client, identity: &TopicIdentity, partitions: &[i32]) -> Result<(Marks, BTreeMap<i32, Notes>)> {
    let topic = &identity.name;
    let mut list = TopicPartitionList::new();
    for &partition in partitions {
        list.add_partition(topic, partition);
    }
    let committed = native::committed(client.client().native_client(), list, REQUEST_TIMEOUT).map_err(|error| {
        anyhow!("cannot read the group's committed offsets: {}", admin::explain(client, "DESCRIBE", topic, &error))
    })?;
    let (mut marks, mut noted) = (Marks::new(), BTreeMap::new());
    for place in committed.elements() {
        let mark = match place.offset() {
            Offset::Offset(mark) => Some(mark),
            _ => None,
        };
        let notes = match identity.origin(place.metadata()) {
            // No member has taken it over yet.
            Origin::OtherCluster(_) => Notes { from: mark, ..Notes::default() },
            origin => origin.notes(),
        };
        marks.insert(place.partition(), mark);
        noted.insert(place.partition(), notes);
    }
    Ok((marks, noted))
}
