//! A ClickHouse for unit tests: it answers requests as it was told to, and panics at its end if one did not come, or was not expected.

use super::config::ClickHouseConfig;
use super::lease_table::DURABLE;
use super::{ClickHouse, erase, leases, rows};
use bytes::Bytes;
use flows::Table;
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request, Response};
use hyper_util::rt::TokioIo;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;
use url::Url;

/// A received request.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: Method,
    pub headers: HeaderMap,
    /// The statement, wherever in the request it stood.
    pub sql: String,
    /// Settings, and everything else in the query of the address.
    pub settings: BTreeMap<String, String>,
    /// Parameters of the statement, without `param_`.
    pub parameters: BTreeMap<String, String>,
    /// The body of an insert.
    pub body: Bytes,
}

/// An answer.
#[derive(Clone, Debug)]
pub enum Answer {
    /// Rows in the format JSONCompactEachRow.
    Rows(String),
    /// An insert that has written this many rows.
    Written(u64),
    /// An exception of ClickHouse: its code, and the text after that.
    Exception(i32, String),
    /// Anything: a status, headers, a body.
    Other(u16, Vec<(&'static str, String)>, String),
    /// The head of an answer, a part of its body, and the end of the connection.
    CutOff,
    /// The connection ends without an answer.
    HangUp,
}

type Reply = Box<dyn FnOnce(&Asked) -> Answer + Send>;

/// The server. Expected requests come in their order; between them, any that there is a standing answer for.
pub struct Mock {
    address: String,
    shared: Arc<Shared>,
    _server: AbortOnDropHandle<()>,
}

#[derive(Default)]
struct Shared {
    expected: Mutex<VecDeque<(String, Reply)>>,
    standing: Mutex<Vec<(String, Answer)>>,
    asked: Mutex<Vec<Asked>>,
    unexpected: Mutex<Vec<String>>,
}

pub fn rows(rows: &str) -> Answer {
    Answer::Rows(rows.to_owned())
}

pub fn exception(code: i32, text: &str) -> Answer {
    Answer::Exception(code, text.to_owned())
}

impl Mock {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = format!("http://{}", listener.local_addr().expect("a bound port"));
        let shared = Arc::new(Shared::default());
        let mine = shared.clone();
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = mine.clone();
                tokio::spawn(async move {
                    let answers = service_fn(move |request| shared.clone().answer(request));
                    // A connection that is to be cut ends with an error.
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), answers)
                        .await;
                });
            }
        });
        Self { address, shared, _server: AbortOnDropHandle::new(server) }
    }

    pub fn config(&self) -> ClickHouseConfig {
        ClickHouseConfig {
            url: Url::parse(&self.address).expect("an address"),
            user: "writer".into(),
            password_file: None,
            database: "shop".into(),
            table: None,
            evolve: false,
        }
    }

    pub fn clickhouse(&self) -> Arc<ClickHouse> {
        Arc::new(ClickHouse::new(&self.config()).expect("settings that are valid"))
    }

    /// Expects a request with this text in its statement, after those that were expected before.
    pub fn expect(&self, text: &str, answer: Answer) -> &Self {
        self.expect_with(text, |_| answer)
    }

    /// Expects such a request, with an answer that depends on it.
    pub fn expect_with(&self, text: &str, reply: impl FnOnce(&Asked) -> Answer + Send + 'static) -> &Self {
        lock(&self.shared.expected).push_back((text.to_owned(), Box::new(reply)));
        self
    }

    /// Answers requests with this text in their statements at any time. The last one that was given counts.
    pub fn always(&self, text: &str, answer: Answer) -> &Self {
        lock(&self.shared.standing).insert(0, (text.to_owned(), answer));
        self
    }

    /// Has the tables of `schema.sql`.
    pub fn has_tables(&self) -> &Self {
        let sorted = "ReplacingMergeTree ORDER BY (_source, _partition, _offset)";
        for (table, columns) in [
            ("events", rows::columns(Table::Events)),
            ("rejected", rows::columns(Table::Rejected)),
            ("erased", &erase::COLUMNS),
        ] {
            self.has_table(table, "ReplacingMergeTree", "_source, _partition, _offset", sorted, columns);
        }
        let settings = DURABLE.map(|name| format!("{name} = 1")).join(", ");
        let leases = format!("AggregatingMergeTree ORDER BY (source, role, partition) SETTINGS {settings}");
        self.has_table("leases", "AggregatingMergeTree", "source, role, partition", &leases, &leases::COLUMNS);
        self.always("WHERE is_in_partition_key", rows(""));
        self.always("EXPLAIN", rows("[\"ReadFromMergeTree\"]"))
    }

    fn has_table(&self, name: &str, engine: &str, key: &str, full: &str, columns: &[rows::Column]) {
        let create = format!("CREATE TABLE shop.{name} ENGINE = {full}");
        let definition = serde_json::json!([engine, key, full, create]).to_string();
        self.always(
            &format!("FROM system.tables WHERE database = 'shop' AND name = '{name}'"),
            Answer::Rows(definition),
        );
        let lines = columns.iter().map(|(column, kind)| serde_json::json!([column, kind, ""]).to_string());
        let lines = lines.collect::<Vec<_>>().join("\n");
        self.always(&format!("FROM system.columns WHERE database = 'shop' AND table = '{name}'"), Answer::Rows(lines));
    }

    /// All requests until now.
    pub fn asked(&self) -> Vec<Asked> {
        lock(&self.shared.asked).clone()
    }

    /// The last request.
    #[track_caller]
    pub fn last(&self) -> Asked {
        self.asked().pop().expect("a request has come")
    }
}

