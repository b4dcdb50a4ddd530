//! The thread that polls: it reports events to the state machine, and executes its actions.

use super::fetching::{FETCH_RECORDS, Fetcher};
use super::lag::{self, Lag};
use super::lease::{Lease, Opened};
use super::shared::Shared;
use super::start_offsets::{Found, Lookup, LookupError};
use super::{Callbacks, Client, ConsumerConfig, Evicted, committing};
use crate::kafka::native::{Inbox, member_id};
use crate::kafka::{broker_recovery, loss};
use crate::shutdown::Shutdown;
use crate::stuck::At;
use anyhow::{Context as _, Result, anyhow};
use flows::{Action, ErrorKind, Failure, Input, Metrics, Sink as _, Store};
use rdkafka::Offset;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::mpsc::UnboundedSender;
use tracing::{Instrument as _, Span};

/// How long a poll waits where there is nothing to do.
const POLL_INTERVAL: Duration = Duration::from_millis(5);
/// How often the lag, the member's id and what stands in its way are looked at.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);
/// How long a broker may take to move the consumer to another offset.
const SEEK_TIMEOUT: Duration = Duration::from_secs(5);
/// A partition that was just assigned takes a moment before it can be sought in: this often it is tried, each 10 ms.
const SEEK_ATTEMPTS: u32 = 100;
/// How long leaving the group may take. A static member that is closed before it has left stays in the group until its session is
/// over, as KIP-345 has it.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);

/// The thread's own state. Fields are dropped in this order: a consumer that is destroyed waits without end for a queue of its own that
/// is still held.
struct PollLoop<S: Store> {
    fetcher: Fetcher,
    client: Arc<Client>,
    shared: Arc<Shared>,
    config: ConsumerConfig<S>,
    metrics: Arc<Metrics>,
    leases: UnboundedSender<Result<Lease<S::Sink>>>,
    /// The answers of lookups, by number.
    answers: mpsc::Receiver<Answer<S>>,
    answer: mpsc::Sender<Answer<S>>,
    /// The result of the last lookup besides offsets.
    opened: Option<Opened<S::Sink>>,
    shutdown: Shutdown,
    end: Option<End>,
    lag: Lag,
    runtime: Handle,
}

type Answer<S> = (u64, Result<Found<<S as Store>::Sink>, LookupError>);

/// How the loop ends.
#[derive(Clone, Copy)]
enum End {
    Done,
    Evicted,
}

/// Starts the thread, as a member that joins the group. It ends after `shutdown`, or when no lease is possible any
/// more.
pub fn start<S: Store>(
    config: ConsumerConfig<S>,
    metrics: Arc<Metrics>,
    shutdown: Shutdown,
    leases: UnboundedSender<Result<Lease<S::Sink>>>,
) -> Result<JoinHandle<()>> {
    let shared = Shared::new(config.drain_timeout, shutdown.clone());
    let client: Client = config
        .client
        .create_with_context(Callbacks::new(&config, shared.clone(), metrics.clone()))
        .context("cannot set up the Kafka consumer: check --kafka settings")?;
    let client = Arc::new(client);
    let inbox = Inbox::new(client.client().native_client(), FETCH_RECORDS);
    client.context().redirect_into(inbox.redirect());
    committing::start(&client, &config.topic, &shared, &config.stuck)?;
    client.subscribe(&[&config.topic]).context("cannot subscribe")?;
    config.reach.joins_again();
    config.stuck.is(At::Group, "it is joining");
    lag::keep_asking(&client, &config.topic, &config.stuck)?;
    let (answer, answers) = mpsc::channel();
    let poll_loop = PollLoop {
        fetcher: Fetcher::new(inbox, config.budget_bytes),
        client,
        shared,
        config,
        metrics,
        leases,
        answers,
        answer,
        opened: None,
        shutdown,
        end: None,
        lag: Lag::default(),
        runtime: Handle::current(),
    };
    let span = Span::current();
    Ok(std::thread::Builder::new().name("kafka".into()).spawn(move || span.in_scope(|| poll_loop.run()))?)
}

