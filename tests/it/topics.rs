//! Several topics into one table: one process, one group, and a source of its own for the rows of each topic.

use crate::alarms::Observed;
use crate::support::test_env::{Services, TestEnv};
use crate::support::{WAIT_TIMEOUT, oracle};
use serde_json::{Deserializer, Value};

/// The end of a table of the user's own.
const POSITIONS: &str = "_source LowCardinality(String), _partition Int32, _offset Int64, \
     ingested_at DateTime64(3, 'UTC') DEFAULT nowInBlock64(3, 'UTC')) ENGINE = MergeTree ORDER BY (_source, _partition, _offset)";

/// Two topics whose messages go into the shop's table, or into one that is not.
fn two_topics(own_table: bool) -> (TestEnv, TestEnv) {
    TestEnv::open_in(&Services { own_table, ..Services::default() }).with_second_topic()
}

#[test]
fn each_message_of_two_topics_is_stored_once_while_members_come_go_and_die() {
    for own_table in [false, true] {
        let (one, two) = two_topics(own_table);
        let load = ["--rate", "400", "--faults", "dup=0.01,late=0.01"];
        let loads = [&one, &two].map(|env| env.produce(&load));
        let fast = ["--batch-timeout", "500ms", "--batch-rows", "50"];
        let named = [&fast[..], &["--instance-id", "eu-1"]].concat();
        let mut first = one.ingest(&named);
        first.says("lease opened", 2);
        let members = one.kafka.members(&one.group);
        assert!(
            members.len() == 2
                && [&one, &two]
                    .iter()
                    .all(|env| members.iter().any(|id| id.starts_with(&format!("eu-1.{}-", env.topic)))),
            "{members:?}"
        );
        let mut second = one.ingest_on("elsewhere", &fast);
        second.says("lease opened", 2);
        for env in [&one, &two] {
            env.drained();
        }
        first.kill();
        let mut first = one.ingest(&named);
        first.says("lease opened", 2);
        second.drains();
        for env in [&one, &two] {
            env.drained();
        }
        let manifests = loads.map(|load| load.stop());
        for env in [&one, &two] {
            env.drained();
        }
        first.drains();
        for (env, manifest) in [&one, &two].into_iter().zip(&manifests) {
            oracle::exactly_once(env, manifest);
            if own_table {
                assert_eq!(env.rows("SELECT DISTINCT _topic FROM db.events"), [[&*env.topic]]);
            }
        }
        let both = format!("{},{}", one.topic, two.topic);
        let mut audit = one.run("audit", &["--topic", &both, "--format", "json"]);
        audit.succeeds();
        let found: Vec<Value> =
            Deserializer::from_str(&audit.stdout()).into_iter().collect::<Result<_, _>>().expect("two JSON documents");
        assert_eq!(found.iter().map(|found| &found["topic"]).collect::<Vec<_>>(), [&one.topic, &two.topic]);
        // An audit of both fails if one of them has lost a row, and says which.
        two.lose(&format!("_source = '{}' AND _partition = 0 AND _offset = 3", two.topic_id()));
        let mut audit = one.run("audit", &["--topic", &one.topic, "--topic", &two.topic]);
        assert_eq!(audit.exit_code(WAIT_TIMEOUT), Some(1));
        let said = format!("topic {}: 1 committed messages are missing", two.topic);
        assert!(
            audit.stderr().contains(&said) && !audit.stderr().contains(&format!("topic {}:", one.topic)),
            "{}",
            audit.stderr()
        );
        one.run("audit", &["--topic", &both, "--heal"]).succeeds();
        oracle::exactly_once(&two, &manifests[1]);
        // Rows of both topics are erased at once.
        one.sql("SYSTEM START MERGES db.events");
        let mut erased = one.run("erase", &["--where", "_offset < 5"]);
        erased.succeeds();
        assert_eq!(erased.stdout().matches("topic id ").count(), 2, "{}", erased.stdout());
        one.run("audit", &["--topic", &both]).succeeds();
    }
}

#[test]
fn until_end_waits_for_the_end_of_both_topics() {
    let (one, two) = two_topics(true);
    let manifests =
        [(&one, "200"), (&two, "20000")].map(|(env, count)| env.produce(&["--count", count, "--rate", "max"]).finish());
    let mut ingester = one.ingest(&["--until-end"]);
    ingester.succeeds();
    assert_eq!((ingester.closing().events, ingester.closing().before), (20_200, 0), "{}", ingester.stdout());
    for (env, manifest) in [&one, &two].into_iter().zip(&manifests) {
        oracle::exactly_once(env, manifest);
    }
}

