//! `clickstream demo`: all of it on this machine, in one process and a ClickHouse.

use super::values::{demo_rate, some_time, switch};
use crate::clickhouse::ClickHouse;
use crate::clickhouse::users::{OWNER, READER};
use crate::demo::{
    Broker, DRAIN, DemoConfig, Pipelines, Places, Program, Server, Site, TerminalView, WorkDir, clickhouse_as,
};
use crate::latency::{Recorder, promise, table};
use crate::numbers::grouped;
use crate::output;
use crate::shutdown::Shutdown;
use crate::telemetry::status::TICK;
use crate::telemetry::{Live, summary};
use anyhow::{Result, anyhow, bail};
use clap::Args;
use flows::{Metrics, Rate};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

const PARTITIONS: i32 = 3;

#[derive(Args, Debug)]
pub struct DemoArgs {
    /// Events per second, up to 10,000
    #[arg(long, env = "CLICKSTREAM_RATE", default_value = "100", value_parser = demo_rate)]
    pub rate: Rate,

    /// The number of shoppers
    #[arg(long, env = "CLICKSTREAM_USERS", default_value = "500")]
    pub users: NonZeroUsize,

    /// Stop after this time
    #[arg(long = "for", env = "CLICKSTREAM_FOR", value_parser = some_time, value_name = "TIME")]
    pub duration: Option<Duration>,

    /// The dashboard's port; if it is taken, the next free one
    #[arg(long, env = "CLICKSTREAM_PORT", default_value_t = 3000)]
    pub port: u16,

    /// Keep ClickHouse's data in this directory [default: a temporary one, removed at the end]
    #[arg(long, env = "CLICKSTREAM_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,

    /// Open the dashboard in the browser
    #[arg(long, env = "CLICKSTREAM_OPEN", value_parser = switch)]
    pub open: bool,

    /// Latency target: a batch is flushed early enough that its oldest event is queryable within this time (5s in `ingest`)
    #[arg(long, env = "CLICKSTREAM_BATCH_TIMEOUT", default_value = "1s", value_parser = some_time, value_name = "TIME")]
    pub batch_timeout: Duration,
}

impl DemoArgs {
    fn traffic(&self) -> DemoConfig {
        let &Self { rate, users, duration, batch_timeout, .. } = self;
        DemoConfig { rate, users, duration, batch_timeout }
    }
}

/// Runs until a stop is requested or the time is over; drains, reports, and leaves nothing behind.
///
/// # Errors
/// When a part of it cannot be started, or not all sent events are stored in the end.
pub async fn run(args: DemoArgs) -> Result<()> {
    let shutdown = Shutdown::on_signals()?;
    // Other topics than those of earlier runs: the broker begins at offset 0 each time, and a kept ClickHouse has their rows.
    let topic = format!("clicks-{:08x}", rand::random::<u32>());
    // Before anything is fetched.
    let work_dir = WorkDir::open(args.data_dir.as_deref())?;
    let broker = Broker::start(&topic, PARTITIONS)?;
    let brokers = broker.address()?;
    output::line(format_args!("broker      in this process, at {brokers}"))?;

    let program = tokio::select! {
        program = tokio::task::spawn_blocking(Program::find) => program??,
        () = shutdown.requested() => return Ok(()),
    };
    let mut server = tokio::select! {
        server = Server::start(&program, &work_dir) => server?,
        () = shutdown.requested() => return Ok(()),
    };
    let places = Places {
        dashboard: String::new(), // it is served once there are tables
        broker: format!("in this process, {brokers}"),
        clickhouse: format!("{}, http://127.0.0.1:{}", program.describe(), work_dir.http_port),
        kept: work_dir.kept,
    };
    let outcome = async {
        output::line(format_args!("ClickHouse  {}", places.clickhouse))?;
        let pipelines = Pipelines::new(&args.traffic(), &topic, &brokers, &work_dir)?;
        show(&args, &shutdown, places, &pipelines, &work_dir, &mut server).await
    };
    let outcome = outcome.await;
    server.end().await;
    outcome
}

/// The rest of the demo, once ClickHouse answers.
async fn show(
    args: &DemoArgs,
    shutdown: &Shutdown,
    mut places: Places,
    pipelines: &Pipelines,
    work_dir: &WorkDir,
    server: &mut Server<'_>,
) -> Result<()> {
    let owner = ClickHouse::new(&clickhouse_as(&OWNER, work_dir)?)?;
    tokio::select! {
        applied = owner.apply_schema() => applied.map_err(|failure| anyhow!("cannot set up the tables: {failure}"))?,
        () = shutdown.requested() => return Ok(()),
    };
    output::line("tables      clickstream.events, clickstream.rejected")?;
    // The page is served until everything has ended, so that a visitor sees the last rows.
    let site = Site::open(args.port, &clickhouse_as(&READER, work_dir)?).await?;
    if args.open {
        site.open_browser()?;
    }
    let Pipelines { sent, stored, stuck, .. } = pipelines;
    let mut recorders = [Recorder::new(sent.clone(), None)?, Recorder::new(stored.clone(), None)?];
    places.dashboard.clone_from(&site.url);
    let live = Live { metrics: stored.clone(), window: recorders[1].window(), promise: args.batch_timeout };
    let mut terminal_view = TerminalView::new(places, sent.clone(), live, stuck.clone());
    let outcome = {
        let ticking = async {
            let mut ticks = tokio::time::interval(TICK);
            loop {
                ticks.tick().await;
                recorders.iter_mut().for_each(Recorder::tick);
                terminal_view.tick(site.health.noted().as_deref());
            }
        };
        tokio::select! {
            outcome = pipelines.run(shutdown) => outcome,
            ended = server.keep(|note| site.health.note(note)) => ended,
            () = late(shutdown) => Err(anyhow!(
                "the drain took longer than {} s: {}; ClickHouse or the broker did not answer",
                DRAIN.as_secs(),
                left(sent, pipelines).unwrap_or("all acknowledged events are stored".into())
            )),
            () = ticking => unreachable!("it has no end"),
        }
    };
    terminal_view.clear();
    let [mut latencies, of_stored] = recorders.map(Recorder::close);
    latencies.add(&of_stored);
    let table = table::render(&latencies, promise::nanos(args.batch_timeout));
    let outcome = outcome.and_then(|()| all_is_stored(sent, pipelines));
    output::closing(format_args!("\n{table}\n{}", summary(stored)), outcome)
}

/// Resolves when a drain has taken too long.
async fn late(shutdown: &Shutdown) {
    shutdown.requested().await;
    tokio::time::sleep(DRAIN).await;
}

fn all_is_stored(sent: &Metrics, pipelines: &Pipelines) -> Result<()> {
    match left(sent, pipelines) {
        None => Ok(()),
        Some(left) => bail!("{left} before the end"),
    }
}

/// The number of events that are not stored, if there are any.
fn left(sent: &Metrics, pipelines: &Pipelines) -> Option<String> {
    let (sent, rows) = (Metrics::read(&sent.events), pipelines.rows());
    (rows < sent).then(|| format!("{} of {} events were not stored", grouped(sent - rows), grouped(sent)))
}
