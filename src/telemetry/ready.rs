//! Whether a pipeline does its work.

use crate::stuck::Stuck;
use futures::future::BoxFuture;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

/// Checks whether an ingester's sink answers.
type Probe = Box<dyn Fn() -> BoxFuture<'static, bool> + Send + Sync>;

/// Whether a pipeline does its work. The pipeline writes it, `/readyz` reads it.
#[derive(Default)]
pub struct Ready {
    producing: AtomicBool,
    probe: OnceLock<Probe>,
    /// The reason why the flow is stuck now.
    pub(crate) stuck: Arc<Stuck>,
}

impl Ready {
    /// The producer is connected and has begun.
    pub(crate) fn producing(&self) {
        self.producing.store(true, Relaxed);
    }

    /// The ingester has found everything that it needs; `probe` asks whether ClickHouse still answers.
    pub(crate) fn ingesting(&self, probe: impl Fn() -> BoxFuture<'static, bool> + Send + Sync + 'static) {
        // Only the start of the pipeline says it, once.
        let _ = self.probe.set(Box::new(probe));
    }

    /// Whether the producer has begun.
    pub(super) fn is_producing(&self) -> bool {
        self.producing.load(Relaxed)
    }

    /// The question to ClickHouse, once the ingester has found everything.
    pub(super) fn question(&self) -> Option<BoxFuture<'static, bool>> {
        self.probe.get().map(|probe| probe())
    }
}
