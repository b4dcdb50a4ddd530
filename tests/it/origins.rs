//! Where a committed offset comes from: this topic, one that was deleted, another cluster, or another client.

use crate::raw;
use crate::support::process::Program;
use crate::support::test_env::TestEnv;
use crate::support::{WAIT_TIMEOUT, oracle};
use serde_json::Value;

const MADE_AGAIN: &str = "the topic was deleted, and made again";
const TRANSLATED: &str = "the committed offsets were translated from cluster";

/// Ids that no topic and no cluster of these tests has.
const OTHER_TOPIC: &str = "2mHSbDoPSYypPRIhQb1s9A";
const OTHER_CLUSTER: &str = "b5WzP0sSQhyWt9b6aPZ6hw";

/// Messages that are events, each with an id of its own, in this partition.
fn send(env: &TestEnv, partition: i32, count: usize) {
    let event = || {
        let id = uuid(rand::random());
        format!(
            r#"{{"event_id":"{id}","event_type":"page_view","user_id":"u","product_id":"p","price":1,"timestamp":"2024-01-15T14:30:00Z"}}"#
        )
    };
    let messages: Vec<raw::Raw> = (0..count).map(|_| (Some(b"u".to_vec()), Some(event().into_bytes()))).collect();
    raw::send(env, partition, &messages);
}

