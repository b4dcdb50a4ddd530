//! A member of the consumer group: polls on a thread of its own and turns what it owns into leases.
//!
//! A lease is what this member owns until the next rebalance or stop. It ends by ending its stream, which drains the
//! pipeline, so it must not be the pipeline's thread that waits for it: that is why this one exists.

use super::callbacks::Callbacks;
use super::haul::{HAUL, Haul};
use super::lag::{self, Lag};
use super::lease::{Hold, Lease, Place, Source};
use super::lifeline;
use super::loss::Loss;
use super::native::{Inbox, member_id};
use super::opening::{Opened, Opening};
use super::{Committer, Naming};
use crate::clickhouse::{ClickHouse, Writer};
use crate::shutdown::Shutdown;
use crate::stuck::{At, Stuck};
use anyhow::{Context, Result, anyhow};
use flows::{Claim, ErrorKind, Failure, Metrics};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{ClientConfig, Offset};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;

pub type Consumer = BaseConsumer<Callbacks>;

/// How long a poll waits where there is nothing to do.
const IDLE: Duration = Duration::from_millis(5);
/// How often the lag is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// What a member needs to know.
#[derive(Clone)]
pub struct Membership {
    pub topic: String,
    pub naming: Naming,
    pub config: ClientConfig,
    pub writer: Writer,
    pub claim: Claim,
    pub clickhouse: Arc<ClickHouse>,
    pub drain_timeout: Duration,
    /// Within this time a partial batch is stored.
    pub batch_timeout: Duration,
    pub stuck: Arc<Stuck>,
    /// Where to stop, for each partition; none to go on for ever.
    pub until: Option<BTreeMap<i32, i64>>,
}

/// This client is no member any more, and has to begin anew.
#[derive(Debug, thiserror::Error)]
pub enum PutOut {
    /// Kafka takes it for another one than the member of its name.
    #[error("Kafka put this member out of its group: {0}: does another one run with the same --instance-id?")]
    Fenced(RDKafkaErrorCode),
    /// Its session was over during a rebalance, and librdkafka, which has joined again, goes on with the partitions of before.
    #[error("the group has given away what this member still holds")]
    GivenAway,
}

/// The thread's own state. Fields are dropped in this order: a consumer that is destroyed waits for ever for a queue of its
/// own that is still held.
struct Member {
    opening: Option<Opening>,
    inbox: Inbox,
    consumer: Arc<Consumer>,
    to: Membership,
    committer: Arc<Committer>,
    metrics: Arc<Metrics>,
    leases: tokio::sync::mpsc::UnboundedSender<Result<Lease>>,
    shutdown: Shutdown,
    put_out: bool,
    /// At the last look, its id was another one than when it was given its partitions.
    was_another: bool,
    lag: Lag,
    runtime: Handle,
}

/// Joins the group. Leases come through `leases`, or the reason why there can be none; the thread ends after `stop`.
pub fn join(
    to: Membership,
    metrics: Arc<Metrics>,
    shutdown: Shutdown,
    leases: tokio::sync::mpsc::UnboundedSender<Result<Lease>>,
) -> Result<(std::thread::JoinHandle<()>, Arc<Committer>)> {
    let consumer: Consumer = to
        .config
        .create_with_context(Callbacks::new(&to, metrics.clone()))
        .context("cannot set up the Kafka consumer: check --kafka settings")?;
    let consumer = Arc::new(consumer);
    let inbox = Inbox::new(consumer.client().native_client(), HAUL);
    let committer = Committer::start(&consumer, &to.topic, to.stuck.clone());
    consumer.context().equip(inbox.redirect(), committer.clone());
    consumer.subscribe(&[&to.topic]).context("cannot subscribe")?;
    to.stuck.is(At::Group, "this member is joining it");
    lag::keep_asking(&consumer, &to.topic, &to.stuck)?;
    let member = Member {
        committer: committer.clone(),
        runtime: Handle::current(),
        opening: None,
        to,
        consumer,
        inbox,
        metrics,
        leases,
        shutdown,
        put_out: false,
        was_another: false,
        lag: Lag::default(),
    };
    let thread = std::thread::Builder::new().name("kafka".into()).spawn(move || member.run())?;
    Ok((thread, committer))
}

