//! The options that all pipelines have in common.

use super::HostArgs;
use super::values::{address, duration, interval};
use crate::latency::Recorder;
use crate::latency::log::Conditions;
use crate::telemetry::status::Pipeline;
use crate::telemetry::{Observed, Ready};
use anyhow::Result;
use clap::Args;
use flows::Metrics;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// The common options of `produce` and `ingest`.
#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// Write latency histograms to this file, an HdrHistogram interval log; if it exists, a number is added to the name
    #[arg(long, env = "CLICKSTREAM_LATENCY_LOG", value_name = "FILE")]
    pub latency_log: Option<PathBuf>,

    /// The time that each histogram in that file covers
    #[arg(long, env = "CLICKSTREAM_LATENCY_INTERVAL", default_value = "1s", value_parser = interval, value_name = "TIME")]
    pub latency_interval: Duration,

    /// Serve /metrics (Prometheus), /healthz and /readyz at this HOST:PORT
    #[arg(long, env = "CLICKSTREAM_METRICS", value_name = "HOST:PORT", value_parser = address)]
    pub metrics: Option<String>,

    #[command(flatten)]
    pub hosts: HostArgs,

    /// Time for the drain of a shutdown, from the signal on
    #[arg(long, env = "CLICKSTREAM_DRAIN_TIMEOUT", default_value = "30s", value_parser = duration, value_name = "TIME")]
    pub drain_timeout: Duration,
}

impl RunArgs {
    /// The recorder of a pipeline's latencies, with its log, which begins with the conditions of the run.
    ///
    /// # Errors
    /// When the log cannot be created.
    pub fn recorder(&self, metrics: &Arc<Metrics>, conditions: &Conditions) -> Result<Recorder> {
        Recorder::with_interval(metrics.clone(), self.latency_log.as_deref(), self.latency_interval, conditions)
    }

    /// Serves `/metrics` and the health checks of a pipeline, if `--metrics` is set.
    ///
    /// # Errors
    /// When the address cannot be listened at.
    pub async fn serve(
        &self,
        of: Pipeline,
        metrics: &Arc<Metrics>,
        recorder: &Recorder,
        ready: &Arc<Ready>,
    ) -> Result<()> {
        let Some(address) = &self.metrics else { return Ok(()) };
        Observed::new(of, metrics, recorder.window(), ready).serve(address, self.hosts.names()).await
    }
}
