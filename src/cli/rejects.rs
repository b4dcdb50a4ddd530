//! `clickstream rejects`: lists rejected messages with their reasons, and re-publishes them after a fix.

use super::values::instant;
use super::{ClickHouseArgs, Format, KafkaArgs, TableArgs};
use crate::clickhouse::{Count, Row};
use crate::numbers::grouped;
use crate::output;
use crate::printable::{name, printable};
use crate::rejects::{Rejects, RejectsConfig, groups};
use anyhow::Result;
use chrono::{DateTime, SecondsFormat};
use clap::Args;
use flows::Reason;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Of a key or payload, shown to people.
const EXCERPT_BYTES: u64 = 200;

#[derive(Args, Debug)]
pub struct RejectsArgs {
    #[command(flatten)]
    pub kafka: KafkaArgs,
    #[command(flatten)]
    pub clickhouse: ClickHouseArgs,
    #[command(flatten)]
    pub table: TableArgs,

    /// Only rejects with this reason; may be repeated
    #[arg(long, value_parser = reason, value_name = "REASON")]
    pub reason: Vec<Reason>,

    /// Only the reject at this position; may be repeated
    #[arg(long, value_parser = position, value_name = "PARTITION:OFFSET")]
    pub at: Vec<(i32, i64)>,

    /// Only rejects ingested since then: a time (2026-01-31T14:00:00Z) or an age (2h)
    #[arg(long, value_parser = instant, value_name = "TIME")]
    pub since: Option<i64>,

    /// Only rejects ingested before then
    #[arg(long, value_parser = instant, value_name = "TIME")]
    pub until: Option<i64>,

    /// The number of rejects to show of each reason, the newest first
    #[arg(long, default_value_t = 3, value_name = "N")]
    pub limit: u32,

    /// The output format; `json` has whole payloads, one reject a line
    #[arg(long, value_enum, default_value = "text")]
    pub format: Format,

    /// Re-publish the rejects to the topic, each once; without --yes it only counts them
    #[arg(long)]
    pub replay: bool,

    /// Send the messages
    #[arg(long, requires = "replay")]
    pub yes: bool,
}

/// Lists the rejects, or replays them.
///
/// # Errors
/// When a service does not answer, or not all could be sent.
pub async fn run(args: RejectsArgs) -> Result<()> {
    let rejects = Rejects::open(RejectsConfig {
        kafka: args.kafka.config(),
        clickhouse: args.table.config(&args.clickhouse),
        connect_timeout: args.kafka.connect_timeout,
        reasons: args.reason,
        places: args.at,
        since_ms: args.since,
        until_ms: args.until,
    })
    .await?;
    match (args.replay, args.format) {
        (true, _) => replay(&rejects, args.yes).await,
        (false, Format::Text) => show(&rejects, args.limit).await,
        (false, Format::Json) => dump(&rejects, args.limit).await,
    }
}

/// For people: each reason with its number and times, and some of its messages.
async fn show(rejects: &Rejects, limit: u32) -> Result<()> {
    let counts = rejects.counts().await?;
    let newest = rejects.newest(limit).await?;
    let mut samples: BTreeMap<String, Vec<Row>> = BTreeMap::new();
    for group in groups(&newest, |_| EXCERPT_BYTES) {
        for row in rejects.rows(group, EXCERPT_BYTES).await? {
            samples.entry(row.reason.clone()).or_default().push(row);
        }
    }
    let foreign = rejects.foreign().await?;
    output::line(format_args!(
        "topic {} ({}): {} rejects",
        rejects.topic(),
        rejects.source(),
        grouped(total(&counts))
    ))?;
    for count in &counts {
        let (first, last) = (time(count.first_ms), time(count.last_ms));
        output::line(format_args!("{:<14} {:>11}  {first} to {last}", name(&count.reason), grouped(count.rejects)))?;
        for row in samples.get(&count.reason).into_iter().flatten() {
            let detail = excerpt(row.detail.as_bytes());
            output::line(format_args!("  {}/{}/{}: {detail}", rejects.topic(), row.partition, row.offset))?;
            output::line(format_args!("    key \"{}\", payload {}", excerpt(&row.key), excerpt(&row.payload)))?;
            let besides = besides(row);
            if !besides.is_empty() {
                output::line(format_args!("    {besides}"))?;
            }
        }
    }
    if foreign.rejects > 0 {
        let named: Vec<_> = foreign.topics.iter().map(|topic| name(topic)).collect();
        let named = if named.is_empty() { String::new() } else { format!(" ({})", named.join(", ")) };
        output::line(format_args!(
            "{} more rejects are of other topics{named}, or of one that was deleted",
            grouped(foreign.rejects)
        ))?;
    }
    Ok(())
}

/// The timestamp and the headers of a message, as far as it has any.
fn besides(row: &Row) -> String {
    let timestamp = row.timestamp_ms.map(|ms| format!("timestamp {}", time(ms)));
    let header = |(name, value): &(String, Option<Vec<u8>>)| {
        let value = value.as_ref().map_or_else(|| "null".to_owned(), |value| format!("\"{}\"", excerpt(value)));
        format!("{}={value}", excerpt(name.as_bytes()))
    };
    let headers: Vec<_> = row.headers.iter().map(header).collect();
    let headers = (!headers.is_empty()).then(|| format!("headers {}", headers.join(", ")));
    timestamp.into_iter().chain(headers).collect::<Vec<_>>().join(", ")
}

/// For programs: one reject a line, whole.
async fn dump(rejects: &Rejects, limit: u32) -> Result<()> {
    let newest = rejects.newest(limit).await?;
    for group in groups(&newest, |place| place.bytes) {
        for row in rejects.rows(group, u64::from(u32::MAX)).await? {
            output::line(as_json(rejects, row))?;
        }
    }
    Ok(())
}