impl<S: Store> PollLoop<S> {
    fn run(mut self) {
        let mut wait = Duration::ZERO;
        let mut checked = Instant::now();
        while !self.shutdown.is_requested() && self.end.is_none() {
            self.poll(wait);
            let has_fetched = self.fetcher.fetch(&self.client, &self.config.topic, &self.shared, &self.metrics);
            wait = if has_fetched { Duration::ZERO } else { POLL_INTERVAL };
            if checked.elapsed() > CHECK_INTERVAL {
                checked = Instant::now();
                self.check();
            }
            self.look_for_the_end();
        }
        if matches!(self.end, Some(End::Evicted)) { self.abandon() } else { self.leave() }
    }

    /// Polls, which runs the callbacks, and does what follows from it.
    fn poll(&mut self, wait: Duration) {
        match self.client.poll(wait) {
            Some(Ok(message)) => {
                tracing::error!(
                    "partition {}: a message arrived outside the batch queue; reading it again",
                    message.partition()
                );
                drop(message);
                self.shared.handle(Input::OutOfSync);
            }
            Some(Err(error)) => self.failed(&error),
            None => {}
        }
        if self.shared.lock().member.deadline().is_some_and(|at| at <= Instant::now()) {
            self.shared.handle(Input::Tick);
        }
        while let Ok((lookup, answer)) = self.answers.try_recv() {
            self.found(lookup, answer);
        }
        while let Some(action) = self.shared.next_action() {
            self.act(action);
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::AskId => self.shared.handle(Input::Id(self.id())),
            Action::LookUp { lookup, partitions } => {
                let question = Lookup::new(&self.client, &self.config, &self.metrics, partitions);
                let answers = self.answer.clone();
                let work = async move {
                    // The receiver is dropped, so the loop has ended.
                    let _ = answers.send((lookup, question.answer().await));
                };
                let task = self.runtime.spawn(work.in_current_span());
                self.shared.looks_up(tokio_util::task::AbortOnDropHandle::new(task));
            }
            Action::Consume { lease, starts, losses } => {
                let Some(opened) = self.opened.take() else { return };
                if let Err(why) = self.seek(&starts) {
                    tracing::info!("{why}");
                    self.config.stuck.is(At::Lease, why.clone());
                    Metrics::count(&self.metrics.lease_failures, 1);
                    self.metrics.note_failure(&Failure { kind: ErrorKind::Transient, ended: true, message: why });
                    return self.shared.handle(Input::SeekFailed);
                }
                losses.iter().for_each(|loss| loss::report(loss, &self.metrics));
                self.config.stuck.is_over(At::Lease);
                tracing::info!(?starts, "lease opened");
                self.fetcher.decoder = opened.sink.decoder();
                let (records, lease) = Lease::open(lease, starts, opened, &self.shared);
                self.shared.lock().records = Some(records);
                let _ = self.leases.send(Ok(lease));
            }
            Action::Rejoin => self.end_for(Evicted::StaleMemberId.into()),
            Action::Done => self.end = Some(End::Done),
            // Done as soon as they are said, on whatever thread.
            Action::StopLookup | Action::EndStream | Action::Cancel { .. } | Action::EndLease | Action::Release(_) => {}
        }
    }

    fn found(&mut self, lookup: u64, answer: Result<Found<S::Sink>, LookupError>) {
        match answer {
            Ok(Found { offsets, opened }) => {
                self.opened = Some(opened);
                self.shared.handle(Input::StartOffsets(lookup, offsets));
            }
            Err(LookupError::RaceLost) => self.shared.handle(Input::RaceLost(lookup)),
            Err(LookupError::Permanent(failure)) => {
                let _ = self.leases.send(Err(anyhow!(failure)));
            }
        }
    }

    /// Seeks the consumer to its own position, also in a kept partition: around a rebalance librdkafka pauses, and
    /// resumes at its idea of the application's position.
    fn seek(&self, starts: &[(i32, i64)]) -> Result<(), String> {
        for &(partition, first) in starts {
            let seek = || self.client.seek(&self.config.topic, partition, Offset::Offset(first), SEEK_TIMEOUT);
            let mut outcome = seek();
            for _ in 0..SEEK_ATTEMPTS {
                if outcome.is_ok() {
                    break;
                }
                std::thread::park_timeout(POLL_INTERVAL * 2);
                outcome = seek();
            }
            outcome.map_err(|error| format!("cannot go to offset {first} of partition {partition} yet: {error}"))?;
        }
        Ok(())
    }

