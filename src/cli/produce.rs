//! `clickstream produce`: the shoppers, into the topic.

use super::values::some_time;
use super::{KafkaArgs, RunArgs};
use crate::latency::log::Conditions;
use crate::latency::promise::PROMISE_NS;
use crate::latency::{conditions, table};
use crate::numbers::grouped;
use crate::output;
use crate::produce::{self, ProduceConfig, Produced};
use crate::shutdown::Shutdown;
use crate::telemetry::Ready;
use crate::telemetry::status::{Pipeline, Status, watch};
use anyhow::{Result, bail};
use clap::Args;
use flows::{Faults, Metrics, Rate, Tally, Template};
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

#[derive(Args, Debug)]
pub struct ProduceArgs {
    #[command(flatten)]
    pub kafka: KafkaArgs,

    /// Events per second, or `max`
    #[arg(long, env = "CLICKSTREAM_RATE", default_value = "100")]
    pub rate: Rate,

    /// Events of your own in place of the shop's: a file with one JSON object or more, with placeholders in their strings: {{id}}, {{user}},
    /// {{session}}, {{time}}, {{time_ms}}, {{choice A|B}}, {{number 0.99..99.99}}
    #[arg(long, env = "CLICKSTREAM_TEMPLATE", value_name = "FILE", value_parser = template, conflicts_with_all = ["manifest", "faults"])]
    pub template: Option<Template>,

    /// The number of shoppers, or of a template's users
    #[arg(long, env = "CLICKSTREAM_USERS", default_value = "500")]
    pub users: NonZeroUsize,

    /// Stop after this number of messages
    #[arg(long, env = "CLICKSTREAM_COUNT", value_name = "N")]
    pub count: Option<NonZeroU64>,

    /// Stop after this time, when all messages are acknowledged; fail if none is acknowledged for --drain-timeout
    #[arg(long = "for", env = "CLICKSTREAM_FOR", value_parser = some_time, value_name = "TIME")]
    pub duration: Option<Duration>,

    /// The seed of the events: the same seed gives the same events [default: random]
    #[arg(long, env = "CLICKSTREAM_SEED", value_name = "N")]
    pub seed: Option<u64>,

    /// Write one line of JSON for each acknowledged message
    #[arg(long, env = "CLICKSTREAM_MANIFEST", value_name = "FILE")]
    pub manifest: Option<PathBuf>,

    /// Shares of faulty messages: bad, sent twice, or late, such as bad=0.01,dup=0.01,late=0.01
    #[arg(long, env = "CLICKSTREAM_FAULTS", default_value = "", hide_default_value = true, value_name = "SHARES")]
    pub faults: Faults,

    /// Maximum number of unacknowledged messages [default: those of half a second, 64 to 10,000]
    #[arg(long, env = "CLICKSTREAM_PRODUCE_IN_FLIGHT", value_name = "N")]
    pub in_flight: Option<NonZeroUsize>,

    #[command(flatten)]
    pub run: RunArgs,
}

/// The template in a file.
fn template(path: &str) -> Result<Template, String> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    text.parse()
}

impl ProduceArgs {
    /// The configuration of the pipeline.
    fn config(&self) -> ProduceConfig {
        ProduceConfig {
            kafka: self.kafka.config(),
            connect_timeout: self.kafka.connect_timeout,
            rate: self.rate,
            users: self.users,
            template: self.template.clone(),
            count: self.count,
            duration: self.duration,
            seed: self.seed,
            manifest: self.manifest.clone(),
            faults: self.faults,
            in_flight: self.in_flight,
            drain_timeout: self.run.drain_timeout,
        }
    }

    /// The settings that latencies depend on, for their log.
    fn conditions(&self) -> Conditions {
        let mut settings = vec![("rate", self.rate.to_string()), ("users", self.users.to_string())];
        settings.extend(self.in_flight.map(|messages| ("in-flight", messages.to_string())));
        conditions::of("produce", &settings)
    }
}

/// Produces until the count or the time is reached, or a shutdown is requested.
///
/// # Errors
/// When Kafka does not answer at the start, the manifest cannot be written, or messages were not acknowledged in the end.
pub async fn run(args: ProduceArgs) -> Result<()> {
    let shutdown = Shutdown::on_signals()?;
    let (metrics, ready) = (Arc::new(Metrics::default()), Arc::new(Ready::default()));
    let mut recorder = args.run.recorder(&metrics, &args.conditions())?;
    args.run.serve(Pipeline::Produce, &metrics, &recorder, &ready).await?;
    let mut status = Status::new(Pipeline::Produce, &metrics, &recorder, &ready, &shutdown);
    let produced = watch(&mut status, &mut recorder, produce::run(&args.config(), &shutdown, &metrics, &ready)).await;
    let latencies = recorder.close();
    let Some(Produced { tally, seed }) = produced? else { return Ok(()) };
    let table = table::render(&latencies, PROMISE_NS);
    let report = format!("{table}\n{} messages acknowledged, seed {seed}", grouped(tally.acknowledged));
    output::closing(report, whole(&tally, args.run.drain_timeout))
}

/// Whether Kafka has acknowledged all messages.
fn whole(tally: &Tally, drain_timeout: Duration) -> Result<()> {
    if tally.lost > 0 {
        bail!(
            "{} messages were not acknowledged within {} (--drain-timeout): the topic may hold them or not. Compare --manifest with the topic to find out",
            grouped(tally.lost),
            humantime::format_duration(drain_timeout)
        );
    }
    Ok(())
}