fn as_json(rejects: &Rejects, row: Row) -> Value {
    let mut out = json!({
        "topic": rejects.topic(), "source": rejects.source(), "partition": row.partition, "offset": row.offset,
        "reason": row.reason, "detail": row.detail, "ingested_at": time(row.ingested_ms),
        "timestamp": row.timestamp_ms.map(time),
    });
    put(&mut out, "key", row.key);
    put(&mut out, "payload", row.payload);
    let header = |(name, value): (String, Option<Vec<u8>>)| {
        let mut header = json!({ "name": name });
        match value {
            Some(value) => put(&mut header, "value", value),
            None => header["value"] = Value::Null,
        }
        header
    };
    out["headers"] = row.headers.into_iter().map(header).collect();
    out
}

/// Bytes as a text under this name; those that are none in base64, under a name that says so.
fn put(out: &mut Value, name: &str, bytes: Vec<u8>) {
    match String::from_utf8(bytes) {
        Ok(text) => out[name] = text.into(),
        Err(binary) => out[format!("{name}_base64")] = base64(binary.as_bytes()).into(),
    }
}

/// Says which rejects would be sent, or sends them.
async fn replay(rejects: &Rejects, yes: bool) -> Result<()> {
    for count in rejects.counts().await? {
        output::line(format_args!("{:<14} {:>11}", name(&count.reason), grouped(count.rejects)))?;
    }
    let replayed = rejects.replay(!yes).await?;
    let before = match replayed.before {
        0 => String::new(),
        before => format!("; {} were replayed before", grouped(before)),
    };
    let (sent, topic) = (grouped(replayed.sent), rejects.topic());
    output::line(match yes {
        true => format!("{sent} sent to topic {topic} again, acknowledged{before}"),
        false => format!("{sent} would be sent to topic {topic} again{before}: add --yes"),
    })
}

fn total(counts: &[Count]) -> u64 {
    counts.iter().map(|count| count.rejects).sum()
}

fn time(ms: i64) -> String {
    let time = DateTime::from_timestamp_millis(ms);
    // A producer may have sent any number.
    time.map_or_else(|| format!("{ms} ms"), |time| time.to_rfc3339_opts(SecondsFormat::Millis, true))
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::prelude::BASE64_STANDARD.encode(bytes)
}

/// The beginning of a text that may hold anything, on one line and harmless to a terminal.
fn excerpt(bytes: &[u8]) -> String {
    let head = &bytes[..bytes.len().min(EXCERPT_BYTES as usize)];
    let mut out = String::with_capacity(head.len());
    for chunk in head.utf8_chunks() {
        out.push_str(&printable(chunk.valid()));
        for byte in chunk.invalid() {
            // Writing to a String cannot fail.
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out
}

fn reason(name: &str) -> Result<Reason, String> {
    let known = || Reason::ALL.map(Reason::as_str).join(", ");
    Reason::ALL.into_iter().find(|reason| reason.as_str() == name).ok_or_else(|| format!("expected one of {}", known()))
}

fn position(text: &str) -> Result<(i32, i64), &'static str> {
    const EXPECTED: &str = "expected PARTITION:OFFSET, like 0:1234";
    let (partition, offset) = text.split_once(':').ok_or(EXPECTED)?;
    match (partition.parse(), offset.parse()) {
        (Ok(partition @ 0..), Ok(offset @ 0..)) => Ok((partition, offset)),
        _ => Err(EXPECTED),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_shown_in_their_order_and_cannot_write_to_a_terminal() {
        let headers = vec![
            ("b".to_owned(), Some(b"1".to_vec())),
            ("\u{1b}".to_owned(), None),
            ("b".to_owned(), Some(vec![0xff])),
        ];
        let (reason, detail) = (String::new(), String::new());
        let row = |headers, timestamp_ms| Row {
            partition: 0,
            offset: 0,
            reason: reason.clone(),
            detail: detail.clone(),
            ingested_ms: 0,
            key: vec![],
            payload: vec![],
            headers,
            timestamp_ms,
        };
        assert_eq!(
            besides(&row(headers, Some(1_500))),
            r#"timestamp 1970-01-01T00:00:01.500Z, headers b="1", \u001b=null, b="\xff""#
        );
        assert_eq!(besides(&row(vec![], None)), "", "of a row from before they were kept");
    }

    #[test]
    fn positions_and_reasons_are_read_and_nonsense_is_not() {
        assert_eq!(position("0:1234"), Ok((0, 1_234)));
        for bad in ["", "0", ":", "0:", "-1:4", "0:-4", "0:1:2", "x:1"] {
            assert!(position(bad).is_err(), "{bad}");
        }
        assert_eq!(reason("bad_price"), Ok(Reason::BadPrice));
        assert!(reason("ugly").unwrap_err().contains("null_payload, not_json"));
    }

    #[test]
    fn no_payload_can_write_to_a_terminal() {
        assert_eq!(excerpt(b"{\"a\":1}"), r#"{"a":1}"#);
        assert_eq!(excerpt(b"\x1b[2J\r\n\0\x07"), r"\u001b[2J\r\n\u0000\u0007");
        assert_eq!(excerpt("a\u{202e}b\u{9b}é".as_bytes()), r"a\u202eb\u009bé");
        assert_eq!(excerpt(b"a\xff\xfeb"), r"a\xff\xfeb");
        assert_eq!(excerpt(&[b'x'; 1_000]).len(), EXCERPT_BYTES as usize);
    }
}
