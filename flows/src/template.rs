//! Events of one's own for trying things out: JSON with placeholders, filled from a seed.

use crate::Message;
use chrono::{DateTime, SecondsFormat, Utc};
use compact_str::CompactString;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::de::IgnoredAny;
use std::fmt::Write as _;
use std::str::FromStr;
use uuid::Builder;

/// How likely a user's next event begins a new session.
const NEW_SESSION: f64 = 0.05;

/// The placeholders, for people.
const PLACEHOLDERS: &str =
    "{{id}}, {{user}}, {{session}}, {{time}}, {{time_ms}}, {{choice A|B|…}}, {{number FROM..TO}}";

/// JSON objects with placeholders in their strings. A string that is one placeholder becomes its value: `{{time_ms}}` and
/// `{{number 1..9}}` are numbers then.
#[derive(Clone, Debug, PartialEq)]
pub struct Template(Vec<Vec<Part>>);

#[derive(Clone, Debug, PartialEq)]
enum Part {
    Text(String),
    /// A placeholder that stands for a string, in its quotes or inside of a longer text.
    Within(Placeholder),
    /// One that stands for a number, and whose quotes are left out.
    Number(Placeholder),
}

#[derive(Clone, Debug, PartialEq)]
enum Placeholder {
    Id,
    User,
    Session,
    Time,
    TimeMs,
    /// The texts, as they stand in a JSON string.
    Choice(Vec<String>),
    /// The limits, in units of the last digit, and the number of digits behind the point.
    Number(i64, i64, usize),
}

/// Users and their sessions, who cause the events of a template. The same seed and number of users give the same events, but for times.
pub struct Visitors {
    template: Template,
    rng: StdRng,
    sessions: Vec<u64>,
    width: usize,
}

impl FromStr for Template {
    type Err = String;

    /// Reads one JSON object, or several, of which each event is one.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut documents = serde_json::Deserializer::from_str(text).into_iter::<IgnoredAny>();
        let (mut templates, mut begin) = (Vec::new(), 0);
        while let Some(document) = documents.next() {
            document.map_err(|error| format!("it is not JSON: {error}"))?;
            let end = documents.byte_offset();
            let document = text[begin..end].trim();
            if !document.starts_with('{') {
                return Err("an event is a JSON object, which begins with {".into());
            }
            templates.push(parts(document)?);
            begin = end;
        }
        if templates.is_empty() { Err("it holds no JSON object".into()) } else { Ok(Self(templates)) }
    }
}

fn parts(mut text: &str) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    while let Some((before, rest)) = text.split_once("{{") {
        let (inside, after) = rest.split_once("}}").ok_or("a placeholder has no }}")?;
        let placeholder = placeholder(inside.trim())?;
        let is_number = matches!(placeholder, Placeholder::TimeMs | Placeholder::Number(..));
        match (before.strip_suffix('"'), after.strip_prefix('"')) {
            (Some(before), Some(after)) if is_number && !before.ends_with('\\') => {
                parts.extend([Part::Text(before.to_owned()), Part::Number(placeholder)]);
                text = after;
            }
            _ => {
                parts.extend([Part::Text(before.to_owned()), Part::Within(placeholder)]);
                text = after;
            }
        }
    }
    parts.push(Part::Text(text.to_owned()));
    Ok(parts)
}

fn placeholder(text: &str) -> Result<Placeholder, String> {
    let (name, of) = text.split_once(' ').unwrap_or((text, ""));
    Ok(match (name, of.trim()) {
        ("id", "") => Placeholder::Id,
        ("user", "") => Placeholder::User,
        ("session", "") => Placeholder::Session,
        ("time", "") => Placeholder::Time,
        ("time_ms", "") => Placeholder::TimeMs,
        ("choice", of) if !of.is_empty() => Placeholder::Choice(of.split('|').map(|text| text.trim().into()).collect()),
        ("number", of) => {
            number(of).ok_or_else(|| format!("{{{{{text}}}}} has no limits such as 1..100 or 0.99..99.99"))?
        }
        _ => return Err(format!("{{{{{text}}}}} is none of {PLACEHOLDERS}")),
    })
}

fn number(limits: &str) -> Option<Placeholder> {
    let (from, to) = limits.split_once("..")?;
    let digits = |text: &str| text.trim().split_once('.').map_or(0, |(_, digits)| digits.len());
    let scale = digits(from).max(digits(to));
    let units = |text: &str| {
        let text = text.trim();
        let zeros = "0".repeat(scale - digits(text));
        (scale <= 9).then(|| (text.replacen('.', "", 1) + &zeros).parse::<i64>().ok())?
    };
    let (from, to) = (units(from)?, units(to)?);
    (from <= to).then_some(Placeholder::Number(from, to, scale))
}

