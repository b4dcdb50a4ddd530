//! Whose a dead member's partitions are, and when. (Members that come, go and die under load: `tests/faults`.)

use crate::support::oracle;
use crate::support::stack::OwnClickHouse;
use crate::support::test_env::TestEnv;
use crate::support::{WAIT_TIMEOUT, eventually, is};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use std::time::Duration;

#[test]
fn a_killed_members_partitions_are_taken_over_within_fifteen_seconds() {
    let env = TestEnv::open_alone();
    let load = env.produce(&["--rate", "3000"]);
    let mut survivor = env.ingester_at_work(&[]);
    let mut victim = env.ingester_at_work(&[]);
    env.drained();
    victim.kill();
    // Each partition has new messages after those at the kill. A commit beyond this offset shows that another member
    // continued.
    let ends = env.ends().into_iter().map(|(partition, end)| (partition, end + 1)).collect();
    env.drained_to(&ends, Duration::from_secs(15));
    let manifest = load.stop();
    env.drained();
    survivor.drains();
    oracle::exactly_once(&env, &manifest);
}

/// Later leases store what a rebalance cut off. Only a shutdown that leaves rows behind is a failure.
#[test]
fn a_drain_that_a_rebalance_cut_short_is_forgotten_when_a_later_one_stores_the_rest() {
    let own = OwnClickHouse::start();
    let env = TestEnv::open_on(&own);
    // With this strategy each rebalance revokes all partitions.
    let flags = ["--kafka", "partition.assignment.strategy=range", "--drain-timeout", "1s", "--batch-timeout", "500ms"];
    let (mut stays, mut leaves) = (env.ingester_at_work(&flags), env.ingester_at_work(&flags));
    env.produce(&["--count", "300", "--rate", "max"]).finish();
    env.drained();
    own.freeze();
    env.produce(&["--count", "300", "--rate", "max"]).finish();
    leaves.term();
    leaves.gives_up("shutdown timed out");
    stays.says("the drain timed out", 1);
    own.wake();
    env.drained();
    stays.drains();
    assert_eq!(env.stored(), 600);
}

/// The name that a member is known by: the broker puts its own in front of a random one.
fn names(env: &TestEnv) -> Vec<String> {
    let ids = env.kafka.members(&env.group);
    ids.iter().map(|id| id.split('-').take(2).collect::<Vec<_>>().join("-")).collect()
}

#[test]
fn an_ingester_started_after_a_crash_gets_its_partitions_at_once() {
    let env = TestEnv::open();
    let load = env.produce(&["--rate", "1000"]);
    let mut crashed = env.ingester_at_work(&["--batch-rows", "100"]);
    let before = names(&env);
    assert!(before.len() == 1 && before[0].starts_with("clickstream-"), "{before:?}");
    env.drained();
    crashed.kill();
    let mut next = env.ingester_at_work(&["--batch-rows", "100"]);
    assert_eq!(names(&env), before, "the same member, and no other one");

    // A frozen one is alive: it keeps its place, and a third one finds another.
    next.freeze();
    let mut other = env.ingest(&[]);
    eventually(WAIT_TIMEOUT, "the third has joined", || {
        let now = names(&env);
        is(now.iter().any(|name| *name != before[0]), now)
    });
    next.wake();
    env.drained();
    for member in [&mut next, &mut other] {
        member.drains();
    }
    // A member that leaves in order does not make the group wait.
    assert_eq!(names(&env), Vec::<String>::new());
    let manifest = load.stop();
    env.ingest(&["--until-end"]).succeeds();
    oracle::exactly_once(&env, &manifest);
}

#[test]
fn a_member_that_stops_in_order_keeps_no_partition_from_the_group() {
    let env = TestEnv::open();
    let load = env.produce(&["--rate", "1000"]);
    for round in 0..10 {
        let mut stays = env.ingest(&[]);
        let mut leaves = env.ingest(&[]);
        leaves.says("partitions assigned", 1);
        leaves.drains();
        stays.says("partitions assigned", 1);
        stays.drains();
        assert_eq!(names(&env), Vec::<String>::new(), "after round {round}");
    }
    let manifest = load.stop();
    env.ingest(&["--until-end"]).succeeds();
    oracle::exactly_once(&env, &manifest);
}

