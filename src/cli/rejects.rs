//! `clickstream rejects`: lists rejected messages with their reasons, and re-publishes them after a fix.

use super::values::instant;
use super::{ClickHouseArgs, Format, KafkaArgs};
use crate::clickhouse::{Choice, ClickHouse, Count, Place, Row};
use crate::kafka::admin::{self, Client, Found};
use crate::kafka::ranges;
use crate::numbers::grouped;
use crate::printable::printable;
use crate::rejects::replay::{self, Rejected, Replayer};
use crate::{connect, kafka, output};
use anyhow::{Context, Result, anyhow, bail};
use chrono::{DateTime, SecondsFormat};
use clap::Args;
use flows::{Failure, Reason};
use rdkafka::ClientConfig;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;
use std::sync::Arc;
use tokio::task::block_in_place;

/// Of a key or payload, shown to people.
const EXCERPT_BYTES: u64 = 200;
/// Positions asked for at a time.
const PAGE: u32 = 10_000;
/// Rows, and bytes of rows, that are held at a time, and replayed in one transaction.
const ROWS: usize = 500;
const BYTES: u64 = 16 * 1024 * 1024;

#[derive(Args, Debug)]
pub struct RejectsArgs {
    #[command(flatten)]
    pub kafka: KafkaArgs,
    #[command(flatten)]
    pub clickhouse: ClickHouseArgs,

    /// Only rejects with this reason; may be repeated
    #[arg(long, value_parser = reason, value_name = "REASON")]
    pub reason: Vec<Reason>,

    /// Only the reject at this position; may be repeated
    #[arg(long, value_parser = position, value_name = "PARTITION:OFFSET")]
    pub at: Vec<(i32, i64)>,

    /// Only rejects ingested since then: a time (2026-01-31T14:00:00Z) or an age (2h)
    #[arg(long, value_parser = instant, value_name = "TIME")]
    pub since: Option<i64>,

    /// Only rejects ingested before then
    #[arg(long, value_parser = instant, value_name = "TIME")]
    pub until: Option<i64>,

    /// The number of rejects to show of each reason, the newest first
    #[arg(long, default_value_t = 3, value_name = "N")]
    pub limit: u32,

    /// The output format; `json` has whole payloads, one reject a line
    #[arg(long, value_enum, default_value = "text")]
    pub format: Format,

    /// Re-publish the rejects to the topic, each once; without --yes it only counts them
    #[arg(long)]
    pub replay: bool,

    /// Send the messages
    #[arg(long, requires = "replay")]
    pub yes: bool,
}

/// Lists the rejects, or replays them.
///
/// # Errors
/// When a service does not answer, or not all could be sent.
pub async fn run(args: RejectsArgs) -> Result<()> {
    let mut rejects = Rejects::begin(&args).await?;
    match (args.replay, args.format) {
        (true, _) => rejects.replay(args.yes).await,
        (false, Format::Text) => rejects.show(args.limit).await,
        (false, Format::Json) => rejects.dump(args.limit).await,
    }
}

/// The rejects that are meant, and whom to ask about them.
struct Rejects {
    clickhouse: ClickHouse,
    client: Arc<Client>,
    config: ClientConfig,
    topic: String,
    choice: Choice,
}

impl Rejects {
    async fn begin(args: &RejectsArgs) -> Result<Self> {
        let mut config = kafka::client_config(&args.kafka.config(), &[])?;
        let client = Arc::new(admin::client(&config)?);
        for (key, value) in ranges::DEFAULTS {
            config.set(*key, *value);
        }
        let clickhouse = ClickHouse::new(&args.clickhouse.config())?;
        let topic = args.kafka.topic.clone();
        let found = connect::kafka(&client, &topic, args.kafka.connect_timeout).await?;
        if found == Found::Missing {
            bail!("topic {topic} is missing at {}: see --topic", args.kafka.brokers);
        }
        connect::clickhouse(&clickhouse, args.kafka.connect_timeout).await?;
        connect::checked(&clickhouse, args.kafka.connect_timeout, async || clickhouse.check().await).await?;
        let source = block_in_place(|| admin::source(&client, &topic))?;
        let choice = Choice {
            source,
            reasons: args.reason.clone(),
            places: args.at.clone(),
            since_ms: args.since,
            until_ms: args.until,
        };
        Ok(Self { clickhouse, client, config, topic, choice })
    }

