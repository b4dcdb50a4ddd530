//! HTTP beside a pipeline: `/metrics` for Prometheus, `/healthz` and `/readyz` for an orchestrator.

use super::http::{self, Origins};
use super::prometheus;
use super::status::Pipeline;
use super::{Live, Ready};
use crate::latency::Window;
use crate::shutdown::Shutdown;
use anyhow::Result;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use flows::Metrics;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::Mutex;

/// Rendering pauses for this multiple of its own time: at any rate of requests, it takes a quarter of a core at most.
const REST: u32 = 3;

/// The state of a running pipeline, for its HTTP server.
pub struct Observed {
    of: Pipeline,
    live: Live,
    ready: Arc<Ready>,
    /// Locked while a page of metrics is rendered, and in the pause after that.
    rendering: Arc<Mutex<()>>,
}

impl Observed {
    pub fn new(of: Pipeline, metrics: &Arc<Metrics>, window: Arc<Window>, ready: &Arc<Ready>) -> Self {
        let live = Live { metrics: metrics.clone(), window, promise: of.promise() };
        Self { of, live, ready: ready.clone(), rendering: Arc::default() }
    }

    /// Serves at this address, `--metrics`, until the process ends: a request that comes during the drain is answered. `hosts` are
    /// the names by which it may be called.
    ///
    /// # Errors
    /// When that address cannot be listened at.
    pub async fn serve(self, address: &str, hosts: Vec<String>) -> Result<()> {
        let listener = http::listen(address, "--metrics").await?;
        tracing::info!("metrics at http://{}/metrics", listener.local_addr()?);
        let origins = Origins::of_programs(hosts);
        tokio::spawn(http::serve(listener, self.router(), origins, Shutdown::default()));
        Ok(())
    }

    fn router(self) -> Router {
        Router::new()
            .route("/metrics", get(metrics))
            .route("/healthz", get(|| async { "alive\n" }))
            .route("/readyz", get(readyz))
            .with_state(Arc::new(self))
    }

    /// The reason why the pipeline is not ready.
    fn missing(&self) -> Option<String> {
        self.ready.missing(self.of, &self.live.metrics)
    }
}

async fn metrics(State(observed): State<Arc<Observed>>) -> impl IntoResponse {
    let turn = observed.rendering.clone().lock_owned().await;
    let begun = Instant::now();
    let text = prometheus::render(observed.of, &observed.live, &observed.ready);
    let rest = begun.elapsed() * REST;
    tokio::spawn(async move {
        tokio::time::sleep(rest).await;
        drop(turn);
    });
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
}

async fn readyz(State(observed): State<Arc<Observed>>) -> impl IntoResponse {
    match observed.missing() {
        None => (StatusCode::OK, "ready\n".to_owned()),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n")),
    }
}
