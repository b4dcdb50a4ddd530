//! Values of options: how they are read, and what is refused.

use crate::printable::printable;
use clap::builder::TypedValueParser;
use clap::error::ErrorKind;
use flows::{Rate, now};
use std::ffi::OsStr;
use std::str::FromStr;
use std::time::Duration;
use url::Url;

/// `KEY=VALUE` for librdkafka.
#[derive(Clone)]
pub struct Setting {
    pub key: String,
    pub value: String,
}

impl std::fmt::Debug for Setting {
    /// Without the value, which may be a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}=…", self.key)
    }
}

impl FromStr for Setting {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok(Self { key: key.trim().into(), value: value.trim().into() }),
            _ => Err("expected KEY=VALUE"),
        }
    }
}

pub fn duration(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|error| format!("{error}, expected a time like 5s or 250ms"))?;
    if time > Duration::from_secs(366 * 24 * 3_600) {
        return Err("more than a year".into());
    }
    Ok(time)
}

/// The shortest interval of a latency log: below, the log would be more work than the events.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(50);

pub fn interval(text: &str) -> Result<Duration, String> {
    let time = duration(text)?;
    if time < SHORTEST_INTERVAL { Err("shorter than 50ms".into()) } else { Ok(time) }
}

/// The in-process broker keeps 5 MB of each partition: some ten seconds of the most that is allowed here.
pub fn demo_rate(text: &str) -> Result<Rate, String> {
    match text.parse()? {
        rate @ Rate::PerSecond(events) if events <= 10_000.0 => Ok(rate),
        _ => Err("more than 10,000: `clickstream produce` to a real Kafka has no limit".into()),
    }
}

/// Reads a URL, and never repeats one that it refuses: there may be a password in it.
#[derive(Clone)]
pub struct HttpUrl;

impl TypedValueParser for HttpUrl {
    type Value = Url;

    fn parse_ref(&self, _: &clap::Command, _: Option<&clap::Arg>, value: &OsStr) -> Result<Url, clap::Error> {
        let refuse = |why: &str| clap::Error::raw(ErrorKind::ValueValidation, format!("--clickhouse-url: {why}\n"));
        let url = value.to_str().and_then(|text| Url::parse(text).ok()).filter(Url::has_host);
        match url {
            Some(url) if url.password().is_some() || !url.username().is_empty() => {
                Err(refuse("no user or password in it: use --clickhouse-user and --clickhouse-password-file"))
            }
            Some(url) if matches!(url.scheme(), "http" | "https") => match query_refused(&url) {
                Some(why) => Err(refuse(&why)),
                None => Ok(url),
            },
            _ => Err(refuse("expected http://HOST:PORT or https://HOST:PORT")),
        }
    }
}

/// What the query of a URL may not hold: secrets that an option takes from a file, and what each request sets for itself. All
/// else (a role, a token for a proxy) goes along with every request, and is never shown.
fn query_refused(url: &Url) -> Option<String> {
    url.query_pairs().find_map(|(name, _)| match &*name.to_ascii_lowercase() {
        "user" | "password" => {
            Some("no user or password in it: use --clickhouse-user and --clickhouse-password-file".into())
        }
        "database" => Some("no database in it: use --database".into()),
        "query" | "query_id" | "default_format" | "session_id" => {
            Some(format!("`{name}` cannot stand in it: each request has its own"))
        }
        parameter if parameter.starts_with("param_") => Some(format!("`{}` cannot stand in it", printable(&name))),
        _ => None,
    })
}

pub fn identifier(text: &str) -> Result<String, &'static str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let good = text.chars().all(plain) && !text.is_empty() && !text.starts_with(|c: char| c.is_ascii_digit());
    if good { Ok(text.into()) } else { Err("expected letters, digits and _, not beginning with a digit") }
}

/// Kafka's own rule for names of topics.
pub fn topic_name(text: &str) -> Result<String, &'static str> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let good = text.chars().all(legal) && (1..=249).contains(&text.len()) && text != "." && text != "..";
    if good { Ok(text.into()) } else { Err("expected 1 to 249 letters, digits, `.`, `_` and `-`") }
}

pub fn not_empty(text: &str) -> Result<String, &'static str> {
    if text.is_empty() { Err("expected a name") } else { Ok(text.into()) }
}

/// A text that is kept in a table.
pub fn short_text(text: &str) -> Result<String, &'static str> {
    let good = text.len() <= 200 && !text.chars().any(char::is_control);
    if good { Ok(text.into()) } else { Err("expected at most 200 bytes, without control characters") }
}

pub fn header_value(text: &str) -> Result<String, &'static str> {
    if hyper::header::HeaderValue::from_str(text).is_ok() { Ok(text.into()) } else { Err("holds control characters") }
}

/// A time, or how long ago: milliseconds since the Unix epoch.
pub fn instant(text: &str) -> Result<i64, &'static str> {
    if let Ok(ago) = humantime::parse_duration(text) {
        let ago_ms = i64::try_from(ago.as_millis()).map_err(|_| "longer ago than there is time")?;
        return Ok(now() / 1_000_000 - ago_ms);
    }
    let time = chrono::DateTime::parse_from_rfc3339(text);
    time.map(|time| time.timestamp_millis())
        .map_err(|_| "expected a time like 2026-01-31T14:00:00Z, or 2h for so long ago")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_query_may_not_hold_is_refused_without_its_value() {
        let url = |query: &str| Url::parse(&format!("http://localhost:8123/{query}")).unwrap();
        for query in
            ["?user=x", "?a=b&Password=secret", "?query=secret", "?query_id=x", "?param_source=x", "?database=secret"]
        {
            let why = query_refused(&url(query)).unwrap_or_else(|| panic!("{query} is taken"));
            assert!(!why.contains("secret"), "{why}");
        }
        for query in ["", "?role=writer", "?role=a&role=b", "?token=secret"] {
            assert_eq!(query_refused(&url(query)), None, "{query}");
        }
    }

    #[test]
    fn a_setting_never_shows_its_value() {
        let setting: Setting = "sasl.password=secret".parse().unwrap();
        assert_eq!(format!("{setting:?}"), "sasl.password=…");
    }
    #[test]
    fn a_time_is_a_moment_or_how_long_ago() {
        assert_eq!(instant("1970-01-01T00:00:01Z"), Ok(1_000));
        assert!((instant("1h").unwrap() + 3_600_000 - now() / 1_000_000).abs() < 5_000);
        assert!(instant("yesterday").is_err());
    }
}
