//! Whether a pipeline does its work.

use crate::stuck::Stuck;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Whether a pipeline does its work. The pipeline writes it, `/readyz` reads it.
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

    /// Whether the pipeline has begun.
    pub(super) fn has_begun(&self) -> bool {
        self.has_begun.load(Relaxed)
    }
}
