//! Hostile messages: each ends in `events` or in `rejected`, once, and the stream continues in bounded memory.

use crate::http::{free_address, get, status};
use crate::raw::{self, Raw};
use crate::support::WAIT_TIMEOUT;
use crate::support::eventually;
use crate::support::is;
use crate::support::test_env::TestEnv;
use std::collections::BTreeMap;

/// The most memory that an ingester may take, for any messages.
const MEMORY_MB: u64 = 256;
const MEGABYTE: usize = 1024 * 1024;
/// The longest text of an event, in bytes.
const TEXT_BYTES: usize = 1_024;

/// An event with one of its fields as this JSON.
fn with(field: &str, json: &str) -> String {
    let fields = [
        ("event_id", r#""5b0e4d5e-8f63-4b3f-9b39-6f4f1f2b7a10""#),
        ("event_type", r#""page_view""#),
        ("user_id", r#""u""#),
        ("product_id", r#""p""#),
        ("price", "1"),
        ("timestamp", r#""2024-01-15T14:30:00Z""#),
    ];
    let fields = fields.map(|(name, usual)| format!(r#""{name}":{}"#, if name == field { json } else { usual }));
    format!("{{{}}}", fields.join(","))
}

/// A good event with one more field, in front.
fn beside(json: &str) -> String {
    with("", "").replacen('{', &format!("{{{json},"), 1)
}

/// A message, and what becomes of it: cents and milliseconds of an event, or the reason of a reject.
type Case = (Raw, Result<(i64, i64), &'static str>);

const USUAL_MS: i64 = 1_705_329_000_000;

fn numbers() -> Vec<Case> {
    let good = [
        ("0", 0),
        ("-0", 0),
        ("-0.0", 0),
        ("0.004", 0),
        ("0.005", 1),
        ("5e-324", 0),
        ("1e2", 10_000),
        ("1E+2", 10_000),
        ("99999999.99", 9_999_999_999),
        ("99999999.994", 9_999_999_999),
        ("0.0000000000000000000000000000000000000000000000000001", 0),
    ];
    let bad = [
        ("-0.001", "bad_price"),
        ("-5e-324", "bad_price"),
        ("99999999.995", "bad_price"),
        ("100000000", "bad_price"),
        ("9223372036854775807", "bad_price"),
        ("18446744073709551616", "bad_price"),
        ("-9223372036854775809", "bad_price"),
        ("340282366920938463463374607431768211456", "bad_price"),
        ("1.7976931348623157e308", "bad_price"),
        ("1e400", "bad_price"),
        ("-1e400", "bad_price"),
        ("1e99999999999999999999", "bad_price"),
        ("NaN", "not_json"),
        ("Infinity", "not_json"),
        ("-Infinity", "not_json"),
        ("+1", "not_json"),
        ("01", "not_json"),
        (".5", "not_json"),
        ("1.", "not_json"),
        ("0x10", "not_json"),
        (r#""1""#, "wrong_type"),
        ("true", "wrong_type"),
        ("[1]", "wrong_type"),
        ("{}", "wrong_type"),
    ];
    let good = good.map(|(json, cents)| (with("price", json), Ok((cents, USUAL_MS))));
    let bad = bad.map(|(json, reason)| (with("price", json), Err(reason)));
    good.into_iter().chain(bad).map(|(json, becomes)| (text(json), becomes)).collect()
}

fn times() -> Vec<Case> {
    let good = [
        ("1900-01-01T00:00:00Z", -2_208_988_800_000),
        ("1899-12-31T23:30:00-01:00", -2_208_987_000_000),
        ("2299-12-31T23:59:59.999999999Z", 10_413_791_999_999),
        ("2016-12-31T23:59:60Z", 1_483_228_800_000), // a leap second is the first one after it
        ("2024-01-15t14:30:00z", USUAL_MS),
        ("2024-01-15T14:30:00+23:59", USUAL_MS - 86_340_000),
        ("2024-01-15T14:30:00.000000000000000000001Z", USUAL_MS),
    ];
    let bad = [
        "1899-12-31T23:59:59.999Z",
        "1900-01-01T00:30:00+01:00",
        "2300-01-01T00:00:00Z",
        "0000-00-00T00:00:00Z",
        "2024-02-30T00:00:00Z",
        "2024-01-15T24:00:00Z",
        "2024-01-15T14:30:61Z",
        "2024-01-15T14:30:00",
        "2024-01-15T14:30:00+24:00",
        "+12024-01-15T14:30:00Z",
        "-2024-01-15T14:30:00Z",
        "1705329000",
        "",
        "2024-01-15T14:30:00Z\\u0000",
        "٢٠٢٤-01-15T14:30:00Z",
    ];
    let quoted = |time: &str| with("timestamp", &format!(r#""{time}""#));
    let good = good.map(|(time, ms)| (text(quoted(time)), Ok((100, ms))));
    let bad = bad.map(|time| (text(quoted(time)), Err("bad_timestamp")));
    good.into_iter().chain(bad).collect()
}

fn shapes() -> Vec<Case> {
    let deep = |open: &str, close: &str| format!("{}1{}", open.repeat(100_000), close.repeat(100_000));
    let usual = Ok((100, USUAL_MS));
    let mut cases = vec![
        (text(beside(&format!(r#""deep":{}"#, deep("[", "]")))), usual),
        (text(beside(&format!(r#""deep":{}"#, deep(r#"{"a":"#, "}")))), usual),
        (text(deep("[", "]")), Err("not_json")),
        (text(with("price", &deep("[", "]"))), Err("wrong_type")),
        (text("{".repeat(100_000)), Err("not_json")),
        (text(beside(r#""number":1e400"#)), usual),
        (text(beside(r#""a":1,"a":2"#)), usual),
        (text(beside(r#""price":2"#)), Err("wrong_type")),
        (text(with("product_id", r#""\u0000\u001b[2J\ud83d\ude00""#)), usual),
        (text(with("product_id", r#""\ud83d""#)), Err("not_json")),
        (text(with("product_id", "\"\n\"")), Err("not_json")),
        (text(with("product_id", &format!(r#""{}""#, "p".repeat(TEXT_BYTES)))), usual),
        (text(with("product_id", &format!(r#""{}""#, r"\u00e9".repeat(TEXT_BYTES / 2)))), usual),
        (text(with("product_id", &format!(r#""{}""#, "p".repeat(TEXT_BYTES + 1)))), Err("too_long")),
        (text(with("product_id", &format!(r#""{}""#, r"\u00e9".repeat(TEXT_BYTES / 2 + 1)))), Err("too_long")),
        (text(with("product_id", &format!(r#""{}""#, "p".repeat(MEGABYTE)))), Err("too_long")),
        (text(with("user_id", &format!(r#""{}""#, "u".repeat(900_000)))), Err("too_long")),
        (text(beside(&format!(r#""more":"{}""#, "m".repeat(MEGABYTE)))), usual),
        (text(with("price", &format!(r#""{}""#, "9".repeat(MEGABYTE)))), Err("wrong_type")),
        (text(with("event_type", &format!(r#""{}""#, "é".repeat(MEGABYTE / 2)))), Err("too_long")),
        (text(with("event_id", r#""{5b0e4d5e-8f63-4b3f-9b39-6f4f1f2b7a10}""#)), usual),
        (text(with("event_id", r#""urn:uuid:5b0e4d5e-8f63-4b3f-9b39-6f4f1f2b7a10""#)), usual),
        (text(with("event_id", r#""""#)), Err("bad_uuid")),
        (text(format!("\u{feff}{}", with("", ""))), usual),
        (text(format!("\u{feff}\u{feff}{}", with("", ""))), Err("not_json")),
        (text(format!(" \t\r\n{}\n ", with("", ""))), usual),
        (text(format!("{}{}", with("", ""), with("", ""))), Err("not_json")),
        ((Some(b"k".to_vec()), Some(b"{\"event_id\":\"\xff\xfe\"}".to_vec())), Err("not_json")),
        ((Some(b"k".to_vec()), Some(with("", "").replace('p', "\u{0}").into())), Err("not_json")),
        ((Some(Vec::new()), Some(Vec::new())), Err("not_json")),
        ((Some(b"k".to_vec()), None), Err("null_payload")),
        ((None, None), Err("null_payload")),
        ((Some(vec![0xff; MEGABYTE]), Some(with("", "").into())), usual),
        ((Some(vec![0x1b; MEGABYTE]), Some(b"no".to_vec())), Err("not_json")),
    ];
    cases.push((text("x".repeat(10 * MEGABYTE)), Err("not_json")));
    cases.push((text(with("product_id", &format!(r#""{}""#, "q".repeat(10 * MEGABYTE)))), Err("too_long")));
    cases
}

fn text(json: String) -> Raw {
    (Some(b"k".to_vec()), Some(json.into()))
}

#[test]
fn each_hostile_message_is_one_row_of_one_table_and_stops_nothing() {
    let env = TestEnv::open();
    raw::take_large_messages(&env);
    let mut cases = [numbers(), times(), shapes()].concat();
    // An ordinary message after them shows that the stream continues.
    cases.push((text(with("", "")), Ok((100, USUAL_MS))));
    let messages: Vec<_> = cases.iter().map(|(message, _)| message.clone()).collect();
    raw::send(&env, 0, &messages);

    let mut ingester = env.ingest(&["--batch-timeout", "500ms"]);
    env.drained();
    let peak = ingester.peak_memory_mb();
    ingester.drains();
    assert!(peak < MEMORY_MB, "{peak} MB");

    let mut found: BTreeMap<i64, Vec<String>> = BTreeMap::new();
    let rows = "SELECT _offset, concat(toString(toInt64(price * 100)), ' ', toString(toUnixTimestamp64Milli(timestamp))) \
                FROM db.events UNION ALL SELECT _offset, toString(reason) FROM db.rejected";
    for row in env.rows(rows) {
        found.entry(row[0].parse().unwrap()).or_default().push(row[1].clone());
    }
    let mut wrong = Vec::new();
    for (offset, (message, becomes)) in (0..).zip(&cases) {
        let expected = match becomes {
            Ok((cents, ms)) => format!("{cents} {ms}"),
            Err(reason) => (*reason).to_owned(),
        };
        if found.get(&offset).map(Vec::as_slice) != Some(std::slice::from_ref(&expected)) {
            let payload = String::from_utf8_lossy(message.1.as_deref().unwrap_or_default()).into_owned();
            let head: String = payload.chars().take(160).collect();
            wrong.push(format!("{offset}: expected {expected}, found {:?}: {head}", found.get(&offset)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(found.len(), cases.len());
    // Bytes as they came, and a sentence about them that is not as long as they are.
    let longest = cases.iter().filter(|(_, becomes)| becomes.is_err()).filter_map(|((_, payload), _)| payload.as_ref());
    let longest = longest.map(Vec::len).max().unwrap() as i64;
    assert!(longest > 10 * MEGABYTE as i64);
    assert_eq!(env.number("SELECT max(length(payload)) FROM db.rejected"), longest);
    assert_eq!(
        env.number("SELECT greatest(max(length(user_id)), max(length(product_id))) FROM db.events"),
        TEXT_BYTES as i64
    );
    assert!(env.number("SELECT max(length(detail)) FROM db.rejected") < 1_000);
    env.run("audit", &[]).succeeds();
    env.run("rejects", &["--format", "json", "--limit", "1000"]).succeeds();
}

#[test]
fn a_backlog_of_large_messages_is_drained_in_bounded_memory() {
    let env = TestEnv::open();
    raw::take_large_messages(&env);
    // 400 MB, all of it rejected: half of it events with a text that is too long; and some of 10 MB.
    for round in 0..8 {
        let product = with("product_id", &format!(r#""{}""#, "p".repeat(MEGABYTE)));
        let mut messages = vec![text(product); 20];
        messages.extend(vec![text("x".repeat(MEGABYTE)); 20]);
        messages.push(text("y".repeat(10 * MEGABYTE)));
        raw::send(&env, round % 3, &messages);
    }
    let mut ingester = env.ingest(&[]);
    eventually(WAIT_TIMEOUT, "all are stored", || is(env.stored() == 8 * 41, env.stored()));
    env.drained();
    let peak = ingester.peak_memory_mb();
    ingester.drains();
    eprintln!("peak memory: {peak} MB");
    assert!(peak < MEMORY_MB, "{peak} MB");
    env.run("audit", &[]).succeeds();
}

/// Rows that another program has written, or an earlier version.
#[test]
fn a_panel_answers_with_kilobytes_for_rows_of_any_size() {
    let env = TestEnv::open();
    env.sql(
        "INSERT INTO db.events (event_id, event_type, user_id, product_id, price, timestamp, _source, _partition, _offset) \
         SELECT generateUUIDv4(number), if(number % 2, 'purchase', 'page_view'), repeat('u', 900000), \
         concat(toString(number), repeat('p', 900000)), 1, now64(3), 's', 0, number FROM numbers(40)",
    );
    env.sql(
        "INSERT INTO db.rejected (payload, reason, detail, _source, _partition, _offset) \
         SELECT repeat('x', 900000), concat('reason ', toString(number)), repeat('d', 900000), 's', 0, 40 + number FROM numbers(200)",
    );
    let address = free_address();
    let mut dashboard = env.run("dashboard", &["--listen", &address.to_string()]);
    eventually(WAIT_TIMEOUT, "it listens", || is(dashboard.stdout().contains("dashboard at"), "not yet"));
    let now = flows::now() / 1_000_000;
    for (board, panels) in [("clickstream", 10), ("pipeline", 13)] {
        for id in 1..=panels {
            let (from, to) = (now - 300_000, now + 60_000);
            let target = format!("/api/dashboards/{board}/panels/{id}?from={from}&to={to}&width=800");
            let answer = get(address, &target);
            assert_eq!(status(&answer), Some(200), "{target}: {}", String::from_utf8_lossy(&answer));
            assert!(answer.len() < 16_384, "{board} {id}: {} bytes", answer.len());
        }
    }
    dashboard.drains();
}
