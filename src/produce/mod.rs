//! The producing pipeline, assembled: the shoppers, into the topic.

mod manifest;

use crate::connect;
use crate::kafka::admin::{self, Client, Found};
use crate::kafka::refused::{self, Refused};
use crate::kafka::topic::{self, KafkaTopic};
use crate::kafka::{self, KafkaConfig};
use crate::numbers::grouped;
use crate::shutdown::Shutdown;
use crate::telemetry::Ready;
use anyhow::{Context, Result, bail};
use flows::{Due, Faults, Message, Metrics, Rate, Shoppers, Tally, Template, Visitors, schedule};
use futures::StreamExt;
use manifest::Manifest;
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Settings with which no message would be acknowledged, as far as this program can see.
const FIXED: Refused = &[
    ("transactional.id", "messages are not sent in transactions"),
    ("delivery.report.only.error", "what is acknowledged would not be known"),
];

/// The input and the target of [`run`].
#[derive(Clone, Debug)]
pub struct ProduceConfig {
    /// The topic, which exists.
    pub kafka: KafkaConfig,
    /// How long to wait for a Kafka that does not answer at the start.
    pub connect_timeout: Duration,
    /// How many events a second.
    pub rate: Rate,
    /// How many shoppers there are.
    pub users: NonZeroUsize,
    /// Stop after this many messages.
    pub count: Option<NonZeroU64>,
    /// Stop after this time, or later, when all is acknowledged.
    pub duration: Option<Duration>,
    /// Events to produce in place of the shop's.
    pub template: Option<Template>,
    /// A seed gives the same events in every run; without one, each run has different events.
    pub seed: Option<u64>,
    /// A file for one line of JSON for each acknowledged message.
    pub manifest: Option<PathBuf>,
    /// Shares of messages that are bad, sent twice or late.
    pub faults: Faults,
    /// Messages that may be unacknowledged; without a number, half a second's worth.
    pub in_flight: Option<NonZeroUsize>,
    /// The longest time for Kafka to acknowledge the last messages when a shutdown is requested.
    pub drain_timeout: Duration,
}

/// The result of a run of the producer.
pub struct Produced {
    /// How many messages Kafka has acknowledged, and how many not.
    pub tally: Tally,
    /// The seed of its shoppers.
    pub seed: u64,
}

/// Connects and produces; none when it was stopped before it began.
///
/// # Errors
/// When Kafka does not answer at the start, or the manifest cannot be written.
pub async fn run(
    config: &ProduceConfig,
    shutdown: &Shutdown,
    metrics: &Arc<Metrics>,
    ready: &Ready,
) -> Result<Option<Produced>> {
    let mut manifest = config.manifest.as_deref().map(Manifest::create).transpose()?;
    refused::check(&config.kafka.settings, FIXED)?;
    let client_config = kafka::client_config(&config.kafka, topic::DEFAULTS)?;
    let client = Arc::new(admin::client(&client_config)?);
    let name = &config.kafka.topic;
    // The schedule begins when Kafka has answered: its first event is not late before it could be sent.
    tokio::select! {
        found = connected(&client, config) => found?,
        () = shutdown.requested() => return Ok(None),
    }
    let topic = KafkaTopic::new(&client_config, name, metrics.clone(), ready.stuck.clone())
        .context("cannot set up the Kafka producer: check --kafka settings")?;
    topic.warm_up(Duration::from_secs(5)).await?;

    let seed = config.seed.unwrap_or_else(rand::random);
    tracing::info!(seed, users = config.users.get(), "producing into {name} at {}", config.kafka.brokers);
    let next = messages(config, seed);
    if let Rate::PerSecond(rate) = config.rate {
        let count = count(config).map(NonZeroU64::get);
        *metrics.due() = Some(Due { since: Instant::now(), rate, count });
    }
    let due = schedule(config.rate, count(config)).take_until(async {
        end(config.duration.filter(|_| config.rate == Rate::Max), shutdown, &topic).await;
        // No more events are due.
        *metrics.due() = None;
    });
    let in_flight = config.in_flight.map_or(config.rate.in_flight(), NonZeroUsize::get);

    let flow = flows::produce(due, next, &topic, in_flight, metrics, |receipt| {
        if receipt.acked.is_err() {
            let acknowledged =
                || format!("stopped after {} acknowledged messages", grouped(Metrics::read(&metrics.events)));
            topic.refused().with_context(acknowledged)?;
        }
        manifest.as_mut().map_or(Ok(()), |manifest| manifest.note(&receipt))
    });
    ready.begun();
    let tally = give_up_after(flow, too_late(config, shutdown, metrics), &topic).await?;
    if let Some(manifest) = manifest {
        manifest.close()?;
    }
    Ok(Some(Produced { tally, seed }))
}

