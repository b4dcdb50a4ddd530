//! The stop signal: once to drain, twice to leave at once.

use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Asks pipelines to end. Clones share it.
#[derive(Clone, Default)]
pub struct Stop(Arc<CancellationToken>);

/// The exit code of a program that was stopped at once.
const AT_ONCE: i32 = 130;

impl Stop {
    /// A stop that SIGINT and SIGTERM request. A second signal ends the process at once, with exit code 130.
    pub fn on_signals() -> anyhow::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let stop = Self::default();
        let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let requested = stop.clone();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                if requested.is_requested() {
                    std::process::exit(AT_ONCE);
                }
                tracing::info!("stopping: draining what is under way (once more to leave at once)");
                requested.request();
            }
        });
        Ok(stop)
    }

    /// Requests it.
    pub fn request(&self) {
        self.0.cancel();
    }

    /// Whether it was requested.
    pub fn is_requested(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Resolves when it is requested.
    pub async fn requested(&self) {
        self.0.cancelled().await;
    }
}
