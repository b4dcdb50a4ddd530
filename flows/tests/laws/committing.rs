//! Laws of commits: which offsets may be committed, when, and in which order. The group checks each time that each
//! committed record is stored.

use crate::support::{FakeClickHouse, Fate, Lease, TestPipeline, apart, events, ms, passed, reject};
use flows::{IngestError, LeaseLost, Ledger, Metrics, OffsetRange, OutOfOrder, Record, SettleError, Table};
use futures::{StreamExt, stream};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use tokio::time::{Instant, sleep, timeout};

fn marks<O: flows::Offsets>(ledger: &Ledger<O>) -> Vec<(i32, i64)> {
    ledger.marks().collect()
}

#[tokio::test(start_paused = true)]
async fn ending_the_source_commits_everything() {
    let pipeline = TestPipeline::new(FakeClickHouse::taking(ms(1_000)));
    let interleaved =
        (0..37).flat_map(|offset| (0..3).flat_map(move |partition| events(partition, offset..offset + 1)));
    let ledger = pipeline.all(interleaved.collect(), 10, 4).await.unwrap();
    assert_eq!(marks(&ledger), [(0, 37), (1, 37), (2, 37), (3, 0)]);
    assert_eq!(pipeline.group.committed().into_iter().collect::<Vec<_>>(), marks(&ledger));
    assert_eq!(pipeline.clickhouse.rows().len(), 111);
    assert_eq!(Metrics::read(&pipeline.metrics.events), 111);
}

#[tokio::test(start_paused = true)]
async fn dropping_the_pipeline_commits_nothing_more_and_drops_its_inserts() {
    let pipeline = TestPipeline::new(FakeClickHouse::taking(ms(1_000)));
    let source = stream::iter(events(0, 0..100));
    assert!(timeout(ms(2_500), pipeline.ingest(source, apart(1, 3))).await.is_err(), "it has not ended yet");
    assert_eq!((pipeline.group.marks(0), pipeline.clickhouse.awaited()), ((1..=6).collect(), (3, 3)));
    tokio::task::yield_now().await;
    assert_eq!(pipeline.clickhouse.awaited().0, 0, "the tasks end with the pipeline");
    sleep(ms(3_600_000)).await;
    assert_eq!((pipeline.group.marks(0).len(), pipeline.clickhouse.sent().len()), (6, 9));
}

#[tokio::test(start_paused = true)]
async fn commits_are_in_order_though_inserts_end_out_of_order() {
    let takes = [3_000, 1_000, 2_000, 500].map(|millis| (Fate::Stored, ms(millis)));
    let pipeline = TestPipeline::new(FakeClickHouse::scripted(takes));
    pipeline.all(events(0, 0..4), 1, 4).await.unwrap();
    assert_eq!(pipeline.group.marks(0), [1, 2, 3, 4]);
    let first = pipeline.group.tries()[0].0;
    assert!(first >= ms(3_000) && first < ms(3_010), "{first:?}");
}

#[tokio::test(start_paused = true)]
async fn inserts_go_on_while_a_commit_is_awaited() {
    let pipeline = TestPipeline::new(FakeClickHouse::taking(ms(1_000)));
    pipeline.group.taking(ms(10_000));
    pipeline.all(events(0, 0..3), 1, 3).await.unwrap();
    assert!(
        pipeline.clickhouse.sent().iter().all(|sent| sent.answered < Some(ms(1_010))),
        "{:?}",
        pipeline.clickhouse.sent()
    );
}

#[tokio::test(start_paused = true)]
async fn an_insert_does_not_wait_for_the_commits_of_those_before_it() {
    let pipeline = TestPipeline::new(FakeClickHouse::taking(ms(100)));
    pipeline.group.taking(ms(1_000));
    pipeline.all(events(0, 0..3), 1, 2).await.unwrap();
    // Its place is free as soon as the first result is taken; that is seen when the first commit is over.
    let third = pipeline.clickhouse.sent()[2].began;
    assert!(third < ms(1_110), "the third insert began after {third:?}, behind the commit of the second");
}

#[tokio::test(start_paused = true)]
async fn a_permanent_failure_stops_and_commits_nothing() {
    let pipeline = TestPipeline::new(FakeClickHouse::scripted([(Fate::Permanent, ms(10))]));
    let ran = pipeline.all(events(0, 0..50), 10, 1).await;
    assert!(matches!(ran, Err(IngestError::Settle(SettleError::Permanent(_)))));
    assert_eq!(
        (pipeline.group.tries(), pipeline.clickhouse.rows(), pipeline.clickhouse.sent().len()),
        (vec![], vec![], 1)
    );
}