    /// For people: each reason with its number and times, and some of its messages.
    async fn show(&self, limit: u32) -> Result<()> {
        let counts = self.clickhouse.rejects_by_reason(&self.choice).await.map_err(asked)?;
        let newest = self.clickhouse.newest_rejects(&self.choice, limit).await.map_err(asked)?;
        let mut samples: BTreeMap<String, Vec<Row>> = BTreeMap::new();
        for group in groups(&newest, |_| EXCERPT_BYTES) {
            for row in self.rows(group, EXCERPT_BYTES).await? {
                samples.entry(row.reason.clone()).or_default().push(row);
            }
        }
        let foreign = self.clickhouse.foreign_rejects(&self.choice.source).await.map_err(asked)?;
        output::line(format_args!(
            "topic {} ({}): {} rejects",
            self.topic,
            self.choice.source,
            grouped(total(&counts))
        ))?;
        for count in &counts {
            let (first, last) = (time(count.first_ms), time(count.last_ms));
            output::line(format_args!("{:<14} {:>11}  {first} to {last}", count.reason, grouped(count.rejects)))?;
            for row in samples.get(&count.reason).into_iter().flatten() {
                let detail = excerpt(row.detail.as_bytes());
                output::line(format_args!("  {}/{}/{}: {detail}", self.topic, row.partition, row.offset))?;
                output::line(format_args!("    key \"{}\", payload {}", excerpt(&row.key), excerpt(&row.payload)))?;
            }
        }
        if foreign > 0 {
            output::line(format_args!(
                "{} more rejects are of other topics, or of one that was deleted",
                grouped(foreign)
            ))?;
        }
        Ok(())
    }

    /// For programs: one reject a line, whole.
    async fn dump(&self, limit: u32) -> Result<()> {
        let newest = self.clickhouse.newest_rejects(&self.choice, limit).await.map_err(asked)?;
        for group in groups(&newest, |place| place.bytes) {
            for row in self.rows(group, u64::from(u32::MAX)).await? {
                output::line(self.as_json(row))?;
            }
        }
        Ok(())
    }

    fn as_json(&self, row: Row) -> Value {
        let mut out = json!({
            "topic": self.topic, "source": self.choice.source, "partition": row.partition, "offset": row.offset,
            "reason": row.reason, "detail": row.detail, "ingested_at": time(row.ingested_ms),
        });
        for (name, bytes) in [("key", row.key), ("payload", row.payload)] {
            match String::from_utf8(bytes) {
                Ok(text) => out[name] = text.into(),
                Err(binary) => out[format!("{name}_base64")] = base64(binary.as_bytes()).into(),
            }
        }
        out
    }

    /// Says what would be sent, or sends it.
    async fn replay(&mut self, yes: bool) -> Result<()> {
        let counts = self.clickhouse.rejects_by_reason(&self.choice).await.map_err(asked)?;
        for count in &counts {
            output::line(format_args!("{:<14} {:>11}", count.reason, grouped(count.rejects)))?;
        }
        // The marks are read when nobody else can add to them any more.
        let replayer = match yes {
            true => Some(Replayer::open(&self.config, &self.client, &self.topic, &self.choice.source).await?),
            false => None,
        };
        let before = block_in_place(|| {
            let mut config = self.config.clone();
            config.set("group.id", "clickstream-replay"); // a consumer needs a name of a group, and joins none
            replay::replayed(&config, &self.client, &self.topic, &self.choice.source)
        })?;
        let (mut sent, mut skipped, mut after) = (0, 0, (-1, -1));
        loop {
            let page = self.clickhouse.next_rejects(&self.choice, after, PAGE).await.map_err(asked)?;
            let Some(last) = page.last() else { break };
            after = (last.partition, last.offset);
            let fresh: Vec<_> = page.iter().copied().filter(|place| !is_in(&before, place)).collect();
            skipped += (page.len() - fresh.len()) as u64;
            for group in groups(&fresh, |place| place.bytes) {
                if let Some(replayer) = &replayer {
                    let rows = self.rows(group, u64::from(u32::MAX)).await?;
                    let rejected: Vec<_> = rows.into_iter().map(rejected).collect();
                    replayer.send(&rejected).await.with_context(|| {
                        format!(
                            "{} were sent, acknowledged and marked before; run this again for the rest",
                            grouped(sent)
                        )
                    })?;
                }
                sent += group.len() as u64;
            }
        }
        let skipped = if skipped > 0 { format!("; {} were replayed before", grouped(skipped)) } else { String::new() };
        let (sent, topic) = (grouped(sent), &self.topic);
        output::line(match yes {
            true => format!("{sent} sent to topic {topic} again, acknowledged{skipped}"),
            false => format!("{sent} would be sent to topic {topic} again{skipped}: add --yes"),
        })
    }

    async fn rows(&self, places: &[Place], bytes: u64) -> Result<Vec<Row>> {
        self.clickhouse.rejects_at(&self.choice.source, places, bytes).await.map_err(asked)
    }
}

