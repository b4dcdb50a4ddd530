//! Serving HTTP: `/metrics` beside a pipeline, and the dashboard.
//!
//! Clients are not trusted. For any requests, or missing ones, or unread answers: each connection ends, their number is
//! limited, and a new one is accepted. File descriptors, memory and processor are for the rows first.

mod connections;
mod origin;

pub use origin::Origins;

use crate::log_throttle::LogThrottle;
use crate::shutdown::Shutdown;
use anyhow::{Context, Result};
use axum::Router;
use axum::body::HttpBody;
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use connections::{Activity, Connections};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustix::process::{Resource, getrlimit};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

/// Connections at a time: a browser opens six, a Prometheus one.
const CONNECTIONS: usize = 64;
/// At most this part of the files that the process may open, where those are few: the rest is for Kafka and ClickHouse.
const PART_OF_DESCRIPTORS: u64 = 8;
/// The time for the head of a request, from the opening of the connection or the end of the answer before. The page asks again after
/// 5 s, and shall find its connections open.
const HEAD_TIMEOUT: Duration = Duration::from_secs(6);
/// The largest head of a request, and the largest write buffer, in bytes.
const HEAD_BYTES: usize = 16 * 1024;
/// The time for an answer. ClickHouse has 10 s of it, after a wait of 5 s.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(20);
/// A connection takes no further request after this time. Browsers and scrapers open another one.
const LIFETIME: Duration = Duration::from_secs(20);
/// A running answer has this time left at the end of a connection's lifetime, also if the client does not read it.
const LAST_RESPONSE: Duration = Duration::from_secs(25);
/// A running answer has this time left at a stop.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);
/// How long accepting pauses while all connections are taken: a flood of them takes little of the processor, and each newcomer has
/// at least 64 of these pauses to send its request.
const CROWDED_PAUSE: Duration = Duration::from_millis(1);
/// How long accepting pauses after a failure, which is mostly that the process has no descriptor left.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Listens at `address`, HOST:PORT.
///
/// # Errors
/// When the port is taken or the address is not of this machine; `option` is the flag that changes it.
pub async fn listen(address: &str, option: &str) -> Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen at {address}: see {option}"))
}

/// Serves until the stop is requested; then answers under way have a second.
pub async fn serve(listener: TcpListener, router: Router, origins: Origins, shutdown: Shutdown) {
    let router = guarded(router, origins);
    let mut connections = Connections::new(most_connections());
    let failures = LogThrottle::default();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.requested() => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                if connections.make_room() {
                    sleep(CROWDED_PAUSE).await;
                }
                connections.open(peer.ip(), |activity| converse(stream, router.clone(), activity, shutdown.clone()));
            }
            Err(error) => {
                if failures.now() {
                    tracing::warn!("the HTTP server cannot accept a connection, and tries again: {error}");
                }
                sleep(ACCEPT_AGAIN).await;
            }
        }
    }
    drop(listener);
    connections.end(SHUTDOWN_TIMEOUT).await;
}

fn most_connections() -> usize {
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(descriptors / PART_OF_DESCRIPTORS).map_or(CONNECTIONS, |part| part.clamp(4, CONNECTIONS))
}

/// One connection, from its first request to its end.
async fn converse(stream: TcpStream, router: Router, activity: Arc<Activity>, shutdown: Shutdown) {
    // An answer is written at once; it only leaves later without this.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let answering = activity.answering();
        let answer = TowerToHyperService::new(router.clone()).call(request);
        async move {
            let answer = answer.await;
            drop(answering);
            answer
        }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(HEAD_BYTES);
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
    let left = tokio::select! {
        _ = connection.as_mut() => return,
        () = sleep(LIFETIME) => LAST_RESPONSE,
        () = shutdown.requested() => SHUTDOWN_TIMEOUT,
    };
    connection.as_mut().graceful_shutdown();
    let _ = timeout(left, connection).await;
}

/// The rules of every request.
fn guarded(router: Router, origins: Origins) -> Router {
    router
        .layer(middleware::from_fn_with_state(Arc::new(origins), origin::check))
        .layer(middleware::from_fn(within_bounds))
}

/// Refuses a body, which nothing here asks for, and ends an answer that takes too long.
async fn within_bounds(request: Request, next: Next) -> Response {
    if !request.body().is_end_stream() {
        let close = [(header::CONNECTION, "close")];
        return (StatusCode::PAYLOAD_TOO_LARGE, close, "a request has no body here\n").into_response();
    }
    match timeout(RESPONSE_TIMEOUT, next.run(request)).await {
        Ok(answer) => answer,
        Err(_) => {
            let text = format!("no answer within {} s\n", RESPONSE_TIMEOUT.as_secs());
            (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
        }
    }
}
