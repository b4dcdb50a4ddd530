//! `clickstream ingest`: from the topic into ClickHouse, each message exactly once.

use crate::cli::IngestArgs;
use crate::clickhouse::{ClickHouse, Role, Writer, describe};
use crate::connect;
use crate::kafka::admin::{self, Client, Found};
use crate::kafka::lease::{Ended, Lease};
use crate::kafka::member::{self, Membership, PutOut};
use crate::kafka::opening::belongs_to;
use crate::kafka::refused::{self, Refused};
use crate::kafka::static_membership::InstanceFile;
use crate::kafka::{self, Committer, Naming};
use crate::metrics::{Observed, Ready};
use crate::output;
use crate::shutdown::Shutdown;
use crate::status::{Pipeline, Status, watch};
use crate::table::{self, grouped};
use anyhow::{Result, anyhow, bail};
use flows::{BatchConfig, Claim, IngestError, Ledger, Metrics, SettleError};
use futures::{StreamExt, TryStreamExt, stream};
use rdkafka::ClientConfig;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::task::AbortOnDropHandle;

/// Settings of the consumer, unless `--kafka` says otherwise.
const DEFAULTS: &[(&str, &str)] = &[
    ("enable.auto.commit", "false"), // only the ledger commits
    ("enable.auto.offset.store", "false"),
    ("auto.offset.reset", "earliest"),
    ("partition.assignment.strategy", "cooperative-sticky"),
    ("session.timeout.ms", "6000"), // a dead member's partitions move after that: as short as brokers allow
    ("heartbeat.interval.ms", "1000"),
    // Read in batches, librdkafka takes the end of a partition for a message that was consumed, and leaves one out later.
    ("enable.partition.eof", "false"),
    ("fetch.queue.backoff.ms", "10"), // the default of 1 s leaves a fast consumer waiting
    ("fetch.wait.max.ms", "100"),
    ("statistics.interval.ms", "1000"), // says what is queued
    ("queued.min.messages", "50000"),
    ("queued.max.messages.kbytes", "16384"), // bounds the memory of a backlog
    ("fetch.max.bytes", "8388608"),
];

/// Settings that the promises hang on, and what would become of them.
const FIXED: Refused = &[
    ("enable.auto.commit", "offsets would be committed before their rows are stored"),
    ("auto.commit.enable", "offsets would be committed before their rows are stored"),
    ("enable.auto.offset.store", "offsets would be committed before their rows are stored"),
    ("offset.store.method", "offsets are kept by the group alone"),
    ("group.id", "the group is given with --group"),
    ("group.instance.id", "the name is given with --instance-id"),
    ("group.protocol.type", "other members of the group would not know this one"),
    ("enable.partition.eof", "the client's batches would leave messages out"),
];

/// What `auto.offset.reset` says of a group that has committed nothing: to begin at the end of the topic.
const AT_THE_END: [&str; 3] = ["latest", "largest", "end"];

/// Who is put out of the group again before this time is over has a twin.
const A_WHILE: Duration = Duration::from_secs(30);

/// The `--instance-id` of a member that has no name.
pub const NO_NAME: &str = "none";

/// Ingests until a stop is requested or, with `--until-end`, everything is stored that was there at the start.
///
/// # Errors
/// When something does not fit at the start, when a failure will not pass by itself, or when the drain took too long.
pub async fn run(args: IngestArgs) -> Result<()> {
    let shutdown = Shutdown::on_signals()?;
    let (metrics, ready) = (Arc::new(Metrics::default()), Arc::new(Ready::default()));
    let mut recorder = args.run.recorder(&metrics)?;
    Observed::new(Pipeline::Ingest, &metrics, recorder.window(), &ready).serve(&args.run).await?;
    let mut status = Status::new(Pipeline::Ingest, metrics.clone(), ready.stuck.clone());
    let outcome = watch(&mut status, &mut recorder, ingest(&args, Naming::ById, &shutdown, &metrics, &ready)).await;
    let latencies = recorder.close();
    // Who did not come to begin has nothing to report but the reason.
    if Metrics::read(&metrics.rebalances) == 0 {
        return outcome;
    }
    let table = table::render(|stage| table::stage(&latencies, stage));
    output::closing(format_args!("{table}\n{}", summary(&metrics)), outcome)
}

