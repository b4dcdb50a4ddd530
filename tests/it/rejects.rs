//! Messages that are no events, rows that ClickHouse refuses, and topics that are not what they were.

use crate::support::oracle;
use crate::support::test_env::TestEnv;
use crate::support::{WAIT_TIMEOUT, eventually, is};
use std::collections::{BTreeMap, BTreeSet};

#[test]
fn bad_messages_of_every_kind_and_only_they_are_rejected() {
    let env = TestEnv::open();
    let faults = "bad=0.1,dup=0.05,late=0.05";
    let manifest = env.produce(&["--count", "20000", "--rate", "max", "--faults", faults]).finish();
    let kinds: BTreeSet<_> = manifest.iter().filter_map(|line| line.bad()).collect();
    assert_eq!(
        Vec::from_iter(kinds),
        [
            "bad_price",
            "bad_timestamp",
            "bad_uuid",
            "missing_field",
            "not_json",
            "null_payload",
            "unknown_type",
            "wrong_type"
        ],
        "the producer makes all kinds"
    );
    let mut ingester = env.ingest(&["--until-end"]);
    ingester.succeeds();
    let bad = manifest.iter().filter(|line| line.bad().is_some()).count() as u64;
    assert_eq!((ingester.closing().events, ingester.closing().rejects), (20_000 - bad, bad));
    oracle::exactly_once(&env, &manifest);
}

#[test]
fn one_row_of_a_thousand_that_only_clickhouse_refuses_is_rejected_alone() {
    let env = TestEnv::open();
    env.sql("ALTER TABLE db.events ADD CONSTRAINT good CHECK product_id != 'prod_xxx'");
    let culprit = rand::random_range(0..1_000);
    let payloads: Vec<_> = (0..1_000)
        .map(|nth| {
            let (id, product) = (uuid::Uuid::new_v4(), if nth == culprit { "prod_xxx" } else { "prod_001" });
            format!(
                r#"{{"event_id":"{id}","event_type":"page_view","user_id":"user_{nth}","product_id":"{product}","price":1.5,"timestamp":"2024-01-15T14:30:00Z"}}"#
            )
        })
        .collect();
    let messages: Vec<_> = payloads.iter().map(|payload| ("user", payload.as_str())).collect();
    let places = env.kafka.send(&env.topic, &messages);
    let mut ingester = env.ingest(&["--until-end"]);
    ingester.succeeds();

    assert_eq!(env.number("SELECT count() FROM db.events"), 999);
    let (partition, offset) = places[culprit];
    let rejected = env.rows("SELECT _partition, _offset, reason, position(detail, 'good') > 0 FROM db.rejected");
    assert_eq!(rejected, [[&partition.to_string(), &offset.to_string(), "refused", "1"]], "culprit {culprit}");
    let closing = ingester.closing();
    assert_eq!((closing.events, closing.rejects), (999, 1));
    // 21 into `events`, one into `rejected`.
    assert!(closing.inserts <= 22, "{closing:?}");
    assert_eq!(env.committed(), BTreeMap::from([(partition, 1_000)]));
    env.run("audit", &[]).succeeds();
}

/// Messages of each incarnation of the topic that are stored, each position once: by `_source`, in order of size.
fn stored_by_source(env: &TestEnv) -> Vec<(i64, i64)> {
    env.rows(
        "SELECT count(), uniqExact(_partition, _offset) FROM \
         (SELECT _source, _partition, _offset FROM db.events UNION ALL SELECT _source, _partition, _offset FROM db.rejected) \
         GROUP BY _source ORDER BY count()",
    )
    .iter()
    .map(|row| (row[0].parse().unwrap(), row[1].parse().unwrap()))
    .collect()
}

fn make_again(env: &TestEnv) {
    env.kafka.delete(&env.topic);
    // A deleted topic is still there for a moment.
    eventually(WAIT_TIMEOUT, "the topic can be made again", || {
        let mut setup = env.run("setup", &[]);
        setup.succeeds();
        is(setup.stdout().contains("created, 3 partitions"), setup.stdout())
    });
}

fn produce(env: &TestEnv, count: &str) {
    let manifest = env.produce(&["--rate", "max", "--faults", "bad=0.02", "--count", count]).finish();
    assert_eq!(manifest.len().to_string(), count);
}

#[test]
fn a_topic_made_again_between_two_runs_is_another_source() {
    let env = TestEnv::open();
    produce(&env, "3000");
    env.run("ingest", &["--until-end"]).succeeds();
    // Shorter than it was, then longer: offsets that were stored before, and offsets beyond.
    for count in ["1000", "5000"] {
        make_again(&env);
        produce(&env, count);
        env.run("ingest", &["--until-end"]).succeeds();
        env.run("audit", &[]).succeeds();
    }
    assert_eq!(stored_by_source(&env), [(1_000, 1_000), (3_000, 3_000), (5_000, 5_000)]);
}

fn a_topic_made_again_under_the_ingester(before: &str, after: &str) {
    let env = TestEnv::open();
    let mut ingester = env.ingester_at_work(&["--batch-timeout", "500ms"]);
    produce(&env, before);
    env.drained();
    make_again(&env);
    produce(&env, after);
    let all = before.parse::<i64>().unwrap() + after.parse::<i64>().unwrap();
    eventually(WAIT_TIMEOUT, "the events of both topics are there", || {
        let stored = env.stored();
        is(stored >= all, (stored, stored_by_source(&env)))
    });
    env.drained();
    ingester.drains();
    let mut expected = [before, after].map(|count| count.parse::<i64>().unwrap()).map(|count| (count, count));
    expected.sort();
    assert_eq!(stored_by_source(&env), expected);
    env.run("audit", &[]).succeeds();
}

#[test]
fn a_shorter_topic_made_again_under_the_ingester_is_another_source() {
    a_topic_made_again_under_the_ingester("3000", "1000");
}

#[test]
fn a_longer_topic_made_again_under_the_ingester_is_another_source() {
    a_topic_made_again_under_the_ingester("1000", "3000");
}

/// Commits of the old topic are pending, or on their way, when the new topic exists already.
#[test]
fn a_topic_made_again_under_load_goes_on_with_nothing_of_the_old_one() {
    let env = TestEnv::open();
    let mut ingester = env.ingester_at_work(&["--batch-rows", "10", "--batch-timeout", "500ms", "--in-flight", "1"]);
    produce(&env, "100000");
    eventually(WAIT_TIMEOUT, "some of it is stored", || is(env.stored() > 1_000, env.stored()));
    make_again(&env);
    produce(&env, "200");
    let ends = env.ends();
    eventually(WAIT_TIMEOUT, "the group has committed so far, and no further", || {
        is(env.committed() == ends, env.committed())
    });
    ingester.drains();
    assert_eq!(env.committed(), ends);
    let by_source = stored_by_source(&env);
    assert!(by_source.contains(&(200, 200)), "{by_source:?}");
    assert!(by_source.iter().all(|(rows, positions)| rows == positions), "{by_source:?}");
    env.run("audit", &[]).succeeds();
}
