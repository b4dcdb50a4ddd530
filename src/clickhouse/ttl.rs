//! Rows that the tables' TTLs have deleted by now, as far as the message alone shows that.
//!
//! ClickHouse evaluates a TTL for each row. If the expression has one column, `ingested_at` or `timestamp`, there is a
//! time up to which rows have expired. ClickHouse is asked for that time.

use super::ClickHouse;
use super::questions::quoted;
use flows::{ErrorKind, Failure, Payload, Table};
use std::collections::BTreeMap;

/// Up to when rows have expired, in both tables.
#[derive(Clone, Copy, Debug, Default)]
pub struct Expiry {
    events: Limits,
    rejected: Limits,
    /// There are TTLs of which it cannot be told what they delete.
    is_unclear: bool,
}

/// Up to when rows of a table have expired: milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Limits {
    ingested_ms: Option<i64>,
    timestamp_ms: Option<i64>,
}

impl Expiry {
    /// Whether the row of a message has expired, or can have. Its row came after the message; so one whose message is younger
    /// than the limit cannot have.
    pub fn is_over(&self, sent_ms: Option<i64>, payload: impl FnOnce() -> Payload) -> bool {
        let Self { events, rejected, .. } = self;
        let by_ingestion = |limits: &Limits| limits.ingested_ms.zip(sent_ms).is_some_and(|(limit, sent)| sent <= limit);
        if events.timestamp_ms.is_none() && !by_ingestion(events) && !by_ingestion(rejected) {
            return false;
        }
        match payload() {
            Payload::Event(event) => {
                by_ingestion(events) || events.timestamp_ms.is_some_and(|limit| event.timestamp_ms <= limit)
            }
            Payload::Row(row) => by_ingestion(events) || events.timestamp_ms.is_some_and(|limit| row.event_ms <= limit),
            Payload::Rejected(_) => by_ingestion(rejected),
            Payload::AlreadyStored => false,
        }
    }
}

impl Expiry {
    /// Whether a row that was inserted then has expired, or can have; also where nothing but that is known of it.
    pub fn may_be_over(&self, ingested_ms: i64) -> bool {
        let Self { events, rejected, is_unclear } = self;
        let by_ingestion = |limits: &Limits| limits.ingested_ms.is_some_and(|limit| ingested_ms <= limit);
        *is_unclear || events.timestamp_ms.is_some() || by_ingestion(events) || by_ingestion(rejected)
    }
}

impl ClickHouse {
    /// Reads the TTLs of both tables, and what of them cannot be used.
    ///
    /// # Errors
    /// When ClickHouse cannot be asked.
    pub async fn expiry(&self) -> Result<(Expiry, Vec<String>), Failure> {
        let mut unused = Vec::new();
        let events = self.limits(Table::Events.name(), &mut unused).await?;
        let rejected = self.limits(Table::Rejected.name(), &mut unused).await?;
        Ok((Expiry { events, rejected, is_unclear: !unused.is_empty() }, unused))
    }

    async fn limits(&self, table: &str, unused: &mut Vec<String>) -> Result<Limits, Failure> {
        let sql = format!(
            "SELECT engine_full FROM system.tables WHERE database = {} AND name = {}",
            quoted(&self.database),
            quoted(self.name_of(table))
        );
        let mut limits = Limits::default();
        let own = self.own_table().filter(|_| self.is_own(table));
        let time = own.as_ref().map_or(Some("timestamp"), |own| own.time());
        for (engine,) in self.all::<(String,)>(&sql).await? {
            for expression in deleting(&engine) {
                if let Some(ms) = self.limit("ingested_at", expression).await? {
                    limits.ingested_ms = limits.ingested_ms.max(Some(ms));
                } else if let Some(time) = time
                    && let Some(ms) = self.limit(time, expression).await?
                {
                    limits.timestamp_ms = limits.timestamp_ms.max(Some(ms));
                } else {
                    unused.push(format!("{table}: TTL {expression}"));
                }
            }
        }
        Ok(limits)
    }