/// What was done, in one line.
pub fn summary(metrics: &Metrics) -> String {
    let lost = Metrics::read(&metrics.expired) + Metrics::read(&metrics.reset);
    let lost =
        if lost > 0 { format!("; {} messages were lost before they were read", grouped(lost)) } else { String::new() };
    format!(
        "{} events and {} rejects stored in {} batches, {} inserts, {} retries; {} rows were stored before{lost}",
        grouped(Metrics::read(&metrics.events)),
        grouped(metrics.rejects.total()),
        grouped(Metrics::read(&metrics.batches)),
        grouped(Metrics::read(&metrics.inserts)),
        grouped(Metrics::read(&metrics.retries)),
        grouped(Metrics::read(&metrics.skipped)),
    )
}

/// Connects, joins the group and ingests.
///
/// # Errors
/// See [`run`].
pub async fn ingest(
    args: &IngestArgs,
    naming: Naming,
    shutdown: &Shutdown,
    metrics: &Arc<Metrics>,
    ready: &Ready,
) -> Result<()> {
    let mut config = consumer_config(args)?;
    let instance = instance_file(args)?;
    if let Some(instance) = &instance {
        config.set("group.instance.id", instance.name());
    }
    let claim = Claim::Group { group: args.group.clone(), take_over: args.take_over.clone() };
    let started = tokio::select! {
        started = start(args, naming, &claim) => started?,
        () = shutdown.requested() => return Ok(()),
    };
    let (clickhouse, until) = started;
    ready.ingesting(&clickhouse);
    let _watch = AbortOnDropHandle::new(tokio::spawn(clickhouse.clone().keep_watch()));
    let to = Membership {
        topic: args.kafka.topic.clone(),
        naming,
        config,
        writer: Writer::new(Role::Ingest, &args.group),
        claim,
        clickhouse,
        drain_timeout: args.run.drain_timeout,
        batch_timeout: args.batch_timeout,
        stuck: ready.stuck.clone(),
        until,
    };
    tracing::info!("ingesting {} as a member of group {}", args.kafka.topic, args.group);
    let batching = BatchConfig::new(args.batch_rows as usize, args.batch_timeout, args.in_flight.into());
    let (mut joined, is_random) = (Instant::now(), instance.as_ref().is_some_and(InstanceFile::is_random));
    let drained = loop {
        let drained = membership(&to, batching, shutdown, metrics).await;
        let Some(put_out) = drained.as_ref().err().and_then(|error| error.downcast_ref()) else { break drained };
        match put_out {
            // After a broker's death, a late request of ours under our old member id has us taken for somebody else. Under a
            // name that others could have it may be somebody else, who would be put out in turn.
            PutOut::Fenced(_) if is_random || joined.elapsed() > A_WHILE => joined = Instant::now(),
            PutOut::Fenced(_) => break drained,
            PutOut::GivenAway => {}
        }
        tracing::warn!("{put_out}; joining again");
    };
    if !drained? {
        bail!(
            "not drained within --drain-timeout: what was not stored is not committed either, the next start goes on there"
        );
    }
    Ok(())
}

/// From joining the group to leaving it, one lease after the other; whether the last one ended in order.
async fn membership(
    to: &Membership,
    batching: BatchConfig,
    shutdown: &Shutdown,
    metrics: &Arc<Metrics>,
) -> Result<bool> {
    let (leases, opened) = mpsc::unbounded_channel();
    let (thread, committer) = member::join(to.clone(), metrics.clone(), shutdown.clone(), leases)?;
    let drained = UnboundedReceiverStream::new(opened)
        .try_fold(true, |_, lease| ingest_lease(lease, batching, metrics, &committer))
        .await;
    // Whatever ended the work ends the membership too.
    if !matches!(&drained, Err(error) if error.is::<PutOut>()) {
        shutdown.request();
    }
    tokio::task::spawn_blocking(move || thread.join()).await?.map_err(|_| anyhow!("the Kafka thread crashed"))?;
    drained
}

