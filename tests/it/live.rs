//! While a service is away, each figure says so, and grows with what waits.

use crate::alarms::{Observed, SAID_WITHIN};
use crate::support::stack::{OwnClickHouse, OwnKafka};
use crate::support::test_env::{Services, TestEnv};
use crate::support::{WAIT_TIMEOUT, eventually, is};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use std::time::{Duration, Instant};

/// The time by which figures may be behind: they are updated twice a second, on a machine that other tests keep busy.
const BEHIND: Duration = Duration::from_secs(3);

#[test]
fn a_frozen_clickhouse_makes_the_figures_grow_before_it_answers_again() {
    let own = OwnClickHouse::start();
    let env = TestEnv::open_on(&own);
    let mut ingester = Observed::start(&env, &[]);
    let production = env.produce(&["--rate", "100"]);
    eventually(WAIT_TIMEOUT, "rows are stored", || is(env.stored() > 100, env.stored()));
    ingester.is_ready();
    assert_eq!(ingester.metric("promise_seconds"), 0.3);
    ingester.shows("oldest_unfinished_seconds", |seconds| seconds < 1.0);
    ingester.shows("latency_seconds{stage=\"e2e\",quantile=\"0.99\"}", |seconds| seconds > 0.0);

    own.freeze();
    let frozen = Instant::now();
    ingester.program.says("WARN ClickHouse has not answered for ", 1);
    assert!(frozen.elapsed() < SAID_WITHIN, "said after {:?}", frozen.elapsed());
    ingester.is_not_ready("ClickHouse has not answered for ");
    // Messages since then are not stored: a hundred messages a second, the oldest of them as old as the freeze.
    for second in 3..=8_u64 {
        let age = Duration::from_secs(second);
        let grown = |name: &str, least: f64| {
            ingester.shows(name, |value| value >= least);
            assert!(frozen.elapsed() < age + BEHIND, "{name} is behind: {:?}", frozen.elapsed());
        };
        grown("oldest_unfinished_seconds", age.as_secs_f64());
        grown("lag_messages", 80.0 * (second - 1) as f64);
        grown("latency_seconds{stage=\"e2e\",quantile=\"0.99\"}", (age - Duration::from_secs(1)).as_secs_f64() * 0.8);
    }
    let late = ingester.metric("e2e_seconds_count") - ingester.metric("e2e_seconds_bucket{le=\"6\"}");
    assert_eq!(late, 0.0, "a counter counts what is stored");
    // The line that comes every ten seconds.
    ingester.program.says("INFO ClickHouse has not answered for ", 1);
    let log = ingester.program.stderr();
    let line = log.lines().find(|line| line.contains("INFO ClickHouse has not answered for ")).unwrap_or_default();
    for part in ["Kafka keeps them", "lag ", "e2e p50 ", "promise of 300 ms broken for "] {
        assert!(line.contains(part), "{part}: {line}");
    }
    own.wake();
    ingester.program.says("INFO ClickHouse answers again after ", 1);
    ingester.is_ready();
    ingester.shows("oldest_unfinished_seconds", |seconds| seconds < 1.0);
    let sent = production.stop().len();
    env.drained();
    assert!(ingester.metric("latency_seconds{stage=\"e2e\",quantile=\"0.999\"}") >= 8.0, "it took that long");
    ingester.program.drains();
    assert_eq!(env.stored(), sent as i64);
    for once in ["WARN ClickHouse has not answered", "INFO ClickHouse answers again"] {
        assert_eq!(ingester.program.said(once), 1, "{once}: {}", ingester.program.stderr());
    }
}

/// In a rebalance of this strategy, each member gives back all partitions, and waits until all members have joined.
const EAGER: &str = "partition.assignment.strategy=range";