    /// The newest `column` with which a row has expired now; none where the expression takes other columns than this one.
    async fn limit(&self, column: &str, expression: &str) -> Result<Option<i64>, Failure> {
        let newest = async |times: &str| {
            let sql = format!(
                "SELECT max(at) FROM (SELECT toInt64({times}) AS at, fromUnixTimestamp64Milli(at, 'UTC') AS {column}) \
                 WHERE ({expression}) <= now()"
            );
            match self.all::<(i64,)>(&sql).await {
                Ok(found) => Ok(found.first().map(|(ms,)| *ms)),
                Err(failure) if failure.kind == ErrorKind::Transient => Err(failure),
                // The expression has other columns, or another form.
                Err(_) => Ok(None),
            }
        };
        // The day first, then the second.
        let days =
            "toUnixTimestamp64Milli(now64(3)) - arrayJoin(range(intDiv(toUnixTimestamp(now()), 86400))) * 86400000";
        let Some(day) = newest(days).await? else { return Ok(None) };
        newest(&format!("{day} + arrayJoin(range(86400)) * 1000")).await
    }
}

/// Whether a word stands in a definition, outside of quotes.
pub fn mentions(definition: &str, word: &str) -> bool {
    found(definition, word, |_| true).is_some()
}

/// The settings of a table, out of its engine's definition.
pub fn settings(engine: &str) -> BTreeMap<&str, &str> {
    let Some(mut rest) = behind(engine, " SETTINGS ").map(|settings| before(settings, " COMMENT ")) else {
        return BTreeMap::new();
    };
    let mut settings = BTreeMap::new();
    loop {
        settings.extend(before(rest, ",").split_once('=').map(|(name, value)| (name.trim(), value.trim())));
        let Some(others) = behind(rest, ",") else { return settings };
        rest = others;
    }
}

/// The expressions of a table's TTL by which rows are deleted, or rolled up.
fn deleting(engine: &str) -> Vec<&str> {
    let Some(ttl) = behind(engine, " TTL ") else { return Vec::new() };
    let ttl = before(ttl, " SETTINGS ");
    let (mut elements, mut rest) = (Vec::new(), Some(ttl));
    while let Some(text) = rest {
        elements.push(before(text, ",").trim());
        rest = behind(text, ",");
    }
    let stays = |element: &&str| [" TO ", " RECOMPRESS "].iter().any(|word| behind(element, word).is_some());
    let expression = |element| [" WHERE ", " DELETE", " GROUP BY "].into_iter().fold(element, before);
    elements.into_iter().filter(|element| !stays(element)).map(expression).collect()
}

fn before<'t>(text: &'t str, word: &str) -> &'t str {
    position(text, word).map_or(text, |at| &text[..at])
}

fn behind<'t>(text: &'t str, word: &str) -> Option<&'t str> {
    position(text, word).map(|at| &text[at + word.len()..])
}

/// Where a word stands for the first time outside of brackets and quotes.
fn position(text: &str, word: &str) -> Option<usize> {
    found(text, word, |depth| depth == 0)
}

