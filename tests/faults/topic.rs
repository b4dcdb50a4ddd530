//! F17: the committed offset is out of the topic's range. (For a topic that was created again: `it rejects`.)

use crate::scenario_run::ScenarioRun;
use crate::support::manifest::Line;
use crate::support::oracle;
use crate::support::test_env::TestEnv;
use std::collections::BTreeMap;

/// Messages were deleted before they were read: retention has passed the committed offset, or a running ingester's
/// position. The ingester reports the gap, with exact offsets.
pub fn out_of_range(run: &mut ScenarioRun) {
    let mut setting = run.draw();
    setting.partitions = 3;
    run.sets(&setting);
    let env = TestEnv::open_in(&setting.services());
    let flags = setting.flags("one");
    let until_end = [&flags[..], &["--until-end"]].concat();
    let mut manifest = env.produce(&["--count=3000", "--rate=max"]).finish();
    env.ingest(&until_end).succeeds();
    let read = env.committed();
    for _ in run.rounds(1) {
        let missed = env.produce(&["--count=3000", "--rate=max"]).finish();
        let gone: BTreeMap<_, _> = env.ends().into_iter().map(|(partition, end)| (partition, end - 100)).collect();
        env.kafka.delete_records(&env.topic, &gone);
        run.fault();
        let mut ingester = env.ingest(&until_end);
        ingester.succeeds();
        for (partition, low) in &gone {
            let lost = low - read[partition];
            let said = format!("{lost} messages were deleted from the topic before they were read");
            assert_eq!(ingester.said(&said), 1, "{said:?}, partition {partition}");
        }
        manifest.extend(missed.into_iter().filter(|line| line.offset >= gone[&line.partition]));
    }
    manifest.extend(deleted_while_frozen(run, &env, &flags));
    assert_eq!(env.committed(), env.ends(), "it went on behind the gap");
    // The remaining messages of the topic are stored once, and so are the rows of before.
    assert_eq!(env.stored(), manifest.len() as i64);
    assert_eq!(env.number("SELECT uniqExact(_partition, _offset) FROM db.events"), manifest.len() as i64);
    let topic = env.kafka.read(&env.topic);
    assert!(topic.iter().all(|record| record.offset >= 0) && oracle::unstored(&env, &topic) == 0);
}

/// Deletes messages while the ingester is frozen. Returns the messages that it could read.
fn deleted_while_frozen(run: &mut ScenarioRun, env: &TestEnv, flags: &[&str]) -> Vec<Line> {
    let mut ingester = env.ingester_at_work(flags);
    let read = env.ends();
    ingester.freeze();
    let lines = env.produce(&["--count=3000", "--rate=max"]).finish();
    let gone: BTreeMap<_, _> = env.ends().into_iter().map(|(partition, end)| (partition, end - 100)).collect();
    env.kafka.delete_records(&env.topic, &gone);
    run.fault();
    ingester.wake();
    env.drained();
    ingester.drains();
    // Some were on their way to it already.
    let stored = env.rows("SELECT toString((_partition, _offset)) FROM db.events");
    let is_stored = |line: &Line| stored.contains(&vec![format!("({},{})", line.partition, line.offset)]);
    let is_gone = |line: &Line| line.offset < gone[&line.partition];
    let came_before = lines.iter().filter(|line| is_gone(line) && is_stored(line)).count() as i64;
    let said: i64 = ingester.stderr().lines().filter_map(deleted).sum();
    let missed: i64 = gone.iter().map(|(partition, low)| low - read[partition]).sum();
    assert_eq!(said + came_before, missed, "each that was deleted unread is said to be");
    lines.into_iter().filter(|line| !is_gone(line) || is_stored(line)).collect()
}

/// How many messages a line of the log says were deleted: `… partition 0: 12 messages were deleted …`
fn deleted(line: &str) -> Option<i64> {
    let (count, _) = line.split_once(" messages were deleted from the topic")?;
    count.rsplit(' ').next()?.parse().ok()
}
