//! Putting back what ClickHouse lost after it was committed: read again from the topic, decoded and settled as `ingest` does.

use super::Auditor;
use super::findings::Healed;
use crate::clickhouse::{ClickHouseSink, Role, Writer, patiently};
use crate::kafka::admin::{self, Client};
use crate::kafka::ranges::Ranges;
use anyhow::{Context, Result, anyhow, bail};
use flows::{
    Batch, Claim, Failure, LeaseLost, Metrics, OffsetRange, OpenError, Ownership, Payload, Proof, Record, SettleError,
    Sink as _, now, open_lease, renew_lease, settle,
};
use std::collections::BTreeMap;
use std::mem;
use std::ops::ControlFlow;
use std::sync::Arc;
use tokio::task::block_in_place;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Rows of an insert, and the bytes that their messages may hold together: bounds the memory.
const ROWS: usize = 50_000;
const BYTES: usize = 16 * 1024 * 1024;

/// The committed offset of each partition when the audit began: healed offsets are below.
pub type Marks = BTreeMap<i32, Option<i64>>;

/// Restores missing rows, under a lease of its own.
///
/// Each of its inserts asserts that no other healer, and no ingester, has opened a lease since. So when offsets are set
/// back and an ingester reads the healed offsets again, one of the two is refused.
pub struct Healer {
    lease: HealLease,
    metrics: Metrics,
}

/// The right to write rows below the committed offsets.
struct HealLease {
    sink: ClickHouseSink,
    client: Arc<Client>,
    topic: String,
    source: String,
}

/// Records of one partition that chain: the ones to restore, and the stored ranges between them.
struct HealBatch {
    partition: i32,
    first: i64,
    next: i64,
    bytes: usize,
    records: Vec<Record>,
}

impl Healer {
    /// Opens a lease for healing what lies below `marks`.
    ///
    /// # Errors
    /// When one of the services does not answer; when the topic is gone, or another one; when the group's offset of a partition was set back below its mark.
    pub async fn open(auditor: &Auditor, group: &str, marks: &Marks) -> Result<Self> {
        Ok(Self { lease: HealLease::open(auditor, group, marks).await?, metrics: Metrics::default() })
    }

    /// Opens a new lease after an interruption.
    ///
    /// # Errors
    /// As for [`open`](Self::open), and when it was another healer that has interrupted this one.
    pub async fn open_again(&mut self, auditor: &Auditor, group: &str, marks: &Marks) -> Result<()> {
        let partitions: Vec<_> = marks.keys().copied().collect();
        let asked = async || auditor.clickhouse.leases(&auditor.source, Role::Heal, &partitions).await;
        let newest = patiently(asked).await?.newest;
        let newest: Vec<_> = newest.into_iter().map(|(at, lease)| (at, lease.token)).collect();
        if !self.lease.sink.tokens().are_held(&newest) {
            bail!("another `audit --heal` of topic {} has begun: let it end, and run this again", auditor.topic);
        }
        self.lease = HealLease::open(auditor, group, marks).await?;
        Ok(())
    }

    /// Restores the records of these ranges, which ascend.
    ///
    /// # Errors
    /// When Kafka no longer has them, or ClickHouse refuses permanently; [`Interrupted`] when another process has
    /// opened a lease. Rows that were restored until then stay.
    pub async fn heal(&self, ranges: &mut Ranges, partition: i32, missing: &[OffsetRange]) -> Result<()> {
        let decoder = self.lease.sink.decoder();
        let mut batch = HealBatch::begin(partition, missing.first().map_or(0, |range| range.first));
        for range in missing {
            let mut rest = *range;
            while !rest.is_empty() {
                batch.pass_stored(rest.first);
                rest.first = block_in_place(|| {
                    ranges.read(partition, rest, |record| {
                        batch.push(record.offset, record.decode(&*decoder));
                        if batch.is_high() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
                    })
                })?;
                if batch.is_high() {
                    self.settle(&mut batch).await?;
                }
            }
        }
        self.settle(&mut batch).await
    }

    async fn settle(&self, batch: &mut HealBatch) -> Result<()> {
        let next = HealBatch::begin(batch.partition, batch.next);
        let HealBatch { partition, first, records, .. } = mem::replace(batch, next);
        if records.is_empty() {
            return Ok(());
        }
        let batch = Batch::gather(vec![records], &mut BTreeMap::from([(partition, first)]))?;
        // Its offsets were committed long ago: there is no ledger here to take it.
        match settle(batch, &self.lease.sink, &self.lease, &self.metrics).await {
            Ok(_) => Ok(()),
            Err(SettleError::Lost(_)) => Err(Interrupted.into()),
            Err(error) => Err(anyhow!(error)).context("stopped; the remaining rows are not restored"),
        }
    }