impl Visitors {
    /// As many users, at least one.
    pub fn new(template: Template, seed: u64, users: usize) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let sessions: Vec<_> = (0..users.max(1)).map(|_| rng.random()).collect();
        let width = sessions.len().to_string().len().max(4);
        Self { template, rng, sessions, width }
    }

    /// The next message, of an event that happens at `due`: nanoseconds since the Unix epoch.
    pub fn next(&mut self, due: i64) -> Message {
        let Self { template, rng, sessions, width } = self;
        let who = rng.random_range(0..sessions.len());
        if rng.random_bool(NEW_SESSION) {
            sessions[who] = rng.random();
        }
        let user: CompactString = format!("user_{who:0width$}").into();
        let parts = &template.0[rng.random_range(0..template.0.len())];
        let mut payload = String::new();
        for part in parts {
            match part {
                Part::Text(text) => payload.push_str(text),
                Part::Within(placeholder) | Part::Number(placeholder) => {
                    // Writing into a string does not fail.
                    let _ = placeholder.write(&mut payload, rng, (&user, sessions[who]), due);
                }
            }
        }
        Message { key: user, payload: Some(payload.into_bytes()), event: None, fault: None }
    }
}

impl Placeholder {
    fn write(&self, out: &mut String, rng: &mut StdRng, (user, session): (&str, u64), due: i64) -> std::fmt::Result {
        match self {
            Self::Id => write!(out, "{}", Builder::from_random_bytes(rng.random()).into_uuid()),
            Self::User => out.write_str(user),
            Self::Session => write!(out, "{session:016x}"),
            Self::Time => {
                let time = DateTime::<Utc>::from_timestamp_nanos(due);
                out.write_str(&time.to_rfc3339_opts(SecondsFormat::Millis, true))
            }
            Self::TimeMs => write!(out, "{}", due.div_euclid(1_000_000)),
            Self::Choice(texts) => out.write_str(&texts[rng.random_range(0..texts.len())]),
            &Self::Number(from, to, digits) => {
                let units = rng.random_range(from..=to);
                let (sign, scale) = (if units < 0 { "-" } else { "" }, 10u64.pow(digits as u32));
                let (whole, fraction) = (units.unsigned_abs() / scale, units.unsigned_abs() % scale);
                if digits == 0 { write!(out, "{units}") } else { write!(out, "{sign}{whole}.{fraction:0digits$}") }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    const TEMPLATE: &str = r#"{"id": "{{id}}", "who": {"user": "{{user}}", "session": "{{ session }}"}, "at": "{{time}}", "ms": "{{time_ms}}",
        "page": "/{{choice a|b\"c}}?n={{number 1..3}}", "price": "{{number -0.50..9.99}}", "nested": {"empty": {}}, "list": [{"x": {}}]}"#;

    fn events(template: &str, users: usize) -> Vec<(String, Value)> {
        let mut visitors = Visitors::new(template.parse().unwrap(), 1, users);
        let due = 1_705_329_000_123_456_789;
        let event = |message: Message| {
            let payload = message.payload.unwrap();
            let value = serde_json::from_slice(&payload)
                .unwrap_or_else(|why| panic!("{why}: {}", String::from_utf8_lossy(&payload)));
            (message.key.to_string(), value)
        };
        (0..200).map(|_| event(visitors.next(due))).collect()
    }

    #[test]
    fn each_placeholder_is_filled_and_a_whole_string_may_be_a_number() {
        for (key, event) in events(TEMPLATE, 3) {
            assert_eq!(event["who"]["user"], Value::from(key));
            assert_eq!(event["at"], "2024-01-15T14:30:00.123Z");
            assert_eq!(event["ms"], 1_705_329_000_123i64);
            let price = event["price"].as_f64().unwrap();
            assert!(
                (-0.5..=9.99).contains(&price) && event["id"].as_str().unwrap().parse::<uuid::Uuid>().is_ok(),
                "{event}"
            );
            let page = event["page"].as_str().unwrap();
            assert!(
                ["/a?n=", "/b\"c?n="].iter().any(|begin| page.starts_with(begin)) && page.ends_with(['1', '2', '3']),
                "{page}"
            );
            assert_eq!(event["list"], serde_json::json!([{"x": {}}]));
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_events_and_sessions_of_a_user_last_a_while() {
        let (one, other) = (events(TEMPLATE, 3), events(TEMPLATE, 3));
        assert_eq!(one, other);
        let mut sessions: Vec<_> = one.iter().map(|(_, event)| event["who"]["session"].to_string()).collect();
        sessions.sort_unstable();
        sessions.dedup();
        assert!((3..50).contains(&sessions.len()), "{}", sessions.len());
    }

    #[test]
    fn of_several_objects_each_event_is_one() {
        let kinds: std::collections::BTreeSet<_> = events("{\"kind\": \"view\"}\n{\"kind\": \"click\"}\n", 1)
            .into_iter()
            .map(|(_, event)| event.to_string())
            .collect();
        assert_eq!(kinds.len(), 2);
    }

    #[test]
    fn a_template_that_cannot_be_filled_is_refused_with_what_is_wrong() {
        for (text, why) in [
            ("", "no JSON object"),
            ("[]", "JSON object"),
            ("{\"a\": 1", "not JSON"),
            ("{\"a\": \"{{name}}\"}", "{{name}} is none of {{id}}"),
            ("{\"a\": \"{{id\"}", "no }}"),
            ("{\"a\": \"{{number 1}}\"}", "limits"),
            ("{\"a\": \"{{number 9..1}}\"}", "limits"),
            ("{\"a\": \"{{choice}}\"}", "none of"),
        ] {
            let said = text.parse::<Template>().unwrap_err();
            assert!(said.contains(why), "{text}: {said}");
        }
    }
}