#[test]
fn a_topic_that_is_missing_stops_the_ingester_before_anything_is_stored() {
    let env = TestEnv::open();
    env.produce(&["--count", "100", "--rate", "max"]).finish();
    let mut ingester = env.ingest(&["--topic", &format!("{},{}.nowhere", env.topic, env.topic)]);
    ingester.gives_up(&format!("topic {}.nowhere is missing", env.topic));
    assert_eq!((env.stored(), env.committed().len()), (0, 0));
}

#[test]
fn a_topic_that_is_deleted_is_named_and_the_other_one_goes_on() {
    let (one, two) = two_topics(false);
    let load = one.produce(&["--rate", "200"]);
    let lost = two.produce(&["--count", "100", "--rate", "max"]).finish();
    let mut ingester = Observed::start(&one, &[]);
    two.drained();
    ingester.is_ready();
    let of_two = |name: &str| format!("{name}{{topic=\"{}\"}}", two.topic);
    ingester.shows(&of_two("topic_events_total"), |events| events == 100.0);
    ingester.shows("events_total", |events| events > 100.0);
    two.kafka.delete(&two.topic);
    ingester.program.says(&format!("topic {} is gone", two.topic), 1);
    ingester.is_not_ready(&format!("topic {}: Kafka has not said where the topic ends", two.topic));
    one.drained();
    one.run("setup", &["--topic", &two.topic]).succeeds();
    let again = two.produce(&["--count", "50", "--rate", "max"]).finish();
    ingester.shows(&of_two("topic_events_total"), |events| events == 150.0);
    two.drained();
    ingester.is_ready();
    ingester.shows(&of_two("topic_lag_messages"), |lag| lag == 0.0);
    let manifest = load.stop();
    one.drained();
    ingester.program.drains();
    oracle::exactly_once(&one, &manifest);
    let rows = one.clickhouse.number(&format!("SELECT count() FROM {}.events", one.database));
    assert_eq!(rows as usize, manifest.len() + lost.len() + again.len());
    one.run("audit", &["--topic", &two.topic]).succeeds();
}

#[test]
fn a_topic_that_another_group_takes_over_stops_all_topics_in_order() {
    let (one, mut two) = two_topics(false);
    let loads = [&one, &two].map(|env| env.produce(&["--rate", "200"]));
    let mut ingester = one.ingest(&["--batch-timeout", "500ms"]);
    ingester.says("lease opened", 2);
    [&one, &two].iter().for_each(|env| env.drained());
    let group = two.change_group(&format!("{}-other", two.group));
    let mut other = two.ingest(&["--take-over", &group]);
    ingester.gives_up(&format!("topic {}: ", two.topic));
    let [of_one, of_two] = loads.map(|load| load.stop());
    two.drained();
    other.drains();
    // All rows of the first topic are committed: the next ingester finds none beyond the committed offset.
    let mut next = one.ingest(&["--topic", &one.topic, "--until-end"]);
    next.succeeds();
    assert_eq!(next.closing().before, 0);
    oracle::exactly_once(&one, &of_one);
    oracle::exactly_once(&two, &of_two);
}

#[test]
fn equal_messages_of_two_topics_are_rows_of_their_own_and_not_a_fault() {
    let (one, two) = two_topics(false);
    one.sql(&format!("CREATE TABLE db.pings (name String, {POSITIONS}"));
    for env in [&one, &two] {
        let pings = [r#"{"name":"a"}"#, r#"{"name":"b"}"#, r#"{"name":"c"}"#];
        env.kafka.send(&env.topic, &pings.map(|ping| ("key", ping)));
    }
    one.ingest(&["--table", "pings", "--until-end"]).succeeds();
    let mut audit = one.run("audit", &["--table", "pings"]);
    audit.succeeds();
    assert!(audit.stderr().contains(&format!("3 rows are equal to rows of topic {}", two.topic)), "{}", audit.stderr());
    // Under the id of no topic that there is, they are rows of a topic that was read twice.
    one.sql("INSERT INTO db.pings SELECT * REPLACE ('mirrored' AS _source) FROM db.pings");
    let mut audit = one.run("audit", &["--table", "pings"]);
    assert_eq!(audit.exit_code(WAIT_TIMEOUT), Some(1));
    assert!(audit.stdout().contains("under another _source, too: mirrored"), "{}", audit.stdout());
}
