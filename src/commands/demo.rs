//! `clickstream demo`: all of it on this machine, in one process and a ClickHouse.

use super::ingest::summary;
use crate::cli::DemoArgs;
use crate::clickhouse::ClickHouse;
use crate::clickhouse::users::{OWNER, READER};
use crate::demo::{Broker, DRAIN, Home, Panel, Pipelines, Places, Program, Server, Site, clickhouse_as};
use crate::latency_log::Recorder;
use crate::output;
use crate::status::TICK;
use crate::stop::Stop;
use crate::table::{self, grouped};
use anyhow::{Result, anyhow, bail};
use flows::Meter;

const PARTITIONS: i32 = 3;

/// Runs until a stop is requested or the time is over; drains, reports, and leaves nothing behind.
///
/// # Errors
/// When something of it cannot be started, or not everything that was sent is stored in the end.
pub async fn run(args: DemoArgs) -> Result<()> {
    let stop = Stop::on_signals()?;
    // Other topics than those of earlier runs: the broker begins at offset 0 each time, and a kept ClickHouse has their rows.
    let topic = format!("clicks-{:08x}", rand::random::<u32>());
    // Before anything is fetched.
    let home = Home::open(args.data_dir.as_deref())?;
    let broker = Broker::start(&topic, PARTITIONS)?;
    let brokers = broker.address()?;
    output::line(format_args!("broker      in this process, at {brokers}"))?;

    let program = tokio::select! {
        program = tokio::task::spawn_blocking(Program::find) => program??,
        () = stop.requested() => return Ok(()),
    };
    let mut server = tokio::select! {
        server = Server::start(&program, &home) => server?,
        () = stop.requested() => return Ok(()),
    };
    let places = Places {
        broker: format!("in this process, {brokers}"),
        clickhouse: format!("{}, http://127.0.0.1:{}", program.describe(), home.http_port),
        kept: home.kept,
    };
    let outcome = async {
        output::line(format_args!("ClickHouse  {}", places.clickhouse))?;
        let pipelines = Pipelines::new(&args, &topic, &brokers, &home)?;
        show(&args, &stop, places, &pipelines, &home, &mut server).await
    };
    let outcome = outcome.await;
    server.end().await;
    outcome
}

/// Everything behind a ClickHouse that answers.
async fn show(
    args: &DemoArgs,
    stop: &Stop,
    places: Places,
    pipelines: &Pipelines,
    home: &Home,
    server: &mut Server<'_>,
) -> Result<()> {
    let owner = ClickHouse::new(&clickhouse_as(&OWNER, home)?)?;
    tokio::select! {
        applied = owner.apply_schema() => applied.map_err(|failure| anyhow!("cannot set up the tables: {failure}"))?,
        () = stop.requested() => return Ok(()),
    };
    output::line("tables      clickstream.events, clickstream.rejected")?;
    // Served until everything has ended: who looks while it drains sees the last rows come in.
    let site = Site::open(args.port, &clickhouse_as(&READER, home)?).await?;
    if args.open {
        site.open_browser()?;
    }
    let Pipelines { sent, stored, .. } = pipelines;
    let mut recorders = [Recorder::new(sent.clone(), None)?, Recorder::new(stored.clone(), None)?];
    let mut panel = Panel::new(places, site.url.clone());
    let outcome = {
        let ticking = async {
            let mut ticks = tokio::time::interval(TICK);
            loop {
                ticks.tick().await;
                recorders.iter_mut().for_each(Recorder::tick);
                panel.tick(sent, stored, &recorders[1], site.health.noted().as_deref());
            }
        };
        tokio::select! {
            outcome = pipelines.run(stop) => outcome,
            ended = server.keep(|note| site.health.note(note)) => ended,
            () = late(stop) => Err(anyhow!(
                "the drain took longer than {} s: {}; ClickHouse or the broker did not answer",
                DRAIN.as_secs(),
                left(sent, pipelines).unwrap_or("all that the broker acknowledged is stored".into())
            )),
            () = ticking => unreachable!("it has no end"),
        }
    };
    panel.clear();
    let [mut latencies, of_stored] = recorders.map(Recorder::close);
    latencies.add(&of_stored);
    let table = table::render(|stage| table::stage(&latencies, stage));
    let outcome = outcome.and_then(|()| all_is_stored(sent, pipelines));
    output::closing(format_args!("\n{table}\n{}", summary(stored)), outcome)
}

/// Resolves when a drain has taken too long.
async fn late(stop: &Stop) {
    stop.requested().await;
    tokio::time::sleep(DRAIN).await;
}

fn all_is_stored(sent: &Meter, pipelines: &Pipelines) -> Result<()> {
    match left(sent, pipelines) {
        None => Ok(()),
        Some(left) => bail!("{left} before the end"),
    }
}

/// What is not stored, if anything is not.
fn left(sent: &Meter, pipelines: &Pipelines) -> Option<String> {
    let (sent, rows) = (Meter::read(&sent.events), pipelines.rows());
    (rows < sent).then(|| format!("{} of {} events were not stored", grouped(sent - rows), grouped(sent)))
}
