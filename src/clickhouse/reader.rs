//! Questions of people: SQL in, columns out, read-only, and bounded in time and size.

use super::config::ClickHouseConfig;
use super::{Endpoint, failure, http};
use anyhow::Result;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::{Method, Request, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::HashMap;
use std::time::Duration;

/// The time limit of a query in ClickHouse; the client waits two seconds longer.
const SECONDS: u64 = 8;
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(SECONDS + 2);
/// The read limit of an answer: a chart has some thousand points.
const RESPONSE_BYTES: usize = 16 * 1024 * 1024;

/// A client with a user who may only read.
pub struct Reader {
    http: http::Client<Empty<Bytes>>,
    endpoint: Endpoint,
    database: String,
}

/// An answer, column by column.
#[derive(Debug, Serialize)]
pub struct Columns {
    pub meta: Vec<Column>,
    pub data: Vec<Vec<Value>>,
    pub rows: u64,
}

/// A column of an answer.
#[derive(Debug, Deserialize, Serialize)]
pub struct Column {
    pub name: String,
    #[serde(rename = "type")]
    pub kind: String,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum NoAnswer {
    /// There is no ClickHouse, or it is too slow.
    #[error("{0}")]
    Away(String),
    /// ClickHouse refuses the query.
    #[error("{0}")]
    Refused(String),
}

impl Reader {
    /// Nothing is sent yet.
    ///
    /// # Errors
    /// When the password's file cannot be read.
    pub fn new(config: &ClickHouseConfig) -> Result<Self> {
        Ok(Self {
            http: http::client(RESPONSE_BYTES),
            endpoint: Endpoint::new(config)?,
            database: config.database.clone(),
        })
    }

    /// Where it asks.
    pub fn address(&self) -> &str {
        self.endpoint.address()
    }

    /// Runs a query.
    pub async fn ask(&self, sql: &str) -> Result<Columns, NoAnswer> {
        match tokio::time::timeout(RESPONSE_TIMEOUT, self.exchange(sql)).await {
            Ok(answer) => answer,
            Err(_) => Err(NoAnswer::Away(format!("no answer within {} s", RESPONSE_TIMEOUT.as_secs()))),
        }
    }

    async fn exchange(&self, sql: &str) -> Result<Columns, NoAnswer> {
        let away = |error: &(dyn std::error::Error + 'static)| NoAnswer::Away(failure::describe(error));
        let response = self.http.request(self.request(sql)).await.map_err(|error| away(&error))?;
        let (status, code) = (response.status(), failure::exception_code(response.headers()));
        let body = response.into_body().collect().await.map_err(|error| away(&error))?.to_bytes();
        if status != StatusCode::OK {
            let failure = failure::answered(status.as_u16(), code, &String::from_utf8_lossy(&body));
            let failure = self.endpoint.discreet(failure);
            // An answer of ClickHouse itself is final; any other one means that ClickHouse cannot be reached.
            return Err(match failure.ended {
                true => NoAnswer::Refused(failure.message),
                false => NoAnswer::Away(failure.message),
            });
        }
        let raw: Raw = serde_json::from_slice(&body)
            .map_err(|error| NoAnswer::Refused(format!("an answer that is not the JSON of a result: {error}")))?;
        Ok(raw.columns())
    }

    /// A GET: ClickHouse runs it read-only whatever the user may do otherwise.
    fn request(&self, sql: &str) -> Request<Empty<Bytes>> {
        let seconds = SECONDS.to_string();
        let parameters = [
            ("database", self.database.as_str()),
            ("default_format", "JSONColumnsWithMetadata"),
            ("max_execution_time", &seconds),
            ("query", sql),
        ];
        self.endpoint.request(Method::GET, parameters, Empty::new())
    }
}

/// An answer as ClickHouse's format JSONColumnsWithMetadata has it.
#[derive(Deserialize)]
struct Raw {
    meta: Vec<Column>,
    data: HashMap<String, Vec<Value>>,
    rows: u64,
}

impl Raw {
    fn columns(mut self) -> Columns {
        let data = self.meta.iter().map(|column| self.data.remove(&column.name).unwrap_or_default()).collect();
        let mut columns = Columns { meta: self.meta, data, rows: self.rows };
        columns.numbers();
        columns
    }
}

impl Columns {
    /// Makes numbers of the strings that 64-bit numbers and decimals come as, depending on the server's settings.
    fn numbers(&mut self) {
        for (column, values) in self.meta.iter().zip(&mut self.data) {
            let kind = column.kind.trim_start_matches("Nullable(").trim_start_matches("LowCardinality(");
            if ["Int", "UInt", "Float", "Decimal"].iter().any(|numeric| kind.starts_with(numeric)) {
                for value in values {
                    if let Some(number) = value.as_str().and_then(|text| text.parse::<f64>().ok()) {
                        *value = serde_json::Number::from_f64(number).map_or(Value::Null, Value::Number);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::mock::{Answer, Mock, exception};
    use super::*;

    fn json(body: &str) -> Answer {
        Answer::Other(200, vec![], body.into())
    }

    #[tokio::test]
    async fn a_question_goes_as_a_get_with_limits_and_its_columns_come_in_their_order() {
        let mock = Mock::start().await;
        let meta = r#"[{"name":"z","type":"String"},{"name":"a","type":"Nullable(UInt64)"},{"name":"d","type":"Decimal(10, 2)"}]"#;
        let data = r#"{"a":["18446744073709551615",null],"d":["1.50","x"],"z":["7","y"]}"#;
        mock.expect("SELECT z, a", json(&format!(r#"{{"meta":{meta},"data":{data},"rows":2}}"#)));
        let columns = Reader::new(&mock.config()).unwrap().ask("SELECT z, a").await.unwrap();
        // Numbers come as text, depending on the server's settings. A text stays one, whatever it looks like.
        let expected = serde_json::json!([["7", "y"], [18446744073709551615_u64 as f64, null], [1.5, "x"]]);
        assert_eq!((serde_json::to_value(columns.data).unwrap(), columns.rows), (expected, 2));
        let asked = mock.last();
        assert_eq!(asked.method, Method::GET, "ClickHouse runs it read-only");
        assert_eq!((asked.setting("database"), asked.setting("max_execution_time")), ("shop", "8"));
        assert_eq!(asked.headers["X-ClickHouse-User"], "writer");
    }

    #[tokio::test]
    async fn a_question_that_clickhouse_refuses_is_told_from_a_clickhouse_that_is_away() {
        let mock = Mock::start().await;
        for (answer, is_refused) in [
            (exception(47, "Unknown identifier"), true),
            (exception(241, "Memory limit exceeded"), true),
            (json("[]"), true),
            (Answer::Other(502, vec![], "<title>Bad Gateway</title>".into()), false),
            (Answer::HangUp, false),
            (Answer::CutOff, false),
        ] {
            mock.expect("SELECT 1", answer.clone());
            let failed = Reader::new(&mock.config()).unwrap().ask("SELECT 1").await.unwrap_err();
            assert_eq!(matches!(failed, NoAnswer::Refused(_)), is_refused, "{answer:?}: {failed}");
        }
        let gone = mock.config();
        drop(mock);
        let failed = Reader::new(&gone).unwrap().ask("SELECT 1").await.unwrap_err();
        assert!(matches!(&failed, NoAnswer::Away(why) if why.contains("onnect")), "{failed}");
    }
}