    /// The ranges that are restored so far.
    pub fn healed(&self) -> Healed {
        Healed { events: Metrics::read(&self.metrics.events), rejects: self.metrics.rejects.total() }
    }
}

/// An ingester, or another healer, has opened a lease: the question which rows are missing has to be repeated.
#[derive(Debug, thiserror::Error)]
#[error("another process has opened a lease meanwhile: the remaining rows are not restored; run this command again")]
pub struct Interrupted;

impl HealLease {
    async fn open(auditor: &Auditor, group: &str, marks: &Marks) -> Result<Self> {
        let Auditor { clickhouse, client, topic, source, .. } = auditor;
        let partitions: Vec<_> = marks.keys().copied().collect();
        // A topic that was deleted has no offsets any more, which would look like offsets that were set back.
        if block_in_place(|| admin::source(client, topic))? != *source {
            return Err(auditor.another_topic());
        }
        // The leases of ingesters are read first. So an ingester that opens one later is noticed, and the committed
        // offset shows one that has opened it before.
        let ingesting = patiently(async || clickhouse.leases(source, Role::Ingest, &partitions).await).await?;
        for (partition, now) in block_in_place(|| admin::committed_or_why(client, topic, &partitions))? {
            if marks.get(&partition).is_some_and(|mark| now < *mark) {
                bail!(
                    "the group's offset of partition {partition} was set back meanwhile: an ingester reads its messages \
                     again, and stores what is missing; run this again when its lag is 0"
                );
            }
        }
        let token = |at: &i32| ingesting.newest.get(at).map_or(Uuid::nil(), |lease| lease.token);
        let besides = partitions.iter().map(|at| (Role::Ingest, *at, token(at))).collect();
        let writer = Writer { besides, ..Writer::new(Role::Heal, group) };
        let tokens = writer.tokens.clone();
        let sink = ClickHouseSink::new(clickhouse.clone(), topic, source, writer, CancellationToken::new());
        patiently(async || match open_lease(&sink, &tokens, &Claim::Any, &partitions).await {
            Ok(()) => Ok(()),
            Err(OpenError::Failure(failure)) => Err(failure),
            Err(error) => Err(Failure { kind: flows::ErrorKind::Transient, ended: true, message: error.to_string() }),
        })
        .await?;
        let (client, topic, source) = (client.clone(), topic.clone(), source.clone());
        Ok(Self { sink, client, topic, source })
    }
}

impl Ownership for HealLease {
    fn is_lost(&self) -> bool {
        false
    }

    async fn prove(&self) -> Result<Proof, LeaseLost> {
        let (client, topic) = (self.client.clone(), self.topic.clone());
        let asked = tokio::task::spawn_blocking(move || admin::source(&client, &topic)).await;
        match asked {
            // Asked before each attempt: an audit of a topic that is gone ends at once.
            Ok(Ok(source)) if source == self.source => Ok(Proof::Unanswered),
            Ok(Ok(_)) => {
                tracing::error!("topic {} was deleted and created again: no more rows are written", self.topic);
                Err(LeaseLost)
            }
            Ok(Err(why)) => {
                tracing::error!("no more rows are written: {why:#}");
                Err(LeaseLost)
            }
            Err(_) => Err(LeaseLost),
        }
    }

    async fn renew(&self, partitions: &[i32]) -> Result<Result<(), LeaseLost>, Failure> {
        renew_lease(&self.sink, self.sink.tokens(), partitions).await
    }
}

impl HealBatch {
    fn begin(partition: i32, first: i64) -> Self {
        Self { partition, first, next: first, bytes: 0, records: Vec::new() }
    }

    fn is_high(&self) -> bool {
        self.records.len() >= ROWS || self.bytes >= BYTES
    }

    /// All offsets below `offset` are stored, or hold no record.
    fn pass_stored(&mut self, offset: i64) {
        if offset > self.next {
            self.push(offset - 1, Payload::AlreadyStored);
        }
    }

    fn push(&mut self, offset: i64, payload: Payload) {
        let range = OffsetRange::new(self.next, offset + 1);
        let record = Record::new(self.partition, range, now(), payload);
        self.bytes += record.weight();
        self.next = range.next;
        self.records.push(record);
    }
}