impl Drop for Mock {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let unexpected = lock(&self.shared.unexpected);
        assert!(unexpected.is_empty(), "requests that were not expected: {unexpected:#?}");
        let missing: Vec<_> = lock(&self.shared.expected).iter().map(|(text, _)| text.clone()).collect();
        assert!(missing.is_empty(), "requests that did not come: {missing:#?}");
    }
}

impl Shared {
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> io::Result<Response<BoxBody<Bytes, io::Error>>> {
        let asked = Asked::read(request).await;
        let answer = self.next(&asked);
        lock(&self.asked).push(asked);
        let (status, headers, body) = match answer {
            Answer::Rows(rows) => (200, vec![], rows),
            Answer::Written(rows) => {
                (200, vec![("X-ClickHouse-Summary", format!(r#"{{"written_rows":"{rows}"}}"#))], String::new())
            }
            Answer::Exception(code, text) => {
                let body = format!("Code: {code}. DB::Exception: {text} (version 26.7.2.1 (official build))\n");
                (500, vec![("X-ClickHouse-Exception-Code", code.to_string())], body)
            }
            Answer::Other(status, headers, body) => (status, headers, body),
            Answer::CutOff => {
                let parts = [Ok(Frame::data(Bytes::from_static(b"[1"))), Err(io::Error::other("cut off"))];
                return Ok(Response::new(BodyExt::boxed(StreamBody::new(futures::stream::iter(parts)))));
            }
            Answer::HangUp => return Err(io::Error::other("hang up")),
        };
        let mut response = Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(name, value);
        }
        let body = Full::new(Bytes::from(body)).map_err(|never| match never {}).boxed();
        Ok(response.body(body).expect("headers that are valid"))
    }

    fn next(&self, asked: &Asked) -> Answer {
        let mut expected = lock(&self.expected);
        if expected.front().is_some_and(|(text, _)| asked.sql.contains(&**text)) {
            let (_, reply) = expected.pop_front().expect("it was looked at");
            drop(expected);
            return reply(asked);
        }
        drop(expected);
        let standing = lock(&self.standing).iter().find(|(text, _)| asked.sql.contains(&**text)).cloned();
        standing.map_or_else(
            || {
                lock(&self.unexpected).push(asked.sql.clone());
                exception(49, "the mock did not expect this")
            },
            |(_, answer)| answer,
        )
    }
}

impl Asked {
    async fn read(request: Request<Incoming>) -> Self {
        let (head, body) = request.into_parts();
        let mut body = body.collect().await.expect("a whole body").to_bytes();
        let url = Url::parse("http://mock").and_then(|base| base.join(&head.uri.to_string())).expect("an address");
        let mut settings: BTreeMap<_, _> =
            url.query_pairs().map(|(name, value)| (name.into_owned(), value.into_owned())).collect();
        let mut parameters = BTreeMap::new();
        let kind = head.headers.get("content-type").and_then(|kind| kind.to_str().ok());
        let sql = if let Some(sql) = settings.remove("query") {
            sql
        } else if let Some(boundary) = kind.and_then(|kind| kind.strip_prefix("multipart/form-data; boundary=")) {
            let text = String::from_utf8_lossy(&body).into_owned();
            let mut fields = text.split(&format!("--{boundary}")).filter_map(field).collect::<BTreeMap<_, _>>();
            let sql = fields.remove("query").unwrap_or_default();
            let plain = |(name, value): (String, String)| (name.trim_start_matches("param_").to_owned(), value);
            parameters = fields.into_iter().map(plain).collect();
            body = Bytes::new();
            sql
        } else {
            String::from_utf8_lossy(&std::mem::take(&mut body)).into_owned()
        };
        Self { method: head.method, headers: head.headers, sql, settings, parameters, body }
    }

    #[track_caller]
    pub fn setting(&self, name: &str) -> &str {
        self.settings.get(name).unwrap_or_else(|| panic!("no setting {name}: {self:?}"))
    }

    #[track_caller]
    pub fn parameter(&self, name: &str) -> &str {
        self.parameters.get(name).unwrap_or_else(|| panic!("no parameter {name}: {self:?}"))
    }
}

/// A field of a form: its name and its value.
fn field(part: &str) -> Option<(String, String)> {
    let (head, value) = part.split_once("\r\n\r\n")?;
    let (_, name) = head.split_once("name=\"")?;
    Some((name.split('"').next()?.to_owned(), value.strip_suffix("\r\n").unwrap_or(value).to_owned()))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A test that fails looks at it afterwards.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
