//! Rejected messages: which ones there are, and sending them to their topic again after a fix.

mod replay;

use crate::clickhouse::{Choice, ClickHouse, ClickHouseConfig, Count, Foreign, Place, Row};
use crate::connect;
use crate::kafka::admin::{self, Client, Found};
use crate::kafka::{self, KafkaConfig, ranges};
use crate::numbers::grouped;
use anyhow::{Context, Result, anyhow, bail};
use flows::{Failure, Reason};
use rdkafka::ClientConfig;
use replay::{Rejected, Replayer};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::block_in_place;

/// Positions asked for at a time.
const PAGE: u32 = 10_000;
/// Rows, and bytes of rows, that are held at a time, and replayed in one transaction.
const ROWS: usize = 500;
const BYTES: u64 = 16 * 1024 * 1024;

/// The rejects that are meant, and where they are.
pub struct RejectsConfig {
    pub kafka: KafkaConfig,
    pub clickhouse: ClickHouseConfig,
    /// How long to wait for a service that does not answer at the start.
    pub connect_timeout: Duration,
    /// Only these reasons; all of them, if there are none here.
    pub reasons: Vec<Reason>,
    /// Only these positions, (partition, offset); all of them, if there are none here.
    pub places: Vec<(i32, i64)>,
    /// Only rejects that were ingested since then: milliseconds since the Unix epoch.
    pub since_ms: Option<i64>,
    /// Only rejects that were ingested before then.
    pub until_ms: Option<i64>,
}

/// The rejects of one topic that are meant.
pub struct Rejects {
    clickhouse: ClickHouse,
    client: Arc<Client>,
    config: ClientConfig,
    topic: String,
    choice: Choice,
}

/// How many rejects were replayed, or would be.
#[derive(Clone, Copy, Debug, Default)]
pub struct Replayed {
    pub sent: u64,
    /// Rejects that an earlier run had replayed.
    pub before: u64,
}

impl Rejects {
    /// Waits for both services, and asks Kafka for the topic's id.
    ///
    /// # Errors
    /// When a service does not answer or refuses, or the topic is missing.
    pub async fn open(rejects: RejectsConfig) -> Result<Self> {
        let RejectsConfig { kafka, clickhouse, connect_timeout, reasons, places, since_ms, until_ms } = rejects;
        let mut config = kafka::client_config(&kafka, &[])?;
        let client = Arc::new(admin::client(&config)?);
        for (key, value) in ranges::DEFAULTS {
            config.set(*key, *value);
        }
        let clickhouse = ClickHouse::new(&clickhouse)?;
        let topic = kafka.topic;
        if connect::kafka(&client, &topic, connect_timeout).await? == Found::Missing {
            bail!("topic {topic} is missing at {}: see --topic", kafka.brokers);
        }
        connect::clickhouse(&clickhouse, connect_timeout).await?;
        connect::checked(&clickhouse, connect_timeout, async || clickhouse.check().await).await?;
        let source = block_in_place(|| admin::source(&client, &topic))?;
        let choice = Choice { source, reasons, places, since_ms, until_ms };
        Ok(Self { clickhouse, client, config, topic, choice })
    }

    /// The name of the topic.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// `_source` of the topic's rows.
    pub fn source(&self) -> &str {
        &self.choice.source
    }

    /// How many rejects there are, by reason.
    ///
    /// # Errors
    /// When ClickHouse does not answer or refuses.
    pub async fn counts(&self) -> Result<Vec<Count>> {
        self.clickhouse.rejects_by_reason(&self.choice).await.map_err(asked)
    }

    /// The rejects that other topics have in the same table.
    ///
    /// # Errors
    /// When ClickHouse does not answer or refuses.
    pub async fn foreign(&self) -> Result<Foreign> {
        self.clickhouse.foreign_rejects(self.source()).await.map_err(asked)
    }

    /// The positions of the newest rejects, `limit` of each reason.
    ///
    /// # Errors
    /// When ClickHouse does not answer or refuses.
    pub async fn newest(&self, limit: u32) -> Result<Vec<Place>> {
        self.clickhouse.newest_rejects(&self.choice, limit).await.map_err(asked)
    }

    /// The rejects at these positions, with this many bytes of each key and payload. [`groups`] makes groups of positions that fit
    /// into memory.
    ///
    /// # Errors
    /// When ClickHouse does not answer or refuses.
    pub async fn rows(&self, places: &[Place], bytes: u64) -> Result<Vec<Row>> {
        self.clickhouse.rejects_at(self.source(), places, bytes).await.map_err(asked)
    }

    /// Sends the rejects to their topic again, each once, or only counts them.
    ///
    /// # Errors
    /// When a service does not answer, or Kafka does not acknowledge a message.
    pub async fn replay(&self, only_count: bool) -> Result<Replayed> {
        // The marks are read when no other replayer can add to them any more.
        let replayer = match only_count {
            false => Some(Replayer::open(&self.config, &self.client, &self.topic, self.source()).await?),
            true => None,
        };
        let before = block_in_place(|| {
            let mut config = self.config.clone();
            config.set("group.id", "clickstream-replay"); // a consumer needs a name of a group, and joins none
            replay::replayed(&config, &self.client, &self.topic, self.source())
        })?;
        let (mut done, mut after) = (Replayed::default(), (-1, -1));
        loop {
            let page = self.clickhouse.next_rejects(&self.choice, after, PAGE).await.map_err(asked)?;
            let Some(last) = page.last() else { break };
            after = (last.partition, last.offset);
            let fresh: Vec<_> = page.iter().copied().filter(|place| !is_in(&before, place)).collect();
            done.before += (page.len() - fresh.len()) as u64;
            for group in groups(&fresh, |place| place.bytes) {
                if let Some(replayer) = &replayer {
                    let rows = self.rows(group, u64::from(u32::MAX)).await?;
                    let rejected: Vec<_> = rows.into_iter().map(rejected).collect();
                    replayer.send(&rejected).await.with_context(|| {
                        format!(
                            "{} were sent, acknowledged and marked before; run this again for the rest",
                            grouped(done.sent)
                        )
                    })?;
                }
                done.sent += group.len() as u64;
            }
        }
        Ok(done)
    }
}

/// The message of a row. The table has an empty text where the message had none.
fn rejected(row: Row) -> Rejected {
    let payload = (row.reason != Reason::NullPayload.as_str()).then_some(row.payload);
    let key = (!row.key.is_empty()).then_some(row.key);
    let Row { partition, offset, headers, timestamp_ms, .. } = row;
    Rejected { partition, offset, key, payload, headers, timestamp_ms }
}

fn is_in(positions: &HashSet<(i32, i64)>, place: &Place) -> bool {
    positions.contains(&(place.partition, place.offset))
}

/// Parts of a list whose rows fit into memory together.
pub fn groups(places: &[Place], bytes: impl Fn(&Place) -> u64) -> impl Iterator<Item = &[Place]> {
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

fn asked(failure: Failure) -> anyhow::Error {
    anyhow!("ClickHouse: {failure}")
}

#[cfg(test)]
mod tests {
    use super::*;

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