#[tokio::test(start_paused = true)]
async fn rows_stored_before_a_permanent_failure_are_committed_and_no_later_ones() {
    let script = [(Fate::Stored, ms(100)), (Fate::Permanent, ms(10)), (Fate::Stored, ms(20)), (Fate::Stored, ms(900))];
    let pipeline = TestPipeline::new(FakeClickHouse::scripted(script));
    let ran = pipeline.all(events(0, 0..50), 10, 4).await;
    assert!(matches!(ran, Err(IngestError::Settle(SettleError::Permanent(_)))));
    assert_eq!(pipeline.group.marks(0), [10]);
}

#[tokio::test(start_paused = true)]
async fn a_settling_that_crashes_stops_and_commits_nothing() {
    let pipeline = TestPipeline::new(FakeClickHouse::scripted([(Fate::Panic, ms(0))]));
    let ran = pipeline.all(events(0, 0..50), 10, 4).await;
    assert!(matches!(ran, Err(IngestError::Crashed(_))));
    assert_eq!(pipeline.group.tries(), []);
}

#[tokio::test(start_paused = true)]
async fn a_lost_lease_writes_nothing_more() {
    let pipeline = TestPipeline::new(FakeClickHouse::scripted(vec![(Fate::Failed, ms(10)); 1_000]));
    let lease = pipeline.lease.clone();
    let loss = async move {
        sleep(ms(20_000)).await;
        lease.lose();
    };
    let (ran, ()) = futures::join!(pipeline.all(events(0, 0..50), 10, 4), loss);
    assert!(matches!(ran, Err(IngestError::Settle(SettleError::Lost(LeaseLost)))));
    let sent = pipeline.clickhouse.sent();
    assert!(sent.len() > 40 && sent.iter().all(|sent| sent.began <= ms(20_000)), "{}", sent.len());
    assert_eq!((pipeline.group.tries(), pipeline.clickhouse.rows()), (vec![], vec![]));
}

