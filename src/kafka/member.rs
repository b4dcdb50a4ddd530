//! A member of the consumer group: polls on a thread of its own and turns what it owns into leases.
//!
//! A lease is what this member owns until the next rebalance or stop. It ends by ending its stream, which drains the
//! pipeline, so it must not be the pipeline's thread that waits for it: that is why this one exists.

use super::callbacks::Callbacks;
use super::native::{Inbox, Record, known_watermarks};
use super::opening::{Opened, Opening};
use super::{Committer, Identity, Pulse};
use crate::clickhouse::{ClickHouse, Shelf};
use crate::stop::Stop;
use anyhow::{Context, Result};
use flows::{Content, Delivery, Event, Islands, LeaseLost, Meter, Span, Tenure, now};
use futures::channel::mpsc;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{ClientConfig, Offset};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc as thread_mpsc;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

pub type Consumer = BaseConsumer<Callbacks>;

/// Messages taken from librdkafka at a time; they travel to the pipeline in one vector.
const HAUL: usize = 1_000;
/// Vectors on the way to the pipeline: enough to coalesce 50,000 rows, little enough to bound the memory (8 MB).
const HAULS: usize = 64;
/// How long a poll waits where there is nothing to do.
const IDLE: Duration = Duration::from_millis(5);
/// How often an idle lease makes sure that its topic is still there.
const LOOK_AT_TOPIC: Duration = Duration::from_secs(2);
/// How often the lag is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// Where this member stands in a partition.
#[derive(Debug)]
pub enum Place {
    /// Nobody has asked yet what is committed and what is stored.
    Unknown,
    /// The next offset to deliver, and what of the offsets from there on is stored already.
    At(i64, Islands),
}

/// What this member owns.
#[derive(Default)]
pub struct Hold {
    pub places: BTreeMap<i32, Place>,
    /// The assignment has changed: the lease, if there is one, is not the right one any more.
    pub changed: bool,
    pub assigned_once: bool,
    lease: Option<Source>,
}

/// The near end of a lease: where deliveries go in.
struct Source {
    deliveries: mpsc::Sender<Vec<Delivery>>,
    /// What did not fit; while it is here, nothing more is taken. This is the backpressure.
    stuck: Option<Vec<Delivery>>,
    ended: thread_mpsc::Receiver<Option<Vec<(i32, i64)>>>,
    lost: CancellationToken,
    starts: Vec<(i32, i64)>,
}

/// The far end of a lease, for the pipeline.
pub struct Lease {
    /// What is delivered; it ends with the lease.
    pub deliveries: mpsc::Receiver<Vec<Delivery>>,
    /// For each partition the first offset that is not accounted for.
    pub starts: Vec<(i32, i64)>,
    /// Where its rows belong.
    pub shelf: Arc<Shelf>,
    /// The right to write them.
    pub tenure: Arc<Holding>,
    ended: thread_mpsc::Sender<Option<Vec<(i32, i64)>>>,
}

impl Lease {
    /// Tells the member how it ended: with these watermarks, or not in order.
    pub fn end(self, marks: Option<Vec<(i32, i64)>>) {
        // A member that does not wait for it any more has taken it for abandoned.
        let _ = self.ended.send(marks);
    }
}

/// The right to write rows of a lease's partitions.
pub struct Holding {
    pulse: Arc<Pulse>,
    identity: Identity,
    lost: CancellationToken,
}

impl Holding {
    /// Resolves when the lease is lost: the group has given it away, or the topic is not the same any more.
    pub async fn lost(&self) {
        while tokio::time::timeout(LOOK_AT_TOPIC, self.lost.cancelled()).await.is_err() {
            if !self.identity.still_holds().await {
                return tracing::warn!("the topic was deleted; looking for one of the same name");
            }
        }
    }
}