/// The pipeline, for as long as the lease lasts; false if its drain took too long.
async fn ingest_lease(
    mut lease: Lease,
    batching: BatchConfig,
    metrics: &Arc<Metrics>,
    committer: &Arc<Committer>,
) -> Result<bool> {
    let hauls = std::mem::replace(&mut lease.records, futures::channel::mpsc::channel(0).1);
    let records = hauls.flat_map(stream::iter);
    let ledger = Ledger::open(lease.starts.iter().copied(), lease.offsets(committer), metrics.clone());
    let ownership = lease.ownership.clone();
    let flow = flows::ingest(records, batching, lease.sink.clone(), ownership.clone(), metrics.clone(), ledger);
    // Dropping the flow lets go of what is under way; nothing of it is committed.
    let outcome = tokio::select! {
        outcome = flow => outcome.map(Some),
        () = ownership.lost() => Ok(None),
    };
    match outcome {
        Ok(Some(ledger)) => {
            lease.end(Ended::Drained(ledger.marks().collect()));
            Ok(true)
        }
        Err(IngestError::Settle(SettleError::Lost(_))) => {
            let drained = !lease.given_up.load(SeqCst);
            lease.end(Ended::Fenced);
            Ok(drained)
        }
        Ok(None) => {
            let drained = !lease.given_up.load(SeqCst);
            lease.end(Ended::Stopped);
            Ok(drained)
        }
        Err(error) => {
            lease.end(Ended::Stopped);
            Err(anyhow!("stopped, nothing of the current batches is committed: {}", describe(&error)))
        }
    }
}

/// Waits for both services and checks what has to be there.
async fn start(
    args: &IngestArgs,
    naming: Naming,
    claim: &Claim,
) -> Result<(Arc<ClickHouse>, Option<BTreeMap<i32, i64>>)> {
    let patience = args.kafka.connect_timeout;
    let mut config = kafka::config(&args.kafka, &[])?;
    config.set("group.id", &args.group);
    let client = Arc::new(admin::client(&config)?);
    let clickhouse = Arc::new(ClickHouse::new(&args.clickhouse)?);
    let topic = &args.kafka.topic;
    let Found::Partitions(partitions) = connect::kafka(&client, topic, patience).await? else {
        bail!("topic {topic} is missing at {}: create it with `clickstream setup`", args.kafka.brokers);
    };
    let ends = connect::leaders(&client, topic, &partitions, patience).await?;
    if args.until_end {
        warn_of_open_transactions(&client, config, topic, &partitions).await?;
    }
    connect::group(&client, "READ", topic, &partitions, patience).await?;
    connect::clickhouse(&clickhouse, patience).await?;
    connect::checked(&clickhouse, patience, async || clickhouse.may_insert().await).await?;
    connect::checked(&clickhouse, patience, async || clickhouse.check_to_write().await).await?;
    let source = match naming {
        Naming::ById => tokio::task::block_in_place(|| admin::source(&client, topic))?,
        Naming::ByName => topic.clone(),
    };
    let asked = async || clickhouse.leases(&source, Role::Ingest, &partitions).await;
    let leases = connect::checked(&clickhouse, patience, asked).await?;
    if let Some(group) = leases.newest.values().find_map(|lease| claim.is_refused(lease)) {
        bail!(belongs_to(topic, group));
    }
    let until = ends.into_iter().map(|(partition, (_, high))| (partition, high)).collect();
    Ok((clickhouse, args.until_end.then_some(until)))
}

/// Says which messages `--until-end` leaves out, because a transaction before them is open: nobody reads them before it ends.
async fn warn_of_open_transactions(
    client: &Arc<Client>,
    mut config: ClientConfig,
    topic: &str,
    partitions: &[i32],
) -> Result<()> {
    config.set("isolation.level", "read_uncommitted");
    let (client, all, topic, partitions) =
        (client.clone(), admin::client(&config)?, topic.to_owned(), partitions.to_vec());
    let asked = tokio::task::spawn_blocking(move || {
        // In this order: messages that come in between are no sign of a transaction.
        let all = admin::ends(&all, &topic, &partitions, TRANSACTIONS)?;
        admin::ends(&client, &topic, &partitions, TRANSACTIONS).map(|stable| (all, stable))
    });
    let (all, stable) = match asked.await? {
        Ok(ends) => ends,
        Err(error) => {
            tracing::info!("cannot ask for open transactions: {error}");
            return Ok(());
        }
    };
    for (partition, (_, all)) in all {
        let stable = stable.get(&partition).map_or(all, |(_, stable)| *stable);
        if all > stable {
            tracing::warn!(
                "partition {partition}: {} messages from offset {stable} on are not read: a transaction is open there, and \
                 --until-end does not wait for its end; `kafka-transactions.sh find-hanging` says whose it is",
                grouped((all - stable).unsigned_abs())
            );
        }
    }
    Ok(())
}

