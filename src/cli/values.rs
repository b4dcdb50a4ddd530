//! Parsers of option values, and the values that they refuse.

use crate::printable::printable;
use clap::builder::TypedValueParser;
use clap::error::ErrorKind;
use flows::{Rate, now};
use std::ffi::OsStr;
use std::net::Ipv6Addr;
use std::time::Duration;
use url::Url;

/// Reads a value that may hold a secret: one that is refused is never repeated.
#[derive(Clone)]
pub struct Unseen<T>(pub fn(&str) -> Result<T, String>);

impl<T: Clone + Send + Sync + 'static> TypedValueParser for Unseen<T> {
    type Value = T;

    fn parse_ref(&self, command: &clap::Command, arg: Option<&clap::Arg>, value: &OsStr) -> Result<T, clap::Error> {
        // One that is hidden stands for a variable, which is named in its place.
        let flag = arg.filter(|arg| !arg.is_hide_set()).and_then(clap::Arg::get_long);
        let prefix = flag.map(|flag| format!("--{flag}: ")).unwrap_or_default();
        let read = value.to_str().ok_or_else(|| "it is not UTF-8".to_owned()).and_then(self.0);
        read.map_err(|why| command.clone().error(ErrorKind::ValueValidation, prefix + &why))
    }
}

/// A switch as a variable: what `--until-end` is as a flag is `CLICKSTREAM_UNTIL_END=1`.
pub fn switch(text: &str) -> Result<bool, &'static str> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "on" => Ok(true),
        "0" | "false" | "no" | "off" => Ok(false),
        _ => Err("expected 1, true, yes or on; or 0, false, no or off"),
    }
}

/// Where to listen, or to ask.
pub fn address(text: &str) -> Result<String, &'static str> {
    match host_port(text) {
        Some(_) => Ok(text.into()),
        None => Err("expected HOST:PORT, like 127.0.0.1:9464, or 0.0.0.0:9464 for all addresses"),
    }
}

/// Addresses, separated by commas, with blanks around them or not.
pub fn brokers(text: &str) -> Result<String, String> {
    let mut addresses = Vec::new();
    for (nth, entry) in (1..).zip(text.split(',').map(str::trim)) {
        if host_port(entry).is_none_or(|port| port == 0) {
            return Err(format!(
                "expected HOST:PORT, several of them separated by commas, like kafka-1:9092,kafka-2:9092; number {nth} is not one"
            ));
        }
        addresses.push(entry);
    }
    Ok(addresses.join(","))
}

/// The port of HOST:PORT, where HOST is a name, an address, or an IPv6 address in brackets.
fn host_port(text: &str) -> Option<u16> {
    let (host, port) = text.rsplit_once(':')?;
    let good = match host.strip_prefix('[') {
        // The zone of a link-local address is a name of this machine's.
        Some(inner) => inner.strip_suffix(']')?.split('%').next()?.parse::<Ipv6Addr>().is_ok(),
        None => is_host(host),
    };
    // `parse` would take a sign.
    (good && port.bytes().all(|digit| digit.is_ascii_digit())).then(|| port.parse().ok())?
}

fn is_host(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || matches!(c, '.' | '-' | '_'))
}

/// The name of a host, without a port.
pub fn host_name(text: &str) -> Result<String, &'static str> {
    if is_host(text) { Ok(text.into()) } else { Err("expected a host name without a port, like clicks.example.com") }
}

/// Names of hosts.
#[derive(Clone, Debug)]
pub struct Names(pub Vec<String>);

/// Names of hosts, separated by commas, blanks or lines.
pub fn host_names(text: &str) -> Result<Names, &'static str> {
    let names = text.split(|c: char| c == ',' || c.is_whitespace()).filter(|name| !name.is_empty());
    names.map(host_name).collect::<Result<_, _>>().map(Names)
}

pub fn duration(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|error| format!("{error}, expected a time like 5s or 250ms"))?;
    if time > Duration::from_secs(366 * 24 * 3_600) {
        return Err("more than a year".into());
    }
    Ok(time)
}

/// A time in which something can happen.
pub fn some_time(text: &str) -> Result<Duration, String> {
    let time = duration(text)?;
    if time.is_zero() { Err("expected more than nothing".into()) } else { Ok(time) }
}

/// A share of all, in percent.
pub fn percent(text: &str) -> Result<f64, &'static str> {
    let percent = text.trim_end_matches(['%', ' ']).parse().ok();
    percent.filter(|percent| (0.0..=100.0).contains(percent)).ok_or("expected a number from 0 to 100, like 99.9")
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

/// Keys that the query of a URL may not have: secrets that an option takes from a file, and settings of each request. Others (a
/// role, a token for a proxy) are sent with every request, and never shown.
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
    time.map(|time| time.timestamp_millis()).map_err(|_| "expected a time like 2026-01-31T14:00:00Z, or an age like 2h")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forbidden_key_of_a_query_is_refused_without_its_value() {
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
    fn an_address_has_a_host_and_a_port() {
        for good in [
            "127.0.0.1:9464",
            "localhost:0",
            "[::]:9464",
            "[fe80::1%eth0]:80",
            "kafka-1.example_x.com:9092",
            "\u{fc}.de:1",
        ] {
            assert_eq!(address(good).as_deref(), Ok(good));
        }
        for bad in [
            "9000",
            ":9000",
            "localhost",
            "localhost:",
            "http://localhost:1",
            "a:70000",
            "a:+1",
            "::1:9092",
            "[x]:1",
            "a b:1",
            "",
        ] {
            assert!(address(bad).unwrap_err().contains("HOST:PORT"), "{bad}");
        }
    }

    #[test]
    fn brokers_are_addresses_and_a_bad_one_is_counted_and_not_repeated() {
        assert_eq!(brokers("a:1, [::1]:2 ,c.d:3").as_deref(), Ok("a:1,[::1]:2,c.d:3"));
        for (bad, nth) in [
            ("localhost", 1),
            ("a:1,,b:2", 2),
            ("a:1,", 2),
            ("", 1),
            ("http://me:secret@a:1", 1),
            ("a:1;b:2", 1),
            ("a:0", 1),
            ("a:1 b:2", 1),
        ] {
            let why = brokers(bad).unwrap_err();
            assert!(why.contains("HOST:PORT") && why.ends_with(&format!("number {nth} is not one")), "{bad}: {why}");
            assert!(!why.contains("secret"), "{why}");
        }
    }

    #[test]
    fn a_list_of_host_names_is_read_as_people_write_it() {
        let names = |text| host_names(text).map(|names| names.0.join(" "));
        assert_eq!(names("a.example b\n c,d, e").as_deref(), Ok("a.example b c d e"));
        for bad in ["a:80", "http://a", "*.example", "a/b"] {
            assert!(names(bad).is_err() && host_name(bad).is_err(), "{bad}");
        }
        assert!(host_name("a b").is_err(), "one flag is one name");
    }

    #[test]
    fn a_switch_is_read_as_people_write_it() {
        assert!(["1", "true", "yes", "on", "TRUE", "On"].iter().all(|text| switch(text) == Ok(true)));
        assert!(["0", "false", "no", "off", "No"].iter().all(|text| switch(text) == Ok(false)));
        assert!(["", "2", "maybe", " 1"].iter().all(|text| switch(text).is_err()));
    }
    #[test]
    fn a_time_is_a_moment_or_how_long_ago() {
        assert_eq!(instant("1970-01-01T00:00:01Z"), Ok(1_000));
        assert!((instant("1h").unwrap() + 3_600_000 - now() / 1_000_000).abs() < 5_000);
        assert!(instant("yesterday").is_err());
    }
}