    fn id(&self) -> Option<String> {
        member_id(self.client.client().native_client())
    }

    /// The periodic checks.
    fn check(&mut self) {
        let callbacks = self.client.context();
        // A user who never had the right to read needs it first. A user whose right was revoked may get it back.
        if let Some(missing) = callbacks.reasons().refusal() {
            return self.end_for(anyhow!("Kafka: {missing}"));
        }
        self.lag.check(&self.client, &self.config, &self.shared, &self.metrics);
        // While the flow waits for Kafka, Kafka's own reason explains more than the last action of this member.
        let worst = callbacks.reasons().worst().map(|reason| reason.to_string());
        for at in [At::Kafka, At::Topic, At::Group, At::Commit] {
            self.config.stuck.because(at, worst.clone());
        }
        // A lease waits for ClickHouse, too.
        self.config.stuck.because(At::Lease, callbacks.reasons().denial().map(|reason| reason.to_string()));
        if callbacks.has_no_brokers() {
            let brokers = self.config.client.get("bootstrap.servers").unwrap_or_default();
            broker_recovery::readd_bootstrap(self.client.client().native_client(), brokers);
        }
        self.shared.handle(Input::Id(self.id()));
    }

    /// Whether all is delivered that was to be read. The lease is finished then, however long that takes.
    fn look_for_the_end(&mut self) {
        let Some(until) = &self.config.until else { return };
        let assignment = self.shared.lock();
        let member = &assignment.member;
        let is_delivered = |(partition, next): (i32, Option<i64>)| {
            let end = until.get(&partition).copied().unwrap_or(0);
            next.is_some_and(|next| next >= end || self.has_read_up_to(partition, end))
        };
        let mut places = member.positions().iter().map(|(&partition, position)| (partition, position.next()));
        if member.is_assigned() && member.positions().is_empty() {
            self.end = Some(End::Done);
        } else if member.is_assigned() && member.consuming().is_some() && places.all(is_delivered) {
            drop(assignment);
            self.shared.handle(Input::ReachedEnd);
        }
    }

    /// Whether the consumer has read up to `end`. The last offsets before it may have no record, such as the marker of
    /// a transaction.
    fn has_read_up_to(&self, partition: i32, end: i64) -> bool {
        let position = self.client.position().ok();
        let place = position.as_ref().and_then(|list| list.find_partition(&self.config.topic, partition));
        matches!(place.map(|place| place.offset()), Some(Offset::Offset(offset)) if offset >= end)
    }

    fn failed(&mut self, error: &KafkaError) {
        match error {
            KafkaError::MessageConsumption(RDKafkaErrorCode::UnknownTopicOrPartition) => {
                tracing::warn!("topic {} is gone; waiting for it to come back", self.config.topic);
                self.client.context().topic_is_gone();
            }
            KafkaError::MessageConsumptionFatal(code) => self.end_for(Evicted::Fenced(*code).into()),
            // The context has noted it, too.
            other => tracing::debug!("Kafka: {other}"),
        }
    }

    fn end_for(&mut self, why: anyhow::Error) {
        self.config.stuck.is(At::Group, "it has to join again");
        let _ = self.leases.send(Err(why));
        self.end = Some(End::Evicted);
    }

    /// Gives up everything: nothing can be committed any more.
    fn abandon(&self) {
        self.shared.handle(Input::Abandon);
        self.shared.left();
        // A thread that still has a share of this client must not have it join once more, beside the next one.
        self.client.unsubscribe();
    }

    /// Drains, commits, and leaves the group.
    fn leave(&mut self) {
        self.shared.handle(Input::Shutdown);
        self.shared.left();
        if self.shared.lock().member.is_commit_pending() {
            tracing::warn!(
                "the last offsets are not committed: the next start finds their rows stored, and goes on after them"
            );
        }
        if !self.shared.lock().member.is_assigned() {
            tracing::info!(
                "the group has not assigned partitions yet: leaving it takes up to 10 s, and nothing is under way"
            );
        }
        self.client.unsubscribe();
        let deadline = Instant::now() + LEAVE_TIMEOUT;
        while self.id().is_some() && Instant::now() < deadline {
            let _ = self.client.poll(POLL_INTERVAL);
        }
    }
}
