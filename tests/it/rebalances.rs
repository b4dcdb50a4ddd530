//! Whose a dead member's partitions are, and when. (Members that come, go and die under load: `tests/faults`.)

use crate::support::oracle;
use crate::support::shop::Shop;
use crate::support::{PATIENCE, eventually, is};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use std::time::Duration;

#[test]
fn a_killed_members_partitions_are_taken_over_within_fifteen_seconds() {
    let shop = Shop::open_alone();
    let load = shop.produce(&["--rate", "3000"]);
    let mut survivor = shop.ingester_at_work(&[]);
    let mut victim = shop.ingester_at_work(&[]);
    shop.drained();
    victim.kill();
    // Behind what was there at the kill there is new work in each partition: past this offset somebody else went on.
    let ends = shop.ends().into_iter().map(|(partition, end)| (partition, end + 1)).collect();
    shop.drained_to(&ends, Duration::from_secs(15));
    let manifest = load.stop();
    shop.drained();
    survivor.drains();
    oracle::exactly_once(&shop, &manifest);
}

/// The name that a member is known by: the broker puts its own in front of a random one.
fn names(shop: &Shop) -> Vec<String> {
    let ids = shop.kafka.members(&shop.group);
    ids.iter().map(|id| id.split('-').take(2).collect::<Vec<_>>().join("-")).collect()
}

#[test]
fn an_ingester_that_is_started_after_a_crash_sits_down_in_its_place() {
    let shop = Shop::open();
    let load = shop.produce(&["--rate", "1000"]);
    let mut crashed = shop.ingester_at_work(&["--batch-rows", "100"]);
    let before = names(&shop);
    assert!(before.len() == 1 && before[0].starts_with("clickstream-"), "{before:?}");
    shop.drained();
    crashed.kill();
    let mut next = shop.ingester_at_work(&["--batch-rows", "100"]);
    assert_eq!(names(&shop), before, "the same member, and no other one");

    // A frozen one is alive: it keeps its place, and a third one finds another.
    next.freeze();
    let mut other = shop.ingest(&[]);
    eventually(PATIENCE, "the third has joined", || {
        let now = names(&shop);
        is(now.iter().any(|name| *name != before[0]), now)
    });
    next.wake();
    shop.drained();
    for member in [&mut next, &mut other] {
        member.drains();
    }
    // Whoever goes in order leaves no place behind that the group would wait for.
    assert_eq!(names(&shop), Vec::<String>::new());
    let manifest = load.stop();
    shop.ingest(&["--until-end"]).succeeds();
    oracle::exactly_once(&shop, &manifest);
}

#[test]
fn whoever_stops_in_order_leaves_no_place_that_the_group_waits_for() {
    let shop = Shop::open();
    let load = shop.produce(&["--rate", "1000"]);
    for round in 0..10 {
        let mut stays = shop.ingest(&[]);
        let mut leaves = shop.ingest(&[]);
        leaves.says("partitions assigned", 1);
        leaves.drains();
        stays.says("partitions assigned", 1);
        stays.drains();
        assert_eq!(names(&shop), Vec::<String>::new(), "after round {round}");
    }
    let manifest = load.stop();
    shop.ingest(&["--until-end"]).succeeds();
    oracle::exactly_once(&shop, &manifest);
}

/// Somebody else of this name, who joins the group.
fn twin(shop: &Shop, name: &str) -> BaseConsumer {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &shop.kafka.brokers).set("group.id", &shop.group).set("group.instance.id", name);
    config.set("enable.auto.commit", "false").set("partition.assignment.strategy", "cooperative-sticky");
    let twin: BaseConsumer = config.create().expect("settings that are valid");
    twin.subscribe(&[&shop.topic]).expect("a topic that is there");
    twin
}

/// After a broker's death, a late request of its own may look to Kafka like one of somebody else.
#[test]
fn an_ingester_that_kafka_takes_for_somebody_else_joins_again() {
    let shop = Shop::open();
    let load = shop.produce(&["--rate", "1000"]);
    let mut ingester = shop.ingester_at_work(&["--batch-rows", "100"]);
    let twin = twin(&shop, &names(&shop)[0]);
    eventually(PATIENCE, "the twin has put it out, and it joins again", || {
        let _ = twin.poll(Duration::from_millis(50));
        is(ingester.said("joining again") == 1, ingester.has_ended())
    });
    drop(twin);
    ingester.says("lease opened", 2);
    let manifest = load.stop();
    shop.drained();
    ingester.drains();
    oracle::exactly_once(&shop, &manifest);
}

#[test]
fn of_two_with_one_name_on_two_machines_one_stops_and_says_why() {
    let shop = Shop::open();
    let mut ingester = shop.ingester_at_work(&["--instance-id", "eu-1"]);
    let twin = twin(&shop, "eu-1");
    eventually(PATIENCE, "it has ended", || {
        let _ = twin.poll(Duration::from_millis(50));
        is(ingester.has_ended(), ())
    });
    assert_eq!(ingester.exit_code(PATIENCE), Some(1));
    assert!(ingester.stderr().contains("does another one run with the same --instance-id?"), "{}", ingester.stderr());
}

#[test]
fn a_name_that_a_living_ingester_has_is_refused() {
    let shop = Shop::open();
    let mut first = shop.ingester_at_work(&["--instance-id", "eu-1"]);
    let mut second = shop.ingest(&["--instance-id", "eu-1"]);
    assert_eq!(second.exit_code(PATIENCE), Some(1));
    assert_eq!(second.stderr(), "clickstream: --instance-id eu-1: another ingester of this machine has it\n");
    first.drains();
}
