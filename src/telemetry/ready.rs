//! Whether a pipeline does its work.

use super::status::Pipeline;
use crate::stuck::Stuck;
use flows::Metrics;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Whether a pipeline does its work. The pipeline writes it; `/readyz`, `/metrics` and the service manager get it.
#[derive(Default)]
pub struct Ready {
    has_begun: AtomicBool,
    /// The reason why the flow is stuck now.
    pub(crate) stuck: Arc<Stuck>,
}

impl Ready {
    /// The producer is connected, or the ingester has found everything that it needs.
    pub(crate) fn begun(&self) {
        self.has_begun.store(true, Relaxed);
    }

    /// The reason why the pipeline is not ready; none while it does its work.
    pub(super) fn missing(&self, of: Pipeline, metrics: &Metrics) -> Option<String> {
        match of {
            Pipeline::Produce if !self.has_begun.load(Relaxed) => Some("Kafka has not answered yet".into()),
            Pipeline::Ingest { .. } if !self.has_begun.load(Relaxed) => Some("still starting".into()),
            Pipeline::Ingest { .. } => without_partitions(metrics).or_else(|| self.stuck.not_ready()),
            Pipeline::Produce => self.stuck.not_ready(),
        }
    }
}

/// Says that a member has not heard of its group, if that is so.
fn without_partitions(metrics: &Metrics) -> Option<String> {
    const WAITS: &str = "the group has not assigned partitions yet";
    let is_new = |metrics: &Metrics| Metrics::read(&metrics.rebalances) == 0;
    let topics = metrics.topics();
    match topics.iter().find(|(_, metrics)| is_new(metrics)) {
        Some((topic, _)) => Some(format!("topic {topic}: {WAITS}")),
        None => (topics.is_empty() && is_new(metrics)).then(|| WAITS.to_owned()),
    }
}
