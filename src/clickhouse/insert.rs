//! One insert: one HTTP request, encoded whole before it is sent, and an answer that is believed only when it is complete.
//!
//! Questions go through the `clickhouse` crate; inserts do not, because the promise hangs on their answer: the body's length
//! is announced, so a request that was cut short is never taken for a whole one, and an answer counts as *stored* only if it
//! is a 200 with an empty body that names as many rows as were sent. Anything else is a failure, or a doubt.

use super::{Endpoint, failure, http};
use crate::failpoints::{self, InsertBody, Step};
use bytes::Bytes;
use flows::{Class, Failure};
use http_body_util::{BodyExt, Limited};
use hyper::{Method, Request, Response, StatusCode, body::Incoming};
use serde::Deserialize;
use std::time::Duration;

/// How long the answer to an insert may take. Longer only delays finding out; an insert that still runs then is awaited.
const ANSWER: Duration = Duration::from_secs(20);
/// What is read of an error's text.
const ERROR_BYTES: usize = 64 * 1024;

/// Settings of each insert, whatever the server's or the user's defaults are.
const SETTINGS: &[(&str, &str)] = &[
    ("async_insert", "0"),       // an answer means that this insert is stored, not that it is queued
    ("wait_end_of_query", "1"),  // the status is known only at the end, so it is sent only then
    ("insert_deduplicate", "0"), // what is stored is asked, never guessed from a window of checksums
    ("max_insert_threads", "1"), // one stream, one block, …
    ("max_insert_block_size", "1048576"),
    ("max_block_size", "1048576"), // … so one part: an insert is atomic
    ("min_insert_block_size_rows", "1048576"),
    ("min_insert_block_size_bytes", "0"),
    ("input_format_parallel_parsing", "0"),
    ("max_execution_time", "0"),
];

/// Sends inserts.
pub struct Inserter {
    http: http::Client<InsertBody>,
    endpoint: Endpoint,
}

impl Inserter {
    /// Nothing is sent yet.
    pub fn new(endpoint: Endpoint) -> Self {
        Self { http: http::client(), endpoint }
    }

    /// Runs `sql` with `body` behind it, under the name `query_id`; returns how many rows were written, as the answer says.
    pub async fn send(&self, query_id: &str, sql: &str, body: Bytes) -> Result<u64, Failure> {
        let unsent = |_| Failure { ended: true, ..doubt(failpoints::MESSAGE.into()) };
        failpoints::reach(Step::BeforeInsert).await.map_err(unsent)?;
        let request = self.request(query_id, sql, body);
        let written = match tokio::time::timeout(ANSWER, self.exchange(request)).await {
            Ok(outcome) => outcome?,
            Err(_) => return Err(doubt(format!("no answer to an insert within {} s", ANSWER.as_secs()))),
        };
        failpoints::reach(Step::AfterInsert).await.map_err(|_| doubt(failpoints::MESSAGE.into()))?;
        Ok(written)
    }

    async fn exchange(&self, request: Request<InsertBody>) -> Result<u64, Failure> {
        let response = self.http.request(request).await.map_err(|error| Failure {
            class: Class::Transient,
            ended: error.is_connect(),
            message: failure::describe(&error),
        })?;
        let status = response.status();
        let (code, written) = (failure::exception_code(response.headers()), written_rows(&response));
        let body = Limited::new(response.into_body(), ERROR_BYTES)
            .collect()
            .await
            .map_err(|error| doubt(format!("the answer to an insert broke off: {}", failure::describe(&*error))))?
            .to_bytes();
        if status == StatusCode::OK && code.is_none() && body.is_empty() {
            return Ok(written);
        }
        Err(failure::answered(status.as_u16(), code, &String::from_utf8_lossy(&body)))
    }

    fn request(&self, query_id: &str, sql: &str, body: Bytes) -> Request<InsertBody> {
        let named = [("query_id", query_id), ("query", sql)];
        self.endpoint.request(Method::POST, SETTINGS.iter().copied().chain(named), failpoints::body(body))
    }
}

/// What ClickHouse says in a header of the answer, when the query is at its end.
#[derive(Deserialize)]
struct Summary {
    written_rows: String,
}

/// The rows that were written, those of views too; 0 where the answer does not say.
fn written_rows(response: &Response<Incoming>) -> u64 {
    let summary = response.headers().get("X-ClickHouse-Summary").map(|header| header.as_bytes());
    let summary = summary.and_then(|json| serde_json::from_slice::<Summary>(json).ok());
    summary.and_then(|summary| summary.written_rows.parse().ok()).unwrap_or(0)
}

fn doubt(message: String) -> Failure {
    Failure { class: Class::Transient, ended: false, message }
}