/// A second client with this instance id, which joins the group.
fn twin(env: &TestEnv, name: &str) -> BaseConsumer {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &env.kafka.brokers).set("group.id", &env.group).set("group.instance.id", name);
    config.set("enable.auto.commit", "false").set("partition.assignment.strategy", "cooperative-sticky");
    let twin: BaseConsumer = config.create().expect("settings that are valid");
    twin.subscribe(&[&env.topic]).expect("a topic that is there");
    twin
}

/// After a broker's death, Kafka may take a member's late request for that of another one.
#[test]
fn an_ingester_that_kafka_takes_for_somebody_else_joins_again() {
    let env = TestEnv::open();
    let load = env.produce(&["--rate", "1000"]);
    let mut ingester = env.ingester_at_work(&["--batch-rows", "100"]);
    let twin = twin(&env, &names(&env)[0]);
    eventually(WAIT_TIMEOUT, "the twin has put it out, and it joins again", || {
        let _ = twin.poll(Duration::from_millis(50));
        is(ingester.said("joining again") == 1, ingester.has_ended())
    });
    drop(twin);
    ingester.says("lease opened", 2);
    let manifest = load.stop();
    env.drained();
    ingester.drains();
    oracle::exactly_once(&env, &manifest);
}

#[test]
fn of_two_with_one_name_on_two_machines_one_stops_and_says_why() {
    let env = TestEnv::open();
    let mut ingester = env.ingester_at_work(&["--instance-id", "eu-1"]);
    let twin = twin(&env, "eu-1");
    eventually(WAIT_TIMEOUT, "it has ended", || {
        let _ = twin.poll(Duration::from_millis(50));
        is(ingester.has_ended(), ())
    });
    assert_eq!(ingester.exit_code(WAIT_TIMEOUT), Some(1));
    assert!(ingester.stderr().contains("does another process use the same --instance-id?"), "{}", ingester.stderr());
}

/// Its name is a random one. A container that is made of a copy of another's volume has it, too.
#[test]
fn of_two_with_a_copy_of_one_name_one_stops_and_says_why() {
    let env = TestEnv::open();
    let load = env.produce(&["--rate", "500"]);
    let [one, copy] = ["one", "copy"].map(|name| env.dir.join(name));
    env.run("ingest", &["--until-end", "--state-dir", one.to_str().unwrap()]).succeeds();
    private_directory(&copy);
    for file in std::fs::read_dir(&one).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), copy.join(file.file_name())).unwrap();
    }
    let mut twins = [one, copy].map(|state| {
        env.ingest(&["--batch-rows", "100", "--batch-timeout", "600ms", "--state-dir", state.to_str().unwrap()])
    });
    let ended = eventually(WAIT_TIMEOUT, "one of the two gives up", || {
        twins.iter_mut().position(|twin| twin.has_ended()).ok_or("both are running")
    });
    twins[ended].gives_up("--state-dir of its own");
    let manifest = load.stop();
    env.drained();
    twins[1 - ended].drains();
    oracle::exactly_once(&env, &manifest);
}

fn private_directory(path: &std::path::Path) {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().mode(0o700).create(path).unwrap();
}

#[test]
fn a_name_that_a_living_ingester_has_is_refused() {
    let env = TestEnv::open();
    let mut first = env.ingester_at_work(&["--instance-id", "eu-1"]);
    let mut second = env.ingest(&["--instance-id", "eu-1"]);
    assert_eq!(second.exit_code(WAIT_TIMEOUT), Some(1));
    assert_eq!(
        second.stderr(),
        "clickstream: --instance-id eu-1: another ingester of this machine uses it: stop that one, or choose another name\n"
    );
    first.drains();
}
