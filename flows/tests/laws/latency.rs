//! Laws of the measured latencies. They use the real clock, paused or not.

use crate::support::{FakeClickHouse, Fate, TestPipeline, event, events, ms, passed, reject};
use flows::{Backlog, Metrics, Payload, Stage, Table, now};
use std::ops::RangeInclusive;

const SECOND: i64 = 1_000_000_000;

#[tokio::test(start_paused = true)]
async fn each_event_is_measured_once_in_each_stage_and_nothing_else_is() {
    for (started_before, is_backlog) in [(3_600 * SECOND, false), (0, true)] {
        each_is_measured_once(started_before, is_backlog).await;
    }
}

/// Measures events of an ingester that started this long ago.
async fn each_is_measured_once(started_before: i64, is_backlog: bool) {
    let pipeline = TestPipeline::new(FakeClickHouse::taking(ms(1)).holding([(Table::Events, 0, 4)]));
    let began = now();
    *pipeline.metrics.backlog() = Backlog::before(began - started_before);
    let ten_seconds_ago = (began - 10 * SECOND) / 1_000_000;
    let mut records = events(0, 0..3);
    for (older_by, record) in records.iter_mut().enumerate() {
        record.received = began - 4 * SECOND;
        let Payload::Event(event) = &mut record.payload else { unreachable!("they are events") };
        event.timestamp_ms = ten_seconds_ago - older_by as i64;
    }
    records.extend([reject(0, 3), passed(0, 4..5)]);
    pipeline.all(records, 10, 1).await.unwrap();

    let latencies = pipeline.metrics.latencies();
    let took = now() - began;
    let all_three_took = |stage, nanos: RangeInclusive<i64>| {
        let histogram = latencies.of(stage);
        assert_eq!(histogram.len(), 3, "{stage:?}");
        // Three significant digits, and nothing below a microsecond.
        let (low, high) = (*nanos.start() as f64 * 0.999, *nanos.end() as f64 * 1.001 + 2_000.0);
        let (min, max) = (histogram.min() as f64, histogram.max() as f64);
        assert!(low <= min && max <= high, "{stage:?}: from {min} to {max}, expected {nanos:?}");
    };
    let truncated = 3 * SECOND / 1_000; // to whole milliseconds, and older by up to two
    all_three_took(Stage::Transit, 6 * SECOND..=6 * SECOND + truncated);
    all_three_took(Stage::Batch, 4 * SECOND..=4 * SECOND + took);
    all_three_took(Stage::Insert, 0..=took);
    all_three_took(Stage::Commit, 0..=took);
    let whole = [Stage::EndToEnd, Stage::Backlog].into_iter().take(1 + usize::from(is_backlog));
    let whole = whole.collect::<Vec<_>>();
    whole.iter().for_each(|&stage| all_three_took(stage, 10 * SECOND..=10 * SECOND + truncated + took));
    let stages = Stage::ALL.into_iter().filter(|&stage| !latencies.of(stage).is_empty());
    let measured = [Stage::Transit, Stage::Batch, Stage::Insert, Stage::Commit];
    assert_eq!(stages.collect::<Vec<_>>(), [&measured[..], &whole].concat());
    assert_eq!(latencies.samples(Stage::Insert), 1, "of one batch");
    assert_eq!(Metrics::read(&pipeline.metrics.newest_ms), ten_seconds_ago as u64);
}

#[tokio::test]
async fn an_event_counts_as_queryable_before_the_rejects_of_its_batch_are_stored() {
    let held_up = ms(60);
    let pipeline = TestPipeline::new(FakeClickHouse::scripted([(Fate::Stored, ms(0)), (Fate::Stored, held_up)]));
    let event = event(0, 0);
    let sent = event.event().unwrap().timestamp_ns();
    let durable = pipeline.settle(vec![event, reject(0, 1)]).await.unwrap();
    let (queryable, stored) = (durable.queryable(), durable.stored());
    assert!(stored - queryable >= held_up.as_nanos() as i64, "{queryable} {stored}");
    let _ledger = pipeline.ledger().commit(durable).await.unwrap();
    let longest = pipeline.metrics.latencies().of(Stage::EndToEnd).max() as i64;
    assert!(longest < stored - sent, "{longest} of {}", stored - sent);
}
