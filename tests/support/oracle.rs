//! The judge: compares the topic, the tables and the producer's manifest, each read with a client of its own.

use super::kafka::Record;
use super::manifest::Line;
use super::test_env::TestEnv;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

/// Differences shown; the rest is only counted.
const SHOWN: usize = 5;

type Position = (i32, i64);

/// The counts of a comparison.
#[derive(Clone, Copy, Debug, Default)]
pub struct Count {
    /// Messages of the topic.
    pub messages: usize,
    /// Those of them that are not stored.
    pub lost: usize,
    /// Those that are stored more than once.
    pub doubled: usize,
}

/// Asserts that every message of the topic is stored once, as the right kind of row, in the raw tables, and committed;
/// and that `audit` finds the same.
#[track_caller]
pub fn exactly_once(env: &TestEnv, manifest: &[Line]) {
    let topic = env.kafka.read(&env.topic);
    let count = count(env, &topic);
    assert!(count.lost == 0 && count.doubled == 0, "LOST or DOUBLED: {count:?}");
    stored_as_produced(env, manifest, &topic);
    env.run("audit", &[]).succeeds();
}

/// Asserts everything but how often a message is stored.
#[track_caller]
pub fn stored_as_produced(env: &TestEnv, manifest: &[Line], topic: &[Record]) {
    events_are_as_produced(env, manifest, topic);
    only_bad_ones_are_rejected(env, manifest, topic);
    sums_agree(env, manifest);
    let ends: BTreeMap<_, _> = env.ends().into_iter().filter(|&(_, end)| end > 0).collect();
    assert_eq!(env.committed(), ends, "the group has committed the topic's end");
}

/// A merge would hide rows that were inserted twice. A merged part spans several inserts.
#[track_caller]
fn nothing_was_merged(env: &TestEnv) {
    let merged = env.number(&format!(
        "SELECT count() FROM system.parts WHERE active AND database = '{}' AND table != 'leases' AND \
         min_block_number < max_block_number",
        env.database
    ));
    assert_eq!(merged, 0, "parts that were merged");
}

/// Compares the positions in both raw tables with those of the topic.
///
/// # Panics
/// When merges have hidden what this counts, or there are rows of no message.
#[track_caller]
pub fn count(env: &TestEnv, topic: &[Record]) -> Count {
    nothing_was_merged(env);
    let stored =
        env.rows("SELECT _partition, _offset FROM db.events UNION ALL SELECT _partition, _offset FROM db.rejected");
    let mut times: BTreeMap<Position, u32> =
        topic.iter().map(|record| ((record.partition, record.offset), 0)).collect();
    let mut foreign = Vec::new();
    for row in stored {
        let position = (number(&row[0]) as i32, number(&row[1]));
        match times.get_mut(&position) {
            Some(times) => *times += 1,
            None => foreign.push(position),
        }
    }
    none(&foreign, "rows at positions that the topic does not have");
    let of = |wanted: fn(u32) -> bool, what| {
        let found: Vec<Position> =
            times.iter().filter(|(_, times)| wanted(**times)).map(|(position, _)| *position).collect();
        if !found.is_empty() {
            eprintln!("{} {what}: {:?}", found.len(), &found[..found.len().min(SHOWN)]);
        }
        found.len()
    };
    Count {
        messages: topic.len(),
        lost: of(|times| times == 0, "LOST: messages that are not stored"),
        doubled: of(|times| times > 1, "DOUBLED: messages that are stored more than once"),
    }
}

/// How many of these messages are not stored.
#[track_caller]
pub fn unstored(env: &TestEnv, topic: &[Record]) -> usize {
    let rows =
        env.rows("SELECT _partition, _offset FROM db.events UNION ALL SELECT _partition, _offset FROM db.rejected");
    let stored: BTreeSet<Position> = rows.iter().map(|row| (number(&row[0]) as i32, number(&row[1]))).collect();
    topic.iter().filter(|record| !stored.contains(&(record.partition, record.offset))).count()
}