impl Tenure for Holding {
    async fn prove(&self) -> Result<(), LeaseLost> {
        while !self.lost.is_cancelled() {
            if !self.pulse.in_doubt() {
                return if self.identity.still_holds().await { Ok(()) } else { Err(LeaseLost) };
            }
            tokio::time::sleep(IDLE).await;
        }
        Err(LeaseLost)
    }
}

impl Source {
    /// Hands over what is stuck; false while there is no room.
    fn flush(&mut self) -> bool {
        match self.stuck.take().map(|haul| self.deliveries.try_send(haul)) {
            Some(Err(full)) if full.is_full() => {
                self.stuck = Some(full.into_inner());
                false
            }
            // A pipeline that is gone takes nothing; its end is noticed elsewhere.
            _ => true,
        }
    }
}

impl Hold {
    /// Ends the lease, if there is one: its stream ends, its pipeline drains. What is not drained after `patience` is let go
    /// of, and asked about before it is delivered again.
    pub fn end_lease(&mut self, patience: Duration) {
        let Some(mut source) = self.lease.take() else { return };
        let deadline = Instant::now() + patience;
        if patience.is_zero() {
            source.lost.cancel();
        }
        while !source.flush() && Instant::now() < deadline && !source.deliveries.is_closed() {
            std::thread::park_timeout(IDLE);
        }
        let drained = source.stuck.is_none();
        source.deliveries.close_channel();
        let left = deadline.saturating_duration_since(Instant::now());
        let marks = match source.ended.recv_timeout(left) {
            Ok(marks) => marks.filter(|_| drained),
            Err(_) => {
                if !patience.is_zero() {
                    tracing::warn!("not drained within {patience:?}: letting go of what is not stored yet");
                }
                source.lost.cancel();
                // The pipeline only has to notice; it is not waited for by anybody else.
                source.ended.recv_timeout(Duration::from_secs(5)).ok().flatten().filter(|_| drained)
            }
        };
        self.resume_from(marks.as_deref());
    }

    /// Every place is where the ledger says it is; without a ledger, or where they differ, it has to be asked for.
    fn resume_from(&mut self, marks: Option<&[(i32, i64)]>) {
        for (partition, place) in &mut self.places {
            let mark = marks.and_then(|marks| marks.iter().find(|(at, _)| at == partition));
            match (&place, mark) {
                (Place::At(next, _), Some((_, mark))) if mark == next => {}
                _ => *place = Place::Unknown,
            }
        }
    }
}

/// What a member needs to know.
pub struct Membership {
    pub topic: String,
    pub group: String,
    pub config: ClientConfig,
    pub clickhouse: Arc<ClickHouse>,
    pub drain_timeout: Duration,
    /// Where to stop, for each partition; none to go on for ever.
    pub until: Option<BTreeMap<i32, i64>>,
}

/// The thread's own state. Fields are dropped in this order: a consumer that is destroyed waits for ever for a queue of its
/// own that is still held.
struct Member {
    opening: Option<Opening>,
    inbox: Inbox,
    consumer: Arc<Consumer>,
    to: Membership,
    committer: Arc<Committer>,
    pulse: Arc<Pulse>,
    meter: Arc<Meter>,
    leases: tokio::sync::mpsc::UnboundedSender<Result<Lease>>,
    stop: Stop,
    runtime: Handle,
}