/// The function that makes the message of an event that happens at a time.
fn messages(config: &ProduceConfig, seed: u64) -> Box<dyn FnMut(i64) -> Message + Send> {
    let users = config.users.get();
    if let Some(template) = config.template.clone() {
        let mut visitors = Visitors::new(template, seed, users);
        return Box::new(move |due| visitors.next(due));
    }
    let mut shoppers = Shoppers::new(seed, users, config.faults);
    Box::new(move |due| shoppers.next(due))
}

/// Waits until the topic exists and its partitions have leaders.
async fn connected(client: &Arc<Client>, config: &ProduceConfig) -> Result<()> {
    let (name, patience) = (&config.kafka.topic, config.connect_timeout);
    let Found::Partitions(partitions) = connect::kafka(client, name, patience).await? else {
        bail!("topic {name} is missing at {}: create it with `clickstream setup`", config.kafka.brokers);
    };
    connect::leaders(client, name, &partitions, patience).await.map(drop)
}

/// How many messages: `--count`, or as many as are due within `--for`, whichever is less.
fn count(config: &ProduceConfig) -> Option<NonZeroU64> {
    let within = match (config.rate, config.duration) {
        (Rate::PerSecond(rate), Some(time)) => NonZeroU64::new((rate * time.as_secs_f64()).ceil() as u64),
        _ => None,
    };
    config.count.into_iter().chain(within).min()
}

/// Resolves when it is time to end.
async fn end(duration: Option<Duration>, shutdown: &Shutdown, topic: &KafkaTopic) {
    let over = async {
        match duration {
            Some(duration) => tokio::time::sleep(duration).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = over => {}
        () = shutdown.requested() => {}
        () = topic.given_up() => {}
    }
}

/// Resolves when unacknowledged messages have to be given up. This is the drain timeout after a shutdown was requested.
/// It is also the end of `--for`, if no message was acknowledged for the drain timeout. A producer that is only slow
/// continues.
async fn too_late(config: &ProduceConfig, shutdown: &Shutdown, metrics: &Metrics) {
    let patience = config.drain_timeout;
    let stopped = async {
        shutdown.requested().await;
        tokio::time::sleep(patience).await;
    };
    let stuck = async {
        let Some(duration) = config.duration else { return std::future::pending().await };
        tokio::time::sleep(duration).await;
        let (mut acknowledged, mut last) = (Metrics::read(&metrics.events), Instant::now());
        while last.elapsed() < patience.max(ACK_TIMEOUT) {
            tokio::time::sleep(LOOK_AGAIN).await;
            let now = Metrics::read(&metrics.events);
            if std::mem::replace(&mut acknowledged, now) != now {
                last = Instant::now();
            }
        }
    };
    tokio::select! {
        () = stopped => {}
        () = stuck => {}
    }
}

/// Longer than Kafka's usual answer takes, so that a drain timeout of zero still receives it.
const ACK_TIMEOUT: Duration = Duration::from_secs(1);
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Runs the flow; when it is too late, what Kafka has not acknowledged is given up.
async fn give_up_after<T>(flow: impl Future<Output = T>, late: impl Future<Output = ()>, topic: &KafkaTopic) -> T {
    let mut flow = std::pin::pin!(flow);
    tokio::select! {
        done = &mut flow => return done,
        () = late => topic.give_up(),
    }
    flow.await
}
