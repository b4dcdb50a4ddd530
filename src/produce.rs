//! `clickstream produce`: the shoppers, into the topic.

use crate::cli::ProduceArgs;
use crate::kafka::admin::{self, Client, Found};
use crate::kafka::refused::{self, Refused};
use crate::kafka::topic::{self, KafkaTopic};
use crate::manifest::Manifest;
use crate::metrics::{Observed, Ready};
use crate::shutdown::Shutdown;
use crate::status::{Pipeline, Status, watch};
use crate::table::{self, grouped};
use crate::{connect, kafka, output};
use anyhow::{Context, Result, bail};
use flows::{Metrics, Rate, Shoppers, Tally, schedule};
use futures::StreamExt;
use std::num::{NonZeroU64, NonZeroUsize};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Settings with which no message would be acknowledged, as far as this program can see.
const FIXED: Refused = &[
    ("transactional.id", "messages are not sent in transactions"),
    ("delivery.report.only.error", "what is acknowledged would not be known"),
];

/// Produces until the count or the time is reached, or a stop is requested.
///
/// # Errors
/// When Kafka does not answer at the start, the manifest cannot be written, or messages were not acknowledged in the end.
pub async fn run(args: ProduceArgs) -> Result<()> {
    let shutdown = Shutdown::on_signals()?;
    let (metrics, ready) = (Arc::new(Metrics::default()), Arc::new(Ready::default()));
    let mut recorder = args.run.recorder(&metrics)?;
    Observed::new(Pipeline::Produce, &metrics, recorder.window(), &ready).serve(&args.run).await?;
    let mut status = Status::new(Pipeline::Produce, metrics.clone(), ready.stuck.clone());
    let produced = watch(&mut status, &mut recorder, produce(&args, &shutdown, &metrics, &ready)).await;
    let latencies = recorder.close();
    let Some(Produced { tally, seed }) = produced? else { return Ok(()) };
    let table = table::render(|stage| table::stage(&latencies, stage));
    let report = format!("{table}\n{} messages acknowledged, seed {seed}", grouped(tally.acknowledged));
    output::closing(report, whole(&tally, args.run.drain_timeout))
}

/// Whether Kafka has acknowledged all of it.
fn whole(tally: &Tally, drain_timeout: Duration) -> Result<()> {
    if tally.lost > 0 {
        bail!(
            "{} messages were not acknowledged within --drain-timeout {}: the topic may hold them or not; who needs to know compares --manifest with the topic",
            grouped(tally.lost),
            humantime::format_duration(drain_timeout)
        );
    }
    Ok(())
}

/// What a run of the producer has done.
pub struct Produced {
    pub tally: Tally,
    pub seed: u64,
}

/// Connects and produces; none when it was stopped before it began.
///
/// # Errors
/// When Kafka does not answer at the start, or the manifest cannot be written.
pub async fn produce(
    args: &ProduceArgs,
    shutdown: &Shutdown,
    metrics: &Arc<Metrics>,
    ready: &Ready,
) -> Result<Option<Produced>> {
    let mut manifest = args.manifest.as_deref().map(Manifest::create).transpose()?;
    refused::check(&args.kafka.settings, FIXED)?;
    let config = kafka::config(&args.kafka, topic::DEFAULTS)?;
    let client = Arc::new(admin::client(&config)?);
    let name = &args.kafka.topic;
    // The schedule begins when Kafka has answered: its first event is not late before it could be sent.
    tokio::select! {
        found = connected(&client, args) => found?,
        () = shutdown.requested() => return Ok(None),
    }
    let topic = KafkaTopic::new(&config, name, metrics.clone(), ready.stuck.clone())
        .context("cannot set up the Kafka producer: check --kafka settings")?;
    topic.warm_up(Duration::from_secs(5)).await?;

    let seed = args.seed.unwrap_or_else(rand::random);
    tracing::info!(seed, users = args.users.get(), "producing into {name} at {}", args.kafka.brokers);
    let shoppers = Shoppers::new(seed, args.users.get(), args.faults);
    let due = schedule(args.rate, count(args)).take_until(end(
        args.duration.filter(|_| args.rate == Rate::Max),
        shutdown,
        &topic,
    ));
    let in_flight = args.in_flight.map_or(args.rate.in_flight(), NonZeroUsize::get);

    let flow = flows::produce(due, shoppers, &topic, in_flight, metrics, |receipt| {
        if receipt.acked.is_err() {
            let acknowledged =
                || format!("stopped after {} acknowledged messages", grouped(Metrics::read(&metrics.events)));
            topic.refused().with_context(acknowledged)?;
        }
        manifest.as_mut().map_or(Ok(()), |manifest| manifest.note(&receipt))
    });
    ready.producing();
    let tally = give_up_after(flow, too_late(args, shutdown, metrics), &topic).await?;
    if let Some(manifest) = manifest {
        manifest.close()?;
    }
    Ok(Some(Produced { tally, seed }))
}

/// Waits until the topic is there, and those who lead its partitions.
async fn connected(client: &Arc<Client>, args: &ProduceArgs) -> Result<()> {
    let (name, patience) = (&args.kafka.topic, args.kafka.connect_timeout);
    let Found::Partitions(partitions) = connect::kafka(client, name, patience).await? else {
        bail!("topic {name} is missing at {}: create it with `clickstream setup`", args.kafka.brokers);
    };
    connect::leaders(client, name, &partitions, patience).await.map(drop)
}

/// How many messages: `--count`, or as many as are due within `--for`, whichever is less.
fn count(args: &ProduceArgs) -> Option<NonZeroU64> {
    let within = match (args.rate, args.duration) {
        (Rate::PerSecond(rate), Some(time)) => NonZeroU64::new((rate * time.as_secs_f64()).ceil() as u64),
        _ => None,
    };
    args.count.into_iter().chain(within).min()
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

/// Resolves when what Kafka has not acknowledged is to be given up: at the drain timeout after a stop was requested; or when the
/// time of `--for` is over and for so long nothing was acknowledged. A producer that is only slow goes on.
async fn too_late(args: &ProduceArgs, shutdown: &Shutdown, metrics: &Metrics) {
    let patience = args.run.drain_timeout;
    let stopped = async {
        shutdown.requested().await;
        tokio::time::sleep(patience).await;
    };
    let stuck = async {
        let Some(duration) = args.duration else { return std::future::pending().await };
        tokio::time::sleep(duration).await;
        let (mut acknowledged, mut last) = (Metrics::read(&metrics.events), Instant::now());
        while last.elapsed() < patience.max(AN_ANSWER) {
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

/// Kafka's usual answer takes less: who drains in no time still takes it.
const AN_ANSWER: Duration = Duration::from_secs(1);
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