/// Joins the group. Leases come through `leases`, or the reason why there can be none; the thread ends after `stop`.
pub fn join(
    to: Membership,
    meter: Arc<Meter>,
    stop: Stop,
    leases: tokio::sync::mpsc::UnboundedSender<Result<Lease>>,
) -> Result<(std::thread::JoinHandle<()>, Arc<Committer>)> {
    let consumer: Consumer = to
        .config
        .create_with_context(Callbacks::new(&to.topic, to.drain_timeout))
        .context("cannot set up the Kafka consumer: check --kafka settings")?;
    let consumer = Arc::new(consumer);
    let inbox = Inbox::new(consumer.client().native_client(), HAUL);
    let committer = Committer::start(&consumer, &to.topic);
    consumer.context().equip(inbox.redirect(), committer.clone());
    consumer.subscribe(&[&to.topic]).context("cannot subscribe")?;
    let session_ms = to.config.get("session.timeout.ms").and_then(|ms| ms.parse().ok()).unwrap_or(8_000);
    let member = Member {
        pulse: Arc::new(Pulse::new(Duration::from_millis(session_ms / 2))),
        committer: committer.clone(),
        runtime: Handle::current(),
        opening: None,
        to,
        consumer,
        inbox,
        meter,
        leases,
        stop,
    };
    let thread = std::thread::Builder::new().name("kafka".into()).spawn(move || member.run())?;
    Ok((thread, committer))
}

impl Member {
    fn run(mut self) {
        let mut wait = Duration::ZERO;
        let mut looked = Instant::now();
        while !self.stop.is_requested() && !self.is_done() {
            if self.pulse.beat() {
                self.confirm();
            }
            match self.consumer.poll(wait) {
                Some(Ok(message)) => tracing::error!("a message of partition {} went astray", {
                    use rdkafka::Message;
                    message.partition()
                }),
                Some(Err(error)) => self.complain(&error),
                None => {}
            }
            self.follow_assignment();
            wait = if self.haul() { Duration::ZERO } else { IDLE };
            if looked.elapsed() > LOOK {
                looked = Instant::now();
                self.look_at_lag();
            }
        }
        self.leave();
    }

    /// Ends the lease that does not fit any more, and opens the one that does.
    fn follow_assignment(&mut self) {
        let mut hold = self.consumer.context().hold();
        if hold.lease.as_ref().is_some_and(|source| source.deliveries.is_closed()) {
            // The pipeline has ended by itself: what it did not store is to be asked about, and delivered again.
            hold.end_lease(Duration::ZERO);
            hold.changed = true;
        }
        if hold.changed {
            hold.changed = false;
            hold.end_lease(self.to.drain_timeout);
            self.opening = None;
            if !hold.places.is_empty() {
                let unknown = hold.places.iter().filter(|(_, place)| matches!(place, Place::Unknown));
                let partitions = unknown.map(|(&partition, _)| partition).collect();
                self.opening = Some(Opening::start(&self.runtime, &self.consumer, &self.to, partitions));
            }
        }
        let Some(opened) = self.opening.as_mut().and_then(Opening::poll) else { return };
        self.opening = None;
        match opened {
            Ok(opened) => self.open_lease(&mut hold, opened),
            Err(failure) => {
                let _ = self.leases.send(Err(failure));
            }
        }
    }

    fn open_lease(&self, hold: &mut Hold, opened: Opened) {
        for start in opened.starts {
            hold.places.insert(start.partition, Place::At(start.first, start.stored));
        }
        let starts: Vec<_> = hold
            .places
            .iter()
            .filter_map(|(&partition, place)| match place {
                Place::At(next, _) => Some((partition, *next)),
                Place::Unknown => None,
            })
            .collect();
        for &(partition, first) in &starts {
            // Wherever the consumer stands, this is where it goes on, also in a partition that was kept: around a rebalance
            // librdkafka pauses and resumes at what it takes for the application's position.
            if let Err(error) = self.seek(partition, first) {
                tracing::info!("cannot go to offset {first} of partition {partition} yet: {error}");
                hold.changed = true;
                return;
            }
        }
        self.committer.set_source(opened.identity.source());
        let (deliveries, receiver) = mpsc::channel(HAULS);
        let (end, ended) = thread_mpsc::channel();
        let lost = CancellationToken::new();
        tracing::info!(?starts, "lease opened");
        let lease = Lease {
            deliveries: receiver,
            starts: starts.clone(),
            shelf: opened.shelf,
            tenure: Arc::new(Holding { pulse: self.pulse.clone(), identity: opened.identity, lost: lost.clone() }),
            ended: end,
        };
        hold.lease = Some(Source { deliveries, stuck: None, ended, lost, starts });
        let _ = self.leases.send(Ok(lease));
    }

