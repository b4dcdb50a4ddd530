//! F8, F20: brokers are killed, or stall.

use crate::course::{Course, is_at_work};
use crate::scene::Scene;
use crate::support::shop::{Ground, Shop};
use crate::support::stack::OwnKafka;
use rand::RngExt;
use std::time::Duration;

const MOMENT: Duration = Duration::from_secs(3);

/// The only broker, and with it the group's coordinator.
pub fn killed(course: &mut Course) {
    let kafka = OwnKafka::start(1);
    let mut scene = Scene::open(course, |ground| Ground { brokers: kafka.brokers(), ..ground }, &[]);
    for round in course.rounds(2) {
        course.moment(MOMENT);
        kafka.kill(1);
        course.fault();
        course.moment(MOMENT);
        kafka.up(1);
        scene.recovers(course);
        // Why, and that it is over.
        scene.ingester.says("nothing listens at ", round as usize + 1);
        scene.ingester.says(" is back", round as usize + 1);
    }
    scene.closes(course);
}

/// The other two go on meanwhile: two in-sync replicas are enough.
pub fn one_of_three_killed(course: &mut Course) {
    let kafka = OwnKafka::start(3);
    let scene = Scene::open(course, |ground| Ground { brokers: kafka.brokers(), ..ground }, &[]);
    let shop = &scene.shop;
    for round in course.rounds(2) {
        course.moment(MOMENT);
        let partition = course.rng.random_range(0..scene.setting.partitions);
        let node = if round % 2 == 0 {
            shop.kafka.leader(&shop.topic, partition)
        } else {
            shop.kafka.coordinator(&shop.group)
        };
        kafka.kill(node);
        course.fault();
        // Elections and all, while it is away: how long those take is Kafka's own affair.
        course.goes_on(&scene.shop);
        kafka.up(node);
        scene.recovers(course);
    }
    scene.closes(course);
}

/// The schedule goes on: each event that could not be sent in time counts as late, and none is given up.
pub fn stalls(course: &mut Course) {
    let kafka = OwnKafka::start(1);
    let setting = course.draw();
    let shop = Shop::open_in(&Ground { brokers: kafka.brokers(), ..setting.ground() });
    let log = shop.file("latency.log");
    let log = log.to_str().expect("plain names");
    let mut load = shop.produce(&[&setting.load()[..], &["--latency-log", log]].concat());
    let mut ingester = shop.ingester_at_work(&setting.flags("one"));
    is_at_work(&shop);
    let stall = if course.is_long() { 30 } else { 10 };
    for _ in course.rounds(1) {
        kafka.freeze(1);
        course.fault();
        std::thread::sleep(Duration::from_secs(stall));
        load.program.says(" does not answer", 1);
        ingester.says(" does not answer", 1);
        kafka.wake(1);
        course.recovers(&shop);
        load.program.says(" is back", 1);
        ingester.says(" is back", 1);
    }
    let manifest = load.stop();
    shop.drained();
    ingester.drains();
    let ids: std::collections::BTreeSet<_> =
        manifest.iter().filter(|line| line.fault.as_deref() != Some("dup")).map(|line| &line.event_id).collect();
    let due = manifest.iter().filter(|line| line.fault.as_deref() != Some("dup")).count();
    assert_eq!(ids.len(), due, "each event once");
    let mut report = shop.run("report", &[log]);
    report.succeeds();
    let slip = largest(&report.stdout(), "slip").max(largest(&report.stdout(), "ack"));
    assert!(slip > stall as f64 * 0.8, "the stall of {stall} s is not in the report: {}", report.stdout());
    course.judge(&shop, &manifest);
}

/// The maximum of a stage in the report's table, in seconds.
fn largest(report: &str, stage: &str) -> f64 {
    let line = report.lines().find(|line| line.starts_with(stage)).unwrap_or_default();
    let words: Vec<_> = line.split_whitespace().collect();
    // `… MAX UNIT MEAN UNIT`
    let [.., max, unit, _, _] = words[..] else { return 0.0 };
    let scale = match unit {
        "s" => 1.0,
        "ms" => 1e-3,
        _ => 1e-6,
    };
    max.parse::<f64>().map_or(0.0, |max| max * scale)
}