impl Member {
    fn run(mut self) {
        let mut wait = Duration::ZERO;
        let mut looked = Instant::now();
        while !self.shutdown.is_requested() && !self.put_out && !self.is_done() {
            match self.consumer.poll(wait) {
                Some(Ok(message)) => {
                    // Not by the way that all go: it is read again.
                    tracing::error!("a message of partition {} went astray", {
                        use rdkafka::Message;
                        message.partition()
                    });
                    drop(message);
                    self.rethink();
                }
                Some(Err(error)) => self.complain(&error),
                None => {}
            }
            self.follow_assignment();
            wait = if self.haul() { Duration::ZERO } else { IDLE };
            if looked.elapsed() > LOOK {
                looked = Instant::now();
                self.look_at_rights();
                self.lag.look(&self.consumer, &self.to, &self.committer, &self.metrics);
                self.look_at_causes();
                self.look_at_membership();
                if self.consumer.context().is_lost() {
                    let brokers = self.to.config.get("bootstrap.servers").unwrap_or_default();
                    lifeline::throw(self.consumer.client().native_client(), brokers);
                }
            }
        }
        if self.put_out { self.abandon() } else { self.leave() }
    }

    /// Ends the lease that does not fit any more, and opens the one that does.
    fn follow_assignment(&mut self) {
        let mut hold = self.consumer.context().hold();
        if hold.lease.as_ref().is_some_and(Source::is_closed) {
            // The pipeline has ended by itself: what it did not store is to be asked about, and delivered again.
            hold.end_lease(Duration::ZERO);
            hold.changed = true;
        }
        if hold.changed {
            hold.changed = false;
            hold.end_lease(self.to.drain_timeout);
            self.opening = None;
            if !hold.places.is_empty() && self.is_another(&hold) {
                // Others may own them: nothing to ask about, until that is settled.
                hold.changed = true;
            } else if !hold.places.is_empty() {
                let unknown = hold.places.iter().filter(|(_, place)| matches!(place, Place::Unknown));
                let partitions = unknown.map(|(&partition, _)| partition).collect();
                let was_fenced = hold.was_fenced;
                self.opening = Some(Opening::start(
                    &self.runtime,
                    &self.consumer,
                    &self.to,
                    &self.metrics,
                    &self.committer,
                    was_fenced,
                    partitions,
                ));
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

    fn open_lease(&self, hold: &mut Hold, mut opened: Opened) {
        // A group whose topic is deleted forgets its offsets; this member does not.
        if self.committer.was_of_another(opened.identity.source()) {
            let Opened { starts, losses, .. } = &mut opened;
            for start in starts.iter() {
                if !losses.iter().any(|loss| loss.is_of(start.partition)) {
                    losses.push(Loss::made_again(start.partition, 0, 0, start.first));
                }
            }
        }
        for start in opened.starts {
            hold.places.insert(start.partition, Place::At(start.first, start.stored));
        }
        let starts = hold.starts();
        for &(partition, first) in &starts {
            // Wherever the consumer stands, this is where it goes on, also in a partition that was kept: around a rebalance
            // librdkafka pauses and resumes at what it takes for the application's position.
            if let Err(error) = self.seek(partition, first) {
                let why = format!("cannot go to offset {first} of partition {partition} yet: {error}");
                tracing::info!("{why}");
                self.to.stuck.is(At::Lease, why.clone());
                Metrics::count(&self.metrics.lease_failures, 1);
                self.metrics.note_failure(&Failure { kind: ErrorKind::Transient, ended: true, message: why });
                hold.changed = true;
                return;
            }
        }
        opened.losses.iter().for_each(|loss| loss.report(&self.metrics));
        self.to.stuck.is_over(At::Lease);
        let (source, notes) = (opened.identity.source(), opened.notes);
        self.committer.begin(hold.member.clone(), source, &starts, notes, &opened.losses);
        tracing::info!(?starts, "lease opened");
        let (source, lease) = Lease::open(starts, opened.sink, opened.identity);
        (hold.lease, hold.was_fenced) = (Some(source), false);
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
        if !source.has_room() {
            return false;
        }
        let mut haul = Haul::begin(places);
        let reasons = self.consumer.context().reasons();
        let taken = self.inbox.take(Duration::ZERO, |record| {
            record.error.into_iter().for_each(|code| reasons.note_answer(code));
            haul.stow(&record, |passed| lag::deleted(&self.consumer, &self.to.topic, record.partition, passed));
        });
        if haul.astray {
            *changed = true;
        }
        for loss in &haul.losses {
            loss.report(&self.metrics);
            self.committer.note_loss(loss);
        }
        haul.gaps.iter().for_each(|partition| self.committer.note_gap(*partition));
        Metrics::count(&self.metrics.bytes, haul.bytes);
        source.send(haul.records);
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

    /// Whether everything up to `until` is stored. Once it is delivered, its lease is finished, however long that takes.
    fn is_done(&self) -> bool {
        let Some(until) = &self.to.until else { return false };
        let mut hold = self.consumer.context().hold();
        let is_delivered = hold.is_assigned
            && !hold.changed
            && (hold.places.is_empty() || hold.lease.is_some())
            && hold.places.iter().all(|(partition, place)| {
                let end = until.get(partition).copied().unwrap_or(0);
                matches!(place, Place::At(next, _) if *next >= end || self.has_passed(*partition, end))
            });
        is_delivered && hold.finish_lease()
    }

    /// Whether the consumer has read up to `end`, where the last offsets before it may hold no record for us (the marker of a
    /// transaction, say).
    fn has_passed(&self, partition: i32, end: i64) -> bool {
        let position = self.consumer.position().ok();
        let place = position.as_ref().and_then(|list| list.find_partition(&self.to.topic, partition));
        matches!(place.map(|place| place.offset()), Some(Offset::Offset(offset)) if offset >= end)
    }

    /// Whoever has another id than when it was given its partitions may hold some of before, which others have by now: librdkafka
    /// takes them back at the next poll, but not where a rebalance was under way.
    fn look_at_membership(&mut self) {
        let hold = self.consumer.context().hold();
        let is_another = !hold.places.is_empty() && self.is_another(&hold);
        drop(hold);
        if is_another && self.was_another {
            self.end_for(PutOut::GivenAway.into());
        }
        self.was_another = is_another;
    }

    fn is_another(&self, hold: &Hold) -> bool {
        hold.member.is_none() || hold.member != member_id(self.consumer.client().native_client())
    }

    /// A user who never had the right to read has to be given it first. One whose right was taken away may get it back.
    fn look_at_rights(&mut self) {
        if let Some(missing) = self.consumer.context().reasons().refusal() {
            self.end_for(anyhow!("Kafka: {missing}"));
        }
    }

    /// Where Kafka is what the flow waits for, what it was heard to say explains more than what this member did last.
    fn look_at_causes(&self) {
        let reasons = self.consumer.context().reasons();
        let worst = reasons.worst().map(|reason| reason.to_string());
        for at in [At::Kafka, At::Group, At::Commit] {
            self.to.stuck.because(at, worst.clone());
        }
        // A lease waits for ClickHouse, too.
        self.to.stuck.because(At::Lease, reasons.denial().map(|reason| reason.to_string()));
    }

    fn end_for(&mut self, why: anyhow::Error) {
        let _ = self.leases.send(Err(why));
        self.put_out = true;
    }

    fn complain(&mut self, error: &KafkaError) {
        match error {
            KafkaError::MessageConsumption(RDKafkaErrorCode::UnknownTopicOrPartition) => {
                tracing::warn!("topic {} is gone; waiting for it to come back", self.to.topic);
                self.consumer.context().topic_is_gone();
            }
            KafkaError::MessageConsumptionFatal(code) => {
                self.end_for(PutOut::Fenced(*code).into());
            }
            // The context has noted it, too.
            other => tracing::debug!("Kafka: {other}"),
        }
    }

    /// Lets go of everything: nothing can be committed any more.
    fn abandon(&self) {
        self.consumer.context().hold().end_lease(Duration::ZERO);
        self.committer.close();
        // Whoever still has a share of this client must not have it join once more, beside the next one.
        self.consumer.unsubscribe();
    }

    /// Drains, commits, and leaves the group.
    fn leave(&mut self) {
        self.consumer.context().hold().end_lease(self.to.drain_timeout);
        if !self.committer.settle_up(Duration::from_secs(10)) {
            tracing::warn!("the last offsets are not committed; the next start finds their rows stored and goes on");
        }
        self.committer.close();
        self.consumer.unsubscribe();
        let deadline = Instant::now() + Duration::from_secs(5);
        // A member with a name that is closed before it has left stays in the group until its session is over, as KIP-345 has it.
        while member_id(self.consumer.client().native_client()).is_some() && Instant::now() < deadline {
            let _ = self.consumer.poll(IDLE);
        }
    }
}