    /// A partition that was just assigned takes a moment before it can be sought in.
    fn seek(&self, partition: i32, first: i64) -> Result<(), KafkaError> {
        let seek = || self.consumer.seek(&self.to.topic, partition, Offset::Offset(first), Duration::from_secs(5));
        let mut outcome = seek();
        for _ in 0..100 {
            if outcome.is_ok() {
                break;
            }
            std::thread::park_timeout(IDLE * 2);
            outcome = seek();
        }
        outcome
    }

    /// Takes what is waiting and hands it to the lease; false when there was nothing to do.
    fn haul(&mut self) -> bool {
        let mut hold = self.consumer.context().hold();
        let Hold { places, lease: Some(source), changed, .. } = &mut *hold else { return false };
        if source.deliveries.is_closed() || !source.flush() {
            return false;
        }
        let mut haul = Haul { deliveries: Vec::with_capacity(HAUL), received: now(), places, astray: false };
        let taken = self.inbox.take(Duration::ZERO, |record| {
            haul.stow(&record, || {
                known_watermarks(self.consumer.client().native_client(), &self.to.topic, record.partition)
            });
        });
        if haul.astray {
            *changed = true;
        }
        if !haul.deliveries.is_empty() {
            source.stuck = Some(haul.deliveries);
            source.flush();
        }
        if *changed {
            // Where the offsets make no sense any more, everything is asked anew; what was delivered so far is drained.
            drop(hold);
            self.rethink();
        }
        taken > 0
    }

    /// The topic is not the one that it was: ask everything again.
    fn rethink(&self) {
        let mut hold = self.consumer.context().hold();
        hold.end_lease(self.to.drain_timeout);
        hold.places.values_mut().for_each(|place| *place = Place::Unknown);
        hold.changed = true;
    }

    /// After a freeze: asks the group whether this is still its member, by committing what is committed. Until it says so,
    /// writers wait. If it is not, librdkafka will learn that too and revoke everything, which resolves the doubt as well.
    fn confirm(&self) {
        use RDKafkaErrorCode::{FencedInstanceId, IllegalGeneration, UnknownMemberId};
        let mut hold = self.consumer.context().hold();
        if hold.places.is_empty() {
            return self.pulse.confirm();
        }
        let Some(source) = &hold.lease else { return };
        let mark = |&(partition, start): &(i32, i64)| (partition, self.committer.confirmed(partition).unwrap_or(start));
        let marks = source.starts.iter().map(mark).collect();
        match self.committer.try_commit(&self.consumer, &marks) {
            Ok(()) => {
                tracing::warn!("this process was frozen for a while; the group still counts on it");
                self.pulse.confirm();
            }
            Err(error @ KafkaError::ConsumerCommit(UnknownMemberId | IllegalGeneration | FencedInstanceId)) => {
                tracing::warn!("this process was frozen for a while, and the group went on without it: {error}");
                hold.end_lease(Duration::ZERO);
            }
            Err(error) => tracing::info!("this process was frozen for a while; the group does not answer yet: {error}"),
        }
    }

    /// Whether everything up to `until` was delivered.
    fn is_done(&self) -> bool {
        let Some(until) = &self.to.until else { return false };
        let hold = self.consumer.context().hold();
        hold.assigned_once
            && (hold.places.is_empty() || hold.lease.is_some())
            && hold.places.iter().all(|(partition, place)| {
                let end = until.get(partition).copied().unwrap_or(0);
                matches!(place, Place::At(next, _) if *next >= end || self.has_passed(*partition, end))
            })
    }