#[tokio::test(start_paused = true)]
async fn the_lease_is_proved_before_each_insert() {
    for proofs in 0..5 {
        let mut pipeline = TestPipeline::new(FakeClickHouse::taking(ms(10)));
        pipeline.lease = Arc::new(Lease::lasting(proofs));
        assert!(pipeline.all(events(0, 0..100), 10, 1).await.is_err());
        assert_eq!(
            (pipeline.clickhouse.sent().len(), pipeline.group.tries().len()),
            (proofs as usize, proofs as usize)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_fails_loses_nothing_and_is_covered_by_the_next() {
    let pipeline = TestPipeline::new(FakeClickHouse::taking(ms(10)));
    pipeline.group.failing(3);
    let ledger = pipeline.all(events(0, 0..50), 10, 1).await.unwrap();
    assert_eq!(pipeline.group.marks(0), [10, 20, 30, 40, 50], "each batch is committed once, confirmed or not");
    assert_eq!((marks(&ledger)[0], pipeline.group.committed()[&0]), ((0, 50), 50));
    assert_eq!(pipeline.metrics.commits_owed.load(SeqCst), 3);
    assert_eq!(pipeline.metrics.commits.load(SeqCst), 2);
    assert_eq!(pipeline.clickhouse.rows().len(), 50);
}

#[tokio::test(start_paused = true)]
async fn stored_offsets_are_passed_over_and_committed() {
    let rows = (3..9).map(|offset| (Table::Events, 0, offset));
    let pipeline = TestPipeline::new(FakeClickHouse::taking(ms(10)).holding(rows));
    let topic = [events(0, 0..3), vec![passed(0, 3..8), passed(0, 8..9)], events(0, 9..12)].concat();
    pipeline.all(topic, 4, 1).await.unwrap();
    assert_eq!(pipeline.group.marks(0), [8, 12]);
    assert_eq!(pipeline.clickhouse.rows().len(), 12, "the double refuses what is stored already");
    assert_eq!(Metrics::read(&pipeline.metrics.skipped), 6);
}

#[tokio::test(start_paused = true)]
async fn a_batch_of_stored_offsets_only_is_committed_without_an_insert() {
    let pipeline = TestPipeline::new(FakeClickHouse::taking(ms(10)).holding([(Table::Rejected, 0, 4)]));
    pipeline.all(vec![passed(0, 0..5)], 4, 1).await.unwrap();
    assert_eq!((pipeline.group.marks(0), pipeline.clickhouse.sent().len()), (vec![5], 0));
}

#[tokio::test(start_paused = true)]
async fn rejects_and_events_of_one_batch_are_both_settled_before_the_commit() {
    let script = [(Fate::Stored, ms(10)), (Fate::Failed, ms(1_000)), (Fate::Stored, ms(1_000))];
    let pipeline = TestPipeline::new(FakeClickHouse::scripted(script));
    let began = Instant::now();
    pipeline.all([events(0, 0..5), vec![reject(0, 5)], events(0, 6..9)].concat(), 10, 1).await.unwrap();
    assert_eq!(pipeline.clickhouse.offsets(Table::Rejected), [(0, 5)]);
    assert_eq!(pipeline.clickhouse.offsets(Table::Events).len(), 8);
    assert_eq!(pipeline.group.marks(0), [9]);
    assert!(began.elapsed() > ms(2_000), "not before the reject was stored at its second attempt");
}

/// The error of `ingest` for records that do not chain, with two rows an insert; and the offsets that it committed.
async fn unchained(records: Vec<Record>) -> (OutOfOrder, Vec<i64>) {
    let pipeline = TestPipeline::new(FakeClickHouse::taking(ms(10)));
    let failed = pipeline.all(records, 2, 4).await.map(|_| ()).unwrap_err();
    let (IngestError::OutOfOrder(why) | IngestError::Settle(SettleError::OutOfOrder(why))) = failed else {
        panic!("{failed:?}");
    };
    (why, pipeline.group.marks(0))
}

#[tokio::test(start_paused = true)]
async fn a_range_that_jumps_stops_the_pipeline_and_is_not_committed() {
    let jump =
        |first| OutOfOrder { partition: 0, expected: Some(first - 1), found: OffsetRange::new(first, first + 1) };
    // Within a batch, at its border, and at the very beginning.
    assert_eq!(unchained([events(0, 0..3), events(0, 4..9)].concat()).await, (jump(4), vec![2]));
    let border = unchained([events(0, 0..4), events(0, 5..9)].concat()).await;
    assert_eq!((border.0.expected, border.1), (Some(4), vec![2, 4]));
    let beginning = unchained(events(0, 1..4)).await;
    assert_eq!((beginning.0.expected, beginning.1), (Some(0), vec![]));
}

#[tokio::test(start_paused = true)]
async fn a_range_that_goes_back_stops_the_pipeline_and_is_not_committed() {
    let (why, marks) = unchained([events(0, 0..3), events(0, 2..9)].concat()).await;
    assert_eq!((why.expected, why.found, marks), (Some(3), OffsetRange::new(2, 3), vec![2]));
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_goes_back_stores_nothing_twice() {
    let pipeline = TestPipeline::new(FakeClickHouse::taking(ms(10)));
    let ran = pipeline.all([events(0, 0..4), events(0, 2..6)].concat(), 2, 1).await;
    let ended = ran.map(|_| ()).unwrap_err();
    assert!(!matches!(ended, IngestError::Crashed(_)), "the double saw stored rows come again: {ended:?}");
    assert_eq!(pipeline.clickhouse.rows().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn the_ledger_refuses_a_partition_that_it_does_not_hold() {
    let pipeline = TestPipeline::new(FakeClickHouse::taking(ms(10)));
    let durable = pipeline.settle([events(0, 0..3), events(7, 0..3)].concat()).await.unwrap();
    let why = pipeline.ledger().commit(durable).await.map(|_| ()).unwrap_err();
    assert_eq!((why.partition, pipeline.group.tries()), (7, vec![]), "nor does it commit the rest of the batch");
}

#[tokio::test(start_paused = true)]
async fn the_ledger_refuses_a_partition_that_it_does_not_hold_at_any_offset() {
    let pipeline = TestPipeline::new(FakeClickHouse::taking(ms(10)));
    // A consumer reports this position before it has one: librdkafka's OFFSET_END is -1.
    let durable = pipeline.settle(vec![passed(7, -1..3)]).await.unwrap();
    assert!(pipeline.ledger().commit(durable).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn offsets_without_a_record_are_passed_with_the_record_behind_them() {
    let pipeline = TestPipeline::new(FakeClickHouse::taking(ms(10)));
    let mut topic = events(0, 0..12);
    topic.retain(|record| record.offset() % 3 == 0);
    for behind in 1..topic.len() {
        topic[behind].range.first = topic[behind - 1].range.next;
    }
    pipeline.ingest(stream::iter(topic).boxed(), apart(2, 4)).await.unwrap();
    assert_eq!(pipeline.group.marks(0), [4, 10]);
}
