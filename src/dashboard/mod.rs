//! The dashboards as live web pages: the same JSON and the same SQL as in Grafana, asked by us, drawn by a page of our own.
//!
//! The browser sends the ids of panels and times, never SQL.

mod boards;
mod macros;

use crate::clickhouse::{Columns, NoAnswer, Reader};
use crate::log_throttle::LogThrottle;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use boards::{BOARDS, board};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;

/// Queries that ClickHouse runs for all pages together. A page asks five at a time, most of which take some milliseconds.
const QUERIES: usize = 4;
/// The longest wait of a query for its turn.
const TURN: Duration = Duration::from_secs(5);

/// The longest range of a request: a month and a day.
const LONGEST_MS: i64 = 32 * 24 * 3_600 * 1_000;

/// The headers of every answer: nothing but our own files, from here, and no frame around them.
const HEADERS: [(HeaderName, HeaderValue); 4] = [
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        ),
    ),
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
];

/// The files of the page.
const ASSETS: [(&str, &str, &str); 5] = [
    ("app.js", "text/javascript; charset=utf-8", include_str!("page/app.js")),
    ("charts.js", "text/javascript; charset=utf-8", include_str!("page/charts.js")),
    ("app.css", "text/css; charset=utf-8", include_str!("page/app.css")),
    ("uPlot.iife.min.js", "text/javascript; charset=utf-8", include_str!("../../assets/uplot/uPlot.iife.min.js")),
    ("uPlot.min.css", "text/css; charset=utf-8", include_str!("../../assets/uplot/uPlot.min.css")),
];

/// The state of ClickHouse that the page shows beside the answers. Clones share it.
#[derive(Clone, Default)]
pub struct Health(Arc<Mutex<Known>>);

#[derive(Clone, Default)]
struct Known {
    /// Since when ClickHouse has not answered: milliseconds since the Unix epoch.
    away_since: Option<i64>,
    note: Option<String>,
}

impl Health {
    /// Notes that ClickHouse is away, with a text about it; without a text, that it is back.
    pub fn note(&self, text: Option<&str>) {
        self.saw(text.is_some());
        self.lock().note = text.map(str::to_owned);
    }

    /// The note.
    pub fn noted(&self) -> Option<String> {
        self.lock().note.clone()
    }

    fn saw(&self, away: bool) {
        let mut known = self.lock();
        known.away_since = away.then(|| known.away_since.unwrap_or(flows::now() / 1_000_000));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Site {
    reader: Reader,
    state: Health,
    queries: Arc<Semaphore>,
    refusals: LogThrottle,
}

/// The pages and what they ask for.
pub fn router(reader: Reader, state: Health) -> Router {
    let queries = Arc::new(Semaphore::new(QUERIES));
    Router::new()
        .route("/", get(page))
        .route("/d/{uid}", get(page))
        .route("/assets/{name}", get(asset))
        .route("/api/dashboards", get(list))
        .route("/api/dashboards/{uid}", get(dashboard))
        .route("/api/dashboards/{uid}/panels/{id}", get(panel))
        .route("/api/status", get(status))
        .with_state(Arc::new(Site { reader, state, queries, refusals: LogThrottle::default() }))
        .layer(middleware::map_response(|mut response: Response| async move {
            response.headers_mut().extend(HEADERS);
            response
        }))
}

impl Site {
    /// Queries ClickHouse, unless too many queries run. A query continues in ClickHouse when its browser has left, so
    /// it counts until it has ended.
    async fn ask(self: Arc<Self>, sql: String) -> Option<Result<Columns, NoAnswer>> {
        let turn = tokio::time::timeout(TURN, self.queries.clone().acquire_owned()).await.ok()?.ok()?;
        let asking = tokio::spawn(async move {
            let answer = self.reader.ask(&sql).await;
            drop(turn);
            answer
        });
        Some(asking.await.unwrap_or_else(|error| Err(NoAnswer::Refused(error.to_string()))))
    }
}

async fn page() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], include_str!("page/index.html"))
}

async fn asset(Path(name): Path<String>) -> Response {
    match ASSETS.iter().find(|(known, ..)| *known == name) {
        Some((_, kind, text)) => ([(header::CONTENT_TYPE, *kind)], *text).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn list() -> impl IntoResponse {
    let about = |board: &boards::Board| json!({"uid": board.about.uid, "title": board.about.title});
    Json(BOARDS.iter().map(about).collect::<Vec<_>>())
}

async fn dashboard(Path(uid): Path<String>) -> Response {
    match board(&uid) {
        Some(board) => ([(header::CONTENT_TYPE, "application/json")], board.json).into_response(),
        None => failed(StatusCode::NOT_FOUND, "unknown", &format!("there is no dashboard {uid}")),
    }
}

#[derive(Deserialize)]
struct Asked {
    from: i64,
    to: i64,
    width: i64,
}

#[derive(Serialize)]
struct Answer {
    interval_ms: i64,
    results: Vec<Answered>,
}

#[derive(Serialize)]
struct Answered {
    #[serde(rename = "refId")]
    ref_id: &'static str,
    #[serde(flatten)]
    columns: Columns,
}

async fn panel(
    State(site): State<Arc<Site>>,
    Path((uid, id)): Path<(String, u32)>,
    Query(Asked { from, to, width }): Query<Asked>,
) -> Response {
    let Some(panel) = board(&uid).and_then(|board| board.about.panels.iter().find(|panel| panel.id == id)) else {
        return failed(StatusCode::NOT_FOUND, "unknown", &format!("there is no panel {id} in dashboard {uid}"));
    };
    let sensible = from >= 0 && (1..=LONGEST_MS).contains(&to.saturating_sub(from)) && (1..=10_000).contains(&width);
    if !sensible {
        return failed(
            StatusCode::BAD_REQUEST,
            "range",
            "expected from < to, a month at most, and a width of 1 to 10,000",
        );
    }
    let range = panel.range(from, to, width);
    let mut results = Vec::with_capacity(panel.targets.len());
    for target in &panel.targets {
        let sql = match target.sql(range) {
            Ok(sql) => sql,
            Err(why) => return failed(StatusCode::INTERNAL_SERVER_ERROR, "query", &why),
        };
        match site.clone().ask(sql).await {
            None => {
                let text = format!("{QUERIES} queries run already, and none ended within {} s", TURN.as_secs());
                return failed(StatusCode::SERVICE_UNAVAILABLE, "busy", &text);
            }
            Some(Ok(columns)) => results.push(Answered { ref_id: &target.ref_id, columns }),
            Some(Err(NoAnswer::Refused(why))) => {
                if site.refusals.now() {
                    tracing::warn!("ClickHouse at {} refuses what the pages ask: {why}", site.reader.address());
                }
                return failed(StatusCode::INTERNAL_SERVER_ERROR, "query", &why);
            }
            Some(Err(NoAnswer::Away(why))) => {
                site.state.saw(true);
                let text = format!("ClickHouse does not answer at {}: {why}", site.reader.address());
                return failed(StatusCode::SERVICE_UNAVAILABLE, "away", &text);
            }
        }
    }
    site.state.saw(false);
    Json(Answer { interval_ms: range.interval_ms, results }).into_response()
}

async fn status(State(site): State<Arc<Site>>) -> impl IntoResponse {
    let Known { away_since, note } = site.state.lock().clone();
    let state = if away_since.is_some() { "away" } else { "up" };
    Json(json!({"clickhouse": state, "since": away_since, "note": note}))
}

fn failed(status: StatusCode, kind: &str, error: &str) -> Response {
    (status, Json(json!({"error": error, "kind": kind}))).into_response()
}
