//! One insert: one HTTP request, encoded whole before it is sent, and an answer that is believed only when it is complete.
//!
//! Questions go through the `clickhouse` crate; inserts do not, because the promise hangs on their answer: the body's length
//! is announced, so a request that was cut short is never taken for a whole one, and an answer counts as *stored* only if it
//! is a 200 with an empty body. Anything else is a failure, and where no answer came, a doubt.

use super::{failure, http};
use crate::failpoints::{self, InsertBody, Step};
use anyhow::{Result, bail};
use bytes::Bytes;
use flows::{Class, Failure};
use http_body_util::{BodyExt, Limited};
use hyper::{Request, Response, StatusCode, body::Incoming};
use std::time::Duration;
use url::Url;

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

pub struct Inserter {
    http: http::Client<InsertBody>,
    url: Url,
    user: String,
    password: String,
}

impl Inserter {
    pub fn new(url: Url, user: &str, password: &str) -> Result<Self> {
        if !matches!(url.scheme(), "http" | "https") {
            bail!("--clickhouse-url must begin with http:// or https://");
        }
        Ok(Self { http: http::client(), url, user: user.to_owned(), password: password.to_owned() })
    }

    /// Runs `sql` with `body` behind it, under the name `query_id`.
    pub async fn send(&self, query_id: &str, sql: &str, body: Bytes) -> Result<(), Failure> {
        let unsent = |_| Failure { ended: true, ..doubt(failpoints::MESSAGE.into()) };
        failpoints::reach(Step::BeforeInsert).await.map_err(unsent)?;
        let request = self.request(query_id, sql, body);
        match tokio::time::timeout(ANSWER, self.exchange(request)).await {
            Ok(outcome) => outcome?,
            Err(_) => return Err(doubt(format!("no answer to an insert within {} s", ANSWER.as_secs()))),
        }
        failpoints::reach(Step::AfterInsert).await.map_err(|_| doubt(failpoints::MESSAGE.into()))
    }

    async fn exchange(&self, request: Request<InsertBody>) -> Result<(), Failure> {
        let response = self.http.request(request).await.map_err(|error| Failure {
            class: Class::Transient,
            ended: error.is_connect(),
            message: failure::describe(&error),
        })?;
        let status = response.status();
        let code = exception_code(&response);
        let body = Limited::new(response.into_body(), ERROR_BYTES)
            .collect()
            .await
            .map_err(|error| doubt(format!("the answer to an insert broke off: {}", failure::describe(&*error))))?
            .to_bytes();
        if status == StatusCode::OK && code.is_none() && body.is_empty() {
            return Ok(());
        }
        Err(failure::answered(status.as_u16(), code, &String::from_utf8_lossy(&body)))
    }

    fn request(&self, query_id: &str, sql: &str, body: Bytes) -> Request<InsertBody> {
        let mut url = self.url.clone();
        url.query_pairs_mut().extend_pairs(SETTINGS).append_pair("query_id", query_id).append_pair("query", sql);
        Request::post(url.as_str())
            .header("X-ClickHouse-User", &self.user)
            .header("X-ClickHouse-Key", &self.password)
            .body(failpoints::body(body))
            .expect("a URL and headers that were checked when the arguments were read")
    }
}

fn exception_code(response: &Response<Incoming>) -> Option<u16> {
    response.headers().get("X-ClickHouse-Exception-Code")?.to_str().ok()?.parse().ok()
}

fn doubt(message: String) -> Failure {
    Failure { class: Class::Transient, ended: false, message }
}