/// Where a word stands for the first time outside of quotes, so deep in brackets.
fn found(text: &str, word: &str, is_deep: impl Fn(u32) -> bool) -> Option<usize> {
    let (mut depth, mut quote, mut escaped) = (0_u32, None, false);
    for (at, c) in text.char_indices() {
        match quote {
            Some(_) if escaped => escaped = false,
            Some(_) if c == '\\' => escaped = true,
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None if is_deep(depth) && text[at..].starts_with(word) => return Some(at),
            None => match c {
                '\'' | '`' | '"' => quote = Some(c),
                '(' | '[' => depth += 1,
                ')' | ']' => depth = depth.saturating_sub(1),
                _ => {}
            },
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::mock::{Mock, exception, rows};
    use super::*;
    use flows::Event;

    async fn with_ttl(expression: &str) -> Mock {
        let mock = Mock::start().await;
        let engine = serde_json::json!([format!("MergeTree ORDER BY x TTL {expression} SETTINGS a = 1")]);
        mock.always("name = 'events'", rows(&engine.to_string()))
            .always("name = 'rejected'", rows("[\"MergeTree ORDER BY x\"]"));
        mock
    }

    #[tokio::test]
    async fn a_limit_is_asked_for_by_the_day_and_then_by_the_second() {
        let mock = with_ttl("toDateTime(ingested_at) + toIntervalDay(1)").await;
        mock.expect("AS ingested_at)", rows("[86400000]")).expect("86400000 + arrayJoin", rows("[90000000]"));
        let (expiry, unused) = mock.clickhouse().expiry().await.unwrap();
        assert_eq!(
            (expiry.events.ingested_ms, expiry.rejected, unused.len()),
            (Some(90_000_000), Limits::default(), 0)
        );
        assert!(expiry.may_be_over(90_000_000) && !expiry.may_be_over(90_000_001));
    }

    #[tokio::test]
    async fn an_expression_of_other_columns_is_said_and_one_that_cannot_be_asked_now_is_asked_again() {
        let mock = with_ttl("toDateTime(timestamp) + lifetime").await;
        let unknown = exception(47, "Unknown identifier");
        mock.expect("AS ingested_at)", unknown.clone()).expect("AS timestamp)", unknown);
        let (expiry, unused) = mock.clickhouse().expiry().await.unwrap();
        assert_eq!(unused, ["events: TTL toDateTime(timestamp) + lifetime"]);
        assert!(expiry.may_be_over(i64::MAX), "it cannot be told");
        mock.expect("AS ingested_at)", exception(202, "Too many simultaneous queries"));
        assert_eq!(mock.clickhouse().expiry().await.unwrap_err().kind, ErrorKind::Transient);
    }

    #[test]
    fn settings_are_read_whatever_stands_before_them() {
        let read = settings(
            "MergeTree ORDER BY (a, b) TTL t + f(1, ' SETTINGS x = 1') SETTINGS a = 1, b = 'x, y', c=true COMMENT 'z'",
        );
        assert_eq!(read.into_iter().collect::<Vec<_>>(), [("a", "1"), ("b", "'x, y'"), ("c", "true")]);
        assert!(settings("MergeTree ORDER BY a").is_empty());
    }

    #[test]
    fn the_expressions_that_delete_are_found() {
        for (engine, expected) in [
            ("ReplacingMergeTree ORDER BY x SETTINGS a = 1", &[][..]),
            (
                "MergeTree ORDER BY x TTL toDateTime(t) + toIntervalDay(90) SETTINGS a = 1",
                &["toDateTime(t) + toIntervalDay(90)"],
            ),
            ("MergeTree ORDER BY x TTL addDays(toDateTime(t), 3)", &["addDays(toDateTime(t), 3)"]),
            (
                "MergeTree ORDER BY x TTL t + toIntervalDay(1) WHERE u != 'a, TTL \\'b SETTINGS ' SETTINGS a = 1",
                &["t + toIntervalDay(1)"],
            ),
            (
                "MergeTree ORDER BY x TTL t + toIntervalDay(1) TO VOLUME 'd', t + toIntervalDay(2) RECOMPRESS CODEC(ZSTD(3)), u + f(1, 2)",
                &["u + f(1, 2)"],
            ),
            (
                "MergeTree ORDER BY x TTL t + toIntervalDay(1) GROUP BY k SET p = any(p) SETTINGS a = 1",
                &["t + toIntervalDay(1)"],
            ),
        ] {
            assert_eq!(deleting(engine), expected, "{engine}");
        }
    }

    #[test]
    fn a_row_expires_by_its_own_table_and_never_before_its_message_could() {
        let limits = |ingested_ms, timestamp_ms| Limits { ingested_ms, timestamp_ms };
        let event = |timestamp_ms| {
            let json = r#"{"event_id":"5b0e4d5e-8f63-4b3f-9b39-6f4f1f2b7a10","event_type":"page_view","user_id":"u","product_id":"p","price":1,"timestamp":"2024-01-15T14:30:00Z"}"#;
            let Payload::Event(event) = Event::decode(None, Some(json.as_bytes())) else { panic!("an event") };
            Payload::Event(Event { timestamp_ms, ..event })
        };
        let reject = || Event::decode(None, Some(b"no event"));
        let rejects_only = Expiry { rejected: limits(Some(1_000), None), ..Expiry::default() };
        assert!(rejects_only.is_over(Some(1_000), reject));
        assert!(!rejects_only.is_over(Some(1_001), reject));
        assert!(!rejects_only.is_over(None, reject), "a message without a time");
        assert!(!rejects_only.is_over(Some(1), || event(1)));
        let by_timestamp = Expiry { events: limits(None, Some(500)), ..Expiry::default() };
        assert!(by_timestamp.is_over(Some(9_999), || event(500)));
        assert!(!by_timestamp.is_over(Some(1), || event(501)));
        assert!(!by_timestamp.is_over(Some(1), reject));
        assert!(!Expiry::default().is_over(Some(1), || panic!("nothing is decoded where nothing expires")));
    }
}
