//! One insert: one HTTP request, encoded whole before it is sent, and an answer that counts only if it is complete.
//!
//! Questions use the `clickhouse` crate. Inserts do not, because the promise depends on their answer. The request
//! announces the body's length, so a request that was cut short never counts as whole. An answer counts as *stored*
//! only if it is a 200 with an empty body that names as many rows as were sent. Any other answer is a failure, or a
//! doubt.

use super::settings::Settings;
use super::unanswered::Unanswered;
use super::{Endpoint, failure, http};
use crate::failpoints::{self, InsertBody, Step};
use bytes::Bytes;
use flows::{ErrorKind, Failure};
use http_body_util::BodyExt;
use hyper::{Method, Request, Response, StatusCode, body::Incoming};
use serde::Deserialize;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long the answer to an insert may take. Longer only delays finding out; an insert that still runs then is awaited.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(20);
/// The longest answer: it is empty, or the text of an error.
const RESPONSE_BYTES: usize = 64 * 1024;

/// Sends inserts.
pub struct Inserter {
    http: http::Client<InsertBody>,
    endpoint: Endpoint,
    settings: Arc<Settings>,
    unanswered: Unanswered,
}

impl Inserter {
    /// Nothing is sent yet.
    pub fn new(endpoint: Endpoint, settings: Arc<Settings>) -> Self {
        Self { http: http::client(RESPONSE_BYTES), endpoint, settings, unanswered: Unanswered::default() }
    }

    /// Since when an insert has had no answer for longer than usual.
    pub fn silent_since(&self) -> Option<Instant> {
        self.unanswered.silent_since()
    }

    /// Counts that silence from now on, because this process itself was paused.
    pub fn begin_again(&self) {
        self.unanswered.begin_again();
    }

    /// Runs `sql` with `body` behind it, under the name `query_id`; returns how many rows were written, as the answer says.
    pub async fn send(&self, query_id: &str, sql: &str, body: Bytes) -> Result<u64, Failure> {
        let unsent = |_| Failure { ended: true, ..doubt(failpoints::MESSAGE.into()) };
        failpoints::reach(Step::BeforeInsert).await.map_err(unsent)?;
        let request = self.request(query_id, sql, body);
        let written = match tokio::time::timeout(RESPONSE_TIMEOUT, self.exchange(request)).await {
            Ok(outcome) => outcome?,
            Err(_) => return Err(doubt(format!("no answer to an insert within {} s", RESPONSE_TIMEOUT.as_secs()))),
        };
        failpoints::reach(Step::AfterInsert).await.map_err(|_| doubt(failpoints::MESSAGE.into()))?;
        Ok(written)
    }

    async fn exchange(&self, request: Request<InsertBody>) -> Result<u64, Failure> {
        let response = self.unanswered.during(self.http.request(request)).await.map_err(|error| Failure {
            kind: ErrorKind::Transient,
            ended: error.is_connect(),
            message: failure::describe(&error),
        })?;
        let status = response.status();
        let (code, written) = (failure::exception_code(response.headers()), written_rows(&response));
        let broken = |error| doubt(format!("the answer to an insert broke off: {}", failure::describe(&error)));
        let is_exception = status != StatusCode::OK && code.is_some();
        let body = text(response.into_body(), is_exception).await.map_err(broken)?;
        if status == StatusCode::OK && code.is_none() && body.is_empty() {
            return Ok(written);
        }
        let failure = failure::answered(status.as_u16(), code, &String::from_utf8_lossy(&body));
        Err(self.endpoint.discreet(self.settings.explained(failure)))
    }

    fn request(&self, query_id: &str, sql: &str, body: Bytes) -> Request<InsertBody> {
        let named = [("query_id", query_id), ("query", sql)];
        let parameters = self.settings.inserts().into_iter().chain(named);
        self.endpoint.request(Method::POST, parameters, failpoints::body(body))
    }
}

/// The body of an answer. The text of an exception may be cut: it quotes values of any length, and its code stands in a header.
async fn text(mut body: Incoming, may_be_cut: bool) -> Result<Vec<u8>, hyper::Error> {
    let mut text = Vec::new();
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => text.extend(frame.into_data().unwrap_or_default()),
            Err(_) if may_be_cut => break,
            Err(error) => return Err(error),
        }
    }
    Ok(text)
}

/// The header of the answer with the statement's summary, which ClickHouse sends at its end.
#[derive(Deserialize)]
struct Summary {
    written_rows: String,
}

/// The number of written rows, including those of views; 0 if the answer has none.
fn written_rows(response: &Response<Incoming>) -> u64 {
    let summary = response.headers().get("X-ClickHouse-Summary").map(|header| header.as_bytes());
    let summary = summary.and_then(|json| serde_json::from_slice::<Summary>(json).ok());
    summary.and_then(|summary| summary.written_rows.parse().ok()).unwrap_or(0)
}

fn doubt(message: String) -> Failure {
    Failure { kind: ErrorKind::Transient, ended: false, message }
}

#[cfg(test)]
mod tests;