/// Every event that was acknowledged stands at its position with its own fields.
#[track_caller]
fn events_are_as_produced(env: &TestEnv, manifest: &[Line], topic: &[Record]) {
    let rows = env.rows(
        "SELECT _partition, _offset, event_id, event_type, user_id, product_id, toInt64(price * 100), \
         toUnixTimestamp64Milli(timestamp) FROM db.events",
    );
    let mut stored: BTreeMap<Position, Vec<String>> =
        rows.into_iter().map(|mut row| ((number(&row[0]) as i32, number(&row[1])), row.split_off(2))).collect();
    let payloads: BTreeMap<Position, &[u8]> =
        topic.iter().map(|record| ((record.partition, record.offset), record.payload.as_slice())).collect();
    let mut wrong = Vec::new();
    for line in manifest.iter().filter(|line| line.bad().is_none()) {
        let position = (line.partition, line.offset);
        // The manifest does not name the product; the message does.
        let message: Value = serde_json::from_slice(payloads[&position]).expect("it is not a bad one");
        let expected = [
            line.event_id.clone(),
            line.event_type.clone(),
            line.user_id.clone(),
            message["product_id"].as_str().unwrap_or_default().to_owned(),
            line.cents().to_string(),
            line.timestamp_ms.to_string(),
        ];
        let found = stored.remove(&position);
        if found.as_deref() != Some(&expected) {
            wrong.push((position, expected, found));
        }
    }
    none(&wrong, "events that are not stored as they were produced (position, expected, found)");
    none(&stored.into_iter().collect::<Vec<_>>(), "rows of `events` that nobody produced, or the producer twice");
}

/// `rejected` holds the bad messages, with their reasons and bytes, and nothing else.
#[track_caller]
fn only_bad_ones_are_rejected(env: &TestEnv, manifest: &[Line], topic: &[Record]) {
    let rows = env.rows("SELECT _partition, _offset, reason, lower(hex(key)), lower(hex(payload)) FROM db.rejected");
    let found: BTreeMap<Position, Vec<String>> =
        rows.into_iter().map(|mut row| ((number(&row[0]) as i32, number(&row[1])), row.split_off(2))).collect();
    let records: BTreeMap<Position, &Record> =
        topic.iter().map(|record| ((record.partition, record.offset), record)).collect();
    let expected: BTreeMap<Position, Vec<String>> = manifest
        .iter()
        .filter_map(|line| {
            let (position, reason) = ((line.partition, line.offset), line.bad()?);
            let record = records[&position];
            Some((position, vec![reason.to_owned(), hex(&record.key), hex(&record.payload)]))
        })
        .collect();
    let differs = |(position, row): &(&Position, &Vec<String>)| expected.get(*position) != Some(*row);
    none(&found.iter().filter(differs).collect::<Vec<_>>(), "rejects that are not the bad messages");
    assert_eq!(found.len(), expected.len(), "all bad messages are rejected");
}

/// Counts for each type, and the revenue, to the cent.
#[track_caller]
fn sums_agree(env: &TestEnv, manifest: &[Line]) {
    let mut produced: BTreeMap<String, (i64, i64)> = BTreeMap::new();
    for line in manifest.iter().filter(|line| line.bad().is_none()) {
        let (count, cents) = produced.entry(line.event_type.clone()).or_default();
        *count += 1;
        *cents += line.cents();
    }
    let rows = env.rows("SELECT event_type, count(), toInt64(sum(price) * 100) FROM db.events GROUP BY event_type");
    let stored: BTreeMap<_, _> =
        rows.into_iter().map(|row| (row[0].clone(), (number(&row[1]), number(&row[2])))).collect();
    assert_eq!(stored, produced, "count and sum of prices, by type");
}

#[track_caller]
fn none<T: Debug>(found: &[T], what: &str) {
    assert!(found.is_empty(), "{} {what}: {:?}", found.len(), &found[..found.len().min(SHOWN)]);
}

fn number(text: &str) -> i64 {
    text.parse().unwrap_or_else(|_| panic!("{text:?} is no number"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