    /// Whether the consumer has read up to `end`, where the last offsets before it may hold no record for us (the marker of a
    /// transaction, say).
    fn has_passed(&self, partition: i32, end: i64) -> bool {
        let position = self.consumer.position().ok();
        let place = position.as_ref().and_then(|list| list.find_partition(&self.to.topic, partition));
        matches!(place.map(|place| place.offset()), Some(Offset::Offset(offset)) if offset >= end)
    }

    fn look_at_lag(&self) {
        let hold = self.consumer.context().hold();
        let lag = hold.places.iter().map(|(&partition, place)| {
            let high = known_watermarks(self.consumer.client().native_client(), &self.to.topic, partition)?.1;
            match place {
                Place::At(next, _) => u64::try_from(high - self.committer.confirmed(partition).unwrap_or(*next)).ok(),
                Place::Unknown => None,
            }
        });
        self.meter.lag.store(lag.flatten().sum(), std::sync::atomic::Ordering::Relaxed);
    }

    fn complain(&self, error: &KafkaError) {
        match error {
            KafkaError::MessageConsumption(RDKafkaErrorCode::UnknownTopicOrPartition) => {
                tracing::warn!("topic {} is gone; waiting for it to come back", self.to.topic);
            }
            KafkaError::MessageConsumptionFatal(code) => {
                let _ = self.leases.send(Err(anyhow::anyhow!("Kafka put this member out of its group: {code}")));
            }
            // Whatever it is, the context has said it too.
            other => tracing::debug!("Kafka: {other}"),
        }
    }

    /// Drains, commits, and leaves the group.
    fn leave(&mut self) {
        let context = self.consumer.context().clone();
        context.hold().end_lease(self.to.drain_timeout);
        if !self.committer.settle_up(Duration::from_secs(10)) {
            tracing::warn!("the last offsets are not committed; the next start finds their rows stored and goes on");
        }
        self.committer.close();
        self.consumer.unsubscribe();
        let deadline = Instant::now() + Duration::from_secs(5);
        while !context.hold().places.is_empty() && Instant::now() < deadline {
            let _ = self.consumer.poll(IDLE);
        }
    }
}

/// One haul: what was taken at once, on its way to become deliveries.
struct Haul<'a> {
    deliveries: Vec<Delivery>,
    received: i64,
    places: &'a mut BTreeMap<i32, Place>,
    /// An error came, or offsets went back: ask again where to go on.
    astray: bool,
}

impl Haul<'_> {
    fn stow(&mut self, record: &Record<'_>, watermarks: impl FnOnce() -> Option<(i64, i64)>) {
        let partition = record.partition;
        if let Some(error) = record.error {
            // librdkafka counts an error that it delivers as a message that was consumed: its position is not to be trusted.
            tracing::info!("Kafka, partition {partition}: {error}");
            self.astray = true;
            return;
        }
        // What is still under way of a partition that went, or after a step back, is not ours to deliver.
        let Some(Place::At(next, stored)) = self.places.get_mut(&partition) else { return };
        if record.offset < *next || self.astray {
            self.astray = true;
            return;
        }
        if record.offset > *next
            && let Some((low, _)) = watermarks()
            && low > *next
        {
            tracing::error!(
                "partition {partition}: {} messages, offsets {next} to {}, were deleted from the topic before they were read",
                low - *next,
                low - 1
            );
        }
        if record.offset > *next {
            tracing::debug!("partition {partition}: no record at offsets {next} to {}", record.offset - 1);
        }
        let span = Span::new(*next, record.offset + 1);
        *next = span.next;
        let content = if stored.contains(record.offset) {
            match self.deliveries.last_mut() {
                Some(Delivery { partition: at, span: before, content: Content::Stored, .. }) if *at == partition => {
                    before.next = span.next;
                    return;
                }
                _ => Content::Stored,
            }
        } else {
            Event::decode(record.key, record.payload)
        };
        self.deliveries.push(Delivery { partition, span, received: self.received, content });
    }
}
