//! `clickstream demo`: all of it on this machine. The pipelines are the very ones of `produce` and `ingest`.

use super::ingest::{ingest, summary};
use super::produce::produce;
use crate::cli::{ClickHouseArgs, DemoArgs, IngestArgs, KafkaArgs, ProduceArgs, RunArgs};
use crate::clickhouse::{ClickHouse, Reader};
use crate::dashboard::{self, Health};
use crate::demo::{Home, Panel, Places, Program, Server};
use crate::http;
use crate::kafka::Naming;
use crate::latency_log::{INTERVAL, Recorder};
use crate::metrics::Ready;
use crate::status::TICK;
use crate::stop::Stop;
use crate::table::{self, grouped};
use anyhow::{Context, Result, anyhow, bail};
use flows::{Faults, Meter};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use url::Url;

const PARTITIONS: i32 = 3;
/// How many ports are tried for the dashboard.
const PORTS: u16 = 50;
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
    let mut places = Places {
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
    let health = Health::default();
    let mut reading = ingest_args.clickhouse.clone();
    reading.clickhouse_user = "reader".into();
    reading.clickhouse_password_file = Some(home.file("reader.password"));
    let (listener, url) = listen(args.port).await?;
    println!("dashboard   {url}");
    places.url = url;
    let site = dashboard::router(Reader::new(&reading)?, health.clone(), Vec::new());
    // Until everything has ended: who looks while it drains sees the last rows come in.
    let served = Stop::default();
    let site = tokio::spawn(http::serve(listener, site, served.clone()));
    if args.open {
        open(&places.url);
    }
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
        let keeping = server.keep(|text| health.note(text));
        let ticking = async {
            let mut ticks = tokio::time::interval(TICK);
            loop {
                ticks.tick().await;
                recorders.iter_mut().for_each(Recorder::tick);
                panel.tick(&sent, &stored, &recorders[1], health.noted().as_deref());
            }
        };
        tokio::select! {
            both = futures::future::join(producing, ingesting) => both.0.and_then(|produced| both.1.map(|()| produced)),
            ended = keeping => Err(ended.expect_err("it returns only when it fails")),
            () = ticking => unreachable!("it has no end"),
        }
    };
    panel.clear();
    served.request();
    site.abort();
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

/// The port that was asked for, or the next free one.
async fn listen(port: u16) -> Result<(TcpListener, String)> {
    for nth in 0..PORTS {
        let Some(candidate) = port.checked_add(nth) else { break };
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", candidate)).await {
            if nth > 0 {
                println!("dashboard   port {port} is taken: {candidate} it is");
            }
            let url = format!("http://{}", listener.local_addr()?);
            return Ok((listener, url));
        }
    }
    bail!("no free port from {port} on for the dashboard: see --port")
}

/// Opens the page in the browser of whoever has one.
fn open(url: &str) {
    let program = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    let quiet = || std::process::Stdio::null();
    let opened = Command::new(program).arg(url).stdin(quiet()).stdout(quiet()).stderr(quiet()).spawn();
    if let Err(error) = opened {
        println!("dashboard   cannot open a browser ({program}: {error}): go to {url}");
    }
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
    let run = RunArgs { latency_log: None, latency_interval: INTERVAL, metrics: None, drain_timeout: DRAIN };
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