fn uuid(bits: u128) -> String {
    let hex = format!("{bits:032x}");
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

/// The metadata of our own members here: the ids of this cluster and of this topic.
struct Ids {
    cluster: String,
    topic: String,
}

impl Ids {
    fn of(env: &TestEnv, partition: i32) -> Self {
        let metadata = raw::committed_metadata(env, partition);
        let id = |key: &str| {
            let part = metadata.split(';').find_map(|part| part.strip_prefix(key));
            part.unwrap_or_else(|| panic!("{key} in {metadata}")).to_owned()
        };
        assert!(metadata.starts_with("clickstream/1;"), "{metadata}");
        Self { cluster: id("cluster="), topic: id("topic=") }
    }
}

/// Lets everything be read that the topic holds now.
fn read_all(env: &TestEnv) -> Program {
    let mut ingester = env.ingest(&["--until-end"]);
    ingester.succeeds();
    assert_eq!(env.committed(), env.ends().into_iter().filter(|(_, end)| *end > 0).collect());
    ingester
}

/// Rows, and different positions of them.
fn rows(env: &TestEnv) -> (i64, i64) {
    (env.stored(), env.number("SELECT uniqExact(_source, _partition, _offset) FROM db.events"))
}

#[test]
fn an_offset_of_another_client_counts_with_any_metadata() {
    for beside in [
        ["", "committed by hand at 12:00", "AgAAAZOqAAAA"],
        ["{\"host\":\"a;topic=b\"}", "clickstream/x;topic=y", "2mHSbDoPSYypPRIhQb1s9x"],
    ] {
        let env = TestEnv::open();
        (0..3).for_each(|partition| send(&env, partition, 100));
        let places: Vec<_> = (0..).zip(beside).map(|(at, metadata)| (at, 60, metadata)).collect();
        raw::commit(&env, &places);
        let first = read_all(&env);
        assert_eq!(rows(&env), (120, 120), "{beside:?}: 40 of each partition");
        // After a reset by hand, only offsets that are not stored are stored.
        let places: Vec<_> = (0..).zip(beside).map(|(at, metadata)| (at, 30, metadata)).collect();
        raw::commit(&env, &places);
        let second = read_all(&env);
        assert_eq!(rows(&env), (210, 210), "{beside:?}: 70 of each partition");
        for ingester in [first, second] {
            assert_eq!(ingester.said(MADE_AGAIN) + ingester.said(TRANSLATED), 0, "{beside:?}: {}", ingester.stderr());
        }
    }
}

#[test]
fn offsets_translated_from_another_cluster_go_on_where_they_are() {
    let env = TestEnv::open();
    (0..2).for_each(|partition| send(&env, partition, 100));
    let beside = format!(
        "clickstream/1;cluster={OTHER_CLUSTER};topic={OTHER_TOPIC};read=900;gaps;lost=7,3-9,2024-01-15T14:30:00Z"
    );
    raw::commit(&env, &[(0, 60, &beside), (1, 0, &beside)]);
    // Nobody has taken it over yet: the audit knows from the offset alone that the messages before it were read elsewhere.
    let mut audit = env.run("audit", &[]);
    audit.succeeds();
    assert!(audit.stdout().contains("not compared: offsets before 60"), "{}", audit.stdout());

    let ingester = read_all(&env);
    assert_eq!((ingester.said(TRANSLATED), ingester.said(MADE_AGAIN)), (1, 0), "{}", ingester.stderr());
    assert_eq!(rows(&env), (140, 140));
    let ids = Ids::of(&env, 0);
    assert!(ingester.stderr().contains(&ids.cluster) && ingester.stderr().contains(OTHER_CLUSTER));
    // The notes are about the other cluster's topic. Only the offset of the take-over is kept.
    let noted = raw::committed_metadata(&env, 0);
    assert_eq!(noted, format!("clickstream/1;cluster={};topic={};from=60", ids.cluster, ids.topic));

    let mut audit = env.run("audit", &["--heal"]);
    audit.succeeds();
    assert!(audit.stdout().contains("not compared: offsets before 60"), "{}", audit.stdout());
    assert_eq!(rows(&env), (140, 140), "no message that was read in the other cluster is restored");

    // Also the next member hands it on, and is at home here.
    send(&env, 0, 5);
    let next = read_all(&env);
    assert_eq!(next.said(TRANSLATED), 0);
    assert_eq!(raw::committed_metadata(&env, 0), noted);
    env.run("audit", &[]).succeeds();
    // A gap behind it is one.
    env.lose("_partition = 0 AND _offset = 70");
    assert_eq!(env.run("audit", &[]).exit_code(WAIT_TIMEOUT), Some(1));
}

#[test]
fn a_translated_offset_beyond_the_end_has_the_topic_read_from_its_beginning() {
    let env = TestEnv::open();
    send(&env, 0, 100);
    raw::commit(&env, &[(0, 5_000, &format!("clickstream/1;cluster={OTHER_CLUSTER};topic={OTHER_TOPIC}"))]);
    let ingester = read_all(&env);
    assert_eq!(ingester.said("the topic ends 4900 offsets before the committed one"), 1, "{}", ingester.stderr());
    assert_eq!((ingester.said(TRANSLATED), rows(&env)), (0, (100, 100)));
    assert!(!raw::committed_metadata(&env, 0).contains("from="), "all of it was read here");
    env.run("audit", &[]).succeeds();
}

/// Kafka deletes a group's offsets with the topic, so the test commits them again.
#[test]
fn an_offset_of_a_deleted_topic_has_the_new_one_read_from_its_beginning() {
    let env = TestEnv::open();
    send(&env, 0, 100);
    read_all(&env);
    let Ids { cluster, topic } = Ids::of(&env, 0);
    for beside in [
        format!("clickstream/1;cluster={cluster};topic={OTHER_TOPIC};read=90"),
        format!("clickstream/1;topic={OTHER_TOPIC}"),
        format!("{OTHER_TOPIC};gaps"),
    ] {
        // As if the rows were those of the deleted topic.
        env.lose("_offset >= 0");
        raw::commit(&env, &[(0, 60, &beside)]);
        let ingester = read_all(&env);
        assert_eq!((ingester.said(MADE_AGAIN), ingester.said(TRANSLATED)), (1, 0), "{beside}: {}", ingester.stderr());
        assert_eq!(rows(&env), (100, 100), "{beside}");
        let noted = raw::committed_metadata(&env, 0);
        assert_eq!(noted, format!("clickstream/1;cluster={cluster};topic={topic}"), "{beside}");
    }
}

/// The metadata of an earlier build: the topic's id alone, and its notes.
#[test]
fn commits_without_a_mark_are_gone_on_from_and_their_notes_are_kept() {
    let env = TestEnv::open();
    send(&env, 0, 100);
    read_all(&env);
    let Ids { cluster, topic } = Ids::of(&env, 0);
    send(&env, 0, 50);
    let notes = "gaps;lost=3,5-7,2024-01-15T14:30:00Z";
    // Some rows are stored behind the offset already.
    raw::commit(&env, &[(0, 80, &format!("{topic};{notes}"))]);
    // Before any ingester of this build has committed, and afterwards.
    for _ in 0..2 {
        let mut audit = env.run("audit", &[]);
        assert_eq!(audit.exit_code(WAIT_TIMEOUT), Some(1));
        assert!(audit.stdout().contains("3 messages, as the group has noted"), "{}", audit.stdout());
        let ingester = read_all(&env);
        assert_eq!(ingester.said(MADE_AGAIN) + ingester.said(TRANSLATED), 0, "{}", ingester.stderr());
        assert_eq!(rows(&env), (150, 150));
    }
    assert_eq!(raw::committed_metadata(&env, 0), format!("clickstream/1;cluster={cluster};topic={topic};{notes}"));
}

#[test]
fn an_audit_finds_events_that_are_stored_under_another_source_too() {
    let env = TestEnv::open();
    let manifest = env.produce(&["--rate", "max", "--count", "20000", "--faults", "bad=0.02,dup=0.02"]).finish();
    read_all(&env);
    env.run("audit", &[]).succeeds();
    oracle::exactly_once(&env, &manifest);
    let source = env.rows("SELECT DISTINCT _source FROM db.events")[0][0].clone();

    // Another topic in the same tables shares positions, and no event.
    let mut other = TestEnv::open();
    other.produce(&["--rate", "max", "--count", "20000"]).finish();
    let others = std::mem::replace(&mut other.database, env.database.clone());
    read_all(&other);
    for topic in [&env, &other] {
        topic.run("audit", &[]).succeeds();
    }
    other.database = others;

    // A mirror whose offsets lagged: the newest events of the other source are the oldest of this one, and the reverse; or
    // both clusters were read all along.
    for part in ["_offset < 50", "_offset >= (SELECT max(_offset) FROM db.events) - 300", "_offset % 3 = 0"] {
        let mirrored =
            format!("SELECT * REPLACE ('mirrored' AS _source, _offset + 7 AS _offset) FROM db.events WHERE {part}");
        let ours = format!("event_id IN (SELECT event_id FROM db.events WHERE _source = '{source}')");
        env.sql(&format!("INSERT INTO db.events {mirrored} AND _partition = 0 AND {ours}"));
        let mut audit = env.run("audit", &["--format", "json"]);
        assert_eq!(audit.exit_code(WAIT_TIMEOUT), Some(1), "{part}");
        let why = audit.stderr();
        assert!(why.contains("are stored under another _source, too") && why.contains("events_once"), "{part}: {why}");
        let found: Value = serde_json::from_str(&audit.stdout()).expect("one JSON document");
        assert!(found["whole"] == false && found["other_sources"]["mirrored"].as_i64() > Some(20), "{part}: {found}");
        let mut audit = env.run("audit", &[]);
        assert_eq!(audit.exit_code(WAIT_TIMEOUT), Some(1), "{part}");
        assert!(audit.stdout().contains("are stored under another _source, too: mirrored\n"), "{}", audit.stdout());
        env.lose("_source = 'mirrored'");
    }
    env.run("audit", &[]).succeeds();
}
