//! `clickstream audit`: the proof, offset by offset, that the tables hold what the topic held.

use super::values::{instant, not_empty};
use super::{ClickHouseArgs, Format, KafkaArgs};
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

const ANSWER: Duration = Duration::from_secs(10);
/// How many leases others may open while something is put back: a group that rebalances all the time lets nothing be healed.
const INTERRUPTIONS: u32 = 100;

/// An audit under way.
struct Audit {
    args: AuditArgs,
    partitions: Vec<i32>,
    identity: TopicIdentity,
    auditor: Auditor,
}

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

/// Prints gaps and duplicates, partition by partition; with `--heal`, puts back what is missing and looks again.
///
/// # Errors
/// When something is left that should not be, or when it cannot be told.
pub async fn run(args: AuditArgs) -> Result<()> {
    let mut audit = Audit::begin(args).await?;
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

/// What has been proved.
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
    /// Waits for both services, and finds out what is to be compared.
    async fn begin(args: AuditArgs) -> Result<Self> {
        let mut config = kafka::client_config(&args.kafka.config(), ranges::DEFAULTS)?;
        config.set("group.id", &args.group);
        let client = Arc::new(admin::client(&config)?);
        let clickhouse = Arc::new(ClickHouse::new(&args.clickhouse.config())?);
        let topic = args.kafka.topic.as_str();
        let patience = args.kafka.connect_timeout;
        let found = connect::kafka(&client, topic, patience).await?;
        let Found::Partitions(partitions) = found else {
            bail!("topic {topic} is missing at {}: see --topic", args.kafka.brokers)
        };
        connect::leaders(&client, topic, &partitions, patience).await?;
        connect::group(&client, "DESCRIBE", topic, &partitions, patience).await?;
        connect::clickhouse(&clickhouse, patience).await?;
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
                "{ttl}: cannot tell what it deletes, so that counts as missing: --since leaves out what is older"
            );
        }
        let source = identity.source().to_owned();
        let auditor = Auditor { clickhouse, client, ranges, topic: topic.to_owned(), source, expiry };
        let audit = Self { args, partitions, identity, auditor };
        audit.say(&format!("topic {} ({}), group {}", audit.auditor.topic, audit.auditor.source, audit.args.group))?;
        Ok(audit)
    }

    /// What is found now, and what was committed when it began.
    async fn inspect(&mut self) -> Result<(Vec<Findings>, Marks)> {
        let Self { args, partitions, identity, auditor, .. } = self;
        // First what is committed, then the ends: the other way round, a mark could lie beyond an end that has moved on.
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
            // What lies before the time of --since is not looked at.
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

    /// Puts back what is missing, partition by partition.
    async fn heal(&mut self, found: &mut [Findings], marks: Marks) -> Result<()> {
        let mut healer = Healer::open(&self.auditor, &self.args.group, &marks).await?;
        let mut interruptions = 0;
        for findings in found.iter_mut().filter(|findings| findings.missing.offsets > 0) {
            let before = healer.healed();
            for window in OffsetRange::new(findings.low, findings.mark).windows(WINDOW) {
                loop {
                    // Asked anew: others may have put it back.
                    let missing = self.auditor.missing(findings.partition, window).await?;
                    match healer.heal(&mut self.auditor.ranges, findings.partition, &missing).await {
                        // A rebalance, mostly.
                        Err(error) if error.is::<Interrupted>() && interruptions < INTERRUPTIONS => interruptions += 1,
                        healed => break healed?,
                    }
                    tracing::info!("an ingester has opened a lease: asking again what is missing");
                    healer.open_again(&self.auditor, &self.args.group, &marks).await?;
                }
            }
            let healed = healer.healed();
            findings.healed.events = healed.events - before.events;
            findings.healed.rejects = healed.rejects - before.rejects;
            self.say(&format!(
                "partition {}: healed: {} events and {} rejects put back",
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

    /// What no healing brings back, a line for each range.
    fn print_expired(&self, findings: &Findings) -> Result<()> {
        let Findings { partition, expired, .. } = findings;
        for tally in [&expired.missing, &expired.unread] {
            for range in &tally.first {
                self.say(&format!(
                    "partition {partition}: cannot be healed: {range}: not stored, and retention has deleted it from the topic"
                ))?;
            }
            let more = tally.ranges - tally.first.len() as u64;
            if more > 0 {
                self.say(&format!("partition {partition}: cannot be healed: {} more ranges", grouped(more)))?;
            }
        }
        Ok(())
    }

    /// The findings as JSON, if that is wanted, and an error where they are not good.
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
            "{} committed messages are missing, {} stand there more than once",
            grouped(missing),
            grouped(duplicates)
        );
        if beyond > 0 {
            found += &format!(", {} rows lie beyond the topic's end", grouped(beyond));
        }
        if returned > 0 {
            found += &format!(", {} that were erased are stored again", grouped(returned));
        }
        if lost > 0 {
            found += &format!(", {} are lost: the topic deleted them, and they are not stored", grouped(lost));
        }
        if twice > 0 {
            found += &format!(", {} of a sample stand under another _source, too", grouped(twice));
        }
        let mut help = Vec::new();
        if missing > 0 {
            help.push("--heal puts back what the topic still has");
        }
        if duplicates > 0 {
            help.push("FINAL hides duplicates, OPTIMIZE TABLE … FINAL ends them");
        }
        if beyond > 0 {
            help.push("what lies beyond the end was not written by ingest, or the topic has lost messages");
        }
        if returned > 0 {
            help.push(
                "unless an erasure is at work, `clickstream erase --recorded` deletes what was erased and is stored",
            );
        }
        if lost > 0 {
            help.push("nothing brings back what was deleted; docs/operations.md says how retention is to be set");
        }
        if twice > 0 {
            help.push(
                "these events were read under two topic ids, so each is there twice: the view events_once counts them once, and \
                 docs/audit.md says how to delete one of the two",
            );
        }
        bail!("{found}: {}", help.join("; "))
    }

    /// A line for people.
    fn say(&self, line: &str) -> Result<()> {
        if self.args.format == Format::Text { output::line(line) } else { Ok(()) }
    }
}

/// The group's committed offsets, and what its members have noted of this topic beside them.
fn committed(client: &Client, identity: &TopicIdentity, partitions: &[i32]) -> Result<(Marks, BTreeMap<i32, Notes>)> {
    let topic = &identity.name;
    let mut list = TopicPartitionList::new();
    for &partition in partitions {
        list.add_partition(topic, partition);
    }
    let committed = native::committed(client.client().native_client(), list, ANSWER).map_err(|error| {
        anyhow!("cannot ask what the group has committed: {}", admin::explain(client, "DESCRIBE", topic, &error))
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