/// Another member of the group, which stores nothing, and takes part in a rebalance only while it is polled. Its session is longer
/// than Kafka is frozen.
fn other_member(env: &TestEnv) -> BaseConsumer {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &env.kafka.brokers).set("group.id", &env.group).set("session.timeout.ms", "45000");
    config.set("enable.auto.commit", "false").set("partition.assignment.strategy", "range");
    let member: BaseConsumer = config.create().expect("settings that are valid");
    member.subscribe(&[&env.topic]).expect("a topic that is there");
    member
}

#[test]
fn after_a_frozen_kafka_messages_wait_for_the_group_and_those_of_another_member_are_not_counted() {
    let kafka = OwnKafka::start(1);
    let env = TestEnv::open_in(&Services { brokers: kafka.brokers(), ..Services::default() });
    let mut ingester = Observed::start(&env, &["--kafka", EAGER]);
    let produce = || env.produce(&["--count", "300", "--rate", "max"]).finish().len();
    let mut sent = produce();
    env.drained();

    let other = other_member(&env);
    let has = eventually(WAIT_TIMEOUT, "the other member has a partition", || {
        let _ = other.poll(Duration::from_millis(50));
        let has: Vec<_> = other.assignment().expect("a list").elements().iter().map(|at| at.partition()).collect();
        if has.is_empty() { Err(has) } else { Ok(has) }
    });
    let messages = || {
        let (ends, committed) = (env.ends(), env.committed());
        let own = ends.iter().filter(|(at, _)| !has.contains(at));
        own.map(|(at, end)| end - committed.get(at).unwrap_or(&0)).sum::<i64>()
    };
    sent += produce();
    eventually(WAIT_TIMEOUT, "the ingester's own partitions are stored", || is(messages() == 0, messages()));
    assert!(env.stored() < sent as i64, "those of the other member are not");
    ingester.shows("partitions", |partitions| partitions == (3 - has.len()) as f64);
    ingester.shows("lag_messages", |lag| lag == 0.0);
    ingester.shows("oldest_unfinished_seconds", |seconds| seconds == 0.0);
    ingester.is_ready();

    // The other member does not answer the rebalance that a third one begins.
    let revoked = ingester.program.said("partitions revoked");
    let third = other_member(&env);
    ingester.program.says("partitions revoked", revoked + 1);
    sent += produce();
    ingester.is_not_ready("this member has waited for its group for ");
    assert!(
        ingester.metric("stuck_seconds{at=\"group\"}") < 30.0,
        "it is said once messages wait longer than promised"
    );
    kafka.freeze(1);
    // Longer than the ingester's session.
    ingester.shows("stuck_seconds{at=\"kafka\"}", |seconds| seconds > 7.0);
    kafka.wake(1);
    ingester.program.says("INFO Kafka answers again after ", 1);
    // No member has these.
    sent += produce();
    let lag = messages();
    assert!(lag > 0);
    ingester.shows("lag_messages", |shown| shown == lag as f64);
    ingester.shows("oldest_unfinished_seconds", |seconds| seconds > 1.0);
    ingester.shows("latency_seconds{stage=\"e2e\",quantile=\"0.999\"}", |seconds| seconds > 1.0);
    ingester.is_not_ready("this member has waited for its group for ");
    ingester.is_not_ready(&format!(": {lag} messages wait in the partitions that it had, the oldest for "));
    ingester.program.says("WARN this member has waited for its group for ", 1);
    ingester.program.says("INFO this member has waited for its group for ", 1);
    let log = ingester.program.stderr();
    let line = log.lines().find(|line| line.contains("INFO this member has waited")).unwrap_or_default();
    assert!(line.contains(&format!("lag {lag} ")) && line.contains("broken for "), "{line}");
    assert_eq!(ingester.metric("partitions"), 0.0);

    drop((other, third));
    ingester.program.says("INFO the group has assigned partitions after ", 1);
    env.drained();
    ingester.shows("lag_messages", |lag| lag == 0.0);
    ingester.shows("oldest_unfinished_seconds", |seconds| seconds == 0.0);
    ingester.is_ready();
    ingester.program.drains();
    assert_eq!(env.stored(), sent as i64);
}
