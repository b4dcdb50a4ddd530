//! F8, F20: brokers are killed, or stall.

use crate::scenario_run::{ScenarioRun, is_at_work};
use crate::scene::Scene;
use crate::support::stack::OwnKafka;
use crate::support::test_env::{Services, TestEnv};
use rand::RngExt;
use std::time::Duration;

/// The longest time from one fault to the next.
const FAULT_INTERVAL: Duration = Duration::from_secs(3);

/// The only broker, and with it the group's coordinator.
pub fn killed(run: &mut ScenarioRun) {
    let kafka = OwnKafka::start(1);
    let mut scene = Scene::open(run, |services| Services { brokers: kafka.brokers(), ..services }, &[]);
    for round in run.rounds(2) {
        run.moment(FAULT_INTERVAL);
        kafka.kill(1);
        run.fault();
        run.moment(FAULT_INTERVAL);
        kafka.up(1);
        scene.recovers(run);
        // Why, and that it is over.
        scene.ingester.says("nothing listens at ", round as usize + 1);
        scene.ingester.says(" is back", round as usize + 1);
    }
    scene.closes(run);
}

/// The other two go on meanwhile: two in-sync replicas are enough.
pub fn one_of_three_killed(run: &mut ScenarioRun) {
    let kafka = OwnKafka::start(3);
    let scene = Scene::open(run, |services| Services { brokers: kafka.brokers(), ..services }, &[]);
    let env = &scene.env;
    for round in run.rounds(2) {
        run.moment(FAULT_INTERVAL);
        let partition = run.rng.random_range(0..scene.setting.partitions);
        let node =
            if round % 2 == 0 { env.kafka.leader(&env.topic, partition) } else { env.kafka.coordinator(&env.group) };
        kafka.kill(node);
        run.fault();
        // The time includes elections, which only Kafka determines.
        run.goes_on(&scene.env);
        kafka.up(node);
        scene.recovers(run);
    }
    scene.closes(run);
}

/// The schedule continues: each event that could not be sent in time counts as late, and none is given up.
pub fn stalls(run: &mut ScenarioRun) {
    let kafka = OwnKafka::start(1);
    let setting = run.draw();
    let env = TestEnv::open_in(&Services { brokers: kafka.brokers(), ..setting.services() });
    let log = env.file("latency.log");
    let log = log.to_str().expect("plain names");
    let mut load = env.produce(&[&setting.load()[..], &["--latency-log", log]].concat());
    let mut ingester = env.ingester_at_work(&setting.flags("one"));
    is_at_work(&env);
    let stall = if run.is_long() { 30 } else { 10 };
    for _ in run.rounds(1) {
        kafka.freeze(1);
        run.fault();
        std::thread::sleep(Duration::from_secs(stall));
        load.program.says(" does not answer", 1);
        ingester.says(" does not answer", 1);
        kafka.wake(1);
        run.recovers(&env);
        load.program.says(" is back", 1);
        ingester.says(" is back", 1);
    }
    let manifest = load.stop();
    env.drained();
    ingester.drains();
    let ids: std::collections::BTreeSet<_> =
        manifest.iter().filter(|line| line.fault.as_deref() != Some("dup")).map(|line| &line.event_id).collect();
    let due = manifest.iter().filter(|line| line.fault.as_deref() != Some("dup")).count();
    assert_eq!(ids.len(), due, "each event once");
    let mut report = env.run("report", &[log]);
    report.succeeds();
    let slip = largest(&report.stdout(), "slip").max(largest(&report.stdout(), "ack"));
    assert!(slip > stall as f64 * 0.8, "the stall of {stall} s is not in the report: {}", report.stdout());
    run.judge(&env, &manifest);
}

/// The maximum of a stage in the report's table, in seconds.
fn largest(report: &str, stage: &str) -> f64 {
    let line = report.lines().find(|line| line.starts_with(stage)).unwrap_or_default();
    let words: Vec<_> = line.split_whitespace().collect();
    // `… MAX UNIT MEAN UNIT STDDEV UNIT`
    let [.., max, unit, _, _, _, _] = words[..] else { return 0.0 };
    let scale = match unit {
        "s" => 1.0,
        "ms" => 1e-3,
        _ => 1e-6,
    };
    max.parse::<f64>().map_or(0.0, |max| max * scale)
}