/// How long a broker may take to say what is behind an open transaction.
const TRANSACTIONS: Duration = Duration::from_secs(5);

/// What a rebalance may take beside the drain: the last commits, and waiting for inserts that were let go of.
const BESIDE_THE_DRAIN: Duration = Duration::from_secs(30);
/// `max.poll.interval.ms`: what librdkafka has without a setting, and the most that it takes.
const USUAL_POLL_MS: u128 = 300_000;
const LONGEST_POLL_MS: u128 = 86_400_000;

fn consumer_config(args: &IngestArgs) -> Result<ClientConfig> {
    refused::check(&args.kafka.settings, FIXED)?;
    let name = |key| args.kafka.settings.name(key);
    let mut config = kafka::config(&args.kafka, DEFAULTS)?;
    config.set("group.id", &args.group);
    let refresh = config.get("topic.metadata.refresh.interval.ms").and_then(|ms| ms.parse::<i64>().ok());
    if refresh.is_some_and(|ms| ms < 1) {
        bail!("{}: must be 1 or more: new partitions would not be found", name("topic.metadata.refresh.interval.ms"));
    }
    match config.get("auto.offset.reset") {
        Some("error") => bail!(
            "{}: `error` is not supported: where to begin is asked of the group, and what it has lost is said",
            name("auto.offset.reset")
        ),
        Some(reset) if args.until_end && AT_THE_END.contains(&reset) => bail!(
            "{}: cannot be combined with --until-end: a new group would begin at the end, and store nothing",
            name("auto.offset.reset")
        ),
        _ => {}
    }
    // Who drains does not poll, and who has not polled for this long is put out, without the time that a session would leave.
    let (drain, poll) =
        (args.run.drain_timeout, config.get("max.poll.interval.ms").and_then(|ms| ms.parse::<u128>().ok()));
    let shortest = (drain + BESIDE_THE_DRAIN).as_millis();
    if poll.is_some_and(|poll| poll < shortest) {
        bail!("{}: must be {shortest} or more: --drain-timeout is {drain:?}", name("max.poll.interval.ms"));
    }
    if shortest > LONGEST_POLL_MS {
        bail!(
            "--drain-timeout {drain:?}: must be half a minute less than a day at most: Kafka waits no longer for a member"
        );
    }
    if config.get("max.poll.interval.ms").is_none() {
        config.set("max.poll.interval.ms", shortest.max(USUAL_POLL_MS).to_string());
    }
    // In the new protocol the broker sets the session, and revokes without asking.
    if config.get("group.protocol").is_some_and(|protocol| !protocol.eq_ignore_ascii_case("classic")) {
        bail!("{}: only `classic` is supported", name("group.protocol"));
    }
    Ok(config)
}

/// The name to be known by in the group. Where there is no place to keep one, the member has none, and a restart takes longer.
fn instance_file(args: &IngestArgs) -> Result<Option<InstanceFile>> {
    let of = [&*args.kafka.brokers, &args.kafka.topic, &args.group];
    let directory = args.state_dir.as_deref();
    match args.instance_id.as_deref() {
        Some(NO_NAME) => Ok(None),
        Some(name) => InstanceFile::acquire_named(directory, name, &of).map(Some),
        None if directory.is_some() => InstanceFile::acquire(directory, &of).map(Some),
        None => Ok(InstanceFile::acquire(None, &of).map_or_else(
            |why| {
                tracing::warn!(
                    "{why:#}. So this member has no name in its group: after a crash its partitions wait for the session timeout. \
                     Nothing is lost. --state-dir names a directory for it; --instance-id none goes without a name, and without \
                     this line"
                );
                None
            },
            Some,
        )),
    }
}
