//! HTTP beside a pipeline: `/metrics` for Prometheus, `/healthz` and `/readyz` for an orchestrator.

use super::Ready;
use super::http::{self, Origins};
use super::prometheus;
use super::status::Pipeline;
use crate::latency::Window;
use crate::shutdown::Shutdown;
use crate::stuck;
use anyhow::Result;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use flows::Metrics;
use futures::future::BoxFuture;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// The time after which ClickHouse counts as away; a health check waits two or three seconds.
const PING_TIMEOUT: Duration = Duration::from_secs(1);
/// The pause after a question to ClickHouse: at any rate of requests, it is asked twenty times a second at most.
const PAUSE: Duration = Duration::from_millis(50);
/// Rendering pauses for this multiple of its own time: at any rate of requests, it takes a quarter of a core at most.
const REST: u32 = 3;

/// The state of a running pipeline, for its HTTP server.
pub struct Observed {
    of: Pipeline,
    metrics: Arc<Metrics>,
    window: Arc<Window>,
    ready: Arc<Ready>,
    since: Instant,
    /// The time of the last question to ClickHouse, and whether it answered. Locked while it is asked.
    asked: Arc<Mutex<Option<(Instant, bool)>>>,
    /// Locked while a page of metrics is rendered, and in the pause after that.
    rendering: Arc<Mutex<()>>,
}

impl Observed {
    pub fn new(of: Pipeline, metrics: &Arc<Metrics>, window: Arc<Window>, ready: &Arc<Ready>) -> Self {
        let (asked, rendering) = (Arc::default(), Arc::default());
        Self { of, metrics: metrics.clone(), window, ready: ready.clone(), since: Instant::now(), asked, rendering }
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
    async fn missing(&self) -> Option<String> {
        match self.of {
            Pipeline::Produce if !self.ready.is_producing() => Some("Kafka has not answered yet".into()),
            Pipeline::Produce => self.ready.stuck.longer_than(stuck::TOO_LONG),
            Pipeline::Ingest => {
                let Some(question) = self.ready.question() else { return Some("still starting".into()) };
                if Metrics::read(&self.metrics.rebalances) == 0 {
                    return Some("the group has not assigned partitions yet".into());
                }
                match self.answers(question).await {
                    true => self.ready.stuck.longer_than(stuck::TOO_LONG),
                    false => Some("ClickHouse does not answer".into()),
                }
            }
        }
    }

    /// Whether ClickHouse answers. One question serves all requests that came before it was sent. It is always
    /// completed, even if their clients leave.
    async fn answers(&self, question: BoxFuture<'static, bool>) -> bool {
        let came = Instant::now();
        let mut asked = self.asked.clone().lock_owned().await;
        if let Some((at, answered)) = *asked
            && at >= came
        {
            return answered;
        }
        let asking = tokio::spawn(async move {
            let at = Instant::now();
            let answered = tokio::time::timeout(PING_TIMEOUT, question).await.unwrap_or(false);
            *asked = Some((at, answered));
            tokio::time::sleep(PAUSE).await;
            answered
        });
        asking.await.unwrap_or(false)
    }
}

async fn metrics(State(observed): State<Arc<Observed>>) -> impl IntoResponse {
    let turn = observed.rendering.clone().lock_owned().await;
    let begun = Instant::now();
    let (recent, total) = observed.window.read();
    let Observed { of, metrics, ready, since, .. } = &*observed;
    let ingester = prometheus::Ingester { stuck: &ready.stuck, since: *since };
    let text = prometheus::render(*of, metrics, &ingester, &recent, &total);
    let rest = begun.elapsed() * REST;
    tokio::spawn(async move {
        tokio::time::sleep(rest).await;
        drop(turn);
    });
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
}

async fn readyz(State(observed): State<Arc<Observed>>) -> impl IntoResponse {
    match observed.missing().await {
        None => (StatusCode::OK, "ready\n".to_owned()),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n")),
    }
}
