//! The dashboards as live web pages: the same JSON and the same SQL as in Grafana, asked by us, drawn by a page of our own.
//!
//! The browser sends the ids of panels, times and a topic, never SQL.

mod assets;
mod boards;
mod health;
mod macros;
mod names;

pub use health::Health;
pub use names::Names;

use crate::clickhouse::{Columns, NoAnswer, Reader};
use crate::log_throttle::LogThrottle;
use assets::{asset, page};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use boards::{BOARDS, Board, board};
use health::now_ms;
use macros::{Range, is_topic};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, Semaphore};
use tokio::time::{Instant, timeout};

/// Queries that ClickHouse runs for all pages together. A page asks five at a time, most of which take some milliseconds.
const QUERIES: usize = 4;
/// The longest wait of a query for its turn.
const TURN: Duration = Duration::from_secs(5);
/// ClickHouse is away if it does not answer to a ping within this time. Pages ask each 0.6 s, so they say so within 2 s.
const PING_TIMEOUT: Duration = Duration::from_millis(900);
/// All pages together cause a ping at most this often.
const PING_INTERVAL: Duration = Duration::from_millis(500);
/// The ping also tells a restart, and the newest row. ClickHouse knows the latter for each part, so it reads no rows for it.
const PING: &str = "SELECT uptime() AS seconds, toFloat64(toUnixTimestamp64Milli(now64(3))) AS now, \
    toFloat64(max(toUnixTimestamp(max_time))) * 1000 AS newest \
    FROM system.parts WHERE active AND database = currentDatabase() AND table IN ('events', 'rejected')";
/// Clocks of two machines that differ by less are taken for one: the ping takes a while.
const CLOCKS_MS: i64 = 1_500;

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

struct Site {
    reader: Reader,
    names: Names,
    state: Health,
    /// The time of the last ping, held during one.
    pinged: Mutex<Option<Instant>>,
    queries: Arc<Semaphore>,
    refusals: LogThrottle,
}

/// The pages and what they ask for.
pub fn router(reader: Reader, names: Names, state: Health) -> Router {
    let queries = Arc::new(Semaphore::new(QUERIES));
    Router::new()
        .route("/", get(page))
        .route("/d/{uid}", get(page))
        .route("/assets/{name}", get(asset))
        .route("/api/dashboards", get(list))
        .route("/api/dashboards/{uid}", get(dashboard))
        .route("/api/dashboards/{uid}/topics", get(topics))
        .route("/api/dashboards/{uid}/panels/{id}", get(panel))
        .route("/api/status", get(status))
        .with_state(Arc::new(Site {
            reader,
            names,
            state,
            pinged: Mutex::default(),
            queries,
            refusals: LogThrottle::default(),
        }))
        .layer(middleware::map_response(|mut response: Response| async move {
            response.headers_mut().extend(HEADERS);
            response
        }))
}

impl Site {
    /// Queries ClickHouse, unless too many queries run, and notes whether it answers.
    async fn ask(self: Arc<Self>, sql: String) -> Result<Columns, Failed> {
        let Some(answer) = self.clone().in_turn(sql).await else {
            let text = format!("{QUERIES} queries run already, and none ended within {} s", TURN.as_secs());
            return Err(failed(StatusCode::SERVICE_UNAVAILABLE, "busy", &text));
        };
        answer.map_err(|why| match why {
            NoAnswer::Refused(why) => {
                if self.refusals.now() {
                    tracing::warn!("ClickHouse at {} refuses what the pages ask: {why}", self.reader.address());
                }
                failed(StatusCode::INTERNAL_SERVER_ERROR, "query", &why)
            }
            NoAnswer::Away(why) => {
                let text = format!("ClickHouse does not answer at {}: {why}", self.reader.address());
                failed(StatusCode::SERVICE_UNAVAILABLE, "away", &text)
            }
        })
    }

    /// A query continues in ClickHouse when its browser has left, so it counts until it has ended.
    async fn in_turn(self: Arc<Self>, sql: String) -> Option<Result<Columns, NoAnswer>> {
        let turn = timeout(TURN, self.queries.clone().acquire_owned()).await.ok()?.ok()?;
        let asking = tokio::spawn(async move {
            let asked = now_ms();
            let answer = self.reader.ask(&self.names.put_into(&sql)).await;
            match &answer {
                Err(NoAnswer::Away(_)) => self.state.failed(asked, now_ms()),
                _ => self.state.answered(now_ms(), None),
            }
            drop(turn);
            answer
        });
        Some(asking.await.unwrap_or_else(|error| Err(NoAnswer::Refused(error.to_string()))))
    }

