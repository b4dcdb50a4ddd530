//! ClickHouse over plain HTTP: SQL in, tab separated text out.

use std::time::Duration;
use ureq::Agent;

/// Longer than any question of these tests takes on a busy machine, and shorter than their deadlines.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
/// More than the largest answer: half a million rows.
const RESPONSE_BYTES: u64 = 1 << 30;

/// A client of one server.
#[derive(Clone)]
pub struct ClickHouse {
    agent: Agent,
    pub url: String,
}

impl ClickHouse {
    pub fn new(url: &str) -> Self {
        let config = Agent::config_builder()
            .timeout_global(Some(REQUEST_TIMEOUT))
            .http_status_as_error(false)
            .proxy(None)
            .build();
        Self { agent: config.into(), url: url.to_owned() }
    }

    /// Runs a statement; returns its answer, or what ClickHouse or the network says instead.
    pub fn ask(&self, sql: &str) -> Result<String, String> {
        let mut response = self.agent.post(&self.url).send(sql).map_err(|error| error.to_string())?;
        let status = response.status();
        let body = response.body_mut().with_config().limit(RESPONSE_BYTES).read_to_string();
        let body = body.map_err(|error| error.to_string())?;
        if status == 200 { Ok(body) } else { Err(body) }
    }

    /// Runs a statement that has to succeed; returns its answer.
    #[track_caller]
    pub fn run(&self, sql: &str) -> String {
        self.ask(sql).unwrap_or_else(|error| panic!("{sql}\n{error}"))
    }

    /// The rows of an answer, field by field, as ClickHouse escapes them.
    #[track_caller]
    pub fn rows(&self, sql: &str) -> Vec<Vec<String>> {
        self.run(sql).lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect()
    }

    /// An answer of one number.
    #[track_caller]
    pub fn number(&self, sql: &str) -> i64 {
        let answer = self.run(sql);
        answer.trim().parse().unwrap_or_else(|_| panic!("{sql}\nis no number: {answer}"))
    }
}
