//! `clickstream demo`: all of it on this machine. The pipelines are the very ones of `produce` and `ingest`.

use super::ingest::{ingest, summary};
use super::produce::produce;
use crate::cli::{ClickHouseArgs, DemoArgs, IngestArgs, KafkaArgs, ProduceArgs, RunArgs};
use crate::clickhouse::ClickHouse;
use crate::demo::{Home, Panel, Places, Program, Server};
use crate::kafka::Naming;
use crate::latency_log::Recorder;
use crate::metrics::Ready;
use crate::status::TICK;
use crate::stop::Stop;
use crate::table::{self, grouped};
use anyhow::{Context, Result, anyhow, bail};
use flows::{Faults, Meter};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use url::Url;

const PARTITIONS: i32 = 3;
/// How long what was sent may take to be stored after a Ctrl-C.
const DRAIN: Duration = Duration::from_secs(30);
/// How often it is looked at then.
const LOOK: Duration = Duration::from_millis(20);

/// Runs until a stop is requested or the time is over; drains, reports, and leaves nothing behind.
///
/// # Errors
/// When something of it cannot be started, or not everything that was sent is stored in the end.
pub async fn run(args: DemoArgs) -> Result<()> {
    let stop = Stop::on_signals()?;
    // Other topics than those of earlier runs: the broker begins at offset 0 each time, and a kept ClickHouse has their rows.
    let topic = format!("clicks-{:08x}", rand::random::<u32>());
    let broker = broker(&topic)?;
    println!("broker      in this process, at {}", broker.bootstrap_servers());

    let program = tokio::task::spawn_blocking(Program::find).await??;
    let home = Home::open(args.data_dir.as_deref())?;
    let mut server = tokio::select! {
        server = Server::start(&program, &home) => server?,
        () = stop.requested() => return Ok(()),
    };
    let outcome = show(&args, &stop, &topic, &broker, &program, &home, &mut server).await;
    server.end().await;
    outcome
}

/// Everything behind a ClickHouse that answers.
async fn show(
    args: &DemoArgs,
    stop: &Stop,
    topic: &str,
    broker: &MockCluster<'_, DefaultProducerContext>,
    program: &Program,
    home: &Home,
    server: &mut Server<'_>,
) -> Result<()> {
    let places = Places {
        broker: format!("in this process, {}", broker.bootstrap_servers()),
        clickhouse: format!("{}, http://127.0.0.1:{}", program.describe(), home.http_port),
        url: String::new(),
    };
    println!("ClickHouse  {}", places.clickhouse);
    let (produce_args, ingest_args) = arguments(args, topic, &broker.bootstrap_servers(), home)?;
    let clickhouse = ClickHouse::new(&ingest_args.clickhouse)?;
    clickhouse.apply_schema().await.map_err(|failure| anyhow!("cannot set up the tables: {failure}"))?;
    println!("tables      clickstream.events, clickstream.rejected");

    let (sent, stored) = (Arc::new(Meter::default()), Arc::new(Meter::default()));
    let mut recorders = [Recorder::new(sent.clone(), None)?, Recorder::new(stored.clone(), None)?];
    let note = Mutex::new(None::<String>);
    let mut panel = Panel::new(places);
    let ready = Ready::default();
    let outcome = {
        let drained = Stop::default();
        let producing = async {
            // The broker takes three seconds to see who is in the group: events of that time would look slow.
            until(|| Meter::read(&stored.rebalances) > 0 || stop.is_requested()).await;
            let produced = produce(&produce_args, stop, &sent, &ready).await?;
            tokio::time::timeout(DRAIN, until(|| rows(&stored) >= Meter::read(&sent.events))).await.ok();
            drained.request();
            Ok(produced)
        };
        let ingesting = async {
            let outcome = ingest(&ingest_args, Naming::ByName, &drained, &stored, &ready).await;
            // Without it there is nothing more to show.
            stop.request();
            outcome
        };
        let keeping = server.keep(|text| {
            *note.lock().unwrap_or_else(PoisonError::into_inner) = text.map(str::to_owned);
        });
        let ticking = async {
            let mut ticks = tokio::time::interval(TICK);
            loop {
                ticks.tick().await;
                recorders.iter_mut().for_each(Recorder::tick);
                let note = note.lock().unwrap_or_else(PoisonError::into_inner).clone();
                panel.tick(&sent, &stored, &recorders[1], note.as_deref());
            }
        };
        tokio::select! {
            both = futures::future::join(producing, ingesting) => both.0.and_then(|produced| both.1.map(|()| produced)),
            ended = keeping => Err(ended.expect_err("it returns only when it fails")),
            () = ticking => unreachable!("it has no end"),
        }
    };
    panel.clear();
    let [of_sent, of_stored] = recorders.map(Recorder::close);
    let mut latencies = of_sent?;
    latencies.add(&of_stored?);
    println!("\n{}", table::render(|stage| table::stage(&latencies, stage)));
    println!("{}", summary(&stored));
    outcome?;
    let (sent, rows) = (Meter::read(&sent.events), rows(&stored));
    if rows < sent {
        bail!("{} of {} events were not stored before the end", grouped(sent - rows), grouped(sent));
    }
    Ok(())
}

/// A broker in this process: librdkafka's mock cluster, which speaks the protocol on a port of its own.
fn broker(topic: &str) -> Result<MockCluster<'static, DefaultProducerContext>> {
    let broker = MockCluster::new(1).context("cannot start the in-process broker")?;
    broker.create_topic(topic, PARTITIONS, 1).context("cannot make the topic")?;
    Ok(broker)
}

fn rows(stored: &Meter) -> u64 {
    Meter::read(&stored.events) + Meter::read(&stored.rejects)
}

async fn until(reached: impl Fn() -> bool) {
    while !reached() {
        tokio::time::sleep(LOOK).await;
    }
}

/// What `produce` and `ingest` would be given on the command line.
fn arguments(args: &DemoArgs, topic: &str, brokers: &str, home: &Home) -> Result<(ProduceArgs, IngestArgs)> {
    let kafka = KafkaArgs {
        brokers: brokers.to_owned(),
        topic: topic.to_owned(),
        kafka: Vec::new(),
        connect_timeout: Duration::from_secs(10),
    };
    let run = RunArgs { latency_log: None, metrics: None, drain_timeout: DRAIN };
    let clickhouse = ClickHouseArgs {
        clickhouse_url: Url::parse(&format!("http://127.0.0.1:{}", home.http_port))?,
        clickhouse_user: "writer".into(),
        clickhouse_password_file: Some(home.file("writer.password")),
        database: "clickstream".into(),
    };
    let produce = ProduceArgs {
        kafka: kafka.clone(),
        rate: args.rate,
        users: args.users,
        count: None,
        duration: args.duration,
        seed: None,
        manifest: None,
        faults: Faults::default(),
        in_flight: None,
        run: run.clone(),
    };
    let ingest = IngestArgs {
        kafka,
        clickhouse,
        group: "clickstream".into(),
        instance_id: None,
        batch_rows: 1_000,
        batch_timeout: args.batch_timeout,
        in_flight: 4,
        until_end: false,
        run,
    };
    Ok((produce, ingest))
}