    fn board(&self, uid: &str) -> Result<&'static Board, Failed> {
        let board = board(uid).ok_or_else(|| format!("there is no dashboard {uid}"));
        let board = board.and_then(|board| match self.names.fit(uid) {
            true => Ok(board),
            false => Err(format!("dashboard {uid} needs the columns of the shop's events")),
        });
        board.map_err(|why| failed(StatusCode::NOT_FOUND, "unknown", &why))
    }

    /// Pings ClickHouse, unless it has just been pinged.
    async fn ping(&self) {
        let mut pinged = self.pinged.lock().await;
        if pinged.is_some_and(|last| last.elapsed() < PING_INTERVAL) {
            return;
        }
        let asked = now_ms();
        match timeout(PING_TIMEOUT, self.reader.ask(&self.names.put_into(PING))).await {
            Ok(Ok(columns)) => {
                let now = now_ms();
                let number = |at: usize| Some(columns.data.get(at)?.first()?.as_f64()? as i64);
                let ahead = number(1).map_or(0, |theirs| theirs - now);
                let ahead = if ahead.abs() < CLOCKS_MS { 0 } else { ahead };
                self.state.answered(now, number(0));
                self.state.newest(number(2).filter(|newest| *newest > 0).map(|newest| newest - ahead));
            }
            Ok(Err(NoAnswer::Refused(_))) => self.state.answered(now_ms(), None),
            Ok(Err(NoAnswer::Away(_))) | Err(_) => self.state.failed(asked, now_ms()),
        }
        *pinged = Some(Instant::now());
    }
}

async fn list(State(site): State<Arc<Site>>) -> impl IntoResponse {
    let about = |board: &boards::Board| json!({"uid": board.about.uid, "title": board.about.title});
    Json(BOARDS.iter().filter(|board| site.names.fit(&board.about.uid)).map(about).collect::<Vec<_>>())
}

async fn dashboard(State(site): State<Arc<Site>>, Path(uid): Path<String>) -> Result<impl IntoResponse, Failed> {
    Ok(([(header::CONTENT_TYPE, "application/json")], site.board(&uid)?.json))
}

#[derive(Deserialize)]
struct Asked {
    from: i64,
    to: i64,
    #[serde(default = "narrow")]
    width: i64,
    topic: Option<String>,
}

/// The width of a list.
fn narrow() -> i64 {
    1
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

impl Asked {
    /// Refuses what no page asks.
    fn check(&self) -> Result<(), Failed> {
        let refused = |text| Err(failed(StatusCode::BAD_REQUEST, "range", text));
        let range = self.from >= 0 && (1..=LONGEST_MS).contains(&self.to.saturating_sub(self.from));
        if !range || !(1..=10_000).contains(&self.width) {
            return refused("expected from < to, a month at most, and a width of 1 to 10,000");
        }
        match self.topic.as_deref().is_none_or(is_topic) {
            true => Ok(()),
            false => refused("expected the name or the id of a topic"),
        }
    }
}

fn wrong_file(why: String) -> Failed {
    failed(StatusCode::INTERNAL_SERVER_ERROR, "query", &why)
}

/// The topics that have rows in a range.
async fn topics(
    State(site): State<Arc<Site>>,
    Path(uid): Path<String>,
    Query(asked): Query<Asked>,
) -> Result<impl IntoResponse, Failed> {
    let board = site.board(&uid)?;
    asked.check()?;
    let range = Range { from_ms: asked.from, to_ms: asked.to, interval_ms: 1_000, topic: None };
    let columns = site.ask(board.about.topics(range).map_err(wrong_file)?).await?;
    Ok(Json(columns.data.into_iter().next().unwrap_or_default()))
}

async fn panel(
    State(site): State<Arc<Site>>,
    Path((uid, id)): Path<(String, u32)>,
    Query(asked): Query<Asked>,
) -> Result<impl IntoResponse, Failed> {
    let Some(panel) = site.board(&uid)?.about.panels.iter().find(|panel| panel.id == id) else {
        let text = format!("there is no panel {id} in dashboard {uid}");
        return Err(failed(StatusCode::NOT_FOUND, "unknown", &text));
    };
    asked.check()?;
    let range = panel.range(asked.from, asked.to, asked.width, asked.topic.as_deref());
    let mut results = Vec::with_capacity(panel.targets.len());
    for target in &panel.targets {
        let columns = site.clone().ask(target.sql(range).map_err(wrong_file)?).await?;
        results.push(Answered { ref_id: &target.ref_id, columns });
    }
    Ok(Json(Answer { interval_ms: range.interval_ms, results }))
}

async fn status(State(site): State<Arc<Site>>) -> impl IntoResponse {
    site.ping().await;
    let known = site.state.known();
    let state = if known.since.is_some() { "away" } else { "up" };
    let mut status = json!(known);
    status["clickhouse"] = json!(state);
    status["address"] = json!(site.reader.address());
    status["now"] = json!(now_ms());
    Json(status)
}

/// Why a page gets no answer.
struct Failed {
    status: StatusCode,
    kind: &'static str,
    error: String,
}

fn failed(status: StatusCode, kind: &'static str, error: &str) -> Failed {
    Failed { status, kind, error: error.into() }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        (self.status, Json(json!({"error": self.error, "kind": self.kind}))).into_response()
    }
}