/// What the message was: `rejected` has an empty text where there was none.
fn rejected(row: Row) -> Rejected {
    let payload = (row.reason != Reason::NullPayload.as_str()).then_some(row.payload);
    let key = (!row.key.is_empty()).then_some(row.key);
    Rejected { partition: row.partition, offset: row.offset, key, payload }
}

fn is_in(positions: &HashSet<(i32, i64)>, place: &Place) -> bool {
    positions.contains(&(place.partition, place.offset))
}

/// Parts of a list that are small enough to be held.
fn groups(places: &[Place], bytes: impl Fn(&Place) -> u64) -> impl Iterator<Item = &[Place]> {
    let mut rest = places;
    std::iter::from_fn(move || {
        let mut held = 0;
        let fits = rest.iter().take(ROWS).take_while(|place| {
            held += bytes(place);
            held <= BYTES
        });
        // One that is larger than that goes alone.
        let (group, behind) = rest.split_at(fits.count().max(1).min(rest.len()));
        rest = behind;
        (!group.is_empty()).then_some(group)
    })
}

fn total(counts: &[Count]) -> u64 {
    counts.iter().map(|count| count.rejects).sum()
}

fn asked(failure: Failure) -> anyhow::Error {
    anyhow!("ClickHouse: {failure}")
}

fn time(ms: i64) -> String {
    DateTime::from_timestamp_millis(ms).unwrap_or_default().to_rfc3339_opts(SecondsFormat::Millis, true)
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::prelude::BASE64_STANDARD.encode(bytes)
}

/// The beginning of a text that may hold anything, on one line and harmless to a terminal.
fn excerpt(bytes: &[u8]) -> String {
    let head = &bytes[..bytes.len().min(EXCERPT_BYTES as usize)];
    let mut out = String::with_capacity(head.len());
    for chunk in head.utf8_chunks() {
        out.push_str(&printable(chunk.valid()));
        for byte in chunk.invalid() {
            // Writing to a String cannot fail.
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out
}

fn reason(name: &str) -> Result<Reason, String> {
    let known = || Reason::ALL.map(Reason::as_str).join(", ");
    Reason::ALL.into_iter().find(|reason| reason.as_str() == name).ok_or_else(|| format!("expected one of {}", known()))
}

fn position(text: &str) -> Result<(i32, i64), &'static str> {
    const EXPECTED: &str = "expected PARTITION:OFFSET, like 0:1234";
    let (partition, offset) = text.split_once(':').ok_or(EXPECTED)?;
    match (partition.parse(), offset.parse()) {
        (Ok(partition @ 0..), Ok(offset @ 0..)) => Ok((partition, offset)),
        _ => Err(EXPECTED),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_and_reasons_are_read_and_nonsense_is_not() {
        assert_eq!(position("0:1234"), Ok((0, 1_234)));
        for bad in ["", "0", ":", "0:", "-1:4", "0:-4", "0:1:2", "x:1"] {
            assert!(position(bad).is_err(), "{bad}");
        }
        assert_eq!(reason("bad_price"), Ok(Reason::BadPrice));
        assert!(reason("ugly").unwrap_err().contains("null_payload, not_json"));
    }

    #[test]
    fn no_payload_can_write_to_a_terminal() {
        assert_eq!(excerpt(b"{\"a\":1}"), r#"{"a":1}"#);
        assert_eq!(excerpt(b"\x1b[2J\r\n\0\x07"), r"\u001b[2J\r\n\u0000\u0007");
        assert_eq!(excerpt("a\u{202e}b\u{9b}é".as_bytes()), r"a\u202eb\u009bé");
        assert_eq!(excerpt(b"a\xff\xfeb"), r"a\xff\xfeb");
        assert_eq!(excerpt(&[b'x'; 1_000]).len(), EXCERPT_BYTES as usize);
    }

    #[test]
    fn groups_are_small_and_leave_nothing_out() {
        let place = |offset, bytes| Place { partition: 0, offset, bytes };
        let places: Vec<_> = (0..1_200).map(|nth| place(nth, if nth % 100 == 7 { BYTES * 2 } else { 1_000 })).collect();
        let groups: Vec<_> = groups(&places, |place| place.bytes).collect();
        assert_eq!(groups.concat().iter().map(|place| place.offset).collect::<Vec<_>>(), Vec::from_iter(0..1_200));
        for group in groups {
            let bytes: u64 = group.iter().map(|place| place.bytes).sum();
            assert!(group.len() == 1 || (group.len() <= ROWS && bytes <= BYTES), "{} of {bytes} bytes", group.len());
        }
    }
}
